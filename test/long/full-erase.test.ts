/** `release --erase full`: not a byte of the old data is left, on a virtio disk and on an NVMe disk. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Lab, labPower } from '../../provisioner/lab/index.js';
import { type Rack, rackUp } from '../harness/rack.js';

const run = promisify(execFile);
const GIB = 2 ** 30;
let rack: Rack;
beforeAll(async () => {
  rack = await rackUp(
    'long-erase',
    [
      { name: 'n01', disks: [3], memoryMiB: 1024, bmc: 'ipmi' },
      { name: 'n02', disks: [3], diskBus: 'nvme', memoryMiB: 1024, bmc: 'redfish' },
    ],
    { kernel: 'generic', prepare: oldData },
  );
});
afterAll(() => rack?.down());

/** At both ends, in the middle, and across what a drive erases at once. */
async function oldData(lab: Lab): Promise<void> {
  for (const node of lab.nodes)
    for (const at of [0, GIB - 4096, 1.5 * GIB + 512, 3 * GIB - 8192])
      await run('qemu-io', ['-f', 'qcow2', '-c', `write -P 0xa5 ${at} 8192`, node.disks[0]!.path]);
}

it.each([
  ['n01', 'zeroes'],
  ['n02', 'the NVMe drive, or zeroes where it refuses'],
])('%s is erased by %s', async name => {
  const disk = rack.lab.nodes.find(n => n.name === name)!.disks[0]!.path;
  const empty = `${disk}.empty`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', empty, '3G']);
  const compare = () => run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', disk, empty]);
  await expect(compare()).rejects.toMatchObject({ code: 1 });
  await rack.act(name, 'inspect');
  await rack.reach(name, 'available', 600);
  await rack.act(name, 'claim');
  await rack.act(name, 'release', { erase: 'full', wipe: true });
  await rack.reach(name, 'available', 900);
  expect((await rack.why(name)).history.at(-1)?.reason).toMatch(/^Erased \S+ \(full\)/);
  await labPower(rack.lab, name, 'off');
  expect((await compare()).stdout.trim()).toBe('Images are identical.');
});
