import { chmodSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { expect, it } from 'vitest';
import { loadKeys, makeSshKey } from '../../../provisioner/core/keys.js';

const fresh = () => mkdtempSync(join(tmpdir(), 'hal-keys-'));
const codeOf = (action: () => unknown) => {
  try {
    action();
    return 'no problem';
  } catch (error) {
    return (error as { problem?: { code: string } }).problem?.code ?? String(error);
  }
};

it('makes the keys once, readable by nobody else, and reads the same ones afterwards', () => {
  const dir = fresh();
  const first = loadKeys(dir);
  expect(first.publicKey).toMatch(/^ssh-ed25519 AAAA\S+ halligan$/);
  expect(first.masterKey).toHaveLength(32);
  expect(loadKeys(dir)).toEqual(first);
  expect(statSync(join(dir, 'keys')).mode & 0o777).toBe(0o700);
  expect(readdirSync(join(dir, 'keys')).sort()).toEqual(['id_ed25519', 'master-key']);
  for (const name of readdirSync(join(dir, 'keys'))) expect(statSync(join(dir, 'keys', name)).mode & 0o777).toBe(0o600);
});

it('never makes a key pair that cannot be read back', () => {
  for (let i = 0; i < 600; i++) {
    const parsed = ssh2.utils.parseKey(makeSshKey());
    if (parsed instanceof Error) throw parsed;
    expect(parsed.getPublicSSH()).toHaveLength(51);
  }
});

it('takes the master key from a systemd credential, and then writes none', () => {
  const dir = fresh();
  const credentials = fresh();
  writeFileSync(join(credentials, 'halligan-master-key'), Buffer.alloc(32, 7));
  const keys = loadKeys(dir, credentials);
  expect(keys.masterKeySource).toBe('credential');
  expect(keys.masterKey.equals(Buffer.alloc(32, 7))).toBe(true);
  expect(readdirSync(join(dir, 'keys'))).toEqual(['id_ed25519']);
});

it('refuses a key file that others can read, that is cut off, or that is no key', () => {
  const open = fresh();
  loadKeys(open);
  chmodSync(join(open, 'keys', 'master-key'), 0o644);
  expect(codeOf(() => loadKeys(open))).toBe('keys-unusable');
  const short = fresh();
  loadKeys(short);
  writeFileSync(join(short, 'keys', 'master-key'), 'short');
  expect(codeOf(() => loadKeys(short))).toBe('keys-unusable');
  const garbled = fresh();
  loadKeys(garbled);
  const file = join(garbled, 'keys', 'id_ed25519');
  writeFileSync(file, readFileSync(file, 'utf8').slice(0, 200));
  expect(codeOf(() => loadKeys(garbled))).toBe('keys-unusable');
});
