/**
 * From what the site says and what was seen on its nodes to the model of the cloud, or to everything that stands in the
 * way. Pure.
 */
import { contains, formatIpv4, parseCidr, parseIpv4, tryParseCidr } from '../../provisioner/core/net/ipv4.js';
import { nearest } from '../../provisioner/core/schema/explain.js';
import type { Catalogue, RoleDeclaration, ServiceDeclaration } from './catalogue.js';
import { type CloudModel, type CloudNode, type NodeFacts, nodesWith, type Release } from './cloud.js';
import { type CloudMemory, joinedAfter } from './memory.js';
import type { CloudSettings } from './settings.js';

/** A node as the site and the first look at it tell. */
export interface NodeInput {
  readonly name: string;
  readonly roles: readonly string[];
  /** Where SSH reached it. */
  readonly sshAddress: string;
  /** The key that its sshd shows. */
  readonly hostKey?: string;
  readonly facts: NodeFacts;
  /** Interface at the end of tunnels, where it cannot be seen: its address may have moved to a bridge of Open vSwitch. */
  readonly tunnelInterface?: string | null;
}

export interface ModelInput {
  readonly siteName: string;
  readonly domain: string;
  readonly settings: CloudSettings;
  readonly release: Release;
  readonly catalogue: Catalogue;
  readonly nodes: readonly NodeInput[];
  /** Nodes with roles that could not be looked at. */
  readonly unseen?: readonly string[];
  /** What earlier applies settled. */
  readonly memory: CloudMemory;
}

export interface ModelProblem {
  /** Null: it is about the cloud as a whole. */
  readonly node: string | null;
  /** What is wrong, a sentence. */
  readonly message: string;
  /** What to do next, a sentence. */
  readonly hint: string;
}

export type BuiltModel =
  | { readonly ok: true; readonly model: CloudModel }
  | { readonly ok: false; readonly problems: readonly ModelProblem[] };

const list = (words: readonly string[]): string => (words.length === 0 ? 'none' : words.join(', '));
const count = (n: number): string => (n === 0 ? 'no node has' : n === 1 ? 'one node has' : `${n} nodes have`);

interface Address {
  readonly address: string;
  readonly prefix: number;
  readonly interface: string;
}

const addressesOf = (facts: NodeFacts): readonly Address[] =>
  facts.interfaces.flatMap(i =>
    i.addresses.flatMap(text => {
      const cidr = tryParseCidr(text);
      return cidr ? [{ address: formatIpv4(cidr.address), prefix: cidr.prefix, interface: i.name }] : [];
    }),
  );

/** Everything that is wrong is collected; a node with a fault takes no part in what follows from its addresses. */
export function buildCloudModel(input: ModelInput): BuiltModel {
  const { settings, catalogue, release } = input;
  const problems: ModelProblem[] = [];
  const report = (node: string | null, message: string, hint: string) => problems.push({ node, message, hint });

  if (input.nodes.length === 0)
    report(null, 'No node of the site has a role of the cloud.', 'Give nodes `roles` in the site file.');
  checkNames(input, report);
  checkRoles(input, report);

  const wanted = [...catalogue.services.values()].filter(s => s.wanted?.(settings) ?? true);
  const nodes: CloudNode[] = [];
  for (const node of input.nodes) {
    const services = servicesOf(node, catalogue, wanted);
    const placed = placeNode(node, services, input, report);
    if (placed) nodes.push(placed);
  }
  checkServices(input, wanted, report);
  checkFirst(input, wanted, report);
  checkAddresses(nodes, report);
  for (const p of settings.provider)
    if (nodes.length === input.nodes.length && nodes.length > 0 && !nodes.some(n => hasPhysical(n, p.physicalNetwork)))
      report(
        null,
        `No node has the interface ${p.interface}, on which the provider network ${p.physicalNetwork} lies.`,
        'Correct `interface` of this entry of cloud.provider, or give the network nodes such an interface.',
      );
  const memory: CloudMemory = { ...input.memory, joined: joinedAfter(input.memory.joined, nodes, input.unseen) };
  const firstOf = (having: (s: ServiceDeclaration) => boolean) =>
    wanted.filter(having).flatMap(s => nodesWith({ nodes, memory }, s.name))[0];
  const first =
    firstOf(s => s.endpoints?.some(e => e.type === 'identity') ?? false) ??
    firstOf(s => (s.endpoints?.length ?? 0) > 0) ??
    nodes[0];
  if (problems.length > 0 || !first) return { ok: false, problems };

  let model: CloudModel = {
    name: input.siteName,
    domain: input.domain,
    settings,
    release,
    nodes,
    memory,
    api: { host: settings.apiName ?? first.address, address: first.address },
    services: wanted
      .filter(s => nodes.some(n => n.services.includes(s.name)))
      .map(s => ({
        name: s.name,
        databases: s.databases ?? [],
        user: s.user ?? null,
        messagingUser: s.messagingUser ?? null,
        endpoints: s.endpoints ?? [],
      })),
  };
  for (const service of wanted) {
    if (!nodes.some(n => n.services.includes(service.name))) continue;
    const refusal = service.refusal?.(model) ?? null;
    if (refusal !== null)
      report(null, refusal, 'Correct the part `cloud` of the site file, or the roles of its nodes.');
    else if (service.remember) model = { ...model, memory: service.remember(model) };
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, model };
}

