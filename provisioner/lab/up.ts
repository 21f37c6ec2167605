/** Making, looking at and removing a lab. */
import { execFile, spawn } from 'node:child_process';
import { randomBytes, X509Certificate } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { sleep } from '../core/clock.js';
import { fail, ProblemError } from '../core/problem.js';
import { detachLoops, hostPower, startHosts, unmountBelow } from './container.js';
import { chooseAccel, findKernel, type KvmProbe, probeKvm } from './kvm.js';
import {
  BRIDGES,
  checkLabName,
  kindOf,
  LAB_MARK,
  netnsOf,
  OUTSIDE_ADDRESS,
  planLab,
  runDirOf,
  SECOND_BRIDGE,
  THIRD_BRIDGE,
} from './plan.js';
import { allPids, carries, endAll, identify, netnsInode, netnsOfProcess, ownLine, type ProcessId } from './procs.js';
import { OVMF_CODE, OVMF_VARS } from './qemu.js';
import { labSite } from './site.js';
import type { Lab, LabNodeStatus, LabSpec, LabStatus } from './types.js';

const execFileAsync = promisify(execFile);

async function run(file: string, ...args: string[]): Promise<string> {
  try {
    return (await execFileAsync(file, args, { timeout: 60_000, maxBuffer: 1 << 22 })).stdout;
  } catch (error) {
    const failure = error as NodeJS.ErrnoException & { stderr?: string };
    if (failure.code === 'ENOENT') fail('dependency-missing', `The lab needs \`${file}\`, which is not installed.`);
    return fail('lab-failed', `\`${file} ${args.join(' ')}\` failed: ${(failure.stderr || failure.message).trim()}`);
  }
}

const PACKAGES: Record<string, string> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  ipmi_sim: 'openipmi',
  socat: 'socat',
  setpriv: 'util-linux',
  ip: 'iproute2',
  openssl: 'openssl',
  'systemd-nspawn': 'systemd-container',
  'ssh-keyscan': 'openssh-client',
  ethtool: 'ethtool',
  losetup: 'mount',
  sysctl: 'procps',
};

function need(programs: readonly string[]): void {
  const path = (process.env['PATH'] ?? '').split(':').concat('/usr/sbin', '/sbin');
  const missing = programs.filter(program => !path.some(dir => existsSync(join(dir, program))));
  if (missing.length > 0) {
    const packages = missing.map(program => PACKAGES[program] ?? program);
    fail('dependency-missing', `The lab needs ${missing.join(', ')}: apt-get install ${packages.join(' ')}`);
  }
}

/** A compiled program of the lab: beside this module, or in dist/ when this module runs from its source. */
function programFile(name: 'agent' | 'uplink'): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const file = `${name}.js`;
  const found = [join(here, file), resolvePath(here, '../../dist/provisioner/lab', file)].find(existsSync);
  return found ?? fail('lab-failed', `The lab’s ${name} is not compiled.`, { hint: 'Run `npm run build` first.' });
}

/** One command to the agent of a running lab. Throws ProblemError lab-failed. */
export async function labCommand(lab: Pick<Lab, 'name' | 'runDir'>, line: string, timeoutMs = 60_000): Promise<string> {
  const reply = await new Promise<string>((resolve, reject) => {
    let text = '';
    const socket = connect(join(lab.runDir, 'agent.sock'));
    socket.setEncoding('utf8').setTimeout(timeoutMs, () => socket.destroy(new Error('no answer in time')));
    socket.on('connect', () => socket.write(`${line}\n`));
    socket.on('data', (part: string) => {
      text += part;
    });
    socket.on('end', () => resolve(text.trim()));
    socket.on('error', reject);
  }).catch(error => fail('lab-failed', `The agent of lab "${lab.name}" does not answer: ${error.message}`));
  if (reply.startsWith('error: ')) fail('lab-failed', `Lab "${lab.name}": ${reply.slice(7)}`);
  return reply;
}

