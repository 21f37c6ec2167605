/** The boot plane: plain HTTP for booting nodes. Routes in types.ts; no API here, and nothing but what nodes need. */
import { open } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock } from '../core/clock.js';
import type { Log } from '../core/log.js';
import { asProblem, fail, PROBLEMS, type Problem, ProblemError, problem } from '../core/problem.js';
import type { BootTrace } from '../core/trace.js';
import type { ImageFile, ImageManifest, ImageStore } from '../image/types.js';
import type { PackageRoute } from '../packages/types.js';
import { createCallHomeReader, INSTALLED_BODY_MAX_BYTES, RAM_BODY_MAX_BYTES } from './call-home.js';
import { createGate } from './gate.js';
import { canonicalMac, readIdentity } from './identity.js';
import { listenProblem } from './listen-problem.js';
import type { Loaders } from './loaders.js';
import { select } from './range.js';
import { createScripts } from './scripts.js';
import { createSlots, StreamEnded, sendFile } from './send-file.js';
import type { BootDecision, BootIdentity, BootOracle } from './types.js';

export interface BootPlaneLimits {
  /** Image streams at once; the rest waits in order. */
  readonly streams: number;
  readonly streamsPerClient: number;
  /** Requests for images that may wait. */
  readonly queue: number;
  /** Inventory bodies in memory at once, 16 MiB each at most. */
  readonly bodies: number;
  readonly connections: number;
  readonly connectionsPerClient: number;
  /** A whole request, headers first, must be in by then (slowloris). */
  readonly headersMs: number;
  readonly requestMs: number;
  /** A chunk of 256 KiB must have left by then. */
  readonly stallMs: number;
  readonly keepAliveMs: number;
  /** How long a decision may take before the machine is told to ask again. */
  readonly decideMs: number;
}

export const BOOT_PLANE_LIMITS: BootPlaneLimits = {
  streams: 64,
  streamsPerClient: 6,
  queue: 4096,
  bodies: 4,
  connections: 8192,
  connectionsPerClient: 64,
  headersMs: 10_000,
  requestMs: 120_000,
  stallMs: 30_000,
  keepAliveMs: 10_000,
  decideMs: 4_000,
};

export interface BootPlaneOptions {
  /** Our addresses on the boot networks; one listener each. */
  readonly addresses: readonly string[];
  readonly port: number;
  readonly images: Pick<ImageStore, 'get' | 'path'>;
  readonly loaders: Loaders;
  readonly oracle: BootOracle;
  readonly clock: Clock;
  readonly log: Log;
  readonly trace: BootTrace;
  /** Serial console of the nodes, as the kernel takes it: `ttyS0,115200`; '' for none. */
  readonly console: string;
  /** Packages for nodes; without it there is nothing below /packages. */
  readonly packages?: PackageRoute;
  readonly limits?: Partial<BootPlaneLimits>;
}

export interface BootPlane {
  /** The port listened on (the one asked for, unless that was 0). */
  readonly port: number;
  /** For metrics: image streams now, and requests that wait for one. */
  counts(): { streams: number; waiting: number; connections: number };
  /** Stops listening, gives open requests `graceMs` to end, then cuts them. */
  close(graceMs?: number): Promise<void>;
}

const SCRIPT_TYPE = 'text/plain; charset=utf-8';
const MACHINES_MAX = 10_000;
const MILESTONES_PENDING_MAX = 256;
/** The largest request line and header block; a stage 2 query with every SMBIOS field is below 1 KiB. */
const HEADERS_MAX_BYTES = 8 * 1024;

/**
 * Starts the boot plane.
 * @throws ProblemError port-in-use, capability-missing, interface-missing, one sentence each
 */
