import { describe, expect, it } from 'vitest';
import {
  distributionNames,
  loadDistribution,
  parseDistribution,
} from '../../../provisioner/core/distributions/load.js';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { mmdebstrapArgv, resolveSources } from '../../../provisioner/image/mmdebstrap.js';
import {
  authorizedKeyLine,
  globPattern,
  insertionOrder,
  isPrunedModule,
  ramTree,
} from '../../../provisioner/image/ram/recipe.js';

describe('the tree of the RAM environment', () => {
  it('takes firmware for real hosts only, and only where the archive has it', () => {
    const debian = loadDistribution('debian-12');
    const sources = resolveSources(debian, [], {
      mirror: 'http://mirror.example/debian',
      extraComponents: debian.firmware.components,
    });
    const generic = mmdebstrapArgv(ramTree(debian, 'generic', sources, '/tree'));
    expect(generic).toContain('--include=?exact-name(firmware-bnx2x)');
    expect(generic).toContain('deb http://mirror.example/debian bookworm main non-free-firmware');
    expect(mmdebstrapArgv(ramTree(debian, 'cloud', sources, '/tree')).join(' ')).not.toContain('firmware-bnx2x');
  });

  // Not built in this repository's tests: the command line is the golden.
  it.each(['ubuntu-24.04', 'ubuntu-26.04'])('asks the archive of %s, checked by its own keyring', name => {
    const ubuntu = loadDistribution(name);
    expect(ubuntu.tested).toBe(false);
    const argv = mmdebstrapArgv(ramTree(ubuntu, 'generic', resolveSources(ubuntu, []), '/tree'));
    const suite = ubuntu.suite;
    expect(argv.filter(arg => !arg.startsWith('--include') && !arg.startsWith('--dpkgopt'))).toEqual([
      '--mode=root',
      '--format=directory',
      '--variant=minbase',
      '--architectures=amd64',
      '--keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg',
      '--aptopt=Acquire::Languages "none"',
      '--aptopt=Acquire::Retries "3"',
      '--aptopt=Apt::Install-Recommends "false"',
      suite,
      '/tree',
      `deb http://archive.ubuntu.com/ubuntu ${suite} main universe`,
      `deb http://archive.ubuntu.com/ubuntu ${suite}-updates main universe`,
      `deb http://security.ubuntu.com/ubuntu ${suite}-security main universe`,
    ]);
    expect(argv.find(arg => arg.startsWith('--include='))).toMatch(/linux-image-generic.*openssh-server.*systemd-sysv/);
  });
});

describe('modules of the initrd', () => {
  const dep = [
    'kernel/drivers/block/loop.ko:',
    'kernel/fs/squashfs/squashfs.ko.zst: kernel/lib/b.ko kernel/lib/a.ko',
    'kernel/lib/a.ko:',
    'kernel/lib/b.ko: kernel/lib/a.ko',
  ].join('\n');
  it('come behind what they need, and once', () => {
    expect(insertionOrder(dep, '', ['squashfs', 'loop'])).toEqual([
      'kernel/lib/a.ko',
      'kernel/lib/b.ko',
      'kernel/fs/squashfs/squashfs.ko.zst',
      'kernel/drivers/block/loop.ko',
    ]);
  });
  it('are left out when the kernel has them built in, and missed when it has them nowhere', () => {
    expect(insertionOrder('', 'kernel/fs/overlayfs/overlay.ko\n', ['overlay'])).toEqual([]);
    expect(() => insertionOrder(dep, '', ['overlay'])).toThrow('no module overlay');
  });
  it('keep disks and wired NICs, and lose sound and wireless', () => {
    const kept = [
      'drivers/net/ethernet/intel/ixgbe/ixgbe.ko',
      'drivers/nvme/host/nvme.ko',
      'drivers/scsi/hpsa.ko',
      'drivers/net/bonding/bonding.ko',
      'fs/xfs/xfs.ko',
      'drivers/md/raid1.ko',
      'drivers/char/ipmi/ipmi_si.ko',
    ];
    expect(kept.filter(isPrunedModule)).toEqual([]);
    expect(
      ['sound/core/snd.ko', 'drivers/net/wireless/ath/ath.ko', 'net/bluetooth/bluetooth.ko'].every(isPrunedModule),
    ).toBe(true);
  });
});

describe('an authorized key', () => {
  it('is one line of type, base64 and comment', () => {
    expect(authorizedKeyLine(' ssh-ed25519 AAAAC3Nz halligan@srv\n')).toBe('ssh-ed25519 AAAAC3Nz halligan@srv');
  });
  it.each([
    '',
    'ssh-ed25519',
    'ssh-ed25519 AAAA a\nssh-ed25519 BBBB b',
    'command="x" ssh-ed25519 AAAA',
    'ssh-ed25519 AA$A',
  ])('is not %j', key => expect(() => authorizedKeyLine(key)).toThrow(RangeError));
});

it('reads shell patterns, which do not cross folders', () => {
  expect(globPattern('libicu*').test('libicudata.so.72.1')).toBe(true);
  expect(globPattern('qat_*.bin').test('qat_c62x.bin')).toBe(true);
  expect(globPattern('intel/*.pkg').test('intel/ice/ice.pkg')).toBe(false);
  expect(globPattern('python3.*').test('python3x11')).toBe(false);
});

describe('the data of distributions', () => {
  it('fits its schema, each file by its own name', () => {
    expect(distributionNames()).toEqual(['debian-12', 'ubuntu-24.04', 'ubuntu-26.04']);
    for (const name of distributionNames()) expect(loadDistribution(name).name).toBe(name);
  });
  it('is missing for a release that nobody wrote down', () => {
    expect(() => loadDistribution('../../etc/passwd')).toThrow(ProblemError);
    expect(() => loadDistribution('debian-11')).toThrow('known are debian-12, ubuntu-24.04');
  });
  it('names the field that does not fit', () => {
    expect(() => parseDistribution('schema: 1\nname: debian-12\n', 'debian-12')).toThrow(/debian-12\.yaml: /);
  });
});
