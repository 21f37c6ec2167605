/**
 * The cloud's secrets. What is desired is made by pure, synchronous functions, and they need passwords: so all are read
 * once, new ones are made at their first use, and `flush()` stores these, sealed, before anything of a plan is used.
 */

import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import type { Clock } from '../../provisioner/core/clock.js';
import { makeSshKey } from '../../provisioner/core/keys.js';
import type { SecretStore } from '../../provisioner/core/secrets.js';
import type { SecretKind } from '../model/catalogue.js';
import { SecretMask } from './mask.js';

/** Names in the store are this and the secret's name. */
const PREFIX = 'cloud/';
const NAME = /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)*$/;
const PASSWORD_LENGTH = 40;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** cephx key (CryptoKey::encode of Ceph): type 1 (AES), time of making, length, 16 bytes; little-endian. */
function cephKey(nowMs: number): string {
  const head = Buffer.alloc(12);
  head.writeUInt16LE(1, 0);
  head.writeUInt32LE(Math.floor(nowMs / 1000), 2);
  head.writeUInt32LE((nowMs % 1000) * 1_000_000, 6);
  head.writeUInt16LE(16, 10);
  return Buffer.concat([head, randomBytes(16)]).toString('base64');
}

const KINDS: Readonly<Record<SecretKind, { make: (nowMs: number) => string; looksLike: RegExp }>> = {
  password: {
    make: () => Array.from({ length: PASSWORD_LENGTH }, () => ALPHABET[randomInt(ALPHABET.length)]).join(''),
    looksLike: /^[A-Za-z0-9]{40}$/,
  },
  fernet: {
    make: () => randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_'),
    looksLike: /^[A-Za-z0-9_-]{43}=$/,
  },
  uuid: { make: () => randomUUID(), looksLike: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/ },
  ceph: { make: cephKey, looksLike: /^AQ[A-Za-z0-9+/]{36}==$/ },
  hex: { make: () => randomBytes(32).toString('hex'), looksLike: /^[0-9a-f]{64}$/ },
  ssh: { make: makeSshKey, looksLike: /^-----BEGIN OPENSSH PRIVATE KEY-----\n/ },
};

export interface CloudSecrets {
  /** As in ServiceContext: made at the first use. @throws Error when it was made as another kind */
  secret(name: string, kind?: SecretKind): string;
  /** A value that is kept here but made elsewhere (certificates). */
  read(name: string): string | undefined;
  write(name: string, value: string): void;
  /** Forgets a value at the next flush. */
  remove(name: string): void;
  /** Names that start so, sorted. */
  names(prefix?: string): string[];
  /** Names that are not stored yet, sorted. */
  pending(): string[];
  /** Stores what is new. After a failure it may be called again. */
  flush(): Promise<void>;
  /** Text with `<secret NAME>` in place of each known value, new or old. */
  mask(text: string): string;
}

/** Reads all secrets of the cloud. */
export async function openCloudSecrets(store: SecretStore, clock: Clock): Promise<CloudSecrets> {
  const values = new Map<string, string>();
  const changed = new Set<string>();
  const masks = new SecretMask();
  const hide = (name: string, value: string) => {
    // Certificates are stored with their keys as JSON; only the key is secret.
    const key = name.startsWith('pki/') ? keyIn(value) : value;
    if (key !== undefined) masks.add(name, key);
  };
  for (const stored of await store.names()) {
    if (!stored.startsWith(PREFIX)) continue;
    const name = stored.slice(PREFIX.length);
    const value = await store.get(stored);
    if (value === undefined) continue;
    values.set(name, value);
    hide(name, value);
  }
  const write = (name: string, value: string) => {
    if (!NAME.test(name)) throw new Error(`not a name for a secret: ${JSON.stringify(name)}`);
    values.set(name, value);
    changed.add(name);
    hide(name, value);
  };
  return {
    secret(name, kind = 'password') {
      if (name.startsWith('pki/')) throw new Error(`secrets of the name pki/… are keys of certificates: ${name}`);
      const { make, looksLike } = KINDS[kind];
      const value = values.get(name);
      if (value === undefined) {
        const made = make(clock.nowMs());
        write(name, made);
        return made;
      }
      if (!looksLike.test(value)) throw new Error(`the secret ${name} is not of the kind ${kind}`);
      return value;
    },
    read: name => values.get(name),
    write,
    remove(name) {
      if (values.delete(name)) changed.add(name);
    },
    names: (prefix = '') => [...values.keys()].filter(n => n.startsWith(prefix)).sort(),
    pending: () => [...changed].sort(),
    async flush() {
      for (const name of [...changed].sort()) {
        const value = values.get(name);
        if (value === undefined) await store.remove(PREFIX + name);
        else await store.put(PREFIX + name, value);
        // It may have been changed again meanwhile.
        if (values.get(name) === value) changed.delete(name);
      }
    },
    mask: text => masks.mask(text),
  };
}

function keyIn(json: string): string | undefined {
  const { key } = JSON.parse(json) as { key?: unknown };
  return typeof key === 'string' ? key : undefined;
}
