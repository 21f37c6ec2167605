/** What TFTP serves, and what it says about it. There is no file system behind it: names lead to a table, or nowhere. */
import type { Readable } from 'node:stream';

/** Bytes for a client; a stream is opened once per transfer. `bytes` null: not known, so no `tsize`. */
export type TftpSource =
  | { readonly kind: 'buffer'; readonly data: Buffer }
  | { readonly kind: 'stream'; readonly bytes: number | null; open(): Readable };

export interface TftpQuery {
  /** As asked for, without leading slashes. */
  readonly file: string;
  readonly clientAddress: string;
  /** Our address that the request came to, when the socket is bound to one. */
  readonly localAddress: string;
}

/** One link of the chain: yields the bytes, or null to let the next route try. Must not wait for anything slow. */
export interface TftpRoute {
  readonly name: string;
  find(query: TftpQuery): TftpSource | null | Promise<TftpSource | null>;
}

export interface TftpResult {
  readonly clientAddress: string;
  readonly file: string;
  /** Name of the route that had the file. */
  readonly route: string;
  /**
   * `served`: the last block was acknowledged. `size-only`: the client wanted to know the size and went, as UEFI firmware
   * does before it comes again. `aborted`: the client sent an error. `gone`: its port was closed. `timed-out`: it fell
   * silent. `failed`: our source broke. `closed`: this server ended.
   */
  readonly outcome: 'served' | 'size-only' | 'aborted' | 'gone' | 'timed-out' | 'failed' | 'closed';
  readonly reason: string;
  /** Acknowledged. */
  readonly bytes: number;
  readonly ms: number;
  readonly blocksResent: number;
}
