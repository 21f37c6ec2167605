/** What the schema of the `cloud` part cannot say: how its values fit each other, the networks and the nodes. Pure. */
import { type Cidr, contains, formatIpv4, hostRange, parseCidr, parseIpv4, tryParseIpv4 } from '../core/net/ipv4.js';
import { fieldName, found, nearest } from '../core/schema/explain.js';
import { objectDisks, volumeBackend } from './cloud.js';
import type { CloudConfig } from './cloud-schema.js';
import { type Path, type Report, type Subnet, Unique } from './report.js';
import type { Site, SiteNode } from './schema.js';

type External = NonNullable<CloudConfig['external']>;
type ProviderNetwork = CloudConfig['provider_networks'][number];
type ProviderSubnet = ProviderNetwork['subnets'][number];
type ProviderPort = ProviderNetwork['ports'][number];

/** A subnet that some field names. */
interface Named {
  readonly path: Path;
  readonly text: string;
  readonly cidr: Cidr;
}

/**
 * @param subnets networks of the site without a fault of their own
 * @param skip entries such as `nodes/3` that the schema refused: they are not looked at
 */
export function checkCloud(site: Site, subnets: readonly Subnet[], skip: ReadonlySet<string>, report: Report): void {
  const { cloud } = site;
  if (!cloud) return;
  const nodes = site.nodes.filter((_, i) => !skip.has(`nodes/${i}`));
  const providers = checkProviders(cloud, report);
  checkSubnets(cloud, subnets, report);
  if (cloud.external) checkExternal(cloud.external, providers, site, subnets, skip, report);
  else if (cloud.distributed_floating_ip)
    report(
      ['cloud', 'distributed_floating_ip'],
      'expected external, too: without that network there are no floating IPs',
    );
  checkProviderNetworks(cloud, providers, site, subnets, skip, report);
  if (cloud.tenant_networks === 'vlan' && !cloud.provider.some(p => p.vlan_range !== undefined))
    report(['cloud', 'tenant_networks'], 'expected vlan_range on an entry of provider: vlan takes its tags from there');
  checkStorage(site, cloud, nodes, report);
  const flavors = new Unique(report, 'flavor');
  for (const [i, flavor] of cloud.flavors.entries()) flavors.add(flavor.name, ['cloud', 'flavors', i, 'name']);
  checkConfig(cloud, report);
}

/** First and last tag by physical network, null where it is untagged only. */
type Providers = ReadonlyMap<string, { readonly from: number; readonly to: number } | null>;

function checkProviders(cloud: CloudConfig, report: Report): Providers {
  const providers = new Map<string, { from: number; to: number } | null>();
  const names = new Unique(report, 'physical network');
  const interfaces = new Unique(report, 'interface');
  for (const [i, entry] of cloud.provider.entries()) {
    const at: Path = ['cloud', 'provider', i];
    names.add(entry.physical_network, [...at, 'physical_network']);
    interfaces.add(entry.interface, [...at, 'interface']);
    let range: { from: number; to: number } | null = null;
    if (entry.vlan_range !== undefined) {
      const [from, to] = entry.vlan_range.split(':').map(Number) as [number, number];
      if (from < 1 || to > 4094 || from > to)
        report(
          [...at, 'vlan_range'],
          `expected two tags from 1 to 4094, the lower first, found ${found(entry.vlan_range)}`,
        );
      else range = { from, to };
    }
    if (!providers.has(entry.physical_network)) providers.set(entry.physical_network, range);
  }
  return providers;
}

/** Subnets are the same or apart: which network an address is in must have one answer. */
function checkSubnets(cloud: CloudConfig, subnets: readonly Subnet[], report: Report): void {
  const known: Named[] = subnets.map(s => ({
    path: ['networks', s.index],
    text: s.network.cidr,
    cidr: s.cidr,
  }));
  const named: (readonly [Path, string | undefined])[] = [
    ...(['management', 'tunnel', 'storage'] as const).map(
      key => [['cloud', 'networks', key], cloud.networks[key]] as const,
    ),
    [['cloud', 'external', 'cidr'], cloud.external?.cidr],
    ...cloud.provider_networks.flatMap((network, i) =>
      network.subnets.map((s, j) => [['cloud', 'provider_networks', i, 'subnets', j, 'cidr'], s.cidr] as const),
    ),
  ];
  for (const [path, text] of named) {
    if (text === undefined) continue;
    const cidr = parseCidr(text);
    for (const other of known)
      if (cidr.base <= other.cidr.last && other.cidr.base <= cidr.last && other.text !== text)
        report(
          path,
          `expected ${other.text} of ${fieldName(other.path)} itself or a subnet apart from it, found ${text}`,
        );
    known.push({ path, text, cidr });
  }
}

