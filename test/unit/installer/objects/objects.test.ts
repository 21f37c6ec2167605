import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { applyObject, idsOf } from '../../../../installer/objects/apply.js';
import { diffObjects, leftObjects } from '../../../../installer/objects/diff.js';
import { PASSWORD_ATTRIBUTE, passwordMark } from '../../../../installer/objects/identity.js';
import { observeObjects } from '../../../../installer/objects/observe.js';
import type {
  DesiredObject,
  DesiredObjects,
  ObjectAction,
  ObservedObjects,
} from '../../../../installer/objects/types.js';
import { createOpenStackClient, type OpenStackClient } from '../../../../installer/openstack/client.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { asProblem, type Problem } from '../../../../provisioner/core/problem.js';
import { ADMIN_PASSWORD, conflict, type FakeCloud, startFakeCloud } from '../openstack/fake-cloud.js';

const KEY = 'a key of the site';
const NOTHING: ObservedObjects = { objects: {}, ids: {} };
const want = (objects: readonly DesiredObject[], extra: Partial<DesiredObjects> = {}): DesiredObjects => ({
  objects,
  passwordKey: KEY,
  ...extra,
});

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(without: readonly string[] = []): Promise<{ cloud: FakeCloud; client: OpenStackClient }> {
  const cloud = await startFakeCloud({ without });
  const client = createOpenStackClient({
    authUrl: cloud.authUrl,
    region: 'RegionOne',
    credentials: { user: 'admin', password: ADMIN_PASSWORD, project: 'admin' },
    clock: systemClock,
    endpointInterface: 'internal',
    backoffMs: [5],
  });
  closers.push(() => cloud.close());
  closers.push(() => client.close());
  return { cloud, client };
}

function file(content: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-objects-'));
  closers.push(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 'disk');
  writeFileSync(path, content);
  return path;
}

/** The catalogue of a usual cloud: eight services with three endpoints each. */
const SERVICES: readonly [user: string, type: string, url: string][] = [
  ['glance', 'image', 'https://c:9292'],
  ['placement', 'placement', 'https://c:8778'],
  ['nova', 'compute', 'https://c:8774/v2.1'],
  ['neutron', 'network', 'https://c:9696'],
  ['cinder', 'volumev3', 'https://c:8776/v3/%(project_id)s'],
  ['swift', 'object-store', 'https://c:8080/v1/AUTH_%(project_id)s'],
];
const catalogue = (): DesiredObject[] => [
  { kind: 'project', name: 'service' },
  { kind: 'role', name: 'service' },
  ...SERVICES.flatMap(([user, type, url]): DesiredObject[] => [
    { kind: 'user', name: user, password: () => `password of ${user}`, defaultProject: 'service' },
    { kind: 'assignment', user, project: 'service', role: 'admin' },
    { kind: 'assignment', user, project: 'service', role: 'service' },
    { kind: 'service', type, name: user },
    ...(['public', 'internal', 'admin'] as const).map(
      (i): DesiredObject => ({ kind: 'endpoint', service: type, interface: i, region: 'RegionOne', url }),
    ),
  ]),
];

/** One after the other, in the order of the difference: what needs another comes after it. A failure stops what needs it. */
async function applyAll(client: OpenStackClient, desired: DesiredObjects) {
  const observed = await observeObjects(client, desired);
  const actions = diffObjects(desired, observed);
  const ids = idsOf(observed);
  const result = { done: [] as ObjectAction[], failed: [] as { action: ObjectAction; problem: Problem }[] };
  const stopped = new Set<string>();
  for (const action of actions) {
    if (action.needs.some(id => stopped.has(id))) {
      stopped.add(action.id);
      continue;
    }
    try {
      await applyObject(client, action, desired, ids);
      result.done.push(action);
    } catch (error) {
      stopped.add(action.id);
      result.failed.push({ action, problem: asProblem(error, 'cloud-api-failed') });
    }
  }
  if (result.done.some(a => /^(delete:)?(service|endpoint):/.test(a.id))) client.renew();
  return { actions, result, observed };
}

