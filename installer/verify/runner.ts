/**
 * Runs named steps as soon as what they need is done, several at a time, and undoes them in reverse. Knows nothing of
 * clouds.
 */
import { setMaxListeners } from 'node:events';
import type { Clock } from '../../provisioner/core/clock.js';
import { asProblem, PROBLEMS, type Problem, ProblemError, problem } from '../../provisioner/core/problem.js';
import type { StepEvent, StepReport } from './types.js';

export interface StepControl {
  /** Aborts when the step's time is up or the run is aborted. */
  readonly signal: AbortSignal;
  /** What the step's own smaller time-outs are to be multiplied by. */
  readonly timeoutFactor: number;
  /** Told to people, and part of the reason when the time is up. */
  waitingFor(what: string): void;
}

export type StepOutcome =
  | { readonly kind: 'passed'; readonly detail: Readonly<Record<string, unknown>> }
  | { readonly kind: 'skipped'; readonly reason: string };

export const passed = (detail: Readonly<Record<string, unknown>> = {}): StepOutcome => ({ kind: 'passed', detail });
/** Not applicable here; the reason is a sentence. */
export const skipped = (reason: string): StepOutcome => ({ kind: 'skipped', reason });

export interface Step<C> {
  readonly name: string;
  readonly title: string;
  /** Steps that must have passed. */
  readonly needs: readonly string[];
  /** Steps that must have ended, whichever way: they would disturb each other. */
  readonly after?: readonly string[];
  readonly expectedSeconds: number;
  readonly timeoutSeconds: number;
  /** What to do when it fails and nothing better is known. */
  readonly hint: string;
  readonly run: (context: C, control: StepControl) => Promise<StepOutcome>;
  /** Takes back what it made, whether it passed or broke off in the middle. Runs when all that needs it is undone. */
  readonly undo?: (context: C, control: StepControl) => Promise<void>;
}

export interface RunnerOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly timeoutFactor: number;
  readonly parallel: number;
  readonly onStep?: ((event: StepEvent) => void) | undefined;
}

/** A step that does not heed its signal is left behind after this. */
const GRACE_MS = 10_000;
const UNDO_TIMEOUT_SECONDS = 120;

const round = (ms: number): number => Math.round(ms / 100) / 10;

/** Runs `work` with a signal that also aborts after `timeoutMs`; rejects then, even when the work does not end. */
async function bounded<T>(
  work: (signal: AbortSignal) => Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const both = signal ? AbortSignal.any([signal, deadline]) : deadline;
  // A step may wait for many things at once.
  setMaxListeners(100, both);
  let stop: NodeJS.Timeout | undefined;
  const broken = new Promise<never>((_, reject) => {
    const onAbort = () => {
      stop = setTimeout(() => reject(both.reason), GRACE_MS);
      stop.unref();
    };
    if (both.aborted) onAbort();
    else both.addEventListener('abort', onAbort, { once: true });
  });
  broken.catch(() => {});
  try {
    return await Promise.race([work(both), broken]);
  } finally {
    clearTimeout(stop);
  }
}

/** The steps that are wanted, in their order: `only` with all they need, without `skip`. Throws on an unknown name. */
export function selectSteps<C>(
  steps: readonly Step<C>[],
  only: readonly string[] | undefined,
  skip: readonly string[] = [],
): { readonly chosen: readonly Step<C>[]; readonly left: ReadonlyMap<string, string> } {
  const byName = new Map(steps.map(step => [step.name, step]));
  for (const name of [...(only ?? []), ...skip])
    if (!byName.has(name))
      throw new ProblemError(
        problem('request-invalid', `There is no step "${name}": ${[...byName.keys()].join(', ')}.`),
      );
  const wanted = new Set<string>();
  const want = (name: string) => {
    if (wanted.has(name)) return;
    wanted.add(name);
    for (const need of byName.get(name)?.needs ?? []) want(need);
  };
  for (const name of only ?? byName.keys()) want(name);
  const left = new Map(skip.map(name => [name, 'It was left out on request.']));
  return { chosen: steps.filter(step => wanted.has(step.name)), left };
}

export interface StepsResult {
  readonly reports: readonly StepReport[];
  /** Names of steps that began. */
  readonly started: ReadonlySet<string>;
}

