/**
 * What is known to go wrong, looked for before anything is changed. Pure: from the model of the cloud and what was seen
 * on its nodes. `refuse`: it would fail or lose something; `hold`: the same, of one node in its present state, and the others
 * are not touched by it; `warn`: it works, but not as most expect. What a service cannot do
 * without (device-mapper for LVM, KVM where the site insists) is its own `refusal`, beside the code that needs it.
 */
import type { CloudModel, CloudNode } from './cloud.js';
import { checkPackages, type ReleaseData } from './releases.js';

export interface Precheck {
  /** Null: it is about the cloud as a whole. */
  readonly node: string | null;
  readonly severity: 'refuse' | 'hold' | 'warn';
  /** What is wrong, a sentence. */
  readonly message: string;
  /** What to do about it, a sentence. */
  readonly hint: string;
}

/** What was seen on a node beside its facts; what was not looked at is left out. */
export interface Seen {
  /** Versions of packages that would be there after an installation of what is missing. */
  readonly packages?: Readonly<Record<string, string>>;
  /** It is not installed yet, and its disks may be wiped when it is. */
  readonly expected?: boolean;
  /** Free space of the file system of /var, where packages, databases and images go. */
  readonly freeMiB?: number;
}

/** What a precheck may know beside the model; what is left out is not checked. */
export interface PrecheckOptions {
  readonly release?: Pick<ReleaseData, 'bad_packages'>;
  /** By node. */
  readonly seen?: Readonly<Record<string, Seen>>;
  readonly ca?: { readonly expiresMs: number; readonly nowMs: number };
}

/** Fernet tokens and certificates are judged by the node's clock; Ceph's monitors begin to complain at 50 ms, Nova's service groups at a minute. */
const SKEW_WARN_MS = 2_000;
const SKEW_REFUSE_MS = 30_000;

/** Memory and free disk by role: measured with two processes per API (guests and page cache not counted). */
const NEEDS: Readonly<Record<string, { readonly memoryMiB: number; readonly diskMiB: number }>> = {
  controller: { memoryMiB: 3584, diskMiB: 10_240 },
  compute: { memoryMiB: 1536, diskMiB: 10_240 },
  volume: { memoryMiB: 1024, diskMiB: 4_096 },
  network: { memoryMiB: 768, diskMiB: 3_072 },
  storage: { memoryMiB: 1024, diskMiB: 4_096 },
};
/** Below this, databases and logs fail sooner or later, whatever else happens. */
const DISK_REFUSE_MIB = 1024;

/** Outer Ethernet is not part of the MTU: IPv4 (20), UDP (8), Geneve with OVN's option (16), inner Ethernet (14). */
const GENEVE_OVERHEAD = 58;
/** Least MTU of a link that carries IPv6 (RFC 8200). */
const LEAST_MTU = 1280;

const YEAR_MS = 365 * 24 * 60 * 60 * 1000;

/** Signatures that our own services leave on a disk that was given to them; what has another they do not touch. */
const OURS: Readonly<Record<string, readonly string[]>> = {
  lvm: ['LVM2_member'],
  ceph: ['ceph_bluestore'],
  objects: ['xfs'],
};

const gib = (mib: number) => `${(mib / 1024).toFixed(1)} GiB`;
const duration = (ms: number) =>
  Math.abs(ms) < 120_000 ? `${(Math.abs(ms) / 1000).toFixed(1)} s` : `${Math.round(Math.abs(ms) / 60_000)} min`;

export function precheck(model: CloudModel, options: PrecheckOptions = {}): readonly Precheck[] {
  const found: Precheck[] = [];
  const say: Say = (node, severity, message, hint) => found.push({ node: node?.name ?? null, severity, message, hint });
  checkClocks(model, say);
  for (const node of model.nodes) {
    const seen = options.seen?.[node.name] ?? {};
    checkSystem(model, node, say);
    checkSize(node, seen, say);
    checkNetwork(model, node, say);
    checkHypervisor(model, node, say);
    checkDisks(model, node, seen, say);
    checkSources(options.release ?? { bad_packages: [] }, node, seen, say);
  }
  const { ca } = options;
  if (ca && ca.expiresMs - ca.nowMs < YEAR_MS)
    say(
      null,
      ca.expiresMs <= ca.nowMs ? 'refuse' : 'warn',
      `The site's CA ends on ${new Date(ca.expiresMs).toISOString().slice(0, 10)}, and all its certificates with it.`,
      'Plan a new CA: every service of the cloud restarts when it is replaced.',
    );
  return found;
}

type Say = (node: CloudNode | null, severity: Precheck['severity'], message: string, hint: string) => unknown;

