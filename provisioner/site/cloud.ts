/** The cloud that a site describes, as a value with nothing left out. Pure. */
import type { CloudSettings, GivenDevice } from '../core/cloud-settings.js';
import type { CloudConfig } from './cloud-schema.js';
import type { Site } from './schema.js';

const REPLICAS = 3;

const given = (devices: CloudConfig['volumes']['devices']): GivenDevice[] =>
  devices.map(d => ({ path: d.path, fileSize: d.file_size ?? null }));

/** What is used for volumes: as said, else LVM where disks are given. */
export const volumeBackend = (volumes: CloudConfig['volumes']): 'lvm' | 'ceph' | 'none' =>
  volumes.backend ?? (volumes.devices.length > 0 ? 'lvm' : 'none');

/** Disks for objects on all nodes of the file together; 0 when the file gives the role `storage` to none. */
export const objectDisks = (site: Site): number =>
  site.nodes.filter(n => n.roles.includes('storage')).length * (site.cloud?.objects.devices.length ?? 0);

/** `lan-v4`, and `lan-v4-2` for the second one of the network. */
const subnetName = (network: string, index: number): string => `${network}-v4${index === 0 ? '' : `-${index + 1}`}`;

/** @returns null when the site has no cloud */
export function cloudSettings(site: Site): CloudSettings | null {
  const { cloud } = site;
  if (!cloud) return null;
  const { networks, external, volumes, objects } = cloud;
  // Nodes may get the role by API, too: then what one node brings is all that is known.
  const disks = objectDisks(site) || objects.devices.length;
  return {
    release: cloud.release,
    region: cloud.region,
    apiName: cloud.api_name ?? null,
    networks: {
      management: networks.management ?? null,
      tunnel: networks.tunnel ?? null,
      storage: networks.storage ?? null,
    },
    provider: cloud.provider.map(p => ({
      physicalNetwork: p.physical_network,
      interface: p.interface,
      vlanRange: p.vlan_range ?? null,
    })),
    external: external
      ? {
          name: external.name,
          physicalNetwork: external.physical_network,
          vlan: external.vlan ?? null,
          cidr: external.cidr,
          gateway: external.gateway ?? null,
          pool: { from: external.pool.from, to: external.pool.to },
        }
      : null,
    providerNetworks: cloud.provider_networks.map(n => ({
      name: n.name,
      physicalNetwork: n.physical_network,
      vlan: n.vlan ?? null,
      shared: n.shared,
      subnets: n.subnets.map((s, i) => ({
        name: subnetName(n.name, i),
        cidr: s.cidr,
        gateway: s.gateway ?? null,
        dhcp: s.dhcp,
        pool: s.pool ?? null,
        dns: [...s.dns],
        routes: s.routes.map(r => ({ to: r.to, via: r.via })),
      })),
      ports: n.ports.map(p => ({
        name: p.name,
        address: p.address ?? null,
        mac: p.mac?.toLowerCase().replaceAll('-', ':') ?? null,
        dhcpOptions: Object.fromEntries(Object.entries(p.dhcp_options).map(([name, value]) => [name, String(value)])),
      })),
    })),
    tenantNetworks: cloud.tenant_networks,
    distributedFloatingIp: cloud.distributed_floating_ip,
    mtu: cloud.mtu,
    datapath: cloud.datapath,
    virtualization: cloud.virtualization,
    workers: cloud.workers ?? null,
    dns: cloud.dns.length > 0 ? [...cloud.dns] : [...site.dns.forward],
    ntp: cloud.ntp.length > 0 ? [...cloud.ntp] : [...site.ntp],
    volumes: { backend: volumeBackend(volumes), devices: given(volumes.devices) },
    objects: {
      enabled: objects.enabled ?? objects.devices.length > 0,
      replicas: objects.replicas ?? Math.min(REPLICAS, Math.max(1, disks)),
      devices: given(objects.devices),
    },
    dashboard: cloud.dashboard,
    flavors: cloud.flavors.map(f => ({
      name: f.name,
      vcpus: f.vcpus,
      memoryMiB: f.memory_mib,
      diskGiB: f.disk_gib,
    })),
    config: structuredClone(cloud.config),
    packages: cloud.packages ?? null,
  };
}
