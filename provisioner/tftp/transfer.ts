/** One transfer on a socket of its own: the edge around window.ts. */
import { createSocket } from 'node:dgram';
import type { Clock } from '../core/clock.js';
import type { Blocks } from './blocks.js';
import { createBlocks } from './blocks.js';
import { dataPacket, ERROR_CODE, errorPacket, oackPacket, parseClientPacket, type RequestedOptions } from './codec.js';
import { createRto } from './rto.js';
import type { TftpLimits } from './server.js';
import type { TftpResult, TftpSource } from './types.js';
import { createWindow } from './window.js';

export interface Transfer {
  /** The client has sent its request again: our first packet was lost. True when nothing else had come from it yet. */
  repeat(): boolean;
  close(reason: string): void;
}

export interface TransferOptions {
  readonly source: TftpSource;
  readonly requested: RequestedOptions;
  readonly client: { readonly address: string; readonly port: number };
  /** Our address to send from; 0.0.0.0 leaves it to the routing table. */
  readonly localAddress: string;
  readonly limits: TftpLimits;
  readonly clock: Clock;
  /** Called once. */
  onEnd(result: Pick<TftpResult, 'outcome' | 'reason' | 'bytes' | 'ms' | 'blocksResent'>): void;
}

const DEFAULT_BLOCK_BYTES = 512;

/** What we agree to, of what the client asked for; in the order of the RFCs, for readable captures. */
export function negotiate(
  requested: RequestedOptions,
  bytes: number | null,
  limits: Pick<TftpLimits, 'blockBytes' | 'windowBlocks'>,
): Record<string, number> {
  const agreed: Record<string, number> = {};
  if (requested.blksize !== undefined) agreed['blksize'] = Math.min(requested.blksize, limits.blockBytes);
  if (requested.timeoutSeconds !== undefined) agreed['timeout'] = requested.timeoutSeconds;
  if (requested.tsize && bytes !== null) agreed['tsize'] = bytes;
  if (requested.windowsize !== undefined) agreed['windowsize'] = Math.min(requested.windowsize, limits.windowBlocks);
  return agreed;
}

