/**
 * Older versions of the site file. A migration is a pure function from the YAML document to edits of its text, so that
 * comments, order and quoting of everything else stay as the operator wrote them.
 */
import { type Document, isMap, isScalar, type Scalar, visit } from 'yaml';

/** The version that this Halligan writes, and that the schema describes. */
export const SITE_VERSION = 2;

/** Puts `text` in the place of the characters from `from` to before `to`. */
export interface Edit {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

interface Migration {
  /** It leads from this version to the next. */
  readonly from: number;
  /** What it changes and why, a sentence. */
  readonly what: string;
  /** Edits that do not overlap. */
  readonly edits: (doc: Document, text: string) => Edit[];
}

/** `${` in a text of version 1 is two characters; from version 2 on it begins the name of a variable. */
export const escapeVariables = (text: string): string => text.replaceAll('${', () => '$${');

const escapeScalar = (node: Scalar<string>, text: string): Edit[] => {
  const [from, to] = node.range as [number, number, number];
  const source = text.slice(from, to);
  const count = (of: string) => of.split('${').length - 1;
  // An escape like "\x24{" hides it from us in the source: then the value is written anew.
  if (count(source) !== count(node.value)) return [{ from, to, text: JSON.stringify(escapeVariables(node.value)) }];
  return [...source.matchAll(/\$\{/g)].map(m => ({ from: from + m.index, to: from + m.index, text: '$' }));
};

const MIGRATIONS: readonly Migration[] = [
  {
    from: 1,
    what: 'Version 2 has variables: a text that contains ${ and means just that is written $${.',
    edits(doc, text) {
      const edits: Edit[] = [];
      visit(doc, {
        Scalar(key, node) {
          if (key !== 'key' && typeof node.value === 'string' && node.value.includes('${') && node.range)
            edits.push(...escapeScalar(node as Scalar<string>, text));
        },
      });
      return edits;
    },
  },
];

const versionNode = (doc: Document): Scalar<number> | null => {
  const node = isMap(doc.contents) ? doc.contents.get('version', true) : null;
  return isScalar(node) && Number.isInteger(node.value) ? (node as Scalar<number>) : null;
};

/** The version that the document says, or null where it says none. */
export const versionOf = (doc: Document): number | null => versionNode(doc)?.value ?? null;

export const applyEdits = (text: string, edits: readonly Edit[]): string =>
  [...edits].sort((a, b) => b.from - a.from).reduce((t, e) => t.slice(0, e.from) + e.text + t.slice(e.to), text);

/** Where a place of the new text was in the old one; inside of an edit its beginning. */
export const originalOffset = (offset: number, edits: readonly Edit[]): number => {
  let shift = 0;
  for (const edit of [...edits].sort((a, b) => a.from - b.from)) {
    const start = edit.from + shift;
    if (offset < start) break;
    if (offset < start + edit.text.length) return edit.from;
    shift += edit.text.length - (edit.to - edit.from);
  }
  return offset - shift;
};

export interface Migrated {
  readonly text: string;
  /** Version of the text that was given; null where it says none that can be migrated. */
  readonly from: number | null;
  /** What was changed, a sentence per step; empty: it is of the present version already. */
  readonly steps: readonly string[];
  readonly toOriginal: (offset: number) => number;
}

/**
 * The text in the present version. A text that is not YAML, or of an unknown version, comes back as it is.
 * @param parse the one parser of site files
 */
export function migrateText(text: string, parse: (text: string) => Document): Migrated {
  const steps: string[] = [];
  const undo: (readonly Edit[])[] = [];
  let now = text;
  let from: number | null = null;
  for (;;) {
    const doc = parse(now);
    const node = doc.errors.length > 0 ? null : versionNode(doc);
    const migration = MIGRATIONS.find(m => m.from === node?.value);
    from ??= node?.value ?? null;
    if (!node?.range || !migration) break;
    const [start, end] = node.range;
    const edits = [...migration.edits(doc, now), { from: start, to: end, text: String(migration.from + 1) }];
    now = applyEdits(now, edits);
    undo.unshift(edits);
    steps.push(migration.what);
  }
  return { text: now, from, steps, toOriginal: offset => undo.reduce(originalOffset, offset) };
}
