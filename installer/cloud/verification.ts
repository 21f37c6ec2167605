/** The proof of the cloud as a run of the journal: what it is told, and how its steps reach the event feed. */
import type { CloudEventData, VerifyOptions, VerifyReport } from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { asProblem, fail } from '../../provisioner/core/problem.js';
import { type CloudModel, nodesWith } from '../model/cloud.js';
import { SERVICES, type ServiceName } from '../openstack/services.js';
import type { AskNodes, NodeAnswer } from '../verify/on-nodes.js';
import type { StepReport, VerifySpec } from '../verify/types.js';
import { CLEANUP, cleanUpCloud, STEPS, verifyCloud } from '../verify/verify.js';
import type { PlannerDeps, ReadyPlan } from './planner.js';

export const VERIFY_KIND = 'cloud-verify';

/** Image of the guest and its file, as `halligan image build guest` makes them. */
const GUEST = { image: 'guest', file: 'disk.qcow2' } as const;
/** Guests are emulated where no hypervisor has KVM: everything in them takes several times as long. */
const EMULATED_FACTOR = 3;
/** A guest that is emulated inside an emulated machine takes about 40 times as long as one that is emulated directly. */
const NESTED_FACTOR = 12;

const has = (model: CloudModel, service: string) => nodesWith(model, service).length > 0;
const names = (model: CloudModel, service: string) => nodesWith(model, service).map(n => n.name);

/** The services that the site registers in the catalogue. Pure. */
function catalogueServices(model: CloudModel): ServiceName[] {
  const types = new Set(model.services.flatMap(s => s.endpoints.map(e => e.type)));
  return (Object.keys(SERVICES) as ServiceName[]).filter(name => SERVICES[name].types.some(type => types.has(type)));
}

/** What is proved of this cloud. Pure. */
export function verifySpec(model: CloudModel, guestFile: string, options: VerifyOptions): VerifySpec {
  const { external, dns, provider } = model.settings;
  const hypervisors = nodesWith(model, 'hypervisor').filter(n => !n.facts.kvm);
  const factor =
    hypervisors.length === 0 ? null : hypervisors.some(n => n.facts.emulated) ? NESTED_FACTOR : EMULATED_FACTOR;
  return {
    guest: { file: guestFile, diskFormat: 'qcow2', user: 'root', tells: 'markers' },
    external: external
      ? {
          name: external.name,
          physicalNetwork: external.physicalNetwork,
          kind: external.vlan === null ? 'flat' : 'vlan',
          ...(external.vlan === null ? {} : { vlan: external.vlan }),
          cidr: external.cidr,
          gateway: external.gateway,
          pool: external.pool,
        }
      : null,
    dns,
    expect: {
      services: catalogueServices(model),
      // The proxies that we lay down speak S3.
      s3: has(model, 'object-proxy'),
      computes: names(model, 'hypervisor'),
      networkHosts: provider.length > 0 ? names(model, 'network-agent') : [],
      volumeHosts: names(model, 'volume-backend'),
    },
    ...(has(model, 'dashboard') && model.settings.dashboard
      ? { dashboardUrl: `https://${model.api.host}/horizon` }
      : {}),
    ...(factor === null ? {} : { timeoutFactor: factor }),
    ...(options.only ? { only: options.only } : {}),
    ...(options.keep ? { keep: true } : {}),
  };
}

const view = (s: StepReport) => ({
  name: s.name,
  title: s.title,
  state: s.state,
  seconds: s.seconds,
  expectedSeconds: s.expectedSeconds,
  message: s.reason ?? null,
  hint: s.hint ?? null,
});

/** @throws ProblemError request-invalid for an unknown step, or a clean-up together with others */
export function checkSteps(only: readonly string[] | undefined): void {
  const names = [...STEPS.map(s => s.name), CLEANUP.name];
  const unknown = (only ?? []).filter(name => !names.includes(name));
  if (unknown.length > 0)
    fail('request-invalid', `There is no step ${unknown.join(', ')}; there are ${names.join(', ')}.`);
  if (only && only.length > 1 && only.includes(CLEANUP.name))
    fail('request-invalid', `The step ${CLEANUP.name} goes alone: every proof ends with it.`);
}

const onlyCleanUp = (options: VerifyOptions) => options.only?.length === 1 && options.only[0] === CLEANUP.name;

const LOOK_MS = 60_000;

/** Scripts on the nodes with a service, over SSH. */
const askNodes =
  (plan: ReadyPlan, model: CloudModel, deps: PlannerDeps): AskNodes =>
  (service, script, signal) =>
    Promise.all(
      nodesWith(model, service).map(async ({ name }): Promise<NodeAnswer> => {
        const target = plan.targets.get(name);
        if (!target) return { node: name, problem: 'there is no way to it by SSH.' };
        try {
          const { code, stdout, stderr } = await deps.executor.run(target, 'sh', {
            stdin: script,
            timeoutMs: LOOK_MS,
            signal,
          });
          if (code === 0) return { node: name, output: stdout };
          const words = plan.secrets.mask(stderr).trim().split('\n').slice(-2).join(' | ').slice(0, 300);
          return { node: name, problem: `the look ended with code ${code}: ${words || 'it said nothing'}.` };
        } catch (error) {
          return { node: name, problem: asProblem(error, 'ssh-failed').message };
        }
      }),
    );

export async function runVerification(
  run: Run,
  plan: ReadyPlan,
  options: VerifyOptions,
  deps: PlannerDeps,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const { model } = plan;
  if (!model) return fail('not-allowed-now', 'There is no cloud that could be proved: see `halligan plan`.');
  const cleanUp = onlyCleanUp(options);
  const guest = cleanUp ? '' : await deps.imageFile(GUEST.image, GUEST.file);
  const admin = plan.client();
  let queue = Promise.resolve();
  const emit = (data: CloudEventData['cloud.check'], message: string, severity: 'debug' | 'info' | 'error') => {
    queue = queue
      .then(() => deps.events.emit({ type: 'cloud.check', severity, message, data: { ...data } }))
      .then(() => {})
      .catch(error => deps.log.error({ error: String(error) }, 'an event could not be stored'));
  };
  try {
    const spec = verifySpec(model, guest, options);
    const work = cleanUp ? cleanUpCloud : verifyCloud;
    const report = await work({
      admin,
      spec,
      clock: deps.clock,
      nodes: askNodes(plan, model, deps),
      signal,
      onStep: event => {
        if (event.kind === 'waiting') return;
        const step = event.kind === 'ended' ? event.step : null;
        const { name, title } = step ?? (event as { name: string; title: string });
        emit(
          {
            runId: run.id,
            name,
            title,
            state: step?.state ?? 'begin',
            seconds: step?.seconds ?? null,
            message: step?.reason ?? null,
          },
          `proof: ${title}${step ? `: ${step.state}${step.reason ? `, ${step.reason}` : ''}` : ''}`,
          step === null ? 'debug' : step.state === 'failed' ? 'error' : 'info',
        );
      },
    });
    await queue;
    return {
      runId: run.id,
      startedMs: report.startedAtMs,
      seconds: report.seconds,
      ok: report.ok,
      steps: report.steps.map(view),
      leftovers: report.leftovers,
    };
  } finally {
    await admin.close();
  }
}
