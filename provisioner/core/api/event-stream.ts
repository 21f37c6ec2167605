/**
 * The event feed over Server-Sent Events (WHATWG HTML section 9.2). Pulled from the database, never pushed into memory: a
 * slow client holds one batch and its socket's buffer, nothing more.
 */
import type { ServerResponse } from 'node:http';
import { type Clock, sleep } from '../clock.js';
import type { EventFeed, FeedEvent } from '../events.js';

export interface EventStreamOptions {
  readonly feed: EventFeed;
  readonly clock: Clock;
  readonly response: ServerResponse;
  /** The last event that the client has seen; null to begin with what comes next. */
  readonly afterId: number | null;
  readonly nodeId?: string;
  readonly signal: AbortSignal;
  readonly heartbeatMs?: number;
  /** How long a client may take nothing before it is cut. */
  readonly stallMs?: number;
}

const BATCH = 200;

const frame = (event: FeedEvent) => `id: ${event.id}\nevent: event\ndata: ${JSON.stringify(event)}\n\n`;

/**
 * Writes events until the client goes, the signal fires or the client stalls. A client whose last event is no longer
 * kept (or comes from another database) gets one event `reload`, and goes on from the newest.
 */
export async function streamEvents(options: EventStreamOptions): Promise<void> {
  const { feed, clock, response, nodeId, heartbeatMs = 15_000, stallMs = 30_000 } = options;
  const gone = new AbortController();
  const signal = AbortSignal.any([options.signal, gone.signal]);
  response.once('close', () => gone.abort());

  const wake = wakeUp();
  const unsubscribe = feed.subscribe(event => {
    if (nodeId === undefined || event.nodeId === nodeId) wake.ring();
  });
  signal.addEventListener('abort', wake.ring, { once: true });
  const write = async (text: string) => {
    if (response.write(text) || signal.aborted) return;
    const stalled = new AbortController();
    await Promise.race([
      new Promise<void>(resolve => response.once('drain', resolve)),
      sleep(stallMs, AbortSignal.any([signal, stalled.signal])).then(() => {
        if (!stalled.signal.aborted && response.writableNeedDrain) gone.abort();
      }),
    ]);
    stalled.abort();
  };

  try {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    await write('retry: 2000\n\n');
    let cursor = options.afterId ?? (await feed.latestId());
    let heard = clock.monotonicMs();
    while (!signal.aborted) {
      // Read before the query: what comes between the two is found again, never skipped.
      const latest = await feed.latestId();
      const oldest = await feed.oldestId();
      if (cursor > latest || cursor < oldest - 1) {
        await write(`id: ${latest}\nevent: reload\ndata: ${JSON.stringify({ from: cursor, oldest, latest })}\n\n`);
        cursor = latest;
        heard = clock.monotonicMs();
        continue;
      }
      const events = await feed.after(cursor, BATCH, nodeId === undefined ? undefined : { nodeId });
      if (events.length > 0) {
        await write(events.map(frame).join(''));
        heard = clock.monotonicMs();
      }
      cursor = events.length === BATCH ? events.at(-1)!.id : Math.max(latest, events.at(-1)?.id ?? 0, cursor);
      if (events.length === BATCH) continue;
      const rest = heartbeatMs - (clock.monotonicMs() - heard);
      if (rest <= 0) {
        await write(': heartbeat\n\n');
        heard = clock.monotonicMs();
      } else await wake.wait(rest);
    }
  } finally {
    unsubscribe();
    gone.abort();
    response.destroyed || options.signal.aborted ? response.end() : response.destroy();
  }
}

/** A bell that remembers one ring. */
function wakeUp(): { ring: () => void; wait: (ms: number) => Promise<void> } {
  let rung = false;
  let answer: (() => void) | null = null;
  return {
    ring() {
      rung = true;
      answer?.();
    },
    async wait(ms) {
      if (!rung) {
        const timer = new AbortController();
        await Promise.race([
          new Promise<void>(resolve => {
            answer = resolve;
          }),
          sleep(ms, timer.signal),
        ]);
        timer.abort();
      }
      rung = false;
      answer = null;
    },
  };
}
