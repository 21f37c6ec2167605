import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../provisioner/core/clock.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { parseClientPacket, parseRequest } from '../../../provisioner/tftp/codec.js';
import { tableRoute } from '../../../provisioner/tftp/routes.js';
import { createRto } from '../../../provisioner/tftp/rto.js';
import { startTftp, type TftpOptions, type TftpServer } from '../../../provisioner/tftp/server.js';
import { negotiate } from '../../../provisioner/tftp/transfer.js';
import type { TftpResult } from '../../../provisioner/tftp/types.js';
import { createWindow } from '../../../provisioner/tftp/window.js';
import { rememberingTrace } from '../boot/fakes.js';
import { ackPacket, bind, fetchFile, type Manners, request, seeded, startRelay } from './client.js';

const LOADER = randomBytes(173_792);
const PART = LOADER.subarray(0, 60_001);
const EXACT = randomBytes(1024);
const LONG = randomBytes(8 * 70_000 + 3);

const open: { close(): unknown }[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map(s => s.close()));
});

async function server(more: Partial<TftpOptions> = {}) {
  const results: TftpResult[] = [];
  const trace = rememberingTrace();
  const handle: TftpServer = await startTftp({
    address: '127.0.0.1',
    port: 0,
    routes: [
      tableRoute(
        'test',
        new Map([
          ['snponly.efi', { data: LOADER }],
          ['exact', { data: EXACT }],
          ['empty', { data: Buffer.alloc(0) }],
          ['long', { data: LONG }],
          ['part', { data: PART }],
        ]),
      ),
    ],
    clock: systemClock,
    log: silentLog,
    trace,
    macOf: () => '52:54:00:00:00:01',
    onServed: r => results.push(r),
    ...more,
  });
  open.push(handle);
  return { handle, port: handle.port, results, trace };
}
const until = async (check: () => boolean) => {
  for (let i = 0; i < 200 && !check(); i++) await wait(20);
  expect(check()).toBe(true);
};

describe('requests', () => {
  it('are read with their options in any case, ignoring values out of range and options unknown', () => {
    const parsed = parseRequest(
      request(1, 'a.efi', 'OCTET', {
        BLKSIZE: 1468,
        tsize: 17,
        windowsize: 0,
        timeout: 3,
        multicast: '',
        __proto__x: 1,
      }),
    );
    expect(parsed).toEqual({ kind: 'read', file: 'a.efi', options: { blksize: 1468, tsize: true, timeoutSeconds: 3 } });
    expect(parseRequest(request(1, 'a', 'octet', { blksize: 7, timeout: 256, tsize: '1x' }))).toMatchObject({
      options: {},
    });
  });
  it('to write, in netascii or for names that lead upwards get an error that says why', () => {
    expect(parseRequest(request(2, 'a'))).toMatchObject({ kind: 'refused', code: 2 });
    expect(parseRequest(request(1, 'a', 'netascii'))).toMatchObject({ kind: 'refused', code: 4 });
    expect(parseRequest(request(1, 'a', 'mail'))).toMatchObject({ kind: 'refused', code: 4 });
    for (const file of ['../../etc/passwd', '..', 'a\nb', '', '\xe9'])
      expect(parseRequest(request(1, file))).toMatchObject({ kind: 'refused', code: 1 });
  });
  it('never make the parser throw, whatever the bytes', () => {
    const near = fc
      .tuple(
        fc.integer({ min: 0, max: 7 }),
        fc.array(fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('octet', 'blksize', 'tsize', '0', '..', '/')), {
          maxLength: 9,
        }),
      )
      .map(([op, fields]) => Buffer.from(`\0${String.fromCharCode(op)}${fields.join('\0')}\0`, 'latin1'));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 600 }).map(b => Buffer.from(b)),
          near,
        ),
        raw => {
          expect(['read', 'refused', 'ignored']).toContain(parseRequest(raw).kind);
          expect(['ack', 'error', 'other']).toContain(parseClientPacket(raw).kind);
        },
      ),
      { numRuns: 20_000 },
    );
  });
  it('get what both sides can do: blocks that fit a frame, bounded windows, the size only when it is known', () => {
    const limits = { blockBytes: 1468, windowBlocks: 64 };
    expect(negotiate({ blksize: 65_464, windowsize: 65_535, tsize: true, timeoutSeconds: 5 }, 10, limits)).toEqual({
      blksize: 1468,
      windowsize: 64,
      tsize: 10,
      timeout: 5,
    });
    expect(negotiate({ blksize: 8, tsize: true }, null, limits)).toEqual({ blksize: 8 });
    expect(negotiate({}, 10, limits)).toEqual({});
  });
});

