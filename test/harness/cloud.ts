/** A cloud on container hosts: lab, server, adopted hosts with roles. For the suites that lay OpenStack down for real. */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import type { NodeFacts } from '../../installer/model/cloud.js';
import { type BakeList, packagesOfRoles } from '../../installer/model/packages.js';
import { loadRelease } from '../../installer/model/releases.js';
import { systemClock as clock } from '../../provisioner/core/clock.js';
import {
  type ApplyResult,
  asApplyResult,
  asVerifyReport,
  type PlanView,
  type VerifyReport,
} from '../../provisioner/core/cloud-service.js';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import type { FeedEvent } from '../../provisioner/core/events.js';
import type { Run } from '../../provisioner/core/journal.js';
import type { DemoClient } from '../../provisioner/demo/client.js';
import {
  connected,
  type ProcessUsage,
  type ServerProcess,
  startServerProcess,
} from '../../provisioner/demo/server-process.js';
import { buildGuestImage } from '../../provisioner/image/guest.js';
import type { LabNode, LabNodeSpec } from '../../provisioner/lab/index.js';
import type { NodeView } from '../../provisioner/node/service.js';
import { cloudSettings } from '../../provisioner/site/cloud.js';
import { loadSiteOrThrow } from '../../provisioner/site/load.js';
import { catalogue } from '../../roles/catalogue.js';
import { type CloudLab, cloudLabUp } from './cloud-lab.js';
import { bakedImage, linkFiles } from './images.js';
import { reachState, sshInstalled } from './nodes.js';

const ROOT = packageRoot(import.meta.url);
/** What all roles stand on: baked once, below them. */
const COMMON = [
  'python3-nova',
  'python3-neutron',
  'python3-cinder',
  'python3-pymysql',
  'python3-memcache',
  'ca-certificates',
];

export interface CloudSpec {
  readonly name: string;
  readonly hosts: readonly {
    readonly name: string;
    readonly roles: readonly string[];
    readonly start?: boolean;
    readonly baked?: boolean;
    /** All three by default; see CloudHostSpec. */
    readonly nics?: 1 | 2 | 3;
  }[];
  /** Machines with empty disks, beside the hosts: installed by the suite, with the image baked for their roles. */
  readonly machines?: readonly {
    readonly node: LabNodeSpec;
    readonly roles: readonly string[];
    /** The `install` part of the node in the site file, but for the image. */
    readonly install: (machine: LabNode) => Record<string, unknown>;
  }[];
  /** The `cloud` part of the site file. */
  readonly cloud: Record<string, unknown>;
  /** That an apply or a proof may take; 1500 unless said otherwise. */
  readonly runSeconds?: number;
  readonly onProgress?: (line: string) => void;
}

export interface TestCloud {
  readonly lab: CloudLab;
  readonly events: FeedEvent[];
  client(): DemoClient;
  plan(): Promise<PlanView>;
  /** Applies, waits for the end and yields the result. */
  apply(options?: { confirmed?: string[]; nodes?: string[] }): Promise<{ run: Run; result: ApplyResult }>;
  verify(options?: { only?: string[]; keep?: boolean }): Promise<VerifyReport>;
  /** The Security Guide's checks. */
  security(): Promise<VerifyReport>;
  /** Drains a node, takes it out of the cloud and yields the result. */
  remove(node: string): Promise<{ run: Run; result: ApplyResult }>;
  waitFor(runId: string, seconds: number): Promise<Run>;
  adopt(host: string, roles: readonly string[]): Promise<void>;
  /** What a node with these roles has installed, in this cloud. */
  packagesOf(roles: readonly string[]): BakeList;
  /** Memory and CPU of the server that runs now. */
  serverUsage(): ProcessUsage;
  /** Takes a machine from power-on to its installed system. */
  install(machine: string, seconds: number): Promise<NodeView>;
  /** A command as root on an installed machine. */
  onMachine(machine: string, command: string): Promise<string>;
  /** Changes the `cloud` part of the site file and starts the server anew. */
  reconfigure(change: (cloud: Record<string, unknown>) => void): Promise<void>;
  crashAndRestart(): Promise<void>;
  down(): Promise<void>;
}

/** The networks of a lab as a cloud uses them: tunnels on eth2, the outside on eth1. */
export const NETWORKS = {
  networks: { tunnel: '10.96.0.0/24' },
  provider: [{ physical_network: 'physnet1', interface: 'eth1' }],
  external: {
    name: 'public',
    physical_network: 'physnet1',
    cidr: '10.97.0.0/24',
    gateway: '10.97.0.1',
    pool: { from: '10.97.0.100', to: '10.97.0.200' },
  },
} as const;

