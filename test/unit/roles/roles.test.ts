import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { DesiredState, Placed } from '../../../installer/engine/desired.js';
import { buildCloudModel, type NodeInput } from '../../../installer/model/build.js';
import { checkCatalogue } from '../../../installer/model/check.js';
import { NO_MEMORY } from '../../../installer/model/memory.js';
import { loadRelease, loadReleases } from '../../../installer/model/releases.js';
import type { FileResource } from '../../../installer/model/resources.js';
import type { CloudSettings } from '../../../installer/model/settings.js';
import { cacheRefusal } from '../../../roles/cache/service.js';
import { catalogue } from '../../../roles/catalogue.js';
import { passwordHash } from '../../../roles/messaging/service.js';
import { memcachedServers } from '../../../roles/shared.js';
import { desired, filesOf, fourNodes, inContainer, model, nodeInput, oneNode, rolesDir, settings } from './fixture.js';
import { shellFaults, unparsed } from './grammars.js';

const LVM = { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] } as const;
const OBJECTS = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdc', fileSize: null }] };

/** The layouts that operators choose, and what their sites switch on and off. */
const CLOUDS: readonly (readonly [string, () => readonly NodeInput[], Partial<CloudSettings>])[] = [
  ['four nodes', fourNodes, {}],
  ['four containers', () => fourNodes(inContainer), { workers: 1 }],
  ['four nodes with an own name for the APIs', fourNodes, { apiName: 'cloud.example.org' }],
  ['one node with every role', oneNode, { volumes: LVM }],
  ['one node without volumes and dashboard', oneNode, { volumes: { backend: 'none', devices: [] }, dashboard: false }],
  [
    'floating IPs on the hypervisors, VLANs for projects, objects',
    () => [...fourNodes().slice(0, 3), nodeInput('sto', '10.99.0.15', ['volume', 'storage'])],
    {
      distributedFloatingIp: true,
      tenantNetworks: 'vlan',
      provider: [{ physicalNetwork: 'physnet1', interface: 'eth2', vlanRange: '100:299' }],
      objects: OBJECTS,
    },
  ],
];

const shellOf = ({ key, resource: r }: Placed) => {
  const texts = r.kind === 'command' ? [r.check, r.apply] : r.kind === 'unit' ? [r.ready] : [];
  return texts.flatMap((text, i) => (text === null ? [] : [{ path: `${key}#${i}`, text }]));
};

const files = (state: DesiredState): readonly (Placed & { readonly resource: FileResource })[] =>
  state.placed.filter((p): p is Placed & { readonly resource: FileResource } => p.resource.kind === 'file');

