/** releasing: the disks are erased in the RAM environment, then the node is available again. */
import type { StateHandler } from '../context.js';
import { diskStep } from '../disk-step.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam } from '../ram.js';
import type { ActionParams } from '../service.js';

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
    const params = run.input as ActionParams;
    const end = await diskStep<Erased>(
      node,
      answer.ram,
      {
        name: 'erase',
        runId: run.id,
        does: 'erase its disks',
        done: 'its disks were erased',
        who: 'erasing',
        input: { params },
        job: async () => context.jobs.erase(node, params.erase ?? 'quick', params.wipe === true),
        result: job => ({ erased: job.summary }),
      },
      context,
      signal,
    );
    if ('lost' in end) return stay('the RAM environment again: the node was restarted while its disks were erased');
    erased = end;
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
