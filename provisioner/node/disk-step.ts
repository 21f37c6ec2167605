/**
 * One try of a job that changes the disks of a node: one attempt, one journal step and one detached unit in its RAM
 * environment. A restarted server re-attaches to the unit; a restarted node gets a new attempt, because its disks are half done.
 */
import { ProblemError, problem } from '../core/problem.js';
import type { JobLine, NodeJob, StateContext } from './context.js';
import { follow, ramTarget, stopJobs } from './ram.js';
import type { Node, RamSession } from './types.js';

/** A node that is restarted in every try has a fault that another try does not mend. */
export const MAX_ATTEMPTS = 3;

export interface DiskStep<T> {
  /** Name in the journal and in the unit's name. */
  readonly name: 'write' | 'erase';
  readonly runId: string;
  /** What the job does, for sentences: `write its disk`. */
  readonly does: string;
  /** The same, done to it: `its disk was written`. */
  readonly done: string;
  /** Who ends with a code: `the installer`. */
  readonly who: string;
  /** Belongs to the journal's record of the step. */
  readonly input: object;
  /** Called for a try that begins, and for one that is followed again. */
  job(unit: string): Promise<NodeJob>;
  onLine?(line: JobLine, job: NodeJob): void;
  /** What is kept of a job that ended with code 0; null when it did not say what it must. */
  result(job: NodeJob): T | null;
}

export type DiskStepEnd<T> = T | { readonly lost: string; readonly attempt: number };

/**
 * `lost`: the node was restarted meanwhile; try again.
 * @throws ProblemError install-failed: the job failed, or the node was restarted in every try
 */
export async function diskStep<T extends object>(
  node: Node,
  ram: RamSession,
  step: DiskStep<T>,
  context: StateContext,
  signal: AbortSignal,
): Promise<DiskStepEnd<T>> {
  const { journal } = context;
  const steps = (await journal.steps(step.runId)).filter(s => s.step === step.name);
  // An attempt whose end was never recorded goes on; its unit, if the node still has it, is followed.
  const open = steps.find(s => s.state === 'before');
  const attempt = open?.attempt ?? steps.length + 1;
  if (attempt > MAX_ATTEMPTS)
    throw new ProblemError(
      problem(
        'install-failed',
        `${node.name}: the node was restarted during each of ${MAX_ATTEMPTS} tries to ${step.does}.`,
      ),
    );
  const unit = `halligan-${step.runId.slice(0, 8)}-${step.name}-${attempt}-${ram.bootId.slice(0, 8)}`;

  const end = await journal.step(
    step.runId,
    step.name,
    attempt,
    { ...step.input, attempt },
    async (): Promise<T | { lost: string }> => {
      // It was begun in an earlier life of the node, which ended unseen: its power was cut.
      if (open !== undefined && ram.startedMs > open.beforeMs)
        return { lost: `the node was restarted while ${step.done}` };
      await stopJobs(context, ram, unit, signal);
      const job = await step.job(unit);
      let stated = '';
      const onLine = (text: string) => {
        const line = context.jobs.read(text);
        if (line.kind === 'problem') stated = line.message;
        if (line.kind === 'stage') context.waiting(node.id, line.text).catch(() => {});
        step.onLine?.(line, job);
      };
      const detached = context.executor.detached(ramTarget(ram), { unit, ...job }, onLine, { signal });
      const ended = await follow(node, context, ram, detached);
      if (ended.kind === 'lost') return { lost: ended.reason };
      const result = ended.code === 0 ? step.result(job) : null;
      if (result !== null) return result;
      const why = stated || `${step.who} ended with code ${ended.code}`;
      throw new ProblemError(
        problem('install-failed', `${node.name}: ${why}.`.replace(/\.\.$/, '.'), {
          detail: { unit, tail: ended.tail },
        }),
      );
    },
  );
  return 'lost' in end ? { lost: end.lost, attempt } : end;
}