describe.each(CLOUDS)('the desired state of %s', (_, nodes, changes) => {
  const state = desired(model(nodes(), changes));

  it('has files that parsers of their grammars read', () => {
    expect(
      unparsed(
        files(state).map(f => ({ path: f.resource.path, text: f.resource.content, grammar: f.resource.grammar })),
      ),
    ).toEqual([]);
  });

  it('has commands that a shell reads', () => {
    expect(shellFaults(state.placed.flatMap(shellOf))).toEqual([]);
  });

  it('shows a secret nowhere but in files and in the environment of commands', () => {
    const leaks = state.placed.flatMap(p => {
      const r = p.resource;
      const shown = [p.key, r.kind === 'command' ? r.title : '', ...shellOf(p).map(s => s.text)];
      const stamp = r.kind === 'command' ? (r.stamp ?? '') : '';
      return [...shown, stamp].filter(text => text.includes('SECRET')).map(() => p.key);
    });
    expect(leaks).toEqual([]);
  });

  it('lets only root and a service’s own group read a file with a secret', () => {
    const open = files(state).filter(
      ({ resource: r }) => r.content.includes('SECRET') && ((r.mode & 0o027) !== 0 || r.mode > 0o640),
    );
    expect(open.map(f => f.key)).toEqual([]);
  });

  it('has one writer for each file', () => {
    const seen = new Map<string, string[]>();
    for (const f of files(state)) {
      const at = `${f.node} ${f.resource.path}`;
      seen.set(at, [...(seen.get(at) ?? []), f.service]);
    }
    expect([...seen].filter(([, writers]) => writers.length > 1)).toEqual([]);
  });

  it('speaks plain HTTP to nobody', () => {
    const plain = files(state).filter(f => /http:\/\/(?!169\.254\.169\.254)/.test(f.resource.content));
    expect(plain.map(f => f.key)).toEqual([]);
  });

  it('waits for services in the order in which they depend on each other', () => {
    const reached = (milestone: string) => state.milestones.get(milestone) ?? [];
    const ancestors = (key: string, seen = new Set<string>()): ReadonlySet<string> => {
      for (const k of state.before.get(key) ?? [])
        if (!seen.has(k)) {
          seen.add(k);
          ancestors(k, seen);
        }
      return seen;
    };
    for (const [after, before] of [
      ['identity:ready', 'database:ready'],
      ['identity:ready', 'cache:ready'],
      ['compute-control:ready', 'messaging:ready'],
      ['compute-control:ready', 'database:ready'],
      ['compute-control:ready', 'placement:ready'],
      ['hypervisor:ready', 'compute-control:conductor'],
    ] as const) {
      // A milestone is reached when all who provide it are there.
      const first = new Set(reached(after).flatMap(key => [...ancestors(key)]));
      expect(reached(before).filter(key => !first.has(key))).toEqual([]);
    }
  });
});

describe('the catalogue', () => {
  it('is whole, in every release', () => {
    expect(checkCatalogue(catalogue, loadReleases(), rolesDir())).toEqual([]);
  });

  it('begins with the host, which every role has', () => {
    expect([...catalogue.services.keys()][0]).toBe('host');
    for (const role of catalogue.roles.values()) expect(role.services[0]).toBe('host');
  });

  it('says in a sentence why a cloud cannot have no controller, two, no hypervisor or no gateway', () => {
    const refusals = (nodes: readonly NodeInput[]) => {
      const built = buildCloudModel({
        siteName: 'lab',
        domain: 'lab.example',
        settings: settings(),
        release: loadRelease('debian-12-zed')!,
        catalogue,
        nodes,
        memory: NO_MEMORY,
      });
      return built.ok ? [] : built.problems.map(p => p.message).join('\n');
    };
    expect(refusals(fourNodes().slice(1))).toContain('A cloud needs a controller');
    expect(refusals([...fourNodes(), nodeInput('ctl2', '10.99.0.21', ['controller'])])).toContain('not built yet');
    expect(refusals(fourNodes().filter(n => n.name !== 'cmp'))).toContain('Servers run on compute nodes');
    expect(refusals(fourNodes().filter(n => n.name !== 'net'))).toContain('the network role is the gateway');
  });
});

describe('the controller', () => {
  it('does not move to another node, where the cloud would begin with nothing', () => {
    const { memory } = model();
    const other = fourNodes().map(n => (n.name === 'ctl' ? nodeInput('new', '10.99.0.20', ['controller']) : n));
    expect(() => model(other, {}, undefined, memory)).toThrow(
      /^ctl: It has the databases, the images, the databases of OVN, and no other node does/,
    );
  });
});

describe('the host', () => {
  const names = (changes: Partial<CloudSettings>) =>
    filesOf(desired(model(fourNodes(), changes)), 'cmp').get('/etc/hosts')!.content;

  it('knows every node by its management address, and itself by no other', () => {
    expect(names({})).toContain('\n10.99.0.13 cmp.lab.example cmp\n');
    expect(names({})).not.toContain('127.0.1.1');
  });

  it('knows the name of the APIs, which no DNS may know yet', () => {
    expect(names({ apiName: 'cloud.example.org' })).toContain('\n10.99.0.11 cloud.example.org\n');
  });

  it('keeps the time, but not in a container, which shares its machine’s clock', () => {
    expect(filesOf(desired(), 'cmp').get('/etc/chrony/chrony.conf')!.content).toContain('server 10.99.0.11 iburst');
    expect(filesOf(desired(), 'ctl').get('/etc/chrony/chrony.conf')!.content).toContain('server 192.0.2.123 iburst');
    const far = [...fourNodes(), nodeInput('far', '10.98.0.9', ['compute'])];
    const { content } = filesOf(desired(model(far)), 'ctl').get('/etc/chrony/chrony.conf')!;
    expect(content.match(/^allow .*/gm)).toEqual(['allow 10.98.0.0/24', 'allow 10.99.0.0/24']);
    expect(filesOf(desired(model(fourNodes(inContainer))), 'ctl').has('/etc/chrony/chrony.conf')).toBe(false);
  });
});

