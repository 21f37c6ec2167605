/** Carries out the steps of a removal. Each looks before it acts, so that it can be done again after a kill of the server. */
import { type Clock, sleep } from '../../provisioner/core/clock.js';
import { fail } from '../../provisioner/core/problem.js';
import { quote } from '../../provisioner/core/render.js';
import type { OpenStackClient } from '../openstack/client.js';
import { at, number, text } from '../openstack/json.js';
import { hostIs, hostIsSql } from './names.js';
import { COMPUTE, PLACEMENT } from './observe.js';
import type { Order, RemovalStep } from './plan.js';
import { leftOver, type Records } from './records.js';
import { confirmMove, deleteServer, type MoveDeps, moveServer } from './servers.js';

export interface PerformDeps {
  readonly node: string;
  readonly api: OpenStackClient;
  readonly clock: Clock;
  readonly pollMs: number;
  /** What is on record now. */
  readonly observe: (signal: AbortSignal) => Promise<Records>;
  /** Shell on the node itself; null: it is not reached. */
  readonly nodeShell: ((script: string, timeoutMs: number, signal: AbortSignal) => Promise<string>) | null;
  readonly controlShell: (
    service: 'database' | 'network-control' | 'volume-control' | 'messaging',
  ) => ((script: string, timeoutMs: number, signal: AbortSignal) => Promise<string>) | null;
  /** Takes the node's roles. */
  readonly dropRoles: () => Promise<void>;
  /** Brings the other nodes to what is wanted of them. */
  readonly applyRest: (signal: AbortSignal) => Promise<void>;
}

const REASON = 'Halligan takes this node out of the cloud';
const sh = (text: string) => quote('sh', text);
/** How long the cloud may take to forget by itself, before it is helped. */
const PATIENCE_MS = 30_000;
const PORTS_MS = 6000;

/** Until it is true, or until time is up. */
async function until(
  d: PerformDeps,
  signal: AbortSignal,
  ms: number,
  done: (r: Records) => boolean | Promise<boolean>,
): Promise<Records> {
  const end = d.clock.monotonicMs() + ms;
  for (;;) {
    const records = await d.observe(signal);
    if ((await done(records)) || d.clock.monotonicMs() >= end) return records;
    await sleep(d.pollMs, signal);
    signal.throwIfAborted();
  }
}

/** What it came to, in words; null: there is nothing to say. @throws ProblemError */
export async function performStep(d: PerformDeps, step: RemovalStep, signal: AbortSignal): Promise<string | null> {
  const order: Order = step.order;
  const move: MoveDeps = {
    api: d.api,
    clock: d.clock,
    pollMs: d.pollMs,
    signal,
    here: hostIs(d.node),
    alive: d.nodeShell !== null,
  };
  switch (order.kind) {
    case 'disable':
      await disable(d, signal);
      // Of an earlier life under this name: they would keep stopped servers from being moved.
      await archiveServices(d, signal);
      return null;
    case 'force-down': {
      const records = await d.observe(signal);
      for (const s of records.computeServices.filter(c => c.binary === 'nova-compute' && !c.forcedDown))
        await compute(d, signal, 'PUT', `/os-services/${s.id}`, { forced_down: true });
      return null;
    }
    case 'move':
      return moveServer(move, order.server, order.how);
    case 'confirm':
      await confirmMove(move, order.server);
      return null;
    case 'delete':
      await deleteServer(move, order.server);
      return null;
    case 'empty':
      return empty(d, signal);
    case 'stop':
      await d.nodeShell?.(stopScript(order.units, order.chassis), step.timeoutSeconds * 1000, signal);
      return null;
    case 'chassis':
      return removeChassis(d, signal);
    case 'nova':
      for (const s of (await d.observe(signal)).computeServices)
        await compute(d, signal, 'DELETE', `/os-services/${s.id}`);
      await archiveServices(d, signal);
      return null;
    case 'placement':
      return removeProviders(d, signal);
    case 'neutron':
      return removeAgents(d, signal);
    case 'cinder':
      await removeVolumeServices(d, signal);
      return null;
    case 'queues':
      await removeQueues(d, signal);
      return null;
    case 'roles':
      await d.dropRoles();
      return null;
    case 'apply':
      await d.applyRest(signal);
      return null;
    case 'check': {
      const left = leftOver(await until(d, signal, PATIENCE_MS, r => leftOver(r).length === 0));
      if (left.length > 0)
        fail('cloud-step-failed', `Of ${d.node} is left: ${left.join('; ')}.`, {
          hint: `Look at each of them; halligan cloud remove ${d.node} tries again.`,
          detail: { node: d.node, left },
        });
      return null;
    }
  }
}

