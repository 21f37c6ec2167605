/**
 * A Kysely dialect over the `sqlite3` package.
 *
 * sqlite3 shares one connection among all callers: an insert made between another caller's BEGIN and ROLLBACK is
 * silently lost. Here the one connection is handed out behind a mutex, so a transaction is alone while it lasts.
 */
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import sqlite3 from 'sqlite3';

class Sqlite3Connection implements DatabaseConnection {
  readonly #db: sqlite3.Database;
  readonly #statements = new Map<string, Promise<sqlite3.Statement>>();

  constructor(db: sqlite3.Database) {
    this.#db = db;
  }

  #prepare(text: string): Promise<sqlite3.Statement> {
    let prepared = this.#statements.get(text);
    if (!prepared) {
      prepared = new Promise<sqlite3.Statement>((resolve, reject) => {
        const statement = this.#db.prepare(text, (error: Error | null) => (error ? reject(error) : resolve(statement)));
      });
      prepared.catch(() => this.#statements.delete(text));
      this.#statements.set(text, prepared);
    }
    return prepared;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    const statement = await this.#prepare(query.sql);
    const reads = /^\s*(select|with|pragma|explain)/i.test(query.sql) || /\sreturning\s/i.test(query.sql);
    return new Promise((resolve, reject) => {
      if (reads) {
        statement.all(query.parameters, (error: Error | null, rows: unknown[]) =>
          error ? reject(error) : resolve({ rows: rows as R[] }),
        );
      } else {
        statement.run(query.parameters, function (this: sqlite3.RunResult, error: Error | null) {
          if (error) reject(error);
          else resolve({ rows: [], numAffectedRows: BigInt(this.changes), insertId: BigInt(this.lastID) });
        });
      }
    });
  }

  // biome-ignore lint/correctness/useYield: sqlite3 has no cursors worth the name; nothing here streams rows
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error('streaming rows is not supported');
  }

  async finalize(): Promise<void> {
    for (const prepared of this.#statements.values()) {
      const statement = await prepared.catch(() => undefined);
      await new Promise<void>(resolve => (statement ? statement.finalize(() => resolve()) : resolve()));
    }
    this.#statements.clear();
  }
}

class Sqlite3Driver implements Driver {
  readonly #file: string;
  #db: sqlite3.Database | undefined;
  #connection: Sqlite3Connection | undefined;
  #queue: Promise<void> = Promise.resolve();
  #release: () => void = () => {};

  constructor(file: string) {
    this.#file = file;
  }

  async init(): Promise<void> {
    this.#db = await new Promise<sqlite3.Database>((resolve, reject) => {
      const db = new sqlite3.Database(this.#file, error => (error ? reject(error) : resolve(db)));
    });
    this.#db.configure('busyTimeout', 5000);
    this.#connection = new Sqlite3Connection(this.#db);
    // WAL + FULL: what was acknowledged survives a loss of power (https://www.sqlite.org/pragma.html#pragma_synchronous).
    for (const pragma of ['journal_mode=wal', 'synchronous=full', 'foreign_keys=on', 'secure_delete=on'])
      await this.#connection.executeQuery(CompiledQuery.raw(`pragma ${pragma}`));
  }

  acquireConnection(): Promise<DatabaseConnection> {
    let release: () => void = () => {};
    const previous = this.#queue;
    this.#queue = new Promise(resolve => {
      release = resolve;
    });
    return previous.then(() => {
      this.#release = release;
      return this.#connection!;
    });
  }

  async releaseConnection(): Promise<void> {
    this.#release();
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'));
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('rollback'));
  }

  async destroy(): Promise<void> {
    await this.#connection?.finalize();
    const db = this.#db;
    if (db) await new Promise<void>((resolve, reject) => db.close(error => (error ? reject(error) : resolve())));
  }
}

/** The dialect for one database file (`:memory:` for tests). */
export function sqliteDialect(file: string): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => new Sqlite3Driver(file),
    createIntrospector: db => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}
