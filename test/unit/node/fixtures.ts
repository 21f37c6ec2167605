/** Nodes and a site for tests; fakes of the node half, named by behaviour. */
import type { Clock } from '../../../provisioner/core/clock.js';
import { createEventFeed } from '../../../provisioner/core/events.js';
import type { DetachedResult, Executor } from '../../../provisioner/core/executor/types.js';
import { createJournal } from '../../../provisioner/core/journal.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { fail } from '../../../provisioner/core/problem.js';
import { openStore } from '../../../provisioner/core/store/store.js';
import { createBootTrace } from '../../../provisioner/core/trace.js';
import type { Inventory } from '../../../provisioner/inventory/types.js';
import type { StateContext } from '../../../provisioner/node/context.js';
import { SPINE_HANDLERS, startStateLoop } from '../../../provisioner/node/loop.js';
import { createNodeService } from '../../../provisioner/node/node-service.js';
import { createOracle } from '../../../provisioner/node/oracle.js';
import { endJobs } from '../../../provisioner/node/ram.js';
import { emptySpec, emptyStatus, openNodeRepository } from '../../../provisioner/node/repository.js';
import { createTokens } from '../../../provisioner/node/tokens.js';
import type { Node, NodeSpec, NodeStatus } from '../../../provisioner/node/types.js';
import type { Power, PowerState } from '../../../provisioner/power/types.js';
import type { Site } from '../../../provisioner/site/schema.js';

export const aNode = (
  over: Partial<Omit<Node, 'spec' | 'status'>> & { spec?: Partial<NodeSpec>; status?: Partial<NodeStatus> } = {},
): Node => ({
  id: '00000000-0000-4000-8000-000000000001',
  name: 'n1',
  source: 'dhcp',
  uuid: null,
  serial: null,
  macs: ['52:54:00:00:00:01'],
  state: 'discovered',
  stateSinceMs: 0,
  deadlineMs: null,
  waitingFor: null,
  failure: null,
  maintenance: null,
  createdMs: 0,
  ...over,
  spec: { ...emptySpec(), ...over.spec },
  status: { ...emptyStatus(), ...over.status },
});

export const aSite = (over: Partial<Site> = {}): Site => ({
  version: 2,
  name: 'lab',
  domain: 'lab.internal',
  data_dir: '/nonexistent',
  api: { listen: '127.0.0.1', port: 0 },
  boot: { http_port: 7481, tftp_port: 69, dhcp_port: 67, console: 'ttyS0,115200' },
  dns: { forward: [] },
  ntp: [],
  networks: [
    {
      name: 'boot',
      cidr: '10.99.0.0/24',
      interface: 'br0',
      pool: { from: '10.99.0.100', to: '10.99.0.120' },
      dns: [],
      ntp: [],
      routes: [],
      lease_seconds: 600,
      reserved_lease_seconds: 86400,
      relays: [],
      router_advertisements: true,
    },
  ],
  images: { default: 'debian-12' },
  discovery: { unknown: 'inspect' },
  install: { login: 'ops', ssh_keys: [] },
  deadlines: { inspecting_seconds: 1200, installing_seconds: 3600, releasing_seconds: 1800, rescuing_seconds: 1200 },
  limits: { ssh_sessions: 8, installs: 4, package_cache_gib: 1 },
  packages: {},
  layouts: { disk: [], network: [] },
  racks: [],
  profiles: [],
  nodes: [],
  ...over,
});

export const anInventory = (mac: string, over: Partial<Inventory> = {}): Inventory => ({
  schema: 1,
  system: { manufacturer: 'Acme', product: 'R1', serial: null, uuid: null, asset: null },
  firmware: {
    type: 'bios',
    vendor: null,
    version: null,
    date: null,
    secureBoot: null,
    bootCurrent: null,
    bootOrder: [],
  },
  tpm: null,
  cpu: { model: 'x', arch: 'x86_64', sockets: 1, cores: 1, threads: 1, numaNodes: 1, flags: [] },
  memory: { totalBytes: 2 ** 30, dimms: [] },
  disks: [],
  nics: [
    {
      name: 'eth0',
      mac,
      driver: null,
      bus: null,
      speedMbps: null,
      carrier: true,
      mtu: 1500,
      addresses: [],
      lldp: null,
    },
  ],
  pci: [],
  bmc: null,
  kernel: '6.1',
  warnings: [],
  ...over,
});

/** A node that can be switched, boots the RAM environment when told to, and runs what it is given. */
export interface FakeMachine {
  power: PowerState;
  /** boot_id of the running RAM environment, null when it does not run. */
  bootId: string | null;
  netboots: number;
  /** Units started on it, in order. */
  started: string[];
  onNetboot: () => void;
  /** What a detached job does; by default it prints a host key and ends well. */
  job: (unit: string, onLine: (line: string, offset: number) => void, signal?: AbortSignal) => Promise<DetachedResult>;
  reboots: number;
  /** Commands that stopped earlier work. */
  stops: string[];
  ssh: 'answers' | 'silent';
  automatic: boolean;
}

