/** One SSH connection: host key verified before anything else, keepalive, errors as problems of the catalogue. */
import { createHash, timingSafeEqual } from 'node:crypto';
import net from 'node:net';
import ssh2, { type ClientChannel, type ServerHostKeyAlgorithm } from 'ssh2';
import { fail, type Problem, ProblemError, problem } from '../problem.js';
import type { SshTarget } from './types.js';

/** How we prove who we are. `agent` is the path of an ssh-agent's socket. */
export type SshAuth =
  | { readonly kind: 'key'; readonly privateKey: string }
  | { readonly kind: 'password'; readonly password: string }
  | { readonly kind: 'agent'; readonly socket: string };

export interface SshConnection {
  /**
   * Opens a channel and starts the command on it.
   * @throws ProblemError ssh-failed; its `detail.began` is false when the command was never sent
   */
  exec(command: string): Promise<ClientChannel>;
  /** Calls back when the connection is gone, whoever ended it; at once when it already is. Returns the way to stop. */
  onClosed(callback: () => void): () => void;
  /** Says good-bye; the connection is gone within CLOSE_MS, also when the peer has vanished. */
  close(): void;
}

export interface ConnectOptions {
  readonly auth: SshAuth;
  readonly connectTimeoutMs: number;
  /** How long the node may take from the accepted login to the first answer in the session. */
  readonly sessionTimeoutMs: number;
  readonly signal?: AbortSignal;
}

const KEEPALIVE_MS = 15_000;
const KEEPALIVE_MISSES = 3;
/** A peer that is gone never answers the good-bye. */
const CLOSE_MS = 2000;

/** The algorithms that prove possession of a host key of this type; an `ssh-rsa` key signs with SHA-2 (RFC 8332). */
const HOST_KEY_ALGORITHMS: Readonly<Record<string, readonly ServerHostKeyAlgorithm[]>> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

export const targetName = (target: Pick<SshTarget, 'user' | 'address' | 'port'>): string =>
  `${target.user}@${target.address}:${target.port ?? 22}`;

