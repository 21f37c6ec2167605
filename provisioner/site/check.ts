/** What the schema cannot say: how the values of a site fit each other. Pure; works on a site that the schema accepted. */

import { contains, formatIpv4, hostRange, parseCidr, parseIpv4 } from '../core/net/ipv4.js';
import { type Fault, found } from '../core/schema/explain.js';
import { checkCloud } from './cloud-check.js';
import { checkDiskLayout, checkInterfaces, checkSshKeys, checkUserData } from './install-check.js';
import { checkProfiles } from './profile-check.js';
import { type Path, type Report, type Subnet, Unique } from './report.js';
import type { Bmc, InstallConfig, Site } from './schema.js';

/**
 * Finds everything that does not fit; an empty list is a good site.
 * @param skip entries such as `networks/3` that the schema refused: they are not looked at
 */
export function checkSite(site: Site, skip: ReadonlySet<string> = new Set()): Fault[] {
  const faults: Fault[] = [];
  const report: Report = (path, message) => faults.push({ path, key: false, message });

  if (site.api.port !== 0 && site.api.port === site.boot.http_port)
    report(['boot', 'http_port'], `expected another port than api.port, found ${site.api.port} twice`);
  checkSshKeys(site.install.ssh_keys, ['install', 'ssh_keys'], report);
  checkUserData(site.install.user_data, ['install', 'user_data'], report);

  const subnets = checkNetworks(site, skip, report);
  checkNodes(site, subnets, skip, report);
  checkCloud(site, subnets, skip, report);
  checkProfiles(site, subnets, report);
  return faults;
}

function checkNetworks(site: Site, skip: ReadonlySet<string>, report: Report): Subnet[] {
  const subnets: Subnet[] = [];
  const names = new Unique(report, 'network name');
  const interfaces = new Unique(report, 'interface (one subnet per interface)');
  const relays = new Unique(report, 'relay');
  for (const [i, network] of site.networks.entries()) {
    if (skip.has(`networks/${i}`)) continue;
    const at: Path = ['networks', i];
    names.add(network.name, [...at, 'name']);
    if (network.interface) interfaces.add(network.interface, [...at, 'interface']);
    for (const [j, relay] of network.relays.entries()) relays.add(relay, [...at, 'relays', j]);

    const cidr = parseCidr(network.cidr);
    if (cidr.prefix < 8 || cidr.prefix > 30)
      report([...at, 'cidr'], `expected a prefix length from 8 to 30, found ${cidr.prefix}`);
    for (const other of subnets)
      if (cidr.base <= other.cidr.last && other.cidr.base <= cidr.last)
        report(
          [...at, 'cidr'],
          `${network.cidr} overlaps ${other.network.cidr} of networks[${other.index}] (${other.network.name})`,
        );

    const hosts = hostRange(cidr);
    const range = `${formatIpv4(hosts.from)} to ${formatIpv4(hosts.to)}`;
    const from = parseIpv4(network.pool.from);
    const to = parseIpv4(network.pool.to);
    for (const [key, value] of [
      ['from', from],
      ['to', to],
    ] as const)
      if (value < hosts.from || value > hosts.to)
        report([...at, 'pool', key], `expected an address of ${network.cidr} (${range}), found ${formatIpv4(value)}`);
    if (from > to)
      report(
        [...at, 'pool', 'to'],
        `expected an address not below pool.from (${network.pool.from}), found ${network.pool.to}`,
      );

    const ours = (key: 'gateway' | 'server_address', text: string | undefined, bound: boolean) => {
      if (text === undefined || !bound) return;
      const value = parseIpv4(text);
      if (value < hosts.from || value > hosts.to)
        report([...at, key], `expected an address of ${network.cidr} (${range}), found ${text}`);
      else if (value >= from && value <= to)
        report(
          [...at, key],
          `expected an address outside the pool (${network.pool.from} to ${network.pool.to}), found ${text}`,
        );
    };
    ours('gateway', network.gateway, true);
    // Behind a relay nodes reach us by routing, so that our address may be anywhere.
    ours('server_address', network.server_address, network.interface !== undefined);
    for (const [j, route] of network.routes.entries())
      if (!contains(cidr, parseIpv4(route.via)))
        report([...at, 'routes', j, 'via'], `expected a router inside ${network.cidr}, found ${route.via}`);
    subnets.push({ index: i, network, cidr, from, to });
  }
  return subnets;
}

