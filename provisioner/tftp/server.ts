/** TFTP for boot loaders: read requests over a chain of named routes. Each transfer has a socket of its own (RFC 1350). */
import { createSocket } from 'node:dgram';
import { listenProblem } from '../boot/listen-problem.js';
import type { Clock } from '../core/clock.js';
import type { Log } from '../core/log.js';
import { ProblemError } from '../core/problem.js';
import type { BootTrace } from '../core/trace.js';
import { ERROR_CODE, errorPacket, parseRequest, type RequestedOptions } from './codec.js';
import { startTransfer, type Transfer } from './transfer.js';
import type { TftpResult, TftpRoute } from './types.js';

export interface TftpLimits {
  /** Transfers at once; further requests are not answered, and firmware asks again by itself. */
  readonly transfers: number;
  readonly transfersPerClient: number;
  /** Largest block agreed to: one that fits an Ethernet frame, so that nothing is fragmented. */
  readonly blockBytes: number;
  readonly windowBlocks: number;
  readonly initialRtoMs: number;
  readonly minRtoMs: number;
  readonly maxRtoMs: number;
  /** How long a transfer may make no progress. */
  readonly silenceMs: number;
  /** The same until the client is heard for the first time. */
  readonly firstAnswerMs: number;
  /** How long a transfer may take in all. */
  readonly transferMs: number;
}

export const TFTP_LIMITS: TftpLimits = {
  transfers: 1024,
  transfersPerClient: 16,
  blockBytes: 1468,
  windowBlocks: 64,
  initialRtoMs: 500,
  minRtoMs: 50,
  maxRtoMs: 3000,
  silenceMs: 25_000,
  firstAnswerMs: 8_000,
  transferMs: 3_600_000,
};

export interface TftpOptions {
  readonly address: string;
  readonly port: number;
  /** Asked in order; the first that has the file serves it. */
  readonly routes: readonly TftpRoute[];
  readonly limits?: Partial<TftpLimits>;
  readonly clock: Clock;
  readonly log: Log;
  readonly trace: BootTrace;
  /** The MAC behind an address (from the leases), for the trace. */
  readonly macOf?: (address: string) => string | undefined;
  /** After each transfer, however it ended. */
  readonly onServed?: (result: TftpResult) => void;
}

export interface TftpServer {
  readonly port: number;
  counts(): { transfers: number };
  /** Ends every transfer with an error to its client. */
  close(): Promise<void>;
}

/**
 * Starts the TFTP server on one address.
 * @throws ProblemError port-in-use, capability-missing, interface-missing
 */
export async function startTftp(options: TftpOptions): Promise<TftpServer> {
  const { address, routes, clock, log, trace, macOf, onServed } = options;
  const limits = { ...TFTP_LIMITS, ...options.limits };
  /** By `address:port` of the client, which is its transfer id. */
  const transfers = new Map<string, { file: string; transfer: Transfer | null }>();
  const perClient = new Map<string, number>();
  let closed = false;

  const record = (client: string, message: string, silent: boolean, data: Record<string, unknown> = {}) => {
    const mac = macOf?.(client);
    if (mac) trace.record({ mac, layer: 'tftp', message, silent, data: { address: client, ...data } });
  };
  const count = (client: string, by: 1 | -1) => {
    const n = (perClient.get(client) ?? 0) + by;
    if (n > 0) perClient.set(client, n);
    else perClient.delete(client);
  };

  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });

  const refuse = (client: { address: string; port: number }, code: number, message: string, file: string | null) => {
    log.info({ address: client.address, file, code }, `tftp: refused: ${message}`);
    record(client.address, `refused ${file ?? 'a request'}: ${message}`, false, { code });
    socket.send(errorPacket(code, message), client.port, client.address, () => {});
  };
  const ignore = (client: string, reason: string) => {
    log.debug({ address: client }, `tftp: not answered: ${reason}`);
    record(client, `not answered: ${reason}`, true);
  };

  const begin = async (client: { address: string; port: number }, file: string, requested: RequestedOptions) => {
    const id = `${client.address}:${client.port}`;
    const running = transfers.get(id);
    if (running) {
      // Null: its file is still looked for.
      if (running.transfer === null) return;
      if (running.file === file && running.transfer.repeat()) return;
      // The client has given up on the old transfer and uses its port again.
      running.transfer.close('A new request came from the same port.');
    }
    if (transfers.size >= limits.transfers) return ignore(client.address, `${transfers.size} transfers run already`);
    if ((perClient.get(client.address) ?? 0) >= limits.transfersPerClient)
      return ignore(client.address, `the client has ${limits.transfersPerClient} transfers already`);

    const query = { file: file.replace(/^[/\\]+/, ''), clientAddress: client.address, localAddress: address };
    // Reserved before the first wait, so that the caps hold.
    count(client.address, 1);
    transfers.set(id, { file, transfer: null });
    const free = () => {
      count(client.address, -1);
      transfers.delete(id);
    };
    try {
      for (const route of routes) {
        const source = await route.find(query);
        if (closed) return free();
        if (source === null) continue;
        const transfer = startTransfer({
          source,
          requested,
          client,
          localAddress: address,
          limits,
          clock,
          onEnd(end) {
            count(client.address, -1);
            if (transfers.get(id)?.transfer === transfer) transfers.delete(id);
            const result: TftpResult = { clientAddress: client.address, file, route: route.name, ...end };
            const normal = end.outcome === 'served' || end.outcome === 'size-only';
            log[normal ? 'info' : 'warn']({ ...result }, `tftp: ${file}: ${end.outcome}`);
            record(client.address, `${file}: ${end.outcome}, ${end.reason}`, false, { bytes: end.bytes, ms: end.ms });
            onServed?.(result);
          },
        });
        transfers.set(id, { file, transfer });
        return;
      }
      free();
      refuse(client, ERROR_CODE.FILE_NOT_FOUND, 'There is no such file.', file);
    } catch (error) {
      free();
      log.error({ file, error: String(error) }, 'tftp: a route failed');
      refuse(client, ERROR_CODE.NOT_DEFINED, 'The server failed; its log has the reason.', file);
    }
  };

  socket.on('message', (raw, from) => {
    // Port 0 cannot be answered, and an answer to our own port would talk to itself.
    if (closed || from.port === 0) return;
    const request = parseRequest(raw);
    if (request.kind === 'ignored') return ignore(from.address, request.reason);
    if (request.kind === 'refused') return refuse(from, request.code, request.message, request.file);
    void begin(from, request.file, request.options);
  });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind({ address, port: options.port }, () => {
        socket.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    throw new ProblemError(listenProblem(error, `TFTP on ${address}:${options.port}`), { cause: error });
  }
  socket.on('error', error => log.warn({ error: error.message }, 'tftp: socket'));

  return {
    port: socket.address().port,
    counts: () => ({ transfers: transfers.size }),
    close() {
      closed = true;
      for (const { transfer } of [...transfers.values()]) transfer?.close('The server ends.');
      return new Promise(resolve => socket.close(() => resolve()));
    },
  };
}