function checkClocks(model: CloudModel, say: Say): void {
  const offsets = model.nodes.map(n => n.facts.clockOffsetMs);
  const least = Math.min(...offsets.map(Math.abs));
  const agree = model.nodes.length > 1 && Math.max(...offsets) - Math.min(...offsets) <= SKEW_WARN_MS;
  if (agree && least > SKEW_WARN_MS) {
    // One wrong clock is likelier than several that are wrong alike.
    say(
      null,
      least > SKEW_REFUSE_MS ? 'refuse' : 'warn',
      `The clocks of all nodes agree, and differ from this server's by ${duration(least)}.`,
      'Set the clock of the server that runs Halligan: certificates get their dates from it.',
    );
    return;
  }
  for (const node of model.nodes) {
    const offset = node.facts.clockOffsetMs;
    if (Math.abs(offset) <= SKEW_WARN_MS) continue;
    const refuse = Math.abs(offset) > SKEW_REFUSE_MS;
    say(
      node,
      refuse ? 'hold' : 'warn',
      `Its clock is ${duration(offset)} ${offset > 0 ? 'ahead' : 'behind'}. ${refuse ? 'Tokens and certificates would not be valid there.' : 'Tokens may be refused at their edges.'}`,
      'Let it follow a time server: `timedatectl timesync-status` or `chronyc tracking` shows which; `ntp` of the site names them.',
    );
  }
}

function checkSystem(model: CloudModel, node: CloudNode, say: Say): void {
  const { os, architecture } = node.facts;
  const { release } = model;
  if (`${os.id}-${os.version}` !== release.distribution)
    say(
      node,
      'refuse',
      `It runs ${os.id} ${os.version}, but the release ${release.name} is for ${release.distribution.replace('-', ' ')}.`,
      'Install the node anew with the right image, or name another release in cloud.release.',
    );
  if (!release.tested && node === model.nodes[0])
    say(
      null,
      'warn',
      `The release ${release.name} was rendered and checked, but never laid down by the tests of this program.`,
      'Try it on machines that you can do without first; `halligan cloud verify` tells whether it works.',
    );
  if (['aarch64', 'arm64'].includes(architecture))
    say(
      node,
      'warn',
      `Its processor is ${architecture}; only x86_64 was tried.`,
      'Try it on a machine that you can do without first.',
    );
  else if (!['x86_64', 'amd64'].includes(architecture))
    say(
      node,
      'refuse',
      `Its processor is ${architecture}, for which nothing was prepared.`,
      'Take the node out of the cloud.',
    );
  if (node.facts.container)
    say(
      node,
      'warn',
      'It is a container: no kernel module is loaded for it, so networks run in the userspace of Open vSwitch, servers without KVM, and LVM and iSCSI not at all.',
      'Good for trials; for users give it a machine of its own.',
    );
}

function checkSize(node: CloudNode, seen: Seen, say: Say): void {
  const roles = node.roles.filter(r => NEEDS[r]);
  if (roles.length === 0) return;
  const wants = roles.map(r => NEEDS[r]!);
  const memory = wants.reduce((sum, w) => sum + w.memoryMiB, 0);
  // Several roles on one machine share what is common; the greatest alone is the least that can work.
  const least = Math.max(...wants.map(w => w.memoryMiB), memory * 0.75);
  const has = node.facts.memoryMiB;
  if (has < memory)
    say(
      node,
      has < least ? 'refuse' : 'warn',
      `It has ${gib(has)} of memory; ${roles.join(', ')} takes ${gib(memory)}${roles.includes('compute') ? ', and servers more' : ''}.`,
      'Give it more memory, or move a role to another node.',
    );
  if (seen.freeMiB === undefined) return;
  const disk = Math.max(...wants.map(w => w.diskMiB));
  if (seen.freeMiB < DISK_REFUSE_MIB)
    say(
      node,
      'hold',
      `Only ${seen.freeMiB} MiB are free on the file system of /var: packages, databases and logs go there.`,
      'Make room: `du -xh /var | sort -h | tail` shows what takes it.',
    );
  else if (seen.freeMiB < disk)
    say(
      node,
      'warn',
      `${gib(seen.freeMiB)} are free on the file system of /var; ${roles.join(', ')} should have ${gib(disk)}.`,
      'Make room before images and logs fill it.',
    );
}

