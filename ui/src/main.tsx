/** The entry: the query client, the feed, the routes. Each screen but the first is loaded when it is opened. */
import { QueryClientProvider } from '@tanstack/react-query';
import { createRootRoute, createRoute, createRouter, lazyRouteComponent, RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { FeedProvider } from './live/context.js';
import { startFeed } from './live/feed.js';
import { Empty, Failed, Loading, Page } from './parts/parts.js';
import { queryClient, readAnew, refresher } from './queries.js';
import { Overview } from './screens/overview.js';
import { Shell } from './shell.js';
import './styles.css';
import { isSort, type Sort } from './view/sort.js';

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => (
    <Page title="No such page">
      <Empty title="There is no page at this address." />
    </Page>
  ),
  errorComponent: ({ error }) => <Failed error={error} />,
});
const text = (value: unknown): string | undefined => (value === undefined ? undefined : String(value));

export interface NodesSearch {
  q?: string | undefined;
  sort?: Sort | undefined;
}

const routes = [
  createRoute({ getParentRoute: () => root, path: '/', component: Overview }),
  createRoute({
    getParentRoute: () => root,
    path: '/nodes',
    // The address holds the view: it can be sent to a colleague.
    validateSearch: (s: Record<string, unknown>): NodesSearch => ({
      q: text(s['q']),
      sort: isSort(s['sort']) ? s['sort'] : undefined,
    }),
    component: lazyRouteComponent(() => import('./screens/nodes.js'), 'Nodes'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/nodes/$node',
    component: lazyRouteComponent(() => import('./screens/node.js'), 'NodePage'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/plan',
    component: lazyRouteComponent(() => import('./screens/plan.js'), 'PlanPage'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/rollouts',
    component: lazyRouteComponent(() => import('./screens/rollouts.js'), 'Rollouts'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/rollouts/$run',
    component: lazyRouteComponent(() => import('./screens/rollouts.js'), 'Rollout'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/cloud',
    component: lazyRouteComponent(() => import('./screens/cloud.js'), 'Cloud'),
  }),
  createRoute({
    getParentRoute: () => root,
    path: '/events',
    validateSearch: (s: Record<string, unknown>): { q?: string | undefined } => ({ q: text(s['q']) }),
    component: lazyRouteComponent(() => import('./screens/events.js'), 'Events'),
  }),
] as const;

const router = createRouter({
  routeTree: root.addChildren(routes),
  defaultPendingComponent: () => <Loading what="the page" />,
});
declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}

const feed = startFeed({ onEvent: refresher(queryClient), onAnew: readAnew });
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <FeedProvider feed={feed}>
        <RouterProvider router={router} />
      </FeedProvider>
    </QueryClientProvider>
  </StrictMode>,
);