describe('the retransmission timeout', () => {
  it('follows the round trips and their spread, within its bounds, and doubles when it runs out', () => {
    const rto = createRto({ initialMs: 500, minMs: 50, maxMs: 3000 });
    expect(rto.ms).toBe(500);
    for (let i = 0; i < 50; i++) rto.sample(2);
    expect(rto.ms).toBe(50);
    for (let i = 0; i < 50; i++) rto.sample(300);
    expect(rto.ms).toBeGreaterThan(300);
    expect(rto.ms).toBeLessThan(450);
    for (let i = 0; i < 10; i++) rto.backOff();
    expect(rto.ms).toBe(3000);
  });
});

describe('the window', () => {
  it('delivers every block in order to a receiver behind any weather, and never runs ahead of its size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer(),
        fc.double({ min: 0, max: 0.5, noNaN: true }),
        (size, blocks, seed, loss) => {
          const random = seeded(seed);
          const window = createWindow(size, createRto({ initialMs: 10, minMs: 1, maxMs: 100 }));
          let expected = 1;
          let sinceAck = 0;
          let done = false;
          for (let step = 0; step < 20_000 && !done; step++) {
            const acks: number[] = [];
            for (let n = window.next(); n !== null; n = window.next()) {
              expect(n).toBeLessThanOrEqual(window.acked + size);
              window.sent(n === blocks, step);
              if (random() < loss) continue;
              if (n === expected) {
                expected++;
                if (++sinceAck >= size || n === blocks) {
                  sinceAck = 0;
                  acks.push(n);
                }
              } else {
                sinceAck = 0;
                acks.push(expected - 1);
              }
            }
            let progress = false;
            for (const ack of acks) {
              if (random() < loss) continue;
              // Sometimes twice, as a network does.
              for (let i = random() < 0.1 ? 2 : 1; i > 0; i--) {
                const meaning = window.ack(ack & 0xffff, step);
                if (meaning === 'done') done = true;
                if (meaning !== 'nothing') progress = true;
              }
            }
            if (!progress) window.timedOut();
          }
          expect(done).toBe(true);
          expect(expected).toBe(blocks + 1);
        },
      ),
      { numRuns: 300 },
    );
  });
  it('counts over 65535 and believes no acknowledgement of a block that was never sent', () => {
    const window = createWindow(2, createRto({ initialMs: 10, minMs: 1, maxMs: 100 }));
    for (let n = 1; n <= 70_000; n += 2) {
      for (let i = 0; i < 2; i++) window.sent(window.next() === 70_000, 0);
      expect(window.ack((n + 7) & 0xffff, 0)).toBe('nothing');
      expect(window.ack((n + 1) & 0xffff, 0)).toBe(n + 1 === 70_000 ? 'done' : 'moved');
    }
  });
});

