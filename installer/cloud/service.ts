/** The cloud half as the API sees it: plans, applies, looks for drift, proves. One thing at a time changes the cloud. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunningCloud } from '../../provisioner/core/cloud-host.js';
import {
  type ActionView,
  type ApplyOptions,
  type ApplyResult,
  asVerifyReport,
  type CloudCredentials,
  type PlanOptions,
  type PlanView,
  planSummary,
  type VerifyOptions,
  type VerifyReport,
} from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { asProblem, fail, ProblemError } from '../../provisioner/core/problem.js';
import { planHash } from '../engine/diff.js';
import type { Planned } from '../engine/run.js';
import { checkImport } from '../images/import.js';
import { IMAGE_KIND, runImageImport } from '../images/run.js';
import { openSitePki } from '../pki/site.js';
import {
  prepareRemoval,
  REMOVE_KIND,
  type Removal,
  type RemovalInput,
  type RestResult,
  walkRemoval,
} from '../remove/removal.js';
import { openCloudSecrets } from '../secrets/secrets.js';
import { APPLY_KIND, settleOpenSteps, type WalkResult, walkPlan } from './apply.js';
import { makePlan, type PlannerDeps, type ReadyPlan } from './planner.js';
import { runSecurity, SECURITY_KIND } from './security.js';
import { checkSteps, runVerification, VERIFY_KIND } from './verification.js';

/** Runs of the journal that are looked through for a measure of what actions take. */
const RUNS_LOOKED_AT = 20;
/** A run that is taken up again more often than this has a cause that a restart does not mend. */
const ROUNDS_MAX = 5;
/** Runs that are not taken up by the next server: they are begun anew. */
const CUT_OFF: Readonly<Record<string, string>> = {
  [VERIFY_KIND]: 'A verification',
  [SECURITY_KIND]: 'A security check',
  [IMAGE_KIND]: 'The import of an image',
};

