/** A TFTP client for tests, whose manners can be set, and a relay that loses, doubles and reorders datagrams. */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';

/** What a client may do differently with a packet of the server. Returns the datagrams to send. */
export type Manners = (packet: { opcode: number; block: number; data: Buffer }, reply: Buffer) => Buffer[];

export interface Fetched {
  readonly data: Buffer;
  readonly options: Record<string, string>;
  readonly dataPackets: number;
  readonly error: { code: number; message: string } | null;
}

export const request = (opcode: number, file: string, mode = 'octet', options: Record<string, string | number> = {}) =>
  Buffer.from(
    `\0${String.fromCharCode(opcode)}${[file, mode, ...Object.entries(options).flat().map(String)].join('\0')}\0`,
    'latin1',
  );
export const ackPacket = (block: number) => Buffer.from([0, 4, (block >> 8) & 255, block & 255]);
export const bind = (address = '127.0.0.1') =>
  new Promise<Socket>(resolve => {
    const socket = createSocket('udp4');
    socket.bind(0, address, () => resolve(socket));
  });

/** Fetches a file; acknowledges the end of each window and each gap, as RFC 7440 wants it. */
export async function fetchFile(
  port: number,
  file: string,
  options: Record<string, string | number> = {},
  { manners, retryMs = 300, from = '127.0.0.1' }: { manners?: Manners; retryMs?: number; from?: string } = {},
): Promise<Fetched> {
  const socket = await bind(from);
  const pieces: Uint8Array[] = [];
  let agreed: Record<string, string> = {};
  let server: RemoteInfo | null = null;
  let expected = 1;
  let inWindow = 0;
  let dataPackets = 0;
  return new Promise((resolve, reject) => {
    let last: Buffer = request(1, file, 'octet', options);
    let tries = 0;
    let finished = false;
    const finish = (error: Fetched['error']) => {
      clearTimeout(timer);
      if (finished) return;
      finished = true;
      // A little later, to acknowledge a repeated last block.
      setTimeout(() => socket.close(), error ? 0 : 50);
      resolve({ data: Buffer.concat(pieces), options: agreed, dataPackets, error });
    };
    const send = (packet: Buffer) => socket.send(packet, server?.port ?? port, server?.address ?? '127.0.0.1');
    const again = () => {
      if (++tries > 60) return reject(new Error(`no progress behind block ${expected - 1}`));
      send(last);
      timer = setTimeout(again, retryMs);
    };
    let timer = setTimeout(again, retryMs);
    socket.on('message', (raw, from) => {
      server ??= from;
      if (from.port !== server.port) return;
      const opcode = raw.readUInt16BE(0);
      const block = raw.readUInt16BE(2);
      let reply: ReturnType<typeof ackPacket> | null = null;
      let done = false;
      if (opcode === 5) return finish({ code: block, message: raw.toString('latin1', 4, raw.length - 1) });
      if (opcode === 6) {
        if (expected > 1) return;
        const fields = raw.toString('latin1', 2).split('\0');
        agreed = Object.fromEntries(fields.slice(0, -1).flatMap((f, i) => (i % 2 ? [] : [[f, fields[i + 1]!]])));
        reply = ackPacket(0);
      } else if (opcode === 3) {
        dataPackets++;
        const size = Number(agreed['blksize'] ?? 512);
        const window = Number(agreed['windowsize'] ?? 1);
        if (block === (expected & 0xffff)) {
          tries = 0;
          pieces.push(raw.subarray(4));
          expected++;
          inWindow++;
          done = raw.length - 4 < size;
          if (done || inWindow >= window) {
            reply = ackPacket(block);
            inWindow = 0;
          }
        } else {
          inWindow = 0;
          reply = ackPacket((expected - 1) & 0xffff);
        }
      }
      if (reply) {
        last = reply;
        clearTimeout(timer);
        if (!finished) timer = setTimeout(again, retryMs);
        for (const packet of manners ? manners({ opcode, block, data: raw.subarray(4) }, reply) : [reply]) send(packet);
      }
      if (done) finish(null);
    });
    socket.on('error', reject);
    send(last);
  });
}

export interface Weather {
  /** Shares of 1. */
  loss?: number;
  double?: number;
  /** Delayed by up to 20 ms, so that others overtake. */
  reorder?: number;
  delayMs?: number;
}

/** A relay on a port of its own: what goes through it to the server (and back) meets the weather. */
export async function startRelay(serverPort: number, weather: Weather, random: () => number) {
  const front = await bind();
  const paths = new Set<Socket>();
  const pass = (go: () => void) => {
    if (random() < (weather.loss ?? 0)) return;
    const late = (weather.delayMs ?? 0) + (random() < (weather.reorder ?? 0) ? random() * 20 : 0);
    const times = random() < (weather.double ?? 0) ? 2 : 1;
    for (let i = 0; i < times; i++) late > 0 ? setTimeout(go, late) : go();
  };
  const quietly = (socket: Socket, raw: Buffer, port: number) => {
    try {
      socket.send(raw, port, '127.0.0.1', () => {});
    } catch {
      // Closed while a datagram was on its way.
    }
  };
  const byClient = new Map<number, Socket>();
  front.on('message', async (raw, client) => {
    // Each client gets a path of its own; each transfer port of the server is shown by another front port.
    let path = byClient.get(client.port);
    if (!path) {
      path = createSocket('udp4');
      byClient.set(client.port, path);
      paths.add(path);
      const faces = new Map<number, Socket>();
      const own = path;
      path.on('message', (answer, from) => {
        let face = faces.get(from.port);
        if (!face) {
          face = createSocket('udp4');
          paths.add(face);
          faces.set(from.port, face);
          face.bind(0, '127.0.0.1');
          face.on('message', back => pass(() => quietly(own, back, from.port)));
        }
        const through = face;
        pass(() => quietly(through, answer, client.port));
      });
      path.bind(0, '127.0.0.1');
    }
    const out = path;
    pass(() => quietly(out, raw, serverPort));
  });
  return {
    port: front.address().port,
    close() {
      front.close();
      for (const path of paths) path.close();
    },
  };
}

/** A small repeatable random number generator (mulberry32). */
export function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