describe('SSH', () => {
  it('takes keys only, whatever cloud-init wrote, and sshd is asked', () => {
    const files = filesOf(desired(), 'cmp');
    expect([...files.keys()].filter(f => f.startsWith('/etc/ssh/'))).toEqual([
      '/etc/ssh/sshd_config.d/00-halligan.conf',
    ]);
    const r = desired().placed.find(p => p.key === 'cmp/host/command:ssh-keys-only')!.resource;
    if (r.kind !== 'command') throw new Error('no command');
    const judge = (text: string) => spawnSync('bash', ['-c', `sshd() { echo '${text}'; }\n${r.check}`]).status;
    expect(judge('port 22\npasswordauthentication no\nkbdinteractiveauthentication no')).toBe(0);
    expect(judge('port 22\npasswordauthentication yes\nkbdinteractiveauthentication no')).toBe(1);
  });
});

describe('the cache', () => {
  it('is for its own node only, and who uses it is there', () => {
    const state = desired();
    expect(filesOf(state, 'ctl').get('/etc/memcached.conf')!.content).toContain('\n-l 127.0.0.1\n');
    const users = state.placed.filter(p => p.resource.kind === 'file' && p.resource.content.includes(':11211'));
    expect(users.length).toBeGreaterThan(6);
    expect(new Set(users.map(p => p.node))).toEqual(new Set(['ctl']));
    for (const u of users) expect((u.resource as FileResource).content).not.toMatch(/10\.99\.0\.\d+:11211/);
  });

  it('cannot be used from elsewhere, and there is one', () => {
    const cloud = model();
    const cmp = cloud.nodes.find(n => n.name === 'cmp')!;
    expect(() => memcachedServers({ node: cmp })).toThrow(/on cmp uses the cache, which is on another node/);
    const two = {
      ...cloud,
      nodes: cloud.nodes.map(n => (n === cmp ? { ...n, services: [...n.services, 'cache'] } : n)),
    };
    expect(cacheRefusal(cloud)).toBeNull();
    expect(cacheRefusal(two)).toMatch(/^The cache is on ctl and cmp/);
  });
});

describe('messaging', () => {
  it('hashes a password as RabbitMQ does', () => {
    // https://www.rabbitmq.com/docs/passwords#computing-password-hash
    expect(passwordHash('908DC60A', 'test12')).toBe('kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR');
  });

  it('knows an account per service, and a hypervisor only its own', () => {
    const state = desired();
    const { users } = JSON.parse(filesOf(state, 'ctl').get('/etc/rabbitmq/definitions.json')!.content) as {
      users: { name: string; password_hash: string }[];
    };
    expect(users.map(u => u.name).sort()).toEqual(['cinder', 'cinder-volume', 'neutron', 'nova', 'nova-compute']);
    expect(new Set(users.map(u => u.password_hash)).size).toBe(5);
    const on = (node: string) =>
      new Set(
        [...filesOf(state, node).values()].flatMap(f => [...f.content.matchAll(/rabbit:\/\/([^:]+):/g)].map(m => m[1])),
      );
    expect(on('cmp')).toEqual(new Set(['nova-compute']));
    expect(on('vol')).toEqual(new Set(['cinder-volume']));
    expect(on('net')).toEqual(new Set());
  });
});

