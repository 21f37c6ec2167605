/**
 * A whole-disk image from a tree, made of plain files: no loop device and no mount, so it works in containers and on
 * kernels without vfat. ext4 by `mke2fs -d`, ESP by mtools, GPT by sgdisk, GRUB for BIOS by patching its sectors.
 *
 *   LBA 2048            14  BIOS boot   4 MiB    GRUB's core.img
 *                       15  ESP       106 MiB    \EFI\BOOT: shim, signed GRUB, stub grub.cfg
 *                        1  root      the rest   ext4; last on the disk, so that it can grow
 */
import { open, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { patchGrubBios } from '../core/grub-bios.js';
import { type RunOptions, runLogged } from './mmdebstrap.js';

const MIB = 1024 * 1024;
const SECTOR = 512;
/** Start and size of each partition in MiB; root takes what is left. */
export const DISK_PLAN = { biosStart: 1, biosMiB: 4, espStart: 5, espMiB: 106, rootStart: 111, tailMiB: 1 } as const;
export const PARTITION = { root: 1, bios: 14, esp: 15 } as const;

export interface DiskImageSpec {
  /** Folder that becomes the root file system. */
  readonly tree: string;
  readonly rootLabel: string;
  /** Path in the ESP → file on this machine. Folders are made. */
  readonly esp: Readonly<Record<string, string>>;
  /** boot.img of GRUB and the core.img made for it. */
  readonly bootImg: string;
  readonly coreImg: string;
  /** Raw image to write. */
  readonly target: string;
  /** For intermediate files. */
  readonly workDir: string;
}

/** Options of mke2fs for an image that grows on its disk: pure, so that the golden shows them. */
export function mke2fsArgv(spec: { label: string; tree: string; target: string; sizeMiB: number }): string[] {
  return [
    '-q',
    '-F',
    ...['-t', 'ext4'],
    ...['-b', '4096'],
    ...['-i', '16384'],
    ...['-I', '256'],
    ...['-m', '1'],
    // Checksums keyed by a stored seed: the installer can give each disk its own UUID without rewriting everything.
    ...['-O', 'metadata_csum,metadata_csum_seed,64bit'],
    // The journal of a file system that will live on a whole disk, not of one the size of this image.
    ...['-J', 'size=64'],
    // No lazy initialisation: every block that counts is in the image, whatever the disk held before.
    // Room in the group descriptors for 2 TiB; beyond that the kernel converts to meta_bg while it grows.
    ...['-E', 'lazy_itable_init=0,lazy_journal_init=0,resize=536870912'],
    ...['-L', spec.label],
    ...['-d', spec.tree],
    spec.target,
    `${spec.sizeMiB}M`,
  ];
}

/** Arguments of sgdisk for an empty image file. */
export function sgdiskArgv(target: string): string[] {
  const { biosStart, biosMiB, espStart, espMiB, rootStart } = DISK_PLAN;
  const from = (mib: number) => (mib * MIB) / SECTOR;
  const part = (n: number, start: number, size: string, type: string, name: string) => [
    `--new=${n}:${from(start)}:${size}`,
    `--typecode=${n}:${type}`,
    `--change-name=${n}:${name}`,
  ];
  return [
    '--clear',
    ...part(PARTITION.bios, biosStart, `+${biosMiB}M`, 'ef02', 'bios'),
    ...part(PARTITION.esp, espStart, `+${espMiB}M`, 'ef00', 'esp'),
    ...part(PARTITION.root, rootStart, '0', '8304', 'root'),
    target,
  ];
}

/** Makes the image. Throws ProblemError image-build or dependency-missing. */
export async function makeDiskImage(spec: DiskImageSpec, options: RunOptions): Promise<{ rawBytes: number }> {
  const rootFile = join(spec.workDir, 'root.ext4');
  const espFile = join(spec.workDir, 'esp.fat');
  const run = (program: string, argv: string[], dependency: string) =>
    runLogged(program, argv, { ...options, what: 'the disk image', dependency });
  await rm(rootFile, { force: true });
  await rm(espFile, { force: true });
  await rm(spec.target, { force: true });

  // Sparse and generous first, then shrunk to the content: the image is written as it is, gaps and all, so that it is
  // right on a disk with old data; a tight file system costs no more than that.
  const contentMiB = await treeMiB(spec.tree, options);
  await run(
    'mke2fs',
    mke2fsArgv({
      label: spec.rootLabel,
      tree: spec.tree,
      target: rootFile,
      sizeMiB: Math.ceil(contentMiB * 1.25) + 256,
    }),
    'e2fsprogs',
  );
  await run('e2fsck', ['-fy', rootFile], 'e2fsprogs');
  await run('resize2fs', ['-M', rootFile], 'e2fsprogs');
  const rootMiB = Math.ceil((await stat(rootFile)).size / MIB);

  await truncate(await created(espFile), DISK_PLAN.espMiB * MIB);
  await run('mkfs.vfat', ['-F', '32', '-n', 'UEFI', espFile], 'dosfstools');
  for (const dir of espDirs(Object.keys(spec.esp))) await run('mmd', ['-i', espFile, `::${dir}`], 'mtools');
  for (const [to, from] of Object.entries(spec.esp)) await run('mcopy', ['-i', espFile, from, `::${to}`], 'mtools');

  const rawBytes = (DISK_PLAN.rootStart + rootMiB + DISK_PLAN.tailMiB) * MIB;
  await truncate(await created(spec.target), rawBytes);
  await run('sgdisk', sgdiskArgv(spec.target), 'gdisk');
  const into = (file: string, startMiB: number) =>
    run(
      'dd',
      [`if=${file}`, `of=${spec.target}`, 'bs=1M', `seek=${startMiB}`, 'conv=notrunc,sparse', 'status=none'],
      'coreutils',
    );
  await into(espFile, DISK_PLAN.espStart);
  await into(rootFile, DISK_PLAN.rootStart);

  const image = await open(spec.target, 'r+');
  try {
    const coreLba = (DISK_PLAN.biosStart * MIB) / SECTOR;
    const { bootCode, core } = patchGrubBios(
      await readAll(spec.bootImg),
      await readAll(spec.coreImg),
      coreLba,
      (DISK_PLAN.biosMiB * MIB) / SECTOR,
    );
    await image.write(bootCode, 0, bootCode.length, 0);
    await image.write(core, 0, core.length, coreLba * SECTOR);
    await image.sync();
  } finally {
    await image.close();
  }
  await rm(rootFile, { force: true });
  await rm(espFile, { force: true });
  return { rawBytes };
}

/** The folders of some paths of the ESP, parents first. */
export function espDirs(paths: readonly string[]): string[] {
  const dirs = new Set<string>();
  for (const path of paths) {
    const parts = path.split('/').filter(part => part !== '');
    for (let n = 1; n < parts.length; n++) dirs.add(`/${parts.slice(0, n).join('/')}`);
  }
  return [...dirs].sort();
}

async function created(path: string): Promise<string> {
  await (await open(path, 'w')).close();
  return path;
}

async function readAll(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

async function treeMiB(tree: string, options: RunOptions): Promise<number> {
  let total = 0;
  await runLogged('du', ['-sm', '--one-file-system', tree], {
    ...options,
    what: 'the disk image',
    dependency: 'coreutils',
    progress: line => {
      const match = /^(\d+)\t/.exec(line);
      if (match) total = Number(match[1]);
      return null;
    },
  });
  return total;
}
