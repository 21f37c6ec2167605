import { mkdtempSync, readFileSync, statSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../provisioner/core/clock.js';
import { hostKeyFingerprint, scanHostKey } from '../../../provisioner/core/executor/connection.js';
import { createExecutor, type PooledExecutor } from '../../../provisioner/core/executor/executor.js';
import { shQuote } from '../../../provisioner/core/executor/quote.js';
import type { SshTarget } from '../../../provisioner/core/executor/types.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { type ShellServer, type ShellServerOptions, soundKeyPair, startShellServer } from './shell-server.js';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const ours = soundKeyPair();

async function server(options: ShellServerOptions = {}): Promise<ShellServer> {
  const s = await startShellServer({ acceptKey: ours.public.trim(), ...options });
  closers.push(() => s.close());
  return s;
}

function executor(options: Partial<Parameters<typeof createExecutor>[0]> = {}): PooledExecutor {
  const e = createExecutor({
    privateKey: ours.private,
    maxConnections: 4,
    clock: systemClock,
    log: silentLog,
    connectTimeoutMs: 3000,
    ...options,
  });
  closers.push(() => e.close());
  return e;
}

const at = (s: ShellServer, extra: Partial<SshTarget> = {}): SshTarget => ({
  address: '127.0.0.1',
  port: s.port,
  user: 'root',
  hostKey: s.hostKey,
  ...extra,
});

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no problem',
    error => error.problem?.code ?? String(error),
  );

describe('one command', () => {
  it('yields code, stdout and stderr apart, and takes stdin', async () => {
    const target = at(await server());
    const result = await executor().run(target, 'cat; echo oops >&2; exit 3', { stdin: 'häl\0lo' });
    expect(result).toEqual({ code: 3, stdout: 'häl\0lo', stderr: 'oops\n' });
  });

  it('passes hostile words through the quoting helper untouched', async () => {
    const target = at(await server());
    const e = executor();
    for (const word of ["a'b", '$(touch x)', '`id`', '"; rm', '\n', '*', '-n', '\\', "''", '\u2028😀', ' '])
      expect((await e.run(target, `printf %s ${shQuote(word)}`)).stdout).toBe(word);
  });

  it('ends after its time with timed-out, and the connection stays usable', async () => {
    const target = at(await server());
    const e = executor();
    expect(await codeOf(e.run(target, 'sleep 30', { timeoutMs: 200 }))).toBe('timed-out');
    expect((await e.run(target, 'echo on')).stdout).toBe('on\n');
    expect(e.stats().connections).toBe(1);
  });

  it('ends at once with the reason of the signal when it is aborted', async () => {
    const target = at(await server());
    const abort = new AbortController();
    const running = executor().run(target, 'sleep 30', { signal: abort.signal });
    setTimeout(() => abort.abort(new Error('shutting down')), 200);
    await expect(running).rejects.toThrow('shutting down');
  });

  it('cuts off a command that prints without end', async () => {
    const target = at(await server());
    expect(await codeOf(executor().run(target, 'yes', { maxOutputBytes: 100_000 }))).toBe('output-limit');
  });

  it('says ssh-failed when the connection is lost in the middle, and does not run the command again', async () => {
    const s = await server();
    const running = executor().run(at(s), 'sleep 5');
    setTimeout(() => s.cut(), 300);
    expect(await codeOf(running)).toBe('ssh-failed');
    expect(s.seen.filter(line => line.startsWith('exec'))).toHaveLength(1);
  });

  it('opens a new connection when the pooled one turns out to be dead', async () => {
    const s = await server();
    const e = executor();
    await e.run(at(s), 'true');
    s.cut();
    expect((await e.run(at(s), 'echo again')).stdout).toBe('again\n');
  });

  it('opens a new connection when a channel was not opened, since nothing was sent', async () => {
    const s = await server({ deafChannels: 1 });
    expect((await executor({ connectTimeoutMs: 500 }).run(at(s), 'echo on')).stdout).toBe('on\n');
    expect(s.accepted()).toBe(2);
  });

  it('gives up on a server that never answers the opening of a channel, after three connections', async () => {
    const s = await server({ deafChannels: true });
    const error = await executor({ connectTimeoutMs: 500 })
      .run(at(s), 'true')
      .catch(e => e);
    expect(error.problem).toMatchObject({ code: 'ssh-failed', detail: { began: false } });
    expect(error.problem.message).toMatch(/did not open a channel: no answer/);
    expect(s.accepted()).toBe(3);
  });

  it('sends no command twice that was not answered: it may have begun', async () => {
    const s = await server({ deafCommands: true });
    const error = await executor({ connectTimeoutMs: 500 })
      .run(at(s), 'true')
      .catch(e => e);
    expect(error.problem).toMatchObject({ code: 'ssh-failed', detail: { began: true } });
    expect(error.problem.message).toMatch(/did not start a command: no answer/);
    expect(s.seen.filter(line => line.startsWith('exec'))).toHaveLength(1);
  });

  it('takes a new connection when the node opens no more channels on the one it has', async () => {
    const s = await server({ maxSessions: 2 });
    const e = executor();
    for (const word of ['1', '2', '3', '4', '5']) expect((await e.run(at(s), `echo ${word}`)).stdout).toBe(`${word}\n`);
    expect(s.accepted()).toBe(3);
    expect(e.stats().connections).toBe(1);
  });

  it('waits for a node whose login manager is slow longer than for one that is silent', async () => {
    const s = await server({ sessionAfterMs: 900 });
    const e = executor({ connectTimeoutMs: 300 });
    const began = Date.now();
    let sentMs = 0;
    const onSend = () => {
      sentMs = Date.now();
    };
    expect((await e.run(at(s), 'echo in', { onSend })).stdout).toBe('in\n');
    // Known to be no time of the command: what is measured over a command begins with the session.
    expect(sentMs - began).toBeGreaterThanOrEqual(890);
    expect(s.accepted()).toBe(1);
  });

  it('says that no session was opened, and why that may be', async () => {
    const s = await server({ sessionAfterMs: 60_000 });
    const error = await executor({ sessionTimeoutMs: 300 })
      .run(at(s), 'true')
      .catch(e => e);
    expect(error.problem.message).toMatch(/accepted our login but did not open a session: no answer within 0.3 s/);
    expect(error.problem.hint).toContain('systemd-logind');
    expect(s.seen.filter(line => line.startsWith('exec'))).toEqual([]);
  });

  it('quotes the whole command once more for sudo', async () => {
    const s = await server({
      onExec: (_command, channel) => {
        channel.exit(0);
        channel.end();
      },
    });
    await executor().run(at(s, { sudo: true }), `echo 'a b'`);
    expect(s.seen).toContain(`exec sudo -n -- sh -c 'echo '\\''a b'\\'''`);
  });
});

