/**
 * Actions of one node as one program. It runs detached on the node, one action after the other, and says on lines of
 * its own how far it is:
 *
 *   @@halligan begin N
 *   @@halligan ok N MILLISECONDS
 *   @@halligan fail N EXIT-CODE       (the program ends there)
 *
 * Each action is safe to run again: a program that was killed in the middle is made up for by the next plan.
 */
import { randomBytes } from 'node:crypto';
import { quote } from '../../provisioner/core/render.js';
import { type ReleaseArchive, SOURCES_FILE, sourceFiles } from '../model/archives.js';
import type { ReleaseData } from '../model/releases.js';
import type { PackagesResource } from '../model/resources.js';
import type { NodeAction } from './diff.js';
import { STAMPS, stampName } from './observe.js';

const sh = (text: string) => quote('sh', text);

/** Added to an action's own time-out, for the shell around it. */
const GRACE_SECONDS = 30;
const FILE_SECONDS = 60;
const PACKAGE_SECONDS = 1800;
/** Looks at the result of a command, half a second apart. */
const SETTLE_TRIES = 20;
/** A unit that systemd had to restart so often while we waited for it does not come up by waiting. */
const RESTARTS = 8;
/** Last lines of a unit's journal, and of each of its logs, that a failure shows: more than one try of an API says. */
const JOURNAL_LINES = 15;
const LOG_LINES = 40;

/** Packages that must not be installed in some versions. */
export type BadPackages = readonly Pick<
  ReleaseData['bad_packages'][number],
  'package' | 'versions' | 'bug' | 'reason'
>[];

export interface BatchOptions {
  /** Units of this node that must not run before they are configured: disabled after an installation. */
  readonly unconfiguredUnits: readonly string[];
  readonly bad: BadPackages;
  /** For slow nodes: all time-outs are multiplied. */
  readonly timeoutFactor: number;
}

/** The longest that an action may take, in seconds. */
export const limitSeconds = (a: NodeAction, factor: number): number => {
  const r = a.placed.resource;
  if (r.kind === 'packages') return factor * PACKAGE_SECONDS;
  if (r.kind === 'command') return factor * r.timeoutSeconds;
  if (r.kind === 'unit') return factor * r.timeoutSeconds + GRACE_SECONDS;
  return FILE_SECONDS;
};

/** The longest that the program may take. */
export const batchTimeoutMs = (batch: readonly NodeAction[], { timeoutFactor }: BatchOptions): number =>
  1000 * batch.reduce((sum, a) => sum + limitSeconds(a, timeoutFactor) + GRACE_SECONDS, GRACE_SECONDS);

const writeStamp = (service: string, id: string, stamp: string): string => {
  const name = stampName(service, id);
  return `mkdir -p ${STAMPS}; printf %s ${sh(stamp)} >${STAMPS}/${sh(`.${name}.new`)}; mv -f ${STAMPS}/${sh(`.${name}.new`)} ${STAMPS}/${sh(name)}`;
};

/** A here-document's end that does not stand in the text. */
function heredoc(text: string): string {
  let end: string;
  do end = `HALLIGAN-${randomBytes(6).toString('hex')}`;
  while (text.includes(end));
  return `<<'${end}'\n${text}${text.endsWith('\n') ? '' : '\n'}${end}`;
}

/** A signal (`timeout`, a unit that is stopped) ends dash without its trap of EXIT; with these it goes through it. */
const SIGNALS = `trap 'exit 129' HUP\ntrap 'exit 130' INT\ntrap 'exit 143' TERM\n`;

/** What a program that was killed left behind, though it was ours: it says whose it is by a process. */
const LEFTOVERS = `for d in /run/halligan/work.*.*; do
  owner=\${d#/run/halligan/work.}
  [ ! -d "$d" ] || kill -0 "\${owner%%.*}" 2>/dev/null || rm -rf -- "$d"
done
policy=/usr/sbin/policy-rc.d
if grep -qs '^# halligan' $policy; then
  owner=$(sed -n 's/^# halligan \\([0-9][0-9]*\\):.*/\\1/p' $policy)
  [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null || rm -f -- $policy
fi
`;

