/** Requests to archives: directly, through an HTTP proxy, or through an uplink on a Unix socket. */
import type { Readable } from 'node:stream';
import { Agent, type Dispatcher, Pool, ProxyAgent } from 'undici';
import { fail, ProblemError, problem } from '../core/problem.js';

export type Way =
  | { readonly kind: 'direct' }
  /** As apt uses it: requests in absolute form, CONNECT for https. */
  | { readonly kind: 'proxy'; readonly url: string }
  /** Requests in absolute form for http and https. */
  | { readonly kind: 'unix'; readonly path: string };

export interface UpstreamAnswer {
  readonly status: 200 | 304 | 404;
  /** Bytes of the whole; null when the answer is sent in chunks. */
  readonly bytes: number | null;
  readonly modifiedMs: number | null;
  readonly type: string | null;
  /** Ends with an error unless it came whole. Must be read, or destroyed. */
  readonly body: Readable;
}

export interface UpstreamRequest {
  readonly method?: 'GET' | 'HEAD';
  /** Of what is here already: 304 when there is nothing newer. */
  readonly sinceMs?: number | null;
  readonly signal?: AbortSignal;
}

export interface Upstream {
  /** @throws ProblemError package-source-failed, timed-out: each names the host and the reason */
  ask(url: string, request?: UpstreamRequest): Promise<UpstreamAnswer>;
  close(): Promise<void>;
}

export interface UpstreamTimeouts {
  readonly connectMs: number;
  /** From the request to the first line of the answer. */
  readonly headersMs: number;
  /** Between two pieces of an answer. */
  readonly bodyMs: number;
}

/** apt gives up on a silent server after 30 s: it shall hear from us why, before that. */
const TIMEOUTS: UpstreamTimeouts = { connectMs: 10_000, headersMs: 20_000, bodyMs: 20_000 };
const CONNECTIONS = 12;
const REDIRECTS_MAX = 3;
const REDIRECTS = [301, 302, 303, 307, 308];
const ERROR_BYTES = 4096;

export function openUpstream(way: Way, given: Partial<UpstreamTimeouts> = {}): Upstream {
  const { connectMs, headersMs, bodyMs } = { ...TIMEOUTS, ...given };
  const common = { headersTimeout: headersMs, bodyTimeout: bodyMs, connections: CONNECTIONS };
  const connect = { timeout: connectMs };
  const direct = way.kind === 'direct' ? new Agent({ ...common, connect }) : null;
  const relay =
    way.kind === 'unix'
      ? new Pool('http://uplink', { ...common, connect: { ...connect, socketPath: way.path } })
      : way.kind === 'proxy'
        ? new Pool(new URL(way.url).origin, { ...common, connect })
        : null;
  const tunnel = way.kind === 'proxy' ? new ProxyAgent({ ...common, connect, uri: way.url }) : null;

  const once = (url: URL, asked: UpstreamRequest): Promise<Dispatcher.ResponseData> => {
    const options = {
      method: asked.method ?? 'GET',
      headers: {
        host: url.host,
        'user-agent': 'halligan',
        'accept-encoding': 'identity',
        ...(asked.sinceMs == null ? {} : { 'if-modified-since': new Date(asked.sinceMs).toUTCString() }),
      },
      ...(asked.signal ? { signal: asked.signal } : {}),
    } as const;
    if (relay && (way.kind === 'unix' || url.protocol === 'http:')) {
      const { username, password } = new URL(way.kind === 'proxy' ? way.url : 'http://uplink');
      const login = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64');
      const headers = { ...options.headers, ...(username ? { 'proxy-authorization': `Basic ${login}` } : {}) };
      return relay.request({ ...options, headers, path: url.href });
    }
    const dispatcher = tunnel ?? direct!;
    return dispatcher.request({ ...options, origin: url.origin, path: url.pathname + url.search });
  };

  return {
    async ask(text, asked = {}) {
      let url = new URL(text);
      for (let hop = 0; ; hop++) {
        let response: Dispatcher.ResponseData;
        try {
          response = await once(url, asked);
        } catch (error) {
          throw new ProblemError(failure(url, error, headersMs), { cause: error });
        }
        const { statusCode: status, headers, body } = response;
        const header = (name: string) => {
          const value = headers[name];
          return typeof value === 'string' ? value : null;
        };
        if (REDIRECTS.includes(status)) {
          body.on('error', () => {}).destroy();
          const to = new URL(header('location') ?? '', url);
          // What another host sends was not named by anybody who may.
          if (to.host !== url.host || to.protocol !== url.protocol || hop >= REDIRECTS_MAX)
            fail('package-source-failed', `${url.host} redirects to ${to.origin}, which is not followed.`, {
              hint: 'Name the archive that it redirects to in the apt sources of this machine.',
            });
          url = to;
          continue;
        }
        const coding = header('content-encoding');
        if (status === 200 && coding !== null && coding !== 'identity') {
          body.on('error', () => {}).destroy();
          fail('package-source-failed', `${url.host} answered with the coding ${coding}, which was not asked for.`);
        }
        // A refusal of an uplink is no word of the archive.
        const missing = (status === 404 || status === 410) && header('content-type') !== PROBLEM_TYPE;
        if (status === 200 || status === 304 || missing) {
          const length = header('content-length');
          const bytes = length !== null && /^\d{1,15}$/.test(length) ? Number(length) : null;
          // Neither length nor chunks: nobody could tell a whole answer from a piece of it.
          if (status === 200 && bytes === null && header('transfer-encoding') === null && asked.method !== 'HEAD') {
            body.on('error', () => {}).destroy();
            fail('package-source-failed', `${url.host} does not say how long its answer is.`);
          }
          return {
            status: missing ? 404 : (status as 200 | 304),
            bytes,
            modifiedMs: dateOf(header('last-modified')) ?? dateOf(header('date')),
            type: header('content-type'),
            body,
          };
        }
        const said = await reason(body, header('content-type'));
        const message = `${url.host} answered ${status}${said === null ? '' : `: ${said}`}`;
        return fail(status === 504 ? 'timed-out' : 'package-source-failed', ended(message), { hint: HINT });
      }
    },
    async close() {
      await Promise.all([direct?.destroy(), relay?.destroy(), tunnel?.destroy()]);
    },
  };
}

const PROBLEM_TYPE = 'application/problem+json';
const HINT =
  'Check the apt sources, the proxy and the network of the server’s machine; `apt-get update` there shows it.';
const ended = (sentence: string) => (/[.!?]$/.test(sentence) ? sentence : `${sentence}.`);

/** Whole seconds since 1970 in milliseconds, as headers have them. */
function dateOf(text: string | null): number | null {
  const ms = text === null ? Number.NaN : Date.parse(text);
  return Number.isFinite(ms) ? ms : null;
}

/** The message of a problem in JSON, as our own uplink answers. */
async function reason(body: Readable, type: string | null): Promise<string | null> {
  body.on('error', () => {});
  if (type !== PROBLEM_TYPE) {
    body.destroy();
    return null;
  }
  let text = '';
  try {
    for await (const chunk of body) {
      text += String(chunk);
      if (text.length > ERROR_BYTES) break;
    }
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === 'string' ? message.slice(0, 300) : null;
  } catch {
    return null;
  }
}

function failure(url: URL, error: unknown, headersMs: number) {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const { code = '', message = String(cause) } = cause as { code?: string; message?: string };
  if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT')
    return problem('timed-out', `${url.host} did not answer within ${Math.round(headersMs / 1000)} s.`, { hint: HINT });
  return problem('package-source-failed', ended(`${url.host} cannot be reached: ${message || code}`), { hint: HINT });
}
