/** All nodes in memory, written through to SQLite: reads never wait for the database, writes are durable before they show. */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import type { EventFeed } from '../core/events.js';
import { fail, type Problem } from '../core/problem.js';
import type { NodeTable } from '../core/store/schema.js';
import type { Db, Store } from '../core/store/store.js';
import { isFailure, isWorking, type NodeEvent, type NodeState, stateLabel, transition } from './lifecycle.js';
import type { Node, NodeSpec, NodeStatus } from './types.js';

export const emptySpec = (): NodeSpec => ({ address: null, bmc: null, roles: [], install: {}, rack: null });

export const emptyStatus = (): NodeStatus => ({
  inventory: null,
  inventoryMs: null,
  ram: null,
  os: null,
  power: null,
  lastSeenMs: null,
  runId: null,
  attempt: 0,
  address: null,
  diskReady: false,
  netboot: null,
  milestone: null,
  rescueFrom: null,
  platform: null,
  profile: null,
  warnings: [],
});

export interface NewNode {
  name: string;
  source: Node['source'];
  uuid?: string | null;
  serial?: string | null;
  macs: string[];
  spec?: Partial<NodeSpec>;
  status?: Partial<NodeStatus>;
  state?: NodeState;
  reason: string;
}

/** What may change without a change of state. */
export interface NodeChange {
  name?: string;
  uuid?: string | null;
  serial?: string | null;
  source?: Node['source'];
  maintenance?: string | null;
  waitingFor?: string | null;
  /** Of the present working state. */
  deadlineMs?: number;
  spec?: Partial<NodeSpec>;
  status?: Partial<NodeStatus>;
}

export interface HistoryEntry {
  readonly atMs: number;
  readonly from: NodeState | null;
  readonly to: NodeState;
  readonly event: string;
  readonly reason: string;
}

export interface NodeRepository {
  all(): readonly Node[];
  byId(id: string): Node | undefined;
  byMac(mac: string): Node | undefined;
  /** By id, name, MAC, serial or an unambiguous prefix of one of them; throws node-unknown. */
  find(selector: string): Node;
  create(node: NewNode): Promise<Node>;
  /** Changes what `change` returns for the node as it is at that moment; null for nothing. */
  update(id: string, change: (node: Node) => NodeChange | null): Promise<Node>;
  /** Moves the MAC to this node, from whichever had it. */
  assignMac(id: string, mac: string): Promise<void>;
  /**
   * Applies an event of the lifecycle. Only the state loop and the operator's intents call it.
   * Throws not-allowed-now when the table has no such transition.
   * @param reason as a function it is asked after `change`
   * @param change as a function it sees all nodes as they are at that moment, and may throw to stop the transition
   */
  transition(
    id: string,
    event: NodeEvent,
    reason: string | (() => string),
    change?: NodeChange | ((node: Node) => NodeChange),
  ): Promise<Node>;
  /** To the failure state of the present working state, with the problem. */
  failWorking(id: string, problem: Problem): Promise<Node>;
  remove(id: string): Promise<void>;
  history(id: string, limit: number): Promise<HistoryEntry[]>;
  /** Called after each change of any node. */
  onChange(listener: (node: Node) => void): () => void;
}

const toNode = (row: NodeTable, macs: string[]): Node => ({
  id: row.id,
  name: row.name,
  source: row.source,
  uuid: row.uuid,
  serial: row.serial,
  macs,
  state: row.state as NodeState,
  stateSinceMs: row.state_since_ms,
  deadlineMs: row.deadline_ms,
  waitingFor: row.waiting_for,
  failure: row.failure === null ? null : (JSON.parse(row.failure) as Problem),
  maintenance: row.maintenance,
  // Rows of older versions lack younger fields.
  spec: { ...emptySpec(), ...(JSON.parse(row.spec) as NodeSpec) },
  status: { ...emptyStatus(), ...(JSON.parse(row.status) as NodeStatus) },
  createdMs: row.created_ms,
});

const toRow = (node: Node, updatedMs: number): NodeTable => ({
  id: node.id,
  name: node.name,
  source: node.source,
  uuid: node.uuid,
  serial: node.serial,
  state: node.state,
  state_since_ms: node.stateSinceMs,
  deadline_ms: node.deadlineMs,
  waiting_for: node.waitingFor,
  failure: node.failure ? JSON.stringify(node.failure) : null,
  maintenance: node.maintenance,
  spec: JSON.stringify(node.spec),
  status: JSON.stringify(node.status),
  created_ms: node.createdMs,
  updated_ms: updatedMs,
});

