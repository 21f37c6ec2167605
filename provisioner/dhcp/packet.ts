/**
 * The raw packet, made safe before any codec sees it.
 *
 *   0        op htype hlen hops | xid (4) | secs (2) flags (2) | ciaddr yiaddr siaddr giaddr (16)
 *   28       chaddr (16)
 *   44       sname (64)        may carry options, RFC 2132 section 9.3
 *   108      file (128)        may carry options
 *   236      magic cookie 99 130 83 99
 *   240      options: code, length, value …; 0 is padding, 255 the end
 */
import { OPTION } from './registry.js';

const HEADER_BYTES = 240;
const MAX_BYTES = 4096;
const COOKIE = 0x63825363;
/** RFC 1542 section 4.1.1: a relay that sees more discards the packet. */
const MAX_HOPS = 16;

export type Sanitised =
  | {
      readonly ok: true;
      readonly header: Buffer;
      /** Each code once, repeated ones joined in order (RFC 3396). */
      readonly options: ReadonlyMap<number, Buffer>;
    }
  | { readonly ok: false; readonly reason: string };

/** Walks code-length-value records. Returns a reason when one does not fit. */
function walk(field: Buffer, where: string, found: Map<number, Buffer[]>): string | undefined {
  let at = 0;
  while (at < field.length) {
    const code = field[at++]!;
    if (code === OPTION.PAD) continue;
    if (code === OPTION.END) return undefined;
    const length = field[at++];
    if (length === undefined || at + length > field.length)
      return `option ${code} in ${where} is longer than the packet`;
    const parts = found.get(code);
    const value = field.subarray(at, at + length);
    if (parts) parts.push(value);
    else found.set(code, [value]);
    at += length;
  }
  return undefined; // a missing END harms nobody
}

/** Lengths that the registry fixes; a packet that breaks one is not understood, so it is not answered. */
const FIXED_LENGTH: Readonly<Record<number, number>> = {
  [OPTION.REQUESTED_IP_ADDRESS]: 4,
  [OPTION.LEASE_TIME]: 4,
  [OPTION.OVERLOAD]: 1,
  [OPTION.MESSAGE_TYPE]: 1,
  [OPTION.SERVER_IDENTIFIER]: 4,
  [OPTION.MAXIMUM_MESSAGE_SIZE]: 2,
};

/**
 * Checks length, cookie, hardware type and every option's bounds; unfolds option overload (52) and joins repeated
 * options in the order options, file, sname (RFC 3396 section 5).
 * @param op 1 for requests (a server reads these), 2 for replies
 */
export function sanitise(raw: Buffer, op: 1 | 2): Sanitised {
  const no = (reason: string): Sanitised => ({ ok: false, reason });
  if (raw.length < HEADER_BYTES) return no(`it has ${raw.length} bytes, fewer than the ${HEADER_BYTES} of a header`);
  if (raw.length > MAX_BYTES) return no(`it has ${raw.length} bytes, more than ${MAX_BYTES}`);
  if (raw[0] !== op) return no(`its op is ${raw[0]}, not ${op}`);
  if (raw[1] !== 1 || raw[2] !== 6)
    return no(`its hardware type is ${raw[1]} with ${raw[2]} bytes; only Ethernet (1, 6) is served`);
  if (raw[3]! > MAX_HOPS) return no(`it passed ${raw[3]} relays, more than ${MAX_HOPS}`);
  if (raw.readUInt32BE(236) !== COOKIE) return no('it has no DHCP magic cookie');

  const found = new Map<number, Buffer[]>();
  let bad = walk(raw.subarray(HEADER_BYTES), 'options', found);
  const overload = found.get(OPTION.OVERLOAD)?.[0]?.[0] ?? 0;
  if (!bad && overload & 1) bad = walk(raw.subarray(108, 236), 'file', found);
  if (!bad && overload & 2) bad = walk(raw.subarray(44, 108), 'sname', found);
  if (bad) return no(bad);

  const options = new Map<number, Buffer>();
  for (const [code, parts] of found) options.set(code, parts.length === 1 ? parts[0]! : Buffer.concat(parts));
  for (const [code, length] of Object.entries(FIXED_LENGTH)) {
    const value = options.get(Number(code));
    if (value && value.length !== length) return no(`option ${code} has ${value.length} bytes, not ${length}`);
  }
  const header = Buffer.from(raw.subarray(0, HEADER_BYTES));
  if (overload & 1) header.fill(0, 108, 236);
  if (overload & 2) header.fill(0, 44, 108);
  return { ok: true, header, options };
}

/** The client's Ethernet address when the packet is long enough to have one: for the trace of broken packets. */
export function senderMac(raw: Buffer): string | undefined {
  if (raw.length < 34 || raw[2] !== 6) return undefined;
  return raw.toString('hex', 28, 34).replace(/..(?!$)/g, '$&:');
}

/** One option as records of at most 255 bytes (RFC 3396). */
export function encodeOption(code: number, value: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < value.length || at === 0; at += 255) {
    const part = value.subarray(at, at + 255);
    parts.push(Buffer.from([code, part.length]), part);
  }
  return Buffer.concat(parts);
}