describe('the difference', () => {
  it('to an empty cloud is to make everything, each after what it refers to', () => {
    const actions = diffObjects(want(catalogue()), NOTHING);
    const byId = new Map(actions.map(a => [a.id, a]));
    expect(byId.get('endpoint:compute/public/RegionOne')).toMatchObject({
      kind: 'create',
      object: 'endpoint compute public RegionOne',
      needs: ['service:compute', 'region:RegionOne'],
    });
    expect(byId.get('assignment:nova/service/admin')).toMatchObject({
      object: 'role admin of user nova in project service',
      // The role admin is Keystone's own: nothing to wait for.
      needs: ['user:nova', 'project:service'],
    });
    for (const action of actions) for (const need of action.needs) expect(byId.has(need), need).toBe(true);
  });

  it('shows no password, and none of what is kept of it', () => {
    const text = JSON.stringify(diffObjects(want(catalogue()), NOTHING));
    expect(text).not.toContain('password of');
    expect(text).not.toContain(passwordMark(KEY, 'nova', 'password of nova'));
    expect(text).toContain('(secret)');
  });

  it('is nothing when all is as it shall be', () => {
    const desired = want([{ kind: 'user', name: 'nova', password: () => 'x' }]);
    const objects = { 'user:nova': { id: '1', fields: { enabled: true, password: passwordMark(KEY, 'nova', 'x') } } };
    expect(diffObjects(desired, { objects, ids: {} })).toEqual([]);
  });

  it('is an update of just the field that differs', () => {
    const desired = want([
      { kind: 'endpoint', service: 'image', interface: 'public', region: 'R', url: 'https://new:9292' },
    ]);
    const objects = {
      'endpoint:image/public/R': { id: 'e1', fields: { url: 'http://old:9292', enabled: true } },
      'region:R': { id: 'R', fields: {} },
    };
    expect(diffObjects(desired, { objects, ids: {} })).toEqual([
      {
        id: 'endpoint:image/public/R',
        kind: 'update',
        object: 'endpoint image public R',
        changes: [{ field: 'url', from: 'http://old:9292', to: 'https://new:9292' }],
        needs: [],
        target: 'e1',
      },
    ]);
  });

  it('deletes no flavor whose size differs: it says so, and sets what can be set', () => {
    const desired = want([
      { kind: 'flavor', name: 'm1', vcpus: 2, memoryMiB: 512, diskGiB: 1, extraSpecs: { 'hw:x': 'y' } },
    ]);
    const fields = { vcpus: 1, memory_mib: 512, disk_gib: 1, ephemeral_gib: 0, swap_mib: 0, public: true };
    const seen = (more: Record<string, string>) => ({
      objects: { 'flavor:m1': { id: 'f1', fields: { ...fields, ...more } } },
      ids: {},
    });
    expect(diffObjects(desired, seen({ 'spec hw:x': 'y' }))).toEqual([]);
    expect(diffObjects(desired, seen({})).map(a => [a.id, a.kind, a.changes.map(c => c.field)])).toEqual([
      ['flavor:m1', 'update', ['spec hw:x']],
    ]);
    expect(leftObjects(desired, seen({}))).toEqual([
      {
        object: 'flavor m1',
        changes: [{ field: 'vcpus', from: 1, to: 2 }],
        why: expect.stringContaining('openstack flavor delete'),
      },
    ]);
    expect(leftObjects(desired, { objects: {}, ids: {} })).toEqual([]);
  });

  it('says what cannot be changed in place of trying', () => {
    const desired = want([
      { kind: 'network', name: 'ext', provider: { type: 'vlan', physicalNetwork: 'p', segment: 7 } },
    ]);
    const fields = { provider_type: 'flat', provider_network: 'p', provider_segment: null };
    const [action] = diffObjects(desired, { objects: { 'network:ext': { id: 'n1', fields } }, ids: {} });
    expect(action).toMatchObject({ kind: 'update', blocked: expect.stringContaining('another segment') });
  });

  it('leaves alone what the desired object does not name', () => {
    const desired = want([{ kind: 'flavor', name: 'm1', vcpus: 1, memoryMiB: 512, diskGiB: 1 }]);
    const fields = {
      vcpus: 1,
      memory_mib: 512,
      disk_gib: 1,
      ephemeral_gib: 0,
      swap_mib: 0,
      public: true,
      'spec a': 'b',
    };
    expect(diffObjects(desired, { objects: { 'flavor:m1': { id: 'f1', fields } }, ids: {} })).toEqual([]);
  });

  it('takes duplicates of an endpoint away, and what shall be absent in the right order', () => {
    const desired = want([{ kind: 'endpoint', service: 'image', interface: 'public', region: 'R', url: 'u' }], {
      absent: ['project:old', 'user:old', 'service:metering'],
    });
    const objects = {
      'endpoint:image/public/R': { id: 'e1', fields: { url: 'u', enabled: true }, duplicates: ['e2'] },
      'region:R': { id: 'R', fields: {} },
      'project:old': { id: 'p', fields: {} },
      'user:old': { id: 'u', fields: {} },
    };
    const actions = diffObjects(desired, { objects, ids: {} });
    expect(actions.map(a => [a.id, a.target, a.needs])).toEqual([
      ['delete:project:old', 'p', ['delete:user:old']],
      ['delete:user:old', 'u', []],
      ['delete:endpoint:image/public/R:e2', 'e2', []],
    ]);
  });

  it('refuses two objects of the same name', () => {
    const flavor = { kind: 'flavor', name: 'm1', vcpus: 1, memoryMiB: 1, diskGiB: 1 } as const;
    expect(() => diffObjects(want([flavor, flavor]), NOTHING)).toThrow('Two flavor m1 are wanted.');
    expect(() => diffObjects(want([], { absent: ['endpoint:x'] }), NOTHING)).toThrow('cannot be taken away');
  });
});

