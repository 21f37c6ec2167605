import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import { netplanYaml, networkConfig } from '../../provisioner/install/network.js';
import { seed } from '../../provisioner/install/seed.js';
import { follow, type InstallLab, installLab } from './install-lab.js';

let lab: InstallLab;
let disk: string;
let hostKey = '';
beforeAll(async () => {
  lab = await installLab();
  disk = await lab.disk('disk', 8);
});
afterAll(() => lab?.close());

describe('a disk with a file system of somebody else', () => {
  let ram: Awaited<ReturnType<InstallLab['ram']>>;
  beforeAll(async () => {
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-L', 'photos', disk]);
    ram = await lab.ram([disk]);
  });

  it('is not taken, and is named', async () => {
    await expect(lab.job(ram.inventory, {})).rejects.toMatchObject({
      problem: { code: 'disk-foreign', message: 'n01: Disk would be overwritten: /dev/vda carries ext4 "photos".' },
    });
  });

  it('is not taken either when the data came there after the inventory', async () => {
    const disks = ram.inventory.disks.map(d => ({ ...d, signatures: [] }));
    const job = await lab.job({ ...ram.inventory, disks }, {});
    const end = await follow(lab, ram.target, job, 'install-late');
    expect(end.code).toBe(1);
    expect(end.problem).toBe('The disk /dev/vda carries data that is not ours: ext4');
  });

  it('is left with nothing that boots when the image turns out to be another one', async () => {
    lab.tamper = (_path, bytes) => {
      bytes[bytes.length >> 1]! ^= 1;
      return bytes;
    };
    const end = await follow(lab, ram.target, await lab.job(ram.inventory, {}, { wipe: true }), 'install-tampered');
    lab.tamper = null;
    expect(end.code).toBe(1);
    expect(end.problem).toMatch(/^The image came with the checksum [0-9a-f]{64} instead of [0-9a-f]{64}; the disk/);
    expect(end.hostKey).toBe('');
    const say = async (command: string) => (await lab.executor.run(ram.target, command)).stdout.trim();
    expect(await say('lsblk -nro NAME,PARTLABEL /dev/vda')).toBe('vda \nvda1 halligan-5f0c2a41');
    expect(await say('dd if=/dev/vda bs=440 count=1 status=none | tr -d "\\000" | wc -c')).toBe('0');
  });

  it('belongs to the node when the plug is pulled while it is written', async () => {
    const job = await lab.job(ram.inventory, {}, { wipe: true });
    let cut: Promise<void> | undefined;
    const end = await Promise.race([
      follow(lab, ram.target, job, 'install-cut', line => {
        if (line.startsWith('HALLIGAN progress write')) cut ??= ram.machine.kill();
      }).catch(() => 'cut'),
      new Promise(resolve => ram.machine.child.once('exit', () => resolve('cut'))),
    ]);
    await cut;
    expect(end).toBe('cut');
  });
});

