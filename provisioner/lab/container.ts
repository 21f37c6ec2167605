/** Hosts that are systemd-nspawn containers with real systemd and sshd: already installed machines, for adoption. */
import { execFile, spawn } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sleep } from '../core/clock.js';
import { fail } from '../core/problem.js';
import { LAB_MARK, stableUuid } from './plan.js';
import {
  alive,
  allPids,
  carries,
  commandLine,
  identify,
  isContainerInit,
  netnsInode,
  netnsOfProcess,
  type ProcessId,
  signal,
} from './procs.js';
import { labRootfs } from './rootfs.js';
import type { Lab, LabHost, LabSpec } from './types.js';

const execFileAsync = promisify(execFile);

const READY_MS = 120_000;
const STOP_MS = 20_000;
const KVM = '/dev/kvm';
/** What a host sees of this machine, where there is such a thing. */
const DEVICES = ['/dev/net/tun', '/dev/fuse', '/dev/loop-control', KVM];
/** Loop devices that a host finds ready-made; the kernel makes them when they are used. */
const LOOP_DEVICES = 32;

const unescapeMount = (point: string) =>
  point.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));

/** Mount points at or below `dir`, deepest first (proc(5), mountinfo). */
export function mountsBelow(mountinfo: string, dir: string): string[] {
  return mountinfo
    .split('\n')
    .map(line => line.split(' ')[4])
    .filter(point => point !== undefined)
    .map(unescapeMount)
    .filter(point => point === dir || point.startsWith(`${dir}/`))
    .reverse();
}

/** Device numbers, MAJOR:MINOR, of what is mounted at or below `dir`. */
export function devicesBelow(mountinfo: string, dir: string): Set<string> {
  const below = new Set(mountsBelow(mountinfo, dir));
  return new Set(
    mountinfo.split('\n').flatMap(line => {
      const [, , device, , point] = line.split(' ');
      return device !== undefined && point !== undefined && below.has(unescapeMount(point)) ? [device] : [];
    }),
  );
}

export async function unmountBelow(dir: string): Promise<void> {
  for (const point of mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir)) {
    await execFileAsync('umount', [point]).catch(() => execFileAsync('umount', ['-l', point]));
  }
}

/**
 * Detaches loop devices whose files are on the file system mounted at `dir` or below: a host that lost its power cannot,
 * and they would hold its disk for ever.
 */
export async function detachLoops(dir: string): Promise<void> {
  const devices = devicesBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir);
  if (devices.size === 0) return;
  const { stdout } = await execFileAsync('losetup', ['--list', '--json', '--output', 'NAME,BACK-MAJ:MIN']);
  for (const loop of loopsOn(stdout, devices)) await execFileAsync('losetup', ['--detach', loop]).catch(() => {});
}

/** Of `losetup --list --json` the devices whose files are on file systems of these numbers. */
export function loopsOn(json: string, devices: ReadonlySet<string>): string[] {
  // Without any loop device there is no output at all.
  if (json.trim() === '') return [];
  const { loopdevices } = JSON.parse(json) as { loopdevices: { name: string; 'back-maj:min': string | null }[] };
  return loopdevices.filter(loop => devices.has(loop['back-maj:min']?.trim() ?? '')).map(loop => loop.name);
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

const isMounted = (dir: string) => mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir).includes(dir);

