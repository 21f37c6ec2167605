/** Five hundred hostile strings where machines and people put text: none is code, none breaks a page. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openBrowser, type TestBrowser } from '../harness/browser.js';
import { inventory, macOf } from '../harness/machines.js';
import { prepareUiServer, type UiServer } from '../harness/ui-server.js';

const NODES = 500;
const TEMPLATES: readonly ((n: number) => string)[] = [
  n => `<script>window.hit=${n}</script>`,
  n => `<img src=x onerror="window.hit=${n}">`,
  n => `"><svg/onload=window.hit=${n}>`,
  n => `' onmouseover='window.hit=${n}' x='`,
  n => `javascript:window.hit=${n}`,
  n => `</style><script>window.hit=${n}</script>`,
  n => `{{constructor.constructor('window.hit=${n}')()}}`,
  n => `\${window.hit=${n}}`,
  n => `\u202eevil${n}\u202c`,
  n => `${'W'.repeat(300)}${n}`,
  n => `<iframe srcdoc="<script>parent.hit=${n}</script>">`,
  n => `<a href="javascript:window.hit=${n}">x</a>`,
  n => `<style>*{display:none}</style>${n}`,
  n => `__proto__${n}`,
  n => `\u0000\u0007\u001b[31m${n}`,
  n => `🏴‍☠️${'\u0301'.repeat(60)}${n}`,
  n => `<base href="//evil.example/">${n}`,
  n => `<meta http-equiv=refresh content="0;url=//evil.example/">${n}`,
  n => `]]><!--${n}`,
  n => `%3Cscript%3Ewindow.hit=${n}%3C/script%3E`,
];
const hostile = (n: number) => TEMPLATES[n % TEMPLATES.length]!(n);

let server: UiServer;
let browser: TestBrowser;
beforeAll(async () => {
  server = await prepareUiServer(async nodes => {
    for (let n = 0; n < NODES; n++) {
      const text = hostile(n);
      const own = inventory();
      await nodes.create({
        name: text,
        source: 'dhcp',
        serial: `${text} `,
        macs: [macOf(n)],
        state: 'available',
        spec: { roles: [text], rack: { name: text, unit: n } },
        status: {
          inventory: {
            ...own,
            system: { manufacturer: text, product: text, serial: text, uuid: text, asset: text },
            firmware: { ...own.firmware, vendor: text, version: text },
            cpu: { ...own.cpu, model: text },
            disks: own.disks.map(d => ({ ...d, path: `${text}${d.path}`, model: text, serial: text })),
            nics: own.nics.map(nic => ({
              ...nic,
              name: text,
              lldp: { chassis: text, port: text, system: text },
            })),
          },
          warnings: [text],
        },
        reason: text,
      });
    }
  });
  await server.start();
  browser = await openBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

it('none of 500 hostile strings in names and inventories executes, or makes a page wider than its window', async () => {
  const { page, faults } = await browser.open();
  const check = async (where: string) => {
    expect(await page.evaluate('window.hit'), where).toBeUndefined();
    expect(
      await page.evaluate<number>('document.documentElement.scrollWidth - window.innerWidth'),
      where,
    ).toBeLessThanOrEqual(0);
    expect(
      await page.locator('main iframe, main script, main base, main meta, main img, main style').count(),
      where,
    ).toBe(0);
  };
  await page.goto(`${server.origin}/nodes`);
  await page.getByText(`${NODES} of ${NODES} nodes`).waitFor();
  const table = page.getByRole('region', { name: 'Nodes' });
  const height = await table.evaluate(box => box.scrollHeight);
  const seen = new Set<string>();
  for (let top = 0; top <= height; top += 400) {
    await table.evaluate((box, to) => {
      box.scrollTop = to;
    }, top);
    await page.waitForTimeout(30);
    for (const row of await page
      .locator('tbody tr[aria-rowindex]')
      .evaluateAll(rows => rows.map(r => r.getAttribute('aria-rowindex') ?? '')))
      seen.add(row);
    // Only what is seen is drawn.
    expect(await page.locator('tbody tr').count()).toBeLessThan(80);
  }
  expect(seen.size).toBe(NODES);
  await check('/nodes');
  for (const route of ['/', '/events']) {
    await page.goto(`${server.origin}${route}`);
    await page.locator('[data-phase="live"]').waitFor();
    await check(route);
  }
  // One page for each kind of string.
  const { nodes } = await server.request<{ nodes: { id: string; macs: string[] }[] }>('GET', '/nodes');
  for (let n = 0; n < TEMPLATES.length; n++) {
    const id = nodes.find(node => node.macs.includes(macOf(n)))!.id;
    await page.goto(`${server.origin}/nodes/${id}`);
    await page.getByRole('heading', { name: 'Hardware' }).waitFor();
    await check(`/nodes/… with ${JSON.stringify(hostile(n))}`);
  }
  // Requests end with the page that made them.
  expect(faults.filter(f => !f.endsWith('net::ERR_ABORTED'))).toEqual([]);
});
