/** Makes a plan: look at the nodes, say what is wanted, compare. Nothing is changed on the way. */
import { sleep } from '../../provisioner/core/clock.js';
import type { CloudHost } from '../../provisioner/core/cloud-host.js';
import type { PlanNode, PlanProblem } from '../../provisioner/core/cloud-service.js';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import type { MachinePlan } from '../../provisioner/core/machines.js';
import { asProblem, type Problem, problem } from '../../provisioner/core/problem.js';
import { buildDesired, type DesiredState } from '../engine/desired.js';
import {
  type Action,
  diffNodes,
  type Expectations,
  groupByNode,
  planHash,
  resolveNeeds,
  unseen,
} from '../engine/diff.js';
import type { Observed } from '../engine/observe.js';
import type { Planned, ServerAction } from '../engine/run.js';
import { buildCloudModel } from '../model/build.js';
import type { Catalogue } from '../model/catalogue.js';
import type { CloudModel, NodeFacts } from '../model/cloud.js';
import { readMemory, writeMemory } from '../model/memory.js';
import { precheck } from '../model/precheck.js';
import type { ReleaseData } from '../model/releases.js';
import type { Templates } from '../model/templates.js';
import { applyObject, idsOf } from '../objects/apply.js';
import { diffObjects, leftObjects } from '../objects/diff.js';
import { observeObjects } from '../objects/observe.js';
import type { DesiredObjects, ObservedObjects } from '../objects/types.js';
import { createOpenStackClient, type OpenStackClient } from '../openstack/client.js';
import { cloudStatus } from '../openstack/errors.js';
import { nodeTls, openSitePki } from '../pki/site.js';
import { type CloudSecrets, openCloudSecrets } from '../secrets/secrets.js';
import { recallFacts, rememberFacts } from './facts-file.js';
import { lookAtFacts, lookAtState } from './look.js';
import { asAction, desiredObjects, isIdentity, objectEdges, objectKey } from './objects.js';
import { expectedFacts, nothingObserved } from './predict.js';

export interface PlannerDeps extends CloudHost {
  readonly catalogue: Catalogue;
  readonly release: ReleaseData;
  /** Renders the templates of `roles/`. */
  readonly templates: Templates;
}

export interface CloudPlan {
  readonly hash: string;
  readonly createdMs: number;
  readonly nodes: readonly PlanNode[];
  readonly findings: readonly PlanProblem[];
  /** Masked; in the order of nodes and services. */
  readonly actions: readonly Action[];
}

/** A plan with what is needed to walk it. */
export interface ReadyPlan {
  readonly view: CloudPlan;
  readonly walk: readonly Planned[];
  readonly model: CloudModel | null;
  readonly desired: DesiredState | null;
  readonly secrets: CloudSecrets;
  readonly targets: ReadonlyMap<string, SshTarget>;
  /** Nodes that are left as they are (findings of the severity `hold`), with the reason. */
  readonly held: ReadonlyMap<string, Problem>;
  /** Units per node that were never started by us: disabled when packages bring them. */
  readonly unconfigured: ReadonlyMap<string, readonly string[]>;
  client(signal?: AbortSignal): OpenStackClient;
  /** Ends the connections to APIs that walking this plan made. */
  close(): Promise<void>;
  /** Stores what this plan settles; it is done before anything of the plan is. */
  remember(): Promise<void>;
}

/** Name in the store of secrets: it is sealed and kept with them, as it is as precious. */
const MEMORY = 'remembered/cloud';
const EMPTY: ObservedObjects = { objects: {}, ids: {} };
const FORBIDDEN_TRIES = 5;
const FORBIDDEN_PAUSE_MS = 1000;
/** The look at the APIs while a plan is made: when they are slow the plan says less rather than nothing. */
const OBJECTS_TIMEOUT_MS = 60_000;

/**
 * Right after its start Keystone may refuse an administrator: its policies are read in by one thread while others judge
 * by them already (oslo.policy's Enforcer). We are never refused for another reason, so it is asked again.
 */
async function patiently(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      return await work();
    } catch (error) {
      if (cloudStatus(error) !== 403 || attempt === FORBIDDEN_TRIES) throw error;
      await sleep(FORBIDDEN_PAUSE_MS, signal);
    }
}

/** Of the findings that leave a node as it is, the first for each. */
function heldBy(findings: readonly PlanProblem[]): Map<string, Problem> {
  const held = new Map<string, Problem>();
  for (const { severity, node, message, hint } of findings)
    if (severity === 'hold' && node !== null && !held.has(node))
      held.set(node, problem('cloud-node-held', `${node}: ${message}`, { hint }));
  return held;
}

