/**
 * Follows the event feed for as long as the page is open: a page of events first, then the stream from there. Read with
 * fetch and not with EventSource, which hides the heartbeats: a page that hears nothing must say so.
 */
import { api, type FeedEvent } from '../api.js';
import { type FeedAction, type FeedState, NO_FEED, reduceFeed, SILENT_MS } from './reducer.js';
import { sseReader } from './sse.js';

const RETRY_MS = 1000;
const RETRY_MAX_MS = 5000;
const TICK_MS = 1000;

export interface Feed {
  readonly current: () => FeedState;
  readonly subscribe: (listener: () => void) => () => void;
}

export interface FeedListener {
  /** One that was not seen before. */
  readonly onEvent: (event: FeedEvent) => void;
  /** The server answers again, or it no longer keeps what was missed: what is shown must be read anew. */
  readonly onAnew: () => void;
}

const wait = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));

export function startFeed({ onEvent, onAnew }: FeedListener): Feed {
  let state = NO_FEED;
  const listeners = new Set<() => void>();
  const dispatch = (action: FeedAction) => {
    const before = state;
    state = reduceFeed(state, action);
    if (before !== state) for (const listener of listeners) listener();
  };

  const begin = async () => {
    const page = await api.events('limit=200');
    dispatch({ type: 'page', ...page, nowMs: Date.now() });
  };

  const follow = async () => {
    const gone = new AbortController();
    let heardAt = performance.now();
    const watchdog = setInterval(() => {
      if (performance.now() - heardAt > SILENT_MS) gone.abort();
    }, TICK_MS);
    try {
      const response = await fetch('/api/v1/events', {
        headers: { accept: 'text/event-stream', 'last-event-id': String(state.lastId ?? 0) },
        signal: gone.signal,
      });
      if (!response.ok || !response.body) throw new Error(`the feed answered ${response.status}`);
      const returned = state.phase !== 'live';
      dispatch({ type: 'heard', nowMs: Date.now() });
      if (returned) onAnew();
      const text = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const read = sseReader();
      for (;;) {
        const { done, value } = await text.read();
        if (done) return;
        heardAt = performance.now();
        dispatch({ type: 'heard', nowMs: Date.now() });
        for (const item of read(value)) {
          if (item.kind !== 'message') continue;
          if (item.event === 'reload') {
            await begin();
            onAnew();
          } else {
            const event = JSON.parse(item.data) as FeedEvent;
            const isNew = event.id > (state.lastId ?? 0);
            dispatch({ type: 'event', event, nowMs: Date.now() });
            if (isNew) onEvent(event);
          }
        }
      }
    } finally {
      clearInterval(watchdog);
    }
  };

  setInterval(() => dispatch({ type: 'tick', nowMs: Date.now() }), TICK_MS);
  void (async () => {
    let pause = RETRY_MS;
    for (;;) {
      try {
        if (state.lastId === null) await begin();
        await follow();
        pause = RETRY_MS;
      } catch {
        pause = Math.min(pause * 1.5, RETRY_MAX_MS);
      }
      dispatch({ type: 'lost' });
      await wait(pause);
    }
  })();

  return {
    current: () => state,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
