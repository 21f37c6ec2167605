/**
 * The boot plane with what really talks to it: curl, the iPXE ROM of QEMU and OVMF with our TFTP, in a network namespace
 * with dnsmasq as the DHCP server. Kernel and disks are a few dozen bytes that print what they were given to the serial
 * port, so that each boot ends within seconds under plain emulation.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Loaders, readLoaders } from '../../provisioner/boot/loaders.js';
import { type BootPlane, startBootPlane } from '../../provisioner/boot/plane.js';
import type { BootDecision, BootOracle } from '../../provisioner/boot/types.js';
import { systemClock } from '../../provisioner/core/clock.js';
import { silentLog } from '../../provisioner/core/log.js';
import { fail } from '../../provisioner/core/problem.js';
import { loaderRoute } from '../../provisioner/tftp/routes.js';
import { startTftp, type TftpServer } from '../../provisioner/tftp/server.js';
import type { TftpResult } from '../../provisioner/tftp/types.js';
import { imageFolder, rememberingTrace, steadyOracle } from '../unit/boot/fakes.js';
import { type Lab, openLab } from './dhcp-lab.js';

const run = promisify(execFile);
const OURS = '10.97.0.1';
const MAC = '52:54:00:97:00:01';
const ESCAPES = new RegExp(`${String.fromCharCode(27)}\\[[0-9;?=]*[A-Za-z]`, 'g');
const RAM: BootDecision = {
  kind: 'ram',
  image: 'ram',
  token: 'a-token-of-one-use',
  reason: 'new machine',
  rescue: false,
};

/** putc(al): waits until the UART has room, as real ones need it. */
const PUTC = [0x88, 0xc4, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xc3];

/**
 * The smallest kernel by the Linux x86 boot protocol (2.06): prints its command line, `|`, and the size of its initrd in
 * hex to COM1, and halts.
 */
function printingKernel(): Buffer {
  const image = Buffer.alloc(1024 + 512);
  image[0x1f1] = 1; // setup_sects
  image.writeUInt32LE(512 / 16, 0x1f4); // syssize
  image.writeUInt16LE(0xaa55, 0x1fe);
  image.set([0xeb, 0x3e], 0x200); // jmp 0x240
  image.write('HdrS', 0x202);
  image.writeUInt16LE(0x0206, 0x206);
  image[0x211] = 1; // LOADED_HIGH
  image.writeUInt32LE(0x100000, 0x214);
  image.writeUInt32LE(0x37ffffff, 0x22c); // initrd_addr_max
  image.writeUInt32LE(2047, 0x238); // cmdline_size
  const call = (at: number, putc: number) => [0xe8, (putc - at - 3) & 0xff, ((putc - at - 3) >> 8) & 0xff];
  const code: number[] = [];
  const putc = 0x60;
  code.push(0x66, 0xa1, 0x28, 0x02); // mov eax,[cmd_line_ptr]
  code.push(0x66, 0x89, 0xc3, 0x66, 0xc1, 0xe8, 0x04, 0x8e, 0xc0, 0x83, 0xe3, 0x0f); // es:bx
  const loop = code.length;
  code.push(0x26, 0x8a, 0x07, 0x84, 0xc0, 0x74, 0x06); // al = [es:bx]; jz behind the loop
  code.push(...call(code.length, putc), 0x43);
  code.push(0xeb, (loop - code.length - 2) & 0xff);
  code.push(0xb0, 0x7c);
  code.push(...call(code.length, putc));
  code.push(0x66, 0x8b, 0x0e, 0x1c, 0x02, 0xbe, 0x08, 0x00); // ecx = ramdisk_size; si = 8
  const hex = code.length;
  code.push(0x66, 0xc1, 0xc1, 0x04, 0x88, 0xc8, 0x24, 0x0f, 0x04, 0x30, 0x3c, 0x3a, 0x72, 0x02, 0x04, 0x27);
  code.push(...call(code.length, putc), 0x4e);
  code.push(0x75, (hex - code.length - 2) & 0xff);
  code.push(0xb0, 0x0a);
  code.push(...call(code.length, putc));
  code.push(0xfa, 0xf4, 0xeb, 0xfd); // cli; hlt
  image.set(code, 0x240);
  image.set(PUTC, 0x240 + putc);
  return image;
}

