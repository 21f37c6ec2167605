/** The plug of a node is pulled in every stage of its way; nobody touches it afterwards. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { FeedEvent } from '../../provisioner/core/events.js';
import { labPower, labStatus } from '../../provisioner/lab/index.js';
import { IMAGE, type Rack, rackUp } from '../harness/rack.js';

const NODE = 'n01';
let rack: Rack;
let id = '';
beforeAll(async () => {
  rack = await rackUp('long-plug', [{ name: NODE, firmware: 'bios', disks: [8], memoryMiB: 1024, bmc: 'ipmi' }]);
  id = (await rack.node(NODE)).id;
});
afterAll(() => rack?.down());

const pause = (seconds: number) => new Promise(r => setTimeout(r, seconds * 1000));
/** The person at the rack, not our server: the BMC stays on, the machine is dead at once. */
const pullPlug = () => labPower(rack.lab, NODE, 'off');
const lives = async () => (await labStatus({ name: rack.lab.name })).nodes[0]!.lives;
const newest = () => rack.events.at(-1)?.id ?? 0;
const sign = (what: string, match: (e: FeedEvent) => boolean, seconds: number, after: number) =>
  rack.event(what, e => e.id > after && e.nodeId === id && match(e), seconds);

/**
 * Pulls the plug and waits until the server has started the node again by its BMC. That a connection is dead and not slow
 * takes a minute to be sure of.
 */
async function pullAndExpectStart(seconds = 120): Promise<void> {
  const before = await lives();
  await pullPlug();
  const end = Date.now() + seconds * 1000;
  while ((await lives()) === before) {
    if (Date.now() > end) throw new Error(`nobody started ${NODE} again: ${(await rack.node(NODE)).sentence}`);
    await pause(0.5);
  }
}

describe('a node whose plug is pulled', () => {
  it('in its firmware, before iPXE asked anything, is started again', async () => {
    await rack.act(NODE, 'inspect');
    const end = Date.now() + 60_000;
    while ((await lives()) === 0 && Date.now() < end) await pause(0.1);
    await pause(0.5);
    expect(rack.events.some(e => e.nodeId === id && e.type === 'boot.decision')).toBe(false);
    await pullAndExpectStart();
    expect((await rack.node(NODE)).state).toBe('inspecting');
  });

  it('while the RAM environment boots is started again, and inspected', async () => {
    const after = newest();
    await sign('the kernel starts', e => e.type === 'boot.milestone' && e.data['name'] === 'boot', 120, after);
    await pause(3);
    await pullAndExpectStart();
    const node = await rack.reach(NODE, 'available', 300);
    expect(node.status.inventory?.disks).toHaveLength(1);
  });

  it('at rest in the RAM environment stays off until it is needed, and then comes back', async () => {
    const before = await lives();
    await pullPlug();
    await pause(5);
    expect((await rack.node(NODE)).state).toBe('available');
    expect(await lives()).toBe(before);
    await rack.act(NODE, 'claim');
    const after = newest();
    await rack.act(NODE, 'install', { image: IMAGE });
    await sign('it writes', e => e.type === 'install.stage' && e.data['stage'] === 'write', 300, after);
    expect(await lives()).toBe(before + 1);
  });

  it('while its disk is written writes it again, from the beginning', async () => {
    await pause(5);
    const after = newest();
    await pullAndExpectStart(150);
    await sign('the first try is void', e => e.type === 'install.lost', 240, after);
    await sign('it writes again', e => e.type === 'install.stage' && e.data['stage'] === 'write', 300, after);
    await sign('it is written', e => e.type === 'install.written', 300, after);
  });

  it('after the writing, before its own system started, starts it from its disk', async () => {
    const after = newest();
    // The server restarts it as soon as the disk is written: pulled in the firmware of that start.
    await pause(2);
    await pullAndExpectStart();
    await sign('it boots from its disk', e => e.type === 'boot.decision' && e.message.startsWith('local'), 120, after);
  });

  it('in the first boot of its own system still calls home, and answers SSH', async () => {
    await pause(12);
    expect((await rack.node(NODE)).status.os?.firstBootMs).toBeNull();
    await pullAndExpectStart();
    await rack.reach(NODE, 'installed', 300);
    expect(await rack.ssh(NODE, 'hostname')).toBe(NODE);
    // A system that was cut off in its first boot is a whole one all the same.
    expect(Number(await rack.ssh(NODE, 'df --output=size -B1M / | tail -1'))).toBeGreaterThan(6500);
    expect(await rack.ssh(NODE, 'sudo cloud-init status --wait | grep ^status')).toBe('status: done');
    const why = await rack.why(NODE);
    const writes = why.run!.steps.filter(s => s.step === 'write');
    expect(writes.map(s => s.attempt)).toEqual([1, 2]);
    expect(writes.map(s => Object.keys(s.output as object).includes('hostKey'))).toEqual([false, true]);
    expect(why.history.map(h => h.to)).toEqual([
      ...['discovered', 'inspecting', 'available', 'claimed', 'installing', 'installed'],
    ]);
  });
});
