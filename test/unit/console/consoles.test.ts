import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { consoleSocket, createConsoles, escapeForSol } from '../../../provisioner/console/consoles.js';
import { openRecording, readRecording } from '../../../provisioner/console/recording.js';
import { silentLog } from '../../../provisioner/core/log.js';

let dir: string;
const cleanups: (() => unknown)[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hal-console-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  rmSync(dir, { recursive: true, force: true });
});

/** A serial line: what is written to it comes to `typed`, `say` sends to all clients. */
async function serialLine() {
  const path = join(dir, 'line.sock');
  const clients = new Set<Socket>();
  let typed = '';
  const server: Server = createServer(socket => {
    clients.add(socket);
    socket.on('data', data => {
      typed += data;
    });
    socket.on('close', () => clients.delete(socket));
    socket.on('error', () => {});
  });
  await new Promise<void>(resolve => server.listen(path, resolve));
  const hangUp = () => {
    for (const client of clients) client.destroy();
  };
  cleanups.push(() => {
    hangUp();
    return new Promise(resolve => server.close(resolve));
  });
  return {
    path,
    clients,
    hangUp,
    typed: () => typed,
    say: (text: string | Buffer) => {
      for (const client of clients) client.write(text);
    },
  };
}

function consolesOn(path: string | null, more: object = {}) {
  const consoles = createConsoles({
    dir: join(dir, 'rec'),
    lookup: () => (path ? { kind: 'socket', path } : null),
    log: silentLog,
    retryMs: 10,
    ...more,
  });
  cleanups.push(() => consoles.close());
  return consoles;
}

/** Collects what a watcher sees. */
function watch(stream: AsyncIterable<Buffer>) {
  const seen = { text: '', over: false };
  void (async () => {
    for await (const data of stream) seen.text += data.toString();
    seen.over = true;
  })();
  return seen;
}

describe('a serial console', () => {
  test('is seen by several watchers and recorded', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    const stop = new AbortController();
    const [a, b] = [watch(consoles.follow('n1', stop.signal)), watch(consoles.follow('n1', stop.signal))];
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    line.say('login: ');
    await vi.waitFor(() => expect([a.text, b.text]).toEqual(['login: ', 'login: ']));
    expect((await consoles.tail('n1', 100)).toString()).toBe('login: ');
    expect((await consoles.tail('n1', 2)).toString()).toBe(': ');
    stop.abort();
    await vi.waitFor(() => expect([a.over, b.over]).toEqual([true, true]));
  });

  test('takes input of one client at a time', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    await consoles.write('n1', 'root\r', 'anna');
    await vi.waitFor(() => expect(line.typed()).toBe('root\r'));
    await expect(consoles.write('n1', 'x', 'ben')).rejects.toMatchObject({ problem: { code: 'conflict' } });
    await consoles.write('n1', '~.', 'anna');
    await vi.waitFor(() => expect(line.typed()).toBe('root\r~.'));
  });

  test('comes back when the line was cut, and says so to those who watch', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    const seen = watch(consoles.follow('n1', new AbortController().signal));
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    line.say('before ');
    await vi.waitFor(() => expect(seen.text).toBe('before '));
    line.hangUp();
    await vi.waitFor(() => expect(seen.text).toMatch(/does not answer/));
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    line.say('after');
    await vi.waitFor(() => expect(seen.text).toMatch(/after$/));
    expect((await consoles.tail('n1', 100)).toString()).toBe('before after');
  });

  test('is recorded without a watcher, until that is stopped', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    consoles.record('n1');
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    line.say('kernel panic');
    await vi.waitFor(async () => expect((await consoles.tail('n1', 100)).toString()).toBe('kernel panic'));
    consoles.stop('n1');
    await vi.waitFor(() => expect(line.clients.size).toBe(0));
  });

  test('lets go of the line some time after its last watcher', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path, { lingerMs: 30 });
    const stop = new AbortController();
    watch(consoles.follow('n1', stop.signal));
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    stop.abort();
    await vi.waitFor(() => expect(line.clients.size).toBe(0));
  });

  test('tells a slow watcher how much it missed, and never waits for it', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    const slow = consoles.follow('n1', new AbortController().signal)[Symbol.asyncIterator]();
    const first = slow.next();
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    line.say('begin');
    await first;
    const block = Buffer.alloc(64 * 1024, 'x');
    for (let i = 0; i < 48; i++) line.say(block);
    await vi.waitFor(async () => expect((await consoles.tail('n1', 9e9)).length).toBe(5 + 48 * block.length));
    const next = (await slow.next()).value as Buffer;
    expect(next.toString('latin1', 0, 60)).toMatch(/\[console: \d+ bytes were skipped\]/);
    expect(next.length).toBeLessThan(1.2 * 1024 * 1024);
    await slow.return?.();
  });

  test('is refused for a node without one, and for a name that is no node id', async () => {
    const consoles = consolesOn(null);
    const follow = consoles.follow('n1', new AbortController().signal)[Symbol.asyncIterator]();
    await expect(follow.next()).rejects.toMatchObject({ problem: { code: 'console-missing' } });
    await expect(consoles.write('n1', 'x')).rejects.toMatchObject({ problem: { code: 'console-missing' } });
    await expect(consoles.tail('../../etc/passwd', 10)).rejects.toMatchObject({ problem: { code: 'node-unknown' } });
  });

  test('stands as a socket under the MAC of the node', async () => {
    writeFileSync(join(dir, '52-54-00-99-00-0a.sock'), '');
    expect(consoleSocket(dir, ['52:54:00:98:00:01', '52:54:00:99:00:0A'])).toBe(join(dir, '52-54-00-99-00-0a.sock'));
    expect(consoleSocket(dir, ['52:54:00:98:00:01'])).toBeNull();
  });

  test('ends its watchers when the server ends', async () => {
    const line = await serialLine();
    const consoles = consolesOn(line.path);
    const seen = watch(consoles.follow('n1', new AbortController().signal));
    await vi.waitFor(() => expect(line.clients.size).toBe(1));
    await consoles.close();
    await vi.waitFor(() => expect(seen.over).toBe(true));
  });
});

