/** Who asks: the query of /boot.ipxe as a BootIdentity. Everything in it was written by the machine, so nothing is trusted. */
import type { BootIdentity } from './types.js';

/**
 * A MAC in one spelling, lower case with colons, from `52-54-00-…`, `52:54:00:…` or `525400…`; null for anything else
 * and for addresses that no NIC sends from (multicast, all zero).
 */
export function canonicalMac(text: string): string | null {
  const digits =
    /^([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})$/i;
  const mac = digits.exec(text)?.slice(1).join(':').toLowerCase();
  if (mac === undefined || mac === '00:00:00:00:00:00' || (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) return null;
  return mac;
}

/** SMBIOS text: without control characters, at most 128 characters; null when nothing is left. */
function smbiosText(value: string | null): string | null {
  const text = value
    ?.replace(/\p{C}+/gu, ' ')
    .trim()
    .slice(0, 128)
    .trim();
  return text ? text : null;
}

/** A field as text, or as hex under `NAME_hex` (which cannot be torn apart by what is in it). */
function field(query: URLSearchParams, name: string): string | null {
  const hex = query.get(`${name}_hex`);
  return smbiosText(hex === null ? query.get(name) : Buffer.from(hex.slice(0, 1024), 'hex').toString());
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Null when there is no usable MAC: without it a machine has no name. */
export function readIdentity(query: URLSearchParams): BootIdentity | null {
  const mac = canonicalMac(query.get('mac') ?? '');
  if (mac === null) return null;
  const uuid = (query.get('uuid') ?? '').toLowerCase();
  const platform = query.get('platform');
  return {
    mac,
    uuid: UUID.test(uuid) ? uuid : null,
    serial: field(query, 'serial'),
    manufacturer: field(query, 'manufacturer'),
    product: field(query, 'product'),
    platform: platform === 'efi' ? 'uefi' : platform === 'pcbios' ? 'bios' : null,
  };
}
