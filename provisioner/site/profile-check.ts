/** What the schema of profiles, layouts and racks cannot say: how they fit each other. Pure. */
import { found, nearest } from '../core/schema/explain.js';
import { checkDiskLayout, checkInterfaces, checkUserData } from './install-check.js';
import type { NetworkLayout, Profile } from './profile-schema.js';
import { type Path, type Report, type Subnet, Unique } from './report.js';
import type { InterfaceConfig, Site } from './schema.js';

/** @param subnets networks of the site without a fault of their own */
export function checkProfiles(site: Site, subnets: readonly Subnet[], report: Report): void {
  const { disk, network } = site.layouts;
  const diskNames = new Unique(report, 'disk layout');
  for (const [i, layout] of disk.entries()) {
    diskNames.add(layout.name, ['layouts', 'disk', i, 'name']);
    checkDiskLayout(layout, ['layouts', 'disk', i], report);
  }
  const networkNames = new Unique(report, 'network layout');
  for (const [i, layout] of network.entries()) {
    networkNames.add(layout.name, ['layouts', 'network', i, 'name']);
    checkNetworkLayout(layout, ['layouts', 'network', i, 'interfaces'], subnets, report);
  }
  const racks = new Unique(report, 'rack');
  const switches = new Unique(report, 'switch');
  for (const [i, rack] of site.racks.entries()) {
    racks.add(rack.name, ['racks', i, 'name']);
    for (const [j, name] of rack.switches.entries()) switches.add(name, ['racks', i, 'switches', j]);
  }
  const places = new Unique(report, 'rack unit');
  for (const [i, node] of site.nodes.entries())
    if (node.rack?.unit !== undefined)
      places.add(`${node.rack.unit} of ${node.rack.name}`, ['nodes', i, 'rack', 'unit']);

  const names = new Unique(report, 'profile');
  const templates = new Unique(report, 'node_name');
  /** Two profiles that count their addresses from the same one would meet. */
  const counted = new Map<string, string>();
  for (const [i, profile] of site.profiles.entries()) {
    const at: Path = ['profiles', i];
    names.add(profile.name, [...at, 'name']);
    if (profile.node_name !== undefined) {
      templates.add(profile.node_name, [...at, 'node_name']);
      const runs = profile.node_name.match(/#+/g)?.length ?? 0;
      if (runs !== 1)
        report(
          [...at, 'node_name'],
          `expected one run of # for the number, found ${runs} in ${found(profile.node_name)}`,
        );
    }
    const roles = new Unique(report, 'role');
    for (const [j, role] of profile.roles.entries()) roles.add(role, [...at, 'roles', j]);
    checkUserData(profile.user_data, [...at, 'user_data'], report);
    checkRules(profile, at, report);
    for (const [key, known] of [
      ['disk_layout', disk.map(l => l.name)],
      ['network_layout', network.map(l => l.name)],
    ] as const) {
      const name = profile[key];
      if (name === undefined || known.includes(name)) continue;
      const near = nearest(name, known);
      const group = `layouts.${key.replace('_layout', '')}`;
      report(
        [...at, key],
        `expected the name of an entry of ${group} (${known.join(', ') || 'it is empty'}), found ${found(name)}${near ? `; did you mean ${near}?` : ''}`,
      );
    }
    const layout = network.find(l => l.name === profile.network_layout);
    if (layout?.interfaces.some(n => n.first_address !== undefined)) {
      const other = counted.get(layout.name);
      if (other === undefined) counted.set(layout.name, profile.name);
      else
        report(
          [...at, 'network_layout'],
          `expected another layout than that of ${other}: both would count their addresses from first_address of ${layout.name}`,
        );
    }
  }
}

function checkRules({ match, auto_claim }: Profile, at: Path, report: Report): void {
  const bounds = (range: { min?: number; max?: number } | undefined, path: Path) => {
    if (range?.min !== undefined && range.max !== undefined && range.min > range.max)
      report([...path, 'max'], `expected at least min (${range.min}), found ${range.max}`);
  };
  for (const key of ['sockets', 'cores', 'threads'] as const) bounds(match.cpu?.[key], [...at, 'match', 'cpu', key]);
  bounds(match.memory_gib, [...at, 'match', 'memory_gib']);
  for (const [j, rule] of match.disks.entries()) {
    bounds(rule.count, [...at, 'match', 'disks', j, 'count']);
    if (rule.min_gb !== undefined && rule.max_gb !== undefined && rule.min_gb > rule.max_gb)
      report([...at, 'match', 'disks', j, 'max_gb'], `expected at least min_gb (${rule.min_gb}), found ${rule.max_gb}`);
  }
  for (const [j, rule] of match.nics.entries()) bounds(rule.count, [...at, 'match', 'nics', j, 'count']);
  const { disks, nics, ...rest } = match;
  if (auto_claim && disks.length === 0 && nics.length === 0 && Object.keys(rest).length === 0)
    report([...at, 'match'], 'expected at least one rule: without one, auto_claim takes every machine that boots');
}

/** As the interfaces of a node are checked, with a made-up MAC for every NIC that is chosen later. */
function checkNetworkLayout(layout: NetworkLayout, at: Path, subnets: readonly Subnet[], report: Report): void {
  let next = 0;
  const macs = (count: number) =>
    Array.from({ length: count }, () => `02:00:00:00:00:${(next++ % 256).toString(16).padStart(2, '0')}`);
  const sound = layout.interfaces.flatMap((entry, i): InterfaceConfig[] => {
    const kinds = (['nic', 'bond', 'vlan'] as const).filter(k => entry[k] !== undefined);
    if (kinds.length !== 1) {
      report([...at, i], `expected exactly one of nic, bond and vlan, found ${kinds.join(' and ') || 'none'}`);
      return [];
    }
    const { nic, bond, vlan, first_address, ...rest } = entry;
    return [
      {
        ...rest,
        addresses: first_address === undefined ? [] : [first_address],
        ...(nic ? { mac: macs(1)[0]! } : {}),
        ...(bond ? { bond: { mode: bond.mode, macs: macs(bond.nics.length) } } : {}),
        ...(vlan ? { vlan } : {}),
      },
    ];
  });
  if (sound.length === layout.interfaces.length)
    checkInterfaces(sound, at, subnets, new Unique(report, 'address'), undefined, report);
}
