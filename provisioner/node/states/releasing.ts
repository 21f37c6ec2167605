/** releasing: the disks are erased in the RAM environment, then the node is available again. */
import { ProblemError, problem } from '../../core/problem.js';
import type { StateContext, StateHandler } from '../context.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam, follow, ramTarget, stopJobs } from '../ram.js';
import type { ActionParams } from '../service.js';
import type { Node, RamSession } from '../types.js';

const MAX_ATTEMPTS = 3;

export const releasing: StateHandler = async (node, context, signal) => {
  const run = node.status.runId === null ? undefined : await context.journal.get(node.status.runId);
  if (!run) throw new Error(`${node.name} is releasing without a run`);
  // A server that died after the erasing finds its end in the journal: never erase twice.
  let erased = (await context.journal.steps(run.id))
    .filter(s => s.step === 'erase' && s.state === 'after')
    .map(s => s.output)
    .find(isErased);
  if (!erased) {
    const answer = await ensureRam(node, context, signal);
    if ('waitingFor' in answer) return stay(answer.waitingFor);
    const outcome = await erase(node, answer.ram, run.id, run.input as ActionParams, context, signal);
    if (outcome === 'lost')
      return stay('the RAM environment again: the node was restarted while its disks were erased');
    erased = outcome;
  }
  await context.nodes.update(node.id, () => ({
    spec: { roles: [] },
    status: { os: null, diskReady: false },
  }));
  return go('released', erased.erased);
};

interface Erased {
  /** What was erased and what was not, a sentence. */
  readonly erased: string;
}

const isErased = (output: unknown): output is Erased =>
  typeof output === 'object' && output !== null && 'erased' in output;

/** One attempt. 'lost': the node was restarted, try again. */
async function erase(
  node: Node,
  ram: RamSession,
  runId: string,
  params: ActionParams,
  context: StateContext,
  signal: AbortSignal,
): Promise<Erased | 'lost'> {
  const steps = (await context.journal.steps(runId)).filter(s => s.step === 'erase');
  const attempt = steps.find(s => s.state === 'before')?.attempt ?? steps.length + 1;
  if (attempt > MAX_ATTEMPTS)
    throw new ProblemError(
      problem(
        'install-failed',
        `${node.name}: the node was restarted during each of ${MAX_ATTEMPTS} tries to erase its disks.`,
      ),
    );
  const job = context.jobs.erase(node, params.erase ?? 'quick', params.wipe === true);
  const unit = `halligan-${runId.slice(0, 8)}-erase-${attempt}-${ram.bootId.slice(0, 8)}`;
  const outcome = await context.journal.step(
    runId,
    'erase',
    attempt,
    { params },
    async (): Promise<Erased | { lost: string }> => {
      await stopJobs(context, ram, unit, signal);
      let stated = '';
      const onLine = (line: string) => {
        const read = context.jobs.read(line);
        if (read.kind === 'problem') stated = read.message;
        if (read.kind === 'stage') context.waiting(node.id, read.text).catch(() => {});
      };
      const result = await follow(
        node,
        context,
        ram,
        context.executor.detached(ramTarget(ram), { unit, ...job }, onLine, { signal }),
      );
      if (result.kind === 'lost') return { lost: result.reason };
      if (result.code !== 0)
        throw new ProblemError(
          problem('install-failed', `${node.name}: ${stated || `erasing ended with code ${result.code}`}.`, {
            detail: { unit, tail: result.tail },
          }),
        );
      return { erased: job.summary };
    },
  );
  return 'lost' in outcome ? 'lost' : outcome;
}