/**
 * Loads all nodes.
 * @param deadlineSeconds how long each working state may last
 */
export async function openNodeRepository(
  store: Store,
  events: EventFeed,
  clock: Clock,
  deadlineSeconds: (state: NodeState) => number,
): Promise<NodeRepository> {
  const { db } = store;
  const nodes = new Map<string, Node>();
  const macs = new Map<string, string>();
  const listeners = new Set<(node: Node) => void>();

  const macRows = await db.selectFrom('node_mac').selectAll().orderBy('first_seen_ms').execute();
  for (const row of macRows) macs.set(row.mac, row.node_id);
  for (const row of await db.selectFrom('node').selectAll().orderBy('created_ms').execute())
    nodes.set(
      row.id,
      toNode(
        row,
        macRows.filter(m => m.node_id === row.id).map(m => m.mac),
      ),
    );

  // One writer at a time: a change is computed from what the one before it left.
  let queue: Promise<unknown> = Promise.resolve();
  const serial = <T>(work: () => Promise<T>): Promise<T> => {
    const result = queue.then(work);
    queue = result.catch(() => {});
    return result;
  };
  const known = (id: string): Node => nodes.get(id) ?? fail('node-unknown', `There is no node with the id ${id}.`);
  const publish = (node: Node) => {
    nodes.set(node.id, node);
    for (const listener of [...listeners]) listener(node);
  };
  const nameFree = (name: string, id?: string) => {
    for (const other of nodes.values())
      if (other.name === name && other.id !== id) fail('name-taken', `Another node is already called ${name}.`);
  };
  const changed = (node: Node, change: NodeChange): Node => ({
    ...node,
    ...(change.name === undefined ? {} : { name: change.name }),
    ...(change.uuid === undefined ? {} : { uuid: change.uuid }),
    ...(change.serial === undefined ? {} : { serial: change.serial }),
    ...(change.source === undefined ? {} : { source: change.source }),
    ...(change.maintenance === undefined ? {} : { maintenance: change.maintenance }),
    ...(change.waitingFor === undefined ? {} : { waitingFor: change.waitingFor }),
    ...(change.deadlineMs === undefined ? {} : { deadlineMs: change.deadlineMs }),
    spec: { ...node.spec, ...change.spec },
    status: { ...node.status, ...change.status },
  });
  const save = (tx: Pick<Db, 'updateTable'>, node: Node) =>
    tx.updateTable('node').set(toRow(node, clock.nowMs())).where('id', '=', node.id).execute();

  const moveTo = async (node: Node, to: NodeState, event: string, reason: string, failure: Problem | null) => {
    const at = clock.nowMs();
    const next: Node = {
      ...node,
      state: to,
      stateSinceMs: at,
      deadlineMs: isWorking(to) ? at + deadlineSeconds(to) * 1000 : null,
      waitingFor: null,
      failure,
    };
    await db.transaction().execute(async tx => {
      await save(tx, next);
      await tx
        .insertInto('node_history')
        .values({ node_id: node.id, at_ms: at, from_state: node.state, to_state: to, event, reason })
        .execute();
    });
    publish(next);
    await events.emit({
      type: 'node.state',
      nodeId: node.id,
      severity: isFailure(to) ? 'error' : 'info',
      message: `${next.name}: ${stateLabel(to)}. ${reason}`,
      data: { from: node.state, to, event, ...(failure ? { problem: failure } : {}) },
    });
    return next;
  };

  return {
    all: () => [...nodes.values()],
    byId: id => nodes.get(id),
    byMac: mac => nodes.get(macs.get(mac.toLowerCase()) ?? ''),
    find(selector) {
      const text = selector.trim().toLowerCase();
      if (text === '') fail('node-unknown', 'The name of the node is empty.');
      const keys = (n: Node) => [n.name, n.id, n.serial?.toLowerCase() ?? '', n.uuid ?? '', ...n.macs];
      const all = [...nodes.values()];
      const exact = all.filter(n => keys(n).includes(text));
      if (exact.length === 1) return exact[0]!;
      const prefixed = exact.length > 1 ? exact : all.filter(n => keys(n).some(k => k.startsWith(text)));
      if (prefixed.length === 1) return prefixed[0]!;
      if (prefixed.length === 0) fail('node-unknown', `No node has the name, MAC, serial or id "${selector}".`);
      return fail(
        'node-unknown',
        `"${selector}" fits ${prefixed.length} nodes: ${prefixed
          .slice(0, 5)
          .map(n => n.name)
          .join(', ')}${prefixed.length > 5 ? ', …' : ''}.`,
        { hint: 'Give more letters of the name, or the MAC.' },
      );
    },
    create: input =>
      serial(async () => {
        nameFree(input.name);
        const own = [...new Set(input.macs.map(m => m.toLowerCase()))];
        for (const mac of own) {
          const other = nodes.get(macs.get(mac) ?? '');
          if (other) fail('name-taken', `The MAC ${mac} belongs to the node ${other.name} already.`);
        }
        const at = clock.nowMs();
        const state = input.state ?? 'discovered';
        const node: Node = {
          id: randomUUID(),
          name: input.name,
          source: input.source,
          uuid: input.uuid?.toLowerCase() ?? null,
          serial: input.serial ?? null,
          macs: own,
          state,
          stateSinceMs: at,
          deadlineMs: null,
          waitingFor: null,
          failure: null,
          maintenance: null,
          spec: { ...emptySpec(), ...input.spec },
          status: { ...emptyStatus(), ...input.status },
          createdMs: at,
        };
        await db.transaction().execute(async tx => {
          await tx.insertInto('node').values(toRow(node, at)).execute();
          if (own.length > 0)
            await tx
              .insertInto('node_mac')
              .values(own.map(mac => ({ mac, node_id: node.id, first_seen_ms: at, last_seen_ms: at })))
              .execute();
          await tx
            .insertInto('node_history')
            .values({
              node_id: node.id,
              at_ms: at,
              from_state: null,
              to_state: state,
              event: 'created',
              reason: input.reason,
            })
            .execute();
        });
        for (const mac of own) macs.set(mac, node.id);
        publish(node);
        await events.emit({
          type: 'node.added',
          nodeId: node.id,
          message: `${node.name}: ${stateLabel(state)}. ${input.reason}`,
          data: { source: node.source, macs: own },
        });
        return node;
      }),
    update: (id, change) =>
      serial(async () => {
        const node = known(id);
        const what = change(node);
        if (what === null) return node;
        if (what.name !== undefined) nameFree(what.name, id);
        const next = changed(node, what);
        await save(db, next);
        publish(next);
        return next;
      }),
    assignMac: (id, mac) =>
      serial(async () => {
        const address = mac.toLowerCase();
        const node = known(id);
        const before = macs.get(address);
        if (before === id) return;
        const at = clock.nowMs();
        await db
          .replaceInto('node_mac')
          .values({ mac: address, node_id: id, first_seen_ms: at, last_seen_ms: at })
          .execute();
        macs.set(address, id);
        const other = before === undefined ? undefined : nodes.get(before);
        if (other) publish({ ...other, macs: other.macs.filter(m => m !== address) });
        publish({ ...node, macs: [...node.macs, address] });
      }),
    transition: (id, event, reason, given = {}) =>
      serial(async () => {
        const node = known(id);
        const result = transition(node.state, event, node.status.rescueFrom ?? undefined);
        if (!result.ok) return fail('not-allowed-now', `${node.name}: ${result.sentence}`);
        const change = typeof given === 'function' ? given(node) : given;
        if (change.name !== undefined) nameFree(change.name, id);
        return moveTo(changed(node, change), result.to, event, typeof reason === 'function' ? reason() : reason, null);
      }),
    failWorking: (id, problem) =>
      serial(async () => {
        const node = known(id);
        if (!isWorking(node.state)) return node;
        return moveTo(node, `${node.state}-failed`, 'failed', problem.message, problem);
      }),
    remove: id =>
      serial(async () => {
        const node = known(id);
        await db.deleteFrom('node').where('id', '=', id).execute();
        nodes.delete(id);
        for (const mac of node.macs) macs.delete(mac);
        await events.emit({ type: 'node.removed', nodeId: id, message: `${node.name} was removed.` });
        for (const listener of [...listeners]) listener(node);
      }),
    async history(id, limit) {
      const rows = await db
        .selectFrom('node_history')
        .selectAll()
        .where('node_id', '=', id)
        .orderBy('id', 'desc')
        .limit(limit)
        .execute();
      return rows.reverse().map(r => ({
        atMs: r.at_ms,
        from: r.from_state as NodeState | null,
        to: r.to_state as NodeState,
        event: r.event,
        reason: r.reason,
      }));
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
