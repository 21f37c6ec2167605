/** Reading what an API answered, of which nothing is certain: a missing or wrongly typed value is undefined or empty. */

export type Json = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export function at(value: unknown, ...path: readonly string[]): unknown {
  let now = value;
  for (const key of path) now = isObject(now) && Object.hasOwn(now, key) ? now[key] : undefined;
  return now;
}

export function maybeText(value: unknown, ...path: readonly string[]): string | undefined {
  const found = at(value, ...path);
  return typeof found === 'string' ? found : undefined;
}

export const text = (value: unknown, ...path: readonly string[]): string => maybeText(value, ...path) ?? '';

export function number(value: unknown, ...path: readonly string[]): number | undefined {
  const found = at(value, ...path);
  return typeof found === 'number' ? found : undefined;
}

/** The objects of a list; what is no object is left out. */
export function items(value: unknown, ...path: readonly string[]): Json[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found.filter(isObject) : [];
}

/** The strings of a list. */
export function texts(value: unknown, ...path: readonly string[]): string[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found.filter(item => typeof item === 'string') : [];
}