function checkNodes(site: Site, subnets: readonly Subnet[], skip: ReadonlySet<string>, report: Report): void {
  const names = new Unique(report, 'node name');
  const macs = new Unique(report, 'MAC');
  const uuids = new Unique(report, 'UUID');
  const serials = new Unique(report, 'serial number');
  const addresses = new Unique(report, 'address');
  const bmcs = new Unique(report, 'BMC');
  for (const { network, index: i } of subnets) {
    if (network.server_address) addresses.add(network.server_address, ['networks', i, 'server_address']);
    if (network.gateway) addresses.add(network.gateway, ['networks', i, 'gateway']);
  }
  // Where a network is left out, an address may well be inside that one.
  const allNetworks = subnets.length === site.networks.length && !skip.has('networks');
  for (const [i, node] of site.nodes.entries()) {
    if (skip.has(`nodes/${i}`)) continue;
    const at: Path = ['nodes', i];
    names.add(node.name, [...at, 'name']);
    for (const [j, mac] of node.macs.entries()) {
      macs.add(mac, [...at, 'macs', j]);
      if (Number.parseInt(mac.slice(0, 2), 16) & 1)
        report([...at, 'macs', j], `expected the address of one NIC, found the group address ${mac}`);
    }
    if (node.uuid) uuids.add(node.uuid, [...at, 'uuid']);
    if (node.serial) serials.add(node.serial, [...at, 'serial']);
    const roles = new Unique(report, 'role');
    for (const [j, role] of node.roles.entries()) roles.add(role, [...at, 'roles', j]);
    if (node.macs.length === 0 && !node.uuid && !node.serial)
      report(at, `expected macs, uuid or serial: nothing says which machine ${node.name} is`);
    if (node.address) {
      addresses.add(node.address, [...at, 'address']);
      checkNodeAddress(node.address, [...at, 'address'], subnets, allNetworks, report);
    }
    if (node.bmc) {
      checkBmc(node.bmc, [...at, 'bmc'], report);
      if (node.bmc.driver !== 'manual' && node.bmc.address)
        bmcs.add(`${node.bmc.address}${node.bmc.system ? ` ${node.bmc.system}` : ''}`, [...at, 'bmc', 'address']);
    }
    if (node.install) checkInstall(node.install, [...at, 'install'], subnets, addresses, node.address, report);
  }
}

function checkNodeAddress(text: string, path: Path, subnets: readonly Subnet[], allNetworks: boolean, report: Report) {
  const address = parseIpv4(text);
  const home = subnets.find(s => contains(s.cidr, address));
  if (!home) {
    if (!allNetworks) return;
    const list = subnets
      .map(s => s.network.cidr)
      .slice(0, 5)
      .join(', ');
    return report(path, `expected an address inside a network (${list}), found ${text}`);
  }
  const hosts = hostRange(home.cidr);
  if (address < hosts.from || address > hosts.to)
    report(
      path,
      `expected the address of a machine, found the network or broadcast address ${text} of ${home.network.cidr}`,
    );
  else if (address >= home.from && address <= home.to)
    report(
      path,
      `expected an address outside the pool of ${home.network.name} (${home.network.pool.from} to ${home.network.pool.to}), found ${text}`,
    );
}

/** Shared with the API, which takes the same structure. */
export function checkBmc(bmc: Bmc, path: Path, report: Report): void {
  if (bmc.driver === 'manual') return;
  if (bmc.address === undefined) report(path, `expected address: driver ${bmc.driver} needs to know where the BMC is`);
  else if (bmc.driver === 'redfish') {
    let url: URL | null = null;
    try {
      url = new URL(bmc.address);
    } catch {}
    if (!url || !/^https?:$/.test(url.protocol))
      report([...path, 'address'], `expected a URL like https://10.98.0.7, found ${found(bmc.address)}`);
    else if (url.username || url.password)
      report([...path, 'address'], 'expected a URL without user and password; they stand in user and password');
  } else if (!/^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?(:\d{1,5})?$/.test(bmc.address))
    report([...path, 'address'], `expected host or host:port like 10.98.0.7:623, found ${found(bmc.address)}`);
  if (bmc.user === undefined) report(path, `expected user: driver ${bmc.driver} needs an account on the BMC`);
  if (bmc.password === undefined)
    report(path, `expected password: driver ${bmc.driver} needs one (file:/PATH, env:NAME or secret:NAME)`);
}

function checkInstall(
  install: InstallConfig,
  at: Path,
  subnets: readonly Subnet[],
  addresses: Unique,
  reserved: string | undefined,
  report: Report,
): void {
  checkSshKeys(install.ssh_keys, [...at, 'ssh_keys'], report);
  checkUserData(install.user_data, [...at, 'user_data'], report);
  if (install.disk_layout) checkDiskLayout(install.disk_layout, [...at, 'disk_layout'], report);
  checkInterfaces(install.interfaces, [...at, 'interfaces'], subnets, addresses, reserved, report);
}
