/** Nodes on their way to an installed system, for the plan of the cloud: what it takes, and the orders that lead there. */
import { sleep } from '../core/clock.js';
import type { ExpectedHardware, MachinePlan, Machines } from '../core/machines.js';
import { parseCidr } from '../core/net/ipv4.js';
import { asProblem, fail, type Problem, ProblemError } from '../core/problem.js';
import { DEFAULT_INTERFACE } from '../install/network.js';
import type { Site } from '../site/schema.js';
import { networkOf } from './addresses.js';
import { bootMac } from './boot-nic.js';
import type { JobMaker } from './context.js';
import { addressOf } from './directory.js';
import { isFailure, type NodeAction, type NodeState, stateLabel } from './lifecycle.js';
import { expectedSeconds } from './plan.js';
import type { NodeRepository } from './repository.js';
import type { NodeService } from './service.js';
import type { Node } from './types.js';

export interface MachinesDeps {
  readonly site: Site;
  readonly nodes: NodeRepository;
  readonly service: Pick<NodeService, 'act'>;
  readonly jobs: Pick<JobMaker, 'install'>;
}

/** It has a system that was handed over. */
const INSTALLED: readonly NodeState[] = ['installed', 'applying', 'applying-failed', 'ready'];
/** What is ordered next on the way to an installed system; null: it is on its way, or it is there. */
const NEXT: Readonly<Partial<Record<NodeState, NodeAction>>> = {
  discovered: 'inspect',
  'inspecting-failed': 'inspect',
  available: 'claim',
  claimed: 'install',
  'installing-failed': 'install',
};
const ON_THE_WAY: readonly NodeState[] = ['inspecting', 'installing', 'releasing'];
/** Changes are told; this is for what they miss. */
const POLL_MS = 2000;
const MIB = 1024 * 1024;

/** What is left to do, in order. */
function ordersFrom(state: NodeState): readonly NodeAction[] {
  switch (state) {
    case 'discovered':
    case 'inspecting':
    case 'inspecting-failed':
      return ['inspect', 'claim', 'install'];
    case 'available':
    case 'releasing':
      return ['claim', 'install'];
    default:
      return ['install'];
  }
}

/** The hardware as the installed system will show it. Null while nothing is known. Pure. */
export function expectedHardware(node: Node, site: Site): ExpectedHardware | null {
  const { inventory } = node.status;
  if (!inventory) return null;
  const reserved = addressOf(node);
  const network = reserved === null ? undefined : networkOf(site.networks, reserved);
  const own = reserved && network ? [`${reserved}/${parseCidr(network.cidr).prefix}`] : [];
  const gateway = network?.gateway ?? null;
  const boot = bootMac(node);
  const configured = node.spec.install.interfaces ?? [];
  const named = new Set(configured.flatMap(c => [c.mac, ...(c.bond?.macs ?? [])].map(m => m?.toLowerCase())));
  return {
    architecture: inventory.cpu.arch,
    cpus: inventory.cpu.threads,
    memoryMiB: Math.floor(inventory.memory.totalBytes / MIB),
    kvm: inventory.cpu.flags.some(f => f === 'vmx' || f === 'svm'),
    kernel: inventory.kernel,
    interfaces: [
      ...configured.map(c => {
        const mac = (c.mac ?? c.bond?.macs[0] ?? '').toLowerCase();
        const addresses = c.addresses.length > 0 ? c.addresses : c.dhcp && mac === boot ? own : [];
        return { name: c.name, mac, mtu: c.mtu ?? 1500, addresses, gateway: c.gateway ?? (c.dhcp ? gateway : null) };
      }),
      ...inventory.nics
        .filter(nic => !named.has(nic.mac.toLowerCase()))
        .map(nic => {
          const first = configured.length === 0 && nic.mac.toLowerCase() === boot;
          return {
            name: first ? DEFAULT_INTERFACE : nic.name,
            mac: nic.mac,
            mtu: nic.mtu,
            addresses: first ? own : [],
            gateway: first ? gateway : null,
          };
        }),
    ],
    disks: inventory.disks
      .filter(d => !d.removable)
      .map(d => ({ path: d.path, bytes: d.sizeBytes, signature: d.signatures[0]?.type ?? null })),
  };
}

