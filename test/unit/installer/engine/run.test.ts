/** Walks plans with a node that really runs the programs: `sh` on this machine, on files of a temporary folder. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Action, NodeAction } from '../../../../installer/engine/diff.js';
import { type ActionReport, niceness, type Planned, type RunDeps, runPlan } from '../../../../installer/engine/run.js';
import { command, file, type Resource } from '../../../../installer/model/resources.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import type { DetachedJob, DetachedResult, SshTarget } from '../../../../provisioner/core/executor/types.js';
import { ProblemError, problem } from '../../../../provisioner/core/problem.js';
import { placed } from './fixture.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-run-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const me = {
  owner: process.getuid?.() === 0 ? 'root' : String(process.getuid?.()),
  group: process.getgid?.() === 0 ? 'root' : String(process.getgid?.()),
};

const act = (node: string, service: string, resource: Resource, needs: string[] = []): NodeAction => {
  const p = placed(node, service, resource);
  const action: Action = {
    id: p.key,
    node,
    service,
    kind: resource.kind,
    title: resource.id,
    reason: '',
    needs,
    destroys: null,
    interrupts: null,
    expectedSeconds: 1,
  };
  return { action, placed: p };
};
const say = (name: string, apply: string) => command({ name, title: name, apply });

/** Runs each program as a node would. */
async function realShell(
  _: SshTarget,
  job: DetachedJob,
  onLine: (line: string, offset: number) => void,
): Promise<DetachedResult> {
  const script = join(dir, job.unit);
  const { writeFileSync } = await import('node:fs');
  // /run/halligan may not be ours.
  writeFileSync(
    script,
    job.script
      .replace('mkdir -p /run/halligan\n', '')
      .replaceAll('/run/halligan/', `${dir}/`)
      .replaceAll('/usr/sbin/policy-rc.d', join(dir, 'policy-rc.d')),
  );
  const child = spawn('sh', [script], { stdio: ['ignore', 'pipe', 'pipe'] });
  createInterface({ input: child.stdout }).on('line', l => onLine(l, 0));
  const code = await new Promise<number>(resolve => child.once('close', c => resolve(c ?? -1)));
  return { kind: 'exited', code, tail: '' };
}

const reports: ActionReport[] = [];
function walk(plan: readonly Planned[], extra: Partial<RunDeps> = {}) {
  reports.length = 0;
  return runPlan(plan, {
    executor: { detached: realShell, stop: async () => {} },
    clock: systemClock,
    target: node => ({ address: node, user: 'root', hostKey: '' }),
    batchOptions: () => ({ unconfiguredUnits: [], bad: [], timeoutFactor: 1 }),
    mask: text => text.replaceAll('hunter2hunter2', '<secret x>'),
    report: r => reports.push(r),
    journaled: (_name, _input, effect) => effect(),
    unitPrefix: 'hal-test',
    perNode: 4,
    replan: async () => [],
    held: () => undefined,
    signal: new AbortController().signal,
    ...extra,
  });
}
const order = () => reports.filter(r => r.state === 'ok').map(r => r.action.id);

describe('a plan', () => {
  it('writes files as they are wanted, with mode, and says what it did', async () => {
    const path = join(dir, 'sub/x.conf');
    const content = `a = 'b'\n$HOME "q" \\ \n`;
    const outcome = await walk([act('n1', 'x', file({ path, content, mode: 0o640, ...me }))]);
    expect(outcome).toMatchObject({ done: 1, failed: [], blocked: [] });
    expect(readFileSync(path, 'utf8')).toBe(content);
    expect(statSync(path).mode & 0o777).toBe(0o640);
  });

  it('goes on elsewhere the moment that what it needs is there', async () => {
    const flag = join(dir, 'flag');
    const outcome = await walk([
      act('n1', 'a', say('first', `touch ${flag}`)),
      // In the same program, and much slower than what waits for the first.
      act('n1', 'a', say('slow', 'sleep 1'), ['n1/a/command:first']),
      act('n2', 'b', say('second', `test -e ${flag}`), ['n1/a/command:first']),
    ]);
    expect(outcome.failed).toEqual([]);
    expect(order()).toEqual(['n1/a/command:first', 'n2/b/command:second', 'n1/a/command:slow']);
    expect(outcome.chain.map(c => c.id)).toEqual(['n1/a/command:first', 'n1/a/command:slow']);
  });

  it('runs services of one node side by side', async () => {
    const outcome = await walk(['a', 'b', 'c'].map(s => act('n1', s, say('wait', 'sleep 0.7'))));
    expect(outcome.seconds).toBeLessThan(2);
  });
});

