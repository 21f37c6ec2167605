/** Numbered migrations; one that has been released is never edited. */
import { type Kysely, type Migration, sql } from 'kysely';

const first: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      'create table meta (key text primary key, value text not null) strict',
      `create table node (id text primary key, name text not null unique, source text not null, uuid text, serial text,
        state text not null, state_since_ms integer not null, deadline_ms integer, waiting_for text, failure text,
        maintenance text, spec text not null, status text not null, created_ms integer not null,
        updated_ms integer not null) strict`,
      `create table node_mac (mac text primary key, node_id text not null references node(id) on delete cascade,
        first_seen_ms integer not null, last_seen_ms integer not null) strict`,
      'create index node_mac_node on node_mac(node_id)',
      `create table node_history (id integer primary key autoincrement,
        node_id text not null references node(id) on delete cascade, at_ms integer not null, from_state text,
        to_state text not null, event text not null, reason text not null) strict`,
      'create index node_history_node on node_history(node_id, id)',
      `create table event (id integer primary key autoincrement, at_ms integer not null, type text not null,
        severity text not null, node_id text, message text not null, data text not null) strict`,
      'create index event_node on event(node_id, id)',
      `create table lease (ip text primary key, network text not null, client_key text not null, mac text not null,
        hostname text, state text not null, expires_ms integer not null, updated_ms integer not null) strict`,
      'create index lease_client on lease(network, client_key)',
      `create table trace (id integer primary key autoincrement, mac text not null, at_ms integer not null,
        layer text not null, message text not null, silent integer not null, data text not null) strict`,
      'create index trace_mac on trace(mac, id)',
      `create table run (id text primary key, kind text not null, node_id text, state text not null,
        epoch integer not null, input text not null, result text, created_ms integer not null, ended_ms integer) strict`,
      'create index run_node on run(node_id, created_ms)',
      `create table step (run_id text not null references run(id) on delete cascade, step text not null,
        attempt integer not null, epoch integer not null, state text not null, before_ms integer not null,
        after_ms integer, input_hash text not null, output text, primary key (run_id, step, attempt)) strict`,
      `create table token (hash text primary key, node_id text not null references node(id) on delete cascade,
        purpose text not null, run_id text, expires_ms integer not null, used_ms integer, used_by text) strict`,
      'create table secret (name text primary key, sealed text not null, updated_ms integer not null) strict',
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
  },
};

export const MIGRATIONS: Readonly<Record<string, Migration>> = { '001-first': first };
