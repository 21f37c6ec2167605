/** Getting a node into the RAM environment and knowing that it is there. Shared by the working states. */

import { shQuote } from '../core/executor/quote.js';
import type { DetachedResult, SshTarget } from '../core/executor/types.js';
import { asProblem, ProblemError, problem } from '../core/problem.js';
import type { StateContext } from './context.js';
import type { Node, RamSession } from './types.js';

/** No new milestone for so long after an ordered boot: order it again. Slow firmware takes minutes to test its memory. */
const PATIENCE_MS = 10 * 60_000;
const MAX_NETBOOTS = 3;
/** How often the BMC is asked whether the node is still on while we wait for it. */
const POWER_POLL_MS = 15_000;
/** A node that was just switched on is not asked about at once. */
const POWER_SETTLE_MS = 10_000;

export const ramTarget = (ram: RamSession): SshTarget => ({ address: ram.address, user: 'root', hostKey: ram.hostKey });

export const osTarget = (os: NonNullable<Node['status']['os']>): SshTarget => ({
  address: os.address,
  ...(os.port === undefined ? {} : { port: os.port }),
  user: os.login,
  hostKey: os.hostKey,
  sudo: os.login !== 'root',
});

/**
 * Does this very life of the RAM environment answer? Another host key at its address means that the node was restarted
 * (each boot makes its own) or that somebody stands in between: nothing was sent, and the session is over until the node
 * calls home again.
 */
export async function ramAlive(
  node: Node,
  context: StateContext,
  ram: RamSession,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const result = await context.executor.run(ramTarget(ram), 'cat /proc/sys/kernel/random/boot_id', {
      timeoutMs: 10_000,
      signal,
    });
    return result.stdout.trim() === ram.bootId;
  } catch (error) {
    if (isMismatch(error)) await endSession(node, context, ram);
    return false;
  }
}

const isMismatch = (error: unknown): boolean =>
  error instanceof ProblemError && error.problem.code === 'host-key-mismatch';

async function endSession(node: Node, context: StateContext, ram: RamSession): Promise<void> {
  await context.nodes.update(node.id, n => (n.status.ram?.bootId === ram.bootId ? { status: { ram: null } } : null));
  await context.events.emit({
    type: 'node.session-lost',
    severity: 'warn',
    nodeId: node.id,
    message: `${node.name}: ${ram.address} shows another host key than the RAM environment that called home; it has to call home again.`,
  });
}

export type RamAnswer = { readonly ram: RamSession } | { readonly waitingFor: string };

/**
 * The live RAM environment of the node, or what is being done to get there. Orders a boot from the network when the
 * node is off, runs something else, or has shown nothing for too long.
 * @throws ProblemError boot-stalled after the last try; bmc-… when the BMC refuses
 */
export async function ensureRam(node: Node, context: StateContext, signal: AbortSignal): Promise<RamAnswer> {
  const { ram } = node.status;
  if (ram && (await ramAlive(node, context, ram, signal))) return { ram };

  const now = context.clock.nowMs();
  const ordered = node.status.netboot;
  const automatic = await context.power.automatic(node.id);
  const seen = Math.max(ordered?.orderedMs ?? 0, node.status.milestone?.atMs ?? 0);

  // It booted by itself (a person pressed the button, or the loss of power ended): let it come.
  const comingUp = now - seen < PATIENCE_MS && seen >= node.stateSinceMs;
  if (comingUp) {
    const { milestone } = node.status;
    const where = milestone && milestone.atMs >= node.stateSinceMs ? ` (last seen: ${milestone.name})` : '';
    const waiting = { waitingFor: `the RAM environment to call home${where}` };
    if (!automatic || now - seen < POWER_SETTLE_MS) return waiting;
    if ((await powerIsOn(node, context, now)) !== false) return waiting;
    context.log.warn({ node: node.name }, 'the node is off although it should be booting');
  }

  const count = (ordered?.count ?? 0) + 1;
  if (count > MAX_NETBOOTS)
    throw new ProblemError(
      problem(
        'boot-stalled',
        `${node.name} was started from the network ${MAX_NETBOOTS} times and never called home; the last thing seen was ${node.status.milestone?.name ?? 'nothing'}.`,
      ),
    );
  if (automatic) {
    await context.nodes.update(node.id, () => ({ status: { netboot: { orderedMs: now, count }, ram: null } }));
    await context.power.netboot(node.id);
    return { waitingFor: `its firmware to boot from the network (try ${count} of ${MAX_NETBOOTS})` };
  }
  if (node.status.os && !ordered) {
    await context.nodes.update(node.id, () => ({ status: { netboot: { orderedMs: now, count } } }));
    try {
      await context.executor.run(
        osTarget(node.status.os),
        'systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot',
        {
          timeoutMs: 20_000,
          signal,
        },
      );
      return { waitingFor: 'its reboot into the RAM environment' };
    } catch (error) {
      context.log.warn(
        { node: node.name, problem: asProblem(error) },
        'the installed system cannot be rebooted by SSH',
      );
    }
  }
  return { waitingFor: 'somebody to start it from the network by hand: it has no BMC' };
}

