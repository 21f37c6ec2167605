/**
 * The one step journal. A step is recorded before its effect and after it, with the epoch of the server that did it.
 * After a kill: a step with `after` is not run again and yields its stored output; one with only `before` is run
 * through its own check (re-attach), so that no effect is lost or doubled.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from './clock.js';
import { inputHash } from './input-hash.js';
import { asProblem, type Problem, ProblemError } from './problem.js';
import type { Store } from './store/store.js';

export interface Run {
  readonly id: string;
  readonly kind: string;
  readonly nodeId: string | null;
  readonly state: 'running' | 'done' | 'failed' | 'aborted';
  readonly input: unknown;
  readonly result: unknown;
  readonly createdMs: number;
  readonly endedMs: number | null;
}

export interface StepRow {
  readonly step: string;
  readonly attempt: number;
  readonly state: 'before' | 'after' | 'failed';
  readonly beforeMs: number;
  readonly afterMs: number | null;
  readonly output: unknown;
}

export interface StepContext {
  readonly runId: string;
  readonly step: string;
  readonly attempt: number;
  /** True when this very attempt was begun earlier and its end was not recorded: look before acting. */
  readonly resumed: boolean;
}

export interface Journal {
  begin(kind: string, nodeId: string | null, input: unknown): Promise<Run>;
  get(runId: string): Promise<Run | undefined>;
  list(filter: { nodeId?: string; limit?: number }): Promise<Run[]>;
  steps(runId: string): Promise<StepRow[]>;
  /**
   * Runs one step once. `attempt` tells tries apart: a finished attempt yields its stored output (or throws its stored
   * problem) without running again.
   * @throws ProblemError when the effect failed, or when a newer server fenced this one
   */
  step<T>(
    runId: string,
    step: string,
    attempt: number,
    input: unknown,
    effect: (context: StepContext) => Promise<T>,
  ): Promise<T>;
  end(runId: string, state: 'done' | 'failed' | 'aborted', result: unknown): Promise<void>;
}

export function createJournal(store: Store, clock: Clock): Journal {
  const { db, epoch } = store;

  /** Every write of the journal proves that no newer server has taken over. */
  const fence = async (tx: Pick<typeof db, 'selectFrom'>) => {
    const row = await tx.selectFrom('meta').select('value').where('key', '=', 'epoch').executeTakeFirst();
    if (Number(row?.value) !== epoch)
      throw new ProblemError({
        code: 'database-busy',
        message: `A newer server (epoch ${row?.value}) took over this database; this one (epoch ${epoch}) stops writing.`,
        hint: 'Stop this server.',
        retry: false,
      });
  };
  const toRun = (r: import('./store/schema.js').RunTable): Run => ({
    id: r.id,
    kind: r.kind,
    nodeId: r.node_id,
    state: r.state,
    input: JSON.parse(r.input),
    result: r.result === null ? null : JSON.parse(r.result),
    createdMs: r.created_ms,
    endedMs: r.ended_ms,
  });

  return {
    async begin(kind, nodeId, input) {
      const row = {
        id: randomUUID(),
        kind,
        node_id: nodeId,
        state: 'running' as const,
        epoch,
        input: JSON.stringify(input ?? null),
        result: null,
        created_ms: clock.nowMs(),
        ended_ms: null,
      };
      await db.transaction().execute(async tx => {
        await fence(tx);
        await tx.insertInto('run').values(row).execute();
      });
      return toRun(row);
    },
    async get(runId) {
      const row = await db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirst();
      return row && toRun(row);
    },
    async list({ nodeId, limit = 50 }) {
      let query = db.selectFrom('run').selectAll().orderBy('created_ms', 'desc').limit(limit);
      if (nodeId) query = query.where('node_id', '=', nodeId);
      return (await query.execute()).map(toRun);
    },
    async steps(runId) {
      const rows = await db.selectFrom('step').selectAll().where('run_id', '=', runId).orderBy('before_ms').execute();
      return rows.map(r => ({
        step: r.step,
        attempt: r.attempt,
        state: r.state,
        beforeMs: r.before_ms,
        afterMs: r.after_ms,
        output: r.output === null ? null : JSON.parse(r.output),
      }));
    },
    async step(runId, step, attempt, input, effect) {
      const hash = inputHash(input);
      const known = await db.transaction().execute(async tx => {
        await fence(tx);
        const row = await tx
          .selectFrom('step')
          .selectAll()
          .where('run_id', '=', runId)
          .where('step', '=', step)
          .where('attempt', '=', attempt)
          .executeTakeFirst();
        if (!row)
          await tx
            .insertInto('step')
            .values({
              run_id: runId,
              step,
              attempt,
              epoch,
              state: 'before',
              before_ms: clock.nowMs(),
              after_ms: null,
              input_hash: hash,
              output: null,
            })
            .execute();
        return row;
      });
      if (known?.state === 'after') return JSON.parse(known.output ?? 'null');
      if (known?.state === 'failed') throw new ProblemError(JSON.parse(known.output!) as Problem);
      const finish = (state: 'after' | 'failed', output: unknown) =>
        db.transaction().execute(async tx => {
          await fence(tx);
          await tx
            .updateTable('step')
            .set({ state, after_ms: clock.nowMs(), output: JSON.stringify(output ?? null), epoch })
            .where('run_id', '=', runId)
            .where('step', '=', step)
            .where('attempt', '=', attempt)
            .execute();
        });
      try {
        const output = await effect({ runId, step, attempt, resumed: known !== undefined });
        await finish('after', output);
        return output;
      } catch (error) {
        // Only expected failures are an end of the attempt; a bug or a shutdown leaves it open for the next start.
        if (error instanceof ProblemError) await finish('failed', asProblem(error));
        throw error;
      }
    },
    async end(runId, state, result) {
      await db.transaction().execute(async tx => {
        await fence(tx);
        await tx
          .updateTable('run')
          .set({ state, result: JSON.stringify(result ?? null), ended_ms: clock.nowMs() })
          .where('id', '=', runId)
          .execute();
      });
    },
  };
}
