/**
 * Swift's rings. They must be the same on all nodes, and nothing is copied between nodes: each repeats the same
 * steps, from the first day on, with the same seed, which yields the same bytes (swift-ring-builder(1) writes no times).
 */
import { createHash } from 'node:crypto';
import type { ServiceContext } from '../../installer/model/catalogue.js';
import { type CloudModel, type CloudNode, nodesWith } from '../../installer/model/cloud.js';
import type { RingDisk, RingStep } from '../../installer/model/memory.js';
import { command, directory, file, type Resource } from '../../installer/model/resources.js';
import { guarded } from '../shared.js';

/** 2^10 partitions: enough for some ten disks, and little work for replicators of small clouds. It cannot be changed later. */
const PART_POWER = 10;
const SEED = 1;
export const PORTS = { object: 6200, container: 6201, account: 6202 } as const;

export interface ObjectDisk {
  /** Folder under /srv/node. */
  readonly name: string;
  /** Of the file system; XFS allows 12 bytes. */
  readonly label: string;
  readonly path: string;
  readonly fileSize: string | null;
}

export const disksOf = (cloud: CloudModel, node: CloudNode): readonly ObjectDisk[] =>
  cloud.settings.objects.devices.map(d => ({
    name: d.path.replace(/^\/(dev\/)?/, '').replace(/[^A-Za-z0-9]+/g, '_'),
    label: `hal-${createHash('sha256').update(`${node.name} ${d.path}`).digest('hex').slice(0, 8)}`,
    path: d.path,
    fileSize: d.fileSize,
  }));

export const diskCount = (cloud: CloudModel): number =>
  nodesWith(cloud, 'object-store').length * cloud.settings.objects.devices.length;

export const replicas = (cloud: CloudModel): number => Math.min(cloud.settings.objects.replicas, diskCount(cloud));

/** The sentence an operator reads when the object store cannot work; null when it can. */
export function objectsRefusal(cloud: CloudModel): string | null {
  const { devices, replicas: wanted } = cloud.settings.objects;
  if (devices.length === 0)
    return 'cloud.objects is enabled, but cloud.objects.devices names no disk to put objects on.';
  const there = diskCount(cloud);
  if (there < wanted)
    return `cloud.objects.replicas is ${wanted}, but the storage nodes have ${there} disk${there === 1 ? '' : 's'} for objects together: each copy needs one of its own.`;
  return null;
}

const sameDisk = (a: Pick<RingDisk, 'node' | 'disk'>, b: Pick<RingDisk, 'node' | 'disk'>) =>
  a.node === b.node && a.disk === b.disk;

/**
 * What the rings of a cloud that has none begin with. The first step has as many disks as there are copies, then nodes
 * join one by one.
 */
function firstSteps(cloud: CloudModel, wanted: readonly RingDisk[]): readonly RingStep[] {
  const steps: RingStep[] = [];
  let add: RingDisk[] = [];
  for (const node of nodesWith(cloud, 'object-store')) {
    add.push(...wanted.filter(d => d.node === node.name));
    if (steps.length === 0 && add.length < replicas(cloud)) continue;
    steps.push({ replicas: replicas(cloud), add, remove: [] });
    add = [];
  }
  return steps;
}

/**
 * The rings' history with what this apply adds to it. A rebalance moves one copy of an object at most; rings that were
 * built anew from another list would move nearly all copies at once, and nobody would find them meanwhile. So the past is
 * never written anew: a node has its zone for good, wherever it stands in the site, and one that left is taken out by a
 * further step.
 */
export function ringSteps(cloud: CloudModel): readonly RingStep[] {
  const before = cloud.memory.rings;
  const zones = new Map(before.flatMap(s => s.add.map(d => [d.node, d.zone] as const)));
  const wanted = nodesWith(cloud, 'object-store').flatMap(node => {
    const zone = zones.get(node.name) ?? Math.max(0, ...zones.values()) + 1;
    zones.set(node.name, zone);
    return disksOf(cloud, node).map(d => ({ node: node.name, disk: d.name, zone, address: node.storageAddress }));
  });
  const last = before.at(-1);
  if (!last) return firstSteps(cloud, wanted);
  const held = heldBy(before);
  // Those that are only away keep what they have.
  const present = nodesWith(cloud, 'object-store').map(n => n.name);
  const away = new Set(cloud.memory.joined['object-store']?.filter(n => !present.includes(n)));
  const add = wanted.filter(d => !held.some(h => sameDisk(h, d)));
  const remove = held
    .filter(h => !away.has(h.node) && !wanted.some(d => sameDisk(h, d)))
    .map(h => ({ node: h.node, disk: h.disk }));
  if (add.length === 0 && remove.length === 0 && last.replicas === replicas(cloud)) return before;
  return [...before, { replicas: replicas(cloud), add, remove }];
}

