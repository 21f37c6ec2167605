import { mkdtempSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';

const stores: Store[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});
async function open(file = ':memory:'): Promise<Store> {
  const store = await openStore(file);
  stores.push(store);
  return store;
}
const fresh = () => join(mkdtempSync(join(tmpdir(), 'hal-store-')), 'deeper', 'halligan.db');
const put = (db: Pick<Store['db'], 'insertInto'>, key: string) =>
  db.insertInto('meta').values({ key, value: 'x' }).execute();
const keys = async (store: Store) =>
  (await store.db.selectFrom('meta').select('key').where('key', '!=', 'epoch').orderBy('key').execute()).map(
    r => r.key,
  );

it('does not lose what others insert while a transaction is rolled back', async () => {
  const store = await open();
  const rolledBack = store.db
    .transaction()
    .execute(async tx => {
      await put(tx, 'inside');
      await new Promise(done => setTimeout(done, 50));
      throw new Error('no');
    })
    .catch(() => {});
  await new Promise(done => setTimeout(done, 10));
  await Promise.all([put(store.db, 'outside 1'), put(store.db, 'outside 2'), rolledBack]);
  expect(await keys(store)).toEqual(['outside 1', 'outside 2']);
});

it('shows a transaction to others whole or not at all', async () => {
  const store = await open();
  const counts = new Set<number>();
  let done = false;
  const reading = (async () => {
    while (!done) counts.add((await keys(store)).length);
  })();
  for (let i = 0; i < 20; i++)
    await store.db.transaction().execute(async tx => {
      await put(tx, `a${i}`);
      await put(tx, `b${i}`);
    });
  done = true;
  await reading;
  expect([...counts].filter(n => n % 2 === 1)).toEqual([]);
  expect(counts.size).toBeGreaterThan(2);
});

it('keeps what was committed, grows its epoch by one at each start, and is readable by nobody else', async () => {
  const file = fresh();
  for (const epoch of [1, 2, 3]) {
    const store = await openStore(file);
    expect(store.epoch).toBe(epoch);
    await put(store.db, `start ${epoch}`);
    await store.close();
  }
  expect(await keys(await open(file))).toEqual(['start 1', 'start 2', 'start 3']);
  for (const suffix of ['', '-wal']) expect(statSync(file + suffix).mode & 0o077).toBe(0);
});

it('refuses a database that a newer version wrote, and leaves it as it is', async () => {
  const file = fresh();
  const store = await openStore(file);
  await store.db
    .insertInto('kysely_migration' as 'meta')
    .values({ name: '999-from-the-future', timestamp: new Date().toISOString() } as never)
    .execute();
  await store.close();
  const error = await openStore(file).catch(e => e);
  expect(error.problem).toMatchObject({ code: 'database-newer' });
  expect(error.problem.message).toContain('999-from-the-future');
});

it('refuses what breaks a foreign key', async () => {
  const store = await open();
  const row = { mac: '52:54:00:00:00:01', node_id: 'nobody', first_seen_ms: 1, last_seen_ms: 1 };
  await expect(store.db.insertInto('node_mac').values(row).execute()).rejects.toThrow(/FOREIGN KEY/);
});
