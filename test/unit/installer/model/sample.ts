/** A small cloud to test with: facts, settings, and a catalogue of a few services that do nothing. */
import type { NodeInput } from '../../../../installer/model/build.js';
import type { Catalogue, RoleDeclaration, ServiceDeclaration } from '../../../../installer/model/catalogue.js';
import type { NodeFacts, Release } from '../../../../installer/model/cloud.js';
import type { CloudSettings } from '../../../../installer/model/settings.js';

export const facts = (hostname: string, last: number, over: Partial<NodeFacts> = {}): NodeFacts => ({
  hostname,
  os: { id: 'debian', version: '12' },
  kernel: '6.1.0-30-amd64',
  architecture: 'x86_64',
  cpus: 4,
  memoryMiB: 16_000,
  container: false,
  kvm: true,
  modules: { openvswitch: true, deviceMapper: true, iscsi: true, vlan: true },
  interfaces: [
    { name: 'lo', mac: '', mtu: 65536, up: true, addresses: ['127.0.0.1/8'], defaultRoute: null },
    { name: 'eth0', mac: '', mtu: 1500, up: true, addresses: [`10.99.0.${last}/24`], defaultRoute: '10.99.0.1' },
    { name: 'eth1', mac: '', mtu: 1500, up: true, addresses: [], defaultRoute: null },
    { name: 'eth2', mac: '', mtu: 1500, up: true, addresses: [`10.77.0.${last}/24`], defaultRoute: null },
  ],
  disks: [
    { path: '/dev/sda', bytes: 500e9, mounted: true, signature: 'dos' },
    { path: '/dev/sdb', bytes: 500e9, mounted: false, signature: null },
  ],
  clockOffsetMs: 5,
  ...over,
});

export const node = (name: string, last: number, roles: string[], over: Partial<NodeInput> = {}): NodeInput => ({
  name,
  roles,
  sshAddress: `10.99.0.${last}`,
  facts: facts(name, last),
  ...over,
});

export const settings = (over: Partial<CloudSettings> = {}): CloudSettings => ({
  release: 'debian-12-zed',
  region: 'RegionOne',
  apiName: null,
  networks: { management: null, tunnel: null, storage: null },
  provider: [{ physicalNetwork: 'physnet1', interface: 'eth1', vlanRange: null }],
  external: null,
  providerNetworks: [],
  tenantNetworks: 'geneve',
  distributedFloatingIp: false,
  mtu: 1500,
  datapath: 'auto',
  virtualization: 'auto',
  workers: null,
  dns: [],
  ntp: [],
  volumes: { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] },
  objects: { enabled: false, replicas: 2, devices: [] },
  dashboard: true,
  flavors: [],
  config: {},
  packages: null,
  ...over,
});

export const release: Release = {
  name: 'debian-12-zed',
  distribution: 'debian-12',
  openstack: 'zed',
  version: '2022.2',
  tested: true,
  archives: [],
  services: {},
};

export const service = (name: string, over: Partial<ServiceDeclaration> = {}): ServiceDeclaration => ({
  name,
  title: name,
  sentence: `It is ${name}.`,
  needs: [],
  build: () => [],
  ...over,
});

export const role = (name: string, services: string[], over: Partial<RoleDeclaration> = {}): RoleDeclaration => ({
  name,
  title: name,
  sentence: `It is ${name}.`,
  services,
  limits: [],
  needs: [],
  conflicts: [],
  ...over,
});

export const catalogueOf = (services: ServiceDeclaration[], roles: RoleDeclaration[]): Catalogue => ({
  services: new Map(services.map(s => [s.name, s])),
  roles: new Map(roles.map(r => [r.name, r])),
});

export const smallCatalogue = catalogueOf(
  [
    service('database', { databases: [] }),
    service('identity', {
      needs: ['database'],
      databases: [{ name: 'keystone', user: 'keystone' }],
      endpoints: [{ type: 'identity', name: 'keystone', port: 5000, path: '/v3' }],
    }),
    service('volume-control', {
      user: 'cinder',
      wanted: s => s.volumes.backend !== 'none',
      endpoints: [{ type: 'volumev3', name: 'cinderv3', port: 8776, path: '/v3' }],
    }),
    service('hypervisor', { needs: ['identity'], networks: ['tunnel'] }),
    service('volume-backend', {
      needs: ['volume-control'],
      networks: ['storage'],
      wanted: s => s.volumes.backend !== 'none',
    }),
  ],
  [
    role('compute', ['hypervisor'], { needs: [{ role: 'controller', sentence: 'It has nobody to listen to.' }] }),
    role('controller', ['identity', 'volume-control', 'database'], {
      limits: [
        { least: 1, sentence: 'A cloud needs one.' },
        { most: 1, sentence: 'Several controllers are not supported yet.' },
      ],
      conflicts: [{ role: 'volume', sentence: 'Its disks are too busy.' }],
    }),
    role('volume', ['volume-backend'], { conflicts: [{ role: 'controller', sentence: 'Its disks are too busy.' }] }),
  ],
);
