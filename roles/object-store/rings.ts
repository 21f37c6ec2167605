/**
 * Swift's rings. They must be the same on all nodes, and nothing is copied between nodes: each builds them from the same
 * list with the same seed, which yields the same bytes (swift-ring-builder(1) writes no times).
 */
import { createHash } from 'node:crypto';
import type { ServiceContext } from '../../installer/model/catalogue.js';
import { type CloudModel, type CloudNode, nodesWith } from '../../installer/model/cloud.js';
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

/**
 * Groups of devices in the order in which they join. A node that is added at the end of the site changes nothing of the
 * steps before, so only what it shall hold moves; the first step has as many disks as there are copies.
 */
function steps(cloud: CloudModel): readonly (readonly { zone: number; address: string; disk: string }[])[] {
  const least = replicas(cloud);
  const result: { zone: number; address: string; disk: string }[][] = [];
  let group: { zone: number; address: string; disk: string }[] = [];
  for (const [i, node] of nodesWith(cloud, 'object-store').entries()) {
    group.push(...disksOf(cloud, node).map(d => ({ zone: i + 1, address: node.storageAddress, disk: d.name })));
    if (result.length > 0 || group.length >= least) {
      result.push(group);
      group = [];
    }
  }
  return result;
}

/** One process for all three: each start of swift-ring-builder(1) costs a second. */
function builderScript(cloud: CloudModel): string {
  const input = { power: PART_POWER, replicas: replicas(cloud), seed: SEED, ports: PORTS, steps: steps(cloud) };
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
    builder = RingBuilder(wanted["power"], wanted["replicas"], 0)
    for group in wanted["steps"]:
        for disk in group:
            builder.add_dev({"region": 1, "zone": disk["zone"], "ip": disk["address"], "port": port,
                             "replication_ip": disk["address"], "replication_port": port,
                             "device": disk["disk"], "weight": 100.0, "meta": ""})
        builder.rebalance(seed=wanted["seed"])
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
