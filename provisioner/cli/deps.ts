/** What the command line needs of the world; the composition root fills it in, tests put in what they like. */
import type { Clock } from '../core/clock.js';
import type { CloudSettings } from '../core/cloud-settings.js';
import type { ImageManifest } from '../image/types.js';
import type { LoadedSite } from '../site/load.js';
import type { ApiClient } from './client.js';

export interface TextOutput {
  write(text: string | Uint8Array): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface TextInput extends AsyncIterable<string | Uint8Array> {
  readonly isTTY?: boolean;
  setRawMode?(on: boolean): unknown;
}

export interface ServeCommand {
  readonly loaded: LoadedSite;
}

export interface DemoCommand {
  readonly nodes: number;
  readonly report?: string;
  readonly keep: boolean;
  readonly dir?: string;
  readonly image: string;
  readonly firmware?: 'bios' | 'uefi';
  readonly timeoutSeconds: number;
}

export interface BuildImageCommand {
  /** `ram`, `ram-cloud`, `guest`, or a release such as `debian-12`. */
  readonly name: string;
  readonly dataDir: string;
  readonly mirror?: string;
  readonly force: boolean;
}

export interface BakeRolesCommand {
  /** At least one, each once. */
  readonly roles: readonly string[];
  /** Release of the cloud, `debian-12-zed`. */
  readonly release: string;
  /** Of the site file: what is laid down decides about packages, too. */
  readonly cloud?: CloudSettings;
  /** `cloud`: the small kernel for virtual machines. */
  readonly kernel: 'generic' | 'cloud';
  readonly dataDir: string;
  readonly mirror?: string;
  readonly force: boolean;
}

export interface BakedRoles {
  /** Of the image or layer. */
  readonly name: string;
  readonly roles: readonly string[];
  readonly path: string;
  /** How many packages it has on top of the system. */
  readonly packages: number;
  readonly seconds: number;
  /** It was there already. */
  readonly cached: boolean;
}

export interface ImportImageCommand {
  readonly url: string;
  readonly sha256: string;
  readonly name?: string;
  readonly dataDir: string;
}

export interface LabUpCommand {
  readonly name: string;
  readonly dir?: string;
  readonly kind: 'qemu' | 'container';
  readonly nodes: number;
  readonly firmware?: 'bios' | 'uefi';
  readonly nics: 1 | 2;
  readonly diskGiB: number;
  readonly memoryMiB?: number;
  readonly bmc: 'ipmi' | 'redfish' | 'both';
  readonly accel: 'auto' | 'kvm' | 'tcg';
}

/** One machine of a lab, as the table shows it. */
export interface LabMachine {
  readonly name: string;
  readonly power: string;
  readonly firmware: string;
  readonly macs: readonly string[];
  readonly bmc: string;
}

export interface LabReport {
  readonly name: string;
  readonly running: boolean;
  readonly reason: string | null;
  /** Where its `site.yaml` is. */
  readonly siteFile: string | null;
  /** Network namespace that a server of this lab runs in. */
  readonly netns: string | null;
  readonly machines: readonly LabMachine[];
}

export interface CliDeps {
  readonly version: string;
  readonly stdout: TextOutput;
  readonly stderr: TextOutput;
  readonly stdin: TextInput;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Fires on Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Sets the exit code of the process; called once, when the command is over. */
  readonly exit: (code: number) => void;
  /** The API behind a Unix socket; `socketClient` in real life. */
  readonly connect: (socketPath: string) => ApiClient;
  /** Runs the server until the signal fires. */
  readonly serve: (command: ServeCommand) => Promise<void>;
  /** True when all nodes made it. */
  readonly demo: (command: DemoCommand, progress: (line: string) => void) => Promise<boolean>;
  readonly buildImage: (command: BuildImageCommand, progress: (line: string) => void) => Promise<ImageManifest>;
  readonly bakeRoles: (command: BakeRolesCommand, progress: (line: string) => void) => Promise<BakedRoles>;
  readonly importImage: (command: ImportImageCommand, progress: (line: string) => void) => Promise<ImageManifest>;
  readonly listImages: (dataDir: string) => Promise<readonly ImageManifest[]>;
  readonly labUp: (command: LabUpCommand, progress: (line: string) => void) => Promise<LabReport>;
  readonly labStatus: (where: { name: string; dir?: string }) => Promise<LabReport>;
  readonly labDown: (where: { name: string; dir?: string; keepFiles: boolean }) => Promise<string>;
  /** Backup without a server, or encrypted. Returns what was written, a sentence. */
  readonly backup: (command: { dataDir: string; to: string; passphrase?: string }) => Promise<string>;
  /** Returns what was done, a sentence. */
  readonly restore: (command: {
    dataDir: string;
    from: string;
    passphrase?: string;
    force: boolean;
  }) => Promise<string>;
}
