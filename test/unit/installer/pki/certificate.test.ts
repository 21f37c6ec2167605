import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';
import {
  CA_DAYS,
  expiresMs,
  issue,
  makeCa,
  NODE_DAYS,
  namesOf,
  needsRenewal,
} from '../../../../installer/pki/certificate.js';

const run = promisify(execFile);
const DAY = 24 * 60 * 60 * 1000;
const now = Date.now();
const wanted = { names: ['n07', 'n07.cloud.example.org', 'api.example.org'], addresses: ['127.0.0.1', '10.99.0.7'] };
const ca = makeCa({ siteName: 'berlin', nowMs: now });
const pair = issue(ca, 'n07.cloud.example.org', wanted, now);
const dir = mkdtempSync(join(tmpdir(), 'halligan-pki-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const put = (name: string, text: string) => {
  writeFileSync(join(dir, name), text, { mode: 0o600 });
  return join(dir, name);
};
const files = {
  ca: put('ca.pem', ca.certificate),
  certificate: put('node.pem', pair.certificate),
  key: put('node.key', pair.key),
};

describe('a CA', () => {
  it('may sign end certificates only, for ten years', () => {
    const certificate = new X509Certificate(ca.certificate);
    expect(certificate.ca).toBe(true);
    expect(certificate.subject).toMatch(/^O=Halligan\nCN=berlin cloud CA [0-9a-f]{6}$/);
    expect(expiresMs(ca.certificate)).toBeCloseTo(now + CA_DAYS * DAY, -4);
  });

  it('of a site that lost its database has another name than the old one', () => {
    const other = makeCa({ siteName: 'berlin', nowMs: now });
    expect(new X509Certificate(other.certificate).subject).not.toBe(new X509Certificate(ca.certificate).subject);
  });

  it('takes a site name of any length', () => {
    const long = new X509Certificate(makeCa({ siteName: 'x'.repeat(300), nowMs: now }).certificate);
    expect(long.subject.split('CN=')[1]!.length).toBeLessThanOrEqual(64);
  });
});

describe('a node certificate', () => {
  it('names the node, its addresses and the API, and no more', () => {
    expect(namesOf(pair.certificate)).toEqual({
      names: ['api.example.org', 'n07', 'n07.cloud.example.org'],
      addresses: ['10.99.0.7', '127.0.0.1'],
    });
  });

  it('is good since yesterday and for at most 825 days', () => {
    const certificate = new X509Certificate(pair.certificate);
    expect(Date.parse(certificate.validFrom)).toBeLessThanOrEqual(now - DAY);
    expect(Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)).toBeLessThan(NODE_DAYS * DAY);
  });

  it('has a key of its own in PKCS#8', () => {
    expect(pair.key).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(createPrivateKey(pair.key).asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    expect(issue(ca, 'n07', wanted, now).key).not.toBe(pair.key);
  });

  it('never outlives its CA', () => {
    const late = now + (CA_DAYS - 100) * DAY;
    const certificate = issue(ca, 'n07', wanted, late).certificate;
    expect(expiresMs(certificate)).toBe(expiresMs(ca.certificate));
    expect(needsRenewal({ ...pair, ...issue(ca, 'n07', wanted, late) }, ca.certificate, wanted, late + 90 * DAY)).toBe(
      null,
    );
  });

  it('takes an address that was given as a name for an address', () => {
    const names = namesOf(issue(ca, 'n07', { names: ['N07.', '10.0.0.1'], addresses: [] }, now).certificate);
    expect(names).toEqual({ names: ['n07'], addresses: ['10.0.0.1'] });
  });

  it.each(['a b', 'n07,DNS:evil', '', '*.example.org', 'ü', 'a\nb'])('is not made for the name %j', name => {
    expect(() => issue(ca, 'n07', { names: [name], addresses: [] }, now)).toThrow('not a name for a certificate');
  });
});

describe('a certificate is replaced', () => {
  const why = (over: Partial<Parameters<typeof needsRenewal>[2]> = {}, days = 0) =>
    needsRenewal(pair, ca.certificate, { ...wanted, ...over }, now + days * DAY);

  it('not while its names are the same, in any order', () => {
    expect(why()).toBe(null);
    expect(why({ names: [...wanted.names].reverse() })).toBe(null);
  });

  it('when a name or an address is missing in it', () => {
    expect(why({ names: [...wanted.names, 'n07.other'] })).toBe('names');
    expect(why({ addresses: [...wanted.addresses, '10.1.0.7'] })).toBe('names');
  });

  it('when it holds a name that is not wanted any more, but not for an address of an interface that is down', () => {
    expect(why({ names: ['n07'] })).toBe('names');
    expect(why({ addresses: ['10.99.0.7'] })).toBe(null);
  });

  it('when its holder became a hypervisor, or is none any more: libvirt lets in by that', () => {
    expect(why({ unit: 'hypervisor' })).toBe('names');
    const hypervisor = issue(ca, 'n07', { ...wanted, unit: 'hypervisor' }, now);
    const { subject } = new X509Certificate(hypervisor.certificate);
    // The order that libvirt's list is written in.
    expect(subject.split('\n')).toEqual(['O=Halligan', 'OU=hypervisor', 'CN=n07']);
    expect(needsRenewal(hypervisor, ca.certificate, { ...wanted, unit: 'hypervisor' }, now)).toBe(null);
    expect(needsRenewal(hypervisor, ca.certificate, wanted, now)).toBe('names');
    // A name cannot pass for a unit.
    const sly = issue(ca, 'x,OU=hypervisor', wanted, now);
    expect(needsRenewal(sly, ca.certificate, { ...wanted, unit: 'hypervisor' }, now)).toBe('names');
  });

  it('when less than thirty days are left', () => {
    expect(why({}, NODE_DAYS - 32)).toBe(null);
    expect(why({}, NODE_DAYS - 30)).toBe('expiry');
  });

  it('when it is another CA’s, or its key is another one', () => {
    const other = makeCa({ siteName: 'berlin', nowMs: now });
    expect(needsRenewal(pair, other.certificate, wanted, now)).toBe('issuer');
    const key = issue(ca, 'n07', wanted, now).key;
    expect(needsRenewal({ ...pair, key }, ca.certificate, wanted, now)).toBe('key');
  });
});

describe('another program’s view', () => {
  it('of Node’s TLS: both sides show their certificate and accept the other', async () => {
    const server = createServer({
      key: pair.key,
      cert: pair.certificate,
      ca: ca.certificate,
      requestCert: true,
      rejectUnauthorized: true,
    });
    server.on('secureConnection', socket => socket.end('hello'));
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    try {
      const client = issue(ca, 'n08', { names: ['n08'], addresses: [] }, now);
      const ask = (options: object) =>
        new Promise<string>((resolve, reject) => {
          const socket = connect({ port, host: '127.0.0.1', ca: ca.certificate, ...options });
          socket.on('data', data => resolve(data.toString()));
          socket.on('error', reject);
        });
      expect(await ask({ key: client.key, cert: client.certificate })).toBe('hello');
      await expect(
        ask({ key: client.key, cert: client.certificate, servername: 'elsewhere.example.org' }),
      ).rejects.toThrow('does not match');
      await expect(ask({})).rejects.toThrow();
    } finally {
      server.close();
    }
  });

  it.skipIf(!existsSync('/usr/bin/openssl'))('of openssl verify, by the strict reading of RFC 5280', async () => {
    for (const purpose of ['sslserver', 'sslclient']) {
      const { stdout } = await run('openssl', [
        ...['verify', '-x509_strict', '-check_ss_sig', '-purpose', purpose, '-verify_hostname', 'n07'],
        ...['-CAfile', files.ca, files.certificate],
      ]);
      expect(stdout).toBe(`${files.certificate}: OK\n`);
    }
    const { stdout } = await run('openssl', ['verify', '-x509_strict', '-CAfile', files.ca, files.ca]);
    expect(stdout).toBe(`${files.ca}: OK\n`);
    const other = put('other.pem', makeCa({ siteName: 'berlin', nowMs: now }).certificate);
    await expect(run('openssl', ['verify', '-CAfile', other, files.certificate])).rejects.toThrow();
  });

  it.skipIf(!existsSync('/usr/bin/openssl'))('of openssl s_server and s_client with TLS 1.2 and 1.3', async () => {
    const server: ChildProcess = spawn('openssl', [
      ...['s_server', '-accept', '127.0.0.1:0', '-cert', files.certificate, '-key', files.key, '-Verify', '1'],
      ...['-CAfile', files.ca, '-verify_return_error', '-www'],
    ]);
    try {
      const port = await new Promise<string>((resolve, reject) => {
        let seen = '';
        server.stdout!.on('data', data => {
          seen += data;
          const found = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(seen);
          if (found) resolve(found[1]!);
        });
        server.on('exit', () => reject(new Error(`s_server ended: ${seen}`)));
      });
      for (const version of ['-tls1_2', '-tls1_3']) {
        const client = run('openssl', [
          ...['s_client', '-connect', `127.0.0.1:${port}`, version, '-CAfile', files.ca, '-verify_return_error'],
          ...['-cert', files.certificate, '-key', files.key, '-verify_ip', '10.99.0.7'],
        ]);
        client.child.stdin!.end();
        expect((await client).stdout).toContain('Verify return code: 0 (ok)');
      }
    } finally {
      server.kill('SIGKILL');
    }
  });
});
