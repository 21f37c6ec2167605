/**
 * Walks a plan. What can run at once does: services of a node are lanes of their own, and every action begins as soon as
 * what it needs is in place, on whatever node that is. Actions of a lane that are ready together go to the node as one
 * detached program. One action that fails stops what needs it; everything else goes on.
 */
import { type Clock, sleep } from '../../provisioner/core/clock.js';
import type { DetachedJob, DetachedResult, Executor, SshTarget } from '../../provisioner/core/executor/types.js';
import { asProblem, type Problem, problem } from '../../provisioner/core/problem.js';
import type { Action, NodeAction } from './diff.js';
import { type BatchOptions, batchScript, batchTimeoutMs, parseMarker } from './script.js';

/** An action that the server itself carries out, such as one behind an API. */
export interface ServerAction {
  readonly action: Action;
  /** @throws ProblemError */
  readonly perform: (signal: AbortSignal) => Promise<void>;
}

export type Planned = NodeAction | ServerAction;

export type ActionState = 'begin' | 'ok' | 'failed' | 'blocked';

export interface ActionReport {
  readonly action: Action;
  readonly state: ActionState;
  readonly seconds: number | null;
  /** Why it failed, or what it waited for in vain. */
  readonly problem: Problem | null;
}

export interface RunOutcome {
  readonly done: number;
  readonly failed: readonly ActionReport[];
  readonly blocked: readonly ActionReport[];
  readonly seconds: number;
  /** The longest chain: what would have to be faster for the whole to be faster. */
  readonly chain: readonly {
    readonly id: string;
    readonly title: string;
    readonly seconds: number;
    readonly waited: number;
  }[];
}

export interface RunDeps {
  readonly executor: Pick<Executor, 'detached' | 'stop'>;
  readonly clock: Clock;
  readonly target: (node: string) => SshTarget;
  readonly batchOptions: (node: string) => BatchOptions;
  /** Secrets out of text. */
  readonly mask: (text: string) => string;
  readonly report: (report: ActionReport) => void;
  /** Records a batch before and after its effect; the name is unique in the run. */
  readonly journaled: <T>(name: string, input: unknown, effect: () => Promise<T>) => Promise<T>;
  /** Begins the name of units: unique for this walk. */
  readonly unitPrefix: string;
  /** Programs at once on one node. */
  readonly perNode: number;
  readonly signal: AbortSignal;
}

const isServer = (p: Planned): p is ServerAction => 'perform' in p;
/** What runs one after the other. */
function laneOf({ action, placed }: NodeAction): string {
  const { branch } = placed.resource;
  return `${action.node}/${action.service}${branch === undefined ? '' : `/${branch}`}`;
}

const OUTPUT_LINES = 60;
const SERVER_AT_ONCE = 8;
/** Between tries to reach a node that is busy or restarts its network. */
const REACH_PAUSES_MS = [500, 1500, 4000];

interface Item {
  readonly planned: Planned;
  readonly action: Action;
  readonly lane: string;
  /** Expected seconds from its begin to the end of all that waits for it. */
  weight: number;
  state: 'waiting' | 'running' | 'ok' | 'failed' | 'blocked';
  beganMs: number;
  endedMs: number;
}

