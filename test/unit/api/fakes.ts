/** A server whose node half answers from a table: the API and the command line are tested against it. */
import { EventEmitter } from 'node:events';
import { Readable } from 'node:stream';
import type { ApiServices, Consoles } from '../../../provisioner/api/services.js';
import { type ApiHandle, startApi } from '../../../provisioner/api/start.js';
import type { Clock } from '../../../provisioner/core/clock.js';
import type { CloudService } from '../../../provisioner/core/cloud-service.js';
import type { EventFeed, FeedEvent } from '../../../provisioner/core/events.js';
import type { Run } from '../../../provisioner/core/journal.js';
import { fail } from '../../../provisioner/core/problem.js';
import {
  isFailure,
  legalActions,
  type NodeState,
  stateLabel,
  transition,
} from '../../../provisioner/node/lifecycle.js';
import type { NodeService, NodeView } from '../../../provisioner/node/service.js';
import { type LoadedSite, loadSiteOrThrow } from '../../../provisioner/site/load.js';
import { CATALOGUE } from './clouds.js';

export const T0 = Date.UTC(2026, 0, 2, 3, 4, 5);

export const SITE_TEXT = `version: 1
name: dc1
networks:
  - name: boot
    cidr: 10.99.0.0/24
    interface: br0
    pool: { from: 10.99.0.200, to: 10.99.0.239 }
nodes:
  - name: n01
    macs: ["52:54:00:99:00:01"]
    address: 10.99.0.11
`;
export const site = (): LoadedSite => loadSiteOrThrow(SITE_TEXT, '/etc/halligan/site.yaml');

export function nodeView(name: string, state: NodeState, more: Partial<NodeView> = {}): NodeView {
  const n = Number(/\d+$/.exec(name)?.[0] ?? 99);
  return {
    id: `id-${name}`,
    name,
    source: 'dhcp',
    uuid: null,
    serial: `SER${n}`,
    macs: [`52:54:00:99:00:${String(n).padStart(2, '0')}`],
    state,
    stateSinceMs: T0,
    deadlineMs: null,
    waitingFor: null,
    failure: null,
    maintenance: null,
    spec: { address: null, bmc: null, roles: [], install: {} },
    status: {
      inventory: null,
      inventoryMs: null,
      ram: null,
      os: null,
      power: { state: 'on', seenMs: T0 },
      lastSeenMs: T0,
      runId: null,
      attempt: 0,
      address: `10.99.0.${10 + n}`,
      diskReady: false,
      netboot: null,
      milestone: null,
      rescueFrom: null,
      platform: 'bios',
      warnings: [],
    },
    createdMs: T0,
    label: stateLabel(state),
    sentence: isFailure(state) ? `${stateLabel(state)}.` : `${stateLabel(state)} since 03:04:05.`,
    overdue: false,
    actions: legalActions(state),
    ...more,
  };
}

