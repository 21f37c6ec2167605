/**
 * Which node gets which profile of the site, and what follows from that; for the rest, why not. Pure: for the preview, for
 * claims by hand and for those that the server makes by itself.
 */
import { isDeepStrictEqual } from 'node:util';
import { chooseDisks, foreignData } from '../install/disks.js';
import type { Inventory } from '../inventory/types.js';
import { bootNic } from '../node/boot-nic.js';
import { usableSerial, usableUuid } from '../node/identity.js';
import type { Node, NodeSpec } from '../node/types.js';
import type { Profile } from '../site/profile-schema.js';
import type { Bmc, InstallConfig, Site, SiteNode } from '../site/schema.js';
import { eliminate } from './eliminate.js';
import { interfacesOf } from './interfaces.js';
import { isMadeUpName, nameOf, numberIn } from './names.js';
import { misfits, type RackPosition, rackOf } from './rules.js';

export type ProfileSite = Pick<Site, 'profiles' | 'layouts' | 'racks' | 'nodes'>;

/** What a node becomes by its profile. */
export interface Becomes {
  readonly name: string;
  /** From 1, its own within the profile. */
  readonly number: number;
  readonly roles: readonly string[];
  readonly install: Partial<InstallConfig>;
  readonly bmc: Bmc | null;
  readonly rack: RackPosition | null;
}

export interface NodeMatch {
  readonly nodeId: string;
  /** As it is called now. */
  readonly node: string;
  /**
   * matched: one profile is left. ambiguous: several are. none: none is. held: it was claimed with a profile. named: the
   * file names it under `nodes`. taken: somebody claimed it without a profile, or gave it roles. uninspected: there is no inventory.
   */
  readonly kind: 'matched' | 'ambiguous' | 'none' | 'held' | 'named' | 'taken' | 'uninspected';
  readonly profile: string | null;
  /** Why, one sentence. */
  readonly sentence: string;
  /** The profiles that it does not get, each with the reasons. */
  readonly rejected: readonly { readonly profile: string; readonly reasons: readonly string[] }[];
  /** Null unless it is matched and everything that follows can be had. */
  readonly becomes: Becomes | null;
  /** Would the server claim it by itself, and if not, why not; null where no profile matches. */
  readonly claim: { readonly automatic: boolean; readonly sentence: string } | null;
}

/** States in which a node belongs to nobody yet. */
const FREE = new Set(['discovered', 'inspecting', 'inspecting-failed', 'available']);

const COLLATOR = new Intl.Collator('en', { numeric: true });
const compare = (a: string, b: string) => COLLATOR.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);

/** Nodes are served in this order, whatever order they are given in: who had a number before, then by what never changes. */
function byIdentity(nodes: readonly Node[]): Node[] {
  return nodes
    .map(node => ({
      node,
      had: node.status.profile ? 0 : 1,
      serial: node.serial ?? '',
      mac: [...node.macs].sort()[0] ?? '',
    }))
    .sort(
      (a, b) => a.had - b.had || compare(a.serial, b.serial) || compare(a.mac, b.mac) || compare(a.node.id, b.node.id),
    )
    .map(entry => entry.node);
}

/** Finds the entry of the file that means a node. The inventory knows more NICs than its firmware showed, and its serial. */
function entryFinder(site: ProfileSite): (node: Node) => SiteNode | undefined {
  const entries = new Map<string, SiteNode>();
  const keys = (macs: readonly string[], uuid: string | null | undefined, serial: string | null | undefined) => [
    ...macs.map(m => `mac ${m.toLowerCase()}`),
    ...[usableUuid(uuid)].flatMap(u => (u === null ? [] : [`uuid ${u}`])),
    ...[usableSerial(serial)].flatMap(s => (s === null ? [] : [`serial ${s}`])),
  ];
  for (const entry of site.nodes)
    for (const key of [...keys(entry.macs, entry.uuid, entry.serial), `name ${entry.name}`]) entries.set(key, entry);
  return node => {
    if (entries.size === 0) return undefined;
    const { nics, system } = node.status.inventory ?? { nics: [], system: null };
    const known = [
      ...keys(node.macs, node.uuid, node.serial),
      ...keys(
        nics.map(n => n.mac),
        system?.uuid,
        system?.serial,
      ),
      `name ${node.name}`,
    ];
    return known.map(key => entries.get(key)).find(entry => entry !== undefined);
  };
}

