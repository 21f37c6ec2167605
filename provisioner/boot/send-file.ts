/**
 * Streams a part of a file into a response: two buffers per stream, one filled while the other is on its way, so that
 * memory is bounded by the number of streams and nothing is left to the garbage collector.
 */
import type { ServerResponse } from 'node:http';

/** Measured over loopback: larger chunks are not faster, and cost memory per stream. */
const CHUNK_BYTES = 256 * 1024;

/** What is sent: a file, or one that is still coming in and lets a read wait. */
export interface Source {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
}

/** Runs one thing at a time per slot; the others wait in order. */
export interface Slots {
  run<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * Node has four threads for files, DNS and the database together. Image reads use only some of them, so that a slow
 * disk under fifty streams does not keep a lease from being written.
 */
export function createSlots(count: number): Slots {
  const waiting: (() => void)[] = [];
  let free = count;
  return {
    async run(work) {
      if (free > 0) free--;
      else await new Promise<void>(resolve => waiting.push(resolve));
      try {
        return await work();
      } finally {
        const next = waiting.shift();
        if (next) next();
        else free++;
      }
    },
  };
}

/** Why a stream ended early. */
export class StreamEnded extends Error {
  readonly sentBytes: number;
  constructor(message: string, sentBytes: number) {
    super(message);
    this.name = 'StreamEnded';
    this.sentBytes = sentBytes;
  }
}

/**
 * Sends bytes `start` to `end` (both included) and ends the response.
 * @param stallMs how long one chunk may take to leave; a client that reads slower than that is let go
 * @throws StreamEnded when the client went away or stalled, or the file is shorter than it was
 */
export async function sendFile(
  file: Source,
  start: number,
  end: number,
  response: ServerResponse,
  slots: Slots,
  stallMs: number,
): Promise<void> {
  const buffers = [0, 1].map(() => Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - start + 1)));
  let position = start;
  let sending: Promise<void> = Promise.resolve();
  try {
    for (let turn = 0; position <= end; turn ^= 1) {
      const buffer = buffers[turn]!;
      const wanted = Math.min(buffer.length, end - position + 1);
      const { bytesRead } = await slots.run(() => file.read(buffer, 0, wanted, position));
      await sending;
      if (bytesRead === 0) throw new StreamEnded('the file became shorter while it was sent', position - start);
      const sentBefore = position - start;
      sending = write(response, buffer.subarray(0, bytesRead), stallMs, sentBefore);
      // Awaited in the next round, while the other buffer is filled; a failure in between must not count as unhandled.
      sending.catch(() => {});
      position += bytesRead;
    }
    await sending;
    response.end();
  } catch (error) {
    response.destroy();
    // The buffer may still be on its way to a socket: it is only let go of, never reused.
    throw error;
  }
}

/** Resolves when the chunk has left for the kernel. */
function write(response: ServerResponse, chunk: Buffer, stallMs: number, sentBytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: Error | null) => {
      clearTimeout(timer);
      response.off('close', closed);
      if (error) reject(new StreamEnded(error.message, sentBytes));
      else resolve();
    };
    const closed = () => done(new Error('the client went away'));
    const timer = setTimeout(() => done(new Error(`the client read nothing for ${stallMs} ms`)), stallMs);
    if (response.destroyed) return closed();
    response.on('close', closed);
    response.write(chunk, done);
  });
}
