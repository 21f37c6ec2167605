/** From the first boot of an unknown machine to a claimed node, by the real oracle, state loop, repository and database. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../../provisioner/core/log.js';
import type { Inventory } from '../../../provisioner/inventory/types.js';
import { createMachines } from '../../../provisioner/node/machines.js';
import { type AutoClaim, startAutoClaim } from '../../../provisioner/profile/auto-claim.js';
import { aWorld, until } from '../node/fixtures.js';
import { aDisk, hardware, macOf, siteWith } from './machines.js';

let world: Awaited<ReturnType<typeof aWorld>>;
let claims: AutoClaim | undefined;
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-claim-'));
});
afterEach(async () => {
  await claims?.close();
  claims = undefined;
  await world.close();
  rmSync(dir, { recursive: true, force: true });
});

const PROFILE = {
  name: 'compute',
  priority: 10,
  auto_claim: true,
  match: { memory_gib: { min: 32 } },
  node_name: 'compute-##',
  roles: ['compute'],
};

async function open(parts: object, file = ':memory:') {
  const { profiles, layouts, racks, nodes } = siteWith(parts);
  world = await aWorld({ site: { profiles, layouts, racks, nodes }, file });
}
const start = () => {
  const { site, nodes, events } = world;
  claims = startAutoClaim({ site, nodes, events, log: silentLog });
};
/** The machine boots from the network and is inspected. */
const boot = async (n: number, gib: number, over: Partial<Inventory> = {}, bootId = `boot-${n}-${Math.random()}`) => {
  await world.bootRam(bootId, macOf(n), hardware(n, gib, over));
  return world.nodes.byMac(macOf(n))!.id;
};
const seen = (id: string) => world.nodes.byId(id)!;
const inspected = (id: string) => until('inspected', () => !['discovered', 'inspecting'].includes(seen(id).state));
const eventsOf = async (type: string) => (await world.events.after(0, 1000)).filter(e => e.type === type);

describe('a machine that boots for the first time', () => {
  it('is claimed with name, roles and number as soon as its inventory is there, and the reason is on record', async () => {
    await open({ profiles: [PROFILE] });
    start();
    const id = await boot(1, 64);
    await until('claimed', () => seen(id).state === 'claimed');
    expect(seen(id)).toMatchObject({
      name: 'compute-01',
      spec: { roles: ['compute'] },
      status: { profile: { name: 'compute', number: 1 } },
    });
    const history = await world.nodes.history(id, 10);
    expect(history.map(h => h.event)).toEqual(['created', 'called-home', 'inspected', 'claim']);
    expect(history.at(-1)!.reason).toBe(
      'It fits compute. By itself. Becomes compute-01 with compute, number 1 of compute.',
    );
    await claims!.idle();
    expect(await eventsOf('node.auto-claimed')).toMatchObject([
      { nodeId: id, data: { profile: 'compute', number: 1, roles: ['compute'] } },
    ]);
  });

  it('is left alone when no profile fits, and the reasons are told once', async () => {
    await open({ profiles: [PROFILE] });
    start();
    const id = await boot(1, 16);
    await inspected(id);
    await until('told', async () => (await eventsOf('node.not-claimed')).length > 0);
    await world.nodes.update(id, () => ({ status: { lastSeenMs: 1 } }));
    await boot(2, 64);
    await until('the other is claimed', () => world.nodes.byMac(macOf(2))!.state === 'claimed');
    await claims!.idle();
    expect(seen(id).state).toBe('available');
    expect((await eventsOf('node.not-claimed')).map(e => e.message)).toEqual([
      `${seen(id).name} is not claimed by itself. No profile is left for it. compute: needs at least 32 GiB of memory, has 16 GiB.`,
    ]);
  });

  it('is left alone without auto_claim; a claim by hand then gives it its profile', async () => {
    await open({
      profiles: [
        { ...PROFILE, auto_claim: false },
        { ...PROFILE, name: 'other', node_name: 'o#', match: { product: 'none' } },
      ],
    });
    start();
    const id = await boot(1, 64);
    await inspected(id);
    await until('told', async () => (await eventsOf('node.not-claimed')).length > 0);
    expect(seen(id).state).toBe('available');
    await world.service.act(id, 'claim', {});
    expect(seen(id)).toMatchObject({ state: 'claimed', name: 'compute-01', spec: { roles: ['compute'] } });
  });

  it('keeps the name that a person gives with the claim', async () => {
    await open({ profiles: [{ ...PROFILE, auto_claim: false }] });
    const id = await boot(1, 64);
    await inspected(id);
    await world.service.act(id, 'claim', { name: 'bob' });
    expect(seen(id)).toMatchObject({ name: 'bob', spec: { roles: ['compute'] }, status: { profile: { number: 1 } } });
  });

  it('that an operator gave roles is his: a plan that names it finds it as it was', async () => {
    await open({ profiles: [PROFILE] });
    start();
    const made = `node-${macOf(1).replaceAll(':', '')}`;
    await world.service.add({ name: made, macs: [macOf(1)], roles: ['network'] });
    const id = await boot(1, 64);
    await inspected(id);
    await boot(2, 64);
    await until('another is claimed', () => world.nodes.byMac(macOf(2))!.state === 'claimed');
    await claims!.idle();
    expect(seen(id)).toMatchObject({ state: 'available', name: made });
    const machines = createMachines({ ...world, jobs: world.context.jobs });
    const stop = new AbortController();
    const prepared = machines.prepare(made, { wipe: false, begun: false }, stop.signal).catch(() => {});
    await until('ordered', () => seen(id).state === 'installing');
    expect(seen(id)).toMatchObject({
      name: made,
      spec: { roles: ['network'], install: {} },
      status: { profile: null },
    });
    stop.abort();
    await prepared;
  });

  it('is claimed by hand without its profile where that is said', async () => {
    await open({ profiles: [{ ...PROFILE, auto_claim: false }] });
    const id = await boot(1, 64);
    await inspected(id);
    await world.service.act(id, 'claim', { profile: false });
    expect(seen(id)).toMatchObject({ state: 'claimed', spec: { roles: [] }, status: { profile: null } });
  });

  it('with other people’s data on a disk is claimed only where the profile says so', async () => {
    const signatures = [{ offset: 0, type: 'ext4', label: null, uuid: null, partition: null }];
    await open({
      profiles: [
        PROFILE,
        {
          ...PROFILE,
          name: 'scrap',
          priority: 5,
          at_most: 1,
          foreign_data: 'claim',
          node_name: 's#',
          match: { memory_gib: { max: 31 } },
        },
      ],
    });
    start();
    const kept = await boot(1, 64, { disks: [aDisk({ signatures })] });
    const scrap = await boot(2, 16, { disks: [aDisk({ signatures })] });
    await until('claimed', () => seen(scrap).state === 'claimed');
    await inspected(kept);
    await claims!.idle();
    expect(seen(kept).state).toBe('available');
    expect((await eventsOf('node.not-claimed')).map(e => e.message).join()).toContain(
      '/dev/sda carries ext4, and the profile compute does not say foreign_data: claim',
    );
  });

  it('that fits two profiles of one priority is nobody’s', async () => {
    await open({ profiles: [PROFILE, { ...PROFILE, name: 'storage', node_name: 's#' }] });
    start();
    const id = await boot(1, 64);
    await inspected(id);
    await until('told', async () =>
      (await eventsOf('node.not-claimed')).some(e => /compute and storage/.test(e.message)),
    );
    expect(seen(id).state).toBe('available');
  });
});

