/**
 * Builds the RAM environment: one initrd file that the kernel unpacks, made of
 *
 *   cpio: /init /busybox /modules/… /root.squashfs   (the base: depends on packages and templates only)
 *   cpio: /authorized_keys                           (who may log in; replaced without building anew)
 *
 * iPXE loads it whole, so that the node needs neither driver nor address before its system runs.
 */
import { execFile } from 'node:child_process';
import { createReadStream, createWriteStream } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { type Clock, systemClock } from '../../core/clock.js';
import { type Distribution, loadDistribution, packageRoot } from '../../core/distributions/load.js';
import { inputHash } from '../../core/input-hash.js';
import { fail } from '../../core/problem.js';
import { describeFile, machineSources, makeTree, resolveSources, runLogged } from '../mmdebstrap.js';
import { createImageStore } from '../store.js';
import type { RamImageManifest } from '../types.js';
import { CPIO_TYPE, cpioFile, cpioHeader, cpioPadding, cpioTrailer } from './cpio.js';
import {
  authorizedKeyLine,
  globPattern,
  INITRD_MODULES,
  insertionOrder,
  isPrunedModule,
  KEPT_UDEV_RULES,
  PRUNED_MODULES,
  PRUNED_PATHS,
  RAM_COMMAND_LINE,
  RAM_IMAGE,
  type RamKernel,
  ramTree,
} from './recipe.js';

const run = promisify(execFile);

