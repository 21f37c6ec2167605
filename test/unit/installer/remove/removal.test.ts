import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  prepareRemoval,
  REMOVE_KIND,
  type RemovalCloud,
  type RemovalDeps,
  type RestResult,
  walkRemoval,
} from '../../../../installer/remove/removal.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import type { HandedNode } from '../../../../provisioner/core/cloud-host.js';
import { createEventFeed } from '../../../../provisioner/core/events.js';
import { createJournal, type Run } from '../../../../provisioner/core/journal.js';
import { silentLog } from '../../../../provisioner/core/log.js';
import { ProblemError, problem } from '../../../../provisioner/core/problem.js';
import { openStore, type Store } from '../../../../provisioner/core/store/store.js';
import { catalogue } from '../../../../roles/catalogue.js';
import { model, nodeInput, settings } from '../../roles/fixture.js';
import { ADDRESS, type SmallCloud, smallCloud, target } from './small-cloud.js';

let dir: string;
let store: Store;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-remove-'));
  store = await openStore(join(dir, 'halligan.db'));
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

const WITHOUT_VOLUMES = settings({ volumes: { backend: 'none', devices: [] } });
const NOTHING_TO_DO: RestResult = { actions: 0, done: 0, failed: [], blocked: [], chain: [] };
const never = new AbortController().signal;

interface Rig {
  readonly cloud: SmallCloud;
  readonly deps: RemovalDeps;
  readonly roles: Map<string, readonly string[]>;
  readonly states: string[];
  readonly running: RemovalCloud;
}

function rig(over: { rolesSetIn?: string; volumes?: boolean } = {}): Rig {
  const cloud = smallCloud();
  const site = over.volumes ? settings() : WITHOUT_VOLUMES;
  const control = ['controller', 'network', ...(over.volumes ? ['volume'] : [])];
  const roles = new Map<string, readonly string[]>([
    ['ctl', control],
    ['cmp', ['compute']],
    ['cmp2', ['compute']],
  ]);
  const states: string[] = [];
  const handed = (name: string): HandedNode => ({
    id: `id-${name}`,
    name,
    roles: roles.get(name) ?? [],
    target: target(name as keyof typeof ADDRESS),
    unreachableBecause: null,
    rolesSetIn: over.rolesSetIn ?? null,
  });
  const built = model(
    [
      nodeInput('ctl', ADDRESS.ctl, control),
      nodeInput('cmp', ADDRESS.cmp, ['compute']),
      nodeInput('cmp2', ADDRESS.cmp2, ['compute']),
    ],
    site,
  );
  const deps: RemovalDeps = {
    node: name => (roles.has(name) ? handed(name) : null),
    nodes: () => [...roles].filter(([, r]) => r.length > 0).map(([name]) => handed(name)),
    setRoles: async (name, wanted) => {
      roles.set(name, wanted);
    },
    onNode: async (name, state) => {
      states.push(`${name} ${state}`);
    },
    executor: cloud.executor,
    journal: createJournal(store, systemClock),
    events: createEventFeed(store.db, systemClock),
    clock: systemClock,
    log: silentLog,
    catalogue,
    release: built.release,
    settings: site,
  };
  return {
    cloud,
    deps,
    roles,
    states,
    running: {
      model: built,
      targets: new Map((['ctl', 'cmp', 'cmp2'] as const).map(n => [n, target(n)])),
      client: () => cloud.api,
      secrets: { mask: text => text },
    },
  };
}

const server = (name: string, status: string, host = 'cmp2') => ({ id: `id-${name}`, name, host, status, task: null });
function put(cloud: SmallCloud, ...servers: ReturnType<typeof server>[]): void {
  cloud.servers.push(...servers);
  for (const s of servers) cloud.providers.find(p => p.name.startsWith(`${s.host}.`))!.consumers.add(s.id);
}

