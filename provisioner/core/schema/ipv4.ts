/** IPv4 addresses as unsigned 32-bit numbers: enough arithmetic for subnets and pools. */

/** The number of a dotted quad, or null. Leading zeros are refused: some programs read them as octal. */
export function parseIpv4(text: string): number | null {
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return null;
  let value = 0;
  for (const part of text.split('.')) {
    if (Number(part) > 255) return null;
    value = value * 256 + Number(part);
  }
  return value;
}

export const formatIpv4 = (value: number): string =>
  [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.');

export interface Ipv4Cidr {
  readonly address: number;
  readonly prefix: number;
  /** First address of the subnet (all host bits 0). */
  readonly first: number;
  /** Last address of the subnet (all host bits 1). */
  readonly last: number;
}

/** `10.99.0.7/24` as numbers, or null. */
export function parseCidr(text: string): Ipv4Cidr | null {
  const [left, right, more] = text.split('/');
  const address = parseIpv4(left ?? '');
  if (address === null || more !== undefined || right === undefined || !/^(0|[1-9]\d?)$/.test(right)) return null;
  const prefix = Number(right);
  if (prefix > 32) return null;
  const size = 2 ** (32 - prefix);
  const first = Math.floor(address / size) * size;
  return { address, prefix, first, last: first + size - 1 };
}

export const inside = (cidr: Ipv4Cidr, address: number): boolean => address >= cidr.first && address <= cidr.last;

/** First and last address that a machine may have: without network and broadcast address, save in a /31 (RFC 3021) or /32. */
export const hostRange = (cidr: Ipv4Cidr): { from: number; to: number } =>
  cidr.prefix >= 31 ? { from: cidr.first, to: cidr.last } : { from: cidr.first + 1, to: cidr.last - 1 };
