/** The executor over SSH: bounded, pooled, host keys always verified, long work detached on the node. */
import type { ClientChannel } from 'ssh2';
import ssh2 from 'ssh2';
import { type Clock, sleep } from '../clock.js';
import type { Log } from '../log.js';
import { fail, ProblemError } from '../problem.js';
import { connect, type SshAuth, type SshConnection, targetName } from './connection.js';
import {
  checkUnit,
  clearStillbornCommand,
  type FollowEnd,
  followCommand,
  parseFollowEnd,
  startProgram,
  stopCommand,
} from './detached.js';
import { createLineSplitter } from './lines.js';
import { createPool, type Lease } from './pool.js';
import { shQuote, shWords } from './quote.js';
import type { CommandResult, DetachedResult, Executor, RunOptions, SshTarget } from './types.js';

interface CommonOptions {
  /** SSH connections at once, over all nodes. */
  readonly maxConnections: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly connectTimeoutMs?: number;
  /** From the accepted login to the session: sshd waits for the node's login manager meanwhile. 45 seconds by default. */
  readonly sessionTimeoutMs?: number;
  /** An unused connection is closed after this long. */
  readonly idleMs?: number;
  /** Followers of detached work give their connection to others after this long, when all are taken. */
  readonly minHoldMs?: number;
  /** How long a node may be unreachable while we follow its work, before that is given up with ssh-failed. */
  readonly reconnectMs?: number;
}

/** `privateKey`: the server's own key, OpenSSH or PEM. `auth`: another way to log in, for an adoption. */
export type ExecutorOptions = CommonOptions & ({ readonly privateKey: string } | { readonly auth: SshAuth });

const RUN_TIMEOUT_MS = 60_000;
const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;
/** OpenSSH allows 10 sessions on one connection (MaxSessions); hardened hosts often 4. */
const CHANNELS = 4;
/** Beyond RuntimeMaxSec of the unit, for stopping it and for a last look at it. */
const GRACE_MS = 60_000;
/** Connections on which a command is tried that was never sent. */
const OPEN_TRIES = 3;
const BACKOFF_MS = [250, 500, 1000, 2000, 5000] as const;

interface Streamed {
  /** Null when the far side ended the channel without an exit code. */
  readonly code: number | null;
  readonly stderr: string;
  readonly why: 'ended' | 'timeout' | 'yielded';
}

type Ending = Streamed['why'] | 'aborted' | 'failed';

interface StreamOptions {
  readonly stdin?: string | Buffer | undefined;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The pool may ask for the connection at any time; the stream then ends as `yielded`. */
  readonly mayYield?: boolean;
  readonly onSend?: (() => void) | undefined;
  readonly onStdout: (chunk: Buffer) => void;
}

/** `ssh-ed25519 AAAA…` of a private key. */
function publicKeyOf(privateKey: string): string {
  const parsed = ssh2.utils.parseKey(privateKey);
  if (parsed instanceof Error) throw parsed;
  return `${parsed.type} ${parsed.getPublicSSH().toString('base64')}`;
}

export interface PooledExecutor extends Executor {
  /** How full the pool is, for metrics. */
  stats(): { connections: number; leases: number; waiting: number };
}

