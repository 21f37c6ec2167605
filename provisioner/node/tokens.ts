/** One-time tokens that let a node call home: bound to node, stage and run, stored as hashes, short-lived. */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.js';
import { ProblemError, problem } from '../core/problem.js';
import type { Db } from '../core/store/store.js';

export type TokenPurpose = 'ram' | 'first-boot';

export interface TokenUse {
  readonly nodeId: string;
  readonly runId: string | null;
  /** The same boot repeated a call whose answer it did not get. */
  readonly repeated: boolean;
}

/** A used token was shown by another boot: somebody else may pose as the node. */
export class TokenReplayed extends ProblemError {
  readonly nodeId: string;
  constructor(nodeId: string) {
    super(problem('token-refused', 'The token was used before, by another boot.'));
    this.nodeId = nodeId;
  }
}

export interface Tokens {
  /**
   * A new token; earlier unused ones of the same node and purpose end.
   * @param effect names the effect that the token is made for: after a restart of the server the same effect gets the
   * same token, because the node may carry it already
   */
  issue(
    nodeId: string,
    purpose: TokenPurpose,
    runId: string | null,
    ttlSeconds: number,
    effect?: string,
  ): Promise<string>;
  /** From memory, without spending it: could this token be accepted? */
  known(token: string, purpose: TokenPurpose): boolean;
  /**
   * Spends the token for the boot `bootId`.
   * @throws ProblemError token-refused; TokenReplayed when another boot has used it
   */
  use(token: string, purpose: TokenPurpose, bootId: string): Promise<TokenUse>;
}

const hashOf = (token: string) => createHash('sha256').update(token).digest('hex');

/** @param key secret of this server, 32 bytes */
export async function createTokens(db: Db, clock: Clock, key: Buffer): Promise<Tokens> {
  const rows = await db.selectFrom('token').select(['hash', 'purpose']).execute();
  const given = new Set(rows.map(r => `${r.purpose}/${r.hash}`));
  return {
    known: (token, purpose) => given.has(`${purpose}/${hashOf(token)}`),
    async issue(nodeId, purpose, runId, ttlSeconds, effect) {
      const token = (
        effect === undefined
          ? randomBytes(32)
          : createHmac('sha256', key).update(`${nodeId}/${purpose}/${effect}`).digest()
      ).toString('base64url');
      const hash = hashOf(token);
      const now = clock.nowMs();
      const ended = await db.transaction().execute(async tx => {
        const old = await tx
          .selectFrom('token')
          .select('hash')
          .where('node_id', '=', nodeId)
          .where('purpose', '=', purpose)
          .where('hash', '!=', hash)
          .where(eb => eb.or([eb('used_ms', 'is', null), eb('expires_ms', '<', now)]))
          .execute();
        for (const row of old) await tx.deleteFrom('token').where('hash', '=', row.hash).execute();
        await tx
          .insertInto('token')
          .values({
            hash,
            node_id: nodeId,
            purpose,
            run_id: runId,
            expires_ms: now + ttlSeconds * 1000,
            used_ms: null,
            used_by: null,
          })
          .onConflict(c => c.doNothing())
          .execute();
        return old;
      });
      for (const row of ended) given.delete(`${purpose}/${row.hash}`);
      given.add(`${purpose}/${hash}`);
      return token;
    },
    use: (token, purpose, bootId) =>
      db.transaction().execute(async tx => {
        const row = await tx
          .selectFrom('token')
          .selectAll()
          .where('hash', '=', hashOf(token))
          .where('purpose', '=', purpose)
          .executeTakeFirst();
        const refused = (why: string) => new ProblemError(problem('token-refused', why));
        if (!row) throw refused('The token is unknown: the node has booted again since, or it was never given out.');
        if (row.used_ms !== null) {
          if (row.used_by !== bootId) throw new TokenReplayed(row.node_id);
          return { nodeId: row.node_id, runId: row.run_id, repeated: true };
        }
        if (row.expires_ms < clock.nowMs()) throw refused('The token has expired.');
        await tx
          .updateTable('token')
          .set({ used_ms: clock.nowMs(), used_by: bootId })
          .where('hash', '=', row.hash)
          .execute();
        return { nodeId: row.node_id, runId: row.run_id, repeated: false };
      }),
  };
}
