/** The cloud as a value: what the site says of it and what was seen on its nodes. Everything desired is made from this. */
import type { ReleaseArchive } from './archives.js';
import type { ServiceRelease } from './catalogue.js';
import type { CloudMemory } from './memory.js';
import type { CloudSettings } from './settings.js';

/** What was read on a node before anything was decided. */
export interface NodeFacts {
  readonly hostname: string;
  /** ID and VERSION_ID of os-release(5). */
  readonly os: { readonly id: string; readonly version: string };
  readonly kernel: string;
  readonly architecture: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  /** In a container (systemd-detect-virt --container), such as a lab host. */
  readonly container: boolean;
  readonly kvm: boolean;
  /** Its CPUs are emulated (`qemu` of systemd-detect-virt): all that computes takes about ten times as long. */
  readonly emulated?: boolean;
  /** Kernel features that are there or can be loaded. */
  readonly modules: {
    readonly openvswitch: boolean;
    readonly deviceMapper: boolean;
    readonly iscsi: boolean;
    readonly vlan: boolean;
  };
  readonly interfaces: readonly NodeInterface[];
  readonly disks: readonly {
    readonly path: string;
    readonly bytes: number;
    readonly mounted: boolean;
    readonly signature: string | null;
    /** Other names of it, `/dev/disk/by-id/…`, which do not move between boots. */
    readonly links?: readonly string[];
  }[];
  /** Free space of the file system of /var. */
  readonly freeMiB?: number;
  /** Node's clock minus ours at the time of the look, half the round trip taken off. */
  readonly clockOffsetMs: number;
}

export interface NodeInterface {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  readonly up: boolean;
  /** `10.99.0.7/24` */
  readonly addresses: readonly string[];
  readonly defaultRoute: string | null;
}

export interface CloudNode {
  readonly name: string;
  readonly fqdn: string;
  readonly roles: readonly string[];
  /** Names of services, in the catalogue's order. */
  readonly services: readonly string[];
  /** On the management network: APIs, database, messaging. */
  readonly address: string;
  /** End of tunnels between hypervisors; the management address when there is no network for it. */
  readonly tunnel: { readonly address: string; readonly prefix: number; readonly interface: string };
  /** Where volumes and objects are moved. */
  readonly storageAddress: string;
  /** Interface for provider networks, by physical network; empty on nodes without one. */
  readonly provider: readonly { readonly physicalNetwork: string; readonly interface: string }[];
  /** Of its sshd, `ssh-ed25519 AAAA…`; null where it is not known. */
  readonly hostKey?: string | null;
  readonly facts: NodeFacts;
}

/** One OpenStack release on one release of a distribution: a data file. */
export interface Release {
  /** `debian-12-zed` */
  readonly name: string;
  /** Name of the distribution's data file: `debian-12`. */
  readonly distribution: string;
  /** `zed` */
  readonly openstack: string;
  /** `2022.2` */
  readonly version: string;
  /** Laid down and proved by the tests of this repository. */
  readonly tested: boolean;
  /** Beside those of the distribution. */
  readonly archives: readonly ReleaseArchive[];
  readonly services: Readonly<Record<string, ServiceRelease>>;
}

export interface CloudModel {
  /** Name of the site. */
  readonly name: string;
  readonly domain: string;
  readonly settings: CloudSettings;
  readonly release: Release;
  readonly nodes: readonly CloudNode[];
  /** What earlier applies settled, with what this one adds. */
  readonly memory: CloudMemory;
  /** Where the APIs answer: `host` stands in URLs, `address` is what it resolves to. */
  readonly api: { readonly host: string; readonly address: string };
  /** Every service of the catalogue that is somewhere in this cloud, with its databases, user and endpoints. */
  readonly services: readonly {
    readonly name: string;
    readonly databases: readonly { readonly name: string; readonly user: string }[];
    readonly user: string | null;
    readonly messagingUser: string | null;
    readonly endpoints: readonly {
      readonly type: string;
      readonly name: string;
      readonly port: number;
      readonly path: string;
    }[];
  }[];
}

/** Nodes that have a service, in the order in which they got it: the first stays the first, whoever comes later. */
export function nodesWith(cloud: Pick<CloudModel, 'nodes' | 'memory'>, service: string): readonly CloudNode[] {
  const order = cloud.memory.joined[service] ?? [];
  const rank = (n: CloudNode) => {
    const i = order.indexOf(n.name);
    return i < 0 ? order.length : i;
  };
  return cloud.nodes.filter(n => n.services.includes(service)).sort((a, b) => rank(a) - rank(b));
}

/** Address of the one node that has a service. @throws Error when there is none: the catalogue's needs rule that out */
export function addressOf(cloud: CloudModel, service: string): string {
  const node = nodesWith(cloud, service)[0];
  if (!node) throw new Error(`no node has the service ${service}`);
  return node.address;
}

/** `https://HOST:PORT/PATH` of an API. */
export function endpointUrl(cloud: CloudModel, type: string): string {
  for (const s of cloud.services)
    for (const e of s.endpoints) if (e.type === type) return `https://${cloud.api.host}:${e.port}${e.path}`;
  throw new Error(`no service has an endpoint of type ${type}`);
}