export async function startBootPlane(options: BootPlaneOptions): Promise<BootPlane> {
  const { images, loaders, oracle, clock, log, trace } = options;
  const limits = { ...BOOT_PLANE_LIMITS, ...options.limits };
  const scripts = createScripts(options.console);
  const callHome = createCallHomeReader();
  const streams = createGate({ total: limits.streams, perClient: limits.streamsPerClient, queue: limits.queue });
  const bodies = createGate({ total: limits.bodies, perClient: 1, queue: 1024 });
  const reads = createSlots(2);
  const connections = new Map<string, number>();
  /** What each machine was last told to boot from its disk, and which MAC an address belongs to. Bounded, newest last. */
  const lastLocal = new Map<string, BootDecision>();
  const macByAddress = new Map<string, string>();
  let milestonesPending = 0;
  let port = options.port;

  const remember = <K, V>(map: Map<K, V>, key: K, value: V) => {
    map.delete(key);
    map.set(key, value);
    if (map.size > MACHINES_MAX) map.delete(map.keys().next().value as K);
  };
  const traceAddress = (address: string, layer: 'http' | 'call-home', message: string, data = {}) => {
    const mac = macByAddress.get(address);
    if (mac) trace.record({ mac, layer, message, data: { address, ...data } });
  };

  // ---- answers ----

  const sendText = (response: ServerResponse, text: string) => {
    const body = Buffer.from(text);
    response.writeHead(200, {
      'content-type': SCRIPT_TYPE,
      'content-length': body.length,
      'cache-control': 'no-store',
    });
    response.end(response.req.method === 'HEAD' ? undefined : body);
  };

  const sendProblem = (response: ServerResponse, p: Problem) => {
    if (response.headersSent || response.destroyed) return void response.destroy();
    const body = Buffer.from(JSON.stringify(p));
    // The rest of a refused body is not read: the connection cannot be used again.
    const close = !response.req.complete;
    response.writeHead(PROBLEMS[p.code].http, {
      'content-type': 'application/problem+json',
      'content-length': body.length,
      'cache-control': 'no-store',
      // iPXE waits and asks again by itself when a 503 has this.
      ...(p.code === 'server-busy' ? { 'retry-after': '5' } : {}),
      ...(close ? { connection: 'close' } : {}),
    });
    response.end(response.req.method === 'HEAD' ? undefined : body);
  };

  /**
   * Answers for a file or buffer with tag and range.
   * @param body sends bytes `start` to `end` (both included) after it has called `head`; called only when bytes are due
   */
  const sendEntity = async (
    request: IncomingMessage,
    response: ServerResponse,
    entity: { sha256: string; bytes: number; type: string },
    body: (start: number, end: number, head: () => void) => Promise<void>,
  ) => {
    const etag = `"${entity.sha256}"`;
    const headers = { etag, 'accept-ranges': 'bytes', 'content-type': entity.type, 'cache-control': 'no-cache' };
    // Range is defined for GET only (RFC 9110, 14.2).
    const { 'if-none-match': ifNoneMatch, 'if-range': ifRange } = request.headers;
    const range = request.method === 'GET' ? request.headers.range : undefined;
    const selection = select({ ifNoneMatch, ifRange: ifRange as string | undefined, range }, etag, entity.bytes);
    if (selection.kind === 'not-modified') return void response.writeHead(304, headers).end();
    if (selection.kind === 'unsatisfiable') {
      const missing = { 'content-range': `bytes */${entity.bytes}`, 'content-length': 0 };
      return void response.writeHead(416, { ...headers, ...missing }).end();
    }
    const part = selection.kind === 'part';
    const [start, end] = part ? [selection.start, selection.end] : [0, entity.bytes - 1];
    const head = () =>
      response.writeHead(part ? 206 : 200, {
        ...headers,
        'content-length': end - start + 1,
        ...(part ? { 'content-range': `bytes ${start}-${end}/${entity.bytes}` } : {}),
      });
    // UEFI HTTP boot asks by HEAD first and needs the length.
    if (request.method === 'HEAD' || end < start) return void head().end();
    await body(start, end, head);
  };

  // ---- routes ----

  const decide = async (identity: BootIdentity, address: string): Promise<BootDecision> => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new ProblemError(problem('timed-out', `No decision within ${limits.decideMs} ms.`))),
        limits.decideMs,
      );
    });
    try {
      const decision = await Promise.race([oracle.decide(identity, address), late]);
      if (decision.kind === 'local') remember(lastLocal, identity.mac, decision);
      else lastLocal.delete(identity.mac);
      return decision;
    } catch (error) {
      // An installed machine that restarts while the server is slow goes on to its disk, as it was told last time. Only
      // that answer is kept: a stale token would be refused anyway, so those machines rather ask again.
      const last = lastLocal.get(identity.mac);
      if (!last) throw error;
      log.warn({ mac: identity.mac, error: asProblem(error).message }, 'no decision in time, answering as last time');
      return { ...last, reason: `${last.reason} (as last time; the server is slow)` };
    } finally {
      clearTimeout(timer);
    }
  };

  const bootScript = async (request: IncomingMessage, response: ServerResponse, query: URLSearchParams) => {
    const base = baseOf(request, port);
    const address = remoteOf(request);
    if (!query.has('mac')) return sendText(response, scripts.who(base));
    const identity = readIdentity(query);
    if (!identity)
      return sendText(response, scripts.nothing('the request has no usable MAC address, so the machine has no name'));
    remember(macByAddress, address, identity.mac);
    const record = (message: string, data: Record<string, unknown> = {}) =>
      trace.record({ mac: identity.mac, layer: 'boot', message, data: { address, ...data } });
    try {
      const decision = await decide(identity, address);
      const manifest = decision.kind === 'ram' ? await images.get(decision.image) : null;
      if (manifest && manifest.kind !== 'ram')
        fail('image-missing', `${manifest.name} is an image for disks, not a RAM environment.`);
      const files = manifest && {
        kernel: manifest.kernel.name,
        initrd: manifest.initrd.name,
        parameters: (manifest.commandLine ?? '').split(/\s+/).filter(Boolean),
      };
      const script = scripts.decided(base, identity, decision, files);
      const what = decision.kind === 'ram' ? `the RAM environment ${decision.image}` : decision.kind;
      record(`boots ${what}: ${decision.reason}`, { platform: identity.platform });
      sendText(response, script);
    } catch (error) {
      const p = asProblem(error);
      log[error instanceof ProblemError ? 'warn' : 'error'](
        { mac: identity.mac, problem: p.message },
        'no boot decision',
      );
      record(`told to ask again: ${p.message}`, { code: p.code });
      sendText(response, scripts.retry(base, p.message));
    }
  };

  const milestone = (request: IncomingMessage, response: ServerResponse, query: URLSearchParams) => {
    const mac = canonicalMac(query.get('mac') ?? '');
    const name = query.get('name') ?? '';
    if (!mac || !/^[a-z][a-z0-9-]{0,39}$/.test(name))
      fail('request-invalid', 'A milestone takes ?mac=…&name=… (a-z, 0-9 and "-", at most 40 characters).');
    trace.record({ mac, layer: 'boot', message: `milestone: ${name}`, data: { address: remoteOf(request) } });
    // The machine waits for the answer, not for our database.
    if (milestonesPending < MILESTONES_PENDING_MAX) {
      milestonesPending++;
      oracle
        .milestone(mac, name)
        .catch(error => log.warn({ mac, name, error: asProblem(error).message }, 'milestone not stored'))
        .finally(() => milestonesPending--);
    } else log.warn({ mac, name }, 'milestone dropped, too many are being stored');
    // Not 204: without a length iPXE waits until the connection is closed.
    sendText(response, 'ok\n');
  };

  const loader = (request: IncomingMessage, response: ServerResponse, name: string) => {
    const found =
      loaders.get(name) ?? fail('route-unknown', `There is no loader ${JSON.stringify(name.slice(0, 80))}.`);
    // UEFI HTTP boot decides by type or by file name what it got.
    const type = name.endsWith('.efi') ? 'application/efi' : 'application/octet-stream';
    traceAddress(remoteOf(request), 'http', `${request.method} ${name}`);
    const entity = { sha256: found.sha256, bytes: found.data.length, type };
    return sendEntity(request, response, entity, async (start, end, head) => {
      head();
      response.end(found.data.subarray(start, end + 1));
    });
  };

  const image = async (request: IncomingMessage, response: ServerResponse, imageName: string, fileName: string) => {
    const known = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
    if (!known.test(imageName) || !known.test(fileName)) fail('image-missing', 'There is no image of this name.');
    const manifest = await images.get(imageName);
    const entry = filesOf(manifest).find(f => f.name === fileName);
    if (!entry) fail('image-missing', `The image ${manifest.name} has no file ${fileName}.`);
    const address = remoteOf(request);
    const name = `${imageName}/${fileName}`;
    const entity = { sha256: entry.sha256, bytes: entry.bytes, type: 'application/octet-stream' };
    await sendEntity(request, response, entity, async (start, end, head) => {
      // While it waits for its turn a client is silent, and must not be cut for that.
      request.socket.setTimeout(0);
      const leave = await streams.enter(address, goneSignal(response));
      const startedMs = clock.monotonicMs();
      try {
        const file = await open(await images.path(imageName, fileName)).catch(error =>
          fail('image-missing', `${name} cannot be read (${(error as NodeJS.ErrnoException).code}).`),
        );
        try {
          const { size } = await file.stat();
          if (size !== entry.bytes)
            fail('image-missing', `${name} has ${size} bytes, its manifest says ${entry.bytes}.`);
          head();
          await sendFile(file, start, end, response, reads, limits.stallMs);
          const data = { bytes: end - start + 1, ms: Math.round(clock.monotonicMs() - startedMs) };
          log.info({ address, name, ...data }, 'image sent');
          traceAddress(address, 'http', `sent ${name}`, data);
        } finally {
          await file.close();
        }
      } catch (error) {
        if (!(error instanceof StreamEnded)) throw error;
        const message = `${name} ended after ${error.sentBytes} of ${end - start + 1} bytes: ${error.message}`;
        log.warn({ address }, message);
        traceAddress(address, 'http', message);
      } finally {
        leave();
      }
    });
  };

  const packages = async (request: IncomingMessage, response: ServerResponse, segments: readonly string[]) => {
    const route =
      options.packages ?? fail('route-unknown', 'Packages are not served here: cloud.packages is not proxy.');
    const address = remoteOf(request);
    // While it waits for an archive, or for its turn, a client is silent.
    request.socket.setTimeout(0);
    try {
      const enter = () => streams.enter(address, goneSignal(response));
      await route.answer(request, response, segments, { enter, reads, stallMs: limits.stallMs });
    } catch (error) {
      if (!response.headersSent) throw error;
      const message = `${segments.join('/').slice(0, 200)} ended early: ${asProblem(error).message}`;
      log.warn({ address }, message);
      traceAddress(address, 'http', message);
    }
  };

  const post = async (request: IncomingMessage, response: ServerResponse, kind: 'ram' | 'installed') => {
    const address = remoteOf(request);
    const token = /^Bearer ([A-Za-z0-9._~+/=-]{8,256})$/.exec(request.headers.authorization ?? '')?.[1];
    if (!token) fail('token-refused', 'The request carries no token.');
    // Whoever has no token that is known does not get 16 MiB parsed.
    if (oracle.knowsToken?.(token, kind) === false) fail('token-refused', 'The token is not known here.');
    if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? ''))
      fail('request-invalid', 'The body must be application/json.');
    const leave = await bodies.enter(address, goneSignal(response));
    try {
      if (kind === 'ram') {
        const report = callHome.ram(await readBody(request, RAM_BODY_MAX_BYTES));
        trace.record({
          mac: report.mac,
          layer: 'call-home',
          message: 'the RAM environment calls home',
          data: { address },
        });
        await oracle.ramCallHome(token, report, address);
      } else {
        const report = callHome.installed(await readBody(request, INSTALLED_BODY_MAX_BYTES));
        traceAddress(address, 'call-home', `the installed system ${report.hostname} calls home`);
        await oracle.installedCallHome(token, report, address);
      }
    } finally {
      leave();
    }
    response.writeHead(204, { 'cache-control': 'no-store' }).end();
  };

  const route = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [path = '', search = ''] = splitTarget(request.url ?? '');
    const query = new URLSearchParams(search);
    const [, first, second, third, ...rest] = path.split('/').map(decodeSegment);
    const read = request.method === 'GET' || request.method === 'HEAD';
    if (read && first === 'packages') return packages(request, response, path.split('/').slice(2).map(decodeSegment));
    if (rest.length === 0) {
      if (read && path === '/boot.ipxe') return bootScript(request, response, query);
      if (read && path === '/milestone') return milestone(request, response, query);
      if (read && first === 'loader' && second && third === undefined) return loader(request, response, second);
      if (read && first === 'image' && second && third) return image(request, response, second, third);
      if (request.method === 'POST' && path === '/call-home/ram') return post(request, response, 'ram');
      if (request.method === 'POST' && path === '/call-home/installed') return post(request, response, 'installed');
    }
    fail('route-unknown', `There is no ${request.method} ${JSON.stringify(path.slice(0, 80))} on the boot listener.`);
  };

  const handle = (request: IncomingMessage, response: ServerResponse) => {
    response.on('error', () => {});
    request.on('error', () => {});
    route(request, response).catch(error => {
      if (response.destroyed) return;
      if (!(error instanceof ProblemError)) {
        log.error({ url: request.url?.slice(0, 200), error: String(error) }, 'boot request failed');
        return sendProblem(
          response,
          problem('server-busy', 'The request failed inside the server; its log has the reason.'),
        );
      }
      const address = remoteOf(request);
      log.info({ address, url: request.url?.slice(0, 200), code: error.problem.code }, error.problem.message);
      traceAddress(address, request.method === 'POST' ? 'call-home' : 'http', `refused: ${error.problem.message}`, {
        code: error.problem.code,
      });
      sendProblem(response, error.problem);
    });
  };

  // ---- sockets ----

  const servers: Server[] = [];
  const close = async (graceMs = 2000) => {
    const closed = servers.map(s => new Promise(resolve => s.close(resolve)));
    for (const server of servers) server.closeIdleConnections();
    const cut = setTimeout(() => {
      for (const server of servers) server.closeAllConnections();
    }, graceMs);
    await Promise.all(closed);
    clearTimeout(cut);
  };

  for (const address of options.addresses) {
    const server = createServer(
      {
        maxHeaderSize: HEADERS_MAX_BYTES,
        headersTimeout: limits.headersMs,
        requestTimeout: limits.requestMs,
        keepAliveTimeout: limits.keepAliveMs,
        connectionsCheckingInterval: Math.min(1000, limits.headersMs),
      },
      handle,
    );
    server.maxConnections = limits.connections;
    server.timeout = limits.requestMs;
    server.on('connection', socket => {
      const client = plainAddress(socket.remoteAddress);
      const count = (connections.get(client) ?? 0) + 1;
      if (count > limits.connectionsPerClient) return void socket.destroy();
      connections.set(client, count);
      socket.on('close', () => {
        const rest = connections.get(client)! - 1;
        if (rest > 0) connections.set(client, rest);
        else connections.delete(client);
      });
    });
    server.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
      else socket.destroy();
    });
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: address, port, backlog: 1024 }, () => {
          server.off('error', reject);
          resolve();
        });
      });
    } catch (error) {
      await close(0);
      throw new ProblemError(listenProblem(error, `HTTP boot on ${address}:${port}`), { cause: error });
    }
    server.on('error', error => log.error({ address, error: error.message }, 'boot listener'));
    port = (server.address() as AddressInfo).port;
    servers.push(server);
  }

  return {
    port,
    counts: () => ({
      streams: streams.running,
      waiting: streams.waiting,
      connections: [...connections.values()].reduce((a, b) => a + b, 0),
    }),
    close,
  };
}

