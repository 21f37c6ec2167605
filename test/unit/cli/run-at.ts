/** The command line as a function: arguments in, exit code and both outputs out. */
import { Readable } from 'node:stream';
import { type CliDeps, runCli } from '../../../provisioner/cli/cli.js';
import { socketClient } from '../../../provisioner/cli/client.js';
import { T0 } from '../api/fakes.js';

export interface Run {
  code: number;
  out: string;
  err: string;
}

const notCalled = (name: string) => async () => {
  throw new Error(`${name} was called`);
};

/** Runs a command line against the server behind a socket. `typed` makes standard input a terminal on which that is typed. */
export async function runAt(
  socketPath: string,
  line: string | string[],
  options: {
    typed?: string;
    piped?: string;
    signal?: AbortSignal;
    deps?: Partial<CliDeps>;
    socket?: string;
    tty?: boolean;
  } = {},
): Promise<Run> {
  const result = { code: -1, out: '', err: '' };
  const terminal = options.typed !== undefined;
  const stdin = Object.assign(Readable.from([options.typed ?? options.piped ?? '']), { isTTY: terminal });
  let clock = T0 + 65_000;
  const deps: CliDeps = {
    version: '0.1.0',
    stdout: {
      write: t => {
        result.out += Buffer.from(t as string).toString();
      },
      isTTY: options.tty ?? false,
      columns: 100,
    },
    stderr: {
      write: t => {
        result.err += t;
      },
      isTTY: terminal,
      columns: 100,
    },
    stdin,
    env: { HALLIGAN_SOCKET: options.socket ?? socketPath },
    clock: { nowMs: () => T0 + 65_000, monotonicMs: () => ++clock },
    signal: options.signal ?? new AbortController().signal,
    exit: code => {
      result.code = code;
    },
    connect: socketClient,
    serve: notCalled('serve'),
    demo: notCalled('demo'),
    buildImage: notCalled('buildImage'),
    bakeRoles: notCalled('bakeRoles'),
    importImage: notCalled('importImage'),
    listImages: notCalled('listImages'),
    labUp: notCalled('labUp'),
    labStatus: notCalled('labStatus'),
    labDown: notCalled('labDown'),
    backup: notCalled('backup'),
    restore: notCalled('restore'),
    ...options.deps,
  };
  await runCli(deps, typeof line === 'string' ? line.split(' ') : line);
  return result;
}
