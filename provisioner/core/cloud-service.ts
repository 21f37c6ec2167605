/**
 * What the operators' side asks of the cloud half. The API calls this; `installer/` implements it; they meet in the
 * composition root. Every method throws ProblemError. Nothing that leaves here carries a secret but `credentials`.
 *
 * Long work is a run of the journal (`GET /runs/RUN`): the method answers as soon as the run is recorded. How it goes on
 * is told by the event feed, with the shapes of `CloudEventData`; what came of it is the run's `result`.
 */
import type { ImageImportOptions } from './cloud-images.js';
import type { Problem } from './problem.js';

export type ActionKind = 'machine' | 'packages' | 'file' | 'directory' | 'unit' | 'command' | 'object';

/** One thing that will be done. */
export interface ActionView {
  /** Unique in the cloud: `NODE/SERVICE/RESOURCE`. */
  readonly id: string;
  /** Name of the node; of the node that answers, for objects behind an API. */
  readonly node: string;
  readonly service: string;
  readonly kind: ActionKind;
  /**
   * What will be done. It begins with its verb, which says what it means for what is there: create, install, start,
   * enable; change, set, mask; restart, reload; delete, remove.
   */
  readonly title: string;
  /** Why: "its content differs". */
  readonly reason: string;
  /** Ids of actions that must have succeeded before. */
  readonly needs: readonly string[];
  /** What data it destroys, a sentence without full stop: "everything on /dev/sdb". Null: none. */
  readonly destroys: string | null;
  /** What users notice meanwhile, a sentence without full stop. Null: nothing. */
  readonly interrupts: string | null;
  readonly expectedSeconds: number;
  /** Unified diff of a file, secrets masked. */
  readonly diff?: string;
}

export interface PlanNode {
  readonly name: string;
  readonly roles: readonly string[];
  /** False: it could not be looked at, and nothing is planned for it. */
  readonly reachable: boolean;
  /** It has no system yet: what is planned beyond its installation follows from its inventory, and is planned anew then. */
  readonly expected: boolean;
  /** Why it is not reachable, or what is wrong with it. */
  readonly problem: Problem | null;
}

/**
 * What stands in the way of a plan. `refuse`: nothing of it is applied. `hold`: this node is left as it is, and so is what
 * waits for it; the others go on, and the run ends as failed. `warn`: it is worth knowing.
 */
export interface PlanProblem {
  readonly severity: 'refuse' | 'hold' | 'warn';
  /** Name of the node, null for the cloud as a whole. */
  readonly node: string | null;
  readonly message: string;
  /** What to do about it. */
  readonly hint: string;
}

export interface PlanSummary {
  readonly actions: number;
  /** Nodes that have something to do. */
  readonly nodes: number;
  /** `NODE: what`, each once. */
  readonly destroys: readonly string[];
  readonly interrupts: readonly string[];
  /** Of the longest chain: what can run at once does. */
  readonly expectedSeconds: number;
}

export interface PlanView {
  /** Changes when anything that would be done changes; `apply` takes it, so that what was read is what is done. */
  readonly hash: string;
  readonly createdMs: number;
  readonly release: string;
  readonly nodes: readonly PlanNode[];
  readonly problems: readonly PlanProblem[];
  readonly actions: readonly ActionView[];
  readonly summary: PlanSummary;
}

export interface PlanOptions {
  /** Names; all nodes with roles when left out. */
  readonly nodes?: readonly string[];
}

export interface ApplyOptions extends PlanOptions {
  /** Refused with `plan-changed` when the plan has another hash by now. */
  readonly planHash?: string;
  /** Names of the nodes on which data may be destroyed. Refused with `confirmation-missing` where the plan destroys more. */
  readonly confirmed: readonly string[];
}

