/**
 * The server's own keys, made once: the ed25519 key pair that logs in to nodes, and the master key that seals secrets.
 * Both live in `keys/` of the data directory (0700), each file 0600.
 */
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { fail } from './problem.js';

export const KEYS_DIR = 'keys';
export const SSH_KEY_FILE = 'id_ed25519';
export const MASTER_KEY_FILE = 'master-key';
/** Name of the systemd credential that takes the place of the master key's file (LoadCredential=, systemd.exec(5)). */
export const MASTER_CREDENTIAL = 'halligan-master-key';

export interface ServerKeys {
  /** OpenSSH private key. */
  readonly privateKey: string;
  /** `ssh-ed25519 AAAA… halligan` */
  readonly publicKey: string;
  /** 32 bytes. */
  readonly masterKey: Buffer;
  readonly masterKeySource: 'file' | 'credential';
}

const missing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** Reads a file that nobody else may read; undefined when there is none. */
function readPrivate(file: string): Buffer | undefined {
  try {
    const { mode } = statSync(file);
    if (mode & 0o077)
      fail('keys-unusable', `${file} can be read by others (mode ${(mode & 0o777).toString(8)}).`, {
        hint: `Whoever could read it has the key. If nobody did: chmod 600 ${file}`,
      });
    return readFileSync(file);
  } catch (error) {
    if (missing(error)) return undefined;
    throw error;
  }
}

/** Makes a file that appears whole or not at all; when another process was first, its file stands. */
function writeOnce(file: string, content: Buffer): void {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  const fd = openSync(draft, 'wx', 0o600);
  try {
    writeSync(fd, content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  try {
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
}

function readOrMake(file: string, make: () => Buffer): Buffer {
  const found = readPrivate(file);
  if (found) return found;
  writeOnce(file, make());
  return readPrivate(file)!;
}

/** `ssh-ed25519 AAAA…` of a private key, after a signature with it was verified; undefined when it is not sound. */
function soundPublicKey(privateKey: string): string | undefined {
  const parsed = ssh2.utils.parseKey(privateKey);
  if (parsed instanceof Error || parsed.type !== 'ssh-ed25519' || !parsed.isPrivateKey()) return undefined;
  const blob = parsed.getPublicSSH();
  // 4 + 11 bytes of type, 4 + 32 bytes of key (RFC 8709 section 4).
  if (blob.length !== 51) return undefined;
  const text = `ssh-ed25519 ${blob.toString('base64')}`;
  const publicKey = ssh2.utils.parseKey(text);
  if (publicKey instanceof Error) return undefined;
  const probe = Buffer.from('halligan');
  try {
    return publicKey.verify(probe, parsed.sign(probe)) === true ? text : undefined;
  } catch {
    return undefined;
  }
}

/** An ed25519 key pair. ssh2 drops leading zero bytes, so that one pair in 256 cannot be read back: those are thrown away. */
export function makeSshKey(): string {
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync('ed25519', { comment: 'halligan' });
    if (soundPublicKey(pair.private)) return pair.private;
  }
}

/**
 * Reads the server's keys, and makes those that do not exist.
 * @param credentialsDirectory $CREDENTIALS_DIRECTORY of systemd, when the server runs as a unit
 * @throws ProblemError keys-unusable
 */
export function loadKeys(dataDir: string, credentialsDirectory?: string): ServerKeys {
  const dir = join(dataDir, KEYS_DIR);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (statSync(dir).mode & 0o077) chmodSync(dir, 0o700);

  const sshFile = join(dir, SSH_KEY_FILE);
  const privateKey = readOrMake(sshFile, () => Buffer.from(makeSshKey())).toString('utf8');
  const publicKey = soundPublicKey(privateKey);
  if (!publicKey) return fail('keys-unusable', `${sshFile} is not an unencrypted ed25519 key in OpenSSH's format.`);

  const credential = credentialsDirectory && join(credentialsDirectory, MASTER_CREDENTIAL);
  let masterKey: Buffer | undefined;
  if (credential) {
    try {
      masterKey = readFileSync(credential);
    } catch (error) {
      if (!missing(error)) throw error;
    }
  }
  const masterKeySource = masterKey ? 'credential' : 'file';
  const masterFile = join(dir, MASTER_KEY_FILE);
  masterKey ??= readOrMake(masterFile, () => randomBytes(32));
  if (masterKey.length !== 32)
    fail(
      'keys-unusable',
      `The master key in ${masterKeySource === 'file' ? masterFile : credential} has ${masterKey.length} bytes instead of 32.`,
    );
  return { privateKey, publicKey: `${publicKey} halligan`, masterKey, masterKeySource };
}
