/** The proof of a cloud: makes what its users would make, uses it, and takes it all away again. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../provisioner/core/clock.js';
import { asProblem, fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import type { VerifyContext } from './context.js';
import { type AskNodes, leftOnNodes } from './on-nodes.js';
import { createReach } from './reach.js';
import { runSteps, type Step, selectSteps, undoSteps } from './runner.js';
import { graphicalConsole } from './steps/console.js';
import { catalogue, computeServices, networkAgents, volumeServices } from './steps/control.js';
import { dashboard } from './steps/dashboard.js';
import { liveMigrate, migrate, serverSnapshot } from './steps/lifecycle.js';
import { externalNetwork, network, router, securityGroup } from './steps/network.js';
import { objectStore, s3 } from './steps/objects.js';
import { flavor, identity, image, keypair } from './steps/prepare.js';
import { eastWest, firewallClosed, firewallOpen, firewallShut, floatingIp, ssh } from './steps/reachability.js';
import { dhcp, guestReady, metadata, otherComputes, servers } from './steps/servers.js';
import { bootFromVolume, bootVolume, volume, volumeAttach, volumeSnapshot } from './steps/volumes.js';
import { findLeftovers, newScope, type Scope, SWEEP_ORDER, sweep } from './sweep.js';
import type { Reach, StepEvent, StepReport, VerifyReport, VerifySpec } from './types.js';

/** In the order of the report. */
export const STEPS: readonly Step<VerifyContext>[] = [
  catalogue,
  computeServices,
  networkAgents,
  volumeServices,
  identity,
  keypair,
  image,
  flavor,
  externalNetwork,
  network,
  router,
  securityGroup,
  servers,
  dhcp,
  metadata,
  guestReady,
  floatingIp,
  firewallClosed,
  firewallOpen,
  ssh,
  firewallShut,
  eastWest,
  graphicalConsole,
  volume,
  volumeAttach,
  volumeSnapshot,
  bootVolume,
  bootFromVolume,
  serverSnapshot,
  migrate,
  liveMigrate,
  otherComputes,
  objectStore,
  s3,
  dashboard,
];

const PREFIX = 'halligan-verify';
const SWEEP_MS = 120_000;
/** The last step of every proof; it also goes alone. */
export const CLEANUP = { name: 'cleanup', title: 'Everything that was made is deleted again', expectedSeconds: 20 };
const KEPT = 'What was made is kept on request; `halligan cloud verify --only cleanup` takes it away.';

export interface VerifyOptions {
  /**
   * The administrator, scoped to a project. Must not carry a signal that aborts the run: what was made is deleted after that.
   * Its interface (`public` is what users have) is what the proof goes through.
   */
  readonly admin: OpenStackClient;
  readonly spec: VerifySpec;
  readonly clock: Clock;
  /** From this machine unless said otherwise. */
  readonly reach?: Reach;
  /** Looks on the nodes for what the APIs no longer show; without it the APIs are believed. */
  readonly nodes?: AskNodes;
  readonly signal?: AbortSignal;
  readonly onStep?: (event: StepEvent) => void;
  /** Between two looks at something that takes a while; 1000 unless said otherwise. */
  readonly pollMs?: number;
}

function checkedPrefix(prefix: string): string {
  // It goes into a regular expression of Nova's, and decides what is deleted.
  if (!/^[a-z][a-z0-9-]{3,30}$/.test(prefix))
    fail('request-invalid', `"${prefix}" is no prefix for names: 4 to 31 letters, digits and hyphens were expected.`);
  return `${prefix}-`;
}

/** What is left of this scope after all kinds were deleted in order. */
async function sweepAll(scope: Scope, factor: number): Promise<string[]> {
  const said: string[] = [];
  const signal = () => AbortSignal.timeout(SWEEP_MS * factor);
  // Fills the scope: what projects and users own is found by their ids.
  try {
    if ((await findLeftovers(scope, signal())).length === 0) return [];
  } catch (error) {
    said.push(asProblem(error, 'cloud-api-failed').message);
  }
  for (const kinds of SWEEP_ORDER) said.push(...(await sweep(scope, kinds, signal())));
  try {
    const left = await findLeftovers(scope, signal());
    // The API's words belong to what is really still there.
    return left.map(title => said.find(line => line.startsWith(title)) ?? title);
  } catch (error) {
    return [...said, `It is not known what is left: ${asProblem(error, 'cloud-api-failed').message}`];
  }
}

const below = async ({ nodes, spec }: VerifyOptions, scope: Scope): Promise<string[]> =>
  nodes ? leftOnNodes(scope, nodes, spec.timeoutFactor ?? 1) : [];

