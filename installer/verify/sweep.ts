/**
 * Finds and deletes what a proof made: by name, and by the projects of the run. Works the same for the step that made it,
 * for the end of the run, and for what an earlier run left when it was killed.
 */
import { sleep } from '../../provisioner/core/clock.js';
import { asProblem } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import { cloudStatus } from '../openstack/errors.js';
import { at, isObject, items, text } from '../openstack/json.js';
import type { ServiceName } from '../openstack/services.js';

export interface Scope {
  readonly admin: OpenStackClient;
  /** Names begin with it: of one run, or of all runs. */
  readonly prefix: string;
  /** Ids that are known to be of the run; what has been seen once is asked for again after it should be gone. */
  readonly projects: Set<string>;
  readonly users: Set<string>;
  readonly servers: Set<string>;
  /** Of whatever was found or made, of all kinds: what is looked for on the nodes. */
  readonly ids: Set<string>;
  /** Between two looks at what is being deleted. */
  readonly pollMs: number;
}

export const newScope = (admin: OpenStackClient, prefix: string, pollMs = 1000): Scope => ({
  admin,
  prefix,
  projects: new Set(),
  users: new Set(),
  servers: new Set(),
  ids: new Set(),
  pollMs,
});

export interface Found {
  readonly kind: string;
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly extra?: Readonly<Record<string, string>>;
}

export const foundTitle = (f: Found): string => `${f.kind} ${f.name || f.id}${f.status ? ` (${f.status})` : ''}`;

interface Sweeper {
  readonly service: ServiceName;
  list(scope: Scope, signal: AbortSignal): Promise<Found[]>;
  /** Orders the deletion; may fail and is tried again. `tries` counts from 0. */
  remove(scope: Scope, found: Found, signal: AbortSignal, tries: number): Promise<void>;
}

type Row = Record<string, unknown>;

const owner = (row: unknown): string => text(row, 'project_id') || text(row, 'tenant_id');
const mine = (scope: Scope, row: Row): boolean =>
  scope.projects.has(owner(row)) || text(row, 'name').startsWith(scope.prefix);
const found = (kind: string, row: Row, extra?: Record<string, string>): Found => ({
  kind,
  id: text(row, 'id'),
  name: text(row, 'name'),
  status: text(row, 'status'),
  ...(extra ? { extra } : {}),
});

/** 404 is as good as done. */
async function drop(
  client: OpenStackClient,
  service: ServiceName,
  path: string,
  signal: AbortSignal,
  microversion?: string,
): Promise<void> {
  await client.request(service, 'DELETE', path, undefined, {
    signal,
    accept: [404],
    ...(microversion ? { microversion } : {}),
  });
}

/** One list per project of the run: a filter keeps the answer small in a big cloud. */
async function perProject(scope: Scope, ask: (project: string) => Promise<Row[]>): Promise<Row[]> {
  return (await Promise.all([...scope.projects].map(ask))).flat();
}

const neutron = (kind: string, path: string, key: string): Sweeper => ({
  service: 'network',
  list: async (scope, signal) =>
    // Not by `project_id` for security groups: asking for a project's makes its default group anew. So never.
    (
      await scope.admin.list('network', `${path}?fields=id&fields=name&fields=project_id&fields=tenant_id`, key, {
        signal,
      })
    )
      .filter(row => mine(scope, row))
      .map(row => found(kind, row)),
  remove: (scope, item, signal) => drop(scope.admin, 'network', `${path}/${item.id}`, signal),
});

const identityList = async (scope: Scope, path: string, key: string, signal: AbortSignal): Promise<Row[]> => {
  const { userDomainId } = await scope.admin.session(signal);
  const rows = await scope.admin.list('identity', `${path}?domain_id=${userDomainId}`, key, { signal });
  return rows.filter(row => text(row, 'name').startsWith(scope.prefix));
};

/** Looks, about one a second, until a volume is taken by force. */
const STUCK_TRIES = 60;

const blockAction = (scope: Scope, path: string, body: unknown, signal: AbortSignal) =>
  scope.admin.request('volume', 'POST', `${path}/action`, body, { signal, accept: [404] });

