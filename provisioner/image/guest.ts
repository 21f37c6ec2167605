/**
 * Builds the guest: a server small enough to be booted by the dozen, which says on its console what the cloud gave it.
 * Kernel and one initramfs; the same two on a disk that the BIOS boots. Everything is made of plain files, by any user.
 *
 *   disk.qcow2    MBR; one FAT partition: syslinux, vmlinuz, initrd
 *   initrd        busybox (init), dropbear and its libraries, modules, templates/guest
 */
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Clock, systemClock } from '../core/clock.js';
import { type Distribution, loadDistribution, packageRoot } from '../core/distributions/load.js';
import { inputHash } from '../core/input-hash.js';
import { fail } from '../core/problem.js';
import { unpackPackages } from './guest/packages.js';
import {
  diskMiB,
  GUEST_COMMAND_LINE,
  GUEST_FOLDERS,
  GUEST_IMAGE,
  GUEST_LINKS,
  GUEST_MODULES,
  GUEST_PACKAGES,
  LIBRARY_FOLDERS,
  LOADER,
  listedLibraries,
  MIB,
  masterBootRecord,
  mkfsArgv,
  moduleNeeds,
  moduleOrder,
  PARTITION_MIB,
  syslinuxConfig,
} from './guest/recipe.js';
import {
  checkKeyring,
  describeFile,
  machineSources,
  type RunOptions,
  resolveSources,
  runLogged,
} from './mmdebstrap.js';
import { CPIO_TYPE, cpioFile, cpioHeader, cpioTrailer } from './ram/cpio.js';
import { createImageStore } from './store.js';
import type { GuestImageManifest } from './types.js';

export interface GuestBuildOptions {
  readonly imagesDir: string;
  /** Instead of the archive that this machine's apt uses. */
  readonly mirror?: string;
  /** Keyring instead of the data's. */
  readonly keyring?: string;
  /** Build although the same inputs were built before: newer packages. */
  readonly force?: boolean;
  readonly clock?: Clock;
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
}

/** High, and still a matter of seconds: the image is built once and uploaded, cached and read at each boot. */
const INITRD_COMPRESSION = ['-q', '-19', '--rm'] as const;
const SYMBOLIC_LINK = 0o120000;

/**
 * Builds `imagesDir/guest`, or returns what is there when the same inputs were built before.
 * Throws ProblemError: image-build, dependency-missing (apt, dpkg, mtools, dosfstools, qemu-utils, zstd, keyring).
 */
