/** Leases in the database: read once at the start, written in groups before the ACKs go out. */
import { sql } from 'kysely';
import type { Clock } from '../core/clock.js';
import { formatIpv4, tryParseIpv4 } from '../core/net/ipv4.js';
import type { Db } from '../core/store/store.js';
import type { Lease } from './leases.js';

/**
 * All stored leases, with expiry on the monotonic clock of this process. When the wall clock stands before the time of
 * the last write it was set back, and the lease is taken to run in full.
 */
export async function loadLeases(db: Db, clock: Clock): Promise<Lease[]> {
  const now = clock.nowMs();
  const monotonic = clock.monotonicMs();
  const leases: Lease[] = [];
  for (const row of await db.selectFrom('lease').selectAll().execute()) {
    const address = tryParseIpv4(row.ip);
    if (address === undefined) continue;
    const leftMs = row.expires_ms - Math.max(now, row.updated_ms);
    const leftAfterStepBackMs = row.expires_ms - row.updated_ms;
    leases.push({
      address,
      network: row.network,
      mac: row.mac,
      clientIdentifier: row.client_key.startsWith('mac:') ? null : row.client_key,
      hostName: row.hostname,
      state: row.state,
      expiresAt: monotonic + (now < row.updated_ms ? leftAfterStepBackMs : leftMs),
    });
  }
  return leases;
}

export interface LeaseWriter {
  /** Resolves when the leases are durable; rejects when they could not be stored. */
  write(leases: readonly Lease[]): Promise<void>;
  /** Writes that wait. */
  readonly pending: number;
  /** Resolves when nothing is left to write. */
  close(): Promise<void>;
}

/** Group commit: while one transaction is being synced to disk, what arrives gathers for the next. */
export function createLeaseWriter(db: Db, clock: Clock): LeaseWriter {
  let waiting: { leases: readonly Lease[]; resolve: () => void; reject: (error: unknown) => void }[] = [];
  let writing: Promise<void> | undefined;

  const run = async () => {
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      const now = clock.nowMs();
      const monotonic = clock.monotonicMs();
      const rows = group
        .flatMap(entry => entry.leases)
        .map(lease => [
          formatIpv4(lease.address),
          lease.network,
          lease.clientIdentifier ?? `mac:${lease.mac}`,
          lease.mac,
          lease.hostName,
          lease.state,
          Math.round(now + lease.expiresAt - monotonic),
          now,
        ]);
      try {
        // One statement whatever the size of the group, so the cache of prepared statements does not grow with it.
        await sql`insert or replace into lease (ip, network, client_key, mac, hostname, state, expires_ms, updated_ms)
          select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7
          from json_each(${JSON.stringify(rows)})`.execute(db);
        for (const entry of group) entry.resolve();
      } catch (error) {
        for (const entry of group) entry.reject(error);
      }
    }
    writing = undefined;
  };

  return {
    write(leases) {
      return new Promise((resolve, reject) => {
        waiting.push({ leases, resolve, reject });
        writing ??= run();
      });
    },
    get pending() {
      return waiting.length;
    },
    async close() {
      await writing;
    },
  };
}
