/** What all commands share: options, the client, printing, asking, waiting, and how a command ends. */

import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { sleep } from '../core/clock.js';
import { asProblem, EXIT, type ExitCode, fail, PROBLEMS, type Problem, ProblemError } from '../core/problem.js';
import { readSite } from '../site/files.js';
import type { ApiClient } from './client.js';
import type { CliDeps } from './deps.js';
import { type Column, durationMs, FORMATS, type Format, plain, render } from './output.js';

export const DEFAULT_DATA_DIR = '/var/lib/halligan';
const WATCH_MS = 2000;

/** One result per thing that was asked for. */
export interface ItemResult {
  readonly item: string;
  readonly ok: boolean;
  readonly message: string;
  readonly problem?: Problem;
}

export interface Context {
  readonly deps: CliDeps;
  /** The API; made at the first use, closed when the command is over. */
  api(): ApiClient;
  out(text: string): void;
  /** Progress and remarks: standard error. */
  note(text: string): void;
  /** Colour on standard output. */
  readonly colour: boolean;
  readonly format: Format;
  print<T>(rows: readonly T[], view: View<T>): void;
  /** Prints one result per item; all right: 0, none: its code, some: 6. */
  results(items: readonly ItemResult[]): ExitCode;
  /**
   * Lets a person confirm by typing the names; off a terminal only `--yes` does.
   * @throws ProblemError confirmation-missing
   */
  confirm(what: string, names: readonly string[], yes: boolean | undefined): Promise<void>;
}

export interface View<T> {
  readonly columns: readonly Column<T>[];
  readonly name: (row: T) => string;
  readonly value?: unknown;
  readonly empty?: string;
}

/** A usage error of our own, as commander says its own. */
export const usage = (message: string): never => {
  throw new ProblemError({ code: 'request-invalid', message, hint: 'See --help.', retry: false });
};

export const parseDuration = (text: string): number => {
  const ms = durationMs(text);
  if (ms === null || ms === 0) throw new InvalidArgumentError('expected a duration like 90s, 15m or 2h.');
  return ms;
};

export const parseCount =
  (least: number, most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`expected a whole number from ${least} to ${most}.`);
    return value;
  };

export const collect = (value: string, all: string[] = []): string[] => [...all, value];

/** An action of commander around a function that gets a context and says the exit code (0 when it says nothing). */
export function command<A extends unknown[]>(
  deps: CliDeps,
  run: (context: Context, ...args: A) => Promise<ExitCode | undefined> | Promise<void>,
): (...args: [...A, Command]) => Promise<void> {
  return async (...args) => {
    const self = args.at(-1) as Command;
    const { context, close } = makeContext(deps, self);
    let code: ExitCode = EXIT.ok;
    try {
      code = (await run(context, ...(args.slice(0, -1) as A))) ?? EXIT.ok;
    } catch (error) {
      // Ctrl-C on something that runs until then is how it ends.
      if (deps.signal.aborted && !(error instanceof ProblemError)) code = EXIT.ok;
      else code = explainFailure(deps, error);
    } finally {
      await close();
    }
    deps.exit(code);
  };
}

/** The message, then what to do; a line each. Returns the exit code. */
export function explainFailure(deps: CliDeps, error: unknown): ExitCode {
  const p = asProblem(error, 'internal');
  for (const line of p.message.split('\n')) deps.stderr.write(`error: ${plain(line)}\n`);
  deps.stderr.write(`hint: ${plain(p.hint)}\n`);
  if (!(error instanceof ProblemError) && deps.env['HALLIGAN_DEBUG'] && error instanceof Error)
    deps.stderr.write(`${error.stack}\n`);
  return PROBLEMS[p.code]?.exit ?? EXIT.failed;
}

