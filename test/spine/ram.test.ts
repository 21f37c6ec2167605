/**
 * The RAM environment for real: built from the archive (once for all suites), booted by QEMU in 512 MiB, calling home to
 * a receiver on loopback through QEMU's own network.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { RamCallHome } from '../../provisioner/boot/types.js';
import { buildRamImage } from '../../provisioner/image/ram/build.js';
import type { RamImageManifest } from '../../provisioner/image/types.js';
import { normaliseInventory } from '../../provisioner/inventory/normalise.js';
import { linkFiles, ramImage } from '../harness/images.js';

const run = promisify(execFile);
const MAC = '52:54:00:99:77:01';
const TOKEN = 'test-token-of-the-ram-environment';

let dir: string;
let imagesDir: string;
let key: string;
let manifest: RamImageManifest;
const running: ChildProcess[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'halligan-ram-'));
  // A copy that this test may change: only its keys are written anew.
  imagesDir = join(dir, 'images');
  linkFiles(join((await ramImage()).images, 'ram-cloud'), join(imagesDir, 'ram-cloud'));
  key = join(dir, 'key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'ram-test', '-f', key]);
  manifest = await buildRamImage({
    kernel: 'cloud',
    imagesDir,
    authorizedKeys: [await readFile(`${key}.pub`, 'utf8')],
  });
});

afterEach(async () => {
  for (const child of running.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await new Promise(resolve => child.once('exit', resolve));
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A port of loopback that nobody listens on at this moment. */
async function freePort(): Promise<number> {
  const server = createTcpServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}

interface Machine {
  readonly sshPort: number;
  /** What the serial console has shown. */
  console(): string;
  /** Waits for text on the console. Throws with its last lines after `timeoutMs`. */
  shows(text: string, timeoutMs: number): Promise<void>;
}

async function boot(url: string, options: { memoryMiB: number; initrd?: string; qemu?: string[] }): Promise<Machine> {
  const sshPort = await freePort();
  const image = join(imagesDir, manifest.name);
  const kernelLine = `${manifest.commandLine} console=ttyS0,115200 hal.url=${url} hal.token=${TOKEN} hal.mac=${MAC}`;
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-machine', 'q35,graphics=off', '-accel', 'tcg', '-cpu', 'max', '-smp', '1', '-m', `${options.memoryMiB}`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-kernel', join(image, manifest.kernel.name), '-initrd', options.initrd ?? join(image, manifest.initrd.name)],
      ...['-append', kernelLine],
      ...['-netdev', `user,id=n0,restrict=off,hostfwd=tcp:127.0.0.1:${sshPort}-:22`],
      ...['-device', `virtio-net-pci,netdev=n0,mac=${MAC},romfile=`, '-device', 'virtio-rng-pci'],
      ...(options.qemu ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  running.push(child);
  let output = '';
  const log = createWriteStream(join(dir, `console-${sshPort}.log`));
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => {
      output += data.toString('utf8');
      log.write(data);
    });
  return {
    sshPort,
    console: () => output,
    async shows(text, timeoutMs) {
      const until = Date.now() + timeoutMs;
      while (!output.includes(text)) {
        if (Date.now() > until || child.exitCode !== null)
          throw new Error(`${JSON.stringify(text)} did not appear on the console:\n${output.slice(-2000)}`);
        await new Promise(resolve => setTimeout(resolve, 100));
      }
    },
  };
}

