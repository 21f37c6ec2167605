/** Takes over an installed host over SSH as it is: looks, adds our public key, takes the inventory. It wipes nothing. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import type { Clock } from '../core/clock.js';
import { distributionNames, packageRoot } from '../core/distributions/load.js';
import { hostKeyFingerprint, parseHostKey, type SshAuth, scanHostKey } from '../core/executor/connection.js';
import { createExecutor } from '../core/executor/executor.js';
import { shQuote } from '../core/executor/quote.js';
import type { Executor, SshTarget } from '../core/executor/types.js';
import type { Log } from '../core/log.js';
import { fail, ProblemError } from '../core/problem.js';
import { normaliseInventory } from '../inventory/normalise.js';
import { parseInventoryStream } from '../inventory/raw.js';
import type { Inventory } from '../inventory/types.js';
import { judgeHost, nodeNameOf, PROBE_PROGRAM, parseProbe } from './probe.js';

export interface AdoptRequest {
  readonly address: string;
  readonly name?: string;
  readonly user: string;
  readonly port?: number;
  /** `ssh-ed25519 AAAA…`, or its fingerprint `SHA256:…` as `ssh-keygen -l` prints it. */
  readonly hostKey?: string;
  /** How to log in this once, one of the three; the server's own key when none is given. */
  readonly privateKey?: string;
  readonly password?: string;
  /** Path of an ssh-agent's socket. */
  readonly agentSocket?: string;
  readonly signal?: AbortSignal;
  /** The server's executor, which drives the host from then on. */
  readonly executor: Executor;
  readonly clock: Clock;
  readonly log: Log;
}

export interface AdoptedHost {
  readonly name: string;
  readonly os: {
    readonly address: string;
    readonly port?: number;
    readonly hostKey: string;
    readonly login: string;
    /** Release, e.g. `debian-12`. */
    readonly image: string;
  };
  readonly inventory: Inventory;
}

const CONNECT_MS = 15_000;
const INVENTORY_MS = 300_000;

/** The collector of the RAM environment; it reads only, and prints all on its standard output with `stream`. */
const COLLECTOR = 'templates/ram/root/usr/lib/halligan/inventory';

/** The host key to hold the host to. Nothing is trusted because it was seen first. */
async function expectedHostKey(request: AdoptRequest): Promise<string> {
  const { address, port, user, hostKey, signal } = request;
  const given = hostKey?.trim();
  if (given && !given.startsWith('SHA256:')) return parseHostKey(given).text;
  const where = { address, user, ...(port === undefined ? {} : { port }) };
  const seen = await scanHostKey(where, { connectTimeoutMs: CONNECT_MS, ...(signal ? { signal } : {}) });
  if (!given)
    return fail('adopt-refused', `The host key of ${address} is not known; it shows ${seen.fingerprint}.`, {
      hint: `Compare with \`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\` on the host's own console; when it is the same, repeat with --host-key ${seen.fingerprint}.`,
      detail: { fingerprint: seen.fingerprint },
    });
  if (given.replace(/=+$/, '') !== seen.fingerprint)
    return fail('host-key-mismatch', `${address} shows the host key ${seen.fingerprint}, not ${given}.`, {
      hint: 'Somebody may stand in between. Compare on the host’s own console.',
      detail: { fingerprint: seen.fingerprint },
    });
  return seen.hostKey;
}

function firstLogin({ privateKey, password, agentSocket }: AdoptRequest): SshAuth | undefined {
  if (privateKey !== undefined) {
    const parsed = ssh2.utils.parseKey(privateKey);
    if (parsed instanceof Error || !parsed.isPrivateKey())
      return fail(
        'request-invalid',
        'The private key is not one that can be used: OpenSSH or PEM form, without passphrase.',
      );
    return { kind: 'key', privateKey };
  }
  if (password !== undefined) return { kind: 'password', password };
  if (agentSocket !== undefined) return { kind: 'agent', socket: agentSocket };
  return undefined;
}