async function makeNetwork(lab: Lab): Promise<void> {
  const ip = (...args: string[]) => run('ip', '-n', lab.netns, ...args);
  await run('ip', 'netns', 'add', lab.netns);
  await ip('link', 'set', 'lo', 'up');
  const containers = lab.hosts.length > 0;
  const third = containers || lab.nodes.some(node => node.taps.length > 2);
  for (const bridge of BRIDGES.filter(name => third || name !== THIRD_BRIDGE)) {
    await ip('link', 'add', bridge, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0', 'mcast_snooping', '0');
    await ip('link', 'set', bridge, 'up');
  }
  await ip('addr', 'add', `${lab.address}/24`, 'dev', lab.bridge);
  if (containers) {
    // The hardware router of a cloud: between the management and the outside network, and nowhere else.
    await ip('addr', 'add', `${OUTSIDE_ADDRESS}/24`, 'dev', SECOND_BRIDGE);
    await run('ip', 'netns', 'exec', lab.netns, 'ethtool', '-K', SECOND_BRIDGE, 'tx', 'off');
    await run('ip', 'netns', 'exec', lab.netns, 'sysctl', '-q', '-w', 'net.ipv4.ip_forward=1');
  }
  for (const node of lab.nodes) {
    await ip('addr', 'add', `${node.bmc.ip}/32`, 'dev', 'lo');
    for (const [i, tap] of node.taps.entries()) {
      await ip('tuntap', 'add', 'dev', tap, 'mode', 'tap');
      await ip('link', 'set', tap, 'master', BRIDGES[i]!, 'up');
    }
  }
}

async function makeCertificate(lab: Lab): Promise<string> {
  const [crt, key] = [join(lab.dir, 'bmc.crt'), join(lab.dir, 'bmc.key')];
  await run(
    'openssl',
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650'],
    ...['-subj', `/CN=halligan-lab-${lab.name}`, '-keyout', key, '-out', crt],
  );
  return `sha256:${new X509Certificate(readFileSync(crt)).fingerprint256.replaceAll(':', '').toLowerCase()}`;
}

/**
 * Makes a lab: namespace, bridges, BMCs, machines with empty disks (switched off) or running container hosts, and a
 * `site.yaml`. What an earlier lab of this name left behind is removed first.
 * Throws ProblemError: request-invalid, dependency-missing, capability-missing, lab-failed.
 */
export async function labUp(spec: LabSpec): Promise<Lab> {
  checkLabName(spec.name);
  if (process.getuid?.() !== 0) fail('capability-missing', 'A lab needs root: it makes a network namespace.');
  const dir = resolvePath(spec.dir);
  const machines = spec.nodes.filter(node => kindOf(spec, node) === 'qemu');
  const drivers = new Set(machines.map(node => node.bmc ?? 'ipmi'));
  need([
    'ip',
    ...(machines.length < spec.nodes.length
      ? ['systemd-nspawn', 'ssh-keyscan', 'losetup', 'ethtool', 'sysctl', ...(spec.rootfs ? [] : ['mmdebstrap'])]
      : []),
    ...(machines.length > 0 ? ['qemu-system-x86_64', 'qemu-img', 'setpriv'] : []),
    ...(drivers.has('ipmi') ? ['ipmi_sim', 'socat'] : []),
    ...(drivers.has('redfish') ? ['openssl'] : []),
  ]);
  if (machines.some(node => node.firmware === 'uefi') && !existsSync(OVMF_CODE)) {
    fail('dependency-missing', `The lab needs ${OVMF_CODE}: apt-get install ovmf`);
  }
  const probe = (): Promise<KvmProbe> =>
    probeKvm({
      kernel: findKernel([...ramImageDirs(spec.dataDir ?? join(dir, 'data')), '/boot']),
      device: existsSync('/dev/kvm'),
    });
  const accel =
    machines.length > 0
      ? await chooseAccel(spec.accel ?? 'auto', probe)
      : spec.accel === 'kvm'
        ? { accel: 'kvm' as const, reason: 'KVM was asked for: hosts see /dev/kvm.' }
        : { accel: 'tcg' as const, reason: 'Containers are not emulated, and see no /dev/kvm.' };
  let lab = planLab({ ...spec, dir }, accel);

  await labDown({ name: lab.name, dir });
  try {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
    mkdirSync(lab.runDir, { recursive: true, mode: 0o700 });
    writeFileSync(lab.bmcPasswordFile, `${randomBytes(8).toString('hex')}\n`, { mode: 0o600 });
    const store = () => {
      const text = `${JSON.stringify(lab, null, 2)}\n`;
      writeFileSync(join(dir, 'lab.json'), text);
      writeFileSync(join(lab.runDir, 'lab.json'), text);
    };
    store();
    await makeNetwork(lab);
    for (const node of lab.nodes) {
      mkdirSync(node.dir, { recursive: true });
      mkdirSync(node.runDir, { recursive: true, mode: 0o700 });
      if (node.firmware === 'uefi') copyFileSync(OVMF_VARS, join(node.dir, 'vars.fd'));
      for (const disk of node.disks) {
        await run('qemu-img', 'create', '-q', '-f', 'qcow2', disk.path, `${disk.sizeGiB}G`);
      }
    }
    if (lab.nodes.some(node => node.bmc.driver === 'redfish')) {
      lab = { ...lab, tlsFingerprint: await makeCertificate(lab) };
    }
    await startProgram(lab, 'uplink', store);
    if (lab.hosts.length > 0) lab = { ...lab, hosts: await startHosts(lab, spec) };
    if (lab.nodes.length > 0) await startProgram(lab, 'agent', store);
    store();
    writeFileSync(join(dir, 'site.yaml'), labSite(lab));
    linkConsoles(lab);
    return lab;
  } catch (error) {
    await labDown({ name: lab.name, dir }).catch(() => {});
    throw error;
  }
}

function ramImageDirs(dataDir: string): string[] {
  const images = join(dataDir, 'images');
  try {
    return readdirSync(images).map(name => join(images, name));
  } catch {
    return [];
  }
}

/** The server finds a node's console as DATA_DIR/consoles/MAC.sock, whatever its BMC can do. */
function linkConsoles(lab: Lab): void {
  if (lab.nodes.length === 0) return;
  const dir = join(lab.dataDir, 'consoles');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const node of lab.nodes) {
    const link = join(dir, `${node.macs[0]!.replaceAll(':', '-')}.sock`);
    rmSync(link, { force: true });
    symlinkSync(node.console, link);
  }
}

