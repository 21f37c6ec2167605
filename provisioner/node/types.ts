/** A node in memory: intent (`spec`) and observation (`status`) apart. */
import type { Problem } from '../core/problem.js';
import type { Inventory } from '../inventory/types.js';
import type { Bmc, InstallConfig } from '../site/schema.js';
import type { NodeState } from './lifecycle.js';

/** What the operator said. */
export interface NodeSpec {
  /** Reserved address. */
  address: string | null;
  bmc: Bmc | null;
  roles: string[];
  install: Partial<InstallConfig>;
  /** Where it stands; by the operator's word or by the switch that it sees. */
  rack?: { name: string; unit: number | null } | null;
}

/** One life of the RAM environment on the node, from its call home to its end. */
export interface RamSession {
  /** The kernel's boot_id; another value means that the node was restarted. */
  bootId: string;
  address: string;
  /** The host key that the node made and handed over with its token: `ssh-ed25519 AAAA…`. */
  hostKey: string;
  startedMs: number;
  firmware: 'bios' | 'uefi';
}

/** What was seen. */
export interface NodeStatus {
  inventory: Inventory | null;
  inventoryMs: number | null;
  ram: RamSession | null;
  /** The installed system. */
  os: {
    address: string;
    /** Of sshd; 22 when left out. */
    port?: number;
    hostKey: string;
    login: string;
    image: string;
    installedMs: number;
    /** When it first called home; null while it has not. */
    firstBootMs: number | null;
  } | null;
  power: { state: 'on' | 'off' | 'unknown'; seenMs: number } | null;
  lastSeenMs: number | null;
  /** The run that the present working state drives. */
  runId: string | null;
  /** How often the present working state was started over. */
  attempt: number;
  /** Reserved address that we chose, when the operator named none. */
  address: string | null;
  /** The disk carries a system that we wrote to its end: the node may boot from it. */
  diskReady: boolean;
  /** The last time that we ordered a boot from the network in the present working state. */
  netboot: { orderedMs: number; count: number } | null;
  /** Newest milestone of the boot script or of the installer. */
  milestone: { name: string; atMs: number } | null;
  /** Where a rescue returns to. */
  rescueFrom: NodeState | null;
  platform: 'bios' | 'uefi' | null;
  /**
   * The profile that it was last claimed with, its number in it, and what it gave: the rest of the spec is the operator's.
   * Kept after a release, so that name and number stay.
   */
  profile?: {
    name: string;
    number: number;
    gave: { roles: readonly string[]; install: Partial<InstallConfig> };
  } | null;
  warnings: string[];
}

export interface Node {
  readonly id: string;
  readonly name: string;
  readonly source: 'site' | 'api' | 'dhcp' | 'adopt';
  readonly uuid: string | null;
  readonly serial: string | null;
  readonly macs: readonly string[];
  readonly state: NodeState;
  readonly stateSinceMs: number;
  readonly deadlineMs: number | null;
  readonly waitingFor: string | null;
  readonly failure: Problem | null;
  /** Why it is in maintenance, or null. */
  readonly maintenance: string | null;
  readonly spec: NodeSpec;
  readonly status: NodeStatus;
  readonly createdMs: number;
}
