import { afterEach, describe, expect, it } from 'vitest';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { aWorld, until } from './fixtures.js';

let world: Awaited<ReturnType<typeof aWorld>>;
afterEach(() => world.close());

const state = (selector = 'n1') => world.nodes.find(selector).state;
const code = async (work: Promise<unknown>) =>
  work.then(
    () => 'resolved',
    e => (e instanceof ProblemError ? e.problem.code : String(e)),
  );

/** From power-on to available, as an unknown machine. */
async function available() {
  world = await aWorld();
  await world.bootRam('boot-1');
  const [node] = world.nodes.all();
  await until('available', () => world.nodes.byId(node!.id)?.state === 'available');
  await world.service.update(node!.id, { name: 'n1' });
  return node!.id;
}

async function claimed() {
  const id = await available();
  await world.service.act('n1', 'claim', {});
  return id;
}

/** What the installed system does at its first boot. */
async function callHomeFromDisk(id: string, bootId = 'os-boot-1') {
  const run = world.nodes.byId(id)!.status.runId!;
  const unit = world.machine.started.at(-1)!;
  const token = await world.tokens.issue(id, 'first-boot', run, 60, unit);
  await world.oracle.installedCallHome(token, { schema: 1, bootId, uptimeSeconds: 30, hostname: 'n1' }, '10.99.0.10');
}

describe('from an unknown machine to an installed one', () => {
  it('inspects a machine that nobody named, and lists it as available', async () => {
    const id = await available();
    const history = await world.nodes.history(id, 10);
    expect(history.map(h => h.to)).toEqual(['discovered', 'inspecting', 'available']);
    expect(history.every(h => h.reason.length > 5)).toBe(true);
    expect(world.nodes.byId(id)!.status.address).toBe('10.99.0.10');
  });

  it('installs a claimed node in the RAM environment that it already runs', async () => {
    const id = await claimed();
    await world.service.act('n1', 'install', {});
    await until('disk written', () => world.nodes.byId(id)!.status.diskReady);
    await until('rebooted', () => world.machine.reboots === 1);
    expect(world.machine.netboots).toBe(0);
    expect((await world.oracle.decide(world.who(), '10.99.0.10')).kind).toBe('local');
    await callHomeFromDisk(id);
    await until('installed', () => state() === 'installed');
    expect(world.machine.started).toHaveLength(1);
    expect(world.machine.reboots).toBe(1);
    expect(world.nodes.byId(id)!.status.os).toMatchObject({ hostKey: 'ssh-ed25519 AAAAfake', login: 'ops' });
  });

  it('starts a named node by its BMC when it is told to inspect it', async () => {
    world = await aWorld();
    const node = await world.service.add({ name: 'n1', macs: [world.mac] });
    world.machine.onNetboot = () => void world.bootRam('boot-9');
    await world.service.act('n1', 'inspect', {});
    await until('available', () => state() === 'available');
    expect(world.machine.netboots).toBe(1);
    expect((await world.service.why(node.id)).history.at(-1)?.to).toBe('available');
  });

  it('refuses to install what is not claimed, and says from where it can', async () => {
    await available();
    await expect(world.service.act('n1', 'install', {})).rejects.toThrow(
      /not possible while the node is Available.*Claimed/,
    );
  });
});

