/** The look at a node before a plan: one command that reads what matters for what is wanted there. Read-only. */
import { createHash } from 'node:crypto';
import { ProblemError, problem } from '../../provisioner/core/problem.js';
import { quote } from '../../provisioner/core/render.js';
import { sourceFiles } from '../model/archives.js';
import { type Placed, unitStamp } from './desired.js';

export const STAMPS = '/var/lib/halligan/stamps';
/** Files larger than this are reported as different without their content. */
const CONTENT_MAX_BYTES = 262_144;
const CHECK_SECONDS = 15;

export interface ObservedUnit {
  readonly load: string;
  readonly active: string;
  readonly sub: string;
  /** UnitFileState: enabled, disabled, masked, static, … */
  readonly enabled: string;
  readonly reloadNeeded: boolean;
  /** When systemd last saw it start, stop or reload, by the node's clock in ms; null: never. It read nothing later. */
  readonly changedMs: number | null;
}

export interface ObservedPath {
  readonly mode: number;
  readonly owner: string;
  readonly group: string;
  readonly type: string;
  /** When its content was last written, by the node's clock in ms. */
  readonly writtenMs: number;
}

export interface Observed {
  readonly node: string;
  /** Installed packages among the wanted and those that are known to be bad in some version: name → version. */
  readonly packages: ReadonlyMap<string, string>;
  /** Of those known to be bad in some version, what an installation of the missing packages would bring: name → version. */
  readonly candidates: ReadonlyMap<string, string>;
  readonly units: ReadonlyMap<string, ObservedUnit>;
  readonly paths: ReadonlyMap<string, ObservedPath>;
  /** Wanted files whose content is another one (or which are not there): path → content, null when unreadable or too large. */
  readonly different: ReadonlyMap<string, string | null>;
  /** Files of apt that an installation of packages changes or removes, as they are: path → content. */
  readonly sources: ReadonlyMap<string, string>;
  /** Stamp name → what was recorded after the last success. */
  readonly stamps: ReadonlyMap<string, string>;
  /** Stamp name → when it was recorded, by the node's clock in ms. */
  readonly stampedMs: ReadonlyMap<string, number>;
  /** Units that we started once, that are not wanted here any more, and that run or would at boot. */
  readonly left: readonly { readonly service: string; readonly unit: string }[];
  /** Key of a command with a check → its exit code. */
  readonly checks: ReadonlyMap<string, number>;
}

/** Name of the file that records the last success of a resource. */
export const stampName = (service: string, id: string) => `${service}%${id}`.replaceAll('/', '%');

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const sh = (text: string) => quote('sh', text);

/** Times of systemctl(1): `Tue 2026-11-24 20:07:33.123456 UTC`. */
const SHOW_TIMES = '--timestamp=us+utc';
export function parseUnitTime(text: string | undefined): number | null {
  const m = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,3})?)\d* UTC$/.exec(text ?? '');
  return m ? Date.parse(`${m[1]}T${m[2]}Z`) : null;
}
const seconds = (text: string) => Math.round(Number(text) * 1000);

/**
 * What an installation of the missing packages would bring of those that are known to be bad in some version. apt
 * says it without the network; where it does not know a package yet, the program that installs looks again.
 */
const candidatesBody = (wanted: string, bad: readonly string[]): string => `missing=
have=$(dpkg-query -W -f '\${db:Status-Abbrev} \${Package}\n' ${wanted} 2>/dev/null | sed -n 's/^[ih]i *//p')
for p in ${wanted}; do printf '%s\n' "$have" | grep -qxF -- "$p" || missing="$missing $p"; done
[ -z "$missing" ] || apt-get -q -s -o APT::Install-Recommends=false install $missing 2>/dev/null </dev/null |
  sed -n 's/^Inst \\([^ ]*\\) [^(]*(\\([^ ]*\\) .*/\\1 \\2/p' | while read -r name version; do
  case $name in ${bad.map(sh).join('|')}) echo "@candidate $name $version";; esac
done`;

/**
 * The program, for `sh` on its standard input. It holds secrets (of checks), so it is never an argument.
 * @param bad packages that are known to be bad in some version
 */
export function observeScript(placed: readonly Placed[], bad: readonly string[] = []): string {
  const packages: string[] = [];
  const units: string[] = [];
  const paths: string[] = [];
  const sums: string[] = [];
  const checks: string[] = [];
  const sources: string[] = [];
  for (const { key, resource: r } of placed) {
    if (r.kind === 'packages') {
      packages.push(...r.names);
      sources.push(...sourceFiles(r.archives, r.sources).keys());
    } else if (r.kind === 'unit') units.push(r.unit);
    else if (r.kind === 'directory') paths.push(r.path);
    else if (r.kind === 'file') {
      paths.push(r.path);
      sums.push(`${sha256(r.content)}  ${r.path}`);
    } else if (r.check !== null) {
      const env = Object.entries(r.env).map(([name, value]) => `export ${name}=${sh(value)}`);
      checks.push(
        `( ${[...env, `exec timeout ${CHECK_SECONDS} sh -c ${sh(r.check)}`].join('; ')} ) >/dev/null 2>&1 </dev/null; echo "@check $? "${sh(key)}`,
      );
    }
  }
  const words = (list: readonly string[]) => [...new Set(list)].map(sh).join(' ');
  return `export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
${packages.length ? `dpkg-query -W -f '@package \${db:Status-Abbrev} \${Package} \${Version}\\n' ${words([...packages, ...bad])} 2>/dev/null` : ''}
${packages.length && bad.length ? candidatesBody(words(packages), bad) : ''}
${units.length ? `systemctl show ${SHOW_TIMES} -p LoadState -p ActiveState -p SubState -p UnitFileState -p NeedDaemonReload -p StateChangeTimestamp -- ${words(units)} | sed 's/^/@unit /'` : ''}
${paths.length ? `stat -c '@path %a %U %G %.3Y %F|%n' -- ${words(paths)} 2>/dev/null` : ''}
sha256sum -c --quiet 2>/dev/null <<'HALLIGAN-SUMS' | sed -n 's/: FAILED.*$//p' | while IFS= read -r p; do
${sums.join('\n')}
HALLIGAN-SUMS
  if [ -f "$p" ] && [ "$(wc -c <"$p")" -le ${CONTENT_MAX_BYTES} ]; then echo "@different $(base64 -w0 <"$p")|$p"; else echo "@different -|$p"; fi
done
${sources.length ? `for p in ${words(sources)}; do [ ! -f "$p" ] || echo "@source $(base64 -w0 <"$p")|$p"; done` : ''}
[ ! -d ${STAMPS} ] || (cd ${STAMPS} && for f in *; do [ -f "$f" ] && echo "@stamp $(cat "$f") $f"; done; stat -c '@stamped %.3Y %n' -- * 2>/dev/null
for f in *%unit:*; do
  u=\${f#*%unit:}
  case $u in '*'${units.length ? `|${[...new Set(units)].map(sh).join('|')}` : ''}) continue;; esac
  if systemctl is-active --quiet -- "$u" || systemctl is-enabled --quiet -- "$u" 2>/dev/null; then echo "@left \${f%%%unit:*} $u"; fi
done)
${checks.join('\n')}
echo @end
exit 0
`;
}

