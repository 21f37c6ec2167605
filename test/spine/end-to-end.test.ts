import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IMAGE, type Rack, rackUp } from '../harness/rack.js';

let rack: Rack;
beforeAll(async () => {
  rack = await rackUp('spine-e2e', [
    { name: 'n01', firmware: 'bios', disks: [8], memoryMiB: 1024, bmc: 'ipmi' },
    { name: 'n02', firmware: 'uefi', disks: [8], memoryMiB: 1024, bmc: 'redfish' },
  ]);
});
afterAll(() => rack?.down());

describe('two bare machines, one BIOS and one UEFI', () => {
  it('are taken from power-on by BMC to available, with their inventory', async () => {
    for (const name of ['n01', 'n02']) await rack.act(name, 'inspect');
    for (const name of ['n01', 'n02']) {
      const node = await rack.reach(name, 'available', 420);
      const { inventory } = node.status;
      expect(inventory?.disks).toHaveLength(1);
      expect(inventory?.disks[0]?.sizeBytes).toBe(8 * 2 ** 30);
      expect(inventory?.disks[0]?.signatures).toEqual([]);
      expect(inventory?.firmware.type).toBe(name === 'n01' ? 'bios' : 'uefi');
      expect(inventory?.nics[0]?.mac).toBe(rack.lab.nodes.find(n => n.name === name)!.macs[0]);
      expect(node.status.ram?.hostKey).toMatch(/^ssh-ed25519 /);
    }
  });

  it('are installed and answer SSH, although the server is killed while their disks are written', async () => {
    for (const name of ['n01', 'n02']) {
      await rack.act(name, 'claim');
      await rack.act(name, 'install', { image: IMAGE });
    }
    const n01 = await rack.node('n01');
    await rack.event('n01 writes its disk', e => e.type === 'install.stage' && e.nodeId === n01.id, 120);
    await rack.crashAndRestart();

    for (const name of ['n01', 'n02']) {
      await rack.reach(name, 'installed', 600);
      expect(await rack.ssh(name, 'hostname')).toBe(name);
      // The root file system fills the disk that is larger than the image.
      expect(Number(await rack.ssh(name, 'df --output=size -B1M / | tail -1'))).toBeGreaterThan(6500);
      const why = await rack.why(name);
      // Nothing twice: one attempt, one start of the unit on the node.
      expect(why.run?.steps.filter(s => s.step === 'write').map(s => [s.attempt, s.state])).toEqual([[1, 'after']]);
      expect(why.history.map(h => h.to)).toEqual([
        'discovered',
        'inspecting',
        'available',
        'claimed',
        'installing',
        'installed',
      ]);
    }
    expect(await rack.ssh('n01', 'test -d /sys/firmware/efi && echo uefi || echo bios')).toBe('bios');
    expect(await rack.ssh('n02', 'test -d /sys/firmware/efi && echo uefi || echo bios')).toBe('uefi');
  });

  it('resolve each other by name, and leave no secret behind', async () => {
    expect(await rack.ssh('n01', 'getent hosts n02 | cut -d" " -f1')).toBe((await rack.node('n02')).status.os!.address);
    const secrets = await rack.ssh(
      'n01',
      'sudo grep -rlE "hal\\.token|first-boot-token" /etc /var/lib/cloud /var/log 2>/dev/null | head; sudo ls /etc/halligan 2>/dev/null; true',
    );
    expect(secrets).not.toMatch(/token/);
  });

  it('come back from a loss of power by themselves', async () => {
    const before = await rack.ssh('n01', 'cat /proc/sys/kernel/random/boot_id');
    await rack.client().post('/nodes/n01/power', { action: 'off' });
    await rack.client().post('/nodes/n01/power', { action: 'on' });
    const end = Date.now() + 240_000;
    for (;;) {
      const now = await rack.ssh('n01', 'cat /proc/sys/kernel/random/boot_id').catch(() => before);
      if (now !== before) break;
      if (Date.now() > end)
        throw new Error(
          `n01 did not come back: ${(await rack.why('n01')).trace
            .slice(-5)
            .map(t => t.message)
            .join(' | ')}`,
        );
      await new Promise(r => setTimeout(r, 1000));
    }
  });

  it('are released by BMC: the disk is erased and the node is available again', async () => {
    await rack.act('n02', 'release');
    const node = await rack.reach('n02', 'available', 420);
    expect(node.status.os).toBeNull();
    await rack.act('n02', 'inspect');
    const again = await rack.reach('n02', 'available', 420);
    expect(again.status.inventory?.disks[0]?.signatures).toEqual([]);
  });
});
