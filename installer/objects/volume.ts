/** Cinder: volume types. https://docs.openstack.org/api-ref/block-storage/v3/ */
import { at, isObject, text } from '../openstack/json.js';
import { changedMap, given, type Kind, mapFields, reply } from './kind.js';
import type { ObservedObject } from './types.js';

export const volumeType: Kind<'volume-type'> = {
  key: d => d.name,
  refers: () => [],
  fields: d => ({
    public: d.public ?? true,
    ...(d.description === undefined ? {} : { description: d.description }),
    ...mapFields('spec', d.extraSpecs),
  }),
  observe: async (look, wanted) => {
    const rows = await look.list('volume', '/types?is_public=None', 'volume_types');
    const out = new Map<string, ObservedObject>();
    for (const { name } of wanted) {
      const row = rows.find(r => r['name'] === name);
      if (!row) continue;
      const specs = at(row, 'extra_specs');
      out.set(name, {
        id: text(row, 'id'),
        fields: {
          public: (row['is_public'] ?? row['os-volume-type-access:is_public']) !== false,
          description: text(row, 'description'),
          ...(isObject(specs)
            ? Object.fromEntries(Object.entries(specs).map(([k, v]) => [`spec ${k}`, String(v)]))
            : {}),
        },
      });
    }
    return out;
  },
  create: async (change, d) => {
    const volume_type = given({
      name: d.name,
      description: d.description,
      'os-volume-type-access:is_public': d.public ?? true,
      extra_specs: d.extraSpecs,
    });
    const { body } = await change.client.request('volume', 'POST', '/types', { volume_type }, reply(change.signal));
    return text(body, 'volume_type', 'id');
  },
  update: async (change, d, id, changes) => {
    if (changes.some(c => c.field === 'public' || c.field === 'description')) {
      const volume_type = given({ name: d.name, description: d.description, is_public: d.public ?? true });
      await change.client.request('volume', 'PUT', `/types/${id}`, { volume_type }, reply(change.signal));
    }
    const extra_specs = changedMap('spec', d.extraSpecs, changes);
    if (extra_specs)
      await change.client.request('volume', 'POST', `/types/${id}/extra_specs`, { extra_specs }, reply(change.signal));
  },
  remove: async (change, id) => {
    await change.client.request('volume', 'DELETE', `/types/${id}`, undefined, reply(change.signal));
  },
};
