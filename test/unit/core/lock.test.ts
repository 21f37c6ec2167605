import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { lockDatabase } from '../../../provisioner/core/lock.js';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});
const fresh = () => join(mkdtempSync(join(tmpdir(), 'hal-lock-')), 'halligan.db');
const koffi = JSON.stringify(createRequire(import.meta.url).resolve('koffi'));

/** Another process that takes the same lock file with the same system call, and holds it until it is killed. */
async function otherServer(databaseFile: string) {
  const program = `
    const koffi = require(${koffi}), fs = require('node:fs');
    const fd = fs.openSync(process.argv[1] + '.lock', 'a+');
    const flock = koffi.load('libc.so.6').func('int flock(int fd, int operation)');
    if (flock(fd, 6) !== 0) { console.log('busy'); process.exit(3); }
    fs.ftruncateSync(fd); fs.writeSync(fd, process.pid + '\\n');
    // A program started by the server must not keep the lock alive after it.
    require('node:child_process').spawn('sleep', ['5'], { detached: true, stdio: 'ignore' }).unref();
    console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', program, databaseFile], { stdio: ['ignore', 'pipe', 'inherit'] });
  closers.push(() => child.kill('SIGKILL'));
  const said = await new Promise<string>(done => child.stdout.once('data', chunk => done(String(chunk).trim())));
  return {
    said,
    pid: child.pid,
    kill: () =>
      new Promise<void>(done => {
        child.once('exit', () => done());
        child.kill('SIGKILL');
      }),
  };
}
const problemOf = (action: () => unknown) => {
  try {
    action();
    return undefined;
  } catch (error) {
    return (error as { problem: { code: string; message: string; detail: unknown } }).problem;
  }
};

it('refuses a database that another process holds, names that process, and gets it when that was killed', async () => {
  const file = fresh();
  const other = await otherServer(file);
  expect(other.said).toBe('held');
  const problem = problemOf(() => lockDatabase(file));
  expect(problem).toMatchObject({ code: 'database-busy', detail: { pid: other.pid } });
  expect(problem!.message).toContain(String(other.pid));
  await other.kill();
  const lock = lockDatabase(file);
  expect((await otherServer(file)).said).toBe('busy');
  lock.release();
  expect((await otherServer(file)).said).toBe('held');
});

it('refuses a second opening in the same process, and releases once', () => {
  const file = fresh();
  const lock = lockDatabase(file);
  expect(problemOf(() => lockDatabase(file))?.code).toBe('database-busy');
  lock.release();
  lock.release();
  lockDatabase(file).release();
});
