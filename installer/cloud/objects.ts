/** Objects behind the APIs as actions of the plan: users, services and endpoints from the declarations, the rest from the services themselves. */

import type { Action } from '../engine/diff.js';
import type { Catalogue } from '../model/catalogue.js';
import type { CloudModel } from '../model/cloud.js';
import type { DesiredObject, ObjectAction, ObjectKind } from '../objects/types.js';

/** Pseudo node of actions that the server carries out. */
export const CLOUD = 'cloud';
export const IDENTITY_KINDS: readonly ObjectKind[] = [
  'project',
  'user',
  'role',
  'assignment',
  'service',
  'region',
  'endpoint',
];
/** What an object's API must have reached before it can be asked. */
const MILESTONE: Readonly<Record<ObjectKind, string>> = {
  project: 'identity:ready',
  user: 'identity:ready',
  role: 'identity:ready',
  assignment: 'identity:ready',
  service: 'identity:ready',
  region: 'identity:ready',
  endpoint: 'identity:ready',
  flavor: 'compute-control:ready',
  aggregate: 'compute-control:ready',
  quota: 'compute-control:ready',
  image: 'image:ready',
  network: 'network-control:ready',
  subnet: 'network-control:ready',
  port: 'network-control:ready',
  router: 'network-control:ready',
  'security-group': 'network-control:ready',
  'volume-type': 'volume-control:ready',
};

/** Everything that Keystone must know of the cloud's services, and what the services add. Pure. */
export function desiredObjects(
  catalogue: Catalogue,
  model: CloudModel,
  password: (user: string) => string,
): readonly DesiredObject[] {
  const { region } = model.settings;
  const objects: DesiredObject[] = [
    { kind: 'project', name: 'service', description: 'Accounts of the services.' },
    { kind: 'role', name: 'service' },
    // What people get in their projects (keystone-manage bootstrap makes them from 2023.2 on).
    { kind: 'role', name: 'member' },
  ];
  for (const s of model.services) {
    if (s.user !== null) {
      const name = s.user;
      objects.push({ kind: 'user', name, password: () => password(name), defaultProject: 'service' });
      for (const role of ['admin', 'service'])
        objects.push({ kind: 'assignment', user: name, project: 'service', role });
    }
    for (const e of s.endpoints) {
      // Keystone's own service and endpoints come from its bootstrap.
      if (e.type === 'identity') continue;
      objects.push({ kind: 'service', type: e.type, name: e.name });
      for (const iface of ['public', 'internal', 'admin'] as const)
        objects.push({
          kind: 'endpoint',
          service: e.type,
          interface: iface,
          region,
          url: `https://${model.api.host}:${e.port}${e.path}`,
        });
    }
    objects.push(...(catalogue.services.get(s.name)?.objects?.(model) ?? []));
  }
  return objects;
}

const kindOf = (id: string): ObjectKind => id.replace(/^delete:/, '').split(':')[0] as ObjectKind;
export const isIdentity = (a: Pick<ObjectAction, 'id'>): boolean => IDENTITY_KINDS.includes(kindOf(a.id));
export const objectKey = (id: string): string => `${CLOUD}/objects/${id}`;

const SERVICE: Readonly<Partial<Record<ObjectKind, string>>> = {
  flavor: 'compute-control',
  aggregate: 'compute-control',
  quota: 'compute-control',
  image: 'image',
  network: 'network-control',
  subnet: 'network-control',
  port: 'network-control',
  router: 'network-control',
  'security-group': 'network-control',
  'volume-type': 'volume-control',
};

/** Edges of object actions, in the form of those of resources. */
export function objectEdges(
  actions: readonly ObjectAction[],
  milestones: ReadonlyMap<string, readonly string[]>,
): Map<string, string[]> {
  const identity = actions.filter(isIdentity).map(a => objectKey(a.id));
  return new Map(
    actions.map(a => [
      objectKey(a.id),
      [
        ...(milestones.get(MILESTONE[kindOf(a.id)]) ?? []),
        ...a.needs.map(objectKey),
        ...(isIdentity(a) ? [] : identity),
      ],
    ]),
  );
}

/** An object's action as it stands in a plan. */
export function asAction(a: ObjectAction, needs: readonly string[]): Action {
  const kind = kindOf(a.id);
  const fields = a.changes.map(c => `${c.field}: ${JSON.stringify(c.from)} → ${JSON.stringify(c.to)}`);
  return {
    id: objectKey(a.id),
    node: CLOUD,
    service: SERVICE[kind] ?? 'identity',
    kind: 'object',
    title: `${a.kind} ${a.object}`,
    reason:
      a.blocked ??
      (a.kind === 'create'
        ? 'it does not exist'
        : a.kind === 'delete'
          ? 'it shall not be there'
          : `differs: ${fields.join(', ')}`),
    needs,
    destroys: null,
    interrupts: null,
    expectedSeconds: 0.2,
    ...(a.kind === 'update' ? { diff: fields.join('\n') } : {}),
  };
}
