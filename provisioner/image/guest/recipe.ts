/** What the guest is made of. Data and pure decisions. */
import type { AptSource } from '../mmdebstrap.js';

export const GUEST_IMAGE = { name: 'guest', distribution: 'debian-12', minMemoryMiB: 96 } as const;

/** Beside the kernel; what these need comes with them. */
export const GUEST_PACKAGES = ['busybox-static', 'dropbear-bin', 'syslinux', 'syslinux-common'] as const;

/**
 * Kernel parameters. The last console is /dev/console. `tsc=unstable`, `no_timer_check`: on a busy host the clocks of an
 * emulated processor stand still and jump; the kernel would test them and panic ("IO-APIC + timer doesn't work").
 */
export const GUEST_COMMAND_LINE =
  'console=tty0 console=ttyS0 quiet mitigations=off tsc=unstable no_timer_check panic=10';

/** Drivers; what the kernel has built in is skipped. The random number generator first: the SSH host key waits for it. */
export const GUEST_MODULES = [
  ...['virtio_pci', 'virtio_rng', 'virtio_blk', 'virtio_net', 'virtio_scsi', 'sd_mod'],
  ...['acpiphp', 'ext4'],
  // The power button and the way in which acpid hears of it.
  ...['button', 'evdev'],
] as const;

/** Folders of the initramfs, parents first, that no file brings along. */
export const GUEST_FOLDERS = [
  ...['bin', 'sbin', 'usr', 'usr/bin', 'usr/sbin', 'dev', 'proc', 'sys', 'run', 'tmp', 'mnt', 'var', 'var/log'],
  ...['root', 'root/.ssh', 'etc', 'etc/dropbear'],
] as const;

export const GUEST_LINKS = {
  init: 'bin/busybox',
  'etc/mtab': '/proc/mounts',
  'var/run': '/run',
} as const;

/** Folders of libraries inside packages; the guest has the first only. */
export const LIBRARY_FOLDERS = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'] as const;
export const LOADER = 'ld-linux-x86-64.so.2';

/** sources.list(5) for one build: this architecture, lists of packages only, signatures by this keyring alone. */
export function sourcesList(sources: readonly AptSource[], keyring: string): string {
  return sources
    .flatMap(({ uri, suites, components }) =>
      suites.map(
        suite => `deb [arch=amd64 target=Packages signed-by=${keyring}] ${uri} ${suite} ${components.join(' ')}\n`,
      ),
    )
    .join('');
}

/** Options that give apt a state of its own below `dir`: nothing of this machine's lists, pins, keys or packages. */
export function aptOptions(dir: string): string[] {
  return [
    `Dir::State=${dir}`,
    `Dir::State::status=${dir}/status`,
    `Dir::Cache=${dir}/cache`,
    `Dir::Etc::SourceList=${dir}/sources.list`,
    ...['SourceParts', 'Trusted', 'TrustedParts', 'Preferences', 'PreferencesParts'].map(
      name => `Dir::Etc::${name}=/dev/null`,
    ),
    'APT::Architecture=amd64',
    'APT::Architectures=amd64',
    'APT::Default-Release=',
    'APT::Install-Recommends=false',
    'APT::Sandbox::User=root',
    'APT::Update::Error-Mode=any',
    'Acquire::Languages=none',
    'Acquire::Retries=3',
  ].flatMap(option => ['-o', option]);
}

/** The packages that `apt-get --simulate install` would install. */
export const simulated = (lines: readonly string[]): string[] =>
  lines.flatMap(line => /^Inst ([a-z0-9][a-z0-9+.-]+)[ :]/.exec(line)?.[1] ?? []);

/** Is it the kernel itself or its modules, and not what its package wants at its side? */
export const isKernel = (name: string): boolean => /^linux-(image|modules)-(unsigned-)?\d/.test(name);

/** Names of the modules that a module file says it needs: `depends=` of its .modinfo section. */
export function moduleNeeds(file: Buffer): string[] {
  const mark = Buffer.from('\0depends=');
  const start = file.indexOf(mark);
  if (start < 0) throw new Error('it is no module, or a compressed one');
  const from = start + mark.length;
  return file.subarray(from, file.indexOf(0, from)).toString('latin1').split(',').filter(Boolean).map(moduleName);
}

