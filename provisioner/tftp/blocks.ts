/** The blocks of a source by number, from 1; keeps those of a stream until they are released. */
import type { TftpSource } from './types.js';

export interface Blocks {
  readonly bytes: number | null;
  /** Block `number`; shorter than `size` (perhaps empty) for the last. Asked for in order, or again while not released. */
  get(number: number): Buffer | Promise<Buffer>;
  /** Blocks up to this one are not asked for again. */
  release(upTo: number): void;
  close(): void;
}

export function createBlocks(source: TftpSource, size: number): Blocks {
  if (source.kind === 'buffer')
    return {
      bytes: source.data.length,
      get: number => source.data.subarray((number - 1) * size, number * size),
      release() {},
      close() {},
    };

  const stream = source.open();
  const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const kept = new Map<number, Buffer>();
  let rest: Buffer = Buffer.alloc(0);
  let ended = false;
  let made = 0;
  let total = 0;
  return {
    bytes: source.bytes,
    get(number) {
      const known = kept.get(number);
      if (known) return known;
      return (async () => {
        while (made < number) {
          while (rest.length < size && !ended) {
            const { value, done } = await chunks.next();
            if (done) ended = true;
            else rest = rest.length === 0 ? value : Buffer.concat([rest, value]);
          }
          const block = rest.subarray(0, size);
          rest = rest.subarray(block.length);
          total += block.length;
          if (block.length < size && source.bytes !== null && total !== source.bytes)
            throw new Error(`the source ended after ${total} of ${source.bytes} bytes`);
          kept.set(++made, block);
        }
        return kept.get(number)!;
      })();
    },
    release(upTo) {
      for (const number of kept.keys()) {
        if (number > upTo) break;
        kept.delete(number);
      }
    },
    close: () => void stream.destroy(),
  };
}
