/** The cloud's two web pages as people use them: Horizon and the console of a server. What they show is for tests to judge. */
import type { Frame, Page } from 'playwright-core';
import { websocketUrl } from '../../installer/verify/steps/console.js';
import { type Picture, pictureOf, type TestBrowser } from './browser.js';
import type { CloudApi } from './cloud-api.js';

const POLL_MS = 300;
/** From the order to the prompt, on a busy machine; an idle one needs 10 seconds. */
const BOOT_MS = 120_000;
/** A screen that keeps still this long has nothing more to say; the cursor blinks on, and counts less than one letter. */
const STILL_MS = 1500;
const CURSOR_PIXELS = 30;
const KEYS_MS = 30_000;

const field = (value: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((v, key) => (v as Record<string, unknown> | null | undefined)?.[key], value);
const text = (value: unknown, ...path: readonly string[]): string => String(field(value, ...path) ?? '');

/** Asks until there is an answer. @throws Error that names what it waited for */
async function until<T>(what: string, timeoutMs: number, look: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await new Promise(resolve => setTimeout(resolve, POLL_MS));
  }
}

export interface ScreenServer {
  readonly id: string;
  readonly name: string;
  /** Waits until it is ACTIVE. */
  active(): Promise<void>;
  /** Nova's address of its console, for a browser. */
  consoleUrl(): Promise<string>;
  /** Waits until its serial console says that the guest is up. */
  booted(): Promise<void>;
  /** With its image and flavor. */
  remove(): Promise<void>;
}

/** A server of the proof's guest without a network: to look at. Ordered when this returns, no more. */
export async function screenServer(api: CloudApi, guestDisk: string): Promise<ScreenServer> {
  const name = 'screen-server';
  const order = { name, disk_format: 'qcow2', container_format: 'bare', visibility: 'private' };
  const image = text(await api.call('image', 'POST', '/images', order), 'id');
  await api.upload(image, guestDisk);
  const size = { name, ram: 192, vcpus: 1, disk: 1 };
  const flavor = text(await api.call('compute', 'POST', '/flavors', { flavor: size }), 'flavor', 'id');
  const server = { name, imageRef: image, flavorRef: flavor, networks: 'none' };
  // 2.37: servers may have no network.
  const id = text(await api.call('compute', 'POST', '/servers', { server }, '2.37'), 'server', 'id');
  return {
    id,
    name,
    active: () =>
      until('the server is ACTIVE', BOOT_MS, async () => {
        const answer = await api.call('compute', 'GET', `/servers/${id}`);
        const status = text(answer, 'server', 'status');
        if (status === 'ERROR') throw new Error(`the server failed: ${text(answer, 'server', 'fault', 'message')}`);
        return status === 'ACTIVE' || undefined;
      }).then(() => {}),
    async consoleUrl() {
      const console = { remote_console: { protocol: 'vnc', type: 'novnc' } };
      return text(
        await api.call('compute', 'POST', `/servers/${id}/remote-consoles`, console, '2.6'),
        ...['remote_console', 'url'],
      );
    },
    booted: () =>
      until('the guest is up', BOOT_MS, async () => {
        const answer = await api.call('compute', 'POST', `/servers/${id}/action`, { 'os-getConsoleOutput': {} });
        return text(answer, 'output').includes('GUEST-HOSTKEY') || undefined;
      }).then(() => {}),
    async remove() {
      await api.call('compute', 'DELETE', `/servers/${id}`);
      await api.call('image', 'DELETE', `/images/${image}`);
      await api.call('compute', 'DELETE', `/flavors/${flavor}`);
    },
  };
}

/** Waits until the screen is there, shows something, and keeps still but for its cursor. */
async function stillPicture(frame: Page | Frame): Promise<Picture> {
  let last: Picture | null = null;
  let since = 0;
  return until('a screen that shows something and keeps still', BOOT_MS, async () => {
    const now = await pictureOf(frame);
    if (!now || !last || now.lit === 0 || Math.abs(now.lit - last.lit) > CURSOR_PIXELS) {
      last = now;
      since = Date.now();
      return undefined;
    }
    return Date.now() - since >= STILL_MS ? now : undefined;
  });
}

/** @throws Error when the screen does not come to it */
const pictureWith = (frame: Page | Frame, what: string, enough: (picture: Picture) => boolean): Promise<Picture> =>
  until(`${what} on the screen`, KEYS_MS, async () => {
    const picture = await pictureOf(frame);
    return picture && enough(picture) ? picture : undefined;
  });

/** The first bytes of the console to a page of this address, as text; empty when it is cut off without any. */
async function bannerFor(browser: TestBrowser, pageUrl: string, socketUrl: string): Promise<string> {
  const { page } = await browser.open();
  await page.goto(pageUrl);
  const banner = await page.evaluate<string>(`(${READ_BANNER})(${JSON.stringify(socketUrl)})`);
  await page.context().close();
  return banner;
}

const READ_BANNER = `url => new Promise(resolve => {
  const socket = new WebSocket(url, ['binary']);
  socket.binaryType = 'arraybuffer';
  socket.onmessage = event => resolve(new TextDecoder().decode(event.data));
  socket.onclose = () => resolve('');
  setTimeout(() => resolve('neither bytes nor an end'), 20000);
})`;

