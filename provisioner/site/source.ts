/**
 * The text of a site as one value: older versions are brought up to the present one, included files are joined, variables
 * are put in. Every value keeps its place (file, line, column). Pure: files come from a reader.
 */
import { posix } from 'node:path';
import { type Document, isAlias, isCollection, isMap, isScalar, LineCounter, type Node, parseDocument } from 'yaml';
import { type Fault, fieldName, found, nearest } from '../core/schema/explain.js';
import { migrateText, SITE_VERSION } from './migrate.js';
import type { Path } from './report.js';

/** A site of ten thousand nodes is about 3 MB. */
const TEXT_MAX = 16 * 1024 * 1024;
const FILES_MAX = 256;
const FAULTS_MAX = 100;

/** Lines and columns count from 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** For the inside of a sentence. */
export const sayPlace = (place: Place): string => `${place.file}, line ${place.line}`;

/** A fault whose place is known already: it is about the text, not about a field of the whole. */
export interface TextFault {
  readonly place: Place;
  readonly field: string;
  readonly message: string;
}

/**
 * Reads an included file.
 * @param path relative to the folder of the site file, without `..`, slashes as separators
 * @returns the text, or why there is none, as the end of a sentence
 */
export type IncludeReader = (path: string) => { readonly text: string } | { readonly reason: string };

export interface Composed {
  /** Without `include`; strings with their variables filled in. */
  readonly data: unknown;
  /** Version that the site file itself says. */
  readonly version: number | null;
  /** Unknown variables and the like: faults of fields. */
  readonly faults: readonly Fault[];
  /** The place of a field, or of its nearest parent that is written down. */
  locate(path: Path, key?: boolean, needle?: string): Place;
  /** How a value is written, where that says more than the value: 0123, 1_000. */
  source(path: Path): string | undefined;
}

interface SourceFile {
  /** As in messages. */
  readonly name: string;
  readonly doc: Document;
  readonly text: string;
  place(offset: number): Place;
}

/** Where a part of the whole comes from: from one file as it is, or joined from several. */
type Tree =
  | { readonly kind: 'leaf'; readonly file: SourceFile; readonly path: Path; readonly value: unknown }
  | { readonly kind: 'map'; readonly file: SourceFile; readonly path: Path; readonly entries: Map<string, Tree> }
  | { readonly kind: 'list'; readonly file: SourceFile; readonly path: Path; readonly items: Tree[] };

const parse = (text: string, lineCounter?: LineCounter): Document =>
  parseDocument(text, { ...(lineCounter ? { lineCounter } : {}), prettyErrors: false, logLevel: 'error' });

/** The text of a site file in the present version, with what was changed. */
export const migrateSiteText = (text: string) => migrateText(text, parse);

/** Fields that version 2 brought. */
const SINCE_2 = ['include', 'vars', 'layouts', 'profiles', 'racks'];
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;
const SECRET_NAME = /passw|secret|token|passphrase/i;
const isReference = (value: unknown) => typeof value === 'string' && /^(file:\/|env:|secret:)/.test(value);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads a site file and everything it includes.
 * @param path how the site file is called in messages; names of included files follow from it
 * @param read null: there are no other files, such as for a text that came by the API
 * @returns the whole, or what keeps it from being read at all
 */