describe('Serial over LAN', () => {
  test('does not let a tilde at the start of a line end ipmitool', () => {
    const typed = (text: string, start = true) => escapeForSol(Buffer.from(text), start).data.toString();
    expect(typed('~.')).toBe('~~.');
    expect(typed('cd ~\r~.')).toBe('cd ~\r~~.');
    expect(typed('~', false)).toBe('~');
    expect(escapeForSol(Buffer.from('x\r'), false).lineStart).toBe(true);
  });

  test('tries refused credentials two times only', async () => {
    // An ipmitool that refuses like the real one, and counts.
    const bin = join(dir, 'bin');
    const count = join(dir, 'count');
    mkdirSync(bin);
    writeFileSync(count, '');
    writeFileSync(
      join(bin, 'ipmitool'),
      `#!/bin/sh\necho x >> ${count}\necho "> RAKP 2 HMAC is invalid" >&2\necho "Error: Unable to establish IPMI v2 / RMCP+ session" >&2\nexit 1\n`,
    );
    chmodSync(join(bin, 'ipmitool'), 0o755);
    vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`);
    cleanups.push(() => vi.unstubAllEnvs());
    const consoles = createConsoles({
      dir: join(dir, 'rec'),
      lookup: () => ({
        kind: 'sol',
        bmc: { driver: 'ipmi', address: '192.0.2.1', user: 'u', cipher_suite: 3 },
        password: 'x',
      }),
      log: silentLog,
      retryMs: 5,
    });
    cleanups.push(() => consoles.close());
    const seen = watch(consoles.follow('n1', new AbortController().signal));
    await vi.waitFor(() => expect(seen.text).toMatch(/refused the user name or password/));
    await new Promise(resolve => setTimeout(resolve, 300));
    expect(readFileSync(count, 'utf8')).toBe('x\nx\n');
  });
});

describe('a recording', () => {
  test('keeps at most two parts, newest bytes last, for root only', () => {
    const path = join(dir, 'c.log');
    const recording = openRecording(path, 100);
    for (let i = 0; i < 50; i++) recording.write(Buffer.from(`line ${String(i).padStart(2, '0')}\n`));
    recording.write(Buffer.alloc(1000, 'y'));
    recording.close();
    expect(statSync(path).size + statSync(`${path}.1`).size).toBeLessThanOrEqual(200);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readRecording(path, 150).toString()).toMatch(/line 49\ny{100}$/);
    expect(readRecording(join(dir, 'none'), 10)).toHaveLength(0);
  });
});
