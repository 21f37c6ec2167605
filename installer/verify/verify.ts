/** The proof of a cloud: makes what its users would make, uses it, and takes it all away again. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../provisioner/core/clock.js';
import { asProblem, fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import type { VerifyContext } from './context.js';
import { createReach } from './reach.js';
import { runSteps, type Step, selectSteps, undoSteps } from './runner.js';
import { graphicalConsole } from './steps/console.js';
import { catalogue, computeServices, networkAgents, volumeServices } from './steps/control.js';
import { dashboard } from './steps/dashboard.js';
import { liveMigrate, migrate, serverSnapshot } from './steps/lifecycle.js';
import { externalNetwork, network, router, securityGroup } from './steps/network.js';
import { objectStore, s3 } from './steps/objects.js';
import { flavor, identity, image, keypair } from './steps/prepare.js';
import { eastWest, firewallClosed, firewallOpen, floatingIp, ssh } from './steps/reachability.js';
import { dhcp, guestReady, metadata, servers } from './steps/servers.js';
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
  objectStore,
  s3,
  dashboard,
];

const PREFIX = 'halligan-verify';
const SWEEP_MS = 120_000;
const CLEANUP = { name: 'cleanup', title: 'Everything that was made is deleted again', expectedSeconds: 20 };
const KEPT = 'What was made is kept on request; the clean-up alone takes it away.';

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
  onStep?.({ kind: 'started', ...CLEANUP });
  const cleanMs = clock.monotonicMs();
  const failures = await undoSteps(chosen, started, context, { timeoutFactor: factor });
  const leftovers = started.size === 0 ? [] : await sweepAll(scope, factor);
  const failed = leftovers.length > 0;
  const last: StepReport = {
    ...CLEANUP,
    state: failed ? 'failed' : 'passed',
    seconds: Math.round((clock.monotonicMs() - cleanMs) / 100) / 10,
    ...(failed
      ? {
          reason: `Left over: ${leftovers.join('; ')}`,
          hint: 'Order the clean-up again when the service named works; everything of the proof begins with its prefix.',
        }
      : {}),
    // A first try that failed and a second that did not is worth knowing.
    detail: failures.length > 0 ? { tried: failures.map(f => `${f.name}: ${f.problem.message}`) } : {},
  };
  onStep?.({ kind: 'ended', step: last });
  return reportOf([...reports, last], leftovers);
}

/** Deletes what earlier proofs left, of all runs with this prefix: also of one that is running now. Returns what is still there. */
export async function cleanUpCloud(options: {
  readonly admin: OpenStackClient;
  readonly prefix?: string;
  readonly timeoutFactor?: number;
}): Promise<{ readonly found: readonly string[]; readonly leftovers: readonly string[] }> {
  const scope = newScope(options.admin, checkedPrefix(options.prefix ?? PREFIX));
  const found = await findLeftovers(scope, AbortSignal.timeout(SWEEP_MS));
  const leftovers = found.length === 0 ? [] : await sweepAll(scope, options.timeoutFactor ?? 1);
  return { found, leftovers };
}