/** A poll of no time; the clock of patience runs fast, so that what waits half a minute waits for an instant. */
async function remove(
  { deps, running }: Rig,
  o: { force?: boolean; run?: Run; round?: number; rest?: () => Promise<RestResult> } = {},
) {
  let ticks = 0;
  const clock = { nowMs: systemClock.nowMs, monotonicMs: () => (ticks += 5000) };
  const own = { ...deps, clock };
  const removal = await prepareRemoval({ node: 'cmp2', force: o.force ?? false }, own, running, never, {
    pollMs: 1,
    resumed: o.run !== undefined,
  });
  const run = o.run ?? (await deps.journal.begin(REMOVE_KIND, null, { node: 'cmp2', force: o.force ?? false }));
  const result = await walkRemoval(run, o.round ?? 1, removal, own, o.rest ?? (async () => NOTHING_TO_DO), never);
  return { run, result };
}
const why = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'it went well',
    error => {
      if (error instanceof ProblemError) return `${error.problem.code}: ${error.problem.message} ${error.problem.hint}`;
      throw error;
    },
  );
const changes = (cloud: SmallCloud) => cloud.log.join('\n');

describe('a compute that is removed', () => {
  it('loses its servers to the other, and leaves no record under any of its names', async () => {
    const r = rig();
    put(
      r.cloud,
      server('web', 'ACTIVE'),
      server('db', 'SHUTOFF'),
      server('paused', 'PAUSED'),
      server('x', 'ACTIVE', 'cmp'),
    );
    const { result } = await remove(r);
    expect(result.failed).toEqual([]);
    expect(result.left).toEqual([]);
    expect(result.done).toBe(result.actions);
    expect(r.cloud.servers.map(s => [s.name, s.status, s.host])).toEqual([
      ['web', 'ACTIVE', 'cmp'],
      ['db', 'SHUTOFF', 'cmp'],
      ['paused', 'PAUSED', 'cmp'],
      ['x', 'ACTIVE', 'cmp'],
    ]);
    expect(r.cloud.services.map(s => s.host)).toEqual(['cmp']);
    expect(r.cloud.providers.map(p => p.name)).toEqual(['cmp.lab.example']);
    expect(r.cloud.mappings).toEqual(['cmp']);
    // Marked as deleted they would make a compute that comes back count as down.
    expect(r.cloud.deletedServices).toEqual([]);
    expect(r.cloud.chassis).toEqual(['net', 'cmp']);
    expect(r.roles.get('cmp2')).toEqual([]);
    expect(r.states).toEqual(['cmp2 ready']);
    // Stopped before its records go, or it would make them anew.
    const log = r.cloud.log;
    expect(log.indexOf(`SHELL ${ADDRESS.cmp2}: systemctl stop`)).toBeLessThan(
      log.indexOf('DELETE compute /os-services/service-cmp2'),
    );
    expect(changes(r.cloud)).not.toContain('chassis-del');
  });

  it('tells each step in the feed and the journal', async () => {
    const r = rig();
    put(r.cloud, server('web', 'ACTIVE'));
    const { run } = await remove(r);
    const events = await r.deps.events.after(0, 200);
    const told = events.filter(e => e.type === 'cloud.action');
    expect(told.filter(e => e.data['state'] === 'ok').map(e => e.data['title'])).toEqual(
      expect.arrayContaining([
        'disable cmp2 for new servers and volumes',
        'move server web (id-web) to another compute while it runs: it is on cmp',
        'check that nothing of cmp2 is left',
      ]),
    );
    expect(told.every(e => e.nodeId === 'id-cmp2' && e.data['runId'] === run.id)).toBe(true);
    const steps = await r.deps.journal.steps(run.id);
    expect(steps.map(s => s.state)).toEqual(steps.map(() => 'after'));
    expect(steps[0]!.step).toBe('1/cmp2/remove/disable');
  });

  it('leaves a stopped server that Nova cannot move as an image, unstarted, and says so', async () => {
    const r = rig();
    r.cloud.cold = 'stays';
    put(r.cloud, server('db', 'SHUTOFF'));
    const { result } = await remove(r);
    expect(result).toMatchObject({ failed: [], left: [] });
    expect(r.cloud.servers[0]).toMatchObject({ status: 'SHELVED_OFFLOADED', host: '' });
    const events = await r.deps.events.after(0, 200);
    expect(events.map(e => e.data['title'])).toContain(
      'move server db (id-db) to another compute; it is stopped: it is shelved, because Nova could not move it: Resize error: not able to execute ssh',
    );
  });

  it('does so when Nova does not even try', async () => {
    const r = rig();
    r.cloud.cold = 'is refused';
    put(r.cloud, server('db', 'SHUTOFF'));
    expect((await remove(r)).result).toMatchObject({ failed: [], left: [] });
    expect(r.cloud.servers[0]).toMatchObject({ status: 'SHELVED_OFFLOADED' });
  });

  it('is taken out of OVN from outside when ovn-controller does not do it', async () => {
    const r = rig();
    r.cloud.chassisStays = true;
    r.cloud.gateways = ['cmp2'];
    const { result } = await remove(r);
    expect(result.left).toEqual([]);
    expect(changes(r.cloud)).toContain(`SHELL ${ADDRESS.ctl}: chassis-del`);
    expect(changes(r.cloud)).toContain(`SHELL ${ADDRESS.ctl}: lrp-del`);
  });

  it('is taken out of Placement by hand where Nova kept quiet: children first, allocations of nobody before', async () => {
    const r = rig();
    r.cloud.novaForgetsPlacement = true;
    r.cloud.providers.push({ uuid: 'nic', name: 'cmp2_eth1', parent: 'provider-cmp2', consumers: new Set(['ghost']) });
    r.cloud.providers[1]!.consumers.add('ghost');
    r.cloud.providers[0]!.consumers.add('ghost');
    const { result } = await remove(r);
    expect(result).toMatchObject({ failed: [], left: [] });
    const log = r.cloud.log.filter(l => l.includes('placement'));
    expect(log).toEqual([
      'PUT placement /allocations/ghost',
      'DELETE placement /resource_providers/nic',
      'DELETE placement /resource_providers/provider-cmp2',
    ]);
    // What it has elsewhere is its own.
    expect([...r.cloud.providers[0]!.consumers]).toEqual(['ghost']);
  });

  it('loses bindings of ports that nobody has any more', async () => {
    const r = rig();
    r.cloud.ports.push({ id: 'port1', host: 'cmp2.lab.example' }, { id: 'port2', host: 'cmp' });
    const { result } = await remove(r);
    expect(result.left).toEqual([]);
    expect(r.cloud.ports).toEqual([
      { id: 'port1', host: '' },
      { id: 'port2', host: 'cmp' },
    ]);
  });

  it('is forgotten by Cinder, too, under the name that has a backend', async () => {
    const r = rig({ volumes: true });
    r.cloud.volumeServices = ['cmp2.lab.example@lvm'];
    const { result } = await remove(r);
    expect(result).toMatchObject({ failed: [], left: [] });
    expect(changes(r.cloud)).toContain(`SHELL ${ADDRESS.ctl}: cinder-manage`);
  });

  it('names what is left where nobody can take it away', async () => {
    const r = rig();
    r.cloud.volumeServices = ['cmp2.lab.example@lvm'];
    const { result } = await remove(r);
    expect(result.failed[0]?.problem.message).toContain('Cinder’s manager');
    expect(result.left).toEqual(['Cinder: service cinder-volume on cmp2.lab.example@lvm']);
  });
});