/** false: the BMC says off. undefined: not asked this time, or no answer. */
async function powerIsOn(node: Node, context: StateContext, now: number): Promise<boolean | undefined> {
  const cached = node.status.power;
  if (cached && now - cached.seenMs < POWER_POLL_MS)
    return cached.state === 'unknown' ? undefined : cached.state === 'on';
  try {
    const state = await context.power.status(node.id);
    await context.nodes.update(node.id, () => ({ status: { power: { state, seenMs: context.clock.nowMs() } } }));
    return state === 'unknown' ? undefined : state === 'on';
  } catch (error) {
    if (error instanceof ProblemError && !error.problem.retry) throw error;
    return undefined;
  }
}

/** For a node that should be running its installed system: switches it on when its BMC says that it is off. */
export async function keepPowered(node: Node, context: StateContext): Promise<'on' | 'started' | 'unknown'> {
  if (!(await context.power.automatic(node.id))) return 'unknown';
  const on = await powerIsOn(node, context, context.clock.nowMs());
  if (on !== false) return on === true ? 'on' : 'unknown';
  await context.power.set(node.id, 'on');
  await context.nodes.update(node.id, () => ({ status: { power: { state: 'on', seenMs: context.clock.nowMs() } } }));
  return 'started';
}

/**
 * Stops what earlier orders left at work in the RAM environment: an aborted or overdue installation still writes. Two
 * jobs at once on one disk would leave neither's result.
 * @param keep the unit that goes on
 */
export async function stopJobs(
  context: Pick<StateContext, 'executor'>,
  ram: RamSession,
  keep: string,
  signal?: AbortSignal,
): Promise<void> {
  const command = `systemctl list-units --plain --no-legend --full 'halligan-*.service' | while read -r unit rest; do
[ "$unit" = ${shQuote(`${keep}.service`)} ] || systemctl stop "$unit" || exit 1
done`;
  const options = { timeoutMs: 60_000, ...(signal ? { signal } : {}) };
  // No failure is an end: it is tried again, within the deadline of the state.
  const { code, stderr } = await context.executor.run(ramTarget(ram), command, options).catch(error => {
    throw new Error(`earlier work on the node cannot be stopped: ${asProblem(error, 'ssh-failed').message}`);
  });
  if (code !== 0) throw new Error(`earlier work on the node cannot be stopped: ${stderr.trim().slice(-300)}`);
}

/** After an abort or a deadline: ends our work on the node, as far as the node can be reached. Never throws. */
export async function endJobs(node: Node, context: Pick<StateContext, 'executor' | 'log'>): Promise<void> {
  if (!node.status.ram) return;
  await stopJobs(context, node.status.ram, '', AbortSignal.timeout(20_000)).catch(error =>
    context.log.warn({ node: node.name, error: String(error) }, 'work on the node may go on'),
  );
}

/**
 * Follows a job in the RAM environment. A lost connection is no end of it: the unit may still be at work on the node, so
 * that becomes an error that is not a problem; the journal leaves the step open and the next try re-attaches. Another
 * host key is an end: that life of the RAM environment, and the unit with it, is gone.
 */
export async function follow(
  node: Node,
  context: StateContext,
  ram: RamSession,
  job: Promise<DetachedResult>,
): Promise<DetachedResult> {
  try {
    return await job;
  } catch (error) {
    if (isMismatch(error)) {
      await endSession(node, context, ram);
      return { kind: 'lost', reason: 'the node shows another host key, so it was restarted' };
    }
    if (error instanceof ProblemError && error.problem.code === 'ssh-failed')
      throw new Error(`the node does not answer while it is at work (${error.message})`, { cause: error });
    throw error;
  }
}