const cinder = (kind: string, path: string, key: string, reset: unknown): Sweeper => ({
  service: 'volume',
  list: async (scope, signal) =>
    (
      await perProject(scope, project =>
        scope.admin.list('volume', `${path}/detail?all_tenants=1&project_id=${project}`, key, { signal }),
      )
    )
      .filter(row => {
        const of = text(row, 'os-vol-tenant-attr:tenant_id') || text(row, 'os-extended-snapshot-attributes:project_id');
        return of === '' || scope.projects.has(of);
      })
      .map(row => found(kind, row)),
  remove: async (scope, item, signal, tries) => {
    // In use, or on its way out: a server that goes takes a moment to let go of it.
    if (/^(in-use|detaching|attaching|deleting)$/.test(item.status) && tries < STUCK_TRIES) return;
    if (/^error/.test(item.status) || tries >= STUCK_TRIES) {
      // Stuck half-way: Cinder deletes what it is told is at rest.
      await blockAction(scope, `${path}/${item.id}`, reset, signal);
      await blockAction(scope, `${path}/${item.id}`, { 'os-force_delete': {} }, signal);
    } else await drop(scope.admin, 'volume', `${path}/${item.id}`, signal);
  },
});

/** The user and name of a key pair, which has no id of its own. */
const keypairPath = (f: Found) => `/os-keypairs/${encodeURIComponent(f.name)}?user_id=${f.extra?.['user']}`;

export type SweepKind =
  | 'server'
  | 'volume'
  | 'snapshot'
  | 'floating IP'
  | 'router'
  | 'port'
  | 'network'
  | 'security group'
  | 'image'
  | 'flavor'
  | 'keypair'
  | 'container'
  | 'user'
  | 'project'
  | 'allocation';

