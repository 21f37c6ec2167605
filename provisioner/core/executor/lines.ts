/** Cuts a stream of bytes into lines and keeps count, so that following can be taken up again at any byte. */

/** A longer line is delivered in pieces of this many bytes: a hostile or binary output must not fill our memory. */
export const LINE_MAX_BYTES = 64 * 1024;

export interface LineSplitter {
  push(chunk: Buffer): void;
  /** Delivers what stands after the last newline. */
  end(): void;
  /** Forgets what was not delivered: the stream broke off and is taken up again at `offset`. */
  reset(): void;
  /** Byte offset after the last delivered line. */
  readonly offset: number;
  /** Byte offset after the last byte that was pushed. */
  readonly received: number;
}

/**
 * @param from byte offset of the first byte that will be pushed
 * @param onLine called with each line without its newline, and the byte offset after it
 */
export function createLineSplitter(from: number, onLine: (line: string, offset: number) => void): LineSplitter {
  let offset = from;
  let parts: Buffer[] = [];
  let pending = 0;
  const deliver = (bytes: Buffer, consumed: number) => {
    offset += consumed;
    parts = [];
    pending = 0;
    onLine(bytes.toString('utf8'), offset);
  };
  return {
    push(chunk) {
      let rest = chunk;
      while (rest.length > 0) {
        const newline = rest.indexOf(0x0a);
        const room = LINE_MAX_BYTES - pending;
        const end = newline === -1 ? rest.length : newline;
        if (end > room) {
          parts.push(rest.subarray(0, room));
          rest = rest.subarray(room);
          deliver(Buffer.concat(parts), LINE_MAX_BYTES);
          continue;
        }
        const line = rest.subarray(0, end);
        parts.push(line);
        pending += line.length;
        if (newline === -1) return;
        rest = rest.subarray(end + 1);
        deliver(Buffer.concat(parts), pending + 1);
      }
    },
    end() {
      if (pending > 0) deliver(Buffer.concat(parts), pending);
    },
    reset() {
      parts = [];
      pending = 0;
    },
    get offset() {
      return offset;
    },
    get received() {
      return offset + pending;
    },
  };
}
