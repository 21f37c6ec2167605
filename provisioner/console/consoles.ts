/**
 * Serial consoles of nodes: recorded, watched by many, typed on by one. A line is a BMC's Serial over LAN (IPMI, by
 * ipmitool) or a Unix socket (the virtual lab, or a terminal server such as ser2net).
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Duplex, Readable, Writable } from 'node:stream';
import type { Log } from '../core/log.js';
import { asProblem, fail, type Problem, problem } from '../core/problem.js';
import { createIpmiDriver, ipmiArgs, ipmiProblem, parseIpmiAddress } from '../power/ipmi.js';
import type { Bmc } from '../site/schema.js';
import { openRecording, RECORDING_MAX_BYTES, type Recording, readRecording } from './recording.js';

export type ConsoleSource =
  | { readonly kind: 'sol'; readonly bmc: Bmc; readonly password: string | null }
  | { readonly kind: 'socket'; readonly path: string };

export interface ConsoleOptions {
  /** Folder of the recordings, one per node. */
  readonly dir: string;
  lookup(nodeId: string): Promise<ConsoleSource | null> | ConsoleSource | null;
  readonly log: Log;
  /**
   * Called before a session over LAN is opened: throws bmc-auth when the BMC refuses the credentials. Pass
   * `power.status`, so that power and console together never offer refused credentials more often than allowed.
   */
  readonly check?: (nodeId: string) => Promise<unknown>;
  /** Bytes of a recording before it is rotated; one older part is kept. */
  readonly maxBytes?: number;
  /** How a line is opened; replaced in tests. */
  readonly open?: (source: ConsoleSource) => Line;
  /** How long a line stays open after its last watcher. */
  readonly lingerMs?: number;
  readonly retryMs?: number;
}

export interface Consoles {
  /** The newest `bytes` bytes of the recording; empty when nothing was recorded yet. */
  tail(nodeId: string, bytes: number): Promise<Buffer>;
  /**
   * What the console says from now on, until the signal aborts. A watcher that is too slow loses the oldest part and is
   * told so in the stream. Throws ProblemError console-missing when the node has none.
   */
  follow(nodeId: string, signal: AbortSignal): AsyncIterable<Buffer>;
  /**
   * Types on the console. One client at a time: another one gets `conflict` until the first was quiet for a while.
   * Throws ProblemError: console-missing, bmc-silent (no line now), conflict.
   */
  write(nodeId: string, data: Buffer | string, client?: string): Promise<void>;
  /** Keeps the line open and recorded without a watcher, until `stop`. */
  record(nodeId: string): void;
  stop(nodeId: string): void;
  close(): Promise<void>;
}

/** An open line. `ended` resolves with the reason, null when it was closed by us. */
export interface Line {
  readonly output: Readable;
  readonly input: Writable;
  readonly ended: Promise<Problem | null>;
  close(): void;
}

