/** How long to wait for an acknowledgement: RFC 6298, with bounds that fit a boot network instead of the Internet. */

export interface RtoBounds {
  readonly initialMs: number;
  /** RFC 6298 says 1 s; over a LAN that turns each lost packet into a second. */
  readonly minMs: number;
  /** Firmware gives up after a few seconds of silence. */
  readonly maxMs: number;
}

export interface Rto {
  /** The present timeout. */
  readonly ms: number;
  /** Takes the round trip time of a packet that was sent once (Karn: never of a retransmitted one). */
  sample(roundTripMs: number): void;
  /** Doubles the timeout, after it has run out. */
  backOff(): void;
}

export function createRto(bounds: RtoBounds): Rto {
  let smoothed: number | null = null;
  let variation = 0;
  let ms = bounds.initialMs;
  const clamp = (value: number) => Math.min(bounds.maxMs, Math.max(bounds.minMs, value));
  return {
    get ms() {
      return ms;
    },
    sample(r) {
      if (smoothed === null) {
        smoothed = r;
        variation = r / 2;
      } else {
        variation = 0.75 * variation + 0.25 * Math.abs(smoothed - r);
        smoothed = 0.875 * smoothed + 0.125 * r;
      }
      // 10 ms: what a timer of Node is late by on a busy machine.
      ms = clamp(smoothed + Math.max(10, 4 * variation));
    },
    backOff() {
      ms = clamp(ms * 2);
    },
  };
}
