/**
 * A disk that boots by itself, made of a file system, its kernel and its RAM disk (AMI, AKI, ARI). A patched Nova refuses
 * `disk_format=ami`, and a snapshot of a server that was started by kernel_id needs the three images for as long as it
 * lives; a whole disk needs nothing but itself. Plain files only: no loop device, no mount.
 *
 *   LBA 0        boot.img of GRUB, partition table
 *   LBA 1        core.img of GRUB
 *   1 MiB     2  boot, ext2: vmlinuz, initrd, grub/grub.cfg
 *   then      1  the file system as it was given; last on the disk, so that it can grow, and first by number, because that
 *                is what its fstab and its cloud-init expect
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BOOT_CODE_BYTES, patchGrubBios } from '../../provisioner/core/grub-bios.js';
import { fail } from '../../provisioner/core/problem.js';
import type { Taken } from './source.js';

const SECTOR = 512;
const MIB = 2 ** 20;
const CORE_LBA = 1;
const BOOT_START_MIB = 1;
const TOOL_TIMEOUT_MS = 120_000;
const GRUB: GrubTools = { dir: '/usr/lib/grub/i386-pc', mkimage: 'grub-mkimage' };
/** All that grub.cfg needs, so that no module is read from disk. */
const GRUB_MODULES = ['biosdisk', 'part_msdos', 'ext2', 'normal', 'linux', 'configfile', 'serial', 'terminal', 'test'];
/** The first serial port is what `openstack console log show` shows. */
const CONSOLES = 'console=tty0 console=ttyS0';

export interface GrubTools {
  /** Modules and boot sector for BIOS. */
  readonly dir: string;
  readonly mkimage: string;
}

export interface RootSystem {
  readonly type: 'ext' | 'xfs' | 'btrfs';
  readonly uuid: string;
}

/** The file system of an AMI. @param head the first MiB @throws ProblemError image-format */
export function rootSystem(head: Buffer): RootSystem {
  const found = readSystem(head);
  if (found) return found;
  const table = head.length >= SECTOR && head.readUInt16LE(510) === 0xaa55;
  return fail(
    'image-format',
    table
      ? 'The image is a whole disk with a partition table, not the file system of an AMI.'
      : 'The image holds no ext, XFS or Btrfs file system: it is no AMI.',
    { hint: 'A disk with its own boot loader is imported with the profile plain or cloud-init.' },
  );
}

function readSystem(head: Buffer): RootSystem | null {
  if (head.length >= 2048 && head.readUInt16LE(1024 + 0x38) === 0xef53)
    return { type: 'ext', uuid: uuidAt(head, 1024 + 0x68) };
  if (head.subarray(0, 4).toString('latin1') === 'XFSB') return { type: 'xfs', uuid: uuidAt(head, 32) };
  if (head.subarray(0x1_0040, 0x1_0048).toString('latin1') === '_BHRfS_M')
    return { type: 'btrfs', uuid: uuidAt(head, 0x1_0020) };
  return null;
}