export async function buildGuestImage(options: GuestBuildOptions): Promise<GuestImageManifest> {
  const loaded = loadDistribution(GUEST_IMAGE.distribution);
  const distribution: Distribution =
    options.keyring === undefined ? loaded : { ...loaded, keyring: { ...loaded.keyring, file: options.keyring } };
  await checkKeyring(distribution);
  const { name } = GUEST_IMAGE;
  const sources = resolveSources(
    distribution,
    await machineSources(),
    options.mirror === undefined ? {} : { mirror: options.mirror },
  );
  const overlay = await readOverlay(join(packageRoot(), 'templates/guest'));
  const hash = inputHash({
    builder: 1,
    sources,
    keyring: distribution.keyring.file,
    packages: [distribution.kernel.cloud, ...GUEST_PACKAGES],
    overlay: [...overlay].map(([path, data]) => [path, data.toString('utf8')]),
    recipe: [GUEST_MODULES, GUEST_FOLDERS, GUEST_LINKS, INITRD_COMPRESSION, syslinuxConfig(GUEST_COMMAND_LINE)],
  });
  const store = createImageStore(options.imagesDir);
  const built = options.force ? null : await store.get(name).catch(() => null);
  if (built?.kind === 'guest' && built.inputHash === hash) return built;

  await mkdir(options.imagesDir, { recursive: true });
  const work = await mkdtemp(join(options.imagesDir, `.build-${name}-`));
  const progress = options.onProgress ?? (() => {});
  const run = {
    logFile: join(options.imagesDir, `${name}.build.log`),
    what: `the image ${name}`,
    onProgress: progress,
    ...(options.signal ? { signal: options.signal } : {}),
  };
  await rm(run.logFile, { force: true });
  try {
    const tree = join(work, 'tree');
    const out = join(work, 'out');
    await mkdir(tree);
    await mkdir(out);
    await unpackPackages({
      ...{ distribution, sources, packages: GUEST_PACKAGES, kernelPackage: distribution.kernel.cloud },
      ...{ workDir: join(work, 'apt'), target: tree, run },
    });

    progress('packing the initramfs');
    const kernelVersion = await readKernelVersion(tree);
    const vmlinuz = join(out, 'vmlinuz');
    await writeFile(vmlinuz, await readFile(join(tree, `boot/vmlinuz-${kernelVersion}`)));
    const initrd = join(out, 'initrd');
    const members = [
      ...(await systemMembers(tree, run)),
      ...(await moduleMembers(join(tree, 'lib/modules', kernelVersion))),
      ...overlayMembers(overlay),
    ];
    await writeFile(`${initrd}.cpio`, archive(members));
    await runLogged('zstd', [...INITRD_COMPRESSION, `${initrd}.cpio`, '-o', initrd], { ...run, dependency: 'zstd' });

    progress('making the disk image');
    const { rawBytes } = await makeDisk({ tree, work, vmlinuz, initrd, target: join(out, 'disk.qcow2') }, run);
    const file = async (fileName: string) => ({ name: fileName, ...(await describeFile(join(out, fileName))) });
    const manifest: GuestImageManifest = {
      schema: 1,
      kind: 'guest',
      name,
      distribution: distribution.distribution,
      release: distribution.release,
      arch: 'amd64',
      createdMs: (options.clock ?? systemClock).nowMs(),
      inputHash: hash,
      disk: { ...(await file('disk.qcow2')), rawBytes },
      kernel: await file('vmlinuz'),
      initrd: await file('initrd'),
      kernelVersion,
      minMemoryMiB: GUEST_IMAGE.minMemoryMiB,
      commandLine: GUEST_COMMAND_LINE,
    };
    await store.publish(manifest, out);
    progress(`built ${name}: disk of ${Math.round(manifest.disk.bytes / 1e6)} MB, kernel ${kernelVersion}`);
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Files of templates/guest, by their path in the guest. */
async function readOverlay(dir: string): Promise<ReadonlyMap<string, Buffer>> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort();
  const overlay = new Map<string, Buffer>();
  for (const path of files) overlay.set(path.slice(dir.length + 1), await readFile(path));
  return overlay;
}

interface Member {
  readonly name: string;
  readonly mode: number;
  readonly data: Buffer;
}
const fileMember = (name: string, mode: number, data: Buffer): Member => ({ name, mode: CPIO_TYPE.file | mode, data });

const library = (name: string) => `${LIBRARY_FOLDERS[0]}/${name}`;

/** Loader and arguments that run a program of unpacked packages with their own libraries, not with this machine's. */
function fromTree(tree: string, program: string): [string, string[]] {
  const folders = LIBRARY_FOLDERS.map(folder => join(tree, folder)).join(':');
  return [join(tree, library(LOADER)), ['--inhibit-cache', '--library-path', folders, join(tree, program)]];
}

/** busybox, dropbear, and the libraries that the loader of the same packages finds for it. */
async function systemMembers(tree: string, run: Logged): Promise<Member[]> {
  const programs = ['bin/busybox', 'usr/sbin/dropbear', 'usr/bin/dropbearkey'];
  const libraries = new Map<string, string>();
  for (const program of programs.slice(1)) {
    const lines: string[] = [];
    const [loader, argv] = fromTree(tree, program);
    await runLogged(loader, ['--list', ...argv], {
      ...run,
      dependency: 'libc6',
      progress: line => {
        lines.push(line);
        return null;
      },
    });
    for (const [name, path] of listedLibraries(lines)) {
      if (!path.startsWith(`${tree}/`))
        fail('image-build', `The packages do not bring ${name}, which ${program} needs.`);
      libraries.set(name, path);
    }
  }
  const members = [fileMember(`lib64/${LOADER}`, 0o755, await readFile(join(tree, library(LOADER))))];
  for (const program of programs) members.push(fileMember(program, 0o755, await readFile(join(tree, program))));
  for (const [name, path] of libraries) members.push(fileMember(library(name), 0o755, await readFile(path)));
  return members;
}

async function moduleMembers(folder: string): Promise<Member[]> {
  const paths = (await readdir(folder, { recursive: true })).filter(path => /\.ko(\.\w+)?$/.test(path));
  const builtin = await readFile(join(folder, 'modules.builtin'), 'utf8');
  const read = (path: string) => readFileSync(join(folder, path));
  const order = moduleOrder(GUEST_MODULES, paths, builtin, path => moduleNeeds(read(path)));
  return [
    fileMember('lib/modules/order', 0o644, Buffer.from(order.map(path => `${basename(path)}\n`).join(''))),
    ...order.map(path => fileMember(`lib/modules/${basename(path)}`, 0o644, read(path))),
  ];
}

const overlayMembers = (overlay: ReadonlyMap<string, Buffer>): Member[] =>
  [...overlay].map(([path, data]) =>
    fileMember(path, data.subarray(0, 2).toString() === '#!' ? 0o755 : path === 'etc/shadow' ? 0o600 : 0o644, data),
  );

/** The cpio archive of the files, of the folders that they need and of those that are always there. */
function archive(files: readonly Member[]): Buffer {
  const folders = new Set<string>(GUEST_FOLDERS);
  for (const { name } of files) {
    const parents: string[] = [];
    for (let dir = dirname(name); dir !== '.'; dir = dirname(dir)) parents.unshift(dir);
    for (const dir of parents) folders.add(dir);
  }
  const members: Member[] = [
    ...[...folders].map(name => ({
      name,
      mode: CPIO_TYPE.directory | (name.startsWith('root') ? 0o700 : 0o755),
      data: Buffer.alloc(0),
    })),
    ...Object.entries(GUEST_LINKS).map(([name, to]) => ({ name, mode: SYMBOLIC_LINK | 0o777, data: Buffer.from(to) })),
    ...files,
  ];
  const parts = members.map(({ name, mode, data }, index) => cpioFile(name, mode, data, index));
  // The kernel opens it for init before anything can mount /dev.
  const console = { name: 'dev/console', mode: CPIO_TYPE.characterDevice | 0o600, size: 0, device: [5, 1] as const };
  parts.push(cpioHeader(console, members.length));
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...parts, cpioTrailer(length)]);
}

