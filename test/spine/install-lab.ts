/**
 * Machines for tests of the installer: QEMU with disks, the RAM environment started directly (no DHCP, no firmware
 * network boot: other tests have these), and a server that hands out the image and takes the calls home. The guest's
 * network ends in QEMU: it reaches our server and nothing else.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '../../provisioner/core/clock.js';
import { createExecutor, type PooledExecutor } from '../../provisioner/core/executor/executor.js';
import type { SshTarget } from '../../provisioner/core/executor/types.js';
import { makeSshKey } from '../../provisioner/core/keys.js';
import { silentLog } from '../../provisioner/core/log.js';
import { createImageStore } from '../../provisioner/image/store.js';
import type { ImageStore, OsImageManifest } from '../../provisioner/image/types.js';
import { createJobMaker } from '../../provisioner/install/jobs.js';
import { normaliseInventory } from '../../provisioner/inventory/normalise.js';
import type { Inventory } from '../../provisioner/inventory/types.js';
import type { JobLine, NodeJob } from '../../provisioner/node/context.js';
import type { ActionParams } from '../../provisioner/node/service.js';
import type { Node } from '../../provisioner/node/types.js';
import type { InstallConfig, Site } from '../../provisioner/site/schema.js';
import { bothImages } from '../harness/images.js';

const run = promisify(execFile);

/** Where the guest sees our server. */
export const GUEST_URL = 'http://10.0.2.100:80';
const TCG_CPU = 'Nehalem,vendor=AuthenticAMD';
export const NODE_ID = '5f0c2a41-9d7e-4c1b-8a35-6e2f1b7d9c03';
const OVMF = { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', vars: '/usr/share/OVMF/OVMF_VARS_4M.fd' };

export interface CallHome {
  readonly path: string;
  readonly token: string;
  readonly body: Record<string, unknown>;
}

export interface Machine {
  readonly child: ChildProcess;
  readonly sshPort: number;
  /** What the serial console has shown. */
  console(): Promise<string>;
  /** User and system seconds of the QEMU process so far. */
  cpuSeconds(): Promise<number>;
  /** As if the plug was pulled. */
  kill(): Promise<void>;
}

export interface InstallLab {
  readonly dir: string;
  readonly images: ImageStore;
  readonly executor: PooledExecutor;
  /** Answers of the server instead of the image's bytes, for tests of broken transfers. */
  tamper: ((path: string, bytes: Buffer) => Buffer) | null;
  disk(name: string, gib: number): Promise<string>;
  /** A second disk with the same content. */
  copy(disk: string, name: string): Promise<string>;
  /** Boots the RAM environment and waits until it has called home. */
  ram(disks: readonly string[]): Promise<{ machine: Machine; target: SshTarget; inventory: Inventory }>;
  /** Boots from the first disk and waits for the installed system's call home. */
  boot(
    disks: readonly string[],
    firmware: 'bios' | 'uefi',
    hostKey: string,
  ): Promise<{ machine: Machine; target: SshTarget; report: CallHome; seconds: number; cpuSeconds: number }>;
  job(
    inventory: Inventory,
    install: Partial<InstallConfig>,
    params?: ActionParams,
    site?: Partial<Site>,
  ): Promise<NodeJob>;
  read(line: string): JobLine;
  calls: CallHome[];
  close(): Promise<void>;
}

export async function installLab(): Promise<InstallLab> {
  const store = createImageStore((await bothImages()).images);
  const dir = await mkdtemp(join(tmpdir(), 'halligan-install-'));
  const executor = createExecutor({ privateKey: makeSshKey(), clock: systemClock, log: silentLog, maxConnections: 4 });
  const machines = new Set<Machine>();
  const calls: CallHome[] = [];
  const waiting = new Set<(call: CallHome) => void>();

  const server = createServer(async (request, response) => {
    const path = request.url ?? '/';
    if (request.method === 'POST') {
      const call: CallHome = {
        path,
        token: (request.headers.authorization ?? '').replace(/^Bearer /, ''),
        body: JSON.parse((await body(request)).toString()),
      };
      calls.push(call);
      response.writeHead(204).end();
      for (const notify of waiting) notify(call);
      return;
    }
    const [, , name = '', file = ''] = path.split('/');
    try {
      const source = await store.path(decodeURIComponent(name), decodeURIComponent(file));
      if (lab.tamper) response.end(lab.tamper(path, await readFile(source)));
      else {
        response.writeHead(200, { 'content-length': (await stat(source)).size });
        createReadStream(source).pipe(response);
      }
    } catch {
      response.writeHead(404).end();
    }
  });
  const serverPort = await listening(server);

  const nextCall = (path: string, seconds: number, machine: Machine) =>
    new Promise<CallHome>((resolve, reject) => {
      const end = (act: () => void) => {
        clearTimeout(timer);
        waiting.delete(take);
        machine.child.off('exit', gone);
        act();
      };
      const take = (call: CallHome) => {
        if (call.path === path) end(() => resolve(call));
      };
      const gone = async () => {
        const shown = (await machine.console()).slice(-1500);
        end(() => reject(new Error(`the machine ended: ${shown}`)));
      };
      const timer = setTimeout(async () => {
        const shown = (await machine.console()).slice(-1500);
        end(() => reject(new Error(`no POST ${path} within ${seconds} s; the console ends with:\n${shown}`)));
      }, seconds * 1000);
      waiting.add(take);
      machine.child.once('exit', gone);
    });

  let count = 0;
  async function start(disks: readonly string[], more: string[]): Promise<Machine> {
    const sshPort = await freePort();
    const log = join(dir, `console-${++count}.log`);
    await writeFile(log, '');
    const args = [
      ...['-machine', 'q35,graphics=off', '-accel', 'tcg,thread=multi,tb-size=256', '-cpu', TCG_CPU, '-m', '1024'],
      ...['-nodefaults', '-display', 'none', '-no-user-config', '-device', 'virtio-rng-pci'],
      ...['-chardev', `file,id=s0,path=${log}`, '-serial', 'chardev:s0'],
      ...disks.flatMap((disk, n) => [
        ...['-drive', `if=none,id=d${n},file=${disk},format=raw,cache=unsafe,discard=unmap`],
        ...['-device', `virtio-blk-pci,drive=d${n},serial=HALTEST${n}`],
      ]),
      '-netdev',
      `user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:${sshPort}-:22,guestfwd=tcp:10.0.2.100:80-cmd:socat - TCP:127.0.0.1:${serverPort}`,
      ...['-device', 'virtio-net-pci,netdev=n0,mac=52:54:00:99:00:01,romfile='],
      ...more,
    ];
    const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let complaint = '';
    child.stderr?.on('data', chunk => {
      complaint = (complaint + String(chunk)).slice(-2000);
    });
    const exited = new Promise<void>(resolve => child.once('exit', () => resolve()));
    const machine: Machine = {
      child,
      sshPort,
      console: async () => complaint + (await readFile(log, 'latin1')),
      cpuSeconds: async () => {
        const fields = (await readFile(`/proc/${child.pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
        return (Number(fields[11]) + Number(fields[12])) / 100;
      },
      kill: async () => {
        machines.delete(machine);
        child.kill('SIGKILL');
        await exited;
      },
    };
    machines.add(machine);
    return machine;
  }

  async function firmwareArgs(firmware: 'bios' | 'uefi', first: string): Promise<string[]> {
    if (firmware === 'bios') return [];
    const vars = `${first}.vars`;
    await stat(vars).catch(() => copyFile(OVMF.vars, vars));
    return [
      ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF.code}`],
      ...['-drive', `if=pflash,format=raw,unit=1,file=${vars}`],
    ];
  }

  const lab: InstallLab = {
    dir,
    images: store,
    executor,
    tamper: null,
    calls,
    async disk(name, gib) {
      const path = join(dir, `${name}.raw`);
      await run('truncate', ['-s', `${gib}G`, path]);
      return path;
    },
    async copy(disk, name) {
      const path = join(dir, `${name}.raw`);
      await run('cp', ['--sparse=always', disk, path]);
      return path;
    },
    async ram(disks) {
      const image = await store.get('ram-cloud');
      if (image.kind !== 'ram') throw new Error('ram-cloud is no RAM environment');
      // The key of this test in a cpio of its own: the last file of a name wins.
      const initrd = join(dir, 'initrd');
      await writeFile(join(dir, 'authorized_keys'), `${executor.publicKey}\n`);
      await run('sh', [
        '-c',
        'cd "$1" && cp "$2" initrd && truncate -s %4096 initrd && echo authorized_keys | cpio --quiet -o -H newc >>initrd',
        'sh',
        dir,
        await store.path('ram-cloud', image.initrd.name),
      ]);
      const machine = await start(disks, [
        ...['-kernel', await store.path('ram-cloud', image.kernel.name), '-initrd', initrd, '-append'],
        `${image.commandLine ?? ''} console=ttyS0,115200 hal.url=${GUEST_URL} hal.token=test hal.mac=52:54:00:99:00:01`,
      ]);
      const report = await nextCall('/call-home/ram', 300, machine);
      const { raw, hostKey } = report.body as { raw: unknown; hostKey: string };
      return {
        machine,
        target: { address: '127.0.0.1', port: machine.sshPort, user: 'root', hostKey },
        inventory: normaliseInventory(raw),
      };
    },
    async boot(disks, firmware, hostKey) {
      const began = Date.now();
      const machine = await start(disks, await firmwareArgs(firmware, disks[0]!));
      const report = await nextCall('/call-home/installed', 400, machine);
      return {
        machine,
        target: { address: '127.0.0.1', port: machine.sshPort, user: 'hal', hostKey, sudo: true },
        report,
        seconds: (Date.now() - began) / 1000,
        cpuSeconds: await machine.cpuSeconds(),
      };
    },
    job: (inventory, install, params = {}, site = {}) => {
      const maker = createJobMaker({
        site: { ...testSite, ...site } as Site,
        images: store,
        serverKey: executor.publicKey,
      });
      const node = {
        id: NODE_ID,
        name: 'n01',
        macs: ['52:54:00:99:00:01'],
        spec: { install },
        status: { inventory, ram: null, platform: null },
      } as unknown as Node;
      return maker.install(node, { image: 'debian-12-cloud', ...params }, 'first-boot-token', GUEST_URL);
    },
    read: line => createJobMaker({ site: testSite as Site, images: store, serverKey: executor.publicKey }).read(line),
    async close() {
      for (const machine of [...machines]) await machine.kill();
      await executor.close();
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
      await rm(dir, { recursive: true, force: true });
    },
  };
  return lab;
}

const testSite = {
  name: 'test',
  domain: 'halligan.internal',
  images: { default: 'debian-12-cloud' },
  boot: { console: 'ttyS0,115200' },
  install: { login: 'hal', ssh_keys: [] },
  deadlines: { installing_seconds: 900 },
} as unknown as Partial<Site>;

/** Runs a job as the server does, and returns how it ended with everything that it said. */
export async function follow(
  lab: InstallLab,
  target: SshTarget,
  job: NodeJob,
  unit: string,
  onLine: (line: string) => void = () => {},
): Promise<{ code: number; lines: string[]; hostKey: string; problem: string; stages: Record<string, number> }> {
  const lines: string[] = [];
  const seen = { hostKey: '', problem: '' };
  const result = await lab.executor.detached(target, { unit, ...job }, line => {
    lines.push(line);
    const read = lab.read(line);
    if (read.kind === 'result') seen.hostKey = read.hostKey;
    if (read.kind === 'problem') seen.problem = read.message;
    onLine(line);
  });
  const starts = lines.flatMap(line => {
    const match = /^HALLIGAN stage (\S+) (\d+)$/.exec(line);
    return match ? [[match[1]!, Number(match[2])] as const] : [];
  });
  return { code: result.kind === 'exited' ? result.code : -1, lines, ...seen, stages: Object.fromEntries(starts) };
}

async function body(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function freePort(): Promise<number> {
  const probe = createTcpServer();
  await new Promise<void>(resolve => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise(resolve => probe.close(resolve));
  return port;
}

export type { OsImageManifest };
