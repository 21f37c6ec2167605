/** Hosts that are systemd-nspawn containers with real systemd and sshd: already installed machines, for adoption. */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sleep } from '../core/clock.js';
import { fail } from '../core/problem.js';
import { LAB_MARK } from './plan.js';
import type { Lab, LabHost, LabSpec } from './types.js';

const execFileAsync = promisify(execFile);

/** What an installed server has at least; sshd is how it is adopted. */
const PACKAGES = [
  ...['systemd-sysv', 'dbus', 'openssh-server', 'iproute2', 'iputils-ping', 'python3', 'ca-certificates', 'curl'],
  ...['procps', 'udev', 'sudo', 'kmod', 'less'],
];
const SUITE = 'bookworm';
const BUILD_MS = 20 * 60_000;
const READY_MS = 120_000;

/** Mount points at or below `dir`, deepest first (proc(5), mountinfo). */
export function mountsBelow(mountinfo: string, dir: string): string[] {
  return mountinfo
    .split('\n')
    .map(line => line.split(' ')[4])
    .filter(point => point !== undefined)
    .map(point => point.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))))
    .filter(point => point === dir || point.startsWith(`${dir}/`))
    .reverse();
}

export async function unmountBelow(dir: string): Promise<void> {
  for (const point of mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir)) {
    await execFileAsync('umount', [point]).catch(() => execFileAsync('umount', ['-l', point]));
  }
}

/** Namespace of one host; a dot never stands in a lab's name, so that labs do not meet. */
export const hostNetns = (lab: Pick<Lab, 'netns'>, host: string) => `${lab.netns}.${host}`;

async function run(file: string, args: readonly string[], timeout = 60_000): Promise<string> {
  try {
    return (await execFileAsync(file, [...args], { timeout, maxBuffer: 1 << 24 })).stdout;
  } catch (error) {
    const failure = error as NodeJS.ErrnoException & { stderr?: string };
    if (failure.code === 'ENOENT') fail('dependency-missing', `The lab needs \`${file}\`, which is not installed.`);
    const last = (failure.stderr || failure.message).trim().split('\n').slice(-3).join(' | ');
    return fail('lab-failed', `\`${file} ${args.slice(0, 3).join(' ')}…\` failed: ${last}`);
  }
}