export interface RamBuildOptions {
  /** Name of a data file of core/distributions; debian-12 by default. */
  readonly distribution?: string;
  readonly kernel: RamKernel;
  /** Name of the image; `ram` or `ram-cloud` by default. */
  readonly name?: string;
  readonly imagesDir: string;
  /** Public keys that may log in as root: the server's own. */
  readonly authorizedKeys: readonly string[];
  /** Instead of the archive that this machine's apt uses. */
  readonly mirror?: string;
  /** Compression of the squashfs; bench/ram has what each costs at boot. */
  readonly compression?: SquashfsCompression;
  /** Build although the same inputs were built before: newer packages. */
  readonly force?: boolean;
  readonly clock?: Clock;
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export type SquashfsCompression = 'lz4' | 'gzip' | 'zstd';
const SQUASHFS_OPTIONS: Record<SquashfsCompression, readonly string[]> = {
  lz4: ['-comp', 'lz4', '-Xhc'],
  gzip: ['-comp', 'gzip'],
  zstd: ['-comp', 'zstd', '-Xcompression-level', '12'],
};
const BASE = 'base.json';
const STALE_MS = 6 * 3_600_000;

/**
 * Builds `imagesDir/NAME`, or returns what is there when the same inputs were built before; with other keys alone only the
 * end of the initrd is written anew. Throws ProblemError: image-build, dependency-missing, capability-missing.
 */
export async function buildRamImage(options: RamBuildOptions): Promise<RamImageManifest> {
  const distribution = loadDistribution(options.distribution ?? 'debian-12');
  const name = options.name ?? RAM_IMAGE[options.kernel].name;
  const keys = options.authorizedKeys.map(authorizedKeyLine);
  const compression = options.compression ?? 'zstd';
  const progress = options.onProgress ?? (() => {});
  const sources = resolveSources(distribution, await machineSources(), {
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    extraComponents: options.kernel === 'generic' ? distribution.firmware.components : [],
  });
  const overlay = await readOverlay(join(packageRoot(), 'templates/ram'));
  const baseHash = inputHash({
    builder: 2,
    tree: { ...ramTree(distribution, options.kernel, sources, '/'), distribution: null },
    suite: distribution.suite,
    overlay: [...overlay].map(([path, data]) => [path, data.toString('utf8')]),
    squashfs: SQUASHFS_OPTIONS[compression],
    recipe: [PRUNED_MODULES, PRUNED_PATHS, KEPT_UDEV_RULES, INITRD_MODULES, RAM_COMMAND_LINE],
  });
  const hash = inputHash({ baseHash, keys });
  const store = createImageStore(options.imagesDir);
  await mkdir(options.imagesDir, { recursive: true });
  const built = options.force ? null : await store.get(name).catch(() => null);
  if (built?.kind === 'ram' && built.inputHash === hash) return built;

  await removeStale(options.imagesDir, `.building-${name}-`, (options.clock ?? systemClock).nowMs());
  const staging = await mkdtemp(join(options.imagesDir, `.building-${name}-`));
  try {
    const base = built?.kind === 'ram' ? await readBase(join(options.imagesDir, name)) : null;
    if (base?.hash === baseHash) {
      progress('exchanging the authorized keys of the image that is there');
      for (const file of ['vmlinuz', 'initrd', BASE])
        await copyFile(join(options.imagesDir, name, file), join(staging, file));
      await truncate(join(staging, 'initrd'), base.bytes);
    } else
      await buildBase({ ...options, name, distribution, staging, compression, progress, sources, overlay, baseHash });
    const { kernelVersion } = JSON.parse(await readFile(join(staging, BASE), 'utf8')) as BaseRecord;
    await appendKeys(join(staging, 'initrd'), keys);
    const manifest: RamImageManifest = {
      schema: 1,
      kind: 'ram',
      name,
      distribution: distribution.distribution,
      release: distribution.release,
      arch: 'amd64',
      createdMs: (options.clock ?? systemClock).nowMs(),
      inputHash: hash,
      kernel: { name: 'vmlinuz', ...(await describeFile(join(staging, 'vmlinuz'))) },
      initrd: { name: 'initrd', ...(await describeFile(join(staging, 'initrd'))) },
      kernelVersion,
      minMemoryMiB: RAM_IMAGE[options.kernel].minMemoryMiB,
      commandLine: RAM_COMMAND_LINE,
    };
    await store.publish(manifest, staging);
    progress(`built ${name}: initrd of ${Math.round(manifest.initrd.bytes / 1e6)} MB, kernel ${kernelVersion}`);
    return manifest;
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

/** What a killed build left behind; one that is younger may still be at work. */
async function removeStale(dir: string, prefix: string, nowMs: number): Promise<void> {
  for (const entry of await readdir(dir)) {
    const path = join(dir, entry);
    const found = entry.startsWith(prefix) ? await stat(path).catch(() => null) : null;
    if (found && nowMs - found.mtimeMs > STALE_MS) await rm(path, { recursive: true, force: true });
  }
}

interface BaseRecord {
  readonly hash: string;
  /** Length of the initrd before its keys. */
  readonly bytes: number;
  readonly kernelVersion: string;
}

async function readBase(dir: string): Promise<BaseRecord | null> {
  try {
    return JSON.parse(await readFile(join(dir, BASE), 'utf8')) as BaseRecord;
  } catch {
    return null;
  }
}

interface BaseOptions extends RamBuildOptions {
  readonly name: string;
  readonly staging: string;
  readonly compression: SquashfsCompression;
  readonly progress: (line: string) => void;
  readonly sources: Parameters<typeof ramTree>[2];
  readonly overlay: Overlay;
  readonly baseHash: string;
}

async function buildBase(
  options: Omit<BaseOptions, 'distribution'> & { readonly distribution: Distribution },
): Promise<void> {
  const { staging, progress } = options;
  const tree = join(staging, 'tree');
  const logged = {
    logFile: join(options.imagesDir, `${options.name}.build.log`),
    what: `the image ${options.name}`,
    onProgress: progress,
    ...(options.signal ? { signal: options.signal } : {}),
  };
  await rm(logged.logFile, { force: true });
  await makeTree(ramTree(options.distribution, options.kernel, options.sources, tree), logged);

  progress('shaping the tree');
  const modulesDir = join(tree, 'usr/lib/modules');
  const versions = await readdir(modulesDir);
  const kernelVersion = versions[0];
  if (kernelVersion === undefined || versions.length > 1)
    return fail('image-build', `The tree has ${versions.length} kernels instead of one: ${versions.join(', ')}.`);
  await copyFile(join(tree, `boot/vmlinuz-${kernelVersion}`), join(staging, 'vmlinuz'));
  await pruneModules(join(modulesDir, kernelVersion, 'kernel'));
  await runLogged('chroot', [tree, 'depmod', kernelVersion], { ...logged, dependency: 'coreutils' });
  await pruneFirmware(tree, kernelVersion);
  const members = await initrdMembers(tree, join(modulesDir, kernelVersion), options.overlay);
  await prunePaths(tree);
  await writeOverlay(tree, options.overlay);

  progress('compressing');
  const squashfs = join(staging, 'root.squashfs');
  await runLogged(
    'mksquashfs',
    [tree, squashfs, '-noappend', '-no-progress', '-no-xattrs', '-quiet', ...SQUASHFS_OPTIONS[options.compression]],
    { ...logged, dependency: 'squashfs-tools' },
  );
  await rm(tree, { recursive: true, force: true });

  const { size } = await stat(squashfs);
  const out = createWriteStream(join(staging, 'initrd'));
  let length = 0;
  const put = (data: Buffer) => {
    length += data.length;
    out.write(data);
  };
  for (const [index, member] of members.entries())
    put(
      'device' in member
        ? cpioHeader({ ...member, size: 0 }, index)
        : cpioFile(member.name, member.mode, member.data, index),
    );
  put(cpioHeader({ name: 'root.squashfs', mode: CPIO_TYPE.file | 0o400, size }, members.length));
  await pipeline(createReadStream(squashfs), out, { end: false });
  length += size;
  put(cpioPadding(size));
  put(cpioTrailer(length));
  await new Promise<void>((resolve, reject) => out.end((error?: Error | null) => (error ? reject(error) : resolve())));
  await rm(squashfs);
  const record: BaseRecord = { hash: options.baseHash, bytes: length, kernelVersion };
  await writeFile(join(staging, BASE), JSON.stringify(record));
}

/** Writes the second archive behind the base. */
async function appendKeys(initrd: string, keys: readonly string[]): Promise<void> {
  const file = await open(initrd, 'a');
  try {
    const member = cpioFile(
      'authorized_keys',
      CPIO_TYPE.file | 0o600,
      Buffer.from(keys.map(key => `${key}\n`).join('')),
      0,
    );
    await file.write(member);
    await file.write(cpioTrailer(member.length));
    await file.sync();
  } finally {
    await file.close();
  }
}

type InitrdMember =
  | { readonly name: string; readonly mode: number; readonly data: Buffer }
  | { readonly name: string; readonly mode: number; readonly device: readonly [number, number] };

async function initrdMembers(tree: string, modules: string, overlay: Overlay): Promise<InitrdMember[]> {
  const order = insertionOrder(
    await readFile(join(modules, 'modules.dep'), 'utf8'),
    await readFile(join(modules, 'modules.builtin'), 'utf8'),
    INITRD_MODULES,
  );
  const directory = (name: string) => ({ name, mode: CPIO_TYPE.directory | 0o755, data: Buffer.alloc(0) });
  const file = (name: string, mode: number, data: Buffer) => ({ name, mode: CPIO_TYPE.file | mode, data });
  const names: string[] = [];
  const members: InitrdMember[] = ['dev', 'proc', 'sys', 'ro', 'rw', 'newroot', 'modules'].map(directory);
  // The kernel opens it for init's output before anything can mount /dev.
  members.push({ name: 'dev/console', mode: CPIO_TYPE.characterDevice | 0o600, device: [5, 1] });
  for (const path of order) {
    const module = (path.split('/').at(-1) ?? path).replace(/\.(zst|xz|gz)$/, '');
    names.push(module);
    members.push(file(`modules/${module}`, 0o644, await readModule(join(modules, path))));
  }
  members.push(file('modules/order', 0o644, Buffer.from(names.map(name => `${name}\n`).join(''))));
  members.push(file('busybox', 0o755, await readFile(join(tree, 'bin/busybox'))));
  members.push(file('init', 0o755, overlay.get('initrd/init') ?? Buffer.alloc(0)));
  return members;
}

/** A module's bytes; the initrd's insmod takes none that are compressed. */
async function readModule(path: string): Promise<Buffer> {
  const tool = path.endsWith('.zst') ? 'zstd' : path.endsWith('.xz') ? 'xz' : path.endsWith('.gz') ? 'gzip' : null;
  if (tool === null) return readFile(path);
  const { stdout } = await run(tool, ['-dc', path], { encoding: 'buffer', maxBuffer: 64 * 2 ** 20 });
  return stdout;
}

async function pruneModules(kernelDir: string): Promise<void> {
  for (const entry of await readdir(kernelDir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && isPrunedModule(path.slice(kernelDir.length + 1))) await rm(path);
  }
}

/** Keeps the firmware files that a module of the tree names (modinfo), and what links among them point to. */
async function pruneFirmware(tree: string, kernelVersion: string): Promise<void> {
  const root = join(tree, 'usr/lib/firmware');
  const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
  if (entries.length === 0) return;
  const modules = (await readdir(join(tree, 'usr/lib/modules', kernelVersion, 'kernel'), { recursive: true }))
    .filter(path => /\.ko(\.\w+)?$/.test(path))
    .map(path => `/usr/lib/modules/${kernelVersion}/kernel/${path}`);
  const wanted: string[] = [];
  for (let start = 0; start < modules.length; start += 500) {
    const argv = [tree, 'modinfo', '-F', 'firmware', ...modules.slice(start, start + 500)];
    const { stdout } = await run('chroot', argv, { maxBuffer: 16 * 2 ** 20 });
    wanted.push(...stdout.split('\n').filter(Boolean));
  }
  const exact = new Set(wanted);
  const globs = wanted.filter(name => /[*?[]/.test(name)).map(globPattern);
  const keep = new Set<string>();
  const files = entries.filter(entry => !entry.isDirectory()).map(entry => join(entry.parentPath, entry.name));
  for (const path of files) {
    const name = path.slice(root.length + 1).replace(/\.(xz|zst)$/, '');
    if (!exact.has(name) && !globs.some(glob => glob.test(name))) continue;
    keep.add(path);
    // Links are relative or point inside the tree; realpath in a chroot resolves both.
    const { stdout } = await run('chroot', [tree, 'realpath', path.slice(tree.length)]).catch(() => ({ stdout: '' }));
    if (stdout) keep.add(join(tree, stdout.trim()));
  }
  const real = (path: string) => path.replace(`${tree}/lib/`, `${tree}/usr/lib/`);
  const kept = new Set([...keep].map(real));
  for (const path of files) if (!kept.has(real(path))) await rm(path, { force: true });
}

async function prunePaths(tree: string): Promise<void> {
  for (const pattern of PRUNED_PATHS) {
    const dir = join(tree, dirname(pattern));
    const glob = globPattern(pattern.split('/').at(-1) ?? pattern);
    for (const entry of await readdir(dir).catch((): string[] => []))
      if (glob.test(entry)) await rm(join(dir, entry), { recursive: true, force: true });
  }
  for (const dir of ['usr/lib/udev/rules.d', 'etc/udev/rules.d'])
    for (const entry of await readdir(join(tree, dir)).catch((): string[] => []))
      if (!KEPT_UDEV_RULES.some(kept => kept === entry)) await rm(join(tree, dir, entry), { recursive: true });
  // What packages want at boot; our target names what runs.
  for (const dir of ['usr/lib/systemd/system', 'etc/systemd/system'])
    for (const entry of await readdir(join(tree, dir)))
      if (/\.(wants|requires)$/.test(entry)) await rm(join(tree, dir, entry), { recursive: true });
  const ssh = join(tree, 'etc/ssh');
  for (const entry of await readdir(ssh)) if (entry.startsWith('ssh_host_')) await rm(join(ssh, entry));
}

/** Files of templates/ram by path; `root/…` mirrors the target. */
type Overlay = ReadonlyMap<string, Buffer>;

async function readOverlay(dir: string): Promise<Overlay> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort();
  const overlay = new Map<string, Buffer>();
  for (const path of files) overlay.set(path.slice(dir.length + 1), await readFile(path));
  return overlay;
}

async function writeOverlay(tree: string, overlay: Overlay): Promise<void> {
  for (const [path, data] of overlay) {
    if (!path.startsWith('root/')) continue;
    const target = join(tree, path.slice('root/'.length));
    // networkd and others that are not root read here; our own umask would keep them out.
    const made = await mkdir(dirname(target), { recursive: true });
    if (made !== undefined)
      for (let dir = dirname(target); dir.length >= made.length; dir = dirname(dir)) await chmod(dir, 0o755);
    await writeFile(target, data);
    await chmod(target, data.subarray(0, 2).toString() === '#!' ? 0o755 : 0o644);
  }
  const put = async (path: string, text: string) => {
    await writeFile(join(tree, path), text);
    await chmod(join(tree, path), 0o644);
  };
  const link = async (path: string, to: string) => {
    await rm(join(tree, path), { force: true, recursive: true });
    await symlink(to, join(tree, path));
  };
  await link('etc/systemd/system/default.target', 'halligan.target');
  await link('etc/resolv.conf', '/run/halligan/resolv.conf');
  await link('etc/mtab', '/proc/self/mounts');
  await put('etc/hostname', 'halligan-ram\n');
  await put('etc/hosts', '127.0.0.1 localhost halligan-ram\n');
  // Empty, so that each boot gets its own and none is a "first boot" with presets applied (machine-id(5)).
  await put('etc/machine-id', '');
  for (const dir of ['var/log', 'var/cache', 'root/.ssh'])
    await mkdir(join(tree, dir), { recursive: true, mode: 0o700 });
}