/** Nodes in a table; orders move them at once to where the lifecycle table says, `settle` brings work to its end. */
export function tableOfNodes(initial: readonly NodeView[]) {
  const table = new Map(initial.map(n => [n.name, n]));
  const calls: unknown[][] = [];
  const find = (selector: string): NodeView =>
    [...table.values()].find(n => [n.name, n.id, n.serial, ...n.macs].includes(selector)) ??
    fail('node-unknown', `There is no node ${JSON.stringify(selector)}.`);
  const put = (node: NodeView) => {
    table.set(node.name, node);
    return node;
  };
  const move = (name: string, state: NodeState, more: Partial<NodeView> = {}) => {
    const old = table.get(name)!;
    return put({
      ...nodeView(name, state),
      spec: old.spec,
      status: old.status,
      stateSinceMs: old.stateSinceMs + 1000,
      ...more,
    });
  };
  const service: NodeService = {
    list: async () => [...table.values()],
    get: async selector => find(selector),
    async add(addition) {
      calls.push(['add', addition]);
      if (table.has(addition.name)) fail('name-taken', `The name ${addition.name} is already in use.`);
      return put(nodeView(addition.name, 'discovered', { source: 'api', macs: addition.macs }));
    },
    async remove(selector) {
      const node = find(selector);
      if (node.source === 'site')
        fail('site-owns', `${node.name} stands in /etc/halligan/site.yaml:9; take it out there.`);
      table.delete(node.name);
    },
    async update(selector, change) {
      calls.push(['update', selector, change]);
      const { maintenance, name, roles } = change;
      const node = find(selector);
      if (roles && node.source === 'site')
        fail('site-owns', `${node.name}: roles is set in /etc/halligan/site.yaml:12; change it there.`);
      return put({
        ...node,
        ...(name ? { name } : {}),
        ...(maintenance === undefined ? {} : { maintenance }),
        ...(roles ? { spec: { ...node.spec, roles } } : {}),
      });
    },
    async act(selector, action, params) {
      const node = find(selector);
      const result = transition(node.state, action, node.status.rescueFrom ?? undefined);
      if (!result.ok) return fail('not-allowed-now', `${node.name}: ${result.sentence}`);
      calls.push(['act', node.name, action, params]);
      return move(node.name, result.to);
    },
    async power(selector, action) {
      const node = find(selector);
      if (node.name === 'silent') return fail('bmc-silent', 'The BMC 10.98.0.9 of silent did not answer within 10 s.');
      calls.push(['power', node.name, action]);
      return action === 'off' ? 'off' : 'on';
    },
    async why(selector) {
      const node = find(selector);
      return {
        node,
        next: 'halligan node claim n01',
        history: [
          { atMs: T0 - 60_000, from: null, to: 'discovered', event: 'created', reason: 'Its first DISCOVER.' },
          { atMs: T0, from: 'discovered', to: node.state, event: 'called-home', reason: 'It called home.' },
        ],
        trace: [traceEntry],
        run: null,
        events: [],
      };
    },
    async adopt(request) {
      calls.push(['adopt', request]);
      return put(nodeView(request.name ?? 'adopted', 'installed', { source: 'adopt' }));
    },
    trace: async mac => (mac === traceEntry.mac ? [traceEntry] : []),
  };
  return { service, calls, move, table };
}

export const traceEntry = {
  atMs: T0,
  mac: '52:54:00:99:00:01',
  layer: 'dhcp' as const,
  message: 'DISCOVER not answered: discovery.unknown is ignore.',
  silent: true,
  data: { xid: 1 },
};

/** The feed's contract in memory; `forget` does what trimming does. */
export function feedInMemory(): EventFeed & { forget(upTo: number): void } {
  let rows: FeedEvent[] = [];
  let id = 0;
  const emitter = new EventEmitter().setMaxListeners(0);
  return {
    async emit(event) {
      const row: FeedEvent = {
        id: ++id,
        atMs: T0 + id,
        severity: 'info',
        nodeId: null,
        data: {},
        ...event,
      };
      rows.push(row);
      emitter.emit('event', row);
      return row;
    },
    after: async (afterId, limit, filter) =>
      rows.filter(r => r.id > afterId && (!filter?.nodeId || r.nodeId === filter.nodeId)).slice(0, limit),
    latestId: async () => id,
    oldestId: async () => rows[0]?.id ?? 0,
    subscribe(listener) {
      emitter.on('event', listener);
      return () => emitter.off('event', listener);
    },
    async trim(keep) {
      rows = rows.slice(-keep);
    },
    forget(upTo) {
      rows = rows.filter(r => r.id > upTo);
    },
  };
}

/** Echoes what is typed; n02 has none. */
export function echoingConsoles(): Consoles & { typed: string[]; followers: () => number } {
  const emitter = new EventEmitter().setMaxListeners(0);
  const typed: string[] = [];
  const check = (nodeId: string) => {
    if (nodeId === 'id-n02') fail('console-missing', 'n02 has no console: its power driver is manual.');
  };
  return {
    typed,
    followers: () => emitter.listenerCount('data'),
    async tail(nodeId, bytes) {
      check(nodeId);
      return Buffer.from('Booting from disk...\r\nn01 login: ').subarray(-bytes || Number.POSITIVE_INFINITY);
    },
    async *follow(_nodeId, signal) {
      const queue: Buffer[] = [];
      let wake = () => {};
      const onData = (chunk: Buffer) => {
        queue.push(chunk);
        wake();
      };
      emitter.on('data', onData);
      signal.addEventListener('abort', () => wake(), { once: true });
      try {
        while (!signal.aborted) {
          const chunk = queue.shift();
          if (chunk) yield chunk;
          else
            await new Promise<void>(resolve => {
              wake = resolve;
            });
        }
      } finally {
        emitter.off('data', onData);
      }
    },
    async write(nodeId, data) {
      check(nodeId);
      typed.push(data.toString());
      emitter.emit('data', data);
    },
  };
}