describe('many machines at once', () => {
  it('fill the places up, each with a name of its own, and no more', async () => {
    await open({
      profiles: [
        { ...PROFILE, at_most: 3 },
        { ...PROFILE, name: 'spare', priority: 0, node_name: 'spare-#', roles: [] },
      ],
    });
    start();
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => boot(i + 1, 64, {}, 'same')));
    await until('all are claimed', () => ids.every(id => seen(id).state === 'claimed'));
    expect(ids.map(id => seen(id).name).sort()).toEqual([
      'compute-01',
      'compute-02',
      'compute-03',
      'spare-1',
      'spare-2',
      'spare-3',
      'spare-4',
      'spare-5',
    ]);
    const numbers = ids.map(id => `${seen(id).status.profile!.name} ${seen(id).status.profile!.number}`);
    expect(new Set(numbers).size).toBe(8);
  });

  it('take the place of one that goes', async () => {
    await open({ profiles: [{ ...PROFILE, at_most: 1 }] });
    start();
    const first = await boot(1, 64);
    await until('claimed', () => seen(first).state === 'claimed');
    const second = await boot(2, 64);
    await inspected(second);
    await claims!.idle();
    expect(seen(second).state).toBe('available');
    await world.service.remove(first);
    await until('claimed', () => seen(second).state === 'claimed');
    expect(seen(second).name).toBe('compute-01');
  });
});

describe('what a person took back', () => {
  it('is not claimed again by itself until it is inspected again, and keeps its name then', async () => {
    await open({ profiles: [PROFILE] });
    start();
    const id = await boot(1, 64);
    await until('claimed', () => seen(id).state === 'claimed');
    await world.service.act(id, 'unclaim', {});
    expect(seen(id).spec).toMatchObject({ roles: [], install: {} });
    await boot(2, 64);
    await until('another is claimed', () => world.nodes.byMac(macOf(2))!.state === 'claimed');
    await claims!.idle();
    expect(seen(id)).toMatchObject({ state: 'available', name: 'compute-01' });
    expect(world.nodes.byMac(macOf(2))!.name).toBe('compute-02');
    world.machine.automatic = false;
    await world.service.act(id, 'inspect', {});
    await boot(1, 64);
    await until('claimed again', () => seen(id).state === 'claimed');
    expect(seen(id).name).toBe('compute-01');
  });
});

describe('roles that a person gives after the claim', () => {
  it('stay when the node is given back', async () => {
    await open({ profiles: [PROFILE] });
    start();
    const id = await boot(1, 64);
    await until('claimed', () => seen(id).state === 'claimed');
    await world.service.update(id, { roles: ['compute', 'network'] });
    await world.service.act(id, 'unclaim', {});
    expect(seen(id).spec.roles).toEqual(['compute', 'network']);
  });
});

describe('a server that died', () => {
  it('between the inventory and the claim claims at its next start', async () => {
    const file = join(dir, 'db');
    await open({ profiles: [PROFILE] }, file);
    const id = await boot(1, 64);
    await inspected(id);
    expect(seen(id).state).toBe('available');
    await world.close();
    await open({ profiles: [PROFILE] }, file);
    start();
    await until('claimed', () => seen(id).state === 'claimed');
    expect(seen(id).name).toBe('compute-01');
  });
});

describe('a node that the file names', () => {
  it('is not claimed by a profile', async () => {
    await open({ profiles: [PROFILE], nodes: [{ name: 'mine', serial: 'SER1' }] });
    start();
    const system = { manufacturer: null, product: null, serial: 'SER1', uuid: null, asset: null };
    const id = await boot(1, 64, { system });
    await inspected(id);
    await boot(2, 64);
    await until('another is claimed', () => world.nodes.byMac(macOf(2))!.state === 'claimed');
    await claims!.idle();
    expect(seen(id).state).toBe('available');
  });
});