export function createCloudService(deps: PlannerDeps): RunningCloud {
  const { journal, events, clock, log } = deps;
  const stop = new AbortController();
  let busy: { readonly runId: string; readonly work: Promise<void> } | null = null;

  const measured = async (): Promise<Map<string, number>> => {
    const took = new Map<string, number>();
    for (const run of (await journal.list({ limit: RUNS_LOOKED_AT })).reverse()) {
      if (run.kind !== APPLY_KIND) continue;
      const stored = (run.result as { took?: Record<string, number> } | null)?.took ?? {};
      for (const [id, seconds] of Object.entries(stored)) took.set(id, seconds);
    }
    return took;
  };
  const ready = async (): Promise<ReadyPlan> => {
    const took = await measured();
    return makePlan(deps, { signal: stop.signal, expectations: { seconds: id => took.get(id) } });
  };
  const restrictTo = (plan: ReadyPlan, keep: (p: Planned) => boolean): ReadyPlan => {
    const walk = plan.walk.filter(keep);
    const actions = walk.map(w => w.action);
    return { ...plan, walk, view: { ...plan.view, actions, hash: planHash(actions) } };
  };
  /** What concerns the named nodes, and what that needs elsewhere. */
  const restrict = (plan: ReadyPlan, nodes: readonly string[] | undefined): ReadyPlan => {
    if (!nodes || nodes.length === 0) return plan;
    for (const name of nodes)
      if (!plan.view.nodes.some(n => n.name === name))
        fail('node-unknown', `${name} is no node with roles of this cloud.`);
    const byId = new Map(plan.walk.map(w => [w.action.id, w.action]));
    const wanted = new Set<string>();
    const take = (id: string) => {
      const action = byId.get(id);
      if (!action || wanted.has(id)) return;
      wanted.add(id);
      action.needs.forEach(take);
    };
    for (const { action } of plan.walk) if (nodes.includes(action.node)) take(action.id);
    const outside = new Set([...nodes, ...[...wanted].map(id => byId.get(id)!.node)]);
    const restricted = restrictTo(plan, w => wanted.has(w.action.id));
    // A refusal of a node that has no part in it stands in nobody's way.
    const findings = plan.view.findings.flatMap(f =>
      f.severity === 'hold' && f.node !== null && !outside.has(f.node)
        ? []
        : f.severity === 'refuse' && f.node !== null && plan.model !== null && !outside.has(f.node)
          ? { ...f, severity: 'warn' as const }
          : f,
    );
    return { ...restricted, view: { ...restricted.view, findings } };
  };
  const toView = (plan: ReadyPlan): PlanView => {
    const actions: ActionView[] = [...plan.view.actions];
    return {
      hash: plan.view.hash,
      createdMs: plan.view.createdMs,
      release: deps.release.name,
      nodes: plan.view.nodes,
      problems: plan.view.findings,
      actions,
      summary: planSummary(actions),
    };
  };
  const refuseBusy = () => {
    if (busy) fail('cloud-busy', `The run ${busy.runId} is at work on the cloud.`, { detail: { runId: busy.runId } });
  };
  const begin = (run: Run, work: () => Promise<void>) => {
    const done = work()
      .catch(async error => {
        // The next server takes it up.
        if (stop.signal.aborted) return;
        const p = error instanceof ProblemError ? error.problem : asProblem(error, 'internal');
        if (!(error instanceof ProblemError))
          log.error({ error: (error as Error)?.stack ?? String(error) }, 'a run of the cloud hit a bug');
        await journal.end(run.id, 'failed', p);
        await events.emit({
          type: 'cloud.done',
          severity: 'error',
          message: p.message,
          data: { runId: run.id, state: 'failed' },
        });
      })
      .catch(error => log.error({ error: String(error) }, 'the end of a run could not be recorded'))
      .finally(() => {
        busy = null;
      });
    busy = { runId: run.id, work: done };
  };

  const carryOut = async (run: Run, plan: ReadyPlan, round: number, options: ApplyOptions): Promise<void> => {
    const view = toView(plan);
    const touched = [...new Set(plan.walk.map(w => w.action.node))].filter(
      n => plan.targets.has(n) && !plan.held.has(n),
    );
    await events.emit({
      type: 'cloud.plan',
      message: `The cloud is laid down: ${view.actions.length} actions on ${view.summary.nodes} nodes.`,
      data: {
        runId: run.id,
        hash: view.hash,
        actions: view.actions.length,
        nodes: view.summary.nodes,
        expectedSeconds: view.summary.expectedSeconds,
      },
    });
    for (const node of touched) await deps.onNode(node, 'applying', null);
    const walked: WalkResult = await walkPlan(
      run,
      plan,
      { round, confirmed: options.confirmed, again: async () => restrict(await ready(), options.nodes) },
      deps,
      stop.signal,
    );
    const bad = [...walked.failed, ...walked.blocked];
    for (const node of walked.looked) {
      if (options.nodes && !options.nodes.includes(node)) continue;
      const own = bad.find(f => f.node === node);
      if (own) await deps.onNode(node, 'failed', own.problem);
      else if (!plan.held.has(node)) await deps.onNode(node, 'ready', null);
    }
    const { looked: _, ...outcome } = walked;
    const result: ApplyResult & Pick<WalkResult, 'took'> = {
      planHash: view.hash,
      actions: outcome.done + bad.length,
      ...outcome,
    };
    const state = bad.length === 0 ? 'done' : 'failed';
    await journal.end(run.id, state, result);
    await events.emit({
      type: 'cloud.done',
      severity: state === 'done' ? 'info' : 'error',
      message:
        state === 'done'
          ? `The cloud is as it should be: ${walked.done} actions in ${Math.round(walked.seconds)} s.`
          : `${walked.failed.length} of ${result.actions} actions failed, ${walked.blocked.length} wait for them: ${walked.failed[0]?.problem.message ?? ''}`,
      data: { runId: run.id, state },
    });
  };

  /** Walks the removal of a node, then brings the other nodes to what they are without it. */
  const takeOut = async (run: Run, removal: Removal, round: number): Promise<void> => {
    const { node } = removal;
    try {
      if (removal.member) await deps.onNode(node, 'applying', null);
      const applyRest = async (signal: AbortSignal): Promise<RestResult> => {
        const plan = await ready();
        refuse(plan);
        refuseDestruction(plan, []);
        const walked = await walkPlan(run, plan, { round, confirmed: [], again: ready }, deps, signal);
        return { actions: plan.view.actions.length, ...walked };
      };
      const result = await walkRemoval(run, round, removal, deps, applyRest, stop.signal);
      const bad = result.failed[0]?.problem;
      // Without roles it is ready already, and the failure is another's.
      const member = (deps.node(node)?.roles.length ?? 0) > 0;
      if (bad && member) await deps.onNode(node, 'failed', bad);
      const state = bad ? 'failed' : 'done';
      await journal.end(run.id, state, result);
      await events.emit({
        type: 'cloud.done',
        severity: bad ? 'error' : 'info',
        message: bad
          ? `${node} is ${member ? 'not out of the cloud' : 'out of the cloud, but not all is well'}: ${bad.message}`
          : `${node} is out of the cloud, and nothing of it is left: ${result.done} steps in ${Math.round(result.seconds)} s.`,
        data: { runId: run.id, state },
      });
    } finally {
      await removal.api.close();
    }
  };

  const refuse = (plan: ReadyPlan) => {
    const stands = plan.view.nodes.some(n => !plan.held.has(n.name));
    const refused = plan.view.findings.filter(f => f.severity === 'refuse' || (f.severity === 'hold' && !stands));
    if (refused.length > 0)
      fail('plan-refused', refused.map(f => (f.node === null ? f.message : `${f.node}: ${f.message}`)).join('\n'), {
        hint: refused[0]!.hint,
        detail: { problems: refused },
      });
  };

  const refuseDestruction = (plan: ReadyPlan, confirmed: readonly string[]) => {
    for (const a of plan.view.actions)
      if (a.destroys !== null && !confirmed.includes(a.node))
        fail('confirmation-missing', `On ${a.node} data would be destroyed: ${a.destroys}.`, {
          detail: { node: a.node },
        });
  };

  return {
    async plan(options: PlanOptions) {
      return toView(restrict(await ready(), options.nodes));
    },
    async drift() {
      const plan = await ready();
      // What was never there has not drifted.
      const news = new Set(plan.view.nodes.filter(n => n.expected).map(n => n.name));
      return toView(restrictTo(plan, w => !news.has(w.action.node)));
    },
    async apply(options: ApplyOptions) {
      refuseBusy();
      const plan = restrict(await ready(), options.nodes);
      refuse(plan);
      if (options.planHash !== undefined && options.planHash !== plan.view.hash)
        fail('plan-changed', `The plan ${options.planHash} is out of date: it is ${plan.view.hash} now.`);
      refuseDestruction(plan, options.confirmed);
      refuseBusy();
      const run = await journal.begin(APPLY_KIND, null, {
        hash: plan.view.hash,
        actions: plan.view.actions.length,
        nodes: options.nodes ?? null,
        confirmed: options.confirmed,
        round: 1,
      });
      begin(run, () => carryOut(run, plan, 1, options));
      return { runId: run.id };
    },
    async verify(options: VerifyOptions) {
      checkSteps(options.only);
      refuseBusy();
      const plan = await ready();
      if (!plan.model) refuse(plan);
      refuseBusy();
      const run = await journal.begin(VERIFY_KIND, null, { only: options.only ?? null, keep: options.keep ?? false });
      begin(run, async () => {
        const report = await runVerification(run, plan, options, deps, stop.signal);
        await journal.end(run.id, report.ok ? 'done' : 'failed', report);
        await events.emit({
          type: 'cloud.done',
          severity: report.ok ? 'info' : 'error',
          message: report.ok
            ? `The cloud is proved: ${report.steps.filter(s => s.state === 'passed').length} steps passed.`
            : `The proof failed: ${report.steps.find(s => s.state === 'failed')?.message ?? 'something is left over'}`,
          data: { runId: run.id, state: report.ok ? 'done' : 'failed' },
        });
      });
      return { runId: run.id };
    },
    async security() {
      refuseBusy();
      const plan = await ready();
      if (!plan.model) refuse(plan);
      refuseBusy();
      const run = await journal.begin(SECURITY_KIND, null, null);
      begin(run, async () => {
        const report = await runSecurity(run, plan, deps, stop.signal);
        await journal.end(run.id, report.ok ? 'done' : 'failed', report);
        const failed = report.steps.filter(s => s.state === 'failed');
        await events.emit({
          type: 'cloud.done',
          severity: report.ok ? 'info' : 'error',
          message: report.ok
            ? `The cloud is as secure as it was laid down: ${report.steps.filter(s => s.state === 'passed').length} checks passed.`
            : `${failed.length} security checks failed: ${failed[0]?.title}: ${failed[0]?.message}`,
          data: { runId: run.id, state: report.ok ? 'done' : 'failed' },
        });
      });
      return { runId: run.id };
    },
    async latestVerification(): Promise<VerifyReport | null> {
      const runs = await journal.list({ limit: 200 });
      for (const run of runs) {
        const report = run.kind === VERIFY_KIND && run.state !== 'running' ? asVerifyReport(run.result) : null;
        if (report) return report;
      }
      return null;
    },
    async credentials(): Promise<CloudCredentials> {
      const secrets = await openCloudSecrets(deps.secrets, clock);
      const password = secrets.names().includes('identity/admin') ? secrets.secret('identity/admin') : null;
      const plan = password === null ? null : await ready();
      if (password === null || !plan?.model)
        return fail('not-allowed-now', 'The cloud was not laid down yet: there are no credentials.');
      const { ca } = openSitePki(secrets, deps.siteName, clock);
      const caFile = join(deps.dataDir, 'cloud-ca.pem');
      mkdirSync(deps.dataDir, { recursive: true, mode: 0o700 });
      writeFileSync(caFile, ca, { mode: 0o644 });
      return {
        authUrl: `https://${plan.model.api.host}:5000/v3`,
        region: deps.settings.region,
        username: 'admin',
        password,
        project: 'admin',
        userDomain: 'Default',
        projectDomain: 'Default',
        caFile,
        ca,
      };
    },
    async importImage(options) {
      checkImport(options);
      refuseBusy();
      const run = await journal.begin(IMAGE_KIND, null, { name: options.name, profile: options.profile });
      begin(run, async () => runImageImport(run, await ready(), options, deps, stop.signal));
      return { runId: run.id };
    },
    async removeNode(name, { force }) {
      refuseBusy();
      const removal = await prepareRemoval({ node: name, force }, deps, await ready(), stop.signal);
      const run = await (async () => {
        refuseBusy();
        return journal.begin(REMOVE_KIND, null, { node: name, force, hash: removal.hash });
      })().catch(async error => {
        await removal.api.close();
        throw error;
      });
      begin(run, () => takeOut(run, removal, 1));
      return { runId: run.id };
    },
    async resume() {
      const open = (await journal.list({ limit: 200 })).filter(
        r =>
          r.state === 'running' && [APPLY_KIND, VERIFY_KIND, SECURITY_KIND, REMOVE_KIND, IMAGE_KIND].includes(r.kind),
      );
      for (const run of open) {
        const again = CUT_OFF[run.kind];
        if (again !== undefined) {
          await journal.end(run.id, 'aborted', null);
          await events.emit({
            type: 'cloud.done',
            severity: 'warn',
            message: `${again} was cut off by the end of the server; start it again.${run.kind === VERIFY_KIND ? ' What it made is taken away by `halligan cloud verify --only cleanup`.' : ''}`,
            data: { runId: run.id, state: 'aborted' },
          });
          continue;
        }
        if (busy) continue;
        begin(run, async () => {
          const rounds = (await journal.steps(run.id)).map(s => Number(s.step.split('/')[0]) || 1);
          const round = Math.max(1, ...rounds) + 1;
          if (round > ROUNDS_MAX)
            fail('cloud-step-failed', `The run was taken up ${ROUNDS_MAX} times and never ended.`);
          const targets = new Map(deps.nodes().flatMap(n => (n.target ? [[n.name, n.target] as const] : [])));
          await events.emit({
            type: 'cloud.resume',
            severity: 'warn',
            message: `The server was restarted while ${run.kind === REMOVE_KIND ? 'a node was taken out of the cloud' : 'the cloud was laid down'}: it goes on where it stopped.`,
            data: { runId: run.id },
          });
          await settleOpenSteps(run, { targets }, deps, stop.signal);
          if (run.kind === REMOVE_KIND) {
            const { node, force } = run.input as RemovalInput;
            const removal = await prepareRemoval({ node, force }, deps, await ready(), stop.signal, {
              resumed: true,
            }).catch(async error => {
              if (error instanceof ProblemError) await deps.onNode(node, 'failed', error.problem);
              throw error;
            });
            return takeOut(run, removal, round);
          }
          const input = run.input as { nodes: readonly string[] | null; confirmed: readonly string[] };
          const options = { confirmed: input.confirmed, ...(input.nodes ? { nodes: input.nodes } : {}) };
          const plan = restrict(await ready(), options.nodes);
          refuse(plan);
          await carryOut(run, plan, round, options);
        });
      }
    },
    async close() {
      stop.abort(new Error('the server stops'));
      await busy?.work;
    },
  };
}
