/** Looks at this machine through a real SSH server in this process. */
import { afterEach, expect, it } from 'vitest';
import { lookAtFacts } from '../../../../installer/cloud/look.js';
import { parseFacts } from '../../../../installer/engine/facts.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { createExecutor } from '../../../../provisioner/core/executor/executor.js';
import { silentLog } from '../../../../provisioner/core/log.js';
import { soundKeyPair, startShellServer } from '../../executor/shell-server.js';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

it('measures the clock of a node by one command, however long the login takes', async () => {
  const ours = soundKeyPair();
  const server = await startShellServer({ acceptKey: ours.public.trim(), sessionAfterMs: 3000 });
  const executor = createExecutor({
    privateKey: ours.private,
    maxConnections: 1,
    clock: systemClock,
    log: silentLog,
  });
  closers.push(server.close, executor.close);
  const target = { address: '127.0.0.1', port: server.port, user: 'root', hostKey: server.hostKey };
  const looked = await lookAtFacts({ executor, clock: systemClock }, 'n1', target);
  if (!looked.ok) throw new Error(looked.problem.message);
  // The login alone would make it a second and a half behind.
  expect(Math.abs(looked.value.clockOffsetMs)).toBeLessThan(1000);
  expect(server.seen.filter(line => line.startsWith('exec'))).toHaveLength(1);
});

it('sees that a disk is in use by what lies on it, and that it holds something', () => {
  // lsblk of util-linux 2.38: a root disk of partitions, one of LVM with swap, a PV without volumes, an empty one, a CD.
  const device = (name: string, type: string, more: object) => ({
    name,
    path: `/dev/${name}`,
    size: 1000,
    type,
    fstype: null,
    pttype: null,
    mountpoints: [null],
    ...more,
  });
  const disks = {
    blockdevices: [
      device('sda', 'disk', {
        pttype: 'gpt',
        children: [
          device('sda1', 'part', { fstype: 'vfat', pttype: 'gpt', mountpoints: ['/boot/efi'] }),
          device('sda2', 'part', { fstype: 'ext4', pttype: 'gpt', mountpoints: ['/'] }),
        ],
      }),
      device('sdb', 'disk', {
        fstype: 'LVM2_member',
        children: [device('vg-swap', 'lvm', { path: '/dev/mapper/vg-swap', fstype: 'swap', mountpoints: ['[SWAP]'] })],
      }),
      device('sdc', 'disk', { fstype: 'LVM2_member' }),
      device('sdd', 'disk', {}),
      device('sr0', 'rom', { fstype: 'iso9660' }),
    ],
  };
  const text = `@hostname n1\n@os debian 12\n@kernel 6.1 x86_64\n@cpus 2\n@memory 1024\n@begin 1\n@end 1\n@link /dev/sdc /dev/disk/by-id/wwn-0x5000\n@disks ${JSON.stringify(disks)}`;
  expect(parseFacts(text, 'n1', 1, 1).disks).toEqual([
    { path: '/dev/sda', bytes: 1000, mounted: true, signature: 'gpt', links: [] },
    { path: '/dev/sdb', bytes: 1000, mounted: true, signature: 'LVM2_member', links: [] },
    { path: '/dev/sdc', bytes: 1000, mounted: false, signature: 'LVM2_member', links: ['/dev/disk/by-id/wwn-0x5000'] },
    { path: '/dev/sdd', bytes: 1000, mounted: false, signature: null, links: [] },
  ]);
});

it('does not take a slow look for a clock that is ahead', () => {
  const said = (begin: number, end: number) =>
    [
      '@hostname n1',
      '@os debian 12',
      '@kernel 6.1 x86_64',
      '@cpus 2',
      '@memory 1024',
      `@begin ${begin}`,
      `@end ${end}`,
    ].join('\n');
  // 50 ms each way, 8 s of work on the node.
  expect(parseFacts(said(10_050, 18_050), 'n1', 10_000, 18_100).clockOffsetMs).toBe(0);
  expect(parseFacts(said(12_050, 20_050), 'n1', 10_000, 18_100).clockOffsetMs).toBe(2000);
});
