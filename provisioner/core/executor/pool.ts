/**
 * A bounded pool of connections, one per target, several channels on each. Who cannot be served waits in the order of
 * asking. Long followers hold a connection only while nobody else needs it: when all connections are taken, the one
 * whose holders can all give way is drained and its place goes to the one who waited longest.
 */
import type { Clock } from '../clock.js';

export interface PoolConnection {
  /** Calls back when the connection is gone; at once when it already is. */
  onClosed(callback: () => void): () => void;
  close(): void;
}

export interface Lease<C> {
  readonly connection: C;
  release(): void;
  /** Releases it, and gives it to nobody else: it does not do. The next one gets a new connection. */
  retire(): void;
}

export interface AcquireOptions {
  readonly signal?: AbortSignal;
  /** Given by holders that can give way at any time and come back later. */
  readonly onYield?: () => void;
}

export interface PoolOptions<T, C extends PoolConnection> {
  readonly key: (target: T) => string;
  readonly connect: (target: T, signal: AbortSignal) => Promise<C>;
  readonly maxConnections: number;
  readonly channelsPerConnection: number;
  readonly idleMs: number;
  /** A holder is not asked to give way before it had the connection for this long. */
  readonly minHoldMs: number;
  readonly clock: Clock;
}

export interface Pool<T, C> {
  acquire(target: T, options?: AcquireOptions): Promise<Lease<C>>;
  /** Closes every connection; those who wait are rejected. */
  close(): Promise<void>;
  stats(): { connections: number; leases: number; waiting: number };
}

interface Holder {
  readonly sinceMs: number;
  readonly onYield: (() => void) | undefined;
}

interface Entry<C> {
  readonly key: string;
  connection: C | undefined;
  readonly holders: Set<Holder>;
  /** No new holders; closed when the last one is gone, so that somebody else gets the place. */
  draining: boolean;
  idleSinceMs: number;
  idleTimer: NodeJS.Timeout | undefined;
}

interface Request<T, C> {
  readonly key: string;
  readonly target: T;
  readonly options: AcquireOptions;
  resolve(lease: Lease<C>): void;
  reject(error: unknown): void;
}

