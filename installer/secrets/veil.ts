/**
 * Keeps secrets out of what a file holds now. The mask knows our own values; what a file has in their place may be a
 * secret just as well (a password that was changed by hand, one of a cloud that stood here before) and nobody told us.
 * So it is judged by where it stands: rather too much is hidden than one value shown. Pure.
 */

/** In place of a value that is on the node and is not ours. */
export const OTHER = '<other value>';
/** In place of a value that the site gave for a name that tells of a secret. */
const GIVEN = '<value>';

/** Names of which any word is one of these hold secrets; of the others the last word must be. */
const ANYWHERE =
  /^(pass|passwd|passwords?|passphrase|pwd|secrets?|cookie|credentials?|psk|requirepass|masterauth|transport)$/;
const AT_END = /^(keys?|tokens?|connection|dsn)$/;
function isTelling(name: string): boolean {
  // adminPassword, admin_password, admin-password, DATABASES['default']['PASSWORD']
  const words = name
    .replaceAll(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter(w => w !== '');
  return words.some(w => ANYWHERE.test(w)) || AT_END.test(words.at(-1) ?? '');
}
/** Switches, limits, and where a key lies. */
const HARMLESS =
  /^\s*["']?(true|false|yes|no|on|off|none|null|\d{1,4}||\/(etc|var|usr|run|opt|srv)\/[\w./-]+)["']?,?\s*$/i;

/** `name = value` and `name: value`, also commented out; the name may be quoted, exported or an item of Python. */
const ASSIGNMENT =
  /^(\s*(?:[#;]+\s*)?(?:export\s+)?["']?)([A-Za-z_][^=:\s"']*(?:\["?'?[^\]]*\])*)(["'\s]*[=:]\s*)(.*)$/;
/** `"name": "value"` and `name=value` within a line. */
const QUOTED = /(["'])([\w.-]+)\1(\s*:\s*)("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,}\]]+)/g;
const INLINE = /([A-Za-z_][\w.-]*)(=)("[^"]*"?|'[^']*'?|[^\s"']+)/g;
/** `name value`, as of daemons that have no sign between. */
const WORDS = /^(\s*)([A-Za-z_][\w.-]*)(\s+)(\S.*)$/;
const SQL = /(\bidentified\s+(?:by|with\s+\S+\s+(?:by|as|using))\s*(?:password\s*)?\(?\s*)(?:'[^']*'?|"[^"]*"?|\S+)/gi;
const SQL_FUNCTION = /(\bpassword\s*\(\s*)(?:'[^']*'?|"[^"]*"?)/gi;
const USER_IN_URL = /([A-Za-z][A-Za-z0-9+.-]*:\/\/)\S*@/g;
/** A line that is nothing but a value: keys, cookies, bodies of PEM. */
const BARE = /^\s*[A-Za-z0-9+/_=.-]{16,}\s*$/;

/** Options may stand within a value: `OPTS="--password=…"`. */
const inline = (text: string, hidden: string): string =>
  text.replaceAll(INLINE, (_all: string, name: string, sign: string, value: string) => {
    if (isTelling(name) && !HARMLESS.test(value)) return `${name}${sign}${hidden}`;
    const [, quote = '', rest = ''] = /^(["']?)(.*)$/.exec(value) ?? [];
    return `${name}${sign}${quote}${inline(rest, hidden)}`;
  });

/** By the names of what stands in the line. */
function byName(line: string, hidden: string): string {
  const whole = ASSIGNMENT.exec(line);
  if (whole && isTelling(whole[2]!) && !HARMLESS.test(whole[4]!)) return `${whole[1]}${whole[2]}${whole[3]}${hidden}`;
  const words = WORDS.exec(line);
  if (!whole && words && isTelling(words[2]!)) return `${words[1]}${words[2]}${words[3]}${hidden}`;
  return inline(line, hidden)
    .replaceAll(QUOTED, (all: string, quote: string, name: string, between: string, value: string) =>
      isTelling(name) && !HARMLESS.test(value) ? `${quote}${name}${quote}${between}${hidden}` : all,
    )
    .replaceAll(SQL, `$1${hidden}`)
    .replaceAll(SQL_FUNCTION, `$1${hidden}`)
    .replaceAll(USER_IN_URL, `$1${hidden}@`);
}

const isSecretMark = (text: string) => text.indexOf('<secret ');
const nameOf = (line: string): string | undefined => ASSIGNMENT.exec(line)?.[2]?.toLowerCase();

/**
 * Both contents of a file that not everybody may read, line by line, without secrets.
 * @param mask puts `<secret NAME>` in place of our own values
 */
export function veil(
  found: string,
  wanted: string,
  mask: (text: string) => string,
): { readonly found: string; readonly wanted: string } {
  const wantedLines = wanted.split('\n');
  const shown = new Map<string, string>();
  /** What stands before a secret of ours, and the names of them: whatever stands there now is hidden. */
  const before = new Set<string>();
  const names = new Set<string>();
  for (const line of wantedLines) {
    const masked = mask(line);
    const at = isSecretMark(masked);
    if (at >= 0) {
      before.add(masked.slice(0, at).trim());
      const name = nameOf(masked);
      if (name !== undefined) names.add(name);
    }
    shown.set(line, at >= 0 ? masked : byName(line, GIVEN));
  }
  let inPem = false;
  let continues = false;
  const lines = found.split('\n').map(line => {
    const begins = /^\s*-----BEGIN /.test(line);
    const ends = /^\s*-----END /.test(line);
    const body = inPem && !ends;
    inPem = (inPem || begins) && !ends;
    const same = shown.get(line);
    if (same !== undefined) {
      continues = false;
      return same;
    }
    if (begins || ends) return line;
    if (body) return OTHER;
    // A value may go on in lines that are indented.
    if (continues && /^\s+\S/.test(line)) return OTHER;
    const name = nameOf(line);
    const start = line.trimStart();
    const prefix = [...before].filter(p => start.startsWith(p)).sort((a, b) => b.length - a.length)[0];
    const veiled =
      prefix !== undefined && start !== ''
        ? `${line.slice(0, line.length - start.length)}${prefix}${OTHER}`
        : name !== undefined && names.has(name)
          ? line.replace(ASSIGNMENT, `$1$2$3${OTHER}`)
          : BARE.test(line)
            ? OTHER
            : byName(mask(line), OTHER);
    continues = veiled.endsWith(OTHER) || (name !== undefined && isTelling(name) && /[=:]\s*$/.test(line));
    return veiled;
  });
  return { found: lines.join('\n'), wanted: wantedLines.map(l => shown.get(l)!).join('\n') };
}
