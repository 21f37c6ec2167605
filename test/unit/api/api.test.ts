import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { apiPage } from '../../../provisioner/api/page.js';
import { startApi } from '../../../provisioner/api/start.js';
import { BODY_MAX, depthOf, originRefusal } from '../../../provisioner/core/api/server.js';
import { PROBLEMS } from '../../../provisioner/core/problem.js';
import { createAjv } from '../../../provisioner/core/schema/explain.js';
import { loadSite } from '../../../provisioner/site/load.js';
import { type FakeServer, fakeServer, fakeServices, nodeView } from './fakes.js';

let server: FakeServer;
let dir: string;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-api-'));
  server = await fakeServer(
    [nodeView('n01', 'available'), nodeView('n02', 'claimed'), nodeView('silent', 'installed')],
    {
      socketPath: join(dir, 's'),
      heartbeatMs: 40,
    },
  );
});
afterEach(async () => {
  await server.handle.close();
  rmSync(dir, { recursive: true, force: true });
});

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
  json: () => never;
}

/** A real request over the Unix socket, or over TCP with `port`. */
function ask(
  method: string,
  path: string,
  options: { body?: unknown; headers?: Record<string, string>; port?: number; raw?: string | Buffer } = {},
): Promise<Answer> {
  const payload = options.raw ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        ...(options.port === undefined ? { socketPath: join(dir, 's') } : { host: '127.0.0.1', port: options.port }),
        method,
        path: `/api/v1${path}`,
        agent: false,
        headers: {
          ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(payload === undefined ? {} : { 'content-length': String(Buffer.byteLength(payload)) }),
          ...options.headers,
        },
      },
      response => {
        let text = '';
        response.on('data', c => {
          text += c;
        });
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            headers: response.headers,
            text,
            json: () => JSON.parse(text) as never,
          }),
        );
        response.on('error', reject);
      },
    );
    request.on('error', reject);
    request.end(payload);
  });
}
const problemOf = (a: Answer) => a.json() as { code: keyof typeof PROBLEMS; message: string; hint: string };

