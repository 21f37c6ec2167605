/** What the proof of a cloud is told, and what it tells. */
import type { CommandResult } from '../../provisioner/core/executor/types.js';
import type { ServiceName } from '../openstack/services.js';

export type TcpAnswer = 'taken' | 'refused' | 'silent';

/** How the guests are reached from outside the cloud. */
export interface Reach {
  /** Sends `count` pings, one a second; `bytes` is the payload. */
  ping(
    address: string,
    options: {
      readonly count: number;
      readonly timeoutMs: number;
      readonly bytes?: number;
      readonly signal?: AbortSignal;
    },
  ): Promise<{ readonly sent: number; readonly received: number }>;
  /**
   * What becomes of a TCP connection: `taken`; `refused` (a reset: the packet did get there); `silent` (no answer in time, or
   * word from on the way that there is none).
   */
  connects(
    address: string,
    port: number,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<TcpAnswer>;
  /** One command. @throws ProblemError ssh-failed, host-key-mismatch, timed-out */
  ssh(
    address: string,
    hostKey: string,
    privateKey: string,
    command: string,
    options: { readonly user: string; readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<CommandResult>;
}

export interface GuestImage {
  /** Path of the disk on this machine. */
  readonly file: string;
  readonly diskFormat: 'qcow2' | 'raw';
  /** Who logs in. */
  readonly user: string;
  /**
   * What it writes to its console. `markers`: our own guest, GUEST-DHCP, GUEST-METADATA, GUEST-HOSTKEY, GUEST-READY.
   * `cloud-init`: the blocks that cloud-init writes.
   */
  readonly tells: 'markers' | 'cloud-init';
  readonly properties?: Readonly<Record<string, string>>;
}

export interface ExternalNetworkSpec {
  /** Of a network that must be there; left out: the first external one on the physical network. */
  readonly name?: string;
  /** Used to make one for the run when there is none. */
  readonly physicalNetwork: string;
  readonly kind: 'flat' | 'vlan';
  readonly vlan?: number;
  readonly cidr: string;
  readonly gateway: string | null;
  readonly pool: { readonly from: string; readonly to: string };
}

export interface VerifySpec {
  readonly guest: GuestImage;
  /** null: the cloud has none; what needs a floating IP is skipped. */
  readonly external: ExternalNetworkSpec | null;
  readonly dns: readonly string[];
  /** Of the run's own network; must not be a network that this machine is in. `10.213.77.0/24` unless said otherwise. */
  readonly tenantCidr?: string;
  /** 192 MiB, 1 vCPU, 1 GiB unless said otherwise. */
  readonly flavor?: { readonly memoryMiB: number; readonly vcpus: number; readonly diskGiB: number };
  /** What must be there, up; whatever the APIs show is checked in any case. */
  readonly expect?: {
    /** In the catalogue; the five that every cloud has unless said otherwise. What is not named and not there is skipped. */
    readonly services?: readonly ServiceName[];
    /** The object store speaks S3. */
    readonly s3?: boolean;
    readonly computes?: readonly string[];
    readonly networkHosts?: readonly string[];
    readonly volumeHosts?: readonly string[];
  };
  /** So many computes get a server at the same time, the others in batches of as many; 8 unless said otherwise. */
  readonly maxComputes?: number;
  /** `https://cloud/horizon`; left out: no dashboard. */
  readonly dashboardUrl?: string;
  /** For slow machines: all time-outs are multiplied. */
  readonly timeoutFactor?: number;
  /** Steps at the same time; 6 unless said otherwise. */
  readonly parallel?: number;
  /** Names of steps: these and what they need. */
  readonly only?: readonly string[];
  /** Names of steps. */
  readonly skip?: readonly string[];
  /** Leaves what was made, to look at it; the step `cleanup` alone takes it away. */
  readonly keep?: boolean;
  /** All names of what is made begin with it; `halligan-verify` unless said otherwise. */
  readonly prefix?: string;
}

export type StepState = 'passed' | 'failed' | 'skipped';

export interface StepReport {
  readonly name: string;
  readonly title: string;
  readonly state: StepState;
  readonly seconds: number;
  readonly expectedSeconds: number;
  /** Why it failed or was skipped. */
  readonly reason?: string;
  /** What to do next. */
  readonly hint?: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

export interface VerifyReport {
  /** Nothing failed, nothing is left over, and it was not aborted. */
  readonly ok: boolean;
  /** Name that everything made in this run began with. */
  readonly run: string;
  readonly startedAtMs: number;
  readonly seconds: number;
  readonly aborted: boolean;
  readonly steps: readonly StepReport[];
  /** What could not be deleted, e.g. `server halligan-verify-3fa9c1-a (ACTIVE)`. */
  readonly leftovers: readonly string[];
}

/** Told while it runs. */
export type StepEvent =
  | { readonly kind: 'started'; readonly name: string; readonly title: string; readonly expectedSeconds: number }
  | { readonly kind: 'waiting'; readonly name: string; readonly waitingFor: string }
  | { readonly kind: 'ended'; readonly step: StepReport };