function bmcOf(node: Node, profile: Profile, inventory: Inventory): { bmc: Bmc | null } | { reason: string } {
  if (node.spec.bmc || !profile.bmc) return { bmc: null };
  const address = inventory.bmc?.address;
  if (!address) return { reason: 'its inventory tells no address of a BMC' };
  const { driver, user, password, cipher_suite } = profile.bmc;
  return {
    bmc: { driver, address: driver === 'redfish' ? `https://${address}` : address, user, password, cipher_suite },
  };
}

/** Which disks hold other people's data: `/dev/sda carries ext4`. */
function foreignDisks(node: Node, inventory: Inventory): string[] {
  return inventory.disks.flatMap(disk => {
    if (disk.removable || disk.readOnly) return [];
    const what = foreignData(disk, node.id);
    return what === null ? [] : [`${disk.path} ${what}`];
  });
}

/**
 * Matches all nodes at once, because they compete for places and names.
 * @returns one entry per node, in the order given; the decisions do not depend on that order
 */
export function matchProfiles(site: ProfileSite, nodes: readonly Node[]): NodeMatch[] {
  const { profiles } = site;
  const entryOf = entryFinder(site);
  const index = new Map(profiles.map((p, i) => [p.name, i]));
  const heldBy: Node[][] = profiles.map(() => []);
  const done = new Map<string, NodeMatch>();
  const pool: { node: Node; inventory: Inventory; reasons: string[][] }[] = [];

  const plain = (node: Node, kind: NodeMatch['kind'], sentence: string, profile: string | null = null): void =>
    void done.set(node.id, {
      nodeId: node.id,
      node: node.name,
      kind,
      profile,
      sentence,
      rejected: [],
      becomes: null,
      claim: null,
    });

  for (const node of byIdentity(nodes)) {
    const had = node.status.profile ?? null;
    const { inventory } = node.status;
    const entry = entryOf(node);
    if (node.source === 'site' || entry) {
      plain(
        node,
        'named',
        `The site file names it under nodes${entry && entry.name !== node.name ? ` as ${entry.name}` : ''}.`,
      );
    } else if (!FREE.has(node.state)) {
      if (had) {
        heldBy[index.get(had.name) ?? -1]?.push(node);
        plain(node, 'held', `It has the profile ${had.name}, number ${had.number}.`, had.name);
      } else plain(node, 'taken', 'It was claimed or adopted without a profile.');
    } else if (ownSpec(node).roles.length > 0) {
      // Its roles may be in a plan already, by its name and with the disks that were shown.
      plain(node, 'taken', `An operator gave it the roles ${ownSpec(node).roles.join(', ')}.`);
    } else if (!inventory) plain(node, 'uninspected', 'Its inventory is not there yet.');
    else pool.push({ node, inventory, reasons: profiles.map(p => misfits(p.match, inventory)) });
  }

  const slots = profiles.map((p, i) => ({
    priority: p.priority,
    room: Math.max(0, (p.at_most ?? Number.POSITIVE_INFINITY) - heldBy[i]!.length),
  }));
  const decided = eliminate(
    slots,
    pool.map(({ reasons }) => profiles.flatMap((_, i) => (reasons[i]!.length === 0 ? [i] : []))),
  );

  const holders = heldBy.map(held => held.map(n => n.name));
  for (const [i, decision] of decided.entries())
    if (decision.kind === 'one') holders[decision.profile]!.push(pool[i]!.node.name);

  // Numbers and names that others have, or had.
  const names = new Set([...nodes.map(n => n.name), ...site.nodes.map(n => n.name)]);
  const numbers = profiles.map(
    p =>
      new Set(
        nodes.flatMap(n => [
          ...(n.status.profile?.name === p.name ? [n.status.profile.number] : []),
          ...(p.node_name === undefined ? [] : [numberIn(p.node_name, n.name) ?? []].flat()),
        ]),
      ),
  );
  const addresses = new Map<string, string>();
  for (const n of nodes) {
    for (const a of [n.spec.address, n.status.address]) if (a) addresses.set(a, n.name);
    for (const nic of n.spec.install.interfaces ?? [])
      for (const a of nic.addresses) addresses.set(a.split('/')[0]!, n.name);
  }

  const nextName = profiles.map(() => 1);
  const nextNumber = profiles.map(() => 1);
  const numberFor = (node: Node, at: number): number => {
    const template = profiles[at]!.node_name;
    const had = node.status.profile;
    const own = template === undefined ? null : numberIn(template, node.name);
    if (own !== null) return own;
    if (had?.name === profiles[at]!.name) return had.number;
    const renames = template !== undefined && isMadeUpName(node.name);
    // Numbers and names are only taken, never given back: what was passed once stays taken.
    const from = renames ? nextName : nextNumber;
    let number = from[at]!;
    while (numbers[at]!.has(number) || (renames && names.has(nameOf(template, number)))) number++;
    from[at] = number;
    return number;
  };

  for (const [i, { node, inventory, reasons }] of pool.entries()) {
    const decision = decided[i]!;
    const got = decision.kind === 'one' ? decision.profile : null;
    const left = decision.kind === 'several' ? decision.profiles : got === null ? [] : [got];
    const winner = left[0];
    const rejected = profiles.flatMap((p, at) => {
      if (left.includes(at)) return [];
      if (reasons[at]!.length > 0) return [{ profile: p.name, reasons: reasons[at]! }];
      const full = p.at_most !== undefined && holders[at]!.length >= p.at_most;
      return [
        {
          profile: p.name,
          reasons: [
            full
              ? `has its ${p.at_most} ${p.at_most === 1 ? 'node' : 'nodes'} already: ${holders[at]!.slice(0, 5).join(', ')}`
              : `has priority ${p.priority}, below ${winner === undefined ? '' : `${profiles[winner]!.priority} of ${profiles[winner]!.name}`}`,
          ],
        },
      ];
    });
    const result = { nodeId: node.id, node: node.name, rejected, becomes: null, claim: null };
    if (decision.kind === 'none') {
      const none = profiles.length === 0 ? 'The site has no profiles.' : 'No profile is left for it.';
      done.set(node.id, { ...result, kind: 'none', profile: null, sentence: none });
    } else if (got === null) {
      const both = left.map(at => profiles[at]!.name);
      done.set(node.id, {
        ...result,
        kind: 'ambiguous',
        profile: null,
        sentence: `It fits ${both.slice(0, -1).join(', ')} and ${both.at(-1)}, all of priority ${profiles[winner!]!.priority}; give one of them a higher priority or a narrower rule.`,
      });
    } else {
      const profile = profiles[got]!;
      const number = numberFor(node, got);
      const name =
        profile.node_name !== undefined && isMadeUpName(node.name) ? nameOf(profile.node_name, number) : node.name;
      const made = becomes(site, profile, node, inventory, name, number, addresses);
      if ('becomes' in made) {
        numbers[got]!.add(number);
        names.add(name);
        for (const nic of made.becomes.install.interfaces ?? [])
          for (const a of nic.addresses) addresses.set(a.split('/')[0]!, name);
      }
      done.set(node.id, {
        ...result,
        kind: 'matched',
        profile: profile.name,
        sentence: `It fits ${profile.name}${rejected.length > 0 ? ', and no other is left' : ''}.`,
        becomes: 'becomes' in made ? made.becomes : null,
        claim:
          'reason' in made
            ? { automatic: false, sentence: `Not by itself: ${made.reason}.` }
            : claimOf(profile, node, inventory),
      });
    }
  }
  return nodes.map(n => done.get(n.id)!);
}

