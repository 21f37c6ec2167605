import { describe, expect, it } from 'vitest';
import { buildCloudModel, type NodeInput } from '../../../../installer/model/build.js';
import type { NodeFacts } from '../../../../installer/model/cloud.js';
import { NO_MEMORY } from '../../../../installer/model/memory.js';
import { type PrecheckOptions, precheck } from '../../../../installer/model/precheck.js';
import type { CloudSettings } from '../../../../installer/model/settings.js';
import { catalogueOf, facts, node, release, role, service, settings } from './sample.js';

const catalogue = catalogueOf(
  ['identity', 'network-gateway', 'hypervisor', 'volume-backend', 'object-store'].map(name => service(name)),
  [
    role('controller', ['identity']),
    role('network', ['network-gateway']),
    role('compute', ['hypervisor']),
    role('volume', ['volume-backend']),
    role('storage', ['object-store']),
  ],
);

interface Case {
  readonly nodes?: readonly NodeInput[];
  readonly settings?: Partial<CloudSettings>;
  readonly input?: PrecheckOptions;
  readonly release?: Partial<typeof release>;
}
const said = (c: Case): string[] => {
  const built = buildCloudModel({
    siteName: 'berlin',
    domain: 'cloud',
    settings: settings(c.settings),
    release: { ...release, ...c.release },
    catalogue,
    nodes: c.nodes ?? [],
    memory: NO_MEMORY,
  });
  if (!built.ok) throw new Error(JSON.stringify(built.problems));
  return precheck(built.model, c.input).map(p => `${p.severity} ${p.node ?? '*'}: ${p.message} → ${p.hint}`);
};
const one = (roles: string[], over: Partial<NodeFacts> = {}) => [node('n1', 1, roles, { facts: facts('n1', 1, over) })];

it('has nothing to say of four sound nodes', () => {
  const roles = ['controller', 'network', 'compute', 'volume', 'storage'];
  expect(said({ nodes: roles.map((r, i) => node(`n${i + 1}`, i + 1, [r])) })).toEqual([]);
});

describe('a clock', () => {
  const skewed = (...offsets: number[]) =>
    said({
      nodes: offsets.map((o, i) =>
        node(`n${i}`, i + 1, ['network'], { facts: facts(`n${i}`, i + 1, { clockOffsetMs: o }) }),
      ),
    });

  it('may be off by two seconds, is warned of up to thirty, and leaves its node out beyond', () => {
    expect(skewed(0, 2000, -2000)).toEqual([]);
    expect(skewed(0, 2500)[0]).toMatch(/^warn n1: Its clock is 2\.5 s ahead\./);
    expect(skewed(0, -30_001)[0]).toMatch(/^hold n1: Its clock is 30\.0 s behind\. Tokens and certificates/);
    expect(skewed(0, -7_200_000)[0]).toContain('120 min behind');
  });

  it('is our own when all nodes agree with each other', () => {
    expect(skewed(40_000, 40_500)).toEqual([
      "refuse *: The clocks of all nodes agree, and differ from this server's by 40.0 s. → Set the clock of the server that runs Halligan: certificates get their dates from it.",
    ]);
  });
});

describe('a system', () => {
  it('of another release than the packages is refused', () => {
    expect(said({ nodes: one(['network'], { os: { id: 'ubuntu', version: '24.04' } }) })[0]).toBe(
      'refuse n1: It runs ubuntu 24.04, but the release debian-12-zed is for debian 12. → Install the node anew with the right image, or name another release in cloud.release.',
    );
  });

  it('of another architecture is refused, or warned of where it should work', () => {
    expect(said({ nodes: one(['network'], { architecture: 'riscv64' }) })[0]).toMatch(/^refuse n1: .*riscv64/);
    expect(said({ nodes: one(['network'], { architecture: 'aarch64' }) })[0]).toMatch(/^warn n1: /);
  });

  it('in a container is told what that means', () => {
    const inContainer = {
      container: true,
      modules: { openvswitch: false, deviceMapper: false, iscsi: false, vlan: false },
    };
    expect(said({ nodes: one(['network'], inContainer) })).toEqual([
      expect.stringMatching(/^warn n1: It is a container: .*userspace of Open vSwitch/),
    ]);
  });

  it('whose release was never laid down is warned of once', () => {
    const nodes = [node('n1', 1, ['network']), node('n2', 2, ['network'])];
    expect(said({ nodes, release: { tested: false } })).toEqual([expect.stringMatching(/^warn \*: .*never laid down/)]);
  });
});

describe('memory and disk', () => {
  it('of a controller: 3.5 GiB', () => {
    expect(said({ nodes: one(['controller'], { memoryMiB: 3584 }) })).toEqual([]);
    expect(said({ nodes: one(['controller'], { memoryMiB: 3000 }) })[0]).toMatch(
      /^refuse n1: It has 2\.9 GiB of memory; controller takes 3\.5/,
    );
  });

  it('of several roles are added up, with some mercy', () => {
    const roles = ['controller', 'network', 'compute'];
    expect(said({ nodes: one(roles, { memoryMiB: 5900 }) })).toEqual([]);
    expect(said({ nodes: one(roles, { memoryMiB: 5000 }) })[0]).toMatch(/^warn n1: .*, and servers more/);
    expect(said({ nodes: one(roles, { memoryMiB: 4000 }) })[0]).toMatch(/^refuse n1: /);
  });

  it('on a full disk nothing is begun, and the other nodes go on', () => {
    const free = (freeMiB: number) => said({ nodes: one(['controller']), input: { seen: { n1: { freeMiB } } } });
    expect(free(20_000)).toEqual([]);
    expect(free(5_000)[0]).toMatch(/^warn n1: 4\.9 GiB are free/);
    expect(free(500)[0]).toMatch(/^hold n1: Only 500 MiB are free/);
  });
});

