import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  checkCommandLine,
  checkKernel,
  grubConfig,
  partitionTable,
  planDisk,
  rootArgument,
  rootSystem,
} from '../../../../installer/images/ami.js';
import { checkImport, type ImageImportDeps, importCloudImage } from '../../../../installer/images/import.js';
import { imageNotes, imageProperties, PROFILES } from '../../../../installer/images/profiles.js';
import { inspect } from '../../../../installer/images/source.js';
import { createOpenStackClient } from '../../../../installer/openstack/client.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { IMAGE_PROFILES, type ImageImportOptions } from '../../../../provisioner/core/cloud-images.js';
import { ADMIN_PASSWORD, type FakeCloud, startFakeCloud } from '../openstack/fake-cloud.js';

const MIB = 2 ** 20;
const UUID = 'c0ffee00-1234-4678-9abc-def012345678';

let dir: string;
const closers: (() => unknown)[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-images-'));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  rmSync(dir, { recursive: true, force: true });
});

const problemOf = async (work: () => unknown) => {
  try {
    await work();
  } catch (error) {
    const { problem } = error as { problem?: { code: string; message: string } };
    return problem ? `${problem.code}: ${problem.message}` : `a bug: ${error}`;
  }
  return 'no problem';
};
const file = (name: string, data: Buffer) => {
  const path = join(dir, name);
  writeFileSync(path, data);
  return path;
};

const ext4 = (bytes = 3 * MIB + 700): Buffer => {
  const system = Buffer.alloc(bytes);
  system.writeUInt16LE(0xef53, 1024 + 0x38);
  Buffer.from(UUID.replaceAll('-', ''), 'hex').copy(system, 1024 + 0x68);
  system.fill(0x5a, 2 * MIB, 2 * MIB + 100);
  system.fill(0xa5, bytes - 10);
  return system;
};
const bzImage = (): Buffer => {
  const kernel = Buffer.alloc(4096, 1);
  kernel.writeUInt16LE(0xaa55, 0x1fe);
  kernel.write('HdrS', 0x202, 'latin1');
  return kernel;
};
const iso = (): Buffer => {
  const image = Buffer.alloc(40 * 2048);
  image.write('\x01CD001\x01', 32_768, 'latin1');
  return image;
};
const qcow2 = (bytes: number, backing = false): Buffer => {
  const image = Buffer.alloc(65_536);
  image.write('QFI\xfb', 0, 'latin1');
  image.writeUInt32BE(2, 4);
  if (backing) image.writeBigUInt64BE(4096n, 8);
  if (backing) image.writeUInt32BE(11, 16);
  image.writeUInt32BE(16, 20);
  image.writeBigUInt64BE(BigInt(bytes), 24);
  return image;
};

/** A boot sector and a program that makes a core image: GRUB's own are not on every machine. */
function grub() {
  const boot = Buffer.alloc(512, 0xeb);
  boot.writeUInt16LE(0xaa55, 510);
  file('boot.img', boot);
  const core = Buffer.alloc(5000, 0xcc);
  core.writeUInt16LE(0x820, 0x1fe);
  const mkimage = file('mkimage', Buffer.from(`#!/bin/sh\necho "$*" > ${dir}/argv\ncp ${file('core', core)} "$6"\n`));
  chmodSync(mkimage, 0o755);
  return { dir, mkimage };
}

async function start(): Promise<{ cloud: FakeCloud; deps: ImageImportDeps; steps: string[] }> {
  const cloud = await startFakeCloud();
  const client = createOpenStackClient({
    authUrl: cloud.authUrl,
    region: 'RegionOne',
    credentials: { user: 'admin', password: ADMIN_PASSWORD, project: 'admin' },
    clock: systemClock,
    endpointInterface: 'internal',
    backoffMs: [5],
  });
  closers.push(
    () => cloud.close(),
    () => client.close(),
  );
  const steps: string[] = [];
  return {
    cloud,
    steps,
    deps: { client, dir: join(dir, 'work'), clock: systemClock, grub: grub(), onStep: async s => void steps.push(s) },
  };
}

const asked = (more: Partial<ImageImportOptions>): ImageImportOptions => ({
  name: 'img',
  profile: 'plain',
  source: { file: '/x' },
  ...more,
});