export async function aWorld(over: { site?: Partial<Site>; file?: string } = {}) {
  const clock: Clock & { advance(ms: number): void } = (() => {
    let offset = 0;
    return {
      nowMs: () => Date.now() + offset,
      monotonicMs: () => performance.now() + offset,
      advance: ms => {
        offset += ms;
      },
    };
  })();
  const site = aSite(over.site);
  const store = await openStore(over.file ?? ':memory:');
  const events = createEventFeed(store.db, clock);
  const trace = createBootTrace(store.db, clock);
  const journal = createJournal(store, clock);
  const tokens = await createTokens(store.db, clock, Buffer.alloc(32, 7));
  const nodes = await openNodeRepository(store, events, clock, state =>
    state === 'inspecting' ? site.deadlines.inspecting_seconds : site.deadlines.installing_seconds,
  );
  const machine: FakeMachine = {
    power: 'off',
    bootId: null,
    netboots: 0,
    started: [],
    onNetboot: () => {},
    job: async (_unit, onLine) => {
      onLine('stage write', 1);
      onLine('key ssh-ed25519 AAAAfake', 2);
      return { kind: 'exited', code: 0, tail: '' };
    },
    reboots: 0,
    stops: [],
    ssh: 'answers',
    automatic: true,
  };
  const executor: Executor = {
    publicKey: 'ssh-ed25519 AAAAserver',
    async run(_target, command) {
      if (machine.ssh === 'silent' || machine.power === 'off') fail('ssh-failed', 'no route to host');
      if (command.includes('systemctl stop')) machine.stops.push(command);
      if (command.includes('boot_id')) return { code: 0, stdout: `${machine.bootId ?? 'os'}\n`, stderr: '' };
      if (command.includes('reboot')) machine.reboots++;
      return { code: 0, stdout: 'n1\n', stderr: '' };
    },
    write: async () => {},
    detached: async (_target, job, onLine, options) => {
      machine.started.push(job.unit);
      return machine.job(job.unit, onLine, options?.signal);
    },
    stop: async () => {},
    close: async () => {},
  };
  const power: Power = {
    status: async () => machine.power,
    set: async (_id, action) => {
      machine.power = action === 'off' ? 'off' : 'on';
      return machine.power;
    },
    netboot: async () => {
      machine.netboots++;
      machine.power = 'on';
      machine.onNetboot();
    },
    automatic: async () => machine.automatic,
    close: async () => {},
  };
  const context: StateContext = {
    site,
    nodes,
    tokens,
    journal,
    executor,
    power,
    events,
    trace,
    clock,
    log: silentLog,
    bootUrl: () => 'http://10.99.0.1:7481',
    waiting: async (id, sentence) => {
      await nodes.update(id, n => (n.waitingFor === sentence ? null : { waitingFor: sentence })).catch(() => {});
    },
    jobs: {
      install: async () => ({
        script: 'true',
        env: {},
        timeoutMs: 1000,
        summary: 'writes',
        image: 'debian-12',
        login: 'ops',
      }),
      erase: () => ({ script: 'true', env: {}, timeoutMs: 1000, summary: 'erased', image: '', login: '' }),
      read: line =>
        line.startsWith('key ')
          ? { kind: 'result', hostKey: line.slice(4) }
          : line.startsWith('stage ')
            ? { kind: 'stage', name: line.slice(6), text: line.slice(6) }
            : line.startsWith('problem ')
              ? { kind: 'problem', message: line.slice(8) }
              : { kind: 'text', text: line },
    },
  };
  const loop = startStateLoop(context, SPINE_HANDLERS);
  const service = createNodeService({
    site,
    siteLine: path => `site.yaml (${path})`,
    nodes,
    journal,
    events,
    trace,
    power,
    loop,
    clock,
    jobs: context.jobs,
    stopJobs: node => endJobs(node, context),
    adopt: async () => fail('adopt-refused', 'no adoption in this world'),
  });
  /** Addresses that DHCP gave out; empty unless a test fills it in. */
  const leasedTo = new Map<string, string>();
  const oracle = createOracle({
    site,
    nodes,
    tokens,
    events,
    trace,
    clock,
    normaliseInventory: raw => raw as Inventory,
    ramImage: async () => 'ram-cloud',
    ownAddresses: () => ['10.99.0.1'],
    poke: id => loop.poke(id),
    macAt: address => leasedTo.get(address),
    halt: async id => void (await loop.stop(id, async () => {})),
  });
  const mac = '52:54:00:00:00:01';
  const who = (m = mac) => ({
    mac: m,
    uuid: null,
    serial: null,
    manufacturer: null,
    product: null,
    platform: 'bios' as const,
  });
  /** Firmware asks, the RAM environment boots and calls home. */
  const bootRam = async (bootId: string, m = mac, inventory: Partial<Inventory> = {}) => {
    const decision = await oracle.decide(who(m), '10.99.0.100');
    if (decision.kind !== 'ram') throw new Error(`boots ${decision.kind}: ${decision.reason}`);
    machine.power = 'on';
    machine.bootId = bootId;
    await oracle.ramCallHome(
      decision.token,
      {
        schema: 1,
        mac: m,
        bootId,
        hostKey: 'ssh-ed25519 AAAAram',
        firmware: 'bios',
        uptimeSeconds: 20,
        raw: anInventory(m, inventory),
      },
      '10.99.0.10',
    );
    return decision;
  };
  /** The disk's system boots and calls home with the token of the newest job. */
  const close = async () => {
    await loop.close();
    await trace.close();
    await store.close();
  };
  return {
    clock,
    leasedTo,
    site,
    store,
    events,
    trace,
    journal,
    tokens,
    nodes,
    machine,
    executor,
    power,
    context,
    loop,
    service,
    oracle,
    mac,
    who,
    bootRam,
    close,
  };
}

export async function until<T>(what: string, probe: () => T | Promise<T>, ms = 8000): Promise<NonNullable<T>> {
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value as NonNullable<T>;
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise(r => setTimeout(r, 20));
  }
}