/** Where a cloud of a test tells what it does. */
export interface CloudStage {
  readonly feed: EventFeed;
  /** Runs of the journal by id. */
  readonly runs: Map<string, Run>;
}

export function fakeServices(nodes: readonly NodeView[], cloud?: (stage: CloudStage) => CloudService) {
  const table = tableOfNodes(nodes);
  const feed = feedInMemory();
  const runs = new Map<string, Run>();
  const consoles = echoingConsoles();
  const secrets = new Map<string, string>();
  const run = {
    id: 'run-1',
    kind: 'install',
    nodeId: 'id-n01',
    state: 'done' as const,
    input: {},
    result: null,
    createdMs: T0,
    endedMs: T0 + 90_000,
  };
  const services: ApiServices = {
    nodes: table.service,
    events: feed,
    journal: {
      get: async id => (id === run.id ? run : runs.get(id)),
      list: async ({ nodeId }) => (nodeId === undefined || nodeId === run.nodeId ? [run] : []),
      steps: async () => [
        { step: 'write-image', attempt: 0, state: 'after', beforeMs: T0, afterMs: T0 + 37_000, output: null },
      ],
    },
    images: {
      list: async () => [
        {
          schema: 1,
          kind: 'ram',
          name: 'ram',
          distribution: 'debian',
          release: '12',
          arch: 'amd64',
          createdMs: T0,
          inputHash: 'ab',
          kernel: { name: 'vmlinuz', bytes: 8_000_000, sha256: 'aa' },
          initrd: { name: 'initrd', bytes: 120_000_000, sha256: 'bb' },
          kernelVersion: '6.1.0-40-amd64',
          minMemoryMiB: 1024,
        },
      ],
      get: async name => fail('image-missing', `There is no image ${name}.`),
      broken: async () => [],
    },
    consoles,
    site: site(),
    leases: async () => [
      { ip: '10.99.0.200', network: 'boot', mac: '52:54:00:99:00:09', hostname: 'x', state: 'bound', expiresMs: T0 },
    ],
    health: async () => ({
      dhcp: { ok: true, message: 'br0 10.99.0.1:67' },
      tftp: { ok: true, message: '10.99.0.1:69' },
      http: { ok: false, message: '10.99.0.1:7481 failed' },
    }),
    backup: async () => Readable.from([Buffer.from('backup-'), Buffer.from('bytes')]),
    secrets: {
      list: async () => [...secrets.keys()],
      set: async (name, value) => void secrets.set(name, value),
      remove: async name => void secrets.delete(name),
    },
    cloud: cloud?.({ feed, runs }) ?? null,
    catalogue: CATALOGUE,
  };
  return { services, table, feed, consoles, secrets, runs };
}

export type FakeServer = ReturnType<typeof fakeServices> & { handle: ApiHandle };

export async function fakeServer(
  nodes: readonly NodeView[],
  options: {
    port?: number;
    socketPath?: string | null;
    heartbeatMs?: number;
    clock?: Clock;
    cloud?: (stage: CloudStage) => CloudService;
    site?: LoadedSite;
  } = {},
): Promise<FakeServer> {
  const fakes = fakeServices(nodes, options.cloud);
  const handle = await startApi({
    ...fakes.services,
    ...(options.site ? { site: options.site } : {}),
    listen: '127.0.0.1',
    port: options.port ?? 0,
    socketPath: options.socketPath ?? null,
    version: '0.1.0',
    heartbeatMs: options.heartbeatMs ?? 15_000,
    ...(options.clock ? { clock: options.clock } : {}),
  });
  return { ...fakes, handle };
}
