/** The API's client: JSON, bytes and streams over the Unix socket of the server. */
import { Agent, request } from 'undici';
import { type Problem, ProblemError, problem } from '../core/problem.js';

export type Method = 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';

export interface ApiClient {
  /** @throws ProblemError: the server's own, or server-unreachable */
  json<T>(method: Method, path: string, body?: unknown): Promise<T>;
  /** A body as it is, in pieces: files, consoles, event streams. */
  stream(
    path: string,
    options?: { headers?: Record<string, string>; signal?: AbortSignal },
  ): Promise<AsyncIterable<Uint8Array>>;
  /** Posts raw bytes. */
  bytes(path: string, data: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** @param socketPath the server's socket; nothing is opened before the first request */
export function socketClient(socketPath: string): ApiClient {
  const agent = new Agent({ connect: { socketPath, timeout: 5000 }, connections: 4 });
  const call = async (
    method: Method,
    path: string,
    more: {
      headers?: Record<string, string>;
      body?: string | Uint8Array;
      signal?: AbortSignal;
      endless?: boolean;
    } = {},
  ) => {
    const { endless, ...rest } = more;
    try {
      const response = await request(`http://localhost/api/v1${path}`, {
        dispatcher: agent,
        method,
        // Power and adoption wait for machines.
        headersTimeout: 600_000,
        bodyTimeout: endless ? 0 : 600_000,
        ...rest,
      });
      if (response.statusCode < 400) return response.body;
      throw new ProblemError(await answeredProblem(response.statusCode, response.body));
    } catch (error) {
      if (error instanceof ProblemError || more.signal?.aborted) throw error;
      throw unreachable(error as NodeJS.ErrnoException, socketPath);
    }
  };
  return {
    async json<T>(method: Method, path: string, body?: unknown): Promise<T> {
      const answer = await call(method, path, {
        headers: {
          accept: 'application/json',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      return (text === '' ? undefined : JSON.parse(text)) as T;
    },
    stream: (path, options = {}) => call('GET', path, { ...options, endless: true }),
    async bytes(path, data) {
      const answer = await call('POST', path, { headers: { 'content-type': 'application/octet-stream' }, body: data });
      await answer.dump();
    },
    close: () => agent.destroy(),
  };
}

async function answeredProblem(status: number, body: { text(): Promise<string> }): Promise<Problem> {
  const text = await body.text();
  try {
    const value = JSON.parse(text) as Partial<Problem>;
    if (typeof value.code === 'string' && typeof value.message === 'string') return value as Problem;
  } catch {}
  return problem('internal', `The server answered ${status} without a reason.`);
}

function unreachable(error: NodeJS.ErrnoException, socketPath: string): ProblemError {
  const why =
    error.code === 'ENOENT'
      ? `there is no socket ${socketPath}`
      : error.code === 'ECONNREFUSED'
        ? `nobody listens on ${socketPath}`
        : error.code === 'EACCES'
          ? `no permission for ${socketPath}`
          : `${socketPath}: ${error.message}`;
  return new ProblemError(
    problem('server-unreachable', `The server does not answer: ${why}.`, {
      ...(error.code === 'EACCES' ? { hint: 'The socket is for root; use sudo.' } : {}),
    }),
    { cause: error },
  );
}

export interface SseMessage {
  readonly event: string;
  readonly id: string | null;
  readonly data: string;
}

/** Server-Sent Events out of a byte stream (WHATWG HTML section 9.2.6), comments left out. */
export async function* parseSse(stream: AsyncIterable<Uint8Array>): AsyncGenerator<SseMessage> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    let end = rest.indexOf('\n\n');
    while (end >= 0) {
      const fields = { event: 'message', id: null as string | null, data: [] as string[] };
      for (const line of rest.slice(0, end).split('\n')) {
        const colon = line.indexOf(':');
        if (colon === 0) continue;
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (name === 'event') fields.event = value;
        else if (name === 'id') fields.id = value;
        else if (name === 'data') fields.data.push(value);
      }
      rest = rest.slice(end + 2);
      end = rest.indexOf('\n\n');
      if (fields.data.length > 0) yield { event: fields.event, id: fields.id, data: fields.data.join('\n') };
    }
  }
}
