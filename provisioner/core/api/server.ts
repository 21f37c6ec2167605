/**
 * The frame of an HTTP API: one Fastify instance behind up to two listeners (loopback TCP, root-only Unix socket), strict
 * about what it accepts, with every failure as one JSON problem. Routes are added by the halves.
 */
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import Fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type RawReplyDefaultExpression,
  type RawRequestDefaultExpression,
  type RawServerDefault,
} from 'fastify';
import type { Log } from '../log.js';
import { PROBLEMS, type Problem, ProblemError, problem } from '../problem.js';
import { createAjv, explain, fieldName } from '../schema/explain.js';
import { type Pages, pageFor, sendPage } from './pages.js';

export type Api = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Served on the root-only Unix socket alone: the route reads or writes secrets. */
    socketOnly?: boolean;
  }
}

export interface ApiServerOptions {
  readonly title: string;
  readonly version: string;
  readonly log: Log;
  /** Loopback address for TCP. */
  readonly listen: string;
  /** 0: no TCP at all. */
  readonly port: number;
  /** Null: no Unix socket. */
  readonly socketPath: string | null;
  /** The built UI; null: none is served. */
  readonly pages: Pages | null;
}

export interface ApiServer {
  readonly api: Api;
  /** Opens the listeners, after all routes were added. @throws ProblemError port-in-use, capability-missing */
  start(): Promise<void>;
  /** Aborts the streams, ends the connections, removes the socket. */
  close(): Promise<void>;
  /** Fires when the server closes, so that streams end. */
  readonly closing: AbortSignal;
}

/** Largest body of a request, save where a route says otherwise. */
export const BODY_MAX = 256 * 1024;
const DEPTH_MAX = 25;
const CONNECTIONS_MAX = 256;

export async function createApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { log } = options;
  const closing = new AbortController();
  /** Requests that came by the Unix socket, whose permissions are their authentication. */
  const bySocket = new WeakSet<IncomingMessage>();

  const api = Fastify({
    logger: false,
    bodyLimit: BODY_MAX,
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256, ignoreDuplicateSlashes: false },
  }).withTypeProvider<TypeBoxTypeProvider>() as unknown as Api;

  // Bodies are taken as they are; queries and paths are text, so numbers in them are read. Nothing is dropped silently.
  const strict = createAjv({ useDefaults: true, strictSchema: false });
  const coercing = createAjv({ useDefaults: true, strictSchema: false, coerceTypes: 'array' });
  api.setValidatorCompiler(({ schema, httpPart }) => {
    const check = (httpPart === 'body' ? strict : coercing).compile(schema as object);
    return data => {
      if (check(data)) return { value: data };
      const fault = explain(check.errors ?? [], data)[0]!;
      const place = [httpPart ?? 'request', ...fault.path];
      return {
        error: new ProblemError(
          problem('request-invalid', `${fieldName(place)}: ${fault.message}`, {
            detail: { field: fieldName(fault.path), part: httpPart ?? 'request' },
          }),
        ),
      };
    };
  });
  // What the services say is sent as it is; a test holds it against the response schemas.
  api.setSerializerCompiler(() => data => JSON.stringify(data));

  api.removeAllContentTypeParsers();
  const parse = api.getDefaultJsonParser('error', 'error');
  api.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    // Deep nesting costs every later walk over the value (OpenStack OSSN-0099); refused before anything is parsed.
    if (depthOf(body as string) > DEPTH_MAX)
      return done(new ProblemError(problem('request-invalid', `The body is nested deeper than ${DEPTH_MAX} levels.`)));
    return parse(request, body as string, done);
  });

  api.setErrorHandler((error: FastifyError | ProblemError, request, reply) => {
    const p = toProblem(error, request.id);
    if (p.code === 'internal')
      log.error({ requestId: request.id, url: request.url, err: String(error.stack) }, 'API failed');
    if (reply.raw.headersSent) return reply.raw.destroy();
    return reply.code(PROBLEMS[p.code].http).type('application/json').send(p);
  });
  api.setNotFoundHandler((request, reply) => {
    const page = options.pages === null ? undefined : pageFor(options.pages, request.method, request.url);
    if (page) return sendPage(request, reply, page);
    return reply
      .code(404)
      .type('application/json')
      .send(problem('route-unknown', `There is no ${request.method} ${request.url.split('?')[0]?.slice(0, 200)}.`));
  });

  api.addHook('onRequest', async (request, reply) => {
    reply.headers({
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    });
    if (bySocket.has(request.raw)) return;
    const refusal = originRefusal(request.headers, options.port);
    if (refusal) throw new ProblemError(problem('origin-refused', refusal));
    if (request.routeOptions.config.socketOnly)
      throw new ProblemError(
        problem('origin-refused', 'This path carries secrets and is served on the Unix socket alone.', {
          hint: 'Use the command line as root, or `curl --unix-socket`.',
        }),
      );
  });

  await api.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: options.title,
        version: options.version,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
    },
  });

  const servers: Server[] = [];
  const listen = (where: { path: string } | { host: string; port: number }) =>
    new Promise<void>((resolve, reject) => {
      const unix = 'path' in where;
      const server = createServer(
        { requestTimeout: 60_000, headersTimeout: 15_000, keepAliveTimeout: 10_000, maxHeaderSize: 16_384 },
        (request: IncomingMessage, response: ServerResponse) => {
          if (unix) bySocket.add(request);
          api.routing(request, response);
        },
      );
      server.maxConnections = CONNECTIONS_MAX;
      server.once('error', reject);
      // Between bind and chmod the socket must not be open to others.
      const umask = unix ? process.umask(0o177) : null;
      try {
        server.listen(where, () => {
          if (unix) chmodSync(where.path, 0o600);
          server.off('error', reject);
          server.on('error', error => log.error({ err: String(error) }, 'API listener failed'));
          servers.push(server);
          resolve();
        });
      } finally {
        if (umask !== null) process.umask(umask);
      }
    });

  const handle: ApiServer = {
    api,
    closing: closing.signal,
    async start() {
      await api.ready();
      try {
        if (options.socketPath !== null) {
          await removeStaleSocket(options.socketPath);
          await listen({ path: options.socketPath });
        }
        if (options.port !== 0) await listen({ host: options.listen, port: options.port });
      } catch (error) {
        await handle.close();
        throw listenProblem(error, options);
      }
    },
    async close() {
      closing.abort();
      await Promise.all(
        servers.splice(0).map(
          server =>
            new Promise<void>(resolve => {
              server.close(() => resolve());
              server.closeIdleConnections();
              // Streams end by the signal; what does not within a moment is cut.
              setTimeout(() => server.closeAllConnections(), 500).unref();
            }),
        ),
      );
      await api.close();
    },
  };
  return handle;
}