async function readKernelVersion(tree: string): Promise<string> {
  const versions = await readdir(join(tree, 'lib/modules'));
  if (versions.length !== 1) fail('image-build', `The packages bring ${versions.length} kernels instead of one.`);
  return versions[0]!;
}

type Logged = RunOptions & { readonly what: string };

/** The disk: no loop device and no mount. syslinux's installer writes into the image by mtools. */
async function makeDisk(
  spec: { tree: string; work: string; vmlinuz: string; initrd: string; target: string },
  run: Logged,
): Promise<{ rawBytes: number }> {
  const raw = join(spec.work, 'disk.raw');
  const config = join(spec.work, 'syslinux.cfg');
  await writeFile(config, syslinuxConfig(GUEST_COMMAND_LINE));
  const sizeMiB = diskMiB((await stat(spec.vmlinuz)).size + (await stat(spec.initrd)).size);
  await writeFile(raw, '');
  await truncate(raw, sizeMiB * MIB);
  await runLogged('mkfs.vfat', mkfsArgv(raw, sizeMiB), { ...run, dependency: 'dosfstools' });
  // mtools knows the partition by an offset behind the file's name.
  const partition = `${raw}@@${PARTITION_MIB}M`;
  await runLogged('mcopy', ['-i', partition, spec.vmlinuz, spec.initrd, config, '::/'], {
    ...run,
    dependency: 'mtools',
  });
  const [program, argv] = fromTree(spec.tree, 'usr/bin/syslinux');
  await runLogged(program, [...argv, '--offset', `${PARTITION_MIB * MIB}`, '--install', raw], {
    ...run,
    dependency: 'mtools',
  });
  const image = await open(raw, 'r+');
  try {
    const sector = masterBootRecord(await readFile(join(spec.tree, 'usr/lib/syslinux/mbr/mbr.bin')), sizeMiB);
    await image.write(sector, 0, sector.length, 0);
  } finally {
    await image.close();
  }
  await runLogged('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', raw, spec.target], {
    ...run,
    dependency: 'qemu-utils',
  });
  return { rawBytes: sizeMiB * MIB };
}
