/** docs/problems.md, written from the catalogue; a test holds the file to it (`npx vitest run -u` writes it anew). */
import { EXIT, PROBLEMS } from './problem.js';

export function problemsPage(): string {
  const exitName = new Map(Object.entries(EXIT).map(([name, code]) => [code as number, name]));
  const sections = Object.entries(PROBLEMS)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, p]) =>
      [
        `## ${code}`,
        '',
        `${p.summary}.`,
        '',
        `- **What to do:** ${p.hint}`,
        `- **Does trying again help?** ${p.retry ? 'Yes, it can pass by itself.' : 'No, somebody has to change something first.'}`,
        `- **HTTP status** ${p.http}, **exit code** ${p.exit} (${exitName.get(p.exit)})`,
        '',
      ].join('\n'),
    );
  return [
    '# Problems',
    '',
    'Every expected failure has one code. The API answers with it as `{code, message, hint, retry, detail}`, the command',
    'line prints message and hint and ends with the exit code. The message says what happened to what; this page says what',
    'the code means in general. It is generated from `provisioner/core/problem.ts`.',
    '',
    ...sections,
  ].join('\n');
}
