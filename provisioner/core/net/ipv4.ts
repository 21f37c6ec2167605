/** IPv4 addresses as unsigned 32-bit numbers, so that ranges and masks are plain arithmetic. */

export interface Cidr {
  /** As written, host bits included. */
  readonly address: number;
  /** Network address. */
  readonly base: number;
  readonly prefix: number;
  readonly mask: number;
  /** Highest address: the directed broadcast. */
  readonly last: number;
}

/** The number of a dotted address, or undefined when the text is none. */
export function tryParseIpv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

/** The number of a dotted address; throws RangeError when the text is none. */
export function parseIpv4(text: string): number {
  const value = tryParseIpv4(text);
  if (value === undefined) throw new RangeError(`not an IPv4 address: ${text}`);
  return value;
}

export const formatIpv4 = (value: number): string =>
  `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;

/** `10.99.0.7/24` as numbers, or undefined when the text is no address with a prefix length. */
export function tryParseCidr(text: string): Cidr | undefined {
  const [left = '', length = '', more] = text.split('/');
  const prefix = Number(length);
  const address = tryParseIpv4(left);
  if (address === undefined || more !== undefined || !/^(0|[1-9]\d?)$/.test(length) || prefix > 32) return undefined;
  const mask = prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0;
  const base = (address & mask) >>> 0;
  return { address, base, prefix, mask, last: (base | (~mask >>> 0)) >>> 0 };
}

/** As `tryParseCidr`; throws RangeError. */
export function parseCidr(text: string): Cidr {
  const cidr = tryParseCidr(text);
  if (cidr === undefined) throw new RangeError(`not an IPv4 subnet: ${text}`);
  return cidr;
}

export const contains = (cidr: Cidr, address: number): boolean => (address & cidr.mask) >>> 0 === cidr.base;

/** First and last address that a machine may have: without network and broadcast address, save in a /31 (RFC 3021) or /32. */
export const hostRange = (cidr: Cidr): { from: number; to: number } =>
  cidr.prefix >= 31 ? { from: cidr.base, to: cidr.last } : { from: cidr.base + 1, to: cidr.last - 1 };