export async function runSteps<C>(
  steps: readonly Step<C>[],
  context: C,
  options: RunnerOptions,
  left: ReadonlyMap<string, string> = new Map(),
): Promise<StepsResult> {
  const { clock, signal, timeoutFactor, parallel, onStep } = options;
  const byName = new Map(steps.map(step => [step.name, step]));
  const reports = new Map<string, StepReport>();
  const started = new Set<string>();
  const running = new Map<string, Promise<void>>();

  const end = (step: Step<C>, report: Pick<StepReport, 'state' | 'seconds'> & Partial<StepReport>) => {
    const whole: StepReport = {
      name: step.name,
      title: step.title,
      expectedSeconds: step.expectedSeconds,
      detail: {},
      ...report,
    };
    reports.set(step.name, whole);
    onStep?.({ kind: 'ended', step: whole });
  };

  /** Why the step cannot run at all; undefined when it can, or may later. */
  const hindrance = (step: Step<C>): string | undefined => {
    const request = left.get(step.name);
    if (request !== undefined) return request;
    for (const need of step.needs) {
      const report = reports.get(need);
      if (report?.state === 'failed') return `"${report.title}" failed, and this needs it.`;
      if (report?.state === 'skipped') return `"${report.title}" was skipped, and this needs it: ${report.reason}`;
    }
    return undefined;
  };

  const run = async (step: Step<C>): Promise<void> => {
    started.add(step.name);
    onStep?.({ kind: 'started', name: step.name, title: step.title, expectedSeconds: step.expectedSeconds });
    const startMs = clock.monotonicMs();
    const seconds = () => round(clock.monotonicMs() - startMs);
    const timeoutMs = step.timeoutSeconds * 1000 * timeoutFactor;
    let waiting = '';
    try {
      const outcome = await bounded(
        stepSignal =>
          step.run(context, {
            signal: stepSignal,
            timeoutFactor,
            waitingFor: what => {
              if (what === waiting) return;
              waiting = what;
              onStep?.({ kind: 'waiting', name: step.name, waitingFor: what });
            },
          }),
        timeoutMs,
        signal,
      );
      end(
        step,
        outcome.kind === 'passed'
          ? { state: 'passed', seconds: seconds(), detail: outcome.detail }
          : { state: 'skipped', seconds: seconds(), reason: outcome.reason },
      );
    } catch (error) {
      if (signal.aborted)
        return end(step, { state: 'skipped', seconds: seconds(), reason: 'The run was aborted in the middle of it.' });
      const timedOut = !(error instanceof ProblemError) && clock.monotonicMs() - startMs >= timeoutMs - 50;
      const found: Problem = timedOut
        ? problem(
            'cloud-verify-failed',
            `It was not done after ${Math.round(timeoutMs / 1000)} s${waiting ? `: still waiting for ${waiting}` : ''}.`,
          )
        : asProblem(error, 'cloud-verify-failed');
      // The catalogue's hint knows nothing of clouds' insides; the step's does.
      const generic = found.hint === PROBLEMS[found.code].hint;
      end(step, {
        state: 'failed',
        seconds: seconds(),
        reason: found.message,
        hint: generic ? step.hint : found.hint,
        detail: { problem: found.code, ...found.detail },
      });
    }
  };

  for (;;) {
    let skippedSome = false;
    for (const step of steps) {
      if (reports.has(step.name) || running.has(step.name)) continue;
      const reason = hindrance(step) ?? (signal.aborted ? 'The run was aborted before it.' : undefined);
      if (reason !== undefined) {
        end(step, { state: 'skipped', seconds: 0, reason });
        skippedSome = true;
        continue;
      }
      const waitsOn = [...step.needs, ...(step.after ?? [])].filter(name => byName.has(name) && !reports.has(name));
      if (waitsOn.length > 0 || running.size >= parallel) continue;
      const done = run(step).finally(() => running.delete(step.name));
      running.set(step.name, done);
    }
    // A skipped step may make others that stand before it ready or hopeless.
    if (skippedSome) continue;
    if (running.size === 0) break;
    await Promise.race(running.values());
  }
  return { reports: steps.map(step => reports.get(step.name)).filter(r => r !== undefined), started };
}

/**
 * Undoes what was started, in reverse: a step when all that needs it, or came after it on purpose, is undone. Goes on after a
 * failure; returns what failed.
 */
export async function undoSteps<C>(
  steps: readonly Step<C>[],
  started: ReadonlySet<string>,
  context: C,
  options: Pick<RunnerOptions, 'timeoutFactor'>,
): Promise<{ readonly name: string; readonly problem: Problem }[]> {
  const failures: { name: string; problem: Problem }[] = [];
  const undone = new Map<string, Promise<void>>();
  const undo = (step: Step<C>): Promise<void> => {
    const before = undone.get(step.name);
    if (before) return before;
    const dependents = steps.filter(s => s.needs.includes(step.name) || s.after?.includes(step.name));
    const now = (async () => {
      await Promise.all(dependents.map(undo));
      const { undo: work } = step;
      if (!work || !started.has(step.name)) return;
      try {
        const timeoutMs = UNDO_TIMEOUT_SECONDS * 1000 * options.timeoutFactor;
        await bounded(
          signal => work(context, { signal, timeoutFactor: options.timeoutFactor, waitingFor: () => {} }),
          timeoutMs,
          undefined,
        );
      } catch (error) {
        failures.push({ name: step.name, problem: asProblem(error, 'cloud-verify-failed') });
      }
    })();
    undone.set(step.name, now);
    return now;
  };
  await Promise.all(steps.map(undo));
  return failures;
}
