import { randomBytes } from 'node:crypto';
import { rm, truncate, writeFile } from 'node:fs/promises';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type BootPlane, type BootPlaneOptions, startBootPlane } from '../../../provisioner/boot/plane.js';
import type { BootDecision, BootOracle } from '../../../provisioner/boot/types.js';
import { systemClock } from '../../../provisioner/core/clock.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { fail } from '../../../provisioner/core/problem.js';
import { imageFolder, loadersOf, rememberingTrace, steadyOracle } from './fakes.js';

const KERNEL = randomBytes(70_000);
const INITRD = randomBytes(1_500_001);
const EFI = randomBytes(5000);
const RAM: BootDecision = {
  kind: 'ram',
  image: 'ram',
  token: 'tok-123',
  reason: 'new machine; inspect',
  rescue: false,
};
const LOCAL: BootDecision = { kind: 'local', reason: 'installed' };
const WHO =
  '/boot.ipxe?mac=52-54-00-99-00-01&uuid=00000000-0000-0000-0000-0000000000AA&serial=S%2F1&manufacturer=&product=Box%0A2&platform=efi&arch=x86_64';

let images: Awaited<ReturnType<typeof imageFolder>>;
beforeAll(async () => {
  images = await imageFolder(KERNEL, INITRD);
  return images.remove;
});

const open: BootPlane[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map(p => p.close(0)));
});
async function plane(oracle: BootOracle, more: Partial<BootPlaneOptions> = {}) {
  const trace = rememberingTrace();
  const handle = await startBootPlane({
    addresses: ['127.0.0.1'],
    port: 0,
    images: images.store,
    loaders: loadersOf({ 'snponly.efi': EFI }),
    oracle,
    clock: systemClock,
    log: silentLog,
    trace,
    console: 'ttyS0,115200',
    ...more,
  });
  open.push(handle);
  return { handle, trace, base: `http://127.0.0.1:${handle.port}`, port: handle.port };
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}
function ask(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: Buffer | string; from?: string } = {},
) {
  return new Promise<Answer>((resolve, reject) => {
    const req = httpRequest(
      {
        host: '127.0.0.1',
        port,
        path,
        method: options.method ?? 'GET',
        headers: options.headers ?? {},
        localAddress: options.from,
        agent: false,
      },
      res => {
        const chunks: Buffer[] = [];
        res.on('data', c => chunks.push(c));
        res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, body: Buffer.concat(chunks) }));
        res.on('error', reject);
      },
    );
    req.on('error', reject);
    req.end(options.body);
  });
}

