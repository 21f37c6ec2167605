/** The root file system that all container hosts of a lab share below their own changes; built once and kept. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { loadDistribution } from '../core/distributions/load.js';
import { fail } from '../core/problem.js';

const execFileAsync = promisify(execFile);

const DISTRIBUTION = 'debian-12';
/** Of an installed server's packages those that a host without kernel, firmware and first boot has no use for. */
const NOT_IN_CONTAINERS = ['cloud-guest-utils', 'cloud-init', 'dosfstools', 'efibootmgr', 'initramfs-tools'];
/** What every role of a cloud asks of a host, so that no layer brings it again; ethtool tells NICs apart. */
const MORE_PACKAGES = ['ethtool', 'netcat-openbsd', 'nftables'];
/** As on installed servers: a package that needs its documentation at run time is found here, too. */
const PATHS = [
  ...['/usr/share/man/*', '/usr/share/doc/*/*', '/usr/share/info/*', '/usr/share/locale/*/*'].map(
    path => `--dpkgopt=path-exclude=${path}`,
  ),
  ...['/usr/share/doc/*/copyright', '/usr/share/locale/locale.alias'].map(path => `--dpkgopt=path-include=${path}`),
];
const BUILD_MS = 20 * 60_000;

const CACHE_DIR = '/var/cache/halligan/lab';

/** The argv of mmdebstrap but for its target. Pure but for reading our own data. */
export function rootfsArgv(): { suite: string; argv: string[] } {
  const { os, suite } = loadDistribution(DISTRIBUTION);
  const packages = [...os.packages.filter(name => !NOT_IN_CONTAINERS.includes(name)), ...MORE_PACKAGES].sort();
  return {
    suite,
    argv: [
      ...['--quiet', '--variant=minbase', '--mode=root', '--aptopt=APT::Install-Recommends "false"'],
      ...['--aptopt=Acquire::Languages "none"', ...PATHS, `--include=${packages.join(',')}`, suite],
    ],
  };
}

/**
 * The folder of the root file system; built when the cache has none of these packages.
 * Throws ProblemError: request-invalid (a given one without sshd), dependency-missing, lab-failed.
 */
export async function labRootfs(where: { rootfs?: string; cacheDir?: string } = {}): Promise<string> {
  if (where.rootfs !== undefined) {
    if (!existsSync(join(where.rootfs, 'usr/sbin/sshd'))) {
      fail('request-invalid', `The root file system ${where.rootfs} has no sshd: hosts could not be adopted.`);
    }
    return where.rootfs;
  }
  const cache = where.cacheDir ?? CACHE_DIR;
  const { suite, argv } = rootfsArgv();
  const key = createHash('sha256').update(argv.join('\n')).digest('hex').slice(0, 12);
  const root = join(cache, `rootfs-${suite}-${key}`);
  if (existsSync(root)) return root;
  mkdirSync(cache, { recursive: true });
  const temporary = `${root}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  try {
    await execFileAsync('mmdebstrap', [...argv, temporary], { timeout: BUILD_MS, maxBuffer: 1 << 24 }).catch(error => {
      const failure = error as NodeJS.ErrnoException & { stderr?: string };
      if (failure.code === 'ENOENT') fail('dependency-missing', 'The lab needs `mmdebstrap`, which is not installed.');
      const last = (failure.stderr || failure.message).trim().split('\n').slice(-3).join(' | ');
      fail('lab-failed', `The root file system of container hosts could not be built: ${last}`);
    });
    chmodSync(temporary, 0o755);
    // Complete or not there at all; somebody else may have been faster.
    if (!existsSync(root)) renameSync(temporary, root);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return root;
}
