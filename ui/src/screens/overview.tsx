/** What needs a person first, then the fleet; what is well is quiet. */
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import type { NodeView, Run } from '../api.js';
import { OrderDialog } from '../parts/order.js';
import { Act, Empty, Failed, Loading, Page, Since } from '../parts/parts.js';
import { healthQuery, nodesQuery, runsQuery, verificationQuery } from '../queries.js';
import { few, type Order, orderLabel } from '../view/bulk.js';
import { type Attention, attention, byState, GLYPH } from '../view/fleet.js';
import { count, plain } from '../view/format.js';

/** Nodes of a line that are shown one by one. */
const SHOWN = 4;

export function Overview() {
  const nodes = useQuery(nodesQuery);
  return (
    <Page title="Overview">
      {nodes.isPending ? <Loading what="the nodes" /> : null}
      {nodes.isError && !nodes.data ? <Failed error={nodes.error} again={() => void nodes.refetch()} /> : null}
      {nodes.data ? <Fleet nodes={nodes.data} /> : null}
    </Page>
  );
}

function Fleet({ nodes }: { nodes: readonly NodeView[] }) {
  const [order, setOrder] = useState<{ nodes: readonly NodeView[]; order: Order } | null>(null);
  if (nodes.length === 0)
    return (
      <Empty title="No node was seen yet.">
        <p>
          Power on a server that boots from the network: its first DISCOVER makes it appear here by itself. A running
          host is taken over with <code>halligan node adopt ADDRESS</code>.
        </p>
      </Empty>
    );
  const lines = attention(nodes);
  return (
    <>
      <section aria-labelledby="attention">
        <h2 id="attention">Needs a person</h2>
        {lines.length === 0 ? (
          <p className="quiet">
            <span aria-hidden="true">● </span>Nothing. All that is under way goes on by itself.
          </p>
        ) : (
          <ul className="cards">
            {lines.map(line => (
              <li key={line.title + line.reason} className={`card tone-edge-${line.tone}`}>
                <Line line={line} onOrder={o => setOrder({ nodes: line.nodes, order: o })} />
              </li>
            ))}
          </ul>
        )}
      </section>
      <section aria-labelledby="fleet">
        <h2 id="fleet">{count(nodes.length, 'node')}</h2>
        <ul className="states">
          {byState(nodes).map(s => (
            <li key={s.state}>
              <Link to="/nodes" search={{ q: `state:${s.state}` }} className={`tone-${s.tone}`}>
                <span aria-hidden="true">{GLYPH[s.tone]}</span> <strong>{s.count}</strong> {s.label}
              </Link>
            </li>
          ))}
        </ul>
      </section>
      <Around />
      {order ? <OrderDialog nodes={order.nodes} order={order.order} onClose={() => setOrder(null)} /> : null}
    </>
  );
}

function Line({ line, onOrder }: { line: Attention; onOrder: (order: Order) => void }) {
  const order: Order | null = line.action === null ? null : { kind: 'action', action: line.action, params: {} };
  return (
    <>
      <div>
        <h3>
          <span aria-hidden="true" className={`tone-${line.tone}`}>
            {GLYPH[line.tone]}{' '}
          </span>
          {plain(line.title)}
        </h3>
        <p>{plain(line.reason)}</p>
        <p className="quiet">
          {line.nodes.length <= SHOWN
            ? line.nodes.map((n, i) => (
                <span key={n.id}>
                  {i === 0 ? '' : ', '}
                  <Link to="/nodes/$node" params={{ node: n.id }}>
                    {plain(n.name)}
                  </Link>
                </span>
              ))
            : plain(few(line.nodes, SHOWN))}
        </p>
      </div>
      {order ? (
        <Act tone={line.tone === 'bad' ? 'plain' : 'main'} onClick={() => onOrder(order)}>
          {`${line.tone === 'bad' ? 'Retry: ' : ''}${orderLabel(order)} ${line.nodes.length}`}
        </Act>
      ) : line.nodes.length === 1 ? (
        <Link className="act act-plain" to="/nodes/$node" params={{ node: line.nodes[0]!.id }}>
          Open
        </Link>
      ) : (
        <Link className="act act-plain" to="/nodes" search={{ q: 'is:attention' }}>
          Show
        </Link>
      )}
    </>
  );
}

/** The rollout, the cloud and the server: three different things. */
function Around() {
  const runs = useQuery(runsQuery);
  const proof = useQuery(verificationQuery);
  const health = useQuery(healthQuery);
  const run: Run | undefined = runs.data?.find(r => r.state === 'running' && r.kind.startsWith('cloud-'));
  return (
    <div className="columns">
      <section aria-labelledby="rollout">
        <h2 id="rollout">Rollout</h2>
        {run ? (
          <p>
            <span aria-hidden="true">◐ </span>
            <Link to="/rollouts/$run" params={{ run: run.id }}>
              {run.kind}
            </Link>{' '}
            goes on, for <Since ms={run.createdMs} />
          </p>
        ) : (
          <p className="quiet">
            None is under way. <Link to="/plan">Look at the plan</Link>
          </p>
        )}
      </section>
      <section aria-labelledby="cloud">
        <h2 id="cloud">Cloud</h2>
        {proof.isError ? (
          <p className="quiet">This site has no cloud.</p>
        ) : proof.data ? (
          <p className={proof.data.ok ? 'tone-good' : 'tone-bad'}>
            <span aria-hidden="true">{proof.data.ok ? '● ' : '✕ '}</span>
            {proof.data.ok ? 'Proved' : 'The proof failed'}, <Since ms={proof.data.startedMs} /> ago.{' '}
            <Link to="/cloud">Show</Link>
          </p>
        ) : (
          <p className="quiet">Not proved yet.</p>
        )}
      </section>
      <section aria-labelledby="server">
        <h2 id="server">Server</h2>
        {health.data ? (
          <ul className="plain">
            {Object.entries(health.data.services).map(([name, part]) => (
              <li key={name} className={part.ok ? undefined : 'tone-bad'}>
                <span aria-hidden="true">{part.ok ? '●' : '✕'}</span> {name}{' '}
                <span className="quiet">{plain(part.message)}</span>
              </li>
            ))}
          </ul>
        ) : (
          <p className="quiet">…</p>
        )}
      </section>
    </div>
  );
}
