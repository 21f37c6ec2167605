import { readFileSync } from 'node:fs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { stringify } from 'yaml';
import type * as Installer from '../../../installer/model/settings.js';
import type { CloudSettings } from '../../../provisioner/core/cloud-settings.js';
import { cloudSettings } from '../../../provisioner/site/cloud.js';
import { exportSite } from '../../../provisioner/site/export.js';
import { loadSite } from '../../../provisioner/site/load.js';
import type { Site } from '../../../provisioner/site/schema.js';

const BASE = {
  version: 1,
  name: 'dc1',
  networks: [
    {
      name: 'boot',
      cidr: '10.99.0.0/24',
      interface: 'br0',
      gateway: '10.99.0.254',
      pool: { from: '10.99.0.200', to: '10.99.0.239' },
    },
  ],
};
const ROLES = [['controller', 'network'], ['compute'], ['volume'], ['storage']];
const nodes = ROLES.map((roles, i) => ({
  name: `n${i}`,
  macs: [`52:54:00:99:00:0${i}`],
  address: `10.99.0.1${i}`,
  roles,
}));
const load = (cloud: unknown, more: object = {}): Site => {
  const loaded = loadSite(stringify({ ...BASE, cloud, nodes, ...more }), 'site.yaml');
  if (Array.isArray(loaded)) throw new Error(loaded.map(p => p.message).join('\n'));
  return loaded.site;
};
const faults = (cloud: unknown, more: object = {}): string[] => {
  const loaded = loadSite(stringify({ ...BASE, cloud, nodes, ...more }), 'site.yaml');
  return Array.isArray(loaded) ? loaded.map(p => p.message.replace(/^site\.yaml:\d+:\d+: /, '')) : [];
};
const PROVIDER = [{ physical_network: 'physnet1', interface: 'eth1', vlan_range: '100:299' }];
const EXTERNAL = {
  name: 'public',
  physical_network: 'physnet1',
  cidr: '203.0.113.0/24',
  gateway: '203.0.113.1',
  pool: { from: '203.0.113.100', to: '203.0.113.199' },
};

const SUBNET = {
  cidr: '10.120.0.0/24',
  gateway: '10.120.0.1',
  pool: { from: '10.120.0.100', to: '10.120.0.199' },
  dns: ['10.120.0.53'],
  routes: [{ to: '10.130.0.0/16', via: '10.120.0.2' }],
};
const LAN = {
  name: 'lan',
  physical_network: 'physnet1',
  vlan: 400,
  subnets: [SUBNET, { cidr: '10.121.0.0/24', dhcp: false }],
  ports: [
    {
      name: 'printer',
      address: '10.120.0.20',
      mac: 'FA-16-3E-00-00-20',
      dhcp_options: { router: '10.120.0.2', mtu: 1400 },
    },
    { name: 'any' },
  ],
};
/** A site with the network LAN and one thing of it changed. */
const lan = (changes: object) => ({ provider: PROVIDER, provider_networks: [{ ...LAN, ...changes }] });
const port = (changes: object) => lan({ ports: [{ name: 'printer', ...changes }] });