describe('profiles', () => {
  it('say what each kind of system needs', () => {
    const of = (profile: ImageImportOptions['profile'], more: Partial<ImageImportOptions> = {}) =>
      imageProperties(asked({ profile, ...more }));
    expect(of('plain')).toEqual({ halligan_profile: 'plain' });
    expect(of('cloud-init', { guestAgent: true })).toEqual({
      os_type: 'linux',
      hw_disk_bus: 'virtio',
      hw_vif_model: 'virtio',
      hw_rng_model: 'virtio',
      hw_qemu_guest_agent: 'yes',
      halligan_profile: 'cloud-init',
    });
    expect(of('windows')).toMatchObject({
      os_type: 'windows',
      hw_machine_type: 'q35',
      hw_firmware_type: 'uefi',
      hw_disk_bus: 'virtio',
      hw_vif_model: 'virtio',
    });
    expect(of('windows', { tpm: true })).toMatchObject({ hw_tpm_version: '2.0', hw_tpm_model: 'tpm-crb' });
    expect(of('windows', { firmware: 'bios', properties: { hw_video_model: 'vga' } })).toMatchObject({
      hw_firmware_type: 'bios',
      hw_video_model: 'vga',
    });
  });

  it('let Windows start from a disk that it knows while its drivers are still on a CD', () => {
    expect(imageProperties(asked({ profile: 'windows', driverIso: { file: '/v.iso' } }))['hw_disk_bus']).toBe('sata');
  });

  it('have a sentence each, and none but known properties', () => {
    expect(Object.keys(PROFILES)).toEqual([...IMAGE_PROFILES]);
    for (const { sentence, properties } of Object.values(PROFILES)) {
      expect(sentence).toMatch(/^[A-Z].*\.$/);
      for (const key of Object.keys(properties)) expect(key).toMatch(/^(os_type|hw_[a-z_]+)$/);
    }
  });

  it.each<[Partial<ImageImportOptions>, string]>([
    [{ kernel: { file: '/k' } }, 'The profile plain takes no kernel.'],
    [{ profile: 'cloud-init', tpm: true }, 'The profile cloud-init takes no TPM.'],
    [{ profile: 'ami' }, 'The profile ami needs the kernel of the image: its AKI.'],
    [{ profile: 'ami', kernel: { file: '/k' }, firmware: 'uefi' }, 'The profile ami takes no firmware.'],
    [{ profile: 'windows', tpm: true, firmware: 'bios' }, 'A TPM with Secure Boot needs the firmware uefi.'],
    [{ properties: { 'No Such': 'x' } }, '"No Such" is no image property.'],
    [{ properties: { visibility: 'public' } }, 'The property visibility cannot be set here.'],
    [{ properties: { kernel_id: 'x' } }, 'The property kernel_id cannot be set here.'],
    [{ properties: { os_distro: 'a\nb' } }, 'The value of os_distro is too long or no line.'],
    [
      { source: { url: 'http://mirror.test/x' } },
      'the image comes over http:// without a checksum: anybody on the way',
    ],
    [{ source: { file: 'x.raw' } }, 'The path of the image must be absolute: x.raw.'],
    [{ source: { file: '/x', sha256: 'abc' } }, 'The checksum of the image is no SHA-256: 64 hexadecimal digits.'],
    [{ allowHosts: ['10.0.0.0/99'] }, '"10.0.0.0/99" is no host and no network.'],
    [
      { profile: 'ami', kernel: { file: '/k' }, commandLine: 'x; reboot' },
      'The kernel command line has characters other than',
    ],
  ])('refuse %j', async (more, message) => {
    expect(await problemOf(() => checkImport(asked(more)))).toContain(`request-invalid: ${message}`);
  });

  it('tell what the operator does next', () => {
    const notes = imageNotes({ name: 'w', profile: 'windows', tpm: true }, { id: 'iso-1', sizeGiB: 2 }, false);
    expect(notes.join('\n')).toMatch(
      /uuid=iso-1,source_type=image,destination_type=volume,volume_size=2,device_type=cdrom/,
    );
    expect(notes.join('\n')).toMatch(/No hypervisor here has KVM.*\n.*Barbican/);
    expect(imageNotes({ name: 'w', profile: 'windows' }, null, true)).toEqual([]);
  });
});

