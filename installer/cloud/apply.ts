/** Carries a plan out: a run of the journal whose steps are the programs on the nodes. */
import type { ActionFailure, ApplyResult, CloudEventData } from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { fail, problem } from '../../provisioner/core/problem.js';
import { type ActionReport, type Planned, runPlan } from '../engine/run.js';
import { CLOUD } from './objects.js';
import type { PlannerDeps, ReadyPlan } from './planner.js';

/** What a walk comes to; `took` is the measure of the next plan's expected seconds. */
export interface WalkResult extends Pick<ApplyResult, 'done' | 'failed' | 'blocked' | 'seconds' | 'chain'> {
  /** Nodes that were looked at in the last plan of this walk. */
  readonly looked: readonly string[];
  /** Seconds that each action took. */
  readonly took: Readonly<Record<string, number>>;
}

const SEVERITY = { begin: 'debug', ok: 'info', failed: 'error', blocked: 'warn' } as const;

export const APPLY_KIND = 'cloud-apply';

const failure = (r: ActionReport): ActionFailure => ({
  id: r.action.id,
  node: r.action.node,
  service: r.action.service,
  title: r.action.title,
  problem: r.problem ?? problem('cloud-step-failed', `${r.action.title} failed.`),
});

/** Nodes that the plan leaves as they are: the run did not bring them to what is wanted. */
const heldNodes = (plan: ReadyPlan): ActionFailure[] =>
  plan.view.findings.flatMap(f => {
    const why = f.severity === 'hold' && f.node !== null ? plan.held.get(f.node) : undefined;
    return why && f.node !== null
      ? [{ id: `${f.node}/host/look`, node: f.node, service: 'host', title: `look at ${f.node}`, problem: why }]
      : [];
  });

/** Programs at once on a node: services wait for each other more than they compute. */
const perNode = (plan: ReadyPlan): number =>
  Math.max(4, Math.min(8, ...(plan.model?.nodes.map(n => n.facts.cpus + 2) ?? [4])));

/** Programs on an emulated machine start ten times slower than on the machines that time-outs are made for. */
const EMULATED_FACTOR = 6;
const timeoutFactor = (plan: ReadyPlan, node: string): number =>
  plan.model?.nodes.some(n => n.name === node && n.facts.emulated) ? EMULATED_FACTOR : 1;

export interface WalkOptions {
  /** Grows each time that this run is taken up again: names of units are used once. */
  readonly round: number;
  /** Nodes on which data may be destroyed. */
  readonly confirmed: readonly string[];
  /** The plan of what is left, after a node was installed. */
  readonly again: () => Promise<ReadyPlan>;
}

/** Walks the plan as part of the run. Expected failures are in the result. */
export async function walkPlan(
  run: Run,
  planned: ReadyPlan,
  { round, confirmed, again }: WalkOptions,
  deps: PlannerDeps,
  signal: AbortSignal,
): Promise<WalkResult> {
  const { events, journal } = deps;
  let plan = planned;
  /** All of this walk: actions of an earlier one may still be under way when it is planned anew. */
  const plans = [plan];
  await plan.remember();
  /** Installations go through the journal; what would destroy data without the operator's word does not go at all. */
  const guarded = (all: readonly Planned[]): readonly Planned[] =>
    all.map(p => {
      const { action } = p;
      const { node } = action;
      const wipe = confirmed.includes(node);
      if (action.destroys !== null && !wipe)
        return {
          action,
          perform: async () =>
            fail('confirmation-missing', `On ${node} data would be destroyed: ${action.destroys}.`, {
              detail: { node },
            }),
        };
      if (action.kind !== 'machine') return p;
      return {
        action,
        renews: true,
        perform: s =>
          journal.step(run.id, `machine/${node}`, 1, { wipe }, ({ resumed }) =>
            deps.machines.prepare(node, { wipe, begun: resumed }, s),
          ),
      };
    });
  const took: Record<string, number> = {};
  const ids = new Map(deps.nodes().map(n => [n.name, n.id]));
  let queue = Promise.resolve();
  const emit = (report: ActionReport) => {
    const { action, state, seconds } = report;
    if (state === 'ok' && seconds !== null) took[action.id] = Math.round(seconds * 100) / 100;
    const data: CloudEventData['cloud.action'] = {
      runId: run.id,
      id: action.id,
      node: action.node,
      service: action.service,
      title: action.title,
      state,
      seconds,
      message: report.problem?.message ?? null,
    };
    queue = queue
      .then(() =>
        events.emit({
          type: 'cloud.action',
          severity: SEVERITY[state],
          nodeId: ids.get(action.node) ?? null,
          message: report.problem?.message ?? `${action.node}: ${action.title}`,
          data: { ...data },
        }),
      )
      .then(() => {})
      .catch(error => deps.log.error({ error: String(error) }, 'an event could not be stored'));
  };
  const outcome = await runPlan(guarded(plan.walk), {
    executor: deps.executor,
    clock: deps.clock,
    target: node => plan.targets.get(node)!,
    batchOptions: node => ({
      unconfiguredUnits: plan.unconfigured.get(node) ?? [],
      bad: deps.release.bad_packages,
      timeoutFactor: timeoutFactor(plan, node),
    }),
    mask: plan.secrets.mask,
    report: emit,
    journaled: (name, input, effect) => journal.step(run.id, `${round}/${name}`, 1, input, effect),
    unitPrefix: `hal-${run.id.slice(0, 8)}-${round}`,
    perNode: perNode(plan),
    replan: async () => {
      const fresh = await again();
      const refused = fresh.view.findings.filter(f => f.severity === 'refuse');
      if (refused.length > 0) fail('plan-refused', refused.map(f => f.message).join('\n'), { hint: refused[0]!.hint });
      plan = fresh;
      plans.push(fresh);
      await plan.remember();
      return guarded(fresh.walk);
    },
    held: node => plan.held.get(node),
    signal,
  }).finally(() => Promise.all(plans.map(p => p.close())));
  await queue;
  return {
    done: outcome.done,
    seconds: Math.round(outcome.seconds * 10) / 10,
    failed: [...heldNodes(plan), ...outcome.failed.map(failure)],
    blocked: outcome.blocked.map(failure),
    chain: outcome.chain,
    looked: plan.view.nodes.filter(n => n.reachable && !n.expected).map(n => n.name),
    took,
  };
}

/**
 * After a kill of the server: programs that still run on nodes are followed to their end, so that no second one works on
 * the same thing. What they did shows in the next look.
 */
export async function settleOpenSteps(
  run: Run,
  plan: Pick<ReadyPlan, 'targets'>,
  deps: PlannerDeps,
  signal: AbortSignal,
): Promise<void> {
  const steps = await deps.journal.steps(run.id);
  await Promise.all(
    steps
      .filter(s => s.state === 'before')
      .map(async s => {
        const [round, node = CLOUD, ...rest] = s.step.split('/');
        // Installations have an end of their own, and are gone on with.
        if (round === 'machine') return;
        const target = plan.targets.get(node);
        if (!target) return;
        const unit =
          `hal-${run.id.slice(0, 8)}-${round}-${[node, ...rest].join('/').replaceAll(/[^a-z0-9]+/g, '-')}`.slice(
            0,
            200,
          );
        await deps.executor
          .detached(target, { unit, script: 'exit 1', timeoutMs: 3_600_000 }, () => {}, {
            startIfMissing: false,
            signal,
          })
          .catch(error => {
            if (signal.aborted) throw error;
            deps.log.warn({ unit, node, error: String(error) }, 'a program of an earlier server could not be followed');
          });
      }),
  );
}
