/**
 * The real server as a process of its own, on loopback: no network of nodes is attached (its only network is behind a
 * relay), so that a browser and its API are all that reach it. Nodes are put into its database before it starts.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { systemClock } from '../../provisioner/core/clock.js';
import { createEventFeed } from '../../provisioner/core/events.js';
import { openStore } from '../../provisioner/core/store/store.js';
import { type NodeRepository, openNodeRepository } from '../../provisioner/node/repository.js';

const ROOT = resolve(import.meta.dirname, '../..');
const START_MS = 60_000;
const STOP_MS = 15_000;
/** Of 127/8, so that it collides with no other server of this machine. */
const ADDRESS = '127.0.0.77';

export interface UiServer {
  readonly origin: string;
  /** Answers of the API as JSON. @throws Error with the status and the body where it refuses */
  request<T>(method: string, path: string, body?: unknown): Promise<T>;
  start(): Promise<void>;
  /** By SIGTERM, as systemd does it. */
  stop(): Promise<void>;
  /** Stops it and removes its files. */
  close(): Promise<void>;
}

const freePort = () =>
  new Promise<number>((resolvePort, reject) => {
    const server = createServer();
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (typeof address === 'object' && address ? resolvePort(address.port) : reject(address)));
    });
  });

/** @param seed fills the database before the first start */
export async function prepareUiServer(seed: (nodes: NodeRepository) => Promise<void>): Promise<UiServer> {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-ui-'));
  const data = join(dir, 'data');
  mkdirSync(data, { mode: 0o700 });
  const [port, boot] = [await freePort(), await freePort()];
  writeFileSync(
    join(dir, 'site.yaml'),
    `version: 2
name: ui
domain: ui.example.net
data_dir: ${data}
api: { listen: 127.0.0.1, port: ${port} }
boot: { http_port: ${boot} }
networks:
  - name: boot
    cidr: 10.99.1.0/24
    server_address: ${ADDRESS}
    pool: { from: 10.99.1.200, to: 10.99.1.239 }
    gateway: 10.99.1.254
    relays: [10.99.1.254]
images: { default: debian-12 }
install:
  login: ops
  ssh_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0nyfWSbe16+1ZF6fCFD97bSdvYbCjVtcFRoMUqpb40 ops@example]
cloud: {}
`,
  );
  const store = await openStore(join(data, 'halligan.db'));
  try {
    await seed(await openNodeRepository(store, createEventFeed(store.db, systemClock), systemClock, () => 600));
  } finally {
    await store.close();
  }

  const origin = `http://127.0.0.1:${port}`;
  const log = join(dir, 'log');
  let child: ChildProcess | null = null;
  const answers = async () => {
    try {
      return (await fetch(`${origin}/api/v1/version`)).ok;
    } catch {
      return false;
    }
  };
  const server: UiServer = {
    origin,
    async request<T>(method: string, path: string, body?: unknown) {
      const response = await fetch(`${origin}/api/v1${path}`, {
        method,
        headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path} answers ${response.status}: ${text}`);
      return (text === '' ? undefined : JSON.parse(text)) as T;
    },
    async start() {
      const started = spawn(
        'sh',
        [
          '-c',
          'exec "$@" >>"$0" 2>&1',
          log,
          process.execPath,
          join(ROOT, 'dist/provisioner/main.js'),
          'serve',
          '--site',
          join(dir, 'site.yaml'),
        ],
        { stdio: 'ignore' },
      );
      child = started;
      const end = Date.now() + START_MS;
      while (!(await answers())) {
        if (started.exitCode !== null || Date.now() > end)
          throw new Error(`the server does not start: ${readFileSync(log, 'utf8').slice(-2000)}`);
        await new Promise(r => setTimeout(r, 100));
      }
    },
    async stop() {
      const running = child;
      child = null;
      if (!running || running.exitCode !== null) return;
      const gone = new Promise(r => running.once('exit', r));
      running.kill('SIGTERM');
      const timer = setTimeout(() => running.kill('SIGKILL'), STOP_MS);
      await gone;
      clearTimeout(timer);
    },
    async close() {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return server;
}
