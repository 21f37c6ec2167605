/** Looks at nodes over SSH: one command each, all nodes at once. */
import type { Clock } from '../../provisioner/core/clock.js';
import type { Executor, RunOptions, SshTarget } from '../../provisioner/core/executor/types.js';
import { asProblem, type Problem, ProblemError, problem } from '../../provisioner/core/problem.js';
import type { Placed } from '../engine/desired.js';
import { FACTS_SCRIPT, parseFacts } from '../engine/facts.js';
import { type Observed, observeScript, parseObserved } from '../engine/observe.js';
import type { NodeFacts } from '../model/cloud.js';

export interface LookDeps {
  readonly executor: Pick<Executor, 'run'>;
  readonly clock: Clock;
}

export type Looked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: Problem };

const FACTS_TIMEOUT_MS = 30_000;
const OBSERVE_TIMEOUT_MS = 120_000;

async function shell(
  deps: LookDeps,
  target: SshTarget,
  script: string,
  options: Pick<RunOptions, 'timeoutMs' | 'signal' | 'onSend'>,
): Promise<string> {
  const result = await deps.executor.run(target, 'sh', { stdin: script, ...options });
  if (result.code === 0) return result.stdout;
  const words = (result.stderr || result.stdout).trim().split('\n').slice(-2).join(' | ').slice(0, 300);
  throw new ProblemError(
    problem(
      'command-failed',
      `The look at ${target.address} failed with code ${result.code}: ${words || 'it said nothing'}.`,
    ),
  );
}

/** What a node or the way to it is to blame for is an answer; the rest is thrown. */
async function answer<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<Looked<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    if (signal?.aborted || !(error instanceof ProblemError)) throw error;
    return { ok: false, problem: asProblem(error) };
  }
}

export const lookAtFacts = (
  deps: LookDeps,
  node: string,
  target: SshTarget,
  signal?: AbortSignal,
): Promise<Looked<NodeFacts>> =>
  answer(async () => {
    let sent = deps.clock.nowMs();
    const output = await shell(deps, target, FACTS_SCRIPT, {
      timeoutMs: FACTS_TIMEOUT_MS,
      // Logging in would count as a clock that is behind.
      onSend: () => {
        sent = deps.clock.nowMs();
      },
      ...(signal ? { signal } : {}),
    });
    return parseFacts(output, node, sent, deps.clock.nowMs());
  }, signal);

export const lookAtState = (
  deps: LookDeps,
  node: string,
  target: SshTarget,
  placed: readonly Placed[],
  bad: readonly string[],
  signal?: AbortSignal,
): Promise<Looked<Observed>> =>
  answer(async () => {
    const options = { timeoutMs: OBSERVE_TIMEOUT_MS, ...(signal ? { signal } : {}) };
    return parseObserved(await shell(deps, target, observeScript(placed, bad), options), node, placed);
  }, signal);
