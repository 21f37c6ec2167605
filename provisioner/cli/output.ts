/** How things are printed: tables for people, JSON and YAML for programs. Pure. */
import { stringify } from 'yaml';

export const FORMATS = ['table', 'wide', 'json', 'yaml', 'name'] as const;
export type Format = (typeof FORMATS)[number];

export interface Column<T> {
  readonly title: string;
  readonly cell: (row: T) => string | number | null | undefined;
  /** Shown with `-o wide` only. */
  readonly wide?: boolean;
  /** Colour by value, on terminals. */
  readonly colour?: (row: T) => Colour | null;
}

export type Colour = 'red' | 'green' | 'yellow';
const CODES: Record<Colour, number> = { red: 31, green: 32, yellow: 33 };

/** `text` in a colour where `on`. */
export const paint = (text: string, colour: Colour | null, on: boolean): string =>
  on && colour ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;

/**
 * Text without control characters: host names, vendors and messages come from machines, and must not drive the
 * operator's terminal. Tabs and new lines become spaces.
 */
export const plain = (text: string): string =>
  text.replace(/[\t\n\r]+/g, ' ').replace(/[\p{Cc}\p{Bidi_Control}]/gu, '');

/** Columns two spaces apart, without trailing blanks. Empty cells are a hyphen. */
export function table<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  options: { wide: boolean; colour: boolean },
): string {
  const shown = columns.filter(c => options.wide || !c.wide);
  const cells = rows.map(row =>
    shown.map(c => {
      const value = c.cell(row);
      return value === null || value === undefined || value === '' ? '-' : plain(String(value));
    }),
  );
  const widths = shown.map((c, i) => Math.max(c.title.length, ...cells.map(r => r[i]!.length)));
  const line = (parts: readonly string[], paint: (text: string, i: number) => string) =>
    parts
      .map((text, i) => paint(text, i) + (i === parts.length - 1 ? '' : ' '.repeat(widths[i]! - text.length)))
      .join('  ')
      .trimEnd();
  const head = line(
    shown.map(c => c.title),
    t => t,
  );
  const body = cells.map((parts, r) =>
    line(parts, (text, i) => {
      return paint(text, shown[i]!.colour?.(rows[r]!) ?? null, options.colour);
    }),
  );
  return `${[head, ...body].join('\n')}\n`;
}

/** Any value in the format asked for; `columns` and `name` serve the formats for people. */
export function render<T>(
  rows: readonly T[],
  options: {
    format: Format;
    columns: readonly Column<T>[];
    name: (row: T) => string;
    /** The whole as programs get it; the rows when left out. */
    value?: unknown;
    colour?: boolean;
    /** Instead of a table without rows. */
    empty?: string;
  },
): string {
  const value = options.value ?? rows;
  switch (options.format) {
    case 'json':
      return `${JSON.stringify(value, null, 2)}\n`;
    case 'yaml':
      return stringify(JSON.parse(JSON.stringify(value)), {
        lineWidth: 0,
        aliasDuplicateObjects: false,
        compat: 'yaml-1.1',
      });
    case 'name':
      return rows.map(r => `${plain(options.name(r))}\n`).join('');
    default:
      if (rows.length === 0 && options.empty) return `${options.empty}\n`;
      return table(rows, options.columns, { wide: options.format === 'wide', colour: options.colour ?? false });
  }
}

/** `fields` as `Name:  value` lines, aligned. */
export function sheet(fields: readonly (readonly [string, string | number | null | undefined])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length)) + 1;
  return fields
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => `${`${name}:`.padEnd(width)}  ${plain(String(value))}\n`)
    .join('');
}

/** 42 s, 3 min, 5 h, 12 d: one unit, for tables. */
export function age(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s}s`;
  if (s < 7200) return `${Math.floor(s / 60)}m`;
  if (s < 172_800) return `${Math.floor(s / 3600)}h`;
  return `${Math.floor(s / 86_400)}d`;
}

/** UTC, to the second: the same on every machine that reads it. */
export const time = (ms: number): string =>
  new Date(ms)
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z');

/** 10^9 bytes as people say disks, 2^30 as they say memory. */
export const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 1 : 0)} GB`;
export const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 1 : 0)} GiB`;

/** `90`, `90s`, `15m`, `2h` as milliseconds, or null. */
export function durationMs(text: string): number | null {
  const match = /^(\d{1,7})(ms|s|m|h|d)?$/.exec(text);
  if (!match) return null;
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] ?? 's']!;
  return Number(match[1]) * unit;
}

/** `r1 U12` */
export const rackText = (rack: { name: string; unit: number | null } | null | undefined): string | null =>
  rack ? `${rack.name}${rack.unit === null ? '' : ` U${rack.unit}`}` : null;
