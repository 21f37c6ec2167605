/** What a node's Open vSwitch looks like: datapath, bridges, mappings. Decided here once; several services ask. */
import { createHash } from 'node:crypto';
import type { ServiceContext } from '../../installer/model/catalogue.js';
import { type CloudModel, type CloudNode, nodesWith } from '../../installer/model/cloud.js';

/** Interfaces have names of at most 15 bytes (IFNAMSIZ). */
const NAME_MAX = 15;
const TUNNEL_BRIDGE = 'br-tunl';

/**
 * Open vSwitch forwards in its own process where the kernel has no module for it (containers, odd kernels), or where the
 * site says so. Slower, and guests must not leave checksums to hardware that is not there.
 */
export const userspaceDatapath = (cloud: CloudModel, node: CloudNode): boolean =>
  cloud.settings.datapath === 'userspace' || (cloud.settings.datapath === 'auto' && !node.facts.modules.openvswitch);

/** For the plan: the reason in words. */
export function datapathReason(cloud: CloudModel, node: CloudNode): string {
  if (cloud.settings.datapath !== 'auto') return `The site says so (cloud.datapath: ${cloud.settings.datapath}).`;
  return node.facts.modules.openvswitch
    ? `The kernel of ${node.name} has the module openvswitch.`
    : `The kernel of ${node.name} has no module openvswitch: packets are forwarded in userspace.`;
}

/** The sentence an operator reads when the kernel's datapath is wanted and not there; null when all is well. */
export const datapathRefusal = (cloud: CloudModel, node: CloudNode): string | null =>
  cloud.settings.datapath === 'kernel' && !node.facts.modules.openvswitch
    ? `cloud.datapath is kernel, but ${node.name} (Linux ${node.facts.kernel}) has no module openvswitch. Say auto or userspace.`
    : null;

export const isGateway = (node: CloudNode): boolean => node.services.includes('network-gateway');

/**
 * Provider networks end on gateways; on hypervisors where floating IPs, VLANs of projects or provider networks with
 * virtual machines on them leave the hypervisor itself.
 */
export const hasProviderBridges = (cloud: CloudModel, node: CloudNode): boolean =>
  isGateway(node) ||
  cloud.settings.distributedFloatingIp ||
  cloud.settings.tenantNetworks === 'vlan' ||
  cloud.settings.providerNetworks.length > 0 ||
  cloud.settings.provider.some(p => p.vlanRange !== null);

/** `physnet1` → `br-physnet1`; long names end in a hash of themselves. */
export function bridgeName(physicalNetwork: string): string {
  const name = `br-${physicalNetwork}`;
  if (name.length <= NAME_MAX) return name;
  return `${name.slice(0, NAME_MAX - 4)}${createHash('sha256').update(physicalNetwork).digest('hex').slice(0, 4)}`;
}

export interface Bridge {
  readonly name: string;
  readonly datapath: 'system' | 'netdev';
  /** The interface below it, by its name or by an address that it carries. */
  readonly uplink: { readonly kind: 'name' | 'address'; readonly what: string };
}

/** Bridges with an interface of the node below them. `br-int` is OVN's own. */
export function bridgesOf(cloud: CloudModel, node: CloudNode): readonly Bridge[] {
  const userspace = userspaceDatapath(cloud, node);
  const datapath = userspace ? 'netdev' : 'system';
  const bridges: Bridge[] = hasProviderBridges(cloud, node)
    ? node.provider.map(p => ({
        name: bridgeName(p.physicalNetwork),
        datapath,
        uplink: { kind: 'name', what: p.interface },
      }))
    : [];
  // Userspace tunnels end on an address of a bridge, not on one of an interface. After the take-over the bridge carries it.
  const { tunnel } = node;
  const carried = bridges.some(b => b.uplink.what === tunnel.interface || b.name === tunnel.interface);
  if (userspace && !carried)
    bridges.push({
      name: TUNNEL_BRIDGE,
      datapath,
      uplink: { kind: 'address', what: `${tunnel.address}/${tunnel.prefix}` },
    });
  return bridges;
}

export const bridgeMappings = (cloud: CloudModel, node: CloudNode): string =>
  hasProviderBridges(cloud, node)
    ? node.provider.map(p => `${p.physicalNetwork}:${bridgeName(p.physicalNetwork)}`).join(',')
    : '';

/** A locally administered address of this chassis on a physical network: routers that are on all chassis need one each. */
export function chassisMac(node: CloudNode, physicalNetwork: string): string {
  const hash = createHash('sha256').update(`${node.name} ${physicalNetwork}`).digest('hex');
  return `02:${hash.slice(0, 10).match(/../g)!.join(':')}`;
}

/** Packages of a service that only some nodes need: the option `packages_NAME` of the release, blanks between them. */
export const optionalPackages = (context: ServiceContext, name: string, wanted: boolean): readonly string[] =>
  wanted
    ? String(context.release.options[`packages_${name}`] ?? '')
        .split(' ')
        .filter(Boolean)
    : [];

/** The first sentence that is to be said of a node with a service; null when there is none. */
export function firstRefusal(
  cloud: CloudModel,
  service: string,
  refusal: (cloud: CloudModel, node: CloudNode) => string | null,
): string | null {
  for (const node of nodesWith(cloud, service)) {
    const sentence = refusal(cloud, node);
    if (sentence !== null) return sentence;
  }
  return null;
}