async function prepare(lab: Lab, host: LabHost, base: string, names: string): Promise<string> {
  const [upper, work] = [join(host.dir, 'upper'), join(host.dir, 'work')];
  for (const dir of [upper, work, host.root]) mkdirSync(dir, { recursive: true });
  // It becomes the host's root folder, whatever our umask is.
  chmodSync(upper, 0o755);
  const lowers = [...host.layers, base];
  if (/[,:\\]/.test(lowers.join('') + host.dir)) {
    fail('request-invalid', 'Folders of a lab have no comma, colon or backslash.');
  }
  const options = `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${work}`;
  await run('mount', ['-t', 'overlay', 'overlay', '-o', options, host.root]);
  const at = (...path: string[]) => join(host.root, ...path);
  // Through the root of the host itself no link of it can lead outside: this runs before anything of it does.
  const put = (path: string, text: string) => {
    writeFileSync(at(path), text);
    // Services that are not root's read them, too, whatever our umask is.
    chmodSync(at(path), 0o644);
  };
  put('etc/hostname', `${host.name}\n`);
  put('etc/hosts', `127.0.0.1 localhost\n${names}`);
  rmSync(at('etc/resolv.conf'), { force: true });
  put('etc/resolv.conf', '');
  // Empty, not gone: without the file systemd takes the boot for the first one and enables all services.
  put('etc/machine-id', '');
  rmSync(at('usr/sbin/policy-rc.d'), { force: true });
  // Nothing makes device nodes in a container: there is no udev (tmpfiles.d(5)).
  const loops = Array.from({ length: LOOP_DEVICES }, (_, i) => `b /dev/loop${i} 0660 root disk - 7:${i}\n`);
  put('etc/tmpfiles.d/halligan-lab.conf', loops.join(''));
  // There is no archive to look at, and no test shall depend on the time of day.
  for (const timer of ['apt-daily', 'apt-daily-upgrade']) {
    rmSync(at(`etc/systemd/system/timers.target.wants/${timer}.timer`), { force: true });
  }
  // Names to storage that packages made when they were baked into a layer: hosts share the layer, never the name.
  const uuid = stableUuid(lab.name, host.name);
  for (const [path, text] of [
    ['etc/iscsi/initiatorname.iscsi', `InitiatorName=iqn.1993-08.org.debian:01:${uuid.slice(-12)}\n`],
    ['etc/nvme/hostnqn', `nqn.2014-08.org.nvmexpress:uuid:${uuid}\n`],
    ['etc/nvme/hostid', `${uuid}\n`],
  ] as const) {
    if (existsSync(at(path))) writeFileSync(at(path), text);
  }
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

/**
 * The network as an installed system brings it up: fresh NICs with their addresses. What userspace switches read
 * (everything but eth0, and eth0 where it is alone) carries whole checksums, because they do not finish those that the
 * kernel leaves open.
 */
async function connectHost(lab: Lab, host: LabHost): Promise<void> {
  const ns = hostNetns(lab, host.name);
  await run('ip', ['netns', 'add', ns]);
  await run('ip', ['-n', ns, 'link', 'set', 'lo', 'up']);
  for (const [i, nic] of host.nics.entries()) {
    const peer = ['peer', 'name', nic.name, 'address', nic.mac, 'netns', ns];
    await run('ip', ['-n', lab.netns, 'link', 'add', nic.veth, 'type', 'veth', ...peer]);
    await run('ip', ['-n', lab.netns, 'link', 'set', nic.veth, 'master', nic.bridge, 'up']);
    if (nic.address) await run('ip', ['-n', ns, 'addr', 'add', `${nic.address}/24`, 'dev', nic.name]);
    await run('ip', ['-n', ns, 'link', 'set', nic.name, 'up']);
    if (i === 0 && host.nics.length > 1) continue;
    await run('ip', ['netns', 'exec', lab.netns, 'ethtool', '-K', nic.veth, 'tx', 'off']);
    await run('ip', ['netns', 'exec', ns, 'ethtool', '-K', nic.name, 'tx', 'off']);
  }
  await run('ip', ['-n', ns, 'route', 'add', 'default', 'via', lab.address]);
}

async function disconnectHost(lab: Lab, host: LabHost): Promise<void> {
  const ns = hostNetns(lab, host.name);
  // First, because the kernel takes a namespace's devices away some time after its name.
  for (const nic of host.nics) {
    await execFileAsync('ip', ['-n', lab.netns, 'link', 'del', nic.veth]).catch(() => {});
  }
  if (existsSync(join('/run/netns', ns))) await run('ip', ['netns', 'del', ns]);
}

function boot(lab: Lab, host: LabHost): void {
  const log = openSync(join(host.dir, 'console.log'), 'a', 0o600);
  const args = [
    ...['-q', '-D', host.root, `--machine=${lab.netns}-${host.name}`, `--hostname=${host.name}`],
    // Not a unit of the machine's systemd: it works where there is none, and dies with what carries our mark.
    ...['--register=no', '--keep-unit', `--network-namespace-path=/run/netns/${hostNetns(lab, host.name)}`],
    ...['--capability=all', '--resolv-conf=off', '--timezone=off', '--link-journal=no', '--console=pipe', '-b'],
    ...DEVICES.filter(device => device !== KVM || lab.accel === 'kvm')
      .filter(device => existsSync(device))
      .map(device => `--bind=${device}`),
  ];
  // Whoever keeps the unit starts it again when the host reboots: status 133, as in systemd-nspawn@.service.
  const again = 'systemd-nspawn "$@"; while [ $? = 133 ]; do systemd-nspawn "$@"; done';
  const child = spawn('sh', ['-c', again, 'host', ...args], {
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
  });
  child.once('error', () => {});
  child.unref();
  closeSync(log);
}

/** Waits until sshd shows the host key that was made for it. */
async function ready(lab: Lab, host: LabHost, signal?: AbortSignal): Promise<void> {
  const until = performance.now() + READY_MS;
  const args = ['netns', 'exec', lab.netns, 'ssh-keyscan', '-T', '2', '-t', 'ed25519', host.address];
  while (performance.now() < until) {
    const shown = await execFileAsync('ip', args, { timeout: 10_000 }).then(
      result => result.stdout,
      () => '',
    );
    if (shown.includes(host.hostKey) || signal?.aborted) return;
    await sleep(300, signal);
  }
  const log = readFileSync(join(host.dir, 'console.log'), 'utf8').trim().split('\n').slice(-3).join(' | ');
  fail('lab-failed', `The sshd of host "${host.name}" did not answer within ${READY_MS / 1000} s: ${log}`);
}

/** The host's processes: its nspawn, and what lives in its network namespace. */
function hostProcesses(
  lab: Pick<Lab, 'name' | 'netns'>,
  host: string,
): { spawners: ProcessId[]; init: ProcessId | null } {
  const own = `--network-namespace-path=/run/netns/${hostNetns(lab, host)}`;
  const spawners: ProcessId[] = [];
  let init: ProcessId | null = null;
  const inode = netnsInode(hostNetns(lab, host));
  for (const pid of allPids()) {
    const id = identify(pid);
    if (!id || !alive(id)) continue;
    if (carries(pid, LAB_MARK, lab.name) && commandLine(pid).includes(own)) spawners.push(id);
    else if (inode !== null && netnsOfProcess(pid) === inode && isContainerInit(pid)) init = id;
  }
  return { spawners, init };
}

/** Does the host run? */
export function hostPower(lab: Pick<Lab, 'name' | 'netns'>, host: string): 'on' | 'off' {
  return hostProcesses(lab, host).spawners.length > 0 ? 'on' : 'off';
}

function hostOf(lab: Lab, name: string): LabHost {
  const host = lab.hosts.find(candidate => candidate.name === name);
  return host ?? fail('request-invalid', `There is no host "${name}" in lab "${lab.name}".`);
}

/**
 * Pulls the plug: nothing in the host is asked, its disk stays as it is. A host that is off stays off.
 * Throws ProblemError: request-invalid (no such host), lab-failed.
 */
export async function stopHost(lab: Lab, name: string): Promise<void> {
  const host = hostOf(lab, name);
  // Its init, never nspawn alone: that would leave the host running without a parent. The kernel ends with an init
  // all of its process namespace.
  const { spawners, init } = hostProcesses(lab, name);
  if (init) signal(init, 'SIGKILL');
  for (let waited = 0; waited < STOP_MS && spawners.some(alive); waited += 50) {
    await sleep(50);
    // It was being started: its init came after our look.
    const late = hostProcesses(lab, name).init;
    if (late) signal(late, 'SIGKILL');
  }
  const stuck = spawners.filter(alive);
  if (stuck.length > 0) {
    fail('lab-failed', `Host "${name}" does not end: process ${stuck.map(id => id.pid).join(', ')}.`);
  }
  await detachLoops(host.root);
  await disconnectHost(lab, host);
}

/**
 * Switches a host on and waits for its sshd: with its disk as it is, and with NICs as its installed system sets them up
 * at boot. A host that runs stays as it is. Throws ProblemError: request-invalid (no such host), lab-failed.
 */
export async function startHost(lab: Lab, name: string): Promise<void> {
  const host = hostOf(lab, name);
  if (hostPower(lab, name) === 'on') return;
  if (!isMounted(host.root)) fail('lab-failed', `The disk of host "${name}" is not there: ${host.root}.`);
  await disconnectHost(lab, host);
  await connectHost(lab, host);
  boot(lab, host);
  await ready(lab, host);
}

/**
 * Makes all hosts of the lab, boots those that shall run, all at the same time, and waits for their sshd.
 * Throws ProblemError: dependency-missing, request-invalid, lab-failed.
 */
export async function startHosts(lab: Lab, spec: LabSpec): Promise<LabHost[]> {
  const base = await labRootfs(spec);
  const names = lab.hosts.map(host => `${host.address} ${host.name}\n`).join('');
  const off = new Set(spec.nodes.filter(node => node.start === false).map(node => node.name));
  // One host that fails ends the wait for the others, and none is left half-made behind our back.
  const failed = new AbortController();
  const one = async (planned: LabHost): Promise<LabHost> => {
    const host = { ...planned, hostKey: await prepare(lab, planned, base, names) };
    if (off.has(host.name) || failed.signal.aborted) return host;
    await connectHost(lab, host);
    boot(lab, host);
    await ready(lab, host, failed.signal);
    return host;
  };
  const done = await Promise.allSettled(
    lab.hosts.map(host =>
      one(host).catch(error => {
        failed.abort();
        throw error;
      }),
    ),
  );
  return done.map(result => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