/** The shell program of one action, run by `sh -eu`. */
function body(a: NodeAction, options: BatchOptions): string {
  const { resource: r, service } = a.placed;
  switch (r.kind) {
    case 'packages':
      return packagesBody(a.missing ?? r.names, r, options);
    case 'directory':
      return `mkdir -p ${sh(r.path)}\nchown -- ${sh(`${r.owner}:${r.group}`)} ${sh(r.path)}\nchmod ${r.mode.toString(8).padStart(4, '0')} ${sh(r.path)}\n`;
    case 'file': {
      const base64 = Buffer.from(r.content).toString('base64').replace(/.{76}/g, '$&\n');
      return `p=${sh(r.path)}
mkdir -p "$(dirname "$p")"
# A killed program may have left the secrets of its copy.
rm -f -- "$p".halligan-??????
t=
trap 'rm -f -- "$t"' EXIT
t=$(mktemp -- "$p.halligan-XXXXXX")
base64 -d >"$t" ${heredoc(base64)}
chown -- ${sh(`${r.owner}:${r.group}`)} "$t"
chmod ${r.mode.toString(8).padStart(4, '0')} "$t"
# The time says when units could read another content.
! cmp -s -- "$t" "$p" || touch -r "$p" -- "$t"
mv -fT -- "$t" "$p"
`;
    }
    case 'unit': {
      const u = sh(r.unit);
      if (a.verb === 'mask')
        return `systemctl stop --quiet ${u} 2>/dev/null || :\nsystemctl mask --quiet ${u}\nsystemctl reset-failed ${u} 2>/dev/null || :\n`;
      const reload = `[ "$(systemctl show -p NeedDaemonReload --value -- ${u})" != yes ] || systemctl daemon-reload\n`;
      const own = r.watches.some(w => w.startsWith('/etc/systemd/')) ? 'systemctl daemon-reload\n' : reload;
      const enable = `case $(systemctl show -p UnitFileState --value -- ${u}) in masked|masked-runtime) systemctl unmask --quiet ${u};; esac
case $(systemctl show -p UnitFileState --value -- ${u}) in
  disabled)
    systemctl enable --quiet ${u} || { echo ${sh(`${r.unit} could not be enabled: it would not start at boot`)}; exit 1; }
    [ "$(systemctl show -p UnitFileState --value -- ${u})" != disabled ] || { echo ${sh(`${r.unit} is still disabled`)}; exit 1; };;
  # Made by a generator, or an instance that nothing asked for yet: not all of them can be.
  '') systemctl enable --quiet ${u} 2>/dev/null || :;;
esac
`;
      const stamp = a.stamp === undefined ? '' : writeStamp(service, r.id, a.stamp);
      // Its stamp says when it was started, which it is not.
      if (a.verb === 'enable') return `${own}${enable}`;
      const verb = a.verb === 'reload' ? 'reload-or-restart' : a.verb === 'restart' ? 'restart' : 'start';
      const ready = r.ready === null ? '' : waitReady(u, r.ready, options.timeoutFactor * r.timeoutSeconds);
      return `${own}${enable}explain() {
  systemctl show -p ActiveState -p SubState -p Result -p ExecMainStatus -- ${u} | tr '\\n' ' '; echo
  journalctl -u ${u} -n ${JOURNAL_LINES} --no-pager -o cat 2>/dev/null || :
${
  r.watches.length === 0
    ? ''
    : `  # What it reads at its start names where it writes.
  for l in $(grep -ohE '/var/log/[A-Za-z0-9/_.-]+\\.log' -- ${r.watches.map(sh).join(' ')} 2>/dev/null | sort -u); do
    [ ! -f "$l" ] || tail -n ${LOG_LINES} "$l"
  done
`
}}
systemctl reset-failed ${u} 2>/dev/null || :
systemctl ${verb} ${u} || { echo ${sh(`${r.unit} did not start`)}; explain; exit 1; }
${ready}systemctl is-active --quiet ${u} || { echo ${sh(`${r.unit} ended after its start`)}; explain; exit 1; }
${stamp}
`;
    }
    case 'command': {
      const env = Object.entries(r.env).map(([name, value]) => `${name}=${sh(value)}\nexport ${name}\n`);
      const stamp = a.stamp === undefined ? '' : writeStamp(service, r.id, a.stamp);
      const check = r.check === null ? '' : checkBody(r.check);
      return `${env.join('')}( set -eu\n${SIGNALS}${r.apply}\n)\n${check}${stamp}\n`;
    }
  }
}

