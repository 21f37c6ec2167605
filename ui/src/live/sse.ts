/** Server-Sent Events (WHATWG HTML section 9.2.6) out of pieces of text. Pure but for what it keeps between pieces. */

export type SseItem =
  | { readonly kind: 'message'; readonly id: string | null; readonly event: string; readonly data: string }
  /** A comment: the server's heartbeat. */
  | { readonly kind: 'comment' };

/** A reader that takes pieces as they come and returns what is complete. */
export function sseReader(): (piece: string) => SseItem[] {
  let rest = '';
  let id: string | null = null;
  let event = '';
  let data: string[] = [];
  return piece => {
    const items: SseItem[] = [];
    rest += piece;
    for (;;) {
      const end = /\r\n|\n|\r(?=[^\n])/.exec(rest);
      if (!end) return items;
      const line = rest.slice(0, end.index);
      rest = rest.slice(end.index + end[0].length);
      if (line === '') {
        if (data.length > 0) items.push({ kind: 'message', id, event: event || 'message', data: data.join('\n') });
        event = '';
        data = [];
        continue;
      }
      if (line.startsWith(':')) {
        items.push({ kind: 'comment' });
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'id') id = value;
      else if (field === 'event') event = value;
      else if (field === 'data') data.push(value);
    }
  };
}
