/** Keeps secret values out of what people and files get to see: plans, diffs, logs, events, messages. */

/** Shorter values are words that stand in any text; masking them would hide the text and give the value away. */
const MIN_LENGTH = 8;

/**
 * What a value looks like inside base64: at each of the three places where it may begin, the characters that are the same
 * whatever stands around it. So `Authorization: Basic …` is found too.
 */
function base64Cores(value: string): string[] {
  const bytes = Buffer.from(value);
  return [0, 1, 2].map(before => {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const start = Math.ceil((before * 8) / 6);
    const end = Math.floor(((before + bytes.length) * 8) / 6);
    return text.slice(start, end);
  });
}

/** All the ways in which a value may be written. */
function formsOf(value: string): Set<string> {
  // A key in PEM is shown line by line in a diff; its first and last line are no secret.
  const lines = value.split('\n').filter(line => !line.startsWith('-----'));
  const wholes = lines.length > 1 ? lines : [value];
  const forms = new Set(wholes);
  for (const whole of wholes) {
    forms.add(encodeURIComponent(whole));
    forms.add(JSON.stringify(whole).slice(1, -1));
  }
  if (lines.length === 1)
    for (const core of base64Cores(value)) {
      forms.add(core);
      forms.add(core.replaceAll('+', '-').replaceAll('/', '_'));
      forms.add(encodeURIComponent(core));
    }
  return new Set([...forms].filter(form => form.length >= MIN_LENGTH));
}

/** Secret values with their names; new ones may be added at any time. */
export class SecretMask {
  /** Forms by their first characters, longest first: a text is read once, however many secrets there are. */
  private readonly byStart = new Map<string, { readonly form: string; readonly name: string }[]>();

  add(name: string, value: string): void {
    for (const form of formsOf(value)) {
      const start = form.slice(0, MIN_LENGTH);
      const entries = this.byStart.get(start) ?? [];
      if (entries.some(e => e.form === form)) continue;
      this.byStart.set(
        start,
        [...entries, { form, name }].sort((a, b) => b.form.length - a.form.length),
      );
    }
  }

  /** The text with `<secret NAME>` in place of each known value. */
  mask(text: string): string {
    if (this.byStart.size === 0 || text.length < MIN_LENGTH) return text;
    let out = '';
    let copied = 0;
    for (let i = 0; i + MIN_LENGTH <= text.length; ) {
      const hit = this.byStart.get(text.slice(i, i + MIN_LENGTH))?.find(e => text.startsWith(e.form, i));
      if (!hit) {
        i++;
        continue;
      }
      out += `${text.slice(copied, i)}<secret ${hit.name}>`;
      i += hit.form.length;
      copied = i;
    }
    return out + text.slice(copied);
  }
}
