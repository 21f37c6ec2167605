/** Pure: names, addresses and paths of a lab from what was asked for. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fail } from '../core/problem.js';
import type { Lab, LabHost, LabKind, LabNode, LabNodeSpec, LabSpec } from './types.js';

export const LAB_RUN_ROOT = '/run/halligan-lab';
/** Environment variable that every process of a lab carries: leftovers are found by it. */
export const LAB_MARK = 'HALLIGAN_LAB';
export const BRIDGE = 'br0';
export const SECOND_BRIDGE = 'br1';
/** Tunnels between the hosts of a cloud. */
export const THIRD_BRIDGE = 'br2';
/** Of the first, second and third NIC of a node. */
export const BRIDGES = [BRIDGE, SECOND_BRIDGE, THIRD_BRIDGE] as const;
export const LAB_ADDRESS = '10.99.0.1';
/** Where a lab of containers has its hardware router in the outside network: hosts bring the rest of 10.97.0.0/24. */
export const OUTSIDE_ADDRESS = '10.97.0.1';
export const LAB_CIDR = '10.99.0.0/24';
/** More machines than one computer can emulate; also what fits the address plan. */
export const LAB_NODES_MAX = 64;

const NAME = /^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/;
const HOST = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** A lab's name becomes part of paths and of a namespace's name. Throws ProblemError request-invalid. */
export function checkLabName(name: string): string {
  if (!NAME.test(name)) {
    fail('request-invalid', `"${name}" is no name for a lab: at most 20 of a-z, 0-9 and inner dashes were expected.`);
  }
  return name;
}

export const netnsOf = (name: string) => `hal-${checkLabName(name)}`;
export const runDirOf = (name: string) => join(LAB_RUN_ROOT, checkLabName(name));

/** Where a server in the lab gets packages from. */
export const uplinkSocket = (lab: Pick<Lab, 'runDir'>) => join(lab.runDir, 'uplink.sock');

/** A UUID of version 8 (RFC 9562) that is the same for the same lab and node. */
export function stableUuid(lab: string, node: string): string {
  const h = createHash('sha256').update(`halligan-lab\0${lab}\0${node}`).digest();
  h[6] = (h[6]! & 0x0f) | 0x80;
  h[8] = (h[8]! & 0x3f) | 0x80;
  const x = h.toString('hex');
  return `${x.slice(0, 8)}-${x.slice(8, 12)}-${x.slice(12, 16)}-${x.slice(16, 20)}-${x.slice(20, 32)}`;
}

const octet = (n: number) => n.toString(16).padStart(2, '0');
/** MAC of NIC `nic` (0, 1, 2) of node number `index`, in QEMU's locally used range. */
export const macOf = (index: number, nic: number) => `52:54:00:${99 - nic}:00:${octet(index + 1)}`;

function checkNumber(what: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    fail('request-invalid', `${what} is ${value}: a whole number from ${min} to ${max} was expected.`);
  }
  return value;
}

/** What a machine's disk says of itself, and is found by in /dev/disk/by-id. virtio-blk hands over at most 20 bytes. */
export const diskSerial = (lab: string, node: string, disk: number): string => `${shortId(lab, node)}D${disk}`;

const shortId = (lab: string, node: string) =>
  createHash('sha256').update(`${lab}\0${node}`).digest('hex').slice(0, 6).toUpperCase();

function planNode(spec: LabNodeSpec, index: number, lab: { name: string; dir: string; runDir: string }): LabNode {
  const of = (what: string) => `${what} of lab node "${spec.name}"`;
  const dir = join(lab.dir, 'nodes', spec.name);
  const runDir = join(lab.runDir, spec.name);
  const driver = spec.bmc ?? 'ipmi';
  const ip = `10.98.0.${11 + index}`;
  const disks = spec.disks ?? [8];
  if (disks.length > 8) fail('request-invalid', `${of('The list of disks')} has more than 8 entries.`);
  if (spec.kcs && driver !== 'ipmi') fail('request-invalid', `${of('The in-band BMC (kcs)')} needs \`bmc: ipmi\`.`);
  const firmware = spec.firmware ?? 'bios';
  const netboot = spec.netboot ?? 'pxe';
  if (netboot === 'http' && firmware === 'bios')
    fail('request-invalid', `${of('HTTP boot (netboot)')} needs \`firmware: uefi\`.`);
  return {
    name: spec.name,
    firmware,
    netboot,
    uuid: stableUuid(lab.name, spec.name),
    serial: `HAL-${shortId(lab.name, spec.name)}-${index + 1}`,
    macs: Array.from({ length: checkNumber(of('`nics`'), spec.nics ?? 1, 1, 3) }, (_, nic) => macOf(index, nic)),
    taps: Array.from({ length: spec.nics ?? 1 }, (_, nic) => `tap${index + 1}-${nic}`),
    disks: disks.map((sizeGiB, n) => ({
      path: join(dir, `disk${n}.qcow2`),
      sizeGiB: checkNumber(of('A disk'), sizeGiB, 1, 2048),
      serial: diskSerial(lab.name, spec.name, n),
    })),
    diskBus: spec.diskBus ?? 'virtio',
    memoryMiB: checkNumber(of('`memoryMiB`'), spec.memoryMiB ?? 1024, 256, 262_144),
    cpus: checkNumber(of('`cpus`'), spec.cpus ?? 1, 1, 64),
    bmc: { driver, ip, address: driver === 'ipmi' ? ip : `https://${ip}` },
    kcs: spec.kcs ?? false,
    solPort: 9100 + index,
    dir,
    runDir,
    console: join(runDir, 'console.sock'),
    consoleLog: join(dir, 'console.log'),
  };
}