export function compose(text: string, path: string, read: IncludeReader | null): Composed | TextFault[] {
  const broken: TextFault[] = [];
  const faults: Fault[] = [];
  const folder = posix.dirname(path);
  /** By path below the folder of the site file, with the place that named it. */
  const seen = new Map<string, Place>();

  const open = (content: string, name: string, main: boolean): SourceFile | null => {
    const stop = (place: Place, message: string) => void broken.push({ place, field: '', message });
    if (content.length > TEXT_MAX) {
      stop({ file: name, line: 1, column: 1 }, `the file is larger than ${TEXT_MAX / 1024 / 1024} MiB`);
      return null;
    }
    const { text: present, toOriginal } = main
      ? migrateSiteText(content)
      : { text: content, toOriginal: (o: number) => o };
    // Places are those of the text that the person wrote, whatever a migration made of it.
    const counter = new LineCounter();
    const original = parse(content, counter);
    const file: SourceFile = {
      name,
      text: present,
      doc: present === content ? original : parse(present),
      place(offset) {
        const { line, col } = counter.linePos(toOriginal(offset));
        return { file: name, line: Math.max(1, line), column: Math.max(1, col) };
      },
    };
    const errors = [...file.doc.errors, ...file.doc.warnings];
    for (const error of errors.slice(0, FAULTS_MAX))
      stop(file.place(error.pos[0]), yamlSentence(error.code, error.message, lineAt(present, error.pos[0])));
    return errors.length > 0 ? null : file;
  };

  const toTree = (file: SourceFile): Tree | null => {
    const start = file.place(0);
    let value: unknown;
    try {
      value = file.doc.toJS({ maxAliasCount: 100 });
    } catch (error) {
      broken.push({ place: start, field: '', message: error instanceof Error ? error.message : String(error) });
      return null;
    }
    if (value === null || value === undefined) {
      broken.push({
        place: start,
        field: '',
        message: 'the file is empty; docs/example-site.yaml is one to start from',
      });
      return null;
    }
    return { kind: 'leaf', file, path: [], value };
  };

  /** The tree of a file with everything it includes, its own entries of lists first. */
  const withIncludes = (file: SourceFile, below: string, stack: readonly string[]): Tree | null => {
    let tree = toTree(file);
    if (tree?.kind !== 'leaf' || !isRecord(tree.value)) return tree;
    if (stack.length > 1 && Object.hasOwn(tree.value, 'version'))
      broken.push({
        place: placeIn(file, ['version'], true),
        field: 'version',
        message: 'unknown field; the version stands in the site file alone',
      });
    const list = tree.value['include'];
    // Another shape is left for the schema to refuse.
    if (!Array.isArray(list) || !list.every(entry => typeof entry === 'string' && entry !== '')) return tree;
    const { include: _, ...rest } = tree.value;
    tree = { kind: 'leaf', file, path: [], value: rest };
    for (const [i, entry] of (list as string[]).entries()) {
      const place = placeIn(file, ['include', i]);
      const refuse = (message: string) => void broken.push({ place, field: `include[${i}]`, message });
      const target = posix.normalize(posix.join(posix.dirname(below), entry));
      const known = seen.get(target);
      if (posix.isAbsolute(entry) || target === '..' || target.startsWith('../')) {
        refuse(`expected a file below the folder of the site file, found ${found(entry)}`);
      } else if (stack.includes(target)) {
        refuse(`${entry} includes itself: ${[...stack.slice(stack.indexOf(target)), target].join(' includes ')}`);
      } else if (known) {
        refuse(`${entry} is included already in ${sayPlace(known)}`);
      } else if (read === null) {
        refuse('other files cannot be read here; check it where they are: halligan site check FILE');
      } else if (seen.size >= FILES_MAX) {
        refuse(`expected at most ${FILES_MAX} included files`);
      } else {
        seen.set(target, place);
        const answer = read(target);
        if ('reason' in answer) {
          refuse(`${entry} ${answer.reason}`);
          continue;
        }
        const inner = open(answer.text, folder === '.' ? target : posix.join(folder, target), false);
        const joined = inner && withIncludes(inner, target, [...stack, target]);
        if (!joined) continue;
        if (joined.kind === 'leaf' && !isRecord(joined.value))
          broken.push({
            place: joined.file.place(0),
            field: '',
            message: `expected a mapping (fields with values), found ${found(joined.value)}`,
          });
        else tree = merge(tree, joined, broken);
      }
    }
    return tree;
  };

  const main = open(text, path, true);
  const base = posix.basename(path);
  const tree = main && withIncludes(main, base, [base]);
  if (broken.length > 0 || !main || !tree) return broken;

  const version = versionIn(text);
  const locate: Composed['locate'] = (field, key, needle) => placeOf(tree, field, key ?? false, needle);
  const data = toValue(tree);
  if (version === 1 && isRecord(data))
    for (const field of SINCE_2)
      if (main.doc.has(field))
        faults.push({
          path: [field],
          key: true,
          message: `known from version ${SITE_VERSION} on; bring the file up to it first: halligan site migrate ${path}`,
        });
  return {
    data: isRecord(data) ? fillIn(data, faults) : data,
    version,
    faults,
    locate,
    source(field) {
      const at = leafOf(tree, field);
      const node = at?.file.doc.getIn(at.path, true);
      return isScalar(node) && typeof node.value !== 'string' && node.source !== undefined && node.source !== ''
        ? node.source.slice(0, 80)
        : undefined;
    },
  };
}

