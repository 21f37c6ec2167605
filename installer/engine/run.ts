/**
 * Walks a plan. What can run at once does: services of a node are lanes of their own, and every action begins as soon as
 * what it needs is in place, on whatever node that is. Actions of a lane that are ready together go to the node as one
 * detached program. One action that fails stops what needs it; everything else goes on.
 */
import type { Clock } from '../../provisioner/core/clock.js';
import type { DetachedJob, Executor, SshTarget } from '../../provisioner/core/executor/types.js';
import { asProblem, type Problem, problem } from '../../provisioner/core/problem.js';
import type { Action, NodeAction } from './diff.js';
import { type BatchOptions, batchScript, batchTimeoutMs, limitSeconds, parseMarker } from './script.js';

/** An action that the server itself carries out, such as one behind an API. */
export interface ServerAction {
  readonly action: Action;
  /** @throws ProblemError */
  readonly perform: (signal: AbortSignal) => Promise<void>;
  /** After it the world is another one: what waits is planned anew before anything that needs it begins. */
  readonly renews?: boolean;
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
  /** The plan of what is left now, for actions that renew. */
  readonly replan: () => Promise<readonly Planned[]>;
  /** Why a node is left as it is, if it is; what needs something of it is held, too. */
  readonly held: (node: string) => Problem | undefined;
  readonly signal: AbortSignal;
}

const isServer = (p: Planned): p is ServerAction => 'perform' in p;
const nodeOf = (id: string) => id.split('/', 1)[0]!;
/** What runs one after the other. */
function laneOf({ action, placed }: NodeAction): string {
  const { branch } = placed.resource;
  return `${action.node}/${action.service}${branch === undefined ? '' : `/${branch}`}`;
}

const OUTPUT_LINES = 120;
/** Of them in a failure's detail. */
const DETAIL_LINES = 25;
const SERVER_AT_ONCE = 8;

interface Item {
  readonly planned: Planned;
  readonly action: Action;
  readonly lane: string;
  /** Expected seconds from its begin to the end of all that waits for it. */
  weight: number;
  state: 'waiting' | 'running' | 'ok' | 'failed' | 'blocked';
  /** Part of a program that runs on the node. */
  taken: boolean;
  beganMs: number;
  endedMs: number;
}

