/** What the steps share: clients, the names of this run, and what earlier steps made. */
import { sleep } from '../../provisioner/core/clock.js';
import { fail } from '../../provisioner/core/problem.js';
import type { OpenStackClient, Reply, RequestOptions } from '../openstack/client.js';
import { at, text } from '../openstack/json.js';
import type { ServiceName } from '../openstack/services.js';
import type { StepControl } from './runner.js';
import type { Scope } from './sweep.js';
import type { Reach, VerifySpec } from './types.js';

export interface TestServer {
  readonly id: string;
  readonly name: string;
  readonly letter: string;
  /** Hypervisor it was put on. */
  host: string;
  address: string;
  floating?: string;
  /** `ssh-ed25519 AAAA…`, as it last wrote it to its console. */
  hostKey?: string;
}

/** What the steps have made; each is filled by the step named after it. */
export interface Made {
  computes?: readonly string[];
  project?: { readonly id: string; readonly userId: string; readonly userName: string; readonly password: string };
  /** The plain user of the run. */
  user?: OpenStackClient;
  /** The administrator in the run's project: may choose hosts. */
  operator?: OpenStackClient;
  key?: { readonly privateKey: string; readonly name: string };
  image?: string;
  flavor?: string;
  external?: { readonly id: string; readonly name: string; readonly made: boolean };
  network?: { readonly id: string; readonly subnetId: string; readonly mtu: number };
  router?: string;
  group?: string;
  /** Id of the rule that lets SSH in. */
  sshRule?: string;
  servers?: readonly TestServer[];
  volume?: string;
  marker?: string;
  bootVolume?: string;
}

export interface VerifyContext {
  readonly admin: OpenStackClient;
  readonly spec: VerifySpec;
  readonly reach: Reach;
  /** `halligan-verify-3fa9c1` */
  readonly run: string;
  readonly made: Made;
  readonly scope: Scope;
  /** Between two looks at something that takes a while. */
  readonly pollMs: number;
}

/** What an earlier step made. That it is there is what `needs` is for. */
export function made<K extends keyof Made>(context: VerifyContext, key: K): NonNullable<Made[K]> {
  const value = context.made[key];
  if (value === undefined) return fail('internal', `The proof's steps are in disorder: no ${key} yet.`);
  return value;
}

export const LOST_SERVICE_HINT =
  'The site has it: `halligan plan` shows what is not as it should be, `halligan apply` registers it in Keystone again.';

/** A failure of the proof, in the operator's terms. */
export const broken = (message: string, hint?: string, detail?: Record<string, unknown>): never =>
  fail('cloud-verify-failed', message, { ...(hint ? { hint } : {}), ...(detail ? { detail } : {}) });

/**
 * Whether the cloud has the service. One that the site has and the catalogue lacks is no reason to skip.
 * @throws ProblemError cloud-verify-failed
 */
export async function offers(
  { admin, spec }: Pick<VerifyContext, 'admin' | 'spec'>,
  service: ServiceName,
): Promise<boolean> {
  if (await admin.has(service)) return true;
  if (spec.expect?.services?.includes(service)) broken(`The catalogue lacks: ${service}.`, LOST_SERVICE_HINT);
  return false;
}

/** What an API is given to answer, before the factor. */
const REQUEST_MS = 60_000;

/** A request with the step's signal, and with the step's patience: some wait for an answer of a hypervisor. */
export async function call(
  client: OpenStackClient,
  control: Pick<StepControl, 'signal' | 'timeoutFactor'>,
  service: ServiceName,
  method: string,
  path: string,
  body?: unknown,
  options: RequestOptions = {},
): Promise<Reply> {
  return client.request(service, method, path, body, {
    signal: control.signal,
    timeoutMs: REQUEST_MS * control.timeoutFactor,
    ...options,
  });
}

/** Asks until the answer is there; `probe` says what is still missing, or returns the value. */
export async function until<T>(
  context: Pick<VerifyContext, 'pollMs'>,
  control: StepControl,
  probe: () => Promise<{ readonly done: T } | { readonly waitingFor: string }>,
): Promise<T> {
  for (;;) {
    const answer = await probe();
    if ('done' in answer) return answer.done;
    control.waitingFor(answer.waitingFor);
    await sleep(context.pollMs, control.signal);
    control.signal.throwIfAborted();
  }
}

/** Waits until a thing with a `status` has one of `good`; fails on `error` and what is named bad. */
export async function untilStatus(
  context: Pick<VerifyContext, 'pollMs'>,
  client: OpenStackClient,
  control: StepControl,
  thing: {
    readonly service: ServiceName;
    readonly path: string;
    /** Name of the object in the answer; null: the answer itself. */
    readonly key: string | null;
    readonly title: string;
    readonly good: readonly string[];
    readonly bad?: readonly string[];
    readonly hint?: string;
    /** Why it failed, when the object says so. */
    readonly reason?: (object: unknown) => string;
    readonly options?: RequestOptions;
  },
): Promise<unknown> {
  const bad = thing.bad ?? ['error', 'ERROR', 'killed', 'error_deleting'];
  return until(context, control, async () => {
    const { body } = await call(client, control, thing.service, 'GET', thing.path, undefined, thing.options);
    const object = thing.key === null ? body : at(body, thing.key);
    const status = text(object, 'status');
    if (thing.good.includes(status)) return { done: object };
    if (bad.includes(status)) {
      const said = thing.reason?.(object) ?? '';
      broken(`${thing.title} went into state ${status}${said ? `: ${said}` : ''}.`, thing.hint);
    }
    const task = text(object, 'OS-EXT-STS:task_state');
    return {
      waitingFor: `${thing.title} to become ${thing.good.join(' or ')}; it is ${status}${task ? ` (${task})` : ''}`,
    };
  });
}
