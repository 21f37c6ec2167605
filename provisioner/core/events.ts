/** The one event feed: durable rows with one increasing number, and a wake-up for those who follow it. */
import type { Clock } from './clock.js';
import type { Db } from './store/store.js';

export interface FeedEvent {
  readonly id: number;
  readonly atMs: number;
  /** Dotted, lower case: `node.state`, `dhcp.rogue`, `install.stage`, `power.on`. */
  readonly type: string;
  readonly severity: 'debug' | 'info' | 'warn' | 'error';
  readonly nodeId: string | null;
  readonly message: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export type NewEvent = Pick<FeedEvent, 'type' | 'message'> & Partial<Pick<FeedEvent, 'severity' | 'nodeId' | 'data'>>;

export interface EventFeed {
  /** Stores the event, then wakes the followers. */
  emit(event: NewEvent): Promise<FeedEvent>;
  /** Events after `afterId`, oldest first, at most `limit`. */
  after(afterId: number, limit: number, filter?: { nodeId?: string }): Promise<FeedEvent[]>;
  /** The number of the newest event, 0 when there is none. */
  latestId(): Promise<number>;
  /** The number of the oldest event that is still kept, 0 when there is none. */
  oldestId(): Promise<number>;
  /** Called after each event is durable. Returns the way to stop. */
  subscribe(listener: (event: FeedEvent) => void): () => void;
  /** Deletes all but the newest `keep` events. */
  trim(keep: number): Promise<void>;
}

export function createEventFeed(db: Db, clock: Clock): EventFeed {
  const listeners = new Set<(event: FeedEvent) => void>();
  const bound = async (order: 'asc' | 'desc') =>
    (await db.selectFrom('event').select('id').orderBy('id', order).limit(1).executeTakeFirst())?.id ?? 0;
  return {
    async emit(event) {
      const row = {
        at_ms: clock.nowMs(),
        type: event.type,
        severity: event.severity ?? ('info' as const),
        node_id: event.nodeId ?? null,
        message: event.message,
        data: JSON.stringify(event.data ?? {}),
      };
      const { id } = await db.insertInto('event').values(row).returning('id').executeTakeFirstOrThrow();
      const stored: FeedEvent = {
        id,
        atMs: row.at_ms,
        type: row.type,
        severity: row.severity,
        nodeId: row.node_id,
        message: row.message,
        data: event.data ?? {},
      };
      for (const listener of [...listeners]) listener(stored);
      return stored;
    },
    async after(afterId, limit, filter) {
      let query = db.selectFrom('event').selectAll().where('id', '>', afterId).orderBy('id').limit(limit);
      if (filter?.nodeId) query = query.where('node_id', '=', filter.nodeId);
      const rows = await query.execute();
      return rows.map(r => ({
        id: r.id,
        atMs: r.at_ms,
        type: r.type,
        severity: r.severity,
        nodeId: r.node_id,
        message: r.message,
        data: JSON.parse(r.data) as Record<string, unknown>,
      }));
    },
    latestId: () => bound('desc'),
    oldestId: () => bound('asc'),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async trim(keep) {
      const newest = await bound('desc');
      await db
        .deleteFrom('event')
        .where('id', '<=', newest - keep)
        .execute();
    },
  };
}