const SWEEPERS: Readonly<Record<SweepKind, Sweeper>> = {
  server: {
    service: 'compute',
    list: async (scope, signal) => {
      // Nova takes a regular expression; the prefix has only letters, digits and hyphens.
      const rows = await scope.admin.list(
        'compute',
        `/servers/detail?all_tenants=1&name=${encodeURIComponent(`^${scope.prefix}`)}`,
        'servers',
        { signal },
      );
      const own = rows.filter(row => text(row, 'name').startsWith(scope.prefix));
      for (const row of own) scope.servers.add(text(row, 'id'));
      return own.map(row => found('server', row));
    },
    remove: async (scope, item, signal, tries) => {
      if (tries >= 15 && tries % 15 === 0)
        await scope.admin
          .request(
            'compute',
            'POST',
            `/servers/${item.id}/action`,
            { 'os-resetState': { state: 'error' } },
            { signal, accept: [404] },
          )
          .catch(() => {});
      await drop(scope.admin, 'compute', `/servers/${item.id}`, signal);
    },
  },
  volume: cinder('volume', '/volumes', 'volumes', {
    'os-reset_status': { status: 'error', attach_status: 'detached', migration_status: 'none' },
  }),
  snapshot: cinder('snapshot', '/snapshots', 'snapshots', { 'os-reset_status': { status: 'error' } }),
  'floating IP': {
    service: 'network',
    list: async (scope, signal) =>
      (
        await perProject(scope, project =>
          scope.admin.list('network', `/floatingips?project_id=${project}`, 'floatingips', { signal }),
        )
      ).map(row => ({ ...found('floating IP', row), name: text(row, 'floating_ip_address') })),
    remove: (scope, item, signal) => drop(scope.admin, 'network', `/floatingips/${item.id}`, signal),
  },
  router: {
    ...neutron('router', '/routers', 'routers'),
    remove: async (scope, item, signal) => {
      const ports = await scope.admin.list('network', `/ports?device_id=${item.id}`, 'ports', { signal });
      for (const port of ports)
        if (/router_interface|ha_router_replicated/.test(text(port, 'device_owner')))
          await scope.admin.request(
            'network',
            'PUT',
            `/routers/${item.id}/remove_router_interface`,
            { port_id: text(port, 'id') },
            { signal, accept: [404] },
          );
      await drop(scope.admin, 'network', `/routers/${item.id}`, signal);
    },
  },
  port: {
    service: 'network',
    list: async (scope, signal) =>
      (
        await perProject(scope, project =>
          scope.admin.list('network', `/ports?project_id=${project}`, 'ports', { signal }),
        )
      )
        // The network's own (DHCP, metadata) go with it.
        .filter(row => !/^network:(dhcp|distributed)/.test(text(row, 'device_owner')))
        .map(row => found('port', row)),
    remove: (scope, item, signal) => drop(scope.admin, 'network', `/ports/${item.id}`, signal),
  },
  network: neutron('network', '/networks', 'networks'),
  'security group': neutron('security group', '/security-groups', 'security_groups'),
  image: {
    service: 'image',
    list: async (scope, signal) => {
      const lists = await Promise.all([
        perProject(scope, project =>
          scope.admin.list('image', `/images?limit=100&owner=${project}`, 'images', { signal }),
        ),
        scope.admin
          .list('image', '/images?limit=200', 'images', { signal })
          .then(rows => rows.filter(row => text(row, 'name').startsWith(scope.prefix))),
      ]);
      const byId = new Map(lists.flat().map(row => [text(row, 'id'), row]));
      return [...byId.values()]
        .filter(row => !/^(deleted|pending_delete)$/.test(text(row, 'status')))
        .map(row => found('image', row));
    },
    remove: (scope, item, signal) => drop(scope.admin, 'image', `/images/${item.id}`, signal),
  },
  flavor: {
    service: 'compute',
    list: async (scope, signal) =>
      (await scope.admin.list('compute', '/flavors/detail?is_public=None', 'flavors', { signal }))
        .filter(row => text(row, 'name').startsWith(scope.prefix))
        .map(row => found('flavor', row)),
    remove: (scope, item, signal) => drop(scope.admin, 'compute', `/flavors/${item.id}`, signal),
  },
  keypair: {
    service: 'compute',
    list: async (scope, signal) => {
      const { userId } = await scope.admin.session(signal);
      const lists = await Promise.all(
        [userId, ...scope.users].map(async user => {
          const { body } = await scope.admin.request('compute', 'GET', `/os-keypairs?user_id=${user}`, undefined, {
            signal,
            microversion: '2.10',
          });
          return items(body, 'keypairs')
            .map(entry => text(entry, 'keypair', 'name'))
            .filter(name => name.startsWith(scope.prefix))
            .map((name): Found => ({ kind: 'keypair', id: `${user}/${name}`, name, status: '', extra: { user } }));
        }),
      );
      return lists.flat();
    },
    remove: (scope, item, signal) => drop(scope.admin, 'compute', keypairPath(item), signal, '2.10'),
  },
  container: {
    service: 'object-store',
    list: async (scope, signal) => {
      const { userId } = await scope.admin.session(signal);
      const alive = (await identityList(scope, '/projects', 'projects', signal)).map(row => text(row, 'id'));
      const lists = await Promise.all(
        alive.map(async project => {
          await joinProject(scope.admin, project, userId, signal);
          const reply = await scope.admin
            .inProject(project)
            .request('object-store', 'GET', `?format=json&prefix=${scope.prefix}`, undefined, {
              signal,
              accept: [404],
            });
          return (Array.isArray(reply.body) ? reply.body : []).filter(isObject).map(
            (row): Found => ({
              kind: 'container',
              id: text(row, 'name'),
              name: text(row, 'name'),
              status: '',
              extra: { project },
            }),
          );
        }),
      );
      return lists.flat();
    },
    remove: async (scope, item, signal) => {
      const client = scope.admin.inProject(item.extra!['project']!);
      const path = `/${encodeURIComponent(item.name)}`;
      const { body } = await client.request('object-store', 'GET', `${path}?format=json`, undefined, {
        signal,
        accept: [404],
      });
      // One after the other, the largest names last: a manifest goes before or after its segments alike.
      for (const row of Array.isArray(body) ? body.filter(isObject) : [])
        await drop(client, 'object-store', `${path}/${encodeURIComponent(text(row, 'name'))}`, signal);
      await drop(client, 'object-store', path, signal);
    },
  },
  user: {
    service: 'identity',
    list: async (scope, signal) => {
      const rows = await identityList(scope, '/users', 'users', signal);
      for (const row of rows) scope.users.add(text(row, 'id'));
      return rows.map(row => found('user', row));
    },
    remove: (scope, item, signal) => drop(scope.admin, 'identity', `/users/${item.id}`, signal),
  },
  project: {
    service: 'identity',
    list: async (scope, signal) => {
      const rows = await identityList(scope, '/projects', 'projects', signal);
      for (const row of rows) scope.projects.add(text(row, 'id'));
      return rows.map(row => found('project', row));
    },
    remove: async (scope, item, signal) => {
      // Limits stay in the databases of the three when the project goes.
      await Promise.all(
        (
          [
            ['compute', `/os-quota-sets/${item.id}`],
            ['volume', `/os-quota-sets/${item.id}`],
            ['network', `/quotas/${item.id}`],
          ] as const
        ).map(async ([service, path]) => {
          if (await scope.admin.has(service)) await drop(scope.admin, service, path, signal).catch(() => {});
        }),
      );
      await drop(scope.admin, 'identity', `/projects/${item.id}`, signal);
    },
  },
  allocation: {
    service: 'placement',
    list: async (scope, signal) => {
      const lists = await Promise.all(
        [...scope.servers].map(async id => {
          const { body } = await scope.admin.request('placement', 'GET', `/allocations/${id}`, undefined, {
            signal,
            accept: [404],
          });
          const held = at(body, 'allocations');
          return isObject(held) && Object.keys(held).length > 0
            ? [{ kind: 'allocation', id, name: `of server ${id} in placement`, status: '' }]
            : [];
        }),
      );
      const usages = await Promise.all(
        [...scope.projects].map(async project => {
          const { body } = await scope.admin.request('placement', 'GET', `/usages?project_id=${project}`, undefined, {
            signal,
            microversion: '1.9',
            accept: [400, 404],
          });
          const used = Object.entries(isObject(at(body, 'usages')) ? (at(body, 'usages') as Row) : {}).filter(
            ([, amount]) => typeof amount === 'number' && amount > 0,
          );
          return used.length > 0 && lists.flat().length === 0
            ? [{ kind: 'allocation', id: project, name: `of project ${project} in placement`, status: '' }]
            : [];
        }),
      );
      return [...lists.flat(), ...usages.flat()];
    },
    remove: async (scope, item, signal, tries) => {
      // Nova takes its own back a moment after the server is gone.
      if (scope.servers.has(item.id) && tries >= 5)
        await drop(scope.admin, 'placement', `/allocations/${item.id}`, signal);
    },
  },
};

