/**
 * Backup and restore of what the server cannot make anew: the database and the keys. One file:
 *
 *   tar.gz                                                 halligan.db, keys/…, and last manifest.json with their SHA-256
 *   or, with a passphrase,
 *   "HALLIGAN-BACKUP-1\n" | salt (16) | nonce (12) | AES-256-GCM(tar.gz) | tag (16)
 *
 * The key of the second form is scrypt(passphrase, salt), the salt and the first line are additional data (RFC 7914,
 * NIST SP 800-38D). Images are not in it: they are built or imported again.
 */
import { createCipheriv, createDecipheriv, createHash, type DecipherGCM, randomBytes, scrypt } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, chmod, mkdir, mkdtemp, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PassThrough, type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import sqlite3 from 'sqlite3';
import tar from 'tar-stream';
import type { Clock } from './clock.js';
import { KEYS_DIR } from './keys.js';
import { lockDatabase } from './lock.js';
import { fail, ProblemError } from './problem.js';

/** Name of the database below the data directory. */
export const DATABASE_FILE = 'halligan.db';

const MAGIC = Buffer.from('HALLIGAN-BACKUP-1\n');
const SALT = 16;
const NONCE = 12;
const TAG = 16;
const HEADER = MAGIC.length + SALT + NONCE;
/** 128 MiB and about half a second per guess (RFC 7914 section 2). */
const SCRYPT = { N: 131_072, r: 8, p: 1, maxmem: 256 * 1024 * 1024 };
const MANIFEST = 'manifest.json';
const MANIFEST_MAX = 1024 * 1024;
const KEY_NAME = /^keys\/[a-z0-9][a-z0-9._-]{0,63}$/;

interface Manifest {
  readonly schema: 1;
  readonly createdMs: number;
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
}

const deriveKey = (passphrase: string, salt: Buffer): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    scrypt(passphrase.normalize('NFC'), salt, 32, SCRYPT, (error, key) => (error ? reject(error) : resolve(key)));
  });

/** Copies the database as one transaction sees it, while the server goes on writing (https://www.sqlite.org/lang_vacuum.html). */
async function copyDatabase(from: string, to: string): Promise<void> {
  const db = await new Promise<sqlite3.Database>((resolve, reject) => {
    const opened = new sqlite3.Database(from, sqlite3.OPEN_READWRITE, error =>
      error ? reject(error) : resolve(opened),
    );
  });
  db.configure('busyTimeout', 10_000);
  try {
    await new Promise<void>((resolve, reject) => {
      db.run('vacuum into ?', [to], error => (error ? reject(error) : resolve()));
    });
  } finally {
    await new Promise<void>(resolve => db.close(() => resolve()));
  }
}

