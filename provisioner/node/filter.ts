/**
 * The filter language of node lists, one for command line and UI: terms separated by blanks, all of which must hold.
 *
 *     state:installing,failed   ram>=64   disks<2   rack:B2   role:compute   -power:on   n0
 *
 * `field:a,b` holds when the field is (text: begins with) one of them; `-` turns a term round; a word alone is looked for
 * in name, MAC, serial, address and label. Pure.
 */
import { isFailure, isWorking } from './lifecycle.js';
import type { NodeView } from './service.js';

type Words = (n: NodeView) => readonly (string | null | undefined)[];
type Amount = (n: NodeView) => number | null;

/** The address that operators reach it at. */
export const reachedAt = (n: NodeView): string | undefined =>
  n.status.os?.address ?? n.spec.address ?? n.status.address ?? n.status.ram?.address;

const GIB = 2 ** 30;

const WORDS: Readonly<Record<string, Words>> = {
  state: n => [n.state, ...(isFailure(n.state) ? ['failed'] : []), ...(isWorking(n.state) ? ['working'] : [])],
  is: n => [
    ...(n.overdue ? ['overdue'] : []),
    ...(n.maintenance === null ? [] : ['maintenance']),
    ...(needsPerson(n) ? ['attention'] : []),
  ],
  name: n => [n.name],
  role: n => n.spec.roles,
  rack: n => [n.spec.rack?.name],
  power: n => [n.status.power?.state ?? 'unknown'],
  source: n => [n.source],
  mac: n => n.macs,
  serial: n => [n.serial],
  address: n => [reachedAt(n)],
  image: n => [n.status.os?.image],
  model: n => [n.status.inventory?.system.product],
  vendor: n => [n.status.inventory?.system.manufacturer],
  firmware: n => [n.status.platform],
};

const AMOUNTS: Readonly<Record<string, Amount>> = {
  /** GiB */
  ram: n => (n.status.inventory ? n.status.inventory.memory.totalBytes / GIB : null),
  cores: n => n.status.inventory?.cpu.cores ?? null,
  disks: n => n.status.inventory?.disks.filter(d => !d.removable).length ?? null,
  nics: n => n.status.inventory?.nics.length ?? null,
};

/** Fields whose values are a closed set: they must be meant exactly. */
const EXACT = new Set(['state', 'is', 'power', 'source', 'role', 'firmware']);

export const FILTER_FIELDS: readonly string[] = [...Object.keys(WORDS), ...Object.keys(AMOUNTS)];

/** Somebody has to look at it. */
export const needsPerson = (n: NodeView): boolean => isFailure(n.state) || n.overdue || n.maintenance !== null;

export type Filter =
  | { readonly ok: true; readonly matches: (n: NodeView) => boolean }
  | { readonly ok: false; readonly sentence: string };

type Term = (n: NodeView) => boolean;

function compare(amount: Amount, operator: string, wanted: number): Term {
  return n => {
    const has = amount(n);
    // Not known is neither more nor less.
    if (has === null) return false;
    switch (operator) {
      case '>=':
        return has >= wanted;
      case '<=':
        return has <= wanted;
      case '>':
        return has > wanted;
      case '<':
        return has < wanted;
      default:
        return has === wanted;
    }
  };
}

function readTerm(text: string): Term | string {
  const typed = /^([a-z]+)(>=|<=|[:=<>])(.*)$/i.exec(text);
  // A MAC has colons, too: what is before them is no field.
  if (!typed || /^([0-9a-f]{2}:){1,5}[0-9a-f]{0,2}$/i.test(text)) {
    const word = text.toLowerCase();
    return n =>
      [n.name, n.serial, n.label, reachedAt(n), ...n.macs].some(value => value?.toLowerCase().includes(word) ?? false);
  }
  const [, field, operator, value] = typed as unknown as [string, string, string, string];
  const key = field.toLowerCase();
  const amount = AMOUNTS[key];
  if (amount) {
    const wanted = Number(value);
    if (value === '' || !Number.isFinite(wanted)) return `${text}: ${key} is compared with a number, like ${key}>=2.`;
    return compare(amount, operator, wanted);
  }
  const words = WORDS[key];
  if (!words) return `${text}: there is no field ${JSON.stringify(key)}; there are ${FILTER_FIELDS.join(', ')}.`;
  if (operator !== ':' && operator !== '=') return `${text}: ${key} is text; write ${key}:VALUE.`;
  const wanted = value
    .toLowerCase()
    .split(',')
    .filter(w => w !== '');
  if (wanted.length === 0) return `${text}: a value is missing after ${key}${operator}`;
  return n =>
    words(n).some(has => {
      const own = has?.toLowerCase();
      return own !== undefined && wanted.some(w => (EXACT.has(key) ? own === w : own.startsWith(w)));
    });
}

/** The filter that `text` means, or the sentence that says what is wrong with it. Nothing matches everything. */
export function readFilter(text: string): Filter {
  const terms: Term[] = [];
  for (const word of text.split(/\s+/).filter(w => w !== '' && w !== '-')) {
    const turned = word.startsWith('-');
    const term = readTerm(turned ? word.slice(1) : word);
    if (typeof term === 'string') return { ok: false, sentence: term };
    terms.push(turned ? n => !term(n) : term);
  }
  return { ok: true, matches: n => terms.every(term => term(n)) };
}