/** What we started and nobody wants any more: nothing stops it unasked, but it is said. */
function leftBehind(
  observed: ReadonlyMap<string, Observed>,
  model: CloudModel,
  catalogue: Catalogue,
): readonly PlanProblem[] {
  return [...observed].flatMap(([node, { left }]) => {
    if (left.length === 0) return [];
    const units = left.map(l => l.unit).join(' ');
    const gone = [...new Set(left.map(l => l.service))].filter(s => !model.services.some(m => m.name === s));
    const types = gone.flatMap(s => catalogue.services.get(s)?.endpoints?.map(e => e.type) ?? []);
    return {
      severity: 'warn' as const,
      node,
      message: `It still has ${units}, which the cloud started there and does not want any more.`,
      hint: `Stop ${left.length === 1 ? 'it' : 'them'} on ${node}: \`systemctl disable --now ${units}\`.${types.length > 0 ? ` The entries in Keystone stay as well: \`openstack service delete ${types.join(' ')}\`.` : ''}`,
    };
  });
}

/** @throws the signal's reason when aborted */
export async function makePlan(
  deps: PlannerDeps,
  options: { signal?: AbortSignal; expectations?: Expectations } = {},
): Promise<ReadyPlan> {
  const { signal } = options;
  const secrets = await openCloudSecrets(deps.secrets, deps.clock);
  const handed = deps.nodes();
  const facts = new Map<string, NodeFacts>();
  const problems = new Map<string, Problem>();
  const targets = new Map<string, SshTarget>();
  const findings: PlanProblem[] = [];
  const machines = new Map<string, MachinePlan>();
  await Promise.all(
    handed.map(async node => {
      if (!node.target) {
        const machine = await deps.machines.plan(node.name);
        if (machine) {
          machines.set(node.name, machine);
          const { hardware, refusal } = machine;
          if (hardware) facts.set(node.name, expectedFacts(node.name, hardware, deps.release));
          if (refusal) findings.push({ severity: 'hold', node: node.name, ...refusal });
          return;
        }
        findings.push({
          severity: 'refuse',
          node: node.name,
          message: `${node.name} has roles, but ${node.unreachableBecause ?? 'no installed system'}.`,
          hint: `Install it (halligan node install ${node.name}), adopt it, or take its roles away.`,
        });
        return;
      }
      targets.set(node.name, node.target);
      const looked = await lookAtFacts(deps, node.name, node.target, signal);
      if (looked.ok) facts.set(node.name, looked.value);
      else problems.set(node.name, looked.problem);
    }),
  );
  const views = () =>
    handed.map(n => ({
      name: n.name,
      roles: n.roles,
      reachable: facts.has(n.name) || machines.has(n.name),
      expected: machines.has(n.name),
      problem: problems.get(n.name) ?? null,
    }));
  const recalled = recallFacts(deps.dataDir);
  /** A node that is away: the others go on, unless the cloud is run from it or nothing is known of it. */
  const away = (node: string, severity: 'refuse' | 'hold', p: Problem) =>
    findings.push({
      severity,
      node,
      message: `It cannot be looked at: ${p.message}`,
      hint:
        p.code === 'ssh-failed'
          ? `Bring ${node} back (power, network, sshd); the next \`halligan apply\` takes it along.`
          : p.hint,
    });
  const known = new Map(facts);
  for (const { id, name, roles } of handed) {
    const p = problems.get(name);
    if (!p) continue;
    const before = recalled.get(id);
    const leads = roles.some(r => deps.catalogue.roles.get(r)?.services.includes('identity'));
    away(name, before && !leads ? 'hold' : 'refuse', p);
    if (before) known.set(name, before);
  }
  if (facts.size > 0)
    rememberFacts(
      deps.dataDir,
      new Map(
        handed.flatMap(({ id, name }) => {
          const seen = known.get(name);
          return seen ? [[id, seen] as const] : [];
        }),
      ),
    );

  const installs = [...machines].map(([name, machine]) => installation(name, machine, deps));
  const installsOnly = installs.map(i => i.action);
  const withoutCloud = (): ReadyPlan => ({
    view: {
      hash: planHash(installsOnly),
      createdMs: deps.clock.nowMs(),
      nodes: views(),
      findings,
      actions: installsOnly,
    },
    walk: installs,
    model: null,
    desired: null,
    secrets,
    targets,
    held: heldBy(findings),
    unconfigured: new Map(),
    client: () => {
      throw new Error('there is no cloud');
    },
    close: async () => {},
    remember: async () => {},
  });
  const memory = readMemory(await deps.secrets.get(MEMORY));
  const modelOf = (leftOut: ReadonlySet<string>) =>
    buildCloudModel({
      siteName: deps.siteName,
      domain: deps.domain,
      settings: deps.settings,
      release: deps.release,
      catalogue: deps.catalogue,
      memory,
      unseen: handed.map(n => n.name).filter(n => !known.has(n) || leftOut.has(n)),
      nodes: handed.flatMap(n => {
        const seen = known.get(n.name);
        const address = n.target?.address ?? machines.get(n.name)?.address;
        if (!seen || !address || leftOut.has(n.name)) return [];
        const hostKey = n.target ? { hostKey: n.target.hostKey } : {};
        return [{ name: n.name, roles: n.roles, sshAddress: address, ...hostKey, facts: seen }];
      }),
    });
  const whole = modelOf(new Set());
  // What cannot be told of a node before it is installed must not keep the others.
  const vague = new Set(whole.ok ? [] : whole.problems.flatMap(p => (p.node && machines.has(p.node) ? [p.node] : [])));
  const built = vague.size > 0 ? modelOf(vague) : whole;
  if (!whole.ok && (built.ok || machines.size > 0))
    findings.push({
      severity: 'warn',
      node: null,
      message: `Not all can be planned before ${[...machines.keys()].join(', ')} ${machines.size === 1 ? 'is' : 'are'} installed: ${whole.problems.map(p => (p.node ? `${p.node}: ${p.message}` : p.message)).join(' ')}`,
      hint: 'The rest is planned then, and carried out where it destroys nothing.',
    });
  if (!built.ok) {
    if (machines.size === 0)
      findings.push(
        ...built.problems.map(p => ({ severity: 'refuse' as const, node: p.node, message: p.message, hint: p.hint })),
      );
    return withoutCloud();
  }
  const { model } = built;
  const pki = openSitePki(secrets, deps.siteName, deps.clock);
  const desired = buildDesired({
    catalogue: deps.catalogue,
    model,
    secret: secrets.secret,
    tls: node => nodeTls(pki, model, node),
    template: deps.templates.render,
    sources: deps.packageSources,
    outside: ['identity:catalog'],
  });
  // Stored before anything is made of them: a key that is on a node and nowhere else would be lost.
  const objects = desiredObjects(deps.catalogue, model, user => secrets.secret(`identity/${user}`));
  for (const o of objects) if (o.kind === 'user') o.password();
  const passwordKey = secrets.secret('objects/password-key', 'hex');
  const adminPassword = secrets.secret('identity/admin');
  await secrets.flush();

  const byNode = groupByNode(desired.placed);
  const observed = new Map<string, Observed>();
  const bad = [...new Set(deps.release.bad_packages.map(b => b.package))];
  const awake = model.nodes.filter(n => facts.has(n.name));
  await Promise.all(
    awake.map(async node => {
      if (machines.has(node.name)) {
        observed.set(node.name, nothingObserved(node.name));
        return;
      }
      const target = targets.get(node.name)!;
      const looked = await lookAtState(deps, node.name, target, byNode.get(node.name) ?? [], bad, signal);
      if (looked.ok) observed.set(node.name, looked.value);
      else away(node.name, node.services.includes('identity') ? 'refuse' : 'hold', looked.problem);
    }),
  );

  findings.push(
    ...precheck(
      { ...model, nodes: awake },
      {
        release: deps.release,
        ca: { expiresMs: pki.caExpiresMs, nowMs: deps.clock.nowMs() },
        seen: Object.fromEntries(
          awake.map(n => [
            n.name,
            {
              packages: Object.fromEntries([
                ...(observed.get(n.name)?.packages ?? []),
                ...(observed.get(n.name)?.candidates ?? []),
              ]),
              expected: machines.has(n.name),
              ...(n.facts.freeMiB === undefined ? {} : { freeMiB: n.facts.freeMiB }),
            },
          ]),
        ),
      },
    ),
  );

  findings.push(...leftBehind(observed, model, deps.catalogue));

  const client = (s?: AbortSignal) =>
    createOpenStackClient({
      authUrl: `https://${model.api.host}:5000`,
      caPem: pki.ca,
      region: model.settings.region,
      credentials: {
        user: 'admin',
        password: adminPassword,
        project: 'admin',
      },
      clock: deps.clock,
      endpointInterface: 'public',
      resolve: { [model.api.host]: model.api.address },
      log: deps.log,
      ...(s ? { signal: s } : {}),
    });
  const wanted: DesiredObjects = { objects, passwordKey };
  const keystone = model.release.services['identity']?.units['api'];
  const answers = [...observed.values()].some(
    o => keystone !== undefined && o.units.get(keystone)?.active === 'active',
  );
  let seen = EMPTY;
  if (answers) {
    const looking = client(AbortSignal.any([AbortSignal.timeout(OBJECTS_TIMEOUT_MS), ...(signal ? [signal] : [])]));
    try {
      seen = await observeObjects(looking, wanted, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      deps.log.info({ error: asProblem(error).message }, 'the cloud’s objects could not be looked at');
      findings.push({
        severity: 'warn',
        node: null,
        message: `The cloud's APIs did not say what they have (${secrets.mask(asProblem(error).message)}): all objects are planned as new.`,
        hint: 'What exists is left as it is when the plan is applied.',
      });
    } finally {
      await looking.close();
    }
  }
  const objectActions = diffObjects(wanted, seen);
  for (const { object, changes, why } of leftObjects(wanted, seen))
    findings.push({
      severity: 'warn',
      node: null,
      message: `${object} is not what the site says, and is left as it is: ${changes.map(c => `${c.field} ${JSON.stringify(c.from)}, not ${JSON.stringify(c.to)}`).join(', ')}.`,
      hint: why,
    });
  const edges = objectEdges(objectActions, desired.milestones);
  const identity = objectActions.filter(isIdentity).map(a => objectKey(a.id));
  const outside = new Map([['identity:catalog', identity]]);
  const nodeActions = diffNodes(desired, observed, outside, secrets.mask, options.expectations);
  const everything = new Set([
    ...nodeActions.map(a => a.action.id),
    ...objectActions.map(a => objectKey(a.id)),
    ...unseen(desired, observed),
  ]);
  const needsOf = resolveNeeds(new Map([...desired.before, ...edges]), everything, outside);

  const masked = (a: Action): Action => ({
    ...a,
    title: secrets.mask(a.title),
    reason: secrets.mask(a.reason),
    ...(a.diff === undefined ? {} : { diff: secrets.mask(a.diff) }),
  });
  const ids = idsOf(seen);
  let api: OpenStackClient | undefined;
  const shared: { stale: boolean } = { stale: identity.length > 0 };
  const serverActions: ServerAction[] = objectActions.map(a => ({
    action: masked(asAction(a, needsOf(objectKey(a.id)))),
    perform: async s => {
      api ??= client();
      // The catalogue of a token is that of its hour of birth.
      if (shared.stale && !isIdentity(a)) {
        shared.stale = false;
        api.renew();
      }
      await patiently(() => applyObject(api!, a, wanted, ids, s), s);
    },
  }));
  const walk: Planned[] = [
    ...installs,
    ...nodeActions.map(a => ({ ...a, action: afterInstall(masked(a.action), machines) })),
    ...serverActions,
  ];
  const unconfigured = new Map(
    [...byNode].map(([node, placed]) => {
      const stamps = observed.get(node)?.stamps;
      return [
        node,
        placed.flatMap(p =>
          p.resource.kind === 'unit' &&
          p.resource.state === 'running' &&
          ![...(stamps?.keys() ?? [])].some(k => k.endsWith(`%${p.resource.id}`))
            ? [p.resource.unit]
            : [],
        ),
      ] as const;
    }),
  );
  const actions = walk.map(w => w.action);
  return {
    view: { hash: planHash(actions), createdMs: deps.clock.nowMs(), nodes: views(), findings, actions },
    walk,
    model,
    desired,
    secrets,
    targets,
    held: heldBy(findings),
    unconfigured,
    client,
    close: async () => {
      const made = api;
      api = undefined;
      await made?.close();
    },
    remember: async () => {
      // A node that left and comes back gets a certificate of its own, with a new key.
      pki.keepOnly(handed.map(n => n.name));
      await secrets.flush();
      const text = writeMemory(model.memory);
      if (text !== writeMemory(memory)) await deps.secrets.put(MEMORY, text);
    },
  };
}

/** The installation of a node as an action of the plan. */
function installation(name: string, machine: MachinePlan, deps: PlannerDeps): ServerAction {
  return {
    action: {
      id: installId(name),
      node: name,
      service: 'machine',
      kind: 'machine',
      title: machine.title,
      reason: machine.reason,
      needs: [],
      destroys: machine.destroys,
      interrupts: machine.interrupts,
      expectedSeconds: machine.expectedSeconds,
    },
    perform: signal => deps.machines.prepare(name, { wipe: false, begun: false }, signal),
    renews: true,
  };
}

const installId = (node: string) => `${node}/machine/install`;

const afterInstall = (action: Action, machines: ReadonlyMap<string, unknown>): Action =>
  machines.has(action.node) ? { ...action, needs: [...action.needs, installId(action.node)] } : action;
