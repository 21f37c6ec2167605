/** Hosts that are systemd-nspawn containers with real systemd and sshd: already installed machines, for adoption. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { fail } from '../core/problem.js';
import type { Lab, LabHost, LabSpec } from './types.js';

const execFileAsync = promisify(execFile);

/** Mount points at or below `dir`, deepest first. */
export function mountsBelow(mountinfo: string, dir: string): string[] {
  return mountinfo
    .split('\n')
    .map(line => line.split(' ')[4])
    .filter(point => point !== undefined)
    .map(point => point.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))))
    .filter(point => point === dir || point.startsWith(`${dir}/`))
    .reverse();
}

export async function unmountBelow(dir: string): Promise<void> {
  for (const point of mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir)) {
    await execFileAsync('umount', [point]).catch(() => execFileAsync('umount', ['-l', point]));
  }
}

export async function startHosts(_lab: Lab, _spec: LabSpec): Promise<LabHost[]> {
  return fail('lab-failed', 'Container hosts are not there yet.');
}