/** A server that answers with the statuses in turn, the last one for ever, and keeps what it was sent. */
async function receiver(...statuses: number[]) {
  const requests: { path: string; authorization: string | undefined; report: RamCallHome }[] = [];
  const server = createServer(async (request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    requests.push({
      path: `${request.method} ${request.url}`,
      authorization: request.headers.authorization,
      report: JSON.parse(Buffer.concat(chunks).toString('utf8')) as RamCallHome,
    });
    response.writeHead(statuses[Math.min(requests.length, statuses.length) - 1] ?? 204);
    response.end('because the test says so');
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    requests,
    // 10.0.2.2 is this machine's loopback, as QEMU's user network shows it.
    url: `http://10.0.2.2:${(server.address() as AddressInfo).port}`,
    close: () => new Promise(resolve => server.close(resolve)),
  };
}

describe('the RAM environment in 512 MiB', () => {
  it('calls home through an outage, hands over the host key that it then shows, and takes our key only', async () => {
    const home = await receiver(503, 204);
    const disk = join(dir, 'disk.img');
    await run('truncate', ['-s', '256M', disk]);
    await run('sgdisk', ['-n', '1:0:+64M', '-c', '1:halligan-0badcafe', disk]);
    try {
      const machine = await boot(home.url, {
        memoryMiB: 512,
        qemu: [
          ...['-drive', `if=none,id=d0,file=${disk},format=raw`, '-device', 'virtio-blk-pci,drive=d0,serial=TESTDISK'],
          ...['-smbios', 'type=1,manufacturer=Halligan,product=Test,serial=SN-77'],
        ],
      });
      await machine.shows('answered 503: because the test says so; trying again', 300_000);
      await machine.shows('called home', 60_000);

      const { path, authorization, report } = home.requests[1]!;
      expect(path).toBe('POST /call-home/ram');
      expect(authorization).toBe(`Bearer ${TOKEN}`);
      expect(report).toMatchObject({ schema: 1, mac: MAC, firmware: 'bios' });
      expect(report.bootId).toMatch(/^[0-9a-f-]{36}$/);
      expect(JSON.stringify(report)).not.toContain(TOKEN);

      const inventory = normaliseInventory(report.raw);
      expect(inventory.warnings).toEqual([]);
      expect(inventory.system).toMatchObject({ manufacturer: 'Halligan', product: 'Test', serial: 'SN-77' });
      expect(inventory.nics).toMatchObject([{ mac: MAC, driver: 'virtio_net', carrier: true }]);
      expect(inventory.disks).toMatchObject([
        { path: '/dev/vda', serial: 'TESTDISK', sizeBytes: 256 * 2 ** 20, ownedBy: { nodeId: '0badcafe' } },
      ]);

      const known = join(dir, 'known_hosts');
      const shown = (await run('ssh-keyscan', ['-T', '60', '-t', 'ed25519', '-p', `${machine.sshPort}`, '127.0.0.1']))
        .stdout;
      expect(shown.split('\n').filter(line => line && !line.startsWith('#'))).toEqual([
        `[127.0.0.1]:${machine.sshPort} ${report.hostKey}`,
      ]);
      await writeFile(known, `[127.0.0.1]:${machine.sshPort} ${report.hostKey}\n`);
      const ssh = (identity: string, command: string) =>
        run('ssh', [
          ...[
            '-F',
            'none',
            '-i',
            identity,
            '-o',
            'IdentitiesOnly=yes',
            '-o',
            'IdentityAgent=none',
            '-o',
            'BatchMode=yes',
          ],
          ...['-o', `UserKnownHostsFile=${known}`, '-o', 'StrictHostKeyChecking=yes', '-o', 'ConnectTimeout=60'],
          ...['-p', `${machine.sshPort}`, 'root@127.0.0.1', command],
        ]);

      // What installer and executor call must be there, and in the PATH of a session.
      const tools =
        'curl jq lsblk dmidecode smartctl ethtool tcpdump ipmitool efibootmgr sgdisk parted mdadm lvcreate mkfs.ext4 mkfs.vfat mkfs.xfs zstd tar wipefs blkdiscard nvme hdparm systemd-run chroot resize2fs';
      const missing = await ssh(key, `for tool in ${tools}; do command -v $tool >/dev/null || echo $tool; done`);
      expect(missing.stdout).toBe('');
      const unit = await ssh(key, 'systemd-run --quiet --wait --pipe cat /proc/sys/kernel/random/boot_id');
      expect(unit.stdout.trim()).toBe(report.bootId);
      expect((await ssh(key, 'systemctl --failed --no-legend --plain')).stdout).toBe('');

      const stranger = join(dir, 'stranger');
      await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', stranger]);
      await expect(ssh(stranger, 'true')).rejects.toThrow('Permission denied (publickey)');
    } finally {
      await home.close();
    }
  });

  it('says on its console why it was refused, and asks no more', async () => {
    const home = await receiver(403);
    try {
      const machine = await boot(home.url, { memoryMiB: 512 });
      await machine.shows('refused us with 403: because the test says so', 300_000);
      await machine.shows('boot the node again for a new token', 10_000);
      expect(home.requests).toHaveLength(1);
    } finally {
      await home.close();
    }
  });

  it('says that the initrd is damaged when it was cut short on the way', async () => {
    const cut = join(dir, 'cut-initrd');
    await copyFile(join(imagesDir, manifest.name, manifest.initrd.name), cut);
    await truncate(cut, 20_000_000);
    const machine = await boot('http://10.0.2.2:9', { memoryMiB: 512, initrd: cut });
    await machine.shows('halligan: the file system image cannot be mounted (damaged on the way', 300_000);
  });
});

describe('building it', () => {
  it('does nothing for the same inputs, and writes only the end anew for another key', async () => {
    const again = await buildRamImage({
      kernel: 'cloud',
      imagesDir,
      authorizedKeys: [await readFile(`${key}.pub`, 'utf8')],
    });
    expect(again).toEqual(manifest);
    const startedMs = Date.now();
    const other = await buildRamImage({ kernel: 'cloud', imagesDir, authorizedKeys: ['ssh-ed25519 AAAAother other'] });
    expect(Date.now() - startedMs).toBeLessThan(20_000);
    expect(other.kernel.sha256).toBe(manifest.kernel.sha256);
    expect(other.initrd.sha256).not.toBe(manifest.initrd.sha256);
    expect((await readFile(join(imagesDir, manifest.name, 'initrd'))).includes('ssh-ed25519 AAAAother other')).toBe(
      true,
    );
  });
});
