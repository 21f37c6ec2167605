/** Nova: flavors and aggregates; and the quotas of Nova, Cinder and Neutron. https://docs.openstack.org/api-ref/compute/ */
import type { OpenStackClient } from '../openstack/client.js';
import { at, isObject, number, text, texts } from '../openstack/json.js';
import { projectId } from './identity.js';
import { type Change, changedMap, type Desired, given, type Kind, mapFields, reply } from './kind.js';
import type { FieldValue, ObservedObject } from './types.js';

/** Flavors come with their extra specs from 2.61 on. */
const FLAVORS = '2.61';

const stringFields = (prefix: string, map: unknown): Record<string, FieldValue> =>
  isObject(map)
    ? Object.fromEntries(Object.entries(map).map(([key, value]) => [`${prefix} ${key}`, String(value)]))
    : {};

/** https://docs.openstack.org/api-ref/compute/#update-flavor-description: nothing but the description can be changed. */
const IMMUTABLE =
  'Nova changes no flavor. Name another in cloud.flavors; or delete this one (`openstack flavor delete NAME`) and apply: it is made anew with another id, and servers keep the size that they have.';

export const flavor: Kind<'flavor'> = {
  key: d => d.name,
  refers: () => [],
  left: Object.fromEntries(
    ['vcpus', 'memory_mib', 'disk_gib', 'ephemeral_gib', 'swap_mib', 'public'].map(f => [f, IMMUTABLE]),
  ),
  fields: d => ({
    vcpus: d.vcpus,
    memory_mib: d.memoryMiB,
    disk_gib: d.diskGiB,
    ephemeral_gib: d.ephemeralGiB ?? 0,
    swap_mib: d.swapMiB ?? 0,
    public: d.public ?? true,
    ...mapFields('spec', d.extraSpecs),
  }),
  observe: async (look, wanted) => {
    const rows = await look.list('compute', '/flavors/detail?is_public=None', 'flavors', FLAVORS);
    const out = new Map<string, ObservedObject>();
    for (const { name } of wanted) {
      const row = rows.find(r => r['name'] === name);
      if (row)
        out.set(name, {
          id: text(row, 'id'),
          fields: {
            vcpus: number(row, 'vcpus') ?? 0,
            memory_mib: number(row, 'ram') ?? 0,
            disk_gib: number(row, 'disk') ?? 0,
            ephemeral_gib: number(row, 'OS-FLV-EXT-DATA:ephemeral') ?? 0,
            // An empty string before 2.75.
            swap_mib: number(row, 'swap') ?? 0,
            public: at(row, 'os-flavor-access:is_public') !== false,
            ...stringFields('spec', at(row, 'extra_specs')),
          },
        });
    }
    return out;
  },
  create: async (change, d) => {
    const flavor = given({
      name: d.name,
      vcpus: d.vcpus,
      ram: d.memoryMiB,
      disk: d.diskGiB,
      'OS-FLV-EXT-DATA:ephemeral': d.ephemeralGiB,
      swap: d.swapMiB,
      'os-flavor-access:is_public': d.public ?? true,
    });
    const { body } = await change.client.request('compute', 'POST', '/flavors', { flavor }, reply(change.signal));
    const id = text(body, 'flavor', 'id');
    if (d.extraSpecs && Object.keys(d.extraSpecs).length > 0) await setSpecs(change, id, d.extraSpecs);
    return id;
  },
  update: async (change, d, id, changes) => {
    const specs = changedMap('spec', d.extraSpecs, changes);
    if (specs) await setSpecs(change, id, specs);
  },
  remove: async (change, id) => {
    await change.client.request('compute', 'DELETE', `/flavors/${id}`, undefined, reply(change.signal));
  },
};

const setSpecs = (change: Change, id: string, extra_specs: Readonly<Record<string, string>>) =>
  change.client.request('compute', 'POST', `/flavors/${id}/os-extra_specs`, { extra_specs }, reply(change.signal));

