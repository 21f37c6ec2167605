/** The network boot loaders of Debian's package `ipxe`, held in memory: TFTP and HTTP serve them from there, never from a path. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '../core/problem.js';

export interface Loader {
  readonly name: string;
  readonly data: Buffer;
  readonly sha256: string;
}

/** By file name, e.g. `snponly.efi`. */
export type Loaders = ReadonlyMap<string, Loader>;

/**
 * undionly.kpxe: BIOS clients whose ROM is not iPXE. snponly.efi: UEFI, on the firmware's own NIC driver (works wherever
 * PXE worked). ipxe.efi: UEFI with iPXE's drivers, for firmware whose driver is broken.
 */
export const LOADER_NAMES = ['undionly.kpxe', 'snponly.efi', 'ipxe.efi'] as const;

/** /usr/lib/ipxe/ipxe.efi is a link to /boot on Debian; it may be absent where /boot is another file system. */
const FOLDERS = ['/usr/lib/ipxe', '/boot'];

/** @throws ProblemError dependency-missing, with the package to install */
export async function readLoaders(folders: readonly string[] = FOLDERS): Promise<Loaders> {
  const loaders = new Map<string, Loader>();
  for (const name of LOADER_NAMES) {
    const found = await Promise.all(folders.map(folder => readFile(join(folder, name)).catch(() => null)));
    const data = found.find(d => d !== null && d.length > 0);
    if (!data)
      fail('dependency-missing', `The boot loader ${name} is not in ${folders.join(' or ')}.`, {
        hint: 'Install the package `ipxe` (apt-get install ipxe).',
        detail: { file: name, package: 'ipxe' },
      });
    loaders.set(name, { name, data, sha256: createHash('sha256').update(data).digest('hex') });
  }
  return loaders;
}
