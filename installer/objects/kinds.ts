/** All kinds of objects, and how each is named. */
import { fail } from '../../provisioner/core/problem.js';
import { aggregate, flavor, quota } from './compute.js';
import { assignment, endpoint, project, region, role, service, user } from './identity.js';
import { image } from './image.js';
import type { Kind } from './kind.js';
import { network, router, securityGroup, subnet } from './network.js';
import { port } from './port.js';
import type { DesiredObject, DesiredObjects, ObjectKind } from './types.js';
import { volumeType } from './volume.js';

/** What refers to others stands after them; what is shown and deleted follows this order. */
const KINDS: { readonly [K in ObjectKind]: Kind<K> } = {
  region,
  role,
  project,
  user,
  service,
  assignment,
  endpoint,
  quota,
  flavor,
  image,
  'volume-type': volumeType,
  aggregate,
  network,
  subnet,
  port,
  'security-group': securityGroup,
  router,
};

export const kindOf = (kind: ObjectKind): Kind<ObjectKind> => KINDS[kind] as Kind<ObjectKind>;

export const rankOf = (kind: ObjectKind): number => Object.keys(KINDS).indexOf(kind);

/** Our id of an object: `endpoint:compute/public/RegionOne`. */
export const objectId = (desired: DesiredObject): string => `${desired.kind}:${kindOf(desired.kind).key(desired)}`;

/** For people: `endpoint compute public RegionOne`. */
export function objectTitle(id: string): string {
  const [kind = '', ...rest] = id.split(':');
  const key = rest.join(':');
  if (kind === 'assignment') {
    const [user, project, role] = key.split('/');
    return `role ${role} of user ${user} in project ${project}`;
  }
  return `${kind.replace('-', ' ')} ${kind === 'endpoint' ? key.replaceAll('/', ' ') : key}`;
}

const isKind = (kind: string): kind is ObjectKind => Object.hasOwn(KINDS, kind);

/** An id that shall not be there, as something that can be looked for: these kinds are found by name (services by type). */
function absentObject(id: string): DesiredObject {
  const kind = id.slice(0, id.indexOf(':'));
  const name = id.slice(kind.length + 1);
  if (!isKind(kind) || !KINDS[kind].remove || kind === 'endpoint' || kind === 'subnet' || kind === 'port' || !name)
    return fail('request-invalid', `"${id}" cannot be taken away by name.`);
  return { kind, name, type: name } as unknown as DesiredObject;
}

/** The desired objects by id with the regions that the endpoints name, and those that shall not be there. */
export function expand(desired: DesiredObjects): {
  objects: ReadonlyMap<string, DesiredObject>;
  absent: ReadonlyMap<string, DesiredObject>;
} {
  const objects = new Map<string, DesiredObject>();
  const add = (object: DesiredObject) => {
    const id = objectId(object);
    if (objects.has(id) && object.kind !== 'region')
      fail('request-invalid', `Two ${objectTitle(id)} are wanted.`, { hint: 'Let one place say it.' });
    objects.set(id, object);
  };
  for (const object of desired.objects) add(object);
  for (const object of desired.objects) if (object.kind === 'endpoint') add({ kind: 'region', name: object.region });
  const absent = new Map((desired.absent ?? []).filter(id => !objects.has(id)).map(id => [id, absentObject(id)]));
  return { objects, absent };
}
