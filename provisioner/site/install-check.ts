/** Checks of what gets installed: of nodes, of layouts, of profiles. Pure. */
import { parseDocument } from 'yaml';
import { contains, formatIpv4, hostRange, parseCidr, parseIpv4 } from '../core/net/ipv4.js';
import { found, nearest } from '../core/schema/explain.js';
import { type Path, type Report, type Subnet, Unique } from './report.js';
import type { DiskLayout, InterfaceConfig } from './schema.js';

export function checkDiskLayout(layout: DiskLayout, at: Path, report: Report): void {
  const wanted = layout.kind === 'mdraid' ? 2 : 1;
  if (layout.disks.length !== wanted)
    report([...at, 'disks'], `expected ${wanted} for ${layout.kind}, found ${layout.disks.length}`);
  if (layout.root_gb !== undefined && layout.kind !== 'lvm')
    report([...at, 'root_gb'], `expected only with kind lvm, found with ${layout.kind}`);
  for (const [j, hints] of layout.disks.entries())
    if (hints.min_gb !== undefined && hints.max_gb !== undefined && hints.min_gb > hints.max_gb)
      report([...at, 'disks', j, 'max_gb'], `expected at least min_gb (${hints.min_gb}), found ${hints.max_gb}`);
  for (const key of ['serial', 'wwn', 'name'] as const)
    if (layout.disks[0]?.[key] !== undefined && layout.disks[0][key] === layout.disks[1]?.[key])
      report([...at, 'disks', 1, key], `expected another disk than disks[0], found the same ${key}`);
}

export function checkInterfaces(
  list: readonly InterfaceConfig[],
  at: Path,
  subnets: readonly Subnet[],
  addresses: Unique,
  reserved: string | undefined,
  report: Report,
): void {
  const names = new Unique(report, 'interface name');
  const macs = new Unique(report, 'MAC');
  let gateway: number | null = null;
  for (const [i, nic] of list.entries()) {
    names.add(nic.name, [...at, i, 'name']);
    const kinds = (['mac', 'bond', 'vlan'] as const).filter(k => nic[k] !== undefined);
    if (kinds.length !== 1)
      report([...at, i], `expected exactly one of mac, bond and vlan, found ${kinds.join(' and ') || 'none'}`);
    if (nic.mac) macs.add(nic.mac, [...at, i, 'mac']);
    for (const [j, mac] of nic.bond?.macs.entries() ?? []) macs.add(mac, [...at, i, 'bond', 'macs', j]);
    if (nic.vlan) checkVlan(nic, list, [...at, i, 'vlan', 'link'], report);

    const nets = nic.addresses.map(a => parseCidr(a));
    for (const [j, net] of nets.entries()) {
      const path = [...at, i, 'addresses', j];
      const text = formatIpv4(net.address);
      const hosts = hostRange(net);
      if (net.address < hosts.from || net.address > hosts.to)
        report(path, `expected the address of a machine, found the network or broadcast address ${nic.addresses[j]}`);
      const pool = subnets.find(s => net.address >= s.from && net.address <= s.to);
      if (pool)
        report(
          path,
          `expected an address outside the pool of ${pool.network.name} (${pool.network.pool.from} to ${pool.network.pool.to}), found ${text}`,
        );
      // The reserved address may well be the static one, too: it is the same machine.
      if (text !== reserved) addresses.add(text, path);
    }
    if (nic.gateway) {
      if (gateway !== null)
        report(
          [...at, i, 'gateway'],
          `expected one default router per node, found a second (${list[gateway]!.name} has ${list[gateway]!.gateway})`,
        );
      gateway ??= i;
      if (nets.length === 0)
        report(
          [...at, i, 'gateway'],
          nic.dhcp
            ? 'expected no gateway where DHCP names it'
            : 'expected addresses, too: a gateway needs one to be reached from',
        );
      else if (!nets.some(net => contains(net, parseIpv4(nic.gateway!))))
        report([...at, i, 'gateway'], `expected a router inside ${nic.addresses.join(' or ')}, found ${nic.gateway}`);
    }
  }
  if (list.length > 0 && !list.some(nic => nic.dhcp || nic.addresses.length > 0))
    report(at, 'expected an interface with dhcp: true or addresses; nothing could reach the node');
}

function checkVlan(nic: InterfaceConfig, list: readonly InterfaceConfig[], path: Path, report: Report) {
  const visited = new Set([nic.name]);
  let link: string | undefined = nic.vlan!.link;
  while (link !== undefined) {
    const below: InterfaceConfig | undefined = list.find(n => n.name === link);
    if (!below) {
      const near = nearest(
        link,
        list.map(n => n.name).filter(n => n !== nic.name),
      );
      return report(
        path,
        `expected the name of an interface of this list, found ${found(link)}${near ? `; did you mean ${near}?` : ''}`,
      );
    }
    if (visited.has(link))
      return report(path, `expected an interface below ${nic.name}, found a circle through ${link}`);
    visited.add(link);
    link = below.vlan?.link;
  }
}

export function checkSshKeys(keys: readonly string[], at: Path, report: Report): void {
  for (const [i, key] of keys.entries()) {
    const [type, body] = key.split(' ') as [string, string];
    // RFC 4253 section 6.6: the blob begins with the length and the name of the key's type.
    const blob = Buffer.from(body, 'base64');
    const length = blob.length >= 4 ? blob.readUInt32BE(0) : -1;
    if (blob.subarray(4, 4 + length).toString('latin1') !== type || blob.length < 32)
      report([...at, i], `expected a whole ${type} public key, found one that is cut off or damaged`);
  }
}

export function checkUserData(text: string | undefined, at: Path, report: Report) {
  if (text === undefined) return;
  const doc = parseDocument(text, { prettyErrors: false });
  if (doc.errors[0]) return report(at, `expected YAML after #cloud-config: ${doc.errors[0].message.split('\n')[0]}`);
  const value: unknown = doc.toJS({ maxAliasCount: 100 });
  if (value !== null && (typeof value !== 'object' || Array.isArray(value)))
    report(at, `expected a mapping (fields with values) after #cloud-config, found ${found(value)}`);
}
