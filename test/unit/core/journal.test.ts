import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../../provisioner/core/clock.js';
import { createJournal } from '../../../provisioner/core/journal.js';
import { fail } from '../../../provisioner/core/problem.js';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';

let file: string;
let stores: Store[] = [];
beforeEach(() => {
  file = join(mkdtempSync(join(tmpdir(), 'hal-journal-')), 'halligan.db');
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  stores = [];
});
/** A start of the server. The one before is not closed: that is what a kill leaves, but for the lock. */
async function start() {
  const store = await openStore(file);
  stores.push(store);
  return createJournal(store, systemClock);
}
/** The process dies inside the effect: neither an end nor a failure is recorded. */
const kill = () => {
  throw new Error('killed');
};

it('runs a finished step never again, and yields what it yielded', async () => {
  const first = await start();
  const run = await first.begin('install', null, { image: 'debian-12' });
  let times = 0;
  const effect = async () => ({ disk: '/dev/vda', n: ++times });
  expect(await first.step(run.id, 'claim', 1, {}, effect)).toEqual({ disk: '/dev/vda', n: 1 });
  const second = await start();
  expect(await second.step(run.id, 'claim', 1, {}, effect)).toEqual({ disk: '/dev/vda', n: 1 });
  expect(times).toBe(1);
  expect((await second.get(run.id))?.input).toEqual({ image: 'debian-12' });
});

it('tells a step that was killed in the middle to look before it acts', async () => {
  const first = await start();
  const run = await first.begin('install', null, null);
  const seen: boolean[] = [];
  await expect(
    first.step(run.id, 'write', 1, {}, async context => {
      seen.push(context.resumed);
      return kill();
    }),
  ).rejects.toThrow('killed');
  const second = await start();
  expect((await second.steps(run.id))[0]).toMatchObject({ step: 'write', state: 'before', afterMs: null });
  await second.step(run.id, 'write', 1, {}, async context => {
    seen.push(context.resumed);
  });
  expect(seen).toEqual([false, true]);
  expect((await second.steps(run.id))[0]).toMatchObject({ state: 'after' });
});

it('keeps a failure with its problem for that attempt, and lets the next attempt run', async () => {
  const journal = await start();
  const run = await journal.begin('install', null, null);
  let times = 0;
  const effect = async () => {
    times++;
    return fail('disk-no-match', 'No disk fits.');
  };
  for (let i = 0; i < 2; i++)
    await expect(journal.step(run.id, 'disk', 1, {}, effect)).rejects.toMatchObject({
      problem: { code: 'disk-no-match', message: 'No disk fits.' },
    });
  expect(times).toBe(1);
  expect(await journal.step(run.id, 'disk', 2, {}, async () => 'found')).toBe('found');
  expect((await journal.steps(run.id)).map(s => [s.attempt, s.state])).toEqual([
    [1, 'failed'],
    [2, 'after'],
  ]);
});

it('stops a server that a newer one has taken over from: it begins, ends and records nothing any more', async () => {
  const old = await start();
  const run = await old.begin('install', null, null);
  let began = 0;
  let takeOver = async () => {};
  const inFlight = old.step(run.id, 'long', 1, {}, async () => {
    await takeOver();
    return 'from the old one';
  });
  takeOver = async () => {
    await start();
  };
  await expect(inFlight).rejects.toMatchObject({ problem: { code: 'database-busy' } });
  const refused = { problem: { code: 'database-busy' } };
  await expect(old.begin('x', null, null)).rejects.toMatchObject(refused);
  await expect(old.end(run.id, 'done', null)).rejects.toMatchObject(refused);
  await expect(
    old.step(run.id, 'next', 1, {}, async () => {
      began++;
    }),
  ).rejects.toMatchObject(refused);
  expect(began).toBe(0);
  const now = await start();
  expect((await now.steps(run.id)).map(s => s.state)).toEqual(['before']);
  expect((await now.get(run.id))?.state).toBe('running');
});

it('refuses a run that is not there, rather than running its steps unrecorded', async () => {
  const journal = await start();
  let began = 0;
  await expect(
    journal.step('no-such-run', 'x', 1, {}, async () => {
      began++;
    }),
  ).rejects.toThrow(/FOREIGN KEY/);
  expect(began).toBe(0);
});

it('ends a run with its result and lists the newest first', async () => {
  const journal = await start();
  const a = await journal.begin('a', 'n1', null);
  await new Promise(done => setTimeout(done, 5));
  const b = await journal.begin('b', 'n1', null);
  await journal.end(a.id, 'failed', { code: 'timed-out' });
  expect((await journal.list({ nodeId: 'n1' })).map(r => [r.id, r.state])).toEqual([
    [b.id, 'running'],
    [a.id, 'failed'],
  ]);
  expect((await journal.get(a.id))?.result).toEqual({ code: 'timed-out' });
  expect(await journal.get('none')).toBeUndefined();
});
