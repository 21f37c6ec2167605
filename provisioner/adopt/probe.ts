/** What is asked of a host before it is adopted, and the verdict on the answer. Pure. */
import { type Problem, problem } from '../core/problem.js';

/** What the probe found. */
export interface HostFacts {
  /** ID and VERSION_ID of os-release(5). */
  readonly distribution: string | null;
  readonly release: string | null;
  /** uname -m */
  readonly arch: string;
  /** systemd is the running init: sd_booted(3). */
  readonly systemd: boolean;
  readonly uid: number;
  /** `sudo -n` works without a password. */
  readonly sudo: boolean;
  readonly hostname: string;
}

/** Reads only; for `sh` on its standard input. One compound command, so that nothing runs of a half-sent one. */
export const PROBE_PROGRAM = `{
echo "arch=$(uname -m)"
echo "uid=$(id -u)"
echo "hostname=$(uname -n)"
[ -d /run/systemd/system ] && echo systemd=yes
sudo -n true >/dev/null 2>&1 </dev/null && echo sudo=yes
echo os-release
cat /etc/os-release
exit 0
}
`;

/** One value of os-release(5): shell-like quoting, no expansion. */
function unquote(value: string): string {
  const quoted = /^"(.*)"$|^'(.*)'$/.exec(value);
  return quoted ? (quoted[1] ?? quoted[2] ?? '').replace(/\\(["$`\\\\])/g, '$1') : value;
}

export function parseProbe(text: string): HostFacts {
  const values = new Map<string, string>();
  let section = '';
  for (const line of text.split('\n').slice(0, 200)) {
    if (line === 'os-release' && section === '') section = 'os:';
    const equals = line.indexOf('=');
    const key = section + line.slice(0, equals);
    if (equals > 0 && !values.has(key))
      values.set(
        key,
        line
          .slice(equals + 1)
          .trim()
          .slice(0, 200),
      );
  }
  const os = (key: string) => {
    const value = values.get(`os:${key}`);
    return value === undefined ? null : unquote(value);
  };
  const uid = values.get('uid') ?? '';
  return {
    distribution: os('ID'),
    release: os('VERSION_ID'),
    arch: values.get('arch') ?? '',
    systemd: values.get('systemd') === 'yes',
    uid: /^\d{1,10}$/.test(uid) ? Number(uid) : -1,
    sudo: values.get('sudo') === 'yes',
    hostname: values.get('hostname') ?? '',
  };
}

const HOST_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** The first label of a host name as a node's name, or null when it cannot be one. */
export function nodeNameOf(hostname: string): string | null {
  const label = hostname.split('.')[0]!.toLowerCase();
  return HOST_NAME.test(label) && label !== 'localhost' ? label : null;
}

/**
 * The release's name (`debian-12`), or the refusal with everything that is missing at once.
 * @param known names of the releases that there is data for
 */
export function judgeHost(facts: HostFacts, user: string, address: string, known: readonly string[]): string | Problem {
  const release = `${facts.distribution}-${facts.release}`;
  const reasons: string[] = [];
  if (!known.includes(release))
    reasons.push(
      facts.distribution === null
        ? 'it does not say what system it runs (/etc/os-release)'
        : `it runs ${facts.distribution} ${facts.release ?? 'without a release number'}; adopted are ${known.join(', ')}`,
    );
  if (facts.arch !== 'x86_64') reasons.push(`its architecture is ${facts.arch || 'unknown'}, not x86_64`);
  if (!facts.systemd) reasons.push('systemd is not its init');
  if (facts.uid !== 0 && !facts.sudo)
    reasons.push(`${user} is not root and has no sudo without password (\`${user} ALL=(ALL) NOPASSWD: ALL\`)`);
  return reasons.length === 0
    ? release
    : problem('adopt-refused', `${address} cannot be adopted: ${reasons.join('; ')}.`, { detail: { reasons } });
}
