/** The security checks of the cloud as a run of the journal. */
import type { CloudEventData, VerifyReport, VerifyStep } from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { fail } from '../../provisioner/core/problem.js';
import { openSitePki } from '../pki/site.js';
import { gatherEvidence } from '../security/gather.js';
import { evaluateAll } from '../security/report.js';
import type { PlannerDeps, ReadyPlan } from './planner.js';

export const SECURITY_KIND = 'cloud-security';

/** Most of it is rabbitmqctl and logs. */
const LOOK_SECONDS = 20;

export async function runSecurity(
  run: Run,
  plan: ReadyPlan,
  deps: PlannerDeps,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const { model, secrets } = plan;
  if (!model) return fail('not-allowed-now', 'There is no cloud that could be checked: see `halligan plan`.');
  const startedMs = deps.clock.nowMs();
  const begun = deps.clock.monotonicMs();
  const seconds = () => (deps.clock.monotonicMs() - begun) / 1000;
  const looks: VerifyStep[] = [];
  let queue = Promise.resolve();
  const emit = (step: VerifyStep) => {
    const { name, title, state, message } = step;
    const data: CloudEventData['cloud.check'] = {
      runId: run.id,
      name,
      title,
      state,
      seconds: step.seconds || null,
      message,
    };
    queue = queue
      .then(() =>
        deps.events.emit({
          type: 'cloud.check',
          severity: state === 'failed' ? 'error' : 'info',
          message: `security: ${title}: ${state}${message ? `, ${message}` : ''}`,
          data: { ...data },
        }),
      )
      .then(() => {})
      .catch(error => deps.log.error({ error: String(error) }, 'an event could not be stored'));
  };
  const client = plan.client(signal);
  try {
    const evidence = await gatherEvidence({
      executor: deps.executor,
      model,
      targets: plan.targets,
      ca: openSitePki(secrets, deps.siteName, deps.clock).ca,
      secrets: new Map(secrets.names().map(name => [name, secrets.read(name) ?? ''])),
      client,
      signal,
      onLooked: (node, problem) => {
        const step: VerifyStep = {
          name: node === null ? 'look-apis' : `look-${node}`,
          title: node === null ? 'Ask the APIs' : `Look at ${node}`,
          state: problem === null ? 'passed' : 'failed',
          seconds: seconds(),
          expectedSeconds: LOOK_SECONDS,
          message: problem === null ? null : secrets.mask(problem),
          hint: problem === null ? null : 'Every check that needs it fails until it answers.',
        };
        looks.push(step);
        emit(step);
      },
    });
    const checked = evaluateAll(evidence, secrets.mask);
    for (const step of checked) emit(step);
    await queue;
    const steps = [...looks, ...checked];
    return {
      runId: run.id,
      startedMs,
      seconds: seconds(),
      ok: !steps.some(s => s.state === 'failed'),
      steps,
      leftovers: [],
    };
  } finally {
    await client.close();
  }
}
