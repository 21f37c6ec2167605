import { describe, expect, it } from 'vitest';
import { loadRelease } from '../../../../installer/model/releases.js';
import { hostIs, shortName } from '../../../../installer/remove/names.js';
import { rowsQuery } from '../../../../installer/remove/observe.js';
import { SECRET_FILES, stopScript } from '../../../../installer/remove/perform.js';
import { planRemoval, type RemovalContext, type RemovalPlan, unitsOf } from '../../../../installer/remove/plan.js';
import { leftOver, NO_OVN, NO_RECORDS, type Records, type ServerRecord } from '../../../../installer/remove/records.js';
import { desired, fourNodes, model, nodeInput } from '../../roles/fixture.js';

const release = loadRelease('debian-12-zed')!;
const COMPUTE = ['host', 'network-agent', 'hypervisor'];

const context = (over: Partial<RemovalContext> = {}): RemovalContext => ({
  node: 'cmp2',
  member: true,
  services: COMPUTE,
  others: () => 1,
  unreachable: null,
  volumeBackend: 'ceph',
  release,
  force: false,
  resumed: false,
  ...over,
});
const server = (over: Partial<ServerRecord> = {}): ServerRecord => ({
  id: 's1',
  name: 'web',
  host: 'cmp2',
  status: 'ACTIVE',
  task: '',
  ties: [],
  ...over,
});
const known = (over: Partial<Records> = {}): Records => ({
  ...NO_RECORDS,
  computeServices: [{ id: 'c1', binary: 'nova-compute', host: 'cmp2', up: true, enabled: true, forcedDown: false }],
  hypervisors: [{ id: 'p1', name: 'cmp2.lab.example' }],
  providers: [{ id: 'p1', name: 'cmp2.lab.example', parent: null, consumers: [] }],
  otherComputes: ['cmp'],
  agents: [{ id: 'cmp2', type: 'OVN Controller agent', host: 'cmp2' }],
  ovn: { ...NO_OVN, chassis: [{ id: 'u1', name: 'cmp2' }], privates: [{ id: 'u2', name: 'cmp2' }] },
  ...over,
});
const keys = (plan: RemovalPlan) => plan.stages.map(stage => stage.map(s => s.key).join(' '));
const refused = (r: Records, over: Partial<RemovalContext> = {}) =>
  planRemoval(r, context(over)).refusals.map(f => f.message);

describe('names', () => {
  it('of a node are its short one and every full one, with what Cinder adds', () => {
    const here = hostIs('cmp2');
    for (const host of [
      'cmp2',
      'CMP2',
      'cmp2.lab.example',
      'cmp2.localdomain',
      'cmp2@lvm',
      'cmp2.lab.example@ceph#ceph',
    ])
      expect(here(host), host).toBe(true);
    for (const host of ['', 'cmp', 'cmp22', 'cmp2x.lab.example', 'x.cmp2']) expect(here(host), host).toBe(false);
    expect(shortName('vol.lab.example@ceph#ceph')).toBe('vol');
  });

  it('are looked for in the databases that there are, and deleted rows are none', () => {
    const query = rowsQuery('cmp2', new Set(['nova', 'nova_api', 'keystone']));
    expect(query.split('\n')).toEqual([
      "SELECT 'nova_api.host_mappings', host FROM nova_api.host_mappings WHERE (host = 'cmp2' OR host LIKE 'cmp2.%' OR host LIKE 'cmp2@%');",
      "SELECT 'nova_api.aggregate_hosts', host FROM nova_api.aggregate_hosts WHERE (host = 'cmp2' OR host LIKE 'cmp2.%' OR host LIKE 'cmp2@%');",
      "SELECT 'nova.services', host FROM nova.services WHERE (host = 'cmp2' OR host LIKE 'cmp2.%' OR host LIKE 'cmp2@%');",
      expect.stringMatching(
        /^SELECT 'nova.compute_nodes', host .*hypervisor_hostname LIKE 'cmp2\.%'.* AND deleted = 0;$/,
      ),
    ]);
    expect(() => rowsQuery("x'; DROP TABLE hosts; --", new Set(['nova']))).toThrow('no name of a node');
  });
});

