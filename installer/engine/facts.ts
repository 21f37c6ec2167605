/** The first look at a node: what it is. One command, read-only. */
import { ProblemError, problem } from '../../provisioner/core/problem.js';
import type { NodeFacts } from '../model/cloud.js';

/** For `sh` on its standard input. Each line is `@NAME VALUE`; lists are JSON on one line. */
export const FACTS_SCRIPT = `
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

echo "@begin $(date +%s%3N)"
echo "@hostname $(hostname)"
echo "@os $(. /etc/os-release; echo "$ID $VERSION_ID")"
echo "@kernel $(uname -r) $(uname -m)"
echo "@cpus $(nproc)"
awk '/^MemTotal:/ {print "@memory " int($2 / 1024)}' /proc/meminfo
systemd-detect-virt --container --quiet && echo '@container yes'
[ -c /dev/kvm ] && echo '@kvm yes'
[ "$(systemd-detect-virt --vm)" != qemu ] || echo '@emulated yes'
has() { [ -d "/sys/module/$1" ] || modprobe -nq "$1" 2>/dev/null; }
has openvswitch && echo '@module openvswitch'
{ has dm_mod || grep -q device-mapper /proc/misc; } && { [ ! -e /run/systemd/container ] || [ -e /dev/mapper/control ]; } && grep -q device-mapper /proc/devices && echo '@module deviceMapper'
has iscsi_tcp && echo '@module iscsi'
has 8021q && echo '@module vlan'
df -m --output=avail /var 2>/dev/null | sed -n 's/^ *\\([0-9][0-9]*\\)$/@free \\1/p'
echo "@links $(ip -j addr show)"
echo "@routes $(ip -j -4 route show default)"
echo "@disks $(lsblk -J -b -o NAME,PATH,SIZE,TYPE,FSTYPE,PTTYPE,MOUNTPOINTS 2>/dev/null | tr -d '\\n')"
for l in /dev/disk/by-id/* /dev/disk/by-path/*; do [ ! -b "$l" ] || echo "@link $(readlink -f "$l") $l"; done
echo "@end $(date +%s%3N)"
exit 0
`;

interface Link {
  ifname: string;
  address?: string;
  mtu?: number;
  flags?: string[];
  addr_info?: { family: string; local: string; prefixlen: number }[];
}

/** A device of lsblk(8) with those on it: partitions, logical volumes, arrays. The column NAME makes it a tree. */
interface BlockDevice {
  readonly path: string;
  readonly size: number | string;
  readonly type: string;
  readonly fstype: string | null;
  readonly pttype: string | null;
  readonly mountpoints?: readonly (string | null)[];
  readonly children?: readonly BlockDevice[];
}

/** File systems and swap, also on what lies on it: a disk with partitions is mounted nowhere itself. */
const isMounted = (d: BlockDevice): boolean =>
  (d.mountpoints ?? []).some(m => m !== null) || (d.children ?? []).some(isMounted);

/**
 * @param sentMs our clock when the command was sent on a connection that stood; `receivedMs` when its answer was there
 * @throws ProblemError command-failed when the answer is no such report
 */
export function parseFacts(output: string, node: string, sentMs: number, receivedMs: number): NodeFacts {
  const lines = output.split('\n').map(line => /^@(\S+) (.*)$/.exec(line));
  const all = (name: string) => lines.flatMap(m => (m?.[1] === name ? [m[2]!] : []));
  const one = (name: string): string => {
    const value = all(name)[0];
    if (value === undefined)
      throw new ProblemError(problem('command-failed', `The look at ${node} brought no ${name}.`));
    return value;
  };
  const json = <T>(name: string, otherwise: T): T => {
    const text = all(name)[0];
    if (!text) return otherwise;
    try {
      return JSON.parse(text) as T;
    } catch {
      return otherwise;
    }
  };
  const [id = '', version = ''] = one('os').split(' ');
  const [kernel = '', architecture = ''] = one('kernel').split(' ');
  const modules = all('module');
  const routes = json<{ dev?: string; gateway?: string }[]>('routes', []);
  const links = all('link').map(line => line.split(' '));
  const disks = json<{ blockdevices?: BlockDevice[] }>('disks', {});
  return {
    hostname: one('hostname'),
    os: { id, version },
    kernel,
    architecture,
    cpus: Number(one('cpus')),
    memoryMiB: Number(one('memory')),
    container: all('container').length > 0,
    kvm: all('kvm').length > 0,
    emulated: all('emulated').length > 0,
    modules: {
      openvswitch: modules.includes('openvswitch'),
      deviceMapper: modules.includes('deviceMapper'),
      iscsi: modules.includes('iscsi'),
      vlan: modules.includes('vlan'),
    },
    interfaces: json<Link[]>('links', []).map(l => ({
      name: l.ifname,
      mac: l.address ?? '',
      mtu: l.mtu ?? 1500,
      up: l.flags?.includes('UP') ?? false,
      addresses: (l.addr_info ?? []).filter(a => a.family === 'inet').map(a => `${a.local}/${a.prefixlen}`),
      defaultRoute: routes.find(r => r.dev === l.ifname)?.gateway ?? null,
    })),
    disks: (disks.blockdevices ?? [])
      .filter(d => d.type === 'disk')
      .map(d => ({
        path: d.path,
        bytes: Number(d.size),
        mounted: isMounted(d),
        // A disk that holds others holds something, whatever lsblk calls it.
        signature: d.fstype ?? d.pttype ?? d.children?.[0]?.type ?? null,
        links: links.flatMap(([target, link]) => (target === d.path && link !== undefined ? [link] : [])),
      })),
    ...(all('free').length > 0 ? { freeMiB: Number(all('free')[0]) } : {}),
    // Both ways count alike, and what the node does in between does not (RFC 5905, section 8).
    clockOffsetMs: Math.round((Number(one('begin')) - sentMs + Number(one('end')) - receivedMs) / 2),
  };
}