type Report = (node: string | null, message: string, hint: string) => void;

const hasPhysical = (node: CloudNode, physicalNetwork: string) =>
  node.provider.some(p => p.physicalNetwork === physicalNetwork);

/** In the catalogue's order. */
function servicesOf(node: NodeInput, catalogue: Catalogue, wanted: readonly ServiceDeclaration[]): readonly string[] {
  const named = new Set(node.roles.flatMap(r => catalogue.roles.get(r)?.services ?? []));
  return wanted.flatMap(s => (named.has(s.name) ? [s.name] : []));
}

function checkNames(input: ModelInput, report: Report): void {
  const seen = new Set<string>();
  for (const { name, facts } of input.nodes) {
    if (seen.has(name)) report(name, 'Two nodes have this name.', 'Rename one of them in the site file.');
    seen.add(name);
    const short = facts.hostname.split('.')[0]!;
    if (short !== name)
      report(
        name,
        `It calls itself ${JSON.stringify(facts.hostname)}. Nova, Neutron and OVN know a node by its host name.`,
        `Run \`hostnamectl set-hostname ${name}\` on it, or give it the name ${short} in the site file.`,
      );
  }
}

function checkRoles(input: ModelInput, report: Report): void {
  const { roles } = input.catalogue;
  const known = [...roles.keys()];
  for (const node of input.nodes) {
    if (node.roles.length === 0)
      report(node.name, 'It has no role.', 'Give it `roles` in the site file, or take it out of the cloud.');
    for (const name of node.roles) {
      if (roles.has(name)) continue;
      const guess = nearest(name, known);
      report(
        node.name,
        `There is no role ${JSON.stringify(name)}${guess ? `; ${guess} is meant, perhaps` : ''}.`,
        `Correct \`roles\` of the node; known are ${list(known)}.`,
      );
    }
    const pairs = new Set<string>();
    for (const name of new Set(node.roles))
      for (const conflict of roles.get(name)?.conflicts ?? []) {
        // Both may say so.
        const pair = [name, conflict.role].sort().join(' and ');
        if (!node.roles.includes(conflict.role) || pairs.has(pair)) continue;
        pairs.add(pair);
        report(
          node.name,
          `The roles ${pair} cannot be on one node. ${conflict.sentence}`,
          'Take one of the two away from the node.',
        );
      }
  }
  const having = (role: string) => input.nodes.filter(n => n.roles.includes(role)).length;
  for (const role of roles.values()) {
    const n = having(role.name);
    for (const limit of role.limits) {
      if (limit.least !== undefined && n < limit.least)
        report(
          null,
          `${sentence(role, n)} ${limit.sentence}`,
          `Give the role ${role.name} to ${n === 0 ? 'a' : 'another'} node.`,
        );
      if (limit.most !== undefined && n > limit.most)
        report(null, `${sentence(role, n)} ${limit.sentence}`, `Take the role ${role.name} away from a node.`);
    }
    if (n > 0)
      for (const need of role.needs)
        if (having(need.role) === 0)
          report(
            null,
            `The role ${role.name} needs the role ${need.role}, which no node has. ${need.sentence}`,
            `Give the role ${need.role} to a node.`,
          );
  }
}

const sentence = (role: RoleDeclaration, n: number) => {
  const text = `${count(n)} the role ${role.name}.`;
  return text[0]!.toUpperCase() + text.slice(1);
};

/** Services that others need must be in the cloud. */
function checkServices(input: ModelInput, wanted: readonly ServiceDeclaration[], report: Report): void {
  const { catalogue } = input;
  const present = new Set(input.nodes.flatMap(n => servicesOf(n, catalogue, wanted)));
  const missing = new Map<string, string[]>();
  for (const service of wanted)
    if (present.has(service.name))
      for (const need of service.needs)
        if (!present.has(need)) missing.set(need, [...(missing.get(need) ?? []), service.name]);
  for (const [need, by] of missing) {
    const declaration = catalogue.services.get(need);
    const title = declaration ? `${declaration.title} (${need})` : need;
    if (declaration && !wanted.includes(declaration)) {
      report(
        null,
        `${title} is switched off in the site's settings, but ${list(by)} cannot do without it.`,
        'Switch it on in the part `cloud` of the site file, or take away the roles that need it.',
      );
      continue;
    }
    const roles = [...catalogue.roles.values()].filter(r => r.services.includes(need)).map(r => r.name);
    report(
      null,
      `${title} is on no node, but ${list(by)} cannot do without it.`,
      roles.length > 0
        ? `Give the role ${roles.join(' or ')} to a node.`
        : 'No role has it: the catalogue is incomplete.',
    );
  }
}

