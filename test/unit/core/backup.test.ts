import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGzip } from 'node:zlib';
import tar from 'tar-stream';
import { afterEach, expect, it } from 'vitest';
import { backup, restore } from '../../../provisioner/core/backup.js';
import { systemClock as clock } from '../../../provisioner/core/clock.js';
import { createEventFeed } from '../../../provisioner/core/events.js';
import { loadKeys } from '../../../provisioner/core/keys.js';
import { lockDatabase } from '../../../provisioner/core/lock.js';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';

const fresh = () => mkdtempSync(join(tmpdir(), 'hal-backup-'));
const stores: Store[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});
async function server() {
  const dataDir = fresh();
  const keys = loadKeys(dataDir);
  const store = await openStore(join(dataDir, 'halligan.db'));
  stores.push(store);
  const feed = createEventFeed(store.db, clock);
  for (let i = 1; i <= 50; i++) await feed.emit({ type: 'test', message: `event ${i}` });
  return { dataDir, keys, store, feed };
}
const events = async (dataDir: string) => {
  const store = await openStore(join(dataDir, 'halligan.db'));
  try {
    return (await createEventFeed(store.db, clock).after(0, 10_000)).map(e => e.message);
  } finally {
    await store.close();
  }
};
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no problem',
    error => error.problem?.code ?? String(error),
  );

it('restores database and keys as they were, from a plain tar.gz that others can open too', async () => {
  const { dataDir, keys } = await server();
  const to = join(fresh(), 'backup.tar.gz');
  const made = await backup({ dataDir, to, clock });
  expect(made).toMatchObject({ file: to, encrypted: false, bytes: statSync(to).size });
  expect(execFileSync('sha256sum', [to]).toString()).toContain(made.sha256);
  expect(statSync(to).mode & 0o777).toBe(0o600);
  expect(execFileSync('tar', ['-tzf', to]).toString().trim().split('\n')).toEqual([
    'halligan.db',
    'keys/id_ed25519',
    'keys/master-key',
    'manifest.json',
  ]);
  const elsewhere = join(fresh(), 'new');
  expect(await restore({ from: to, dataDir: elsewhere, clock })).toMatchObject({ replaced: null });
  expect(loadKeys(elsewhere)).toEqual(keys);
  expect(await events(elsewhere)).toHaveLength(50);
  expect(statSync(join(elsewhere, 'halligan.db')).mode & 0o777).toBe(0o600);
  expect(readdirSync(dataDir).filter(name => name.startsWith('.'))).toEqual([]);
});

it('is one moment of a database that is being written to', async () => {
  const { dataDir, store } = await server();
  let stop = false;
  const writing = (async () => {
    for (let i = 0; !stop; i++)
      await store.db.transaction().execute(async tx => {
        for (const key of ['left', 'right'])
          await tx
            .replaceInto('meta')
            .values({ key, value: String(i) })
            .execute();
      });
  })();
  try {
    for (let i = 0; i < 5; i++) {
      const to = join(fresh(), 'b');
      const elsewhere = fresh();
      await new Promise(done => setTimeout(done, 30));
      await backup({ dataDir, to, clock });
      await restore({ from: to, dataDir: elsewhere, clock });
      const copy = await openStore(join(elsewhere, 'halligan.db'));
      const rows = await copy.db.selectFrom('meta').selectAll().where('key', 'in', ['left', 'right']).execute();
      await copy.close();
      expect(rows).toHaveLength(2);
      expect(rows[0]!.value).toBe(rows[1]!.value);
    }
  } finally {
    stop = true;
    await writing;
  }
});

