/** The whole way of a package: boot listener, route, cache, archive on loopback. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { startBootPlane } from '../../../provisioner/boot/plane.js';
import { systemClock } from '../../../provisioner/core/clock.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { openPackageCache } from '../../../provisioner/packages/cache.js';
import { choose, createPackageRoute } from '../../../provisioner/packages/route.js';
import { openUpstream, type UpstreamTimeouts, type Way } from '../../../provisioner/packages/upstream.js';
import { imageFolder, loadersOf, rememberingTrace, steadyOracle } from '../boot/fakes.js';
import { archive, type FakeArchive, MODIFIED, orderly, truncating } from './fakes.js';

const DEB = randomBytes(700_001);
const RELEASE = Buffer.from('Origin: Debian\n');
const POOL = 'pool/main/j/jq/jq_1.6_amd64.deb';
const INDEX = 'dists/bookworm/InRelease';

const after: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of after.splice(0).reverse()) await undo();
});

interface Options {
  maxBytes?: number;
  freshMs?: number;
  way?: Way;
  timeouts?: Partial<UpstreamTimeouts>;
  dir?: string;
}
async function proxyOf(upstreamArchive: Pick<FakeArchive, 'url'>, options: Options = {}) {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'hal-packages-'));
  if (options.dir === undefined) after.push(() => rmSync(dir, { recursive: true, force: true }));
  const images = await imageFolder(Buffer.alloc(1), Buffer.alloc(1));
  after.push(images.remove);
  const upstream = openUpstream(options.way ?? { kind: 'direct' }, options.timeouts);
  const cache = await openPackageCache({
    dir,
    maxBytes: options.maxBytes ?? 2 ** 30,
    upstream,
    clock: systemClock,
    log: silentLog,
    ...(options.freshMs === undefined ? {} : { freshMs: options.freshMs }),
  });
  const uri = upstreamArchive.url;
  const archives = [{ name: 'debian', uri, suites: ['bookworm'], components: ['main'], keyring: null }];
  const plane = await startBootPlane({
    addresses: ['127.0.0.1'],
    port: 0,
    images: images.store,
    loaders: loadersOf({}),
    oracle: steadyOracle({ kind: 'local', reason: 'x' }),
    clock: systemClock,
    log: silentLog,
    trace: rememberingTrace(),
    console: '',
    packages: createPackageRoute({ archives, cache, clock: systemClock, log: silentLog }),
  });
  const close = async () => {
    await plane.close(0);
    await cache.close();
    await upstream.close();
  };
  after.push(close);
  return { port: plane.port, cache, dir, close };
}

interface Answer {
  status: number;
  reason: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
}
/** Rejects when the answer breaks off. */
const ask = (port: number, path: string, headers: Record<string, string> = {}, method = 'GET') =>
  new Promise<Answer>((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port, path, headers, method, agent: false }, response => {
      const chunks: Buffer[] = [];
      response.on('data', chunk => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          reason: response.statusMessage!,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      );
    });
    sent.on('error', reject);
    sent.end();
  });
const at = (path: string) => `/packages/debian/${path}`;
async function served(answer: Parameters<typeof archive>[0]) {
  const a = await archive(answer);
  after.push(() => a.close());
  return a;
}

