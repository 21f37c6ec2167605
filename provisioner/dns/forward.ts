/** Asking a resolver of the site. The query goes on as it came, but with a random id from a random port (RFC 5452). */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

const TRY_MS = 2000;
/** RFC 1035 section 4.2.2: two bytes of length. */
export const frame = (message: Buffer): Buffer => {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
};

/** Header, then the question: name, type, class. Both sides must have the same question, whatever the case. */
function sameQuestion(query: Buffer, reply: Buffer): boolean {
  let end = 12;
  while (end < query.length && query[end] !== 0) end += query[end]! + 1;
  end += 5;
  if (reply.length < end || (reply[2]! & 0x80) === 0) return false;
  const text = (b: Buffer) => b.toString('latin1', 12, end).toLowerCase();
  return text(query) === text(reply);
}

function overUdp(query: Buffer, server: string, port: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // Connected: the kernel drops what does not come from that server and port.
    const socket = createSocket('udp4');
    const done = (error?: Error, reply?: Buffer) => {
      clearTimeout(timer);
      socket.close();
      if (reply) resolve(reply);
      else reject(error);
    };
    const timer = setTimeout(() => done(new Error('no answer in time')), TRY_MS);
    socket.once('error', done);
    socket.on('message', reply => {
      if (reply.length >= 12 && reply.readUInt16BE(0) === query.readUInt16BE(0) && sameQuestion(query, reply))
        done(undefined, reply);
    });
    socket.connect(port, server, () => socket.send(query, error => error && done(error)));
  });
}

function overTcp(query: Buffer, server: string, port: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server, port, timeout: TRY_MS });
    const timer = setTimeout(() => done(new Error('no answer in time')), 2 * TRY_MS);
    let data = Buffer.alloc(0);
    const done = (error?: Error, reply?: Buffer) => {
      clearTimeout(timer);
      socket.destroy();
      if (reply) resolve(reply);
      else reject(error);
    };
    socket.once('connect', () => socket.write(frame(query)));
    socket.on('error', done);
    socket.on('timeout', () => done(new Error('no answer in time')));
    socket.on('end', () => done(new Error('the resolver closed the connection')));
    socket.on('data', chunk => {
      data = Buffer.concat([data, chunk]);
      if (data.length < 2 || data.length < 2 + data.readUInt16BE(0)) return;
      const reply = data.subarray(2, 2 + data.readUInt16BE(0));
      if (reply.length >= 12 && reply.readUInt16BE(0) === query.readUInt16BE(0) && sameQuestion(query, reply))
        done(undefined, reply);
      else done(new Error('the answer does not belong to the question'));
    });
  });
}

/**
 * The answer of the first resolver that gives one, with the id of the query; rejects when none does.
 * @param resolvers `ADDRESS` or `ADDRESS:PORT`
 */
export async function forward(query: Buffer, resolvers: readonly string[], over: 'udp' | 'tcp'): Promise<Buffer> {
  let last: unknown = new Error('no resolver is configured (dns.forward)');
  for (const resolver of resolvers) {
    const [server = '', port = '53'] = resolver.split(':');
    const asked = Buffer.from(query);
    asked.writeUInt16BE(randomInt(0x10000), 0);
    try {
      const reply = Buffer.from(await (over === 'udp' ? overUdp : overTcp)(asked, server, Number(port)));
      reply.writeUInt16BE(query.readUInt16BE(0), 0);
      return reply;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}
