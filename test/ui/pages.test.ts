/** Every page in a real browser on the real server: live, restarted, attacked, and looked at. */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { problem } from '../../provisioner/core/problem.js';
import type { NodeView } from '../../provisioner/node/service.js';
import { openBrowser, type TestBrowser, type WatchedPage } from '../harness/browser.js';
import { inventory, macOf } from '../harness/machines.js';
import { prepareUiServer, type UiServer } from '../harness/ui-server.js';

const SHOTS = resolve(import.meta.dirname, '../../dist/ui-screenshots');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const ROUTES = ['/', '/nodes', '/nodes/n01', '/nodes/n04', '/plan', '/rollouts', '/cloud', '/events', '/nothing-here'];

let server: UiServer;
let browser: TestBrowser;
let phone: TestBrowser;

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  server = await prepareUiServer(async nodes => {
    const add = (name: string, n: number, state: NodeView['state'], roles: string[] = []) =>
      nodes.create({
        name,
        source: 'dhcp',
        serial: `SER${n}`,
        macs: [macOf(n)],
        state,
        spec: { roles, rack: { name: n % 2 ? 'B1' : 'B2', unit: n } },
        status: { inventory: inventory(), platform: 'uefi' },
        reason: 'It called home.',
      });
    for (const n of [1, 2, 3]) await add(`n0${n}`, n, 'available');
    const failed = await add('n04', 4, 'installing');
    await nodes.failWorking(failed.id, problem('bmc-silent', 'n04: its BMC 10.98.0.4 did not answer within 30 s.'));
    await add('n05', 5, 'claimed', ['compute']);
    const kept = await add('n06', 6, 'available');
    await nodes.update(kept.id, () => ({ maintenance: 'a fan is being replaced' }));
  });
  await server.start();
  browser = await openBrowser();
  phone = await openBrowser({ viewport: { width: 320, height: 640 } });
});
afterAll(async () => {
  await browser?.close();
  await phone?.close();
  await server?.close();
});

/** Nothing is being read any more. */
const read = (page: Page) => expect.poll(() => page.locator('[aria-busy=true]').count(), { timeout: 60_000 }).toBe(0);
const live = (page: Page) => page.locator('[data-phase="live"]').waitFor();
async function at(path: string, on: TestBrowser = browser): Promise<WatchedPage> {
  const watched = await on.open();
  await watched.page.goto(`${server.origin}${path}`);
  await live(watched.page);
  return watched;
}
/** All but the requests that end with the page that made them. */
const wrong = (watched: WatchedPage) => watched.faults.filter(f => !f.endsWith('net::ERR_ABORTED'));

describe('how it is served', () => {
  it('sends a strict policy, no cache for the page, for ever for what has a hash in its name, 304 for what is known', async () => {
    const page = await fetch(server.origin);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("script-src 'self'");
    expect(policy).toContain("style-src 'self'");
    expect(policy).not.toContain('unsafe');
    expect(page.headers.get('cache-control')).toBe('no-cache');
    const html = await page.text();
    const script = /src="(\/assets\/[^"]+\.js)"/.exec(html)?.[1];
    const asset = await fetch(`${server.origin}${script}`);
    expect(asset.headers.get('cache-control')).toContain('immutable');
    expect(asset.headers.get('content-encoding')).toBe('gzip');
    const again = await fetch(server.origin, { headers: { 'if-none-match': page.headers.get('etag')! } });
    expect(again.status).toBe(304);
    expect(await (await fetch(`${server.origin}/nodes/n01`)).text()).toBe(html);
    expect((await fetch(`${server.origin}/assets/none.js`)).status).toBe(404);
    expect((await fetch(`${server.origin}/api/v1/none`)).headers.get('content-type')).toContain('json');
  });

  it('needs at most 250 KB of JavaScript, compressed, for the first screen', async () => {
    const { page } = await browser.open();
    const sizes: number[] = [];
    page.on('response', async response => {
      if (response.url().endsWith('.js')) sizes.push(Number(response.headers()['content-length']));
    });
    await page.goto(server.origin);
    await live(page);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    console.log(`JavaScript of the first screen: ${total} bytes compressed, in ${sizes.length} files`);
    expect(sizes.length).toBeGreaterThan(0);
    expect(total).toBeLessThanOrEqual(250_000);
  });
});

describe('live', () => {
  it('shows a node that is added in two pages at once, and a claim of one in the other', async () => {
    const one = await at('/nodes');
    const two = await at('/nodes');
    await server.request('POST', '/nodes', { name: 'fresh', macs: [macOf(500)] });
    await one.page.getByRole('link', { name: 'fresh' }).waitFor();
    await two.page.getByRole('link', { name: 'fresh' }).waitFor();

    await one.page.getByLabel('Select n01').check();
    await one.page.getByLabel('Select fresh').check();
    await one.page.getByRole('button', { name: /^Claim 1$/ }).click();
    // What cannot be done is said before anything is ordered.
    const dialog = one.page.getByRole('dialog');
    await dialog.getByText('Claim 1 · 1 cannot').waitFor();
    await dialog.getByText('claim is not possible while the node is Discovered').waitFor();
    await dialog.getByRole('button', { name: 'Claim 1' }).click();
    await dialog.getByText('n01 done').waitFor();
    await two.page.getByRole('row', { name: /n01/ }).getByText('Claimed').waitFor();
    expect(wrong(one)).toEqual([]);
    expect(wrong(two)).toEqual([]);
  });

  it('says when the server is gone, comes back by itself, and doubles and loses no row', async () => {
    const watched = await at('/events');
    const { page } = watched;
    await page.locator('[data-event]').first().waitFor();
    await server.stop();
    await page.getByText('Reconnecting').waitFor();
    await page.getByText(/Stale since \d/).waitFor();
    await server.start();
    await server.request('POST', '/nodes', { name: 'after', macs: [macOf(501)] });
    await live(page);
    await page.getByText(/after: Discovered/).waitFor();
    const ids = await page
      .locator('[data-event]')
      .evaluateAll(rows => rows.map(r => Number(r.getAttribute('data-event'))));
    const { latestId } = await server.request<{ latestId: number }>('GET', '/events?limit=1');
    // Newest first, each number once, none left out.
    expect(ids).toEqual(Array.from({ length: ids.length }, (_, i) => latestId - i));
    expect(ids.length).toBe(Math.min(latestId, 300));
  });
});

