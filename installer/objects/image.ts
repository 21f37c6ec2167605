/** Glance: images from files of this machine. https://docs.openstack.org/api-ref/image/v2/ */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import { Payload } from '../openstack/http.js';
import { number, text } from '../openstack/json.js';
import { changedMap, given, type Kind, mapFields, reply } from './kind.js';
import type { FieldValue, ObservedObject } from './types.js';

const UPLOAD_TIMEOUT_MS = 3_600_000;

/** Fills an image with a file of this machine. */
export async function uploadImage(
  client: OpenStackClient,
  id: string,
  file: string,
  signal?: AbortSignal,
): Promise<void> {
  let bytes: number;
  try {
    bytes = (await stat(file)).size;
  } catch {
    return fail('image-missing', `There is no file ${file} to make an image of.`);
  }
  const body = new Payload('application/octet-stream', bytes, () => createReadStream(file));
  await client.request('image', 'PUT', `/images/${id}/file`, body, {
    raw: true,
    timeoutMs: UPLOAD_TIMEOUT_MS,
    ...reply(signal),
  });
}

export const image: Kind<'image'> = {
  key: d => d.name,
  refers: d => [d.kernel, d.ramdisk].filter(name => name !== undefined).map(name => `image:${name}`),
  replacing: ['disk_format', 'container_format', 'sha512', 'status'],
  fields: d =>
    ({
      status: 'active',
      disk_format: d.diskFormat,
      container_format: d.containerFormat ?? 'bare',
      ...given({
        sha512: d.sha512,
        visibility: d.visibility,
        min_disk_gib: d.minDiskGiB,
        min_memory_mib: d.minMemoryMiB,
        protected: d.protected,
        kernel: d.kernel,
        ramdisk: d.ramdisk,
      } as Record<string, FieldValue | undefined>),
      ...mapFields('property', d.properties),
    }) as Record<string, FieldValue>,
  observe: async (look, wanted) => {
    const rows = await look.list('image', '/images?limit=200', 'images');
    const names = new Map(rows.map(r => [text(r, 'id'), text(r, 'name')]));
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const same = rows.filter(r => r['name'] === d.name && !/delete/.test(text(r, 'status')));
      const row = same.find(r => r['status'] === 'active') ?? same[0];
      if (!row) continue;
      const status = text(row, 'status');
      out.set(d.name, {
        id: text(row, 'id'),
        fields: {
          // Whoever deactivated it had a reason.
          status: status === 'deactivated' ? 'active' : status,
          disk_format: text(row, 'disk_format'),
          container_format: text(row, 'container_format'),
          sha512: row['os_hash_algo'] === 'sha512' ? text(row, 'os_hash_value') : (d.sha512 ?? ''),
          visibility: text(row, 'visibility'),
          min_disk_gib: number(row, 'min_disk') ?? 0,
          min_memory_mib: number(row, 'min_ram') ?? 0,
          protected: row['protected'] === true,
          kernel: names.get(text(row, 'kernel_id')) ?? '',
          ramdisk: names.get(text(row, 'ramdisk_id')) ?? '',
          ...Object.fromEntries(
            Object.keys(d.properties ?? {})
              .filter(key => Object.hasOwn(row, key))
              .map(key => [`property ${key}`, String(row[key])]),
          ),
        },
      });
    }
    return out;
  },
  create: async (change, d) => {
    const [kernel_id, ramdisk_id] = await Promise.all(
      [d.kernel, d.ramdisk].map(name => (name === undefined ? undefined : change.idOf(`image:${name}`))),
    );
    const { body } = await change.client.request(
      'image',
      'POST',
      '/images',
      {
        ...d.properties,
        ...given({
          name: d.name,
          disk_format: d.diskFormat,
          container_format: d.containerFormat ?? 'bare',
          visibility: d.visibility,
          min_disk: d.minDiskGiB,
          min_ram: d.minMemoryMiB,
          kernel_id,
          ramdisk_id,
        }),
      },
      reply(change.signal),
    );
    const id = text(body, 'id');
    try {
      await uploadImage(change.client, id, d.file, change.signal);
    } catch (error) {
      // An image without content under the right name would look like ours to everybody.
      await change.client.request('image', 'DELETE', `/images/${id}`, undefined).catch(() => {});
      throw error;
    }
    // Last, so that a failed upload can be deleted.
    if (d.protected) await patch(change.client, id, [['replace', 'protected', true]], change.signal);
    return id;
  },
  update: async (change, d, id, changes) => {
    const named = new Set(changes.filter(c => c.from !== null).map(c => c.field));
    const touched = new Set(changes.map(c => c.field));
    const operations: [string, string, unknown][] = [];
    const base: [string, string, unknown][] = [
      ['visibility', 'visibility', d.visibility],
      ['min_disk_gib', 'min_disk', d.minDiskGiB],
      ['min_memory_mib', 'min_ram', d.minMemoryMiB],
      ['protected', 'protected', d.protected],
    ];
    for (const [field, property, value] of base) if (touched.has(field)) operations.push(['replace', property, value]);
    for (const [field, name] of [
      ['kernel', d.kernel],
      ['ramdisk', d.ramdisk],
    ] as const)
      if (touched.has(field)) operations.push(['add', `${field}_id`, await change.idOf(`image:${name}`)]);
    for (const [key, value] of Object.entries(changedMap('property', d.properties, changes) ?? {}))
      operations.push([named.has(`property ${key}`) ? 'replace' : 'add', key, value]);
    await patch(change.client, id, operations, change.signal);
  },
  remove: async (change, id) => {
    await patch(change.client, id, [['replace', 'protected', false]], change.signal);
    await change.client.request('image', 'DELETE', `/images/${id}`, undefined, reply(change.signal));
  },
};

/** RFC 6902 in Glance's media type. */
async function patch(
  client: OpenStackClient,
  id: string,
  operations: readonly (readonly [string, string, unknown])[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const body = JSON.stringify(
    operations.map(([op, property, value]) => ({
      op,
      path: `/${property.replaceAll('~', '~0').replaceAll('/', '~1')}`,
      value,
    })),
  );
  const bytes = Buffer.from(body);
  await client.request(
    'image',
    'PATCH',
    `/images/${id}`,
    new Payload('application/openstack-images-v2.1-json-patch', bytes.length, () => bytes),
    reply(signal),
  );
}