describe('a transfer', () => {
  it.each([
    ['without options', 'snponly.efi', {}],
    ['with blksize', 'snponly.efi', { blksize: 1468 }],
    ['with the smallest blksize', 'exact', { blksize: 8 }],
    ['with a window', 'snponly.efi', { blksize: 1432, windowsize: 16 }],
    ['with everything', 'snponly.efi', { blksize: 1024, windowsize: 4, tsize: 0, timeout: 2 }],
    ['of a whole number of blocks', 'exact', {}],
    ['of nothing', 'empty', { tsize: 0 }],
    ['over the end of the block numbers', 'long', { blksize: 8, windowsize: 64 }],
    ['behind folders and slashes', '/boot//snponly.efi', { blksize: 1468 }],
  ])('comes byte for byte %s', async (_how, file, options) => {
    const { port, results } = await server();
    const expected = file === 'exact' ? EXACT : file === 'empty' ? Buffer.alloc(0) : file === 'long' ? LONG : LOADER;
    const fetched = await fetchFile(port, file, options);
    expect(fetched.error).toBeNull();
    expect(fetched.data.equals(expected)).toBe(true);
    if ('tsize' in options) expect(fetched.options['tsize']).toBe(String(expected.length));
    await until(() => results.length === 1);
    expect(results[0]).toMatchObject({ outcome: 'served', bytes: expected.length, route: 'test' });
  });
  it('comes from a stream, over the end of the block numbers', async () => {
    const route = {
      name: 'stream',
      find: () => ({
        kind: 'stream' as const,
        bytes: LONG.length,
        open: () => Readable.from([LONG.subarray(0, 5), LONG.subarray(5, 100_000), LONG.subarray(100_000)]),
      }),
    };
    const { port } = await server({ routes: [route] });
    const fetched = await fetchFile(port, 'x', { blksize: 8, windowsize: 64 });
    expect(fetched.data.equals(LONG)).toBe(true);
  });
  it('ends with an error to the client when its stream breaks or is shorter than it said', async () => {
    for (const open of [
      () => Readable.from([Buffer.alloc(700)]),
      () =>
        new Readable({
          read() {
            this.destroy(new Error('disk gone'));
          },
        }),
    ]) {
      const { port, results } = await server({
        routes: [{ name: 's', find: () => ({ kind: 'stream' as const, bytes: 1000, open }) }],
      });
      expect((await fetchFile(port, 'x')).error).toMatchObject({ code: 0 });
      await until(() => results[0]?.outcome === 'failed');
    }
  });
  it('that asks for the size and aborts is normal, as UEFI firmware does it', async () => {
    const { port, results } = await server();
    const socket = await bind();
    socket.once('message', (raw, from) => {
      expect(raw.readUInt16BE(0)).toBe(6);
      socket.send(Buffer.from('\0\x05\0\x08User aborted the transfer\0'), from.port, from.address);
    });
    socket.send(request(1, 'snponly.efi', 'octet', { tsize: 0 }), port, '127.0.0.1');
    await until(() => results.length === 1);
    expect(results[0]).toMatchObject({ outcome: 'size-only', bytes: 0 });
    socket.close();
  });
  it('that the client aborts in the middle, or leaves by closing its port, ends at once', async () => {
    const { port, results } = await server();
    for (const leave of ['error', 'close']) {
      const socket = await bind();
      socket.once('message', (_raw, from) => {
        if (leave === 'error') socket.send(Buffer.from('\0\x05\0\x03no memory'), from.port, from.address);
        else socket.send(ackPacket(1), from.port, from.address, () => socket.close());
      });
      socket.send(request(1, 'snponly.efi'), port, '127.0.0.1');
      await until(() => results.length === 1);
      expect(results.pop()).toMatchObject({ outcome: leave === 'error' ? 'aborted' : 'gone' });
      if (leave === 'error') socket.close();
    }
  });
  it('of a client that falls silent ends, and frees its place', async () => {
    const { port, handle, results } = await server({
      limits: { initialRtoMs: 20, maxRtoMs: 40, silenceMs: 150, firstAnswerMs: 100 },
    });
    const socket = await bind();
    socket.send(request(1, 'snponly.efi'), port, '127.0.0.1');
    await until(() => results.length === 1);
    expect(results[0]).toMatchObject({ outcome: 'timed-out' });
    expect(handle.counts().transfers).toBe(0);
    socket.close();
  });
  it('sends no block twice for acknowledgements that come three times', async () => {
    const { port, results } = await server();
    const thrice: Manners = (_packet, reply) => [reply, reply, reply];
    const fetched = await fetchFile(port, 'snponly.efi', {}, { manners: thrice });
    expect(fetched.data.equals(LOADER)).toBe(true);
    expect(fetched.dataPackets).toBeLessThanOrEqual(Math.floor(LOADER.length / 512) + 1);
    await until(() => results.length === 1);
    expect(results[0]?.blocksResent).toBe(0);
  });
  it('is not disturbed by strangers, one-byte datagrams, garbage or acknowledgements of blocks to come', async () => {
    const { port } = await server();
    const stranger = await bind();
    const victim = await bind();
    const blocks: Buffer[] = [];
    await new Promise<void>(resolve => {
      victim.on('message', (raw, from) => {
        if (raw.readUInt16BE(0) !== 3) return;
        blocks[raw.readUInt16BE(2) - 1] = raw.subarray(4);
        const block = raw.readUInt16BE(2);
        for (const bad of [
          Buffer.of(1),
          Buffer.alloc(0),
          Buffer.from('\0\x05\0\0bye\0'),
          ackPacket(block),
          randomBytes(40),
        ])
          stranger.send(bad, from.port, from.address, () => {});
        for (const bad of [
          Buffer.of(1),
          Buffer.alloc(0),
          Buffer.of(0, 4, 1),
          ackPacket(block + 9),
          Buffer.of(0, 9, 0, 0),
        ])
          victim.send(bad, from.port, from.address);
        victim.send(ackPacket(block), from.port, from.address);
        if (raw.length < 516) resolve();
      });
      victim.send(request(1, 'snponly.efi'), port, '127.0.0.1');
    });
    expect(Buffer.concat(blocks).equals(LOADER)).toBe(true);
    stranger.close();
    victim.close();
  });
  it('starts once although the request comes three times, and anew when the port is used again', async () => {
    const { port, handle, results } = await server();
    const socket = await bind();
    for (let i = 0; i < 3; i++) socket.send(request(1, 'snponly.efi'), port, '127.0.0.1');
    await wait(100);
    expect(handle.counts().transfers).toBe(1);
    socket.send(request(1, 'exact'), port, '127.0.0.1');
    await until(() => results.length === 1);
    expect(results[0]).toMatchObject({ file: 'snponly.efi', outcome: 'closed' });
    expect(handle.counts().transfers).toBe(1);
    socket.close();
  });
});