describe('the two stages', () => {
  it('answers "who are you" with a chain that carries the SMBIOS identity and our own address', async () => {
    const { port, base } = await plane(steadyOracle(RAM));
    const script = (await ask(port, '/boot.ipxe')).body.toString();
    expect(script).toMatch(/^#!ipxe\n/);
    expect(script).toContain(
      `chain --replace ${base}/boot.ipxe?mac=\${netX/mac:hexhyp}&uuid=\${uuid}&platform=\${platform}&arch=\${buildarch}&serial_hex=\${serial:hexraw}&`,
    );
  });
  it('hands the oracle a cleaned identity and boots what it decides', async () => {
    const oracle = steadyOracle(RAM);
    const { port, base, trace } = await plane(oracle);
    const script = (await ask(port, WHO)).body.toString();
    expect(oracle.identities).toEqual([
      {
        mac: '52:54:00:99:00:01',
        uuid: '00000000-0000-0000-0000-0000000000aa',
        serial: 'S/1',
        manufacturer: null,
        product: 'Box 2',
        platform: 'uefi',
      },
    ]);
    expect(script).toContain(
      `kernel --name kernel ${base}/image/ram/vmlinuz initrd=initrd.img console=tty0 console=ttyS0,115200 panic=30 hal.url=${base} hal.token=tok-123 hal.mac=52:54:00:99:00:01 || goto failed\n`,
    );
    expect(script).toContain(`initrd --name initrd.img ${base}/image/ram/initrd.img || goto failed\n`);
    expect(trace.entries.map(e => `${e.mac} ${e.layer} ${e.message}`)).toEqual([
      '52:54:00:99:00:01 boot boots the RAM environment ram: new machine; inspect',
    ]);
  });
  it('reads SMBIOS fields in hex, which no character in them can tear apart', async () => {
    const oracle = steadyOracle(RAM);
    const { port } = await plane(oracle);
    const hex = (text: string) => Buffer.from(text).toString('hex');
    await ask(port, `/boot.ipxe?mac=52-54-00-99-00-01&serial_hex=${hex('#1&mac=x')}&product_hex=zz&manufacturer_hex=`);
    expect(oracle.identities).toMatchObject([
      { mac: '52:54:00:99:00:01', serial: '#1&mac=x', product: null, manufacturer: null },
    ]);
  });
  it('tells a rescue apart on the kernel command line', async () => {
    const { port } = await plane(steadyOracle({ ...RAM, rescue: true }));
    expect((await ask(port, WHO)).body.toString()).toContain(' hal.rescue=1 ');
  });
  it('boots the disk by sanboot on BIOS and by an error exit on UEFI', async () => {
    const { port } = await plane(steadyOracle(LOCAL));
    const script = (await ask(port, WHO)).body.toString();
    expect(script).toContain('} efi && exit 1 ||\n');
    expect(script).toContain('sanboot --no-describe --drive 0x80 ||\n');
  });
  it('prints a hostile reason without letting it become a command', async () => {
    const { port } = await plane(
      steadyOracle({ kind: 'nothing', reason: 'x\nshell\n && shell || $\u007bnet0/mac} \\' }),
    );
    const script = (await ask(port, WHO)).body.toString();
    expect(script).toContain('echo Halligan: nothing to boot from the network: x shell & shell | .{net0/mac} .\n');
  });
  it('answers a script also when the MAC is missing or broken, and asks nobody', async () => {
    const oracle = steadyOracle(RAM);
    const { port } = await plane(oracle);
    for (const mac of ['', 'zz', 'ff:ff:ff:ff:ff:ff', '00-00-00-00-00-00', '%00'])
      expect((await ask(port, `/boot.ipxe?mac=${mac}`)).body.toString()).toContain('no usable MAC');
    expect(oracle.identities).toEqual([]);
  });
  it('lets the machine ask again when the oracle fails, the image is missing or the decision is not printable', async () => {
    const broken: BootOracle = {
      ...steadyOracle(RAM),
      decide: async () => fail('database-busy', 'The database is locked.'),
    };
    for (const oracle of [
      broken,
      steadyOracle({ ...RAM, image: 'gone' } as BootDecision),
      steadyOracle({ ...RAM, token: 'a b; shell' } as BootDecision),
    ]) {
      const { port } = await plane(oracle);
      const answer = await ask(port, WHO);
      expect(answer.status).toBe(200);
      expect(answer.body.toString()).toMatch(/chain --replace .*\/boot.ipxe \|\|\n/);
      expect(answer.body.toString()).not.toContain('kernel');
    }
  });
  it('answers within the deadline when the oracle hangs, and sends an installed machine to its disk as last time', async () => {
    let hang = false;
    const oracle: BootOracle = {
      ...steadyOracle(LOCAL),
      decide: () => (hang ? new Promise(() => {}) : Promise.resolve(LOCAL)),
    };
    const { port } = await plane(oracle, { limits: { decideMs: 50 } });
    await ask(port, WHO);
    hang = true;
    expect((await ask(port, WHO)).body.toString()).toContain('sanboot');
    expect((await ask(port, '/boot.ipxe?mac=52-54-00-99-00-02')).body.toString()).toContain('No decision within 50 ms');
  });
});

describe('milestones', () => {
  it('are answered at once, even while the oracle cannot store them', async () => {
    const oracle = steadyOracle(RAM);
    const { port } = await plane({ ...oracle, milestone: () => new Promise(() => {}) });
    expect((await ask(port, '/milestone?mac=52:54:00:99:00:01&name=kernel')).status).toBe(200);
    const stored = await plane(oracle);
    await ask(stored.port, '/milestone?mac=52-54-00-99-00-01&name=boot');
    expect(oracle.milestones).toEqual(['52:54:00:99:00:01 boot']);
  });
  it('are refused with a name that is none', async () => {
    const { port } = await plane(steadyOracle(RAM));
    for (const query of ['', '?mac=52:54:00:99:00:01&name=A%20b', '?mac=x&name=boot'])
      expect((await ask(port, `/milestone${query}`)).status).toBe(400);
  });
});

describe('files', () => {
  const tag = () => `"${images.manifest.initrd.sha256}"`;
  const get = (port: number, headers: Record<string, string> = {}, method = 'GET') =>
    ask(port, '/image/ram/initrd.img', { headers, method });

  it('come whole, with length and tag, and by HEAD without a body', async () => {
    const { port } = await plane(steadyOracle(RAM));
    const whole = await get(port);
    expect(whole.status).toBe(200);
    expect(whole.body.equals(INITRD)).toBe(true);
    expect(whole.headers.etag).toBe(tag());
    const head = await get(port, { range: 'bytes=0-1' }, 'HEAD');
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '1500001', 0]);
  });
  it.each([
    ['bytes=0-0', 0, 0],
    ['bytes=100-299999', 100, 299_999],
    ['bytes=1500000-', 1_500_000, 1_500_000],
    ['bytes=-10', 1_499_991, 1_500_000],
    ['bytes=-99999999', 0, 1_500_000],
    ['bytes=5-99999999', 5, 1_500_000],
  ])('come in part for %s', async (range, start, end) => {
    const { port } = await plane(steadyOracle(RAM));
    const part = await get(port, { range });
    expect(part.status).toBe(206);
    expect(part.headers['content-range']).toBe(`bytes ${start}-${end}/1500001`);
    expect(part.body.equals(INITRD.subarray(start, end + 1))).toBe(true);
  });
  it.each(['bytes=1500001-', 'bytes=-0'])('answer 416 with the size to %s', async range => {
    const { port } = await plane(steadyOracle(RAM));
    const answer = await get(port, { range });
    expect([answer.status, answer.headers['content-range']]).toEqual([416, 'bytes */1500001']);
  });
  it.each(['bytes=0-1,5-6', 'lines=1-2', 'bytes=-', 'bytes=9-3', 'nonsense', 'bytes=1-9999999999999999999'])(
    'come whole for a range that is not one of bytes: %s',
    async range => {
      const { port } = await plane(steadyOracle(RAM));
      expect((await get(port, { range })).status).toBe(200);
    },
  );
  it('come in part only while If-Range still fits, and not at all when If-None-Match has them', async () => {
    const { port } = await plane(steadyOracle(RAM));
    expect((await get(port, { range: 'bytes=1-2', 'if-range': tag() })).status).toBe(206);
    expect((await get(port, { range: 'bytes=1-2', 'if-range': '"other"' })).status).toBe(200);
    expect((await get(port, { range: 'bytes=1-2', 'if-range': 'Mon, 01 Jan 2024 00:00:00 GMT' })).status).toBe(200);
    for (const tags of [tag(), `W/${tag()}`, `"a", ${tag()}`, '*'])
      expect((await get(port, { 'if-none-match': tags })).status).toBe(304);
    expect((await get(port, { 'if-none-match': '"a"' })).status).toBe(200);
  });
  it('are only those of a manifest: no path leads out', async () => {
    const { port } = await plane(steadyOracle(RAM));
    for (const path of [
      '/image/ram/../../etc/passwd',
      '/image/ram/..%2f..%2fetc%2fpasswd',
      '/image/../ram/vmlinuz',
      '/image/ram/manifest.json',
      '/image/ram/',
      '/image/ram/%00',
      '/image/constructor/vmlinuz',
      '/loader/..%2fsnponly.efi',
      '/loader/__proto__',
      '//etc/passwd',
      '/api/v1/nodes',
      '/',
    ]) {
      const answer = await ask(port, path);
      expect([path, answer.status]).toEqual([path, 404]);
      expect(JSON.parse(answer.body.toString())).toMatchObject({ code: expect.any(String), hint: expect.any(String) });
    }
    expect((await ask(port, '/image/ram/%zz')).status).toBe(400);
    expect((await ask(port, '/boot.ipxe', { method: 'DELETE' })).status).toBe(404);
  });
  it('of the loaders come from memory, also in part, as UEFI firmware wants them', async () => {
    const { port } = await plane(steadyOracle(RAM));
    const head = await ask(port, '/loader/snponly.efi', { method: 'HEAD' });
    expect([head.headers['content-length'], head.headers['content-type']]).toEqual(['5000', 'application/efi']);
    expect((await ask(port, '/loader/snponly.efi')).body.equals(EFI)).toBe(true);
    expect(
      (await ask(port, '/loader/snponly.efi', { headers: { range: 'bytes=4990-' } })).body.equals(EFI.subarray(4990)),
    ).toBe(true);
  });
  it('with another size than their manifest says are refused before a byte is sent', async () => {
    const own = await imageFolder(KERNEL, INITRD);
    const { port } = await plane(steadyOracle(RAM), { images: own.store });
    await truncate(join(own.folder, 'vmlinuz'), 10);
    expect((await ask(port, '/image/ram/vmlinuz')).status).toBe(404);
    await rm(join(own.folder, 'vmlinuz'));
    expect((await ask(port, '/image/ram/vmlinuz')).status).toBe(404);
    await writeFile(join(own.folder, 'vmlinuz'), KERNEL);
    expect((await ask(port, '/image/ram/vmlinuz')).status).toBe(200);
    await own.remove();
  });
  it('of size nothing come as nothing', async () => {
    const own = await imageFolder(Buffer.alloc(0), INITRD);
    const { port } = await plane(steadyOracle(RAM), { images: own.store });
    expect((await ask(port, '/image/ram/vmlinuz')).headers['content-length']).toBe('0');
    expect((await ask(port, '/image/ram/vmlinuz', { headers: { range: 'bytes=0-' } })).status).toBe(416);
    await own.remove();
  });
});