describe('a package', () => {
  it('is fetched once, whoever asks and how many at the same time', async () => {
    const source = await served((request, response) =>
      setTimeout(() => orderly({ [POOL]: DEB })(request, response), 80),
    );
    const { port } = await proxyOf(source);
    const got = await Promise.all(Array.from({ length: 5 }, () => ask(port, at(POOL))));
    for (const { status, body } of [...got, await ask(port, at(POOL))]) {
      expect(status).toBe(200);
      expect(body.equals(DEB)).toBe(true);
    }
    expect(source.asked).toEqual([`GET /debian/${POOL}`]);
  });

  it('is there without the archive, also after a restart', async () => {
    const source = await served(orderly({ [POOL]: DEB, [INDEX]: RELEASE }));
    const first = await proxyOf(source);
    await ask(first.port, at(POOL));
    await ask(first.port, at(INDEX));
    await first.close();
    await source.close();
    const { port } = await proxyOf(source, { dir: first.dir });
    expect((await ask(port, at(POOL))).body.equals(DEB)).toBe(true);
    // An index that cannot be looked at again is served as it was: its signature says whether it is too old.
    expect((await ask(port, at(INDEX))).body.equals(RELEASE)).toBe(true);
  });

  it('is sent while it comes in', async () => {
    let rest = () => {};
    const source = await served((_request, response) => {
      response.writeHead(200, { 'content-length': DEB.length });
      response.write(DEB.subarray(0, 300_000));
      rest = () => response.end(DEB.subarray(300_000));
    });
    const { port } = await proxyOf(source);
    const body = await new Promise<Buffer>((resolve, reject) => {
      httpRequest({ host: '127.0.0.1', port, path: at(POOL), agent: false }, response => {
        const chunks: Buffer[] = [];
        response.on('data', chunk => {
          chunks.push(chunk);
          if (chunks.length === 1) rest();
        });
        response.on('end', () => resolve(Buffer.concat(chunks)));
        response.on('error', reject);
      }).end();
    });
    expect(body.equals(DEB)).toBe(true);
  });

  it('comes in parts, by range and by date', async () => {
    const { port } = await proxyOf(await served(orderly({ [POOL]: DEB })));
    await ask(port, at(POOL));
    const part = await ask(port, at(POOL), { range: 'bytes=100000-', 'if-range': MODIFIED });
    expect([part.status, part.headers['content-range']]).toEqual([206, `bytes 100000-700000/700001`]);
    expect(part.body.equals(DEB.subarray(100_000))).toBe(true);
    expect((await ask(port, at(POOL), { range: 'bytes=1-', 'if-range': new Date(0).toUTCString() })).status).toBe(200);
    expect((await ask(port, at(POOL), { range: 'bytes=800000-' })).status).toBe(416);
    expect((await ask(port, at(POOL), { 'if-modified-since': MODIFIED })).status).toBe(304);
    const head = await ask(port, at(POOL), {}, 'HEAD');
    expect([head.headers['content-length'], head.body.length]).toEqual(['700001', 0]);
  });

  it('that broke off is neither taken for whole nor kept, and comes the next time', async () => {
    let broken = true;
    const source = await served((request, response) =>
      (broken ? truncating(DEB) : orderly({ [POOL]: DEB }))(request, response),
    );
    const { port, cache, dir } = await proxyOf(source);
    await expect(ask(port, at(POOL))).rejects.toThrow(/aborted|hang up/);
    await wait(50);
    expect(cache.counts()).toEqual({ files: 0, bytes: 0, downloads: 0 });
    expect(readdirSync(join(dir, 'partial'))).toEqual([]);
    broken = false;
    expect((await ask(port, at(POOL))).body.equals(DEB)).toBe(true);
  });

  it('that is not what its name says never arrives whole', async () => {
    const hash = createHash('sha256').update(DEB).digest('hex');
    const path = `dists/bookworm/main/binary-amd64/by-hash/SHA256/${hash}`;
    const forged = Buffer.from(DEB);
    forged[5] = forged[5]! ^ 1;
    const source = await served(orderly({ [path]: forged }));
    const { port, cache } = await proxyOf(source);
    await expect(ask(port, at(path))).rejects.toThrow(/aborted|hang up/);
    expect(cache.counts().files).toBe(0);
  });

  it('without a length is sent when it is whole', async () => {
    const source = await served((_request, response) => {
      response.write(DEB.subarray(0, 1000));
      response.end(DEB.subarray(1000));
    });
    const { port } = await proxyOf(source);
    const { headers, body } = await ask(port, at(INDEX));
    expect([headers['content-length'], body.equals(DEB)]).toEqual(['700001', true]);
  });

  it('makes room by what was used least recently', async () => {
    const files = Object.fromEntries(['a', 'b', 'c'].map(n => [`pool/${n}`, Buffer.alloc(400_000, n)]));
    const source = await served(orderly(files));
    const { port, cache } = await proxyOf(source, { maxBytes: 1_000_000 });
    for (const path of ['a', 'b', 'a', 'c', 'a', 'b']) expect((await ask(port, at(`pool/${path}`))).status).toBe(200);
    expect(source.asked.map(a => a.slice(-1)).join('')).toBe('abcb');
    expect(cache.counts()).toMatchObject({ files: 2, bytes: 800_000 });
    const larger = await proxyOf(await served(orderly({ [POOL]: DEB })), { maxBytes: 1000 });
    expect(await ask(larger.port, at(POOL))).toMatchObject({ status: 502 });
  });
});

describe('an index', () => {
  it('is looked at again by date, not more often than it may be', async () => {
    const source = await served(orderly({ [INDEX]: RELEASE }));
    const { port } = await proxyOf(source, { freshMs: 150 });
    await ask(port, at(INDEX));
    await ask(port, at(INDEX));
    expect(source.asked).toHaveLength(1);
    await wait(200);
    expect((await ask(port, at(INDEX))).body.equals(RELEASE)).toBe(true);
    expect(source.asked).toEqual([`GET /debian/${INDEX}`, `GET /debian/${INDEX} since`]);
  });

  it('that is newer replaces the one here', async () => {
    let text = Buffer.from('old');
    const source = await served((_request, response) => response.end(text));
    const { port, cache } = await proxyOf(source, { freshMs: 0 });
    await ask(port, at(INDEX));
    text = Buffer.from('newer');
    expect((await ask(port, at(INDEX))).body.toString()).toBe('newer');
    expect(cache.counts()).toMatchObject({ files: 1, bytes: 5 });
  });
});