describe('host keys', () => {
  it('refuses a server that shows another key, before any credential is sent', async () => {
    const s = await server();
    const other = soundKeyPair().public.trim();
    expect(await codeOf(executor().run(at(s, { hostKey: other }), 'true'))).toBe('host-key-mismatch');
    expect(s.seen).toEqual([]);
  });

  it('refuses a server that has no key of the type that was handed over', async () => {
    const s = await server({ keyType: 'ecdsa' });
    const expected = soundKeyPair().public.trim();
    expect(await codeOf(executor().run(at(s, { hostKey: expected }), 'true'))).toBe('host-key-mismatch');
    expect(s.seen).toEqual([]);
  });

  it('refuses a target whose host key is missing or garbled rather than trusting anything', async () => {
    const s = await server();
    const e = executor();
    for (const hostKey of ['', 'ssh-ed25519', 'ssh-ed25519 AAAA', 'ssh-dss AAAAB3NzaC1kc3M=', 'constructor AAAA'])
      expect(await codeOf(e.run(at(s, { hostKey }), 'true'))).toBe('request-invalid');
    expect(s.open()).toBe(0);
  });

  it('does not share a connection between two expectations of the same address', async () => {
    const s = await server();
    const e = executor();
    await e.run(at(s), 'true');
    expect(await codeOf(e.run(at(s, { hostKey: soundKeyPair().public }), 'true'))).toBe('host-key-mismatch');
  });

  it('can be asked for without logging in', async () => {
    const s = await server();
    const found = await scanHostKey({ address: '127.0.0.1', port: s.port, user: 'root' }, { connectTimeoutMs: 2000 });
    expect(found.hostKey).toBe(s.hostKey);
    expect(found.fingerprint).toBe(hostKeyFingerprint(Buffer.from(s.hostKey.split(' ')[1]!, 'base64')));
    expect(s.seen).toEqual([]);
  });

  it('says that a refused login is one, and tells no secret', async () => {
    const s = await server({ acceptKey: soundKeyPair().public });
    const error = await executor()
      .run(at(s), 'true')
      .catch(e => e);
    expect(error.problem).toMatchObject({ code: 'ssh-failed', detail: { authentication: true } });
    expect(JSON.stringify(error.problem)).not.toContain('PRIVATE');
  });
});

