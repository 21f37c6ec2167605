/** What API, CLI and UI can ask of the node half. Selectors: name, MAC, serial, id or an unambiguous prefix of one. */
import type { FeedEvent } from '../core/events.js';
import type { Run, StepRow } from '../core/journal.js';
import type { Problem } from '../core/problem.js';
import type { TraceEntry } from '../core/trace.js';
import type { PowerState } from '../power/types.js';
import type { Bmc, InstallConfig } from '../site/schema.js';
import type { NodeAction, NodeState } from './lifecycle.js';
import type { Node } from './types.js';

export interface NodeView extends Node {
  readonly label: string;
  /** One sentence: what it does, what it waits for, since when; for a failure what, why and the next action. */
  readonly sentence: string;
  readonly overdue: boolean;
  readonly actions: readonly NodeAction[];
}

export interface NodeAddition {
  name: string;
  macs: string[];
  uuid?: string;
  serial?: string;
  address?: string;
  bmc?: Bmc;
  roles?: string[];
  install?: Partial<InstallConfig>;
}

export interface ActionParams {
  /** install: image instead of the one of the spec. */
  image?: string;
  /** install: foreign data on the chosen disks may go; release: that on all disks. */
  wipe?: boolean;
  /** install: disk layout instead of the one of the spec. */
  layout?: 'plain' | 'lvm' | 'mdraid';
  /** release: erase 'quick' (signatures and partition tables, the default) or 'full' (every block, or the disk's own erase). */
  erase?: 'quick' | 'full';
  /** claim: new name. */
  name?: string;
  /** claim: false leaves out what would follow from its hardware profile. */
  profile?: boolean;
}

/** What `node why` answers: state, reasons, history and the newest lines of trace and journal. */
export interface Why {
  readonly node: NodeView;
  readonly next: string;
  readonly history: readonly { atMs: number; from: NodeState | null; to: NodeState; event: string; reason: string }[];
  readonly trace: readonly TraceEntry[];
  readonly run: (Run & { readonly steps: readonly StepRow[] }) | null;
  readonly events: readonly FeedEvent[];
}

/** All methods throw ProblemError (node-unknown, not-allowed-now, name-taken, site-owns, …). */
export interface NodeService {
  list(): Promise<NodeView[]>;
  get(selector: string): Promise<NodeView>;
  add(addition: NodeAddition): Promise<NodeView>;
  remove(selector: string): Promise<void>;
  update(
    selector: string,
    change: {
      name?: string;
      address?: string | null;
      bmc?: Bmc | null;
      roles?: string[];
      install?: Partial<InstallConfig>;
      maintenance?: string | null;
    },
  ): Promise<NodeView>;
  /** Records the intent; the state loop does the work. */
  act(selector: string, action: NodeAction, params: ActionParams): Promise<NodeView>;
  power(selector: string, action: 'status' | 'on' | 'off' | 'cycle'): Promise<PowerState>;
  why(selector: string): Promise<Why>;
  /** Takes over a running host without wiping it. */
  adopt(request: {
    address: string;
    name?: string;
    user: string;
    port?: number;
    hostKey?: string;
    privateKey?: string;
  }): Promise<NodeView>;
  trace(mac: string, limit: number): Promise<TraceEntry[]>;
}

export type { Problem };
