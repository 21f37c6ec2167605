/**
 * Objects behind the APIs, as values: what a cloud shall have. Objects refer to each other by name; a name that is not
 * among the desired objects is looked up in the cloud (the role `admin`, a network that an operator made).
 */

export interface DesiredProject {
  readonly kind: 'project';
  readonly name: string;
  readonly description?: string;
}

export interface DesiredUser {
  readonly kind: 'user';
  readonly name: string;
  /** A function, so that the password is in no value that is printed or stored. */
  readonly password: () => string;
  readonly description?: string;
  /** Name. */
  readonly defaultProject?: string;
}

export interface DesiredRole {
  readonly kind: 'role';
  readonly name: string;
}

export interface DesiredAssignment {
  readonly kind: 'assignment';
  readonly user: string;
  readonly project: string;
  readonly role: string;
}

export interface DesiredService {
  readonly kind: 'service';
  /** `compute`; one of a type (service-types.openstack.org). */
  readonly type: string;
  /** `nova` */
  readonly name: string;
  readonly description?: string;
}

export interface DesiredRegion {
  readonly kind: 'region';
  readonly name: string;
}

export interface DesiredEndpoint {
  readonly kind: 'endpoint';
  /** Type of the service. */
  readonly service: string;
  readonly interface: 'public' | 'internal' | 'admin';
  readonly region: string;
  readonly url: string;
}

export interface DesiredFlavor {
  readonly kind: 'flavor';
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly diskGiB: number;
  readonly ephemeralGiB?: number;
  readonly swapMiB?: number;
  readonly public?: boolean;
  readonly extraSpecs?: Readonly<Record<string, string>>;
}

export interface DesiredImage {
  readonly kind: 'image';
  readonly name: string;
  /** Path of the file on this machine. */
  readonly file: string;
  /** When known, another content is seen: `os_hash_value` of Glance. */
  readonly sha512?: string;
  readonly diskFormat: string;
  readonly containerFormat?: string;
  readonly visibility?: 'public' | 'private' | 'shared' | 'community';
  readonly minDiskGiB?: number;
  readonly minMemoryMiB?: number;
  readonly protected?: boolean;
  readonly properties?: Readonly<Record<string, string>>;
  /** Names of images, for those that bring no boot loader. */
  readonly kernel?: string;
  readonly ramdisk?: string;
}

export interface DesiredNetwork {
  readonly kind: 'network';
  readonly name: string;
  /** Name; the client's own project when left out. */
  readonly project?: string;
  readonly description?: string;
  readonly external?: boolean;
  readonly shared?: boolean;
  readonly mtu?: number;
  readonly portSecurity?: boolean;
  readonly dnsDomain?: string;
  readonly provider?: {
    readonly type: 'flat' | 'vlan' | 'geneve' | 'vxlan' | 'local';
    readonly physicalNetwork?: string;
    /** VLAN tag or tunnel id. */
    readonly segment?: number;
  };
}

export interface DesiredSubnet {
  readonly kind: 'subnet';
  readonly name: string;
  readonly network: string;
  readonly project?: string;
  readonly cidr: string;
  /** null: none. Left out: Neutron's choice, the first address. */
  readonly gateway?: string | null;
  readonly dhcp?: boolean;
  readonly pools?: readonly { readonly from: string; readonly to: string }[];
  readonly dns?: readonly string[];
  readonly hostRoutes?: readonly { readonly destination: string; readonly nexthop: string }[];
}

export interface DesiredPort {
  readonly kind: 'port';
  readonly name: string;
  readonly network: string;
  /** Names of the network's subnets that must be there before it, so that it gets an address. */
  readonly subnets: readonly string[];
  readonly project?: string;
  /** Left out: one of the pool. */
  readonly address?: string;
  readonly mac?: string;
  /**
   * What DHCP says to this port in place of what it says to its subnet, by the names of Neutron: these and no others. With
   * `router` the classless routes of the subnet (option 121) follow it, unless they are named as well.
   */
  readonly dhcpOptions: Readonly<Record<string, string>>;
}

