/** A cloud that nobody has: what the catalogue is checked with at start, what bakes are made for, and what tests begin from. */
import type { CloudSettings } from '../../provisioner/core/cloud-settings.js';
import type { SecretKind } from './catalogue.js';
import type { NodeFacts, Release } from './cloud.js';

/** Everything that a site may leave open is left open; networks are those for documentation (RFC 5737). */
export const SAMPLE_SETTINGS: Omit<CloudSettings, 'release'> = {
  region: 'RegionOne',
  apiName: null,
  networks: { management: null, tunnel: null, storage: null },
  provider: [{ physicalNetwork: 'physnet1', interface: 'eth1', vlanRange: null }],
  external: {
    name: 'public',
    physicalNetwork: 'physnet1',
    vlan: null,
    cidr: '203.0.113.0/24',
    gateway: '203.0.113.1',
    pool: { from: '203.0.113.100', to: '203.0.113.200' },
  },
  providerNetworks: [],
  tenantNetworks: 'geneve',
  distributedFloatingIp: false,
  mtu: 1500,
  datapath: 'auto',
  virtualization: 'auto',
  workers: null,
  dns: ['198.51.100.53'],
  ntp: ['198.51.100.123'],
  volumes: { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] },
  objects: { enabled: true, replicas: 2, devices: [{ path: '/dev/sdc', fileSize: null }] },
  dashboard: true,
  flavors: [{ name: 'small', vcpus: 1, memoryMiB: 2048, diskGiB: 10 }],
  config: {},
  packages: null,
};

/** A real machine of a release, for what is made before any is seen: its kernel has everything. */
export const machineFacts = (release: Pick<Release, 'distribution'>): NodeFacts => {
  const [id = '', version = ''] = release.distribution.split(/-(?=[0-9])/);
  return {
    hostname: 'sample',
    os: { id, version },
    kernel: '6.1.0',
    architecture: 'x86_64',
    cpus: 8,
    memoryMiB: 32_768,
    container: false,
    kvm: true,
    modules: { openvswitch: true, deviceMapper: true, iscsi: true, vlan: true },
    interfaces: [],
    disks: [],
    clockOffsetMs: 0,
  };
};

/** Of the right form, and of no use. */
export const sampleSecret = (_name: string, kind: SecretKind = 'password'): string =>
  ({
    password: 'X'.repeat(40),
    fernet: `${'X'.repeat(43)}=`,
    uuid: '00000000-0000-4000-8000-000000000000',
    ceph: `AQ${'A'.repeat(36)}==`,
    ssh: '-----BEGIN OPENSSH PRIVATE KEY-----\nsample\n-----END OPENSSH PRIVATE KEY-----\n',
    hex: '0'.repeat(64),
  })[kind];
