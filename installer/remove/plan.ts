/** From what a cloud has on record of a node to what must be done, or to why it is refused. Pure. */
import type { Release } from '../model/cloud.js';
import type { Records, ServerRecord } from './records.js';

export interface RemovalContext {
  readonly node: string;
  /** Whether it has roles, so that it counts as a part of the cloud. */
  readonly member: boolean;
  /** Services that it has, in the catalogue's order. */
  readonly services: readonly string[];
  /** How many other nodes have a service. */
  readonly others: (service: string) => number;
  /** Null: SSH reaches it; else why not. */
  readonly unreachable: string | null;
  readonly volumeBackend: 'lvm' | 'ceph' | 'none';
  readonly release: Release;
  readonly force: boolean;
  /** An earlier server began it: moves that are under way are its own, and are waited for. */
  readonly resumed: boolean;
}

export interface Refusal {
  readonly message: string;
  readonly hint: string;
  /** Whether `force` overrides it. */
  readonly forcible: boolean;
}

/** What a step does, as a value; `perform` carries it out. */
export type Order =
  | { readonly kind: 'disable' }
  | { readonly kind: 'force-down' }
  | { readonly kind: 'move'; readonly server: string; readonly how: 'live' | 'cold' | 'rebuild' }
  | { readonly kind: 'confirm'; readonly server: string }
  | { readonly kind: 'delete'; readonly server: string }
  | { readonly kind: 'empty' }
  | { readonly kind: 'stop'; readonly units: readonly string[]; readonly chassis: boolean }
  | { readonly kind: 'chassis' }
  | { readonly kind: 'nova' }
  | { readonly kind: 'placement' }
  | { readonly kind: 'neutron' }
  | { readonly kind: 'cinder' }
  | { readonly kind: 'queues' }
  | { readonly kind: 'roles' }
  | { readonly kind: 'apply' }
  | { readonly kind: 'check' };

export interface RemovalStep {
  /** Unique in the removal: `move/6a0f…`. */
  readonly key: string;
  readonly service: string;
  readonly title: string;
  readonly order: Order;
  readonly destroys: string | null;
  readonly interrupts: string | null;
  readonly expectedSeconds: number;
  readonly timeoutSeconds: number;
}

export interface RemovalPlan {
  /** What stands in the way, with `force` taken into account. */
  readonly refusals: readonly Refusal[];
  /** One after the other; the steps of a stage side by side. */
  readonly stages: readonly (readonly RemovalStep[])[];
}

/** Moves at the same time: each takes the hosts' network and disks. */
export const MOVES_AT_ONCE = 2;

/** Units that go on: the node's own network may pass through them, and so may our SSH. */
const STAYS = new Set(['network-agent/switch', 'network-agent/bridges']);
const CONTROL = ['database', 'messaging', 'identity', 'compute-control', 'network-control', 'volume-control'];
/** A server in one of these states is moved as it is. */
const LIVE = new Set(['ACTIVE', 'PAUSED']);
const STOPPED = new Set(['SHUTOFF']);

const plural = (n: number, one: string): string => (n === 1 ? `one ${one}` : `${n} ${one}s`);
const capital = (text: string): string => text[0]!.toUpperCase() + text.slice(1);
const FEW = 5;
const few = (names: readonly string[]): string =>
  names.length <= FEW ? names.join(', ') : `${names.slice(0, FEW).join(', ')} and ${names.length - FEW} more`;
const called = (s: { readonly id: string; readonly name: string }): string => `${s.name || 'unnamed'} (${s.id})`;

/** Services that a node has by what the cloud knows of it, where its roles no longer tell. */
export function servicesOnRecord(r: Records): readonly string[] {
  return [
    ...(r.computeServices.some(s => s.binary === 'nova-compute') || r.hypervisors.length > 0 ? ['hypervisor'] : []),
    ...(r.agents.length > 0 || r.ovn.chassis.length > 0 || r.ovn.privates.length > 0 ? ['network-agent'] : []),
    ...(r.volumeServices.some(s => s.binary === 'cinder-volume') ? ['volume-backend'] : []),
  ];
}

