/**
 * A machine with real systemd and real sshd: a systemd-nspawn container on this machine's loopback. Its disk is an
 * overlay in memory, gone with it. Needs root, mmdebstrap and systemd-container.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { soundKeyPair } from '../unit/executor/shell-server.js';

const run = promisify(execFile);

const SUITE = 'bookworm';
const PACKAGES =
  'systemd-sysv,libpam-systemd,openssh-server,sudo,iproute2,dbus,kmod,udev,pciutils,dmidecode,ethtool,lshw,smartmontools,python3-minimal';

/** The root file system, built once and kept in the cache. */
async function rootFileSystem(): Promise<string> {
  const cache = process.env['HALLIGAN_CACHE'] ?? resolve('.cache');
  const hash = createHash('sha256').update(`${SUITE} ${PACKAGES}`).digest('hex').slice(0, 12);
  const dir = join(cache, `systemd-host-${SUITE}-${hash}`);
  if (existsSync(dir)) return dir;
  mkdirSync(cache, { recursive: true });
  const draft = mkdtempSync(join(cache, '.systemd-host-'));
  try {
    const tar = join(draft, 'root.tar');
    await run(
      'mmdebstrap',
      [
        '--mode=root',
        '--variant=minbase',
        `--include=${PACKAGES}`,
        '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        SUITE,
        tar,
      ],
      { timeout: 600_000, maxBuffer: 64 * 1024 * 1024 },
    );
    const root = join(draft, 'root');
    mkdirSync(root);
    await run('tar', ['-C', root, '-xpf', tar]);
    renameSync(root, dir);
    return dir;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as net.AddressInfo;
  await new Promise(done => server.close(done));
  return port;
}

export interface SystemdHost {
  readonly port: number;
  /** It listens on these. */
  readonly addresses: readonly string[];
  readonly hostKey: string;
  /** Logs in as root and as `op` (sudo without password) and `plain` (no sudo). */
  readonly privateKey: string;
  /** Pulls the plug and starts it again, with the same host key and an empty /run. */
  reboot(): Promise<void>;
  pullPlug(): Promise<void>;
  stop(): Promise<void>;
}

export interface HostOptions {
  /** Replaces /etc/os-release. */
  readonly osRelease?: string;
}

export async function startSystemdHost(options: HostOptions = {}): Promise<SystemdHost> {
  const root = await rootFileSystem();
  const dir = mkdtempSync(join(tmpdir(), 'hal-host-'));
  const port = await freePort();
  const hostPair = soundKeyPair();
  const clientPair = soundKeyPair();
  const addresses = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4'];
  // sshd reads a user's keys with the rights of that user.
  chmodSync(dir, 0o755);
  mkdirSync(join(dir, 'keys'));
  for (const user of ['root', 'op', 'plain']) writeFileSync(join(dir, 'keys', user), clientPair.public);
  writeFileSync(join(dir, 'hostkey'), hostPair.private, { mode: 0o600 });
  writeFileSync(
    join(dir, 'sshd.conf'),
    [
      `Port ${port}`,
      ...addresses.map(a => `ListenAddress ${a}`),
      'HostKey /etc/hal/hostkey',
      'AuthorizedKeysFile /etc/hal/keys/%u .ssh/authorized_keys',
      'PermitRootLogin yes',
      'StrictModes no',
      'PasswordAuthentication yes',
      'KbdInteractiveAuthentication no',
      'MaxStartups 100',
      '',
    ].join('\n'),
  );
  // Users are made at boot, since the disk is made anew each time.
  writeFileSync(
    join(dir, 'users.sh'),
    [
      'for u in op plain; do id $u || useradd -m -s /bin/sh $u; echo $u:secret-$u | chpasswd; done',
      'echo "op ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/op',
      'hostname hal-host',
      '',
    ].join('\n'),
  );
  writeFileSync(join(dir, 'users.conf'), '[Service]\nExecStartPre=/bin/sh /etc/hal/users.sh\n');
  if (options.osRelease !== undefined) writeFileSync(join(dir, 'os-release'), options.osRelease);
  let nspawn: ChildProcess | undefined;

  const pullPlug = async (): Promise<void> => {
    const child = nspawn;
    nspawn = undefined;
    if (!child?.pid || child.exitCode !== null) return;
    const ended = new Promise<void>(done => child.once('exit', () => done()));
    // The init of the container, not nspawn: the kernel then takes down the whole process namespace at once.
    const init = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0];
    if (init) process.kill(Number(init), 'SIGKILL');
    else child.kill('SIGKILL');
    await ended;
  };
  const boot = async (): Promise<void> => {
    nspawn = spawn(
      'systemd-nspawn',
      [
        '--quiet',
        `--directory=${root}`,
        '--volatile=overlay',
        `--machine=hal-${randomBytes(4).toString('hex')}`,
        '--register=no',
        '--keep-unit',
        '--resolv-conf=off',
        '--timezone=off',
        '--link-journal=no',
        '--console=pipe',
        `--bind-ro=${dir}:/etc/hal`,
        `--bind-ro=${join(dir, 'sshd.conf')}:/etc/ssh/sshd_config.d/hal.conf`,
        `--bind-ro=${join(dir, 'users.conf')}:/etc/systemd/system/ssh.service.d/hal.conf`,
        ...(options.osRelease === undefined ? [] : [`--bind-ro=${join(dir, 'os-release')}:/usr/lib/os-release`]),
        '--boot',
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, SYSTEMD_NSPAWN_LOCK: '0' } },
    );
    let said = '';
    nspawn.stdout!.on('data', (chunk: Buffer) => {
      said = (said + chunk).slice(-4000);
    });
    nspawn.stderr!.on('data', (chunk: Buffer) => {
      said = (said + chunk).slice(-4000);
    });
    const until = Date.now() + 60_000;
    for (;;) {
      const banner = await new Promise<boolean>(done => {
        const socket = net.connect(port, addresses[0]!);
        socket.on('error', () => done(false));
        socket.on('data', () => {
          socket.destroy();
          done(true);
        });
        socket.setTimeout(1000, () => {
          socket.destroy();
          done(false);
        });
      });
      if (banner) return;
      if (nspawn.exitCode !== null || Date.now() > until) {
        await pullPlug();
        throw new Error(`the container did not boot: ${said}`);
      }
      await new Promise(done => setTimeout(done, 100));
    }
  };
  await boot();
  return {
    port,
    addresses,
    hostKey: hostPair.public.trim().split(' ').slice(0, 2).join(' '),
    privateKey: clientPair.private,
    reboot: async () => {
      await pullPlug();
      await boot();
    },
    pullPlug,
    stop: async () => {
      await pullPlug();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export interface Cable {
  readonly port: number;
  /** Bytes from the host so far. */
  readonly bytes: () => number;
  cut(): void;
  /** While unplugged, nothing connects. */
  unplug(): void;
  plug(): void;
  close(): Promise<void>;
}

/** A TCP forwarder that can be cut. */
export async function startCable(port: number, address = '127.0.0.1'): Promise<Cable> {
  const sockets = new Set<net.Socket>();
  let plugged = true;
  let bytes = 0;
  const server = net.createServer(near => {
    if (!plugged) return near.destroy();
    const far = net.connect(port, address);
    for (const s of [near, far]) {
      sockets.add(s);
      s.on('error', () => {});
      s.on('close', () => {
        sockets.delete(s);
        near.destroy();
        far.destroy();
      });
    }
    far.on('data', chunk => {
      bytes += chunk.length;
    });
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  const cut = () => {
    for (const s of sockets) s.destroy();
  };
  return {
    port: (server.address() as net.AddressInfo).port,
    bytes: () => bytes,
    cut,
    unplug: () => {
      plugged = false;
      cut();
    },
    plug: () => {
      plugged = true;
    },
    close: async () => {
      cut();
      await new Promise(done => server.close(done));
    },
  };
}