describe('when the plug is pulled', () => {
  it('starts over in a new attempt when the node was restarted while its disk was written', async () => {
    const id = await claimed();
    let pulled = false;
    world.machine.job = async (_unit, onLine) => {
      if (!pulled) {
        pulled = true;
        world.machine.power = 'off';
        world.machine.bootId = null;
        return { kind: 'lost', reason: 'the node was restarted' };
      }
      onLine('key ssh-ed25519 AAAAsecond', 1);
      return { kind: 'exited', code: 0, tail: '' };
    };
    world.machine.onNetboot = () => void world.bootRam('boot-2');
    await world.service.act('n1', 'install', {});
    await until('second attempt', () => world.nodes.byId(id)!.status.diskReady);
    expect(new Set(world.machine.started).size).toBe(2);
    expect(world.nodes.byId(id)!.status.os?.hostKey).toBe('ssh-ed25519 AAAAsecond');
  });

  it('takes another host key for a restart: sends nothing, waits for a new call home, starts over', async () => {
    const id = await claimed();
    let restarted = false;
    world.machine.job = async (_unit, onLine) => {
      if (!restarted) {
        restarted = true;
        world.machine.bootId = 'boot-2';
        throw new ProblemError({ code: 'host-key-mismatch', message: 'another key', hint: '', retry: false });
      }
      onLine('key ssh-ed25519 AAAAsecond', 1);
      return { kind: 'exited', code: 0, tail: '' };
    };
    await world.service.act('n1', 'install', {});
    await until('session ended', () => restarted && world.nodes.byId(id)!.status.ram === null);
    expect(state()).toBe('installing');
    await world.bootRam('boot-2');
    await until('written', () => world.nodes.byId(id)!.status.diskReady);
    expect(new Set(world.machine.started).size).toBe(2);
  });

  it('gives up after three restarts, in a named state with a reason and a next action', async () => {
    await claimed();
    let boots = 1;
    world.machine.job = async () => {
      world.machine.power = 'off';
      world.machine.bootId = null;
      return { kind: 'lost', reason: 'the node was restarted' };
    };
    world.machine.onNetboot = () => {
      boots++;
      void world.bootRam(`boot-${boots}`);
    };
    await world.service.act('n1', 'install', {});
    await until('failed', () => {
      world.clock.advance(5000); // the node is given time to settle before its BMC is asked
      return state() === 'installing-failed';
    });
    const why = await world.service.why('n1');
    expect(why.node.failure?.message).toMatch(/restarted during each of 3 tries/);
    expect(why.next.length).toBeGreaterThan(10);
  });

  it('switches the node on again when it is found off after its disk was written', async () => {
    const id = await claimed();
    await world.service.act('n1', 'install', {});
    await until('rebooted', () => world.machine.reboots === 1);
    world.machine.power = 'off';
    world.clock.advance(60_000);
    await until('on again', () => world.machine.power === 'on');
    await callHomeFromDisk(id);
    await until('installed', () => state() === 'installed');
  });
});

describe('when the installer fails', () => {
  it('names the reason that the node gave, and a retry by the operator starts a new run', async () => {
    const id = await claimed();
    const good = world.machine.job;
    world.machine.job = async (_unit, onLine) => {
      onLine('problem the checksum of the image is wrong', 1);
      return { kind: 'exited', code: 3, tail: 'tail' };
    };
    await world.service.act('n1', 'install', {});
    await until('failed', () => state() === 'installing-failed');
    expect(world.nodes.byId(id)!.failure?.message).toBe('n1: the checksum of the image is wrong.');
    world.machine.job = good;
    await world.service.act('n1', 'install', {});
    await until('written', () => world.nodes.byId(id)!.status.diskReady);
  });

  it('does not take a lost connection for an end: the same unit is followed again', async () => {
    await claimed();
    let tries = 0;
    const good = world.machine.job;
    world.machine.job = async (unit, onLine, signal) => {
      if (++tries === 1)
        throw new ProblemError({ code: 'ssh-failed', message: 'connection lost', hint: '', retry: true });
      return good(unit, onLine, signal);
    };
    await world.service.act('n1', 'install', {});
    await until('first try', () => tries >= 1);
    world.clock.advance(11_000);
    await until('written', () => world.nodes.find('n1').status.diskReady);
    expect(new Set(world.machine.started).size).toBe(1);
  });

  it('fails a state that lasts longer than its deadline, and says what it waited for', async () => {
    await claimed();
    world.machine.automatic = false;
    world.machine.ssh = 'silent';
    await world.service.act('n1', 'install', {});
    await until('waits', () => world.nodes.find('n1').waitingFor !== null);
    world.clock.advance(3_700_000);
    world.loop.poke(world.nodes.find('n1').id);
    await until('failed', () => state() === 'installing-failed');
    expect(world.nodes.find('n1').failure?.message).toMatch(/waited for/);
  });

  it('can be aborted', async () => {
    await claimed();
    world.machine.job = (_u, _l, signal) =>
      new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(new Error('aborted'))));
    await world.service.act('n1', 'install', {});
    await until('started', () => world.machine.started.length === 1);
    await world.service.act('n1', 'abort', {});
    expect(state()).toBe('installing-failed');
    expect(world.nodes.find('n1').failure?.code).toBe('aborted');
  });
});