/** The root file system that all hosts share below their own changes; built once and kept. */
async function baseRoot(spec: LabSpec): Promise<string> {
  if (spec.rootfs) {
    if (!existsSync(join(spec.rootfs, 'usr/sbin/sshd'))) {
      fail('request-invalid', `The root file system ${spec.rootfs} has no sshd: hosts could not be adopted.`);
    }
    return spec.rootfs;
  }
  const cache = spec.cacheDir ?? '/var/cache/halligan/lab';
  const key = createHash('sha256')
    .update(`${SUITE} ${PACKAGES.join(',')}`)
    .digest('hex')
    .slice(0, 12);
  const root = join(cache, `rootfs-${SUITE}-${key}`);
  if (existsSync(root)) return root;
  mkdirSync(cache, { recursive: true });
  const temporary = `${root}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  try {
    await run(
      'mmdebstrap',
      ['--quiet', '--variant=minbase', '--mode=root', `--include=${PACKAGES.join(',')}`, SUITE, temporary],
      BUILD_MS,
    );
    chmodSync(temporary, 0o755);
    // Complete or not there at all; somebody else may have been faster.
    if (!existsSync(root)) renameSync(temporary, root);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return root;
}

async function prepare(lab: Lab, host: LabHost, base: string, names: string): Promise<string> {
  const [upper, work] = [join(host.dir, 'upper'), join(host.dir, 'work')];
  for (const dir of [upper, work, host.root]) mkdirSync(dir, { recursive: true });
  const options = `lowerdir=${base},upperdir=${upper},workdir=${work}`;
  if (/[,:\\]/.test(base + host.dir)) fail('request-invalid', 'Folders of a lab have no comma, colon or backslash.');
  await run('mount', ['-t', 'overlay', 'overlay', '-o', options, host.root]);
  const at = (...path: string[]) => join(host.root, ...path);
  // Through the root of the host itself no link of it can lead outside: this runs before anything of it does.
  writeFileSync(at('etc/hostname'), `${host.name}\n`);
  writeFileSync(at('etc/hosts'), `127.0.0.1 localhost\n${names}`);
  rmSync(at('etc/resolv.conf'), { force: true });
  writeFileSync(at('etc/resolv.conf'), '');
  writeFileSync(at('etc/machine-id'), '');
  rmSync(at('usr/sbin/policy-rc.d'), { force: true });
  mkdirSync(at('root/.ssh'), { recursive: true, mode: 0o700 });
  writeFileSync(at('root/.ssh/authorized_keys'), lab.sshKeys.map(key => `${key}\n`).join(''), { mode: 0o600 });
  for (const kind of ['rsa', 'ecdsa', 'ed25519']) {
    rmSync(at(`etc/ssh/ssh_host_${kind}_key`), { force: true });
    rmSync(at(`etc/ssh/ssh_host_${kind}_key.pub`), { force: true });
  }
  const key = at('etc/ssh/ssh_host_ed25519_key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', host.name, '-f', key]);
  return readFileSync(`${key}.pub`, 'utf8').split(' ').slice(0, 2).join(' ').trim();
}

async function connectHost(lab: Lab, host: LabHost): Promise<void> {
  const ns = hostNetns(lab, host.name);
  await run('ip', ['netns', 'add', ns]);
  const peer = ['peer', 'name', 'eth0', 'address', host.mac, 'netns', ns];
  await run('ip', ['-n', lab.netns, 'link', 'add', host.veth, 'type', 'veth', ...peer]);
  await run('ip', ['-n', lab.netns, 'link', 'set', host.veth, 'master', lab.bridge, 'up']);
  await run('ip', ['-n', ns, 'link', 'set', 'lo', 'up']);
  await run('ip', ['-n', ns, 'addr', 'add', `${host.address}/24`, 'dev', 'eth0']);
  await run('ip', ['-n', ns, 'link', 'set', 'eth0', 'up']);
  await run('ip', ['-n', ns, 'route', 'add', 'default', 'via', lab.address]);
}

function boot(lab: Lab, host: LabHost): void {
  const log = openSync(join(host.dir, 'console.log'), 'a', 0o600);
  const child = spawn(
    'systemd-nspawn',
    [
      ...['-q', '-D', host.root, `--machine=${lab.netns}-${host.name}`, `--hostname=${host.name}`],
      // Not a unit of the machine's systemd: it works where there is none, and dies with what carries our mark.
      ...['--register=no', '--keep-unit', `--network-namespace-path=/run/netns/${hostNetns(lab, host.name)}`],
      ...['--capability=all', '--resolv-conf=off', '--timezone=off', '--link-journal=no', '--console=pipe', '-b'],
      ...(existsSync('/dev/net/tun') ? ['--bind=/dev/net/tun'] : []),
    ],
    {
      detached: true,
      stdio: ['ignore', log, log],
      cwd: '/',
      env: {
        PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
        // Its own /sys/class/net, and net sysctls that can be written; without it the machine's devices show.
        SYSTEMD_NSPAWN_API_VFS_WRITABLE: 'network',
        SYSTEMD_NSPAWN_LOCK: '0',
        [LAB_MARK]: lab.name,
      },
    },
  );
  child.once('error', () => {});
  child.unref();
  closeSync(log);
}

/** Waits until sshd shows the host key that was made for it. */
async function ready(lab: Lab, host: LabHost): Promise<void> {
  const until = performance.now() + READY_MS;
  const args = ['netns', 'exec', lab.netns, 'ssh-keyscan', '-T', '2', '-t', 'ed25519', host.address];
  while (performance.now() < until) {
    const shown = await execFileAsync('ip', args, { timeout: 10_000 }).then(
      result => result.stdout,
      () => '',
    );
    if (shown.includes(host.hostKey)) return;
    await sleep(300);
  }
  const log = readFileSync(join(host.dir, 'console.log'), 'utf8').trim().split('\n').slice(-3).join(' | ');
  fail('lab-failed', `The sshd of host "${host.name}" did not answer within ${READY_MS / 1000} s: ${log}`);
}

/** Boots all hosts of the lab and waits for their sshd. Throws ProblemError: dependency-missing, lab-failed. */
export async function startHosts(lab: Lab, spec: LabSpec): Promise<LabHost[]> {
  const base = await baseRoot(spec);
  const names = lab.hosts.map(host => `${host.address} ${host.name}\n`).join('');
  const hosts: LabHost[] = [];
  for (const planned of lab.hosts) {
    const host = { ...planned, hostKey: await prepare(lab, planned, base, names) };
    await connectHost(lab, host);
    boot(lab, host);
    hosts.push(host);
  }
  for (const host of hosts) await ready(lab, host);
  return hosts;
}
