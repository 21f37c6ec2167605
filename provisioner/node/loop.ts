/**
 * The state loop: the only thing that changes a node's state by observation. One handler at a time per node; handlers
 * say stay, go or fail; every working state has a deadline.
 */

import { sleep } from '../core/clock.js';
import { asProblem, ProblemError, problem } from '../core/problem.js';
import type { StateContext, StateHandler } from './context.js';
import { isWorking, type Outcome, STATES, type WorkingState } from './lifecycle.js';
import { endJobs } from './ram.js';
import { inspecting } from './states/inspecting.js';
import { installing } from './states/installing.js';
import { releasing } from './states/releasing.js';
import { rescuing } from './states/rescuing.js';
import type { Node } from './types.js';

const TICK_MS = 1000;
/** A handler that said stay is asked again after this, or at once when its node is poked. */
const STAY_MS = 2000;
/** After a bug or an unexpected failure; expected ones are problems. */
const ERROR_PAUSE_MS = 10_000;

/** `applying` is driven by the installer half, which registers its handler. */
export type Handlers = { readonly [S in WorkingState]?: StateHandler };

export const SPINE_HANDLERS: Handlers = { inspecting, installing, releasing, rescuing };

export interface StateLoop {
  /** Something happened to this node: look at it now. */
  poke(nodeId: string): void;
  /** Stops the handler of this node, waits until it has let go, and keeps the node still while `then` runs. */
  stop<T>(nodeId: string, then: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

interface Work {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export function startStateLoop(context: StateContext, handlers: Handlers): StateLoop {
  const { nodes, clock, log } = context;
  const stopping = new AbortController();
  const works = new Map<string, Work>();
  const notBefore = new Map<string, number>();
  const poked = new Set<string>();
  /** Deadlines on the monotonic clock, so that a jump of the wall clock fails nobody. */
  const deadlines = new Map<string, { sinceMs: number; atMonotonicMs: number }>();
  const held = new Map<string, number>();
  let wake: () => void = () => {};

  const deadlineOf = (node: Node): number => {
    const known = deadlines.get(node.id);
    if (known && known.sinceMs === node.stateSinceMs) return known.atMonotonicMs;
    const total = (node.deadlineMs ?? clock.nowMs()) - node.stateSinceMs;
    const left = Math.min(total, Math.max(0, (node.deadlineMs ?? 0) - clock.nowMs()));
    const entry = { sinceMs: node.stateSinceMs, atMonotonicMs: clock.monotonicMs() + left };
    deadlines.set(node.id, entry);
    return entry.atMonotonicMs;
  };

  const settle = async (node: Node, outcome: Outcome): Promise<void> => {
    if (outcome.kind === 'stay') {
      await context.waiting(node.id, outcome.waitingFor);
      notBefore.set(node.id, clock.monotonicMs() + STAY_MS);
    } else if (outcome.kind === 'go') {
      await endRun(node, 'done', outcome.reason);
      await nodes.transition(node.id, outcome.event, outcome.reason);
    } else {
      await endRun(node, 'failed', outcome.problem);
      await nodes.failWorking(node.id, outcome.problem);
    }
  };
  const endRun = async (node: Node, state: 'done' | 'failed', result: unknown): Promise<void> => {
    const run = node.status.runId === null ? undefined : await context.journal.get(node.status.runId);
    if (run?.state === 'running') await context.journal.end(run.id, state, result);
  };

  const work = async (node: Node, handler: StateHandler, signal: AbortSignal): Promise<void> => {
    const left = deadlineOf(node) - clock.monotonicMs();
    const overdue = new AbortController();
    const timer = setTimeout(() => overdue.abort(), Math.max(0, Math.min(left, 2 ** 31 - 1)));
    try {
      const outcome = await handler(node, context, AbortSignal.any([signal, overdue.signal]));
      if (!signal.aborted) await settle(node, outcome);
    } catch (error) {
      if (signal.aborted) return;
      if (overdue.signal.aborted) return;
      if (error instanceof ProblemError && !(error.problem.retry && isTransient(error.problem.code)))
        await settle(node, { kind: 'fail', problem: error.problem });
      else {
        const p = asProblem(error, 'conflict');
        log.warn(
          { node: node.name, error: String(error), stack: error instanceof Error ? error.stack : undefined },
          'state handler failed',
        );
        await context.waiting(node.id, `another try: ${p.message}`);
        notBefore.set(node.id, clock.monotonicMs() + ERROR_PAUSE_MS);
      }
    } finally {
      clearTimeout(timer);
      const now = nodes.byId(node.id);
      if (!signal.aborted && now && now.state === node.state && deadlineOf(now) <= clock.monotonicMs()) {
        await settle(now, {
          kind: 'fail',
          problem: problem(
            'timed-out',
            `${now.name} was ${STATES[now.state as WorkingState].label.toLowerCase()} for ${Math.round((clock.nowMs() - now.stateSinceMs) / 60_000)} minutes; it waited for ${now.waitingFor ?? 'nothing named'}.`,
          ),
        });
        await endJobs(now, context);
      }
    }
  };

  /** Shows that it waits for its turn; the time of a state begins when its work may begin. */
  const queue = (node: Node) => {
    const waitingFor = `its turn: ${context.site.limits.installs} nodes install already`;
    const total = context.site.deadlines.installing_seconds * 1000;
    const late = node.deadlineMs !== null && node.deadlineMs - clock.nowMs() < 0.9 * total;
    if (node.waitingFor === waitingFor && !late) return;
    deadlines.delete(node.id);
    nodes
      .update(node.id, n =>
        n.state === node.state ? { waitingFor, ...(late ? { deadlineMs: clock.nowMs() + total } : {}) } : null,
      )
      .catch(error => log.warn({ node: node.name, error: String(error) }, 'an installation that waits for its turn'));
  };

  const tick = () => {
    let installs = [...works.keys()]
      .map(nodes.byId)
      .filter(n => n?.state === 'installing' && !n.status.diskReady).length;
    for (const node of nodes.all()) {
      if (!isWorking(node.state) || works.has(node.id) || held.has(node.id) || node.maintenance !== null) continue;
      const handler = handlers[node.state];
      if (!handler) continue;
      const due = poked.delete(node.id) || (notBefore.get(node.id) ?? 0) <= clock.monotonicMs();
      if (!due) continue;
      // Its disk is written already: what is left costs next to nothing, and others wait for its turn to end.
      if (node.state === 'installing' && !node.status.diskReady && ++installs > context.site.limits.installs) {
        queue(node);
        continue;
      }
      const abort = new AbortController();
      const done = work(node, handler, AbortSignal.any([abort.signal, stopping.signal]))
        .catch(error => log.error({ node: node.name, error: String(error) }, 'state loop'))
        .finally(() => {
          works.delete(node.id);
          wake();
        });
      works.set(node.id, { abort, done });
    }
  };

  const running = (async () => {
    while (!stopping.signal.aborted) {
      tick();
      const pause = new AbortController();
      wake = () => pause.abort();
      await sleep(TICK_MS, AbortSignal.any([pause.signal, stopping.signal]));
    }
  })();

  const unsubscribe = nodes.onChange(node => {
    if (isWorking(node.state) && !works.has(node.id) && !notBefore.has(node.id)) wake();
  });

  return {
    poke(nodeId) {
      poked.add(nodeId);
      notBefore.delete(nodeId);
      wake();
    },
    async stop(nodeId, then) {
      const at = works.get(nodeId);
      held.set(nodeId, (held.get(nodeId) ?? 0) + 1);
      try {
        at?.abort.abort();
        await at?.done;
        return await then();
      } finally {
        const rest = (held.get(nodeId) ?? 1) - 1;
        if (rest > 0) held.set(nodeId, rest);
        else held.delete(nodeId);
        notBefore.delete(nodeId);
      }
    },
    async close() {
      unsubscribe();
      stopping.abort();
      wake();
      await running;
      await Promise.all([...works.values()].map(w => w.done));
    },
  };
}

/** What the world may mend by itself within the state's deadline; everything else ends the state. */
function isTransient(code: string): boolean {
  return (
    code === 'ssh-failed' ||
    code === 'bmc-silent' ||
    code === 'bmc-lies' ||
    code === 'bmc-protocol' ||
    code === 'timed-out'
  );
}
