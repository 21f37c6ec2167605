/** Fakes of what the boot plane stands on, named by behaviour. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Loaders } from '../../../provisioner/boot/loaders.js';
import type { BootDecision, BootOracle } from '../../../provisioner/boot/types.js';
import { fail } from '../../../provisioner/core/problem.js';
import type { BootTrace, TraceEntry } from '../../../provisioner/core/trace.js';
import type { ImageStore, RamImageManifest } from '../../../provisioner/image/types.js';

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');

/** A RAM image on disk, with the given kernel and initrd. */
export async function imageFolder(kernel: Buffer, initrd: Buffer) {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-images-'));
  await writeFile(join(folder, 'vmlinuz'), kernel);
  await writeFile(join(folder, 'initrd.img'), initrd);
  const manifest: RamImageManifest = {
    schema: 1,
    kind: 'ram',
    name: 'ram',
    distribution: 'debian',
    release: '12',
    arch: 'amd64',
    createdMs: 0,
    inputHash: '',
    kernel: { name: 'vmlinuz', bytes: kernel.length, sha256: sha256(kernel) },
    initrd: { name: 'initrd.img', bytes: initrd.length, sha256: sha256(initrd) },
    kernelVersion: '6.1',
    minMemoryMiB: 512,
  };
  const store: Pick<ImageStore, 'get' | 'path'> = {
    get: async name => (name === 'ram' ? manifest : fail('image-missing', `There is no image ${name}.`)),
    path: async (_name, file) => join(folder, file),
  };
  return { store, manifest, folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Remembers what was recorded. */
export function rememberingTrace(): BootTrace & { entries: Omit<TraceEntry, 'atMs' | 'silent' | 'data'>[] } {
  const entries: Omit<TraceEntry, 'atMs' | 'silent' | 'data'>[] = [];
  return { entries, record: e => void entries.push(e), read: async () => [], close: async () => {} };
}

export interface SeenByOracle {
  identities: unknown[];
  milestones: string[];
  ram: unknown[];
  installed: unknown[];
}

/** Answers the same decision to all, knows the token `known-token`, and remembers what it was told. */
export function steadyOracle(decision: BootDecision): BootOracle & SeenByOracle {
  const seen: SeenByOracle = { identities: [], milestones: [], ram: [], installed: [] };
  return {
    ...seen,
    async decide(identity) {
      seen.identities.push(identity);
      return decision;
    },
    async milestone(mac, name) {
      seen.milestones.push(`${mac} ${name}`);
    },
    knowsToken: token => token === 'known-token',
    async ramCallHome(_token, report) {
      seen.ram.push(report);
    },
    async installedCallHome(_token, report) {
      seen.installed.push(report);
    },
  };
}

export function loadersOf(files: Record<string, Buffer>): Loaders {
  return new Map(Object.entries(files).map(([name, data]) => [name, { name, data, sha256: sha256(data) }]));
}
