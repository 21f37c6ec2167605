/** Bodies that nodes post: bounded in size and depth before they are parsed, then checked by schema. */
import { Ajv } from 'ajv';
import { type TObject, Type } from 'typebox';
import { fail } from '../core/problem.js';
import { canonicalMac } from './identity.js';
import type { InstalledCallHome, RamCallHome } from './types.js';

/** Greatest size of an inventory report (lshw of a large machine is about 2 MiB). */
export const RAM_BODY_MAX_BYTES = 16 * 1024 * 1024;
export const INSTALLED_BODY_MAX_BYTES = 64 * 1024;
/** Deep JSON has stopped inspection services before (OpenStack OSSN-0099). */
export const BODY_MAX_DEPTH = 25;

const BootId = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const UptimeSeconds = Type.Number({ minimum: 0, maximum: 1e9 });
const closed = (properties: Parameters<typeof Type.Object>[0]) =>
  Type.Object(properties, { additionalProperties: false });

const RamSchema = closed({
  schema: Type.Literal(1),
  mac: Type.String({ maxLength: 17 }),
  bootId: BootId,
  // An ed25519 public key is 51 bytes: 68 characters of base64.
  hostKey: Type.String({ pattern: '^ssh-ed25519 [A-Za-z0-9+/]{68}$' }),
  firmware: Type.Union([Type.Literal('bios'), Type.Literal('uefi')]),
  uptimeSeconds: UptimeSeconds,
  raw: Type.Object({}),
});
const InstalledSchema = closed({
  schema: Type.Literal(1),
  bootId: BootId,
  uptimeSeconds: UptimeSeconds,
  hostname: Type.String({ minLength: 1, maxLength: 253, pattern: '^[A-Za-z0-9.-]+$' }),
});

/** Nesting of a JSON text, found without parsing it; stops counting beyond `max`. */
export function jsonDepth(text: Buffer, max: number): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (inString) {
      if (c === 0x5c /* \ */) i++;
      else if (c === 0x22 /* " */) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x7b /* { */ || c === 0x5b /* [ */) {
      if (++depth > deepest) deepest = depth;
      if (deepest > max) return deepest;
    } else if (c === 0x7d || c === 0x5d) depth--;
  }
  return deepest;
}

/** Keys that would reach a prototype when the value is merged or assigned somewhere later. */
function poisonedKey(value: unknown): string | null {
  if (value === null || typeof value !== 'object') return null;
  if (Array.isArray(value)) {
    for (const item of value) {
      const found = poisonedKey(item);
      if (found) return found;
    }
    return null;
  }
  for (const key of Object.keys(value)) {
    if (key === '__proto__' || key === 'constructor') return key;
    const found = poisonedKey((value as Record<string, unknown>)[key]);
    if (found) return found;
  }
  return null;
}

export interface CallHomeReader {
  /** @throws ProblemError inventory-refused, with the field */
  ram(body: Buffer): RamCallHome;
  /** @throws ProblemError request-invalid, with the field */
  installed(body: Buffer): InstalledCallHome;
}

export function createCallHomeReader(): CallHomeReader {
  const ajv = new Ajv({ allErrors: false, strict: true });
  const reader = <T>(schema: TObject, code: 'inventory-refused' | 'request-invalid') => {
    const validate = ajv.compile(schema);
    return (body: Buffer): T => {
      if (jsonDepth(body, BODY_MAX_DEPTH) > BODY_MAX_DEPTH)
        fail(code, `The body is nested more than ${BODY_MAX_DEPTH} levels deep.`);
      let value: unknown;
      try {
        value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
      } catch {
        fail(code, 'The body is not JSON in UTF-8.');
      }
      const key = poisonedKey(value);
      if (key) fail(code, `The body has a key "${key}", which no report has.`, { detail: { field: key } });
      if (!validate(value)) {
        const error = validate.errors?.[0];
        const field = error?.instancePath.replaceAll('/', '.').slice(1) || 'body';
        fail(code, `${field}: ${error?.message ?? 'is not valid'}.`, { detail: { field } });
      }
      return value as T;
    };
  };
  const ram = reader<RamCallHome>(RamSchema, 'inventory-refused');
  return {
    ram(body) {
      const report = ram(body);
      const mac = canonicalMac(report.mac);
      if (!mac) fail('inventory-refused', 'mac: is not the address of a NIC.', { detail: { field: 'mac' } });
      return { ...report, mac };
    },
    installed: reader<InstalledCallHome>(InstalledSchema, 'request-invalid'),
  };
}
