/** A unified diff, line by line. Pure. */

export interface DiffLine {
  readonly kind: 'add' | 'remove' | 'head' | 'same';
  readonly text: string;
}

export const diffLines = (diff: string): DiffLine[] =>
  diff
    .replace(/\n$/, '')
    .split('\n')
    .map(line => ({
      kind: /^(\+\+\+ |--- |@@)/.test(line)
        ? 'head'
        : line.startsWith('+')
          ? 'add'
          : line.startsWith('-')
            ? 'remove'
            : 'same',
      // Tabs would be blanks of another width.
      text: line.replaceAll('\t', '    '),
    }));