const compute = (d: PerformDeps, signal: AbortSignal, method: string, path: string, body?: unknown) =>
  d.api.request('compute', method, path, body, {
    microversion: COMPUTE,
    accept: method === 'DELETE' ? [404] : [],
    signal,
  });

async function disable(d: PerformDeps, signal: AbortSignal): Promise<void> {
  const records = await d.observe(signal);
  for (const s of records.computeServices.filter(c => c.binary === 'nova-compute' && c.enabled))
    await compute(d, signal, 'PUT', `/os-services/${s.id}`, { status: 'disabled', disabled_reason: REASON });
  for (const { host, binary } of records.volumeServices.filter(s => s.enabled))
    await d.api.request(
      'volume',
      'PUT',
      '/os-services/disable-log-reason',
      { host, binary, disabled_reason: REASON },
      { signal },
    );
}

/** Nova forgets allocations with some delay; what stays is of moves that went wrong, and is taken away. */
async function empty(d: PerformDeps, signal: AbortSignal): Promise<string | null> {
  const records = await until(
    d,
    signal,
    PATIENCE_MS,
    r =>
      r.servers.length === 0 &&
      r.migrations.length === 0 &&
      // What was built anew elsewhere keeps its allocations here until the host is back: never.
      (d.nodeShell === null || r.providers.every(p => p.consumers.length === 0)),
  );
  const { servers, migrations } = records;
  if (servers.length > 0)
    fail(
      'cloud-step-failed',
      `Servers are still on ${d.node}: ${servers.map(s => `${s.name} (${s.id})`).join(', ')}.`,
      {
        hint: 'Somebody put them there meanwhile: remove the node again.',
      },
    );
  if (migrations.length > 0)
    fail(
      'cloud-step-failed',
      `Moves from or to ${d.node} are not over: ${migrations.map(m => `${m.type} of ${m.server} (${m.status})`).join(', ')}.`,
      { hint: 'Wait for their end, then remove the node again.' },
    );
  const freed = await freeAllocations(d, records, signal);
  return freed === 0 ? null : `${freed} allocations that no server used were removed`;
}

/** Takes the node's part out of what its consumers have. */
async function freeAllocations(d: PerformDeps, records: Records, signal: AbortSignal): Promise<number> {
  const ours = new Set(records.providers.map(p => p.id));
  const consumers = new Set(records.providers.flatMap(p => p.consumers));
  const options = { microversion: PLACEMENT, signal };
  for (const consumer of consumers) {
    const { body } = await d.api.request('placement', 'GET', `/allocations/${consumer}`, undefined, options);
    const all = (at(body, 'allocations') ?? {}) as Record<string, unknown>;
    const rest = Object.fromEntries(
      Object.entries(all)
        .filter(([provider]) => !ours.has(provider))
        .map(([provider, a]) => [provider, { resources: at(a, 'resources') }]),
    );
    if (Object.keys(rest).length === Object.keys(all).length) continue;
    await d.api.request(
      'placement',
      'PUT',
      `/allocations/${consumer}`,
      {
        allocations: rest,
        consumer_generation: number(body, 'consumer_generation') ?? null,
        project_id: text(body, 'project_id'),
        user_id: text(body, 'user_id'),
      },
      options,
    );
  }
  return consumers.size;
}

/**
 * Nova marks the rows of deleted services, and joins servers with their host's services without looking at the mark: a
 * compute that comes back under its name counts as down for resizes and cold moves ("Service is unavailable at this
 * time"). The rows go where `nova-manage db archive_deleted_rows` puts them; that has no filter, and would take along all
 * that was ever deleted.
 */
export const archiveQuery = (node: string): string => `SET @columns = (
  SELECT GROUP_CONCAT(CONCAT('\`', column_name, '\`')) FROM information_schema.columns
  WHERE table_schema = 'nova' AND table_name = 'services');
SET @copy = CONCAT('INSERT INTO nova.shadow_services (', @columns, ') SELECT ', @columns,
  ' FROM nova.services WHERE deleted <> 0 AND (${hostIsSql(node, 'host').replaceAll("'", "''")})');
PREPARE copy FROM @copy;
START TRANSACTION;
EXECUTE copy;
DELETE FROM nova.services WHERE deleted <> 0 AND (${hostIsSql(node, 'host')});
COMMIT;
`;