describe('failures', () => {
  it('are problems with the status of the catalogue', async () => {
    const answer = await ask('GET', '/nodes/nowhere');
    expect(answer.status).toBe(PROBLEMS['node-unknown'].http);
    expect(answer.json()).toEqual({
      code: 'node-unknown',
      message: 'There is no node "nowhere".',
      hint: PROBLEMS['node-unknown'].hint,
      retry: false,
    });
  });

  it.each<[string, string, unknown, string]>([
    [
      'an unknown field',
      '/nodes',
      { name: 'n9', macs: [], colour: 'red' },
      'body.colour: unknown field; known here are: name, macs',
    ],
    ['a missing field', '/nodes', {}, 'body.name: missing; expected one label of a host name'],
    ['a number where text belongs', '/nodes', { name: 7 }, 'body.name: expected one label of a host name'],
    [
      'a wrong MAC',
      '/nodes',
      { name: 'n9', macs: ['x'] },
      'body.macs[0]: expected a MAC address like 52:54:00:99:00:01, found "x"',
    ],
    ['an unknown action', '/nodes/n01/actions', { action: 'explode' }, 'body.action: expected one of inspect, claim'],
    [
      'a BMC without account',
      '/nodes',
      { name: 'n9', macs: [], bmc: { driver: 'redfish', address: 'https://b' } },
      'body.bmc: expected user',
    ],
    ['a list instead of a mapping', '/nodes', [], 'body: expected a mapping (fields with values), found an empty list'],
  ])('name the field for %s', async (_, path, body, sentence) => {
    const answer = await ask('POST', path, { body });
    expect(answer.status).toBe(400);
    expect(problemOf(answer).code).toBe('request-invalid');
    expect(problemOf(answer).message).toContain(sentence);
  });

  it('never repeat a BMC password that stands where a reference belongs', async () => {
    const bmc = { driver: 'ipmi', address: 'b', user: 'u', password: 'hunter2' };
    expect((await ask('POST', '/nodes', { body: { name: 'n9', macs: [], bmc } })).text).not.toContain('hunter2');
  });

  it.each<[string, string | Buffer, Record<string, string>, number, string]>([
    ['broken JSON', '{"name":', { 'content-type': 'application/json' }, 400, 'request-invalid'],
    ['no JSON at all', '', { 'content-type': 'application/json' }, 400, 'request-invalid'],
    ['__proto__', '{"__proto__":{"x":1},"name":"n9"}', { 'content-type': 'application/json' }, 400, 'request-invalid'],
    [
      'constructor.prototype',
      '{"constructor":{"prototype":{"x":1}},"name":"n9"}',
      { 'content-type': 'application/json' },
      400,
      'request-invalid',
    ],
    [
      'JSON nested too deep',
      `${'['.repeat(26)}${']'.repeat(26)}`,
      { 'content-type': 'application/json' },
      400,
      'request-invalid',
    ],
    [
      'a body too large',
      JSON.stringify({ name: 'x'.repeat(BODY_MAX) }),
      { 'content-type': 'application/json' },
      413,
      'body-too-large',
    ],
    ['plain text', '{"name":"n9"}', { 'content-type': 'text/plain' }, 415, 'content-type-refused'],
    ['a form', 'name=n9', { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'content-type-refused'],
    ['raw bytes outside of consoles', 'x', { 'content-type': 'application/octet-stream' }, 415, 'content-type-refused'],
    [
      'a content type with a tab',
      '{"name":"n9","macs":[],"evil":1}',
      { 'content-type': 'application/json\t; x' },
      400,
      'request-invalid',
    ],
    ['no content type', '{"name":"n9","macs":[]}', {}, 415, 'content-type-refused'],
  ])('refuse %s', async (_, raw, headers, status, code) => {
    const answer = await ask('POST', '/nodes', { raw, headers });
    expect([answer.status, problemOf(answer).code]).toEqual([status, code]);
    expect(server.table.calls).toEqual([]);
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
  });

  it('say route-unknown for paths that are not', async () => {
    expect(problemOf(await ask('GET', '/nope')).code).toBe('route-unknown');
    expect(problemOf(await ask('PUT', '/nodes')).code).toBe('route-unknown');
  });

  it('keep bugs out of the answer and put them into the log', async () => {
    const logged: object[] = [];
    const services = fakeServices([]).services;
    const handle = await startApi({
      ...services,
      nodes: {
        ...services.nodes,
        list: async () => {
          throw new Error('secret detail in /var/lib/halligan');
        },
      },
      listen: '127.0.0.1',
      port: 0,
      socketPath: null,
      version: '0',
      log: { debug() {}, info() {}, warn() {}, error: fields => void logged.push(fields) },
    });
    const answer = await handle.inject({ url: '/api/v1/nodes', headers: { host: '127.0.0.1:0' } });
    expect([answer.statusCode, answer.json().code]).toEqual([500, 'internal']);
    expect(answer.body).not.toContain('secret detail');
    expect(JSON.stringify(logged)).toContain('secret detail');
    await handle.close();
  });
});

describe('who may ask', () => {
  it('lets our own host and origin through, nothing else', () => {
    const h = (headers: Record<string, string>) => originRefusal(headers, 7480);
    expect(h({ host: '127.0.0.1:7480' })).toBeNull();
    expect(h({ host: 'LOCALHOST:7480', origin: 'http://localhost:7480', 'sec-fetch-site': 'same-origin' })).toBeNull();
    expect(h({ host: '[::1]:7480' })).toBeNull();
    expect(h({})).toMatch(/The Host of the request is ""/);
    expect(h({ host: 'evil.example:7480' })).toMatch(/evil\.example/);
    expect(h({ host: '127.0.0.1' })).not.toBeNull();
    expect(h({ host: '127.0.0.1:7480.evil.example' })).not.toBeNull();
    expect(h({ host: '127.0.0.1:7480', origin: 'http://evil.example' })).toMatch(/Origin/);
    expect(h({ host: '127.0.0.1:7480', origin: 'null' })).not.toBeNull();
    expect(h({ host: '127.0.0.1:7480', origin: 'https://127.0.0.1:7480' })).not.toBeNull();
    expect(h({ host: '127.0.0.1:7480', 'sec-fetch-site': 'cross-site' })).toMatch(/another site/);
    expect(h({ host: '127.0.0.1:7480', 'sec-fetch-site': 'same-site' })).not.toBeNull();
  });

  it('holds every route on TCP to that, and serves secrets on the socket alone', async () => {
    const port = await freePort();
    const tcp = await fakeServer([nodeView('n01', 'available')], { port });
    try {
      expect((await ask('GET', '/nodes', { port })).status).toBe(200);
      const rebound = await ask('GET', '/nodes', { port, headers: { host: `evil.example:${port}` } });
      expect([rebound.status, problemOf(rebound).code]).toEqual([403, 'origin-refused']);
      const forged = await ask('POST', '/nodes/n01/actions', {
        port,
        body: { action: 'claim' },
        headers: { origin: 'http://evil.example' },
      });
      expect(forged.status).toBe(403);
      for (const path of ['/backup', '/secrets']) expect((await ask('GET', path, { port })).status).toBe(403);
      expect(tcp.table.calls).toEqual([]);
    } finally {
      await tcp.handle.close();
    }
  });

  it('makes the socket for its owner alone and removes it', async () => {
    expect(statSync(join(dir, 's')).mode & 0o777).toBe(0o600);
    await server.handle.close();
    expect(() => statSync(join(dir, 's'))).toThrow();
  });

  it('replaces the socket of a killed server, but not that of a living one, and no other file', async () => {
    await expect(fakeServer([], { socketPath: join(dir, 's') })).rejects.toMatchObject({
      problem: { code: 'port-in-use', message: expect.stringContaining('Another server answers') },
    });
    writeFileSync(join(dir, 'f'), 'precious');
    await expect(fakeServer([], { socketPath: join(dir, 'f') })).rejects.toMatchObject({
      problem: { code: 'port-in-use', message: expect.stringContaining('is no socket') },
    });
  });

  it('says which port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise(resolve => other.once('listening', resolve));
    const { port } = other.address() as { port: number };
    await expect(fakeServer([], { port })).rejects.toMatchObject({
      problem: { code: 'port-in-use', message: `TCP port 127.0.0.1:${port} (api.port) is already in use.` },
    });
    await new Promise(resolve => other.close(resolve));
  });
});

