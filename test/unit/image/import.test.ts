import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkHost, checkUrl, forbiddenAddress } from '../../../provisioner/core/fetch.js';
import { checkQcow2, GPT_TYPE, sniffFormat } from '../../../provisioner/core/image-format.js';
import { type ImportOptions, importImage } from '../../../provisioner/image/import.js';

const MIB = 2 ** 20;
let dir: string;
let servers: Server[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'halligan-import-'));
  servers = [];
});
afterEach(async () => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  await rm(dir, { recursive: true, force: true });
});

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no problem',
    (error: { problem?: { code: string; message: string } }) => `${error.problem?.code}: ${error.problem?.message}`,
  );

/** A disk of 4 MiB with a GPT: ESP and a root file system with a label. */
function rawDisk(): Buffer {
  const disk = Buffer.alloc(4 * MIB);
  disk.write('EFI PART', 512, 'latin1');
  disk.writeBigUInt64LE(2n, 512 + 72);
  disk.writeUInt32LE(128, 512 + 80);
  disk.writeUInt32LE(128, 512 + 84);
  const entry = (n: number, type: string, first: number, last: number) => {
    const at = 1024 + (n - 1) * 128;
    const hex = type.replaceAll('-', '');
    const bytes = Buffer.from(hex, 'hex');
    bytes.subarray(0, 4).reverse();
    bytes.subarray(4, 6).reverse();
    bytes.subarray(6, 8).reverse();
    bytes.copy(disk, at);
    disk.writeBigUInt64LE(BigInt(first), at + 32);
    disk.writeBigUInt64LE(BigInt(last), at + 40);
  };
  entry(1, GPT_TYPE.linux, 4096, 8158);
  entry(15, GPT_TYPE.esp, 2048, 4095);
  disk.writeUInt16LE(0xef53, 2 * MIB + 1024 + 0x38);
  disk.write('cloudimg-rootfs', 2 * MIB + 1024 + 0x78, 'latin1');
  return disk;
}