describe('call home', () => {
  const report = {
    schema: 1,
    mac: '52-54-00-99-00-01',
    bootId: '01234567-89ab-cdef-0123-456789abcdef',
    hostKey: `ssh-ed25519 ${'A'.repeat(68)}`,
    firmware: 'uefi',
    uptimeSeconds: 20.5,
    raw: { lsblk: { blockdevices: [] } },
  };
  const post = (port: number, body: unknown, headers: Record<string, string> = {}, path = '/call-home/ram') =>
    ask(port, path, {
      method: 'POST',
      headers: { authorization: 'Bearer known-token', 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
    });
  const code = (a: Answer) => [a.status, JSON.parse(a.body.toString()).code];

  it('reaches the oracle with a canonical MAC', async () => {
    const oracle = steadyOracle(RAM);
    const { port } = await plane(oracle);
    expect((await post(port, report)).status).toBe(204);
    expect(oracle.ram).toEqual([{ ...report, mac: '52:54:00:99:00:01' }]);
    const installed = { schema: 1, bootId: report.bootId, uptimeSeconds: 1, hostname: 'n1' };
    expect((await post(port, installed, {}, '/call-home/installed')).status).toBe(204);
    expect(oracle.installed).toEqual([installed]);
  });
  it('is refused without a token or with an unknown one, before the body is read', async () => {
    const { port } = await plane(steadyOracle(RAM));
    for (const authorization of ['', 'Bearer', 'Basic eDp5', 'Bearer another-token'])
      expect(code(await post(port, 'not even JSON', { authorization }))).toEqual([403, 'token-refused']);
  });
  it('passes on the oracle’s own refusal', async () => {
    const oracle: BootOracle = {
      ...steadyOracle(RAM),
      ramCallHome: async () => fail('token-refused', 'The token was used before.'),
    };
    const { port } = await plane(oracle);
    expect(code(await post(port, report))).toEqual([403, 'token-refused']);
  });
  it.each([
    ['no JSON', '{', /JSON/],
    ['another encoding', Buffer.from([0x22, 0xff, 0x22]), /UTF-8/],
    ['a list', [], /body/],
    ['a missing field', { ...report, hostKey: undefined }, /hostKey/],
    ['a key of another kind', { ...report, hostKey: `ssh-rsa ${'A'.repeat(68)}` }, /hostKey/],
    ['a host key with a second line', { ...report, hostKey: `${report.hostKey}\nssh-rsa x` }, /hostKey/],
    ['a broadcast MAC', { ...report, mac: 'ff:ff:ff:ff:ff:ff' }, /mac/],
    ['one field more', { ...report, admin: true }, /additional/],
    ['raw that is text', { ...report, raw: 'x' }, /raw/],
    ['a prototype', JSON.stringify(report).replace('"lsblk"', '"__proto__"'), /__proto__/],
    ['an escaped prototype', JSON.stringify(report).replace('"lsblk"', '"\\u005f_proto__"'), /__proto__/],
    ['26 levels', { ...report, raw: JSON.parse(`${'{"a":'.repeat(25)}1${'}'.repeat(25)}`) }, /25 levels/],
  ])('is refused with %s', async (_what, body, reason) => {
    const oracle = steadyOracle(RAM);
    const { port } = await plane(oracle);
    const answer = await post(port, body);
    expect(code(answer)).toEqual([400, 'inventory-refused']);
    expect(JSON.parse(answer.body.toString()).message).toMatch(reason);
    expect(oracle.ram).toEqual([]);
  });
  it('accepts 25 levels, and brackets inside strings at any number', async () => {
    const { port } = await plane(steadyOracle(RAM));
    const raw = { ...JSON.parse(`${'{"a":'.repeat(23)}1${'}'.repeat(23)}`), text: `${'[{'.repeat(500)}\\"` };
    expect((await post(port, { ...report, raw })).status).toBe(204);
  });
  it('survives a bomb of a million brackets', async () => {
    const { port } = await plane(steadyOracle(RAM));
    expect((await post(port, '['.repeat(1_000_000))).status).toBe(400);
  });
  it('takes 16 MiB and tells a larger one off, whether it states its length or not', async () => {
    const { port } = await plane(steadyOracle(RAM));
    const empty = JSON.stringify({ ...report, raw: { x: '' } }).length;
    const body = (bytes: number) => JSON.stringify({ ...report, raw: { x: 'x'.repeat(bytes - empty) } });
    expect((await post(port, body(16 * 1024 * 1024))).status).toBe(204);
    expect(code(await post(port, body(16 * 1024 * 1024 + 1)))).toEqual([413, 'request-too-large']);
    expect(code(await post(port, body(17 * 1024 * 1024), { 'transfer-encoding': 'chunked' }))).toEqual([
      413,
      'request-too-large',
    ]);
  });
  it('wants application/json', async () => {
    const { port } = await plane(steadyOracle(RAM));
    for (const type of [
      'text/plain',
      'application/jsonx',
      'application/x-www-form-urlencoded',
      '\tapplication/json\ta',
    ])
      expect((await post(port, report, { 'content-type': type })).status).toBe(400);
  });
});

describe('bounds', () => {
  it('let a client that says nothing go', async () => {
    const { port } = await plane(steadyOracle(RAM), { limits: { headersMs: 200, requestMs: 400 } });
    for (const start of [
      '',
      'GET /boot.ipxe HTTP/1.1\r\nHost: x\r\nX: ',
      'POST /call-home/ram HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer known-token\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{',
    ]) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(start);
      socket.resume();
      const began = Date.now();
      await new Promise(resolve => socket.on('close', resolve));
      expect(Date.now() - began).toBeLessThan(4000);
    }
  });
  it('let a client go that does not read its image, and give its place to the next', async () => {
    const big = await imageFolder(KERNEL, randomBytes(32 << 20));
    const { port, handle, trace } = await plane(steadyOracle(RAM), {
      images: big.store,
      limits: { streams: 1, stallMs: 300 },
    });
    await ask(port, WHO);
    const idle = connect(port, '127.0.0.1');
    idle.on('error', () => {});
    idle.write('GET /image/ram/initrd.img HTTP/1.1\r\nHost: x\r\n\r\n');
    idle.pause();
    await wait(100);
    const next = ask(port, '/image/ram/vmlinuz');
    await wait(50);
    expect(handle.counts()).toMatchObject({ streams: 1, waiting: 1 });
    expect((await next).body.equals(KERNEL)).toBe(true);
    expect(trace.entries.some(e => /initrd.img ended after .*read nothing/.test(e.message))).toBe(true);
    idle.destroy();
    await big.remove();
  });
  it('refuse what does not fit into the queue, and forget those who leave it', async () => {
    const big = await imageFolder(KERNEL, randomBytes(32 << 20));
    const { port, handle } = await plane(steadyOracle(RAM), {
      images: big.store,
      limits: { streams: 1, queue: 1, stallMs: 1000 },
    });
    const held = [1, 2].map(() => {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write('GET /image/ram/initrd.img HTTP/1.1\r\nHost: x\r\n\r\n');
      socket.pause();
      return socket;
    });
    await wait(150);
    expect(handle.counts()).toMatchObject({ streams: 1, waiting: 1 });
    const busy = await ask(port, '/image/ram/vmlinuz');
    expect([busy.status, busy.headers['retry-after']]).toEqual([503, '5']);
    expect((await ask(port, '/boot.ipxe')).status).toBe(200);
    for (const socket of held) socket.destroy();
    await wait(150);
    expect(handle.counts()).toMatchObject({ streams: 0, waiting: 0 });
    await big.remove();
  });
  it('hold one client’s connections and streams down while others go on', async () => {
    const big = await imageFolder(KERNEL, randomBytes(32 << 20));
    const { port, handle } = await plane(steadyOracle(RAM), {
      images: big.store,
      limits: { streamsPerClient: 1, connectionsPerClient: 3 },
    });
    const greedy = [1, 2, 3, 4, 5].map(() => {
      const socket = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' });
      socket.on('error', () => {});
      socket.write('GET /image/ram/initrd.img HTTP/1.1\r\nHost: x\r\n\r\n');
      socket.pause();
      return socket;
    });
    await wait(100);
    expect(handle.counts()).toEqual({ streams: 1, waiting: 2, connections: 3 });
    expect((await ask(port, '/image/ram/vmlinuz', { from: '127.0.0.3' })).body.equals(KERNEL)).toBe(true);
    await wait(50);
    for (const socket of greedy) socket.destroy();
    await big.remove();
  });
  it('refuse garbage, giant headers and a request line without end', async () => {
    const { port } = await plane(steadyOracle(RAM), { limits: { headersMs: 300 } });
    for (const bytes of [
      randomBytes(300),
      Buffer.from(`GET /boot.ipxe?${'a'.repeat(100_000)} HTTP/1.1\r\n\r\n`),
      Buffer.from(`GET / HTTP/1.1\r\nA: ${'b'.repeat(100_000)}\r\n\r\n`),
      Buffer.from('\x16\x03\x01\x02\x00'),
    ]) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(bytes);
      socket.resume();
      await new Promise(resolve => socket.on('close', resolve));
    }
    expect((await ask(port, '/boot.ipxe')).status).toBe(200);
  });
});

