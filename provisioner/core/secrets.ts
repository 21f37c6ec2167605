/**
 * Secrets at rest and by reference. Values are sealed with AES-256-GCM under the master key, the name as additional
 * data, so that a row cannot be passed off as another (NIST SP 800-38D). Values are in no log and in no problem.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from './clock.js';
import { fail } from './problem.js';
import type { Db } from './store/store.js';

const NONCE = 12;
const TAG = 16;
const MAX_BYTES = 64 * 1024;

/** nonce (12) + ciphertext + tag (16), base64. */
export function seal(masterKey: Buffer, name: string, value: string): string {
  const nonce = randomBytes(NONCE);
  const cipher = createCipheriv('aes-256-gcm', masterKey, nonce);
  cipher.setAAD(Buffer.from(name));
  return Buffer.concat([nonce, cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64');
}

/** @throws ProblemError keys-unusable when key, name or content are not those of the sealing */
export function unseal(masterKey: Buffer, name: string, sealed: string): string {
  const bytes = Buffer.from(sealed, 'base64');
  try {
    const decipher = createDecipheriv('aes-256-gcm', masterKey, bytes.subarray(0, NONCE), { authTagLength: TAG });
    decipher.setAAD(Buffer.from(name));
    decipher.setAuthTag(bytes.subarray(-TAG));
    return Buffer.concat([decipher.update(bytes.subarray(NONCE, -TAG)), decipher.final()]).toString('utf8');
  } catch {
    return fail('keys-unusable', `The secret "${name}" was not sealed with this server's master key, or is damaged.`);
  }
}

export interface SecretStore {
  put(name: string, value: string): Promise<void>;
  /** Undefined when there is none. Throws ProblemError keys-unusable. */
  get(name: string): Promise<string | undefined>;
  remove(name: string): Promise<void>;
  /** Names only: a value that was put in is never shown again. */
  names(): Promise<string[]>;
  /**
   * The value behind a reference: `file:/path`, `env:NAME`, `secret:NAME`. One newline at the end of a file is not part
   * of the value.
   * @throws ProblemError secret-missing, keys-unusable
   */
  resolve(reference: string): Promise<string>;
}

/** @param env the process's environment, for `env:` references */
export function createSecretStore(
  db: Db,
  masterKey: Buffer,
  clock: Clock,
  env: Readonly<Record<string, string | undefined>>,
): SecretStore {
  const get = async (name: string): Promise<string | undefined> => {
    const row = await db.selectFrom('secret').select('sealed').where('name', '=', name).executeTakeFirst();
    return row && unseal(masterKey, name, row.sealed);
  };
  const fromFile = async (path: string): Promise<string> => {
    if (!path.startsWith('/')) fail('secret-missing', `file:${path} is not an absolute path.`);
    try {
      const { size } = await stat(path);
      if (size > MAX_BYTES) fail('secret-missing', `${path} is too large for a secret (${size} bytes).`);
      return (await readFile(path, 'utf8')).replace(/\r?\n$/, '');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      const why = { ENOENT: 'does not exist', EACCES: 'may not be read by the server', EISDIR: 'is a folder' }[code];
      return fail('secret-missing', `The secret's file ${path} ${why ?? `cannot be read (${code})`}.`);
    }
  };
  return {
    async put(name, value) {
      if (Buffer.byteLength(value) > MAX_BYTES) fail('request-invalid', `The secret "${name}" is larger than 64 KiB.`);
      const row = { name, sealed: seal(masterKey, name, value), updated_ms: clock.nowMs() };
      await db
        .insertInto('secret')
        .values(row)
        .onConflict(c => c.column('name').doUpdateSet({ sealed: row.sealed, updated_ms: row.updated_ms }))
        .execute();
    },
    get,
    async remove(name) {
      await db.deleteFrom('secret').where('name', '=', name).execute();
    },
    async names() {
      return (await db.selectFrom('secret').select('name').orderBy('name').execute()).map(r => r.name);
    },
    async resolve(reference) {
      const colon = reference.indexOf(':');
      const rest = reference.slice(colon + 1);
      let value: string | undefined;
      switch (reference.slice(0, colon)) {
        case 'file':
          value = await fromFile(rest);
          break;
        case 'env':
          value =
            env[rest] ?? fail('secret-missing', `The server was started without the environment variable ${rest}.`);
          break;
        case 'secret':
          value = (await get(rest)) ?? fail('secret-missing', `No secret is stored under the name "${rest}".`);
          break;
        default:
          // The text itself may be a password that somebody put in the reference's place.
          fail('secret-missing', 'A secret must be given as file:/path, env:NAME or secret:NAME.');
      }
      return value === '' ? fail('secret-missing', `The secret ${reference} is empty.`) : value;
    },
  };
}
