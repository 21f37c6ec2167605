/** Addresses with prefix lengths, as the site file writes them. The arithmetic is that of core/net. */
import { formatIpv4, tryParseIpv4 } from '../net/ipv4.js';

export { formatIpv4 };
export const parseIpv4 = (text: string): number | null => tryParseIpv4(text) ?? null;

export interface Ipv4Cidr {
  /** As written, host bits included. */
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