export function startTransfer(options: TransferOptions): Transfer {
  const { source, requested, client, limits, clock, onEnd } = options;
  const bytes = source.kind === 'buffer' ? source.data.length : source.bytes;
  const agreed = negotiate(requested, bytes, limits);
  const blockBytes = agreed['blksize'] ?? DEFAULT_BLOCK_BYTES;
  const oack = Object.keys(agreed).length > 0 ? oackPacket(agreed) : null;
  // An agreed `timeout` bounds ours from above: the client will not be patient for longer than it said.
  const maxMs = Math.min(limits.maxRtoMs, (agreed['timeout'] ?? Number.POSITIVE_INFINITY) * 1000);
  const rto = createRto({ initialMs: Math.min(limits.initialRtoMs, maxMs), minMs: limits.minRtoMs, maxMs });
  const window = createWindow(agreed['windowsize'] ?? 1, rto);

  const socket = createSocket('udp4');
  const startedMs = clock.monotonicMs();
  let blocks: Blocks | null = null;
  let awaitsOack = oack !== null;
  let connected = false;
  let heard = false;
  let ended = false;
  let pumping = false;
  let lastBlockBytes = 0;
  let progressMs = startedMs;
  let dueMs = Number.POSITIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;

  const end = (outcome: TftpResult['outcome'], reason: string) => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    blocks?.close();
    // In the next turn: a packet just sent still has to leave, and the socket may not even be bound yet.
    setImmediate(() => socket.close());
    const now = clock.monotonicMs();
    const whole = outcome === 'served' ? (window.acked - 1) * blockBytes + lastBlockBytes : window.acked * blockBytes;
    onEnd({ outcome, reason, bytes: whole, ms: Math.round(now - startedMs), blocksResent: window.resent });
  };
  const fail = (outcome: TftpResult['outcome'], reason: string, code: number) => {
    if (!ended && connected) socket.send(errorPacket(code, reason), () => {});
    end(outcome, reason);
  };

  /** One timer for the whole transfer; each packet only moves the time it is due. */
  const arm = () => {
    dueMs = clock.monotonicMs() + rto.ms;
    timer ??= setTimeout(expire, rto.ms);
  };
  const expire = () => {
    timer = undefined;
    const now = clock.monotonicMs();
    if (ended) return;
    if (now < dueMs - 1) {
      timer = setTimeout(expire, dueMs - now);
      return;
    }
    // A spoofed request must not make us send for long: whoever was never heard from gets few tries.
    const patienceMs = heard ? limits.silenceMs : Math.min(limits.silenceMs, limits.firstAnswerMs);
    if (now - progressMs >= patienceMs)
      return fail('timed-out', `No answer for ${Math.round((now - progressMs) / 100) / 10} s.`, ERROR_CODE.NOT_DEFINED);
    if (now - startedMs >= limits.transferMs)
      return fail('timed-out', 'The transfer takes too long.', ERROR_CODE.NOT_DEFINED);
    window.timedOut();
    void pump();
    arm();
  };

  const pump = async () => {
    if (pumping || ended) return;
    if (awaitsOack) return void socket.send(oack!);
    pumping = true;
    try {
      blocks ??= createBlocks(source, blockBytes);
      for (let number = window.next(); number !== null; number = window.next()) {
        const got = blocks.get(number);
        const data = got instanceof Buffer ? got : await got;
        if (ended) return;
        // While the source was read, an acknowledgement may have moved the window.
        if (window.next() !== number) continue;
        const last = data.length < blockBytes;
        if (last) lastBlockBytes = data.length;
        socket.send(dataPacket(number, data));
        window.sent(last, clock.monotonicMs());
      }
    } catch (error) {
      fail('failed', error instanceof Error ? error.message : String(error), ERROR_CODE.NOT_DEFINED);
    } finally {
      pumping = false;
    }
  };

  const onMessage = (raw: Buffer, from: { address: string; port: number }) => {
    // The socket is connected, so the kernel answers strangers (port unreachable). Only what came between bind and
    // connect gets here: a datagram of another transfer id is not ours (RFC 1350, section 4).
    if (ended || from.port !== client.port || from.address !== client.address) return;
    const packet = parseClientPacket(raw);
    if (packet.kind === 'other') return;
    heard = true;
    if (packet.kind === 'error') {
      const sizeOnly = window.acked === 0 && requested.tsize === true && oack !== null;
      const said = `the client said: ${packet.message || `error ${packet.code}`}`;
      return sizeOnly ? end('size-only', `asked for the size only (${said})`) : end('aborted', said);
    }
    const now = clock.monotonicMs();
    if (awaitsOack) {
      if (packet.block !== 0) return;
      awaitsOack = false;
      progressMs = now;
    } else {
      const meaning = window.ack(packet.block, now);
      if (meaning === 'done') return end('served', 'the last block was acknowledged');
      if (meaning === 'nothing') return;
      if (meaning === 'moved') progressMs = now;
      blocks?.release(window.acked);
    }
    arm();
    void pump();
  };

  socket.on('message', onMessage);
  socket.on('error', error => {
    // ICMP port unreachable: the client has closed its socket. Behind the last block that is a lost last
    // acknowledgement: the client has everything.
    const { code } = error as NodeJS.ErrnoException;
    // The interface is full: that packet is lost, which is what the timer is for.
    if (code === 'ENOBUFS' || code === 'EAGAIN') return;
    if (code !== 'ECONNREFUSED') return end('failed', error.message);
    if (window.complete) end('served', 'the client closed its port after the last block');
    else end('gone', 'the client closed its port');
  });
  socket.bind({ address: options.localAddress, port: 0 }, () => {
    if (ended) return;
    // Connected: the kernel lets only this client in, and no address is looked up for each packet.
    socket.connect(client.port, client.address, () => {
      if (ended) return;
      connected = true;
      void pump();
      arm();
    });
  });

  return {
    repeat() {
      if (heard || ended) return false;
      if (!connected) return true;
      window.timedOut();
      void pump();
      return true;
    },
    close: reason => fail('closed', reason, ERROR_CODE.NOT_DEFINED),
  };
}