describe('weather', () => {
  it.each([
    ['5 % loss', { loss: 0.05 }, {}],
    ['5 % loss, windowed', { loss: 0.05 }, { blksize: 1468, windowsize: 16 }],
    ['20 % loss, windowed', { loss: 0.2 }, { blksize: 1468, windowsize: 8 }],
    ['10 % doubled', { double: 0.1 }, { blksize: 512, windowsize: 4 }],
    ['25 % reordered', { reorder: 0.25 }, { blksize: 1468, windowsize: 8 }],
    ['a delay of 200 ms', { delayMs: 200 }, { blksize: 1468, windowsize: 32 }],
    ['loss, doubles and reorder at once', { loss: 0.05, double: 0.1, reorder: 0.2 }, { blksize: 1468, windowsize: 16 }],
  ])('does not change a byte: %s', async (_name, weather, options) => {
    const { port } = await server();
    const relay = await startRelay(port, weather, seeded(7));
    open.push(relay);
    const fetched = await fetchFile(relay.port, 'part', options, { retryMs: 700 });
    expect(createHash('sha256').update(fetched.data).digest('hex')).toBe(
      createHash('sha256').update(PART).digest('hex'),
    );
  });
  it('of 40 % loss is survived', async () => {
    const { port } = await server();
    const relay = await startRelay(port, { loss: 0.4 }, seeded(11));
    open.push(relay);
    const fetched = await fetchFile(relay.port, 'exact', { blksize: 64, windowsize: 4 }, { retryMs: 300 });
    expect(fetched.data.equals(EXACT)).toBe(true);
  });
});