describe('cloudSettings', () => {
  it('makes a small cloud out of `cloud: {}` and roles', () => {
    expect(cloudSettings(load({}, { dns: { forward: ['192.0.2.53'] }, ntp: ['192.0.2.123'] }))).toEqual({
      release: 'debian-12-zed',
      region: 'RegionOne',
      apiName: null,
      networks: { management: null, tunnel: null, storage: null },
      provider: [],
      external: null,
      providerNetworks: [],
      tenantNetworks: 'geneve',
      distributedFloatingIp: false,
      mtu: 1500,
      datapath: 'auto',
      virtualization: 'auto',
      workers: null,
      dns: ['192.0.2.53'],
      ntp: ['192.0.2.123'],
      volumes: { backend: 'none', devices: [] },
      objects: { enabled: false, replicas: 1, devices: [] },
      dashboard: true,
      flavors: [
        { name: 'm1.nano', vcpus: 1, memoryMiB: 192, diskGiB: 1 },
        { name: 'm1.tiny', vcpus: 1, memoryMiB: 512, diskGiB: 1 },
        { name: 'm1.small', vcpus: 1, memoryMiB: 2048, diskGiB: 20 },
        { name: 'm1.medium', vcpus: 2, memoryMiB: 4096, diskGiB: 40 },
      ],
      config: {},
      packages: null,
    });
  });

  it('is null for a site without a cloud, whatever roles its nodes have', () => {
    const loaded = loadSite(stringify({ ...BASE, nodes }), 'site.yaml');
    expect(cloudSettings((loaded as { site: Site }).site)).toBeNull();
  });

  it('carries over every field', () => {
    const config = { hypervisor: { '/etc/nova/nova.conf': { DEFAULT: { debug: true, cpu_allocation_ratio: 4.5 } } } };
    expect(
      cloudSettings(
        load({
          release: 'ubuntu-24.04-2024.1',
          region: 'dc1',
          api_name: 'cloud.example.net',
          networks: { management: '10.99.0.0/24', tunnel: '10.96.0.0/24', storage: '10.97.0.0/24' },
          provider: PROVIDER,
          external: { ...EXTERNAL, vlan: 300 },
          provider_networks: [LAN],
          tenant_networks: 'vlan',
          distributed_floating_ip: true,
          mtu: 9000,
          datapath: 'userspace',
          virtualization: 'qemu',
          workers: 2,
          dns: ['192.0.2.1'],
          ntp: ['192.0.2.2'],
          volumes: { backend: 'ceph', devices: [{ path: '/dev/sdb' }] },
          objects: {
            replicas: 2,
            devices: [
              { path: '/srv/a', file_size: '8G' },
              { path: '/srv/b', file_size: '8G' },
            ],
          },
          dashboard: false,
          flavors: [{ name: 'one', vcpus: 1, memory_mib: 64, disk_gib: 0 }],
          config,
          packages: 'proxy',
        }),
      ),
    ).toEqual({
      release: 'ubuntu-24.04-2024.1',
      region: 'dc1',
      apiName: 'cloud.example.net',
      networks: { management: '10.99.0.0/24', tunnel: '10.96.0.0/24', storage: '10.97.0.0/24' },
      provider: [{ physicalNetwork: 'physnet1', interface: 'eth1', vlanRange: '100:299' }],
      external: {
        name: 'public',
        physicalNetwork: 'physnet1',
        vlan: 300,
        cidr: '203.0.113.0/24',
        gateway: '203.0.113.1',
        pool: { from: '203.0.113.100', to: '203.0.113.199' },
      },
      providerNetworks: [
        {
          name: 'lan',
          physicalNetwork: 'physnet1',
          vlan: 400,
          shared: true,
          subnets: [
            {
              name: 'lan-v4',
              cidr: '10.120.0.0/24',
              gateway: '10.120.0.1',
              dhcp: true,
              pool: { from: '10.120.0.100', to: '10.120.0.199' },
              dns: ['10.120.0.53'],
              routes: [{ to: '10.130.0.0/16', via: '10.120.0.2' }],
            },
            {
              name: 'lan-v4-2',
              cidr: '10.121.0.0/24',
              gateway: null,
              dhcp: false,
              pool: null,
              dns: [],
              routes: [],
            },
          ],
          ports: [
            {
              name: 'printer',
              address: '10.120.0.20',
              mac: 'fa:16:3e:00:00:20',
              dhcpOptions: { router: '10.120.0.2', mtu: '1400' },
            },
            { name: 'any', address: null, mac: null, dhcpOptions: {} },
          ],
        },
      ],
      tenantNetworks: 'vlan',
      distributedFloatingIp: true,
      mtu: 9000,
      datapath: 'userspace',
      virtualization: 'qemu',
      workers: 2,
      dns: ['192.0.2.1'],
      ntp: ['192.0.2.2'],
      volumes: { backend: 'ceph', devices: [{ path: '/dev/sdb', fileSize: null }] },
      objects: {
        enabled: true,
        replicas: 2,
        devices: [
          { path: '/srv/a', fileSize: '8G' },
          { path: '/srv/b', fileSize: '8G' },
        ],
      },
      dashboard: false,
      flavors: [{ name: 'one', vcpus: 1, memoryMiB: 64, diskGiB: 0 }],
      config,
      packages: 'proxy',
    });
  });

  it('takes LVM where disks are named, and no more copies of objects than there are disks', () => {
    const one = [{ path: '/dev/sdb' }];
    const settings = cloudSettings(load({ volumes: { devices: one }, objects: { devices: one } }))!;
    expect(settings.volumes.backend).toBe('lvm');
    expect(settings.objects).toEqual({ enabled: true, replicas: 1, devices: [{ path: '/dev/sdb', fileSize: null }] });
    const four = ['b', 'c', 'd', 'e'].map(d => ({ path: `/dev/sd${d}` }));
    expect(cloudSettings(load({ objects: { devices: four } }))!.objects.replicas).toBe(3);
  });

  it('speaks the same language as the installer, both ways', () => {
    expectTypeOf<CloudSettings>().toExtend<Installer.CloudSettings>();
    expectTypeOf<Installer.CloudSettings>().toExtend<CloudSettings>();
  });
});

