/** What a kill of the server, an abort or a loss of power in an unlucky moment must not do. */
import { afterEach, describe, expect, it } from 'vitest';
import type { ActionParams } from '../../../provisioner/node/service.js';
import { aWorld, until } from './fixtures.js';

let world: Awaited<ReturnType<typeof aWorld>>;
afterEach(() => world.close());

const MACS = ['52:54:00:00:00:01', '52:54:00:00:00:02', '52:54:00:00:00:03'];

async function claimed(options: Parameters<typeof aWorld>[0] = {}) {
  world = await aWorld(options);
  await world.bootRam('boot-1');
  const { id } = world.nodes.all()[0]!;
  await until('available', () => world.nodes.byId(id)?.state === 'available');
  await world.service.update(id, { name: 'n1' });
  await world.service.act('n1', 'claim', {});
  return id;
}

const hanging = (_unit: string, _onLine: unknown, signal?: AbortSignal) =>
  new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(new Error('aborted'))));

describe('an aborted installation', () => {
  it('ends on the node, too, and the next job stops what is left before it writes', async () => {
    const id = await claimed();
    const good = world.machine.job;
    world.machine.job = hanging;
    await world.service.act('n1', 'install', {});
    await until('started', () => world.machine.started.length === 1);
    const before = world.machine.stops.length;
    await world.service.act('n1', 'abort', {});
    expect(world.machine.stops.length).toBe(before + 1);
    const stopsAtStart: string[][] = [];
    world.machine.job = (unit, onLine, signal) => {
      stopsAtStart.push([...world.machine.stops.slice(before + 1)]);
      return good(unit, onLine, signal);
    };
    await world.service.act('n1', 'install', {});
    await until('written', () => world.nodes.byId(id)!.status.diskReady);
    expect(stopsAtStart).toHaveLength(1);
    expect(stopsAtStart[0]).toHaveLength(1);
    // All of ours but the new unit itself, which a restarted server finds at work.
    expect(stopsAtStart[0]![0]).toContain("'halligan-*.service'");
    expect(stopsAtStart[0]![0]).toContain(`${world.machine.started.at(-1)}.service`);
  });

  it('is not taken up again by the state loop while the abort is being recorded', async () => {
    const id = await claimed();
    world.machine.job = hanging;
    await world.service.act('n1', 'install', {});
    await until('started', () => world.machine.started.length === 1);
    const fail = world.nodes.failWorking;
    world.nodes.failWorking = async (nodeId, problem) => {
      world.loop.poke(nodeId);
      await new Promise(r => setTimeout(r, 100));
      return fail(nodeId, problem);
    };
    await world.service.act('n1', 'abort', {});
    expect(world.nodes.byId(id)!.state).toBe('installing-failed');
    expect(world.machine.started).toHaveLength(1);
  });
});

describe('the permission to overwrite data', () => {
  it('ends with the installation that it was given for', async () => {
    const id = await claimed();
    const seen: (ActionParams['wipe'] | 'none')[] = [];
    const plain = world.context.jobs.install;
    Object.assign(world.context.jobs, {
      install: (...args: Parameters<typeof plain>) => {
        if (args[2] !== 'dry-run') seen.push(args[1].wipe ?? 'none');
        return plain(...args);
      },
    });
    const good = world.machine.job;
    world.machine.job = async () => ({ kind: 'exited', code: 1, tail: '' });
    await world.service.act('n1', 'install', { wipe: true });
    await until('failed', () => world.nodes.byId(id)!.state === 'installing-failed');
    world.machine.job = good;
    await world.service.act('n1', 'install', {});
    await until('written', () => world.nodes.byId(id)!.status.diskReady);
    expect(seen).toEqual([true, 'none']);
  });
});

describe('two machines that start at the same moment', () => {
  it('get two addresses', async () => {
    world = await aWorld();
    await Promise.all(MACS.map(mac => world.oracle.decide(world.who(mac), '10.99.0.100')));
    expect(new Set(world.nodes.all().map(n => n.status.address)).size).toBe(3);
  });
});