const WATCHERS_MAX = 16;
const BACKLOG_BYTES = 1024 * 1024;
const KEYBOARD_MS = 30_000;
const RETRY_MAX_MS = 30_000;
const AUTH_TRIES_MAX = 2;
const WRITE_MAX_BYTES = 64 * 1024;
const BANNER = /^\[SOL Session operational\.[^\n]*\n/;

/**
 * Doubles a tilde at the start of a line: ipmitool takes `~.` there as its own end. `lineStart` says whether the data
 * before ended a line. Pure.
 */
export function escapeForSol(data: Buffer, lineStart: boolean): { data: Buffer; lineStart: boolean } {
  const out: number[] = [];
  let start = lineStart;
  for (const byte of data) {
    if (start && byte === 0x7e) out.push(0x7e);
    out.push(byte);
    start = byte === 0x0d || byte === 0x0a;
  }
  return { data: Buffer.from(out), lineStart: start };
}

function openSol(bmc: Bmc, password: string | null): Line {
  const args = (...command: string[]) => ipmiArgs(parseIpmiAddress(bmc.address), bmc, command);
  const env = {
    PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/nonexistent',
    LC_ALL: 'C',
    IPMI_PASSWORD: password ?? '',
  };
  // Verbose mode would mix packet notes into the console.
  const quiet = args('sol', 'activate').filter(arg => arg !== '-v');
  const child = spawn('ipmitool', quiet, { stdio: ['pipe', 'pipe', 'pipe'], env });
  let said = '';
  let closed = false;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4000);
  });
  child.stdin.on('error', () => {});
  const ended = new Promise<Problem | null>(resolve => {
    child.once('error', error =>
      resolve(problem('dependency-missing', `ipmitool cannot be started: ${error.message}`)),
    );
    child.once('close', code => {
      if (closed) return resolve(null);
      if (/already active/i.test(said)) {
        // Ours, from before a crash, or somebody else's; a BMC has one session, and the recording needs it.
        const free = spawn('ipmitool', args('sol', 'deactivate'), { stdio: 'ignore', env, timeout: 20_000 });
        const done = () =>
          resolve(problem('bmc-silent', 'The console was in use by another session, which was ended.'));
        free.once('error', done);
        free.once('close', done);
        return;
      }
      resolve(ipmiProblem(bmc.address ?? '', { code, stdout: '', stderr: said }));
    });
  });
  return {
    output: child.stdout,
    input: child.stdin,
    ended,
    close() {
      closed = true;
      // ipmitool gives the session back when it is terminated.
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 2000).unref();
    },
  };
}

function openSocket(path: string): Line {
  const socket: Duplex = connect(path);
  let closed = false;
  const ended = new Promise<Problem | null>(resolve => {
    let reason = 'it was closed';
    socket.once('error', error => {
      reason = error.message;
    });
    socket.once('close', () =>
      resolve(closed ? null : problem('bmc-silent', `The console at ${path} does not answer: ${reason}.`)),
    );
  });
  return {
    output: socket,
    input: socket,
    ended,
    close() {
      closed = true;
      socket.destroy();
    },
  };
}

/** In verbose mode ipmitool tells a refused password from silence, which it does not when it opens a console. */
async function checkSol(source: ConsoleSource & { kind: 'sol' }): Promise<void> {
  const driver = createIpmiDriver(source.bmc, source.password);
  await driver.status();
}

/**
 * The socket of a console that stands in the folder of the recordings by the MAC of one of the node's NICs,
 * `52-54-00-99-00-01.sock`: a machine of the virtual lab, or a terminal server's. Null when there is none.
 */
export function consoleSocket(dir: string, macs: readonly string[]): string | null {
  return (
    macs.map(mac => join(dir, `${mac.toLowerCase().replaceAll(':', '-')}.sock`)).find(path => existsSync(path)) ?? null
  );
}

export function openLine(source: ConsoleSource): Line {
  return source.kind === 'sol' ? openSol(source.bmc, source.password) : openSocket(source.path);
}

interface Watcher {
  push(data: Buffer): void;
}

interface Desk {
  readonly watchers: Set<Watcher>;
  readonly recording: Recording;
  line: Line | null;
  source: ConsoleSource | null;
  /** Bytes came since it was opened. */
  alive: boolean;
  recorded: boolean;
  opening: Promise<void> | null;
  retryTimer: NodeJS.Timeout | null;
  lingerTimer: NodeJS.Timeout | null;
  failures: number;
  authFailures: number;
  identity: string;
  keyboard: { client: string; untilMs: number } | null;
  lineStart: boolean;
  note: string | null;
}

/** A queue of bounded size between the console and one watcher. */
function createWatcher(signal: AbortSignal) {
  let queue: Buffer[] = [];
  let size = 0;
  let skipped = 0;
  let wake: (() => void) | null = null;
  let over = signal.aborted;
  const end = () => {
    over = true;
    wake?.();
  };
  signal.addEventListener('abort', end, { once: true });
  return {
    push(data: Buffer) {
      queue.push(data);
      size += data.length;
      while (size > BACKLOG_BYTES && queue.length > 1) {
        const oldest = queue.shift()!;
        size -= oldest.length;
        skipped += oldest.length;
      }
      wake?.();
    },
    end,
    async *read(): AsyncGenerator<Buffer> {
      while (!over) {
        if (queue.length === 0) {
          await new Promise<void>(resolve => {
            wake = resolve;
          });
          wake = null;
          continue;
        }
        const parts = queue;
        if (skipped > 0) parts.unshift(Buffer.from(`\r\n[console: ${skipped} bytes were skipped]\r\n`));
        queue = [];
        size = 0;
        skipped = 0;
        yield Buffer.concat(parts);
      }
    },
  };
}

