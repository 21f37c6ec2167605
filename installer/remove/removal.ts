/**
 * Takes a node out of a running cloud as a run of the journal: looked at, planned, refused or carried out step by step.
 * A run that is taken up again looks and plans anew: what is done already is no step of the new plan.
 */
import type { ActionFailure, ApplyResult, CloudEventData } from '../../provisioner/core/cloud-service.js';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import { inputHash } from '../../provisioner/core/input-hash.js';
import type { Run } from '../../provisioner/core/journal.js';
import { asProblem, fail, type Problem, ProblemError, problem } from '../../provisioner/core/problem.js';
import type { PlannerDeps, ReadyPlan } from '../cloud/planner.js';
import { nodesWith, type Release } from '../model/cloud.js';
import type { OpenStackClient } from '../openstack/client.js';
import { observeRecords } from './observe.js';
import { type PerformDeps, performStep } from './perform.js';
import { MOVES_AT_ONCE, planRemoval, type RemovalContext, type RemovalPlan, type RemovalStep } from './plan.js';
import { leftOver, type Records } from './records.js';

export const REMOVE_KIND = 'cloud-remove-node';

export interface RemovalInput {
  readonly node: string;
  readonly force: boolean;
}

/** What the removal of one node needs of the rest of the cloud half. */
export type RemovalDeps = Pick<
  PlannerDeps,
  | 'node'
  | 'nodes'
  | 'setRoles'
  | 'onNode'
  | 'executor'
  | 'journal'
  | 'events'
  | 'clock'
  | 'log'
  | 'catalogue'
  | 'settings'
> & { readonly release: Release };

export type RemovalCloud = Pick<ReadyPlan, 'model' | 'targets' | 'client'> & {
  readonly secrets: { readonly mask: (text: string) => string };
};

export interface Removal extends RemovalInput {
  /** Whether it still has roles. */
  readonly member: boolean;
  readonly plan: RemovalPlan;
  readonly hash: string;
  readonly records: Records;
  readonly api: OpenStackClient;
  readonly perform: Omit<PerformDeps, 'applyRest'>;
}

/** Result of the run. */
export type RemovalResult = ApplyResult & {
  /** What the cloud still has on record of the node; null when that could not be looked at. */
  readonly left: readonly string[] | null;
};

/** What came of bringing the other nodes up to date. */
export interface RestResult extends Pick<ApplyResult, 'done' | 'failed' | 'blocked' | 'chain'> {
  readonly actions: number;
}

const PROBE_MS = 20_000;
const POLL_MS = 2000;

/** Looks at the node and at all that is known of it. The caller closes `api`. @throws ProblemError */
export async function prepareRemoval(
  input: RemovalInput,
  deps: RemovalDeps,
  cloud: RemovalCloud,
  signal: AbortSignal,
  options: { pollMs?: number; resumed?: boolean } = {},
): Promise<Removal> {
  const { node: name, force } = input;
  const node = deps.node(name);
  if (!node) fail('node-unknown', `${name} is no node of this site.`);
  if (node.rolesSetIn !== null)
    fail('site-owns', `${name}: its roles are set in ${node.rolesSetIn}; taken away here, they would come back.`, {
      hint: `Take \`roles\` of ${name} out there, start the server again, and then remove the node: it is drained as if it still had them.`,
    });
  const { model } = cloud;
  if (!model)
    return fail('not-allowed-now', 'There is no cloud that a node could be taken out of.', {
      hint: '`halligan plan` says what stands in the way of a cloud.',
    });

  const shellOf =
    (target: SshTarget) =>
    async (script: string, timeoutMs: number, s: AbortSignal): Promise<string> => {
      const result = await deps.executor.run(target, 'sh', { stdin: script, timeoutMs, signal: s });
      if (result.code === 0) return result.stdout;
      const words = cloud.secrets.mask(`${result.stdout}\n${result.stderr}`).trim().split('\n').slice(-3).join(' | ');
      return fail(
        'cloud-step-failed',
        `A program on ${target.address} failed with code ${result.code}: ${words.slice(0, 300)}`,
      );
    };
  const controlShell: PerformDeps['controlShell'] = service => {
    const target = cloud.targets.get(nodesWith(model, service)[0]?.name ?? '');
    return target ? shellOf(target) : null;
  };
  const unreachable = await probe(deps, node.target, node.unreachableBecause, signal);
  const api = cloud.client(signal);
  try {
    const observe = (s: AbortSignal) =>
      observeRecords(name, {
        api,
        signal: s,
        databases: new Set(model.services.flatMap(v => v.databases.map(d => d.name))),
        controlShell: service => {
          const shell = controlShell(service);
          return shell && ((script, timeoutMs) => shell(script, timeoutMs, s));
        },
      });
    const records = await observe(signal);
    const plan = planRemoval(records, {
      ...contextOf(name, deps, node.roles),
      unreachable,
      force,
      resumed: options.resumed ?? false,
    });
    if (node.roles.length === 0 && leftOver(records).length === 0 && !options.resumed)
      fail('not-allowed-now', `${name} has no role, and the cloud has nothing on record of it.`);
    if (plan.refusals.length > 0)
      fail('plan-refused', plan.refusals.map(r => r.message).join('\n'), {
        hint: plan.refusals[0]!.hint,
        detail: {
          problems: plan.refusals.map(r => ({ severity: 'refuse', node: name, message: r.message, hint: r.hint })),
        },
      });
    const { target } = node;
    return {
      node: name,
      force,
      member: node.roles.length > 0,
      plan,
      hash: inputHash(plan.stages).slice(0, 16),
      records,
      api,
      perform: {
        node: name,
        api,
        clock: deps.clock,
        pollMs: options.pollMs ?? POLL_MS,
        observe,
        nodeShell: target && unreachable === null ? shellOf(target) : null,
        controlShell,
        dropRoles: () => deps.setRoles(name, []),
      },
    };
  } catch (error) {
    await api.close();
    throw error;
  }
}

