/** Answers nodes out of the cache, as apt asks: pipelined, by date, in parts. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type Selection, select } from '../boot/range.js';
import { type Slots, sendFile } from '../boot/send-file.js';
import type { Clock } from '../core/clock.js';
import type { Log } from '../core/log.js';
import { fail, ProblemError } from '../core/problem.js';
import type { Archive } from './archives.js';
import type { OpenFile, PackageCache } from './cache.js';
import { packagePath } from './path.js';
import type { PackageRoute } from './types.js';

/** apt sends ten requests ahead of the answers (Acquire::http::Pipeline-Depth). */
const AHEAD_MAX = 32;

export function createPackageRoute(options: {
  readonly archives: readonly Archive[];
  readonly cache: PackageCache;
  readonly clock: Clock;
  readonly log: Log;
}): PackageRoute {
  const { cache, clock, log } = options;
  const uris = new Map(options.archives.map(a => [a.name, a.uri]));
  const lines = new WeakMap<Socket, { last: Promise<void>; waiting: number }>();

  /** Resolves when all answers that were asked for before on this connection are out. */
  const turn = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { socket } = request;
    const line = lines.get(socket) ?? { last: Promise.resolve(), waiting: 0 };
    lines.set(socket, line);
    if (line.waiting >= AHEAD_MAX)
      fail('server-busy', `More than ${AHEAD_MAX} requests wait on this connection already.`);
    const before = line.last;
    line.last = before.then(() => outOf(response, socket));
    line.waiting++;
    try {
      await before;
    } finally {
      line.waiting--;
    }
  };

  return {
    async answer(request, response, segments, sending) {
      const startedMs = clock.monotonicMs();
      try {
        const { archive, path, immutable, sha256 } = packagePath(segments);
        const uri = uris.get(archive);
        if (uri === undefined)
          return fail('route-unknown', `There is no archive ${JSON.stringify(archive)} here.`, {
            hint: `There are: ${[...uris.keys()].join(', ')}.`,
          });
        const name = `${archive}/${path}`;
        const url = `${uri}/${path.split('/').map(encodeURIComponent).join('/')}`;
        // Fetched at once, though it is sent when the answers before it are out: apt asks for many small files.
        const opening = cache.open({ url, name, immutable, sha256 });
        opening.catch(() => {});
        let file: OpenFile | null = null;
        let leave: (() => void) | null = null;
        try {
          await turn(request, response);
          file = await opening;
          leave = await sending.enter();
          await send(request, response, file, sending.reads, sending.stallMs);
          const ms = Math.round(clock.monotonicMs() - startedMs);
          log.debug(
            { address: request.socket.remoteAddress, name, bytes: file.bytes, from: file.from, ms },
            'package sent',
          );
        } finally {
          leave?.();
          await opening.then(
            f => f.close(),
            () => {},
          );
        }
      } catch (error) {
        // What apt shows of a failure is the line of the status: the reason belongs there.
        if (error instanceof ProblemError && !response.headersSent)
          response.statusMessage = error.problem.message.replace(/[^ -~]/g, '?').slice(0, 200);
        throw error;
      }
    },
  };
}

/** Resolves when the answer is out or will never be. */
function outOf(response: ServerResponse, socket: Socket): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      socket.off('close', done);
      resolve();
    };
    if (response.writableFinished || response.destroyed || socket.destroyed) return resolve();
    response.once('finish', done);
    response.once('close', done);
    socket.once('close', done);
  });
}

/** What of a file is asked for: dates count to the second, as apt sends them. Pure. */
export function choose(
  headers: {
    readonly 'if-modified-since'?: string | undefined;
    readonly 'if-none-match'?: string | undefined;
    readonly 'if-range'?: string | undefined;
    readonly range?: string | undefined;
  },
  file: { readonly bytes: number; readonly modifiedMs: number },
): Selection {
  const etag = etagOf(file);
  const date = (text: string | undefined) => (text === undefined ? Number.NaN : Date.parse(text));
  const ifNoneMatch = headers['if-none-match'];
  if (ifNoneMatch === undefined && date(headers['if-modified-since']) >= file.modifiedMs)
    return { kind: 'not-modified' };
  const given = headers['if-range'];
  const ifRange = date(given) === file.modifiedMs ? etag : given;
  return select({ ifNoneMatch, ifRange, range: headers.range }, etag, file.bytes);
}

const etagOf = (file: { bytes: number; modifiedMs: number }) =>
  `"${Math.floor(file.modifiedMs / 1000).toString(16)}-${file.bytes.toString(16)}"`;

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  file: OpenFile,
  reads: Slots,
  stallMs: number,
): Promise<void> {
  const headers = {
    etag: etagOf(file),
    'last-modified': new Date(file.modifiedMs).toUTCString(),
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
    'cache-control': 'no-cache',
  };
  const { range, ...rest } = request.headers;
  const selection = choose(request.method === 'GET' && range !== undefined ? { ...rest, range } : rest, file);
  if (selection.kind === 'not-modified') return void response.writeHead(304, headers).end();
  if (selection.kind === 'unsatisfiable') {
    const missing = { 'content-range': `bytes */${file.bytes}`, 'content-length': 0 };
    return void response.writeHead(416, { ...headers, ...missing }).end();
  }
  const part = selection.kind === 'part';
  const [start, end] = part ? [selection.start, selection.end] : [0, file.bytes - 1];
  // Nothing is announced before the first byte is there, so that an archive that says nothing more is said by a status.
  const first = Buffer.alloc(1);
  if (end >= start && request.method === 'GET') await file.read(first, 0, 1, start);
  response.writeHead(part ? 206 : 200, {
    ...headers,
    'content-length': end - start + 1,
    ...(part ? { 'content-range': `bytes ${start}-${end}/${file.bytes}` } : {}),
  });
  if (request.method === 'HEAD' || end < start) return void response.end();
  // What comes in may let a read wait, and nobody else shall wait behind it for a turn at the disk.
  const turns: Slots = file.from === 'archive' ? { run: work => work() } : reads;
  await sendFile(file, start, end, response, turns, stallMs);
}
