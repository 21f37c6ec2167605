/** Reads an LLDP frame (IEEE 802.1AB) out of tcpdump's hex print. */
import { printable } from './raw.js';

export interface LldpNeighbour {
  readonly chassis: string | null;
  readonly port: string | null;
  readonly system: string | null;
}

const TLV = { end: 0, chassisId: 1, portId: 2, portDescription: 4, systemName: 5 } as const;
/** Subtypes whose value is a MAC address: 4 of the chassis ID, 3 of the port ID. */
const MAC_SUBTYPE: Record<number, number> = { [TLV.chassisId]: 4, [TLV.portId]: 3 };
/** Subtype "network address": one octet of family (1: IPv4), then the address. */
const NETWORK_SUBTYPE: Record<number, number> = { [TLV.chassisId]: 5, [TLV.portId]: 4 };
const ETHERTYPE_LLDP = 0x88cc;
const ETHERTYPE_VLAN = 0x8100;

/** The first frame of `tcpdump -xx` output; null where there is none or it is damaged. */
export function parseLldp(dump: string): LldpNeighbour | null {
  const hex: string[] = [];
  for (const line of dump.split('\n')) {
    const match = /^\s+0x([0-9a-f]{4,8}):\s+([0-9a-f ]+)/.exec(line);
    if (!match) continue;
    if (hex.length > 0 && Number.parseInt(match[1]!, 16) === 0) break;
    hex.push(match[2]!.replaceAll(' ', ''));
  }
  return parseLldpFrame(Buffer.from(hex.join(''), 'hex'));
}

/**
 *   destination(6) source(6) [8100 tag(2)] 88cc, then TLVs: type(7 bits) length(9 bits) value
 */
export function parseLldpFrame(frame: Buffer): LldpNeighbour | null {
  if (frame.length < 14) return null;
  let at = 12;
  if (frame.readUInt16BE(at) === ETHERTYPE_VLAN) at += 4;
  if (at + 2 > frame.length || frame.readUInt16BE(at) !== ETHERTYPE_LLDP) return null;
  at += 2;
  let chassis: string | null = null;
  let port: string | null = null;
  let portIsMac = false;
  let description: string | null = null;
  let system: string | null = null;
  while (at + 2 <= frame.length) {
    const head = frame.readUInt16BE(at);
    const type = head >> 9;
    const value = frame.subarray(at + 2, at + 2 + (head & 0x1ff));
    if (value.length < (head & 0x1ff)) break;
    at += 2 + value.length;
    if (type === TLV.end) break;
    if (type === TLV.chassisId) chassis ??= identifier(type, value);
    else if (type === TLV.portId) {
      port ??= identifier(type, value);
      portIsMac = value[0] === MAC_SUBTYPE[type];
    } else if (type === TLV.portDescription) description ??= text(value);
    else if (type === TLV.systemName) system ??= text(value);
  }
  if (chassis === null && port === null && system === null) return null;
  // A port's MAC tells nobody where the cable goes; its description does.
  return { chassis, port: portIsMac ? (description ?? port) : (port ?? description), system };
}

function identifier(type: number, value: Buffer): string | null {
  const subtype = value[0];
  const rest = value.subarray(1);
  if (subtype === MAC_SUBTYPE[type] && rest.length === 6)
    return [...rest].map(byte => byte.toString(16).padStart(2, '0')).join(':');
  if (subtype === NETWORK_SUBTYPE[type] && rest[0] === 1 && rest.length === 5) return [...rest.subarray(1)].join('.');
  return text(rest);
}

const text = (value: Buffer): string | null => printable(value.toString('utf8')).slice(0, 128) || null;