describe('when something fails', () => {
  it('a server that does not move stops the rest, with Nova’s reason; the next try goes on', async () => {
    const r = rig();
    r.cloud.live = 'stays';
    put(r.cloud, server('web', 'ACTIVE'), server('db', 'SHUTOFF'));
    const { result } = await remove(r);
    expect(result.failed.map(f => f.problem.message)).toEqual([
      'Nova did not move server web (id-web): Resize error: not able to execute ssh.',
    ]);
    // The other one of its stage went.
    expect(r.cloud.servers.find(s => s.name === 'db')?.host).toBe('cmp');
    expect(result.blocked.map(b => b.id)).toContain('cmp2/host/remove:stop');
    expect(result.blocked[0]!.problem.message).toMatch(/ waits for "move server web/);
    expect(r.roles.get('cmp2')).toEqual(['compute']);
    expect(changes(r.cloud)).not.toContain('systemctl stop');
    expect(result.left).toContain('Nova: server web (id-web), ACTIVE');

    r.cloud.live = 'moves';
    const again = await remove(r);
    expect(again.result).toMatchObject({ failed: [], left: [] });
  });

  it('a server that errs is told of', async () => {
    const r = rig();
    r.cloud.live = 'errs';
    put(r.cloud, server('web', 'ACTIVE'));
    const { result } = await remove(r);
    expect(result.failed[0]?.problem.message).toBe(
      'Server web (id-web) went into state ERROR while it was moved: no way.',
    );
  });

  it('the other nodes’ failures do not hide what is left, and are told', async () => {
    const r = rig();
    const bad = {
      id: 'cmp/host/x',
      node: 'cmp',
      service: 'host',
      title: 'x',
      problem: problem('cloud-step-failed', 'x'),
    };
    const { result } = await remove(r, {
      rest: async () => ({ ...NOTHING_TO_DO, actions: 2, done: 1, failed: [bad] }),
    });
    expect(result.failed.map(f => f.id)).toEqual(['cmp2/host/remove:apply', 'cmp/host/x']);
    expect(result.blocked).toEqual([]);
    expect(result.left).toEqual([]);
    expect(r.roles.get('cmp2')).toEqual([]);
  });

  it('a kill of the server in the middle is made up for by the next round', async () => {
    for (const at of [
      /DELETE compute \/os-services/,
      /POST compute .*action/,
      /PUT compute \/os-services/,
      /DELETE network \/agents/,
    ]) {
      const r = rig();
      put(r.cloud, server('web', 'ACTIVE'));
      r.cloud.killAt = at;
      await expect(remove(r)).rejects.toThrow('killed');
      const run = (await r.deps.journal.list({ limit: 1 }))[0]!;
      expect(run.state).toBe('running');
      const { result } = await remove(r, { run, round: 2 });
      expect(result, String(at)).toMatchObject({ failed: [], left: [] });
      expect(r.cloud.servers[0]).toMatchObject({ host: 'cmp', status: 'ACTIVE' });
      await r.deps.journal.end(run.id, 'done', null);
    }
  });
});

describe('a node that is lost', () => {
  it('is removed with force only: its servers are built anew, its records removed without it', async () => {
    const r = rig();
    r.cloud.silent.add(ADDRESS.cmp2);
    put(r.cloud, server('web', 'ACTIVE'), server('db', 'SHUTOFF'));
    expect(await why(remove(r))).toMatch(
      /^plan-refused: cmp2 cannot be reached: 10\.99\.0\.3 is silent\. Its servers would be built anew/,
    );
    const { result } = await remove(r, { force: true });
    expect(result).toMatchObject({ failed: [], left: [] });
    expect(r.cloud.servers.map(s => s.host)).toEqual(['cmp', 'cmp']);
    expect(changes(r.cloud)).toContain('chassis-del');
    expect(changes(r.cloud)).not.toContain(`SHELL ${ADDRESS.cmp2}`);
  });
});

describe('a removal is refused', () => {
  it('where the site file sets the roles, with the line', async () => {
    expect(await why(remove(rig({ rolesSetIn: 'site.yaml, line 14' })))).toMatch(
      /^site-owns: cmp2: its roles are set in site\.yaml, line 14.*Take `roles` of cmp2 out there/,
    );
  });

  it('of a node that nobody knows', async () => {
    const r = rig();
    r.roles.delete('cmp2');
    expect(await why(remove(r))).toMatch(/^node-unknown: /);
  });

  it('of a node that has no roles and no records', async () => {
    const r = rig();
    await remove(r);
    expect(await why(remove(r))).toMatch(
      /^not-allowed-now: cmp2 has no role, and the cloud has nothing on record of it/,
    );
  });

  it('with all reasons at once, and nothing is touched', async () => {
    const r = rig();
    put(r.cloud, server('a', 'ACTIVE'), server('b', 'SUSPENDED'));
    r.cloud.services[0]!.state = 'down';
    const text = await why(remove(r));
    expect(text).toContain('2 servers of cmp2 cannot be moved: a (id-a): no other compute is up and enabled');
    expect(r.cloud.log).toEqual([]);
  });
});