/** Failures in words: the problem and the last lines of its output; empty when there are none. */
export const failuresOf = (result: ApplyResult): string =>
  result.failed
    .map(f => `${f.problem.message}\n${JSON.stringify(f.problem.detail?.['log'] ?? [], null, 1)}`)
    .join('\n');

/** What a container host of the lab looks like to a bake. */
const CONTAINER: NodeFacts = {
  hostname: 'sample',
  os: { id: 'debian', version: '12' },
  kernel: '6',
  architecture: 'x86_64',
  cpus: 2,
  memoryMiB: 16_384,
  container: true,
  kvm: false,
  modules: { openvswitch: false, deviceMapper: false, iscsi: false, vlan: false },
  interfaces: [],
  disks: [],
  clockOffsetMs: 0,
};

export async function cloudUp(spec: CloudSpec): Promise<TestCloud> {
  const settingsOf = (path: string) => {
    const settings = cloudSettings(loadSiteOrThrow(readFileSync(path, 'utf8'), path).site);
    if (!settings) throw new Error('the site has no cloud');
    return settings;
  };
  // The settings decide about packages, so they are read before there is a lab.
  const early = join(ROOT, '.cache', `site-${spec.name}.yaml`);
  mkdirSync(join(ROOT, '.cache'), { recursive: true });
  writeFileSync(
    early,
    stringify({
      version: 1,
      name: spec.name,
      networks: [
        { name: 'boot', cidr: '10.99.0.0/24', interface: 'br0', pool: { from: '10.99.0.100', to: '10.99.0.149' } },
      ],
      cloud: spec.cloud,
    }),
  );
  const baked = new Map<string, { name: string; images: string; keys: string }>();
  for (const { node, roles } of spec.machines ?? []) {
    spec.onProgress?.(`${node.name}: baking an image of ${roles.join(', ')}`);
    baked.set(node.name, await bakedImage(roles, early));
  }
  const settings = settingsOf(early);
  const release = loadRelease(settings.release);
  if (!release) throw new Error(`no release ${settings.release}`);
  const bake = (roles: readonly string[]) => packagesOfRoles({ catalogue, release, settings, facts: CONTAINER }, roles);
  const layerName = (roles: readonly string[]) => [...roles].sort().join('-');
  const kinds = new Map(spec.hosts.filter(h => h.baked ?? true).map(h => [layerName(h.roles), h.roles]));
  const lab = await cloudLabUp({
    name: spec.name,
    hosts: spec.hosts.map(h => ({
      name: h.name,
      ...((h.baked ?? true) ? { layer: layerName(h.roles) } : {}),
      ...(h.start === undefined ? {} : { start: h.start }),
      ...(h.nics === undefined ? {} : { nics: h.nics }),
    })),
    layers: [
      { name: 'common', on: null, packages: COMMON },
      ...[...kinds].map(([name, roles]) => ({ name, on: 'common', ...bake(roles) })),
    ],
    ...(spec.machines ? { machines: spec.machines.map(m => m.node) } : {}),
    ...(spec.onProgress ? { onProgress: spec.onProgress } : {}),
  });
  const sitePath = join(lab.lab.dir, 'site.yaml');
  const writeCloud = (cloud: Record<string, unknown>) =>
    writeFileSync(sitePath, stringify({ ...(parse(readFileSync(sitePath, 'utf8')) as object), cloud }));
  writeCloud(spec.cloud);
  const data = lab.lab.dataDir;
  await linkGuest(join(data, 'images'));
  if (spec.machines) {
    const site = parse(readFileSync(sitePath, 'utf8')) as { nodes: { name: string }[] };
    const nodes = site.nodes.map(written => {
      const machine = spec.machines!.find(m => m.node.name === written.name)!;
      const { name: image } = baked.get(written.name)!;
      const planned = lab.lab.nodes.find(n => n.name === written.name)!;
      return { ...written, roles: machine.roles, install: { image, ...machine.install(planned) } };
    });
    writeFileSync(sitePath, stringify({ ...site, nodes }));
    for (const { name, images, keys } of baked.values()) {
      for (const image of ['ram-cloud', name]) linkFiles(join(images, image), join(data, 'images', image));
      if (!existsSync(join(data, 'keys'))) symlinkSync(join(keys, 'keys'), join(data, 'keys'));
    }
  }

  const main = join(ROOT, 'dist/provisioner/main.js');
  if (!existsSync(main)) throw new Error('not built: npm run build');
  const events: FeedEvent[] = [];
  let following = new AbortController();
  let server: ServerProcess;
  let client: DemoClient;
  const start = async () => {
    server = startServerProcess(lab.lab, [process.execPath, main], join(lab.dir, 'server.log'));
    following = new AbortController();
    client = await connected(join(data, 'halligan.sock'), server, clock, following.signal);
    events.length = 0;
    client.follow(e => events.push(e), following.signal).catch(() => {});
  };
  const stop = async () => {
    following.abort();
    await client?.close();
    await server?.stop();
  };
  const waitFor = async (runId: string, seconds: number): Promise<Run> => {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const { run } = await client.get<{ run: Run }>(`/runs/${runId}`);
      if (run.state !== 'running') return run;
      if (Date.now() > end)
        throw new Error(
          `the run ${runId} did not end within ${seconds} s; last: ${events
            .slice(-5)
            .map(e => e.message)
            .join(' | ')}`,
        );
      await new Promise(r => setTimeout(r, 300));
    }
  };
  const runSeconds = spec.runSeconds ?? 1500;
  const applied = async ({ runId }: { runId: string }) => {
    const run = await waitFor(runId, runSeconds);
    const result = asApplyResult(run.result);
    if (!result) throw new Error(`the run could not go on: ${JSON.stringify(run.result)}`);
    return { run, result };
  };
  const reported = async ({ runId }: { runId: string }) => {
    const run = await waitFor(runId, runSeconds);
    const report = asVerifyReport(run.result);
    if (!report) throw new Error(`the proof could not go on: ${JSON.stringify(run.result)}`);
    return report;
  };
  const cloud: TestCloud = {
    lab,
    events,
    client: () => client,
    plan: () => client.get('/cloud/plan'),
    waitFor,
    async apply(options = {}) {
      return applied(await client.post<{ runId: string }>('/cloud/apply', { confirmed: [], ...options }));
    },
    async verify(options = {}) {
      return reported(await client.post<{ runId: string }>('/cloud/verify', options));
    },
    async security() {
      return reported(await client.post<{ runId: string }>('/cloud/security', {}));
    },
    async remove(node) {
      return applied(await client.post<{ runId: string }>(`/cloud/nodes/${node}/remove`, { force: false }));
    },
    async adopt(name, roles) {
      const host = lab.host(name);
      await client.post('/nodes/adopt', {
        address: host.address,
        name,
        user: 'root',
        hostKey: host.hostKey,
        privateKey: lab.key.private,
      });
      await client.patch(`/nodes/${name}`, { roles });
    },
    packagesOf: bake,
    serverUsage: () => server.usage(),
    async install(name, seconds) {
      const act = (action: string) => client.post(`/nodes/${name}/actions`, { action, params: {} });
      await act('inspect');
      await reachState(() => client, name, 'available', seconds);
      await act('claim');
      await act('install');
      return reachState(() => client, name, 'installed', seconds);
    },
    async onMachine(name, command) {
      const node = await client.get<NodeView>(`/nodes/${name}`);
      const files = { key: lab.key.file, known: join(lab.dir, `known-${name}`) };
      return sshInstalled(lab.lab, node, files, `sudo sh -c '${command.replaceAll("'", "'\\''")}'`);
    },
    async reconfigure(change) {
      const site = parse(readFileSync(sitePath, 'utf8')) as { cloud: Record<string, unknown> };
      change(site.cloud);
      writeFileSync(sitePath, stringify(site));
      await stop();
      await start();
    },
    async crashAndRestart() {
      following.abort();
      await server.kill();
      await client.close();
      await start();
    },
    async down() {
      await stop();
      await lab.down();
    },
  };
  try {
    await start();
    for (const host of spec.hosts) if (host.start ?? true) await cloud.adopt(host.name, host.roles);
  } catch (error) {
    await cloud.down();
    throw error;
  }
  return cloud;
}

/** The guest's image is built once for all suites. */
async function linkGuest(images: string): Promise<void> {
  const shared = join(resolve(process.env['HALLIGAN_CACHE'] ?? join(ROOT, '.cache')), 'guest');
  await buildGuestImage({ imagesDir: shared, clock });
  mkdirSync(images, { recursive: true, mode: 0o700 });
  symlinkSync(join(shared, 'guest'), join(images, 'guest'));
}