describe('networks', () => {
  const mtu = (value: number) => ({ interfaces: facts('n1', 1).interfaces.map(i => ({ ...i, mtu: value })) });

  it('whose interfaces carry less than is promised are refused', () => {
    expect(said({ nodes: one(['compute'], mtu(1500)), settings: { mtu: 9000, provider: [] } })[0]).toMatch(
      /^refuse n1: eth0, which carries tunnels, has an MTU of 1500, but cloud\.mtu promises 9000/,
    );
    expect(said({ nodes: one(['network'], mtu(1400)), settings: { tenantNetworks: 'vlan' } })[0]).toMatch(
      /^refuse n1: eth1, which carries the provider network physnet1, has an MTU of 1400/,
    );
    expect(said({ nodes: one(['controller'], mtu(1400)) })).toEqual([]);
  });

  it('too narrow for IPv6 inside of tunnels are warned of', () => {
    expect(said({ nodes: one(['compute'], mtu(1300)), settings: { mtu: 1300 } })[0]).toContain(
      'get 1242: less than the 1280',
    );
  });

  it('on the only interface are warned of', () => {
    const provider = [{ physicalNetwork: 'physnet1', interface: 'eth0', vlanRange: null }];
    expect(said({ nodes: one(['network']), settings: { provider } })[0]).toMatch(
      /^warn n1: eth0 carries the node's own address/,
    );
  });

  it('without the kernel’s Open vSwitch are slower', () => {
    const without = { modules: { ...facts('n1', 1).modules, openvswitch: false } };
    expect(said({ nodes: one(['network'], without) })[0]).toMatch(/^warn n1: .*userspace/);
    expect(said({ nodes: one(['network'], without), settings: { datapath: 'userspace' } })).toEqual([]);
    expect(said({ nodes: one(['controller'], without), settings: { datapath: 'kernel' } })).toEqual([]);
  });
});

it('a hypervisor without KVM is slow', () => {
  const nodes = one(['compute'], { kvm: false });
  expect(said({ nodes })[0]).toMatch(/^warn n1: It has no KVM/);
  expect(said({ nodes, settings: { virtualization: 'qemu' } })).toEqual([]);
});

describe('volumes', () => {
  it('take no disk that is missing, in use, or given away twice', () => {
    const devices = (...paths: string[]) => ({
      volumes: { backend: 'lvm', devices: paths.map(path => ({ path, fileSize: null })) } as const,
    });
    const nodes = one(['volume']);
    expect(said({ nodes, settings: devices('/dev/sdx') })[0]).toContain(
      'It has no disk /dev/sdx, which cloud.volumes.devices gives away; its disks are /dev/sda, /dev/sdb.',
    );
    expect(said({ nodes, settings: devices('/dev/sda') })[0]).toMatch(/^refuse n1: \/dev\/sda is in use/);
    expect(said({ nodes, settings: devices('/dev/sdb', '/dev/sdb') })).toEqual([
      expect.stringContaining('given away twice'),
    ]);
  });

  it('leave the node out for a disk that is not empty, but not for their own', () => {
    const disk = (signature: string | null, backend: 'lvm' | 'ceph', expected = false) =>
      said({
        nodes: one(['volume'], { disks: [{ path: '/dev/sdb', bytes: 1, mounted: false, signature }] }),
        settings: { volumes: { backend, devices: [{ path: '/dev/sdb', fileSize: null }] } },
        input: { seen: { n1: { expected } } },
      });
    expect(disk('ext4', 'lvm')).toEqual([
      'hold n1: /dev/sdb is not empty (ext4), but cloud.volumes.devices gives it away: a disk that holds something is not touched. → Name another disk in cloud.volumes.devices; or look what it is (`wipefs /dev/sdb`), and wipe it by hand (`wipefs -a /dev/sdb`) if it may be lost.',
    ]);
    expect(disk('ext4', 'lvm', true)[0]).toMatch(/^warn n1: .*once the node is installed/);
    expect(disk('LVM2_member', 'lvm')).toEqual([]);
    // The same as what gives disks to Ceph takes.
    expect(disk('LVM2_member', 'ceph')[0]).toMatch(/^hold n1: /);
    expect(disk('ceph_bluestore', 'ceph')).toEqual([]);
  });

  it('of objects may be mounted already', () => {
    const nodes = one(['storage'], { disks: [{ path: '/dev/sdb', bytes: 1, mounted: true, signature: 'xfs' }] });
    const objects = { enabled: true, replicas: 2, devices: [{ path: '/dev/sdb', fileSize: null }] };
    expect(said({ nodes, settings: { objects } })).toEqual([]);
  });
});

it('a CA in its last year is warned of', () => {
  const ca = (days: number) => ({ ca: { expiresMs: days * 86_400_000, nowMs: 0 } });
  const nodes = one(['network']);
  expect(said({ nodes, input: ca(400) })).toEqual([]);
  expect(said({ nodes, input: ca(100) })[0]).toMatch(/^warn \*: The site's CA ends on 1970-04-11/);
  expect(said({ nodes, input: ca(0) })[0]).toMatch(/^refuse \*: /);
});