/** Adds a public key for the login user, once, and leaves all others. */
const authoriseProgram = (publicKey: string): string => `{
umask 077
key=${shQuote(publicKey)}
file=$HOME/.ssh/authorized_keys
mkdir -p "$HOME/.ssh" && touch "$file" || exit 1
grep -qxF -- "$key" "$file" && exit 0
[ -z "$(tail -c 1 "$file")" ] || echo >>"$file"
printf '%s\\n' "$key" >>"$file"
exit
}
`;

/**
 * @returns what the node's record needs; the host then answers to the server's own key
 * @throws ProblemError adopt-refused (with the host key's fingerprint when none was given), host-key-mismatch,
 *   ssh-failed, request-invalid, inventory-refused, command-failed
 */
export async function adoptHost(request: AdoptRequest): Promise<AdoptedHost> {
  const { address, port, user, signal, executor, clock, log } = request;
  const auth = firstLogin(request);
  if (request.name !== undefined && nodeNameOf(request.name) !== request.name)
    fail('request-invalid', `"${request.name}" cannot be the name of a node: one label of a host name, lower case.`);
  const hostKey = await expectedHostKey(request);
  const asUser: SshTarget = { address, user, hostKey, ...(port === undefined ? {} : { port }) };
  const options = signal ? { signal } : {};

  const visit = auth ? createExecutor({ auth, maxConnections: 1, clock, log, connectTimeoutMs: CONNECT_MS }) : executor;
  try {
    const probed = await visit.run(asUser, 'sh', { stdin: PROBE_PROGRAM, ...options }).catch(error => {
      if (error instanceof ProblemError && error.problem.detail?.['authentication'])
        fail('adopt-refused', `${user}@${address} did not accept the ${auth ? 'login' : "server's own key"}.`, {
          hint: auth
            ? 'Check user and key, then run `halligan node adopt` again.'
            : `Give a private key for the first visit, or add this line to ~${user}/.ssh/authorized_keys there: ${executor.publicKey}`,
        });
      throw error;
    });
    const facts = parseProbe(probed.stdout);
    const image = judgeHost(facts, user, address, distributionNames());
    if (typeof image !== 'string') throw new ProblemError(image);
    const name =
      request.name ??
      nodeNameOf(facts.hostname) ??
      fail('request-invalid', `The host name "${facts.hostname}" cannot be the name of a node; give one with --name.`);

    if (auth) {
      const added = await visit.run(asUser, 'sh', { stdin: authoriseProgram(executor.publicKey), ...options });
      if (added.code !== 0)
        fail(
          'command-failed',
          `Our key could not be added for ${user}@${address}: ${added.stderr.trim().slice(0, 300)}.`,
        );
    }

    // With our own key from here on: what follows proves that the host can be driven.
    const target: SshTarget = { ...asUser, sudo: facts.uid !== 0 };
    const script = await readFile(join(packageRoot(), COLLECTOR), 'utf8');
    // Not on the shell's standard input, where a tool that reads its own would swallow the rest of the script.
    const command = `sh -c ${shQuote('p=$(cat) && exec sh -c "$p" inventory stream </dev/null')}`;
    const collected = await executor
      .run(target, command, { stdin: script, timeoutMs: INVENTORY_MS, ...options })
      .catch(error => {
        if (error instanceof ProblemError && error.problem.detail?.['authentication'])
          fail(
            'adopt-refused',
            `${user}@${address} does not accept our key, though it was added to ~/.ssh/authorized_keys.`,
            {
              hint: 'Look at AuthorizedKeysFile, AllowUsers and PubkeyAuthentication in the host’s sshd_config.',
            },
          );
        throw error;
      });
    if (collected.code !== 0)
      fail(
        'command-failed',
        `The inventory of ${address} failed with code ${collected.code}: ${collected.stderr.trim().slice(-300)}.`,
      );
    const inventory = normaliseInventory(parseInventoryStream(collected.stdout));
    log.info({ address, name, image, hostKey: hostKeyFingerprint(parseHostKey(hostKey).blob) }, 'host adopted');
    return {
      name,
      os: { address, ...(port === undefined || port === 22 ? {} : { port }), hostKey, login: user, image },
      inventory,
    };
  } finally {
    if (visit !== executor) await visit.close();
  }
}
