/** The `cloud` part of the site file with all defaults filled in: what the site hands to whoever lays the cloud down. */

/** What operators assign to nodes. Each is a folder of `roles/`. */
export const ROLE_NAMES = ['controller', 'compute', 'volume', 'network', 'storage', 'monitoring'] as const;

/** What is laid down when the site names no release. */
export const DEFAULT_RELEASE = 'debian-12-zed';

/** A disk that is given away, or a plain file of `fileSize` (`8G`) in place of one. */
export interface GivenDevice {
  readonly path: string;
  readonly fileSize: string | null;
}

export interface ExternalNetwork {
  /** Name in Neutron. */
  readonly name: string;
  readonly physicalNetwork: string;
  /** VLAN tag on the physical network; null: untagged (flat). */
  readonly vlan: number | null;
  readonly cidr: string;
  /** The hardware router; null when there is none. */
  readonly gateway: string | null;
  /** Addresses for routers and floating IPs. */
  readonly pool: { readonly from: string; readonly to: string };
}

/** A network on a physical one that virtual machines are plugged into directly. */
export interface ProviderNetwork {
  /** Name in Neutron. */
  readonly name: string;
  readonly physicalNetwork: string;
  /** VLAN tag; null: untagged (flat). */
  readonly vlan: number | null;
  /** All projects may use it. */
  readonly shared: boolean;
  readonly subnets: readonly {
    /** Name in Neutron. */
    readonly name: string;
    readonly cidr: string;
    /** The hardware router, which DHCP names as the way out; null: none. */
    readonly gateway: string | null;
    readonly dhcp: boolean;
    /** Addresses for virtual machines; null: all but the gateway's. */
    readonly pool: { readonly from: string; readonly to: string } | null;
    /** Resolvers; empty: those of the cloud. */
    readonly dns: readonly string[];
    readonly routes: readonly { readonly to: string; readonly via: string }[];
  }[];
  readonly ports: readonly {
    /** Name in Neutron. */
    readonly name: string;
    /** null: one of the pool. */
    readonly address: string | null;
    /** null: Neutron's choice. */
    readonly mac: string | null;
    /** Names of Neutron (`router`, `ntp-server`) and what this port is told in place of its subnet's. */
    readonly dhcpOptions: Readonly<Record<string, string>>;
  }[];
}

export interface CloudSettings {
  /** Name of a release data file, `debian-12-zed`. */
  readonly release: string;
  readonly region: string;
  /** Name in the URLs of the APIs; null: the address of the first controller. */
  readonly apiName: string | null;
  /** Subnets by what they carry; null: the network that nodes boot from. */
  readonly networks: {
    readonly management: string | null;
    readonly tunnel: string | null;
    readonly storage: string | null;
  };
  /** Physical networks that Neutron may use, and the interface of the nodes that have it. */
  readonly provider: readonly {
    readonly physicalNetwork: string;
    readonly interface: string;
    /** Tags that projects may get, `100:299`; null: untagged only. */
    readonly vlanRange: string | null;
  }[];
  /** Where floating IPs come from; null: none. */
  readonly external: ExternalNetwork | null;
  /** Networks that virtual machines share with what is outside of the cloud. */
  readonly providerNetworks: readonly ProviderNetwork[];
  readonly tenantNetworks: 'geneve' | 'vlan';
  /** Floating IPs on the hypervisors themselves (the old multi_host) instead of on the gateway. */
  readonly distributedFloatingIp: boolean;
  /** MTU of the networks below: tenant networks get what tunnels leave of it. */
  readonly mtu: number;
  /** `auto`: the kernel’s Open vSwitch where the module is there, userspace otherwise. */
  readonly datapath: 'auto' | 'kernel' | 'userspace';
  readonly virtualization: 'auto' | 'kvm' | 'qemu';
  /** Processes per API; null: by the node’s CPUs. */
  readonly workers: number | null;
  readonly dns: readonly string[];
  readonly ntp: readonly string[];
  /** `none`: no volume service. */
  readonly volumes: { readonly backend: 'lvm' | 'ceph' | 'none'; readonly devices: readonly GivenDevice[] };
  readonly objects: {
    readonly enabled: boolean;
    readonly replicas: number;
    readonly devices: readonly GivenDevice[];
  };
  readonly dashboard: boolean;
  readonly flavors: readonly {
    readonly name: string;
    readonly vcpus: number;
    readonly memoryMiB: number;
    readonly diskGiB: number;
  }[];
  /** Service → path → section → key → value. */
  readonly config: Readonly<Record<string, ConfigFiles>>;
  /** Where nodes get packages: a mirror’s URL, `proxy` (through us), or null: the nodes’ own sources. */
  readonly packages: string | null;
}

export type ConfigFiles = Readonly<
  Record<string, Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>>>
>;
