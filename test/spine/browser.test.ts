/** The browser of the suites: what it trusts, what it complains about, and that nothing of it stays. No root is needed for these. */
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { issue, makeCa } from '../../installer/pki/certificate.js';
import { openBrowser, pictureOf, type TestBrowser } from '../harness/browser.js';

const ca = makeCa({ siteName: 'browser', nowMs: Date.now() });
const pair = issue(ca, 'loopback', { names: [], addresses: ['127.0.0.1'] }, Date.now());
const PAGE = `<!doctype html><title>Good</title><canvas id="c" width="20" height="10"></canvas>
<script>const c = document.getElementById('c').getContext('2d');
c.fillRect(0, 0, 20, 10); c.fillStyle = '#fff'; c.fillRect(1, 1, 3, 2);</script>`;
const BAD = `<!doctype html><title>Bad</title><img src="/nothing.png?token=secret"><img src="http://127.0.0.1:9/plain.png">
<script>throw new Error('broken on purpose')</script>`;

let server: Server;
let origin: string;
let browser: TestBrowser;
beforeAll(async () => {
  server = createServer({ cert: pair.certificate, key: pair.key }, (request, response) => {
    const page = { '/good': PAGE, '/bad': BAD }[request.url ?? ''];
    response.writeHead(page === undefined ? 404 : 200, { 'content-type': 'text/html' });
    response.end(page);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  browser = await openBrowser({ caPem: ca.certificate });
}, 90_000);
afterAll(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

it('trusts the CA that it is given, and reads what a canvas shows', async () => {
  const { page, faults, answers } = await browser.open();
  await page.goto(`${origin}/good`);
  expect(await page.title()).toBe('Good');
  expect(await pictureOf(page)).toEqual({ width: 20, height: 10, colours: 2, lit: 6 });
  expect(faults.filter(f => !f.includes('/favicon.ico'))).toEqual([]);
  expect(answers).toContainEqual({ status: 200, url: `${origin}/good` });
});

it('names what is wrong with a page, without the secrets in addresses', async () => {
  const { page, faults } = await browser.open();
  await page.goto(`${origin}/bad`, { waitUntil: 'load' });
  await expect.poll(() => faults.join('\n')).toContain('broken on purpose');
  const said = faults.join('\n');
  expect(said).toContain(`GET ${origin}/nothing.png answers 404`);
  expect(said).toContain('plain.png');
  expect(said).not.toContain('secret');
});

it('trusts no CA but its own: a browser without it refuses the page', async () => {
  const stranger = await openBrowser();
  try {
    const { page } = await stranger.open();
    await expect(page.goto(`${origin}/good`)).rejects.toThrow('ERR_CERT_AUTHORITY_INVALID');
  } finally {
    await stranger.close();
  }
});
