/**
 * A real browser for tests: Debian's Chromium without a screen, with a home of its own that trusts exactly the CA that
 * it is given, inside a network namespace where one is named. Certificate errors stay errors.
 *
 * Chromium's own sandbox is off, as it must be for root: pages of our own labs only.
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Browser, type BrowserContext, chromium, type Frame, type Page } from 'playwright-core';

const run = promisify(execFile);
const CHROMIUM = '/usr/bin/chromium';
const LAUNCH_MS = 60_000;
const ACTION_MS = 30_000;
const CLOSE_MS = 10_000;

export interface BrowserOptions {
  /** Name of the network namespace (ip-netns(8)) that it lives in; this machine's network without it. */
  readonly netns?: string;
  /** Trusted for servers, beside the CAs that the browser brings. */
  readonly caPem?: string;
  /** Of the window; 1280 × 900 CSS pixels unless said otherwise. */
  readonly viewport?: { readonly width: number; readonly height: number };
}

/** A page and what was wrong with it so far. */
export interface WatchedPage {
  readonly page: Page;
  /**
   * Errors of console and scripts (violated content policies and mixed content are among them), requests that failed,
   * answers from 400 up; a sentence each, in order. Queries of addresses are left out: they hold tokens.
   */
  readonly faults: readonly string[];
  /** Statuses and addresses, without queries, of everything that was answered. */
  readonly answers: readonly { readonly status: number; readonly url: string }[];
  /** A PNG of what is seen. */
  screenshot(file: string): Promise<void>;
}

export interface TestBrowser {
  /** Of a visitor of its own: no cookies are shared. Every action on it ends after 30 seconds. */
  open(): Promise<WatchedPage>;
  /** Ends the browser, by force after ten seconds, and removes its home. */
  close(): Promise<void>;
}

/** @throws Error when chromium or certutil is not installed, or does not start within a minute */
export async function openBrowser(options: BrowserOptions = {}): Promise<TestBrowser> {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: .ci/setup.sh lab installs it`);
  const home = mkdtempSync(join(tmpdir(), 'halligan-browser-'));
  const pidFile = join(home, 'pid');
  const remove = () => rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  const kill = () => {
    if (!existsSync(pidFile)) return;
    try {
      // Playwright starts it as the head of a process group.
      process.kill(-Number(readFileSync(pidFile, 'utf8')), 'SIGKILL');
    } catch {}
  };
  let browser: Browser;
  try {
    if (options.caPem !== undefined) await trust(home, options.caPem);
    const program = join(home, 'browser');
    const inside = options.netns === undefined ? '' : `ip netns exec ${options.netns} `;
    writeFileSync(program, `#!/bin/sh\necho $$ >${pidFile}\nexec ${inside}${CHROMIUM} "$@"\n`);
    chmodSync(program, 0o700);
    browser = await chromium.launch({
      executablePath: program,
      timeout: LAUNCH_MS,
      // Nothing of who runs the test: no proxies, no display, no settings.
      env: { HOME: home, PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', TMPDIR: home },
      args: ['--no-proxy-server', '--disable-gpu', '--disable-dev-shm-usage'],
    });
  } catch (error) {
    kill();
    remove();
    throw error;
  }
  return {
    async open() {
      const context = await browser.newContext({
        viewport: options.viewport ?? { width: 1280, height: 900 },
        locale: 'en-GB',
      });
      context.setDefaultTimeout(ACTION_MS);
      return watch(await context.newPage(), context);
    },
    async close() {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<boolean>(resolve => {
        timer = setTimeout(() => resolve(false), CLOSE_MS);
      });
      const closing = browser.close().then(
        () => true,
        () => false,
      );
      if (!(await Promise.race([closing, late]))) kill();
      clearTimeout(timer);
      remove();
    },
  };
}

/** Chromium takes CAs from the NSS database of its user. */
async function trust(home: string, caPem: string): Promise<void> {
  const database = join(home, '.pki/nssdb');
  const file = join(home, 'ca.pem');
  mkdirSync(database, { recursive: true, mode: 0o700 });
  writeFileSync(file, caPem);
  const certutil = async (...argv: string[]) => {
    try {
      await run('certutil', ['-d', `sql:${database}`, ...argv], { timeout: 20_000 });
    } catch (error) {
      const failure = error as NodeJS.ErrnoException & { stderr?: string };
      throw new Error(
        failure.code === 'ENOENT'
          ? 'certutil is missing: .ci/setup.sh lab installs libnss3-tools'
          : `certutil does not take the CA: ${failure.stderr || failure.message}`,
      );
    }
  };
  await certutil('-N', '--empty-password');
  // C: a CA for servers, and for nothing else.
  await certutil('-A', '-t', 'C,,', '-n', 'halligan', '-i', file);
}

const bare = (url: string): string => url.replace(/[?#].*$/, '');
/** Browsers quote addresses in their messages. */
const masked = (text: string): string => text.replace(/([?&#])[^\s'"]*/g, '$1…');

function watch(page: Page, context: BrowserContext): WatchedPage {
  const faults: string[] = [];
  const answers: { status: number; url: string }[] = [];
  // Frames and pages that the page opens are of its context.
  context.on('console', message => {
    if (message.type() === 'error' || /mixed content|content security policy/i.test(message.text()))
      faults.push(`console: ${masked(message.text())} (${bare(message.location().url)})`);
  });
  context.on('weberror', error => faults.push(`script: ${masked(error.error().message)}`));
  context.on('requestfailed', request =>
    faults.push(`${request.method()} ${bare(request.url())} failed: ${request.failure()?.errorText}`),
  );
  context.on('response', response => {
    const answer = { status: response.status(), url: bare(response.url()) };
    answers.push(answer);
    if (answer.status >= 400) faults.push(`${response.request().method()} ${answer.url} answers ${answer.status}`);
  });
  return {
    page,
    faults,
    answers,
    async screenshot(file) {
      await page.screenshot({ path: file });
    },
  };
}

/** What a canvas shows. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  /** Different ones. */
  readonly colours: number;
  /** Pixels that have not the commonest colour: on a screen of text, what is written. */
  readonly lit: number;
}

/** Of the first canvas that has a size; null: there is none yet. noVNC draws the framebuffer on one. */
export const pictureOf = (frame: Page | Frame): Promise<Picture | null> => frame.evaluate<Picture | null>(READ_CANVAS);

// It runs in the page; as text, because the types of this program know no browser.
const READ_CANVAS = `(() => {
  const canvas = [...document.querySelectorAll('canvas')].find(c => c.width > 0 && c.height > 0);
  if (!canvas) return null;
  const { width, height } = canvas;
  const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer);
  const count = new Map();
  for (const pixel of pixels) count.set(pixel, (count.get(pixel) ?? 0) + 1);
  return { width, height, colours: count.size, lit: pixels.length - Math.max(...count.values()) };
})()`;
