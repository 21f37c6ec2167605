/** An import as a run of the journal: how its steps reach the event feed, and its end. */
import { join } from 'node:path';
import type { ImageImportOptions } from '../../provisioner/core/cloud-images.js';
import type { CloudEventData } from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { fail } from '../../provisioner/core/problem.js';
import type { PlannerDeps, ReadyPlan } from '../cloud/planner.js';
import { nodesWith } from '../model/cloud.js';
import { importCloudImage } from './import.js';

export const IMAGE_KIND = 'cloud-image';

export async function runImageImport(
  run: Run,
  plan: ReadyPlan,
  options: ImageImportOptions,
  deps: PlannerDeps,
  signal: AbortSignal,
): Promise<void> {
  if (!plan.model) return fail('not-allowed-now', 'There is no cloud that could take an image: see `halligan plan`.');
  const client = plan.client();
  try {
    const made = await importCloudImage(options, {
      client,
      dir: join(deps.dataDir, 'cloud-images'),
      clock: deps.clock,
      kvm: nodesWith(plan.model, 'hypervisor').some(n => n.facts.kvm),
      signal,
      onStep: async what => {
        const data: CloudEventData['cloud.image'] = { runId: run.id, name: options.name, step: what };
        await deps.events.emit({ type: 'cloud.image', message: `image ${options.name}: ${what}`, data: { ...data } });
      },
    });
    await deps.journal.end(run.id, 'done', made);
    await deps.events.emit({
      type: 'cloud.done',
      message: `The image ${made.name} (${made.id}) is in the cloud.`,
      data: { runId: run.id, state: 'done' },
    });
  } finally {
    await client.close();
  }
}