/** The agent lives inside of the lab's network, the uplink outside; both say by NAME.json that they are ready. */
async function startProgram(lab: Lab, name: 'agent' | 'uplink', store: () => void): Promise<void> {
  store();
  const logFile = join(lab.dir, `${name}.log`);
  const log = openSync(logFile, 'a', 0o600);
  const argv = [process.execPath, programFile(name), join(lab.runDir, 'lab.json')] as const;
  try {
    const [program, ...args] = name === 'agent' ? (['ip', 'netns', 'exec', lab.netns, ...argv] as const) : argv;
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, [LAB_MARK]: lab.name },
      cwd: '/',
    });
    let exited = false;
    child.once('error', () => {
      exited = true;
    });
    child.once('exit', () => {
      exited = true;
    });
    child.unref();
    for (let i = 0; i < 400 && !exited; i++) {
      if (existsSync(join(lab.runDir, `${name}.json`))) return;
      await sleep(50);
    }
  } finally {
    closeSync(log);
  }
  const tail = readFileSync(logFile, 'utf8').trim().split('\n').slice(-3).join(' | ');
  fail('lab-failed', `The ${name} of lab "${lab.name}" did not start: ${tail || 'it said nothing'}`);
}

function readLab(path: string): Lab | null {
  try {
    const lab = JSON.parse(readFileSync(path, 'utf8')) as Lab;
    return lab.version === 1 ? lab : null;
  } catch {
    return null;
  }
}

/** Finds the lab by its name (`/run/halligan-lab/NAME`), else by its folder. */
export function findLab(where: { name: string; dir?: string }): Lab | null {
  const named = readLab(join(runDirOf(where.name), 'lab.json'));
  if (named || !where.dir) return named;
  const lab = readLab(join(where.dir, 'lab.json'));
  return lab?.name === where.name ? lab : null;
}

export async function labStatus(where: { name: string; dir?: string }): Promise<LabStatus> {
  const lab = findLab(where);
  const none = { name: where.name, running: false, lab, nodes: [], hosts: [] };
  if (!lab) return { ...none, reason: `There is no lab "${where.name}".` };
  const hosts = lab.hosts.map(host => ({ name: host.name, power: hostPower(lab, host.name) }));
  if (lab.nodes.length === 0) {
    // The uplink alone is no lab.
    const running = hosts.some(host => host.power === 'on');
    return { ...none, running, reason: running ? null : 'No host runs.', hosts };
  }
  try {
    const nodes = JSON.parse(await labCommand(lab, 'status', 10_000)) as LabNodeStatus[];
    return { ...none, running: true, reason: null, nodes, hosts };
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return { ...none, reason: error.problem.message, hosts };
  }
}

/** User and system seconds of each node's QEMU over all its lives, by node name. */
export async function labCpuSeconds(lab: Lab): Promise<Record<string, number>> {
  const nodes = JSON.parse(await labCommand(lab, 'status', 10_000)) as LabNodeStatus[];
  return Object.fromEntries(nodes.map(node => [node.name, node.cpuSeconds]));
}

