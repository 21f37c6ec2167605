import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../provisioner/core/clock.js';
import { DROPPED } from '../../provisioner/core/executor/detached.js';
import { createExecutor, type PooledExecutor } from '../../provisioner/core/executor/executor.js';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import { silentLog } from '../../provisioner/core/log.js';
import { soundKeyPair } from '../unit/executor/shell-server.js';
import { type Cable, type SystemdHost, startCable, startSystemdHost } from './systemd-host.js';

let host: SystemdHost;
let counter = 0;
const closers: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  host = await startSystemdHost();
});
afterAll(async () => {
  await host?.stop();
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const target = (extra: Partial<SshTarget> = {}): SshTarget => ({
  address: '127.0.0.1',
  port: host.port,
  user: 'root',
  hostKey: host.hostKey,
  ...extra,
});
const unit = () => `hal-test-${process.pid}-${++counter}`;
function executor(options: Partial<Parameters<typeof createExecutor>[0]> = {}): PooledExecutor {
  const e = createExecutor({
    privateKey: host.privateKey,
    maxConnections: 4,
    clock: systemClock,
    log: silentLog,
    ...options,
  });
  closers.push(() => e.close());
  return e;
}
async function cable(): Promise<Cable> {
  const c = await startCable(host.port);
  closers.push(() => c.close());
  return c;
}
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no problem',
    error => error.problem?.code ?? String(error),
  );
const numbers = (n: number) => Array.from({ length: n }, (_, i) => `line ${i + 1}`);
const counting = (n: number, pause: string) =>
  `echo once >>/root/ran-$1; i=0; while [ $i -lt ${n} ]; do i=$((i+1)); echo "line $i"; sleep ${pause}; done; exit 7`;
/** The script of `counting`, which also leaves a mark each time it runs. */
const countingJob = (name: string, n: number, pause: string) => ({
  unit: name,
  script: counting(n, pause).replace('$1', name),
  timeoutMs: 120_000,
});
const timesRun = async (e: PooledExecutor, name: string) =>
  (await e.run(target(), `cat /root/ran-${name}`)).stdout.split('\n').filter(Boolean).length;

describe('detached work on real systemd', () => {
  it('yields each line once, in order, with true byte offsets, and the exit code', async () => {
    const lines: [string, number][] = [];
    const result = await executor().detached(
      target(),
      { unit: unit(), script: 'echo häl; printf "\\n"; echo err >&2; printf "no newline"; exit 3', timeoutMs: 20_000 },
      (line, offset) => lines.push([line, offset]),
    );
    expect(result).toMatchObject({ kind: 'exited', code: 3 });
    expect(lines).toEqual([
      ['häl', 5],
      ['', 6],
      ['err', 10],
      ['no newline', 20],
    ]);
  });

  it('delivers a line while the script still runs', async () => {
    const began = Date.now();
    let heardMs = Number.POSITIVE_INFINITY;
    await executor().detached(target(), { unit: unit(), script: 'echo now; sleep 4', timeoutMs: 20_000 }, () => {
      heardMs = Date.now() - began;
    });
    expect(heardMs).toBeLessThan(2500);
  });

  it('passes secrets by a file that is gone when the script runs, never by a command line or a property', async () => {
    const e = executor();
    const name = unit();
    const secret = `s3cr3t'"$(id)\n${Math.random()}`;
    const lines: string[] = [];
    await e.detached(
      target(),
      {
        unit: name,
        script: `printf '%s\\n' "$TOKEN"; ls /run/halligan/${name}/env 2>&1; systemctl show ${name} | grep -c s3cr3t; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c s3cr3[t]; stat -c %a /run/halligan /run/halligan/${name}`,
        env: { TOKEN: secret },
        timeoutMs: 20_000,
      },
      line => lines.push(line),
    );
    expect(lines.slice(0, 2).join('\n')).toBe(secret);
    expect(lines.slice(2)).toEqual([
      `ls: cannot access '/run/halligan/${name}/env': No such file or directory`,
      '0',
      '0',
      '700',
      '700',
    ]);
  });

  it('runs a unit once, however many start it at the same time, and every one of them gets all lines', async () => {
    const name = unit();
    const job = countingJob(name, 10, '0.05');
    const all = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const lines: string[] = [];
        const result = await executor().detached(target(), job, line => lines.push(line));
        return { lines, result };
      }),
    );
    for (const { lines, result } of all) {
      expect(lines).toEqual(numbers(10));
      expect(result).toMatchObject({ kind: 'exited', code: 7 });
    }
    expect(await timesRun(executor(), name)).toBe(1);
  });

  it('gives the same result again after the end, from any offset, without running anything', async () => {
    const e = executor();
    const name = unit();
    const job = countingJob(name, 3, '0');
    const first: number[] = [];
    await e.detached(target(), job, (_line, offset) => first.push(offset));
    const again: string[] = [];
    const result = await e.detached(target(), job, line => again.push(line), { fromOffset: first[0]! });
    expect(result).toMatchObject({ kind: 'exited', code: 7 });
    expect(again).toEqual(['line 2', 'line 3']);
    expect(await timesRun(e, name)).toBe(1);
  });

  it('goes on after each cut of the connection, and delivers no line twice', async () => {
    const c = await cable();
    const name = unit();
    const lines: string[] = [];
    let cuts = 0;
    // Cut by progress, not by the clock: on a busy machine a handshake may take longer than any fixed interval.
    const result = await executor().detached(target({ port: c.port }), countingJob(name, 100, '0.05'), line => {
      if (lines.push(line) % 15 === 0) {
        cuts++;
        c.cut();
      }
    });
    expect(result).toMatchObject({ kind: 'exited', code: 7 });
    expect(lines).toEqual(numbers(100));
    expect(cuts).toBeGreaterThan(3);
    expect(await timesRun(executor(), name)).toBe(1);
  });

  it('waits for a node that cannot be reached for a while, and says ssh-failed when that lasts', async () => {
    const c = await cable();
    const lines: string[] = [];
    const patient = executor({ reconnectMs: 10_000 }).detached(
      target({ port: c.port }),
      countingJob(unit(), 10, '0.2'),
      line => lines.push(line),
    );
    setTimeout(() => c.unplug(), 500);
    setTimeout(() => c.plug(), 3500);
    expect(await patient).toMatchObject({ kind: 'exited', code: 7 });
    expect(lines).toEqual(numbers(10));
    const impatient = executor({ reconnectMs: 1000 }).detached(
      target({ port: c.port }),
      countingJob(unit(), 50, '0.2'),
      () => {},
    );
    setTimeout(() => c.unplug(), 500);
    expect(await codeOf(impatient)).toBe('ssh-failed');
  });

  it('finishes after the server was killed three times in the middle: nothing twice, nothing lost', async () => {
    const dist = resolve('.cache', `test-dist-${process.pid}`);
    const dir = mkdtempSync(join(tmpdir(), 'hal-kill-'));
    closers.push(() => {
      rmSync(dist, { recursive: true, force: true });
      rmSync(dir, { recursive: true, force: true });
    });
    // Type faults elsewhere in the tree are no concern of this test; tsc emits all the same.
    await promisify(execFile)(resolve('node_modules/.bin/tsc'), ['-p', 'tsconfig.json', '--outDir', dist]).catch(
      () => {},
    );
    const name = unit();
    const journal = join(dir, 'journal');
    const spec = join(dir, 'spec.json');
    writeFileSync(journal, '');
    writeFileSync(
      spec,
      JSON.stringify({
        privateKey: host.privateKey,
        target: target(),
        job: countingJob(name, 150, '0.1'),
        journal,
      }),
    );
    const start = (): ChildProcess => spawn(process.execPath, [join(dist, 'test/spine/executor-child.js'), spec]);
    const lineCount = () => readFileSync(journal, 'utf8').split('\n').length - 1;
    for (const killAt of [5, 35, 65]) {
      const child = start();
      const ended = new Promise(done => child.once('exit', done));
      const until = Date.now() + 30_000;
      while (lineCount() < killAt && Date.now() < until) await new Promise(done => setTimeout(done, 20));
      child.kill('SIGKILL');
      await ended;
      expect(lineCount()).toBeGreaterThanOrEqual(killAt);
      expect(lineCount()).toBeLessThan(150);
    }
    const last = start();
    let said = '';
    last.stdout!.on('data', chunk => {
      said += chunk;
    });
    await new Promise(done => last.once('close', done));
    expect(JSON.parse(said)).toMatchObject({ kind: 'exited', code: 7 });
    const seen = readFileSync(journal, 'utf8').split('\n').filter(Boolean);
    expect(seen.map(line => line.replace(/^\d+ /, ''))).toEqual(numbers(150));
    expect(await timesRun(executor(), name)).toBe(1);
  });

  it('stops a unit that runs too long, with all its processes, and says timed-out each time it is asked', async () => {
    const e = executor();
    const name = unit();
    const job = {
      unit: name,
      script: `echo begun; sleep 4242 & trap '' TERM; while :; do sleep 1; done`,
      timeoutMs: 1500,
    };
    const problem = await e.detached(target(), job, () => {}).catch(error => error.problem);
    expect(problem).toMatchObject({ code: 'timed-out' });
    expect(problem.message).toContain('begun');
    expect((await e.run(target(), 'cat /proc/[0-9]*/cmdline | tr "\\0" " " | grep -c "sleep 424[2]"')).stdout).toBe(
      '0\n',
    );
    expect(await codeOf(e.detached(target(), job, () => {}))).toBe('timed-out');
  });

  it('can be stopped, and the follower sees it end', async () => {
    const e = executor();
    const name = unit();
    const running = e.detached(target(), { unit: name, script: 'echo on; sleep 300', timeoutMs: 60_000 }, () => {});
    await new Promise(done => setTimeout(done, 1000));
    await e.stop(target(), name);
    expect(await running).toMatchObject({ kind: 'exited', code: 143 });
    await e.stop(target(), name);
    await e.stop(target(), 'hal-never-was');
  });

  it('leaves the unit alone when the caller is aborted', async () => {
    const e = executor();
    const name = unit();
    const job = countingJob(name, 20, '0.1');
    const abort = new AbortController();
    const first = e.detached(target(), job, () => {}, { signal: abort.signal });
    setTimeout(() => abort.abort(new Error('shutting down')), 600);
    await expect(first).rejects.toThrow('shutting down');
    const lines: string[] = [];
    expect(await e.detached(target(), job, line => lines.push(line))).toMatchObject({ kind: 'exited', code: 7 });
    expect(lines).toEqual(numbers(20));
    expect(await timesRun(e, name)).toBe(1);
  });

  it('does not wait for what a script leaves behind in the background', async () => {
    const began = Date.now();
    const result = await executor().detached(
      target(),
      { unit: unit(), script: 'sleep 300 & echo done', timeoutMs: 60_000 },
      () => {},
    );
    expect(result).toMatchObject({ kind: 'exited', code: 0 });
    expect(Date.now() - began).toBeLessThan(15_000);
  });

  it('tells a script that was killed from one that ended', async () => {
    const result = await executor().detached(
      target(),
      { unit: unit(), script: 'kill -KILL $PPID; sleep 5', timeoutMs: 20_000 },
      () => {},
    );
    expect(result).toMatchObject({ kind: 'exited', code: 137 });
  });

  it('bounds what a talkative script leaves in the memory of the node, and says that more was dropped', async () => {
    let bytes = 0;
    let last = '';
    const result = await executor().detached(
      target(),
      { unit: unit(), script: 'head -c 40000000 /dev/zero | tr "\\0" x; exit 0', timeoutMs: 60_000 },
      line => {
        bytes += line.length;
        last = line;
      },
    );
    expect(result).toMatchObject({ kind: 'exited', code: 0 });
    expect(bytes).toBeLessThan(17_000_000);
    expect(last).toBe(DROPPED);
  });

  it('works as a login user with sudo', async () => {
    const e = executor();
    const lines: string[] = [];
    const op = target({ user: 'op', sudo: true });
    const result = await e.detached(op, { unit: unit(), script: 'id -un', timeoutMs: 20_000 }, line =>
      lines.push(line),
    );
    expect(result).toMatchObject({ kind: 'exited', code: 0 });
    expect(lines).toEqual(['root']);
    await e.write(op, '/etc/halligan-test', 'x\0y', 0o640);
    expect((await e.run(op, 'stat -c "%U %a %s" /etc/halligan-test')).stdout).toBe('root 640 3\n');
  });

  it('says command-failed with systemd’s own words when a unit cannot be started, and can be started later', async () => {
    const e = executor();
    const name = unit();
    const plain = target({ user: 'plain', sudo: true });
    const problem = await e
      .detached(plain, { unit: name, script: 'true', timeoutMs: 5000 }, () => {})
      .catch(error => error.problem);
    expect(problem.code).toBe('command-failed');
    expect(problem.message).toMatch(/password is required/);
    expect(await e.detached(target(), { unit: name, script: 'true', timeoutMs: 5000 }, () => {})).toMatchObject({
      kind: 'exited',
      code: 0,
    });
  });

  it('starts again what was stillborn: a folder whose starter was killed before the unit existed', async () => {
    const e = executor();
    const name = unit();
    await e.run(target(), `mkdir -p /run/halligan/${name}`);
    const lines: string[] = [];
    const result = await e.detached(target(), { unit: name, script: 'echo alive', timeoutMs: 60_000 }, line =>
      lines.push(line),
    );
    expect(result).toMatchObject({ kind: 'exited', code: 0 });
    expect(lines).toEqual(['alive']);
  });

  it('shares few connections among many followers, each of which gets its lines', async () => {
    const e = executor({ maxConnections: 2, minHoldMs: 300 });
    const all = await Promise.all(
      host.addresses.map(async address => {
        const lines: string[] = [];
        const result = await e.detached(target({ address }), countingJob(unit(), 40, '0.1'), line => lines.push(line));
        expect(e.stats().connections).toBeLessThanOrEqual(2);
        return { lines, result };
      }),
    );
    for (const { lines, result } of all) {
      expect(lines).toEqual(numbers(40));
      expect(result).toMatchObject({ kind: 'exited', code: 7 });
    }
  });

  it('waits for a session while the login manager of the node is stuck, and runs the command once', async () => {
    await executor().run(
      target(),
      'rm -f /root/once; (sleep 6; systemctl kill -s CONT systemd-logind) >/dev/null 2>&1 & systemctl kill -s STOP systemd-logind',
    );
    const began = Date.now();
    const result = await executor({ connectTimeoutMs: 2000 }).run(target(), 'echo in; echo once >>/root/once');
    expect(result).toMatchObject({ code: 0, stdout: 'in\n' });
    // The login itself is not held up: without the wait for the session, the channel would count as not opened.
    expect(Date.now() - began).toBeGreaterThan(2500);
    expect((await executor().run(target(), 'cat /root/once')).stdout).toBe('once\n');
  });

  it('goes on where sshd opens no more channels: commands that were given up still run on the connection', async () => {
    const e = executor();
    for (let i = 0; i < 12; i++)
      expect(await codeOf(e.run(target(), 'sleep 90', { timeoutMs: 300 }))).toBe('timed-out');
    expect((await e.run(target(), 'echo on')).stdout).toBe('on\n');
    expect(e.stats().connections).toBe(1);
  });

  it('refuses a real sshd with another host key without trying to log in', async () => {
    const e = executor();
    const other = target({ hostKey: soundKeyPair().public });
    expect(await codeOf(e.run(other, 'true'))).toBe('host-key-mismatch');
    expect(await codeOf(e.detached(other, { unit: unit(), script: 'true', timeoutMs: 5000 }, () => {}))).toBe(
      'host-key-mismatch',
    );
  });

  it('says lost when the node was restarted in between, and does not run the work again', async () => {
    const e = executor();
    const name = unit();
    const running = e.detached(target(), countingJob(name, 100, '0.2'), () => {});
    await new Promise(done => setTimeout(done, 1500));
    await host.reboot();
    expect(await running).toMatchObject({ kind: 'lost' });
    expect(
      await e.detached(target(), countingJob(name, 1, '0'), () => {}, { startIfMissing: false, fromOffset: 20 }),
    ).toMatchObject({ kind: 'lost' });
    expect((await e.run(target(), `ls /run/halligan/${name}`)).code).not.toBe(0);
  });
});