/** SQLite's own check of a file that nobody else uses. Returns what is wrong, or undefined. */
async function databaseFault(file: string): Promise<string | undefined> {
  try {
    const db = await new Promise<sqlite3.Database>((resolve, reject) => {
      const opened = new sqlite3.Database(file, sqlite3.OPEN_READONLY, error =>
        error ? reject(error) : resolve(opened),
      );
    });
    try {
      const rows = await new Promise<{ integrity_check: string }[]>((resolve, reject) => {
        db.all<{ integrity_check: string }>('pragma integrity_check(1)', (error, r) =>
          error ? reject(error) : resolve(r),
        );
      });
      return rows[0]?.integrity_check === 'ok' ? undefined : (rows[0]?.integrity_check ?? 'no answer');
    } finally {
      await new Promise<void>(resolve => db.close(() => resolve()));
    }
  } catch (error) {
    return (error as Error).message;
  }
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

export interface BackupOptions {
  readonly dataDir: string;
  /** File to make; it must not exist. */
  readonly to: string;
  readonly passphrase?: string;
  readonly clock: Clock;
}

export interface BackupResult {
  readonly file: string;
  readonly bytes: number;
  /** Hex SHA-256 of the file. */
  readonly sha256: string;
  readonly encrypted: boolean;
}

/**
 * Writes a backup, mode 0600, also while the server runs: a connection of its own reads the database, so that boot
 * traffic does not wait for it.
 * @throws ProblemError conflict when `to` exists or there is no database
 */
export async function backup({ dataDir, to, passphrase, clock }: BackupOptions): Promise<BackupResult> {
  const database = join(dataDir, DATABASE_FILE);
  if (!(await exists(database))) fail('conflict', `${database} does not exist; there is nothing to back up.`);
  if (await exists(to)) fail('conflict', `${to} exists already.`, { hint: 'Choose another name for the backup.' });
  if (passphrase === '') fail('request-invalid', 'The passphrase is empty.');
  // The copy of the database lies beside the original, where its secrets are at home, for as long as it takes.
  const work = await mkdtemp(join(dataDir, '.backup-'));
  const draft = join(dirname(to), `.${basename(to)}.${process.pid}.part`);
  try {
    const copy = join(work, DATABASE_FILE);
    await copyDatabase(database, copy);
    await chmod(copy, 0o600);
    const keysDir = join(dataDir, KEYS_DIR);
    const keys = (await readdir(keysDir).catch(() => [])).filter(name => KEY_NAME.test(`keys/${name}`)).sort();
    const sources = [
      { name: DATABASE_FILE, path: copy },
      ...keys.map(name => ({ name: `keys/${name}`, path: join(keysDir, name) })),
    ];
    const files: { name: string; bytes: number; sha256: string }[] = [];
    const nowMs = clock.nowMs();
    const pack = tar.pack();
    const fill = async (): Promise<void> => {
      for (const { name, path } of sources) {
        const { size } = await stat(path);
        const hash = createHash('sha256');
        const entry = pack.entry({ name, size, mode: 0o600, mtime: new Date(nowMs) });
        await pipeline(
          createReadStream(path),
          new Transform({
            transform(chunk: Buffer, _encoding, done) {
              hash.update(chunk);
              done(null, chunk);
            },
          }),
          entry as unknown as NodeJS.WritableStream,
        );
        files.push({ name, bytes: size, sha256: hash.digest('hex') });
      }
      const manifest: Manifest = { schema: 1, createdMs: nowMs, files };
      pack.entry({ name: MANIFEST, mode: 0o600, mtime: new Date(nowMs) }, `${JSON.stringify(manifest, null, 2)}\n`);
      pack.finalize();
    };
    const out = createWriteStream(draft, { mode: 0o600, flags: 'wx' });
    const zipped = pack.pipe(createGzip());
    const write = async (): Promise<void> => {
      if (passphrase === undefined) return pipeline(zipped, out);
      const salt = randomBytes(SALT);
      const nonce = randomBytes(NONCE);
      const cipher = createCipheriv('aes-256-gcm', await deriveKey(passphrase, salt), nonce);
      cipher.setAAD(Buffer.concat([MAGIC, salt]));
      out.write(Buffer.concat([MAGIC, salt, nonce]));
      await pipeline(
        zipped,
        cipher,
        new Transform({
          transform: (chunk: Buffer, _encoding, done) => done(null, chunk),
          flush(done) {
            done(null, cipher.getAuthTag());
          },
        }),
        out,
      );
    };
    await Promise.all([fill(), write()]);
    await syncFile(draft);
    const result = {
      file: to,
      bytes: (await stat(draft)).size,
      sha256: await hashOf(draft),
      encrypted: passphrase !== undefined,
    };
    await rename(draft, to);
    await syncFile(dirname(to));
    return result;
  } finally {
    await rm(work, { recursive: true, force: true });
    await rm(draft, { force: true });
  }
}

export interface RestoreOptions {
  readonly from: string;
  readonly dataDir: string;
  readonly passphrase?: string;
  /** Replace what is in the data directory; it is kept aside, in `before-restore-TIME`. */
  readonly force?: boolean;
  readonly clock: Clock;
}

const invalid = (from: string, why: string): never => fail('backup-invalid', `${from} cannot be restored: ${why}.`);

/** The tar.gz inside, decrypted; what comes out is to be believed only when the stream ended without an error. */
async function openBackup(from: string, passphrase: string | undefined): Promise<Readable> {
  const handle = await open(from, 'r');
  let encrypted: boolean;
  let size: number;
  const header = Buffer.alloc(HEADER);
  const tag = Buffer.alloc(TAG);
  try {
    ({ size } = await handle.stat());
    await handle.read(header, 0, HEADER, 0);
    encrypted = header.subarray(0, MAGIC.length).equals(MAGIC);
    if (encrypted && size < HEADER + TAG) return invalid(from, 'it is cut off');
    if (encrypted) await handle.read(tag, 0, TAG, size - TAG);
  } finally {
    await handle.close();
  }
  if (!encrypted) return createReadStream(from);
  if (passphrase === undefined) return invalid(from, 'it is encrypted, and no passphrase was given');
  const salt = header.subarray(MAGIC.length, MAGIC.length + SALT);
  const decipher: DecipherGCM = createDecipheriv(
    'aes-256-gcm',
    await deriveKey(passphrase, salt),
    header.subarray(MAGIC.length + SALT),
    { authTagLength: TAG },
  );
  decipher.setAAD(Buffer.concat([MAGIC, salt]));
  decipher.setAuthTag(tag);
  const out = new PassThrough();
  if (size === HEADER + TAG) return invalid(from, 'it is empty');
  pipeline(createReadStream(from, { start: HEADER, end: size - TAG - 1 }), decipher, out).catch(() => {});
  return out;
}

/** Unpacks into an empty folder; only the names that a backup has, and no more than the manifest says. */
async function unpack(from: string, passphrase: string | undefined, into: string): Promise<Manifest> {
  const source = await openBackup(from, passphrase);
  const found = new Map<string, { bytes: number; sha256: string }>();
  let manifestText: string | undefined;
  const extract = tar.extract();
  const read = async (): Promise<void> => {
    for await (const entry of extract) {
      const { name, type } = entry.header;
      if (type !== 'file' || found.has(name)) throw new Error(`"${name}" does not belong there`);
      if (name === MANIFEST) {
        const parts: Buffer[] = [];
        let bytes = 0;
        for await (const chunk of entry as unknown as AsyncIterable<Buffer>) {
          bytes += chunk.length;
          if (bytes > MANIFEST_MAX) throw new Error('its manifest is too long');
          parts.push(chunk);
        }
        manifestText = Buffer.concat(parts).toString('utf8');
        continue;
      }
      if (name !== DATABASE_FILE && !KEY_NAME.test(name)) throw new Error(`"${name}" does not belong there`);
      const path = join(into, name);
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      const hash = createHash('sha256');
      let bytes = 0;
      await pipeline(
        entry as unknown as Readable,
        new Transform({
          transform(chunk: Buffer, _encoding, done) {
            hash.update(chunk);
            bytes += chunk.length;
            done(null, chunk);
          },
        }),
        createWriteStream(path, { mode: 0o600, flags: 'wx' }),
      );
      await syncFile(path);
      found.set(name, { bytes, sha256: hash.digest('hex') });
    }
  };
  try {
    await Promise.all([pipeline(source, createGunzip(), extract as unknown as NodeJS.WritableStream), read()]);
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    return invalid(
      from,
      passphrase === undefined
        ? `it is damaged or no backup (${(error as Error).message})`
        : 'the passphrase is wrong, or it is damaged',
    );
  }
  if (manifestText === undefined) return invalid(from, 'it has no manifest');
  let manifest: Manifest;
  try {
    manifest = JSON.parse(manifestText) as Manifest;
  } catch {
    return invalid(from, 'its manifest is damaged');
  }
  if (manifest.schema !== 1 || !Array.isArray(manifest.files))
    return invalid(from, 'its manifest is of an unknown form');
  if (manifest.files.length !== found.size) invalid(from, 'files are missing from it');
  for (const file of manifest.files) {
    const unpacked = found.get(file.name);
    if (unpacked?.sha256 !== file.sha256) invalid(from, `${file.name} in it is damaged`);
  }
  if (!found.has(DATABASE_FILE)) invalid(from, 'it has no database');
  const fault = await databaseFault(join(into, DATABASE_FILE));
  if (fault) invalid(from, `its database is damaged (${fault})`);
  return manifest;
}

/**
 * Puts a backup in place. Everything is unpacked and checked beside the data directory first; only then are the files
 * moved, so that a bad backup or a kill before that changes nothing.
 * @returns when the backup was made, and where what it replaced was put
 * @throws ProblemError backup-invalid, restore-refused, database-busy
 */
export async function restore(options: RestoreOptions): Promise<{ createdMs: number; replaced: string | null }> {
  const { from, dataDir, passphrase, force = false, clock } = options;
  if (!(await exists(from))) fail('backup-invalid', `${from} does not exist.`);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const database = join(dataDir, DATABASE_FILE);
  // A running server would go on writing into the files that were moved away.
  const lock = lockDatabase(database);
  const work = await mkdtemp(join(dataDir, '.restore-'));
  try {
    const old: string[] = [];
    for (const name of [DATABASE_FILE, `${DATABASE_FILE}-wal`, `${DATABASE_FILE}-shm`, KEYS_DIR])
      if (await exists(join(dataDir, name))) old.push(name);
    if (old.length > 0 && !force) fail('restore-refused', `${dataDir} already has ${old.join(', ')}.`);
    const manifest = await unpack(from, passphrase, work);
    let replaced: string | null = null;
    if (old.length > 0) {
      replaced = join(dataDir, `before-restore-${new Date(clock.nowMs()).toISOString().replace(/[:.]/g, '-')}`);
      await mkdir(replaced, { mode: 0o700 });
      for (const name of old) await rename(join(dataDir, name), join(replaced, name));
    }
    // The database last: a server refuses to start on keys without it less readily than on a database without its keys.
    if (await exists(join(work, KEYS_DIR))) await rename(join(work, KEYS_DIR), join(dataDir, KEYS_DIR));
    await rename(join(work, DATABASE_FILE), database);
    await syncFile(dataDir);
    return { createdMs: manifest.createdMs, replaced };
  } finally {
    await rm(work, { recursive: true, force: true });
    lock.release();
  }
}
