/**
 * What the inventory script of the RAM environment (templates/ram/root/usr/lib/halligan/inventory) sends: the output of
 * each tool as it is, by name. Anybody on the boot network can send one, so nothing in it is believed before it is
 * measured: shape, size and depth here, each value in normalise.ts.
 */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { fail } from '../core/problem.js';

export const RAW_LIMITS = {
  files: 1024,
  fileCharacters: 1_048_576,
  totalCharacters: 12 * 2 ** 20,
  jsonDepth: 12,
} as const;

/** sysfs, net, lsblk, wipefs, dmidecode, lscpu, lspci, ip, by-path, efibootmgr, secureboot, ipmi-lan, ipmi-mc, warnings; smart-DISK, ethtool-NIC, lldp-NIC. */
const FILE_NAME = '^[a-z][A-Za-z0-9_.@:-]{0,47}$';

export const RawInventorySchema = Type.Object(
  {
    schema: Type.Literal(1),
    files: Type.Record(Type.String({ pattern: FILE_NAME }), Type.String({ maxLength: RAW_LIMITS.fileCharacters }), {
      additionalProperties: false,
      maxProperties: RAW_LIMITS.files,
    }),
  },
  { additionalProperties: false },
);

export type RawInventory = Static<typeof RawInventorySchema>;

/** Refuses the report and names the field. Always throws ProblemError inventory-refused. */
export function refuse(field: string, reason: string): never {
  return fail('inventory-refused', `The inventory report was refused: ${field} ${reason}.`, { detail: { field } });
}

/** The report as typed value, or ProblemError inventory-refused that names the field. */
export function checkRawInventory(raw: unknown): RawInventory {
  const validator = Compile(RawInventorySchema);
  if (!validator.Check(raw)) {
    const first = validator.Errors(raw)[0];
    // The path holds names that the sender chose.
    const field = printable(first?.instancePath ?? '').slice(0, 80) || 'the whole';
    return refuse(field, first?.message ?? 'does not fit the schema');
  }
  let total = 0;
  for (const text of Object.values(raw.files)) total += text.length;
  if (total > RAW_LIMITS.totalCharacters)
    return refuse('files', `hold ${total} characters, over ${RAW_LIMITS.totalCharacters}`);
  return raw;
}

/**
 * Reads what the script prints with `stream` ("@@ NAME", then the lines of that file behind a blank), for hosts that are
 * adopted over SSH. Throws ProblemError inventory-refused.
 */
export function parseInventoryStream(text: string): RawInventory {
  const files = new Map<string, string[]>();
  let lines: string[] | undefined;
  for (const line of text.split('\n')) {
    if (line.startsWith('@@ ')) {
      lines = [];
      files.set(line.slice(3).trim(), lines);
    } else if (line !== '') lines?.push(line.slice(1));
  }
  const entries = [...files].map(([name, content]): [string, string] => [
    name,
    content.map(line => `${line}\n`).join(''),
  ]);
  return checkRawInventory({ schema: 1, files: Object.fromEntries(entries) });
}

/**
 * JSON of a tool. Undefined when it is no JSON (a tool that was cut off); ProblemError inventory-refused when it is nested
 * deeper than any tool does: the depth is counted before anything recursive touches it.
 */
export function parseBounded(field: string, text: string): unknown {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inString) {
      if (code === 0x5c) at++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x7b || code === 0x5b) {
      if (++depth > RAW_LIMITS.jsonDepth) refuse(field, `is nested deeper than ${RAW_LIMITS.jsonDepth}`);
    } else if (code === 0x7d || code === 0x5d) depth--;
  }
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Text without what harms a terminal, a log or a page: control characters (C0, C1, DEL), direction overrides, invisible
 * separators, byte order marks and halves of surrogate pairs.
 */
export function printable(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cs}\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff]/gu, ' ')
    .replace(/ {2,}/g, ' ')
    .trim();
}