export interface ConsoleSeen {
  /** What the page says of the connection. */
  readonly status: string;
  readonly booted: Picture;
  /** After a word was typed, and after it was taken back with the backspace key. */
  readonly typed: Picture;
  readonly erased: Picture;
  /** What the console's websocket sends first to a page of its own address, and to a page from elsewhere. */
  readonly banner: { readonly own: string; readonly foreign: string };
  readonly faults: readonly string[];
}

/** Opens the console of a server, waits for its guest, types. Screenshots go to `${shots}/console-*.png`. */
export async function seeConsole(browser: TestBrowser, server: ScreenServer, shots: string): Promise<ConsoleSeen> {
  const { page, faults, screenshot } = await browser.open();
  const url = await server.consoleUrl();
  await page.goto(url);
  await page.locator('canvas').waitFor();
  await server.booted();
  const booted = await stillPicture(page);
  await screenshot(`${shots}/console-booted.png`);
  const word = 'halligan';
  await page.locator('canvas').click();
  // As fast as people; the emulated keyboard has room for few keys.
  await page.keyboard.type(word, { delay: 60 });
  const typed = await pictureWith(page, 'what was typed', ({ lit }) => lit > booted.lit + 4 * CURSOR_PIXELS);
  await screenshot(`${shots}/console-typed.png`);
  for (const _ of word) await page.keyboard.press('Backspace', { delay: 60 });
  const erased = await pictureWith(page, 'an empty prompt', ({ lit }) => Math.abs(lit - booted.lit) <= CURSOR_PIXELS);
  const status = (await page.locator('#status').textContent()) ?? '';
  await page.context().close();
  const socket = websocketUrl(url);
  if (socket === undefined) throw new Error('the console’s address names no websocket');
  const banner = {
    own: await bannerFor(browser, new URL('/vnc_lite.html', url).href, socket),
    foreign: await bannerFor(browser, 'data:text/html,elsewhere', socket),
  };
  return { status, banner, booted, typed, erased, faults: faults.filter(f => !NO_ICON.test(f)) };
}

/** Browsers ask for an icon on their own; noVNC's page names none. */
const NO_ICON = /\/favicon\.ico\b/;

export interface DashboardSeen {
  readonly loginTitle: string;
  readonly overviewTitle: string;
  /** Text of the table's rows. */
  readonly instances: readonly string[];
  /** The console inside of the server's page. */
  readonly console: Picture;
  /** Where a page leads after the logout. */
  readonly afterLogout: string;
  /** Addresses that were not HTTPS. */
  readonly plain: readonly string[];
  /** Style sheets, scripts and pictures that came. */
  readonly statics: number;
  readonly faults: readonly string[];
}

/** Logs in, looks at the overview, the list of servers and a server's console, and logs out. Screenshots go to `${shots}/dashboard-*.png`. */
export async function walkDashboard(
  browser: TestBrowser,
  url: string,
  login: { readonly username: string; readonly password: string },
  server: Pick<ScreenServer, 'id' | 'name' | 'active'>,
  shots: string,
): Promise<DashboardSeen> {
  const { page, faults, answers, screenshot } = await browser.open();
  await page.goto(url);
  const loginTitle = await page.title();
  await screenshot(`${shots}/dashboard-login.png`);
  await page.getByLabel('User Name').fill(login.username);
  // Exact: beside it is the button that would show it.
  await page.locator('input[name=password]').fill(login.password);
  await page.getByRole('button', { name: 'Sign In' }).click();
  await page.waitForURL(to => !to.pathname.includes('/auth/login'));
  const overviewTitle = await page.title();
  await screenshot(`${shots}/dashboard-overview.png`);
  await server.active();
  const list = new URL('project/instances/', url).href;
  await page.goto(list);
  const instances = await page.locator('table#instances tbody tr').allInnerTexts();
  await screenshot(`${shots}/dashboard-instances.png`);

  await page.goto(`${list}${server.id}/?tab=instance_details__console`);
  const inner = await page.locator('iframe#console_embed').elementHandle();
  const frame = await inner?.contentFrame();
  if (!frame) throw new Error('the page of the server has no console in it');
  const seen = await until('the console inside of the server’s page', BOOT_MS, async () => {
    const picture = await pictureOf(frame);
    return picture && picture.lit > 0 ? picture : undefined;
  });
  await screenshot(`${shots}/dashboard-console.png`);

  await page.getByRole('button', { name: login.username }).last().click();
  await page.getByRole('link', { name: 'Sign Out' }).click();
  await page.waitForURL(to => to.pathname.includes('/auth/login'));
  await page.goto(list);
  const afterLogout = new URL(page.url()).pathname;
  await page.context().close();
  return {
    loginTitle,
    overviewTitle,
    instances,
    console: seen,
    afterLogout,
    plain: answers.map(a => a.url).filter(a => !/^(https|data|blob):/.test(a)),
    statics: answers.filter(a => a.status === 200 && /\/static\//.test(a.url)).length,
    faults: faults.filter(f => !NO_ICON.test(f)),
  };
}
