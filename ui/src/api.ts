/** Requests to the API of our own origin. Types are the server's own: nothing is typed twice. */
import type { Static } from 'typebox';
import type * as S from '../../provisioner/api/schemas.js';
import type { CatalogueView, PlanView, VerifyReport } from '../../provisioner/core/cloud-service.js';
import type { FeedEvent } from '../../provisioner/core/events.js';
import type { Run, StepRow } from '../../provisioner/core/journal.js';
import type { Problem } from '../../provisioner/core/problem.js';
import type { NodeAction } from '../../provisioner/node/lifecycle.js';
import type { ActionParams, NodeView, Why } from '../../provisioner/node/service.js';

export type { ActionParams, CatalogueView, FeedEvent, NodeAction, NodeView, PlanView, Run, StepRow, VerifyReport, Why };
export type Health = Static<typeof S.HealthSchema>;
export interface EventPage {
  readonly events: readonly FeedEvent[];
  readonly latestId: number;
}
/** What came of one thing of several: of an action, of switching, of roles. */
export interface ItemResult {
  readonly item: string;
  readonly ok: boolean;
  readonly problem?: Problem;
}
interface BulkResult {
  readonly results: readonly ItemResult[];
}

/** A failure as the server says it; where it says nothing, what we know. */
export class ApiError extends Error {
  constructor(readonly problem: Pick<Problem, 'code' | 'message' | 'hint'>) {
    super(problem.message);
  }
}

export const asProblem = (error: unknown): Pick<Problem, 'code' | 'message' | 'hint'> =>
  error instanceof ApiError
    ? error.problem
    : {
        code: 'internal',
        message: `The server cannot be reached: ${error instanceof Error ? error.message : String(error)}.`,
        hint: 'Is it running? This page tries again by itself.',
      };

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await fetch(`/api/v1${path}`, {
    method,
    headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  if (!response.ok) {
    let problem: Problem | undefined;
    try {
      problem = JSON.parse(text) as Problem;
    } catch {}
    throw new ApiError(
      problem?.message === undefined
        ? {
            code: 'internal',
            message: `${method} ${path} answered ${response.status}.`,
            hint: 'See the log of the server.',
          }
        : problem,
    );
  }
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

const get = <T>(path: string) => request<T>('GET', path);
const post = <T>(path: string, body: unknown) => request<T>('POST', path, body);
const at = (selector: string) => `/nodes/${encodeURIComponent(selector)}`;
/** Largest number of nodes in one request (provisioner/api/schemas.ts). */
const BULK_MAX = 1000;

async function chunked(ids: readonly string[], send: (some: readonly string[]) => Promise<BulkResult>) {
  const results: ItemResult[] = [];
  for (let i = 0; i < ids.length; i += BULK_MAX) results.push(...(await send(ids.slice(i, i + BULK_MAX))).results);
  return results;
}

export const api = {
  nodes: async () => (await get<{ nodes: NodeView[] }>('/nodes')).nodes,
  node: (id: string) => get<NodeView>(at(id)),
  why: (id: string) => get<Why>(`${at(id)}/why`),
  health: () => get<Health>('/health'),
  events: (query: string) => get<EventPage>(`/events?${query}`),
  runs: async () => (await get<{ runs: Run[] }>('/runs?limit=200')).runs,
  run: (id: string) => get<{ run: Run; steps: StepRow[] }>(`/runs/${encodeURIComponent(id)}`),
  plan: () => get<PlanView>('/cloud/plan'),
  apply: (planHash: string, confirmed: readonly string[]) =>
    post<{ runId: string }>('/cloud/apply', { planHash, confirmed }),
  verify: () => post<{ runId: string }>('/cloud/verify', {}),
  security: () => post<{ runId: string }>('/cloud/security', {}),
  latestVerification: async () => (await get<{ report: VerifyReport | null }>('/cloud/verify/latest')).report,
  catalogue: () => get<CatalogueView>('/cloud/catalogue'),
  act: (ids: readonly string[], action: NodeAction, params: ActionParams) =>
    chunked(ids, nodes => post<BulkResult>('/nodes/actions', { nodes, action, params })),
  power: (ids: readonly string[], action: 'on' | 'off' | 'cycle') =>
    chunked(ids, nodes => post<BulkResult>('/nodes/power', { nodes, action })),
  /** One after another: each is a small write. */
  async roles(ids: readonly string[], change: { add: string[]; remove: string[] }): Promise<ItemResult[]> {
    const results: ItemResult[] = [];
    for (const item of ids)
      try {
        await post(`${at(item)}/roles`, change);
        results.push({ item, ok: true });
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        results.push({ item, ok: false, problem: { ...error.problem, retry: false } as Problem });
      }
    return results;
  },
};