async function archiveServices(d: PerformDeps, signal: AbortSignal): Promise<void> {
  const shell = d.controlShell('database');
  await shell?.(`mysql --no-defaults <<'SQL'\n${archiveQuery(d.node)}SQL\n`, 60_000, signal);
}

/** Nova removes its providers itself; what it could not, it keeps quiet about. */
async function removeProviders(d: PerformDeps, signal: AbortSignal): Promise<string | null> {
  const records = await d.observe(signal);
  if (records.providers.length === 0) return null;
  await freeAllocations(d, records, signal);
  for (const p of records.providers)
    await d.api.request('placement', 'DELETE', `/resource_providers/${p.id}`, undefined, {
      microversion: PLACEMENT,
      accept: [404],
      signal,
    });
  return `resource providers that Nova left were removed: ${records.providers.map(p => p.name).join(', ')}`;
}

/**
 * What a node that is no controller holds of the cloud's secrets, as patterns of the shell: passwords, keys of TLS, of SSH
 * between hypervisors, of Ceph. An apply writes them again. What disks of Ceph need to be read stays with the disks.
 */
export const SECRET_FILES: readonly string[] = [
  '/etc/nova/nova-compute.conf',
  '/var/lib/nova/.ssh/*',
  '/etc/libvirt/secrets/*',
  '/etc/pki/libvirt/private/*',
  '/etc/pki/qemu/*-key.pem',
  '/etc/pki/libvirt-vnc/*-key.pem',
  '/etc/neutron/neutron_ovn_metadata_agent.ini',
  '/etc/openvswitch/ssl/node.key',
  '/etc/cinder/cinder-volume.conf',
  '/etc/ceph/*.keyring',
  '/var/lib/ceph/bootstrap-osd/ceph.keyring',
  '/var/lib/ceph/mgr/*/keyring',
  '/etc/swift/swift.conf',
];

/**
 * Units that open sockets for others are stopped with them. ovn-controller takes its chassis out of OVN when it is told to
 * end; where it does not, the next step does. The address of OVN's database is forgotten, so that a start by accident
 * brings no chassis back. Secrets go when nothing runs any more that could want them.
 */
export function stopScript(units: readonly string[], chassis: boolean): string {
  return `set -u
there=
for u in ${units.map(sh).join(' ')}; do
  [ "$(systemctl show -p LoadState --value -- "$u")" = loaded ] || continue
  there="$there $u $(systemctl show -p TriggeredBy --value -- "$u")"
done
forget() { rm -f -- ${SECRET_FILES.join(' ')}; }
[ -n "$there" ] || { forget; exit 0; }
systemctl stop -- $there
systemctl disable --quiet -- $there 2>/dev/null || :
systemctl reset-failed -- $there 2>/dev/null || :
${
  chassis
    ? `n=0
while ovn-appctl --timeout=3 -t ovn-controller version >/dev/null 2>&1; do
  n=$((n + 1))
  [ $n -ne 10 ] || ovn-appctl --timeout=5 -t ovn-controller exit || :
  [ $n -lt 20 ] || { echo 'ovn-controller does not end'; exit 1; }
  sleep 1
done
ovs-vsctl --timeout=10 remove open_vswitch . external_ids ovn-remote 2>/dev/null || :
`
    : ''
}for u in $there; do
  case $(systemctl show -p ActiveState --value -- "$u") in
    active|activating|reloading|deactivating) echo "$u still runs"; exit 1 ;;
  esac
done
forget
`;
}

