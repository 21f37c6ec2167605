import { describe, expect, it } from 'vitest';
import { SecretMask } from '../../../../installer/secrets/mask.js';
import { openCloudSecrets } from '../../../../installer/secrets/secrets.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { createSecretStore, type SecretStore } from '../../../../provisioner/core/secrets.js';
import { openStore } from '../../../../provisioner/core/store/store.js';

async function withStore<T>(test: (store: SecretStore) => Promise<T>): Promise<T> {
  const db = await openStore(':memory:');
  try {
    return await test(createSecretStore(db.db, Buffer.alloc(32, 7), systemClock, {}));
  } finally {
    await db.close();
  }
}
const open = (store: SecretStore) => openCloudSecrets(store, systemClock);

/** Refuses the second value that it is given. */
const tiredStore = (store: SecretStore): SecretStore => {
  let puts = 0;
  return {
    ...store,
    put: (name, value) => (++puts === 2 ? Promise.reject(new Error('disk full')) : store.put(name, value)),
  };
};

describe('the secrets of a cloud', () => {
  it('are made at their first use, stored by flush, and the same afterwards', () =>
    withStore(async store => {
      const first = await open(store);
      const password = first.secret('database/nova');
      expect(first.secret('database/nova')).toBe(password);
      expect(first.pending()).toEqual(['database/nova']);
      expect(await store.names()).toEqual([]);
      await first.flush();
      expect(first.pending()).toEqual([]);
      expect(await store.names()).toEqual(['cloud/database/nova']);
      const second = await open(store);
      expect(second.secret('database/nova')).toBe(password);
      expect(second.secret('database/cinder')).not.toBe(password);
      expect(second.pending()).toEqual(['database/cinder']);
    }));

  it('have the form of their kind', () =>
    withStore(async store => {
      const secrets = await open(store);
      expect(secrets.secret('a')).toMatch(/^[A-Za-z0-9]{40}$/);
      expect(Buffer.from(secrets.secret('b', 'fernet'), 'base64url')).toHaveLength(32);
      expect(secrets.secret('b', 'fernet')).toHaveLength(44);
      expect(secrets.secret('c', 'uuid')).toMatch(/^[0-9a-f-]{36}$/);
      expect(secrets.secret('d', 'hex')).toMatch(/^[0-9a-f]{64}$/);
      const ceph = Buffer.from(secrets.secret('e', 'ceph'), 'base64');
      expect(ceph).toHaveLength(28);
      expect([ceph.readUInt16LE(0), ceph.readUInt16LE(10)]).toEqual([1, 16]);
      expect(Math.abs(ceph.readUInt32LE(2) - Date.now() / 1000)).toBeLessThan(5);
      expect(ceph.readUInt32LE(6)).toBeLessThan(1_000_000_000);
    }));

  it('of one name cannot be of two kinds', () =>
    withStore(async store => {
      const secrets = await open(store);
      secrets.secret('metadata-proxy');
      expect(() => secrets.secret('metadata-proxy', 'uuid')).toThrow('not of the kind uuid');
    }));

  it('keep away from the names of certificates and from names that are none', () =>
    withStore(async store => {
      const secrets = await open(store);
      expect(() => secrets.secret('pki/ca')).toThrow('pki/…');
      for (const name of ['', '/a', 'a/', 'a//b', '../a', 'A', 'a b'])
        expect(() => secrets.secret(name), name).toThrow();
    }));

  it('that could not be stored are stored by the next flush', () =>
    withStore(async store => {
      const secrets = await openCloudSecrets(tiredStore(store), systemClock);
      for (const name of ['a', 'b', 'c']) secrets.secret(name);
      await expect(secrets.flush()).rejects.toThrow('disk full');
      expect(secrets.pending()).toEqual(['b', 'c']);
      await secrets.flush();
      expect(await store.names()).toEqual(['cloud/a', 'cloud/b', 'cloud/c']);
    }));

  it('are forgotten by the next flush after they were removed', () =>
    withStore(async store => {
      const secrets = await open(store);
      secrets.secret('a');
      await secrets.flush();
      secrets.remove('a');
      secrets.remove('never-there');
      await secrets.flush();
      expect(await store.names()).toEqual([]);
    }));

  it('leave the other secrets of the server alone', () =>
    withStore(async store => {
      await store.put('bmc/n07', 'calvin-calvin');
      const secrets = await open(store);
      expect(secrets.names()).toEqual([]);
      expect(secrets.mask('calvin-calvin')).toBe('calvin-calvin');
    }));

  it('are hidden in a text whether old or new', () =>
    withStore(async store => {
      const first = await open(store);
      const old = first.secret('database/nova');
      await first.flush();
      const secrets = await open(store);
      const fresh = secrets.secret('messaging/openstack');
      expect(secrets.mask(`a ${old} b ${fresh}${old}`)).toBe(
        'a <secret database/nova> b <secret messaging/openstack><secret database/nova>',
      );
    }));
});

describe('a mask', () => {
  const mask = (values: Record<string, string>, text: string) => {
    const masks = new SecretMask();
    for (const [name, value] of Object.entries(values)) masks.add(name, value);
    return masks.mask(text);
  };

  it('takes the longer of two values that begin alike', () => {
    expect(mask({ short: 'abcdefgh', long: 'abcdefghijkl' }, 'abcdefghijklm abcdefghi')).toBe(
      '<secret long>m <secret short>i',
    );
  });

  it('leaves short values, which are words of any text', () => {
    expect(mask({ a: 'nova' }, 'nova-api')).toBe('nova-api');
  });

  it('finds a value in a URL, in JSON, and inside base64 wherever it begins', () => {
    const value = 'pa/ss word"+ü!';
    for (const before of ['', 'u:', 'user:', 'openstack:'])
      for (const encode of [
        (s: string) => Buffer.from(s).toString('base64'),
        (s: string) => Buffer.from(s).toString('base64url'),
      ]) {
        const masked = mask({ p: value }, `Basic ${encode(`${before}${value}@host`)}.`);
        expect(masked).toContain('<secret p>');
        expect(Buffer.from(masked.replace('<secret p>', ''), 'base64').toString()).not.toContain('word');
      }
    expect(mask({ p: value }, `rabbit://u:${encodeURIComponent(value)}@h`)).toBe('rabbit://u:<secret p>@h');
    expect(mask({ p: value }, JSON.stringify({ value }))).toBe('{"value":"<secret p>"}');
  });

  it('finds a key line by line, as a diff shows it', () => {
    const key = `-----BEGIN PRIVATE KEY-----\n${'A'.repeat(64)}\n${'B'.repeat(30)}\n-----END PRIVATE KEY-----\n`;
    expect(mask({ k: key }, key.replace(/^/gm, '+'))).toBe(
      '+-----BEGIN PRIVATE KEY-----\n+<secret k>\n+<secret k>\n+-----END PRIVATE KEY-----\n+',
    );
  });

  it('reads a long text once, however many secrets there are', () => {
    const masks = new SecretMask();
    for (let i = 0; i < 2000; i++) masks.add(`s${i}`, `secret-number-${i}-${'x'.repeat(30)}`);
    const text = 'nothing to see here, move along\n'.repeat(10_000);
    const start = performance.now();
    expect(masks.mask(text)).toBe(text);
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
