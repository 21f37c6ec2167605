/** docs/cli.md, written from the commands; a test holds the file to it (`npx vitest run -u` writes it anew). */
import type { Command } from 'commander';
import { EXIT } from '../core/problem.js';

const EXIT_TEXT: Record<keyof typeof EXIT, string> = {
  ok: 'done',
  failed: 'failed',
  usage: 'wrong arguments, or a site file with faults',
  notFound: 'no such thing',
  refused: 'refused: not possible now, not confirmed, or not allowed',
  timedOut: 'timed out',
  partly: 'partly done: of several names, some failed',
};

const INTRO = `# The command line

\`halligan <object> <action> [names] [--options]\` is a client of the server's Unix socket (\`--socket\`, \`HALLIGAN_SOCKET\`, by
default \`/var/lib/halligan/halligan.sock\`); being able to open it is the permission, so run it as root. \`serve\`, \`site check\`,
\`image build\`, \`image import\`, \`restore\`, \`lab\` and \`demo\` need no server. This page is generated from the commands.

- **Names.** A name, MAC, serial number or an unambiguous prefix of one. Several names work where one does; each gets its result.
- **Output.** A table for people; \`-o json\`, \`yaml\`, \`wide\`, \`name\` for scripts. Data goes to standard output, progress and
  errors to standard error. Colour on terminals only; \`NO_COLOR\` turns it off. Times are UTC.
- **Destructive commands** (release, install over a system, \`install --wipe\`) say what is lost and ask for the name to be typed.
  Off a terminal nothing is asked: they refuse with exit code 4 unless \`--yes\` is given. \`--dry-run\` shows the plan and does nothing.
- **\`plan\`, \`apply\`, \`drift\`.** \`plan\` prints what would be done, by node and service: \`+\` comes into being, \`~\` changes,
  \`!\` restarts or interrupts, \`x\` destroys. \`apply\` prints the same, asks for the names of the nodes on which data dies, then tells each
  action as it ends. \`apply --plan HASH\` does only what was read before. The work goes on in the server when the command is ended.
- **\`--wait\`** follows the work until the node rests; \`--timeout 30m\` bounds it. Ctrl-C ends the wait, not the work.
- **Errors** are two lines: what happened, and what to do. \`problems.md\` lists them all.`;

function commandsOf(command: Command, path: string): { path: string; command: Command }[] {
  return command.commands.flatMap(sub => {
    const here = `${path} ${sub.name()}`;
    return sub.commands.length > 0 ? commandsOf(sub, here) : [{ path: here, command: sub }];
  });
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '\\<');

export function cliPage(program: Command): string {
  const sections = commandsOf(program, 'halligan').map(({ path, command }) => {
    const args = command.registeredArguments.map(a => {
      const name = `${a.name()}${a.variadic ? '...' : ''}`;
      return a.required ? `<${name}>` : `[${name}]`;
    });
    const text = command.description();
    return [
      `## ${path}`,
      '',
      `\`${[path, ...args].join(' ')}\`: ${text}.`,
      '',
      ...(command.options.length > 0
        ? [
            '| option | meaning | default |',
            '|---|---|---|',
            ...command.options.map(
              o =>
                `| \`${o.flags.replaceAll('|', '\\|')}\` | ${cell(o.description)}${o.argChoices ? ` (${o.argChoices.join(', ')})` : ''}${o.mandatory ? ' (required)' : ''} | ${o.defaultValue === undefined || typeof o.defaultValue === 'boolean' ? '' : (o.defaultValueDescription ?? String(o.defaultValue))} |`,
            ),
            '',
          ]
        : []),
    ].join('\n');
  });
  const codes = Object.entries(EXIT).map(([name, code]) => `| ${code} | ${EXIT_TEXT[name as keyof typeof EXIT]} |`);
  return [INTRO, '', '## Exit codes', '', '| code | meaning |', '|---|---|', ...codes, '', ...sections].join('\n');
}
