/** A virtual rack with a real server inside its network, for the tests that go the whole way. */
import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { systemClock as clock } from '../../provisioner/core/clock.js';
import type { FeedEvent } from '../../provisioner/core/events.js';
import type { DemoClient } from '../../provisioner/demo/client.js';
import { connected, type ServerProcess, startServerProcess } from '../../provisioner/demo/server-process.js';
import { type Lab, type LabNodeSpec, labCpuSeconds, labDown, labUp } from '../../provisioner/lab/index.js';
import type { NodeView, Why } from '../../provisioner/node/service.js';
import { bothImages, type Kernel, linkFiles } from './images.js';
import { reachState, sshInstalled } from './nodes.js';

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, '../..');
export const IMAGE = 'debian-12-cloud';

export interface Rack {
  readonly lab: Lab;
  readonly dir: string;
  readonly events: FeedEvent[];
  client(): DemoClient;
  server(): ServerProcess;
  /** Ends the server by SIGKILL and starts another on the same data. */
  crashAndRestart(): Promise<void>;
  node(name: string): Promise<NodeView>;
  why(name: string): Promise<Why>;
  act(name: string, action: string, params?: Record<string, unknown>): Promise<NodeView>;
  /** Waits for one of the states; throws with the status sentence when it never comes or the node fails elsewhere. */
  reach(name: string, states: string | readonly string[], seconds: number): Promise<NodeView>;
  /** Waits until the event feed holds one that matches; looks at events that came after `fromId` only. */
  event(what: string, match: (event: FeedEvent) => boolean, seconds: number): Promise<FeedEvent>;
  /** A command on the installed system, by a real ssh with the operator's key and the host key that the server knows. */
  ssh(name: string, command: string): Promise<string>;
  cpuSeconds(): Promise<Record<string, number>>;
  down(): Promise<void>;
}

/** Images and keys are kept between runs; the rest is a new world each time. */
export async function rackUp(
  name: string,
  nodes: LabNodeSpec[],
  options: {
    /** Of the RAM environment and the installed system: `cloud` for virtual machines (default), `generic` for real ones. */
    kernel?: Kernel;
    siteText?: (text: string, lab: Lab) => string;
    /** Called with the server's folder of images, to add to them; what is there is shared with other runs. */
    images?: (dir: string) => void;
    /** Called before the server starts, with all machines switched off. */
    prepare?: (lab: Lab) => Promise<void>;
  } = {},
): Promise<Rack> {
  const { images, keys } = await bothImages(options.kernel);
  const dir = mkdtempSync(join(tmpdir(), `halligan-${name}-`));
  const data = join(dir, 'data');
  mkdirSync(data, { mode: 0o700 });
  for (const image of readdirSync(images))
    if (!image.startsWith('.') && existsSync(join(images, image, 'manifest.json')))
      linkFiles(join(images, image), join(data, 'images', image));
  options.images?.(join(data, 'images'));
  symlinkSync(join(keys, 'keys'), join(data, 'keys'));
  const key = join(dir, 'operator-key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
  const lab = await labUp({
    dir: join(dir, 'lab'),
    name,
    nodes,
    dataDir: data,
    siteNodes: true,
    sshKeys: [readFileSync(`${key}.pub`, 'utf8').trim()],
  });
  const sitePath = join(lab.dir, 'site.yaml');
  if (options.siteText) writeFileSync(sitePath, options.siteText(readFileSync(sitePath, 'utf8'), lab));

  const main = join(ROOT, 'dist/provisioner/main.js');
  if (!existsSync(main)) throw new Error('not built: npm run build');
  const events: FeedEvent[] = [];
  let following = new AbortController();
  let server: ServerProcess;
  let client: DemoClient;
  const start = async () => {
    server = startServerProcess(lab, [process.execPath, main], join(dir, 'server.log'));
    following = new AbortController();
    client = await connected(join(data, 'halligan.sock'), server, clock, following.signal);
    events.length = 0;
    client.follow(e => events.push(e), following.signal).catch(() => {});
  };
  const rack: Rack = {
    lab,
    dir,
    events,
    client: () => client,
    server: () => server,
    async crashAndRestart() {
      following.abort();
      await server.kill();
      await client.close();
      await start();
    },
    node: n => client.get(`/nodes/${n}`),
    why: n => client.get(`/nodes/${n}/why`),
    act: (n, action, params = {}) => client.post(`/nodes/${n}/actions`, { action, params }),
    reach: (n, states, seconds) => reachState(() => client, n, states, seconds),
    async event(what, match, seconds) {
      const end = Date.now() + seconds * 1000;
      for (;;) {
        const found = events.find(match);
        if (found) return found;
        if (Date.now() > end)
          throw new Error(
            `never: ${what}; last: ${events
              .slice(-5)
              .map(e => e.message)
              .join(' | ')}`,
          );
        await new Promise(r => setTimeout(r, 200));
      }
    },
    ssh: async (n, command) => sshInstalled(lab, await rack.node(n), { key, known: join(dir, `known-${n}`) }, command),
    cpuSeconds: () => labCpuSeconds(lab),
    async down() {
      following.abort();
      await client?.close();
      await server?.stop();
      await labDown({ name, dir: lab.dir });
      if (!process.env['HALLIGAN_KEEP']) rmSync(dir, { recursive: true, force: true });
    },
  };
  try {
    await options.prepare?.(lab);
    await start();
  } catch (error) {
    await labDown({ name, dir: lab.dir });
    throw error;
  }
  return rack;
}
