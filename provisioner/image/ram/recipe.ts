/** What goes into the RAM environment and what does not. Data and pure decisions. */
import type { Distribution } from '../../core/distributions/load.js';
import type { AptSource, TreeSpec } from '../mmdebstrap.js';

export type RamKernel = 'cloud' | 'generic';

export const RAM_IMAGE = {
  /** Virtual machines: drivers of virtual hardware only. */
  cloud: { name: 'ram-cloud', minMemoryMiB: 512 },
  /** Real hosts: every driver of disks and NICs, and their firmware. */
  generic: { name: 'ram', minMemoryMiB: 1024 },
} as const satisfies Record<RamKernel, { name: string; minMemoryMiB: number }>;

/**
 * Kernel parameters that the image wants; the boot plane puts its own and the console behind them.
 * `mitigations=off`: one tenant, root only. `panic=30`: a broken boot starts over by PXE.
 */
export const RAM_COMMAND_LINE = 'quiet loglevel=4 audit=0 mitigations=off random.trust_cpu=on panic=30';

/** Modules that the initrd needs to reach its squashfs. */
export const INITRD_MODULES = ['loop', 'squashfs', 'overlay'] as const;

/** The tree to build, for mmdebstrap. */
export function ramTree(
  distribution: Distribution,
  kernel: RamKernel,
  sources: readonly AptSource[],
  target: string,
): TreeSpec {
  return {
    distribution,
    sources,
    target,
    variant: 'minbase',
    packages: [...distribution.ram.packages, distribution.kernel[kernel]],
    optionalPackages: kernel === 'generic' ? distribution.firmware.packages : [],
    excludePaths: ['doc', 'man', 'info', 'locale', 'lintian', 'bash-completion'].map(name => `/usr/share/${name}/*`),
    noInitramfs: true,
  };
}

/** Kernel modules for what an installer never needs, as prefixes below lib/modules/VERSION/kernel/. */
export const PRUNED_MODULES = [
  'arch/x86/kvm/',
  'drivers/accel/',
  'drivers/bluetooth/',
  'drivers/comedi/',
  'drivers/gpu/',
  'drivers/iio/',
  'drivers/infiniband/',
  'drivers/input/joystick/',
  'drivers/input/tablet/',
  'drivers/input/touchscreen/',
  'drivers/isdn/',
  'drivers/media/',
  'drivers/mtd/',
  'drivers/net/arcnet/',
  'drivers/net/can/',
  'drivers/net/fddi/',
  'drivers/net/hamradio/',
  'drivers/net/ieee802154/',
  'drivers/net/wireless/',
  'drivers/net/wwan/',
  'drivers/nfc/',
  'drivers/pcmcia/',
  'drivers/soundwire/',
  'drivers/staging/',
  'drivers/vdpa/',
  'drivers/video/',
  'drivers/vhost/',
  'drivers/xen/xen-',
  'fs/9p/',
  'fs/afs/',
  'fs/btrfs/',
  'fs/ceph/',
  'fs/f2fs/',
  'fs/gfs2/',
  'fs/jfs/',
  'fs/nfs',
  'fs/ocfs2/',
  'fs/reiserfs/',
  'fs/smb/',
  'fs/cifs/',
  'fs/ubifs/',
  'net/6lowpan/',
  'net/appletalk/',
  'net/atm/',
  'net/ax25/',
  'net/batman-adv/',
  'net/bluetooth/',
  'net/can/',
  'net/ceph/',
  'net/dccp/',
  'net/ieee802154/',
  'net/mac80211/',
  'net/mac802154/',
  'net/netfilter/',
  'net/netrom/',
  'net/nfc/',
  'net/openvswitch/',
  'net/rds/',
  'net/rose/',
  'net/sctp/',
  'net/sunrpc/',
  'net/tipc/',
  'net/vmw_vsock/',
  'net/wireless/',
  'sound/',
  'ubuntu/',
  'zfs/',
] as const;

