/** The security checks of a cloud that was laid down: what a check is, and what it is given. */
import type { CloudModel } from '../model/cloud.js';

export interface PathEvidence {
  readonly path: string;
  readonly mode: number;
  readonly owner: string;
  readonly group: string;
  readonly kind: 'file' | 'folder' | 'link' | 'other';
}

export interface TlsEvidence {
  /** What listens there, for people: `Keystone`. */
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** A client that trusts only the CA of the site came through, with the name or address checked. */
  readonly ok: boolean;
  readonly version: string | null;
  /** What it answered to a client without a certificate that asked something; null when nothing was asked. */
  readonly answer: string | null;
  readonly error: string | null;
  /** Versions of TLS that it takes although they are broken. */
  readonly old: readonly string[];
  /** First line of its answer to plain HTTP, empty when it gave none. */
  readonly clear: string;
}

/** A secret that was found where it must not be; by its place in the list of digests, -1 for a private key in PEM. */
export interface Found {
  readonly path: string;
  readonly secrets: readonly number[];
}

/** What was read on one node: what `templates/security/evidence.py` prints. */
export interface NodeEvidence {
  readonly paths: readonly PathEvidence[];
  readonly contents: Readonly<Record<string, string>>;
  /** Horizon's settings by name, where they are literals. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly commands: Readonly<Record<string, { readonly code: number; readonly out: string; readonly error: string }>>;
  readonly tls: readonly TlsEvidence[];
  readonly amqp: readonly {
    readonly user: string;
    readonly password: string;
    readonly result: 'taken' | 'refused' | 'unknown';
  }[];
  readonly passwords: { readonly usable: readonly string[]; readonly empty: readonly string[] };
  readonly processes: readonly {
    readonly user: string;
    readonly program: string;
    readonly secrets: readonly number[];
    /** What follows `-vnc`. */
    readonly vnc: string | null;
  }[];
  readonly logs: {
    readonly files: number;
    readonly bytes: number;
    /** Nothing was left out for its size. */
    readonly whole: boolean;
    readonly hits: readonly Found[];
  };
  readonly readable: readonly Found[];
}

/** What the APIs and the dashboard answered to the server. */
export interface ApiEvidence {
  /** URLs of Keystone's catalogue. */
  readonly endpoints: readonly { readonly service: string; readonly url: string }[];
  /** Pairs that everybody knows and that Keystone or the dashboard took: `admin/admin at Keystone`. */
  readonly taken: readonly string[];
  readonly tried: number;
  /** Why no pairs were tried, a sentence; null when they were. */
  readonly notTried: string | null;
  /** Statuses of requests without a token, by path. */
  readonly withoutToken: Readonly<Record<string, number>>;
  /** The dashboard's login page; null where there is none. */
  readonly dashboard: { readonly status: number; readonly headers: Readonly<Record<string, string>> } | null;
}

export interface Evidence {
  readonly model: CloudModel;
  /** Nodes that were looked at. */
  readonly nodes: ReadonlyMap<string, NodeEvidence>;
  /** Why the others were not. */
  readonly missing: ReadonlyMap<string, string>;
  /** Null with the reason when the APIs could not be asked. */
  readonly api: ApiEvidence | null;
  readonly apiMissing: string | null;
  /** Names of secrets, in the order of their digests. */
  readonly searched: readonly string[];
  /** The cloud's own passwords and keys: how long, and which are the same. */
  readonly secrets: readonly { readonly name: string; readonly length: number; readonly same: string | null }[];
}

export type Verdict =
  | { readonly ok: true; readonly remark: string | null }
  | { readonly ok: false; readonly reason: string };

export interface SecurityCheck {
  /** Of the Security Guide (`Check-Identity-01`) or our own (`Halligan-Database`). */
  readonly id: string;
  readonly title: string;
  /** Where it comes from. */
  readonly source: string;
  /** True, or why the cloud has nothing to check here: a sentence. */
  readonly applies: (model: CloudModel) => true | string;
  readonly evaluate: (evidence: Evidence) => Verdict;
  /** What to do when it fails. */
  readonly hint: string;
}