describe('one-time tokens', () => {
  it('are refused when wrong, and freeze the node when another boot shows a used one', async () => {
    world = await aWorld();
    const decision = await world.bootRam('boot-1');
    const report = (bootId: string) => ({
      schema: 1 as const,
      mac: world.mac,
      bootId,
      hostKey: 'ssh-ed25519 AAAAevil',
      firmware: 'bios' as const,
      uptimeSeconds: 1,
      raw: world.nodes.all()[0]!.status.inventory,
    });
    expect(await code(world.oracle.ramCallHome('wrong', report('x'), '10.99.0.66'))).toBe('token-refused');
    // The same boot repeats a call whose answer was lost: no harm.
    expect(await code(world.oracle.ramCallHome(decision.token, report('boot-1'), '10.99.0.10'))).toBe('resolved');
    expect(world.nodes.all()[0]!.status.ram?.hostKey).toBe('ssh-ed25519 AAAAram');
    expect(await code(world.oracle.ramCallHome(decision.token, report('boot-evil'), '10.99.0.66'))).toBe(
      'token-refused',
    );
    expect(world.nodes.all()[0]!.maintenance).toContain('second time');
    expect(world.nodes.all()[0]!.status.ram?.hostKey).toBe('ssh-ed25519 AAAAram');
    expect((await world.oracle.decide(world.who(), '10.99.0.10')).kind).toBe('nothing');
  });

  it('are not given to a machine that asks in the name of another MAC than its address was leased to', async () => {
    world = await aWorld();
    await world.bootRam('boot-1');
    world.leasedTo.set('10.99.0.10', world.mac);
    world.leasedTo.set('10.99.0.66', '52:54:00:66:66:66');
    expect(await world.oracle.decide(world.who(), '10.99.0.66')).toMatchObject({
      kind: 'nothing',
      reason: '10.99.0.66 was leased to 52:54:00:66:66:66, but asks in the name of 52:54:00:00:00:01',
    });
    expect((await world.oracle.decide(world.who(), '10.99.0.10')).kind).toBe('ram');
  });

  it('are refused to a report that names a NIC of somebody else', async () => {
    world = await aWorld();
    const decision = await world.oracle.decide(world.who(), '10.99.0.100');
    if (decision.kind !== 'ram') throw new Error(decision.kind);
    const report = {
      schema: 1,
      mac: '52:54:00:00:00:99',
      bootId: 'b',
      hostKey: 'k',
      firmware: 'bios',
      uptimeSeconds: 1,
      raw: {},
    } as const;
    expect(await code(world.oracle.ramCallHome(decision.token, report, '10.99.0.10'))).toBe('token-refused');
  });

  it('expire', async () => {
    world = await aWorld();
    const decision = await world.oracle.decide(world.who(), '10.99.0.100');
    if (decision.kind !== 'ram') throw new Error(decision.kind);
    world.clock.advance(31 * 60_000);
    expect(
      await code(
        world.oracle.ramCallHome(
          decision.token,
          { schema: 1, mac: world.mac, bootId: 'b', hostKey: 'k', firmware: 'bios', uptimeSeconds: 1, raw: {} },
          '10.99.0.10',
        ),
      ),
    ).toBe('token-refused');
  });
});

