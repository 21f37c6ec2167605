/** A constant that is costly to make, made when it is first asked for. `make` is pure, so that nobody can tell when. */
export function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | null = null;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