it('encrypts with a passphrase: nothing of it can be read without', async () => {
  const { dataDir, keys } = await server();
  const to = join(fresh(), 'backup');
  await backup({ dataDir, to, passphrase: 'correct horse', clock });
  const bytes = readFileSync(to);
  expect(bytes.includes(Buffer.from('OPENSSH'))).toBe(false);
  for (const passphrase of [undefined, 'wrong', '']) {
    const target = fresh();
    const options = { from: to, dataDir: target, clock, ...(passphrase === undefined ? {} : { passphrase }) };
    expect(await codeOf(restore(options))).toBe('backup-invalid');
    expect(readdirSync(target).filter(name => !name.endsWith('.lock'))).toEqual([]);
  }
  const elsewhere = fresh();
  await restore({ from: to, dataDir: elsewhere, passphrase: 'correct horse', clock });
  expect(loadKeys(elsewhere)).toEqual(keys);
});

it('refuses a backup with a flipped bit or cut off anywhere, and leaves nothing half-done', async () => {
  const { dataDir } = await server();
  const dir = fresh();
  for (const passphrase of [undefined, 'p']) {
    const to = join(dir, `b-${passphrase}`);
    await backup({ dataDir, to, clock, ...(passphrase ? { passphrase } : {}) });
    const good = readFileSync(to);
    const spots = Array.from({ length: passphrase ? 4 : 30 }, (_, i) =>
      Math.floor((good.length * (i + 0.5)) / (passphrase ? 4 : 30)),
    );
    for (const spot of spots) {
      const flipped = Buffer.from(good);
      flipped[spot]! ^= 0x10;
      for (const bad of [flipped, good.subarray(0, spot)]) {
        const file = join(dir, 'bad');
        writeFileSync(file, bad);
        const target = fresh();
        expect(
          await codeOf(restore({ from: file, dataDir: target, clock, ...(passphrase ? { passphrase } : {}) })),
          `byte ${spot} of ${good.length}`,
        ).toBe('backup-invalid');
        expect(readdirSync(target).filter(name => !name.endsWith('.lock'))).toEqual([]);
      }
    }
  }
});

it('refuses archives with names that do not belong there', async () => {
  for (const name of ['../escape', '/etc/passwd', 'keys/../../x', 'keys/.hidden', 'images/x', 'keys']) {
    const pack = tar.pack();
    pack.entry({ name }, 'x');
    pack.entry(
      { name: 'manifest.json' },
      JSON.stringify({ schema: 1, createdMs: 0, files: [{ name, bytes: 1, sha256: '' }] }),
    );
    pack.finalize();
    const parts: Buffer[] = [];
    for await (const chunk of pack.pipe(createGzip())) parts.push(chunk as Buffer);
    const from = join(fresh(), 'evil.tar.gz');
    writeFileSync(from, Buffer.concat(parts));
    const dataDir = join(fresh(), 'data');
    expect(await codeOf(restore({ from, dataDir, clock }))).toBe('backup-invalid');
    expect(existsSync(join(dataDir, '..', 'escape'))).toBe(false);
  }
});

it('replaces nothing without force, keeps what it replaces, and never touches the files of a running server', async () => {
  const { dataDir, store, feed } = await server();
  const to = join(fresh(), 'b');
  await backup({ dataDir, to, clock });
  await feed.emit({ type: 'test', message: 'after the backup' });
  expect(await codeOf(restore({ from: to, dataDir, clock }))).toBe('restore-refused');
  const lock = lockDatabase(join(dataDir, 'halligan.db'));
  expect(await codeOf(restore({ from: to, dataDir, force: true, clock }))).toBe('database-busy');
  lock.release();
  await store.close();
  stores.splice(0);
  const { replaced } = await restore({ from: to, dataDir, force: true, clock });
  expect(await events(dataDir)).toHaveLength(50);
  expect(await events(replaced!)).toHaveLength(51);
});

it('does not overwrite a file, and says when there is nothing to back up', async () => {
  const { dataDir } = await server();
  const to = join(fresh(), 'b');
  copyFileSync('/etc/hostname', to);
  expect(await codeOf(backup({ dataDir, to, clock }))).toBe('conflict');
  expect(await codeOf(backup({ dataDir: fresh(), to: join(fresh(), 'x'), clock }))).toBe('conflict');
  expect(await codeOf(backup({ dataDir, to: join(fresh(), 'y'), passphrase: '', clock }))).toBe('request-invalid');
});
