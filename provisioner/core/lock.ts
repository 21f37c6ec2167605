/**
 * The lock that keeps a second server off a database. It is a flock(2) on a file beside it: the kernel drops it with
 * the process, however that ends, so a lock left over from a crash does not exist.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import koffi from 'koffi';
import { fail } from './problem.js';

/** flock(2) operations. */
const LOCK_EX = 2;
const LOCK_NB = 4;

export interface DatabaseLock {
  release(): void;
}

/** The lock file of a database file. */
export const lockFileOf = (databaseFile: string): string => `${databaseFile}.lock`;

/**
 * Takes the lock, or says who has it.
 * @throws ProblemError database-busy
 */
export function lockDatabase(databaseFile: string, pid: number = process.pid): DatabaseLock {
  const file = lockFileOf(databaseFile);
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // Opened with O_CLOEXEC by libuv: programs that we start do not hold the lock for us. Never deleted, because two
  // processes could then lock two files of the same name.
  const fd = openSync(file, 'a+', 0o600);
  const flock = koffi.load('libc.so.6').func('int flock(int fd, int operation)') as (fd: number, op: number) => number;
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    const errno = koffi.errno();
    closeSync(fd);
    if (errno !== koffi.os.errno['EAGAIN']) throw new Error(`flock ${file}: errno ${errno}`);
    const holder = readFileSync(file, 'utf8').trim();
    const named = /^\d+$/.test(holder);
    fail(
      'database-busy',
      `${databaseFile} is in use by ${named ? `the server with process id ${holder}` : 'another server'}.`,
      {
        ...(named ? { detail: { pid: Number(holder) } } : {}),
      },
    );
  }
  ftruncateSync(fd);
  writeSync(fd, `${pid}\n`);
  let held = true;
  return {
    release() {
      if (!held) return;
      held = false;
      ftruncateSync(fd);
      closeSync(fd);
    },
  };
}