describe('the plan', () => {
  it('of a compute drains it, stops it, takes its records away, and checks', () => {
    const plan = planRemoval(
      known({ servers: [server(), server({ id: 's2', name: 'db', status: 'SHUTOFF' })] }),
      context(),
    );
    expect(plan.refusals).toEqual([]);
    expect(keys(plan)).toEqual([
      'disable',
      'move/s1 move/s2',
      'empty',
      'stop',
      'chassis',
      'nova',
      'placement',
      'neutron',
      'queues',
      'roles',
      'apply',
      'check',
    ]);
    expect(plan.stages[1]!.map(s => s.order)).toEqual([
      { kind: 'move', server: 's1', how: 'live' },
      { kind: 'move', server: 's2', how: 'cold' },
    ]);
    for (const s of plan.stages.flat()) {
      expect(s.destroys).toBeNull();
      expect(s.timeoutSeconds).toBeGreaterThan(s.expectedSeconds);
    }
  });

  it('of an empty volume node takes its services out of Cinder', () => {
    const plan = planRemoval(
      { ...NO_RECORDS, volumeServices: [{ binary: 'cinder-volume', host: 'vol2.lab.example@lvm', enabled: true }] },
      context({ node: 'vol2', services: ['host', 'volume-backend'], volumeBackend: 'lvm' }),
    );
    expect(plan.refusals).toEqual([]);
    expect(keys(plan)).toEqual(['disable', 'stop', 'cinder', 'queues', 'roles', 'apply', 'check']);
  });

  it('of a gateway says what users notice', () => {
    const plan = planRemoval(
      { ...NO_RECORDS, agents: [{ id: 'net2', type: 'OVN Controller Gateway agent', host: 'net2' }] },
      context({ node: 'net2', services: ['host', 'network-gateway', 'network-agent'] }),
    );
    expect(plan.refusals).toEqual([]);
    expect(keys(plan)).toEqual(['stop', 'chassis', 'neutron', 'roles', 'apply', 'check']);
    expect(plan.stages[0]![0]!.interrupts).toContain('floating IPs');
  });

  it('of a node without roles takes away what the cloud still knows', () => {
    const plan = planRemoval(known(), context({ services: [], member: false }));
    expect(plan.refusals).toEqual([]);
    expect(keys(plan)).toContain('stop');
    expect(keys(plan)).not.toContain('roles');
  });

  it('leaves out what is done already', () => {
    expect(keys(planRemoval(NO_RECORDS, context({ resumed: true, services: [], member: false })))).toEqual([
      'apply',
      'check',
    ]);
  });

  it('stops no unit that the node’s own network may pass through', () => {
    const units = unitsOf(context({ services: [...COMPUTE, 'network-gateway'] }));
    expect(units).toEqual(expect.arrayContaining(['nova-compute.service', 'ovn-host.service', 'libvirtd-tls.socket']));
    for (const unit of ['openvswitch-switch.service', 'halligan-bridges.service', 'chrony.service'])
      expect(units).not.toContain(unit);
    expect(unitsOf(context({ node: 'vol', services: ['volume-backend'] }))).toContain('ceph-mon@vol.service');
    const script = stopScript(units, true);
    expect(script).toContain('systemctl disable');
    expect(script).toContain('ovn-controller exit');
    expect(stopScript(['cinder-volume.service'], false)).not.toContain('ovn-controller');
  });

  it('leaves no file with a secret of the cloud on the node', () => {
    const pattern = new RegExp(
      `^(${SECRET_FILES.map(f => f.replaceAll('.', '\\.').replaceAll('*', '[^/]*')).join('|')})$`,
    );
    const objects = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdc', fileSize: null }] };
    const found = new Set<string>();
    for (const backend of ['ceph', 'lvm'] as const) {
      const nodes = [...fourNodes(), nodeInput('sto', '10.99.0.30', ['storage'])];
      const volumes = { backend, devices: [{ path: '/dev/sdb', fileSize: null }] };
      for (const { node, resource: r } of desired(model(nodes, { objects, volumes })).placed)
        if (node !== 'ctl' && r.kind === 'file' && r.content.includes('SECRET')) found.add(r.path);
    }
    expect([...found]).toContain('/var/lib/nova/.ssh/id_ed25519');
    expect([...found].filter(path => !pattern.test(path))).toEqual([]);
    const script = stopScript(['nova-compute.service'], true);
    expect(script.indexOf('systemctl stop')).toBeLessThan(script.lastIndexOf('forget'));
    for (const f of SECRET_FILES) expect(script).toContain(` ${f}`);
  });
});