const versionIn = (text: string): number | null => {
  const node = parse(text).get('version');
  return typeof node === 'number' ? node : null;
};

const lineAt = (text: string, offset: number): string =>
  text.slice(text.lastIndexOf('\n', offset - 1) + 1).split('\n', 1)[0] ?? '';

function yamlSentence(code: string, message: string, line: string): string {
  if (code === 'DUPLICATE_KEY') return 'this field is given twice';
  if (code === 'TAB_AS_INDENT') return 'tabs cannot indent YAML; use spaces';
  if (code === 'MULTIPLE_DOCS') return 'the file has several YAML documents (---); expected one';
  // Within { } and [ ] the brace of ${name} ends the text.
  const hint = /[:,[{] *\$\{/.test(line) ? `; inside of { } and [ ] put \${name} in quotes` : '';
  return `not valid YAML: ${message.split('\n')[0]}${hint}`;
}

// Joining

const expand = (tree: Tree): Tree => {
  if (tree.kind !== 'leaf') return tree;
  const { file, path, value } = tree;
  if (Array.isArray(value))
    return {
      kind: 'list',
      file,
      path,
      items: value.map((v, i) => ({ kind: 'leaf', file, path: [...path, i], value: v })),
    };
  if (!isRecord(value)) return tree;
  const entries = new Map<string, Tree>();
  for (const [key, v] of Object.entries(value))
    entries.set(key, { kind: 'leaf', file, path: [...path, key], value: v });
  return { kind: 'map', file, path, entries };
};

/** Lists are joined, mappings are joined field by field; any other value may stand only once. */
function merge(a: Tree, b: Tree, broken: TextFault[]): Tree {
  const left = expand(a);
  const right = expand(b);
  if (left.kind === 'map' && right.kind === 'map') {
    const entries = new Map(left.entries);
    for (const [key, value] of right.entries) {
      const other = entries.get(key);
      entries.set(key, other ? merge(other, value, broken) : value);
    }
    return { ...left, entries };
  }
  if (left.kind === 'list' && right.kind === 'list') return { ...left, items: [...left.items, ...right.items] };
  const first = placeIn(left.file, left.path);
  broken.push({
    place: placeIn(right.file, right.path),
    field: fieldName(right.path),
    message: `is given already in ${sayPlace(first)}; lists and mappings of several files are joined, a value stands once`,
  });
  return left;
}

function toValue(tree: Tree): unknown {
  if (tree.kind === 'leaf') return tree.value;
  if (tree.kind === 'list') return tree.items.map(toValue);
  const out: Record<string, unknown> = {};
  for (const [key, value] of tree.entries)
    Object.defineProperty(out, key, { value: toValue(value), enumerable: true, writable: true, configurable: true });
  return out;
}

// Places

/** The file and the path in it; null where the whole is joined from several files at that point. */
function leafOf(tree: Tree, path: Path): { file: SourceFile; path: Path } | null {
  let at = tree;
  for (const [i, part] of path.entries()) {
    if (at.kind === 'leaf') return { file: at.file, path: [...at.path, ...path.slice(i)] };
    const next = at.kind === 'map' ? at.entries.get(String(part)) : at.items[Number(part)];
    if (!next) return null;
    at = next;
  }
  return { file: at.file, path: at.path };
}

function placeOf(tree: Tree, path: Path, key: boolean, needle?: string): Place {
  for (let length = path.length; length > 0; length--) {
    const at = leafOf(tree, path.slice(0, length));
    if (at) return placeIn(at.file, at.path, key && length === path.length, needle);
  }
  return placeIn(tree.file, path, key, needle);
}

/** @param needle a part of the value: its own place, if it can be found in the source */
function placeIn(file: SourceFile, path: Path, key = false, needle?: string): Place {
  const { doc } = file;
  let node = doc.contents as Node | null | undefined;
  let offset = node?.range?.[0] ?? 0;
  let reached = true;
  for (const [index, part] of path.entries()) {
    reached = false;
    if (isAlias(node)) node = node.resolve(doc) as Node | undefined;
    if (isMap(node)) {
      const pair = node.items.find(item => isScalar(item.key) && String(item.key.value) === String(part));
      if (!pair) break;
      const keyNode = pair.key as Node;
      node = pair.value as Node | null;
      // A list or mapping below its key is found by the key; a value by itself.
      const last = index === path.length - 1;
      offset =
        (last && key) || !node || isCollection(node) ? (keyNode.range?.[0] ?? offset) : (node.range?.[0] ?? offset);
    } else if (isCollection(node)) {
      const item = node.items[Number(part)] as Node | undefined;
      if (!item) break;
      node = item;
      offset = item.range?.[0] ?? offset;
    } else break;
    reached = true;
  }
  if (reached && needle !== undefined && isScalar(node) && node.range) {
    const inside = file.text.slice(node.range[0], node.range[1]).indexOf(needle);
    if (inside >= 0) offset = node.range[0] + inside;
  }
  return file.place(offset);
}

// Variables

type Scalar = string | number | boolean;
const REFERENCE = /\$\$\{|\$\{([^}\n]*)\}|\$\{/g;

/** Fills in `${name}` in every text outside of `vars`; faults for what is no reference to a variable of the site. */
function fillIn(data: Record<string, unknown>, faults: Fault[]): Record<string, unknown> {
  const vars = new Map<string, Scalar>();
  const given = data['vars'];
  for (const [name, value] of isRecord(given) ? Object.entries(given) : []) {
    if (!NAME.test(name))
      faults.push({
        path: ['vars', name],
        key: true,
        message: `expected the name of a variable (letters, digits, _; no digit first), found ${found(name)}`,
      });
    else if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
      if (SECRET_NAME.test(name) && !isReference(value))
        faults.push({
          path: ['vars', name],
          key: false,
          secret: true,
          message: 'expected a reference to a secret (file:/PATH, env:NAME or secret:NAME), never the secret itself',
        });
      vars.set(name, value);
    }
  }

  const done = new Map<string, Scalar>();
  const variable = (name: string, stack: readonly string[]): Scalar => {
    const ready = done.get(name);
    if (ready !== undefined) return ready;
    const raw = vars.get(name)!;
    const value = typeof raw === 'string' ? resolve(raw, ['vars', name], [...stack, name]) : raw;
    done.set(name, value);
    return value;
  };
  const resolve = (text: string, path: Path, stack: readonly string[]): Scalar => {
    let whole: Scalar | undefined;
    const filled = text.replaceAll(REFERENCE, (match: string, name: string | undefined) => {
      if (match === '$${') return '${';
      const refuse = (message: string) => {
        faults.push({ path, key: false, message, needle: match });
        return match;
      };
      if (name === undefined || !NAME.test(name))
        return refuse(
          `expected \${name} of a variable, found ${found(match)}; write $\${ for the characters themselves`,
        );
      if (!vars.has(name)) {
        const near = nearest(name, [...vars.keys()]);
        const known = [...vars.keys()].slice(0, 14).join(', ') || 'none';
        return refuse(
          near
            ? `unknown variable ${name}; did you mean ${near}?`
            : `unknown variable ${name} (known are: ${known}); write $\${${name}} for the characters themselves`,
        );
      }
      if (stack.includes(name))
        return refuse(`the variable ${name} is made of itself: ${[...stack, name].join(' → ')}`);
      const value = variable(name, stack);
      if (match === text) whole = value;
      return String(value);
    });
    return whole ?? filled;
  };
  const walk = (value: unknown, path: Path): unknown => {
    if (typeof value === 'string') return value.includes('${') ? resolve(value, path, []) : value;
    if (Array.isArray(value)) return value.map((v, i) => walk(v, [...path, i]));
    if (!isRecord(value)) return value;
    const out: Record<string, unknown> = {};
    for (const [key, v] of Object.entries(value))
      Object.defineProperty(out, key, {
        value: walk(v, [...path, key]),
        enumerable: true,
        writable: true,
        configurable: true,
      });
    return out;
  };
  // Faults of a variable itself are told once, where it is written, even if nothing uses it.
  for (const name of vars.keys()) variable(name, []);
  const { vars: own, ...rest } = data;
  const filled = walk(rest, []) as Record<string, unknown>;
  return Object.hasOwn(data, 'vars') ? { ...filled, vars: own } : filled;
}
