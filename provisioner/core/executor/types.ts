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
  /** 60 seconds unless said otherwise. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** A command that prints more is cut off with output-limit; 16 MiB unless said otherwise. */
  readonly maxOutputBytes?: number;
  /** Called when the connection stands and the command goes out on it; again when it is tried on another one. */
  readonly onSend?: () => void;
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
  /**
   * One short command, for the login shell of the user; data goes into it by `shQuote` only. A code other than 0 is a
   * result, not an error. After `timed-out` and a lost connection it may still be running on the node. What could not even
   * be sent was tried on three connections.
   * @throws ProblemError ssh-failed, host-key-mismatch, timed-out, output-limit; the signal's reason when aborted
   */
  run(target: SshTarget, command: string, options?: RunOptions): Promise<CommandResult>;
  /**
   * Writes a file: beside the old one, synced, counted, then renamed over it; its folder must exist.
   * @throws ProblemError command-failed, and those of `run`
   */
  write(target: SshTarget, path: string, content: string | Buffer, mode: number): Promise<void>;
  /**
   * Starts the job, or re-attaches to it when it is already there, and follows its output to the end.
   * @param onLine called with each complete line of output, once, in order; `offset` is the byte offset after it
   * @param fromOffset byte offset to follow from, after a restart of the server
   * @param startIfMissing false: only re-attach; when the unit is not there the result is `lost`. True by default.
   * @throws ProblemError timed-out (the unit was stopped), host-key-mismatch (also: the node was restarted into a RAM
   *   environment with a new key), ssh-failed (unreachable for long), command-failed (the unit could not be started);
   *   the signal's reason when aborted, in which case the unit goes on
   */
  detached(
    target: SshTarget,
    job: DetachedJob,
    onLine: (line: string, offset: number) => void,
    options?: { fromOffset?: number; startIfMissing?: boolean; signal?: AbortSignal },
  ): Promise<DetachedResult>;
  /** Stops a detached unit and waits for its end; one that is not there counts as stopped. */
  stop(target: SshTarget, unit: string): Promise<void>;
  /** Closes every connection. Detached units go on; calls that wait are rejected. */
  close(): Promise<void>;
  /** Our public key in authorized_keys form. */
  readonly publicKey: string;
}
