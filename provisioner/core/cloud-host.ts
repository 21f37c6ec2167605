/** What the cloud half is given by the other: nodes, ways to them, and the one of each. They meet in the composition root. */
import type { Clock } from './clock.js';
import type { CatalogueView, CloudService } from './cloud-service.js';
import type { CloudSettings } from './cloud-settings.js';
import type { EventFeed } from './events.js';
import type { Executor, SshTarget } from './executor/types.js';
import type { Journal } from './journal.js';
import type { Log } from './log.js';
import type { Machines } from './machines.js';
import type { Problem } from './problem.js';
import type { SecretStore } from './secrets.js';

/** A node that has roles. */
export interface HandedNode {
  readonly id: string;
  readonly name: string;
  readonly roles: readonly string[];
  /** How its installed system is reached; null with the reason while it has none. */
  readonly target: SshTarget | null;
  readonly unreachableBecause: string | null;
  /** Where the site file sets its roles, for refusals: `site.yaml, line 14`; null: operators set them. */
  readonly rolesSetIn: string | null;
}

export interface CloudHost {
  readonly siteName: string;
  readonly domain: string;
  readonly settings: CloudSettings;
  readonly dataDir: string;
  readonly nodes: () => readonly HandedNode[];
  /** A node by its name, whether it has roles or not. */
  readonly node: (name: string) => HandedNode | null;
  /** Nodes whose roles wait for an installed system. */
  readonly machines: Machines;
  /** Gives a node these roles and no other. @throws ProblemError site-owns */
  readonly setRoles: (name: string, roles: readonly string[]) => Promise<void>;
  /** A node is worked on, is done, or failed with its first problem. */
  readonly onNode: (name: string, state: 'applying' | 'ready' | 'failed', problem: Problem | null) => Promise<void>;
  readonly executor: Executor;
  readonly journal: Journal;
  readonly events: EventFeed;
  readonly secrets: SecretStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Files of an image in the image store, by name of image and file. @throws ProblemError image-missing */
  readonly imageFile: (image: string, file: string) => Promise<string>;
  /** Lines of sources.list(5) for nodes that shall not use their own package sources; null where they shall. */
  readonly packageSources: (node: string) => string | null;
}

export interface RunningCloud extends CloudService {
  /** Takes up what an earlier server left unfinished. */
  resume(): Promise<void>;
  /** Stops following; what runs on nodes goes on and is taken up by the next server. */
  close(): Promise<void>;
}

/** Where packages of a release come from. */
export interface ReleaseArchives {
  /** Name of the distribution’s data file. */
  readonly distribution: string;
  /** Beside those of the distribution. */
  readonly archives: readonly {
    readonly uri: string;
    readonly suites: readonly string[];
    readonly components: readonly string[];
    readonly keyring: { readonly file: string; readonly package: string };
  }[];
}

export interface CloudHalf {
  /** @throws ProblemError when the site's cloud cannot be had, e.g. an unknown release */
  start(host: CloudHost): RunningCloud;
  /** Null for an unknown release. */
  archivesOf(release: string): ReleaseArchives | null;
  readonly catalogue: CatalogueView;
}
