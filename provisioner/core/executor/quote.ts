/**
 * The one way to put data into a command line for a POSIX shell: single quotes, in which nothing is special but the
 * quote itself (POSIX.1-2017, XCU 2.2.2). A NUL cannot be carried by a shell at all and is refused.
 */
export function shQuote(value: string): string {
  if (value.includes('\0')) throw new TypeError('a NUL byte cannot be passed to a shell');
  return `'${value.replaceAll("'", `'\\''`)}'`;
}

/** A command line out of words, each quoted. */
export const shWords = (...words: readonly string[]): string => words.map(shQuote).join(' ');