/** A disk whose boot sector prints `DISK` to COM1 and halts. */
function printingDisk(): Buffer {
  const disk = Buffer.alloc(1 << 20);
  const putc = 0x40;
  const code = [...'\nDISK\n'].flatMap((c, i) => [0xb0, c.charCodeAt(0), 0xe8, (putc - i * 5 - 5) & 0xff, 0]);
  disk.set([...code, 0xfa, 0xf4, 0xeb, 0xfd]);
  disk.set(PUTC, putc);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

let lab: Lab;
let images: Awaited<ReturnType<typeof imageFolder>>;
let loaders: Loaders;
let tftp: TftpServer;
const served: TftpResult[] = [];
const INITRD = randomBytes(3_000_001);
const open: BootPlane[] = [];

beforeAll(async () => {
  lab = openLab();
  lab.bridge('br0', `${OURS}/24`);
  // With an address of the advertised prefix, dnsmasq answers iPXE's router solicitation: 13 seconds less per boot.
  lab.ip(lab.server, 'addr', 'add', 'fd97::1/64', 'dev', 'br0', 'nodad');
  for (const tap of ['tap0', 'tap1']) lab.tap(tap, 'br0');
  images = await imageFolder(printingKernel(), INITRD);
  loaders = await readLoaders();
  tftp = await startTftp({
    address: OURS,
    port: 69,
    routes: [loaderRoute(loaders)],
    clock: systemClock,
    log: silentLog,
    trace: rememberingTrace(),
    onServed: r => served.push(r),
  });
  const conf = join(lab.dir, 'dnsmasq.conf');
  await writeFile(
    conf,
    `port=0
interface=br0
bind-interfaces
except-interface=lo
no-ping
dhcp-authoritative
dhcp-range=10.97.0.100,10.97.0.200,255.255.255.0,1h
dhcp-leasefile=${lab.dir}/leases
dhcp-userclass=set:ipxe,iPXE
dhcp-match=set:efi64,option:client-arch,7
dhcp-boot=tag:ipxe,http://${OURS}:7481/boot.ipxe
dhcp-boot=tag:!ipxe,tag:efi64,snponly.efi,,${OURS}
dhcp-range=fd97::,ra-only,64
enable-ra
`,
  );
  lab.start(lab.server, ['dnsmasq', '-k', '-C', conf, '--pid-file=']);
});
afterAll(async () => {
  await tftp?.close();
  await images?.remove();
  await lab?.close();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map(p => p.close(0)));
});

async function plane(oracle: BootOracle) {
  const trace = rememberingTrace();
  const handle = await startBootPlane({
    addresses: [OURS, '127.0.0.1'],
    port: 7481,
    images: images.store,
    loaders,
    oracle,
    clock: systemClock,
    log: silentLog,
    trace,
    console: 'ttyS0,115200',
  });
  open.push(handle);
  return { handle, trace };
}

