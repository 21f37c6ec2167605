/** Real TFTP clients against our server, over loopback: what they write must be what we serve, byte for byte. */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readLoaders } from '../../provisioner/boot/loaders.js';
import { systemClock } from '../../provisioner/core/clock.js';
import { silentLog } from '../../provisioner/core/log.js';
import { loaderRoute, tableRoute } from '../../provisioner/tftp/routes.js';
import { startTftp, type TftpServer } from '../../provisioner/tftp/server.js';
import type { TftpResult } from '../../provisioner/tftp/types.js';
import { rememberingTrace } from '../unit/boot/fakes.js';
import { seeded, startRelay } from '../unit/tftp/client.js';

const run = promisify(execFile);
const BIG_BYTES = 100 * 1024 * 1024 + 77;

/** Each client as a function that fetches `name` from `port` into `path`. */
const CLIENTS = {
  'tftp-hpa': (port, name, path) => run('tftp', ['-m', 'binary', '127.0.0.1', String(port), '-c', 'get', name, path]),
  'atftp, plain': (port, name, path) => run('atftp', ['-g', '-r', name, '-l', path, '127.0.0.1', String(port)]),
  'atftp, blksize and windowsize': (port, name, path) =>
    run('atftp', [
      '--option',
      'blksize 1468',
      '--option',
      'windowsize 16',
      '--option',
      'tsize 0',
      '-g',
      '-r',
      name,
      '-l',
      path,
      '127.0.0.1',
      String(port),
    ]),
  'curl, blksize 8': (port, name, path) =>
    run('curl', ['-sS', '--tftp-blksize', '8', '-o', path, `tftp://127.0.0.1:${port}/${name}`]),
  'curl, blksize 1468': (port, name, path) =>
    run('curl', ['-sS', '--tftp-blksize', '1468', '-o', path, `tftp://127.0.0.1:${port}/${name}`]),
  'curl, without options': (port, name, path) =>
    run('curl', ['-sS', '--tftp-no-options', '-o', path, `tftp://127.0.0.1:${port}/${name}`]),
  busybox: (port, name, path) => run('busybox', ['tftp', '-g', '-r', name, '-l', path, '127.0.0.1', String(port)]),
  'busybox, blksize 1428': (port, name, path) =>
    run('busybox', ['tftp', '-b', '1428', '-g', '-r', name, '-l', path, '127.0.0.1', String(port)]),
} satisfies Record<string, (port: number, name: string, path: string) => Promise<unknown>>;
type Client = keyof typeof CLIENTS;

const FILES: Record<string, Buffer> = {
  // curl takes an empty file with a stated size for a failure (its error 71), hence not here: it is among the unit tests.
  one: Buffer.from('x'),
  'of-512': randomBytes(512),
  'of-1468': randomBytes(1468),
  'of-1-MB': randomBytes(1_000_003),
};

let folder: string;
let server: TftpServer;
const results: TftpResult[] = [];
const sha256 = async (path: string) => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-tftp-'));
  await writeFile(join(folder, 'big'), randomBytes(BIG_BYTES));
  server = await startTftp({
    address: '127.0.0.1',
    port: 0,
    routes: [
      loaderRoute(await readLoaders()),
      tableRoute('small', new Map(Object.entries(FILES).map(([name, data]) => [name, { data }]))),
      {
        name: 'big',
        find: ({ file }) =>
          file === 'big'
            ? { kind: 'stream', bytes: BIG_BYTES, open: () => createReadStream(join(folder, 'big')) }
            : null,
      },
    ],
    clock: systemClock,
    log: silentLog,
    trace: rememberingTrace(),
    onServed: r => results.push(r),
  });
});
afterAll(async () => {
  await server?.close();
  await rm(folder, { recursive: true, force: true });
});

describe.each(Object.keys(CLIENTS) as Client[])('%s', client => {
  it.each(Object.keys(FILES))('fetches the file %s byte for byte', async name => {
    const path = join(folder, 'got');
    await rm(path, { force: true });
    await CLIENTS[client](server.port, name, path);
    expect((await readFile(path)).equals(FILES[name]!)).toBe(true);
  });
  it('fetches a loader of the package ipxe', async () => {
    const path = join(folder, 'got');
    await rm(path, { force: true });
    await CLIENTS[client](server.port, 'undionly.kpxe', path);
    expect((await readFile(path)).equals(await readFile('/usr/lib/ipxe/undionly.kpxe'))).toBe(true);
  });
});

describe('100 MB, over the end of the block numbers', () => {
  it.each(['tftp-hpa', 'atftp, blksize and windowsize', 'curl, blksize 1468', 'busybox, blksize 1428'] as const)(
    'come byte for byte to %s',
    async client => {
      const path = join(folder, 'got-big');
      await rm(path, { force: true });
      const began = Date.now();
      await CLIENTS[client](server.port, 'big', path);
      expect(await sha256(path)).toBe(await sha256(join(folder, 'big')));
      console.log(`${client}: ${(BIG_BYTES / 1e3 / (Date.now() - began)).toFixed(1)} MB/s`);
      expect(results.at(-1)).toMatchObject({ outcome: 'served', bytes: BIG_BYTES });
    },
  );
});

describe('behind a relay that loses 2 % each way', () => {
  it.each(['tftp-hpa', 'atftp, blksize and windowsize', 'curl, blksize 1468', 'busybox, blksize 1428'] as const)(
    '%s fetches a loader',
    async client => {
      const relay = await startRelay(server.port, { loss: 0.02 }, seeded(5));
      try {
        const path = join(folder, 'got');
        await rm(path, { force: true });
        const began = Date.now();
        await CLIENTS[client](relay.port, 'snponly.efi', path);
        console.log(`${client} under loss: ${Date.now() - began} ms`);
        expect((await readFile(path)).equals(await readFile('/usr/lib/ipxe/snponly.efi'))).toBe(true);
      } finally {
        relay.close();
      }
    },
  );
});

describe('refusals that the clients show', () => {
  it('of a file that is not there', async () => {
    await expect(CLIENTS['curl, blksize 1468'](server.port, 'gone', join(folder, 'x'))).rejects.toMatchObject({
      code: 68,
    });
    const { stdout, stderr } = await CLIENTS['tftp-hpa'](server.port, '../../etc/passwd', join(folder, 'x')).catch(
      e => e,
    );
    expect(stdout + stderr).toMatch(/no such file/i);
  });
  it('of an upload', async () => {
    const { stdout, stderr } = await run('tftp', [
      '-m',
      'binary',
      '127.0.0.1',
      String(server.port),
      '-c',
      'put',
      join(folder, 'big'),
      'big',
    ]).catch(e => e);
    expect(stdout + stderr).toMatch(/takes no files/);
  });
  it('of netascii', async () => {
    const { stdout, stderr } = await run('tftp', [
      '-m',
      'ascii',
      '127.0.0.1',
      String(server.port),
      '-c',
      'get',
      'one',
      join(folder, 'x'),
    ]).catch(e => e);
    expect(stdout + stderr).toMatch(/octet/);
  });
});
