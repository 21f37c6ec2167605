import { describe, expect, it } from 'vitest';
import type { FeedEvent } from '../../../provisioner/core/events.js';
import {
  EVENTS_KEPT,
  type FeedAction,
  type FeedState,
  NO_FEED,
  reduceFeed,
  SILENT_MS,
  STALE_MS,
} from '../../../ui/src/live/reducer.js';
import { sseReader } from '../../../ui/src/live/sse.js';

const T = 1_000_000;
const event = (id: number): FeedEvent => ({
  id,
  atMs: T + id,
  type: 'node.state',
  severity: 'info',
  nodeId: 'a',
  message: `event ${id}`,
  data: {},
});
const run = (actions: readonly FeedAction[], from: FeedState = NO_FEED) => actions.reduce(reduceFeed, from);
const begin: FeedAction = { type: 'page', events: [event(1), event(2)], latestId: 2, nowMs: T };
const ids = (state: FeedState) => state.events.map(e => e.id);

describe('the stream of events', () => {
  it('is read across pieces, with heartbeats, whatever ends its lines', () => {
    const read = sseReader();
    expect(read('retry: 2000\n\nid: 7\nevent: ev')).toEqual([]);
    expect(read('ent\ndata: {"a":1}\n')).toEqual([]);
    expect(read('\n: heartbeat\n\n')).toEqual([
      { kind: 'message', id: '7', event: 'event', data: '{"a":1}' },
      { kind: 'comment' },
    ]);
    expect(read('data: one\r\ndata: two\r\n\r\n')).toEqual([
      { kind: 'message', id: '7', event: 'message', data: 'one\ntwo' },
    ]);
  });

  it('reads the same whatever the pieces are', () => {
    const text = ': heartbeat\n\nid: 1\nevent: event\ndata: x: y\n\nid: 2\ndata:z\r\n\r\nevent: reload\ndata: {}\n\n';
    const whole = sseReader()(text);
    for (let size = 1; size < 9; size++) {
      const read = sseReader();
      const items = [];
      for (let i = 0; i < text.length; i += size) items.push(...read(text.slice(i, i + size)));
      expect(items, `pieces of ${size}`).toEqual(whole);
    }
    expect(whole).toHaveLength(4);
  });
});

describe('the feed of a page', () => {
  it('keeps each event once, also when a resumed stream brings it again', () => {
    const live = run([begin, { type: 'event', event: event(3), nowMs: T + 1 }]);
    const resumed = run(
      [{ type: 'lost' }, ...[2, 3, 4].map((n): FeedAction => ({ type: 'event', event: event(n), nowMs: T + 2 }))],
      live,
    );
    expect(ids(resumed)).toEqual([1, 2, 3, 4]);
    expect(resumed).toMatchObject({ lastId: 4, phase: 'live', heardMs: T + 2 });
  });

  it('begins anew with a page, also where the numbers went back: the database was restored', () => {
    const state = run([begin, { type: 'event', event: event(9), nowMs: T }]);
    const anew = run([{ type: 'page', events: [event(1)], latestId: 1, nowMs: T + 5 }], state);
    expect(ids(anew)).toEqual([1]);
    expect(ids(run([{ type: 'event', event: event(2), nowMs: T + 6 }], anew))).toEqual([1, 2]);
  });

  it('says that it reconnects, and after ten seconds that it is stale, since when it last heard', () => {
    const lost = run([begin, { type: 'lost' }]);
    expect(lost.phase).toBe('reconnecting');
    expect(run([{ type: 'tick', nowMs: T + STALE_MS }], lost).phase).toBe('reconnecting');
    const stale = run([{ type: 'tick', nowMs: T + STALE_MS + 1 }, { type: 'lost' }], lost);
    expect(stale).toMatchObject({ phase: 'stale', heardMs: T });
    expect(run([{ type: 'heard', nowMs: T + 60_000 }], stale)).toMatchObject({ phase: 'live', heardMs: T + 60_000 });
  });

  it('does not call a connection live that brings no heartbeat', () => {
    const live = run([begin]);
    expect(run([{ type: 'tick', nowMs: T + SILENT_MS }], live).phase).toBe('live');
    expect(run([{ type: 'tick', nowMs: T + SILENT_MS + 1 }], live).phase).toBe('stale');
  });

  it('does not grow without bound', () => {
    const state = run(
      Array.from(
        { length: EVENTS_KEPT + 10 },
        (_, i): FeedAction => ({ type: 'event', event: event(i + 3), nowMs: T }),
      ),
      run([begin]),
    );
    expect(state.events).toHaveLength(EVENTS_KEPT);
    expect(state.events.at(-1)?.id).toBe(EVENTS_KEPT + 12);
  });
});
