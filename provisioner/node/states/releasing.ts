/** releasing: the disks are erased in the RAM environment, then the node is available again. */
import { ProblemError, problem } from '../../core/problem.js';
import type { StateHandler } from '../context.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam, follow, ramTarget } from '../ram.js';
import type { ActionParams } from '../service.js';

const MAX_ATTEMPTS = 3;

export const releasing: StateHandler = async (node, context, signal) => {
  const run = node.status.runId === null ? undefined : await context.journal.get(node.status.runId);
  if (!run) throw new Error(`${node.name} is releasing without a run`);
  const answer = await ensureRam(node, context, signal);
  if ('waitingFor' in answer) return stay(answer.waitingFor);
  const { ram } = answer;
  const params = run.input as ActionParams;
  const steps = (await context.journal.steps(run.id)).filter(s => s.step === 'erase');
  const attempt = steps.find(s => s.state === 'before')?.attempt ?? steps.length + 1;
  if (attempt > MAX_ATTEMPTS)
    throw new ProblemError(
      problem(
        'install-failed',
        `${node.name}: the node was restarted during each of ${MAX_ATTEMPTS} tries to erase its disks.`,
      ),
    );
  const job = context.jobs.erase(node, params.erase ?? 'quick');
  const unit = `halligan-${run.id.slice(0, 8)}-erase-${attempt}-${ram.bootId.slice(0, 8)}`;
  const outcome = await context.journal.step(run.id, 'erase', attempt, { params }, async () => {
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
    return { erased: true };
  });
  if ('lost' in outcome) return stay('the RAM environment again: the node was restarted while its disks were erased');
  await context.journal.end(run.id, 'done', outcome);
  await context.nodes.update(node.id, () => ({
    spec: { roles: [], wipe: false },
    status: { os: null, diskReady: false, runId: null },
  }));
  return go('released', job.summary);
};
