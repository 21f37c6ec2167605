/** What the API needs of the rest; the composition root fills it in. */
import type { Readable } from 'node:stream';
import type { CatalogueView, CloudService } from '../core/cloud-service.js';
import type { EventFeed } from '../core/events.js';
import type { Journal } from '../core/journal.js';
import type { ImageStore } from '../image/types.js';
import type { NodeService } from '../node/service.js';
import type { LoadedSite } from '../site/load.js';

export interface ServiceHealth {
  readonly ok: boolean;
  /** One sentence: what it listens on, or why not. */
  readonly message: string;
}

/** Serial consoles. All throw ProblemError: node-unknown, console-missing, bmc-…. `nodeId` is the id, not a selector. */
export interface Consoles {
  /** The newest `bytes` bytes of the recording. */
  tail(nodeId: string, bytes: number): Promise<Buffer>;
  /** What comes from now on, until the signal fires. Drops output for a reader that is too slow; never buffers without bound. */
  follow(nodeId: string, signal: AbortSignal): AsyncIterable<Buffer>;
  /** Types into the console. */
  write(nodeId: string, data: Buffer): Promise<void>;
}

export interface Lease {
  readonly ip: string;
  readonly network: string;
  readonly mac: string;
  readonly hostname: string | null;
  readonly state: 'bound' | 'released' | 'declined';
  readonly expiresMs: number;
}

/** Write-only: a value never leaves by the API. */
export interface SecretNames {
  list(): Promise<readonly string[]>;
  set(name: string, value: string): Promise<void>;
  remove(name: string): Promise<void>;
}

export interface ApiServices {
  readonly nodes: NodeService;
  readonly events: EventFeed;
  readonly journal: Pick<Journal, 'get' | 'list' | 'steps'>;
  readonly images: Pick<ImageStore, 'list' | 'broken' | 'get'>;
  readonly consoles: Consoles;
  readonly site: LoadedSite;
  leases(): Promise<readonly Lease[]>;
  /** Each listener and worker by name: dhcp, tftp, http, loop, … */
  health(): Promise<Readonly<Record<string, ServiceHealth>>>;
  /**
   * A consistent copy of database and keys as a stream. Throws ProblemError backup-failed before the stream begins; the
   * stream errors when it fails later.
   */
  backup(signal: AbortSignal): Promise<Readable>;
  readonly secrets?: SecretNames;
  /** Null: the site has no `cloud` part. */
  readonly cloud?: CloudService | null;
  /** Services and roles that can be laid down, whether the site has a cloud or not. */
  readonly catalogue?: CatalogueView;
}