/** What follows from a profile for this machine, or why that cannot be had. */
function becomes(
  site: ProfileSite,
  profile: Profile,
  node: Node,
  inventory: Inventory,
  name: string,
  number: number,
  addresses: ReadonlyMap<string, string>,
): { readonly becomes: Becomes } | { readonly reason: string } {
  const disk = site.layouts.disk.find(l => l.name === profile.disk_layout);
  const network = site.layouts.network.find(l => l.name === profile.network_layout);
  const install: Partial<InstallConfig> = {};
  if (name.length > 63) return { reason: `the name ${name} is longer than 63 characters` };
  if (profile.image !== undefined) install.image = profile.image;
  if (profile.user_data !== undefined) install.user_data = profile.user_data;
  if (disk) {
    const { name: _, ...layout } = disk;
    const count = layout.kind === 'mdraid' ? 2 : 1;
    const chosen = chooseDisks(inventory.disks, {
      nodeId: node.id,
      hints: Array.from({ length: count }, (_, n) => ({ ...layout.disks[n] })),
      wipe: true,
      minBytes: 0,
      needs512: false,
    });
    if ('code' in chosen) return { reason: `the disk layout ${disk.name}: ${chosen.message.replace(/\.$/, '')}` };
    install.disk_layout = layout;
  }
  if (network) {
    const made = interfacesOf(network, inventory.nics, bootNic(node), number);
    if (!made.ok) return { reason: `the network layout ${network.name} ${made.reason}` };
    for (const nic of made.interfaces)
      for (const address of nic.addresses) {
        const other = addresses.get(address.split('/')[0]!);
        if (other !== undefined && other !== node.name)
          return { reason: `the address ${address} of ${nic.name} belongs to ${other}` };
      }
    install.interfaces = made.interfaces;
  }
  const bmc = bmcOf(node, profile, inventory);
  if ('reason' in bmc) return bmc;
  const seen = rackOf(site.racks, inventory);
  const rack =
    profile.rack === undefined ? seen : { name: profile.rack, unit: seen?.name === profile.rack ? seen.unit : null };
  return { becomes: { name, number, roles: [...profile.roles], install, bmc: bmc.bmc, rack } };
}