/** `kernel/drivers/char/hw_random/virtio-rng.ko` → `virtio_rng`. */
export const moduleName = (path: string): string =>
  (path.split('/').at(-1) ?? '').replace(/\.ko(\.\w+)?$/, '').replaceAll('-', '_');

/**
 * Paths of modules in the order of insertion, each behind what it needs and each once.
 * @param paths every module file of the kernel
 * @param builtin modules.builtin of the kernel; what stands there is skipped
 * @throws Error for a module that is nowhere
 */
export function moduleOrder(
  wanted: readonly string[],
  paths: readonly string[],
  builtin: string,
  needs: (path: string) => readonly string[],
): string[] {
  const byName = new Map(paths.map(path => [moduleName(path), path]));
  const builtins = new Set(builtin.split('\n').map(moduleName));
  const order = new Set<string>();
  const visit = (name: string) => {
    const path = byName.get(name);
    if (path === undefined && builtins.has(name)) return;
    if (path === undefined) throw new Error(`the kernel has no module ${name}`);
    if (order.has(path)) return;
    for (const need of needs(path)) visit(need);
    order.add(path);
  };
  for (const name of wanted) visit(name);
  return [...order];
}

/**
 * The libraries in what `ld.so --list` prints: file name → where it was found. The loader itself and the kernel's vdso
 * are none. @throws Error for one that was found nowhere
 */
export function listedLibraries(lines: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of lines) {
    const [, name, path] = /^\s+(\S+) => (not found|\S+)/.exec(line) ?? [];
    if (name === undefined || path === undefined || name.endsWith(LOADER)) continue;
    if (path === 'not found') throw new Error(`the library ${name} is in no package`);
    found.set(name, path);
  }
  return found;
}

/** Boots at once: no menu, no prompt, no time-out. */
export const syslinuxConfig = (commandLine: string): string =>
  [
    'DEFAULT guest',
    'PROMPT 0',
    'LABEL guest',
    '  LINUX /vmlinuz',
    '  INITRD /initrd',
    `  APPEND ${commandLine}`,
    '',
  ].join('\n');

const SECTOR = 512;
export const MIB = 1024 * 1024;
/** Where the one partition starts. */
export const PARTITION_MIB = 1;
const BOOT_CODE_BYTES = 440;
/** Any number but 0: systems that look for disks by it find one. */
const DISK_SIGNATURE = 0x48414c47;
const FAT16_LBA = 0x0e;

/**
 * The first sector of the disk: boot code, and one active partition from 1 MiB to the end.
 *
 *   0 boot code   440 disk signature   446 active, CHS, type, CHS, u32 first sector, u32 sectors   510 55 aa
 */
export function masterBootRecord(bootCode: Buffer, diskMiB: number): Buffer {
  if (bootCode.length === 0 || bootCode.length > BOOT_CODE_BYTES)
    throw new Error(`the boot code has ${bootCode.length} bytes, and there is room for ${BOOT_CODE_BYTES}`);
  const sector = Buffer.alloc(SECTOR);
  bootCode.copy(sector);
  sector.writeUInt32LE(DISK_SIGNATURE, 440);
  sector.writeUInt8(0x80, 446);
  // Cylinder, head and sector as "too large to say": everybody uses the sector numbers.
  sector.set([0xfe, 0xff, 0xff], 447);
  sector.writeUInt8(FAT16_LBA, 450);
  sector.set([0xfe, 0xff, 0xff], 451);
  sector.writeUInt32LE((PARTITION_MIB * MIB) / SECTOR, 454);
  sector.writeUInt32LE(((diskMiB - PARTITION_MIB) * MIB) / SECTOR, 458);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** Size of a disk for files of so many bytes: boot loader and file system take less than 2 MiB. */
export const diskMiB = (bytes: number): number => PARTITION_MIB + Math.ceil(bytes / MIB) + 2;

/** Arguments of mkfs.vfat for the partition inside the disk image. */
export const mkfsArgv = (disk: string, sizeMiB: number): string[] => [
  ...['-F', '16', '-n', 'GUEST', '-i', DISK_SIGNATURE.toString(16)],
  ...['--offset', `${(PARTITION_MIB * MIB) / SECTOR}`, '-h', `${(PARTITION_MIB * MIB) / SECTOR}`],
  ...[disk, `${(sizeMiB - PARTITION_MIB) * 1024}`],
];