/** The boot plane as this machine sees it: the address that its request came to. */
const baseOf = (request: IncomingMessage, port: number) =>
  `http://${plainAddress(request.socket.localAddress)}:${port}`;
const remoteOf = (request: IncomingMessage) => plainAddress(request.socket.remoteAddress);
const plainAddress = (address: string | undefined) => (address ?? '').replace(/^::ffff:/, '');

/** Path and query of a request target, in origin form or absolute form (RFC 9112, 3.2). */
function splitTarget(target: string): [string, string] {
  const origin = target.replace(/^https?:\/\/[^/?]*/i, '');
  const mark = origin.indexOf('?');
  return mark < 0 ? [origin, ''] : [origin.slice(0, mark), origin.slice(mark + 1)];
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return fail('request-invalid', 'The address holds a "%" that is not part of an escape.');
  }
}

const filesOf = (manifest: ImageManifest): ImageFile[] =>
  (manifest.kind === 'os' ? [manifest.disk, manifest.root] : [manifest.kernel, manifest.initrd]).filter(
    f => f !== null,
  );

/** Aborts when the client has gone before it was answered. */
function goneSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const gone = () => controller.abort(new StreamEnded('the client went away while it waited', 0));
  if (response.destroyed) gone();
  else response.once('close', gone);
  return controller.signal;
}

/**
 * Reads a body of at most `maxBytes`. Does not destroy the connection when it is too large, so that the client can be
 * told.
 */
function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const tooLarge = () => {
      request.removeAllListeners('data');
      request.pause();
      reject(new ProblemError(problem('request-too-large', `The body may have at most ${maxBytes} bytes.`)));
    };
    if (Number(request.headers['content-length'] ?? 0) > maxBytes) return tooLarge();
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > maxBytes) tooLarge();
      else chunks.push(chunk);
    });
    request.once('end', () => resolve(Buffer.concat(chunks, bytes)));
    request.once('close', () => reject(new StreamEnded('the client went away before its body was complete', bytes)));
  });
}
