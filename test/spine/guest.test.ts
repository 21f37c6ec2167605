/**
 * The guest for real: built from the archive (cached in HALLIGAN_CACHE, or .cache/ of the repository) and booted by QEMU
 * as Nova does, from its disk and from kernel and initrd. The metadata service is ours, on loopback or in a namespace.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createConnection, createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../../provisioner/core/clock.js';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import { createExecutor, type PooledExecutor } from '../../provisioner/core/executor/executor.js';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import { makeSshKey } from '../../provisioner/core/keys.js';
import { silentLog } from '../../provisioner/core/log.js';
import { buildGuestImage } from '../../provisioner/image/guest.js';
import type { GuestImageManifest } from '../../provisioner/image/types.js';
import { openLab } from './dhcp-lab.js';

/** From power-on, on a busy machine; an idle one needs 6 seconds. */
const BOOT_MS = 240_000;
const MIB = 1024 * 1024;

let dir: string;
let imagesDir: string;
let manifest: GuestImageManifest;
let executor: PooledExecutor;
const file = (name: string) => join(imagesDir, manifest.name, name);
const cleanups: (() => void | Promise<void>)[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'halligan-guest-'));
  imagesDir = join(process.env['HALLIGAN_CACHE'] ?? join(packageRoot(), '.cache'), 'guest-test');
  await mkdir(imagesDir, { recursive: true });
  const began = Date.now();
  manifest = await buildGuestImage({ imagesDir });
  console.log(`guest image: ${manifest.disk.bytes} bytes after ${Date.now() - began} ms`);
  executor = ssh();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(async () => {
  await executor?.close();
  await rm(dir, { recursive: true, force: true });
});

const ssh = () => createExecutor({ privateKey: makeSshKey(), maxConnections: 2, clock: systemClock, log: silentLog });

/** A metadata service; `refusals` requests are answered with 500 first. */
async function metadata(listen: { address: string; port: number }, answers: Record<string, string>, refusals = 0) {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    requests.push(request.url ?? '');
    const body = answers[(request.url ?? '').replace('/latest/', '')];
    response.writeHead(requests.length <= refusals ? 500 : body === undefined ? 404 : 200);
    response.end(body ?? 'nothing here');
  });
  await new Promise<void>(resolve => server.listen(listen.port, listen.address, resolve));
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { requests, port: (server.address() as AddressInfo).port };
}

async function freePort(): Promise<number> {
  const server = createTcpServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}

interface Machine {
  /** What the serial port has shown, without carriage returns. */
  console(): string;
  /** Waits for a line of the console, counted from 1. Throws with the last lines after `timeoutMs`. */
  shows(pattern: RegExp, timeoutMs: number, count?: number): Promise<RegExpMatchArray>;
  /** The root login; the host key is the last one that the console shows. */
  login(port: number, address?: string): SshTarget;
  qmp(execute: string, args?: Record<string, unknown>): Promise<unknown>;
  /** Waits for the end of QEMU. */
  ended(timeoutMs: number): Promise<void>;
}