export function createConsoles(options: ConsoleOptions): Consoles {
  const { dir, log, open = openLine, lingerMs = 60_000, retryMs = 1000, maxBytes = RECORDING_MAX_BYTES } = options;
  const desks = new Map<string, Desk>();
  const ends = new Set<() => void>();
  let closed = false;
  mkdirSync(dir, { recursive: true, mode: 0o700 });

  const pathOf = (nodeId: string): string => {
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(nodeId)) fail('node-unknown', 'There is no such node.');
    return join(dir, `${nodeId}.log`);
  };

  const deskOf = (nodeId: string): Desk => {
    const known = desks.get(nodeId);
    if (known) return known;
    const desk: Desk = {
      watchers: new Set(),
      recording: openRecording(pathOf(nodeId), maxBytes),
      line: null,
      source: null,
      alive: false,
      recorded: false,
      opening: null,
      retryTimer: null,
      lingerTimer: null,
      failures: 0,
      authFailures: 0,
      identity: '',
      keyboard: null,
      lineStart: true,
      note: null,
    };
    desks.set(nodeId, desk);
    return desk;
  };

  const wanted = (desk: Desk) => !closed && (desk.recorded || desk.watchers.size > 0 || desk.lingerTimer !== null);

  const tell = (desk: Desk, note: string) => {
    // The same failure is told once, not at each try.
    if (desk.note === note) return;
    desk.note = note;
    for (const watcher of desk.watchers) watcher.push(Buffer.from(`\r\n[console: ${note}]\r\n`));
  };

  const release = (nodeId: string, desk: Desk) => {
    if (wanted(desk)) return;
    if (desk.retryTimer) clearTimeout(desk.retryTimer);
    desk.retryTimer = null;
    desk.line?.close();
    desk.recording.close();
    if (desks.get(nodeId) === desk) desks.delete(nodeId);
  };

  const connectDesk = async (nodeId: string, desk: Desk): Promise<void> => {
    const source = await options.lookup(nodeId);
    if (!source) return fail('console-missing', 'This node has no serial console: its BMC offers no Serial over LAN.');
    if (!wanted(desk) || desk.line) return;
    const identity = createHash('sha256').update(JSON.stringify(source)).digest('hex');
    if (identity !== desk.identity) desk.authFailures = 0;
    desk.identity = identity;
    if (desk.authFailures >= AUTH_TRIES_MAX) return;
    if (source.kind === 'sol') {
      try {
        await (options.check?.(nodeId) ?? checkSol(source));
      } catch (error) {
        const reason = asProblem(error, 'bmc-protocol');
        if (reason.code === 'bmc-auth') desk.authFailures++;
        tell(desk, reason.message);
        return retry(nodeId, desk);
      }
      if (!wanted(desk)) return;
    }
    const line = open(source);
    desk.line = line;
    desk.source = source;
    desk.alive = false;
    desk.lineStart = true;
    let banner: string | null = source.kind === 'sol' ? '' : null;
    line.output.on('data', (data: Buffer) => {
      let bytes = data;
      if (banner !== null) {
        banner += data.toString('latin1');
        if (!banner.includes('\n') && banner.length < 200) return;
        bytes = Buffer.from(banner.replace(BANNER, ''), 'latin1');
        banner = null;
      }
      if (!desk.alive) {
        desk.alive = true;
        desk.failures = 0;
        desk.authFailures = 0;
        desk.note = null;
      }
      if (bytes.length === 0) return;
      desk.recording.write(bytes);
      for (const watcher of desk.watchers) watcher.push(bytes);
    });
    line.output.on('error', () => {});
    line.input.on('error', () => {});
    void line.ended.then(reason => {
      if (desk.line === line) desk.line = null;
      if (!reason || !wanted(desk)) return;
      log.info({ nodeId, code: reason.code }, `serial console: ${reason.message}`);
      tell(desk, reason.message);
      retry(nodeId, desk);
    });
  };

  const retry = (nodeId: string, desk: Desk) => {
    if (desk.retryTimer || !wanted(desk)) return;
    const delay = Math.min(RETRY_MAX_MS, retryMs * 2 ** Math.min(desk.failures++, 10));
    desk.retryTimer = setTimeout(() => {
      desk.retryTimer = null;
      start(nodeId, desk).catch(error => {
        log.debug({ nodeId, error: String(error) }, 'serial console: no line');
        retry(nodeId, desk);
      });
    }, delay);
    desk.retryTimer.unref();
  };

  const start = (nodeId: string, desk: Desk): Promise<void> => {
    if (desk.line) return Promise.resolve();
    desk.opening ??= connectDesk(nodeId, desk).finally(() => {
      desk.opening = null;
    });
    return desk.opening;
  };

  const linger = (nodeId: string, desk: Desk) => {
    if (desk.lingerTimer) clearTimeout(desk.lingerTimer);
    desk.lingerTimer = setTimeout(() => {
      desk.lingerTimer = null;
      release(nodeId, desk);
    }, lingerMs);
    desk.lingerTimer.unref();
  };

  return {
    async tail(nodeId, bytes) {
      return readRecording(pathOf(nodeId), Math.max(0, Math.min(bytes, 2 * maxBytes)));
    },
    async *follow(nodeId, signal) {
      const desk = deskOf(nodeId);
      if (desk.watchers.size >= WATCHERS_MAX) {
        fail('conflict', `The console has ${WATCHERS_MAX} watchers already, which is the limit.`);
      }
      const watcher = createWatcher(signal);
      desk.watchers.add(watcher);
      ends.add(watcher.end);
      try {
        await start(nodeId, desk);
        yield* watcher.read();
      } finally {
        ends.delete(watcher.end);
        desk.watchers.delete(watcher);
        if (desk.watchers.size === 0 && !desk.recorded) {
          if (desk.line && !closed) linger(nodeId, desk);
          else release(nodeId, desk);
        }
      }
    },
    async write(nodeId, data, client = 'operator') {
      const desk = deskOf(nodeId);
      const now = performance.now();
      if (desk.keyboard && desk.keyboard.client !== client && desk.keyboard.untilMs > now) {
        fail('conflict', `${desk.keyboard.client} types on this console; try again when that is done.`);
      }
      const bytes = Buffer.from(data);
      if (bytes.length > WRITE_MAX_BYTES) fail('request-invalid', `At most ${WRITE_MAX_BYTES} bytes at once.`);
      linger(nodeId, desk);
      await start(nodeId, desk);
      const line = desk.line;
      if (!line) return fail('bmc-silent', `The console has no line now: ${desk.note ?? 'it is being opened'}.`);
      if (line.input.writableLength > WRITE_MAX_BYTES) fail('bmc-silent', 'The console takes no input now.');
      desk.keyboard = { client, untilMs: now + KEYBOARD_MS };
      const escaped = desk.source?.kind === 'sol' ? escapeForSol(bytes, desk.lineStart) : null;
      if (escaped) desk.lineStart = escaped.lineStart;
      line.input.write(escaped?.data ?? bytes);
    },
    record(nodeId) {
      const desk = deskOf(nodeId);
      if (desk.recorded) return;
      desk.recorded = true;
      start(nodeId, desk).catch(() => retry(nodeId, desk));
    },
    stop(nodeId) {
      const desk = desks.get(nodeId);
      if (!desk) return;
      desk.recorded = false;
      release(nodeId, desk);
    },
    async close() {
      closed = true;
      for (const end of ends) end();
      const lines = [...desks.values()].map(desk => desk.line).filter(line => line !== null);
      for (const [nodeId, desk] of [...desks]) {
        if (desk.lingerTimer) clearTimeout(desk.lingerTimer);
        desk.lingerTimer = null;
        release(nodeId, desk);
      }
      await Promise.all(lines.map(line => line.ended));
    },
  };
}
