/** IPv4 addresses as unsigned 32-bit numbers, so that ranges and masks are plain arithmetic. */

export interface Cidr {
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

/** `10.99.0.0/24` as numbers; host bits are ignored. Throws RangeError. */
export function parseCidr(text: string): Cidr {
  const [address = '', length = ''] = text.split('/');
  const prefix = Number(length);
  if (!/^\d{1,2}$/.test(length) || prefix > 32) throw new RangeError(`not an IPv4 subnet: ${text}`);
  const mask = prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0;
  const base = (parseIpv4(address) & mask) >>> 0;
  return { base, prefix, mask, last: (base | (~mask >>> 0)) >>> 0 };
}

export const contains = (cidr: Cidr, address: number): boolean => (address & cidr.mask) >>> 0 === cidr.base;