/** Files and folders of the tree that a system without package manager, login manager and people does not need. */
export const PRUNED_PATHS = [
  'boot',
  'etc/cron.d',
  'etc/cron.daily',
  'etc/init.d',
  'etc/initramfs-tools',
  'etc/kernel',
  'etc/rc0.d',
  'etc/rc1.d',
  'etc/rc2.d',
  'etc/rc3.d',
  'etc/rc4.d',
  'etc/rc5.d',
  'etc/rc6.d',
  'etc/rcS.d',
  'usr/lib/klibc',
  'usr/lib/python3',
  'usr/lib/python3.*',
  'usr/lib/systemd/system-generators',
  'usr/lib/systemd/user',
  'usr/lib/systemd/user-generators',
  'usr/lib/systemd/catalog',
  'usr/lib/udev/hwdb.bin',
  'usr/lib/udev/hwdb.d',
  'usr/bin/apt*',
  'usr/bin/perl*',
  'usr/bin/python3*',
  'usr/lib/apt',
  'usr/lib/x86_64-linux-gnu/gconv',
  'usr/lib/x86_64-linux-gnu/libapt-*',
  // Only xfs_scrub's, which checks mounted file systems.
  'usr/lib/x86_64-linux-gnu/libicu*',
  'usr/lib/x86_64-linux-gnu/libperl*',
  'usr/lib/x86_64-linux-gnu/libpython3*',
  'usr/lib/x86_64-linux-gnu/perl*',
  'usr/sbin/xfs_scrub*',
  'usr/share/doc',
  'usr/share/i18n',
  'usr/share/info',
  'usr/share/initramfs-tools',
  'usr/share/locale',
  'usr/share/man',
  'usr/share/perl',
  'usr/share/perl5',
  'usr/share/python3',
  'usr/share/zoneinfo',
  'var/cache',
  'var/lib/apt',
  'var/lib/dpkg/info',
  'var/log',
] as const;

/**
 * Rules of udev that stay: device nodes, names by path and serial, drivers, and what device-mapper's tools wait for.
 * Gone with the rest: renaming of NICs, systemd's device units, and the assembly of arrays and volume groups that
 * happen to be on a disk, which would keep that disk busy.
 */
export const KEPT_UDEV_RULES = [
  '10-dm.rules',
  '11-dm-lvm.rules',
  '13-dm-disk.rules',
  '50-firmware.rules',
  '50-udev-default.rules',
  '55-dm.rules',
  '56-lvm.rules',
  '60-block.rules',
  '60-persistent-storage.rules',
  '60-persistent-storage-dm.rules',
  '63-md-raid-arrays.rules',
  '71-nvme.rules',
  '80-drivers.rules',
  '95-dm-notify.rules',
] as const;

/** Is this module file (relative to `kernel/`) left out? */
export const isPrunedModule = (path: string): boolean => PRUNED_MODULES.some(prefix => path.startsWith(prefix));

/**
 * Modules in the order of insertion, each behind what it needs. `modulesDep` is depmod's modules.dep ("a.ko: b.ko c.ko",
 * dependencies in reverse order of loading), `builtin` its modules.builtin. Modules that the kernel has built in are
 * left out; throws Error for one that exists nowhere.
 */
export function insertionOrder(modulesDep: string, builtin: string, names: readonly string[]): string[] {
  const stem = (path: string) =>
    (path.split('/').at(-1) ?? '').replace(/\.ko(\.(zst|xz|gz))?$/, '').replaceAll('-', '_');
  const needs = new Map<string, string[]>();
  const paths = new Map<string, string>();
  for (const line of modulesDep.split('\n')) {
    const [path, dependencies] = line.split(':');
    if (!path || dependencies === undefined) continue;
    paths.set(stem(path), path);
    needs.set(path, dependencies.split(' ').filter(Boolean).reverse());
  }
  const builtins = new Set(builtin.split('\n').map(stem));
  const order: string[] = [];
  for (const name of names) {
    const path = paths.get(name);
    if (path === undefined && builtins.has(name)) continue;
    if (path === undefined) throw new Error(`the kernel has no module ${name}`);
    for (const next of [...(needs.get(path) ?? []), path]) if (!order.includes(next)) order.push(next);
  }
  return order;
}

/** A shell pattern (`*`, `?`, `[abc]`, none of which match a slash) as a regular expression. */
export function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  return new RegExp(`^${source}$`);
}

/** A public key line for authorized_keys, trimmed. Throws RangeError for anything else: a line break would add a key. */
export function authorizedKeyLine(key: string): string {
  const line = key.trim();
  if (!/^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [\x20-\x7e]*)?$/.test(line))
    throw new RangeError('an authorized key is one line: type, base64, comment');
  return line;
}
