/**
 * The lab's uplink: a process outside of the lab's network that fetches packages for the server inside, which has no way
 * out. It listens on a Unix socket and forwards GET and HEAD to the archives of this machine's apt sources, and to
 * nothing else.
 *
 *   node uplink.js LAB.json       started by labUp; SIGTERM ends it cleanly
 */
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { asProblem, fail, PROBLEMS, ProblemError } from '../core/problem.js';
import { aptProxy, machineSources } from '../image/mmdebstrap.js';
import { openUpstream, type Upstream } from '../packages/upstream.js';
import { uplinkSocket } from './plan.js';
import { alive, identify, type ProcessId } from './procs.js';
import type { Lab } from './types.js';

/**
 * The address to fetch, when it is inside of an archive.
 * @param target of a request in absolute form (RFC 9112, 3.2.2)
 * @param archives addresses without a slash at their end
 * @throws ProblemError request-invalid, route-unknown
 */
export function forwardable(target: string, archives: readonly string[]): string {
  let url: URL;
  try {
    url = new URL(target);
  } catch {
    return fail('request-invalid', 'The uplink takes requests in absolute form: GET http://HOST/PATH.');
  }
  // What `URL` makes of it is what is sent: dots are resolved, user names and fragments are gone.
  const clean = `${url.protocol}//${url.host}${url.pathname}`;
  const inside = archives.some(a => clean.startsWith(`${normal(a)}/`)) && !/%2e|%2f|%5c/i.test(url.pathname);
  if (!inside || url.search !== '' || url.username !== '')
    fail('route-unknown', `${url.host} at this path is no archive of this machine's apt sources.`);
  return clean;
}

const normal = (uri: string) => {
  const { protocol, host, pathname } = new URL(uri);
  return `${protocol}//${host}${pathname.replace(/\/+$/, '')}`;
};

export function uplinkServer(archives: readonly string[], upstream: Upstream, log: (line: string) => void): Server {
  return createServer({ maxHeaderSize: 8 * 1024 }, (request, response) => {
    const gone = new AbortController();
    response.on('error', () => {});
    response.once('close', () => gone.abort());
    const answer = async () => {
      const { method } = request;
      if (method !== 'GET' && method !== 'HEAD') return fail('request-invalid', `${method} is not forwarded.`);
      const url = forwardable(request.url ?? '', archives);
      const sinceMs = Date.parse(request.headers['if-modified-since'] ?? '');
      const { status, bytes, modifiedMs, body } = await upstream.ask(url, {
        method,
        sinceMs: Number.isNaN(sinceMs) ? null : sinceMs,
        signal: gone.signal,
      });
      response.writeHead(status, {
        ...(status !== 304 && bytes !== null ? { 'content-length': bytes } : {}),
        ...(modifiedMs === null ? {} : { 'last-modified': new Date(modifiedMs).toUTCString() }),
      });
      await pipeline(body, response);
    };
    answer().catch(error => {
      if (!(error instanceof ProblemError) || response.headersSent || response.destroyed) {
        if (!response.destroyed) log(`${request.url?.slice(0, 200)}: ${String(error)}`);
        return void response.destroy();
      }
      const { problem } = error;
      log(`${request.url?.slice(0, 200)}: ${problem.message}`);
      const text = JSON.stringify(problem);
      response.writeHead(PROBLEMS[problem.code].http, {
        'content-type': 'application/problem+json',
        'content-length': Buffer.byteLength(text),
      });
      response.end(request.method === 'HEAD' ? undefined : text);
    });
  });
}

const LOOK_MS = 1000;

/** Does the lab live? Where there is an agent, the lab lives as long as it does. */
function lives(lab: Lab, socket: string): boolean {
  if (!existsSync(socket)) return false;
  try {
    return alive(JSON.parse(readFileSync(join(lab.runDir, 'agent.json'), 'utf8')) as ProcessId);
  } catch {
    // There is none, or it is being written.
    return true;
  }
}

async function main(file: string): Promise<void> {
  const lab = JSON.parse(readFileSync(file, 'utf8')) as Lab;
  const log = (line: string) =>
    appendFileSync(join(lab.dir, 'uplink.log'), `${new Date().toISOString()} ${line}\n`, { mode: 0o600 });
  const archives = [...new Set((await machineSources()).map(s => s.uri))];
  const proxy = await aptProxy();
  const upstream = openUpstream(proxy === null ? { kind: 'direct' } : { kind: 'proxy', url: proxy });
  const server = uplinkServer(archives, upstream, log);
  const path = uplinkSocket(lab);
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  const end = async () => {
    rmSync(path, { force: true });
    server.close();
    await upstream.close();
    process.exit(0);
  };
  setInterval(() => {
    if (!lives(lab, path)) void end();
  }, LOOK_MS);
  process.on('SIGTERM', () => void end());
  process.on('SIGINT', () => void end());
  writeFileSync(join(lab.runDir, 'uplink.json'), JSON.stringify(identify(process.pid)), { mode: 0o600 });
  log(`uplink: ready (pid ${process.pid}) for ${archives.join(', ') || 'nothing: this machine has no apt sources'}`);
}

// As a program only: tests take the parts.
const [, program = '', file] = process.argv;
if (file && /\/uplink\.js$/.test(program)) {
  main(file).catch(error => {
    process.stderr.write(`${asProblem(error).message}\n`);
    process.exit(1);
  });
}