function checkExternal(
  external: External,
  providers: Providers,
  site: Site,
  subnets: readonly Subnet[],
  skip: ReadonlySet<string>,
  report: Report,
): void {
  const at: Path = ['cloud', 'external'];
  checkSegment(external, at, providers, report);

  const cidr = parseCidr(external.cidr);
  checkPool(external.pool, external.gateway, cidr, at, site, subnets, skip, report);
}

/** The physical network is there, and the tag is not one that projects get. */
function checkSegment(
  network: { readonly physical_network: string; readonly vlan?: number },
  at: Path,
  providers: Providers,
  report: Report,
): void {
  const range = providers.get(network.physical_network);
  if (range === undefined) {
    const near = nearest(network.physical_network, [...providers.keys()]);
    report(
      [...at, 'physical_network'],
      `expected a physical_network of cloud.provider (${[...providers.keys()].join(', ') || 'it is empty'}), found ${found(network.physical_network)}${near ? `; did you mean ${near}?` : ''}`,
    );
  } else if (range && network.vlan !== undefined && network.vlan >= range.from && network.vlan <= range.to)
    report(
      [...at, 'vlan'],
      `expected a tag outside vlan_range of ${network.physical_network} (${range.from}:${range.to}), which projects get, found ${network.vlan}`,
    );
}

const insideOf = (cidr: Cidr): string => {
  const hosts = hostRange(cidr);
  return `expected an address of ${formatIpv4(cidr.base)}/${cidr.prefix} (${formatIpv4(hosts.from)} to ${formatIpv4(hosts.to)})`;
};
/** @returns false when it was reported */
function checkInside(text: string, cidr: Cidr, path: Path, report: Report): boolean {
  const hosts = hostRange(cidr);
  const value = parseIpv4(text);
  const inside = value >= hosts.from && value <= hosts.to;
  if (!inside) report(path, `${insideOf(cidr)}, found ${text}`);
  return inside;
}

/** A pool lies in its subnet, and none of its addresses is given to anything else. */
function checkPool(
  pool: { readonly from: string; readonly to: string },
  gateway: string | undefined,
  cidr: Cidr,
  at: Path,
  site: Site,
  subnets: readonly Subnet[],
  skip: ReadonlySet<string>,
  report: Report,
): void {
  const from = parseIpv4(pool.from);
  const to = parseIpv4(pool.to);
  const ends = (['from', 'to'] as const).map(key => checkInside(pool[key], cidr, [...at, 'pool', key], report));
  const sound = ends.every(ok => ok) && from <= to;
  if (from > to)
    report([...at, 'pool', 'to'], `expected an address not below pool.from (${pool.from}), found ${pool.to}`);
  if (gateway !== undefined && checkInside(gateway, cidr, [...at, 'gateway'], report)) {
    const value = parseIpv4(gateway);
    if (sound && value >= from && value <= to)
      report([...at, 'gateway'], `expected an address outside the pool (${pool.from} to ${pool.to}), found ${gateway}`);
  }
  if (!sound) return;
  for (const { network, from: first, to: last } of subnets)
    if (first <= to && from <= last)
      report(
        [...at, 'pool'],
        `expected addresses apart from the pool of ${network.name} (${network.pool.from} to ${network.pool.to}), found ${pool.from} to ${pool.to}`,
      );
  for (const taken of addressesOf(site, subnets, skip)) {
    const value = parseIpv4(taken.address);
    if (value >= from && value <= to && contains(cidr, value))
      report(
        [...at, 'pool'],
        `expected addresses that nothing else has, but ${taken.address} is set at ${fieldName(taken.path)}`,
      );
  }
}

