import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFeed, type FeedEvent } from '../../../provisioner/core/events.js';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';
import { createBootTrace } from '../../../provisioner/core/trace.js';

let store: Store;
beforeEach(async () => {
  store = await openStore(':memory:');
});
afterEach(async () => {
  await store.close();
});
const clock = { nowMs: () => 1234, monotonicMs: () => 0 };

describe('the event feed', () => {
  it('numbers events without gaps in the order they were stored, and tells followers after that', async () => {
    const feed = createEventFeed(store.db, clock);
    const heard: FeedEvent[] = [];
    const stop = feed.subscribe(event => heard.push(event));
    await Promise.all(Array.from({ length: 20 }, (_, i) => feed.emit({ type: 't', message: `m${i}`, data: { i } })));
    stop();
    await feed.emit({ type: 't', message: 'unheard' });
    const all = await feed.after(0, 100);
    expect(all.map(e => e.id)).toEqual(Array.from({ length: 21 }, (_, i) => i + 1));
    expect(heard).toEqual(all.slice(0, 20));
    expect(all[0]).toEqual({
      id: 1,
      atMs: 1234,
      type: 't',
      severity: 'info',
      nodeId: null,
      message: 'm0',
      data: { i: 0 },
    });
  });

  it('goes on after a number, in pages, for one node if asked', async () => {
    const feed = createEventFeed(store.db, clock);
    for (let i = 1; i <= 10; i++) await feed.emit({ type: 't', message: `${i}`, nodeId: i % 2 ? 'odd' : 'even' });
    expect((await feed.after(4, 3)).map(e => e.id)).toEqual([5, 6, 7]);
    expect((await feed.after(4, 3, { nodeId: 'even' })).map(e => e.id)).toEqual([6, 8, 10]);
    expect(await feed.after(10, 3)).toEqual([]);
  });

  it('never gives a number twice, also when all events were trimmed', async () => {
    const feed = createEventFeed(store.db, clock);
    for (let i = 0; i < 10; i++) await feed.emit({ type: 't', message: '' });
    await feed.trim(3);
    expect([await feed.oldestId(), await feed.latestId()]).toEqual([8, 10]);
    await feed.trim(0);
    expect([await feed.oldestId(), await feed.latestId()]).toEqual([0, 0]);
    expect((await feed.emit({ type: 't', message: '' })).id).toBe(11);
  });
});

describe('the boot trace', () => {
  it('answers with what was just recorded, newest last, by MAC in any case', async () => {
    const trace = createBootTrace(store.db, clock);
    for (let i = 0; i < 5; i++)
      trace.record({ mac: '52:54:00:AA:00:01', layer: 'dhcp', message: `m${i}`, silent: i === 4 });
    trace.record({ mac: '52:54:00:aa:00:02', layer: 'tftp', message: 'other' });
    const read = await trace.read('52:54:00:aA:00:01', 3);
    expect(read.map(e => e.message)).toEqual(['m2', 'm3', 'm4']);
    expect(read[2]).toEqual({
      atMs: 1234,
      mac: '52:54:00:aa:00:01',
      layer: 'dhcp',
      message: 'm4',
      silent: true,
      data: {},
    });
    await trace.close();
  });

  it('stores what is pending when it is closed', async () => {
    const trace = createBootTrace(store.db, clock);
    trace.record({ mac: 'a', layer: 'boot', message: 'last' });
    await trace.close();
    expect((await createBootTrace(store.db, clock).read('a', 1))[0]?.message).toBe('last');
  });

  it('takes a storm without growing: what does not fit is dropped, and nothing throws', async () => {
    const trace = createBootTrace(store.db, clock);
    for (let i = 0; i < 50_000; i++) trace.record({ mac: 'a', layer: 'dhcp', message: 'x' });
    await trace.close();
    expect((await trace.read('a', 100_000)).length).toBeLessThanOrEqual(2000);
  });

  it('does not stop a boot when the database is gone', async () => {
    const gone = await openStore(':memory:');
    const trace = createBootTrace(gone.db, clock);
    await gone.close();
    trace.record({ mac: 'a', layer: 'dhcp', message: 'x' });
    await trace.close();
  });
});
