/** An engine on a clock that the test moves, with a database in memory or none. */
import type { BootDirectory, DirectoryEntry } from '../../../provisioner/boot/types.js';
import type { Clock } from '../../../provisioner/core/clock.js';
import type { NewEvent } from '../../../provisioner/core/events.js';
import { silentLog } from '../../../provisioner/core/log.js';
import type { BootTrace } from '../../../provisioner/core/trace.js';
import { createCodec } from '../../../provisioner/dhcp/codec.js';
import { createEngine, type Engine, type Outgoing } from '../../../provisioner/dhcp/engine.js';
import type { LeaseWriter } from '../../../provisioner/dhcp/lease-store.js';
import { type Lease, LeaseTable } from '../../../provisioner/dhcp/leases.js';
import { type ServedNetwork, serveNetwork } from '../../../provisioner/dhcp/network.js';
import { createRogueWatch, type RogueWatch } from '../../../provisioner/dhcp/rogue.js';
import type { Arrival } from '../../../provisioner/dhcp/select-network.js';
import type { Network, Site } from '../../../provisioner/site/schema.js';

export const NETWORK: Network = {
  name: 'boot',
  cidr: '10.99.0.0/24',
  interface: 'br0',
  server_address: '10.99.0.1',
  pool: { from: '10.99.0.100', to: '10.99.0.109' },
  gateway: '10.99.0.254',
  dns: [],
  ntp: [],
  routes: [],
  lease_seconds: 600,
  reserved_lease_seconds: 86_400,
  relays: [],
  router_advertisements: true,
};

export const site = (networks: Network[] = [NETWORK]): Site => ({
  version: 2,
  name: 'lab',
  domain: 'lab.test',
  data_dir: '/nonexistent',
  api: { listen: '127.0.0.1', port: 0 },
  boot: { http_port: 7481, tftp_port: 69, dhcp_port: 67, console: 'ttyS0,115200' },
  dns: { forward: [] },
  ntp: ['10.99.0.9'],
  networks,
  images: { default: 'debian-12' },
  discovery: { unknown: 'inspect' },
  install: { login: 'ops', ssh_keys: [] },
  deadlines: { inspecting_seconds: 1200, installing_seconds: 3600, releasing_seconds: 1800, rescuing_seconds: 1200 },
  limits: { ssh_sessions: 24, installs: 32, package_cache_gib: 1 },
  packages: {},
  layouts: { disk: [], network: [] },
  racks: [],
  profiles: [],
  nodes: [],
});

export class TestClock implements Clock {
  wall = 1_700_000_000_000;
  monotonic = 5000;
  nowMs = () => this.wall;
  monotonicMs = () => this.monotonic;
  advance(ms: number): void {
    this.wall += ms;
    this.monotonic += ms;
  }
}

export interface Traced {
  mac: string;
  message: string;
  silent: boolean;
}

export interface World {
  engine: Engine;
  clock: TestClock;
  networks: ServedNetwork[];
  leases: LeaseTable;
  /** What is on disk, by address. */
  disk: Map<number, Lease>;
  nodes: Map<string, DirectoryEntry>;
  trace: Traced[];
  events: NewEvent[];
  rogues: RogueWatch;
  advertised: string[];
  unknown: { noBootFile: string | null };
  /** As from a client on br0 without an address. */
  ask(raw: Buffer, arrival?: Partial<Arrival>): Promise<Outgoing | undefined>;
  /** The newest trace line. */
  said(): string;
}

export function createWorld(
  options: { networks?: Network[]; writer?: (disk: Map<number, Lease>) => LeaseWriter; stored?: Lease[] } = {},
): World {
  const clock = new TestClock();
  const configured = options.networks ?? [NETWORK];
  const networks = configured.map(n => serveNetwork(n, site(configured), n.server_address!, true));
  const disk = new Map((options.stored ?? []).map(lease => [lease.address, lease]));
  const leases = new LeaseTable(networks, options.stored);
  const nodes = new Map<string, DirectoryEntry>();
  const trace: Traced[] = [];
  const events: NewEvent[] = [];
  const advertised: string[] = [];
  const unknown = { noBootFile: null as string | null };
  const directory: BootDirectory = {
    byMac: mac => nodes.get(mac),
    names: () => [...nodes.values()].flatMap(n => (n.address ? [{ name: n.name, address: n.address }] : [])),
    unknownNoBootFile: () => unknown.noBootFile,
  };
  const instantWriter: LeaseWriter = {
    pending: 0,
    write: async written => {
      for (const lease of written) disk.set(lease.address, lease);
    },
    close: async () => {},
  };
  const rogues = createRogueWatch(event => events.push(event));
  const recorder: BootTrace = {
    record: entry => trace.push({ mac: entry.mac, message: entry.message, silent: entry.silent ?? false }),
    read: async () => [],
    close: async () => {},
  };
  const engine = createEngine({
    networks,
    directory,
    leases,
    writer: options.writer?.(disk) ?? instantWriter,
    codec: createCodec(),
    clock,
    trace: recorder,
    log: silentLog,
    emit: event => events.push(event),
    rogues,
    serverPort: 67,
    advertise: (_, mac) => advertised.push(mac),
    isOwnProbe: (_, xid) => xid === 0xdeadbeef,
  });
  return {
    engine,
    clock,
    networks,
    leases,
    disk,
    nodes,
    trace,
    events,
    rogues,
    advertised,
    unknown,
    ask: (raw, arrival = {}) => engine.handle(raw, { interface: 'br0', source: '0.0.0.0', ...arrival }),
    said: () => trace.at(-1)?.message ?? '',
  };
}

export const node = (name: string, address: string | null, noBootFile: string | null = null): DirectoryEntry => ({
  nodeId: `id-${name}`,
  name,
  address,
  noBootFile,
});