describe('a step that fails', () => {
  it('is named with node, service, the telling line and what to do; what needs it is held, the rest goes on', async () => {
    const outcome = await walk([
      act('n1', 'a', say('bad', 'echo starting; echo "ERROR: hunter2hunter2 was refused"; echo bye; exit 3')),
      act('n1', 'a', say('later', 'true'), ['n1/a/command:bad']),
      act('n2', 'b', say('dependent', 'true'), ['n1/a/command:later']),
      act('n2', 'c', say('free', 'true')),
    ]);
    expect(outcome.done).toBe(1);
    expect(outcome.failed).toHaveLength(1);
    const p = outcome.failed[0]!.problem!;
    expect(p.message).toBe('n1: "command:bad" (a) failed with code 3: ERROR: <secret x> was refused');
    expect(p.hint).toContain('halligan apply');
    expect(p.detail).toMatchObject({
      node: 'n1',
      service: 'a',
      log: ['starting', 'ERROR: <secret x> was refused', 'bye'],
    });
    expect(outcome.blocked.map(b => b.action.id)).toEqual(['n1/a/command:later', 'n2/b/command:dependent']);
    expect(outcome.blocked[1]!.problem!.message).toContain('waits for');
  });

  it('tells the reason from what systemd says of every unit that ends, and keeps the lines around it', async () => {
    const apply = `i=0; while [ $i -lt 40 ]; do echo "line $i"; i=$((i + 1)); done
echo "bind(): Address already in use"; echo "VACUUM: done"; echo "x.service: Failed with result 'exit-code'."
i=0; while [ $i -lt 30 ]; do echo "again $i"; i=$((i + 1)); done; exit 1`;
    const outcome = await walk([act('n1', 'a', say('bind', apply))]);
    const p = outcome.failed[0]!.problem!;
    expect(p.message).toMatch(/: bind\(\): Address already in use$/);
    expect(p.detail?.['log']).toHaveLength(25);
    expect(p.detail?.['log']).toContain('bind(): Address already in use');
  });

  it('that takes too long is ended and says so', async () => {
    const outcome = await walk([
      act('n1', 'a', command({ name: 'hang', title: 'Hang', apply: 'sleep 30', timeoutSeconds: 1 })),
    ]);
    expect(outcome.failed[0]!.problem!.message).toContain('took too long');
  });

  it('does not count as done when its check says otherwise afterwards', async () => {
    const outcome = await walk([act('n1', 'a', command({ name: 'c', title: 'C', apply: 'true', check: 'false' }))]);
    expect(outcome.failed[0]!.problem!.message).toContain('its check still says');
  });
});

describe('a node that is gone', () => {
  it('is tried by the executor alone, then the step that it cut off is named and its other steps are held; no other is', async () => {
    let tries = 0;
    const outcome = await walk(
      [act('dead', 'a', say('x', 'true')), act('dead', 'b', say('y', 'true')), act('n2', 'b', say('z', 'true'))],
      {
        perNode: 1,
        executor: {
          stop: async () => {},
          detached: async (target, job, onLine) => {
            if (target.address !== 'dead') return realShell(target, job, onLine);
            tries++;
            throw new ProblemError(problem('ssh-failed', 'dead does not answer.'));
          },
        },
      },
    );
    expect(tries).toBe(1);
    expect(outcome.done).toBe(1);
    expect(outcome.failed.map(f => `${f.problem!.message} ${f.problem!.hint}`)).toEqual([
      'dead: "command:x" (a) was cut off: dead does not answer. Bring dead back (power, network, sshd), then `halligan apply` goes on from here; until then it leaves dead out.',
    ]);
    expect(outcome.failed[0]!.problem!.detail).toMatchObject({ node: 'dead', service: 'a', step: 'dead/a/command:x' });
    expect(outcome.blocked.map(b => b.problem!.message)).toEqual(['dead could not be reached.']);
  });

  it('that is restarted in the middle loses its program: the step failed, nothing hangs', async () => {
    const outcome = await walk([act('n1', 'a', say('x', 'true')), act('n1', 'a', say('y', 'true'))], {
      executor: { stop: async () => {}, detached: async () => ({ kind: 'lost', reason: 'The node was restarted.' }) },
    });
    expect(outcome.failed[0]!.problem!.message).toBe('n1: "command:x" (a) was cut off: The node was restarted.');
    expect(outcome.blocked).toHaveLength(1);
  });
});