const QEMU = [...['-accel', 'tcg', '-smp', '1', '-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'std']];
let machines = 0;

/** Watches a machine whose serial port writes to `${name}.log` and whose QMP socket is `${name}.qmp`. */
function watch(name: string, hasEnded: () => boolean): Machine {
  const text = () => (existsSync(`${name}.log`) ? readFileSync(`${name}.log`, 'utf8').replaceAll('\r', '') : '');
  const until = async <T>(what: string, timeoutMs: number, look: () => T | undefined): Promise<T> => {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms\n${text().slice(-2000)}`);
      await new Promise(resolve => setTimeout(resolve, 100));
    }
  };
  let session: { socket: Socket; answers: AsyncIterableIterator<string> } | undefined;
  return {
    console: text,
    shows: (pattern, timeoutMs, count = 1) =>
      until(`${pattern}`, timeoutMs, () => [...text().matchAll(new RegExp(pattern, 'gm'))][count - 1]),
    login(port, address = '127.0.0.1') {
      const hostKey = [...text().matchAll(/^GUEST-HOSTKEY (ssh-ed25519 \S+)$/gm)].at(-1)?.[1] ?? '';
      return { address, port, user: 'root', hostKey };
    },
    async qmp(execute, args = {}) {
      const answer = async () => {
        for (;;) {
          const { value, done } = await session!.answers.next();
          if (done) throw new Error('QMP: the connection has ended');
          const message = JSON.parse(value) as { return?: unknown; error?: { desc: string } };
          if (message.error) throw new Error(`QMP ${execute}: ${message.error.desc}`);
          if ('return' in message) return message.return;
        }
      };
      if (!session) {
        const socket = createConnection(`${name}.qmp`);
        cleanups.push(() => void socket.destroy());
        session = { socket, answers: createInterface({ input: socket })[Symbol.asyncIterator]() };
        socket.write('{"execute":"qmp_capabilities"}\n');
        await answer();
      }
      session.socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      return answer();
    },
    ended: timeoutMs => until('the end of QEMU', timeoutMs, () => (hasEnded() ? true : undefined)).then(() => {}),
  };
}

const outputs = (name: string) => [...['-serial', `file:${name}.log`, '-qmp', `unix:${name}.qmp,server=on,wait=off`]];
const overVirtio = (id: string, path: string) => [
  ...['-drive', `if=none,id=${id},file=${path},format=qcow2,snapshot=on`, '-device', `virtio-blk-pci,drive=${id}`],
];

/** A machine in QEMU's own network, whose metadata address leads to our service. */
async function boot(memoryMiB: number, metadataPort: number, argv: readonly string[]) {
  const name = join(dir, `machine-${machines++}`);
  const port = await freePort();
  const network = [
    'user,id=n0,net=169.254.169.0/24,host=169.254.169.2,dns=169.254.169.3,dhcpstart=169.254.169.15',
    `hostfwd=tcp:127.0.0.1:${port}-:22`,
    `guestfwd=tcp:169.254.169.254:80-cmd:socat - tcp:127.0.0.1:${metadataPort}`,
  ].join();
  const child: ChildProcess = spawn(
    'qemu-system-x86_64',
    [
      ...QEMU,
      ...['-m', `${memoryMiB}`, ...outputs(name)],
      ...['-netdev', network, '-device', 'virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:99:88:01'],
      ...argv,
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  const exit = new Promise<void>(resolve => child.once('close', () => resolve()));
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  cleanups.push(async () => {
    if (!hasEnded()) child.kill('SIGKILL');
    await exit;
  });
  return { port, machine: watch(name, hasEnded) };
}

const answersFor = (publicKey: string) => ({
  'meta-data/instance-id': 'i-0000002a',
  'meta-data/hostname': 'proof-1.novalocal',
  'meta-data/public-keys/0/openssh-key': `${publicKey}\n`,
});

it('is small, and not built twice from the same inputs', async () => {
  expect(manifest).toMatchObject({ kind: 'guest', name: 'guest', distribution: 'debian', release: '12' });
  expect(manifest.disk.bytes).toBeLessThan(25 * MIB);
  expect(manifest.kernel.bytes + manifest.initrd.bytes).toBeLessThan(25 * MIB);
  const began = Date.now();
  const lines: string[] = [];
  expect(await buildGuestImage({ imagesDir, onProgress: line => lines.push(line) })).toEqual(manifest);
  expect(lines).toEqual([]);
  expect(Date.now() - began).toBeLessThan(2000);
});

it('is not built of packages that another keyring signed', async () => {
  const keyring = join(dir, 'empty.gpg');
  await writeFile(keyring, '');
  const build = buildGuestImage({ imagesDir: join(dir, 'images'), keyring });
  await expect(build).rejects.toMatchObject({ problem: { code: 'image-build' } });
  expect(readFileSync(join(dir, 'images/guest.build.log'), 'utf8')).toMatch(/NO_PUBKEY|not signed/);
});

it('boots from its disk, says what it got, takes our key, sees a disk come and go, and stops by the power button', async () => {
  const service = await metadata(
    { address: '127.0.0.1', port: 0 },
    {
      ...answersFor(executor.publicKey),
      'user-data': '#!/bin/sh\necho "user data of $(hostname)"\nexit 3\n',
    },
  );
  const began = Date.now();
  const { port, machine } = await boot(128, service.port, [
    ...overVirtio('d0', file('disk.qcow2')),
    ...['-device', 'virtio-rng-pci'],
  ]);
  const [, up] = await machine.shows(/^GUEST-READY up=([\d.]+)$/, BOOT_MS);
  console.log(`ready ${Date.now() - began} ms after power-on, ${up} s after the kernel's start`);
  const shown = machine.console();
  for (const line of [
    /^GUEST-INIT up=[\d.]+$/m,
    new RegExp(`^GUEST-DISK vda ${manifest.disk.rawBytes / 512}$`, 'm'),
    /^GUEST-NIC eth0 52:54:00:99:88:01$/m,
    /^GUEST-HOSTKEY ssh-ed25519 [A-Za-z0-9+/=]+$/m,
    /^GUEST-DHCP ip=169\.254\.169\.15 mask=24 router=169\.254\.169\.2 mtu= routes= nic=eth0$/m,
    /^GUEST-METADATA hostname=proof-1\.novalocal instance=i-0000002a$/m,
    new RegExp(`^GUEST-KEY ${executor.publicKey.length + 1}$`, 'm'),
  ])
    expect(shown).toMatch(line);
  await machine.shows(/^user data of proof-1\.novalocal\nGUEST-USERDATA exit=3$/, 30_000);
  expect(service.requests).toEqual([
    ...['instance-id', 'hostname', 'public-keys/0/openssh-key'].map(path => `/latest/meta-data/${path}`),
    '/latest/user-data',
  ]);

  const login = machine.login(port);
  const run = async (command: string) => {
    const result = await executor.run(login, command);
    expect(result, command).toMatchObject({ code: 0 });
    return result.stdout;
  };
  expect(await run('hostname; id -u; cat /sys/module/virtio_net/parameters/csum')).toBe('proof-1.novalocal\n0\nY\n');
  const tools =
    'sh dd sync ping ip nc sha256sum mount umount mkfs.ext2 cat reboot poweroff df free ps lsmod dmesg nslookup';
  expect(await run(`for tool in ${tools}; do command -v $tool >/dev/null || echo "no $tool"; done`)).toBe('');
  expect(await run('ping -c 1 -s 1472 169.254.169.2')).toContain('1480 bytes from 169.254.169.2');
  const stranger = ssh();
  await expect(stranger.run(login, 'id')).rejects.toMatchObject({ problem: { code: 'ssh-failed' } });
  await stranger.close();

  const disk = join(dir, 'volume.raw');
  await writeFile(disk, '');
  await truncate(disk, 32 * MIB);
  await machine.qmp('blockdev-add', { driver: 'raw', 'node-name': 'v1', file: { driver: 'file', filename: disk } });
  await machine.qmp('device_add', { driver: 'virtio-blk-pci', id: 'volume', drive: 'v1' });
  await machine.shows(/^GUEST-NEWDISK vdb 65536$/, 60_000);
  expect(
    await run(
      'mkfs.ext2 /dev/vdb >/dev/null && mount /dev/vdb /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null &&' +
        ' sync && sha256sum /mnt/file >/tmp/sum && umount /mnt && mount /dev/vdb /mnt && sha256sum -c /tmp/sum && umount /mnt',
    ),
  ).toBe('/mnt/file: OK\n');
  await machine.qmp('device_del', { id: 'volume' });
  await machine.shows(/^GUEST-GONEDISK vdb$/, 60_000);

  const pressed = Date.now();
  await machine.qmp('system_powerdown');
  await machine.ended(60_000);
  console.log(`off ${Date.now() - pressed} ms after the power button`);
  expect(machine.console()).toMatch(/^GUEST-POWERBUTTON\nGUEST-STOP up=/m);
});

it('boots from kernel and initrd with Nova’s own command line in its least memory, and again with another host key', async () => {
  const service = await metadata({ address: '127.0.0.1', port: 0 }, answersFor(executor.publicKey), 2);
  const { port, machine } = await boot(manifest.minMemoryMiB, service.port, [
    ...['-machine', 'q35', '-kernel', file('vmlinuz'), '-initrd', file('initrd')],
    // What nova.virt.libvirt makes of an image with kernel_id: the last console is one that the machine does not have.
    ...['-append', 'root=/dev/vda console=tty0 console=ttyS0 console=hvc0 no_timer_check quiet nocsum'],
  ]);
  await machine.shows(/^GUEST-READY up=/, BOOT_MS);
  expect(machine.console()).toMatch(/^GUEST-METADATA hostname=proof-1\.novalocal instance=i-0000002a$/m);
  expect(service.requests.slice(0, 3)).toEqual(Array(3).fill('/latest/meta-data/instance-id'));
  const first = machine.login(port);
  const csum = await executor.run(
    first,
    'cat /sys/module/virtio_net/parameters/csum /sys/module/virtio_net/parameters/gso',
  );
  expect(csum.stdout).toBe('N\nN\n');
  await executor.run(first, 'reboot');
  await machine.shows(/^GUEST-READY up=/, BOOT_MS, 2);
  const second = machine.login(port);
  expect(second.hostKey).not.toBe(first.hostKey);
  await expect(executor.run(first, 'id')).rejects.toMatchObject({ problem: { code: 'host-key-mismatch' } });
  expect((await executor.run(second, 'poweroff')).code).toBe(0);
  await machine.ended(60_000);
});

it('waits for an address as long as it takes, and follows the MTU, the routes and the resolver that come with it', async () => {
  const lab = openLab();
  cleanups.push(() => lab.close());
  lab.bridge('br0', '10.99.0.1/24');
  lab.ip(lab.server, 'addr', 'add', '169.254.169.254/32', 'dev', 'br0');
  lab.tap('tap0', 'br0');
  // Closed before its guest is gone: nobody would answer its farewell.
  const executor = ssh();
  await metadata({ address: '169.254.169.254', port: 80 }, answersFor(executor.publicKey));
  const name = join(lab.dir, 'machine');
  let ended = false;
  const qemu = lab.start(lab.server, [
    'qemu-system-x86_64',
    ...QEMU,
    ...['-m', '128', ...outputs(name), ...overVirtio('d0', file('disk.qcow2'))],
    ...['-netdev', 'tap,id=n0,ifname=tap0,script=no,downscript=no'],
    ...['-device', 'virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:99:88:02'],
  ]);
  cleanups.push(async () => {
    ended = true;
    await qemu.stop();
  });
  cleanups.push(() => executor.close());
  const machine = watch(name, () => ended);
  await machine.shows(/^GUEST-DHCP-WAIT nic=eth0 carrier=1 up=/, BOOT_MS);
  expect(machine.console()).not.toContain('GUEST-READY');
  lab.start(lab.server, [
    'dnsmasq',
    ...['--no-daemon', '--conf-file=/dev/null', '--port=0', '--user=root', '--interface=br0', '--bind-interfaces'],
    ...[`--dhcp-leasefile=${join(lab.dir, 'leases')}`, '--dhcp-range=10.99.0.50,10.99.0.60,255.255.255.0,600'],
    ...['--dhcp-option=option:mtu,1342', '--dhcp-option=option:dns-server,10.99.0.3'],
    // The router option differs on purpose: with classless routes it does not count.
    '--dhcp-option=option:router,10.99.0.77',
    '--dhcp-option=option:classless-static-route,169.254.169.254/32,10.99.0.1,10.98.0.0/16,10.99.0.2,0.0.0.0/0,10.99.0.1',
  ]);
  await machine.shows(/^GUEST-READY up=/, BOOT_MS);
  const [, ip = ''] = await machine.shows(
    /^GUEST-DHCP ip=(10\.99\.0\.\d+) mask=24 router=10\.99\.0\.77 mtu=1342 routes=169\.254\.169\.254\/32,10\.99\.0\.1,10\.98\.0\.0\/16,10\.99\.0\.2,0\.0\.0\.0\/0,10\.99\.0\.1 nic=eth0$/,
    1000,
  );
  const login = machine.login(22, ip);
  const state = await executor.run(login, 'ip route; cat /sys/class/net/eth0/mtu /etc/resolv.conf');
  expect(
    state.stdout
      .replaceAll(/ +/g, ' ')
      .split('\n')
      .map(line => line.trim())
      .sort(),
  ).toEqual(
    [
      '',
      '10.98.0.0/16 via 10.99.0.2 dev eth0 metric 2',
      `10.99.0.0/24 dev eth0 scope link src ${ip}`,
      '1342',
      '169.254.169.254 via 10.99.0.1 dev eth0 metric 2',
      'default via 10.99.0.1 dev eth0 metric 2',
      'nameserver 10.99.0.3',
    ].sort(),
  );
  // Small enough for the MTU and not to be split, or too large and split: both arrive.
  for (const bytes of [1314, 1315])
    expect((await executor.run(login, `ping -c 1 -W 10 -s ${bytes} 10.99.0.1`)).stdout).toContain(`${bytes + 8} bytes`);
});