describe('a batch', () => {
  it('brings a catalogue into being, and a second look finds nothing to do', async () => {
    const { cloud, client } = await start();
    const desired = want(catalogue());
    const { result } = await applyAll(client, desired);
    expect(result.failed).toEqual([]);
    expect(cloud.tables['endpoints']).toHaveLength(SERVICES.length * 3);
    expect(cloud.tables['users']!.find(u => u['name'] === 'nova')).toMatchObject({
      password: 'password of nova',
      [PASSWORD_ATTRIBUTE]: passwordMark(KEY, 'nova', 'password of nova'),
      default_project_id: cloud.tables['projects']!.find(p => p['name'] === 'service')!['id'],
    });
    expect((await applyAll(client, desired)).actions).toEqual([]);
  });

  it('looks with few requests: one list per kind, and one login', async () => {
    const { cloud, client } = await start();
    const desired = want(catalogue());
    await applyAll(client, desired);
    client.renew();
    cloud.requests.length = 0;
    await observeObjects(client, desired);
    // Login, projects, users, roles, regions, services, endpoints, role assignments of `service`.
    expect(cloud.requests).toHaveLength(8);
  });

  it('changes a password when the wanted one is another', async () => {
    const { cloud, client } = await start();
    const user = (password: string) => want([{ kind: 'user', name: 'nova', password: () => password }]);
    await applyAll(client, user('first'));
    const { actions } = await applyAll(client, user('second'));
    expect(actions).toMatchObject([{ kind: 'update', changes: [{ field: 'password', to: '(secret)' }] }]);
    expect(cloud.tables['users']!.find(u => u['name'] === 'nova')).toMatchObject({ password: 'second' });
    expect((await applyAll(client, user('second'))).actions).toEqual([]);
  });

  it('looks again when somebody else was first, and brings theirs to what it shall be', async () => {
    const { cloud, client } = await start();
    const desired = want([{ kind: 'user', name: 'nova', password: () => 'ours' }]);
    const [action] = diffObjects(desired, NOTHING);
    cloud.tables['users']!.push({ id: 'u9', name: 'nova', domain_id: 'default', password: 'theirs', enabled: true });
    await applyObject(client, action!, desired);
    expect(cloud.tables['users']!.filter(u => u['name'] === 'nova')).toMatchObject([{ id: 'u9', password: 'ours' }]);
  });

  it('fails on a conflict with what cannot be found', async () => {
    const { cloud, client } = await start();
    cloud.misbehave.push(conflict(/^POST \/identity\/v3\/services/));
    const desired = want([{ kind: 'service', type: 'image', name: 'glance' }]);
    const [action] = diffObjects(desired, NOTHING);
    await expect(applyObject(client, action!, desired)).rejects.toThrow('Conflict occurred');
  });

  it('finds nothing of a service that is not in the catalogue', async () => {
    const { client } = await start(['compute', 'volumev3']);
    const desired = want([
      { kind: 'flavor', name: 'm1', vcpus: 1, memoryMiB: 1, diskGiB: 1 },
      { kind: 'volume-type', name: 'fast' },
    ]);
    expect((await observeObjects(client, desired)).objects).toEqual({});
  });
});

