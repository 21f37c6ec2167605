import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderEraseScript } from '../../provisioner/install/script.js';
import { follow, type InstallLab, installLab } from '../spine/install-lab.js';

let lab: InstallLab;
beforeAll(async () => {
  lab = await installLab();
});
afterAll(() => lab?.close());

for (const kind of ['lvm', 'mdraid'] as const)
  describe(`the layout ${kind}`, () => {
    let disks: string[];
    let hostKey = '';
    beforeAll(async () => {
      disks = [await lab.disk(`${kind}-a`, 6)];
      if (kind === 'mdraid') disks.push(await lab.disk(`${kind}-b`, 6));
    });

    it('is written to empty disks, and again over itself', async () => {
      const { machine, target, inventory } = await lab.ram(disks);
      const install = { disk_layout: { kind, disks: [{}], ...(kind === 'lvm' ? { root_gb: 4 } : {}) } };
      for (const round of ['first', 'again']) {
        const before = await machine.cpuSeconds();
        const job = await lab.job(inventory, install);
        const end = await follow(lab, target, job, `install-${kind}-${round}`);
        expect(end.problem, end.lines.join('\n')).toBe('');
        expect(end.code, end.lines.join('\n')).toBe(0);
        console.log(`${kind} ${round}: ${((await machine.cpuSeconds()) - before).toFixed(1)} CPU s`, end.stages);
        hostKey = end.hostKey;
      }
      await machine.kill();
    });

    for (const firmware of ['bios', 'uefi'] as const)
      it(`boots by ${firmware}`, async () => {
        const own = await Promise.all(disks.map((disk, n) => lab.copy(disk, `${kind}-${firmware}-${n}`)));
        const { machine, target, report } = await lab.boot(own, firmware, hostKey);
        expect(report.body).toMatchObject({ hostname: 'n01' });
        const say = async (command: string) => (await lab.executor.run(target, command)).stdout.trim();
        expect(await say('test -d /sys/firmware/efi && echo uefi || echo bios')).toBe(firmware);
        expect(await say('lsblk -nro TYPE $(findmnt -no SOURCE /)')).toBe(kind === 'lvm' ? 'lvm' : 'raid1');
        expect(await say('grep -c halligan-boot-disks /var/cache/debconf/config.dat')).toBe('0');
        await machine.kill();
      });

    if (kind === 'mdraid')
      for (const firmware of ['bios', 'uefi'] as const)
        it(`boots by ${firmware} from the second disk alone`, async () => {
          const alone = await lab.copy(disks[1]!, `alone-${firmware}`);
          const { machine, target } = await lab.boot([alone], firmware, hostKey);
          const state = await lab.executor.run(target, 'cat /proc/mdstat');
          expect(state.stdout).toContain('[2/1]');
          await machine.kill();
        });

    it('is erased so that nothing is recognised on the disks', async () => {
      const { machine, target, inventory } = await lab.ram(disks);
      expect(inventory.disks.every(disk => disk.ownedBy?.nodeId === '5f0c2a41')).toBe(true);
      const erase = renderEraseScript(inventory.disks, 'quick');
      const job = { ...erase, timeoutMs: 600_000, summary: '', image: '', login: '' };
      const end = await follow(lab, target, job, `erase-${kind}`);
      expect(end.problem).toBe('');
      expect(end.code, end.lines.join('\n')).toBe(0);
      await machine.kill();
      const after = await lab.ram(disks);
      expect(after.inventory.disks.map(disk => [disk.signatures, disk.ownedBy])).toEqual(disks.map(() => [[], null]));
      await after.machine.kill();
    });
  });