/** Any failure as a problem; what is not expected stays in the log. */
function toProblem(error: FastifyError | ProblemError, requestId: string): Problem {
  if (error instanceof ProblemError) return error.problem;
  const status = error.statusCode ?? 500;
  if (status === 413) return problem('body-too-large', `The body is larger than allowed here: ${error.message}.`);
  if (status === 415)
    return problem(
      'content-type-refused',
      'The content type of the request is not accepted; expected application/json.',
    );
  if (status >= 400 && status < 500) return problem('request-invalid', error.message);
  return problem('internal', `The server failed on this request (${requestId}).`);
}

/**
 * Loopback is no protection against the operator's own browser: a foreign page may send requests to 127.0.0.1, and by DNS
 * rebinding even under its own name. So the Host must be ours, and so must the Origin, where there is one.
 * @returns the reason why the request is refused, or null
 */
export function originRefusal(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  port: number,
): string | null {
  const hosts = ['127.0.0.1', 'localhost', '[::1]'].map(h => (port === 80 ? h : `${h}:${port}`));
  const host = String(headers['host'] ?? '').toLowerCase();
  if (!hosts.includes(host))
    return `The Host of the request is ${JSON.stringify(host.slice(0, 100))}; expected ${hosts[0]}.`;
  const origin = headers['origin'];
  if (origin !== undefined && !hosts.some(h => origin === `http://${h}`))
    return `The Origin of the request is ${JSON.stringify(String(origin).slice(0, 100))}; expected none or our own.`;
  // Browsers say so even where they send no Origin (a link, an image).
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    return 'A page of another site sent this request.';
  return null;
}

/** How deep brackets nest in JSON text, brackets inside of strings left out. */
export function depthOf(text: string): number {
  let depth = 0;
  let max = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 91 || c === 123) max = Math.max(max, ++depth);
    else if (c === 93 || c === 125) depth--;
  }
  return max;
}

/** A socket file that nobody answers is what a killed server left behind; one that answers belongs to another server. */
async function removeStaleSocket(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket())
    throw new ProblemError(
      problem('port-in-use', `${path} exists and is no socket.`, { hint: 'Remove it or choose another path.' }),
    );
  const alive = await new Promise<boolean>(resolve => {
    const probe = connect(path);
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
    probe.once('connect', () => probe.destroy());
  });
  if (alive)
    throw new ProblemError(problem('port-in-use', `Another server answers on ${path}.`, { hint: 'Stop it first.' }));
  rmSync(path, { force: true });
}

function listenProblem(error: unknown, options: ApiServerOptions): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  const place = `${options.listen}:${options.port} (api.port)`;
  if (code === 'EADDRINUSE') return new ProblemError(problem('port-in-use', `TCP port ${place} is already in use.`));
  if (code === 'EADDRNOTAVAIL')
    return new ProblemError(problem('interface-missing', `This machine does not have the address of ${place}.`));
  if (code === 'EACCES' && syscall === 'listen')
    return new ProblemError(
      problem('capability-missing', `No permission to listen on ${place} or ${options.socketPath}.`),
    );
  if (code === 'ENOENT' || code === 'EINVAL')
    return new ProblemError(
      problem('capability-missing', `The socket ${options.socketPath} cannot be made: ${(error as Error).message}.`, {
        hint: 'Make its folder, or name another path as `socket` in the site file.',
      }),
    );
  return error;
}