function checkNetwork(model: CloudModel, node: CloudNode, say: Say): void {
  const { settings } = model;
  const switches = node.services.includes('hypervisor') || node.services.includes('network-gateway');
  const interfaces = new Map(node.facts.interfaces.map(i => [i.name, i]));
  if (switches) {
    const { openvswitch } = node.facts.modules;
    if (settings.datapath === 'auto' && !openvswitch && !node.facts.container)
      say(
        node,
        'warn',
        'Its kernel has no module openvswitch: networks run in the userspace of Open vSwitch, which takes a CPU and is slower.',
        'Install a kernel that has it (on Ubuntu the package linux-modules-extra).',
      );
    const tunnel = interfaces.get(node.tunnel.interface);
    if (settings.tenantNetworks === 'geneve') {
      if (tunnel && tunnel.mtu < settings.mtu)
        say(
          node,
          'refuse',
          `${tunnel.name}, which carries tunnels, has an MTU of ${tunnel.mtu}, but cloud.mtu promises ${settings.mtu}: large packets of servers would be lost.`,
          `Set the MTU of ${tunnel.name} and of its switch port to ${settings.mtu}, or cloud.mtu to ${tunnel.mtu}.`,
        );
      if (
        settings.mtu - GENEVE_OVERHEAD < LEAST_MTU &&
        node === model.nodes.find(n => n.services.includes('hypervisor'))
      )
        say(
          null,
          'warn',
          `With cloud.mtu ${settings.mtu}, networks of projects get ${settings.mtu - GENEVE_OVERHEAD}: less than the ${LEAST_MTU} that IPv6 needs.`,
          'Raise the MTU of the network that carries tunnels.',
        );
    }
  }
  for (const { physicalNetwork, interface: name } of node.provider) {
    const link = interfaces.get(name);
    if (!link) continue;
    if (link.addresses.some(a => a.split('/')[0] === node.address))
      say(
        node,
        'warn',
        `${name} carries the node's own address and the provider network ${physicalNetwork}: it moves into a bridge, and the node is out of reach for a moment.`,
        'Give provider networks an interface of their own where there is one.',
      );
    if (switches && link.mtu < settings.mtu)
      say(
        node,
        'refuse',
        `${name}, which carries the provider network ${physicalNetwork}, has an MTU of ${link.mtu}, but cloud.mtu promises ${settings.mtu}.`,
        `Set the MTU of ${name} and of its switch port to ${settings.mtu}, or cloud.mtu to ${link.mtu}.`,
      );
  }
}

function checkHypervisor(model: CloudModel, node: CloudNode, say: Say): void {
  if (!node.services.includes('hypervisor') || node.facts.kvm) return;
  if (model.settings.virtualization === 'auto')
    say(
      node,
      'warn',
      'It has no KVM: servers run in emulation, ten to thirty times slower.',
      'Switch virtualisation (VT-x, AMD-V) on in its firmware.',
    );
}

function checkDisks(model: CloudModel, node: CloudNode, { expected }: Seen, say: Say): void {
  const { volumes, objects } = model.settings;
  const isVolume = node.services.includes('volume-backend');
  const given = [
    ...(isVolume && volumes.backend !== 'none'
      ? volumes.devices.map(d => ({ ...d, use: volumes.backend, setting: 'cloud.volumes.devices' }))
      : []),
    ...(node.services.includes('object-store') && objects.enabled
      ? objects.devices.map(d => ({ ...d, use: 'objects', setting: 'cloud.objects.devices' }))
      : []),
  ];
  for (const device of given) {
    if (device.fileSize !== null) continue;
    const disk = node.facts.disks.find(d => d.path === device.path || d.links?.includes(device.path));
    if (!disk) {
      say(
        node,
        'refuse',
        `It has no disk ${device.path}, which ${device.setting} gives away; its disks are ${node.facts.disks.map(d => d.path).join(', ') || 'none'}.`,
        `Correct ${device.setting}.`,
      );
      continue;
    }
    const ours = disk.signature === null || OURS[device.use]!.includes(disk.signature);
    if (disk.mounted && !(device.use === 'objects' && ours))
      say(
        node,
        'refuse',
        `${device.path} is in use (mounted), but ${device.setting} gives it away.`,
        `Name another disk in ${device.setting}, or unmount it.`,
      );
    else if (!ours)
      say(
        node,
        expected ? 'warn' : 'hold',
        `${device.path} is not empty (${disk.signature}), but ${device.setting} gives it away: a disk that holds something is not touched.`,
        expected
          ? `Name another disk in ${device.setting}; or wipe it (\`wipefs -a ${device.path}\`) once the node is installed, if what is on it may be lost.`
          : `Name another disk in ${device.setting}; or look what it is (\`wipefs ${device.path}\`), and wipe it by hand (\`wipefs -a ${device.path}\`) if it may be lost.`,
      );
  }
  const paths = given.map(d => d.path);
  for (const path of new Set(paths.filter((p, i) => paths.indexOf(p) !== i)))
    say(node, 'refuse', `${path} is given away twice.`, 'Correct cloud.volumes.devices and cloud.objects.devices.');
}

function checkSources(release: Pick<ReleaseData, 'bad_packages'>, node: CloudNode, seen: Seen, say: Say): void {
  for (const bad of checkPackages(release, seen.packages ?? {}))
    say(
      node,
      'hold',
      `${bad.package} ${bad.version} is known to be bad (${bad.bug}): ${bad.reason}`,
      bad.good === null
        ? 'Name another release in cloud.release.'
        : `Let the node's sources offer ${bad.good} or newer, such as the distribution's updates; where it is installed already, upgrade it.`,
    );
}