function contextOf(
  name: string,
  deps: RemovalDeps,
  roles: readonly string[],
): Omit<RemovalContext, 'unreachable' | 'force' | 'resumed'> {
  const servicesOf = (of: readonly string[]) => {
    const named = new Set(of.flatMap(r => deps.catalogue.roles.get(r)?.services ?? []));
    return [...deps.catalogue.services.values()]
      .filter(s => named.has(s.name) && (s.wanted?.(deps.settings) ?? true))
      .map(s => s.name);
  };
  const others = deps.nodes().filter(n => n.name !== name);
  return {
    node: name,
    member: roles.length > 0,
    services: servicesOf(roles),
    others: service => others.filter(n => servicesOf(n.roles).includes(service)).length,
    volumeBackend: deps.settings.volumes.backend,
    release: deps.release,
  };
}

/** Null: the node answers. */
async function probe(
  deps: RemovalDeps,
  target: SshTarget | null,
  because: string | null,
  signal: AbortSignal,
): Promise<string | null> {
  if (!target) return because ?? 'it has no installed system';
  try {
    await deps.executor.run(target, 'true', { timeoutMs: PROBE_MS, signal });
    return null;
  } catch (error) {
    if (signal.aborted || !(error instanceof ProblemError)) throw error;
    return error.problem.message.replace(/\.+$/, '');
  }
}

const SEVERITY = { begin: 'debug', ok: 'info', failed: 'error', blocked: 'warn' } as const;

/**
 * Carries the plan out as part of the run; expected failures are in the result.
 * @param round grows each time that the run is taken up again
 */