describe('the format of a file', () => {
  const of = (data: Buffer) => inspect({ head: data, bytes: data.length });
  it('is found by what is in it', () => {
    expect(of(qcow2(7 * MIB))).toEqual({ diskFormat: 'qcow2', virtualBytes: 7 * MIB });
    expect(of(iso()).diskFormat).toBe('iso');
    expect(of(ext4())).toEqual({ diskFormat: 'raw', virtualBytes: 3 * MIB + 700 });
  });
  it('is refused where a hypervisor would read other files by it, or Nova knows it not', async () => {
    expect(await problemOf(() => of(qcow2(MIB, true)))).toMatch(/^image-format: .*it names a backing file/);
    expect(await problemOf(() => of(Buffer.from('KDMV'.padEnd(600, '\0'))))).toMatch(/^image-format: .*a VMDK/);
    expect(await problemOf(() => of(Buffer.alloc(3)))).toMatch(/3 bytes: that is no disk/);
    expect(await problemOf(() => of(Buffer.concat([Buffer.from('28b52ffd', 'hex'), Buffer.alloc(600)])))).toMatch(
      /zstd-compressed/,
    );
  });
});

describe('an AMI', () => {
  const plan = planDisk({ root: 3 * MIB + 700, kernel: 4096, ramdisk: 100 }, UUID);

  it('becomes a disk with its file system as the first partition and the last on the disk', () => {
    expect(plan).toEqual({
      bootMiB: 5,
      rootStartMiB: 6,
      rootSectors: 6146,
      diskBytes: 10 * MIB,
      signature: 0xc0ffee00,
    });
    const table = partitionTable(plan);
    expect(table.readUInt32LE(0)).toBe(0xc0ffee00);
    expect([table.readUInt32LE(6 + 8), table.readUInt32LE(6 + 12)]).toEqual([12_288, 6146]);
    expect([table[22], table.readUInt32LE(22 + 8), table.readUInt32LE(22 + 12)]).toEqual([0x80, 2048, 10_240]);
    expect(table.readUInt16LE(70)).toBe(0xaa55);
  });

  it('finds its root by UUID with a RAM disk, and by what the kernel knows without one', () => {
    const system = rootSystem(ext4());
    expect(system).toEqual({ type: 'ext', uuid: UUID });
    expect(rootArgument(plan, system, true)).toBe(`root=UUID=${UUID}`);
    expect(rootArgument(plan, system, false)).toBe('root=PARTUUID=c0ffee00-01 rootwait');
    expect(grubConfig('root=x ro', false)).not.toContain('initrd');
  });

  it('knows ext, XFS and Btrfs', () => {
    const xfs = Buffer.alloc(MIB);
    xfs.write('XFSB', 0, 'latin1');
    expect(rootSystem(xfs).type).toBe('xfs');
    const btrfs = Buffer.alloc(MIB);
    btrfs.write('_BHRfS_M', 0x1_0040, 'latin1');
    expect(rootSystem(btrfs).type).toBe('btrfs');
  });

  it('is refused when it is a whole disk, or nothing that is known, or its kernel is none of a PC', async () => {
    const disk = Buffer.alloc(MIB);
    disk.writeUInt16LE(0xaa55, 510);
    expect(await problemOf(() => rootSystem(disk))).toMatch(/^image-format: The image is a whole disk/);
    expect(await problemOf(() => rootSystem(Buffer.alloc(MIB)))).toMatch(/it is no AMI/);
    expect(await problemOf(() => checkKernel(Buffer.alloc(4096)))).toMatch(/^image-format: The kernel is no bzImage/);
    for (const line of ['a"b', 'x\ny', '$root', 'a{b'])
      expect(await problemOf(() => checkCommandLine(line)), line).toMatch(/^request-invalid/);
    expect(await problemOf(() => checkCommandLine('nocsum console=ttyS0,115200 ip=10.0.0.1/24'))).toBe('no problem');
  });

  it('is uploaded as a disk that holds what was given, byte for byte', async () => {
    const { cloud, deps, steps } = await start();
    const kept = join(dir, 'kept.raw');
    const made = await importCloudImage(
      asked({
        name: 'lucid',
        profile: 'ami',
        source: { file: file('root', ext4()) },
        kernel: { file: file('k', bzImage()) },
        ramdisk: { file: file('r', Buffer.from('initrd')) },
        commandLine: 'nocsum',
      }),
      {
        ...deps,
        onStep: async step => {
          steps.push(step);
          if (!step.startsWith('upload')) return;
          const [work] = readdirSync(deps.dir);
          writeFileSync(kept, readFileSync(join(deps.dir, work!, 'disk.raw')));
          writeFileSync(join(dir, 'grub.cfg'), readFileSync(join(deps.dir, work!, 'boot/grub/grub.cfg')));
        },
      },
    );
    expect(steps).toEqual([
      'read the image',
      'make a disk that boots of file system, kernel and RAM disk',
      'upload lucid',
    ]);
    const disk = readFileSync(kept);
    expect(disk.subarray(6 * MIB, 6 * MIB + ext4().length).equals(ext4())).toBe(true);
    expect(disk.length).toBe(10 * MIB);
    expect(disk[MIB + 1024 + 0x39]).toBe(0xef);
    expect([disk.readUInt32LE(0x5c), disk.readUInt16LE(510), disk[512]]).toEqual([1, 0xaa55, 0xcc]);
    expect(readFileSync(join(dir, 'argv'), 'utf8')).toContain('-O i386-pc');
    expect(readFileSync(join(dir, 'grub.cfg'), 'utf8')).toMatchInlineSnapshot(`
      "# Made by Halligan when the AMI was imported.
      serial --unit=0 --speed=115200
      terminal_input console serial
      terminal_output console serial
      set timeout=0
      set gfxpayload=text
      linux /vmlinuz root=UUID=c0ffee00-1234-4678-9abc-def012345678 ro console=tty0 console=ttyS0 nocsum
      initrd /initrd
      boot
      "
    `);
    expect(cloud.tables['images']).toMatchObject([
      { name: 'lucid', status: 'active', disk_format: 'raw', container_format: 'bare', min_disk: 1, size: 10 * MIB },
    ]);
    expect(made).toMatchObject({ diskFormat: 'raw', bytes: 10 * MIB, minDiskGiB: 1, profile: 'ami' });
    expect(readdirSync(deps.dir)).toEqual([]);
  });

  it('needs GRUB on this machine, and says which package brings it', async () => {
    const { deps } = await start();
    const options = asked({
      profile: 'ami',
      source: { file: file('root', ext4()) },
      kernel: { file: file('k', bzImage()) },
    });
    const without = { ...deps, grub: { dir: '/none', mkimage: 'grub-mkimage' } };
    expect(await problemOf(() => importCloudImage(options, without))).toBe(
      'dependency-missing: /none/boot.img is missing: install grub-pc-bin.',
    );
  });
});

