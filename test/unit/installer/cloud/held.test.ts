/** Nodes that are left out, through the whole of the service: real plan, store, journal and walk; nodes that obey at once. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadRelease } from '../../../../installer/model/releases.js';
import { command, file } from '../../../../installer/model/resources.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import type { RunningCloud } from '../../../../provisioner/core/cloud-host.js';
import { type ApplyResult, asApplyResult } from '../../../../provisioner/core/cloud-service.js';
import type { Executor } from '../../../../provisioner/core/executor/types.js';
import { createJournal } from '../../../../provisioner/core/journal.js';
import { ProblemError, problem } from '../../../../provisioner/core/problem.js';
import { openStore, type Store } from '../../../../provisioner/core/store/store.js';
import { catalogueOf, role, service } from '../model/sample.js';
import { factsOf, handed, smallSite } from './small-site.js';

const CATALOGUE = catalogueOf(
  [
    service('identity', {
      build: ctx => [
        file({ path: '/etc/hosts', content: ctx.cloud.nodes.map(n => `${n.address} ${n.name}\n`).join('') }),
        command({ name: 'up', title: 'Start', apply: 'true', provides: ['identity:ready'] }),
        command({ name: 'map', title: 'Map hypervisors', apply: 'true', needs: ['hypervisor:done'] }),
      ],
    }),
    service('hypervisor', {
      build: () => [command({ name: 'join', title: 'Join', apply: 'true', needs: ['identity:ready'] })],
    }),
  ],
  [role('controller', ['identity']), role('compute', ['hypervisor'])],
);
const NODES = ['ctl', 'cmp', 'cmp2'] as const;
type Name = (typeof NODES)[number];

let dir: string;
let store: Store;
let cloud: RunningCloud;
let dead: Set<Name>;
let ahead: Map<Name, number>;
/** Without a system, and what comes of the order to install it. */
let bare: Map<Name, (options: { wipe: boolean; begun: boolean }) => Promise<void>>;
let inTheWay: string | null;
const states = new Map<string, string>();
const touched = new Set<string>();

/** Nodes whose programs all succeed; some are dead, some have a clock that is off. */
const executor = (): Executor => {
  const nameOf = (address: string) => NODES[Number(address.split('.')[3]) - 1]!;
  const reach = (address: string): Name => {
    const name = nameOf(address);
    if (dead.has(name))
      throw new ProblemError(problem('ssh-failed', `root@${address} could not be reached by SSH: no route to host.`));
    return name;
  };
  return {
    publicKey: '',
    async run(target, _command, options) {
      const name = reach(target.address);
      const program = String(options?.stdin ?? '');
      const stdout = program.includes('@hostname')
        ? factsOf(name, NODES.indexOf(name) + 1, ahead.get(name) ?? 0)
        : program.includes('echo @end')
          ? '@end\n'
          : '';
      return { code: 0, stdout, stderr: '' };
    },
    write: async () => {},
    async detached(target, job, onLine) {
      touched.add(reach(target.address));
      const steps = [...job.script.matchAll(/^echo '@@halligan begin (\d+)'$/gm)].map(m => m[1]);
      for (const n of steps) for (const line of [`begin ${n}`, `ok ${n} 1`]) onLine(`@@halligan ${line}`, 0);
      return { kind: 'exited', code: 0, tail: '' };
    },
    stop: async () => {},
    close: async () => {},
  };
};