/** An action that failed, or that waited in vain (its problem then has the code `cloud-step-blocked`). */
export interface ActionFailure {
  readonly id: string;
  readonly node: string;
  readonly service: string;
  readonly title: string;
  /** Message: node, step, reason. Hint: the next action. `detail`: `unit`, `code`, `log` (the last lines) where there are. */
  readonly problem: Problem;
}

/** Result of a run of the kind `cloud-apply` or `cloud-remove-node`. */
export interface ApplyResult {
  readonly planHash: string;
  /** How many were planned. */
  readonly actions: number;
  readonly done: number;
  readonly failed: readonly ActionFailure[];
  readonly blocked: readonly ActionFailure[];
  readonly seconds: number;
  /** What would have to be faster for the whole to be faster, first to last. */
  readonly chain: readonly {
    readonly id: string;
    readonly title: string;
    readonly seconds: number;
    /** Between the end of the one before and its begin. */
    readonly waited: number;
  }[];
}

export interface VerifyOptions {
  /** Names of steps; what they need is done, too. All when left out. */
  readonly only?: readonly string[];
  /** Leave what was made, to look at it. */
  readonly keep?: boolean;
}

export interface VerifyStep {
  readonly name: string;
  readonly title: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  readonly seconds: number;
  readonly expectedSeconds: number;
  /** Why it failed or was skipped, in the user's terms; a remark where it passed. */
  readonly message: string | null;
  /** What to do, where it failed. */
  readonly hint: string | null;
}

/** Result of a run of the kind `cloud-verify`, and of `cloud-security`, whose steps are checks: those that do not apply are skipped, with the reason. */
export interface VerifyReport {
  readonly runId: string;
  readonly startedMs: number;
  readonly seconds: number;
  readonly ok: boolean;
  readonly steps: readonly VerifyStep[];
  /** What was made and could not be removed again: `server 6a0f… (halligan-verify-1)`. */
  readonly leftovers: readonly string[];
}

/** As clients of the cloud take them (openrc). */
export interface CloudCredentials {
  readonly authUrl: string;
  readonly region: string;
  readonly username: string;
  readonly password: string;
  readonly project: string;
  readonly userDomain: string;
  readonly projectDomain: string;
  /** The CA of the site, a file on the server's machine, and its content as PEM. */
  readonly caFile: string;
  readonly ca: string;
}

export interface CloudService {
  /** Looks at the nodes and says what would be done. Changes nothing; a node that does not answer costs some seconds. */
  plan(options: PlanOptions): Promise<PlanView>;
  /**
   * Begins to bring the cloud to what is wanted.
   * @throws ProblemError plan-changed, plan-refused, confirmation-missing, cloud-busy
   */
  apply(options: ApplyOptions): Promise<{ runId: string }>;
  /** What differs from what is wanted although nobody asked for a change: a plan that is looked at anew. */
  drift(): Promise<PlanView>;
  /** @throws ProblemError request-invalid for an unknown step, cloud-busy */
  verify(options: VerifyOptions): Promise<{ runId: string }>;
  /**
   * Looks whether the cloud is as secure as it should be: the OpenStack Security Guide's checks and our own. Changes nothing.
   * @throws ProblemError plan-refused where there is no cloud, cloud-busy
   */
  security(): Promise<{ runId: string }>;
  /** Of the newest verification that came to an end, or null. */
  latestVerification(): Promise<VerifyReport | null>;
  /** @throws ProblemError not-allowed-now before the cloud was laid down */
  credentials(): Promise<CloudCredentials>;
  /**
   * Begins to import an image into Glance; the run's result is an `ImportedImage`.
   * @throws ProblemError request-invalid, cloud-busy
   */
  importImage(options: ImageImportOptions): Promise<{ runId: string }>;
  /**
   * Drains a node and takes every record of it out of the cloud; its packages stay. Without `force` it is refused where
   * that would cost data or virtual machines that cannot be moved.
   * @param name of the node
   */
  removeNode(name: string, options: { readonly force: boolean }): Promise<{ runId: string }>;
}