describe('the cloud of a site', () => {
  it.each<[string, object, string]>([
    [
      'a network that overlaps the one that nodes boot from',
      { networks: { tunnel: '10.99.0.0/25' } },
      'cloud.networks.tunnel: expected 10.99.0.0/24 of networks[0] itself or a subnet apart from it, found 10.99.0.0/25',
    ],
    [
      'a tunnel network around the storage network',
      { networks: { tunnel: '10.96.0.0/16', storage: '10.96.5.0/24' } },
      'cloud.networks.storage: expected 10.96.0.0/16 of cloud.networks.tunnel itself or a subnet apart from it, found 10.96.5.0/24',
    ],
    [
      'a VLAN range that is no range',
      { provider: [{ ...PROVIDER[0], vlan_range: '100-299' }] },
      'cloud.provider[0].vlan_range: expected first and last VLAN tag, joined by a colon, for example 100:299, found "100-299"',
    ],
    [
      'a VLAN range that ends before it begins',
      { provider: [{ ...PROVIDER[0], vlan_range: '299:100' }] },
      'cloud.provider[0].vlan_range: expected two tags from 1 to 4094, the lower first, found "299:100"',
    ],
    [
      'one physical network on two interfaces',
      { provider: [PROVIDER[0], { ...PROVIDER[0], interface: 'eth2' }] },
      'cloud.provider[1].physical_network: physical network physnet1 is already used at cloud.provider[0].physical_network',
    ],
    [
      'an external network on nothing',
      { external: EXTERNAL },
      'cloud.external.physical_network: expected a physical_network of cloud.provider (it is empty), found "physnet1"',
    ],
    [
      'an external network on a misspelt one',
      { provider: PROVIDER, external: { ...EXTERNAL, physical_network: 'fysnet1' } },
      'cloud.external.physical_network: expected a physical_network of cloud.provider (physnet1), found "fysnet1"; did you mean physnet1?',
    ],
    [
      'a tag that projects may get',
      { provider: PROVIDER, external: { ...EXTERNAL, vlan: 150 } },
      'cloud.external.vlan: expected a tag outside vlan_range of physnet1 (100:299), which projects get, found 150',
    ],
    [
      'a pool outside the subnet',
      { provider: PROVIDER, external: { ...EXTERNAL, pool: { from: '203.0.112.1', to: '203.0.113.9' } } },
      'cloud.external.pool.from: expected an address of 203.0.113.0/24 (203.0.113.1 to 203.0.113.254), found 203.0.112.1',
    ],
    [
      'a pool that ends before it begins',
      { provider: PROVIDER, external: { ...EXTERNAL, pool: { from: '203.0.113.9', to: '203.0.113.8' } } },
      'cloud.external.pool.to: expected an address not below pool.from (203.0.113.9), found 203.0.113.8',
    ],
    [
      'a gateway inside the pool',
      { provider: PROVIDER, external: { ...EXTERNAL, gateway: '203.0.113.150' } },
      'cloud.external.gateway: expected an address outside the pool (203.0.113.100 to 203.0.113.199), found 203.0.113.150',
    ],
    [
      'a gateway of another subnet',
      { provider: PROVIDER, external: { ...EXTERNAL, gateway: '10.0.0.1' } },
      'cloud.external.gateway: expected an address of 203.0.113.0/24 (203.0.113.1 to 203.0.113.254), found 10.0.0.1',
    ],
    [
      'floating IPs among the addresses of unknown machines',
      {
        provider: PROVIDER,
        external: {
          ...EXTERNAL,
          cidr: '10.99.0.0/24',
          gateway: '10.99.0.254',
          pool: { from: '10.99.0.100', to: '10.99.0.220' },
        },
      },
      'cloud.external.pool: expected addresses apart from the pool of boot (10.99.0.200 to 10.99.0.239), found 10.99.0.100 to 10.99.0.220',
    ],
    [
      'floating IPs with the address of a node among them',
      {
        provider: PROVIDER,
        external: {
          ...EXTERNAL,
          cidr: '10.99.0.0/24',
          gateway: '10.99.0.254',
          pool: { from: '10.99.0.13', to: '10.99.0.50' },
        },
      },
      'cloud.external.pool: expected addresses that nothing else has, but 10.99.0.13 is set at nodes[3].address',
    ],
    [
      'distributed floating IPs without floating IPs',
      { distributed_floating_ip: true },
      'cloud.distributed_floating_ip: expected external, too: without that network there are no floating IPs',
    ],
    [
      'VLAN networks without tags',
      { provider: [{ physical_network: 'physnet1', interface: 'eth1' }], tenant_networks: 'vlan' },
      'cloud.tenant_networks: expected vlan_range on an entry of provider: vlan takes its tags from there',
    ],
    [
      'a provider network on nothing',
      lan({ physical_network: 'physnet2' }),
      'cloud.provider_networks[0].physical_network: expected a physical_network of cloud.provider (physnet1), found "physnet2"; did you mean physnet1?',
    ],
    [
      'a provider network with a tag that projects may get',
      lan({ vlan: 100 }),
      'cloud.provider_networks[0].vlan: expected a tag outside vlan_range of physnet1 (100:299), which projects get, found 100',
    ],
    [
      'two networks on one segment',
      { ...lan({ vlan: 300 }), external: { ...EXTERNAL, vlan: 300 } },
      'cloud.provider_networks[0]: segment physnet1 with the tag 300 is already used at cloud.external',
    ],
    [
      'two networks of one name',
      { ...lan({ name: 'public' }), external: EXTERNAL },
      'cloud.provider_networks[0].name: network public is already used at cloud.external.name',
    ],
    [
      'a provider subnet across that of nodes',
      lan({ subnets: [{ cidr: '10.99.0.0/16' }], ports: [] }),
      'cloud.provider_networks[0].subnets[0].cidr: expected 10.99.0.0/24 of networks[0] itself or a subnet apart from it, found 10.99.0.0/16',
    ],
    [
      'a hardware router of another subnet',
      lan({ subnets: [{ ...SUBNET, gateway: '10.121.0.1' }], ports: [] }),
      'cloud.provider_networks[0].subnets[0].gateway: expected an address of 10.120.0.0/24 (10.120.0.1 to 10.120.0.254), found 10.121.0.1',
    ],
    [
      'a hardware router among the addresses of machines',
      lan({ subnets: [{ ...SUBNET, gateway: '10.120.0.100' }], ports: [] }),
      'cloud.provider_networks[0].subnets[0].gateway: expected an address outside the pool (10.120.0.100 to 10.120.0.199), found 10.120.0.100',
    ],
    [
      'a route by a router elsewhere',
      lan({ subnets: [{ ...SUBNET, routes: [{ to: '10.130.0.0/16', via: '10.130.0.1' }] }], ports: [] }),
      'cloud.provider_networks[0].subnets[0].routes[0].via: expected an address of 10.120.0.0/24 (10.120.0.1 to 10.120.0.254), found 10.130.0.1',
    ],
    [
      'a port with an address elsewhere',
      port({ address: '10.122.0.1' }),
      'cloud.provider_networks[0].ports[0].address: expected an address of a subnet of its network (10.120.0.0/24, 10.121.0.0/24), found 10.122.0.1',
    ],
    [
      'a port with the address of the router',
      port({ address: '10.120.0.1' }),
      'cloud.provider_networks[0].ports[0].address: expected another address than that of the gateway, found 10.120.0.1',
    ],
    [
      'a router for a port that is no router of its network',
      port({ dhcp_options: { router: '10.99.0.254' } }),
      'cloud.provider_networks[0].ports[0].dhcp_options.router: expected the address of a router in a subnet of its network (10.120.0.0/24, 10.121.0.0/24), found "10.99.0.254"',
    ],
    [
      'a value that would end its own quotation marks',
      port({ dhcp_options: { 'domain-name': 'a"b' } }),
      'cloud.provider_networks[0].ports[0].dhcp_options.domain-name: expected a value on one line, without quotation marks',
    ],
    [
      'LVM without a disk',
      { volumes: { backend: 'lvm' } },
      'cloud.volumes.devices: expected at least one disk: n2 has the role volume, and lvm needs disks',
    ],
    [
      'Ceph without a disk',
      { volumes: { backend: 'ceph', devices: [] } },
      'cloud.volumes.devices: expected at least one disk: n2 has the role volume, and ceph needs disks',
    ],
    [
      'disks for no volumes',
      { volumes: { backend: 'none', devices: [{ path: '/dev/sdb' }] } },
      'cloud.volumes.backend: expected lvm or ceph where devices are named, found "none"',
    ],
    [
      'a relative path',
      { volumes: { devices: [{ path: 'sdb' }] } },
      'cloud.volumes.devices[0].path: expected the absolute path of a disk, or of a file with file_size, for example /dev/sdb, found "sdb"',
    ],
    [
      'a file without a size',
      { volumes: { devices: [{ path: '/srv/a' }] } },
      'cloud.volumes.devices[0].path: expected a disk below /dev, or file_size for a plain file, found "/srv/a"',
    ],
    [
      'a file in place of a disk',
      { volumes: { devices: [{ path: '/dev/sdb', file_size: '8G' }] } },
      'cloud.volumes.devices[0].path: expected a path outside /dev with file_size, found "/dev/sdb"',
    ],
    [
      'objects without a disk',
      { objects: { enabled: true } },
      'cloud.objects.devices: expected at least one disk: n3 has the role storage, and objects need disks',
    ],
    [
      'more copies than disks',
      { objects: { replicas: 2, devices: [{ path: '/dev/sdb' }] } },
      'cloud.objects.replicas: expected at most 1, one per disk of the nodes with the role storage, found 2',
    ],
    [
      'two flavors of one name',
      {
        flavors: [
          { name: 'a', vcpus: 1, memory_mib: 64, disk_gib: 0 },
          { name: 'a', vcpus: 2, memory_mib: 64, disk_gib: 0 },
        ],
      },
      'cloud.flavors[1].name: flavor a is already used at cloud.flavors[0].name',
    ],
    [
      'an addition that would begin a section of its own',
      { config: { 'compute-control': { '/etc/nova/nova.conf': { DEFAULT: { debug: 'true\n[api]' } } } } },
      'cloud.config.compute-control["/etc/nova/nova.conf"].DEFAULT.debug: expected a value on one line',
    ],
    [
      'an addition to a file elsewhere',
      { config: { hypervisor: { '/etc/../root/x': {} } } },
      'cloud.config.hypervisor["/etc/../root/x"]: expected the absolute path of a file that we write, found "/etc/../root/x"',
    ],
    [
      'an addition that is a list',
      { config: { hypervisor: { '/etc/x': { DEFAULT: { a: [1] } } } } },
      'cloud.config.hypervisor["/etc/x"].DEFAULT.a: expected text, a number, or true or false, found a list',
    ],
    [
      'packages from nowhere',
      { packages: 'mirror.example.net' },
      'cloud.packages: expected proxy, or the URL of a mirror, for example proxy, found "mirror.example.net"',
    ],
    ['a misspelt field', { flavours: [] }, 'cloud.flavours: unknown field; did you mean flavors?'],
  ])('refuses %s', (_, cloud, sentence) => {
    expect(faults(cloud)).toEqual([sentence]);
  });

  it('refuses one disk for volumes and objects where a node has both roles, and only there', () => {
    const cloud = { volumes: { devices: [{ path: '/dev/sdb' }] }, objects: { devices: [{ path: '/dev/sdb' }] } };
    expect(faults(cloud)).toEqual([]);
    const both = [{ name: 'n0', serial: 'S0', roles: ['volume', 'storage'] }];
    expect(faults(cloud, { nodes: both })).toEqual([
      'cloud.objects.devices[0].path: /dev/sdb is already used at cloud.volumes.devices[0].path, and n0 has both roles',
    ]);
  });

  it('refuses roles that nobody knows, and one given twice', () => {
    expect(faults({}, { nodes: [{ name: 'n0', serial: 'S0', roles: ['computer'] }] })).toEqual([
      'nodes[0].roles[0]: expected one of controller, compute, volume, network, storage, found "computer"',
    ]);
    expect(faults({}, { nodes: [{ name: 'n0', serial: 'S0', roles: ['compute', 'compute'] }] })).toEqual([
      'nodes[0].roles[1]: role compute is already used at nodes[0].roles[0]',
    ]);
  });

  it('names the line of a fault inside the cloud, faults elsewhere notwithstanding', () => {
    const text = [
      'version: 1',
      'name: dc1',
      'networks:',
      '  - { name: boot, cidr: 10.99.0.0/24, interface: br0, pool: { from: 10.99.0.200, to: 10.99.0.239 } }',
      'cloud:',
      '  volumes:',
      '    backend: ceph',
      '  flavors:',
      '    - { name: a, vcpus: 1, memory_mib: 64, disk_gib: 0 }',
      '    - { name: a, vcpus: 1, memory_mib: 64, disk_gib: 0 }',
      'nodes:',
      '  - { name: n0, roles: [volume], serial: S }',
      '  - { name: n1, rolls: [volume], serial: S }',
    ].join('\n');
    expect((loadSite(text, 'site.yaml') as { message: string }[]).map(p => p.message)).toEqual([
      'site.yaml:6:3: cloud.volumes.devices: expected at least one disk: n0 has the role volume, and ceph needs disks',
      'site.yaml:10:15: cloud.flavors[1].name: flavor a is already used at cloud.flavors[0].name',
      'site.yaml:13:17: nodes[1].rolls: unknown field; did you mean roles?',
    ]);
  });

  it('is not fooled by __proto__ as a service', () => {
    const text = `${stringify({ ...BASE, nodes })}cloud:\n  config: { __proto__: { /etc/x: { a: { b: 1 } } } }\n`;
    const loaded = loadSite(text, 'site.yaml');
    expect(JSON.stringify(loaded)).toMatch(/expected the name of a service/);
    expect(({} as Record<string, unknown>)['/etc/x']).toBeUndefined();
  });

  it('is exported as it was written', () => {
    const site = load({});
    expect(exportSite(site, [])).toContain('cloud: {}');
    const example = loadSite(readFileSync('docs/example-site.yaml', 'utf8'), 'x') as { site: Site };
    const again = loadSite(exportSite(example.site, []), 'y') as { site: Site };
    expect(again.site.cloud).toEqual(example.site.cloud);
    expect(cloudSettings(again.site)!.external!.pool).toEqual({ from: '203.0.113.100', to: '203.0.113.199' });
  });
});
