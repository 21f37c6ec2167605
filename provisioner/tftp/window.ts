/**
 * The sender's side of one transfer as pure bookkeeping: which blocks are to be sent, what an acknowledgement means, when
 * to send again. Blocks are counted from 1 without end; only the wire counts to 65535 and then from 0.
 *
 *        acked          sent        acked + size
 *   ───────┼──────────────┼──────────────┼───────▶ blocks
 *    done  │  on the way  │  to be sent  │
 */
import type { Rto } from './rto.js';

export interface Window {
  /** Next block to send now, or null when the window is full or all is sent. */
  next(): number | null;
  /** Block `next()` went out; `last` when it is shorter than a block, which ends the file. */
  sent(last: boolean, nowMs: number): void;
  /**
   * An acknowledgement with the block number of the wire.
   * `done`: the last block has arrived. `moved`: there is progress. `again`: blocks are to be sent again. `nothing`: an
   * acknowledgement that was counted before, or of a block never sent.
   */
  ack(wireBlock: number, nowMs: number): 'done' | 'moved' | 'again' | 'nothing';
  /** The timeout ran out: everything unacknowledged is to be sent again. */
  timedOut(): void;
  /** All blocks up to this one have arrived. */
  readonly acked: number;
  /** Everything was sent at least once. */
  readonly complete: boolean;
  /** Blocks sent more than once, in all. */
  readonly resent: number;
}

/** @param size blocks on the way at once (RFC 7440) */
export function createWindow(size: number, rto: Rto): Window {
  let acked = 0;
  let sent = 0;
  /** Highest block that was ever sent. */
  let highest = 0;
  let last = Number.POSITIVE_INFINITY;
  let resent = 0;
  /** The position from which an acknowledgement has already made us send again. */
  let againFrom = -1;
  let timed: { block: number; atMs: number } | null = null;

  return {
    get acked() {
      return acked;
    },
    get complete() {
      return highest >= last;
    },
    get resent() {
      return resent;
    },
    next: () => (sent < Math.min(acked + size, last) ? sent + 1 : null),
    sent(isLast, nowMs) {
      sent++;
      if (isLast) last = sent;
      if (sent <= highest) {
        resent++;
        timed = null;
      } else {
        highest = sent;
        // The receiver answers the end of a window: that is the round trip to measure.
        if (sent === acked + size || isLast) timed = { block: sent, atMs: nowMs };
      }
    },
    ack(wireBlock, nowMs) {
      const forward = (wireBlock - acked) & 0xffff;
      if (forward === 0) {
        // The same block again. With one block on the way this must not make us send: the duplicates would breed
        // (Sorcerer's Apprentice, RFC 1123 4.2.3.1). With a window it says that the first block of it is missing; it is
        // believed once per position, after that only the timer helps.
        if (size === 1 || sent === acked || againFrom === acked) return 'nothing';
        againFrom = acked;
        sent = acked;
        return 'again';
      }
      if (forward > highest - acked) return 'nothing';
      acked += forward;
      if (timed && acked >= timed.block) {
        if (acked === timed.block) rto.sample(nowMs - timed.atMs);
        timed = null;
      }
      if (acked >= last) return 'done';
      if (acked < sent) {
        // Only a part of the window has arrived: go on behind it (RFC 7440, section 4).
        againFrom = acked;
        sent = acked;
        timed = null;
        return 'again';
      }
      sent = acked;
      return 'moved';
    },
    timedOut() {
      rto.backOff();
      sent = acked;
      timed = null;
    },
  };
}
