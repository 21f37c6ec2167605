/** Reads dmidecode(8)'s text: SMBIOS structures with their fields. */

export interface DmiStructure {
  /** SMBIOS structure type, e.g. 17 for a memory device. */
  readonly type: number;
  readonly fields: ReadonlyMap<string, string>;
}

/** SMBIOS structure types that the inventory reads (DMTF DSP0134, section 7). */
export const DMI = { bios: 0, system: 1, chassis: 3, processor: 4, memoryDevice: 17, ipmiDevice: 38 } as const;

export function parseDmidecode(text: string): DmiStructure[] {
  const structures: { type: number; fields: Map<string, string> }[] = [];
  let current: Map<string, string> | undefined;
  for (const line of text.split('\n')) {
    const handle = /^Handle 0x[0-9A-Fa-f]+, DMI type (\d{1,3}),/.exec(line);
    if (handle) {
      current = new Map();
      structures.push({ type: Number(handle[1]), fields: current });
      continue;
    }
    const field = /^\t([^\t:][^:]{0,60}): (.*)$/.exec(line);
    if (field && current && !current.has(field[1]!)) current.set(field[1]!, field[2]!);
  }
  return structures;
}

/** "16 GB", "16384 MB", "512 kB" in bytes; 0 for an empty slot; null for what is no size. */
export function parseDmiSize(text: string): number | null {
  if (/^no module installed$/i.test(text)) return 0;
  const match = /^(\d{1,9}) (bytes|kB|MB|GB|TB)$/.exec(text);
  if (!match) return null;
  const power = ['bytes', 'kB', 'MB', 'GB', 'TB'].indexOf(match[2]!);
  return Number(match[1]) * 1024 ** power;
}

/**
 * Strings that vendors leave in SMBIOS where a value belongs. Two machines with one of these "serial numbers" are not
 * the same machine.
 */
const PLACEHOLDERS = new Set([
  '',
  '0',
  '00000000',
  '0123456789',
  '123456789',
  '1234567890',
  'asset tag',
  'chassis asset tag',
  'default string',
  'empty',
  'invalid',
  'n/a',
  'no asset information',
  'no asset tag',
  'none',
  'not applicable',
  'not available',
  'not present',
  'not provided',
  'not settable',
  'not specified',
  'oem',
  'o.e.m.',
  'serial number',
  'system manufacturer',
  'system product name',
  'system serial number',
  'system version',
  'tbd',
  'to be filled by o.e.m.',
  'undefined',
  'unknown',
]);

export const isPlaceholder = (text: string): boolean =>
  PLACEHOLDERS.has(text.toLowerCase()) || /^([0x.-])\1*$/i.test(text) || /^no ?dimm$/i.test(text);

/** A UUID in lower case, or null for none and for those that whole product lines share. */
export function usableUuid(text: string): string | null {
  const uuid = text.toLowerCase();
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(uuid)) return null;
  if (/^(0|f)+$/.test(uuid.replaceAll('-', ''))) return null;
  // AMI's default, left in by several board makers.
  return uuid === '03000200-0400-0500-0006-000700080009' ? null : uuid;
}