export function createExecutor(options: ExecutorOptions): PooledExecutor {
  const { clock, log } = options;
  const auth: SshAuth = 'auth' in options ? options.auth : { kind: 'key', privateKey: options.privateKey };
  const connectTimeoutMs = options.connectTimeoutMs ?? 15_000;
  const sessionTimeoutMs = options.sessionTimeoutMs ?? 45_000;
  const reconnectMs = options.reconnectMs ?? 300_000;
  const pool = createPool<SshTarget, SshConnection>({
    key: t => JSON.stringify([t.user, t.address, t.port ?? 22, t.hostKey]),
    connect: (target, signal) => connect(target, { auth, connectTimeoutMs, sessionTimeoutMs, signal }),
    maxConnections: options.maxConnections,
    channelsPerConnection: CHANNELS,
    idleMs: options.idleMs ?? 60_000,
    minHoldMs: options.minHoldMs ?? 10_000,
    clock,
  });
  const publicKey = auth.kind === 'key' ? `${publicKeyOf(auth.privateKey)} halligan` : '';

  /** Root's shell where the login user is not root; the command itself is quoted once more, never pasted. */
  const elevate = (target: SshTarget, command: string): string =>
    target.sudo ? `sudo -n -- sh -c ${shQuote(command)}` : command;

  /**
   * Opens a channel for a command. The one place that repeats: on a new connection, and only while it is sure that the
   * command was never sent: no session, no channel, or a pooled connection that turns out to be dead.
   */
  async function openChannel(
    target: SshTarget,
    command: string,
    o: Pick<StreamOptions, 'signal' | 'onSend'>,
    onYield: (() => void) | undefined,
  ): Promise<{ lease: Lease<SshConnection>; channel: ClientChannel }> {
    const { signal } = o;
    for (let tries = 1; ; tries++) {
      let lease: Lease<SshConnection> | undefined;
      try {
        lease = await pool.acquire(target, { ...(signal ? { signal } : {}), ...(onYield ? { onYield } : {}) });
        o.onSend?.();
        return { lease, channel: await lease.connection.exec(command) };
      } catch (error) {
        // A node that refuses another channel still has programs on this connection that were given up.
        lease?.retire();
        const neverSent = error instanceof ProblemError && error.problem.detail?.['began'] === false;
        if (!neverSent || tries === OPEN_TRIES) throw error;
        signal?.throwIfAborted();
        log.debug({ address: target.address, reason: error.problem.message }, 'a command is tried on a new connection');
      }
    }
  }

  async function stream(target: SshTarget, command: string, o: StreamOptions): Promise<Streamed> {
    let ending: Ending = 'ended';
    let thrown: unknown;
    let channel: ClientChannel | undefined;
    const cut = (why: Ending) => {
      if (ending !== 'ended') return;
      ending = why;
      if (channel) abandon(channel);
      settle();
    };
    // Not waited for: a far side that is gone does not answer.
    const abandon = (opened: ClientChannel) => {
      opened.signal('TERM');
      opened.close();
    };
    let settle: () => void = () => {};
    const settled = new Promise<void>(resolve => {
      settle = resolve;
    });
    const opened = await openChannel(
      target,
      elevate(target, command),
      o,
      o.mayYield ? () => cut('yielded') : undefined,
    );
    channel = opened.channel;
    const { lease } = opened;
    const onAbort = () => cut('aborted');
    o.signal?.addEventListener('abort', onAbort, { once: true });
    if (o.signal?.aborted) onAbort();
    if ((ending as Ending) !== 'ended') abandon(channel);
    const forget = lease.connection.onClosed(() => setTimeout(settle, 50));
    const timer = o.timeoutMs === undefined ? undefined : setTimeout(() => cut('timeout'), o.timeoutMs);
    const stderr: Buffer[] = [];
    let stderrBytes = 0;
    let code: number | null = null;
    let signalled = false;
    try {
      channel.on('data', (chunk: Buffer) => {
        if (ending !== 'ended') return;
        try {
          o.onStdout(chunk);
        } catch (error) {
          thrown = error;
          cut('failed');
        }
      });
      channel.stderr.on('data', (chunk: Buffer) => {
        stderrBytes += chunk.length;
        stderr.push(chunk);
        // The end of it matters: that is where programs say why they stopped.
        while (stderr.length > 1 && stderrBytes - stderr[0]!.length > 1024 * 1024)
          stderrBytes -= stderr.shift()!.length;
      });
      channel.on('exit', (exitCode: number | null, signalName?: string) => {
        code = exitCode ?? null;
        signalled = signalName !== undefined && signalName !== null;
      });
      channel.on('error', () => {});
      channel.on('close', settle);
      channel.stdin.on('error', () => {});
      if (o.stdin !== undefined) channel.end(o.stdin);
      else channel.end();
      await settled;
    } finally {
      clearTimeout(timer);
      forget();
      o.signal?.removeEventListener('abort', onAbort);
      lease.release();
    }
    const why = ending as Ending;
    if (why === 'aborted') throw o.signal!.reason;
    if (why === 'failed') throw thrown;
    const text = Buffer.concat(stderr).toString('utf8');
    if (why === 'ended' && code === null)
      fail(
        'ssh-failed',
        signalled
          ? `A command on ${targetName(target)} was killed there.`
          : `The SSH connection to ${targetName(target)} was lost while a command ran on it.`,
      );
    return { code, stderr: text, why };
  }

  async function run(target: SshTarget, command: string, o: RunOptions = {}): Promise<CommandResult> {
    const parts: Buffer[] = [];
    let bytes = 0;
    const max = o.maxOutputBytes ?? OUTPUT_MAX_BYTES;
    const timeoutMs = o.timeoutMs ?? RUN_TIMEOUT_MS;
    const { code, stderr, why } = await stream(target, command, {
      stdin: o.stdin,
      timeoutMs,
      signal: o.signal,
      onSend: o.onSend,
      onStdout: chunk => {
        bytes += chunk.length;
        if (bytes > max) fail('output-limit', `A command on ${targetName(target)} printed more than ${max} bytes.`);
        parts.push(chunk);
      },
    });
    if (why === 'timeout')
      fail('timed-out', `A command on ${targetName(target)} did not end within ${timeoutMs / 1000} seconds.`);
    return { code: code!, stdout: Buffer.concat(parts).toString('utf8'), stderr };
  }

  /** The exit code must be 0; otherwise the last words of the command are the reason. */
  async function must(target: SshTarget, what: string, command: string, o: RunOptions = {}): Promise<CommandResult> {
    const result = await run(target, command, o);
    if (result.code !== 0) {
      const words = (result.stderr || result.stdout).trim().split('\n').slice(-3).join(' | ').slice(0, 500);
      fail(
        'command-failed',
        `${what} on ${targetName(target)} failed with code ${result.code}: ${words || 'it said nothing'}.`,
      );
    }
    return result;
  }

  async function write(target: SshTarget, path: string, content: string | Buffer, mode: number): Promise<void> {
    const bytes = Buffer.from(content);
    // A connection that breaks off looks like the end of the file to `cat`; hence the count before the rename.
    const program =
      'umask 077; t=$(mktemp -- "$1.XXXXXX") || exit 1; ' +
      'if cat >"$t" && [ "$(wc -c <"$t")" -eq "$3" ] && chmod "$2" "$t" && sync "$t" && mv -fT -- "$t" "$1"; then exit 0; ' +
      'else c=$?; rm -f -- "$t"; exit "$c"; fi';
    const command = `sh -c ${shQuote(program)} halligan ${shWords(path, mode.toString(8).padStart(4, '0'), String(bytes.length))}`;
    await must(target, `Writing ${path}`, command, { stdin: bytes });
  }

  const detached: Executor['detached'] = async (target, job, onLine, o = {}) => {
    const unit = checkUnit(job.unit);
    const program = startProgram(job);
    const lines = createLineSplitter(o.fromOffset ?? 0, onLine);
    const { signal } = o;
    const deadline = clock.monotonicMs() + job.timeoutMs + GRACE_MS;
    let lastContact = clock.monotonicMs();
    let mayStart = o.startIfMissing ?? true;
    let misses = 0;

    const round = async (): Promise<FollowEnd | 'again'> => {
      if (mayStart) {
        await must(target, `Starting ${unit}`, 'sh', { stdin: program, ...(signal ? { signal } : {}) });
        // From here on its absence means that the node was restarted, and it is never started again.
        mayStart = false;
        lastContact = clock.monotonicMs();
      }
      lines.reset();
      const followed = await stream(target, followCommand(unit, lines.offset), {
        signal,
        timeoutMs: Math.max(1, deadline - clock.monotonicMs()),
        mayYield: true,
        onStdout: chunk => {
          lastContact = clock.monotonicMs();
          lines.push(chunk);
        },
      });
      lastContact = clock.monotonicMs();
      if (followed.why !== 'ended') return 'again';
      const end = parseFollowEnd(followed.stderr);
      if (!end) return fail('ssh-failed', `Following ${unit} on ${targetName(target)} broke off.`);
      return end.kind === 'end' && lines.received < end.size ? 'again' : end;
    };

    for (;;) {
      signal?.throwIfAborted();
      if (clock.monotonicMs() >= deadline) {
        await run(target, stopCommand(unit), { timeoutMs: 30_000 }).catch(() => {});
        fail('timed-out', `${unit} on ${targetName(target)} did not end within ${job.timeoutMs / 1000} seconds.`);
      }
      let end: FollowEnd | 'again';
      const contactBefore = lastContact;
      try {
        end = await round();
        misses = 0;
      } catch (error) {
        const passing = error instanceof ProblemError && ['ssh-failed', 'timed-out'].includes(error.problem.code);
        // Refused credentials do not mend themselves.
        if (!passing || error.problem.detail?.['authentication']) throw error;
        if (clock.monotonicMs() - lastContact >= reconnectMs) throw error;
        if (lastContact > contactBefore) misses = 0;
        log.debug({ unit, address: target.address, reason: error.problem.message }, 'following is taken up again');
        await sleep(BACKOFF_MS[Math.min(misses++, BACKOFF_MS.length - 1)]!, signal);
        continue;
      }
      if (end === 'again') continue;
      const result = await conclude(end);
      if (result) return result;
    }

    async function conclude(end: FollowEnd): Promise<DetachedResult | undefined> {
      switch (end.kind) {
        case 'end':
          lines.end();
          if (end.result === 'timeout')
            fail(
              'timed-out',
              `${unit} on ${targetName(target)} was stopped after ${job.timeoutMs / 1000} seconds; its last words: ${end.tail.trim().split('\n').at(-1) ?? ''}`,
            );
          return { kind: 'exited', code: end.code, tail: end.tail };
        case 'gone':
          return { kind: 'lost', reason: `${unit} is not known on ${targetName(target)}; the node was restarted.` };
        case 'vanished':
          return { kind: 'lost', reason: `${unit} on ${targetName(target)} ended without leaving an exit code.` };
        case 'stillborn':
          await must(target, `Clearing ${unit}`, clearStillbornCommand(unit));
          mayStart = o.startIfMissing ?? true;
          return undefined;
      }
    }
  };

  return {
    publicKey,
    run,
    write,
    detached,
    stop: async (target, unit) => {
      await must(target, `Stopping ${unit}`, stopCommand(unit));
    },
    close: () => pool.close(),
    stats: pool.stats,
  };
}