describe('the server', () => {
  it('has no file but those of its routes', async () => {
    const { port, trace } = await server();
    for (const file of [
      '../../etc/passwd',
      '/etc/passwd',
      'etc/passwd',
      '..\\..\\x',
      'constructor',
      '__proto__',
      'snponly.efi/',
      'SNPONLY.EFI',
    ])
      expect((await fetchFile(port, file)).error, file).toMatchObject({ code: 1 });
    expect(trace.entries[0]).toMatchObject({ layer: 'tftp', mac: '52:54:00:00:00:01' });
  });
  it('asks its routes in order, and tells a client when one of them breaks', async () => {
    const { port } = await server({
      routes: [
        tableRoute('scripts', new Map([['boot.ipxe', { data: Buffer.from('#!ipxe') }]])),
        { name: 'broken', find: async () => Promise.reject(new Error('x')) },
      ],
    });
    expect((await fetchFile(port, 'boot.ipxe')).data.toString()).toBe('#!ipxe');
    expect((await fetchFile(port, 'other')).error).toMatchObject({ code: 0 });
  });
  it('survives a hail of garbage on its port and still serves', async () => {
    const { port, handle } = await server({ limits: { firstAnswerMs: 300, initialRtoMs: 50 } });
    const socket = await bind();
    const random = seeded(3);
    for (let i = 0; i < 3000; i++) {
      const raw = randomBytes(Math.floor(random() * 60));
      if (raw.length > 1) raw.writeUInt16BE(Math.floor(random() * 7), 0);
      socket.send(raw, port, '127.0.0.1');
      if (i % 100 === 0) await wait(1);
    }
    socket.send(Buffer.of(1), port, '127.0.0.1');
    socket.send(Buffer.alloc(0), port, '127.0.0.1');
    expect((await fetchFile(port, 'exact')).data.equals(EXACT)).toBe(true);
    await until(() => handle.counts().transfers === 0);
    socket.close();
  });
  it('holds its caps: further requests are not answered, and served when they come again later', async () => {
    const { port, handle, trace } = await server({
      limits: { transfersPerClient: 2, transfers: 3, firstAnswerMs: 600, initialRtoMs: 100 },
    });
    const sockets = await Promise.all(
      ['127.0.0.2', '127.0.0.2', '127.0.0.2', '127.0.0.3', '127.0.0.4'].map(a => bind(a)),
    );
    const answers = sockets.map(s => {
      let heard = false;
      s.on('message', () => {
        heard = true;
      });
      s.send(request(1, 'snponly.efi'), port, '127.0.0.1');
      return () => heard;
    });
    await wait(200);
    expect(handle.counts().transfers).toBe(3);
    expect(answers.filter(h => h()).length).toBe(3);
    expect(trace.entries.filter(e => /already/.test(e.message)).length).toBe(2);
    for (const s of sockets) s.close();
    const late = await fetchFile(port, 'exact', {}, { from: '127.0.0.5' });
    expect(late.data.equals(EXACT)).toBe(true);
  });
  it('says in one sentence that its port is taken, and ends cleanly with transfers open', async () => {
    const { port, handle, results } = await server();
    await expect(server({ port })).rejects.toMatchObject({ problem: { code: 'port-in-use' } });
    const socket = await bind();
    const ended = new Promise<Buffer>(resolve => socket.on('message', raw => raw[1] === 5 && resolve(raw)));
    socket.send(request(1, 'snponly.efi'), port, '127.0.0.1');
    await wait(100);
    await handle.close();
    open.length = 0;
    expect((await ended).toString('latin1', 4)).toContain('The server ends.');
    expect(results[0]?.outcome).toBe('closed');
    socket.close();
  });
  it('serves fifty clients at once', async () => {
    const { port } = await server();
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        fetchFile(port, 'snponly.efi', { blksize: 1468, windowsize: 8 }, { from: `127.0.1.${i + 1}` }),
      ),
    );
    expect(all.every(f => f.data.equals(LOADER))).toBe(true);
  });
});
