/** Processes by what the kernel says of them (proc(5)), so that a recycled pid is never mistaken. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { sleep } from '../core/clock.js';

export interface ProcessId {
  readonly pid: number;
  /** Start time in clock ticks since boot (field 22 of stat). */
  readonly start: string;
}

export interface ProcessStat {
  readonly start: string;
  readonly ppid: number;
  readonly state: string;
  /** User and system time. */
  readonly cpuSeconds: number;
}

/** USER_HZ; 100 on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

/** Parses /proc/PID/stat; the command name may hold blanks and parentheses. */
export function parseStat(text: string): ProcessStat | null {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, ppid] = fields;
  const [user, system, start] = [fields[11], fields[12], fields[19]];
  if (!state || !ppid || !user || !system || !start) return null;
  return { state, ppid: Number(ppid), start, cpuSeconds: (Number(user) + Number(system)) / TICKS_PER_SECOND };
}

export function processStat(pid: number): ProcessStat | null {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return null;
  }
}

export function identify(pid: number): ProcessId | null {
  const stat = processStat(pid);
  return stat ? { pid, start: stat.start } : null;
}

/** Is it this very process, and not dead? */
export function alive(id: ProcessId): boolean {
  const stat = processStat(id.pid);
  return stat !== null && stat.start === id.start && stat.state !== 'Z' && stat.state !== 'X';
}

export function allPids(): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number);
}

/** Does the process carry `NAME=VALUE` in the environment it was started with? */
export function carries(pid: number, name: string, value: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`${name}=${value}`);
  } catch {
    return false;
  }
}

/** The inode of its network namespace, `net:[4026531840]`, or null. */
export function netnsOfProcess(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}

/** The inode of a named network namespace (ip-netns(8)), as netnsOfProcess shows it, or null. */
export function netnsInode(name: string): string | null {
  try {
    // /run/netns/NAME is a bind mount of the namespace: its inode is that of net:[…].
    return `net:[${statSync(`/run/netns/${name}`).ino}]`;
  } catch {
    return null;
  }
}

/** The arguments it was started with. */
export function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Is it the first process of a process namespace right below ours, not of one inside that? */
export function isContainerInit(pid: number): boolean {
  try {
    const ids = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]?.split(/\s+/) ?? [];
    return ids.length === 2 && ids[1] === '1';
  } catch {
    return false;
  }
}

/** This process and those that started it: never to be killed by a sweep. */
export function ownLine(): Set<number> {
  const line = new Set<number>();
  for (let pid = process.pid; pid > 0 && !line.has(pid); pid = processStat(pid)?.ppid ?? 0) line.add(pid);
  return line;
}

export function signal(id: ProcessId, name: NodeJS.Signals): void {
  if (!alive(id)) return;
  try {
    process.kill(id.pid, name);
  } catch {
    // It ended in between.
  }
}

/** Asks all to end, waits `graceMs`, then kills. Resolves with those that still live. */
export async function endAll(ids: readonly ProcessId[], graceMs: number): Promise<ProcessId[]> {
  for (const id of ids) signal(id, 'SIGTERM');
  const wait = async (ms: number) => {
    for (let waited = 0; waited < ms && ids.some(alive); waited += 50) await sleep(50);
  };
  await wait(graceMs);
  for (const id of ids) signal(id, 'SIGKILL');
  await wait(5000);
  return ids.filter(alive);
}
