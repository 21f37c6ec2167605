import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../../provisioner/core/distributions/load.js';
import {
  aptOptions,
  diskMiB,
  GUEST_COMMAND_LINE,
  isKernel,
  listedLibraries,
  MIB,
  masterBootRecord,
  mkfsArgv,
  moduleNeeds,
  moduleOrder,
  simulated,
  sourcesList,
  syslinuxConfig,
} from '../../../provisioner/image/guest/recipe.js';
import { buildGuestImage } from '../../../provisioner/image/guest.js';
import { manifestFiles, parseManifest } from '../../../provisioner/image/manifest.js';
import type { GuestImageManifest } from '../../../provisioner/image/types.js';

describe('packages of the guest', () => {
  it('come from archives whose signatures are checked by the one keyring', () => {
    const sources = [
      { uri: 'http://mirror.example/debian', suites: ['bookworm', 'bookworm-updates'], components: ['main'] },
      { uri: 'http://mirror.example/debian-security', suites: ['bookworm-security'], components: ['main'] },
    ];
    expect(sourcesList(sources, '/usr/share/keyrings/k.gpg')).toBe(
      [
        'deb [arch=amd64 target=Packages signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main',
        'deb [arch=amd64 target=Packages signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm-updates main',
        'deb [arch=amd64 target=Packages signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian-security bookworm-security main',
        '',
      ].join('\n'),
    );
  });

  it('are looked up by an apt that sees nothing of this machine’s keys, pins and packages', () => {
    const options = aptOptions('/w');
    expect(options.filter((_, index) => index % 2 === 0).every(option => option === '-o')).toBe(true);
    for (const option of [
      'Dir::State=/w',
      'Dir::State::status=/w/status',
      'Dir::Etc::SourceParts=/dev/null',
      'Dir::Etc::TrustedParts=/dev/null',
      'Dir::Etc::PreferencesParts=/dev/null',
    ])
      expect(options).toContain(option);
  });

  it('are what apt would install, and of the kernel only the kernel', () => {
    const lines = [
      'NOTE: This is only a simulation!',
      'Inst libgcc-s1 (12.2.0-14 Debian:12/oldstable [amd64]) []',
      'Inst libc6:amd64 (2.36-9 Debian:12/oldstable [amd64])',
      'Inst linux-image-6.1.0-56-cloud-amd64 (6.1.192-2 Debian-Security:12/oldstable-security [amd64])',
      'Inst linux-image-cloud-amd64 (6.1.192-2 Debian-Security:12/oldstable-security [amd64])',
      'Conf libc6 (2.36-9 Debian:12/oldstable [amd64])',
    ];
    const names = simulated(lines);
    expect(names).toEqual(['libgcc-s1', 'libc6', 'linux-image-6.1.0-56-cloud-amd64', 'linux-image-cloud-amd64']);
    expect(names.filter(isKernel)).toEqual(['linux-image-6.1.0-56-cloud-amd64']);
    expect(['linux-modules-6.8.0-31-generic', 'linux-base', 'linux-headers-6.1.0-56'].map(isKernel)).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('are not fetched without the keyring that they are checked with', async () => {
    const build = buildGuestImage({
      imagesDir: '/nowhere',
      mirror: 'http://mirror.example/debian',
      keyring: '/nowhere/keyring.gpg',
    });
    await expect(build).rejects.toMatchObject({ problem: { code: 'dependency-missing' } });
  });
});

describe('modules of the guest', () => {
  const module = (needs: string) => Buffer.from(`\x7fELF…\0license=GPL\0depends=${needs}\0retpoline=Y\0name=x\0`);

  it('say themselves what they need', () => {
    expect(moduleNeeds(module('virtio_ring,net-failover'))).toEqual(['virtio_ring', 'net_failover']);
    expect(moduleNeeds(module(''))).toEqual([]);
    expect(() => moduleNeeds(Buffer.from('(\xb5/\xfd compressed'))).toThrow('a compressed one');
  });

  const paths = ['kernel/net/failover.ko', 'kernel/drivers/net/virtio_net.ko', 'kernel/char/hw_random/virtio-rng.ko'];
  const needs = (path: string) => (path.endsWith('_net.ko') ? ['virtio', 'failover'] : []);
  const builtin = 'kernel/drivers/virtio/virtio.ko\nkernel/fs/ext4/ext4.ko\n';

  it('are inserted behind what they need, once, and not when the kernel has them built in', () => {
    expect(moduleOrder(['virtio_net', 'ext4', 'virtio_rng', 'failover'], paths, builtin, needs)).toEqual(paths);
  });
  it('are missed when they are nowhere', () => {
    expect(() => moduleOrder(['floppy'], paths, builtin, needs)).toThrow('no module floppy');
  });
});

it('finds the libraries in the loader’s list, and misses one', () => {
  const lines = [
    '\tlinux-vdso.so.1 (0x00007ffc)',
    '\tlibz.so.1 => /tree/lib/x86_64-linux-gnu/libz.so.1 (0x00007f)',
    '\t/lib64/ld-linux-x86-64.so.2 => /tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 (0x00007f)',
  ];
  expect([...listedLibraries(lines)]).toEqual([['libz.so.1', '/tree/lib/x86_64-linux-gnu/libz.so.1']]);
  expect(() => listedLibraries(['\tlibtommath.so.1 => not found'])).toThrow('libtommath.so.1');
});

describe('the disk of the guest', () => {
  it('has boot code, a signature, and one active FAT partition from 1 MiB to its end', () => {
    const sector = masterBootRecord(Buffer.alloc(440, 0x90), 20);
    expect(sector.length).toBe(512);
    expect(sector.subarray(0, 440).every(byte => byte === 0x90)).toBe(true);
    expect(sector.subarray(440).toString('hex')).toBe(
      '474c41480000' + // signature
        '80feffff0efeffff' + // active, FAT16 by sector numbers
        '0008000000980000' + // from sector 2048, 38912 sectors: 19 MiB
        '00'.repeat(48) +
        '55aa',
    );
  });
  it('has no room for boot code that would run into the partition table', () => {
    expect(() => masterBootRecord(Buffer.alloc(441), 20)).toThrow('441 bytes');
    expect(() => masterBootRecord(Buffer.alloc(0), 20)).toThrow('0 bytes');
  });
  it('is as large as its files, the boot loader and the file system, which ends where the disk does', () => {
    expect(diskMiB(16 * MIB)).toBe(19);
    expect(diskMiB(16 * MIB + 1)).toBe(20);
    expect(mkfsArgv('d', 20).slice(-6)).toEqual(['--offset', '2048', '-h', '2048', 'd', `${19 * 1024}`]);
  });
  it('boots without a menu and without waiting, with the serial port as console', () => {
    const config = syslinuxConfig(GUEST_COMMAND_LINE);
    expect(config).toMatch(/^PROMPT 0$/m);
    expect(config).not.toMatch(/TIMEOUT|MENU/);
    expect(GUEST_COMMAND_LINE).toMatch(/^console=tty0 console=ttyS0 (?!.*console=)/);
  });
});

describe('the manifest of the guest', () => {
  const file = (name: string) => ({ name, bytes: 1, sha256: 'a'.repeat(64) });
  const manifest: GuestImageManifest = {
    schema: 1,
    kind: 'guest',
    name: 'guest',
    distribution: 'debian',
    release: '12',
    arch: 'amd64',
    createdMs: 1,
    inputHash: 'x',
    disk: { ...file('disk.qcow2'), rawBytes: 20 * MIB },
    kernel: file('vmlinuz'),
    initrd: file('initrd'),
    kernelVersion: '6.1.0-56-cloud-amd64',
    minMemoryMiB: 96,
    commandLine: GUEST_COMMAND_LINE,
  };
  it('is read back, and names three files', () => {
    expect(parseManifest(JSON.stringify(manifest))).toEqual(manifest);
    expect(manifestFiles(manifest).map(({ name }) => name)).toEqual(['vmlinuz', 'initrd', 'disk.qcow2']);
  });
  it('is refused without its disk', () => {
    expect(parseManifest(JSON.stringify({ ...manifest, disk: null }))).toMatch(/^\/disk /);
  });
});

describe('scripts that run in the guest', () => {
  const folder = join(packageRoot(), 'templates/guest/etc');
  const scripts = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && /\/(guest|udhcpc|acpi\/PWRF)$/.test(entry.parentPath))
    .map(entry => join(entry.parentPath, entry.name));
  it.each(scripts.map(path => path.slice(folder.length + 1)))('%s is read by a shell', path => {
    expect(execFileSync('sh', ['-n', join(folder, path)], { encoding: 'utf8' })).toBe('');
  });
});
