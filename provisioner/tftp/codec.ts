/**
 * TFTP packets (RFC 1350, options RFC 2347–2349 and 7440) on the codec of the npm package `tftp`. Raw packets are checked
 * and cleaned before it sees them: it throws on short ones, takes option names in lower case only, and fails a whole
 * request for one option value that a server should ignore.
 */
import packets from 'tftp/lib/protocol/packets/index.js';

export const OPCODE = { RRQ: 1, WRQ: 2, DATA: 3, ACK: 4, ERROR: 5, OACK: 6 } as const;
export const ERROR_CODE = {
  NOT_DEFINED: 0,
  FILE_NOT_FOUND: 1,
  ACCESS_VIOLATION: 2,
  ILLEGAL_OPERATION: 4,
  UNKNOWN_TRANSFER_ID: 5,
  /** RFC 2347: the client does not want what was negotiated; OVMF ends its question for the size with it. */
  OPTION_REFUSED: 8,
} as const;

/** A request is at most this long (RFC 2347). */
const REQUEST_MAX_BYTES = 512;

/** What the client would like; undefined: did not ask. */
export interface RequestedOptions {
  /** 8 … 65464 bytes. */
  readonly blksize?: number;
  /** It asks for the size of the file. */
  readonly tsize?: true;
  /** 1 … 65535 blocks. */
  readonly windowsize?: number;
  /** 1 … 255 seconds until a retransmission. */
  readonly timeoutSeconds?: number;
}

export type ParsedRequest =
  | { readonly kind: 'read'; readonly file: string; readonly options: RequestedOptions }
  /** To be answered with this error. */
  | { readonly kind: 'refused'; readonly file: string | null; readonly code: number; readonly message: string }
  /** Not to be answered. */
  | { readonly kind: 'ignored'; readonly reason: string };

const within = (text: string, low: number, high: number) =>
  /^\d{1,9}$/.test(text) && Number(text) >= low && Number(text) <= high ? Number(text) : undefined;

/** Reads what came to the well-known port. Never throws. */
export function parseRequest(raw: Buffer): ParsedRequest {
  if (raw.length < 4) return { kind: 'ignored', reason: 'shorter than any request' };
  const opcode = raw.readUInt16BE(0);
  if (opcode !== OPCODE.RRQ && opcode !== OPCODE.WRQ)
    return { kind: 'ignored', reason: `opcode ${opcode} is no request` };
  if (raw.length > REQUEST_MAX_BYTES) return { kind: 'ignored', reason: 'longer than a request may be' };
  const fields = raw.toString('latin1', 2).split('\0');
  // Every field ends with a NUL, so what is behind the last one is either nothing or a broken field.
  if (fields.pop() !== '' || fields.length < 2) return { kind: 'ignored', reason: 'not a complete request' };
  const [file = '', mode = '', ...pairs] = fields;
  if (!/^[\x21-\x7e][\x20-\x7e]*$/.test(file))
    return refusal(null, ERROR_CODE.FILE_NOT_FOUND, 'The file name is empty or not printable.');
  if (opcode === OPCODE.WRQ) return refusal(file, ERROR_CODE.ACCESS_VIOLATION, 'This server takes no files.');
  if (mode.toLowerCase() !== 'octet')
    return refusal(file, ERROR_CODE.ILLEGAL_OPERATION, 'Only mode octet (binary) is served, not netascii or mail.');

  const wanted = new Map<string, number>();
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    const name = pairs[i]!.toLowerCase();
    const text = pairs[i + 1]!;
    const value =
      name === 'blksize'
        ? within(text, 8, 65_464)
        : name === 'windowsize'
          ? within(text, 1, 65_535)
          : name === 'timeout'
            ? within(text, 1, 255)
            : name === 'tsize' && /^\d+$/.test(text)
              ? 0
              : undefined;
    // The first of a repeated option counts; unknown ones and values out of range are as if not asked (RFC 2347).
    if (value !== undefined && !wanted.has(name)) wanted.set(name, value);
  }
  const clean = [file, 'octet', ...[...wanted].flatMap(([name, value]) => [name, String(value)])];
  try {
    const request = packets.rrq.deserialize(Buffer.from(`\0\x01${clean.join('\0')}\0`, 'latin1'));
    const { blksize, tsize, windowsize } = request.extensions ?? {};
    const timeoutSeconds = wanted.get('timeout');
    return {
      kind: 'read',
      file: request.file,
      options: {
        ...(blksize === undefined ? {} : { blksize }),
        ...(tsize === undefined ? {} : { tsize: true as const }),
        ...(windowsize === undefined ? {} : { windowsize }),
        ...(timeoutSeconds === undefined ? {} : { timeoutSeconds }),
      },
    };
  } catch {
    // The codec throws for a name that leads upwards.
    return refusal(file, ERROR_CODE.FILE_NOT_FOUND, 'There is no such file.');
  }
}

const refusal = (file: string | null, code: number, message: string): ParsedRequest => ({
  kind: 'refused',
  file,
  code,
  message,
});

export type ClientPacket =
  | { readonly kind: 'ack'; readonly block: number }
  | { readonly kind: 'error'; readonly code: number; readonly message: string }
  | { readonly kind: 'other' };

/** Reads what came to the port of a transfer. Never throws. */
export function parseClientPacket(raw: Buffer): ClientPacket {
  if (raw.length < 4) return { kind: 'other' };
  try {
    const opcode = raw.readUInt16BE(0);
    if (opcode === OPCODE.ACK) return { kind: 'ack', block: packets.ack.deserialize(raw).block };
    if (opcode !== OPCODE.ERROR) return { kind: 'other' };
    // Some clients leave the NUL behind the message out.
    const whole = raw.at(-1) === 0 && raw.length > 4 ? raw : Buffer.concat([raw.subarray(0, 300), Buffer.of(0)]);
    const { code, message } = packets.error.deserialize(whole);
    return { kind: 'error', code, message: message.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 120) };
  } catch {
    return { kind: 'other' };
  }
}

export const dataPacket = (block: number, data: Buffer): Buffer => packets.data.serialize(block & 0xffff, data);
export const errorPacket = (code: number, message: string): Buffer => packets.error.serialize({ code, message });
/** @param options names in lower case */
export const oackPacket = (options: Record<string, number>): Buffer => packets.oack.serialize(options);