export function createPool<T, C extends PoolConnection>(options: PoolOptions<T, C>): Pool<T, C> {
  const { clock } = options;
  const entries = new Map<string, Entry<C>>();
  let queue: Request<T, C>[] = [];
  let retryTimer: NodeJS.Timeout | undefined;
  const stop = new AbortController();

  const forget = (entry: Entry<C>): void => {
    clearTimeout(entry.idleTimer);
    if (entries.get(entry.key) === entry) entries.delete(entry.key);
  };
  const drop = (entry: Entry<C>): void => {
    forget(entry);
    entry.connection?.close();
  };

  const release = (entry: Entry<C>, holder: Holder): void => {
    if (!entry.holders.delete(holder)) return;
    if (entry.holders.size === 0 && entries.get(entry.key) === entry) {
      entry.idleSinceMs = clock.monotonicMs();
      if (entry.draining) drop(entry);
      else entry.idleTimer = setTimeout(() => drop(entry), options.idleMs).unref();
    }
    pump();
  };

  const askToYield = (entry: Entry<C>): void => {
    entry.draining = true;
    for (const holder of [...entry.holders]) holder.onYield?.();
  };

  const grant = (entry: Entry<C>, request: Request<T, C>): void => {
    clearTimeout(entry.idleTimer);
    const holder: Holder = { sinceMs: clock.monotonicMs(), onYield: request.options.onYield };
    entry.holders.add(holder);
    request.resolve({
      connection: entry.connection!,
      release: () => release(entry, holder),
      retire: () => {
        if (!entry.holders.has(holder)) return;
        askToYield(entry);
        release(entry, holder);
      },
    });
  };

  const open = (request: Request<T, C>): void => {
    const entry: Entry<C> = {
      key: request.key,
      connection: undefined,
      holders: new Set(),
      draining: false,
      idleSinceMs: clock.monotonicMs(),
      idleTimer: undefined,
    };
    entries.set(entry.key, entry);
    const connecting = async () => options.connect(request.target, stop.signal);
    connecting().then(
      connection => {
        if (stop.signal.aborted) return connection.close();
        entry.connection = connection;
        entry.idleSinceMs = clock.monotonicMs();
        entry.idleTimer = setTimeout(() => drop(entry), options.idleMs).unref();
        connection.onClosed(() => {
          forget(entry);
          pump();
        });
        pump();
      },
      error => {
        entries.delete(entry.key);
        const mine = queue.filter(r => r.key === entry.key);
        queue = queue.filter(r => r.key !== entry.key);
        for (const r of mine) r.reject(error);
        pump();
      },
    );
  };

  const evictIdle = (): boolean => {
    let oldest: Entry<C> | undefined;
    for (const entry of entries.values())
      if (entry.connection && entry.holders.size === 0 && (!oldest || entry.idleSinceMs < oldest.idleSinceMs))
        oldest = entry;
    if (oldest) drop(oldest);
    return oldest !== undefined;
  };

  /** Asks the holders of as many connections as are missing to give way. */
  const drain = (missing: number): void => {
    let wanted = missing - [...entries.values()].filter(e => e.draining).length;
    if (wanted <= 0) return;
    const now = clock.monotonicMs();
    const heldMs = (entry: Entry<C>) => now - Math.max(...[...entry.holders].map(h => h.sinceMs));
    const able = [...entries.values()]
      .filter(e => e.connection && !e.draining && e.holders.size > 0 && [...e.holders].every(h => h.onYield))
      .sort((a, b) => heldMs(b) - heldMs(a));
    for (const entry of able) {
      if (wanted-- <= 0) return;
      const waitMs = options.minHoldMs - heldMs(entry);
      if (waitMs > 0) {
        clearTimeout(retryTimer);
        retryTimer = setTimeout(pump, waitMs).unref();
        return;
      }
      askToYield(entry);
    }
  };

  function pump(): void {
    if (stop.signal.aborted) return;
    const missing = new Set<string>();
    const rest: Request<T, C>[] = [];
    const asked = queue;
    queue = rest;
    for (const request of asked) {
      const entry = entries.get(request.key);
      if (entry?.connection && !entry.draining && entry.holders.size < options.channelsPerConnection) {
        grant(entry, request);
        continue;
      }
      rest.push(request);
      if (entry) continue;
      if (entries.size < options.maxConnections || evictIdle()) open(request);
      else missing.add(request.key);
    }
    if (missing.size > 0) drain(missing.size);
  }

  return {
    acquire(target, acquireOptions = {}) {
      return new Promise((resolve, reject) => {
        const { signal } = acquireOptions;
        if (stop.signal.aborted) return reject(stop.signal.reason);
        if (signal?.aborted) return reject(signal.reason);
        const onAbort = () => {
          queue = queue.filter(r => r !== request);
          reject(signal!.reason);
          pump();
        };
        const settled = <V>(action: (value: V) => void) => {
          return (value: V) => {
            signal?.removeEventListener('abort', onAbort);
            action(value);
          };
        };
        const request: Request<T, C> = {
          key: options.key(target),
          target,
          options: acquireOptions,
          resolve: settled(resolve),
          reject: settled(reject),
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        queue.push(request);
        pump();
      });
    },
    async close() {
      stop.abort(new Error('the executor was closed'));
      clearTimeout(retryTimer);
      const waiting = queue;
      queue = [];
      for (const request of waiting) request.reject(stop.signal.reason);
      const open = [...entries.values()];
      for (const entry of open) drop(entry);
      await Promise.all(
        open.map(entry => entry.connection && new Promise<void>(done => entry.connection?.onClosed(done))),
      );
    },
    stats: () => ({
      connections: entries.size,
      leases: [...entries.values()].reduce((sum, e) => sum + e.holders.size, 0),
      waiting: queue.length,
    }),
  };
}