/** Options of DHCPv4 that OVN knows under the names of Neutron; others it would ignore with a line in a log. */
const DHCP_OPTIONS: readonly string[] = [
  ...['arp-timeout', 'bootfile-name', 'bootfile-name-alt', 'classless-static-route', 'default-ttl', 'dns-server'],
  ...['domain-name', 'ethernet-encap', 'ip-forward-enable', 'lease-time', 'log-server', 'lpr-server'],
  ...['ms-classless-static-route', 'mtu', 'netmask', 'nis-server', 'ntp-server', 'path-prefix', 'policy-filter'],
  ...['router', 'router-discovery', 'router-solicitation', 'server-id', 'server-ip-address', 'swap-server', 'T1', 'T2'],
  ...['tcp-keepalive', 'tcp-ttl', 'tftp-server', 'tftp-server-address', 'wpad'],
];

function checkProviderNetworks(
  cloud: CloudConfig,
  providers: Providers,
  site: Site,
  subnets: readonly Subnet[],
  skip: ReadonlySet<string>,
  report: Report,
): void {
  const names = new Unique(report, 'network');
  const segments = new Unique(report, 'segment');
  const ports = new Unique(report, 'port');
  const macs = new Unique(report, 'MAC address');
  const segment = (n: { physical_network: string; vlan?: number }) =>
    `${n.physical_network}${n.vlan === undefined ? ' (untagged)' : ` with the tag ${n.vlan}`}`;
  if (cloud.external) {
    names.add(cloud.external.name, ['cloud', 'external', 'name']);
    segments.add(segment(cloud.external), ['cloud', 'external']);
  }
  for (const [i, network] of cloud.provider_networks.entries()) {
    const at: Path = ['cloud', 'provider_networks', i];
    names.add(network.name, [...at, 'name']);
    segments.add(segment(network), at);
    checkSegment(network, at, providers, report);
    for (const [j, subnet] of network.subnets.entries()) {
      const here: Path = [...at, 'subnets', j];
      const cidr = parseCidr(subnet.cidr);
      if (subnet.pool) checkPool(subnet.pool, subnet.gateway, cidr, here, site, subnets, skip, report);
      else if (subnet.gateway !== undefined) checkInside(subnet.gateway, cidr, [...here, 'gateway'], report);
      for (const [k, route] of subnet.routes.entries())
        checkInside(route.via, cidr, [...here, 'routes', k, 'via'], report);
    }
    const addresses = new Unique(report, 'address');
    for (const [j, port] of network.ports.entries()) {
      const here: Path = [...at, 'ports', j];
      ports.add(port.name, [...here, 'name']);
      if (port.address !== undefined) addresses.add(port.address, [...here, 'address']);
      if (port.mac !== undefined) macs.add(port.mac.toLowerCase().replaceAll('-', ':'), [...here, 'mac']);
      checkPort(port, network.subnets, here, report);
    }
  }
}