/** Walks the actions to the end; expected failures are in the outcome. @throws the signal's reason when aborted */
export async function runPlan(plan: readonly Planned[], deps: RunDeps): Promise<RunOutcome> {
  const { clock, signal } = deps;
  const startMs = clock.monotonicMs();
  const items = new Map<string, Item>();
  /** Done, and planned once more since. */
  const earlier: Item[] = [];
  let lanes = new Map<string, Item[]>();
  let dependents = new Map<string, Item[]>();
  const add = (planned: Planned) => {
    const { action } = planned;
    const lane = isServer(planned) ? action.id : laneOf(planned);
    items.set(action.id, { planned, action, lane, weight: 0, state: 'waiting', beganMs: 0, endedMs: 0, taken: false });
  };
  const link = () => {
    lanes = new Map();
    for (const item of items.values()) lanes.set(item.lane, [...(lanes.get(item.lane) ?? []), item]);
    weigh(items);
    dependents = new Map();
    for (const item of items.values())
      for (const need of item.action.needs) dependents.set(need, [...(dependents.get(need) ?? []), item]);
  };
  for (const planned of plan) add(planned);
  link();

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
    for (const next of dependents.get(item.action.id) ?? []) settle(next, 'blocked', waitsFor(next, item));
  };
  const begin = (item: Item) => {
    if (item.state !== 'waiting') return;
    item.state = 'running';
    item.beganMs = clock.monotonicMs();
    deps.report({ action: item.action, state: 'begin', seconds: null, problem: null });
  };
  const ready = (item: Item, together: ReadonlySet<string>) =>
    item.action.needs.every(n => together.has(n) || (items.get(n)?.state ?? 'ok') === 'ok');

  /** What the node's longest way still takes. */
  const heaviest = (node: string): number =>
    Math.max(
      0,
      ...[...items.values()]
        .filter(i => i.action.node === node && (i.state === 'waiting' || i.state === 'running'))
        .map(i => i.weight),
    );
  const runBatch = async (node: string, batch: readonly Item[]) => {
    const actions = batch.map(b => b.planned as NodeAction);
    for (const b of batch) b.taken = true;
    const n = (serial.get(batch[0]!.lane) ?? 0) + 1;
    serial.set(batch[0]!.lane, n);
    const name = `${batch[0]!.lane}/${n}`;
    const options = deps.batchOptions(node);
    const job: DetachedJob = {
      unit: `${deps.unitPrefix}-${name.replaceAll(/[^a-z0-9]+/g, '-')}`.slice(0, 200),
      script: batchScript(actions, options, niceness(batch[0]!.weight, heaviest(node))),
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
      else {
        const took = (clock.monotonicMs() - item.beganMs) / 1000;
        settle(
          item,
          'failed',
          stepFailed(
            actions[marker.index]!,
            marker.code,
            took >= limitSeconds(actions[marker.index]!, options.timeoutFactor),
            output.map(deps.mask),
          ),
        );
      }
      wake();
    };
    try {
      const result = await deps.journaled(name, { unit: job.unit, actions: batch.map(b => b.action.id) }, () =>
        deps.executor.detached(deps.target(node), job, onLine, { signal }),
      );
      const left = batch.find(b => b.state === 'waiting' || b.state === 'running');
      if (left && !batch.some(b => b.state === 'failed')) {
        begin(left);
        const why =
          result.kind === 'lost'
            ? { reason: result.reason, hint: `\`halligan apply\` goes on from here when ${node} is up again.` }
            : {
                reason: `its program was killed there (code ${result.code})`,
                hint: `Look who did that (\`journalctl -k\` on ${node} shows whether memory ran out), then \`halligan apply\` goes on from here.`,
              };
        settle(left, 'failed', cutOff(left.planned as NodeAction, why, output.map(deps.mask)));
      }
    } catch (error) {
      if (signal.aborted) return;
      const left = batch.find((b, i) => i >= Math.max(current, 0) && (b.state === 'waiting' || b.state === 'running'));
      if (left) {
        begin(left);
        const p = asProblem(error, 'cloud-step-failed');
        const hint =
          p.code === 'ssh-failed'
            ? `Bring ${node} back (power, network, sshd), then \`halligan apply\` goes on from here; until then it leaves ${node} out.`
            : p.hint;
        settle(
          left,
          'failed',
          cutOff(left.planned as NodeAction, { reason: deps.mask(p.message), hint }, output.map(deps.mask)),
        );
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
  /** What is of a node that is left as it is, or needs something of one. */
  const holdBack = (item: Item) => {
    const needed = item.action.needs.find(n => !items.has(n) && deps.held(nodeOf(n)) !== undefined);
    const why = deps.held(item.action.node) ?? (needed === undefined ? undefined : deps.held(nodeOf(needed)));
    if (why) settle(item, 'blocked', problem('cloud-step-blocked', why.message, { hint: why.hint }));
  };
  /** Puts the new plan in the place of everything that has not begun. */
  const renew = (fresh: readonly Planned[], lookedMs: number) => {
    for (const [id, item] of items) if (item.state === 'waiting' && !item.taken) items.delete(id);
    const added: Item[] = [];
    for (const planned of fresh) {
      const known = items.get(planned.action.id);
      // Under way; failed, which is told at the end and tried again by the next apply; or done after the look.
      if (known && (known.state !== 'ok' || known.endedMs >= lookedMs)) continue;
      if (known) {
        earlier.push(known);
        items.delete(planned.action.id);
      }
      add(planned);
      added.push(items.get(planned.action.id)!);
    }
    link();
    for (const item of added) {
      const need = item.action.needs.map(n => items.get(n)).find(n => n?.state === 'failed' || n?.state === 'blocked');
      if (need) settle(item, 'blocked', waitsFor(item, need));
      else holdBack(item);
    }
  };
  /** Renewals one after the other; those that are asked for meanwhile share the next one. */
  let renewal: { readonly begun: boolean; readonly done: Promise<void> } | null = null;
  const renewed = (): Promise<void> => {
    if (renewal && !renewal.begun) return renewal.done;
    const before = renewal?.done ?? Promise.resolve();
    const own = { begun: false, done: Promise.resolve() };
    own.done = before
      .catch(() => {})
      .then(async () => {
        own.begun = true;
        const lookedMs = clock.monotonicMs();
        renew(await deps.replan(), lookedMs);
      });
    renewal = own;
    return own.done;
  };
  const runServer = async (item: Item) => {
    begin(item);
    try {
      const planned = item.planned as ServerAction;
      await planned.perform(signal);
      if (planned.renews) await renewed();
      settle(item, 'ok', null);
    } catch (error) {
      if (!signal.aborted) settle(item, 'failed', asProblem(error, 'cloud-step-failed'));
    }
  };

  for (const item of items.values()) holdBack(item);

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
  const all = [...items.values(), ...earlier];
  return {
    done: all.filter(i => i.state === 'ok').length,
    failed,
    blocked,
    seconds: (clock.monotonicMs() - startMs) / 1000,
    chain: longestChain(all, startMs),
  };
}

const waitsFor = (item: Item, need: Item): Problem =>
  problem(
    'cloud-step-blocked',
    `"${item.action.title}" on ${item.action.node} waits for "${need.action.title}" on ${need.action.node}.`,
  );

/** Longest way to the end from each action, by what is expected. */
function weigh(items: ReadonlyMap<string, Item>): void {
  const dependents = new Map<string, Item[]>();
  for (const item of items.values())
    for (const need of item.action.needs) dependents.set(need, [...(dependents.get(need) ?? []), item]);
  for (const item of items.values()) item.weight = 0;
  const walk = (item: Item): number => {
    if (item.weight === 0)
      item.weight =
        0.05 + item.action.expectedSeconds + Math.max(0, ...(dependents.get(item.action.id) ?? []).map(walk));
    return item.weight;
  };
  for (const item of items.values()) walk(item);
}

/**
 * Where programs of a node want more CPU than it has, the one that most waits for goes first: 0 for the longest way, up to
 * 10 for what nothing waits for. Whoever is alone gets everything at any niceness.
 */
export const niceness = (weight: number, most: number): number =>
  most <= 0 ? 0 : Math.max(0, Math.min(10, Math.round(10 * (1 - weight / most))));

/** From the action that ended last backwards: each time what ended last among what it had to wait for. */
function longestChain(items: readonly Item[], startMs: number): RunOutcome['chain'] {
  const ran = items.filter(i => i.beganMs > 0);
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

const TELLING = /error|critical|fatal|denied|refused|cannot|could not|no space|in use|unable|failed|^E: /i;
/** What systemd says of every unit that ends. */
const NOISE = /^(\S+\.service: |Failed to start |Stopped |Started |Starting )/;
const NO_SPACE = /no space left|enough free space|disk quota exceeded|\(28\)/i;

/** Of a step's output the line that says why it failed, and those around it. */
function readOutput(output: readonly string[]): { lines: string[]; telling: string | undefined } {
  const all = output.map(l => l.trimEnd()).filter(l => l !== '');
  let at = all.findLastIndex(l => TELLING.test(l) && !NOISE.test(l));
  if (at === -1) at = all.findLastIndex(l => TELLING.test(l));
  if (at === -1) at = all.length - 1;
  const end = Math.min(all.length, Math.max(at + 5, DETAIL_LINES));
  return { lines: all.slice(Math.max(0, end - DETAIL_LINES), end), telling: all[at] };
}

const stepDetail = ({ action, placed }: NodeAction, lines: readonly string[]) => ({
  node: action.node,
  service: action.service,
  step: action.id,
  ...(placed.resource.kind === 'unit' ? { unit: placed.resource.unit } : {}),
  log: lines,
});

/** An action whose end was not seen: its program was killed, or its node is gone. */
function cutOff(
  planned: NodeAction,
  why: { readonly reason: string; readonly hint: string },
  output: readonly string[],
): Problem {
  const { action } = planned;
  const { lines } = readOutput(output);
  const words = output.findLast(l => l.trim() !== '');
  const last = words === undefined ? '' : ` Its last words: ${words.trim().slice(0, 300)}`;
  return problem(
    'cloud-step-failed',
    `${action.node}: "${action.title}" (${action.service}) was cut off: ${why.reason.replace(/\.$/, '')}.${last}`,
    { hint: why.hint, detail: stepDetail(planned, lines) },
  );
}

/** The failure of an action in words: node, step, unit, the telling line of its output, and what to do. */
function stepFailed(planned: NodeAction, code: number, late: boolean, output: readonly string[]): Problem {
  const { action } = planned;
  const r = planned.placed.resource;
  const { lines, telling = 'it said nothing' } = readOutput(output);
  // 137: killed by timeout(1), or by somebody else before.
  const timedOut = code === 124 || (code === 137 && late);
  const how = timedOut ? 'took too long' : code === 137 ? 'was killed' : `failed with code ${code}`;
  const next = lines.some(l => NO_SPACE.test(l))
    ? `Make room on ${action.node} (\`df -h\` shows which file system is full), then \`halligan apply\` goes on from here.`
    : r.kind === 'unit'
      ? `Look at \`journalctl -u ${r.unit}\` on ${action.node}, mend the cause, then \`halligan apply\` goes on from here.`
      : r.kind === 'packages'
        ? `Check disk space and package sources of ${action.node}, then \`halligan apply\` goes on from here.`
        : `Mend the cause on ${action.node}, then \`halligan apply\` goes on from here.`;
  return problem(
    'cloud-step-failed',
    `${action.node}: "${action.title}" (${action.service}) ${how}: ${telling.slice(0, 300)}`,
    {
      hint: next,
      detail: { ...stepDetail(planned, lines), code },
    },
  );
}