describe('a program that is killed on its node', () => {
  it('fails the step that it was at, with its last words', async () => {
    const outcome = await walk([
      act('n1', 'a', say('x', 'echo Unpacking one; kill -9 $(ps -o ppid= -p $PPID); sleep 1')),
      act('n1', 'a', say('y', 'true')),
    ]);
    expect(outcome.failed.map(f => f.problem!.message)).toEqual([
      expect.stringMatching(
        /^n1: "command:x" \(a\) was cut off: its program was killed there \(code -?\d+\)\. Its last words: Unpacking one$/,
      ),
    ]);
    expect(outcome.blocked.map(b => b.action.id)).toEqual(['n1/a/command:y']);
  });

  it('one by one says so, too, and does not blame time', async () => {
    const outcome = await walk([
      act('n1', 'a', say('x', 'echo Unpacking one; kill -9 $$')),
      act('n1', 'a', say('y', 'true')),
    ]);
    expect(outcome.failed.map(f => f.problem!.message)).toEqual([
      expect.stringMatching(/^n1: "command:x" \(a\) was killed: /),
    ]);
    expect(outcome.blocked.map(b => b.action.id)).toEqual(['n1/a/command:y']);
  });
});

describe('a node that is held', () => {
  it('is not touched, nor is what needs something of it, seen or not; the rest goes on', async () => {
    const why = problem('cloud-node-held', 'n1: Its clock is 60 min ahead.', { hint: 'Set it.' });
    const outcome = await walk(
      [
        act('n1', 'a', say('own', 'exit 1')),
        act('n2', 'b', say('seen', 'exit 1'), ['n1/a/command:own']),
        act('n2', 'c', say('unseen', 'exit 1'), ['n1/a/command:in-place-or-not']),
        act('n2', 'd', say('free', 'true'), ['n3/a/command:in-place']),
      ],
      { held: node => (node === 'n1' ? why : undefined) },
    );
    expect(outcome).toMatchObject({ done: 1, failed: [] });
    expect(outcome.blocked.map(b => `${b.action.id}: ${b.problem!.message}`)).toEqual([
      'n1/a/command:own: n1: Its clock is 60 min ahead.',
      'n2/b/command:seen: "command:seen" on n2 waits for "command:own" on n1.',
      'n2/c/command:unseen: n1: Its clock is 60 min ahead.',
    ]);
    expect(outcome.blocked[0]!.problem!.hint).toBe('Set it.');
  });
});

