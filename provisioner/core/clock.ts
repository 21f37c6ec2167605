/** Time as an argument, so that decisions can be tested. */
export interface Clock {
  /** Wall-clock time, milliseconds since 1970. For people and for rows; never for timers. */
  nowMs(): number;
  /** Monotonic time in milliseconds; never jumps with the wall clock. For expiry and deadlines within one process. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** Resolves after `ms`, or at once when the signal aborts (it never rejects: loops check the signal themselves). */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
  });
}