export async function walkRemoval(
  run: Run,
  round: number,
  removal: Removal,
  deps: RemovalDeps,
  applyRest: (signal: AbortSignal) => Promise<RestResult>,
  signal: AbortSignal,
): Promise<RemovalResult> {
  const { node, plan } = removal;
  const { clock, events, journal } = deps;
  const nodeId = deps.node(node)?.id ?? null;
  const startMs = clock.monotonicMs();
  const failed: ActionFailure[] = [];
  const blocked: ActionFailure[] = [];
  const chain: { id: string; title: string; seconds: number; waited: number }[] = [];
  let done = 0;
  let rest: RestResult | null = null;
  let stopped: RemovalStep | null = null;

  const idOf = (s: RemovalStep) => `${node}/${s.service}/remove:${s.key}`;
  const emit = async (
    s: RemovalStep,
    state: CloudEventData['cloud.action']['state'],
    seconds: number | null,
    message: string | null,
  ) => {
    const data: CloudEventData['cloud.action'] = {
      runId: run.id,
      id: idOf(s),
      node,
      service: s.service,
      title: s.title,
      state,
      seconds,
      message,
    };
    await events.emit({
      type: 'cloud.action',
      severity: SEVERITY[state],
      nodeId,
      message: message ?? `${node}: ${s.title}`,
      data: { ...data },
    });
  };
  const failure = (s: RemovalStep, p: Problem): ActionFailure => ({
    id: idOf(s),
    node,
    service: s.service,
    title: s.title,
    problem: p,
  });
  const performer: PerformDeps = {
    ...removal.perform,
    applyRest: async s => {
      rest = await applyRest(s);
      const bad = [...rest.failed, ...rest.blocked];
      if (bad.length > 0)
        fail('cloud-step-failed', `${bad.length} of ${rest.actions} actions on the other nodes were not done.`, {
          hint: 'Mend what failed there; the next `halligan apply` goes on from there.',
        });
    },
  };

  const carryOut = async (s: RemovalStep): Promise<number> => {
    const began = clock.monotonicMs();
    const took = () => Math.round((clock.monotonicMs() - began) / 10) / 100;
    await emit(s, 'begin', null, null);
    const deadline = AbortSignal.timeout(s.timeoutSeconds * 1000);
    try {
      const said = await journal.step(run.id, `${round}/${node}/remove/${s.key}`, 1, { order: s.order }, async () => {
        try {
          return await performStep(performer, s, AbortSignal.any([signal, deadline]));
        } catch (error) {
          if (signal.aborted || !deadline.aborted) throw error;
          return fail('timed-out', `${node}: "${s.title}" was not over after ${s.timeoutSeconds} s.`, {
            hint: `Look at what it waits for; halligan cloud remove ${node} goes on from there.`,
          });
        }
      });
      done++;
      // Told in the title: a server that was shelved is nothing to be overlooked.
      await emit(said === null ? s : { ...s, title: `${s.title}: ${said}` }, 'ok', took(), null);
    } catch (error) {
      if (signal.aborted || !(error instanceof ProblemError)) throw error;
      const p = asProblem(error, 'cloud-step-failed');
      failed.push(failure(s, p));
      // Whatever the other nodes come to, what is left of this one is looked at.
      if (s.order.kind !== 'apply') stopped ??= s;
      await emit(s, 'failed', took(), p.message);
    }
    return took();
  };

  for (const [i, stage] of plan.stages.entries()) {
    const before = stopped as RemovalStep | null;
    if (before !== null) {
      for (const s of plan.stages.slice(i).flat()) {
        const p = problem('cloud-step-blocked', `"${s.title}" waits for "${before.title}".`, {
          hint: `Mend what failed; halligan cloud remove ${node} goes on from there.`,
        });
        blocked.push(failure(s, p));
        await emit(s, 'blocked', null, p.message);
      }
      break;
    }
    // The node is out of the cloud once it has no roles: how the rest fares is not its failure.
    if (removal.member && stage.some(s => s.order.kind === 'roles')) await deps.onNode(node, 'ready', null);
    const times = new Map<RemovalStep, number>();
    const queue = [...stage];
    const worker = async () => {
      for (let s = queue.shift(); s !== undefined; s = queue.shift()) times.set(s, await carryOut(s));
    };
    await Promise.all(Array.from({ length: Math.min(MOVES_AT_ONCE, stage.length) }, worker));
    const slowest = [...times].sort((a, b) => b[1] - a[1])[0];
    if (slowest) chain.push({ id: idOf(slowest[0]), title: slowest[0].title, seconds: slowest[1], waited: 0 });
  }

  const left = await removal.perform.observe(signal).then(leftOver, error => {
    if (signal.aborted || !(error instanceof ProblemError)) throw error;
    return null;
  });
  const more = rest as RestResult | null;
  return {
    planHash: removal.hash,
    actions: plan.stages.flat().length + (more?.actions ?? 0),
    done: done + (more?.done ?? 0),
    failed: [...failed, ...(more?.failed ?? [])],
    blocked: [...blocked, ...(more?.blocked ?? [])],
    seconds: Math.round((clock.monotonicMs() - startMs) / 100) / 10,
    chain: [...chain, ...(more?.chain ?? [])],
    left,
  };
}