describe('objects of the other services', () => {
  const cloudObjects = (disk: string): DesiredObject[] => [
    { kind: 'flavor', name: 'm1', vcpus: 1, memoryMiB: 512, diskGiB: 1, extraSpecs: { 'hw:cpu_policy': 'shared' } },
    {
      kind: 'image',
      name: 'guest',
      file: disk,
      diskFormat: 'raw',
      visibility: 'public',
      properties: { hw_disk_bus: 'virtio' },
    },
    {
      kind: 'network',
      name: 'ext',
      external: true,
      shared: false,
      provider: { type: 'flat', physicalNetwork: 'physnet1' },
    },
    {
      kind: 'subnet',
      name: 'ext',
      network: 'ext',
      cidr: '10.78.0.0/24',
      gateway: '10.78.0.1',
      dhcp: false,
      pools: [{ from: '10.78.0.100', to: '10.78.0.200' }],
      dns: ['10.78.0.1'],
    },
    { kind: 'network', name: 'own' },
    { kind: 'subnet', name: 'own', network: 'own', cidr: '10.5.0.0/24' },
    { kind: 'router', name: 'r', external: 'ext', interfaces: ['own'] },
    {
      kind: 'security-group',
      name: 'web',
      rules: [
        { direction: 'ingress', protocol: 'tcp', ports: { from: 443, to: 443 }, remote: '0.0.0.0/0' },
        { direction: 'ingress', protocol: 'icmp' },
      ],
    },
    { kind: 'volume-type', name: 'fast', description: 'SSD' },
    { kind: 'aggregate', name: 'rack1', zone: 'az1', hosts: ['cmp1'], metadata: { ssd: 'true' } },
    { kind: 'project', name: 'people' },
    { kind: 'quota', project: 'people', compute: { cores: 8 } },
  ];

  it('come into being in one batch, and stay', async () => {
    const { cloud, client } = await start();
    const desired = want(cloudObjects(file('content')));
    const first = await applyAll(client, desired);
    expect(first.result.failed).toEqual([]);
    expect(cloud.tables['images']).toMatchObject([{ name: 'guest', status: 'active', hw_disk_bus: 'virtio', size: 7 }]);
    expect(cloud.tables['aggregates']).toMatchObject([{ hosts: ['cmp1'], metadata: { ssd: 'true' } }]);
    const second = await applyAll(client, desired);
    expect(second.actions.map(a => [a.object, a.changes])).toEqual([]);
  });

  it('an image that was cut off in its upload is uploaded anew', async () => {
    const { cloud, client } = await start();
    cloud.tables['images']!.push({
      id: 'i0',
      name: 'guest',
      status: 'queued',
      disk_format: 'raw',
      container_format: 'bare',
    });
    const desired = want([{ kind: 'image', name: 'guest', file: file('x'), diskFormat: 'raw' }]);
    const { actions, result } = await applyAll(client, desired);
    expect(actions.map(a => a.kind)).toEqual(['delete', 'create']);
    expect(result.failed).toEqual([]);
    expect(cloud.tables['images']).toMatchObject([{ name: 'guest', status: 'active' }]);
  });

  it('an image without its file leaves nothing behind', async () => {
    const { cloud, client } = await start();
    const desired = want([{ kind: 'image', name: 'guest', file: '/none', diskFormat: 'raw' }]);
    const { result } = await applyAll(client, desired);
    expect(result.failed[0]!.problem.code).toBe('image-missing');
    expect(cloud.tables['images']).toEqual([]);
  });

  it('a security group loses the rule that is not wanted, and keeps its way out', async () => {
    const { cloud, client } = await start();
    const group = (rules: Extract<DesiredObject, { kind: 'security-group' }>['rules']) =>
      want([{ kind: 'security-group', name: 'web', rules }]);
    await applyAll(client, group([{ direction: 'ingress', protocol: 'tcp', ports: { from: 22, to: 22 } }]));
    await applyAll(client, group([{ direction: 'ingress', protocol: 'icmp' }]));
    const rules = cloud.tables['security_groups']![0]!['security_group_rules'] as Record<string, unknown>[];
    expect(rules.map(r => [r['direction'], r['protocol']])).toEqual([
      ['egress', undefined],
      ['ingress', 'icmp'],
    ]);
  });

  it('what is blocked fails with its reason', async () => {
    const { client } = await start();
    const action: ObjectAction = {
      id: 'network:ext',
      kind: 'update',
      object: 'network ext',
      changes: [],
      needs: [],
      target: 'n',
      blocked: 'Neutron cannot.',
    };
    await expect(applyObject(client, action, want([]))).rejects.toThrow(
      'network ext cannot be changed: Neutron cannot.',
    );
  });
});