/** What an administrator needs to look into a project: a role in it, which goes with the project. */
export async function joinProject(
  admin: OpenStackClient,
  project: string,
  userId: string,
  signal: AbortSignal,
): Promise<void> {
  const { body } = await admin.request('identity', 'GET', '/roles?name=admin', undefined, { signal });
  const role = text(items(body, 'roles')[0], 'id');
  await admin.request('identity', 'PUT', `/projects/${project}/users/${userId}/roles/${role}`, undefined, { signal });
}

/** In this order; those of one line wait for each other and are tried together. */
export const SWEEP_ORDER: readonly (readonly SweepKind[])[] = [
  ['server', 'floating IP'],
  ['snapshot', 'volume', 'router', 'image', 'keypair', 'flavor', 'container'],
  ['port'],
  ['network', 'security group'],
  ['allocation'],
  ['user', 'project'],
];

async function listOf(scope: Scope, kind: SweepKind, signal: AbortSignal): Promise<Found[]> {
  const sweeper = SWEEPERS[kind];
  const list = (await scope.admin.has(sweeper.service)) ? await sweeper.list(scope, signal) : [];
  for (const item of list) scope.ids.add(item.id);
  return list;
}

/**
 * Deletes all of these kinds and waits until they are gone, or until the signal aborts.
 * @param only part of what is found
 * @returns what is still there, each with the last word of the API
 */
export async function sweep(
  scope: Scope,
  kinds: readonly SweepKind[],
  signal: AbortSignal,
  only: (found: Found) => boolean = () => true,
): Promise<string[]> {
  const tries = new Map<string, number>();
  const words = new Map<string, string>();
  let left: Found[] = [];
  let trouble: string | undefined;
  // Most deletions are done when they are answered; those of servers and volumes take their time.
  for (let waitMs = Math.min(200, scope.pollMs); ; waitMs = Math.min(scope.pollMs, waitMs * 2)) {
    try {
      left = (await Promise.all(kinds.map(kind => listOf(scope, kind, signal)))).flat().filter(only);
      trouble = undefined;
      if (left.length === 0) return [];
      await Promise.all(
        left.map(async item => {
          const count = tries.get(item.id) ?? 0;
          tries.set(item.id, count + 1);
          // Deletions take a while: ordering one again and again only costs.
          if (count > 0 && count % 3 !== 0 && !words.has(item.id)) return;
          try {
            await SWEEPERS[item.kind as SweepKind].remove(scope, item, signal, count);
            words.delete(item.id);
          } catch (error) {
            if (!signal.aborted) words.set(item.id, asProblem(error, 'cloud-api-failed').message);
          }
        }),
      );
    } catch (error) {
      if (!signal.aborted) {
        trouble = asProblem(error, 'cloud-api-failed').message;
        // A service that is away may come back; one that refuses will not change its mind.
        if (cloudStatus(error) !== undefined && (cloudStatus(error) ?? 0) < 500)
          return [...titles(left, words), trouble];
      }
    }
    if (signal.aborted) break;
    await sleep(waitMs, signal);
  }
  return [...titles(left, words), ...(trouble ? [trouble] : [])];
}

const titles = (left: readonly Found[], words: ReadonlyMap<string, string>): string[] =>
  left.map(item => foundTitle(item) + (words.has(item.id) ? `: ${words.get(item.id)}` : ''));

/** Everything that is there now, of all kinds. */
export async function findLeftovers(scope: Scope, signal: AbortSignal): Promise<string[]> {
  // Projects and users first: what they own is found by their ids.
  const people = await Promise.all([listOf(scope, 'project', signal), listOf(scope, 'user', signal)]);
  const kinds = SWEEP_ORDER.flat().filter(kind => kind !== 'user' && kind !== 'project');
  const rest = await Promise.all(kinds.map(kind => listOf(scope, kind, signal)));
  return [...people.flat(), ...rest.flat()].map(foundTitle);
}