describe('nodes', () => {
  it('are listed in the order people count', async () => {
    const many = await fakeServer(['n10', 'n2', 'n1'].map(n => nodeView(n, 'available')));
    const answer = await many.handle.inject({ url: '/api/v1/nodes', headers: { host: '127.0.0.1:0' } });
    expect(answer.json().nodes.map((n: { name: string }) => n.name)).toEqual(['n1', 'n2', 'n10']);
    await many.handle.close();
  });

  it('are found by MAC in the path', async () => {
    expect((await ask('GET', '/nodes/52%3A54%3A00%3A99%3A00%3A01')).json()).toMatchObject({ name: 'n01' });
  });

  it('get a result each from a request on many, in its order', async () => {
    const answer = await ask('POST', '/nodes/actions', { body: { nodes: ['n02', 'nowhere', 'n01'], action: 'claim' } });
    expect(answer.json()).toMatchObject({
      done: 1,
      failed: 2,
      results: [
        { item: 'n02', ok: false, problem: { code: 'not-allowed-now' } },
        { item: 'nowhere', ok: false, problem: { code: 'node-unknown' } },
        { item: 'n01', ok: true, node: { state: 'claimed' } },
      ],
    });
  });

  it('take what the action takes', async () => {
    const body = { action: 'install', params: { image: 'debian-12', wipe: true, layout: 'lvm' } };
    expect((await ask('POST', '/nodes/n02/actions', { body })).status).toBe(202);
    expect(server.table.calls).toEqual([['act', 'n02', 'install', body.params]]);
  });

  it('say when the BMC is silent', async () => {
    const answer = await ask('GET', '/nodes/silent/power');
    expect([answer.status, problemOf(answer).code]).toEqual([504, 'bmc-silent']);
  });

  it('fill no defaults into what is changed', async () => {
    await ask('PATCH', '/nodes/n01', { body: { install: { image: 'x' } } });
    expect(server.table.calls).toEqual([['update', 'n01', { install: { image: 'x' } }]]);
  });

  it('are forgotten with 204 and no body', async () => {
    const answer = await ask('DELETE', '/nodes/n01');
    expect([answer.status, answer.text]).toEqual([204, '']);
  });

  it('are adopted as root unless another user is named', async () => {
    await ask('POST', '/nodes/adopt', { body: { address: '10.98.0.7' } });
    expect(server.table.calls).toEqual([['adopt', { address: '10.98.0.7', user: 'root' }]]);
  });
});