function claimOf(profile: Profile, node: Node, inventory: Inventory): { automatic: boolean; sentence: string } {
  const no = (reason: string) => ({ automatic: false, sentence: `Not by itself: ${reason}.` });
  if (!profile.auto_claim) return no(`the profile ${profile.name} does not say auto_claim`);
  if (node.state !== 'available') return no('it is not available yet');
  if (node.maintenance !== null) return no(`it is in maintenance (${node.maintenance})`);
  const foreign = foreignDisks(node, inventory);
  if (foreign.length > 0 && profile.foreign_data === 'refuse')
    return no(`${foreign.slice(0, 4).join('; ')}, and the profile ${profile.name} does not say foreign_data: claim`);
  const data = foreign.length > 0 ? `, although ${foreign.slice(0, 4).join('; ')} (foreign_data: claim)` : '';
  return { automatic: true, sentence: `By itself${data}.` };
}

/** What an operator said of a node: its spec without what its profile gave and nobody changed since. */
export function ownSpec({ spec, status }: Node): Pick<NodeSpec, 'roles' | 'install'> {
  const gave = status.profile?.gave;
  if (!gave) return { roles: spec.roles, install: spec.install };
  const own = Object.entries(spec.install).filter(
    ([key, value]) => !isDeepStrictEqual(value, gave.install[key as keyof InstallConfig]),
  );
  return { roles: isDeepStrictEqual(spec.roles, gave.roles) ? [] : spec.roles, install: Object.fromEntries(own) };
}

export interface ClaimChange {
  readonly name?: string;
  readonly spec: Partial<NodeSpec>;
  readonly status: Pick<Node['status'], 'profile'>;
}

/** What a claim with this match changes, null where it has no profile to bring. What an operator said of the node stays. */
export function claimChange(node: Node, match: NodeMatch): ClaimChange | null {
  const { becomes: made, profile } = match;
  if (!made || profile === null) return null;
  const own = ownSpec(node);
  return {
    ...(made.name === node.name ? {} : { name: made.name }),
    spec: {
      roles: own.roles.length > 0 ? own.roles : [...made.roles],
      install: { ...made.install, ...own.install },
      ...(made.bmc ? { bmc: made.bmc } : {}),
      ...(made.rack && !node.spec.rack ? { rack: made.rack } : {}),
    },
    status: { profile: { name: profile, number: made.number, gave: { roles: made.roles, install: made.install } } },
  };
}
