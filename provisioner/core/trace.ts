/** Why a MAC address got what it got: every answer and every silence of DHCP, TFTP and HTTP boot, with its reason. */
import type { Clock } from './clock.js';
import type { Db } from './store/store.js';

export type TraceLayer = 'dhcp' | 'tftp' | 'http' | 'boot' | 'call-home' | 'power';

export interface TraceEntry {
  readonly atMs: number;
  readonly mac: string;
  readonly layer: TraceLayer;
  readonly message: string;
  readonly silent: boolean;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface BootTrace {
  /** Never throws and never waits: boot traffic does not queue behind the database. Written in batches. */
  record(entry: Omit<TraceEntry, 'atMs' | 'silent' | 'data'> & Partial<Pick<TraceEntry, 'silent' | 'data'>>): void;
  /** The newest `limit` entries of one MAC (lower case, colons), oldest first. Waits until what was recorded is stored. */
  read(mac: string, limit: number): Promise<TraceEntry[]>;
  close(): Promise<void>;
}

const FLUSH_MS = 250;
const PENDING_MAX = 2000;
const KEEP_ROWS = 100_000;

export function createBootTrace(db: Db, clock: Clock): BootTrace {
  let pending: TraceEntry[] = [];
  let writes = 0;
  let flushing: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;

  const flush = (): Promise<void> => {
    timer = undefined;
    const batch = pending;
    pending = [];
    if (batch.length === 0) return flushing;
    flushing = flushing.then(async () => {
      await db
        .insertInto('trace')
        .values(
          batch.map(e => ({
            mac: e.mac,
            at_ms: e.atMs,
            layer: e.layer,
            message: e.message,
            silent: e.silent ? 1 : 0,
            data: JSON.stringify(e.data),
          })),
        )
        .execute();
      if (++writes % 64 === 0) {
        const newest = await db.selectFrom('trace').select('id').orderBy('id', 'desc').limit(1).executeTakeFirst();
        await db
          .deleteFrom('trace')
          .where('id', '<=', (newest?.id ?? 0) - KEEP_ROWS)
          .execute();
      }
    });
    // A trace that cannot be written must not stop a boot.
    flushing = flushing.catch(() => {});
    return flushing;
  };

  return {
    record(entry) {
      if (pending.length >= PENDING_MAX) return;
      pending.push({ silent: false, data: {}, ...entry, mac: entry.mac.toLowerCase(), atMs: clock.nowMs() });
      timer ??= setTimeout(flush, FLUSH_MS);
    },
    async read(mac, limit) {
      await flush();
      const rows = await db
        .selectFrom('trace')
        .selectAll()
        .where('mac', '=', mac.toLowerCase())
        .orderBy('id', 'desc')
        .limit(limit)
        .execute();
      return rows.reverse().map(r => ({
        atMs: r.at_ms,
        mac: r.mac,
        layer: r.layer as TraceLayer,
        message: r.message,
        silent: r.silent === 1,
        data: JSON.parse(r.data) as Record<string, unknown>,
      }));
    },
    async close() {
      clearTimeout(timer);
      await flush();
    },
  };
}