/** Walks the actions to the end; expected failures are in the outcome. @throws the signal's reason when aborted */
export async function runPlan(plan: readonly Planned[], deps: RunDeps): Promise<RunOutcome> {
  const { clock, signal } = deps;
  const startMs = clock.monotonicMs();
  const items = new Map<string, Item>();
  const lanes = new Map<string, Item[]>();
  for (const planned of plan) {
    const { action } = planned;
    const lane = isServer(planned) ? action.id : laneOf(planned);
    const item: Item = { planned, action, lane, weight: 0, state: 'waiting', beganMs: 0, endedMs: 0 };
    items.set(action.id, item);
    lanes.set(lane, [...(lanes.get(lane) ?? []), item]);
  }
  weigh(items);
  const dependents = new Map<string, Item[]>();
  for (const item of items.values())
    for (const need of item.action.needs) dependents.set(need, [...(dependents.get(need) ?? []), item]);

  const busy = new Set<string>();
  const running = new Map<string, number>();
  const failed: ActionReport[] = [];
  const blocked: ActionReport[] = [];
  const tasks = new Set<Promise<void>>();
  const serial = new Map<string, number>();
  let wake: () => void = () => {};

  const settle = (item: Item, state: 'ok' | 'failed' | 'blocked', why: Problem | null) => {
    if (item.state === 'ok' || item.state === 'failed' || item.state === 'blocked') return;
    const ran = item.state === 'running';
    item.state = state;
    item.endedMs = clock.monotonicMs();
    const report: ActionReport = {
      action: item.action,
      state,
      seconds: ran ? (item.endedMs - item.beganMs) / 1000 : null,
      problem: why,
    };
    if (state === 'failed') failed.push(report);
    if (state === 'blocked') blocked.push(report);
    deps.report(report);
    if (state === 'ok') return;
    for (const next of dependents.get(item.action.id) ?? [])
      settle(
        next,
        'blocked',
        problem(
          'cloud-step-blocked',
          `"${next.action.title}" on ${next.action.node} waits for "${item.action.title}" on ${item.action.node}.`,
        ),
      );
  };
  const begin = (item: Item) => {
    if (item.state !== 'waiting') return;
    item.state = 'running';
    item.beganMs = clock.monotonicMs();
    deps.report({ action: item.action, state: 'begin', seconds: null, problem: null });
  };
  const ready = (item: Item, together: ReadonlySet<string>) =>
    item.action.needs.every(n => together.has(n) || (items.get(n)?.state ?? 'ok') === 'ok');

  /** A program is started once, however often it is asked for; so a node that does not answer at once is asked again. */
  const reach = async (node: string, job: DetachedJob, onLine: (line: string) => void): Promise<DetachedResult> => {
    for (const pauseMs of [...REACH_PAUSES_MS, null])
      try {
        return await deps.executor.detached(deps.target(node), job, onLine, { signal });
      } catch (error) {
        if (signal.aborted || pauseMs === null || asProblem(error).code !== 'ssh-failed') throw error;
        await sleep(pauseMs, signal);
      }
    throw new Error('unreachable');
  };
  const runBatch = async (node: string, batch: readonly Item[]) => {
    const actions = batch.map(b => b.planned as NodeAction);
    const n = (serial.get(batch[0]!.lane) ?? 0) + 1;
    serial.set(batch[0]!.lane, n);
    const name = `${batch[0]!.lane}/${n}`;
    const options = deps.batchOptions(node);
    const job: DetachedJob = {
      unit: `${deps.unitPrefix}-${name.replaceAll(/[^a-z0-9]+/g, '-')}`.slice(0, 200),
      script: batchScript(actions, options),
      timeoutMs: batchTimeoutMs(actions, options),
    };
    let current = -1;
    let output: string[] = [];
    const onLine = (line: string) => {
      const marker = parseMarker(line);
      if (!marker) {
        output.push(line);
        if (output.length > OUTPUT_LINES) output.shift();
        return;
      }
      const item = batch[marker.index];
      if (!item) return;
      current = marker.index;
      if (marker.kind === 'begin') {
        output = [];
        begin(item);
      } else if (marker.kind === 'ok') settle(item, 'ok', null);
      else settle(item, 'failed', stepFailed(item.action, actions[marker.index]!, marker.code, output.map(deps.mask)));
      wake();
    };
    try {
      const result = await deps.journaled(name, { unit: job.unit, actions: batch.map(b => b.action.id) }, () =>
        reach(node, job, onLine),
      );
      const left = batch.find(b => b.state === 'waiting' || b.state === 'running');
      if (left) {
        begin(left);
        const why = result.kind === 'lost' ? result.reason : `the program ended with code ${result.code}`;
        settle(
          left,
          'failed',
          problem('cloud-step-failed', `"${left.action.title}" on ${node} was cut off: ${deps.mask(why)}`, {
            detail: { node, service: left.action.service, step: left.action.id, log: output.map(deps.mask) },
          }),
        );
      }
    } catch (error) {
      if (signal.aborted) return;
      const left = batch.find((b, i) => i >= Math.max(current, 0) && (b.state === 'waiting' || b.state === 'running'));
      if (left) {
        begin(left);
        settle(left, 'failed', asProblem(error, 'cloud-step-failed'));
      }
      // Nothing more is tried on a node that cannot be reached: each try would take its time-out.
      if (asProblem(error).code === 'ssh-failed' || asProblem(error).code === 'host-key-mismatch')
        for (const item of items.values())
          if (item.action.node === node && item.state === 'waiting')
            settle(item, 'blocked', problem('cloud-step-blocked', `${node} could not be reached.`));
    } finally {
      for (const item of batch)
        if (item.state === 'waiting' && !signal.aborted)
          settle(
            item,
            'blocked',
            problem('cloud-step-blocked', `An earlier step of ${item.action.service} on ${node} failed.`),
          );
    }
  };
  const runServer = async (item: Item) => {
    begin(item);
    try {
      await (item.planned as ServerAction).perform(signal);
      settle(item, 'ok', null);
    } catch (error) {
      if (!signal.aborted) settle(item, 'failed', asProblem(error, 'cloud-step-failed'));
    }
  };

  const schedule = () => {
    const candidates: { lane: string; node: string; batch: Item[] }[] = [];
    for (const [lane, list] of lanes) {
      if (busy.has(lane)) continue;
      const together = new Set<string>();
      const batch: Item[] = [];
      for (const item of list) {
        if (item.state !== 'waiting') continue;
        if (!ready(item, together)) break;
        batch.push(item);
        together.add(item.action.id);
      }
      if (batch.length > 0) candidates.push({ lane, node: batch[0]!.action.node, batch });
    }
    candidates.sort((a, b) => b.batch[0]!.weight - a.batch[0]!.weight);
    for (const { lane, node, batch } of candidates) {
      const server = isServer(batch[0]!.planned);
      if ((running.get(node) ?? 0) >= (server ? SERVER_AT_ONCE : deps.perNode)) continue;
      busy.add(lane);
      running.set(node, (running.get(node) ?? 0) + 1);
      const task = (server ? runServer(batch[0]!) : runBatch(node, batch)).finally(() => {
        busy.delete(lane);
        running.set(node, running.get(node)! - 1);
        tasks.delete(task);
        wake();
      });
      tasks.add(task);
    }
  };

  for (;;) {
    const woken = new Promise<void>(resolve => {
      wake = resolve;
    });
    if (!signal.aborted) schedule();
    if (tasks.size === 0) break;
    await Promise.race([woken, ...tasks]);
  }
  if (signal.aborted) throw signal.reason;
  const all = [...items.values()];
  return {
    done: all.filter(i => i.state === 'ok').length,
    failed,
    blocked,
    seconds: (clock.monotonicMs() - startMs) / 1000,
    chain: longestChain(items, startMs),
  };
}