export const aggregate: Kind<'aggregate'> = {
  key: d => d.name,
  refers: () => [],
  fields: d => ({
    ...(d.zone === undefined ? {} : { zone: d.zone }),
    ...Object.fromEntries((d.hosts ?? []).map(host => [`host ${host}`, true])),
    ...mapFields('metadata', d.metadata),
  }),
  observe: async (look, wanted) => {
    const rows = await look.list('compute', '/os-aggregates', 'aggregates');
    const out = new Map<string, ObservedObject>();
    for (const { name } of wanted) {
      const row = rows.find(r => r['name'] === name);
      if (row)
        out.set(name, {
          id: String(row['id']),
          fields: {
            zone: text(row, 'availability_zone'),
            ...Object.fromEntries(texts(row, 'hosts').map(host => [`host ${host}`, true])),
            ...stringFields('metadata', at(row, 'metadata')),
          },
        });
    }
    return out;
  },
  create: async (change, d) => {
    const aggregate = { name: d.name, availability_zone: d.zone ?? null };
    const { body } = await change.client.request(
      'compute',
      'POST',
      '/os-aggregates',
      { aggregate },
      reply(change.signal),
    );
    const id = String(at(body, 'aggregate', 'id'));
    await aggregateParts(change, id, d.hosts ?? [], d.metadata);
    return id;
  },
  update: async (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    if (named.has('zone')) {
      const aggregate = { availability_zone: d.zone };
      await change.client.request('compute', 'PUT', `/os-aggregates/${id}`, { aggregate }, reply(change.signal));
    }
    const hosts = (d.hosts ?? []).filter(host => named.has(`host ${host}`));
    await aggregateParts(change, id, hosts, changedMap('metadata', d.metadata, changes));
  },
};

async function aggregateParts(
  change: Change,
  id: string,
  hosts: readonly string[],
  metadata: Readonly<Record<string, string>> | undefined,
): Promise<void> {
  const act = (body: unknown, accept: number[] = []) =>
    change.client.request('compute', 'POST', `/os-aggregates/${id}/action`, body, { ...reply(change.signal), accept });
  // 409: the host is in it already.
  for (const host of hosts) await act({ add_host: { host } }, [409]);
  if (metadata && Object.keys(metadata).length > 0) await act({ set_metadata: { metadata } });
}

type QuotaService = 'compute' | 'volume' | 'network';

const QUOTA: Readonly<Record<QuotaService, { path: (project: string) => string; key: string }>> = {
  compute: { path: id => `/os-quota-sets/${id}`, key: 'quota_set' },
  volume: { path: id => `/os-quota-sets/${id}`, key: 'quota_set' },
  network: { path: id => `/quotas/${id}`, key: 'quota' },
};
const QUOTA_SERVICES: readonly QuotaService[] = ['compute', 'volume', 'network'];

/** Sets limits of a project; a service of which none is named is left alone. */
export async function setQuota(
  client: OpenStackClient,
  project: string,
  limits: Pick<Desired<'quota'>, QuotaService>,
  signal?: AbortSignal,
): Promise<void> {
  await Promise.all(
    QUOTA_SERVICES.map(async service => {
      const wanted = limits[service];
      if (!wanted || Object.keys(wanted).length === 0) return;
      const { path, key } = QUOTA[service];
      await client.request(service, 'PUT', path(project), { [key]: wanted }, reply(signal));
    }),
  );
}

export const quota: Kind<'quota'> = {
  key: d => d.project,
  refers: d => [`project:${d.project}`],
  fields: d =>
    Object.fromEntries(
      QUOTA_SERVICES.flatMap(service =>
        Object.entries(d[service] ?? {}).map(([name, limit]) => [`${service} ${name}`, limit]),
      ),
    ),
  observe: async (look, wanted) => {
    const out = new Map<string, ObservedObject>();
    await Promise.all(
      wanted.map(async d => {
        const id = await projectId(look, d.project);
        if (id === undefined) return;
        const fields: Record<string, FieldValue> = {};
        await Promise.all(
          QUOTA_SERVICES.filter(service => d[service]).map(async service => {
            const { path, key } = QUOTA[service];
            const limits = at(await look.get(service, path(id)), key);
            for (const name of Object.keys(d[service] ?? {})) {
              const limit = number(limits, name);
              if (limit !== undefined) fields[`${service} ${name}`] = limit;
            }
          }),
        );
        out.set(d.project, { id, fields });
      }),
    );
    return out;
  },
  create: async (change, d) => {
    const id = await change.idOf(`project:${d.project}`);
    await setQuota(change.client, id, d, change.signal);
    return id;
  },
  update: (change, d, id) => setQuota(change.client, id, d, change.signal),
};