describe('the keyboard', () => {
  it('goes, filters, moves, selects and opens', async () => {
    const { page } = await at('/');
    await page.keyboard.press('g');
    await page.keyboard.press('n');
    await page.waitForURL('**/nodes');
    await page.getByRole('link', { name: 'n02' }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('state:available name:n02,n03');
    await page.waitForURL(/q=state/);
    await page.keyboard.press('Escape');
    await page.keyboard.press('j');
    await page.keyboard.press('x');
    await page.getByText('1 selected').waitFor();
    await page.keyboard.press('k');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'n02', level: 1 }).waitFor();
    await page.keyboard.press('Control+k');
    // A MAC as a switch prints it.
    await page.keyboard.type(macOf(4).replaceAll(':', '-'));
    await page.getByRole('option', { name: /n04/ }).waitFor();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'n04', level: 1 }).waitFor();
  });
});

describe('what is wrong', () => {
  it('a failed node reads the same on overview, table and page: the sentence of the server', async () => {
    const { sentence, failure } = await server.request<NodeView>('GET', '/nodes/n04');
    const { page } = await at('/');
    await page.getByText(`${failure!.message} ${failure!.hint}`).waitFor();
    await page.getByRole('button', { name: 'Retry: Install 1' }).waitFor();
    await page.goto(`${server.origin}/nodes`);
    await page.getByText(sentence).waitFor();
    await page.goto(`${server.origin}/nodes/n04`);
    await page.locator('.lead').getByText(sentence).waitFor();
  });

  it('a filter that means nothing says why', async () => {
    const { page } = await at('/nodes?q=colour:red');
    await page.getByText('there is no field "colour"').waitFor();
  });

  it('what destroys data wants the name typed', async () => {
    const { page } = await at('/nodes/n05');
    await page.getByRole('button', { name: 'Release', exact: true }).click();
    const dialog = page.getByRole('dialog');
    const go = dialog.getByRole('button', { name: 'Release 1' });
    expect(await go.getAttribute('aria-disabled')).toBe('true');
    await dialog.getByLabel('Type n05 to confirm').fill('n05');
    expect(await go.getAttribute('aria-disabled')).toBe('false');
  });
});

describe('axe', () => {
  for (const theme of ['light', 'dark'] as const)
    it(`finds nothing on any page, ${theme}`, async () => {
      const { page } = await at('/');
      await page.emulateMedia({ colorScheme: theme });
      const found: string[] = [];
      for (const route of ROUTES) {
        await page.goto(`${server.origin}${route}`);
        await live(page);
        await read(page);
        found.push(...(await violations(page)).map(v => `${route}: ${v}`));
        if (route !== '/nodes') continue;
        await page.getByLabel('Select n02').check();
        await page.getByRole('button', { name: /^Claim/ }).click();
        found.push(...(await violations(page)).map(v => `${route}, dialog: ${v}`));
      }
      expect(found).toEqual([]);
    });
});

interface AxeResult {
  violations: { id: string; help: string; nodes: { target: string[]; failureSummary: string }[] }[];
}
async function violations(page: Page): Promise<string[]> {
  // As code of the debugger: the page's own policy lets no foreign script in.
  await page.evaluate(AXE);
  const { violations: found } = await page.evaluate<AxeResult>('axe.run()');
  return found.flatMap(v => v.nodes.map(n => `${v.id} (${v.help}) at ${n.target.join(' ')}: ${n.failureSummary}`));
}

describe('screenshots', () => {
  const shots: readonly (readonly [string, 'light' | 'dark', () => TestBrowser])[] = [
    ['desktop', 'light', () => browser],
    ['phone', 'light', () => phone],
    ['dark', 'dark', () => browser],
  ];
  for (const [name, theme, on] of shots)
    it(`of every page, ${name}: nothing is wider than the window`, async () => {
      const watched = await at('/', on());
      const { page } = watched;
      await page.emulateMedia({ colorScheme: theme });
      for (const route of ROUTES.slice(0, -1)) {
        await page.goto(`${server.origin}${route}`);
        await live(page);
        await read(page);
        await watched.screenshot(join(SHOTS, `${name}${route.replaceAll('/', '-')}.png`));
        const wide = await page.evaluate<number>('document.documentElement.scrollWidth - window.innerWidth');
        expect(wide, `${route} at ${name}`).toBeLessThanOrEqual(0);
      }
      expect(wrong(watched)).toEqual([]);
    });
});