/** What only one node has stays on it. */
function checkFirst(input: ModelInput, wanted: readonly ServiceDeclaration[], report: Report): void {
  const losses = new Map<string, { held: string[]; roles: Set<string> }>();
  for (const service of wanted) {
    const held = service.firstAlone?.(input.settings) ?? null;
    const first = input.memory.joined[service.name]?.[0];
    if (held === null || first === undefined) continue;
    const having = input.nodes.filter(n => servicesOf(n, input.catalogue, wanted).includes(service.name));
    // Nobody has it: it is given up, or its absence is refused elsewhere.
    if (having.length === 0 || having.some(n => n.name === first)) continue;
    const loss = losses.get(first) ?? { held: [], roles: new Set() };
    loss.held.push(held);
    for (const n of having)
      for (const r of n.roles) if (input.catalogue.roles.get(r)?.services.includes(service.name)) loss.roles.add(r);
    losses.set(first, loss);
  }
  for (const [first, { held, roles }] of losses) {
    if (input.unseen?.includes(first)) {
      report(
        first,
        `It has ${held.join(', ')}, and no other node does, and it cannot be planned with now: without it another would begin with nothing.`,
        `Bring ${first} back; \`halligan node why ${first}\` says what is amiss. If it is lost, so is what it had.`,
      );
      continue;
    }
    report(
      first,
      `It has ${held.join(', ')}, and no other node does, but it is not among the nodes with the role ${[...roles].join(' or ')} now: another would begin with nothing.`,
      `Give the role ${[...roles].join(' or ')} back to ${first}, and apply. There is no way yet to move it: what it has may only be given up with the whole role.`,
    );
  }
}

/** Undefined when the node has no address where it needs one; that is reported. */
function placeNode(
  node: NodeInput,
  services: readonly string[],
  input: ModelInput,
  report: Report,
): CloudNode | undefined {
  const { networks, provider } = input.settings;
  const own = addressesOf(node.facts);
  const shown = list(
    own.filter(a => !a.address.startsWith('127.')).map(a => `${a.address}/${a.prefix} (${a.interface})`),
  );
  const inside = (network: string): Address | undefined => {
    const cidr = parseCidr(network);
    const fitting = own.filter(a => contains(cidr, parseIpv4(a.address)));
    return fitting.find(a => a.address === node.sshAddress) ?? fitting[0];
  };

  let management: Address | undefined;
  if (networks.management === null) {
    management = own.find(a => a.address === node.sshAddress);
    if (!management)
      report(
        node.name,
        `SSH reaches it at ${node.sshAddress}, which none of its interfaces has; its addresses are ${shown}.`,
        'Name the network of the APIs in cloud.networks.management.',
      );
  } else {
    management = inside(networks.management);
    if (!management)
      report(
        node.name,
        `It has no address in the management network ${networks.management}; its addresses are ${shown}.`,
        'Give it an address there, or correct cloud.networks.management.',
      );
  }
  /** On the network when one is named; otherwise, or where no service asks for it, the management address. */
  const on = (kind: 'tunnel' | 'storage'): Address | undefined => {
    const network = networks[kind];
    if (network === null) return management;
    const address = inside(network);
    if (address) return address;
    const by = services.filter(s => input.catalogue.services.get(s)?.networks?.includes(kind));
    if (by.length === 0) return management;
    report(
      node.name,
      `It has no address in the ${kind} network ${network}, which ${list(by)} needs; its addresses are ${shown}.`,
      `Give it an address there, or correct cloud.networks.${kind}.`,
    );
    return undefined;
  };
  const tunnel = on('tunnel');
  const storage = on('storage');
  const interfaces = new Set(node.facts.interfaces.map(i => i.name));
  const given = node.tunnelInterface ?? null;
  if (given !== null && !interfaces.has(given)) {
    report(
      node.name,
      `It has no interface ${given}, which is to carry its tunnels; its interfaces are ${list([...interfaces])}.`,
      'Correct the name of the interface in the site file.',
    );
    return undefined;
  }
  if (!management || !tunnel || !storage) return undefined;
  return {
    name: node.name,
    fqdn: `${node.name}.${input.domain}`,
    roles: node.roles,
    services,
    address: management.address,
    tunnel: { address: tunnel.address, prefix: tunnel.prefix, interface: given ?? tunnel.interface },
    storageAddress: storage.address,
    provider: provider
      .filter(p => interfaces.has(p.interface))
      .map(p => ({ physicalNetwork: p.physicalNetwork, interface: p.interface })),
    hostKey: node.hostKey ?? null,
    facts: node.facts,
  };
}

/** No address may be on two nodes. */
function checkAddresses(nodes: readonly CloudNode[], report: Report): void {
  const owners = new Map<string, string[]>();
  for (const node of nodes)
    for (const address of new Set([node.address, node.tunnel.address, node.storageAddress]))
      owners.set(address, [...(owners.get(address) ?? []), node.name]);
  for (const [address, names] of owners)
    if (new Set(names).size > 1)
      report(
        names[1]!,
        `It has the address ${address}, and so has ${list(names.filter(n => n !== names[1]))}.`,
        'Give each node an address of its own; `ip addr` on both shows where it comes from.',
      );
}