/** Pulls the plug, presses the button: what a person at the rack does. */
export async function labPower(
  lab: Lab,
  node: string,
  action: 'on' | 'off' | 'cycle' | 'reset' | 'shutdown',
): Promise<void> {
  await labCommand(lab, `power ${node} ${action}`);
}

/** Names of the lab's namespaces that exist: its own, and those of its container hosts. */
function namespaces(name: string): string[] {
  const own = netnsOf(name);
  try {
    return readdirSync('/run/netns').filter(file => file === own || file.startsWith(`${own}.`));
  } catch {
    return [];
  }
}

/** Processes that carry the lab's name in their environment, or live in one of its namespaces; never we ourselves. */
function leftovers(name: string, inNamespaces = namespaces(name)): ProcessId[] {
  const own = ownLine();
  const inodes = new Set(inNamespaces.map(netnsInode).filter(inode => inode !== null));
  return allPids()
    .filter(pid => !own.has(pid))
    .filter(pid => carries(pid, LAB_MARK, name) || inodes.has(netnsOfProcess(pid) ?? ''))
    .map(identify)
    .filter(id => id !== null);
}

/** Files that labUp makes in `dir`; others there are not ours. */
const OWN_FILES = ['nodes', 'lab.json', 'site.yaml', 'agent.log', 'uplink.log', 'bmc-password', 'bmc.crt', 'bmc.key'];

export interface LabDownResult {
  readonly processes: number;
  readonly namespace: boolean;
  readonly files: boolean;
}

/**
 * Removes the lab and everything of it: also after a crash, and also when its state files are gone (then what carries
 * its name is found: processes by environment and namespace, mounts, the namespace itself). Removing nothing is fine.
 * Ends every process inside the lab's namespace, a server that runs there included.
 * @param where.keepFiles leaves disks, logs and `site.yaml` where they are
 */
export async function labDown(where: { name: string; dir?: string; keepFiles?: boolean }): Promise<LabDownResult> {
  const name = checkLabName(where.name);
  const lab = findLab(where);
  const dirs = new Set([lab?.dir, where.dir && resolvePath(where.dir)].filter(dir => typeof dir === 'string'));
  let found = 0;
  // A process that is being started may escape the first look.
  for (let round = 0; round < 5; round++) {
    const ids = leftovers(name);
    if (ids.length === 0) break;
    found += ids.length;
    // Hosts in containers are not asked: their systemd would take SIGTERM for something else, and take its time.
    const hosts = namespaces(name).some(file => file !== netnsOf(name));
    const stuck = await endAll(ids, round === 0 && !hosts ? 10_000 : 0);
    if (stuck.length > 0) {
      fail('lab-failed', `Processes of lab "${name}" do not end: ${stuck.map(id => id.pid).join(', ')}.`);
    }
  }
  for (const dir of dirs) {
    await detachLoops(join(dir, 'nodes'));
    await unmountBelow(join(dir, 'nodes'));
  }
  const spaces = namespaces(name);
  for (const file of spaces) await run('ip', 'netns', 'del', file);
  rmSync(runDirOf(name), { recursive: true, force: true });
  let files = false;
  if (!where.keepFiles) {
    for (const dir of dirs) {
      // Only a folder that says it is this lab's.
      if (readLab(join(dir, 'lab.json'))?.name !== name) continue;
      files = true;
      if (lab) removeConsoleLinks(lab);
      // lab.json last: a removal that was interrupted is found again.
      for (const file of OWN_FILES.filter(f => f !== 'lab.json')) {
        rmSync(join(dir, file), { recursive: true, force: true });
      }
      rmSync(join(dir, 'lab.json'), { force: true });
      try {
        rmdirSync(dir);
      } catch {
        // Something else lives there: the server's data, for example.
      }
    }
  }
  return { processes: found, namespace: spaces.length > 0, files };
}

function removeConsoleLinks(lab: Lab): void {
  for (const node of lab.nodes) {
    const link = join(lab.dataDir, 'consoles', `${node.macs[0]!.replaceAll(':', '-')}.sock`);
    try {
      if (lstatSync(link).isSymbolicLink()) unlinkSync(link);
    } catch {
      // It is gone already.
    }
  }
  for (const dir of [join(lab.dataDir, 'consoles'), lab.dataDir]) {
    try {
      rmdirSync(dir);
    } catch {
      // The server's recordings and database live there: they are not the lab's.
    }
  }
}
