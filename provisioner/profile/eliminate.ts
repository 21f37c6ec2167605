/** Which profile each node gets: elimination until one is left. Pure, and the same whatever the order of the nodes. */

export interface Slot {
  readonly priority: number;
  /** How many more nodes it takes. */
  readonly room: number;
}

/** Indices of profiles. */
export type Eliminated =
  | { readonly kind: 'one'; readonly profile: number }
  /** Of the same priority, and none is full. */
  | { readonly kind: 'several'; readonly profiles: readonly number[] }
  | { readonly kind: 'none' };

/**
 * For each node, of the profiles that fit: those that are full fall away, then those below the highest priority. Who has
 * one left gets it, the profiles of the highest priority and the first nodes first. That may fill a profile up, so it is
 * done again, until nothing changes.
 * @param fits for each node, in the order in which they are served, the indices of the profiles whose rules fit
 */
export function eliminate(slots: readonly Slot[], fits: readonly (readonly number[])[]): Eliminated[] {
  const room = slots.map(s => s.room);
  const got = new Map<number, number>();
  const best = (node: number): number[] => {
    const open = fits[node]!.filter(p => room[p]! > 0);
    const highest = Math.max(...open.map(p => slots[p]!.priority));
    return open.filter(p => slots[p]!.priority === highest);
  };
  const byPriority = slots.map((_, p) => p).sort((a, b) => slots[b]!.priority - slots[a]!.priority || a - b);
  for (let changed = true; changed; ) {
    changed = false;
    const wants = new Map<number, number[]>();
    for (const node of fits.keys()) {
      if (got.has(node)) continue;
      const left = best(node);
      if (left.length === 1) wants.set(left[0]!, [...(wants.get(left[0]!) ?? []), node]);
    }
    for (const profile of byPriority)
      for (const node of wants.get(profile) ?? [])
        if (room[profile]! > 0) {
          got.set(node, profile);
          room[profile] = room[profile]! - 1;
          changed = true;
        }
  }
  return fits.map((_, node) => {
    const profile = got.get(node);
    if (profile !== undefined) return { kind: 'one', profile };
    const profiles = best(node);
    return profiles.length > 0 ? { kind: 'several', profiles } : { kind: 'none' };
  });
}