describe('start and end', () => {
  it('says in one sentence that the port is taken or the address is not ours', async () => {
    const { port } = await plane(steadyOracle(RAM));
    await expect(plane(steadyOracle(RAM), { port })).rejects.toMatchObject({ problem: { code: 'port-in-use' } });
    await expect(plane(steadyOracle(RAM), { addresses: ['192.0.2.1'] })).rejects.toMatchObject({
      problem: { code: 'interface-missing' },
    });
  });
  it('listens on several addresses and names the one that the machine came to', async () => {
    const { port } = await plane(steadyOracle(RAM), { addresses: ['127.0.0.1', '127.0.0.9'] });
    const answer = await fetch(`http://127.0.0.9:${port}/boot.ipxe`);
    expect(await answer.text()).toContain(`chain --replace http://127.0.0.9:${port}/boot.ipxe?`);
  });
  it('closes within its grace although a client holds a stream', async () => {
    const big = await imageFolder(KERNEL, randomBytes(32 << 20));
    const { handle, port } = await plane(steadyOracle(RAM), { images: big.store });
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('GET /image/ram/initrd.img HTTP/1.1\r\nHost: x\r\n\r\n');
    socket.pause();
    await wait(100);
    const began = Date.now();
    await handle.close(200);
    expect(Date.now() - began).toBeLessThan(1500);
    socket.destroy();
    await big.remove();
  });
});
