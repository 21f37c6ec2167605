/** All nodes: a dense table that renders only what is seen, filters that are typed, orders for many at once. */
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useMemo, useRef, useState } from 'react';
import { FILTER_FIELDS, reachedAt, readFilter } from '../../../provisioner/node/filter.js';
import { NODE_ACTIONS } from '../../../provisioner/node/lifecycle.js';
import type { NodeView } from '../api.js';
import { OrderDialog } from '../parts/order.js';
import { Act, Copyable, Empty, Failed, Loading, Page, Since, Status } from '../parts/parts.js';
import { RolesDialog } from '../parts/roles.js';
import { nodesQuery } from '../queries.js';
import { type Order, orderLabel, review } from '../view/bulk.js';
import { count, memory, plain } from '../view/format.js';
import { extend, hidden, keep, NOTHING, type Selection, toggle, toggleShown } from '../view/selection.js';
import { nextSort, type Sort, type SortField, sorted } from '../view/sort.js';

const ROW_PX = 34;

const COLUMNS: readonly { readonly title: string; readonly sort: SortField | null; readonly wide?: boolean }[] = [
  { title: 'Name', sort: 'name' },
  { title: 'What it does', sort: 'state' },
  { title: 'For', sort: 'since', wide: true },
  { title: 'Power', sort: null, wide: true },
  { title: 'Address', sort: 'address', wide: true },
  { title: 'Memory', sort: 'memory', wide: true },
  { title: 'Roles', sort: 'roles', wide: true },
];

const POWER = ['on', 'off', 'cycle'] as const;
const ORDERS: readonly Order[] = [
  ...NODE_ACTIONS.map((action): Order => ({ kind: 'action', action, params: {} })),
  ...POWER.map((action): Order => ({ kind: 'power', action })),
];

export function Nodes() {
  const nodes = useQuery(nodesQuery);
  return (
    <Page title="Nodes">
      {nodes.isPending ? <Loading what="the nodes" /> : null}
      {nodes.isError && !nodes.data ? <Failed error={nodes.error} again={() => void nodes.refetch()} /> : null}
      {nodes.data?.length === 0 ? (
        <Empty title="No node was seen yet.">
          <p>Power on a server that boots from the network, and it appears here by itself.</p>
        </Empty>
      ) : null}
      {nodes.data && nodes.data.length > 0 ? <Table nodes={nodes.data} /> : null}
    </Page>
  );
}

