/** What is read of the server, and what is read anew when an event says that it changed. */
import { QueryClient, queryOptions } from '@tanstack/react-query';
import { isWorking } from '../../provisioner/node/lifecycle.js';
import { ApiError, api, type FeedEvent, type NodeView } from './api.js';

/** The sentences of nodes that work hold a time: they are read anew while one does. */
const WORKING_MS = 20_000;
/** Events within this are answered by one round of requests. */
const GATHER_MS = 150;
/** Above so many changed nodes at once the whole list is cheaper. */
const SINGLE_MAX = 8;

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 60_000,
      // A refusal stays one; the network comes back, and the feed says when.
      retry: (failures, error) => !(error instanceof ApiError) && failures < 2,
      refetchOnWindowFocus: false,
    },
  },
});

export const nodesQuery = queryOptions({
  queryKey: ['nodes'],
  queryFn: api.nodes,
  refetchInterval: query => (query.state.data?.some(n => isWorking(n.state)) ? WORKING_MS : false),
});
export const whyQuery = (id: string) => queryOptions({ queryKey: ['why', id], queryFn: () => api.why(id) });
export const healthQuery = queryOptions({ queryKey: ['health'], queryFn: api.health });
export const runsQuery = queryOptions({ queryKey: ['runs'], queryFn: api.runs });
export const runQuery = (id: string) => queryOptions({ queryKey: ['run', id], queryFn: () => api.run(id) });
export const planQuery = queryOptions({ queryKey: ['plan'], queryFn: api.plan, staleTime: Number.POSITIVE_INFINITY });
export const verificationQuery = queryOptions({ queryKey: ['verification'], queryFn: api.latestVerification });
export const catalogueQuery = queryOptions({ queryKey: ['catalogue'], queryFn: api.catalogue });

/** Everything is read anew, but for plans: looking at the nodes is for a person to order. */
export const readAnew = () => {
  void queryClient.invalidateQueries({ predicate: query => query.queryKey[0] !== 'plan' });
};

/** Takes events and refreshes what they touch, a few at a time. */
export function refresher(client: QueryClient): (event: FeedEvent) => void {
  const nodes = new Set<string>();
  let runs = false;
  let waiting = false;

  const flush = async () => {
    waiting = false;
    const ids = [...nodes];
    nodes.clear();
    if (runs) {
      runs = false;
      for (const key of ['runs', 'run', 'verification']) void client.invalidateQueries({ queryKey: [key] });
    }
    for (const id of ids) void client.invalidateQueries({ queryKey: ['why', id] });
    if (ids.length === 0) return;
    if (ids.length > SINGLE_MAX || client.getQueryData(nodesQuery.queryKey) === undefined) {
      void client.invalidateQueries({ queryKey: nodesQuery.queryKey });
      return;
    }
    const found = await Promise.all(
      ids.map(async id => {
        try {
          return [id, await api.node(id)] as const;
        } catch {
          return [id, null] as const;
        }
      }),
    );
    client.setQueryData<NodeView[]>(nodesQuery.queryKey, list => list && patched(list, new Map(found)));
  };

  return event => {
    if (event.nodeId !== null) nodes.add(event.nodeId);
    if (event.type.startsWith('cloud.')) runs = true;
    if (waiting) return;
    waiting = true;
    setTimeout(() => void flush(), GATHER_MS);
  };
}

/** The list with these nodes in place of what it had; null takes one out, a new one comes at the end. */
function patched(list: readonly NodeView[], changes: ReadonlyMap<string, NodeView | null>): NodeView[] {
  const known = new Set(list.map(n => n.id));
  return [
    ...list.flatMap(n => {
      const change = changes.get(n.id);
      return change === undefined ? [n] : change === null ? [] : [change];
    }),
    ...[...changes.values()].filter((n): n is NodeView => n !== null && !known.has(n.id)),
  ];
}
