/** A server namespace with a bridge, client namespaces behind veth pairs, and programs run in them. */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';

const CLONE_NEWNET = 0x40000000;

const run = (argv: readonly string[]) =>
  execFileSync(argv[0]!, argv.slice(1), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** Moves this thread, and what it starts, into a network namespace. Returns the way back. */
function enter(file: string): () => void {
  const setns = koffi.load('libc.so.6').func('int setns(int fd, int type)');
  const go = (fd: number) => {
    if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns: errno ${koffi.errno()}`);
    closeSync(fd);
  };
  const home = openSync('/proc/thread-self/ns/net', 'r');
  go(openSync(file, 'r'));
  return () => go(home);
}

export interface Finished {
  readonly code: number | null;
  readonly output: string;
}

export interface Lab {
  readonly dir: string;
  readonly server: string;
  /** A namespace with one interface `eth0` on the bridge (or on another one), and its Ethernet address. */
  client(mac: string, bridge?: string): string;
  /** A bridge in the server's namespace. */
  bridge(name: string, address: string): void;
  /** A tap on a bridge, for QEMU. */
  tap(name: string, bridge: string): void;
  /** Runs a program in a namespace until it ends or until `timeoutMs`, when it is killed with its children. */
  exec(namespace: string, argv: readonly string[], timeoutMs?: number, env?: Record<string, string>): Promise<Finished>;
  /** Starts a program that runs on; it ends with the lab at the latest. */
  start(namespace: string, argv: readonly string[]): { stop(): Promise<void>; output(): string };
  ip(namespace: string, ...argv: string[]): string;
  close(): Promise<void>;
}

/** Makes the lab and puts this thread into the server's namespace. */
export function openLab(): Lab {
  const id = randomBytes(3).toString('hex');
  const server = `hd${id}s`;
  const namespaces: string[] = [];
  const running = new Set<() => Promise<void>>();
  const dir = mkdtempSync(join(tmpdir(), 'halligan-dhcp-'));
  const namespace = (name: string) => {
    run(['ip', 'netns', 'add', name]);
    namespaces.push(name);
    run(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
  };
  namespace(server);
  const leave = enter(`/run/netns/${server}`);
  let count = 0;

  const launch = (ns: string, argv: readonly string[], env?: Record<string, string>) => {
    // A session of its own, so that the whole group can be ended and nothing of it stays.
    const child = spawn('ip', ['netns', 'exec', ns, ...argv], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += String(chunk)));
    const ended = new Promise<number | null>(resolve => {
      child.once('error', () => resolve(null));
      child.once('close', resolve);
    });
    const stop = async () => {
      running.delete(stop);
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        try {
          process.kill(-child.pid!, signal);
        } catch {
          // ended already
        }
        if (await Promise.race([ended.then(() => true), new Promise(r => setTimeout(r, 2000, false))])) return;
      }
    };
    running.add(stop);
    return { ended, stop, output: () => output };
  };

  return {
    dir,
    server,
    bridge(name, address) {
      for (const argv of [
        ['link', 'add', name, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0'],
        ['addr', 'add', address, 'dev', name],
        ['link', 'set', name, 'up'],
      ])
        run(['ip', '-n', server, ...argv]);
    },
    tap(name, bridge) {
      for (const argv of [
        ['tuntap', 'add', name, 'mode', 'tap'],
        ['link', 'set', name, 'master', bridge, 'up'],
      ])
        run(['ip', '-n', server, ...argv]);
    },
    client(mac, bridge = 'br0') {
      const ns = `hd${id}c${count++}`;
      const port = `v${count}`;
      namespace(ns);
      run([
        'ip',
        '-n',
        server,
        'link',
        'add',
        port,
        'type',
        'veth',
        'peer',
        'name',
        'eth0',
        'address',
        mac,
        'netns',
        ns,
      ]);
      run(['ip', '-n', server, 'link', 'set', port, 'master', bridge, 'up']);
      run(['ip', '-n', ns, 'link', 'set', 'eth0', 'up']);
      return ns;
    },
    async exec(ns, argv, timeoutMs = 30_000, env = {}) {
      const job = launch(ns, argv, env);
      const timer = setTimeout(() => void job.stop(), timeoutMs);
      const code = await job.ended;
      clearTimeout(timer);
      await job.stop();
      return { code, output: job.output() };
    },
    start: (ns, argv) => launch(ns, argv),
    ip: (ns, ...argv) => run(['ip', '-n', ns, ...argv]),
    async close() {
      for (const stop of [...running]) await stop();
      leave();
      for (const ns of namespaces.reverse()) {
        try {
          run(['ip', 'netns', 'del', ns]);
        } catch {
          // a failed set-up may not have made it
        }
      }
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
