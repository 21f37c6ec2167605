/** Does what the diff says. Everything that can be done at the same time is. */
import { fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import { cloudStatus } from '../openstack/errors.js';
import { items, text } from '../openstack/json.js';
import type { ServiceName } from '../openstack/services.js';
import { diffObjects } from './diff.js';
import type { Change } from './kind.js';
import { expand, kindOf, objectId, objectTitle } from './kinds.js';
import { observeObjects } from './observe.js';
import type { DesiredObject, DesiredObjects, ObjectAction, ObservedObjects } from './types.js';

/** Where an object is found by its name, for those that something refers to without wanting them. */
const LOOKUPS: Readonly<Record<string, readonly [service: ServiceName, path: string, list: string]>> = {
  project: ['identity', '/projects?name=', 'projects'],
  user: ['identity', '/users?name=', 'users'],
  role: ['identity', '/roles?name=', 'roles'],
  service: ['identity', '/services?type=', 'services'],
  image: ['image', '/images?name=', 'images'],
  network: ['network', '/networks?name=', 'networks'],
  subnet: ['network', '/subnets?name=', 'subnets'],
};

/** Ids in the API by our ids, filled as things are made; what is not in it is looked up. */
export type ObjectIds = Map<string, Promise<string>>;

export const idsOf = (observed: ObservedObjects): ObjectIds =>
  new Map(Object.entries(observed.ids).map(([id, apiId]) => [id, Promise.resolve(apiId)]));

async function lookUp(client: OpenStackClient, id: string, signal: AbortSignal | undefined): Promise<string> {
  const [kind = '', ...rest] = id.split(':');
  const name = rest.join(':');
  const lookup = LOOKUPS[kind];
  if (kind === 'region') return name;
  if (lookup) {
    const [service, path, list] = lookup;
    const { body } = await client.request(
      service,
      'GET',
      path + encodeURIComponent(name),
      undefined,
      signal ? { signal } : {},
    );
    const found = text(items(body, list)[0], 'id');
    if (found) return found;
  }
  return fail('cloud-api-failed', `There is no ${objectTitle(id)} in the cloud, and something refers to it.`);
}

function changeOver(
  client: OpenStackClient,
  desired: DesiredObjects,
  ids: ObjectIds,
  signal: AbortSignal | undefined,
): Change {
  return {
    client,
    signal,
    passwordKey: desired.passwordKey,
    idOf: id => {
      const known = ids.get(id);
      if (known) return known;
      const asked = lookUp(client, id, signal);
      ids.set(id, asked);
      asked.catch(() => ids.delete(id));
      return asked;
    },
  };
}

/**
 * Does one action; doing it again does no harm. "It exists already" (409) leads to a second look instead of a failure.
 * @throws ProblemError of the client; cloud-object-fixed when the action is blocked
 */
export async function applyObject(
  client: OpenStackClient,
  action: ObjectAction,
  desired: DesiredObjects,
  ids: ObjectIds = new Map(),
  signal?: AbortSignal,
): Promise<void> {
  if (action.blocked !== undefined)
    fail('cloud-object-fixed', `${action.object} cannot be changed: ${action.blocked}`, {
      detail: { object: action.object, changes: action.changes },
    });
  const change = changeOver(client, desired, ids, signal);
  if (action.kind === 'delete') {
    const kind = kindOf(action.id.replace(/^delete:/, '').split(':')[0] as DesiredObject['kind']);
    try {
      await kind.remove?.(change, action.target ?? '');
    } catch (error) {
      if (cloudStatus(error) !== 404) throw error;
    }
    // Another of the same name may come: not this id any more.
    ids.delete(action.id.slice('delete:'.length));
    return;
  }
  const object = expand(desired).objects.get(action.id);
  if (!object) return fail('internal', `No ${action.object} is wanted.`);
  const kind = kindOf(object.kind);
  if (action.kind === 'update') {
    const target = action.target ?? (await change.idOf(action.id));
    return kind.update(change, object, target, action.changes);
  }
  try {
    ids.set(action.id, Promise.resolve(await kind.create(change, object)));
  } catch (error) {
    if (cloudStatus(error) !== 409) throw error;
    await lookAgain(client, object, desired, ids, error, signal);
  }
}

/** Somebody else was first (or an answer to us was lost): what is there is brought to what it shall be. */
async function lookAgain(
  client: OpenStackClient,
  object: DesiredObject,
  desired: DesiredObjects,
  ids: ObjectIds,
  conflict: unknown,
  signal: AbortSignal | undefined,
): Promise<void> {
  const alone: DesiredObjects = { objects: [object], passwordKey: desired.passwordKey };
  const observed = await observeObjects(client, alone, signal);
  const id = objectId(object);
  const there = observed.objects[id];
  if (!there) throw conflict;
  ids.set(id, Promise.resolve(there.id));
  const rest = diffObjects(alone, observed).find(a => a.id === id);
  if (!rest) return;
  // Made by somebody else with fields that only a new object can change: not ours to delete unasked.
  if (rest.kind !== 'update') throw conflict;
  await applyObject(client, rest, desired, ids, signal);
}