/** @throws ProblemError command-failed when the answer was cut off */
export function parseObserved(output: string, node: string, placed: readonly Placed[]): Observed {
  const packages = new Map<string, string>();
  const candidates = new Map<string, string>();
  const paths = new Map<string, ObservedPath>();
  const stampedMs = new Map<string, number>();
  const different = new Map<string, string | null>();
  const stamps = new Map<string, string>();
  const sources = new Map<string, string>();
  const left: { service: string; unit: string }[] = [];
  const checks = new Map<string, number>();
  const blocks: Record<string, string>[] = [{}];
  let ended = false;
  const readers: Readonly<Record<string, { form: RegExp; take: (m: RegExpExecArray) => void }>> = {
    package: {
      form: /^(\S+)\s+(\S+) (\S+)$/,
      take: m => void (/^[ih]i$/.test(m[1]!) && packages.set(m[2]!, m[3]!)),
    },
    unit: {
      form: /^(?:(\w+)=(.*))?$/,
      // systemctl puts an empty line between units.
      take: m => {
        if (m[1] === undefined) blocks.push({});
        else blocks.at(-1)![m[1]] = m[2]!;
      },
    },
    path: {
      form: /^(\d+) (\S+) (\S+) ([\d.]+) ([^|]*)\|(.*)$/,
      take: m =>
        paths.set(m[6]!, {
          mode: Number.parseInt(m[1]!, 8),
          owner: m[2]!,
          group: m[3]!,
          writtenMs: seconds(m[4]!),
          type: m[5]!,
        }),
    },
    candidate: { form: /^(\S+) (\S+)$/, take: m => candidates.set(m[1]!, m[2]!) },
    different: {
      form: /^([^|]*)\|(.*)$/,
      take: m => different.set(m[2]!, m[1] === '-' ? null : Buffer.from(m[1]!, 'base64').toString('utf8')),
    },
    source: { form: /^([^|]*)\|(.*)$/, take: m => sources.set(m[2]!, Buffer.from(m[1]!, 'base64').toString('utf8')) },
    stamp: { form: /^(\S*) (.*)$/, take: m => stamps.set(m[2]!, m[1]!) },
    stamped: { form: /^([\d.]+) (.*)$/, take: m => stampedMs.set(m[2]!, seconds(m[1]!)) },
    left: { form: /^(\S+) (\S+)$/, take: m => void left.push({ service: m[1]!, unit: m[2]! }) },
    check: { form: /^(\d+) (.*)$/, take: m => checks.set(m[2]!, Number(m[1])) },
  };
  for (const line of output.split('\n')) {
    const [, name = '', rest = ''] = /^@([a-z]+) ?(.*)$/.exec(line) ?? [];
    if (name === 'end') ended = true;
    const reader = readers[name];
    const m = reader?.form.exec(rest);
    if (reader && m) reader.take(m);
  }
  if (!ended) throw new ProblemError(problem('command-failed', `The look at ${node} was cut off.`));
  const wanted = [...new Set(placed.flatMap(p => (p.resource.kind === 'unit' ? [p.resource.unit] : [])))];
  const found = blocks.filter(b => Object.keys(b).length > 0);
  const units = new Map(
    wanted.map((name, i) => {
      const b = found[i] ?? {};
      return [
        name,
        {
          load: b['LoadState'] ?? 'not-found',
          active: b['ActiveState'] ?? 'inactive',
          sub: b['SubState'] ?? 'dead',
          enabled: b['UnitFileState'] ?? '',
          reloadNeeded: b['NeedDaemonReload'] === 'yes',
          changedMs: parseUnitTime(b['StateChangeTimestamp']),
        },
      ];
    }),
  );
  return { node, packages, candidates, units, paths, different, sources, stamps, stampedMs, left, checks };
}

/** The stamp that a unit on this node has when it runs with what is wanted. */
export function stampOfUnit(unit: Placed, onNode: readonly Placed[]): string {
  const { resource } = unit;
  if (resource.kind !== 'unit') throw new Error(`${unit.key} is no unit`);
  const files = new Map(onNode.flatMap(p => (p.resource.kind === 'file' ? [[p.resource.path, p.resource]] : [])));
  return unitStamp(resource.watches.map(path => files.get(path)!));
}
