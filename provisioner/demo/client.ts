/** The demo is a client of the API like any other; this gives it verbs, and events as objects. */
import { parseSse, socketClient } from '../cli/client.js';
import type { FeedEvent } from '../core/events.js';

export interface DemoClient {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
  patch<T>(path: string, body: unknown): Promise<T>;
  /** Calls `onEvent` for each event from the first one on, until the signal aborts. */
  follow(onEvent: (event: FeedEvent) => void, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export function demoClient(socketPath: string): DemoClient {
  const api = socketClient(socketPath);
  return {
    get: path => api.json('GET', path),
    post: (path, body) => api.json('POST', path, body),
    patch: (path, body) => api.json('PATCH', path, body),
    async follow(onEvent, signal) {
      try {
        const headers = { accept: 'text/event-stream', 'last-event-id': '0' };
        for await (const message of parseSse(await api.stream('/events', { headers, signal })))
          if (message.event !== 'reload') onEvent(JSON.parse(message.data) as FeedEvent);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
    close: () => api.close(),
  };
}
