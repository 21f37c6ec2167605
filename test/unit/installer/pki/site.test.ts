import { describe, expect, it } from 'vitest';
import { makeCa, NODE_DAYS } from '../../../../installer/pki/certificate.js';
import { openSitePki } from '../../../../installer/pki/site.js';
import { openCloudSecrets } from '../../../../installer/secrets/secrets.js';
import { type Clock, systemClock } from '../../../../provisioner/core/clock.js';
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
const later = (days: number): Clock => ({ ...systemClock, nowMs: () => Date.now() + days * 86_400_000 });
const wanted = { names: ['n07'], addresses: ['10.99.0.7'] };

describe('the site’s own PKI', () => {
  it('makes the CA once and a node’s certificate once, and finds both again', () =>
    withStore(async store => {
      const secrets = await openCloudSecrets(store, systemClock);
      const pki = openSitePki(secrets, 'berlin', systemClock);
      const pair = pki.node('n07', 'n07', wanted);
      expect(pki.node('n07', 'n07', wanted)).toEqual(pair);
      expect(secrets.pending()).toEqual(['pki/ca', 'pki/node/n07']);
      await secrets.flush();
      expect(await store.names()).toEqual(['cloud/pki/ca', 'cloud/pki/node/n07']);

      const again = await openCloudSecrets(store, systemClock);
      const found = openSitePki(again, 'berlin', systemClock);
      expect(found.ca).toBe(pki.ca);
      expect(found.node('n07', 'n07', wanted)).toEqual(pair);
      expect(again.pending()).toEqual([]);
    }));

  it('makes a node’s certificate anew when its names change or it is about to end, and keeps the CA', () =>
    withStore(async store => {
      const secrets = await openCloudSecrets(store, systemClock);
      const pki = openSitePki(secrets, 'berlin', systemClock);
      const first = pki.node('n07', 'n07', wanted);
      const second = pki.node('n07', 'n07', { ...wanted, names: ['n07', 'api'] });
      expect(second.key).not.toBe(first.key);
      const late = openSitePki(secrets, 'berlin', later(NODE_DAYS - 10));
      expect(late.ca).toBe(pki.ca);
      expect(late.node('n07', 'n07', { ...wanted, names: ['n07', 'api'] }).certificate).not.toBe(second.certificate);
    }));

  it('shows no key in a masked text, but the certificates', () =>
    withStore(async store => {
      const secrets = await openCloudSecrets(store, systemClock);
      const pki = openSitePki(secrets, 'berlin', systemClock);
      const pair = pki.node('n07', 'n07', wanted);
      const masked = secrets.mask(`${pki.ca}${pair.certificate}${pair.key}`);
      expect(masked).toContain(pki.ca);
      expect(masked).toContain(pair.certificate);
      expect(masked).toContain('<secret pki/node/n07>');
      for (const line of pair.key.split('\n').slice(1, -2)) expect(masked).not.toContain(line);
    }));

  it('forgets the certificates of nodes that are gone', () =>
    withStore(async store => {
      const secrets = await openCloudSecrets(store, systemClock);
      const pki = openSitePki(secrets, 'berlin', systemClock);
      for (const name of ['n07', 'n08']) pki.node(name, name, wanted);
      pki.keepOnly(['n08']);
      expect(secrets.names('pki/')).toEqual(['pki/ca', 'pki/node/n08']);
    }));

  it('refuses a CA whose key is not its own, and makes no new one in its place', () =>
    withStore(async store => {
      const [a, b] = [1, 2].map(() => makeCa({ siteName: 'berlin', nowMs: Date.now() }));
      await store.put('cloud/pki/ca', JSON.stringify({ certificate: a!.certificate, key: b!.key }));
      const secrets = await openCloudSecrets(store, systemClock);
      expect(() => openSitePki(secrets, 'berlin', systemClock)).toThrow('do not belong together');
      secrets.write('pki/ca', JSON.stringify({ certificate: a!.certificate }));
      expect(() => openSitePki(secrets, 'berlin', systemClock)).toThrow('damaged');
    }));
});
