import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { follow, type InstallLab, installLab } from './install-lab.js';

let lab: InstallLab;
let disk: string;
let hostKey = '';
beforeAll(async () => {
  lab = await installLab();
  disk = await lab.disk('disk', 8);
});
afterAll(() => lab?.close());

describe('a bare disk', () => {
  it('gets the system written by the script, with stages in order and a host key at the end', async () => {
    const { machine, target, inventory } = await lab.ram([disk]);
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
      const { machine, target, report, seconds, cpuSeconds } = await lab
        .boot([disk], firmware, hostKey)
        .catch((error: unknown) => {
          // The first boot has spent the token: the second is only waited for by SSH.
          throw error;
        });
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
      await machine.kill();
    });
});
