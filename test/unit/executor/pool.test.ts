import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createPool, type Pool, type PoolConnection } from '../../../provisioner/core/executor/pool.js';

interface FakeConnection extends PoolConnection {
  readonly target: string;
  readonly open: boolean;
}
beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});
let clockMs = 0;
function setUp(options: { max?: number; channels?: number; refuse?: Set<string> } = {}) {
  clockMs = 0;
  const made: FakeConnection[] = [];
  const pool: Pool<string, FakeConnection> = createPool<string, FakeConnection>({
    key: t => t,
    connect: async target => {
      if (options.refuse?.has(target)) throw new Error(`refused ${target}`);
      let open = true;
      const callbacks = new Set<() => void>();
      const connection: FakeConnection = {
        target,
        get open() {
          return open;
        },
        onClosed: callback => {
          if (!open) queueMicrotask(callback);
          callbacks.add(callback);
          return () => callbacks.delete(callback);
        },
        close: () => {
          open = false;
          for (const callback of callbacks) queueMicrotask(callback);
        },
      };
      made.push(connection);
      return connection;
    },
    maxConnections: options.max ?? 2,
    channelsPerConnection: options.channels ?? 2,
    idleMs: 1000,
    minHoldMs: 500,
    clock: { nowMs: () => clockMs, monotonicMs: () => clockMs },
  });
  return { pool, made };
}
const pass = async (ms = 0) => {
  clockMs += ms;
  await vi.advanceTimersByTimeAsync(ms);
};
/** Order in which acquisitions are granted. */
function asker(pool: Pool<string, FakeConnection>) {
  const order: string[] = [];
  const ask = (name: string, target: string, options: Parameters<typeof pool.acquire>[1] = {}) => {
    const lease = pool.acquire(target, options);
    lease.then(
      () => order.push(name),
      () => order.push(`${name} refused`),
    );
    return lease;
  };
  return { order, ask };
}

describe('the pool', () => {
  it('gives a connection that does not do to nobody else; who follows on it gives way, who works ends first', async () => {
    const { pool, made } = setUp({ channels: 3 });
    const { order, ask } = asker(pool);
    const yielded: string[] = [];
    const bad = await ask('bad', 'a', { onYield: () => yielded.push('bad') });
    const follower = await ask('follower', 'a', {
      onYield: () => {
        yielded.push('follower');
        follower.release();
      },
    });
    const worker = await ask('worker', 'a');
    bad.retire();
    bad.retire();
    ask('next', 'a');
    await pass();
    expect(yielded).toEqual(['follower']);
    expect(order).not.toContain('next');
    worker.release();
    await pass();
    expect(order.at(-1)).toBe('next');
    expect(made.map(c => c.open)).toEqual([false, true]);
  });

  it('shares a connection up to its channels, then serves in the order of asking', async () => {
    const { pool, made } = setUp();
    const { order, ask } = asker(pool);
    const first = await ask('1', 'a');
    await ask('2', 'a');
    ask('3', 'a');
    ask('4', 'a');
    await pass();
    expect(order).toEqual(['1', '2']);
    first.release();
    first.release();
    await pass();
    expect(order).toEqual(['1', '2', '3']);
    expect(made).toHaveLength(1);
  });

  it('evicts the connection that was idle longest for a new target, never one in use', async () => {
    const { pool, made } = setUp({ max: 2 });
    const a = await pool.acquire('a');
    await pool.acquire('b');
    a.release();
    await pool.acquire('c');
    expect(made.map(c => [c.target, c.open])).toEqual([
      ['a', false],
      ['b', true],
      ['c', true],
    ]);
    expect(pool.stats()).toEqual({ connections: 2, leases: 2, waiting: 0 });
  });

  it('closes a connection that nobody used for a while', async () => {
    const { pool, made } = setUp();
    (await pool.acquire('a')).release();
    await pass(999);
    expect(made[0]!.open).toBe(true);
    await pass(2);
    expect(made[0]!.open).toBe(false);
    expect(pool.stats().connections).toBe(0);
  });

  it('asks a follower to give way to who waits, not before its time, and lets it come back', async () => {
    const { pool } = setUp({ max: 1 });
    const { order, ask } = asker(pool);
    let yielded = 0;
    const follower = await pool.acquire('a', {
      onYield: () => {
        yielded++;
        follower.release();
        ask('follower', 'a');
      },
    });
    const other = ask('other', 'b');
    await pass(499);
    expect(yielded).toBe(0);
    await pass(2);
    expect(yielded).toBe(1);
    await pass();
    expect(order).toEqual(['other']);
    (await other).release();
    await pass();
    expect(order).toEqual(['other', 'follower']);
  });

  it('does not ask while a short command runs beside the follower', async () => {
    const { pool } = setUp({ max: 1 });
    let yielded = 0;
    const follower = await pool.acquire('a', {
      onYield: () => {
        yielded++;
        follower.release();
      },
    });
    const short = await pool.acquire('a');
    pool.acquire('b').catch(() => {});
    await pass(5000);
    expect(yielded).toBe(0);
    short.release();
    await pass(1);
    expect(yielded).toBe(1);
    expect(pool.stats()).toEqual({ connections: 1, leases: 1, waiting: 0 });
  });

  it('forgets who was aborted while waiting, and serves the next', async () => {
    const { pool } = setUp({ max: 1 });
    const { order, ask } = asker(pool);
    const holder = await pool.acquire('a');
    const abort = new AbortController();
    ask('impatient', 'b', { signal: abort.signal });
    ask('patient', 'c');
    abort.abort(new Error('enough'));
    holder.release();
    await pass();
    expect(order).toEqual(['impatient refused', 'patient']);
  });

  it('gives the place of a connection that failed or broke to who waits', async () => {
    const { pool, made } = setUp({ max: 1, refuse: new Set(['bad']) });
    const { order, ask } = asker(pool);
    ask('bad 1', 'bad');
    ask('bad 2', 'bad');
    ask('good', 'a');
    await pass();
    expect(order).toEqual(['bad 1 refused', 'bad 2 refused', 'good']);
    ask('next', 'b');
    await pass();
    made[0]!.close();
    await pass();
    expect(order.at(-1)).toBe('next');
  });

  it('rejects everybody when it is closed, and closes every connection', async () => {
    const { pool, made } = setUp({ max: 1 });
    const { order, ask } = asker(pool);
    await pool.acquire('a');
    ask('waiting', 'b');
    await pool.close();
    ask('late', 'a');
    await pass();
    expect(order).toEqual(['waiting refused', 'late refused']);
    expect(made.map(c => c.open)).toEqual([false]);
  });
});