describe('what settings switch off', () => {
  const services = (changes: Partial<CloudSettings>) =>
    new Set(desired(model(oneNode(), changes)).placed.map(p => p.service));

  it('is built nowhere, and nobody is told of it', () => {
    const none = { volumes: { backend: 'none', devices: [] }, dashboard: false } as const;
    expect(services({ volumes: LVM })).toContain('volume-control');
    for (const s of ['volume-control', 'volume-backend', 'dashboard', 'object-proxy'])
      expect(services(none)).not.toContain(s);
    const nova = filesOf(desired(model(oneNode(), none)), 'one').get('/etc/nova/nova.conf')!.content;
    expect(nova).not.toContain('[cinder]');
  });
});

describe('an API', () => {
  const state = desired(model(oneNode(), { volumes: LVM }));

  it('has as many processes as the node can carry, or as the site says', () => {
    const ini = (changes: Partial<CloudSettings>, cpus: number) =>
      filesOf(desired(model(fourNodes({ cpus }), changes)), 'ctl').get('/etc/keystone/keystone-uwsgi.ini')!.content;
    expect(ini({}, 2)).toContain('processes = 1\n');
    expect(ini({}, 12)).toContain('processes = 6\n');
    expect(ini({}, 128)).toContain('processes = 8\n');
    expect(ini({ workers: 3 }, 128)).toContain('processes = 3\n');
  });

  it('of each service has users, databases and endpoints of its own', () => {
    const of = state.model.services;
    expect(of.flatMap(s => s.databases.map(d => d.name))).toEqual(
      expect.arrayContaining([
        'keystone',
        'placement',
        'glance',
        'neutron',
        'nova_api',
        'nova_cell0',
        'nova',
        'cinder',
      ]),
    );
    const types = of.flatMap(s => s.endpoints.map(e => e.type));
    expect(new Set(types).size).toBe(types.length);
    expect(types).toEqual(expect.arrayContaining(['identity', 'image', 'compute', 'placement', 'network', 'volumev3']));
  });

  it('that another one sends work to wants service tokens', () => {
    for (const path of ['/etc/glance/glance-api.conf', '/etc/nova/nova.conf', '/etc/cinder/cinder.conf']) {
      const text = filesOf(state, 'one').get(path)!.content;
      expect(text).toContain('service_token_roles_required = true');
      expect(text).toContain('insecure = false');
    }
  });
});

describe('the files of a controller in Debian 12', () => {
  const ctl = filesOf(desired(), 'ctl');
  it.each([
    '/etc/hosts',
    '/etc/chrony/chrony.conf',
    '/etc/mysql/mariadb.conf.d/99-halligan.cnf',
    '/etc/rabbitmq/rabbitmq.conf',
    '/etc/rabbitmq/rabbitmq-env.conf',
    '/etc/rabbitmq/definitions.json',
    '/etc/memcached.conf',
    '/etc/keystone/keystone.conf',
    '/etc/keystone/keystone-uwsgi.ini',
    '/etc/systemd/system/keystone.service',
    '/etc/placement/placement.conf',
    '/etc/glance/glance-api.conf',
    '/etc/glance/glance-api-uwsgi.ini',
    '/etc/nova/nova.conf',
    '/etc/nova/nova-api-uwsgi.ini',
    '/etc/cinder/cinder.conf',
    '/etc/apache2/sites-available/halligan-dashboard.conf',
    '/etc/openstack-dashboard/local_settings.d/_9999_halligan.py',
  ])('%s is as a reviewer last saw it', async path => {
    await expect(ctl.get(path)!.content).toMatchFileSnapshot(`golden/debian-12-zed/ctl${path}`);
  });

  it('make databases and accounts in one go', async () => {
    const placed = desired().placed.find(p => p.key === 'ctl/database/command:databases')!;
    const { env } = placed.resource as { env: Record<string, string> } & typeof placed.resource;
    await expect(env['SQL']).toMatchFileSnapshot('golden/debian-12-zed/ctl/databases.sql');
  });
});
