import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { forwardable, uplinkServer } from '../../../provisioner/lab/uplink.js';
import { openUpstream, type Upstream } from '../../../provisioner/packages/upstream.js';
import { archive, type FakeArchive, orderly } from './fakes.js';

const ARCHIVES = ['http://deb.example.org/debian', 'https://sec.example.org/debian-security'];

describe('the uplink of a lab', () => {
  it.each([
    'http://deb.example.org/debian/dists/bookworm/InRelease',
    'https://sec.example.org/debian-security/pool/x_1+b.deb',
  ])('forwards %s', url => expect(forwardable(url, ARCHIVES)).toBe(url));

  it.each([
    'http://deb.example.org/debian',
    'http://deb.example.org/debian-other/x',
    'http://deb.example.org/debian/../secret',
    'http://deb.example.org/debian/%2e%2e/secret',
    'http://deb.example.org/debian/x%2f..%2fy',
    'http://deb.example.org:81/debian/x',
    'https://deb.example.org/debian/x',
    'http://deb.example.org.evil.test/debian/x',
    'http://deb.example.org@evil.test/debian/x',
    'http://user@deb.example.org/debian/x',
    'http://deb.example.org/debian/x?y',
    'http://169.254.169.254/latest/meta-data/',
    'file:///etc/passwd',
    '/debian/dists/bookworm/InRelease',
  ])('never forwards %s', url => expect(() => forwardable(url, ARCHIVES)).toThrow(/archive|absolute/));
});

describe('a server behind an uplink', () => {
  let source: FakeArchive;
  let direct: Upstream;
  let behind: Upstream;
  let close: () => Promise<void>;
  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), 'hal-uplink-'));
    source = await archive(orderly({ 'pool/x': Buffer.from('x') }));
    direct = openUpstream({ kind: 'direct' });
    const server = uplinkServer([source.url], direct, () => {});
    const path = join(dir, 'uplink.sock');
    await new Promise<void>(resolve => server.listen(path, resolve));
    behind = openUpstream({ kind: 'unix', path });
    close = async () => {
      await behind.close();
      await direct.close();
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
      await source.close();
      rmSync(dir, { recursive: true });
    };
  });
  afterAll(() => close());

  it('gets what the archive has, and hears why not', async () => {
    const found = await behind.ask(`${source.url}/pool/x`);
    expect([found.status, found.bytes, (await found.body.toArray()).join('')]).toEqual([200, 1, 'x']);
    expect((await behind.ask(`${source.url}/pool/x`, { method: 'HEAD' })).bytes).toBe(1);
    expect((await behind.ask(`${source.url}/pool/none`)).status).toBe(404);
    // A refusal of the uplink is no "not found" of an archive.
    await expect(behind.ask('http://192.0.2.1/debian/x')).rejects.toThrow(/no archive of this machine/);
  });
});