function Table({ nodes }: { nodes: readonly NodeView[] }) {
  const { q = '', sort = 'name' } = useSearch({ from: '/nodes' });
  const navigate = useNavigate({ from: '/nodes' });
  const filter = useMemo(() => readFilter(q), [q]);
  const rows = useMemo(() => sorted(filter.ok ? nodes.filter(filter.matches) : nodes, sort), [nodes, filter, sort]);
  const order = useMemo(() => rows.map(n => n.id), [rows]);
  const [chosen, setChosen] = useState<Selection>(NOTHING);
  const selection = useMemo(() => keep(chosen, new Set(nodes.map(n => n.id))), [chosen, nodes]);
  const [anchor, setAnchor] = useState<string | null>(null);
  const [at, setAt] = useState(0);
  const [open, setOpen] = useState<Order | 'roles' | 'menu' | null>(null);
  const selected = useMemo(() => nodes.filter(n => selection.has(n.id)), [nodes, selection]);

  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 12,
  });
  const seen = virtual.getVirtualItems();
  const before = seen[0]?.start ?? 0;
  const after = virtual.getTotalSize() - (seen.at(-1)?.end ?? 0);

  const search = (change: { q?: string | undefined; sort?: Sort | undefined }) =>
    void navigate({ search: was => ({ ...was, ...change }), replace: true });

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const { target } = event;
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      if (target instanceof HTMLElement && target.closest('input:not([type=checkbox]), select, textarea')) {
        if (event.key === 'Escape' || event.key === 'Enter') {
          // Escape would empty the field.
          event.preventDefault();
          target.blur();
        }
        return;
      }
      const last = rows.length - 1;
      const move = (to: number) => {
        setAt(to);
        virtual.scrollToIndex(to);
      };
      const row = rows[Math.min(at, last)];
      if (event.key === 'j') move(Math.min(at + 1, last));
      else if (event.key === 'k') move(Math.max(at - 1, 0));
      else if (event.key === 'x' && row) {
        setChosen(toggle(selection, row.id));
        setAnchor(row.id);
      } else if (event.key === 'Enter' && row && !(target instanceof HTMLElement && target.closest('a, button')))
        void navigate({ to: '/nodes/$node', params: { node: row.id } });
      else if (event.key === '.') {
        if (selection.size === 0 && row) setChosen(new Set([row.id]));
        setOpen('menu');
      } else return;
      event.preventDefault();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, [rows, at, selection, navigate, virtual]);

  const all = rows.length > 0 && rows.every(n => selection.has(n.id));
  const away = hidden(selection, order);
  return (
    <>
      <div className="bar">
        <input
          type="search"
          aria-label="Filter"
          aria-describedby="filter-help"
          aria-invalid={!filter.ok}
          placeholder="state:failed ram>=64 rack:B2 …"
          title={`Fields: ${FILTER_FIELDS.join(', ')}`}
          value={q}
          onChange={e => search({ q: e.target.value === '' ? undefined : e.target.value })}
        />
        <span id="filter-help" className={filter.ok ? 'quiet' : 'tone-bad'}>
          {filter.ok ? `${rows.length} of ${count(nodes.length, 'node')}` : filter.sentence}
        </span>
      </div>
      {selection.size > 0 ? (
        <section className="bulk" aria-label="Actions on the selection">
          <strong>
            {selection.size} selected{away > 0 ? `, ${away} of them hidden by the filter` : ''}
          </strong>
          <Bulk nodes={selected} open={open === 'menu'} onOpen={setOpen} />
          <Act onClick={() => setChosen(NOTHING)}>Clear</Act>
        </section>
      ) : null}
      <div className="table-box" ref={scroller} role="region" aria-label="Nodes" tabIndex={0}>
        <table className="grid" aria-rowcount={rows.length + 1}>
          <thead>
            <tr>
              <th scope="col" className="pick">
                <input
                  type="checkbox"
                  aria-label="Select all that are shown"
                  checked={all}
                  onChange={() => setChosen(toggleShown(selection, order))}
                />
              </th>
              {COLUMNS.map(c => {
                const { sort: field } = c;
                const by = field !== null && sort.replace(/^-/, '') === field;
                return (
                  <th
                    key={c.title}
                    scope="col"
                    className={c.wide ? 'wide' : undefined}
                    aria-sort={by ? (sort.startsWith('-') ? 'descending' : 'ascending') : undefined}
                  >
                    {field === null ? (
                      c.title
                    ) : (
                      <button type="button" className="sort" onClick={() => search({ sort: nextSort(sort, field) })}>
                        {c.title}
                        <span aria-hidden="true">{by ? (sort.startsWith('-') ? ' ▾' : ' ▴') : ''}</span>
                      </button>
                    )}
                  </th>
                );
              })}
            </tr>
          </thead>
          <tbody>
            {before > 0 ? (
              <tr>
                <td colSpan={COLUMNS.length + 1} style={{ height: before, padding: 0 }} />
              </tr>
            ) : null}
            {seen.map(item => {
              const node = rows[item.index]!;
              return (
                <tr
                  key={node.id}
                  aria-rowindex={item.index + 2}
                  className={item.index === at ? 'at' : undefined}
                  data-selected={selection.has(node.id)}
                >
                  <td className="pick">
                    <input
                      type="checkbox"
                      aria-label={`Select ${plain(node.name)}`}
                      checked={selection.has(node.id)}
                      onChange={() => {}}
                      onClick={e => {
                        setAt(item.index);
                        setChosen(e.shiftKey ? extend(selection, order, anchor, node.id) : toggle(selection, node.id));
                        setAnchor(node.id);
                      }}
                    />
                  </td>
                  <th scope="row">
                    <Link to="/nodes/$node" params={{ node: node.id }}>
                      {plain(node.name)}
                    </Link>
                  </th>
                  <td>
                    <Status node={node} short />
                  </td>
                  <td className="wide">
                    <Since ms={node.stateSinceMs} />
                  </td>
                  <td className="wide">{node.status.power?.state ?? '–'}</td>
                  <td className="wide">
                    <Copyable text={reachedAt(node)} />
                  </td>
                  <td className="wide">
                    {node.status.inventory ? memory(node.status.inventory.memory.totalBytes) : '–'}
                  </td>
                  <td className="wide">{plain(node.spec.roles.join(', ')) || '–'}</td>
                </tr>
              );
            })}
            {after > 0 ? (
              <tr>
                <td colSpan={COLUMNS.length + 1} style={{ height: after, padding: 0 }} />
              </tr>
            ) : null}
          </tbody>
        </table>
        {rows.length === 0 ? (
          <Empty title="No node matches the filter.">
            <Act onClick={() => search({ q: undefined })}>Show all</Act>
          </Empty>
        ) : null}
      </div>
      {open === 'roles' ? <RolesDialog nodes={selected} onClose={() => setOpen(null)} /> : null}
      {open !== null && typeof open === 'object' ? (
        <OrderDialog nodes={selected} order={open} onClose={() => setOpen(null)} />
      ) : null}
    </>
  );
}

/** What can be ordered for the selection, each with how many it fits. */
function Bulk({
  nodes,
  open,
  onOpen,
}: {
  nodes: readonly NodeView[];
  open: boolean;
  onOpen: (order: Order | 'roles') => void;
}) {
  const ref = useRef<HTMLSelectElement>(null);
  useEffect(() => {
    if (open) ref.current?.focus();
  }, [open]);
  const counted = useMemo(() => ORDERS.map(order => ({ order, can: review(nodes, order).can.length })), [nodes]);
  const main = counted.filter(c => c.order.kind === 'action' && ['claim', 'install'].includes(c.order.action));
  return (
    <>
      {main.map(({ order, can }) => (
        <Act
          key={orderLabel(order)}
          tone="main"
          why={
            can === 0 ? `None of these nodes can do that now: ${review(nodes, order).cannot[0]?.reason ?? ''}` : null
          }
          onClick={() => onOpen(order)}
        >
          {`${orderLabel(order)} ${can}`}
        </Act>
      ))}
      <Act onClick={() => onOpen('roles')}>Roles …</Act>
      <select
        ref={ref}
        aria-label="More actions"
        value=""
        onChange={e => {
          const found = counted[Number(e.target.value)];
          if (found) onOpen(found.order);
        }}
      >
        <option value="" disabled>
          More actions
        </option>
        {counted.map(({ order, can }, i) => (
          <option key={`${order.kind} ${orderLabel(order)}`} value={i}>
            {`${orderLabel(order)} ${can}`}
          </option>
        ))}
      </select>
    </>
  );
}