async function serve(
  answer: (path: string) => { status?: number; headers?: Record<string, string>; body?: Buffer },
): Promise<number> {
  const server = createServer((request, response) => {
    const { status = 200, headers = {}, body = Buffer.alloc(0) } = answer(request.url ?? '/');
    response.writeHead(status, headers).end(body);
  });
  servers.push(server);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

const options = (more: Partial<ImportOptions> & Pick<ImportOptions, 'source'>): ImportOptions => ({
  name: 'noble',
  sha256: sha256(rawDisk()),
  imagesDir: dir,
  ...more,
});

describe('an import', () => {
  it('of a raw disk by file finds root, ESP and label, and keeps the disk as it is', async () => {
    const file = join(dir, 'disk.img');
    await writeFile(file, rawDisk());
    const image = await importImage(options({ source: { file } }));
    expect(image.disk).toMatchObject({ rawBytes: 4 * MIB, rootPartition: 1, espPartition: 15 });
    expect(image).toMatchObject({ root: null, rootLabel: 'cloudimg-rootfs', distribution: 'imported' });
    expect((await readdir(dir)).filter(name => name.startsWith('.import'))).toEqual([]);
  });

  it('by URL follows a redirect, with the address that was checked', async () => {
    const port = await serve(path =>
      path === '/old' ? { status: 302, headers: { location: '/new' } } : { body: rawDisk() },
    );
    const image = await importImage(
      options({
        source: { url: `http://mirror.test:${port}/old` },
        allowHosts: ['mirror.test'],
        resolve: async () => ['127.0.0.1'],
      }),
    );
    expect(image.disk?.rawBytes).toBe(4 * MIB);
  });

  it('with another checksum is refused before anybody looks into the file, and leaves nothing behind', async () => {
    const file = join(dir, 'disk.img');
    await writeFile(file, Buffer.from('QFI\xfb and then hostile', 'latin1'));
    expect(await problemOf(importImage(options({ source: { file } })))).toMatch(
      /^image-checksum: The image noble has the checksum [0-9a-f]{64} instead of /,
    );
    expect(await readdir(dir)).toEqual(['disk.img']);
  });

  it('does not walk past the check by a redirect, nor by a name that leads to two places', async () => {
    const port = await serve(() => ({ status: 302, headers: { location: 'http://169.254.169.254/latest' } }));
    const source = { url: `http://mirror.test:${port}/` };
    expect(
      await problemOf(
        importImage(options({ source, allowHosts: ['mirror.test'], resolve: async () => ['127.0.0.1'] })),
      ),
    ).toMatch(/^image-url: 169\.254\.169\.254 leads to 169\.254\.169\.254, which is a linkLocal address/);
    expect(await problemOf(importImage(options({ source, resolve: async () => ['203.0.113.9', '10.0.0.1'] })))).toMatch(
      /^image-url: mirror\.test leads to (203\.0\.113\.9|10\.0\.0\.1), which is/,
    );
  });

  it('resolves a name once: a second answer of the resolver is never asked for', async () => {
    const port = await serve(() => ({ body: rawDisk() }));
    let asked = 0;
    await importImage(
      options({
        source: { url: `http://rebind.test:${port}/` },
        allowHosts: ['127.0.0.0/8'],
        resolve: async () => (asked++ === 0 ? ['127.0.0.1'] : ['192.0.2.1']),
      }),
    );
    expect(asked).toBe(1);
  });

  it('ends at its bounds: redirects, size announced and not announced, status, a transfer that breaks off', async () => {
    const answers: Record<string, ReturnType<Parameters<typeof serve>[0]>> = {
      '/loop': { status: 301, headers: { location: '/loop' } },
      '/none': { status: 404 },
      '/big': { body: Buffer.alloc(2 * MIB) },
      '/file': { status: 302, headers: { location: 'file:///etc/shadow' } },
    };
    const port = await serve(path => answers[path] ?? {});
    const fetch = (path: string) =>
      problemOf(
        importImage(
          options({ source: { url: `http://127.0.0.1:${port}${path}` }, allowHosts: ['127.0.0.1'], maxBytes: MIB }),
        ),
      );
    expect(await fetch('/loop')).toMatch(/redirects more than 5 times/);
    expect(await fetch('/none')).toMatch(/answered 404/);
    expect(await fetch('/big')).toMatch(/more than the 1048576|larger than the 1048576/);
    expect(await fetch('/file')).toMatch(/^image-url: file:\/\/ is not fetched/);
    expect((await readdir(dir)).filter(name => name.startsWith('.'))).toEqual([]);
  });

  it('of a compressed disk stops at the largest disk that is accepted', async () => {
    const packed = execFileSync('zstd', ['-qc'], { input: Buffer.alloc(8 * MIB) });
    const file = join(dir, 'bomb.zst');
    await writeFile(file, packed);
    expect(
      await problemOf(importImage(options({ source: { file }, sha256: sha256(packed), maxRawBytes: 4 * MIB }))),
    ).toBe('image-format: The decompressed disk is larger than the 4194304 bytes that are accepted.');
  });

  it('of something without a partition table says so', async () => {
    const file = join(dir, 'zeroes');
    await writeFile(file, Buffer.alloc(MIB));
    expect(await problemOf(importImage(options({ source: { file }, sha256: sha256(Buffer.alloc(MIB)) })))).toBe(
      'image-format: The disk image has no GPT.',
    );
  });

  it('stores a disk that decompresses to what was imported', async () => {
    const file = join(dir, 'disk.img');
    await writeFile(file, rawDisk());
    await importImage(options({ source: { file } }));
    const packed = await readFile(join(dir, 'noble', 'disk.raw.zst'));
    expect(execFileSync('zstd', ['-dcq'], { input: packed, maxBuffer: 64 * MIB }).equals(rawDisk())).toBe(true);
  });

  it('needs a proper name and checksum', async () => {
    for (const name of ['../x', 'Ä', '.hidden', ''])
      expect(await problemOf(importImage(options({ name, source: { file: '/dev/null' } })))).toMatch(
        /^request-invalid/,
      );
    expect(await problemOf(importImage(options({ sha256: 'abc', source: { file: '/dev/null' } })))).toMatch(
      /^request-invalid: The checksum is no SHA-256/,
    );
  });
});

describe('an address that is typed in', () => {
  const inside = [
    ...['127.0.0.1', '127.1', '2130706433', '0x7f000001', '0177.0.0.1', '0', '0.0.0.0', '[::1]', '[::]'],
    ...[
      '[::ffff:127.0.0.1]',
      '[::ffff:7f00:1]',
      '[::127.0.0.1]',
      '10.0.0.1',
      '172.16.0.1',
      '192.168.1.1',
      '100.64.0.1',
    ],
    ...[
      '169.254.169.254',
      '[fe80::1]',
      '[fd00::1]',
      '[fc00::1]',
      '224.0.0.1',
      '255.255.255.255',
      '240.0.0.1',
      '192.0.2.1',
    ],
    ...['[64:ff9b::7f00:1]', '[2002:7f00:1::]', '[2001:0:7f00:1::]', '[ff02::1]', '127.0.0.1.', '①②⑦.⓪.⓪.①'],
  ];
  for (const host of inside)
    it(`is not connected to when it is ${host}`, async () => {
      expect(await problemOf((async () => checkHost(checkUrl(`http://${host}/x`), { allow: [] }))())).toMatch(
        /^image-url/,
      );
    });

  for (const text of [
    ...[
      'file:///etc/passwd',
      'ftp://example.org/x',
      'gopher://x/',
      'data:,x',
      'javascript:1',
      'not a url',
      '',
      '//x/y',
    ],
    ...[
      'http://user@example.org/',
      'http://user:secret@example.org/',
      'https://:secret@example.org/',
      'http://',
      'jar:http://x',
    ],
  ])
    it(`is refused by its form when it is ${JSON.stringify(text)}`, () => {
      expect(() => checkUrl(text)).toThrow();
    });

  it('may be in the own network when that is allowed, and only there', () => {
    expect(forbiddenAddress('10.1.2.3', ['10.1.0.0/16'])).toBeNull();
    expect(forbiddenAddress('10.2.2.3', ['10.1.0.0/16'])).toBe('is a private address');
    expect(forbiddenAddress('::ffff:10.1.2.3', ['10.1.0.0/16'])).toBeNull();
    expect(forbiddenAddress('93.184.216.34', [])).toBeNull();
    expect(forbiddenAddress('2606:2800:220:1::1', [])).toBeNull();
  });
});

describe('a qcow2 header', () => {
  const header = (change: (b: Buffer) => void = () => {}): Buffer => {
    const b = Buffer.alloc(512);
    b.write('QFI\xfb', 0, 'latin1');
    b.writeUInt32BE(3, 4);
    b.writeUInt32BE(16, 20);
    b.writeBigUInt64BE(BigInt(8 * MIB), 24);
    b.writeUInt32BE(104, 100);
    change(b);
    return b;
  };
  it('of a plain image is accepted, with its size', () => {
    expect(checkQcow2(header(), 64 * MIB)).toBe(8 * MIB);
    expect(
      checkQcow2(
        header(b => b.writeUInt32BE(2, 4)),
        64 * MIB,
      ),
    ).toBe(8 * MIB);
    expect(
      checkQcow2(
        header(b => b.writeBigUInt64BE(1n | 8n | 16n, 72)),
        64 * MIB,
      ),
    ).toBe(8 * MIB);
  });
  const hostile: [string, (b: Buffer) => void, RegExp][] = [
    ['a backing file by offset', b => b.writeBigUInt64BE(200n, 8), /backing file/],
    ['a backing file by length', b => b.writeUInt32BE(11, 16), /backing file/],
    ['an external data file', b => b.writeBigUInt64BE(4n, 72), /another file/],
    ['an unknown feature', b => b.writeBigUInt64BE(1n << 40n, 72), /not known/],
    ['the corrupt bit', b => b.writeBigUInt64BE(2n, 72), /not known/],
    ['encryption', b => b.writeUInt32BE(2, 32), /encrypted/],
    ['snapshots', b => b.writeUInt32BE(1, 60), /snapshots/],
    ['version 1', b => b.writeUInt32BE(1, 4), /version 1/],
    ['version 4', b => b.writeUInt32BE(4, 4), /version 4/],
    ['a size of zero', b => b.writeBigUInt64BE(0n, 24), /0 bytes/],
    ['a size of exabytes', b => b.writeBigUInt64BE(1n << 62n, 24), /at most/],
    ['clusters of one byte', b => b.writeUInt32BE(0, 20), /clusters/],
    ['clusters of a gigabyte', b => b.writeUInt32BE(30, 20), /clusters/],
    ['a header longer than the file', b => b.writeUInt32BE(100_000, 100), /damaged/],
    ['a header shorter than a header', b => b.writeUInt32BE(8, 100), /damaged/],
    [
      'a data file as extension',
      b => {
        b.writeUInt32BE(0x44415441, 104);
        b.writeUInt32BE(8, 108);
      },
      /external data/,
    ],
    [
      'a backing format as extension, behind another one',
      b => {
        b.writeUInt32BE(0x6803f857, 104);
        b.writeUInt32BE(16, 108);
        b.writeUInt32BE(0xe2792aca, 128);
      },
      /backing file/,
    ],
    [
      'extensions without end',
      b => {
        for (let at = 104; at + 8 <= 512; at += 8) b.writeUInt32BE(1, at);
      },
      /do not end/,
    ],
    [
      'an endless extension',
      b => {
        b.writeUInt32BE(1, 104);
        b.writeUInt32BE(0xfffffff0, 108);
      },
      /too long/,
    ],
  ];
  for (const [what, change, reason] of hostile)
    it(`with ${what} is refused`, () => {
      expect(() => checkQcow2(header(change), 64 * MIB)).toThrow(reason);
    });
  it('cut off anywhere is refused', () => {
    for (let length = 0; length < 104; length++)
      expect(() => checkQcow2(header().subarray(0, length), 64 * MIB)).toThrow();
  });
});

describe('the first bytes of a file', () => {
  it('name formats that are not accepted', () => {
    for (const start of [
      'KDMV',
      'COWD',
      'conectix',
      'vhdxfile',
      '<<< Oracle',
      'QED\0',
      '\x1f\x8b\x08',
      '\xfd7zXZ',
      'BZh9',
      '# Disk DescriptorFile',
    ])
      expect(() => sniffFormat(Buffer.from(start.padEnd(16, '\0'), 'latin1'))).toThrow(/raw, raw\.zst and qcow2/);
    expect(sniffFormat(Buffer.alloc(0))).toBe('raw');
    expect(sniffFormat(Buffer.from('28b52ffd', 'hex'))).toBe('zstd');
  });
});
