/**
 * The built pages of the UI, read once and served from memory: there is no path that leads out of the folder, because
 * only what was found at the start is served. Bodies are compressed once, too.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join, relative, sep } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { FastifyReply, FastifyRequest } from 'fastify';

export interface PageFile {
  readonly type: string;
  readonly body: Buffer;
  /** Null where it would not be smaller. */
  readonly gzip: Buffer | null;
  readonly etag: string;
  /** Its name holds a hash of its content: it never changes. */
  readonly immutable: boolean;
}

/** By path: `/index.html`, `/assets/index-Ab12Cd34.js`. */
export type Pages = ReadonlyMap<string, PageFile>;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
};

/** Own files alone; no inline script, no inline style element, no frame, no form that leads elsewhere. */
export const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** All files below `dir` of the types that a UI is made of; null when there is no index.html: it was not built. */
export function readPages(dir: string): Pages | null {
  if (!existsSync(join(dir, 'index.html'))) return null;
  const pages = new Map<string, PageFile>();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    const type = TYPES[extname(entry.name)];
    if (!entry.isFile() || type === undefined) continue;
    const file = join(entry.parentPath, entry.name);
    const path = `/${relative(dir, file).split(sep).join('/')}`;
    const body = readFileSync(file);
    const gzip = gzipSync(body, { level: 9 });
    pages.set(path, {
      type,
      body,
      gzip: gzip.length < body.length ? gzip : null,
      etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`,
      immutable: path.startsWith('/assets/'),
    });
  }
  return pages;
}

/**
 * The file that a request of a browser means: a file by its path, `index.html` for a route of the UI. Undefined for what is
 * no page: other methods, the API, and files that do not exist (they have a dot in their name).
 */
export function pageFor(pages: Pages, method: string, url: string): PageFile | undefined {
  if (method !== 'GET' && method !== 'HEAD') return undefined;
  const path = url.split(/[?#]/, 1)[0]!;
  if (/^\/api(\/|$)/.test(path)) return undefined;
  const found = pages.get(path);
  if (found) return found;
  return path.startsWith('/assets/') || /\.[a-z0-9]{1,8}$/i.test(path) ? undefined : pages.get('/index.html');
}

/** Answers with a page: compressed where the browser takes that, 304 where it has it already. */
export function sendPage(request: FastifyRequest, reply: FastifyReply, page: PageFile): FastifyReply {
  reply.headers({
    'content-security-policy': PAGE_POLICY,
    'cache-control': page.immutable ? 'public, max-age=31536000, immutable' : 'no-cache',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    etag: page.etag,
    vary: 'accept-encoding',
  });
  const known = String(request.headers['if-none-match'] ?? '');
  if (known.split(/\s*,\s*/).some(tag => tag.replace(/^W\//, '') === page.etag)) return reply.code(304).send();
  const zipped = page.gzip !== null && /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''));
  if (zipped) reply.header('content-encoding', 'gzip');
  const body = zipped ? page.gzip! : page.body;
  reply.code(200).type(page.type).header('content-length', body.length);
  return request.method === 'HEAD' ? reply.send() : reply.send(body);
}