interface Sse {
  blocks: string[];
  headers: IncomingMessage['headers'];
  stop: () => void;
  until: (check: (blocks: string[]) => boolean) => Promise<string[]>;
  ended: Promise<void>;
}
function follow(path: string, headers: Record<string, string> = {}): Promise<Sse> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { socketPath: join(dir, 's'), path: `/api/v1${path}`, agent: false, headers },
      response => {
        const blocks: string[] = [];
        let rest = '';
        response.on('data', c => {
          rest += c;
          const parts = rest.split('\n\n');
          rest = parts.pop()!;
          blocks.push(...parts);
        });
        const ended = new Promise<void>(done => response.once('close', done));
        response.on('error', () => {});
        resolve({
          blocks,
          headers: response.headers,
          stop: () => request.destroy(),
          ended,
          async until(check) {
            for (let i = 0; i < 250 && !check(blocks); i++) await new Promise(r => setTimeout(r, 20));
            if (!check(blocks)) throw new Error(`did not come: ${JSON.stringify(blocks)}`);
            return blocks;
          },
        });
      },
    );
    request.on('error', reject);
    request.end();
  });
}
const ids = (blocks: string[]) => blocks.flatMap(b => /^id: (\d+)\nevent: event/.exec(b)?.[1] ?? []).map(Number);

