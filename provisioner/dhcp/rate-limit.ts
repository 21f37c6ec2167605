/** A token bucket per client, bounded in number. */

export interface RateLimit {
  /** May this client's packet be worked on? `noted` is false for the first refusal of a while: that one is recorded. */
  take(key: string, now: number): { readonly ok: boolean; readonly noted: boolean };
}

/** @param burst packets at once; @param perSecond sustained; @param clients remembered at most */
export function createRateLimit(burst: number, perSecond: number, clients: number): RateLimit {
  const buckets = new Map<string, { tokens: number; at: number; notedAt: number }>();
  const NOTE_EVERY_MS = 10_000;
  return {
    take(key, now) {
      const bucket = buckets.get(key) ?? { tokens: burst, at: now, notedAt: Number.NEGATIVE_INFINITY };
      // Moved to the end: the first of the map is the one that was silent longest.
      buckets.delete(key);
      buckets.set(key, bucket);
      if (buckets.size > clients) buckets.delete(buckets.keys().next().value!);
      bucket.tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) / 1000) * perSecond);
      bucket.at = now;
      if (bucket.tokens >= 1) {
        bucket.tokens -= 1;
        return { ok: true, noted: false };
      }
      const noted = now - bucket.notedAt < NOTE_EVERY_MS;
      if (!noted) bucket.notedAt = now;
      return { ok: false, noted };
    },
  };
}