function uuidAt(head: Buffer, at: number): string {
  const hex = head.subarray(at, at + 16).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** https://www.kernel.org/doc/html/latest/arch/x86/boot.html @throws ProblemError image-format */
export function checkKernel(head: Buffer): void {
  const bootable =
    head.length > 0x210 && head.readUInt16LE(0x1fe) === 0xaa55 && head.subarray(0x202, 0x206).toString() === 'HdrS';
  if (!bootable)
    fail('image-format', 'The kernel is no bzImage that a PC boots.', {
      hint: 'A kernel for Xen’s paravirtual mode (pv-grub among them) starts on no KVM; take the kernel of the distribution.',
    });
}

/** Of a line that GRUB reads: words without anything that it interprets. @throws ProblemError request-invalid */
export function checkCommandLine(text: string): void {
  if (text.length > 500 || !/^[\w=.,:/@%+\- ]*$/.test(text))
    fail('request-invalid', 'The kernel command line has characters other than letters, digits and _=.,:/@%+- .');
}

export interface DiskPlan {
  readonly bootMiB: number;
  readonly rootStartMiB: number;
  readonly rootSectors: number;
  readonly diskBytes: number;
  /** Of the partition table: the kernel finds PARTUUID=xxxxxxxx-01 without a RAM disk. */
  readonly signature: number;
}

/** Pure. */
export function planDisk(sizes: { root: number; kernel: number; ramdisk: number }, uuid: string): DiskPlan {
  // A tenth and 4 MiB for the tables of the file system and another kernel's grub.cfg.
  const bootMiB = Math.ceil(((sizes.kernel + sizes.ramdisk) * 1.1) / MIB) + 4;
  const rootStartMiB = BOOT_START_MIB + bootMiB;
  const rootSectors = Math.ceil(sizes.root / SECTOR);
  if (rootStartMiB * (MIB / SECTOR) + rootSectors > 0xffff_ffff)
    fail('image-format', 'The file system is larger than a DOS partition table can say (2 TiB).');
  return {
    bootMiB,
    rootStartMiB,
    rootSectors,
    diskBytes: (rootStartMiB + Math.ceil((rootSectors * SECTOR) / MIB)) * MIB,
    signature: Number.parseInt(uuid.slice(0, 8), 16) || 1,
  };
}

/** How the kernel finds its root. With a RAM disk by the file system's UUID, without one by what the kernel knows itself. */
export function rootArgument(plan: DiskPlan, system: RootSystem, hasRamdisk: boolean): string {
  return hasRamdisk
    ? `root=UUID=${system.uuid}`
    : `root=PARTUUID=${plan.signature.toString(16).padStart(8, '0')}-01 rootwait`;
}

export function grubConfig(kernelArguments: string, hasRamdisk: boolean): string {
  return [
    '# Made by Halligan when the AMI was imported.',
    'serial --unit=0 --speed=115200',
    'terminal_input console serial',
    'terminal_output console serial',
    'set timeout=0',
    'set gfxpayload=text',
    `linux /vmlinuz ${kernelArguments}`,
    ...(hasRamdisk ? ['initrd /initrd'] : []),
    'boot',
    '',
  ].join('\n');
}

/** Disk signature and partition table of the MBR: bytes 440 to 511. */
export function partitionTable(plan: DiskPlan): Buffer {
  const table = Buffer.alloc(SECTOR - BOOT_CODE_BYTES);
  table.writeUInt32LE(plan.signature, 0);
  const entry = (n: number, active: boolean, start: number, sectors: number) => {
    const at = 446 - BOOT_CODE_BYTES + (n - 1) * 16;
    // Cylinders, heads, sectors: "beyond", as for everything that is addressed by LBA.
    Buffer.from([active ? 0x80 : 0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]).copy(table, at);
    table.writeUInt32LE(start, at + 8);
    table.writeUInt32LE(sectors, at + 12);
  };
  const lba = (mib: number) => (mib * MIB) / SECTOR;
  entry(1, false, lba(plan.rootStartMiB), plan.rootSectors);
  entry(2, true, lba(BOOT_START_MIB), lba(plan.bootMiB));
  table.writeUInt16LE(0xaa55, table.length - 2);
  return table;
}

export interface AmiParts {
  readonly root: Taken;
  readonly kernel: Taken;
  readonly ramdisk: Taken | null;
  readonly commandLine: string;
}

export interface AmiOptions {
  readonly workDir: string;
  readonly grub?: GrubTools;
  readonly signal?: AbortSignal;
}

/** Writes `workDir/disk.raw`. @throws ProblemError image-format, image-build, dependency-missing */
export async function makeAmiDisk(parts: AmiParts, options: AmiOptions): Promise<string> {
  const { workDir, grub = GRUB, signal } = options;
  const { root, kernel, ramdisk } = parts;
  const system = rootSystem(root.head);
  checkKernel(kernel.head);
  checkCommandLine(parts.commandLine);
  const plan = planDisk({ root: root.bytes, kernel: kernel.bytes, ramdisk: ramdisk?.bytes ?? 0 }, system.uuid);

  const tree = join(workDir, 'boot');
  const bootFile = join(workDir, 'boot.ext2');
  const coreFile = join(workDir, 'core.img');
  const target = join(workDir, 'disk.raw');
  await mkdir(join(tree, 'grub'), { recursive: true });
  await copyFile(kernel.path, join(tree, 'vmlinuz'));
  if (ramdisk) await copyFile(ramdisk.path, join(tree, 'initrd'));
  const line = [rootArgument(plan, system, ramdisk !== null), 'ro', CONSOLES, parts.commandLine];
  await writeFile(join(tree, 'grub/grub.cfg'), grubConfig(line.join(' ').trim(), ramdisk !== null));
  const mke2fs = ['-q', '-F', '-t', 'ext2', '-L', 'boot', '-E', 'root_owner=0:0', '-d', tree];
  await tool('mke2fs', [...mke2fs, bootFile, `${plan.bootMiB}M`], 'e2fsprogs', signal);
  const bootImg = await readFile(join(grub.dir, 'boot.img')).catch(() =>
    fail('dependency-missing', `${grub.dir}/boot.img is missing: install grub-pc-bin.`),
  );
  const mkimage = ['-d', grub.dir, '-O', 'i386-pc', '-o', coreFile, '-p', '(,msdos2)/grub'];
  await tool(grub.mkimage, [...mkimage, ...GRUB_MODULES], 'grub-common', signal);
  const sectors = patchGrubBios(
    bootImg,
    await readFile(coreFile),
    CORE_LBA,
    (BOOT_START_MIB * MIB) / SECTOR - CORE_LBA,
  );

  const disk = await open(target, 'w', 0o600);
  try {
    await disk.truncate(plan.diskBytes);
    await disk.write(Buffer.concat([sectors.bootCode, partitionTable(plan)]), 0, SECTOR, 0);
    await disk.write(sectors.core, 0, sectors.core.length, CORE_LBA * SECTOR);
    const into = async (path: string, at: number) => {
      const file = await open(path, 'r');
      const chunk = Buffer.alloc(MIB);
      const zero = Buffer.alloc(MIB);
      try {
        for (let done = 0; ; ) {
          signal?.throwIfAborted();
          const { bytesRead } = await file.read(chunk, 0, chunk.length, done);
          if (bytesRead === 0) return done;
          // Holes stay holes.
          if (!chunk.subarray(0, bytesRead).equals(zero.subarray(0, bytesRead)))
            await disk.write(chunk, 0, bytesRead, at + done);
          done += bytesRead;
        }
      } finally {
        await file.close();
      }
    };
    await into(bootFile, BOOT_START_MIB * MIB);
    const copied = await into(root.path, plan.rootStartMiB * MIB);
    if (copied !== root.bytes)
      fail('image-checksum', `${root.path} changed while it was read.`, { hint: 'Try again.' });
  } finally {
    await disk.close();
  }
  return target;
}

/** A program with a list of arguments; what it said goes into the problem. */
function tool(program: string, argv: readonly string[], dependency: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      argv,
      { timeout: TOOL_TIMEOUT_MS, ...(signal ? { signal } : {}) },
      (error: (Error & { code?: unknown }) | null, _out, stderr) => {
        if (!error) return resolve();
        if (signal?.aborted) return reject(signal.reason);
        try {
          if (error.code === 'ENOENT')
            fail('dependency-missing', `${program} is not installed: install ${dependency}.`);
          const said = stderr.trim().split('\n').at(-1)?.slice(0, 300) ?? '';
          fail('image-build', `${program} failed${said ? `: ${said}` : ''}.`, { hint: 'Is there room on the disk?' });
        } catch (thrown) {
          reject(thrown);
        }
      },
    );
  });
}
