import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { systemClock } from '../../../provisioner/core/clock.js';
import { createSecretStore, seal, unseal } from '../../../provisioner/core/secrets.js';
import { openStore, type Store } from '../../../provisioner/core/store/store.js';

let store: Store | undefined;
afterEach(async () => {
  await store?.close();
  store = undefined;
});
const master = Buffer.alloc(32, 1);
const open = async (env: Record<string, string> = {}, key = master) => {
  store ??= await openStore(':memory:');
  return createSecretStore(store.db, key, systemClock, env);
};
const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    error => error.problem,
  );

it('keeps a value sealed in the database and gives it back', async () => {
  const secrets = await open();
  await secrets.put('bmc/n07', 'old');
  await secrets.put('bmc/n07', 'pässwörd');
  expect(await secrets.get('bmc/n07')).toBe('pässwörd');
  expect(await secrets.resolve('secret:bmc/n07')).toBe('pässwörd');
  expect(await secrets.names()).toEqual(['bmc/n07']);
  const row = await store!.db.selectFrom('secret').selectAll().executeTakeFirstOrThrow();
  expect(Buffer.from(row.sealed, 'base64').toString('latin1')).not.toContain('ssw');
  await secrets.remove('bmc/n07');
  expect(await secrets.get('bmc/n07')).toBeUndefined();
});

it('notices a row that was swapped with another, a flipped bit, and a foreign master key', async () => {
  const sealed = seal(master, 'a', 'value');
  const code = (action: () => unknown) => {
    try {
      return action();
    } catch (error) {
      return (error as { problem: { code: string } }).problem.code;
    }
  };
  expect(code(() => unseal(master, 'a', sealed))).toBe('value');
  expect(code(() => unseal(master, 'b', sealed))).toBe('keys-unusable');
  expect(code(() => unseal(Buffer.alloc(32, 2), 'a', sealed))).toBe('keys-unusable');
  const bytes = Buffer.from(sealed, 'base64');
  for (let i = 0; i < bytes.length; i++) {
    const flipped = Buffer.from(bytes);
    flipped[i]! ^= 1;
    expect(code(() => unseal(master, 'a', flipped.toString('base64')))).toBe('keys-unusable');
    expect(code(() => unseal(master, 'a', bytes.subarray(0, i).toString('base64')))).toBe('keys-unusable');
  }
});

it('never uses a nonce twice for the same value', () => {
  expect(new Set(Array.from({ length: 200 }, () => seal(master, 'a', 'v').slice(0, 16))).size).toBe(200);
});

it('resolves files without their last newline, and environment variables', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'hal-secret-')), 'password');
  writeFileSync(file, 'two\nlines\n');
  const secrets = await open({ BMC_PASSWORD: 'from env' });
  expect(await secrets.resolve(`file:${file}`)).toBe('two\nlines');
  expect(await secrets.resolve('env:BMC_PASSWORD')).toBe('from env');
});

it('says where a secret is missing, and never repeats what may be a password', async () => {
  const secrets = await open({ EMPTY: '' });
  for (const [reference, part] of [
    ['file:/nonexistent/password', '/nonexistent/password does not exist'],
    ['file:relative', 'absolute'],
    ['file:/etc', 'is a folder'],
    ['env:NOT_SET', 'NOT_SET'],
    ['env:EMPTY', 'empty'],
    ['secret:none', '"none"'],
  ] as const) {
    const problem = await problemOf(secrets.resolve(reference));
    expect(problem.code).toBe('secret-missing');
    expect(problem.message).toContain(part);
  }
  for (const password of ['hunter2', 'hunter2:x', '']) {
    const problem = await problemOf(secrets.resolve(password));
    expect(problem.code).toBe('secret-missing');
    expect(JSON.stringify(problem)).not.toContain('hunter2');
  }
});
