/** Reads everything that a cloud has on record of one node: the APIs, OVN's databases, and what has no API. */
import { fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import { at, type Json, maybeText, text, texts } from '../openstack/json.js';
import { hostIs, hostIsSql } from './names.js';
import { NO_OVN, type OvnRecords, type PortRecord, type Records, type ServerRecord } from './records.js';

/** uuids for services, flavors inside servers, moves without a target. */
export const COMPUTE = '2.87';
/** Allocations with their consumer's generation. */
export const PLACEMENT = '1.28';

export interface Looker {
  readonly api: OpenStackClient;
  /** Shell on the node that has a service of the control plane; null when no node has it. */
  readonly controlShell: (
    service: 'database' | 'network-control' | 'volume-control',
  ) => ((script: string, timeoutMs: number) => Promise<string>) | null;
  /** Which of the databases with records of nodes are in this cloud. */
  readonly databases: ReadonlySet<string>;
  readonly signal: AbortSignal;
}

const LOOK_MS = 60_000;
/** A move in one of these states is over. */
const OVER = new Set(['confirmed', 'reverted', 'error', 'failed', 'completed', 'cancelled', 'done']);

/** What ties a server to its host. */
function tiesOf(server: Json, directPorts: ReadonlySet<string>): string[] {
  const specs = at(server, 'flavor', 'extra_specs');
  const keys = typeof specs === 'object' && specs !== null ? Object.keys(specs) : [];
  return [
    ...keys
      .filter(k => /^(pci_passthrough:|accel:|resources\d*:(V?GPU|PGPU|CUSTOM_|PCI))/i.test(k))
      .map(k => `a device of the host (${k})`),
    ...(directPorts.has(text(server, 'id')) ? ['a port on a network card of the host'] : []),
  ];
}

export async function observeRecords(node: string, looker: Looker): Promise<Records> {
  const { api, signal } = looker;
  const here = hostIs(node);
  const compute = { microversion: COMPUTE, signal };
  const volumes = await api.has('volume');
  const [services, hypervisors, aggregates, agents, providers, volumeServices, allVolumes, ovn, rows] =
    await Promise.all([
      api.list('compute', '/os-services', 'services', compute),
      api.list('compute', '/os-hypervisors', 'hypervisors', compute),
      api.list('compute', '/os-aggregates', 'aggregates', compute),
      api.list('network', '/agents', 'agents', { signal }),
      api.list('placement', '/resource_providers', 'resource_providers', { microversion: PLACEMENT, signal }),
      volumes ? api.list('volume', '/os-services', 'services', { signal }) : [],
      volumes ? api.list('volume', '/volumes/detail?all_tenants=1', 'volumes', { signal }) : [],
      observeOvn(node, looker),
      observeRows(node, looker),
    ]);
  const computes = services.filter(s => text(s, 'binary') === 'nova-compute');
  const mine = services.filter(s => here(text(s, 'host')));
  const hosts = new Set([node, ...mine.map(s => text(s, 'host')), ...agents.map(a => text(a, 'host')).filter(here)]);
  const perHost = await Promise.all(
    [...hosts].map(async host => {
      const q = encodeURIComponent(host);
      const [servers, migrations, ports] = await Promise.all([
        api.list('compute', `/servers/detail?all_tenants=1&host=${q}`, 'servers', compute),
        api.list('compute', `/os-migrations?host=${q}`, 'migrations', compute),
        api.list('network', `/ports?binding:host_id=${q}`, 'ports', { signal }),
      ]);
      return { servers, migrations, ports };
    }),
  );
  // A cloud that does not know the filter answers with everything.
  const ports = once(perHost.flatMap(p => p.ports)).filter(p => here(text(p, 'binding:host_id')));
  const direct = new Set(
    ports.filter(p => !['', 'normal'].includes(text(p, 'binding:vnic_type'))).map(p => text(p, 'device_id')),
  );
  const servers = once(perHost.flatMap(p => p.servers))
    .filter(s => here(text(s, 'OS-EXT-SRV-ATTR:host')))
    .map(s => serverRecord(s, direct));
  const migrations = once(perHost.flatMap(p => p.migrations)).filter(
    m => !OVER.has(text(m, 'status')) && (here(text(m, 'source_compute')) || here(text(m, 'dest_compute'))),
  );
  const nodeProviders = await Promise.all(
    treeOf(providers, here).map(async p => {
      const id = text(p, 'uuid');
      const { body, status } = await api.request(
        'placement',
        'GET',
        `/resource_providers/${id}/allocations`,
        undefined,
        {
          microversion: PLACEMENT,
          accept: [404],
          signal,
        },
      );
      const found = status === 404 ? {} : (at(body, 'allocations') ?? {});
      return {
        id,
        name: text(p, 'name'),
        parent: maybeText(p, 'parent_provider_uuid') ?? null,
        consumers: Object.keys(found as object),
      };
    }),
  );
  return {
    computeServices: mine.map(s => ({
      id: text(s, 'id'),
      binary: text(s, 'binary'),
      host: text(s, 'host'),
      up: text(s, 'state') === 'up',
      enabled: text(s, 'status') === 'enabled',
      forcedDown: s['forced_down'] === true,
    })),
    hypervisors: hypervisors
      .map(h => ({ id: text(h, 'id'), name: text(h, 'hypervisor_hostname') }))
      .filter(h => here(h.name)),
    otherComputes: computes
      .filter(s => !here(text(s, 'host')) && text(s, 'state') === 'up' && text(s, 'status') === 'enabled')
      .map(s => text(s, 'host')),
    servers,
    migrations: migrations.map(m => ({
      id: String(m['id'] ?? ''),
      server: text(m, 'instance_uuid'),
      status: text(m, 'status'),
      type: text(m, 'migration_type') || 'migration',
    })),
    aggregates: aggregates.filter(a => texts(a, 'hosts').some(here)).map(a => text(a, 'name')),
    providers: nodeProviders,
    agents: agents
      .filter(a => here(text(a, 'host')) || here(text(a, 'configurations', 'chassis_name')))
      .map(a => ({ id: text(a, 'id'), type: text(a, 'agent_type'), host: text(a, 'host') })),
    ports: ports.map(
      (p): PortRecord => ({ id: text(p, 'id'), device: text(p, 'device_id'), owner: text(p, 'device_owner') }),
    ),
    ovn,
    volumeServices: volumeServices
      .filter(s => here(text(s, 'host')))
      .map(s => ({ binary: text(s, 'binary'), host: text(s, 'host'), enabled: text(s, 'status') === 'enabled' })),
    volumes: allVolumes
      .filter(v => here(text(v, 'os-vol-host-attr:host')))
      .map(v => ({ id: text(v, 'id'), name: text(v, 'name'), status: text(v, 'status') })),
    bindings: rows
      .filter(([table]) => table === BINDINGS.join('.'))
      .map(([, row]) => {
        const [port = '', host = ''] = row.split(' ');
        return { port, host };
      }),
    rows: rows.filter(([table]) => table !== BINDINGS.join('.')).map(([table, row]) => `${table}: ${row}`),
  };
}

const once = (rows: readonly Json[]): Json[] => [
  ...new Map(rows.map(r => [String(r['uuid'] ?? r['id'] ?? ''), r])).values(),
];

export const serverRecord = (s: Json, direct: ReadonlySet<string>): ServerRecord => ({
  id: text(s, 'id'),
  name: text(s, 'name'),
  host: text(s, 'OS-EXT-SRV-ATTR:host'),
  status: text(s, 'status'),
  task: text(s, 'OS-EXT-STS:task_state'),
  ties: tiesOf(s, direct),
});

/** The node's own providers and all below them, children before their parents. */
function treeOf(providers: readonly Json[], here: (host: string) => boolean): Json[] {
  const roots = new Set(providers.filter(p => here(text(p, 'name'))).map(p => text(p, 'uuid')));
  const depth = (p: Json): number => {
    const parent = providers.find(o => text(o, 'uuid') === maybeText(p, 'parent_provider_uuid'));
    return parent ? 1 + depth(parent) : 0;
  };
  return providers
    .filter(p => roots.has(text(p, 'uuid')) || roots.has(text(p, 'root_provider_uuid')))
    .sort((a, b) => depth(b) - depth(a));
}

/** Rows of `--format=json`: objects by the headings; a UUID is its text. */
function rowsOf(output: string): Record<string, string>[] {
  const { headings, data } = JSON.parse(output) as { headings: string[]; data: unknown[][] };
  return data.map(row =>
    Object.fromEntries(
      headings.map((h, i) => {
        const value = row[i];
        return [h, typeof value === 'string' ? value : Array.isArray(value) ? String(value[1]) : String(value)];
      }),
    ),
  );
}

const OVN_TABLES = [
  ['chassis', 'ovn-sbctl', '_uuid,name,hostname', 'list chassis'],
  ['privates', 'ovn-sbctl', '_uuid,name', 'list chassis_private'],
  ['gateways', 'ovn-nbctl', '_uuid,chassis_name', 'list gateway_chassis'],
  ['groups', 'ovn-nbctl', '_uuid,chassis_name', 'list ha_chassis'],
] as const;

async function observeOvn(node: string, looker: Looker): Promise<OvnRecords> {
  const shell = looker.controlShell('network-control');
  if (!shell) return NO_OVN;
  const here = hostIs(node);
  const script = `set -eu
${OVN_TABLES.map(([name, ctl, columns, what]) => `echo '@@${name}'; ${ctl} --timeout=20 --format=json --columns=${columns} ${what}`).join('\n')}
echo '@@ports'; ovn-nbctl --timeout=20 --format=json --columns=name,options find logical_switch_port 'options:requested-chassis!=""'
`;
  const output = await shell(script, LOOK_MS);
  const parts = new Map<string, string>();
  for (const part of output.split(/^@@/m).slice(1)) {
    const end = part.indexOf('\n');
    parts.set(part.slice(0, end), part.slice(end + 1));
  }
  const read = (name: string) => {
    const part = parts.get(name);
    return part === undefined
      ? fail('cloud-step-failed', `OVN's databases did not say what they have (${name}).`)
      : rowsOf(part);
  };
  const chassis = read('chassis').filter(c => here(c['name']!) || here(c['hostname']!));
  // A chassis may be named by an id: its other records have only that.
  const ids = new Set(chassis.map(c => c['name']!));
  const ours = (name: string | undefined) => name !== undefined && (ids.has(name) || here(name));
  const named = (c: Record<string, string>) => ({ id: c['_uuid']!, chassis: c['chassis_name']! });
  return {
    chassis: chassis.map(c => ({ id: c['_uuid']!, name: c['name']! })),
    privates: read('privates')
      .filter(c => ours(c['name']))
      .map(c => ({ id: c['_uuid']!, name: c['name']! })),
    gateways: read('gateways')
      .filter(g => ours(g['chassis_name']))
      .map(named),
    groups: read('groups')
      .filter(g => ours(g['chassis_name']))
      .map(named),
    ports: parsePorts(parts.get('ports') ?? '', ours),
  };
}

/** `options` is a map: ["map", [["requested-chassis", "cmp"], …]]. */
function parsePorts(output: string, ours: (name: string) => boolean): string[] {
  if (output.trim() === '') return [];
  const { data } = JSON.parse(output) as { data: [string, [string, [string, string][]]][] };
  return data
    .filter(([, [, options]]) =>
      options.some(([key, value]) => key === 'requested-chassis' && value.split(',').some(ours)),
    )
    .map(([name]) => name);
}

const BINDINGS = ['neutron', 'ml2_port_bindings'] as const;
/** Tables that have a node's name, with its columns, what leaves deleted rows out, and what is told of a row. */
const TABLES: readonly (readonly [
  database: string,
  table: string,
  columns: readonly string[],
  alive: string,
  told?: string,
])[] = [
  ['nova_api', 'host_mappings', ['host'], ''],
  ['nova_api', 'aggregate_hosts', ['host'], ''],
  // Deleted ones, too: see `archiveServices`.
  ['nova', 'services', ['host'], ''],
  ['nova', 'compute_nodes', ['host', 'hypervisor_hostname'], 'deleted = 0'],
  ['neutron', 'agents', ['host'], ''],
  // Of several bindings of a port, the API shows the one that is in use.
  [...BINDINGS, ['host'], '', "CONCAT(port_id, ' ', host)"],
  ['neutron', 'ml2_distributed_port_bindings', ['host'], ''],
  ['cinder', 'services', ['host'], 'deleted = 0'],
];

export function rowsQuery(node: string, databases: ReadonlySet<string>): string {
  return TABLES.filter(([database]) => databases.has(database))
    .map(
      ([database, table, columns, alive, told = columns[0]!]) =>
        `SELECT '${database}.${table}', ${told} FROM ${database}.${table} WHERE (${columns.map(c => hostIsSql(node, c)).join(' OR ')})${alive ? ` AND ${alive}` : ''};`,
    )
    .join('\n');
}

/** Read as root over MariaDB's socket: there is no API for host mappings. */
async function observeRows(node: string, looker: Looker): Promise<readonly (readonly [table: string, row: string])[]> {
  const shell = looker.controlShell('database');
  const query = rowsQuery(node, looker.databases);
  if (!shell || query === '') return [];
  const output = await shell(`mysql --no-defaults -N -B <<'SQL'\n${query}\nSQL\n`, LOOK_MS);
  return output
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const [table = '', row = ''] = line.split('\t');
      return [table, row] as const;
    });
}
