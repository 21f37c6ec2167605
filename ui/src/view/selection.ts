/** Which rows are chosen, by id. Pure; sets are never changed, always made anew. */

export type Selection = ReadonlySet<string>;
export const NOTHING: Selection = new Set();

export function toggle(selection: Selection, id: string): Selection {
  const next = new Set(selection);
  if (!next.delete(id)) next.add(id);
  return next;
}

/** Adds all from `anchor` to `id` as they stand in `order`; without an anchor that is shown, `id` alone. */
export function extend(selection: Selection, order: readonly string[], anchor: string | null, id: string): Selection {
  const from = anchor === null ? -1 : order.indexOf(anchor);
  const to = order.indexOf(id);
  if (from < 0 || to < 0) return new Set([...selection, id]);
  return new Set([...selection, ...order.slice(Math.min(from, to), Math.max(from, to) + 1)]);
}

/** All that are shown are chosen, or none of them when all were; what the filter hides stays as it is. */
export function toggleShown(selection: Selection, shown: readonly string[]): Selection {
  const all = shown.length > 0 && shown.every(id => selection.has(id));
  const next = new Set(selection);
  for (const id of shown)
    if (all) next.delete(id);
    else next.add(id);
  return next;
}

/** Without what is no longer there. */
export function keep(selection: Selection, existing: ReadonlySet<string>): Selection {
  const next = [...selection].filter(id => existing.has(id));
  return next.length === selection.size ? selection : new Set(next);
}

/** How many chosen rows the filter hides: they are acted on too, so they are counted out loud. */
export function hidden(selection: Selection, shown: readonly string[]): number {
  const visible = new Set(shown);
  return [...selection].filter(id => !visible.has(id)).length;
}