describe('a disk that was written halfway', () => {
  it('is written from the beginning, without --wipe, with stages in order and a host key at the end', async () => {
    const { machine, target, inventory } = await lab.ram([disk]);
    expect(inventory.disks[0]?.ownedBy).toEqual({ nodeId: '5f0c2a41' });
    const before = await machine.cpuSeconds();
    const job = await lab.job(inventory, {
      user_data: '#cloud-config\nruncmd:\n  - [touch, /var/tmp/own-user-data]\n',
    });
    const end = await follow(lab, target, job, 'install-1');
    expect(end.problem).toBe('');
    expect(end.code, end.lines.join('\n')).toBe(0);
    console.log(`installer: ${((await machine.cpuSeconds()) - before).toFixed(1)} CPU s`, end.stages);
    expect(Object.keys(end.stages)).toEqual([
      ...['prepare', 'claim', 'write', 'partition', 'grow', 'configure', 'sync'],
    ]);
    expect(end.hostKey).toMatch(/^ssh-ed25519 /);
    hostKey = end.hostKey;
    await machine.kill();
  });

  for (const firmware of ['bios', 'uefi'] as const)
    it(`boots by ${firmware}, calls home once with its token and shows the host key that was handed over`, async () => {
      // A copy for each: a first boot spends the token.
      const own = await lab.copy(disk, firmware);
      const { machine, target, report, seconds, cpuSeconds } = await lab.boot([own], firmware, hostKey);
      console.log(`${firmware}: ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} CPU s until the call home`);
      expect(report.token).toBe('first-boot-token');
      expect(report.body).toMatchObject({ schema: 1, hostname: 'n01' });
      const say = async (command: string) => (await lab.executor.run(target, command)).stdout.trim();
      expect(await say('test -d /sys/firmware/efi && echo uefi || echo bios')).toBe(firmware);
      expect(Number(await say('df --output=size -B1M / | tail -1'))).toBeGreaterThan(7000);
      expect(await say('cloud-init status --wait >/dev/null; cloud-init status')).toBe('status: done');
      // Ours and the operator's user-data, in one.
      expect(await say('test -e /var/tmp/own-user-data && echo yes')).toBe('yes');
      expect(await say('hostname; hostname -d')).toBe('n01\nhalligan.internal');
      expect(await say('systemctl is-system-running --wait; systemctl --failed --plain --no-legend')).toBe('running');
      // The token is gone, and what is secret is root's alone.
      expect(await say('ls /etc/halligan')).toBe('esp');
      expect(
        await say('grep -rl $(printf first-boot-)token / --exclude-dir=proc --exclude-dir=sys 2>/dev/null | head'),
      ).toBe('');
      expect(await say('stat -c %a /var/lib/cloud/seed/nocloud/user-data /etc/netplan/50-halligan.yaml')).toBe(
        '600\n600',
      );
      expect(await say("sed -n 's/.*root=\\(UUID=[^ ]*\\).*/\\1/p' /proc/cmdline")).toBe(
        await say('awk \'$2 == "/" { print $1 }\' /etc/fstab'),
      );
      expect(await say('blkid -o value -s PARTLABEL /dev/vda1')).toBe('halligan-5f0c2a41');
      if (firmware === 'bios') await acceptedByParsers(target);
      await machine.kill();
    });
});

/** netplan's and cloud-init's own parsers, where they are at home, read what we write for other nodes. */
async function acceptedByParsers(target: SshTarget): Promise<void> {
  const two = (n: number) => `52:54:00:99:00:0${n}`;
  const plain = { dhcp: false, addresses: [], dns: [] };
  const network = networkConfig({
    interfaces: [
      { ...plain, name: 'bond0', bond: { macs: [two(1), two(2)], mode: '802.3ad' }, mtu: 9000 },
      { ...plain, name: 'bond1', bond: { macs: [two(3)], mode: 'active-backup' }, dhcp: true },
      {
        ...plain,
        name: 'mgmt',
        vlan: { id: 42, link: 'bond0' },
        addresses: ['10.98.0.7/24'],
        gateway: '10.98.0.1',
        dns: ['10.98.0.1'],
      },
    ],
    bootMac: two(1),
    knownMacs: null,
    domain: 'halligan.internal',
  });
  const { userData } = seed({
    ...{
      instanceId: 'i',
      hostname: 'n01',
      domain: 'halligan.internal',
      login: 'hal',
      siteUserData: null,
      nodeUserData: null,
    },
    keys: [lab.executor.publicKey],
  });
  await lab.executor.run(target, 'mkdir -p /tmp/np/etc/netplan');
  await lab.executor.write(target, '/tmp/np/etc/netplan/50-halligan.yaml', netplanYaml(network), 0o600);
  await lab.executor.write(target, '/tmp/user-data', userData, 0o600);
  const netplan = await lab.executor.run(
    target,
    'netplan generate --root-dir /tmp/np && ls /tmp/np/run/systemd/network',
  );
  expect([netplan.code, netplan.stderr]).toEqual([0, '']);
  expect(netplan.stdout).toContain('10-netplan-mgmt.netdev');
  const schema = await lab.executor.run(target, 'cloud-init schema --config-file /tmp/user-data');
  expect([schema.code, schema.stdout.trim()]).toEqual([0, 'Valid cloud-config: /tmp/user-data']);
}
