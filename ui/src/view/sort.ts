/** Orders of the table of nodes. Pure. */
import { reachedAt } from '../../../provisioner/node/filter.js';
import { NODE_STATES } from '../../../provisioner/node/lifecycle.js';
import type { NodeView } from '../../../provisioner/node/service.js';
import { toneOf } from './fleet.js';

export const SORTS = ['name', 'state', 'since', 'address', 'memory', 'roles'] as const;
export type SortField = (typeof SORTS)[number];
/** `name`, or `-name` for the other way round. */
export type Sort = SortField | `-${SortField}`;

export const isSort = (text: unknown): text is Sort =>
  typeof text === 'string' && (SORTS as readonly string[]).includes(text.replace(/^-/, ''));

// One collator: making one per comparison is what makes sorting thousands slow.
const words = new Intl.Collator('en', { numeric: true });
const RANK = { bad: 0, busy: 1, wait: 2, good: 3 };
/** Beyond every address and every size: what is not known comes last. */
const LAST = '\uffff';

const COMPARE: Readonly<Record<SortField, (a: NodeView, b: NodeView) => number>> = {
  name: (a, b) => words.compare(a.name, b.name),
  state: (a, b) => RANK[toneOf(a)] - RANK[toneOf(b)] || NODE_STATES.indexOf(a.state) - NODE_STATES.indexOf(b.state),
  since: (a, b) => b.stateSinceMs - a.stateSinceMs,
  address: (a, b) => words.compare(reachedAt(a) ?? LAST, reachedAt(b) ?? LAST),
  memory: (a, b) => (a.status.inventory?.memory.totalBytes ?? 0) - (b.status.inventory?.memory.totalBytes ?? 0),
  roles: (a, b) => words.compare(a.spec.roles.join() || LAST, b.spec.roles.join() || LAST),
};

/** Equal rows stand by name, so that the order is the same every time. */
export function sorted(nodes: readonly NodeView[], sort: Sort): NodeView[] {
  const turned = sort.startsWith('-');
  const compare = COMPARE[sort.replace(/^-/, '') as SortField];
  return [...nodes].sort((a, b) => (turned ? compare(b, a) : compare(a, b)) || words.compare(a.name, b.name));
}

/** A click on a column: by it, then the other way round, then back. */
export const nextSort = (sort: Sort, field: SortField): Sort => (sort === field ? `-${field}` : field);
