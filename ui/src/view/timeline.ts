/** One line of time of a node: packets, milestones, steps, changes and orders together. Pure. */
import type { Why } from '../../../provisioner/node/service.js';

export interface Moment {
  readonly key: string;
  readonly atMs: number;
  readonly kind: 'state' | 'packet' | 'step' | 'event';
  readonly text: string;
  readonly tone: 'bad' | 'plain';
  /** Where it took time. */
  readonly tookMs: number | null;
}

/** Newest first. Changes of state come from the history alone: the feed tells them, too. */
export function timeline(why: Why): Moment[] {
  const moments: Moment[] = [
    ...why.history.map(
      (h, i): Moment => ({
        key: `state ${h.atMs} ${i}`,
        atMs: h.atMs,
        kind: 'state',
        text: `${h.from === null ? '' : `${h.from} → `}${h.to}: ${h.reason}`,
        tone: h.to.endsWith('-failed') ? 'bad' : 'plain',
        tookMs: null,
      }),
    ),
    ...why.trace.map(
      (t, i): Moment => ({
        key: `packet ${t.atMs} ${i}`,
        atMs: t.atMs,
        kind: 'packet',
        text: `${t.layer}: ${t.message}`,
        tone: t.silent ? 'bad' : 'plain',
        tookMs: null,
      }),
    ),
    ...(why.run?.steps ?? []).map(
      (s): Moment => ({
        key: `step ${s.step} ${s.attempt}`,
        atMs: s.beforeMs,
        kind: 'step',
        text: `${s.step}${s.attempt > 1 ? `, try ${s.attempt}` : ''}: ${{ before: 'goes on', after: 'done', failed: 'failed' }[s.state]}`,
        tone: s.state === 'failed' ? 'bad' : 'plain',
        tookMs: s.afterMs === null ? null : s.afterMs - s.beforeMs,
      }),
    ),
    ...why.events
      .filter(e => e.type !== 'node.state' && e.type !== 'node.added')
      .map(
        (e): Moment => ({
          key: `event ${e.id}`,
          atMs: e.atMs,
          kind: 'event',
          text: e.message,
          tone: e.severity === 'error' ? 'bad' : 'plain',
          tookMs: null,
        }),
      ),
  ];
  return moments.sort((a, b) => b.atMs - a.atMs);
}
