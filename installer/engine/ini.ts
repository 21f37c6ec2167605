/** Additions of the operator to a configuration file of sections (oslo.config, configparser). Pure. */

export type IniAdditions = Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>>;

const SECTION = /^\[([^\]]+)\]\s*$/;
const KEY = /^([^#;=:\s][^=:]*?)\s*[=:]/;

/**
 * Sets keys in sections: a key that is there is replaced (all its lines, continuation lines too), others come at the
 * end of their section, sections that are not there at the end of the file.
 */
export function mergeIni(text: string, additions: IniAdditions): string {
  const lines = text.replace(/\n$/, '').split('\n');
  const left = new Map(Object.entries(additions).map(([s, keys]) => [s, new Map(Object.entries(keys))]));
  const out: string[] = [];
  let section: string | null = null;
  let dropping = false;
  const finish = () => {
    if (section === null) return;
    const rest = left.get(section);
    if (!rest) return;
    const blanks: string[] = [];
    while (out.at(-1) === '') blanks.push(out.pop()!);
    for (const [key, value] of rest) out.push(`${key} = ${value}`);
    out.push(...blanks);
    left.delete(section);
  };
  for (const line of lines) {
    const head = SECTION.exec(line);
    if (head) {
      finish();
      section = head[1]!;
      dropping = false;
      out.push(line);
      continue;
    }
    if (dropping && /^\s+\S/.test(line)) continue;
    dropping = false;
    const key = KEY.exec(line)?.[1];
    const wanted = section === null || key === undefined ? undefined : left.get(section)?.get(key);
    if (wanted === undefined || section === null || key === undefined) out.push(line);
    else {
      out.push(`${key} = ${wanted}`);
      left.get(section)!.delete(key);
      dropping = true;
    }
  }
  finish();
  for (const [name, keys] of left) {
    if (keys.size === 0) continue;
    if (out.at(-1) !== '') out.push('');
    out.push(`[${name}]`);
    for (const [key, value] of keys) out.push(`${key} = ${value}`);
  }
  return `${out.join('\n')}\n`;
}