describe('a disk that is full', () => {
  it('is what the next step is about', async () => {
    const outcome = await walk([
      act('n1', 'a', say('x', 'echo "base64: write error: No space left on device"; exit 1')),
    ]);
    expect(outcome.failed[0]!.problem!.message).toContain('No space left on device');
    expect(outcome.failed[0]!.problem!.hint).toMatch(/^Make room on n1 \(`df -h`/);
  });
});

describe('steps of the server', () => {
  it('take their place in the order', async () => {
    const flag = join(dir, 'flag');
    const action: Action = {
      ...act('cloud', 'identity', say('o', '')).action,
      id: 'cloud/o',
      kind: 'object',
      needs: ['n1/a/command:first'],
    };
    const done: string[] = [];
    const outcome = await walk([
      act('n1', 'a', say('first', `touch ${flag}`)),
      { action, perform: async () => void done.push('object') },
      act('n1', 'b', say('last', 'true'), ['cloud/o']),
    ]);
    expect(outcome.done).toBe(3);
    expect(order()).toEqual(['n1/a/command:first', 'cloud/o', 'n1/b/command:last']);
    expect(done).toEqual(['object']);
  });
});

describe('an abort', () => {
  it('starts nothing more and ends with its reason', async () => {
    const stop = new AbortController();
    const run = walk([act('n1', 'a', say('x', 'sleep 0.3')), act('n1', 'b', say('y', 'true'), ['n1/a/command:x'])], {
      signal: stop.signal,
    });
    stop.abort(new Error('enough'));
    await expect(run).rejects.toThrow('enough');
    expect(order()).not.toContain('n1/b/command:y');
  });
});

describe('a node that is installed on the way', () => {
  const install = (node: string, perform: () => Promise<void>): Planned => ({
    action: { ...act(node, 'machine', say('install', '')).action, id: `${node}/machine/install`, kind: 'machine' },
    perform: async () => perform(),
    renews: true,
  });
  const pause = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));

  it('is looked at then, and what was only expected gives way to what is wanted now', async () => {
    const outcome = await walk(
      [
        install('n1', () => pause(100)),
        act('n1', 'a', say('expected', 'exit 9'), ['n1/machine/install']),
        act('n2', 'b', say('waits', 'true'), ['n1/a/command:expected']),
        act('n2', 'c', say('free', 'true')),
      ],
      {
        replan: async () => [
          act('n1', 'a', say('real', 'true')),
          act('n2', 'b', say('waits', 'true'), ['n1/a/command:real']),
        ],
      },
    );
    expect(outcome).toMatchObject({ failed: [], blocked: [], done: 4 });
    expect(order()).toEqual(['n2/c/command:free', 'n1/machine/install', 'n1/a/command:real', 'n2/b/command:waits']);
  });

  it('leaves alone what is under way, what has failed and what was done after the look', async () => {
    let looked = 0;
    const outcome = await walk(
      [
        install('n1', () => pause(300)),
        act('n2', 'a', say('long', 'sleep 1')),
        act('n2', 'b', say('bad', 'exit 3')),
        act('n2', 'b', say('after', 'true'), ['n2/b/command:bad']),
        act('n2', 'c', say('late', 'sleep 0.6')),
      ],
      {
        replan: async () => {
          looked++;
          // It ends while the others are looked at.
          await pause(600);
          return [
            act('n2', 'a', say('long', 'sleep 1')),
            act('n2', 'b', say('bad', 'exit 3')),
            act('n2', 'b', say('after', 'true'), ['n2/b/command:bad']),
            act('n2', 'c', say('late', 'true')),
            act('n1', 'd', say('waits', 'true'), ['n2/b/command:bad']),
          ];
        },
      },
    );
    expect(looked).toBe(1);
    expect(outcome.failed.map(f => f.action.id)).toEqual(['n2/b/command:bad']);
    expect(outcome.blocked.map(f => f.action.id).sort()).toEqual(['n1/d/command:waits', 'n2/b/command:after']);
    expect(order().sort()).toEqual(['n1/machine/install', 'n2/a/command:long', 'n2/c/command:late']);
  });

  it('does once more what the new world asks of a node that was done', async () => {
    const outcome = await walk([install('n1', () => pause(300)), act('n2', 'a', say('hosts', 'true'))], {
      replan: async () => [act('n2', 'a', say('hosts', 'true'))],
    });
    expect(outcome.done).toBe(3);
    expect(order()).toEqual(['n2/a/command:hosts', 'n1/machine/install', 'n2/a/command:hosts']);
  });

  it('that fails holds what needs it, and nothing else', async () => {
    const outcome = await walk([
      install('n1', async () => {
        await pause(50);
        throw new ProblemError(problem('disk-no-match', 'n1 has no disk.'));
      }),
      act('n1', 'a', say('expected', 'true'), ['n1/machine/install']),
      act('n2', 'b', say('other', 'true')),
    ]);
    expect(outcome.failed.map(f => f.problem?.message)).toEqual(['n1 has no disk.']);
    expect(outcome.blocked.map(f => f.action.id)).toEqual(['n1/a/command:expected']);
    expect(outcome.done).toBe(1);
  });

  it('shares one look between nodes that end together', async () => {
    let looked = 0;
    const outcome = await walk(
      Array.from({ length: 20 }, (_, n) => install(`n${n}`, () => pause(20 + n))),
      {
        replan: async () => {
          looked++;
          await pause(100);
          return [];
        },
      },
    );
    expect(outcome.done).toBe(20);
    expect(looked).toBeLessThanOrEqual(3);
  });
});

describe('programs of a node that compete for its CPU', () => {
  it('are nice to the one that most waits for', async () => {
    const own = 'cut -d " " -f 19 /proc/self/stat';
    const heavy = act('n', 'long', say('first', `echo "$(${own})" >${dir}/long`));
    const rest = act('n', 'long', say('second', 'true'), [heavy.action.id]);
    const light = act('n', 'short', say('only', `echo "$(${own})" >${dir}/short`));
    const seconds = (a: NodeAction, expectedSeconds: number) => ({ ...a, action: { ...a.action, expectedSeconds } });
    const out = await walk([seconds(heavy, 30), seconds(rest, 30), seconds(light, 6)]);
    expect(out.failed).toEqual([]);
    const base = Number(readFileSync('/proc/self/stat', 'utf8').split(' ')[18]);
    expect(Number(readFileSync(join(dir, 'long'), 'utf8')) - base).toBe(0);
    // A tenth of the way: 9 of 10.
    expect(Number(readFileSync(join(dir, 'short'), 'utf8')) - base).toBe(9);
  });

  it('have their full share when there is nothing else', () => {
    expect([niceness(30, 30), niceness(0, 0), niceness(0, 30), niceness(15, 30)]).toEqual([0, 0, 10, 5]);
  });
});