describe('requests ahead of their answers', () => {
  it('are answered in order, and fetched at once', async () => {
    const files = Object.fromEntries(Array.from({ length: 9 }, (_, n) => [`pool/f${n}`, Buffer.from(`<${n}>`)]));
    const times: number[] = [];
    const source = await served((request, response) => {
      times.push(performance.now());
      setTimeout(() => orderly(files)(request, response), request.url!.endsWith('f0') ? 300 : 5);
    });
    const { port } = await proxyOf(source);
    const text = await new Promise<string>(resolve => {
      let all = '';
      const socket = connect(port, '127.0.0.1', () =>
        socket.write(
          Object.keys(files)
            .map(f => `GET ${at(f)} HTTP/1.1\r\nHost: x\r\n\r\n`)
            .join(''),
        ),
      );
      socket.on('data', chunk => {
        all += chunk;
        if (all.includes('<8>')) socket.destroy();
      });
      socket.on('close', () => resolve(all));
    });
    expect([...text.matchAll(/<(\d)>/g)].map(m => m[1]).join('')).toBe('012345678');
    expect(Math.max(...times) - Math.min(...times)).toBeLessThan(250);
  });
});

describe('what is wrong is said', () => {
  it('a file that the archive does not have: 404', async () => {
    const { port } = await proxyOf(await served(orderly({})));
    const answer = await ask(port, at(POOL));
    expect([answer.status, answer.reason]).toEqual([404, `The archive does not have debian/${POOL}.`]);
  });

  it.each(['../../../etc/passwd', 'pool/..%2f..%2fx', 'pool/%2e%2e/x', 'project/trace', 'pool/a%00b'])(
    'no way out of the archive: %s',
    async path => {
      const source = await served(orderly({}));
      const { port } = await proxyOf(source);
      expect((await ask(port, at(path))).status).toBe(404);
      expect((await ask(port, at(POOL), {}, 'POST')).status).toBe(404);
      expect((await ask(port, `/packages/other/${POOL}`)).status).toBe(404);
      expect(source.asked).toEqual([]);
    },
  );

  it('an archive that is not there: 502 with the reason in the line that apt shows', async () => {
    const source = await served(orderly({}));
    await source.close();
    const { port } = await proxyOf(source);
    const answer = await ask(port, at(POOL));
    expect(answer.status).toBe(502);
    expect(answer.reason).toMatch(/^127\.0\.0\.1:\d+ cannot be reached: .*ECONNREFUSED/);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ code: 'package-source-failed' });
  });

  it('an archive that says nothing: 504', async () => {
    const { port } = await proxyOf(await served(() => {}), { timeouts: { headersMs: 300 } });
    expect(await ask(port, at(POOL))).toMatchObject({ status: 504 });
  });

  it('an archive that sends elsewhere, or is broken itself: 502', async () => {
    const { port } = await proxyOf(
      await served((request, response) =>
        response.writeHead(request.url!.endsWith('InRelease') ? 302 : 500, { location: 'http://127.0.0.2:1/x' }).end(),
      ),
    );
    expect((await ask(port, at(INDEX))).reason).toMatch(/redirects to http:\/\/127\.0\.0\.2:1, which is not followed/);
    expect((await ask(port, at(POOL))).reason).toMatch(/answered 500/);
  });
});

describe('the way to archives', () => {
  it('leads through the proxy of this machine’s apt in absolute form', async () => {
    const source = await served((request, response) => response.end(`via ${request.url}`));
    const { port } = await proxyOf(
      { url: 'http://archive.invalid/debian' },
      { way: { kind: 'proxy', url: new URL(source.url).origin } },
    );
    expect((await ask(port, at(POOL))).body.toString()).toBe(`via http://archive.invalid/debian/${POOL}`);
  });
});

describe('a choice by date', () => {
  const file = { bytes: 10, modifiedMs: Date.parse(MODIFIED) };
  it('takes dates to the second and tags before dates', () => {
    expect(choose({ 'if-modified-since': MODIFIED }, file).kind).toBe('not-modified');
    expect(choose({ 'if-modified-since': 'nonsense' }, file).kind).toBe('whole');
    expect(choose({ 'if-modified-since': MODIFIED, 'if-none-match': '"other"' }, file).kind).toBe('whole');
    expect(choose({ range: 'bytes=3-', 'if-range': MODIFIED }, file)).toEqual({ kind: 'part', start: 3, end: 9 });
  });
});