/**
 * Runs the proof. A failing step does not throw: it is in the report. What was made is deleted in reverse, also after
 * failures and after `signal` aborts.
 * @throws ProblemError request-invalid for an unknown step or a bad prefix
 */
export async function verifyCloud(options: VerifyOptions): Promise<VerifyReport> {
  const { admin, spec, clock, onStep } = options;
  const factor = spec.timeoutFactor ?? 1;
  const run = `${checkedPrefix(spec.prefix ?? PREFIX)}${randomBytes(3).toString('hex')}`;
  const signal = options.signal ?? new AbortController().signal;
  const { chosen, left } = selectSteps(STEPS, spec.only, spec.skip);
  const pollMs = options.pollMs ?? 1000;
  const scope = newScope(admin, run, pollMs);
  const context: VerifyContext = { admin, spec, reach: options.reach ?? createReach(), run, made: {}, scope, pollMs };
  const startedAtMs = clock.nowMs();
  const startMs = clock.monotonicMs();

  const reportOf = (steps: readonly StepReport[], leftovers: readonly string[]): VerifyReport => ({
    ok: !signal.aborted && steps.every(step => step.state !== 'failed'),
    run,
    startedAtMs,
    seconds: Math.round((clock.monotonicMs() - startMs) / 100) / 10,
    aborted: signal.aborted,
    steps,
    leftovers,
  });

  const { reports, started } = await runSteps(
    chosen,
    context,
    { clock, signal, timeoutFactor: factor, parallel: spec.parallel ?? 6, onStep },
    left,
  );

  if (spec.keep) {
    const kept = started.size === 0 ? [] : await findLeftovers(scope, AbortSignal.timeout(SWEEP_MS * factor));
    return reportOf([...reports, { ...CLEANUP, state: 'skipped', seconds: 0, reason: KEPT, detail: { kept } }], []);
  }
  const last = await cleanUp(clock, onStep, async () => {
    const failures = await undoSteps(chosen, started, context, { timeoutFactor: factor });
    return {
      leftovers: started.size === 0 ? [] : [...(await sweepAll(scope, factor)), ...(await below(options, scope))],
      // A first try that failed and a second that did not is worth knowing.
      detail: failures.length > 0 ? { tried: failures.map(f => `${f.name}: ${f.problem.message}`) } : {},
    };
  });
  return reportOf([...reports, last.step], last.leftovers);
}

/**
 * Deletes what earlier proofs left, of all runs with this prefix: what was kept, and what a proof that was cut off made.
 * @throws ProblemError request-invalid for a bad prefix
 */
export async function cleanUpCloud(options: VerifyOptions): Promise<VerifyReport> {
  const { admin, spec, clock } = options;
  const prefix = checkedPrefix(spec.prefix ?? PREFIX);
  const scope = newScope(admin, prefix, options.pollMs);
  const startedAtMs = clock.nowMs();
  const startMs = clock.monotonicMs();
  const { step, leftovers } = await cleanUp(clock, options.onStep, async () => {
    const found = await findLeftovers(scope, AbortSignal.timeout(SWEEP_MS));
    return {
      leftovers: [
        ...(found.length === 0 ? [] : await sweepAll(scope, spec.timeoutFactor ?? 1)),
        ...(await below(options, scope)),
      ],
      detail: { found },
    };
  });
  return {
    ok: leftovers.length === 0,
    run: prefix,
    startedAtMs,
    seconds: Math.round((clock.monotonicMs() - startMs) / 100) / 10,
    aborted: false,
    steps: [step],
    leftovers,
  };
}

/** The clean-up as a step of the report. */
async function cleanUp(
  clock: Clock,
  onStep: VerifyOptions['onStep'],
  work: () => Promise<{ readonly leftovers: readonly string[]; readonly detail: StepReport['detail'] }>,
): Promise<{ readonly step: StepReport; readonly leftovers: readonly string[] }> {
  onStep?.({ kind: 'started', ...CLEANUP });
  const beganMs = clock.monotonicMs();
  const { leftovers, detail } = await work();
  const failed = leftovers.length > 0;
  const step: StepReport = {
    ...CLEANUP,
    state: failed ? 'failed' : 'passed',
    seconds: Math.round((clock.monotonicMs() - beganMs) / 100) / 10,
    ...(failed
      ? {
          reason: `Left over: ${leftovers.join('; ')}`,
          hint: 'Order the clean-up again when the service named works (`halligan cloud verify --only cleanup`); everything of the proof begins with its prefix.',
        }
      : {}),
    detail,
  };
  onStep?.({ kind: 'ended', step });
  return { step, leftovers };
}
