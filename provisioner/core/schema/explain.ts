/**
 * JSON Schema checking that speaks to people: what was expected, and what stands there. The site file and the API use
 * the same formats and the same sentences.
 */
import { isIP } from 'node:net';
import { Ajv, type ErrorObject, type Options } from 'ajv';
import { tryParseCidr, tryParseIpv4 } from '../net/ipv4.js';

/** Formats beside JSON Schema's, each with the words for "expected …". */
const FORMATS: Record<string, { words: string; check: (text: string) => boolean }> = {
  ipv4: { words: 'an IPv4 address', check: text => tryParseIpv4(text) !== undefined },
  'ipv4-cidr': {
    words: 'an IPv4 subnet',
    check: text => {
      const cidr = tryParseCidr(text);
      return cidr !== undefined && cidr.address === cidr.base;
    },
  },
  'ipv4-host-cidr': {
    words: 'an IPv4 address with its prefix length',
    check: text => tryParseCidr(text) !== undefined,
  },
  mac: { words: 'a MAC address', check: text => /^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text) },
  uuid: {
    words: 'a UUID',
    check: text => /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/.test(text),
  },
  loopback: {
    words: 'a loopback address (127.0.0.1 or ::1)',
    check: text => (isIP(text) === 4 ? text.startsWith('127.') : text === '::1'),
  },
};

/** Ajv with our formats and keywords. Strict: a misspelt keyword in a schema throws where the schema is compiled. */
export function createAjv(options: Options = {}): Ajv {
  const ajv = new Ajv({ verbose: true, strictTypes: false, ...options });
  ajv.addVocabulary(['expects']);
  for (const [name, { check }] of Object.entries(FORMATS)) ajv.addFormat(name, check);
  return ajv;
}

interface SchemaWords {
  readonly type?: string;
  readonly format?: string;
  readonly expects?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly examples?: readonly unknown[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  /** A secret, or what may be one by mistake: never shown. */
  readonly writeOnly?: boolean;
}

const TYPE_WORDS: Record<string, string> = {
  string: 'text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping (fields with values)',
  null: 'nothing',
};

/** The words that follow "expected", made from a schema: `an IPv4 subnet like 10.99.0.0/24`. */
export function expectation(schema: SchemaWords): string {
  const example = schema.examples?.[0] ?? (schema.type === 'string' ? schema.default : undefined);
  const like = example === undefined || typeof example === 'object' ? '' : ` like ${String(example).split('\n')[0]}`;
  if (schema.expects) return schema.expects + like.replace(' like ', ', for example ');
  if (schema.format) return `${FORMATS[schema.format]?.words ?? schema.format}${like}`;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return `one of ${schema.enum.join(', ')}`;
  const { minimum, maximum } = schema;
  const range =
    minimum !== undefined && maximum !== undefined
      ? ` from ${minimum} to ${maximum}`
      : minimum !== undefined
        ? ` of at least ${minimum}`
        : maximum !== undefined
          ? ` of at most ${maximum}`
          : '';
  if (range) return `${TYPE_WORDS[schema.type ?? ''] ?? 'a value'}${range}`;
  return `${TYPE_WORDS[schema.type ?? ''] ?? 'another value'}${like}`;
}

/** A value as the person wrote it, short and on one line. */
export function found(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object') return 'a mapping (fields with values)';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}…"` : text;
}

/** The known word nearest to `word` within two edits (or a third of its length), or null. */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase().slice(0, 64), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Edits between two words; two letters that changed places are one edit (Damerau, optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, rows[i - 2]![j - 2]! + 1);
      row.push(cost);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

export interface Fault {
  /** Where: property names and list indices from the root. */
  readonly path: readonly (string | number)[];
  /** True when the fault is about the key at the end of `path`, not its value. */
  readonly key: boolean;
  readonly message: string;
  /** Something that may be a secret stands where a reference to one belongs. */
  readonly secret?: true;
  /** The part of the text that is wrong, where it is not the whole. */
  readonly needle?: string;
}

/** `['networks', 0, 'cidr']` as `networks[0].cidr`. */
export const fieldName = (path: readonly (string | number)[]): string =>
  path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    if (!/^[\w$-]+$/.test(part)) return `${text}[${JSON.stringify(part)}]`;
    return text ? `${text}.${part}` : part;
  }, '');

/** JSON pointer to path; `data` tells list indices from keys that look like numbers. */
function pathOf(pointer: string, data: unknown): (string | number)[] {
  let at = data;
  return pointer
    .split('/')
    .slice(1)
    .map(part => {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
      const step = Array.isArray(at) ? Number(key) : key;
      at = (at as Record<string | number, unknown> | null | undefined)?.[step];
      return step;
    });
}

/**
 * Ajv's errors as sentences without repetition.
 * @param foundAt what stands at a path in the source, where the source says it better than the parsed value
 */
export function explain(
  errors: readonly ErrorObject[],
  data: unknown,
  foundAt?: (path: readonly (string | number)[]) => string | undefined,
): Fault[] {
  const faults: Fault[] = [];
  const seen = new Set<string>();
  for (const error of errors) {
    const path = pathOf(error.instancePath, data);
    const schema = (error.parentSchema ?? {}) as SchemaWords & { properties?: Record<string, SchemaWords> };
    let fault: Fault;
    if (error.keyword === 'additionalProperties') {
      const key = String(error.params['additionalProperty']);
      const known = Object.keys(schema.properties ?? {});
      const near = nearest(key, known);
      const list = known.length > 14 ? `${known.slice(0, 14).join(', ')}, …` : known.join(', ');
      fault = {
        path: [...path, key],
        key: true,
        message: near ? `unknown field; did you mean ${near}?` : `unknown field; known here are: ${list || 'none'}`,
      };
    } else if (error.keyword === 'required') {
      const key = String(error.params['missingProperty']);
      const field = schema.properties?.[key];
      fault = {
        path: [...path, key],
        key: false,
        message: `missing; expected ${field ? expectation(field) : 'a value'}`,
      };
    } else if (error.keyword === 'minItems' || error.keyword === 'maxItems') {
      const bound = `at ${error.keyword === 'minItems' ? 'least' : 'most'} ${error.params['limit']}`;
      fault = { path, key: false, message: `expected ${bound} entries, found ${(error.data as unknown[]).length}` };
    } else if (error.keyword === 'minLength' || error.keyword === 'maxLength') {
      const bound = `at ${error.keyword === 'minLength' ? 'least' : 'most'} ${error.params['limit']}`;
      const length = String(error.data).length;
      fault = { path, key: false, message: `expected ${bound} characters, found ${length}` };
    } else {
      const stands = schema.writeOnly ? 'something else' : (foundAt?.(path) ?? found(error.data));
      const quote = error.keyword === 'type' && schema.type === 'string' && typeof error.data !== 'object';
      fault = {
        path,
        key: false,
        message: `expected ${expectation(schema)}, found ${stands}${quote ? `; put it in quotes` : ''}`,
        ...(schema.writeOnly ? { secret: true } : {}),
      };
    }
    // Several keywords can fail over one value (pattern and length); the first sentence is enough.
    const place = `${fieldName(fault.path)}${fault.key}`;
    if (seen.has(place)) continue;
    seen.add(place);
    faults.push(fault);
  }
  return faults;
}
