/** The tables. Columns ending in `_ms` are wall-clock milliseconds since 1970; `json` columns hold JSON text. */
import type { Generated } from 'kysely';

export interface MetaTable {
  key: string;
  value: string;
}

export interface NodeTable {
  id: string;
  name: string;
  /** site: named in the site file; api: added by an operator; dhcp: seen on the wire; adopt: taken over. */
  source: 'site' | 'api' | 'dhcp' | 'adopt';
  uuid: string | null;
  serial: string | null;
  state: string;
  state_since_ms: number;
  /** When the present working state is overdue; null in resting states. */
  deadline_ms: number | null;
  /** What the state waits for, a sentence. */
  waiting_for: string | null;
  /** Problem as JSON when the state is a failure state. */
  failure: string | null;
  maintenance: string | null;
  /** NodeSpec as JSON: what the operator said. */
  spec: string;
  /** NodeStatus as JSON: what was seen. */
  status: string;
  created_ms: number;
  updated_ms: number;
}

export interface NodeMacTable {
  mac: string;
  node_id: string;
  first_seen_ms: number;
  last_seen_ms: number;
}

export interface NodeHistoryTable {
  id: Generated<number>;
  node_id: string;
  at_ms: number;
  from_state: string | null;
  to_state: string;
  event: string;
  reason: string;
}

export interface EventTable {
  /** The one increasing number of the feed. */
  id: Generated<number>;
  at_ms: number;
  type: string;
  severity: 'debug' | 'info' | 'warn' | 'error';
  node_id: string | null;
  message: string;
  /** JSON object. */
  data: string;
}

export interface LeaseTable {
  ip: string;
  network: string;
  /** Client identifier (hex, with type byte) or `mac:` + address: RFC 2131 section 2. */
  client_key: string;
  mac: string;
  hostname: string | null;
  state: 'bound' | 'released' | 'declined';
  expires_ms: number;
  updated_ms: number;
}

export interface TraceTable {
  id: Generated<number>;
  mac: string;
  at_ms: number;
  /** dhcp | tftp | http | boot | call-home | console */
  layer: string;
  /** What was asked and what was answered, or why not, in one sentence. */
  message: string;
  /** 1 when the request got no answer. */
  silent: number;
  data: string;
}

export interface RunTable {
  id: string;
  kind: string;
  node_id: string | null;
  state: 'running' | 'done' | 'failed' | 'aborted';
  epoch: number;
  input: string;
  result: string | null;
  created_ms: number;
  ended_ms: number | null;
}

export interface StepTable {
  run_id: string;
  step: string;
  attempt: number;
  epoch: number;
  state: 'before' | 'after' | 'failed';
  before_ms: number;
  after_ms: number | null;
  input_hash: string;
  /** JSON; what the step yielded, or the problem it failed with. */
  output: string | null;
}

export interface TokenTable {
  /** SHA-256 of the token, hex; the token itself is never stored. */
  hash: string;
  node_id: string;
  purpose: 'ram' | 'first-boot';
  run_id: string | null;
  expires_ms: number;
  used_ms: number | null;
  /** boot_id of the machine that used it: the same boot may repeat a call whose answer was lost. */
  used_by: string | null;
}

export interface SecretTable {
  name: string;
  /** AES-256-GCM: nonce (12) + ciphertext + tag (16), base64. */
  sealed: string;
  updated_ms: number;
}

export interface Database {
  meta: MetaTable;
  node: NodeTable;
  node_mac: NodeMacTable;
  node_history: NodeHistoryTable;
  event: EventTable;
  lease: LeaseTable;
  trace: TraceTable;
  run: RunTable;
  step: StepTable;
  token: TokenTable;
  secret: SecretTable;
}
