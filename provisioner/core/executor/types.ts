/** The one way to a node: SSH, with the host key known beforehand, and long work detached on the node. */

export interface SshTarget {
  readonly address: string;
  readonly port?: number;
  readonly user: string;
  /** `ssh-ed25519 AAAA…`; a connection that shows another key is refused. */
  readonly hostKey: string;
  /** Optional sudo for targets where `user` is not root. */
  readonly sudo?: boolean;
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: string | Buffer;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface DetachedJob {
  /**
   * Name of the transient systemd unit, `[a-z0-9-]+`. Unique per effect: run id + step + attempt. A unit of this name
   * that already exists on the node is followed, never started again.
   */
  readonly unit: string;
  /** A POSIX shell script. Secrets come through `env`, which is written to a file of mode 0600, never to a command line. */
  readonly script: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export type DetachedResult =
  | { readonly kind: 'exited'; readonly code: number; readonly tail: string }
  /** The unit and its files are gone: the node was restarted in between. */
  | { readonly kind: 'lost'; readonly reason: string };

export interface Executor {
  /** One short command. Throws ProblemError: ssh-failed, host-key-mismatch, timed-out. */
  run(target: SshTarget, command: string, options?: RunOptions): Promise<CommandResult>;
  /** Writes a file (by way of `cat`, atomically renamed). */
  write(target: SshTarget, path: string, content: string | Buffer, mode: number): Promise<void>;
  /**
   * Starts the job, or re-attaches to it when it is already there, and follows its output to the end.
   * @param onLine called with each complete line of output, once, in order; `offset` is the byte offset after it
   * @param fromOffset byte offset to follow from, after a restart of the server
   */
  detached(
    target: SshTarget,
    job: DetachedJob,
    onLine: (line: string, offset: number) => void,
    options?: { fromOffset?: number; signal?: AbortSignal },
  ): Promise<DetachedResult>;
  /** Stops a detached unit. */
  stop(target: SshTarget, unit: string): Promise<void>;
  /** Interactive shell or raw stream for consoles; the caller closes it. */
  close(): Promise<void>;
  /** Our public key in authorized_keys form. */
  readonly publicKey: string;
}