function heldBy(steps: readonly RingStep[]): readonly RingDisk[] {
  let held: RingDisk[] = [];
  for (const s of steps) held = [...held.filter(h => !s.remove.some(r => sameDisk(r, h))), ...s.add];
  return held;
}

/** One process for all three: each start of swift-ring-builder(1) costs a second. */
function builderScript(cloud: CloudModel): string {
  const steps = cloud.memory.rings;
  const now = new Map(nodesWith(cloud, 'object-store').map(n => [n.name, n.storageAddress]));
  // An address is no place: where it changed, what was decided by the old one stays.
  const moved = heldBy(steps).flatMap(d => {
    const address = now.get(d.node);
    return address === undefined || address === d.address ? [] : [{ node: d.node, disk: d.disk, address }];
  });
  const input = { power: PART_POWER, seed: SEED, ports: PORTS, steps, moved };
  return `umask 027
d=$(mktemp -d /etc/swift/rings.XXXXXX)
trap 'rm -rf "$d"' EXIT
cat >"$d/input" <<'JSON'
${JSON.stringify(input)}
JSON
cat >"$d/build.py" <<'PYTHON'
import json, sys
from swift.common.ring import RingBuilder
d = sys.argv[1]
with open(d + "/input") as f:
    wanted = json.load(f)
for kind, port in wanted["ports"].items():
    builder = RingBuilder(wanted["power"], wanted["steps"][0]["replicas"], 0)
    ids = {}
    for step in wanted["steps"]:
        if step["replicas"] != builder.replicas:
            builder.set_replicas(step["replicas"])
        for disk in step["remove"]:
            builder.remove_dev(ids.pop((disk["node"], disk["disk"])))
        for disk in step["add"]:
            ids[disk["node"], disk["disk"]] = builder.add_dev(
                {"region": 1, "zone": disk["zone"], "ip": disk["address"], "port": port,
                 "replication_ip": disk["address"], "replication_port": port,
                 "device": disk["disk"], "weight": 100.0, "meta": ""})
        builder.rebalance(seed=wanted["seed"])
    for disk in wanted["moved"]:
        dev = builder.devs[ids[disk["node"], disk["disk"]]]
        dev["ip"] = dev["replication_ip"] = disk["address"]
    builder.validate()
    builder.get_ring().save("%s/%s.ring.gz" % (d, kind))
    builder.save("%s/%s.builder" % (d, kind))
PYTHON
python3 "$d/build.py" "$d"
for f in ${Object.keys(PORTS)
    .flatMap(kind => [`${kind}.builder`, `${kind}.ring.gz`])
    .join(' ')}; do
  chown root:swift "$d/$f"; chmod 640 "$d/$f"
  mv -f "$d/$f" /etc/swift/
done`;
}

/** What every node of Swift has: the secret of places, and the rings. Once per node, whichever service is first. */
export function swiftCommon(context: ServiceContext): readonly Resource[] {
  const { cloud, node, secret, template } = context;
  const script = builderScript(cloud);
  return [
    directory({ path: '/etc/swift', group: 'swift', mode: 0o750 }),
    guarded('swift', ['/etc/swift/*.conf', '/etc/swift/*.ini', '/etc/swift/mime.types']),
    file({
      path: '/etc/swift/swift.conf',
      content: template('etc/swift/swift.conf.hbs', {
        prefix: secret('swift/hash-prefix'),
        suffix: secret('swift/hash-suffix'),
      }),
      group: 'swift',
      mode: 0o640,
      grammar: 'ini',
    }),
    command({
      name: 'rings',
      title: `Build the rings: ${replicas(cloud)} copies over ${diskCount(cloud)} disks`,
      check: Object.keys(PORTS)
        .map(kind => `[ -s /etc/swift/${kind}.ring.gz ]`)
        .join(' && '),
      stamp: script,
      apply: script,
      expectedSeconds: 6,
      interrupts: 'When disks were added, objects move to them in the background.',
      provides: [`object-store:rings@${node.name}`],
    }),
  ];
}
