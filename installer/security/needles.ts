/**
 * Secrets as what is looked for on nodes: salted digests of pieces, so that a node learns no secret that it does not
 * have. A piece is long enough that nobody guesses it from its digest (24 characters of 62: 142 bits; of 16: 96 bits).
 */
import { createHash } from 'node:crypto';

export const PIECE = 24;

export interface Needles {
  readonly salt: string;
  readonly width: number;
  /** Per secret, of each form in which it may be written. */
  readonly digests: readonly (readonly string[])[];
}

export const digestOf = (salt: string, piece: string): string =>
  createHash('sha256').update(salt).update(piece).digest('hex').slice(0, 24);

/** The first characters of the value, and of it within base64 (`Authorization: Basic …`) at the three places where it may begin. */
function pieces(value: string): string[] {
  // A key in PEM begins like all its kind, and lines are what a log has of it: the end of the last whole line is its own.
  const lines = value.split('\n').filter(line => line !== '' && !line.startsWith('-----'));
  if (value.startsWith('-----')) return [(lines.at(-2) ?? lines[0] ?? '').slice(-PIECE)];
  const inBase64 = [0, 1, 2].map(before => {
    const text = Buffer.concat([Buffer.alloc(before), Buffer.from(value)]).toString('base64');
    return text.slice(Math.ceil((before * 8) / 6), Math.floor(((before + Buffer.byteLength(value)) * 8) / 6));
  });
  return [value, ...inBase64].filter(v => v.length >= PIECE).map(v => v.slice(0, PIECE));
}

export const needlesOf = (salt: string, values: readonly string[]): Needles => ({
  salt,
  width: PIECE,
  digests: values.map(v => [...new Set(pieces(v))].map(p => digestOf(salt, p))),
});

/** Identifiers such as Ceph's fsid are kept with the secrets, but they are none. */
export const isSecretValue = (value: string): boolean =>
  value.length >= PIECE && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value);
