/**
 * Desired state of a node, as values. A service on a node is a list of resources **in the order in which they come into
 * being**: each needs the one before it, and all need the node's packages. What must wait for another service says so by
 * a milestone (`needs`), whatever node that service is on.
 */
import type { ReleaseArchive } from './archives.js';

interface Common {
  /** Unique among the resources of this service on this node, e.g. `file:/etc/nova/nova.conf`. */
  readonly id: string;
  /** Milestones that must have been reached first, e.g. `database:ready`. A milestone is reached when all its providers are in place. */
  readonly needs: readonly string[];
  /** Milestones that this helps to reach. Every service has `NAME:done` by itself, when the last of its resources is in place on all its nodes, and `NAME:done@NODE` for each. */
  readonly provides: readonly string[];
  /**
   * Side by side with other branches of the service: it follows the resource of the same branch before it, else the last
   * one without a branch. The next one without a branch waits for all branches.
   */
  readonly branch?: string;
}

/** Packages that must be installed. All of a node are installed in one transaction, before anything else of the cloud. */
export interface PackagesResource extends Common {
  readonly kind: 'packages';
  readonly names: readonly string[];
  /** Lines for debconf-set-selections(1). */
  readonly preseed: readonly string[];
  /** Archives beside those of the distribution; their keyrings come first. */
  readonly archives: readonly ReleaseArchive[];
  /** Text of sources.list(5) that replaces the node's own when packages are installed; null: it keeps them. */
  readonly sources: string | null;
}

/** A whole file; never a patch of one. */
export interface FileResource extends Common {
  readonly kind: 'file';
  readonly path: string;
  readonly content: string;
  readonly owner: string;
  readonly group: string;
  /** e.g. 0o640 */
  readonly mode: number;
  /** The operator may add to it by `cloud.config` of the site: sections of `[a]` with `key = value`. */
  readonly grammar: 'ini' | 'text';
}

export interface DirectoryResource extends Common {
  readonly kind: 'directory';
  readonly path: string;
  readonly owner: string;
  readonly group: string;
  readonly mode: number;
}

/** A systemd unit. It is restarted when a file that it watches changed since its last start by us, or when others started it since and it may have read another one; started when it does not run. */
export interface UnitResource extends Common {
  readonly kind: 'unit';
  /** With its suffix: `nova-api.service`. */
  readonly unit: string;
  readonly state: 'running' | 'masked';
  /** Paths of files (of any service on this node) that the unit reads at start. */
  readonly watches: readonly string[];
  /** `reload` when the unit takes over changes without interruption. */
  readonly on: 'restart' | 'reload';
  /** Shell; exits 0 when the service answers. Repeated each half second until `timeoutSeconds`. Local to the node. */
  readonly ready: string | null;
  readonly timeoutSeconds: number;
  readonly expectedSeconds: number;
  /** What users notice while it restarts, a sentence; null when nothing. */
  readonly interrupts: string | null;
  /** A oneshot unit that ends (RemainAfterExit) counts as running. */
}

/** Something that only a command can bring about. */
export interface CommandResource extends Common {
  readonly kind: 'command';
  /** What it does, for people: "Create the databases". */
  readonly title: string;
  /**
   * Shell; exits 0 when there is nothing to do. It is run at each look at the node, so it must be quick (no Python
   * client) and change nothing. Null: only the stamp says whether it was done.
   */
  readonly check: string | null;
  /** Hash or version of the input; when it differs from what was recorded after the last success, the command runs again. */
  readonly stamp: string | null;
  /** Shell (`sh -eu`), as root. It must be safe to run twice. Secrets are in `env`, for use in standard input or files, never in an argument. */
  readonly apply: string;
  /** Variables for `apply` and `check`; their values may be secret. */
  readonly env: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
  readonly expectedSeconds: number;
  /** What data it destroys, a sentence; null when none. The plan asks for confirmation. */
  readonly destroys: string | null;
  readonly interrupts: string | null;
}

export type Resource = PackagesResource | FileResource | DirectoryResource | UnitResource | CommandResource;

type Given<R extends Resource, Required extends keyof R> = Pick<R, Required> &
  Partial<Omit<R, Required | 'kind' | 'id'>>;
const common = (r: { needs?: readonly string[]; provides?: readonly string[]; branch?: string }) => ({
  needs: r.needs ?? [],
  provides: r.provides ?? [],
  ...(r.branch === undefined ? {} : { branch: r.branch }),
});

/** The same resources as a branch of their service. */
export const branch = <R extends Resource>(name: string, resources: readonly R[]): R[] =>
  resources.map(r => ({ ...r, branch: name }));

export const packages = (
  names: readonly string[],
  options: Partial<Pick<PackagesResource, 'preseed'>> = {},
): PackagesResource => ({
  kind: 'packages',
  id: 'packages',
  names,
  preseed: options.preseed ?? [],
  archives: [],
  sources: null,
  needs: [],
  provides: [],
});

export const file = (r: Given<FileResource, 'path' | 'content'>): FileResource => ({
  kind: 'file',
  id: `file:${r.path}`,
  path: r.path,
  content: r.content,
  owner: r.owner ?? 'root',
  group: r.group ?? 'root',
  mode: r.mode ?? 0o644,
  grammar: r.grammar ?? 'text',
  ...common(r),
});

export const directory = (r: Given<DirectoryResource, 'path'>): DirectoryResource => ({
  kind: 'directory',
  id: `directory:${r.path}`,
  path: r.path,
  owner: r.owner ?? 'root',
  group: r.group ?? 'root',
  mode: r.mode ?? 0o755,
  ...common(r),
});

export const unit = (r: Given<UnitResource, 'unit'>): UnitResource => ({
  kind: 'unit',
  id: `unit:${r.unit}`,
  unit: r.unit,
  state: r.state ?? 'running',
  watches: r.watches ?? [],
  on: r.on ?? 'restart',
  ready: r.ready ?? null,
  timeoutSeconds: r.timeoutSeconds ?? 180,
  expectedSeconds: r.expectedSeconds ?? 2,
  interrupts: r.interrupts ?? null,
  ...common(r),
});

export const masked = (name: string): UnitResource => ({ ...unit({ unit: name, state: 'masked' }) });

/** @param r.name unique within the service on the node */
export const command = (r: Given<CommandResource, 'title' | 'apply'> & { readonly name: string }): CommandResource => ({
  kind: 'command',
  id: `command:${r.name}`,
  title: r.title,
  check: r.check ?? null,
  stamp: r.stamp ?? null,
  apply: r.apply,
  env: r.env ?? {},
  timeoutSeconds: r.timeoutSeconds ?? 120,
  expectedSeconds: r.expectedSeconds ?? 1,
  destroys: r.destroys ?? null,
  interrupts: r.interrupts ?? null,
  ...common(r),
});