/** What was done may take a moment to show; what does not show after that was not done. */
const checkBody = (check: string): string => `n=0
until ( ${check}
) >/dev/null 2>&1; do
  n=$((n + 1))
  [ $n -lt ${SETTLE_TRIES} ] || { ( set -x; ${check}
  ) 2>&1 | tail -n 6; echo 'It was done, but its check still says that it is not.'; exit 1; }
  sleep 0.5
done
`;

const waitReady = (
  u: string,
  ready: string,
  timeoutSeconds: number,
): string => `end=$(($(date +%s) + ${timeoutSeconds}))
until ( ${ready}
) >/dev/null 2>&1; do
  [ "$(systemctl show -p ActiveState --value -- ${u})" != failed ] || { echo ${u}' failed while it started'; explain; exit 1; }
  n=$(systemctl show -p NRestarts --value -- ${u})
  [ "\${n:-0}" -lt ${RESTARTS} ] || { echo ${u}' ended '$n' times while it started'; explain; exit 1; }
  [ "$(date +%s)" -lt "$end" ] || { echo ${u}' does not answer after ${timeoutSeconds} s'; explain; exit 1; }
  sleep 0.4
done
`;

/** Puts text into a file of apt; where it was another, the lists are fetched anew. */
const sourceFile = (path: string, text: string): string => `t=$(mktemp)
cat >"$t" ${heredoc(text)}
chmod 644 "$t"
if cmp -s "$t" ${path}; then rm -f "$t"; else mv -f "$t" ${path}; stale=1; fi
`;

/** The node's own sources, or ours in their place, and the archives of the release, whose keyrings the distribution brings. */
function sourcesBody(archives: readonly ReleaseArchive[], sources: string | null): string {
  const keyrings = new Map(archives.map(a => [a.keyring.file, a.keyring.package]));
  const files = [...sourceFiles(archives, sources)];
  const own = sources?.split('\n').filter(l => !l.includes('[signed-by='));
  const first = own === undefined ? '' : sourceFile(SOURCES_FILE, own.join('\n'));
  const gone = files.flatMap(([path, text]) => (text === null ? [path] : []));
  return `stale=
mkdir -p /etc/apt/sources.list.d
${gone.length === 0 ? '' : `rm -f ${gone.join(' ')}\n`}${[...keyrings]
  .map(
    ([path, name]) => `if [ ! -s ${path} ]; then
${first}apt update && apt install ${sh(name)} || { echo ${sh(`The keyring ${path} could not be installed.`)}; exit 1; }
stale=1
fi
`,
  )
  .join('')}${files.map(([path, text]) => (text === null ? '' : sourceFile(path, text))).join('')}`;
}

/** Ends the program before apt brings a version that is known to be bad: the plan could not see it in lists that were old. */
function refuseBad(names: readonly string[], bad: BadPackages): string {
  if (bad.length === 0) return '';
  const pairs = (versions: string) =>
    versions.split(',').flatMap(part => {
      const [, operator = '', version = ''] = /^\s*([<>=]+)\s*(\S+)\s*$/.exec(part) ?? [];
      return [sh(operator), sh(version)];
    });
  return `would=$(apt -s install ${names.map(sh).join(' ')} 2>/dev/null | sed -n 's/^Inst \\([^ ]*\\) [^(]*(\\([^ ]*\\) .*/\\1 \\2/p')
good() {
  p=$1 why=$2; shift 2
  v=$(printf '%s\\n' "$would" | while read -r name version; do [ "$name" != "$p" ] || echo "$version"; done | head -n 1)
  [ -n "$v" ] || return 0
  while [ $# -gt 0 ]; do dpkg --compare-versions "$v" "$1" "$2" || return 0; shift 2; done
  echo "$p $v is known to be bad ($why) and was not installed."
  exit 1
}
${bad.map(b => `good ${sh(b.package)} ${sh(`${b.bug}: ${b.reason}`)} ${pairs(b.versions).join(' ')}\n`).join('')}`;
}

