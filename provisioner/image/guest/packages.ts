/** Packages of a distribution as plain files, by an apt that has a state of its own: no root, no chroot, no tree. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Distribution } from '../../core/distributions/load.js';
import { fail } from '../../core/problem.js';
import { type AptSource, type RunOptions, runLogged } from '../mmdebstrap.js';
import { aptOptions, isKernel, simulated, sourcesList } from './recipe.js';

export interface PackageRequest {
  readonly distribution: Distribution;
  readonly sources: readonly AptSource[];
  /** Unpacked with everything that they need. */
  readonly packages: readonly string[];
  /** Of this one and what it needs, only the kernel and its modules. */
  readonly kernelPackage: string;
  /** A folder that does not exist yet; holds apt's state and the archives. */
  readonly workDir: string;
  /** Folder to unpack into. */
  readonly target: string;
  readonly run: RunOptions & { readonly what: string };
}

/**
 * Downloads and unpacks. Signatures and checksums are apt's. Throws ProblemError: dependency-missing (apt, dpkg),
 * image-build.
 */
export async function unpackPackages(request: PackageRequest): Promise<void> {
  const { distribution, workDir, run } = request;
  const debs = join(workDir, 'debs');
  for (const dir of ['lists/partial', 'cache/archives/partial', 'debs'])
    await mkdir(join(workDir, dir), { recursive: true });
  await writeFile(join(workDir, 'status'), '');
  await writeFile(join(workDir, 'sources.list'), sourcesList(request.sources, distribution.keyring.file));
  const options = aptOptions(workDir);
  const apt = async (...argv: string[]): Promise<string[]> => {
    const lines: string[] = [];
    await runLogged('apt-get', [...options, '-q', ...argv], {
      ...run,
      cwd: debs,
      dependency: 'apt',
      progress: line => {
        lines.push(line);
        return null;
      },
    });
    return lines;
  };
  run.onProgress?.('downloading packages');
  await apt('update');
  const kernel = simulated(await apt('--simulate', 'install', request.kernelPackage)).filter(isKernel);
  if (kernel.length === 0) fail('image-build', `${request.kernelPackage} brings no kernel package.`);
  const others = simulated(await apt('--simulate', 'install', ...request.packages));
  await apt('download', ...kernel, ...others);

  run.onProgress?.('unpacking');
  for (const deb of await readdir(debs))
    await runLogged('dpkg-deb', ['--extract', join(debs, deb), request.target], { ...run, dependency: 'dpkg' });
}
