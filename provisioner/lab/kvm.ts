/** Whether KVM works here: the device file alone proves nothing (nested hosts have it and hang). */
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';

export interface ProbeRun {
  /** What the command printed on stdout and stderr. */
  readonly output: string;
  /** Null when it was ended by the time limit or by a signal. */
  readonly code: number | null;
}

/** Runs a command for at most `timeoutMs`. Must not reject. */
export type ProbeRunner = (file: string, args: readonly string[], timeoutMs: number) => Promise<ProbeRun>;

export interface KvmProbe {
  readonly works: boolean;
  /** A sentence. */
  readonly reason: string;
}

export const PROBE_TIMEOUT_MS = 10_000;

export const runProbe: ProbeRunner = (file, args, timeoutMs) =>
  new Promise(resolve => {
    execFile(file, [...args], { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 1 << 20 }, (error, out, err) =>
      resolve({ output: out + err, code: error ? (typeof error.code === 'number' ? error.code : null) : 0 }),
    );
  });

/** The newest stock kernel under `dirs` (files named `vmlinuz*`), or null. */
export function findKernel(dirs: readonly string[]): string | null {
  const found: string[] = [];
  for (const dir of dirs) {
    try {
      for (const name of readdirSync(dir)) if (/^vmlinuz/.test(name)) found.push(join(dir, name));
    } catch {
      // The folder need not exist.
    }
  }
  return found.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).pop() ?? null;
}

/**
 * Boots a stock kernel under KVM, without a root file system, and looks for its banner on the serial console. The
 * kernel then panics and the machine ends (`panic=-1`, `-no-reboot`).
 */
export async function probeKvm(options: {
  readonly run?: ProbeRunner;
  readonly kernel: string | null;
  readonly device?: boolean;
}): Promise<KvmProbe> {
  const { kernel, run = runProbe } = options;
  if (options.device === false) return { works: false, reason: 'There is no /dev/kvm.' };
  if (!kernel) return { works: false, reason: 'No stock kernel was found to try KVM with.' };
  const result = await run(
    'qemu-system-x86_64',
    [
      ...['-accel', 'kvm', '-cpu', 'host', '-machine', 'q35,graphics=off', '-m', '256', '-nodefaults'],
      ...['-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio', '-kernel', kernel],
      ...['-append', 'console=ttyS0 panic=-1 nokaslr'],
    ],
    PROBE_TIMEOUT_MS,
  );
  if (/Linux version \d/.test(result.output)) return { works: true, reason: 'A kernel booted under KVM.' };
  // Firmware paints its screen: keep what can be read.
  const readable = stripVTControlCharacters(result.output.replaceAll('\x1bc', '')).replace(/[^\x20-\x7e\n]/g, '');
  const last = readable.trim().split('\n').pop()?.trim().slice(0, 200);
  const what =
    result.code === null ? `nothing came within ${PROBE_TIMEOUT_MS / 1000} s` : `QEMU ended (${result.code})`;
  return { works: false, reason: `A kernel did not boot under KVM: ${what}${last ? `; last line: ${last}` : ''}.` };
}

/** What the lab runs with. `kvm` by force still needs no probe; `auto` believes only a probe. */
export async function chooseAccel(
  wish: 'auto' | 'kvm' | 'tcg',
  probe: () => Promise<KvmProbe>,
): Promise<{ accel: 'tcg' | 'kvm'; reason: string }> {
  if (wish === 'tcg') return { accel: 'tcg', reason: 'Emulation was asked for.' };
  if (wish === 'kvm') return { accel: 'kvm', reason: 'KVM was asked for.' };
  const result = await probe();
  return { accel: result.works ? 'kvm' : 'tcg', reason: result.reason };
}
