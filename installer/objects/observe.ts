/** What the cloud has of the desired objects: a list call per kind, all at the same time. */
import type { OpenStackClient } from '../openstack/client.js';
import type { Look } from './kind.js';
import { expand, kindOf, objectId } from './kinds.js';
import type { DesiredObject, DesiredObjects, ObjectKind, ObservedObject, ObservedObjects } from './types.js';

function createLook(client: OpenStackClient, ids: Record<string, string>, signal: AbortSignal | undefined): Look {
  const asked = new Map<string, Promise<unknown>>();
  const once = <T>(key: string, ask: () => Promise<T>): Promise<T> => {
    const before = asked.get(key) as Promise<T> | undefined;
    if (before) return before;
    const now = ask();
    asked.set(key, now);
    return now;
  };
  const options = (microversion: string | undefined) => ({
    ...(signal ? { signal } : {}),
    ...(microversion ? { microversion } : {}),
  });
  return {
    client,
    signal,
    list: (service, path, key, microversion) =>
      once(`${service} ${path} ${microversion}`, async () =>
        (await client.has(service)) ? client.list(service, path, key, options(microversion)) : [],
      ),
    get: (service, path, microversion) =>
      once(`${service} ${path} ${microversion}`, async () =>
        (await client.has(service))
          ? (await client.request(service, 'GET', path, undefined, options(microversion))).body
          : undefined,
      ),
    seen: (id, apiId) => {
      ids[id] = apiId;
    },
  };
}

/**
 * Reads; changes nothing. A service that is not in the catalogue has nothing.
 * @throws ProblemError of the client
 */
export async function observeObjects(
  client: OpenStackClient,
  desired: DesiredObjects,
  signal?: AbortSignal,
): Promise<ObservedObjects> {
  const { objects, absent } = expand(desired);
  const ids: Record<string, string> = {};
  const look = createLook(client, ids, signal);
  const byKind = new Map<ObjectKind, DesiredObject[]>();
  for (const object of [...objects.values(), ...absent.values()])
    byKind.set(object.kind, [...(byKind.get(object.kind) ?? []), object]);
  const found: Record<string, ObservedObject> = {};
  await Promise.all(
    [...byKind].map(async ([kind, wanted]) => {
      const seen = await kindOf(kind).observe(look, wanted);
      for (const object of wanted) {
        const there = seen.get(kindOf(kind).key(object));
        if (!there) continue;
        found[objectId(object)] = there;
        ids[objectId(object)] = there.id;
      }
    }),
  );
  return { objects: found, ids };
}