function makeContext(deps: CliDeps, self: Command): { context: Context; close: () => Promise<void> } {
  const options = self.optsWithGlobals<{ socket?: string; output?: Format }>();
  const noColour = (deps.env['NO_COLOR'] ?? '') !== '';
  let client: ApiClient | null = null;
  const format = options.output ?? 'table';
  const colour = Boolean(deps.stdout.isTTY) && !noColour && deps.env['TERM'] !== 'dumb';
  const context: Context = {
    deps,
    format,
    colour,
    api() {
      client ??= deps.connect(options.socket ?? deps.env['HALLIGAN_SOCKET'] ?? join(DEFAULT_DATA_DIR, 'halligan.sock'));
      return client;
    },
    out: text => void deps.stdout.write(text),
    note: text => void deps.stderr.write(`${plain(text)}\n`),
    print: (rows, view) => void deps.stdout.write(render(rows, { format, colour, ...view })),
    results(items) {
      const value = {
        results: items.map(({ item, ok, message, problem: p }) => ({
          item,
          ok,
          message,
          ...(p ? { problem: p } : {}),
        })),
      };
      deps.stdout.write(
        render(items, {
          format,
          colour,
          value,
          name: i => i.item,
          columns: [
            { title: 'NAME', cell: i => i.item },
            { title: 'RESULT', cell: i => (i.ok ? 'ok' : 'failed'), colour: i => (i.ok ? 'green' : 'red') },
            { title: 'MESSAGE', cell: i => i.message },
          ],
        }),
      );
      const failed = items.filter(i => !i.ok);
      // Each hint once: many nodes often fail for one reason.
      for (const hint of new Set(failed.flatMap(i => i.problem?.hint ?? [])))
        deps.stderr.write(`hint: ${plain(hint)}\n`);
      if (failed.length === 0) return EXIT.ok;
      if (failed.length < items.length) return EXIT.partly;
      const codes = new Set(failed.map(i => (i.problem ? PROBLEMS[i.problem.code]?.exit : undefined) ?? EXIT.failed));
      return codes.size === 1 ? [...codes][0]! : EXIT.failed;
    },
    async confirm(what, names, yes) {
      if (yes) return;
      const expected = names.join(' ');
      if (!deps.stdin.isTTY || !deps.stderr.isTTY)
        fail('confirmation-missing', `${what} Not confirmed: this is no terminal.`, {
          hint: 'Say --yes if that is what you want.',
        });
      deps.stderr.write(`${plain(what)}\n`);
      const lines = createInterface({
        input: deps.stdin as unknown as NodeJS.ReadableStream,
        output: deps.stderr as unknown as NodeJS.WritableStream,
        terminal: false,
      });
      try {
        const typed = await lines.question(
          `Type ${names.length === 1 ? 'the name' : 'the names'} (${plain(expected)}) to go on: `,
          {
            signal: deps.signal,
          },
        );
        if (
          typed
            .trim()
            .split(/[\s,]+/)
            .join(' ') !== expected
        )
          fail('confirmation-missing', 'The answer differs; nothing was done.');
      } finally {
        lines.close();
      }
    },
  };
  return { context, close: async () => client?.close() };
}

/** `-o` on commands that print things. */
export const withFormat = (c: Command): Command =>
  c.addOption(
    c
      .createOption('-o, --output <format>', 'how to print')
      .choices([...FORMATS])
      .default('table'),
  );

/** Prints again and again until Ctrl-C. On a terminal in place; elsewhere only when something changed. */
export async function watch(context: Context, draw: () => Promise<string>): Promise<void> {
  const { deps } = context;
  let last = '';
  while (!deps.signal.aborted) {
    const text = await draw();
    if (deps.stdout.isTTY) deps.stdout.write(`\u001b[H\u001b[2J${text}`);
    else if (text !== last) deps.stdout.write(last === '' ? text : `\n${text}`);
    last = text;
    await sleep(WATCH_MS, deps.signal);
  }
}

/** Where the data is, for commands that work without a server. */
export const dataDirOf = (options: { site?: string; dataDir?: string }): string =>
  options.dataDir ?? (options.site === undefined ? DEFAULT_DATA_DIR : readSite(options.site).site.data_dir);