function packagesBody(
  names: readonly string[],
  { preseed, archives, sources }: Pick<PackagesResource, 'preseed' | 'archives' | 'sources'>,
  options: BatchOptions,
): string {
  return `export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
made='' said=$(mktemp)
trap 'rm -f -- "$said" $made' EXIT
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ] || grep -q halligan $policy; then
  made=$policy
  printf '#!/bin/sh\\n# halligan %s: nothing starts before it is configured\\nexit 101\\n' $$ >$policy
  chmod 755 $policy
fi
apt() { apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0 \\
  -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null; }
lists() {
  apt update >"$said" 2>&1 && code=0 || code=$?
  cat "$said"
  return $code
}
unreached() { sed -n 's/^[EW]: Failed to fetch /The package lists could not be fetched: /p' "$said" | head -n 1; }
# What a killed installation left half-way; what it cannot do apt says again.
half() { dpkg --configure -a --force-confdef --force-confold </dev/null >/dev/null || :; }
half
${sourcesBody(archives, sources)}${preseed.length === 0 ? '' : `debconf-set-selections ${heredoc(preseed.join('\n'))}`}
if [ -n "$stale" ] || [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -720 2>/dev/null | head -n 1)" ]; then lists || { unreached; exit 1; }; fi
${refuseBad(names, options.bad)}apt install ${names.map(sh).join(' ')} || { half; lists && apt --fix-broken install && apt install ${names.map(sh).join(' ')}; } || { unreached; exit 1; }
${options.unconfiguredUnits.length === 0 ? '' : `for u in ${options.unconfiguredUnits.map(sh).join(' ')}; do systemctl disable --quiet "$u" 2>/dev/null || :; done`}
`;
}

/**
 * The program for a detached unit. It removes itself, for it holds secrets.
 * @param niceness of its own processes; daemons that it starts are systemd's and have their own
 */
export function batchScript(batch: readonly NodeAction[], options: BatchOptions, niceness = 0): string {
  const parts = batch.map(
    (a, n) => `begin=$(date +%s%3N)
echo '@@halligan begin ${n}'
cat >"$w/a" ${heredoc(`umask 022\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\n${SIGNALS}${body(a, options)}`)}
timeout --kill-after=10 ${limitSeconds(a, options.timeoutFactor)} sh -eu "$w/a" </dev/null
code=$?
[ $code -eq 0 ] || { echo "@@halligan fail ${n} $code"; exit 1; }
echo "@@halligan ok ${n} $(($(date +%s%3N) - begin))"
`,
  );
  return `rm -f -- "$0"
exec 2>&1
umask 077
${niceness === 0 ? '' : `renice -n ${niceness} -p $$ >/dev/null 2>&1 || :\n`}mkdir -p /run/halligan
${LEFTOVERS}w=
trap 'rm -rf "$w"' EXIT
${SIGNALS}w=$(mktemp -d /run/halligan/work.$$.XXXXXX) || exit 70
${parts.join('')}exit 0
`;
}

export type Marker =
  | { readonly kind: 'begin'; readonly index: number }
  | { readonly kind: 'ok'; readonly index: number; readonly ms: number }
  | { readonly kind: 'fail'; readonly index: number; readonly code: number };

/** A line of the program's own, or null for output of what it runs. */
export function parseMarker(line: string): Marker | null {
  const m = /^@@halligan (begin|ok|fail) (\d+)(?: (\d+))?$/.exec(line);
  if (!m) return null;
  const index = Number(m[2]);
  if (m[1] === 'begin') return { kind: 'begin', index };
  return m[1] === 'ok' ? { kind: 'ok', index, ms: Number(m[3]) } : { kind: 'fail', index, code: Number(m[3]) };
}