describe('writing a file', () => {
  it('writes every byte with the mode that was asked for, over what stood there', async () => {
    const target = at(await server());
    const e = executor();
    const file = join(mkdtempSync(join(tmpdir(), 'hal-')), "it's a file");
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) % 256));
    await e.write(target, file, 'old', 0o644);
    await e.write(target, file, bytes, 0o600);
    expect(readFileSync(file).equals(bytes)).toBe(true);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it('leaves the old file when the connection breaks off half-way', async () => {
    const s = await server();
    const e = executor();
    const file = join(mkdtempSync(join(tmpdir(), 'hal-')), 'f');
    await e.write(at(s), file, 'old', 0o644);
    const slow = await server({
      onExec: (command, _channel, run) => {
        if (!command.includes('mktemp')) return run();
        // Passes on a part of the content, then loses the connection.
        run();
        setTimeout(() => slow.cut(), 30);
      },
    });
    const result = await codeOf(e.write(at(slow), file, Buffer.alloc(200_000_000, 1), 0o644));
    expect(result).toBe('ssh-failed');
    await new Promise(r => setTimeout(r, 300));
    expect(readFileSync(file, 'utf8')).toBe('old');
  });

  it('says why when it cannot', async () => {
    const target = at(await server());
    expect(await codeOf(executor().write(target, '/nonexistent-folder/f', 'x', 0o600))).toBe('command-failed');
  });
});

describe('closing', () => {
  it('waits two seconds for a peer that has vanished, no longer', async () => {
    const s = await server();
    // A peer without power: nothing comes back, not even the end of the stream.
    const sockets: net.Socket[] = [];
    const cable = net.createServer({ allowHalfOpen: true }, near => {
      const far = net.connect(s.port, '127.0.0.1');
      sockets.push(near, far);
      near.on('data', chunk => far.write(chunk)).on('error', () => {});
      far.on('data', chunk => near.write(chunk)).on('error', () => {});
    });
    await new Promise<void>(done => cable.listen(0, '127.0.0.1', done));
    closers.push(async () => {
      for (const socket of sockets) socket.destroy();
      cable.close();
    });
    const e = executor();
    await e.run(at(s, { port: (cable.address() as net.AddressInfo).port }), 'true');
    for (const socket of sockets) socket.removeAllListeners('data').resume();
    const began = Date.now();
    await e.close();
    expect(Date.now() - began).toBeLessThan(6000);
  });
});

describe('many at once', () => {
  it('never holds more connections than allowed, and serves everybody', async () => {
    // A server is busy from a command's begin to before its end is sent: within the life of the lease on our side. Its
    // sockets would not do, since one that was closed may be seen for a while.
    const running = new Map<number, number>();
    let most = 0;
    const busy = (i: number, change: number) => {
      running.set(i, (running.get(i) ?? 0) + change);
      most = Math.max(most, [...running.values()].filter(n => n > 0).length);
    };
    const servers = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        server({
          onExec: (command, channel) => {
            busy(i, 1);
            setTimeout(() => {
              busy(i, -1);
              channel.write(command.replace('echo ', ''));
              channel.exit(0);
              channel.end();
            }, 20);
          },
        }),
      ),
    );
    const e = executor({ maxConnections: 2 });
    const all = await Promise.all(
      Array.from({ length: 24 }, (_, i) => e.run(at(servers[i % 6]!), `echo ${i}`).then(r => r.stdout.trim())),
    );
    expect(all).toEqual(Array.from({ length: 24 }, (_, i) => String(i)));
    expect(most).toBe(2);
    expect(e.stats()).toMatchObject({ leases: 0, waiting: 0 });
  });
});
