/** The server as a child inside a lab's network, and a client that waits until it answers. For the demo, bench and tests. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, sleep } from '../core/clock.js';
import { fail } from '../core/problem.js';
import type { Lab } from '../lab/index.js';
import { type DemoClient, demoClient } from './client.js';

const SERVER_START_MS = 30_000;
/** Of the times in /proc/PID/stat: USER_HZ is 100 on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

export interface ProcessUsage {
  /** High water of its resident memory. */
  readonly rssMaxMiB: number | null;
  /** User and system time so far. */
  readonly cpuSeconds: number | null;
}

export interface ServerProcess {
  readonly pid: number;
  /** Null where it has ended. */
  usage(): ProcessUsage;
  readonly exited: () => string | null;
  /** SIGTERM, then SIGKILL after ten seconds. */
  stop(): Promise<void>;
  /** SIGKILL: a crash. */
  kill(): Promise<void>;
}

/** @param self argv of the program: node and its main file */
export function startServerProcess(lab: Lab, self: readonly string[], logFile: string): ServerProcess {
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn('ip', ['netns', 'exec', lab.netns, ...self, 'serve', '--site', join(lab.dir, 'site.yaml')], {
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  let ended: string | null = null;
  const gone = new Promise<void>(resolve => {
    child.once('error', error => {
      ended = error.message;
      resolve();
    });
    child.once('exit', (code, by) => {
      ended = `it ended with ${by ?? `code ${code}`}; the end of its log: ${readFileSync(logFile, 'utf8').trim().split('\n').slice(-3).join(' | ')}`;
      resolve();
    });
  });
  return {
    pid: child.pid ?? 0,
    usage: () => usageOf(child.pid ?? 0),
    exited: () => ended,
    async stop() {
      if (ended !== null) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(timer);
    },
    async kill() {
      if (ended !== null) return;
      child.kill('SIGKILL');
      await gone;
    },
  };
}

function usageOf(pid: number): ProcessUsage {
  const read = (file: string) => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'utf8');
    } catch {
      return '';
    }
  };
  const kib = /^VmHWM:\s+(\d+) kB/m.exec(read('status'))?.[1];
  // utime and stime are the 14th and 15th field; the 2nd may hold blanks and ends with the last parenthesis.
  const times = read('stat')
    .replace(/^.*\) /s, '')
    .split(' ')
    .slice(11, 13)
    .map(Number);
  return {
    rssMaxMiB: kib === undefined ? null : Math.round(Number(kib) / 1024),
    cpuSeconds: times.length === 2 ? (times[0]! + times[1]!) / TICKS_PER_SECOND : null,
  };
}

/** @throws ProblemError server-unreachable with the end of the log */
export async function connected(
  socket: string,
  server: ServerProcess,
  clock: Clock,
  signal: AbortSignal,
): Promise<DemoClient> {
  const until = clock.monotonicMs() + SERVER_START_MS;
  for (;;) {
    if (server.exited() !== null) fail('server-unreachable', `The server did not start: ${server.exited()}`);
    const client = demoClient(socket);
    try {
      await client.get('/health');
      return client;
    } catch (error) {
      await client.close();
      if (clock.monotonicMs() > until || signal.aborted)
        fail('server-unreachable', `The server did not answer within ${SERVER_START_MS / 1000} s: ${String(error)}`);
    }
    await sleep(200, signal);
  }
}