/** Longest way to the end from each action, by what is expected. */
function weigh(items: ReadonlyMap<string, Item>): void {
  const dependents = new Map<string, Item[]>();
  for (const item of items.values())
    for (const need of item.action.needs) dependents.set(need, [...(dependents.get(need) ?? []), item]);
  const walk = (item: Item): number => {
    if (item.weight === 0)
      item.weight =
        0.05 + item.action.expectedSeconds + Math.max(0, ...(dependents.get(item.action.id) ?? []).map(walk));
    return item.weight;
  };
  for (const item of items.values()) walk(item);
}

/** From the action that ended last backwards: each time what ended last among what it had to wait for. */
function longestChain(items: ReadonlyMap<string, Item>, startMs: number): RunOutcome['chain'] {
  const ran = [...items.values()].filter(i => i.beganMs > 0);
  const chain: { id: string; title: string; seconds: number; waited: number }[] = [];
  let at: Item | undefined = ran.reduce<Item | undefined>((a, b) => (a && a.endedMs >= b.endedMs ? a : b), undefined);
  const seen = new Set<Item>();
  while (at && !seen.has(at)) {
    seen.add(at);
    const { action, lane, beganMs, endedMs }: Item = at;
    const previous: Item | undefined = ran
      .filter(i => (action.needs.includes(i.action.id) || i.lane === lane) && i.endedMs <= beganMs + 1 && !seen.has(i))
      .reduce<Item | undefined>((a, b) => (a && a.endedMs >= b.endedMs ? a : b), undefined);
    chain.unshift({
      id: action.id,
      title: action.title,
      seconds: (endedMs - beganMs) / 1000,
      waited: (beganMs - (previous?.endedMs ?? startMs)) / 1000,
    });
    at = previous;
  }
  return chain;
}

const TELLING = /error|critical|fatal|denied|refused|cannot|could not|no space|unable|failed|^E: /i;

/** The failure of an action in words: node, step, unit, the telling line of its output, and what to do. */
function stepFailed(action: Action, planned: NodeAction, code: number, output: readonly string[]): Problem {
  const r = planned.placed.resource;
  const lines = output.map(l => l.trimEnd()).filter(l => l !== '');
  const telling = lines.findLast(l => TELLING.test(l)) ?? lines.at(-1) ?? 'it said nothing';
  const timedOut = code === 124 || code === 137;
  const next =
    r.kind === 'unit'
      ? `Look at \`journalctl -u ${r.unit}\` on ${action.node}, mend the cause, then \`halligan apply\` goes on from here.`
      : r.kind === 'packages'
        ? `Check disk space and package sources of ${action.node}, then \`halligan apply\` goes on from here.`
        : `Mend the cause on ${action.node}, then \`halligan apply\` goes on from here.`;
  return problem(
    'cloud-step-failed',
    `${action.node}: "${action.title}" (${action.service}) ${timedOut ? 'took too long' : `failed with code ${code}`}: ${telling.slice(0, 300)}`,
    {
      hint: next,
      detail: {
        node: action.node,
        service: action.service,
        step: action.id,
        ...(r.kind === 'unit' ? { unit: r.unit } : {}),
        code,
        log: lines.slice(-25),
      },
    },
  );
}