function planHost(spec: LabNodeSpec, index: number, lab: { dir: string }): LabHost {
  const dir = join(lab.dir, 'nodes', spec.name);
  const count = checkNumber(`\`nics\` of lab node "${spec.name}"`, spec.nics ?? 1, 1, 3);
  const last = 150 + index;
  const address = `10.99.0.${last}`;
  const networks = [
    { bridge: BRIDGE, address },
    { bridge: SECOND_BRIDGE, address: null },
    { bridge: THIRD_BRIDGE, address: `10.96.0.${last}` },
  ];
  return {
    name: spec.name,
    address,
    mac: macOf(index, 0),
    nics: networks.slice(0, count).map((network, nic) => ({
      name: `eth${nic}`,
      mac: macOf(index, nic),
      veth: `ve${index + 1}-${nic}`,
      ...network,
    })),
    layers: spec.layers ?? [],
    hostKey: '',
    dir,
    root: join(dir, 'root'),
  };
}

/** What a node is. */
export const kindOf = (spec: Pick<LabSpec, 'kind'>, node: Pick<LabNodeSpec, 'kind'>): LabKind =>
  node.kind ?? spec.kind ?? 'qemu';

/**
 * The lab as a value, without touching anything.
 * Throws ProblemError request-invalid with the field and what was expected.
 */
export function planLab(spec: LabSpec, accel: { accel: 'tcg' | 'kvm'; reason: string }): Lab {
  const name = checkLabName(spec.name);
  const runDir = runDirOf(name);
  if (spec.nodes.length < 1 || spec.nodes.length > LAB_NODES_MAX) {
    fail('request-invalid', `A lab has 1 to ${LAB_NODES_MAX} nodes; ${spec.nodes.length} were asked for.`);
  }
  const seen = new Set<string>();
  for (const node of spec.nodes) {
    if (!HOST.test(node.name)) fail('request-invalid', `"${node.name}" is no host name (RFC 1123, lower case).`);
    if (seen.has(node.name)) fail('request-invalid', `Two nodes of the lab are named "${node.name}".`);
    seen.add(node.name);
    if (kindOf(spec, node) === 'qemu' && (node.layers || node.start !== undefined)) {
      fail('request-invalid', `\`layers\` and \`start\` of lab node "${node.name}" are for hosts in containers.`);
    }
    // The longest path in there is HOST/console.sock; the kernel takes 107 bytes (unix(7)).
    if (join(runDir, node.name, 'console.sock').length > 100) {
      fail('request-invalid', `The node name "${node.name}" is too long for a socket's path.`);
    }
  }
  // One number per node of the lab, whatever it is: MACs, addresses and names of interfaces hang on it.
  const numbered = spec.nodes.map((node, index) => ({ node, index, kind: kindOf(spec, node) }));
  return {
    version: 1,
    name,
    dir: spec.dir,
    runDir,
    netns: netnsOf(name),
    bridge: BRIDGE,
    address: LAB_ADDRESS,
    cidr: LAB_CIDR,
    accel: accel.accel,
    accelReason: accel.reason,
    dataDir: spec.dataDir ?? join(spec.dir, 'data'),
    siteNodes: spec.siteNodes ?? true,
    sshKeys: spec.sshKeys ?? [],
    bmcUser: 'admin',
    bmcPasswordFile: join(spec.dir, 'bmc-password'),
    tlsFingerprint: null,
    nodes: numbered
      .filter(({ kind }) => kind === 'qemu')
      .map(({ node, index }) => planNode(node, index, { name, dir: spec.dir, runDir })),
    hosts: numbered
      .filter(({ kind }) => kind === 'container')
      .map(({ node, index }) => planHost(node, index, { dir: spec.dir })),
  };
}
