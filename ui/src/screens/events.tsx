/** What happened, newest first, as it comes. */
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useMemo } from 'react';
import { useFeed } from '../live/context.js';
import { Empty, Loading, Page, Time } from '../parts/parts.js';
import { nodesQuery } from '../queries.js';
import { eventsMatching } from '../view/events.js';
import { plain } from '../view/format.js';

/** Rows that are drawn; the filter looks at all that are kept. */
const SHOWN = 300;

export function Events() {
  const { events, phase } = useFeed();
  const { data: nodes } = useQuery(nodesQuery);
  const { q = '' } = useSearch({ from: '/events' });
  const navigate = useNavigate({ from: '/events' });
  const nameOf = useMemo(() => new Map((nodes ?? []).map(n => [n.id, n.name])), [nodes]);
  const found = useMemo(() => eventsMatching(events, q, id => nameOf.get(id)), [events, q, nameOf]);
  return (
    <Page title="Events">
      <div className="bar">
        <input
          type="search"
          aria-label="Filter"
          placeholder="error node.state n07 …"
          value={q}
          onChange={e => void navigate({ search: { q: e.target.value || undefined }, replace: true })}
        />
        <span className="quiet">
          {found.length} of the newest {events.length}
        </span>
      </div>
      {phase === 'connecting' ? <Loading what="the events" /> : null}
      {phase !== 'connecting' && found.length === 0 ? (
        <Empty title={events.length === 0 ? 'Nothing happened yet.' : 'No event matches the filter.'} />
      ) : null}
      <ol className="timeline" aria-label="Events">
        {found.slice(0, SHOWN).map(e => (
          <li key={e.id} data-event={e.id} className={e.severity === 'error' ? 'tone-bad' : undefined}>
            <Time ms={e.atMs} date /> <span className="kind">{plain(e.type)}</span>{' '}
            <span className="said">
              {e.severity === 'error' ? '✕ ' : e.severity === 'warn' ? '! ' : ''}
              {plain(e.message)}{' '}
              {e.nodeId !== null && nameOf.has(e.nodeId) ? (
                <Link to="/nodes/$node" params={{ node: e.nodeId }}>
                  {plain(nameOf.get(e.nodeId)!)}
                </Link>
              ) : null}
            </span>
          </li>
        ))}
      </ol>
    </Page>
  );
}
