/** One SSH connection: host key verified before anything else, keepalive, errors as problems of the catalogue. */
import { createHash, timingSafeEqual } from 'node:crypto';
import ssh2, { type ClientChannel, type ServerHostKeyAlgorithm } from 'ssh2';
import { fail, type Problem, ProblemError, problem } from '../problem.js';
import type { SshTarget } from './types.js';

/** How we prove who we are. `agent` is the path of an ssh-agent's socket. */
export type SshAuth =
  | { readonly kind: 'key'; readonly privateKey: string }
  | { readonly kind: 'password'; readonly password: string }
  | { readonly kind: 'agent'; readonly socket: string };

export interface SshConnection {
  /** Opens a channel and starts the command on it. Throws ProblemError ssh-failed. */
  exec(command: string): Promise<ClientChannel>;
  /** Calls back when the connection is gone, whoever ended it; at once when it already is. Returns the way to stop. */
  onClosed(callback: () => void): () => void;
  close(): void;
}

export interface ConnectOptions {
  readonly auth: SshAuth;
  readonly connectTimeoutMs: number;
  readonly signal?: AbortSignal;
}

const KEEPALIVE_MS = 15_000;
const KEEPALIVE_MISSES = 3;

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
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const client = new ssh2.Client();
    let refused: Problem | undefined;
    let ready = false;
    let closed = false;
    const callbacks = new Set<() => void>();
    const onClosed = (callback: () => void): (() => void) => {
      if (closed) queueMicrotask(callback);
      else callbacks.add(callback);
      return () => callbacks.delete(callback);
    };
    const onAbort = () => {
      client.destroy();
      settle(() => reject(signal!.reason));
    };
    const settle = (action: () => void) => {
      signal?.removeEventListener('abort', onAbort);
      action();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    client.on('error', (error: ClientError) => {
      // After `ready`, 'close' follows and the channels end with it; before, this is the answer.
      if (!ready) settle(() => reject(new ProblemError(refused ?? connectProblem(error, target, options.hostKeyType))));
      client.destroy();
    });
    client.on('close', () => {
      closed = true;
      for (const callback of [...callbacks]) callback();
      callbacks.clear();
      if (!ready)
        settle(() =>
          reject(
            new ProblemError(refused ?? problem('ssh-failed', `${targetName(target)} closed the connection at once.`)),
          ),
        );
    });
    client.on('ready', () => {
      ready = true;
      settle(() =>
        resolve({
          onClosed,
          close: () => {
            client.end();
            // A peer that is gone never answers the disconnect.
            setTimeout(() => client.destroy(), 2000).unref();
          },
          exec: command =>
            new Promise((done, broken) => {
              const lost = (reason: string, began: boolean) => {
                clearTimeout(timer);
                forget();
                const message = `${targetName(target)} did not open a channel: ${reason}.`;
                broken(new ProblemError(problem('ssh-failed', message, { detail: { began } })));
              };
              // ssh2 forgets the callback when the connection ends before the answer.
              const forget = onClosed(() => lost('the connection was closed', false));
              const timer = setTimeout(() => {
                lost('no answer', true);
                client.destroy();
              }, options.connectTimeoutMs);
              try {
                client.exec(command, (error, channel) => {
                  if (error) return lost(error.message, false);
                  clearTimeout(timer);
                  forget();
                  done(channel);
                });
              } catch (error) {
                lost((error as Error).message, false);
              }
            }),
        }),
      );
    });
    const verifier = (key: Buffer): boolean => {
      if (options.verify(key)) return true;
      refused ??= problem(
        'host-key-mismatch',
        `${targetName(target)} showed the SSH host key ${hostKeyFingerprint(key)}, not the one it handed over.`,
        { detail: { fingerprint: hostKeyFingerprint(key) } },
      );
      return false;
    };
    try {
      client.connect({
        host: target.address,
        port: target.port ?? 22,
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
      settle(() => reject(new ProblemError(connectProblem(error as ClientError, target, options.hostKeyType))));
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