/** Units of the node that are stopped and disabled, as the release names them. */
export function unitsOf(context: Pick<RemovalContext, 'services' | 'release' | 'node'>): readonly string[] {
  const units = context.services
    .filter(s => s !== 'host')
    .flatMap(s =>
      Object.entries(context.release.services[s]?.units ?? {})
        .filter(([key]) => !STAYS.has(`${s}/${key}`))
        .map(([, unit]) => unit.replace('@.', `@${context.node}.`)),
    );
  return [...new Set(units)];
}

/** How a server leaves, or why it cannot. */
function wayOf(s: ServerRecord, r: Records, context: RemovalContext): Extract<Order, { kind: 'move' }>['how'] | string {
  if (r.otherComputes.length === 0) return 'no other compute is up and enabled';
  if (s.ties.length > 0) return `it has ${s.ties.join(', ')}`;
  if (context.unreachable !== null) return 'rebuild';
  if (context.resumed && s.task !== '') return 'live';
  if (LIVE.has(s.status)) return 'live';
  if (STOPPED.has(s.status) || s.status === 'VERIFY_RESIZE') return 'cold';
  return `it is in state ${s.status}, in which Nova moves no server`;
}
const isWay = (way: string): way is 'live' | 'cold' | 'rebuild' => ['live', 'cold', 'rebuild'].includes(way);

function refusalsOf(r: Records, c: RemovalContext): Refusal[] {
  const { node } = c;
  const found: Refusal[] = [];
  const refuse = (forcible: boolean, message: string, hint: string) =>
    found.push({ message: message.startsWith('one ') ? capital(message) : message, hint, forcible });
  const has = (service: string) => c.services.includes(service);

  if (c.services.some(s => CONTROL.includes(s)))
    refuse(
      false,
      `${node} is a controller: without its databases and APIs there is no cloud.`,
      'Take other nodes out of the cloud, not this one.',
    );
  if (c.unreachable !== null)
    refuse(
      true,
      `${node} cannot be reached: ${c.unreachable}. Its servers would be built anew elsewhere, without what is on its disks.`,
      `Switch it on or mend it. If it is lost, make sure that it is switched off, then: halligan cloud remove ${node} --force`,
    );
  if (c.member && has('hypervisor') && c.others('hypervisor') === 0)
    refuse(
      true,
      `${node} is the last compute: the cloud could run no server without it.`,
      'Give the role compute to another node and apply.',
    );
  if (c.member && has('network-gateway') && c.others('network-gateway') === 0)
    refuse(
      true,
      `${node} is the last network gateway: without it no router reaches the world outside.`,
      'Give the role network to another node and apply.',
    );

  if (c.member && has('volume-backend') && c.others('volume-backend') === 0)
    refuse(
      true,
      `${node} is the last volume node: Cinder has nowhere to put volumes without it.`,
      'Give the role volume to another node and apply, or set `cloud.volumes.backend: none` in the site file.',
    );

  const running = c.resumed ? [] : r.migrations.filter(m => m.status !== 'finished');
  if (running.length > 0)
    refuse(
      false,
      `${plural(running.length, 'server')} of ${node} ${running.length === 1 ? 'is' : 'are'} being moved right now (${few(running.map(m => m.server))}).`,
      'Wait until that is over, then remove the node again.',
    );
  const busy = (c.resumed ? [] : r.servers).filter(s => s.task !== '' && !running.some(m => m.server === s.id));
  if (busy.length > 0)
    refuse(
      false,
      `Nova is at work on ${plural(busy.length, 'server')} of ${node}: ${few(busy.map(s => `${called(s)}: ${s.task}`))}.`,
      'Wait until that is over, then remove the node again.',
    );
  const waiting = c.resumed ? [] : r.migrations.filter(m => m.status === 'finished');
  if (waiting.length > 0)
    refuse(
      true,
      `${plural(waiting.length, 'server')} (${few(waiting.map(m => m.server))}) can still be moved back to or from ${node}: a resize or a move waits to be confirmed.`,
      'Confirm or revert it: openstack server resize confirm SERVER.',
    );
  const compute = r.computeServices.find(s => s.binary === 'nova-compute');
  if (c.unreachable === null && r.servers.length > 0 && compute && !compute.up)
    refuse(
      false,
      `nova-compute does not run on ${node}, so its servers cannot be moved.`,
      'Start it (`halligan apply` does) and remove the node again.',
    );
  const stuck = r.servers.flatMap(s => {
    if (busy.includes(s)) return [];
    const way = wayOf(s, r, c);
    return isWay(way) ? [] : [`${called(s)}: ${way}`];
  });
  if (stuck.length > 0)
    refuse(
      true,
      `${plural(stuck.length, 'server')} of ${node} cannot be moved: ${few(stuck)}.`,
      'Move or delete them, or bring up another compute. With --force they are deleted.',
    );

  if (r.volumes.length > 0)
    refuse(
      c.unreachable !== null,
      `${plural(r.volumes.length, 'volume')} ${r.volumes.length === 1 ? 'is' : 'are'} on ${node}: ${few(r.volumes.map(called))}.`,
      'Migrate them to another backend (openstack volume migrate) or delete them, then remove the node again.',
    );
  if (c.member && has('volume-backend') && c.volumeBackend === 'ceph' && c.others('volume-backend') > 0)
    refuse(
      false,
      `${node} holds a part of the Ceph cluster's copies; taking disks out of a cluster that goes on is not built.`,
      'Take its disks out with Ceph’s own commands (ceph osd out, ceph osd purge), or keep the node.',
    );
  if (c.member && has('object-store'))
    refuse(
      true,
      `${node} keeps objects: copies that are on its disks only are lost.`,
      'Make sure that every object has a copy on another node (swift-recon, swift-dispersion-report).',
    );
  return found;
}

