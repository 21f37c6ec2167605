/** What a cloud has on record of one node, as a value; and what of that must not be left when the node is gone. */

export interface ComputeService {
  readonly id: string;
  readonly binary: string;
  readonly host: string;
  readonly up: boolean;
  readonly enabled: boolean;
  readonly forcedDown: boolean;
}

export interface ServerRecord {
  readonly id: string;
  readonly name: string;
  readonly host: string;
  /** As the API says it: ACTIVE, SHUTOFF, PAUSED … */
  readonly status: string;
  /** What Nova does with it right now; empty: nothing. */
  readonly task: string;
  /** What ties it to its host, e.g. `a device of the host (pci_passthrough:alias)`. */
  readonly ties: readonly string[];
}

/** A move of a server that has begun and is not over. `finished` waits for somebody to confirm or to revert it. */
export interface MigrationRecord {
  readonly id: string;
  readonly server: string;
  readonly status: string;
  readonly type: string;
}

export interface ProviderRecord {
  readonly id: string;
  readonly name: string;
  /** Null: it is a root. */
  readonly parent: string | null;
  /** Ids of servers and migrations that have resources there. */
  readonly consumers: readonly string[];
}

export interface PortRecord {
  readonly id: string;
  readonly device: string;
  readonly owner: string;
}

export interface VolumeServiceRecord {
  readonly binary: string;
  readonly host: string;
  readonly enabled: boolean;
}

export interface Records {
  readonly computeServices: readonly ComputeService[];
  readonly hypervisors: readonly { readonly id: string; readonly name: string }[];
  /** Hosts of other computes that are up and enabled: where servers can go. */
  readonly otherComputes: readonly string[];
  readonly servers: readonly ServerRecord[];
  readonly migrations: readonly MigrationRecord[];
  readonly aggregates: readonly string[];
  readonly providers: readonly ProviderRecord[];
  readonly agents: readonly { readonly id: string; readonly type: string; readonly host: string }[];
  readonly ports: readonly PortRecord[];
  /** Bindings of ports, those that a move left behind among them. */
  readonly bindings: readonly { readonly port: string; readonly host: string }[];
  readonly ovn: OvnRecords;
  readonly volumeServices: readonly VolumeServiceRecord[];
  readonly volumes: readonly { readonly id: string; readonly name: string; readonly status: string }[];
  /** Rows of databases: `nova_api.host_mappings: cmp2`. */
  readonly rows: readonly string[];
}

/** Rows of OVN's databases; ids are UUIDs. */
export interface OvnRecords {
  readonly chassis: readonly { readonly id: string; readonly name: string }[];
  readonly privates: readonly { readonly id: string; readonly name: string }[];
  /** Router ports and groups of ports that name the node as a gateway. */
  readonly gateways: readonly { readonly id: string; readonly chassis: string }[];
  readonly groups: readonly { readonly id: string; readonly chassis: string }[];
  /** Switch ports that shall be on the node. */
  readonly ports: readonly string[];
}

export const NO_OVN: OvnRecords = { chassis: [], privates: [], gateways: [], groups: [], ports: [] };

export const NO_RECORDS: Records = {
  computeServices: [],
  hypervisors: [],
  otherComputes: [],
  servers: [],
  migrations: [],
  aggregates: [],
  providers: [],
  agents: [],
  ports: [],
  bindings: [],
  ovn: NO_OVN,
  volumeServices: [],
  volumes: [],
  rows: [],
};

/** What is on record, a line each; empty when the cloud does not know the node. Pure. */
export function leftOver(r: Records): readonly string[] {
  return [
    ...r.computeServices.map(s => `Nova: service ${s.binary} on ${s.host} (${s.id})`),
    ...r.hypervisors.map(h => `Nova: hypervisor ${h.name} (${h.id})`),
    ...r.servers.map(s => `Nova: server ${s.name} (${s.id}), ${s.status}`),
    ...r.migrations.map(m => `Nova: ${m.type} ${m.id} of server ${m.server}, ${m.status}`),
    ...r.aggregates.map(a => `Nova: host aggregate ${a}`),
    ...r.providers.flatMap(p => [
      `Placement: resource provider ${p.name} (${p.id})`,
      ...p.consumers.map(c => `Placement: allocation of ${c} on ${p.name}`),
    ]),
    ...r.agents.map(a => `Neutron: ${a.type} on ${a.host} (${a.id})`),
    ...r.ports.map(p => `Neutron: port ${p.id}${p.owner ? ` (${p.owner})` : ''} is bound to it`),
    ...r.bindings.map(b => `Neutron: binding of port ${b.port} to ${b.host}`),
    ...r.ovn.chassis.map(c => `OVN: chassis ${c.name}`),
    ...r.ovn.privates.map(c => `OVN: private record of chassis ${c.name}`),
    ...r.ovn.gateways.map(g => `OVN: gateway on chassis ${g.chassis} (${g.id})`),
    ...r.ovn.groups.map(g => `OVN: member ${g.chassis} of a group of chassis (${g.id})`),
    ...r.ovn.ports.map(p => `OVN: switch port ${p} asks for it`),
    ...r.volumeServices.map(s => `Cinder: service ${s.binary} on ${s.host}`),
    ...r.volumes.map(v => `Cinder: volume ${v.name || v.id} (${v.id}), ${v.status}`),
    ...r.rows.map(row => `database: ${row}`),
  ];
}
