/** Archives on loopback, named by what they do wrong. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeArchive {
  readonly url: string;
  /** `GET /path`, with `since` when it was asked conditionally. */
  readonly asked: string[];
  close(): Promise<void>;
}

export async function archive(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<FakeArchive> {
  const asked: string[] = [];
  const server: Server = createServer((request, response) => {
    const since = request.headers['if-modified-since'];
    asked.push(`${request.method} ${request.url}${since === undefined ? '' : ' since'}`);
    answer(request, response);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`,
    asked,
    async close() {
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

export const MODIFIED = 'Mon, 23 Nov 2026 10:00:00 GMT';

/** Has these files, and honours dates. */
export const orderly = (files: Record<string, Buffer>) => (request: IncomingMessage, response: ServerResponse) => {
  const data = files[request.url!.replace(/^\/debian\//, '')];
  if (!data) return void response.writeHead(404).end();
  if (request.headers['if-modified-since'] === MODIFIED) return void response.writeHead(304).end();
  response.writeHead(200, { 'content-length': data.length, 'last-modified': MODIFIED }).end(data);
};

/** Announces all, sends half, and hangs up. */
export const truncating = (data: Buffer) => (_request: IncomingMessage, response: ServerResponse) => {
  response.writeHead(200, { 'content-length': data.length, 'last-modified': MODIFIED });
  response.write(data.subarray(0, data.length / 2), () => setTimeout(() => response.destroy(), 20));
};
