/**
 * What is left below the APIs: domains of libvirt, disks of volumes and their exports, OVN's rows. Only looks, and counts only
 * what bears a name or an id of the proof.
 */
import { sleep } from '../../provisioner/core/clock.js';
import { asProblem } from '../../provisioner/core/problem.js';
import type { Scope } from './sweep.js';

/** What one node printed; or why it did not. */
export type NodeAnswer =
  | { readonly node: string; readonly output: string }
  | { readonly node: string; readonly problem: string };

/** Runs a shell script that changes nothing on every node that has the service, e.g. `hypervisor`. Does not throw but for an abort. */
export type AskNodes = (service: string, script: string, signal: AbortSignal) => Promise<readonly NodeAnswer[]>;

/** Prints what a command lists, each line after its kind; fails when the command does, which a pipe would hide. */
const listed = (kind: string, command: string): string =>
  `d=$(${command})\nprintf '%s\\n' "$d" | sed 's/^ */${kind} /'`;

const OVN_TABLES = [
  ['logical_switch', 'name,external_ids'],
  ['logical_switch_port', 'name,external_ids'],
  ['logical_router', 'name,external_ids'],
  ['logical_router_port', 'name,external_ids'],
  ['nat', 'external_ip,external_ids'],
  ['port_group', 'name,external_ids'],
] as const;

/**
 * By service; a line is `KIND NAME…`. Names hold ids of the APIs: Nova gives the domain and its folder the server's, Cinder calls a
 * disk `volume-ID`, Neutron notes its own in `name` and `external_ids`.
 */
export const LOOKS: Readonly<Record<string, string>> = {
  hypervisor: `set -eu
${listed('libvirt domain', 'virsh -q -c qemu:///system list --all --uuid')}
[ ! -d /var/lib/nova/instances ] || ls -1 /var/lib/nova/instances | sed 's/^/folder of a server /'
! command -v iscsiadm >/dev/null || iscsiadm -m session 2>/dev/null | sed 's/^/iSCSI session /'
`,
  'volume-backend': `set -eu
if [ -e /etc/ceph/ceph.client.admin.keyring ]; then
${listed('RBD image', 'timeout 30 rbd --pool volumes ls')}
fi
if command -v vgs >/dev/null && vgs cinder-volumes >/dev/null 2>&1; then
${listed('logical volume', 'lvs --noheadings -o lv_name cinder-volumes')}
fi
if command -v tgtadm >/dev/null && systemctl is-active --quiet tgt; then
d=$(tgtadm --lld iscsi --mode target --op show)
printf '%s\\n' "$d" | sed -n 's/^Target [0-9]*: /iSCSI target /p'
fi
`,
  'network-control': `set -eu
${OVN_TABLES.map(([table, columns]) => listed(`OVN ${table}`, `ovn-nbctl --timeout=20 --format=csv --no-headings --columns=${columns} list ${table}`)).join('\n')}
`,
};

const KINDS =
  /^(libvirt domain|folder of a server|iSCSI session|RBD image|logical volume|iSCSI target|OVN [a-z_]+) (.*)$/;
const ID = /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/;

/** Which of the lines are of the proof, in few words. Pure. */
export function ofTheProof(output: string, scope: Pick<Scope, 'prefix' | 'ids'>): string[] {
  const marks = [scope.prefix, ...[...scope.ids].filter(id => ID.test(id))];
  return output.split('\n').flatMap(line => {
    const [, kind, rest = ''] = KINDS.exec(line.trim()) ?? [];
    // Port groups are `pg_` and the id with underscores.
    const plain = rest.replaceAll('_', '-');
    if (kind === undefined || !marks.some(mark => plain.includes(mark))) return [];
    const [name = ''] = rest.split(',');
    return [`${kind} ${(name || rest).slice(0, 120)}`];
  });
}

/** What the APIs have let go of may take so long to be gone, before the factor. */
const SETTLE_MS = 30_000;

/**
 * Looks until nothing is left, or for half a minute times `factor`.
 * @returns `libvirt domain 4f1c… on cmp1`; a node that does not answer is a line too: what is not known is not proved
 */
export async function leftOnNodes(
  scope: Pick<Scope, 'prefix' | 'ids' | 'pollMs'>,
  ask: AskNodes,
  factor: number,
): Promise<string[]> {
  const signal = AbortSignal.timeout(SETTLE_MS * factor);
  // A look that hangs must not keep the end of the proof for long.
  const last = AbortSignal.timeout(3 * SETTLE_MS * factor);
  for (;;) {
    const left = (
      await Promise.all(
        Object.entries(LOOKS).map(async ([service, script]) => {
          const answers = await ask(service, script, last).catch((error: unknown): NodeAnswer[] => [
            { node: `the nodes with ${service}`, problem: asProblem(error, 'command-failed').message },
          ]);
          return answers.flatMap(a =>
            'problem' in a
              ? [`It is not known what is left on ${a.node}: ${a.problem}`]
              : ofTheProof(a.output, scope).map(thing => `${thing} on ${a.node}`),
          );
        }),
      )
    ).flat();
    if (left.length === 0 || signal.aborted) return [...new Set(left)];
    await sleep(scope.pollMs, signal);
  }
}
