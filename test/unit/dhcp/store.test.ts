import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { parseIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';
import { createLeaseWriter, loadLeases } from '../../../provisioner/dhcp/lease-store.js';
import type { Lease } from '../../../provisioner/dhcp/leases.js';
import { TestClock } from './world.js';

let dir: string;
let store: Store;
let clock: TestClock;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-lease-'));
  store = await openStore(join(dir, 'db'));
  clock = new TestClock();
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

const lease = (n: number, more: Partial<Lease> = {}): Lease => ({
  address: parseIpv4('10.99.0.0') + n,
  network: 'boot',
  mac: `52:54:00:00:00:${String(n).padStart(2, '0')}`,
  clientIdentifier: null,
  hostName: null,
  state: 'bound',
  expiresAt: clock.monotonic + 600_000,
  ...more,
});

test('leases come back from the database as they were, on a new monotonic clock', async () => {
  const writer = createLeaseWriter(store.db, clock);
  const hostile = `x'); drop table lease; --"\\`;
  await writer.write([
    lease(1, { hostName: hostile, clientIdentifier: '01525400000001' }),
    lease(2, { state: 'declined' }),
  ]);
  await store.close();
  store = await openStore(join(dir, 'db'));
  clock.wall += 100_000;
  clock.monotonic = 7;
  expect(await loadLeases(store.db, clock)).toEqual([
    { ...lease(1), hostName: hostile, clientIdentifier: '01525400000001', expiresAt: 7 + 500_000 },
    { ...lease(2), state: 'declined', expiresAt: 7 + 500_000 },
  ]);
});

test('a wall clock that was set back while we were down ends no lease early and none late', async () => {
  await createLeaseWriter(store.db, clock).write([lease(1)]);
  clock.wall -= 86_400_000;
  const [loaded] = await loadLeases(store.db, clock);
  expect(loaded!.expiresAt - clock.monotonic).toBe(600_000);
});

test('what arrives while a transaction runs is written together by the next', async () => {
  const writer = createLeaseWriter(store.db, clock);
  const executed = vi.spyOn(store.db, 'getExecutor');
  const order: number[] = [];
  await Promise.all(Array.from({ length: 50 }, (_, i) => writer.write([lease(i + 1)]).then(() => order.push(i))));
  expect(order).toEqual([...order].sort((a, b) => a - b));
  expect(executed.mock.calls.length).toBeLessThanOrEqual(4);
  expect(await loadLeases(store.db, clock)).toHaveLength(50);
});

test('the newest of several writes of one address in one group stands', async () => {
  const writer = createLeaseWriter(store.db, clock);
  await Promise.all([
    writer.write([lease(1)]),
    writer.write([lease(1)]),
    writer.write([lease(1, { state: 'released' })]),
  ]);
  expect((await loadLeases(store.db, clock)).map(l => l.state)).toEqual(['released']);
});

test('a write that fails is told to those who wait for it, and the next one works', async () => {
  const writer = createLeaseWriter(store.db, clock);
  await store.db.schema.alterTable('lease').renameTo('away').execute();
  await expect(writer.write([lease(1)])).rejects.toThrow('no such table');
  await store.db.schema.alterTable('away').renameTo('lease').execute();
  await writer.write([lease(1)]);
  await writer.close();
  expect(await loadLeases(store.db, clock)).toHaveLength(1);
});