/** `SHA256:…` as OpenSSH prints it. */
export const hostKeyFingerprint = (blob: Buffer): string =>
  `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;

/**
 * Reads a host key in the form `TYPE BASE64 [comment]`.
 * @throws ProblemError request-invalid when the text is no public key whose blob names the same type
 */
export function parseHostKey(text: string): { type: string; blob: Buffer; text: string } {
  const [type = '', base64 = ''] = text.trim().split(/\s+/);
  const blob = Buffer.from(base64, 'base64');
  const length = blob.length >= 4 ? blob.readUInt32BE(0) : 0;
  if (!Object.hasOwn(HOST_KEY_ALGORITHMS, type) || blob.subarray(4, 4 + length).toString('latin1') !== type)
    fail('request-invalid', 'The SSH host key is not a public key of the form `ssh-ed25519 AAAA…`.');
  return { type, blob, text: `${type} ${blob.toString('base64')}` };
}

interface ClientError extends Error {
  level?: string;
  code?: string;
}

function connectProblem(error: ClientError, target: SshTarget, type: string): Problem {
  const name = targetName(target);
  if (error.level === 'client-authentication')
    return problem('ssh-failed', `${name} did not accept our key or password.`, { detail: { authentication: true } });
  if (error.level === 'client-timeout')
    return problem('ssh-failed', `${name} did not finish the SSH handshake in time.`);
  // A server without a key of the expected type is not the one that handed its key over.
  if (error.level === 'handshake' && /host key/i.test(error.message))
    return problem('host-key-mismatch', `${name} offers no host key of type ${type}, which it handed over earlier.`);
  return problem('ssh-failed', `${name} could not be reached by SSH: ${error.message}.`);
}

interface DialOptions extends ConnectOptions {
  readonly algorithms: readonly ServerHostKeyAlgorithm[];
  readonly hostKeyType: string;
  /** Sees the raw host key during key exchange, before any credential leaves this machine; false ends it. */
  readonly verify: (blob: Buffer) => boolean;
}

function dial(target: SshTarget, options: DialOptions): Promise<SshConnection> {
  const { auth, signal } = options;
  const name = targetName(target);
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const client = new ssh2.Client();
    // Our own: the client destroys no socket that was ended, and so would wait for ever for a peer that is gone.
    const socket = net.connect({ host: target.address, port: target.port ?? 22 });
    let refused: Problem | undefined;
    let authenticated = false;
    let ready = false;
    let closed = false;
    let sessionTimer: NodeJS.Timeout | undefined;
    const callbacks = new Set<() => void>();
    const onClosed = (callback: () => void): (() => void) => {
      if (closed) queueMicrotask(callback);
      else callbacks.add(callback);
      return () => callbacks.delete(callback);
    };
    const onAbort = () => {
      socket.destroy();
      settle(() => reject(signal!.reason));
    };
    const settle = (action: () => void) => {
      clearTimeout(sessionTimer);
      signal?.removeEventListener('abort', onAbort);
      action();
    };
    const giveUp = (why: Problem) => settle(() => reject(new ProblemError(why)));
    const noSession = (reason: string): Problem =>
      problem('ssh-failed', `${name} accepted our login but did not open a session: ${reason}.`, {
        hint: `Look at systemd-logind and at the load of ${target.address}: sshd waits for both before a session begins.`,
        detail: { began: false },
      });
    signal?.addEventListener('abort', onAbort, { once: true });
    client.on('error', (error: ClientError) => {
      // After `ready`, 'close' follows and the channels end with it; before, this is the answer.
      if (!ready)
        giveUp(
          refused ?? (authenticated ? noSession(error.message) : connectProblem(error, target, options.hostKeyType)),
        );
      socket.destroy();
    });
    client.on('close', () => {
      closed = true;
      for (const callback of [...callbacks]) callback();
      callbacks.clear();
      if (ready) return;
      giveUp(
        refused ??
          (authenticated
            ? noSession('it closed the connection')
            : problem('ssh-failed', `${name} closed the connection at once.`)),
      );
    });
    const exec = (command: string): Promise<ClientChannel> =>
      new Promise((done, broken) => {
        let sent = false;
        const lost = (reason: string) => {
          clearTimeout(timer);
          forget();
          const what = sent ? 'did not start a command' : 'did not open a channel';
          broken(new ProblemError(problem('ssh-failed', `${name} ${what}: ${reason}.`, { detail: { began: sent } })));
        };
        // ssh2 forgets the callback when the connection ends before the answer.
        const forget = onClosed(() => lost('the connection was closed'));
        const timer = setTimeout(() => {
          lost('no answer');
          socket.destroy();
        }, options.connectTimeoutMs);
        const opening = {
          // Read when the channel stands, just before the command goes out on it: nothing else tells.
          get env(): Record<string, string> {
            sent = true;
            return {};
          },
        };
        try {
          client.exec(command, opening, (error, channel) => {
            // An answer that says no, be it to the channel or to the command: nothing runs.
            if (error) sent = false;
            if (error) return lost(error.message);
            clearTimeout(timer);
            forget();
            done(channel);
          });
        } catch (error) {
          lost((error as Error).message);
        }
      });
    const close = () => {
      client.end();
      const timer = setTimeout(() => socket.destroy(), CLOSE_MS);
      onClosed(() => clearTimeout(timer));
    };
    client.on('ready', () => {
      authenticated = true;
      // sshd answers nothing between the accepted login and the end of PAM's session modules. Where systemd-logind is
      // there, pam_systemd waits for it, and it for a systemd that is busy: many seconds on a node that is being laid
      // down. Waited for here, it is no time of a command, and it is sure that nothing has begun. The question is one
      // that any server may deny: to cancel a forwarding that was never asked for (RFC 4254, section 7.1).
      sessionTimer = setTimeout(() => {
        giveUp(noSession(`no answer within ${options.sessionTimeoutMs / 1000} seconds`));
        socket.destroy();
      }, options.sessionTimeoutMs);
      client.unforwardIn('127.0.0.1', 0, () => {
        if (closed || ready) return;
        ready = true;
        settle(() => resolve({ onClosed, close, exec }));
      });
    });
    const verifier = (key: Buffer): boolean => {
      if (options.verify(key)) return true;
      refused ??= problem(
        'host-key-mismatch',
        `${name} showed the SSH host key ${hostKeyFingerprint(key)}, not the one it handed over.`,
        { detail: { fingerprint: hostKeyFingerprint(key) } },
      );
      return false;
    };
    try {
      client.connect({
        sock: socket,
        username: target.user,
        readyTimeout: options.connectTimeoutMs,
        keepaliveInterval: KEEPALIVE_MS,
        keepaliveCountMax: KEEPALIVE_MISSES,
        algorithms: { serverHostKey: [...options.algorithms] },
        hostVerifier: verifier,
        ...(auth.kind === 'key' ? { privateKey: auth.privateKey, authHandler: ['publickey'] } : {}),
        ...(auth.kind === 'password' ? { password: auth.password, authHandler: ['password'] } : {}),
        ...(auth.kind === 'agent' ? { agent: auth.socket, authHandler: ['agent'] } : {}),
      });
    } catch (error) {
      socket.destroy();
      giveUp(connectProblem(error as ClientError, target, options.hostKeyType));
    }
  });
}

/**
 * Connects, and proves that the node has the private half of `target.hostKey` before any credential is sent.
 * @throws ProblemError ssh-failed, host-key-mismatch
 */
export async function connect(target: SshTarget, options: ConnectOptions): Promise<SshConnection> {
  const { type, blob } = parseHostKey(target.hostKey);
  return dial(target, {
    ...options,
    algorithms: HOST_KEY_ALGORITHMS[type]!,
    hostKeyType: type,
    verify: shown => shown.length === blob.length && timingSafeEqual(shown, blob),
  });
}

/**
 * Asks a host for its ed25519 host key without trusting it: the key exchange ends with the key, nothing is logged in.
 * @returns `ssh-ed25519 AAAA…` and its fingerprint
 * @throws ProblemError ssh-failed when the host cannot be reached or has no such key
 */
export async function scanHostKey(
  target: Omit<SshTarget, 'hostKey'>,
  options: { connectTimeoutMs: number; signal?: AbortSignal },
): Promise<{ hostKey: string; fingerprint: string }> {
  let shown: Buffer | undefined;
  const looked = { ...target, hostKey: '' };
  try {
    const connection = await dial(looked, {
      ...options,
      sessionTimeoutMs: options.connectTimeoutMs,
      auth: { kind: 'password', password: '' },
      algorithms: HOST_KEY_ALGORITHMS['ssh-ed25519']!,
      hostKeyType: 'ssh-ed25519',
      verify: key => {
        shown = Buffer.from(key);
        return false;
      },
    });
    connection.close();
  } catch (error) {
    if (!shown) {
      if (error instanceof ProblemError && error.problem.code === 'host-key-mismatch')
        fail('ssh-failed', `${targetName(target)} has no SSH host key of type ssh-ed25519.`);
      throw error;
    }
  }
  return { hostKey: `ssh-ed25519 ${shown!.toString('base64')}`, fingerprint: hostKeyFingerprint(shown!) };
}
