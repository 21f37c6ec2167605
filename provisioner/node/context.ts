/** What the handlers of the working states need of the world. */
import type { Clock } from '../core/clock.js';
import type { EventFeed } from '../core/events.js';
import type { Executor } from '../core/executor/types.js';
import type { Journal } from '../core/journal.js';
import type { Log } from '../core/log.js';
import type { BootTrace } from '../core/trace.js';
import type { Power } from '../power/types.js';
import type { Site } from '../site/schema.js';
import type { Outcome } from './lifecycle.js';
import type { NodeRepository } from './repository.js';
import type { ActionParams } from './service.js';
import type { Tokens } from './tokens.js';
import type { Node } from './types.js';

/** A script for the node, ready for the executor. */
export interface NodeJob {
  readonly script: string;
  readonly env: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** What it will do, a sentence for the journal and the log; no secrets. */
  readonly summary: string;
  /** Effective image and login, for the record of the installed system. */
  readonly image: string;
  readonly login: string;
  /** Disks that it makes its own before it writes to them, and the mark that they carry from then on. */
  readonly claims?: { readonly disks: readonly string[]; readonly owner: string };
}

/** What a line of a job's output means. */
export type JobLine =
  | { readonly kind: 'stage'; readonly name: string; readonly text: string }
  | { readonly kind: 'result'; readonly hostKey: string }
  | { readonly kind: 'problem'; readonly message: string }
  | { readonly kind: 'text'; readonly text: string };

/** The installer half of the working states: pure plans turned into scripts. Throws ProblemError disk-…, image-…. */
export interface JobMaker {
  install(node: Node, params: ActionParams, firstBootToken: string, url: string): Promise<NodeJob>;
  /** @param all disks with other people's data, too */
  erase(node: Node, mode: 'quick' | 'full', all: boolean): NodeJob;
  read(line: string): JobLine;
}

export interface StateContext {
  readonly site: Site;
  readonly nodes: NodeRepository;
  readonly tokens: Tokens;
  readonly journal: Journal;
  readonly executor: Executor;
  readonly power: Power;
  readonly jobs: JobMaker;
  readonly events: EventFeed;
  readonly trace: BootTrace;
  readonly clock: Clock;
  readonly log: Log;
  /** The boot plane as the node with this address sees it: http://ADDRESS:PORT */
  readonly bootUrl: (nodeAddress: string) => string;
  /** Shows what is being waited for while a handler is still at work. */
  waiting(nodeId: string, sentence: string): Promise<void>;
}

/** One file per working state exports this. Called again and again until it says go or fail; must survive a restart. */
export type StateHandler = (node: Node, context: StateContext, signal: AbortSignal) => Promise<Outcome>;
