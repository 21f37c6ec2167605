/**
 * Files of archives on disk: whole, or not there. A file is sent on while it comes in, and all who want it share one
 * download; its last byte is let go only when the whole is checked and has its place, so nobody mistakes a piece for it.
 */
import { createHash, randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { createGate } from '../boot/gate.js';
import { createSlots } from '../boot/send-file.js';
import type { Clock } from '../core/clock.js';
import type { Log } from '../core/log.js';
import { asProblem, fail, type Problem, ProblemError, problem } from '../core/problem.js';
import type { Upstream, UpstreamAnswer } from './upstream.js';

export interface CacheOptions {
  readonly dir: string;
  readonly maxBytes: number;
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly log: Log;
  /** How long an index is taken as it is before the archive is asked again. */
  readonly freshMs?: number;
}

export interface WantedFile {
  readonly url: string;
  /** How it is called in sentences. */
  readonly name: string;
  readonly immutable: boolean;
  /** Hex SHA-256, where it is known beforehand. */
  readonly sha256: string | null;
}

/** A file that is here or is coming in. */
export interface OpenFile {
  readonly bytes: number;
  readonly modifiedMs: number;
  /** `hit`: it was here; `stale`: it was here, and the archive could not be asked whether it is still right. */
  readonly from: 'hit' | 'stale' | 'archive';
  /** Reads from `position`; waits until there is something. @throws ProblemError when the rest does not come */
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
  close(): Promise<void>;
}

export interface PackageCache {
  /** @throws ProblemError package-missing, package-source-failed, timed-out, server-busy */
  open(want: WantedFile): Promise<OpenFile>;
  /** For metrics and tests. */
  counts(): { files: number; bytes: number; downloads: number };
  close(): Promise<void>;
}

interface Entry {
  readonly bytes: number;
  readonly modifiedMs: number;
  /** Monotonic; null: not in this life of the server. */
  readonly checkedMs: number | null;
  /** When the disk was last told that it is in use. */
  readonly markedMs: number;
}

const FRESH_MS = 120_000;
const DOWNLOADS = 12;
const QUEUE = 1024;
/** The order of use survives a restart to the hour. */
const MARK_MS = 3_600_000;
/** An index without a length is held back until it is whole; none is that large. */
const WITHOUT_LENGTH_MAX = 256 * 1024 * 1024;

/** A download in which several may have a part. */
class Incoming {
  readonly bytes: number;
  readonly modifiedMs: number;
  /** How much of it may be read. */
  visible = 0;
  problem: Problem | null = null;
  whole = false;
  readonly #file: FileHandle;
  #users = 1;
  #waiting: (() => void)[] = [];

  constructor(file: FileHandle, bytes: number, modifiedMs: number) {
    this.#file = file;
    this.bytes = bytes;
    this.modifiedMs = modifiedMs;
  }

  wake(): void {
    for (const go of this.#waiting.splice(0)) go();
  }

  enter(): OpenFile {
    this.#users++;
    let closed = false;
    return {
      bytes: this.bytes,
      modifiedMs: this.modifiedMs,
      from: 'archive',
      read: async (buffer, offset, length, position) => {
        while (this.visible <= position && !this.whole) {
          if (this.problem) throw new ProblemError(this.problem);
          await new Promise<void>(resolve => this.#waiting.push(resolve));
        }
        return this.#file.read(buffer, offset, Math.min(length, this.visible - position), position);
      },
      close: async () => {
        if (closed) return;
        closed = true;
        await this.leave();
      },
    };
  }

  async leave(): Promise<void> {
    if (--this.#users === 0) await this.#file.close();
  }
}

type Begun =
  | { readonly kind: 'incoming'; readonly incoming: Incoming }
  /** What is on the disk. */
  | { readonly kind: 'stored'; readonly from: OpenFile['from'] };

/** @throws ProblemError package-source-failed when the folder cannot be used */
export async function openPackageCache(options: CacheOptions): Promise<PackageCache> {
  const { dir, maxBytes, upstream, clock, log } = options;
  const freshMs = options.freshMs ?? FRESH_MS;
  /** By hash of the address; least recently used first. */
  const entries = new Map<string, Entry>();
  const flights = new Map<string, { begun: Promise<Begun>; ended: Promise<void> }>();
  const gate = createGate({ total: DOWNLOADS, perClient: DOWNLOADS, queue: QUEUE });
  // Of the four threads that Node has for files, a slow disk shall take one.
  const flushes = createSlots(1);
  const stopped = new AbortController();
  /** On disk, and promised to what comes in. */
  let used = 0;

  const partial = join(dir, 'partial');
  const fileOf = (key: string) => join(dir, key.slice(0, 2), key);

  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true, mode: 0o700 });
  const found: { key: string; entry: Entry; usedMs: number }[] = [];
  for (const folder of await readdir(dir)) {
    if (!/^[0-9a-f]{2}$/.test(folder)) continue;
    for (const key of await readdir(join(dir, folder))) {
      const { size, mtimeMs, atimeMs } = await stat(join(dir, folder, key));
      const entry = { bytes: size, modifiedMs: Math.floor(mtimeMs), checkedMs: null, markedMs: atimeMs };
      found.push({ key, entry, usedMs: atimeMs });
      used += size;
    }
  }
  for (const { key, entry } of found.sort((a, b) => a.usedMs - b.usedMs)) entries.set(key, entry);

  const forget = async (key: string) => {
    const entry = entries.get(key);
    if (!entry) return;
    entries.delete(key);
    used -= entry.bytes;
    await unlink(fileOf(key)).catch(() => {});
  };

  /** Makes room; who reads an old file keeps it open, and reads it to its end. */
  const reserve = async (bytes: number, name: string) => {
    if (bytes > maxBytes)
      fail('package-source-failed', `${name} has ${bytes} bytes, more than the whole cache may have.`, {
        hint: 'Raise limits.package_cache_gib of the site.',
        retry: false,
      });
    used += bytes;
    while (used > maxBytes) {
      const oldest = entries.keys().next().value;
      if (oldest === undefined) {
        used -= bytes;
        fail('server-busy', 'The cache of packages is full of what comes in just now.');
      }
      await forget(oldest);
    }
  };

  const keep = (key: string, entry: Entry) => {
    entries.delete(key);
    entries.set(key, entry);
  };

  const seenNow = (key: string) => {
    const entry = entries.get(key);
    if (entry) keep(key, { ...entry, checkedMs: clock.monotonicMs() });
  };

  const openStored = async (key: string, from: OpenFile['from']): Promise<OpenFile | null> => {
    const entry = entries.get(key);
    if (!entry) return null;
    const file = await open(fileOf(key), 'r').catch(() => null);
    if (!file || (await file.stat()).size !== entry.bytes) {
      await file?.close();
      await forget(key);
      return null;
    }
    const nowMs = clock.nowMs();
    const marked = nowMs - entry.markedMs < MARK_MS;
    if (entries.get(key) === entry) keep(key, marked ? entry : { ...entry, markedMs: nowMs });
    if (!marked) await utimes(fileOf(key), nowMs / 1000, entry.modifiedMs / 1000).catch(() => {});
    let closed = false;
    return {
      bytes: entry.bytes,
      modifiedMs: entry.modifiedMs,
      from,
      read: (buffer, offset, length, position) => file.read(buffer, offset, length, position),
      async close() {
        if (closed) return;
        closed = true;
        await file.close();
      },
    };
  };

  /** Takes the body in; resolves when the file has its place. */
  const takeIn = async (key: string, want: WantedFile, answer: UpstreamAnswer, begin: (begun: Begun) => void) => {
    const { bytes } = answer;
    const modifiedMs = Math.floor((answer.modifiedMs ?? clock.nowMs()) / 1000) * 1000;
    answer.body.on('error', () => {});
    let reserved = 0;
    const temporary = join(partial, randomBytes(12).toString('hex'));
    let incoming: Incoming | null = null;
    let file: FileHandle | null = null;
    try {
      if (bytes !== null) {
        await reserve(bytes, want.name);
        reserved = bytes;
      }
      file = await open(temporary, 'wx+', 0o600);
      if (bytes !== null) {
        incoming = new Incoming(file, bytes, modifiedMs);
        begin({ kind: 'incoming', incoming });
      }
      const hash = want.sha256 === null ? null : createHash('sha256');
      let written = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        if (bytes === null) {
          if (written + chunk.length > WITHOUT_LENGTH_MAX) fail('package-source-failed', `${want.name} has no end.`);
          await reserve(chunk.length, want.name);
          reserved += chunk.length;
        } else if (written + chunk.length > bytes)
          fail('package-source-failed', `More of ${want.name} came than the ${bytes} bytes announced.`);
        hash?.update(chunk);
        await writeWhole(file, chunk, written);
        written += chunk.length;
        if (incoming) {
          // All but the last byte: see the head of this file.
          incoming.visible = Math.min(written, incoming.bytes - 1);
          incoming.wake();
        }
      }
      if (bytes !== null && written !== bytes)
        fail('package-source-failed', `${want.name} broke off after ${written} of ${bytes} bytes.`);
      if (hash && hash.digest('hex') !== want.sha256)
        fail('package-source-failed', `${want.name} is not what its name says: its SHA-256 is another.`);
      const own = file;
      await flushes.run(() => own.datasync());
      const nowMs = clock.nowMs();
      await utimes(temporary, nowMs / 1000, modifiedMs / 1000);
      await mkdir(join(dir, key.slice(0, 2)), { recursive: true, mode: 0o700 });
      // Gone from the books first: room that is made meanwhile must not take the new file for the old one.
      used -= entries.get(key)?.bytes ?? 0;
      entries.delete(key);
      await rename(temporary, fileOf(key));
      reserved = 0;
      keep(key, { bytes: written, modifiedMs, checkedMs: clock.monotonicMs(), markedMs: nowMs });
      if (incoming) {
        incoming.visible = incoming.bytes;
        incoming.whole = true;
      } else begin({ kind: 'stored', from: 'archive' });
    } catch (error) {
      answer.body.destroy();
      used -= reserved;
      await rm(temporary, { force: true }).catch(() => {});
      const found = broken(want, error);
      if (incoming) incoming.problem = found;
      log.warn({ url: want.url, problem: found.message }, 'a package did not come whole');
      throw new ProblemError(found, { cause: error });
    } finally {
      incoming?.wake();
      await (incoming ? incoming.leave() : file?.close());
    }
  };

  const fly = (key: string, want: WantedFile): { begun: Promise<Begun>; ended: Promise<void> } => {
    let begin!: (begun: Begun) => void;
    let refuse!: (error: unknown) => void;
    const begun = new Promise<Begun>((resolve, reject) => {
      begin = resolve;
      refuse = reject;
    });
    begun.catch(() => {});
    const work = async () => {
      const leave = await gate.enter('', stopped.signal);
      try {
        const old = entries.get(key);
        let answer: UpstreamAnswer;
        try {
          answer = await upstream.ask(want.url, { sinceMs: old?.modifiedMs ?? null, signal: stopped.signal });
        } catch (error) {
          if (!old || stopped.signal.aborted) throw error;
          // Whether it is too old is what its signature says, and the node decides.
          log.warn({ url: want.url, problem: asProblem(error).message }, 'an index is served as it was');
          seenNow(key);
          return begin({ kind: 'stored', from: 'stale' });
        }
        if (answer.status === 200) return await takeIn(key, want, answer, begin);
        answer.body.on('error', () => {}).destroy();
        if (answer.status === 304 && old) {
          seenNow(key);
          return begin({ kind: 'stored', from: 'hit' });
        }
        if (answer.status === 304) fail('package-source-failed', `${want.name} is "not modified", but was never here.`);
        await forget(key);
        fail('package-missing', `The archive does not have ${want.name}.`);
      } finally {
        leave();
      }
    };
    const ended = work().catch(refuse);
    return { begun, ended };
  };

  return {
    async open(want) {
      const key = createHash('sha256').update(want.url).digest('hex');
      // Once more when the file on the disk has gone meanwhile.
      for (let attempt = 0; attempt < 3; attempt++) {
        const entry = entries.get(key);
        const fresh =
          entry && (want.immutable || (entry.checkedMs !== null && clock.monotonicMs() - entry.checkedMs < freshMs));
        if (fresh) {
          const stored = await openStored(key, 'hit');
          if (stored) return stored;
        }
        let flight = flights.get(key);
        if (!flight) {
          const mine = fly(key, want);
          flight = mine;
          flights.set(key, mine);
          void mine.ended.then(() => {
            if (flights.get(key) === mine) flights.delete(key);
          });
        }
        const begun = await flight.begun;
        if (begun.kind === 'incoming' && begun.incoming.problem) throw new ProblemError(begun.incoming.problem);
        if (begun.kind === 'incoming' && !begun.incoming.whole) return begun.incoming.enter();
        const stored = await openStored(key, begun.kind === 'incoming' ? 'hit' : begun.from);
        if (stored) return stored;
        await flight.ended;
      }
      return fail('package-source-failed', `${want.name} does not stay in the cache.`);
    },
    counts: () => ({ files: entries.size, bytes: used, downloads: flights.size }),
    async close() {
      stopped.abort(new Error('the server stops'));
      await Promise.all([...flights.values()].map(f => f.ended));
    },
  };
}

async function writeWhole(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

/** Why a file did not come in, as a problem that names it. */
function broken(want: WantedFile, error: unknown): Problem {
  const { code } = error as NodeJS.ErrnoException;
  const { host } = new URL(want.url);
  if (error instanceof ProblemError) return error.problem;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return problem('package-source-failed', `There is no space for ${want.name} on this server.`, {
      hint: 'Make room in data_dir, or lower limits.package_cache_gib of the site.',
    });
  if (code === 'UND_ERR_BODY_TIMEOUT') return problem('timed-out', `${host} stopped in the middle of ${want.name}.`);
  return problem('package-source-failed', `${want.name} broke off: ${(error as Error).message}.`);
}