describe('the event feed', () => {
  it('replays from Last-Event-ID, then goes on live, each event once and in order', async () => {
    for (let i = 0; i < 450; i++) await server.feed.emit({ type: 't', message: `m${i}` });
    const stream = await follow('/events', { 'last-event-id': '10' });
    expect(stream.headers['content-type']).toContain('text/event-stream');
    for (let i = 0; i < 50; i++) await server.feed.emit({ type: 't', message: 'live' });
    await stream.until(b => ids(b).length >= 490);
    expect(ids(stream.blocks)).toEqual(Array.from({ length: 490 }, (_, i) => i + 11));
    stream.stop();
  });

  it('begins with what comes next when nothing is said', async () => {
    await server.feed.emit({ type: 't', message: 'old' });
    const stream = await follow('/events');
    await stream.until(b => b.includes('retry: 2000'));
    await new Promise(r => setTimeout(r, 30));
    await server.feed.emit({ type: 't', message: 'new' });
    await stream.until(b => ids(b).length === 1);
    expect(ids(stream.blocks)).toEqual([2]);
    stream.stop();
  });

  it('tells a client that is too far behind to reload, once, and goes on from the newest', async () => {
    for (let i = 0; i < 20; i++) await server.feed.emit({ type: 't', message: 'm' });
    server.feed.forget(15);
    const stream = await follow('/events', { 'last-event-id': '3' });
    await stream.until(b => b.some(x => x.includes('event: reload')));
    await server.feed.emit({ type: 't', message: 'new' });
    await stream.until(b => ids(b).length === 1);
    expect(stream.blocks.filter(b => b.includes('event: reload'))).toEqual([
      'id: 20\nevent: reload\ndata: {"from":3,"oldest":16,"latest":20}',
    ]);
    expect(ids(stream.blocks)).toEqual([21]);
    stream.stop();
  });

  it('resumes without reload where the next event is still kept', async () => {
    for (let i = 0; i < 20; i++) await server.feed.emit({ type: 't', message: 'm' });
    server.feed.forget(15);
    const stream = await follow('/events', { 'last-event-id': '15' });
    await stream.until(b => ids(b).length === 5);
    expect(stream.blocks.join()).not.toContain('reload');
    stream.stop();
  });

  it('tells a client with a number from another database to reload', async () => {
    await server.feed.emit({ type: 't', message: 'm' });
    const stream = await follow('/events', { 'last-event-id': '999' });
    await stream.until(b => b.some(x => x.includes('event: reload')));
    stream.stop();
  });

  it('sends heartbeats in silence', async () => {
    const stream = await follow('/events');
    await stream.until(b => b.filter(x => x === ': heartbeat').length >= 2);
    stream.stop();
  });

  it('follows one node by its name', async () => {
    const stream = await follow('/events?node=n01&after=0');
    await server.feed.emit({ type: 't', message: 'other', nodeId: 'id-n02' });
    await server.feed.emit({ type: 't', message: 'own', nodeId: 'id-n01' });
    await stream.until(b => ids(b).length === 1);
    expect(ids(stream.blocks)).toEqual([2]);
    stream.stop();
  });

  it('answers one page as JSON', async () => {
    for (let i = 0; i < 5; i++) await server.feed.emit({ type: 't', message: 'm' });
    const answer = await ask('GET', '/events?limit=2', { headers: { accept: 'application/json' } });
    expect(answer.json()).toMatchObject({ latestId: 5, events: [{ id: 4 }, { id: 5 }] });
  });

  it('bounds how many follow, and frees the place of who goes', async () => {
    const streams = await Promise.all(Array.from({ length: 64 }, () => follow('/events')));
    const refused = await ask('GET', '/events');
    expect([refused.status, problemOf(refused).code]).toEqual([503, 'too-many-clients']);
    for (const s of streams) s.stop();
    await new Promise(r => setTimeout(r, 200));
    const again = await follow('/events');
    await again.until(b => b.length > 0);
    again.stop();
  });

  it('ends when the server closes', async () => {
    const stream = await follow('/events');
    await server.handle.close();
    await stream.ended;
  });
});

