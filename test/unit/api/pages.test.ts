import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ApiHandle, startApi } from '../../../provisioner/api/start.js';
import { pageFor, readPages } from '../../../provisioner/core/api/pages.js';
import { fakeServices } from './fakes.js';

let dir: string;
let handle: ApiHandle;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-pages-'));
  mkdirSync(join(dir, 'assets'));
  writeFileSync(join(dir, 'index.html'), `<!doctype html><title>Halligan</title>${' '.repeat(500)}`);
  writeFileSync(join(dir, 'assets/index-Ab12.js'), 'x'.repeat(5000));
  writeFileSync(join(dir, 'secret.key'), 'not of a type that pages are made of');
  handle = await startApi({
    ...fakeServices([]).services,
    listen: '127.0.0.1',
    port: 0,
    socketPath: null,
    version: '0.1.0',
    pages: readPages(dir),
  });
});
afterAll(async () => {
  await handle?.close();
  rmSync(dir, { recursive: true, force: true });
});

// As a browser sends it to the TCP listener.
const get = (url: string, headers: Record<string, string> = {}, method: 'GET' | 'HEAD' | 'POST' = 'GET') =>
  handle.inject({ method, url, headers: { host: '127.0.0.1:0', ...headers } });

it('serves the page for its routes, with a policy that allows no inline code', async () => {
  for (const url of ['/', '/index.html', '/nodes', '/nodes/n07?q=state:failed']) {
    const page = await get(url);
    expect(page.statusCode, url).toBe(200);
    expect(page.body).toContain('<title>Halligan</title>');
    expect(page.headers['cache-control']).toBe('no-cache');
    expect(page.headers['content-security-policy']).toMatch(
      /script-src 'self'; style-src 'self'.*frame-ancestors 'none'/,
    );
    expect(page.headers['content-security-policy']).not.toContain('unsafe');
    expect(page.headers['x-content-type-options']).toBe('nosniff');
  }
});

it('serves what has a hash in its name for ever, compressed for those who take it', async () => {
  const plain = await get('/assets/index-Ab12.js');
  expect(plain.headers['content-encoding']).toBeUndefined();
  expect(plain.headers['cache-control']).toBe('public, max-age=31536000, immutable');
  const zipped = await get('/assets/index-Ab12.js', { 'accept-encoding': 'gzip, br' });
  expect(zipped.headers['content-encoding']).toBe('gzip');
  expect(gunzipSync(zipped.rawPayload).toString()).toBe(plain.body);
  expect((await get('/assets/index-Ab12.js', { 'if-none-match': String(plain.headers['etag']) })).statusCode).toBe(304);
});

it('answers problems, not pages, for the API, other methods, files that are not there, and ways out of the folder', async () => {
  for (const [url, method] of [
    ['/api/v1/none', 'GET'],
    ['/api', 'GET'],
    ['/nodes', 'POST'],
    ['/assets/none', 'GET'],
    ['/none.js', 'GET'],
    ['/secret.key', 'GET'],
    ['/assets/../secret.key', 'GET'],
  ] as const) {
    const answer = await get(url, {}, method);
    expect(answer.statusCode, url).toBe(404);
    expect(answer.json(), url).toMatchObject({ code: 'route-unknown' });
  }
});

it('refuses a page to a foreign name, as it does the API: DNS rebinding', async () => {
  expect((await get('/', { host: 'evil.example' })).json()).toMatchObject({ code: 'origin-refused' });
});

it('has no pages where none were built', () => {
  expect(readPages(join(dir, 'assets'))).toBeNull();
  expect(pageFor(new Map(), 'GET', '/')).toBeUndefined();
});