async function removeChassis(d: PerformDeps, signal: AbortSignal): Promise<string | null> {
  // Neutron gives gateways to other chassis as soon as it hears that this one is gone.
  const gone = (r: Records) => r.ovn.chassis.length === 0 && r.ovn.privates.length === 0;
  const rested = (r: Records) => gone(r) && r.ovn.gateways.length === 0 && r.ovn.groups.length === 0;
  let records = await until(d, signal, d.nodeShell ? PATIENCE_MS : 0, rested);
  if (rested(records)) return null;
  const shell = d.controlShell('network-control');
  if (!shell) return null;
  const said: string[] = [];
  if (!gone(records)) {
    const names = records.ovn.chassis.map(c => c.name);
    await shell(
      `set -eu
${names.map(n => `ovn-sbctl --timeout=20 --if-exists chassis-del ${sh(n)}\n`).join('')}${records.ovn.privates
  .map(p => `ovn-sbctl --timeout=20 --if-exists destroy chassis_private ${sh(p.id)}\n`)
  .join('')}`,
      60_000,
      signal,
    );
    said.push(`its record was removed from outside: ${names.join(', ') || 'private record only'}`);
    records = await until(d, signal, PATIENCE_MS, rested);
  }
  const { gateways, groups } = records.ovn;
  if (gateways.length > 0 || groups.length > 0) {
    await shell(
      `set -eu
${gateways
  .map(
    g => `for p in $(ovn-nbctl --timeout=20 --bare --columns=_uuid find logical_router_port 'gateway_chassis{>=}${g.id}'); do
  ovn-nbctl --timeout=20 lrp-del-gateway-chassis "$(ovn-nbctl --timeout=20 --bare get logical_router_port "$p" name | tr -d '"')" ${sh(g.chassis)}
done
`,
  )
  .join('')}${groups
  .map(
    g => `for p in $(ovn-nbctl --timeout=20 --bare --columns=_uuid find ha_chassis_group 'ha_chassis{>=}${g.id}'); do
  ovn-nbctl --timeout=20 ha-chassis-group-remove-chassis "$p" ${sh(g.chassis)}
done
`,
  )
  .join('')}`,
      60_000,
      signal,
    );
    said.push('gateways that Neutron left on it were removed');
  }
  return said.join('; ');
}

/** The queue that nova-compute and cinder-volume listened on; RabbitMQ keeps it. One that somebody listens on stays. */
async function removeQueues(d: PerformDeps, signal: AbortSignal): Promise<void> {
  const shell = d.controlShell('messaging');
  const here = hostIs(d.node);
  const output = (await shell?.('rabbitmqctl -q list_queues name consumers', 60_000, signal)) ?? '';
  const queues = output.split('\n').flatMap(line => {
    const [name = '', consumers] = line.trim().split('\t');
    const host = /^(?:compute|cinder-volume|cinder-backup)\.([^.].*)$/.exec(name)?.[1];
    return host !== undefined && consumers === '0' && here(host) ? [name] : [];
  });
  if (queues.length > 0)
    await shell?.(`set -eu\n${queues.map(q => `rabbitmqctl -q delete_queue ${sh(q)}\n`).join('')}`, 60_000, signal);
}

/** Agents of OVN are what Neutron remembers of chassis; others have records of their own. */
async function removeAgents(d: PerformDeps, signal: AbortSignal): Promise<string | null> {
  // What Neutron remembers of chassis it does not forget by itself.
  const { agents } = await d.observe(signal);
  for (const a of agents)
    await d.api.request('network', 'DELETE', `/agents/${encodeURIComponent(a.id)}`, undefined, {
      accept: [404],
      signal,
    });
  // Ports of routers follow to another gateway; those of shelved servers stay until somebody unbinds them.
  const { ports } = await until(d, signal, PORTS_MS, r => r.ports.length === 0 && r.bindings.length === 0);
  for (const p of ports)
    await d.api.request(
      'network',
      'PUT',
      `/ports/${p.id}`,
      { port: { 'binding:host_id': '' } },
      { accept: [404], signal },
    );
  // A move that went wrong leaves its binding beside the one that is in use.
  for (const b of (await d.observe(signal)).bindings)
    await d.api.request('network', 'DELETE', `/ports/${b.port}/bindings/${encodeURIComponent(b.host)}`, undefined, {
      accept: [404],
      signal,
    });
  return ports.length === 0
    ? null
    : `ports that were still bound to it are bound to nothing now: ${ports.map(p => p.id).join(', ')}`;
}

async function removeVolumeServices(d: PerformDeps, signal: AbortSignal): Promise<void> {
  const { volumeServices } = await d.observe(signal);
  const shell = d.controlShell('volume-control');
  if (volumeServices.length === 0) return;
  if (!shell) return fail('cloud-step-failed', 'No node of the cloud has Cinder’s manager.');
  // There is no API for this.
  const commands = volumeServices.map(
    s => `runuser -u cinder -- cinder-manage service remove ${sh(s.binary)} ${sh(s.host)} 2>&1\n`,
  );
  await shell(`set -eu\n${commands.join('')}`, 120_000, signal);
}
