/** HTTPS to the cloud: one connection per request, time-outs on everything, a CA of the site, bounded at a number of requests. */
import { lookup as systemLookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import type { Readable } from 'node:stream';
import { Agent, type Dispatcher, request } from 'undici';
import { fail, ProblemError } from '../../provisioner/core/problem.js';

/** A body that is no JSON. `open` is called once per try, so that a try can be repeated. */
export class Payload {
  readonly open: () => Buffer | Readable;
  readonly bytes: number;
  readonly contentType: string;
  constructor(contentType: string, bytes: number, open: () => Buffer | Readable) {
    this.contentType = contentType;
    this.bytes = bytes;
    this.open = open;
  }
}

export interface HttpRequest {
  readonly method: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Payload;
  /** From the start of the request to the last byte of the answer. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly maxBytes?: number;
}

export interface HttpReply {
  readonly status: number;
  /** Lower-case names; repeated headers are joined by newlines (Set-Cookie). */
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer;
}

export interface Http {
  /**
   * @throws ProblemError cloud-unreachable, with `detail.sent: false` when the request cannot have reached the service;
   *   the signal's reason when aborted
   */
  send(request: HttpRequest): Promise<HttpReply>;
  /** For what is no request: websockets. Trusts and resolves as the requests do. */
  readonly dispatcher: Dispatcher;
  close(): Promise<void>;
}

export interface HttpOptions {
  /** Trusted instead of the system's CAs. */
  readonly caPem?: string | undefined;
  /** Addresses of host names that this machine cannot resolve. */
  readonly resolve?: Readonly<Record<string, string>> | undefined;
  /** Requests at the same time, over all services. */
  readonly concurrency?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
}

const REPLY_MAX_BYTES = 32 * 1024 * 1024;
const TIMEOUT_MS = 60_000;
const TLS_FAULT = /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL/;

const family = (address: string): 4 | 6 => (address.includes(':') ? 6 : 4);

/** dns.lookup with some names known beforehand. */
export function lookupWith(resolve: Readonly<Record<string, string>>): LookupFunction {
  return (hostname, options, callback) => {
    const address = Object.hasOwn(resolve, hostname) ? resolve[hostname] : undefined;
    if (address === undefined) return systemLookup(hostname, options, callback);
    if (options.all) return callback(null, [{ address, family: family(address) }]);
    return callback(null, address, family(address));
  };
}

/** Lets `limit` in at a time; who waits comes in in the order of asking. */
function createGate(limit: number): <T>(work: () => Promise<T>, signal?: AbortSignal) => Promise<T> {
  let inside = 0;
  const waiting: (() => void)[] = [];
  return async (work, signal) => {
    if (inside >= limit) await new Promise<void>(enter => waiting.push(enter));
    else inside++;
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      const next = waiting.shift();
      // The place is handed over, so that nobody slips in between.
      if (next) next();
      else inside--;
    }
  };
}

function headersOf(headers: Dispatcher.ResponseData['headers']): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) out[name.toLowerCase()] = Array.isArray(value) ? value.join('\n') : value;
  return out;
}

/** Why a request failed, as the sentence's end, and whether it may have arrived. */
function transportFault(error: unknown, timeoutMs: number): { reason: string; sent: boolean; code: string } {
  const { code = '', name = '', syscall, cause, errors } = error as NodeJS.ErrnoException & { errors?: unknown[] };
  // Several addresses were tried: an AggregateError without a code of its own.
  const inner = errors?.[0] ?? cause;
  if (!code && inner) return transportFault(inner, timeoutMs);
  if (name === 'TimeoutError' || /^UND_ERR_(HEADERS|BODY)_TIMEOUT$/.test(code))
    return { reason: `gave no whole answer within ${Math.round(timeoutMs / 1000)} s`, sent: true, code: 'TIMEOUT' };
  if (code === 'ECONNREFUSED') return { reason: 'refuses connections: nothing listens there', sent: false, code };
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return { reason: 'has a name that cannot be resolved from here', sent: false, code };
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || syscall === 'connect')
    return { reason: `cannot be reached (${code})`, sent: false, code };
  if (TLS_FAULT.test(code))
    return { reason: `has a certificate that is not trusted here (${code})`, sent: false, code };
  return { reason: `broke off the exchange (${code || name || 'unknown'})`, sent: true, code };
}

export function createHttp(options: HttpOptions = {}): Http {
  const { caPem, resolve = {}, concurrency = 8, connectTimeoutMs = 10_000 } = options;
  const dispatcher = new Agent({
    // Time-outs per request say it better.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      timeout: connectTimeoutMs,
      lookup: lookupWith(resolve),
      ...(caPem === undefined ? {} : { ca: caPem }),
    },
  });
  const gate = createGate(concurrency);

  const send = async (wanted: HttpRequest): Promise<HttpReply> => {
    const { body, signal, timeoutMs = TIMEOUT_MS, maxBytes = REPLY_MAX_BYTES } = wanted;
    const deadline = AbortSignal.timeout(timeoutMs);
    const url = new URL(wanted.url);
    try {
      const reply = await request(url, {
        method: wanted.method as Dispatcher.HttpMethod,
        dispatcher,
        headers: {
          ...(body instanceof Payload
            ? { 'content-type': body.contentType, 'content-length': String(body.bytes) }
            : {}),
          ...wanted.headers,
        },
        // uwsgi closes kept connections without notice: the next request on one dies (knowledge: Q7).
        reset: true,
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
        ...(body === undefined ? {} : { body: body instanceof Payload ? body.open() : body }),
      });
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of reply.body as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > maxBytes) {
          reply.body.destroy();
          fail('cloud-unreachable', `${url.host} sent more than ${maxBytes} bytes as one answer.`, { retry: false });
        }
        chunks.push(chunk);
      }
      return { status: reply.statusCode, headers: headersOf(reply.headers), bytes: Buffer.concat(chunks) };
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      signal?.throwIfAborted();
      const { reason, sent, code } = transportFault(error, timeoutMs);
      return fail('cloud-unreachable', `${url.host} ${reason}.`, {
        detail: { host: url.host, sent, code },
        ...(TLS_FAULT.test(code)
          ? { hint: 'The certificate must be of the site’s CA, for this very name and for today.', retry: false }
          : {}),
      });
    }
  };

  return {
    send: wanted => gate(() => send(wanted), wanted.signal),
    dispatcher,
    close: () => dispatcher.destroy(),
  };
}
