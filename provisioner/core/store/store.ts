/** Opening the database: migrations, the epoch of this start, and the lock that keeps a second server out. */
import { closeSync, constants, existsSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { Kysely, Migrator } from 'kysely';
import { ProblemError, problem } from '../problem.js';
import { sqliteDialect } from './dialect.js';
import { MIGRATIONS } from './migrations.js';
import type { Database } from './schema.js';

export type Db = Kysely<Database>;

export interface Store {
  readonly db: Db;
  /** Grows by one at every start of a server; fences what an earlier start left behind. */
  readonly epoch: number;
  close(): Promise<void>;
}

/**
 * Opens (and makes, and migrates) the database.
 * @param file path, or `:memory:`
 * @throws ProblemError `database-newer` when the file knows migrations that this program does not
 */
export async function openStore(file: string): Promise<Store> {
  if (file !== ':memory:') {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // Made before SQLite opens it, so that it is never readable by others, not even for a moment.
    if (!existsSync(file)) closeSync(openSync(file, constants.O_CREAT | constants.O_RDWR, 0o600));
  }
  const db: Db = new Kysely<Database>({ dialect: sqliteDialect(file) });
  try {
    const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...MIGRATIONS }) } });
    const { error } = await migrator.migrateToLatest();
    if (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw /corrupted migrations|previously executed migration/.test(text)
        ? new ProblemError(problem('database-newer', `${file}: ${text}.`))
        : error;
    }
    const epoch = await db.transaction().execute(async tx => {
      const row = await tx.selectFrom('meta').select('value').where('key', '=', 'epoch').executeTakeFirst();
      const next = Number(row?.value ?? 0) + 1;
      await tx
        .replaceInto('meta')
        .values({ key: 'epoch', value: String(next) })
        .execute();
      return next;
    });
    return { db, epoch, close: () => db.destroy() };
  } catch (error) {
    await db.destroy().catch(() => {});
    throw error;
  }
}