describe('a removal is refused', () => {
  const cases: readonly [string, Records, Partial<RemovalContext>, RegExp, forcible: boolean][] = [
    ['of the controller', known(), { services: ['host', 'database', 'identity'] }, /is a controller/, false],
    ['of the last compute', known(), { others: s => (s === 'hypervisor' ? 0 : 1) }, /last compute/, true],
    [
      'of the last gateway',
      NO_RECORDS,
      { services: ['host', 'network-gateway'], others: () => 0 },
      /last network gateway/,
      true,
    ],
    [
      'of the last volume node',
      NO_RECORDS,
      { services: ['host', 'volume-backend'], others: () => 0 },
      /last volume node/,
      true,
    ],
    [
      'of a node that does not answer',
      known(),
      { unreachable: 'no route to it' },
      /no route to it\. Its servers/,
      true,
    ],
    [
      'while a server cannot be moved: nowhere to go',
      known({ servers: [server()], otherComputes: [] }),
      {},
      /One server of cmp2 cannot be moved: web \(s1\): no other compute is up/,
      true,
    ],
    [
      'while a server cannot be moved: a device of the host',
      known({ servers: [server({ ties: ['a device of the host (pci_passthrough:alias)'] })] }),
      {},
      /it has a device of the host/,
      true,
    ],
    [
      'while a server cannot be moved: its state',
      known({ servers: [server({ status: 'SUSPENDED' })] }),
      {},
      /it is in state SUSPENDED/,
      true,
    ],
    [
      'while Nova is at work on a server',
      known({ servers: [server({ status: 'MIGRATING', task: 'migrating' })] }),
      {},
      /^Nova is at work on one server of cmp2: web/,
      false,
    ],
    [
      'while a move is under way',
      known({ migrations: [{ id: '1', server: 's9', status: 'running', type: 'live-migration' }] }),
      {},
      /being moved right now \(s9\)/,
      false,
    ],
    [
      'while a resize waits to be confirmed',
      known({ migrations: [{ id: '1', server: 's9', status: 'finished', type: 'resize' }] }),
      {},
      /waits to be confirmed/,
      true,
    ],
    [
      'while nova-compute does not run beside its servers',
      known({
        servers: [server()],
        computeServices: [
          { id: 'c1', binary: 'nova-compute', host: 'cmp2', up: false, enabled: true, forcedDown: false },
        ],
      }),
      {},
      /nova-compute does not run/,
      false,
    ],
    [
      'while volumes are on it',
      { ...NO_RECORDS, volumes: [{ id: 'v1', name: 'data', status: 'in-use' }] },
      { services: ['host', 'volume-backend'], volumeBackend: 'lvm' },
      /One volume is on cmp2: data \(v1\)/,
      false,
    ],
    [
      'of a part of a Ceph cluster that goes on',
      NO_RECORDS,
      { services: ['host', 'volume-backend'] },
      /Ceph cluster/,
      false,
    ],
    ['of a node that keeps objects', NO_RECORDS, { services: ['host', 'object-store'] }, /keeps objects/, true],
  ];
  for (const [what, records, over, sentence, forcible] of cases)
    it(`${what}${forcible ? ', unless forced' : ', forced or not'}`, () => {
      const plan = planRemoval(records, context(over));
      expect(plan.refusals).toHaveLength(1);
      expect(plan.refusals[0]!.message).toMatch(sentence);
      expect(plan.refusals[0]!.hint).toMatch(/[.e]$/);
      expect(refused(records, { ...over, force: true })).toHaveLength(forcible ? 0 : 1);
    });
});

describe('with force', () => {
  it('servers that cannot be moved are deleted, and that is said', () => {
    const plan = planRemoval(known({ servers: [server({ status: 'SUSPENDED' })] }), context({ force: true }));
    const step = plan.stages.flat().find(s => s.key === 'move/s1')!;
    expect(step).toMatchObject({ order: { kind: 'delete', server: 's1' }, destroys: 'server web (s1)' });
  });

  it('servers of a dead node are built anew elsewhere, after Nova was told that it is dead', () => {
    const plan = planRemoval(
      known({ servers: [server({ status: 'ERROR' })] }),
      context({ unreachable: 'no route', force: true }),
    );
    expect(keys(plan).slice(0, 4)).toEqual(['force-down', 'disable', 'move/s1', 'empty']);
    expect(keys(plan)).not.toContain('stop');
    expect(plan.stages[2]![0]).toMatchObject({
      order: { how: 'rebuild' },
      destroys: expect.stringContaining('on the disks of cmp2'),
    });
  });

  it('moves that wait are confirmed', () => {
    const plan = planRemoval(
      known({ migrations: [{ id: '1', server: 's9', status: 'finished', type: 'resize' }] }),
      context({ force: true }),
    );
    expect(keys(plan)).toContain('confirm/s9');
  });
});

it('a removal that is taken up again waits for the moves that it had begun', () => {
  const plan = planRemoval(
    known({
      servers: [server({ status: 'MIGRATING', task: 'migrating' })],
      migrations: [
        { id: '1', server: 's1', status: 'running', type: 'live-migration' },
        { id: '2', server: 's2', status: 'post-migrating', type: 'migration' },
      ],
    }),
    context({ resumed: true }),
  );
  expect(plan.refusals).toEqual([]);
  expect(plan.stages.flat().map(s => s.title)).toEqual(
    expect.arrayContaining([
      'wait for the end of the migration of server s2',
      'move server web (s1) to another compute while it runs',
    ]),
  );
});

it('what is left is told a line each, whatever name it has', () => {
  expect(leftOver(NO_RECORDS)).toEqual([]);
  expect(leftOver(known({ rows: ['nova_api.host_mappings: cmp2'] }))).toEqual([
    'Nova: service nova-compute on cmp2 (c1)',
    'Nova: hypervisor cmp2.lab.example (p1)',
    'Placement: resource provider cmp2.lab.example (p1)',
    'Neutron: OVN Controller agent on cmp2 (cmp2)',
    'OVN: chassis cmp2',
    'OVN: private record of chassis cmp2',
    'database: nova_api.host_mappings: cmp2',
  ]);
});