describe('an import', () => {
  it('brings Windows with its drivers as an image of their own', async () => {
    const { cloud, deps } = await start();
    const made = await importCloudImage(
      asked({
        name: 'w11',
        profile: 'windows',
        source: { file: file('w', qcow2(40 * 1024 * MIB)) },
        driverIso: { file: file('v', iso()) },
        visibility: 'private',
        minMemoryMiB: 4096,
      }),
      deps,
    );
    const [drivers, windows] = cloud.tables['images']!;
    expect(drivers).toMatchObject({ name: 'w11-drivers', disk_format: 'iso', visibility: 'private' });
    expect(drivers).not.toHaveProperty('min_ram');
    expect(windows).toMatchObject({
      ...{ name: 'w11', disk_format: 'qcow2', min_disk: 40, min_ram: 4096, hw_disk_bus: 'sata', os_type: 'windows' },
      halligan_drivers: drivers!['id'],
    });
    expect(made.drivers).toEqual({ id: drivers!['id'], name: 'w11-drivers' });
    expect(made.notes[0]).toContain(`uuid=${drivers!['id']}`);
  });

  it('asks for no larger disk than was said, unless the image does not fit on it', async () => {
    const { deps } = await start();
    const source = { file: file('w', qcow2(40 * 1024 * MIB)) };
    expect((await importCloudImage(asked({ name: 'a', source, minDiskGiB: 64 }), deps)).minDiskGiB).toBe(64);
    expect((await importCloudImage(asked({ name: 'b', source, minDiskGiB: 1 }), deps)).minDiskGiB).toBe(40);
  });

  it.each<[string, () => Partial<ImageImportOptions>, RegExp]>([
    ['a hostile qcow2', () => ({ source: { file: file('q', qcow2(MIB, true)) } }), /^image-format: .*backing file/],
    [
      // It would be refused for its format, too: nothing looked into it.
      'a file with another checksum',
      () => ({ source: { file: file('q', qcow2(MIB, true)), sha256: 'ab'.repeat(32) } }),
      /^image-checksum: The image has the checksum/,
    ],
    ['a file that is not there', () => ({ source: { file: '/none/x' } }), /^image-missing: .*ENOENT/],
    ['a device', () => ({ source: { file: '/dev/zero' } }), /^image-missing: \/dev\/zero is no file/],
    [
      'a driver ISO that is none',
      () => ({ profile: 'windows', source: { file: file('w', ext4()) }, driverIso: { file: file('v', ext4()) } }),
      /^image-format: The driver ISO is no ISO 9660/,
    ],
    ['a URL into the own machine', () => ({ source: { url: 'https://127.0.0.1/x' } }), /^image-url: .*loopback/],
    ['another scheme', () => ({ source: { url: 'ftp://mirror.test/x' } }), /^image-url: ftp:/],
  ])('refuses %s before anything is uploaded, and leaves nothing', async (_, more, message) => {
    const { cloud, deps } = await start();
    expect(await problemOf(() => importCloudImage(asked(more()), deps))).toMatch(message);
    expect(cloud.requests.filter(r => /^(POST|PUT) \/(image|v2)/.test(r))).toEqual([]);
    expect(cloud.tables['images']).toEqual([]);
    expect(readdirSync(deps.dir)).toEqual([]);
  });

  it('is fetched from a host that was allowed, with its checksum', async () => {
    const data = ext4();
    const server = createServer((_, response) => response.end(data)).listen(0, '127.0.0.1');
    await new Promise(resolve => server.once('listening', resolve));
    closers.push(() => server.close());
    const { cloud, deps } = await start();
    const source = {
      url: `http://mirror.test:${(server.address() as AddressInfo).port}/x`,
      sha256: createHash('sha256').update(data).digest('hex'),
    };
    const resolve = async () => ['127.0.0.1'];
    expect(await problemOf(() => importCloudImage(asked({ source }), { ...deps, resolve }))).toMatch(/^image-url/);
    await importCloudImage(asked({ source, allowHosts: ['mirror.test'] }), { ...deps, resolve });
    expect(cloud.tables['images']).toMatchObject([{ name: 'img', size: data.length }]);
  });

  it('takes no name twice', async () => {
    const { cloud, deps } = await start();
    const options = asked({ source: { file: file('x', ext4()) } });
    await importCloudImage(options, deps);
    expect(await problemOf(() => importCloudImage(options, deps))).toMatch(/^name-taken: The cloud has an image img/);
    expect(cloud.tables['images']).toHaveLength(1);
  });

  it('whose file is exchanged between check and upload is taken back, drivers too', async () => {
    const { cloud, deps } = await start();
    const path = file('x', ext4());
    const onStep = async (step: string) => {
      if (step === 'upload img') writeFileSync(path, qcow2(MIB, true));
    };
    const options = asked({ profile: 'windows', source: { file: path }, driverIso: { file: file('v', iso()) } });
    expect(await problemOf(() => importCloudImage(options, { ...deps, onStep }))).toMatch(
      /^image-checksum: Glance got other bytes for img/,
    );
    expect(cloud.tables['images']).toEqual([]);
  });

  it('clears away what a server that was killed left', async () => {
    const { deps } = await start();
    const source = { file: file('x', ext4()) };
    await importCloudImage(asked({ source }), deps);
    writeFileSync(join(deps.dir, '.import-old'), 'x');
    await importCloudImage(asked({ name: 'b', source }), deps);
    expect(readdirSync(deps.dir)).toEqual([]);
  });
});
