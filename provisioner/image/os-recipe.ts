/** What an OS image is made of: a pure function of the distribution's data, so that goldens show all of it. */
import type { Distribution } from '../core/distributions/load.js';
import type { TreeSpec } from './mmdebstrap.js';

export type KernelFlavour = 'generic' | 'cloud';

/** Label of the root file system, as the cloud images of Ubuntu and Debian users know it. */
export const ROOT_LABEL = 'cloudimg-rootfs';

/** Modules inside GRUB's core image for BIOS: all that the static grub.cfg needs, so that no module is read from disk. */
const GRUB_BIOS_MODULES = [
  ...['biosdisk', 'part_gpt', 'ext2', 'normal', 'linux', 'configfile', 'search', 'search_label', 'test', 'echo'],
  ...['serial', 'terminal', 'minicmd', 'ls', 'cat', 'halt', 'reboot'],
];

/** Left out of the tree, and of later upgrades too: dpkg keeps the rule in the image. */
const EXCLUDED_PATHS = [
  '/usr/share/man/*',
  '/usr/share/doc/*/*',
  '/usr/share/info/*',
  '/usr/share/locale/*/*',
  '/usr/lib/grub/x86_64-efi/monolithic/*',
];
const INCLUDED_PATHS = ['/usr/share/doc/*/copyright', '/usr/share/locale/locale.alias'];

export interface GeneratedFile {
  readonly path: string;
  readonly mode: number;
  readonly content: string;
}

export interface OsRecipe {
  /** Name of the image: that of the release, with `-cloud` for the virtual machines' kernel. */
  readonly name: string;
  readonly kernelPackage: string;
  readonly tree: Pick<TreeSpec, 'variant' | 'packages' | 'excludePaths' | 'includePaths'>;
  /** Files beside those of templates/install/os. */
  readonly files: readonly GeneratedFile[];
  /** Run inside the tree, in this order. */
  readonly commands: readonly (readonly string[])[];
  /** Makes core.img inside the tree, at `GRUB_CORE`. */
  readonly grubCore: readonly string[];
  /** Path in the ESP → path in the tree; null for the stub grub.cfg. */
  readonly esp: Readonly<Record<string, string | null>>;
}

/** Where core.img is put inside the tree while the image is built. */
export const GRUB_CORE = '/tmp/halligan-core.img';

export function imageName(release: string, kernel: KernelFlavour): string {
  return kernel === 'cloud' ? `${release}-cloud` : release;
}

export function osRecipe(distribution: Distribution, kernel: KernelFlavour): OsRecipe {
  const { os, names } = distribution;
  const name = (key: string): string => {
    const value = names[key];
    if (value === undefined) throw new Error(`${distribution.name}.yaml has no names.${key}`);
    return value;
  };
  const kernelPackage = distribution.kernel[kernel];
  const stub = `/EFI/${name('efi_vendor')}/grub.cfg`;
  return {
    name: imageName(distribution.name, kernel),
    kernelPackage,
    tree: {
      variant: 'minbase',
      packages: [kernelPackage, ...os.packages, ...os.bootloader.bios, ...os.bootloader.uefi],
      excludePaths: EXCLUDED_PATHS,
      includePaths: INCLUDED_PATHS,
    },
    files: [
      {
        path: '/usr/lib/halligan/efi-files',
        mode: 0o644,
        content: `EFI_SHIM=${name('efi_shim')}\nEFI_GRUB=${name('efi_grub')}\nEFI_MOK_MANAGER=${name('efi_mok_manager')}\nEFI_VENDOR=${name('efi_vendor')}\n`,
      },
      ...(kernel === 'cloud'
        ? [
            // initramfs-tools' default is every driver; GRUB reads the file through the BIOS at a few MB/s, so a small
            // one is worth seconds at each boot.
            { path: '/etc/initramfs-tools/conf.d/halligan', mode: 0o644, content: 'MODULES=list\n' },
            {
              path: '/usr/share/initramfs-tools/modules.d/halligan',
              mode: 0o644,
              content: `${os.cloud_initramfs_modules.join('\n')}\n`,
            },
          ]
        : []),
      { path: '/etc/machine-id', mode: 0o444, content: '' },
      { path: '/etc/hostname', mode: 0o644, content: 'localhost\n' },
      { path: '/etc/default/locale', mode: 0o644, content: 'LANG=C.UTF-8\n' },
      // grub-pc asks on upgrades where to install itself; the installer puts the disks' names in.
      {
        path: '/tmp/halligan-debconf',
        mode: 0o600,
        content:
          'grub-pc grub-pc/install_devices multiselect /dev/halligan-boot-disks\n' +
          'grub-pc grub-pc/install_devices_empty boolean false\n' +
          'grub-pc grub-pc/cloud_style_installation boolean false\n',
      },
    ],
    commands: [
      ['debconf-set-selections', '/tmp/halligan-debconf'],
      ['systemctl', 'enable', 'systemd-networkd.service', 'systemd-resolved.service', 'halligan-esp.path'],
      ['systemctl', 'mask', ...os.mask_units],
      ['update-initramfs', '-u', '-k', 'all'],
    ],
    grubCore: [
      ...['grub-mkimage', '-O', 'i386-pc', '-o', GRUB_CORE, '-C', 'xz'],
      // The partition of the disk that the BIOS booted: no search, no other disk's GRUB by mistake.
      ...['-p', '(,gpt1)/boot/grub'],
      ...GRUB_BIOS_MODULES,
    ],
    esp: {
      '/EFI/BOOT/BOOTX64.EFI': name('efi_shim'),
      '/EFI/BOOT/grubx64.efi': name('efi_grub'),
      '/EFI/BOOT/mmx64.efi': name('efi_mok_manager'),
      '/EFI/BOOT/grub.cfg': null,
      // The signed GRUB has its vendor's folder built in.
      [stub]: null,
    },
  };
}
