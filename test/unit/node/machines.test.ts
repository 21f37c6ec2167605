import { afterEach, describe, expect, it } from 'vitest';
import type { Machines } from '../../../provisioner/core/machines.js';
import { fail } from '../../../provisioner/core/problem.js';
import { createMachines } from '../../../provisioner/node/machines.js';
import { aWorld, until } from './fixtures.js';

let world: Awaited<ReturnType<typeof aWorld>>;
let machines: Machines;
const stop = new AbortController();
afterEach(() => world.close());

async function aNamedNode() {
  world = await aWorld();
  machines = createMachines({ ...world, jobs: world.context.jobs });
  const node = await world.service.add({ name: 'n1', macs: [world.mac], roles: ['compute'] });
  let boots = 0;
  world.machine.onNetboot = () => void world.bootRam(`boot-${++boots}`);
  return node.id;
}
async function callHomeFromDisk(id: string) {
  await until('disk written', () => world.nodes.byId(id)!.status.diskReady);
  const token = await world.tokens.issue(
    id,
    'first-boot',
    world.nodes.byId(id)!.status.runId!,
    60,
    world.machine.started.at(-1)!,
  );
  await world.oracle.installedCallHome(
    token,
    { schema: 1, bootId: 'os-1', uptimeSeconds: 30, hostname: 'n1' },
    '10.99.0.10',
  );
}

describe('a machine on its way to a system', () => {
  it('that was never seen is inspected, claimed and installed, one order after the other', async () => {
    const id = await aNamedNode();
    expect(await machines.plan('n1')).toMatchObject({
      title: 'install it',
      reason: 'it is discovered and has no system',
      refusal: null,
      destroys: null,
      hardware: null,
    });
    const prepared = machines.prepare('n1', { wipe: false, begun: false }, stop.signal);
    await callHomeFromDisk(id);
    await prepared;
    expect(world.nodes.byId(id)!.state).toBe('installed');
    expect((await world.nodes.history(id, 20)).map(h => h.to)).toEqual([
      'discovered',
      'inspecting',
      'available',
      'claimed',
      'installing',
      'installed',
    ]);
    expect(await machines.plan('n1')).toBeNull();
  });

  it('is planned from its inventory, with the address that is kept for it', async () => {
    await aNamedNode();
    await world.service.act('n1', 'inspect', {});
    await until('available', () => world.nodes.find('n1').state === 'available');
    const plan = await machines.plan('n1');
    expect(plan?.hardware?.interfaces[0]).toMatchObject({
      name: 'mgmt0',
      mac: world.mac,
      addresses: ['10.99.0.10/24'],
    });
    expect(plan?.address).toBe('10.99.0.10');
    expect(plan?.hardware?.cpus).toBeGreaterThan(0);
  });

  it('with data of others is installed by the operator’s word only, and what goes is named', async () => {
    const id = await aNamedNode();
    await world.service.act('n1', 'inspect', {});
    await until('available', () => world.nodes.find('n1').state === 'available');
    await world.nodes.update(id, n => ({
      status: {
        inventory: {
          ...n.status.inventory!,
          disks: [
            {
              path: '/dev/vda',
              byPath: null,
              sizeBytes: 20e9,
              type: 'ssd',
              model: null,
              serial: 'S1',
              wwn: null,
              transport: null,
              controller: null,
              removable: false,
              readOnly: false,
              logicalSectorBytes: 512,
              signatures: [{ offset: 0, type: 'ntfs', label: 'BOOKS', uuid: null, partition: null }],
              ownedBy: null,
              smart: null,
            },
          ],
        },
      },
    }));
    const { install } = world.context.jobs;
    Object.assign(world.context.jobs, {
      install: async (...args: Parameters<typeof install>) =>
        args[1].wipe ? install(...args) : fail('disk-foreign', 'n1: Disk would be overwritten: /dev/vda has data.'),
    });
    expect((await machines.plan('n1'))?.destroys).toMatch(/^data that is not ours on \/dev\/\w+ \(BOOKS\)/);
    await expect(machines.prepare('n1', { wipe: false, begun: false }, stop.signal)).rejects.toThrow('overwritten');
    expect(world.machine.started).toEqual([]);
    const prepared = machines.prepare('n1', { wipe: true, begun: false }, stop.signal);
    await callHomeFromDisk(id);
    await prepared;
  });

  it('that fails ends with its sentence, and is tried again only when asked anew', async () => {
    const id = await aNamedNode();
    world.machine.job = async (_unit, onLine) => {
      onLine('problem the disk is on fire', 1);
      return { kind: 'exited', code: 1, tail: '' };
    };
    await expect(machines.prepare('n1', { wipe: false, begun: false }, stop.signal)).rejects.toThrow('on fire');
    const started = world.machine.started.length;
    // A server that comes back to a run that had begun: the failure is the end of it.
    await expect(machines.prepare('n1', { wipe: false, begun: true }, stop.signal)).rejects.toThrow('on fire');
    expect(world.machine.started).toHaveLength(started);
    world.machine.job = async (_unit, onLine) => {
      onLine('key ssh-ed25519 AAAAfake', 1);
      return { kind: 'exited', code: 0, tail: '' };
    };
    const prepared = machines.prepare('n1', { wipe: false, begun: false }, stop.signal);
    await callHomeFromDisk(id);
    await prepared;
    expect(world.machine.started.length).toBeGreaterThan(started);
  });

  it('in maintenance is refused with what to do', async () => {
    await aNamedNode();
    await world.service.update('n1', { maintenance: 'new fans' });
    expect((await machines.plan('n1'))?.refusal).toEqual({
      message: 'n1 is in maintenance (new fans).',
      hint: 'End it: halligan node update n1 --no-maintenance',
    });
    await expect(machines.prepare('n1', { wipe: false, begun: false }, stop.signal)).rejects.toThrow('maintenance');
  });
});
