/**
 * What real machines run and the demo does not: the distribution's full kernel, in the RAM environment and on the disk, in
 * 1 GiB; a BMC that the machine sees from inside; UEFI firmware that boots by
 * HTTP, and an NVMe disk.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { FeedEvent } from '../../provisioner/core/events.js';
import { type Rack, rackUp } from '../harness/rack.js';

const FIRMWARE = { n01: 'bios', n02: 'uefi' } as const;
let rack: Rack;
beforeAll(async () => {
  rack = await rackUp(
    'long-real',
    [
      { name: 'n01', firmware: 'bios', disks: [8], memoryMiB: 1024, bmc: 'ipmi', kcs: true },
      { name: 'n02', firmware: 'uefi', netboot: 'http', disks: [8], diskBus: 'nvme', memoryMiB: 1024, bmc: 'redfish' },
    ],
    { kernel: 'generic' },
  );
});
afterAll(() => rack?.down());

const boots = (trace: readonly { layer: string; message: string }[]) =>
  trace.filter(t => t.layer === 'dhcp' && /^DISCOVER/.test(t.message)).map(t => t.message);

describe('machines with the full kernel', () => {
  it('are inspected in 1 GiB, started by PXE under BIOS and by HTTP boot under UEFI', async () => {
    for (const name of Object.keys(FIRMWARE)) await rack.act(name, 'inspect');
    for (const [name, firmware] of Object.entries(FIRMWARE)) {
      const node = await rack.reach(name, 'available', 600);
      expect(node.status.inventory?.firmware.type).toBe(firmware);
      expect(node.status.inventory?.disks.map(d => d.type)).toEqual([name === 'n01' ? 'hdd' : 'nvme']);
    }
    const bmc = rack.lab.nodes.find(n => n.name === 'n01')!.bmc;
    const { inventory } = (await rack.node('n01')).status;
    expect(inventory?.bmc, inventory?.warnings.join('\n')).toMatchObject({ address: bmc.ip, firmware: '9.08' });
    const { trace } = await rack.why('n02');
    expect(boots(trace)).toEqual([
      expect.stringMatching(
        /^DISCOVER by HTTP boot firmware .*boot file http:\/\/10\.99\.0\.1\S*\/loader\/snponly\.efi\.$/,
      ),
      expect.stringMatching(/^DISCOVER by iPXE .*\/boot\.ipxe\.$/),
      expect.stringMatching(/^DISCOVER by an operating system .*no boot file: it did not ask for one\.$/),
    ]);
    // No file went by TFTP.
    expect(trace.filter(t => t.layer === 'tftp')).toEqual([]);
  });

  it('are installed and answer SSH', async () => {
    for (const name of Object.keys(FIRMWARE)) {
      await rack.act(name, 'claim');
      await rack.act(name, 'install', { image: 'debian-12' });
    }
    for (const [name, firmware] of Object.entries(FIRMWARE)) {
      await rack.reach(name, 'installed', 900);
      expect(await rack.ssh(name, 'hostname')).toBe(name);
      expect(await rack.ssh(name, 'uname -r')).toMatch(/^\d+\.\d+\.\d+-\d+-amd64$/);
      expect(await rack.ssh(name, 'test -d /sys/firmware/efi && echo uefi || echo bios')).toBe(firmware);
      expect(await rack.ssh(name, 'sudo cloud-init status --wait | grep ^status')).toBe('status: done');
      expect(await rack.ssh(name, 'systemctl --failed --no-legend --plain')).toBe('');
    }
  });

  it('come back by HTTP boot first, and from their disk, after a loss of power', async () => {
    const { id } = await rack.node('n02');
    const after = rack.events.at(-1)?.id ?? 0;
    const before = await rack.ssh('n02', 'cat /proc/sys/kernel/random/boot_id');
    await rack.client().post('/nodes/n02/power', { action: 'off' });
    await rack.client().post('/nodes/n02/power', { action: 'on' });
    const asked = (e: FeedEvent) =>
      e.id > after && e.nodeId === id && e.type === 'boot.decision' && e.message.startsWith('local');
    await rack.event('n02 asks what to boot', asked, 240);
    const end = Date.now() + 240_000;
    while ((await rack.ssh('n02', 'cat /proc/sys/kernel/random/boot_id').catch(() => before)) === before)
      if (Date.now() > end) throw new Error('n02 did not come back from its disk');
  });
});