describe('ports of the site file', () => {
  const objects = (
    dhcpOptions: Record<string, string>,
    routes = [{ destination: '10.130.0.0/16', nexthop: '10.120.0.9' }],
  ) =>
    want([
      { kind: 'network', name: 'lan', provider: { type: 'vlan', physicalNetwork: 'physnet1', segment: 120 } },
      {
        kind: 'subnet',
        name: 'lan-v4',
        network: 'lan',
        cidr: '10.120.0.0/24',
        gateway: '10.120.0.1',
        hostRoutes: routes,
      },
      { kind: 'port', name: 'printer', network: 'lan', subnets: ['lan-v4'], address: '10.120.0.20', dhcpOptions },
    ]);
  const options = (cloud: FakeCloud) =>
    Object.fromEntries(
      (cloud.tables['ports']!.find(p => p['name'] === 'printer')!['extra_dhcp_opts'] as Record<string, string>[]).map(
        o => [o['opt_name'], o['opt_value']],
      ),
    );

  it('lead their router into the classless routes, which clients prefer, with the way to metadata kept', async () => {
    const { cloud, client } = await start();
    const desired = objects({ router: '10.120.0.2', mtu: '1400' });
    expect((await applyAll(client, desired)).result.failed).toEqual([]);
    expect(options(cloud)).toEqual({
      router: '10.120.0.2',
      mtu: '1400',
      'classless-static-route': '{169.254.169.254/32,10.120.0.3, 10.130.0.0/16,10.120.0.9, 0.0.0.0/0,10.120.0.2}',
    });
    expect((await applyAll(client, desired)).actions).toEqual([]);
  });

  it('follow the routes of their subnet', async () => {
    const { cloud, client } = await start();
    await applyAll(client, objects({ router: '10.120.0.2' }));
    const without = objects({ router: '10.120.0.2' }, []);
    await applyAll(client, without);
    // The subnet has changed: now the port differs from what follows from it.
    const { actions } = await applyAll(client, without);
    expect(actions.map(a => a.object)).toEqual(['port printer']);
    expect(options(cloud)['classless-static-route']).toBe('{169.254.169.254/32,10.120.0.3, 0.0.0.0/0,10.120.0.2}');
    expect((await applyAll(client, without)).actions).toEqual([]);
  });

  it('lose the options that the file does not name any more', async () => {
    const { cloud, client } = await start();
    await applyAll(client, objects({ router: '10.120.0.2', mtu: '1400' }));
    const { actions } = await applyAll(client, objects({ 'ntp-server': '10.120.0.5' }));
    expect(actions).toMatchObject([{ object: 'port printer', kind: 'update' }]);
    expect(options(cloud)).toEqual({ 'ntp-server': '10.120.0.5' });
    expect((await applyAll(client, objects({ 'ntp-server': '10.120.0.5' }))).actions).toEqual([]);
  });

  it('keep routes that the file names itself', async () => {
    const { cloud, client } = await start();
    const own = { router: '10.120.0.2', 'classless-static-route': '{0.0.0.0/0,10.120.0.7}' };
    await applyAll(client, objects(own));
    expect(options(cloud)).toEqual(own);
    expect((await applyAll(client, objects(own))).actions).toEqual([]);
  });
});