/** Data of the events that a run of the cloud emits; each carries the id of its run. */
export interface CloudEventData {
  /** An apply begins. */
  'cloud.plan': {
    readonly runId: string;
    readonly hash: string;
    readonly actions: number;
    readonly nodes: number;
    readonly expectedSeconds: number;
  };
  /** An action began or ended. */
  'cloud.action': {
    readonly runId: string;
    readonly id: string;
    readonly node: string;
    readonly service: string;
    readonly title: string;
    readonly state: 'begin' | 'ok' | 'failed' | 'blocked';
    readonly seconds: number | null;
    /** Of the problem, where it failed or is blocked. */
    readonly message: string | null;
  };
  /** A step of a verification or a security check began or ended. */
  'cloud.check': {
    readonly runId: string;
    readonly name: string;
    readonly title: string;
    readonly state: 'begin' | VerifyStep['state'];
    readonly seconds: number | null;
    readonly message: string | null;
  };
  /** An import of an image goes on. */
  'cloud.image': { readonly runId: string; readonly name: string; readonly step: string };
  /** The run is over; its result is in the journal. */
  'cloud.done': { readonly runId: string; readonly state: 'done' | 'failed' | 'aborted' };
}

/** Services and roles with the sentences that operators read. */
export interface CatalogueView {
  readonly services: readonly {
    readonly name: string;
    readonly title: string;
    readonly sentence: string;
    readonly needs: readonly string[];
  }[];
  readonly roles: readonly RoleView[];
}

export interface RoleView {
  readonly name: string;
  readonly title: string;
  readonly sentence: string;
  readonly services: readonly string[];
  readonly limits: readonly { readonly least?: number; readonly most?: number; readonly sentence: string }[];
  readonly needs: readonly { readonly role: string; readonly sentence: string }[];
  readonly conflicts: readonly { readonly role: string; readonly sentence: string }[];
}

/** What a list of actions comes to. */
export function planSummary(actions: readonly ActionView[]): PlanSummary {
  const said = (of: (a: ActionView) => string | null) => [
    ...new Set(actions.flatMap(a => (of(a) === null ? [] : [`${a.node}: ${of(a)}`]))),
  ];
  return {
    actions: actions.length,
    nodes: new Set(actions.map(a => a.node)).size,
    destroys: said(a => a.destroys),
    interrupts: said(a => a.interrupts),
    expectedSeconds: Math.round(longest(actions)),
  };
}

/** Seconds of the longest chain of needs. */
function longest(actions: readonly ActionView[]): number {
  const byId = new Map(actions.map(a => [a.id, a]));
  const ends = new Map<string, number>();
  const end = (action: ActionView): number => {
    const known = ends.get(action.id);
    if (known !== undefined) return known;
    // A circle would be a fault of the plan; it must not hang whoever reads it.
    ends.set(action.id, 0);
    let begin = 0;
    for (const need of action.needs) {
      const before = byId.get(need);
      if (before) begin = Math.max(begin, end(before));
    }
    ends.set(action.id, begin + action.expectedSeconds);
    return begin + action.expectedSeconds;
  };
  let most = 0;
  for (const action of actions) most = Math.max(most, end(action));
  return most;
}

/** `run.result` as the result of an apply, or null when the run ended otherwise (a problem, nothing). */
export const asApplyResult = (result: unknown): ApplyResult | null => {
  const r = result as Partial<ApplyResult> | null;
  return r && typeof r === 'object' && Array.isArray(r.failed) && typeof r.done === 'number'
    ? (r as ApplyResult)
    : null;
};

/** `run.result` as the report of a verification, or null. */
export const asVerifyReport = (result: unknown): VerifyReport | null => {
  const r = result as Partial<VerifyReport> | null;
  return r && typeof r === 'object' && Array.isArray(r.steps) ? (r as VerifyReport) : null;
};
