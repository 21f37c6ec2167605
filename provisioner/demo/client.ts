/** The demo is a client of the API like any other: JSON and the event stream, over the server's Unix socket. */
import { Client } from 'undici';
import type { FeedEvent } from '../core/events.js';
import { type Problem, ProblemError } from '../core/problem.js';

export interface DemoClient {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
  patch<T>(path: string, body: unknown): Promise<T>;
  /** Calls `onEvent` for each event from the first one on, until the signal aborts. */
  follow(onEvent: (event: FeedEvent) => void, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export function demoClient(socketPath: string): DemoClient {
  const client = new Client('http://localhost', { socketPath });
  const call = async <T>(method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown): Promise<T> => {
    const response = await client.request({
      method,
      path: `/api/v1${path}`,
      headersTimeout: 120_000,
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    });
    const answer = (await response.body.json()) as T;
    if (response.statusCode >= 400) throw new ProblemError(answer as Problem);
    return answer;
  };
  return {
    get: path => call('GET', path),
    post: (path, body) => call('POST', path, body),
    patch: (path, body) => call('PATCH', path, body),
    async follow(onEvent, signal) {
      // A connection of its own: a stream would block every other request on the first one.
      const stream = new Client('http://localhost', { socketPath, bodyTimeout: 0 });
      try {
        const response = await stream.request({
          method: 'GET',
          path: '/api/v1/events',
          headers: { 'last-event-id': '0', accept: 'text/event-stream' },
          signal,
        });
        let text = '';
        for await (const chunk of response.body) {
          text += String(chunk);
          const blocks = text.split('\n\n');
          text = blocks.pop() ?? '';
          for (const block of blocks) {
            const data = block
              .split('\n')
              .filter(l => l.startsWith('data:'))
              .map(l => l.slice(5).trim())
              .join('\n');
            if (data.startsWith('{')) onEvent(JSON.parse(data) as FeedEvent);
          }
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        await stream.destroy();
      }
    },
    close: () => client.destroy(),
  };
}