export interface DesiredRouter {
  readonly kind: 'router';
  readonly name: string;
  readonly project?: string;
  /** Network of the gateway. */
  readonly external?: string;
  readonly snat?: boolean;
  /** Names of subnets. Others that were added by hand stay. */
  readonly interfaces?: readonly string[];
}

export interface SecurityRule {
  readonly direction: 'ingress' | 'egress';
  readonly ipVersion?: 4 | 6;
  /** `tcp`, `udp`, `icmp`; all when left out. */
  readonly protocol?: string;
  readonly ports?: { readonly from: number; readonly to: number };
  readonly remote?: string;
}

export interface DesiredSecurityGroup {
  readonly kind: 'security-group';
  readonly name: string;
  readonly project?: string;
  readonly description?: string;
  /** The rules for traffic to the servers are exactly these; rules for traffic from them are Neutron's and stay. */
  readonly rules: readonly SecurityRule[];
}

export interface DesiredVolumeType {
  readonly kind: 'volume-type';
  readonly name: string;
  readonly description?: string;
  readonly public?: boolean;
  readonly extraSpecs?: Readonly<Record<string, string>>;
}

/** Names of limits as the APIs have them, e.g. `{cores: 20, ram: 51200}`; what is not named stays. */
export interface DesiredQuota {
  readonly kind: 'quota';
  readonly project: string;
  readonly compute?: Readonly<Record<string, number>>;
  readonly volume?: Readonly<Record<string, number>>;
  readonly network?: Readonly<Record<string, number>>;
}

export interface DesiredAggregate {
  readonly kind: 'aggregate';
  readonly name: string;
  readonly zone?: string;
  /** Host names of Nova. Others that were added by hand stay. */
  readonly hosts?: readonly string[];
  readonly metadata?: Readonly<Record<string, string>>;
}

export type DesiredObject =
  | DesiredProject
  | DesiredUser
  | DesiredRole
  | DesiredAssignment
  | DesiredService
  | DesiredRegion
  | DesiredEndpoint
  | DesiredFlavor
  | DesiredImage
  | DesiredNetwork
  | DesiredSubnet
  | DesiredPort
  | DesiredRouter
  | DesiredSecurityGroup
  | DesiredVolumeType
  | DesiredQuota
  | DesiredAggregate;

export type ObjectKind = DesiredObject['kind'];

export interface DesiredObjects {
  /** In any order. */
  readonly objects: readonly DesiredObject[];
  /**
   * Of the site, secret: Keystone shows no password, so a keyed hash of it stands beside the user as the attribute
   * `halligan_password`. A password that was changed by other means while that stays is not noticed.
   */
  readonly passwordKey: string | Buffer;
  /** Ids of objects that shall not be there, e.g. `service:object-store`; of kinds that can be deleted by name. */
  readonly absent?: readonly string[];
}

export type FieldValue = string | number | boolean | null | readonly string[];
export type Fields = Readonly<Record<string, FieldValue>>;

export interface ObservedObject {
  /** Id in the API; a made-up one for what has none (assignments). */
  readonly id: string;
  readonly fields: Fields;
  /** Ids of further objects that stand for the same thing and should not. */
  readonly duplicates?: readonly string[];
}

export interface ObservedObjects {
  /** By our id, e.g. `user:glance`; desired ones only. */
  readonly objects: Readonly<Record<string, ObservedObject>>;
  /** Ids in the API of everything that was seen by name, desired or not. */
  readonly ids: Readonly<Record<string, string>>;
}

export interface FieldChange {
  readonly field: string;
  /** null when there was none. */
  readonly from: FieldValue;
  readonly to: FieldValue;
}

/** One thing to do. Holds no secret: a password shows as `(secret)`. */
export interface ObjectAction {
  /** `user:glance`; `delete:flavor:m1.tiny` for what goes. */
  readonly id: string;
  readonly kind: 'create' | 'update' | 'delete';
  /** For people: `endpoint compute public RegionOne`. */
  readonly object: string;
  readonly changes: readonly FieldChange[];
  /** Ids of actions that must be done before. */
  readonly needs: readonly string[];
  /** Id in the API of what is changed or deleted. */
  readonly target?: string;
  /** Why this cannot be done; applying it fails with this sentence. */
  readonly blocked?: string;
}
