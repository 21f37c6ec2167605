/** Actions and proof steps of a run as they go. */
import { useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import { api, type FeedEvent } from '../api.js';
import { useFeed } from '../live/context.js';
import { plain } from '../view/format.js';
import { type Item, itemsOf } from '../view/progress.js';
import { Since } from './parts.js';

const GLYPH: Readonly<Record<Item['state'], { glyph: string; tone: string }>> = {
  running: { glyph: '◐', tone: 'busy' },
  ok: { glyph: '●', tone: 'good' },
  failed: { glyph: '✕', tone: 'bad' },
  blocked: { glyph: '⊘', tone: 'wait' },
  skipped: { glyph: '–', tone: 'wait' },
};

/** The newest thousand events of the server, and what came since; each once. */
export function useRunEvents(): readonly FeedEvent[] {
  const past = useQuery({ queryKey: ['events', 'past'], queryFn: () => api.events('limit=1000') });
  const { events } = useFeed();
  return useMemo(() => {
    const byId = new Map<number, FeedEvent>();
    for (const event of [...(past.data?.events ?? []), ...events]) byId.set(event.id, event);
    return [...byId.values()].sort((a, b) => a.id - b.id);
  }, [past.data, events]);
}

export function Progress({ events, runId }: { events: readonly FeedEvent[]; runId: string }) {
  const items = useMemo(() => itemsOf(events, runId), [events, runId]);
  if (items.length === 0) return null;
  const of = (state: Item['state']) => items.filter(i => i.state === state).length;
  const order: readonly Item['state'][] = ['failed', 'running', 'ok', 'blocked', 'skipped'];
  const shown = [...items].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
  return (
    <section aria-labelledby="progress">
      <h2 id="progress">
        {of('ok')} done, {of('running')} under way, {of('failed')} failed
        {of('blocked') > 0 ? `, ${of('blocked')} wait` : ''}
      </h2>
      <ul className="results">
        {shown.map(item => (
          <li key={item.id} className={`tone-${GLYPH[item.state].tone}`}>
            <span aria-hidden="true">{GLYPH[item.state].glyph}</span>{' '}
            <span className="visually-hidden">{item.state}: </span>
            {plain(item.title)} <span className="quiet">{plain(item.where)}</span>{' '}
            {item.state === 'running' ? (
              <Since ms={item.sinceMs} />
            ) : item.seconds === null ? (
              ''
            ) : (
              `${item.seconds.toFixed(1)} s`
            )}
            {item.message ? <div>{plain(item.message)}</div> : null}
          </li>
        ))}
      </ul>
    </section>
  );
}