describe('consoles', () => {
  it('show the end of the recording, and say when there is none', async () => {
    expect((await ask('GET', '/nodes/n01/console?bytes=7')).text).toBe('login: ');
    expect(problemOf(await ask('GET', '/nodes/n02/console')).code).toBe('console-missing');
    expect(problemOf(await ask('GET', '/nodes/n02/console/stream')).code).toBe('console-missing');
  });

  it('stream what comes, with what is typed arriving as it is', async () => {
    const stream = await follow('/nodes/n01/console/stream');
    const raw = Buffer.from('\u0003ls\n\n', 'latin1');
    const input = await ask('POST', '/nodes/n01/console/input', {
      raw,
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(input.status).toBe(204);
    await stream.until(b => b.join('').endsWith('ls'));
    stream.stop();
    for (let i = 0; i < 100 && server.consoles.followers() > 0; i++) await new Promise(r => setTimeout(r, 20));
    expect(server.consoles.followers()).toBe(0);
  });

  it('take raw bytes only', async () => {
    expect((await ask('POST', '/nodes/n01/console/input', { body: { text: 'x' } })).status).toBe(415);
  });
});

describe('the rest', () => {
  it('streams a backup over the socket', async () => {
    expect((await ask('GET', '/backup')).text).toBe('backup-bytes');
  });

  it('stores secrets and never says them', async () => {
    expect((await ask('PUT', '/secrets/bmc%2Fn07', { body: { value: 'hunter2' } })).status).toBe(204);
    expect((await ask('GET', '/secrets')).json()).toEqual({ secrets: ['bmc/n07'] });
    expect((await ask('PUT', '/secrets/..%2F..%2Fx', { body: { value: 'x' } })).status).toBe(400);
  });

  it('reads a MAC however it is written', async () => {
    const answer = await ask('GET', '/boot/trace/52-54-00-99-00-01');
    expect(answer.json()).toMatchObject({ mac: '52:54:00:99:00:01', trace: [{ silent: true }] });
    expect((await ask('GET', '/boot/trace/nonsense')).status).toBe(400);
  });

  it('checks a site file and exports one that is good', async () => {
    const bad = (await ask('POST', '/site/check', { body: { text: 'version: 3' } })).json() as {
      faults: { message: string }[];
    };
    expect(bad).toMatchObject({ ok: false });
    expect(bad.faults.map(f => f.message)).toContain(
      'site.yaml:1:10: version: expected a version that this Halligan reads (1 to 2), for example 2, found 3',
    );
    const text = (await ask('GET', '/site/export')).text;
    expect(Array.isArray(loadSite(text, 'x'))).toBe(false);
  });

  it('says what does not work', async () => {
    expect((await ask('GET', '/health')).json()).toMatchObject({
      ok: false,
      services: { dhcp: { ok: true }, http: { ok: false } },
    });
  });

  it('measures the depth of JSON outside of strings', () => {
    expect(['1', '[]', '[[]]', '{"a":[1]}', '"[[["', '["\\"[",[]]'].map(depthOf)).toEqual([0, 1, 2, 2, 0, 2]);
  });
});

describe('OpenAPI', () => {
  type Doc = {
    paths: Record<
      string,
      Record<string, { summary?: string; responses: Record<string, { content?: Record<string, { schema: object }> }> }>
    >;
  };
  const document = async () => (await ask('GET', '/openapi.json')).json() as Doc;

  it('has every route with a summary', async () => {
    const { paths } = await document();
    expect(Object.keys(paths).length).toBeGreaterThan(20);
    for (const [path, methods] of Object.entries(paths))
      for (const [method, operation] of Object.entries(methods))
        expect(operation.summary, `${method} ${path}`).toBeTruthy();
  });

  it('describes what is really answered', async () => {
    const { paths } = await document();
    const cases: [string, string][] = [
      ['/nodes', '/nodes'],
      ['/nodes/{node}', '/nodes/n01'],
      ['/nodes/{node}/why', '/nodes/n01/why'],
      ['/nodes/{node}/power', '/nodes/n01/power'],
      ['/images', '/images'],
      ['/leases', '/leases'],
      ['/runs', '/runs'],
      ['/runs/{run}', '/runs/run-1'],
      ['/health', '/health'],
      ['/site', '/site'],
      ['/site/match', '/site/match'],
      ['/version', '/version'],
    ];
    for (const [route, path] of cases) {
      const { schema } = paths[`/api/v1${route}`]!['get']!.responses['200']!.content!['application/json']!;
      const check = createAjv().compile(schema);
      expect(
        check((await ask('GET', path)).json()),
        `${path} ${JSON.stringify(check.errors?.[0]?.instancePath)} ${check.errors?.[0]?.message}`,
      ).toBe(true);
    }
  });

  it('is what docs/api.md shows', async () => {
    await expect(apiPage(await document())).toMatchFileSnapshot('../../../docs/api.md');
  });
});

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await new Promise(resolve => probe.once('listening', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise(resolve => probe.close(resolve));
  return port;
}