export function createMachines(deps: MachinesDeps): Machines {
  const { nodes, service, jobs, site } = deps;
  const named = (name: string): Node =>
    nodes.all().find(n => n.name === name) ?? fail('node-unknown', `There is no node ${name} any more.`);

  /** What an installation would write, or why it cannot; with the operator's word for data that is in the way. */
  const installation = async (
    node: Node,
  ): Promise<{ summary: string; destroys: string | null; problem: Problem | null }> => {
    if (!node.status.inventory) return { summary: 'install it', destroys: null, problem: null };
    const attempt = async (wipe: boolean) => (await jobs.install(node, { wipe }, 'dry-run', 'http://dry.run')).summary;
    try {
      return { summary: await attempt(false), destroys: null, problem: null };
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      if (error.problem.code !== 'disk-foreign')
        return { summary: 'install it', destroys: null, problem: error.problem };
      return { summary: await attempt(true), destroys: foreignData(node), problem: null };
    }
  };

  return {
    async plan(name): Promise<MachinePlan | null> {
      const node = named(name);
      if (INSTALLED.includes(node.state) && node.status.os) return null;
      const { summary, destroys, problem } = await installation(node);
      const orders = ordersFrom(node.state);
      const standing =
        node.maintenance !== null
          ? {
              message: `${name} is in maintenance (${node.maintenance}).`,
              hint: `End it: halligan node update ${name} --no-maintenance`,
            }
          : NEXT[node.state] === undefined && !ON_THE_WAY.includes(node.state)
            ? {
                message: `${name} is ${stateLabel(node.state).toLowerCase()}; nothing is installed on it then.`,
                hint: `See halligan node why ${name}.`,
              }
            : null;
      return {
        title: summary.replace(/^writes (.*) to (.*?), layout/, 'install $1 on $2, layout'),
        reason: `it is ${stateLabel(node.state).toLowerCase()} and has no system`,
        refusal: standing ?? (problem ? { message: problem.message, hint: problem.hint } : null),
        destroys,
        interrupts: null,
        expectedSeconds: orders.reduce((sum, o) => sum + (expectedSeconds(o) ?? 0), 0),
        address: addressOf(node),
        hardware: expectedHardware(node, site),
      };
    },

    async prepare(name, { wipe, begun }, signal) {
      // What was ordered here; before that, a failed node has the failure of another day.
      let ordered = begun;
      for (;;) {
        signal.throwIfAborted();
        const node = named(name);
        if (INSTALLED.includes(node.state) && node.status.os) return;
        if (isFailure(node.state) && ordered)
          throw new ProblemError(
            node.failure ?? asProblem(new Error(`${name} is ${stateLabel(node.state).toLowerCase()}.`), 'conflict'),
          );
        if (node.maintenance !== null)
          fail(
            'not-allowed-now',
            `${name} was put into maintenance (${node.maintenance}); nothing more is done on it.`,
          );
        const order = NEXT[node.state];
        if (order === undefined && !ON_THE_WAY.includes(node.state))
          fail(
            'not-allowed-now',
            `${name} is ${stateLabel(node.state).toLowerCase()}; it was taken out of the plan's hands.`,
          );
        if (order !== undefined) {
          // A plan goes by the name and the layout that it has shown: no profile comes in between.
          await service.act(
            name,
            order,
            order === 'install' && wipe ? { wipe } : order === 'claim' ? { profile: false } : {},
          );
          ordered = true;
        } else {
          // On its way by somebody's order: its end is ours, too.
          ordered = true;
          await changed(nodes, node, signal);
        }
      }
    },
  };
}

/** Resolves when the node is no longer as it was, or after a while. */
async function changed(nodes: NodeRepository, node: Node, signal: AbortSignal): Promise<void> {
  const told = new AbortController();
  const unsubscribe = nodes.onChange(now => {
    if (now.id === node.id && now.state !== node.state) told.abort();
  });
  try {
    await sleep(POLL_MS, AbortSignal.any([told.signal, signal]));
  } finally {
    unsubscribe();
  }
}

/** What an installation with the operator's word would overwrite. */
function foreignData(node: Node): string {
  const disks = (node.status.inventory?.disks ?? []).filter(d => !d.removable && !d.ownedBy && d.signatures.length > 0);
  const said = disks.map(
    d => `${d.path} (${[...new Set(d.signatures.map(s => s.label ?? s.type))].slice(0, 4).join(', ')})`,
  );
  return `data that is not ours on ${said.length > 0 ? said.join(' and ') : 'its disks'}`;
}
