/** Reads configuration files as their readers do: oslo.config's sections, and flat `key = value` files. Pure. */

/** Section → key → last value. */
export type Ini = Readonly<Record<string, Readonly<Record<string, string>>>>;

const SECTION = /^\[([^\]]+)\]\s*$/;
const PAIR = /^([^#;=:\s][^=:]*?)\s*[=:]\s*(.*)$/;

/** Keys before the first section are in the section `DEFAULT`; lines that go on are joined. */
export function parseIni(text: string): Ini {
  const out: Record<string, Record<string, string>> = {};
  let section = 'DEFAULT';
  let last: { section: string; key: string } | null = null;
  for (const line of text.split('\n')) {
    const head = SECTION.exec(line);
    if (head) {
      section = head[1]!;
      last = null;
      continue;
    }
    if (/^\s+\S/.test(line) && last) {
      out[last.section]![last.key] += `\n${line.trim()}`;
      continue;
    }
    const pair = PAIR.exec(line);
    last = null;
    if (!pair) continue;
    const key = pair[1]!.trim();
    out[section] ??= {};
    out[section]![key] = pair[2]!.trim();
    last = { section, key };
  }
  return out;
}

/** As oslo.config reads a boolean; null when it is none. */
export function asBoolean(value: string | undefined): boolean | null {
  const word = value?.toLowerCase();
  if (word === undefined) return null;
  if (['true', '1', 'on', 'yes'].includes(word)) return true;
  if (['false', '0', 'off', 'no'].includes(word)) return false;
  return null;
}
