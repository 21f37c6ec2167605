/** The feed for components. */
import { createContext, type ReactNode, useContext, useSyncExternalStore } from 'react';
import type { Feed } from './feed.js';
import type { FeedState } from './reducer.js';

const Context = createContext<Feed | null>(null);

export const FeedProvider = ({ feed, children }: { feed: Feed; children: ReactNode }) => (
  <Context.Provider value={feed}>{children}</Context.Provider>
);

export function useFeed(): FeedState {
  const feed = useContext(Context);
  if (!feed) throw new Error('a screen stands outside of FeedProvider');
  return useSyncExternalStore(feed.subscribe, feed.current);
}

const hourOf = (ms: number) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

/** Live, or it says that it is not. */
export function LiveIndicator() {
  const { phase, heardMs } = useFeed();
  const text =
    phase === 'live'
      ? 'Live'
      : phase === 'connecting'
        ? 'Connecting'
        : phase === 'reconnecting'
          ? 'Reconnecting'
          : `Stale since ${heardMs === null ? 'the start' : hourOf(heardMs)}`;
  return (
    <span className={`live live-${phase}`} role="status" data-phase={phase}>
      <span aria-hidden="true">{phase === 'live' ? '●' : phase === 'stale' ? '✕' : '◐'}</span> {text}
    </span>
  );
}