export function planRemoval(r: Records, context: RemovalContext): RemovalPlan {
  const { node, force } = context;
  const services = [...new Set([...context.services, ...servicesOnRecord(r)])];
  const c: RemovalContext = { ...context, services };
  const refusals = refusalsOf(r, context).filter(f => !(force && f.forcible));
  const reachable = c.unreachable === null;
  const stages: RemovalStep[][] = [];
  const step = (
    key: string,
    service: string,
    title: string,
    order: Order,
    seconds: readonly [expected: number, most: number],
    more: { destroys?: string; interrupts?: string } = {},
  ): RemovalStep => ({
    key,
    service,
    title,
    order,
    destroys: more.destroys ?? null,
    interrupts: more.interrupts ?? null,
    expectedSeconds: seconds[0],
    timeoutSeconds: seconds[1],
  });

  const computes = r.computeServices.filter(s => s.binary === 'nova-compute');
  // Nova asks a compute that counts as up, and waits a minute for the answer of one that is dead.
  if (!reachable && computes.some(s => !s.forcedDown))
    stages.push([step('force-down', 'hypervisor', `mark ${node} as down`, { kind: 'force-down' }, [1, 60])]);
  if (computes.some(s => s.enabled) || r.volumeServices.some(s => s.enabled))
    stages.push([
      step('disable', 'host', `disable ${node} for new servers and volumes`, { kind: 'disable' }, [1, 150]),
    ]);

  // Whatever else is under way was begun by an earlier server, and is only waited for.
  const confirms = r.migrations.filter(m => m.status === 'finished' || !r.servers.some(s => s.id === m.server));
  if (confirms.length > 0)
    stages.push(
      confirms.map(m =>
        step(
          `confirm/${m.server}`,
          'hypervisor',
          m.status === 'finished'
            ? `confirm the ${m.type} of server ${m.server}`
            : `wait for the end of the ${m.type} of server ${m.server}`,
          { kind: 'confirm', server: m.server },
          [5, 1800],
        ),
      ),
    );
  if (r.servers.length > 0)
    stages.push(
      r.servers.map(s => {
        const way = wayOf(s, r, c);
        if (!isWay(way))
          return step(
            `move/${s.id}`,
            'hypervisor',
            `delete server ${called(s)}: ${way}`,
            { kind: 'delete', server: s.id },
            [5, 300],
            { destroys: `server ${called(s)}` },
          );
        return step(
          `move/${s.id}`,
          'hypervisor',
          way === 'live'
            ? `move server ${called(s)} to another compute while it runs`
            : way === 'cold'
              ? `move server ${called(s)} to another compute; it is stopped`
              : `build server ${called(s)} anew on another compute`,
          { kind: 'move', server: s.id, how: way },
          [30, 3600],
          way === 'rebuild'
            ? { destroys: `what server ${called(s)} has on the disks of ${node}` }
            : way === 'live'
              ? { interrupts: `server ${s.name} stands still for a moment` }
              : {},
        );
      }),
    );
  const knowsNova = r.computeServices.length > 0 || r.providers.length > 0 || r.servers.length > 0;
  if (knowsNova)
    stages.push([
      step('empty', 'hypervisor', `wait until nothing is allocated on ${node}`, { kind: 'empty' }, [3, 180]),
    ]);

  const units = unitsOf(c);
  const chassis = services.includes('network-agent');
  if (reachable && units.length > 0)
    stages.push([
      step(
        'stop',
        'host',
        `stop and disable ${units.join(', ')}; delete the cloud’s passwords and keys there`,
        { kind: 'stop', units, chassis },
        [10, 300],
        services.includes('network-gateway')
          ? { interrupts: 'floating IPs that pass through it stand still for some seconds' }
          : {},
      ),
    ]);
  if (chassis || Object.values(r.ovn).some(rows => rows.length > 0))
    stages.push([
      step('chassis', 'network-agent', `remove the chassis ${node} from OVN`, { kind: 'chassis' }, [3, 180]),
    ]);
  if (r.computeServices.length > 0 || r.rows.some(row => row.startsWith('nova.')))
    stages.push([
      step(
        'nova',
        'hypervisor',
        `remove ${node} from Nova: service, hypervisor, host mapping, aggregates`,
        { kind: 'nova' },
        [2, 120],
      ),
    ]);
  if (knowsNova)
    stages.push([
      step('placement', 'hypervisor', `remove what Placement still has of ${node}`, { kind: 'placement' }, [1, 120]),
    ]);
  if (chassis)
    stages.push([
      step('neutron', 'network-agent', `remove the agents of ${node} from Neutron`, { kind: 'neutron' }, [3, 180]),
    ]);
  if (r.volumeServices.length > 0)
    stages.push([
      step(
        'cinder',
        'volume-backend',
        `remove the services of ${node} from Cinder`,
        { kind: 'cinder' },
        [6, 180],
        r.volumes.length > 0 ? { destroys: `the volumes ${few(r.volumes.map(called))}` } : {},
      ),
    ]);
  if (services.some(s => s === 'hypervisor' || s === 'volume-backend'))
    stages.push([step('queues', 'messaging', `remove the message queues of ${node}`, { kind: 'queues' }, [4, 120])]);
  if (c.member) stages.push([step('roles', 'host', `take all roles of ${node}`, { kind: 'roles' }, [1, 30])]);
  stages.push([
    step('apply', 'host', 'bring the other nodes to what they are without it', { kind: 'apply' }, [20, 3600]),
  ]);
  stages.push([step('check', 'host', `check that nothing of ${node} is left`, { kind: 'check' }, [3, 180])]);
  return { refusals, stages };
}
