/** Conditional and partial requests (RFC 9110, sections 13 and 14), as far as boot files need them: one range, strong tags. */

export type Selection =
  /** 304: the client has it. */
  | { readonly kind: 'not-modified' }
  /** 200: the whole. */
  | { readonly kind: 'whole' }
  /** 206: bytes `start` to `end`, both included. */
  | { readonly kind: 'part'; readonly start: number; readonly end: number }
  /** 416: there are no such bytes. */
  | { readonly kind: 'unsatisfiable' };

export interface Conditions {
  readonly ifNoneMatch?: string | undefined;
  readonly ifRange?: string | undefined;
  readonly range?: string | undefined;
}

/**
 * What of a representation is asked for.
 * @param etag the strong tag with its quotes
 * @param size bytes of the whole
 */
export function select(conditions: Conditions, etag: string, size: number): Selection {
  const { ifNoneMatch, ifRange, range } = conditions;
  // If-None-Match compares weakly: W/ in front does not matter.
  const tags = ifNoneMatch?.split(',').map(t => t.trim().replace(/^W\//, ''));
  if (tags?.some(t => t === etag || t === '*')) return { kind: 'not-modified' };
  // A date or another tag in If-Range: what the client has is not what we have, so it gets the whole.
  if (range === undefined || (ifRange !== undefined && ifRange.trim() !== etag)) return { kind: 'whole' };
  // Not one range of bytes (several, another unit, nonsense): a server may ignore it (14.2).
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/i.exec(range);
  if (!match || (match[1] === '' && match[2] === '')) return { kind: 'whole' };
  const first = match[1] === '' ? null : Number(match[1]);
  const last = match[2] === '' ? null : Number(match[2]);
  if (first === null) {
    // The last N bytes.
    if (last === 0 || size === 0) return { kind: 'unsatisfiable' };
    return { kind: 'part', start: Math.max(0, size - last!), end: size - 1 };
  }
  if (last !== null && last < first) return { kind: 'whole' };
  if (first >= size) return { kind: 'unsatisfiable' };
  return { kind: 'part', start: first, end: Math.min(last ?? size - 1, size - 1) };
}
