/** Order of Debian package versions (Debian policy 5.6.12). */

interface Version {
  readonly epoch: number;
  readonly upstream: string;
  readonly revision: string;
}

/** Null when the text is no version. */
function parse(text: string): Version | null {
  const match = /^(?:(\d{1,9}):)?([A-Za-z0-9.+:~-]+?)(?:-([A-Za-z0-9.+~]+))?$/.exec(text);
  if (!match) return null;
  const [, epoch = '0', upstream = '', revision = ''] = match;
  if (!/^\d/.test(upstream)) return null;
  // The last hyphen begins the revision, which is not empty; a colon needs an epoch before it.
  if ((upstream.includes('-') && match[3] === undefined) || (upstream.includes(':') && match[1] === undefined))
    return null;
  return { epoch: Number(epoch), upstream, revision };
}

/** `~` before the end, the end before letters, letters before everything else. */
function weight(c: string | undefined): number {
  if (c === '~') return -1;
  if (c === undefined || /\d/.test(c)) return 0;
  return /[A-Za-z]/.test(c) ? c.charCodeAt(0) : c.charCodeAt(0) + 256;
}

/** Compares by turns a part without digits and a number, until they differ. */
function compareParts(a: string, b: string): number {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    while ((i < a.length && !/\d/.test(a[i]!)) || (j < b.length && !/\d/.test(b[j]!))) {
      const difference = weight(a[i]) - weight(b[j]);
      if (difference !== 0) return difference;
      i++;
      j++;
    }
    const left = /^\d*/.exec(a.slice(i))![0];
    const right = /^\d*/.exec(b.slice(j))![0];
    const [x, y] = [left.replace(/^0+/, ''), right.replace(/^0+/, '')];
    if (x.length !== y.length) return x.length - y.length;
    if (x !== y) return x < y ? -1 : 1;
    i += left.length;
    j += right.length;
  }
  return 0;
}

export const isVersion = (text: string): boolean => parse(text) !== null;

/** Negative, zero or positive. @throws RangeError when one is no version */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map(text => {
    const version = parse(text);
    if (!version) throw new RangeError(`not a version of a Debian package: ${JSON.stringify(text)}`);
    return version;
  }) as [Version, Version];
  return (
    Math.sign(left.epoch - right.epoch) ||
    Math.sign(compareParts(left.upstream, right.upstream)) ||
    Math.sign(compareParts(left.revision, right.revision))
  );
}

const OPERATORS: Readonly<Record<string, (order: number) => boolean>> = {
  '<<': o => o < 0,
  '<=': o => o <= 0,
  '=': o => o === 0,
  '>=': o => o >= 0,
  '>>': o => o > 0,
};

function conditions(range: string): { readonly operator: string; readonly version: string }[] | null {
  const parts = range.split(',').map(part => /^(<<|<=|=|>=|>>) *(\S+)$/.exec(part.trim()));
  if (!parts.every(p => p !== null && isVersion(p[2]!))) return null;
  return parts.map(p => ({ operator: p![1]!, version: p![2]! }));
}

/** Whether a text is a range: operators of control files with versions, all of which must hold: `>= 1.0, << 1.2`. */
export const isVersionRange = (range: string): boolean => conditions(range) !== null;

/** @throws RangeError when one of them is not what it should be */
export function inRange(version: string, range: string): boolean {
  const all = conditions(range);
  if (!all) throw new RangeError(`not a range of versions: ${JSON.stringify(range)}`);
  return all.every(c => OPERATORS[c.operator]!(compareVersions(version, c.version)));
}