describe('release and rescue', () => {
  it('erases in the RAM environment and returns the node to available', async () => {
    const id = await claimed();
    await world.service.update('n1', { roles: ['compute'] });
    await world.service.act('n1', 'release', {});
    await until('available', () => state() === 'available');
    // Or the next plan would install it again.
    expect(world.nodes.byId(id)!.spec.roles).toEqual([]);
    expect(world.machine.started[0]).toMatch(/^halligan-[0-9a-f]{8}-erase-1-/);
    expect(world.nodes.byId(id)!.status.os).toBeNull();
  });

  it('brings an installed node into rescue by its BMC, and back to its disk', async () => {
    const id = await claimed();
    await world.service.act('n1', 'install', {});
    await until('rebooted', () => world.machine.reboots === 1);
    await callHomeFromDisk(id);
    await until('installed', () => state() === 'installed');
    world.machine.onNetboot = () => void world.bootRam('boot-rescue');
    await world.service.act('n1', 'rescue', {});
    await until('rescue', () => state() === 'rescue');
    expect(world.machine.netboots).toBe(1);
    await world.service.act('n1', 'end-rescue', {});
    expect(state()).toBe('installed');
    expect((await world.oracle.decide(world.who(), '10.99.0.10')).kind).toBe('local');
  });
});

describe('what the site file owns', () => {
  it('is what it says: what it leaves open stays as the operator set it when the server starts again', async () => {
    const entry = { name: 'n1', macs: ['52:54:00:00:00:01'], roles: [] };
    world = await aWorld({ site: { nodes: [entry] } });
    const { syncSite } = await import('../../../provisioner/node/site-sync.js');
    await syncSite(world.site, world.nodes);
    const set = { address: '10.99.0.77', roles: ['compute'], install: { image: 'ubuntu-24.04' } };
    await world.service.update('n1', set);
    await syncSite(world.site, world.nodes);
    expect(world.nodes.find('n1').spec).toMatchObject(set);
    await syncSite({ ...world.site, nodes: [{ ...entry, roles: ['network'] }] }, world.nodes);
    expect(world.nodes.find('n1').spec).toMatchObject({ ...set, roles: ['network'] });
  });

  it('follows names that were exchanged between two nodes', async () => {
    const entry = (name: string, mac: string) => ({ name, macs: [mac], roles: [] });
    const [one, two] = ['52:54:00:00:00:01', '52:54:00:00:00:02'] as const;
    world = await aWorld({ site: { nodes: [entry('n1', one), entry('n2', two)] } });
    const { syncSite } = await import('../../../provisioner/node/site-sync.js');
    await syncSite(world.site, world.nodes);
    await syncSite({ ...world.site, nodes: [entry('n2', one), entry('n1', two)] }, world.nodes);
    expect(world.nodes.byMac(one)?.name).toBe('n2');
    expect(world.nodes.byMac(two)?.name).toBe('n1');
  });

  it('is not changed elsewhere, and the refusal names the line', async () => {
    world = await aWorld({
      site: { nodes: [{ name: 'n1', macs: ['52:54:00:00:00:01'], roles: ['compute'] }] },
    });
    const { syncSite } = await import('../../../provisioner/node/site-sync.js');
    await syncSite(world.site, world.nodes);
    await syncSite(world.site, world.nodes);
    expect(world.nodes.all()).toHaveLength(1);
    await expect(world.service.update('n1', { roles: [] })).rejects.toThrow(/nodes\[0\]\.roles/);
    await expect(world.service.remove('n1')).rejects.toThrow(/named in the site file/);
    expect((await world.service.update('n1', { install: { image: 'ubuntu-24.04' } })).spec.install.image).toBe(
      'ubuntu-24.04',
    );
  });
});