function checkPort(port: ProviderPort, subnets: readonly ProviderSubnet[], at: Path, report: Report): void {
  const within = (text: string) => subnets.find(s => contains(parseCidr(s.cidr), parseIpv4(text)));
  const known = subnets.map(s => s.cidr).join(', ') || 'it has none';
  const own = port.address === undefined ? undefined : within(port.address);
  if (port.address !== undefined) {
    if (!own)
      report([...at, 'address'], `expected an address of a subnet of its network (${known}), found ${port.address}`);
    else if (own.gateway === port.address)
      report([...at, 'address'], `expected another address than that of the gateway, found ${port.address}`);
  }
  for (const [name, value] of Object.entries(port.dhcp_options)) {
    const here: Path = [...at, 'dhcp_options', name];
    if (!DHCP_OPTIONS.includes(name)) {
      const near = nearest(name, [...DHCP_OPTIONS]);
      report(
        here,
        `expected a DHCP option that OVN knows (${DHCP_OPTIONS.join(', ')})${near ? `; did you mean ${near}?` : ''}`,
      );
    } else if (typeof value === 'string' && (value === '' || /[\p{Cc}"]/u.test(value)))
      report(here, 'expected a value on one line, without quotation marks');
    else if (name === 'router') {
      const router = tryParseIpv4(String(value));
      if (router === undefined || !within(String(value)))
        report(here, `expected the address of a router in a subnet of its network (${known}), found ${found(value)}`);
    }
  }
}

/** Every address that the file gives to something. */
function addressesOf(
  site: Site,
  subnets: readonly Subnet[],
  skip: ReadonlySet<string>,
): { address: string; path: Path }[] {
  const all: { address: string; path: Path }[] = [];
  for (const { network, index } of subnets)
    for (const key of ['gateway', 'server_address'] as const)
      if (network[key]) all.push({ address: network[key], path: ['networks', index, key] });
  for (const [i, node] of site.nodes.entries()) {
    if (skip.has(`nodes/${i}`)) continue;
    if (node.address) all.push({ address: node.address, path: ['nodes', i, 'address'] });
    for (const [j, nic] of node.install?.interfaces.entries() ?? [])
      for (const [k, text] of nic.addresses.entries()) {
        const address = text.split('/')[0]!;
        if (address !== node.address)
          all.push({ address, path: ['nodes', i, 'install', 'interfaces', j, 'addresses', k] });
      }
  }
  return all;
}

function checkStorage(site: Site, cloud: CloudConfig, nodes: readonly SiteNode[], report: Report): void {
  const backend = volumeBackend(cloud.volumes);
  const volume = nodes.find(n => n.roles.includes('volume'));
  const storage = nodes.find(n => n.roles.includes('storage'));
  if (backend === 'none' && cloud.volumes.devices.length > 0)
    report(['cloud', 'volumes', 'backend'], 'expected lvm or ceph where devices are named, found "none"');
  if (backend !== 'none' && cloud.volumes.devices.length === 0 && volume)
    report(
      ['cloud', 'volumes', 'devices'],
      `expected at least one disk: ${volume.name} has the role volume, and ${backend} needs disks`,
    );
  if (cloud.objects.enabled === false && cloud.objects.devices.length > 0)
    report(['cloud', 'objects', 'enabled'], 'expected true where devices are named, found false');
  if (cloud.objects.enabled && cloud.objects.devices.length === 0 && storage)
    report(
      ['cloud', 'objects', 'devices'],
      `expected at least one disk: ${storage.name} has the role storage, and objects need disks`,
    );
  const disks = objectDisks(site);
  if (cloud.objects.replicas !== undefined && storage && disks > 0 && cloud.objects.replicas > disks)
    report(
      ['cloud', 'objects', 'replicas'],
      `expected at most ${disks}, one per disk of the nodes with the role storage, found ${cloud.objects.replicas}`,
    );

  const both = nodes.find(n => n.roles.includes('volume') && n.roles.includes('storage'));
  const taken = new Map<string, Path>();
  for (const group of ['volumes', 'objects'] as const) {
    const own = new Unique(report, 'disk');
    for (const [i, device] of cloud[group].devices.entries()) {
      const path: Path = ['cloud', group, 'devices', i, 'path'];
      own.add(device.path, path);
      const disk = device.path.startsWith('/dev/');
      if (disk && device.file_size !== undefined)
        report(path, `expected a path outside /dev with file_size, found ${found(device.path)}`);
      if (!disk && device.file_size === undefined)
        report(path, `expected a disk below /dev, or file_size for a plain file, found ${found(device.path)}`);
      if (device.path.split('/').includes('..'))
        report(path, `expected a path without "..", found ${found(device.path)}`);
      const other = taken.get(device.path);
      if (group === 'volumes') taken.set(device.path, path);
      else if (other && both)
        report(path, `${device.path} is already used at ${fieldName(other)}, and ${both.name} has both roles`);
    }
  }
}

/** Names that would break out of their place in a file of sections. */
function checkConfig(cloud: CloudConfig, report: Report): void {
  for (const [service, files] of Object.entries(cloud.config)) {
    const at: Path = ['cloud', 'config', service];
    if (!/^[a-z][a-z0-9-]{0,62}$/.test(service))
      report(at, `expected the name of a service, for example hypervisor, found ${found(service)}`);
    for (const [path, sections] of Object.entries(files)) {
      if (!/^\/[a-zA-Z0-9._/-]{1,200}$/.test(path) || path.split('/').includes('..'))
        report([...at, path], `expected the absolute path of a file that we write, found ${found(path)}`);
      for (const [section, keys] of Object.entries(sections)) {
        if (!/^[a-zA-Z0-9_.:/ -]{1,100}$/.test(section))
          report([...at, path, section], `expected the name of a section, found ${found(section)}`);
        for (const [key, value] of Object.entries(keys)) {
          if (!/^[a-zA-Z0-9_][a-zA-Z0-9_.:/-]{0,100}$/.test(key))
            report([...at, path, section, key], `expected the name of an option, found ${found(key)}`);
          if (typeof value === 'string' && /[\p{Cc}]/u.test(value))
            report([...at, path, section, key], 'expected a value on one line');
        }
      }
    }
  }
}
