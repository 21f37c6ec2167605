/** The program that nodes are given, run here on made-up folders, sockets and processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { issue, makeCa } from '../../../../installer/pki/certificate.js';
import { evidenceProgram, parseEvidence } from '../../../../installer/security/gather.js';
import { isSecretValue, needlesOf } from '../../../../installer/security/needles.js';
import type { EvidenceRequest } from '../../../../installer/security/request.js';
import type { NodeEvidence } from '../../../../installer/security/types.js';

const SECRETS = [
  'Zk3vQ0pXw7bN2mLr9TfYs5HgJd8CaE1uVoI4iKxR',
  'b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184',
  'AQBz3sdnAAAAABAA8J+Xq/0mVwTzR4uQYk2uZg==',
];
const now = Date.now();
const ca = makeCa({ siteName: 'berlin', nowMs: now });
const own = issue(ca, 'ctl', { names: ['ctl'], addresses: ['127.0.0.1'] }, now);
const foreign = issue(
  makeCa({ siteName: 'berlin', nowMs: now }),
  'ctl',
  { names: ['ctl'], addresses: ['127.0.0.1'] },
  now,
);

const dir = mkdtempSync(join(tmpdir(), 'halligan-evidence-'));
const servers: Server[] = [];
const listen = async (server: Server): Promise<number> => {
  servers.push(server);
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return (server.address() as AddressInfo).port;
};
const put = (path: string, content: string | Buffer, mode = 0o644) => {
  mkdirSync(join(dir, path, '..'), { recursive: true, mode: 0o755 });
  writeFileSync(join(dir, path), content);
  chmodSync(join(dir, path), mode);
};

/** The program with only what a test is about. */
const run = async (request: Partial<EvidenceRequest>): Promise<NodeEvidence> => {
  const program = evidenceProgram({
    ca: ca.certificate,
    trees: [],
    paths: [],
    contents: [],
    settings: [],
    commands: [],
    tls: [],
    amqp: [],
    needles: needlesOf('salt', SECRETS),
    logs: [],
    readable: [],
    ...request,
  });
  for (const secret of SECRETS) expect(program).not.toContain(secret.slice(0, 12));
  const child = spawn('python3', ['-I', '-'], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(program);
  let out = '';
  for await (const chunk of child.stdout) out += chunk;
  return parseEvidence(out, 'ctl');
};

let talker: ChildProcess;
beforeAll(() => {
  chmodSync(dir, 0o755);
  talker = spawn('sh', ['-c', 'read x', `--password=${SECRETS[0]}`], { stdio: ['pipe', 'ignore', 'ignore'] });
});
afterAll(() => {
  talker.kill();
  for (const s of servers) s.close();
  rmSync(dir, { recursive: true });
});

describe('secrets', () => {
  it('are found in logs, also packed, within a URL and in base64, and are not told', async () => {
    put('log/a.log', `connection = mysql+pymysql://nova:${SECRETS[0]}@10.0.0.1/nova\n`);
    put('log/b/c.log.1.gz', gzipSync(`noise ${SECRETS[1]} noise`));
    put('log/d.log', `Authorization: Basic ${Buffer.from(`nova:${SECRETS[0]}`).toString('base64')}`);
    put('log/e.log', `key=${SECRETS[2]}`);
    put('log/clean.log', `req-${'1234567890abcdef'.repeat(4)} ${SECRETS[0]!.slice(0, 20)}\n`.repeat(1000));
    const { logs } = await run({ logs: [join(dir, 'log')] });
    expect(Object.fromEntries(logs.hits.map(h => [h.path.slice(dir.length), h.secrets]))).toEqual({
      '/log/a.log': [0],
      '/log/b/c.log.1.gz': [1],
      '/log/d.log': [0],
      '/log/e.log': [2],
    });
    expect(logs).toMatchObject({ files: 5, whole: true });
    expect(JSON.stringify(logs)).not.toContain(SECRETS[0]!.slice(0, 12));
  });

  it('are found across the pieces in which a large log is read', async () => {
    put('big/x.log', `${'-\n'.repeat((4 << 19) - 8)}${SECRETS[0]}\n`);
    expect((await run({ logs: [join(dir, 'big')] })).logs.hits).toHaveLength(1);
  });

  it('are found in files that everybody can read, not in closed ones or behind closed folders', async () => {
    put('etc/open.conf', `password = ${SECRETS[0]}`);
    put('etc/closed.conf', `password = ${SECRETS[0]}`, 0o640);
    put('etc/closed/x.conf', `password = ${SECRETS[0]}`);
    chmodSync(join(dir, 'etc/closed'), 0o750);
    put('etc/key.pem', own.key);
    const { readable } = await run({ readable: [join(dir, 'etc')] });
    expect(readable.map(h => [h.path.slice(dir.length), h.secrets]).sort()).toEqual([
      ['/etc/key.pem', [-1]],
      ['/etc/open.conf', [0]],
    ]);
  });

  it('are found in arguments of processes', async () => {
    const { processes } = await run({});
    expect(processes.filter(p => p.secrets.length > 0)).toEqual([
      expect.objectContaining({ program: 'sh -c', secrets: [0] }),
    ]);
  });

  it('of PEM are looked for by a line that is theirs alone', () => {
    const salted = needlesOf('salt', [own.key, foreign.key]).digests;
    expect(salted[0]).toHaveLength(1);
    expect(salted[0]).not.toEqual(salted[1]);
  });

  it('are not identifiers, nor words', () => {
    expect(isSecretValue('2f9e4d3c-1b2a-4c5d-8e7f-001122334455')).toBe(false);
    expect(isSecretValue('short')).toBe(false);
    expect(SECRETS.every(isSecretValue)).toBe(true);
  });
});

describe('ports', () => {
  const probe = (port: number) =>
    ({ name: 'API', address: '127.0.0.1', port, host: '127.0.0.1', speaks: 'tls', says: null }) as const;
  const secure = (pair: { certificate: string; key: string }, more: object = {}) =>
    listen(createTlsServer({ cert: pair.certificate, key: pair.key, ...more }, s => s.on('error', () => {}).end('hi')));

  it('with a certificate of the site are fine; another CA, another name and plain HTTP are not', async () => {
    const good = await secure(own);
    const strange = await secure(foreign);
    const misnamed = await secure(issue(ca, 'cmp', { names: ['cmp'], addresses: ['127.0.0.9'] }, now));
    const clear = await listen(createHttpServer((_, r) => r.end('hello')));
    const { tls } = await run({ tls: [good, strange, misnamed, clear].map(probe) });
    expect(tls.map(t => [t.ok, t.version, t.clear])).toEqual([
      [true, 'TLSv1.3', ''],
      [false, null, ''],
      [false, null, ''],
      [false, null, 'HTTP/1.1 200 OK'],
    ]);
    expect(tls[1]!.error).toMatch(/certificate|signature/);
    expect(tls[2]!.error).toMatch(/not valid for '127\.0\.0\.1'/);
  });

  it('that still speak TLS 1.0 and 1.1 are caught', async () => {
    const old = await secure(own, { minVersion: 'TLSv1', ciphers: 'ALL:@SECLEVEL=0' });
    const { tls } = await run({ tls: [probe(old)] });
    expect(tls[0]).toMatchObject({ ok: true, old: ['TLSv1', 'TLSv1.1'] });
  });

  it('that want a certificate of the client answer nothing without', async () => {
    const mutual = await secure(own, { requestCert: true, rejectUnauthorized: true, ca: ca.certificate });
    const careless = await secure(own);
    const { tls } = await run({ tls: [mutual, careless].map(p => ({ ...probe(p), says: 'x' })) });
    expect(tls.map(t => [t.ok, t.answer])).toEqual([
      [true, ''],
      [true, 'hi'],
    ]);
  });

  it('of RabbitMQ are asked with a pair of name and password', async () => {
    const frame = (cls: number, method: number) => {
      const out = Buffer.alloc(12);
      out.writeUInt8(1, 0);
      out.writeUInt32BE(4, 3);
      out.writeUInt16BE(cls, 7);
      out.writeUInt16BE(method, 9);
      out.writeUInt8(0xce, 11);
      return out;
    };
    const broker = await listen(
      createTlsServer({ cert: own.certificate, key: own.key }, s => {
        s.on('error', () => {});
        s.once('data', () => {
          s.write(frame(10, 10));
          s.once('data', said => {
            if (said.includes('\0guest\0guest')) s.write(frame(10, 30));
            else s.end();
          });
        });
      }),
    );
    const mute = await listen(createTcpServer(s => s.end()));
    const login = (user: string, port = broker) => ({
      address: '127.0.0.1',
      port,
      host: '127.0.0.1',
      user,
      password: 'guest',
    });
    const { amqp } = await run({ amqp: [login('guest'), login('admin'), login('guest', mute)] });
    expect(amqp.map(a => a.result)).toEqual(['taken', 'refused', 'unknown']);
  });
});

describe('files and commands', () => {
  it('are read as they are; what is not there is not told', async () => {
    put('svc/a.conf', '[a]\nb = 1\n', 0o640);
    const tree = join(dir, 'svc');
    const seen = await run({
      trees: [tree, join(dir, 'none')],
      contents: [join(dir, 'svc/*.conf'), join(dir, 'none')],
      commands: [
        { name: 'echo', argv: ['cat'], stdin: 'hello' },
        { name: 'env', argv: ['sh', '-c', 'echo "$X"; exit 3'], env: { X: 'y' } },
        { name: 'none', argv: ['/nonexistent'] },
      ],
    });
    expect(seen.paths.map(p => [p.path.slice(dir.length), p.mode, p.kind])).toEqual([
      ['/svc', 0o755, 'folder'],
      ['/svc/a.conf', 0o640, 'file'],
    ]);
    expect(seen.contents).toEqual({ [join(dir, 'svc/a.conf')]: '[a]\nb = 1\n' });
    expect(Object.entries(seen.commands).map(([n, c]) => [n, c.code, c.out])).toEqual([
      ['echo', 0, 'hello'],
      ['env', 3, 'y\n'],
      ['none', -1, ''],
    ]);
  });

  it('tell what Horizon’s settings come to, the last one winning', async () => {
    put('horizon/_1.py', 'import os\nDEBUG = True\nX = os.getcwd()\nHOSTS = ["*"]\n');
    put('horizon/_9.py', 'DEBUG = False\nHOSTS = ["a", "b"]\nV = {"regex": "^.{12}$"}\n');
    put('horizon/_99.py', 'this is no Python\n');
    const { settings } = await run({ settings: [join(dir, 'horizon/*.py')] });
    expect(settings).toEqual({ DEBUG: false, X: { computed: true }, HOSTS: ['a', 'b'], V: { regex: '^.{12}$' } });
  });
});
