/** What the page knows of the event feed, and how live that is. Pure. */
import type { FeedEvent } from '../../../provisioner/core/events.js';

export interface FeedState {
  /** Oldest first, each number once. */
  readonly events: readonly FeedEvent[];
  /** The newest event that was seen; null before the first answer. */
  readonly lastId: number | null;
  readonly phase: 'connecting' | 'live' | 'reconnecting' | 'stale';
  /** When the server was last heard, milliseconds since 1970. */
  readonly heardMs: number | null;
}

export type FeedAction =
  /** A page of events and the number to go on from: the begin, and after `reload`. */
  | { readonly type: 'page'; readonly events: readonly FeedEvent[]; readonly latestId: number; readonly nowMs: number }
  | { readonly type: 'event'; readonly event: FeedEvent; readonly nowMs: number }
  | { readonly type: 'heard'; readonly nowMs: number }
  | { readonly type: 'lost' }
  | { readonly type: 'tick'; readonly nowMs: number };

/** Events that a page keeps; older ones are on the server. */
export const EVENTS_KEPT = 1000;
/** The server's heartbeat is 15 s: two of them missed is silence. */
export const SILENT_MS = 35_000;
/** A restart of the server is shorter. */
export const STALE_MS = 10_000;

export const NO_FEED: FeedState = { events: [], lastId: null, phase: 'connecting', heardMs: null };

export function reduceFeed(state: FeedState, action: FeedAction): FeedState {
  switch (action.type) {
    case 'page':
      return {
        events: action.events.slice(-EVENTS_KEPT),
        lastId: action.latestId,
        phase: 'live',
        heardMs: action.nowMs,
      };
    case 'event': {
      const heard = { ...state, phase: 'live' as const, heardMs: action.nowMs };
      // What comes twice (a stream that was cut and resumed) is one row.
      if (state.lastId !== null && action.event.id <= state.lastId) return heard;
      return { ...heard, events: [...state.events, action.event].slice(-EVENTS_KEPT), lastId: action.event.id };
    }
    case 'heard':
      return { ...state, phase: 'live', heardMs: action.nowMs };
    case 'lost':
      return state.phase === 'live' ? { ...state, phase: 'reconnecting' } : state;
    case 'tick': {
      const silent = state.heardMs === null ? 0 : action.nowMs - state.heardMs;
      if (state.phase === 'live' && silent > SILENT_MS) return { ...state, phase: 'stale' };
      if (state.phase === 'reconnecting' && silent > STALE_MS) return { ...state, phase: 'stale' };
      return state;
    }
  }
}