/** Starts a machine; its serial console comes as text. */
async function machine(options: {
  firmware?: 'bios' | 'uefi';
  nics?: { tap: string; mac: string; boots: boolean }[];
  disk?: string;
}) {
  const vars = join(lab.dir, 'vars.fd');
  const uefi = options.firmware === 'uefi';
  if (uefi) await copyFile('/usr/share/OVMF/OVMF_VARS_4M.fd', vars);
  const nics = options.nics ?? [{ tap: 'tap0', mac: MAC, boots: true }];
  const job = lab.start(lab.server, [
    'qemu-system-x86_64',
    ...['-machine', 'q35,graphics=off', '-accel', 'tcg', '-cpu', 'qemu64', '-m', uefi ? '512' : '256'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...[
      '-smbios',
      'type=1,manufacturer=Acme & #1 Sons,product=Box 9,serial=SN 1/2,uuid=00112233-4455-6677-8899-aabbccddeeff',
    ],
    ...(uefi
      ? [
          '-drive',
          'if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd',
          '-drive',
          `if=pflash,format=raw,unit=1,file=${vars}`,
        ]
      : []),
    ...nics.flatMap(({ tap, mac, boots }, i) => [
      '-netdev',
      `tap,id=n${i},ifname=${tap},script=no,downscript=no`,
      '-device',
      `virtio-net-pci,netdev=n${i},mac=${mac}${boots && !uefi ? ',bootindex=1' : ''}${boots && !uefi ? '' : ',romfile='}`,
    ]),
    ...(options.disk
      ? [
          '-drive',
          `if=none,id=d,format=raw,file=${options.disk}`,
          '-device',
          `virtio-blk-pci,drive=d${uefi ? '' : ',bootindex=2'}`,
        ]
      : []),
  ]);
  const expectText = async (pattern: RegExp, timeoutMs = 120_000) => {
    const end = Date.now() + timeoutMs;
    // The console is a terminal: cursor movements stand between the characters.
    const text = () => job.output().replace(ESCAPES, '').replaceAll('\r', '');
    while (!pattern.test(text())) {
      if (Date.now() > end) throw new Error(`the console did not show ${pattern}:\n${text().slice(-3000)}`);
      await wait(100);
    }
    return text();
  };
  return { expectText, stop: () => job.stop() };
}

describe('an iPXE ROM under BIOS', () => {
  it('says who it is, fetches kernel and one initrd, reports milestones and passes the command line on', async () => {
    const oracle = steadyOracle(RAM);
    const { trace } = await plane(oracle);
    const vm = await machine({});
    try {
      const text = await vm.expectText(/hal\.mac=[0-9a-f:]{17}\|[0-9a-f]{8}/);
      expect(oracle.identities).toEqual([
        {
          mac: MAC,
          uuid: '00112233-4455-6677-8899-aabbccddeeff',
          serial: 'SN 1/2',
          manufacturer: 'Acme & #1 Sons',
          product: 'Box 9',
          platform: 'bios',
        },
      ]);
      expect(oracle.milestones).toEqual([`${MAC} kernel`, `${MAC} boot`]);
      expect(text).toContain(
        `initrd=initrd.img console=tty0 console=ttyS0,115200 panic=30 hal.url=http://${OURS}:7481 hal.token=a-token-of-one-use hal.mac=${MAC}|`,
      );
      // Exactly our initrd: a milestone that was left over would have been added to it.
      expect(Number.parseInt(/\|([0-9a-f]{8})/.exec(text)![1]!, 16)).toBe(INITRD.length);
      expect(trace.entries.map(e => e.message)).toContain('sent ram/initrd.img');
    } finally {
      await vm.stop();
    }
  });
  it('is known by the NIC that it boots from, not by the first one', async () => {
    const oracle = steadyOracle(RAM);
    await plane(oracle);
    const second = '52:54:00:97:00:02';
    const vm = await machine({
      nics: [
        { tap: 'tap0', mac: MAC, boots: false },
        { tap: 'tap1', mac: second, boots: true },
      ],
    });
    try {
      await vm.expectText(new RegExp(`hal\\.mac=${second}`));
      expect(oracle.identities).toMatchObject([{ mac: second }]);
    } finally {
      await vm.stop();
    }
  });
  it('goes on to the first disk for "local"', async () => {
    const oracle = steadyOracle({ kind: 'local', reason: 'installed' });
    await plane(oracle);
    const disk = join(lab.dir, 'disk.raw');
    await writeFile(disk, printingDisk());
    const vm = await machine({ disk });
    try {
      await vm.expectText(/^DISK$/m);
      expect(oracle.milestones).toEqual([`${MAC} local`]);
    } finally {
      await vm.stop();
    }
  });
  it('shows the reason for "nothing" and leaves the machine to its next boot device', async () => {
    await plane(steadyOracle({ kind: 'nothing', reason: 'in maintenance; "fan" -n $(x) $\u007bnet0/mac} \\' }));
    const disk = join(lab.dir, 'disk.raw');
    await writeFile(disk, printingDisk());
    const vm = await machine({ disk });
    try {
      const text = await vm.expectText(/^DISK$/m);
      // The console breaks lines at 80 columns.
      expect(text.replaceAll('\n', '')).toContain(
        'Halligan: nothing to boot from the network: in maintenance. "fan" n .(x) .{net0/mac} .',
      );
    } finally {
      await vm.stop();
    }
  });
  it('asks again while the server cannot decide and while a file is missing, and boots when it can', async () => {
    let asked = 0;
    const oracle: BootOracle = {
      ...steadyOracle(RAM),
      async decide() {
        asked++;
        if (asked === 1) fail('database-busy', 'The database is locked.');
        if (asked === 3) await writeFile(join(images.folder, 'initrd.img'), INITRD);
        return RAM;
      },
    };
    await plane(oracle);
    await rm(join(images.folder, 'initrd.img'));
    const vm = await machine({});
    try {
      const text = await vm.expectText(/hal\.mac=[0-9a-f:]{17}\|[0-9a-f]{8}/);
      expect(asked).toBe(3);
      expect(text).toContain('Halligan: The database is locked.');
      expect(text).toContain('asking again in 1 s');
      expect(text).toContain('could not load the RAM environment, asking again in 2 s');
      expect(Number.parseInt(/\|([0-9a-f]{8})/.exec(text)![1]!, 16)).toBe(INITRD.length);
    } finally {
      await vm.stop();
      await writeFile(join(images.folder, 'initrd.img'), INITRD);
    }
  });
});

describe('OVMF', () => {
  it('fetches the loader from our TFTP after asking for its size, and comes as UEFI; "local" leaves to the next boot option', async () => {
    const oracle = steadyOracle({ kind: 'local', reason: 'installed' });
    await plane(oracle);
    served.length = 0;
    const vm = await machine({ firmware: 'uefi' });
    try {
      const text = await vm.expectText(
        /booting from the local disk: installed[\s\S]*(BdsDxe|Shell|Start PXE|PXEv6|IPv6)/,
        240_000,
      );
      expect(oracle.identities).toMatchObject([{ mac: MAC, platform: 'uefi', serial: 'SN 1/2' }]);
      expect(served.map(s => `${s.file} ${s.outcome}`)).toEqual(['snponly.efi size-only', 'snponly.efi served']);
      expect(text).not.toMatch(/Select Language|Boot Manager Menu/);
    } finally {
      await vm.stop();
    }
  });
});

describe('curl', () => {
  it('fetches, resumes and revalidates an image', async () => {
    await plane(steadyOracle(RAM));
    const url = 'http://127.0.0.1:7481/image/ram/initrd.img';
    const path = join(lab.dir, 'got');
    await writeFile(path, INITRD.subarray(0, 1_234_567));
    await run('curl', ['-fsS', '-C', '-', '-o', path, url]);
    expect((await readFile(path)).equals(INITRD)).toBe(true);
    const { stdout } = await run('curl', [
      '-sS',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      '-H',
      `If-None-Match: "${images.manifest.initrd.sha256}"`,
      url,
    ]);
    expect(stdout).toBe('304');
    const head = (await run('curl', ['-fsSI', url])).stdout;
    expect(head).toMatch(/content-length: 3000001/i);
  });
  it('fetches 100 MB fifty times at once while boot scripts are still answered at once', async () => {
    const big = randomBytes(100 * 1024 * 1024);
    const sha256 = createHash('sha256').update(big).digest('hex');
    const own = await imageFolder(printingKernel(), big);
    const handle = await startBootPlane({
      addresses: ['127.0.0.1'],
      port: 0,
      images: own.store,
      loaders,
      oracle: steadyOracle(RAM),
      clock: systemClock,
      log: silentLog,
      trace: rememberingTrace(),
      console: '',
    });
    open.push(handle);
    const base = `http://127.0.0.1:${handle.port}`;
    const before = process.memoryUsage().rss;
    let peak = before;
    const rss = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().rss);
    }, 50);
    const began = Date.now();
    let ended = false;
    const one = await run('sh', ['-c', 'curl -fsS "$1" | sha256sum', 'sh', `${base}/image/ram/initrd.img`]);
    expect(one.stdout).toContain(sha256);
    const streams = Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        run('curl', [
          '-fsS',
          '--interface',
          `127.0.2.${i + 1}`,
          '-o',
          '/dev/null',
          '-w',
          '%{size_download}',
          `${base}/image/ram/initrd.img`,
        ]),
      ),
    ).finally(() => {
      ended = true;
    });
    const latencies: number[] = [];
    while (!ended) {
      const { stdout } = await run('curl', [
        '-fsS',
        '-o',
        '/dev/null',
        '-w',
        '%{time_total}',
        `${base}/boot.ipxe?mac=${MAC}`,
      ]);
      latencies.push(Number(stdout) * 1000);
      await wait(50);
    }
    expect((await streams).every(s => s.stdout === String(big.length))).toBe(true);
    clearInterval(rss);
    const seconds = (Date.now() - began) / 1000;
    latencies.sort((a, b) => a - b);
    const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!;
    console.log(
      `51 x 100 MiB in ${seconds.toFixed(1)} s (${Math.round((51 * 104.9) / seconds)} MB/s); /boot.ipxe meanwhile, ${latencies.length} times: median ${at(0.5).toFixed(0)} ms, p95 ${at(0.95).toFixed(0)} ms, longest ${at(1).toFixed(0)} ms; RSS grew by ${Math.round((peak - before) / 1e6)} MB`,
    );
    expect(latencies.length).toBeGreaterThan(10);
    expect(at(0.95)).toBeLessThan(1000);
    // Two buffers of 256 KiB per stream, and what waits in the kernel is not ours.
    expect(peak - before).toBeLessThan(100e6);
    await own.remove();
  });
});