describe('the call home of the first boot', () => {
  async function rebooted() {
    const id = await claimed();
    await world.service.act('n1', 'install', {});
    await until('rebooted', () => world.machine.reboots === 1);
    const { runId } = world.nodes.byId(id)!.status;
    const unit = world.machine.started.at(-1)!;
    return { id, token: await world.tokens.issue(id, 'first-boot', runId, 60, unit) };
  }
  const report = (bootId: string) => ({ schema: 1 as const, bootId, uptimeSeconds: 9, hostname: 'n1' });

  it('is taken when it is repeated because the server died between its token and its record', async () => {
    const { id, token } = await rebooted();
    await world.tokens.use(token, 'first-boot', 'os-1');
    await world.oracle.installedCallHome(token, report('os-1'), '10.99.0.10');
    await until('installed', () => world.nodes.byId(id)!.state === 'installed');
  });

  it('is taken when the power was cut in between, and raises no alarm later', async () => {
    const { id, token } = await rebooted();
    await world.tokens.use(token, 'first-boot', 'os-1');
    await world.oracle.installedCallHome(token, report('os-2'), '10.99.0.10');
    await until('installed', () => world.nodes.byId(id)!.state === 'installed');
    await expect(world.oracle.installedCallHome(token, report('os-3'), '10.99.0.10')).rejects.toThrow(/used before/);
    expect(world.nodes.byId(id)!.maintenance).toBeNull();
  });

  it('freezes the node when another machine shows its token', async () => {
    const { id, token } = await rebooted();
    await world.oracle.installedCallHome(token, report('os-1'), '10.99.0.10');
    await expect(world.oracle.installedCallHome(token, report('evil'), '10.99.0.66')).rejects.toThrow(/used before/);
    expect(world.nodes.byId(id)!.maintenance).toContain('10.99.0.66');
  });
});

describe('a server that was killed', () => {
  it('between the erasing and its end does not erase twice, and releases', async () => {
    const id = await claimed();
    const transition = world.nodes.transition;
    let killed = false;
    world.nodes.transition = (nodeId, event, ...rest) => {
      if (event === 'released' && !killed) {
        killed = true;
        return Promise.reject(new Error('killed'));
      }
      return transition(nodeId, event, ...rest);
    };
    await world.service.act('n1', 'release', {});
    await until('killed', () => killed);
    world.machine.bootId = null;
    await until('available', () => {
      world.clock.advance(1000);
      return world.nodes.byId(id)!.state === 'available';
    });
    expect(world.machine.started).toHaveLength(1);
    expect(world.machine.netboots).toBe(0);
  });

  it('between the order to restart and its record does not cut the power of the first boot', async () => {
    const id = await claimed();
    let sets = 0;
    const set = world.power.set;
    world.power.set = (...args) => {
      sets++;
      return set(...args);
    };
    // The record of the restart is lost: the RAM environment is believed to run, and its address answers no more.
    const update = world.nodes.update;
    world.nodes.update = (nodeId, change) =>
      update(nodeId, n => {
        const what = change(n);
        if (what?.status?.ram !== null || !n.status.diskReady) return what;
        world.machine.bootId = null;
        return null;
      });
    await world.service.act('n1', 'install', {});
    await until('rebooted', () => world.machine.reboots === 1);
    world.clock.advance(30_000);
    await new Promise(r => setTimeout(r, 300));
    expect([sets, world.machine.reboots]).toEqual([0, 1]);
    world.machine.ssh = 'silent';
    world.clock.advance(90_000);
    await until('its BMC is asked at last', () => sets > 0);
    expect(world.nodes.byId(id)!.state).toBe('installing');
  });
});

describe('an installation that waits for its turn', () => {
  it('is not overdue because others take long', async () => {
    await claimed({ site: { limits: { ssh_sessions: 8, installs: 1, package_cache_gib: 1 } } });
    await world.bootRam('boot-1', MACS[1]);
    const second = world.nodes.byMac(MACS[1]!)!.id;
    await until('available', () => world.nodes.byId(second)!.state === 'available');
    await world.service.act(second, 'claim', {});
    world.machine.job = hanging;
    await world.service.act('n1', 'install', {});
    await until('started', () => world.machine.started.length === 1);
    await world.service.act(second, 'install', {});
    await until('queued', () => world.nodes.byId(second)!.waitingFor?.startsWith('its turn'));
    world.clock.advance(3_700_000);
    await until('a new deadline', () => world.nodes.byId(second)!.deadlineMs! > world.clock.nowMs());
    const running = world.nodes.find('n1').id;
    await world.service.act(running, 'abort', {});
    world.loop.poke(second);
    await until('its turn', () => world.machine.started.length === 2);
    expect(world.nodes.byId(second)!.state).toBe('installing');
  });
});

describe('tokens', () => {
  it('that were replaced are forgotten, in memory too: everybody on the segment can ask for new ones', async () => {
    const id = await claimed();
    const first = await world.tokens.issue(id, 'ram', null, 60);
    const second = await world.tokens.issue(id, 'ram', null, 60);
    expect([world.tokens.known(first, 'ram'), world.tokens.known(second, 'ram')]).toEqual([false, true]);
  });
});