const start = () => {
  const nodes = NODES.map((name, i) => handed(name, i + 1, [name === 'ctl' ? 'controller' : 'compute']));
  cloud = smallSite(
    { dir, store, catalogue: CATALOGUE, release: loadRelease('debian-12-zed')!, nodes, executor: executor() },
    {
      nodes: () => nodes.map(n => (bare.has(n.name as Name) ? { ...n, target: null } : n)),
      onNode: async (name, state) => void states.set(name, state),
      machines: {
        plan: async name =>
          bare.has(name as Name)
            ? {
                title: 'install debian-12 on /dev/vda, layout plain',
                reason: 'it is available and has no system',
                refusal: null,
                destroys: inTheWay,
                interrupts: null,
                expectedSeconds: 420,
                address: `127.0.0.${NODES.indexOf(name as Name) + 1}`,
                hardware: {
                  architecture: 'x86_64',
                  cpus: 2,
                  memoryMiB: 16_000,
                  kvm: true,
                  kernel: '6.1.0',
                  interfaces: [
                    {
                      name: 'mgmt0',
                      mac: '52:54:00:00:00:01',
                      mtu: 1500,
                      addresses: [`127.0.0.${NODES.indexOf(name as Name) + 1}/24`],
                      gateway: null,
                    },
                    { name: 'eth1', mac: '52:54:00:00:01:01', mtu: 1500, addresses: [], gateway: null },
                  ],
                  disks: [],
                },
              }
            : null,
        prepare: async (name, options) => {
          await bare.get(name as Name)?.(options);
          bare.delete(name as Name);
        },
      },
    },
  );
};
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-held-'));
  store = await openStore(':memory:');
  dead = new Set();
  ahead = new Map();
  bare = new Map();
  inTheWay = null;
  states.clear();
  touched.clear();
  start();
});
afterEach(async () => {
  await cloud.close();
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

/** What is behind APIs is no part of it: there are none. */
const apply = async (nodes: readonly Name[] = NODES, confirmed: string[] = []): Promise<ApplyResult> => {
  const { runId } = await cloud.apply({ confirmed, nodes });
  const journal = createJournal(store, systemClock);
  for (;;) {
    const run = await journal.get(runId);
    if (run && run.state !== 'running') return asApplyResult(run.result)!;
    await new Promise(r => setTimeout(r, 20));
  }
};
const ids = (list: readonly { id: string }[]) => list.map(f => f.id).sort();

describe('a node whose clock is off', () => {
  it('is left out with what waits for it; the others are laid down', async () => {
    ahead.set('cmp2', 3_600_000);
    const result = await apply();
    expect(result.failed.map(f => `${f.node} ${f.problem.code}: ${f.problem.message}`)).toEqual([
      'cmp2 cloud-node-held: cmp2: Its clock is 60 min ahead. Tokens and certificates would not be valid there.',
    ]);
    expect(ids(result.blocked)).toEqual(['cmp2/hypervisor/command:join', 'ctl/identity/command:map']);
    expect(result.done).toBe(3);
    expect([...touched].sort()).toEqual(['cmp', 'ctl']);
    expect(Object.fromEntries(states)).toEqual({ ctl: 'failed', cmp: 'ready', cmp2: 'failed' });
    ahead.clear();
    expect(await apply()).toMatchObject({ failed: [], blocked: [] });
    expect(states.get('cmp2')).toBe('ready');
  });

  it('does not make a run of others fail that leaves it out', async () => {
    ahead.set('cmp2', 3_600_000);
    const result = await apply(['cmp']);
    expect(result).toMatchObject({ done: 3, failed: [], blocked: [] });
    expect(states.get('cmp2')).toBeUndefined();
  });

  it('is refused when there is no other', async () => {
    for (const [i, name] of NODES.entries()) ahead.set(name, 3_600_000 * (i + 1));
    await expect(apply()).rejects.toThrow(/^ctl: Its clock is 60 min ahead\..*\ncmp: Its clock is 120 min ahead/);
  });
});

describe('a node that does not answer', () => {
  it('is left out, and the others keep it in their configuration, once it was seen', async () => {
    await cloud.plan({});
    dead.add('cmp2');
    await cloud.close();
    start();
    const plan = await cloud.plan({});
    expect(plan.problems.filter(p => p.severity !== 'warn')).toEqual([
      {
        severity: 'hold',
        node: 'cmp2',
        message: 'It cannot be looked at: root@127.0.0.3 could not be reached by SSH: no route to host.',
        hint: 'Bring cmp2 back (power, network, sshd); the next `halligan apply` takes it along.',
      },
    ]);
    expect(plan.actions.find(a => a.id === 'ctl/identity/file:/etc/hosts')?.diff).toContain('+127.0.0.3 cmp2');
    const result = await apply();
    expect(result.failed.map(f => `${f.node} ${f.problem.code}`)).toEqual(['cmp2 cloud-node-held']);
    // Whether it was mapped is not known, and waiting for it would take its time-out.
    expect(ids(result.blocked)).toEqual(['ctl/identity/command:map']);
    expect(result.done).toBe(3);
  });

  it('is refused when it was never seen: the others would forget it', async () => {
    dead.add('cmp2');
    await expect(apply()).rejects.toThrow(/^cmp2: It cannot be looked at: /);
    expect([...touched]).toEqual([]);
  });

  it('is refused when the cloud is run from it', async () => {
    await cloud.plan({});
    dead.add('ctl');
    await expect(apply()).rejects.toThrow(/^ctl: It cannot be looked at: /);
    expect([...touched]).toEqual([]);
  });
});

describe('a node without a system', () => {
  it('is installed by the plan, which shows what follows, and is laid down as it then is', async () => {
    const order: string[] = [];
    bare.set('cmp2', async () => void order.push(`installed after ${[...touched].join(' ')}`));
    const plan = await cloud.plan({});
    expect(plan.problems.filter(p => p.severity !== 'warn')).toEqual([]);
    expect(plan.nodes.find(n => n.name === 'cmp2')).toMatchObject({ reachable: true, expected: true });
    expect(plan.actions.find(a => a.id === 'cmp2/machine/install')).toMatchObject({
      kind: 'machine',
      title: 'install debian-12 on /dev/vda, layout plain',
      needs: [],
      expectedSeconds: 420,
    });
    expect(plan.actions.find(a => a.id === 'cmp2/hypervisor/command:join')?.needs).toContain('cmp2/machine/install');
    expect(plan.actions.find(a => a.id === 'ctl/identity/file:/etc/hosts')?.diff).toContain('+127.0.0.3 cmp2');
    // What is not there yet has not drifted.
    expect((await cloud.drift()).actions.filter(a => a.node === 'cmp2')).toEqual([]);
    const result = await apply();
    expect(result).toMatchObject({ failed: [], blocked: [] });
    expect(order).toHaveLength(1);
    expect(Object.fromEntries(states)).toEqual({ ctl: 'ready', cmp: 'ready', cmp2: 'ready' });
  });

  it('that cannot be installed is named, and the others go on', async () => {
    bare.set('cmp2', async () => {
      throw new ProblemError(problem('disk-no-match', 'cmp2 has no disk of 20 GB.'));
    });
    const result = await apply();
    expect(result.failed.map(f => `${f.id}: ${f.problem.message}`)).toEqual([
      'cmp2/machine/install: cmp2 has no disk of 20 GB.',
    ]);
    expect(ids(result.blocked)).toEqual(['cmp2/hypervisor/command:join', 'ctl/identity/command:map']);
    expect(result.done).toBe(3);
    expect(states.get('cmp')).toBe('ready');
    expect(states.has('cmp2')).toBe(false);
  });

  it('with data of others on its disks is installed by the operator’s word only', async () => {
    const wiped: boolean[] = [];
    bare.set('cmp2', async ({ wipe }) => void wiped.push(wipe));
    inTheWay = 'data that is not ours on /dev/vda (ntfs)';
    await expect(apply()).rejects.toThrow('On cmp2 data would be destroyed: data that is not ours on /dev/vda (ntfs).');
    expect(wiped).toEqual([]);
    expect([...touched]).toEqual([]);
    expect(await apply(NODES, ['cmp2'])).toMatchObject({ failed: [], blocked: [] });
    expect(wiped).toEqual([true]);
  });

  it('is gone on with by the next server, and not ordered twice', async () => {
    const orders: boolean[] = [];
    bare.set('cmp2', async ({ begun }) => {
      orders.push(begun);
      // The server dies meanwhile: nobody hears the end.
      if (!begun) await new Promise(() => {});
    });
    const { runId } = await cloud.apply({ confirmed: [], nodes: NODES });
    await new Promise(r => setTimeout(r, 300));
    cloud.close().catch(() => {});
    start();
    await cloud.resume();
    const journal = createJournal(store, systemClock);
    for (let n = 0; (await journal.get(runId))?.state === 'running' && n < 300; n++)
      await new Promise(r => setTimeout(r, 20));
    expect(orders).toEqual([false, true]);
    expect(states.get('cmp2')).toBe('ready');
  });
});
