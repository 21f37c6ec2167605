import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, type Server } from 'node:net';
import * as dns from 'dns-packet';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { silentLog } from '../../../provisioner/core/log.js';
import { parseCidr, parseIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { serveNetwork } from '../../../provisioner/dhcp/network.js';
import type { LiveLease } from '../../../provisioner/dhcp/server.js';
import { answerQuestion, type Zone } from '../../../provisioner/dns/answer.js';
import { createNames } from '../../../provisioner/dns/names.js';
import { type DnsServer, startDns } from '../../../provisioner/dns/server.js';
import { NETWORK, node, site, TestClock } from '../dhcp/world.js';

const closing: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const lease = (address: string, mac: string, hostName: string | null): LiveLease => ({
  address,
  network: 'boot',
  mac,
  hostName,
  secondsLeft: 60,
});
const nodes = new Map([
  ['52:54:00:00:00:07', node('n07', '127.0.0.7')],
  ['52:54:00:00:00:08', node('n08', null)],
]);
const directory = {
  byMac: (mac: string) => nodes.get(mac),
  names: () => [...nodes.values()].flatMap(n => (n.address ? [{ name: n.name, address: n.address }] : [])),
  unknownNoBootFile: () => null,
};
const leases = [
  lease('127.0.0.100', '52:54:00:00:00:08', 'whatever'),
  lease('127.0.0.101', '52:54:00:00:01:01', 'Laptop.local'),
  lease('127.0.0.102', '52:54:00:00:01:02', 'laptop'),
  lease('127.0.0.103', '52:54:00:00:01:03', 'n07'),
  lease('127.0.0.104', '52:54:00:00:01:04', 'wpad'),
  lease('127.0.0.105', '52:54:00:00:01:05', 'a b;c'),
  lease('127.0.0.106', '52:54:00:00:01:06', null),
];
const names = () => createNames(directory, () => leases, new TestClock());

test('nodes are named first; a lease takes neither a node’s name, nor another lease’s, nor a dangerous one', () => {
  const n = names();
  const at = (label: string) => n.addressOf(label);
  expect(at('n07')).toBe(parseIpv4('127.0.0.7'));
  expect(at('n08')).toBe(parseIpv4('127.0.0.100'));
  expect(at('laptop')).toBe(parseIpv4('127.0.0.101'));
  expect([at('wpad'), at('a b;c'), at('whatever')]).toEqual([undefined, undefined, undefined]);
  expect(n.labelOf(parseIpv4('127.0.0.103'))).toBeUndefined();
});

const zone = (): Zone => ({ domain: 'lab.test', networks: [parseCidr('127.0.0.0/8')], names: names() });
const decide = (name: string, type: dns.RecordType) => answerQuestion({ name, type }, zone());

test('a question in the site’s domain is answered with authority, also with no', () => {
  expect(decide('N07.Lab.Test', 'A')).toMatchObject({
    rcode: 'NOERROR',
    answers: [{ name: 'N07.Lab.Test', type: 'A', data: '127.0.0.7' }],
    authorities: [],
  });
  expect(decide('n07.lab.test', 'AAAA')).toMatchObject({
    rcode: 'NOERROR',
    answers: [],
    authorities: [{ type: 'SOA' }],
  });
  expect(decide('n99.lab.test', 'A')).toMatchObject({ rcode: 'NXDOMAIN', authorities: [{ type: 'SOA' }] });
  expect(decide('www.n07.lab.test', 'A')).toMatchObject({ rcode: 'NXDOMAIN' });
  expect(decide('n07', 'A')).toMatchObject({ answers: [{ data: '127.0.0.7' }] });
  expect(decide('notlab.test', 'A')).toEqual({ kind: 'forward' });
});

test('an address of our networks has a reverse name or none; others are forwarded', () => {
  expect(decide('7.0.0.127.in-addr.arpa', 'PTR')).toMatchObject({ answers: [{ type: 'PTR', data: 'n07.lab.test' }] });
  expect(decide('101.0.0.127.in-addr.arpa', 'PTR')).toMatchObject({ answers: [{ data: 'laptop.lab.test' }] });
  expect(decide('9.0.0.127.in-addr.arpa', 'PTR')).toMatchObject({ rcode: 'NXDOMAIN' });
  expect(decide('8.8.8.8.in-addr.arpa', 'PTR')).toEqual({ kind: 'forward' });
});

/** A port that is free for UDP and TCP at the same number, most likely. */
const freePort = async () => {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise(resolve => server.close(resolve));
  return port;
};

const serve = async (forwardTo: string[] = [], cidr = '127.0.0.0/8'): Promise<{ server: DnsServer; port: number }> => {
  const network = { ...NETWORK, cidr, pool: { from: cidr.replace(/0\/.*/, '1'), to: cidr.replace(/0\/.*/, '9') } };
  const port = await freePort();
  const server = await startDns({
    site: { ...site(), dns: { forward: forwardTo } },
    networks: [{ ...serveNetwork(network, site(), '127.0.0.1', true) }],
    directory,
    leases: () => leases,
    clock: new TestClock(),
    log: silentLog,
    port,
  });
  closing.push(() => server.close());
  return { server, port };
};

const raw = (port: number, query: Buffer, waitMs = 6000): Promise<Buffer | undefined> =>
  new Promise(resolve => {
    const socket: Socket = createSocket('udp4');
    const done = (reply?: Buffer) => {
      clearTimeout(timer);
      socket.close();
      resolve(reply);
    };
    const timer = setTimeout(done, waitMs);
    socket.once('message', done);
    socket.send(query, port, '127.0.0.1');
  });
const question = (name: string, type: dns.RecordType = 'A', more: Partial<dns.Packet> = {}) =>
  dns.encode({ type: 'query', id: 4711, flags: dns.RECURSION_DESIRED, questions: [{ name, type }], ...more });
const ask = async (port: number, query: Buffer) => {
  const reply = await raw(port, query);
  return reply && (dns.decode(reply) as dns.DecodedPacket & { rcode: string });
};

/** A resolver that answers every A question with 192.0.2.1 after the given mistakes. */
const upstream = async (mistake: 'none' | 'silent' | 'wrong-id' | 'wrong-question') => {
  const socket = createSocket('udp4');
  let asked = 0;
  socket.on('message', (query, from) => {
    asked++;
    if (mistake === 'silent') return;
    const packet = dns.decode(query);
    const name = packet.questions![0]!.name;
    const send = (id: number, q: string, data: string) =>
      socket.send(
        dns.encode({
          type: 'response',
          id,
          questions: [{ name: q, type: 'A' }],
          answers: [{ name: q, type: 'A', ttl: 1, data }],
        }),
        from.port,
        from.address,
      );
    if (mistake === 'wrong-id') send((packet.id! + 1) & 0xffff, name, '192.0.2.66');
    if (mistake === 'wrong-question') send(packet.id!, 'evil.example', '192.0.2.66');
    send(packet.id!, name, '192.0.2.1');
  });
  await new Promise<void>(resolve => socket.bind(0, '127.0.0.1', resolve));
  closing.push(() => void socket.close());
  return { address: `127.0.0.1:${socket.address().port}`, asked: () => asked };
};

test('names of nodes are resolved over UDP, with EDNS when the question has it', async () => {
  const { port } = await serve();
  const opt = {
    name: '.',
    type: 'OPT',
    udpPayloadSize: 4096,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  } as const;
  const reply = await ask(port, question('n07.lab.test', 'A', { additionals: [{ ...opt, options: [] }] }));
  expect(reply).toMatchObject({
    id: 4711,
    rcode: 'NOERROR',
    flag_aa: true,
    flag_ra: true,
    answers: [{ data: '127.0.0.7' }],
  });
  expect(reply!.additionals).toMatchObject([{ type: 'OPT', udpPayloadSize: 1232 }]);
});

test('other names come from the resolver, under our client’s id', async () => {
  const good = await upstream('none');
  const { port, server } = await serve([good.address]);
  expect(await ask(port, question('www.example'))).toMatchObject({ id: 4711, answers: [{ data: '192.0.2.1' }] });
  expect(server.stats()).toMatchObject({ queries: 1, forwarded: 1 });
});

test.each(['wrong-id', 'wrong-question'] as const)('a forged answer with the %s is not passed on', async mistake => {
  const { port } = await serve([(await upstream(mistake)).address]);
  expect(await ask(port, question('www.example'))).toMatchObject({ answers: [{ data: '192.0.2.1' }] });
});

test('the next resolver is asked when one is silent; SERVFAIL when all are', async () => {
  const silent = await upstream('silent');
  const good = await upstream('none');
  const { port } = await serve([silent.address, good.address]);
  expect(await ask(port, question('www.example'))).toMatchObject({ answers: [{ data: '192.0.2.1' }] });
  const alone = await serve([silent.address]);
  expect(await ask(alone.port, question('www.example'))).toMatchObject({ id: 4711, rcode: 'SERVFAIL' });
});

test('without a resolver other names are refused', async () => {
  const { port } = await serve();
  expect(await ask(port, question('www.example'))).toMatchObject({ rcode: 'REFUSED' });
});

test('clients outside our networks are refused: we are no open resolver', async () => {
  const good = await upstream('none');
  const { port } = await serve([good.address], '10.77.0.0/24');
  expect(await ask(port, question('www.example'))).toMatchObject({ rcode: 'REFUSED' });
  expect(await ask(port, question('n07.lab.test'))).toMatchObject({ rcode: 'REFUSED' });
  expect(good.asked()).toBe(0);
});

test('zone transfers are refused, other opcodes are not implemented, answers are never answered', async () => {
  const { port } = await serve();
  expect(await ask(port, question('lab.test', 'AXFR'))).toMatchObject({ rcode: 'REFUSED' });
  const update = question('n07.lab.test');
  update[2] = (update[2]! & 0x87) | (5 << 3);
  expect(await ask(port, update)).toMatchObject({ rcode: 'NOTIMP' });
  const response = question('n07.lab.test');
  response[2] = response[2]! | 0x80;
  expect(await raw(port, response, 300)).toBeUndefined();
  const two = dns.encode({
    type: 'query',
    id: 1,
    questions: [
      { name: 'a', type: 'A' },
      { name: 'b', type: 'A' },
    ],
  });
  expect(await ask(port, two)).toMatchObject({ rcode: 'FORMERR' });
});

test('several questions over one TCP connection are answered in order, also when they come in pieces', async () => {
  const { port } = await serve();
  const socket = connect(port, '127.0.0.1');
  const replies = new Promise<Buffer>(resolve => {
    let data = Buffer.alloc(0);
    socket.on('data', chunk => {
      data = Buffer.concat([data, chunk]);
      let count = 0;
      for (let at = 0; at + 2 <= data.length && at + 2 + data.readUInt16BE(at) <= data.length; count++)
        at += 2 + data.readUInt16BE(at);
      if (count === 2) resolve(data);
    });
  });
  const both = Buffer.concat(
    ['n07.lab.test', 'n99.lab.test'].map(name =>
      dns.streamEncode({ type: 'query', id: 9, questions: [{ name, type: 'A' }] }),
    ),
  );
  socket.write(both.subarray(0, 5));
  await new Promise(resolve => setTimeout(resolve, 50));
  socket.write(both.subarray(5));
  const data = await replies;
  const first = data.subarray(2, 2 + data.readUInt16BE(0));
  const second = data.subarray(4 + first.length);
  expect(dns.decode(first)).toMatchObject({ answers: [{ data: '127.0.0.7' }] });
  expect(dns.decode(second)).toMatchObject({ rcode: 'NXDOMAIN' });
  socket.destroy();
});

test('a TCP question goes to the resolver by TCP', async () => {
  const tcp: Server = createServer(connection => {
    connection.on('data', data => {
      const { id, questions } = dns.decode(data.subarray(2));
      connection.write(
        dns.streamEncode({
          type: 'response',
          id: id!,
          questions: questions!,
          answers: [{ name: 'big.example', type: 'TXT', ttl: 1, data: 'over tcp' }],
        }),
      );
    });
  });
  await new Promise<void>(resolve => tcp.listen(0, '127.0.0.1', resolve));
  closing.push(() => void tcp.close());
  const { port } = await serve([`127.0.0.1:${(tcp.address() as { port: number }).port}`]);
  const socket = connect(port, '127.0.0.1');
  socket.write(dns.streamEncode({ type: 'query', id: 7, questions: [{ name: 'big.example', type: 'TXT' }] }));
  const data = await new Promise<Buffer>(resolve => socket.once('data', resolve));
  expect(dns.decode(data.subarray(2))).toMatchObject({
    id: 7,
    answers: [{ type: 'TXT', data: [Buffer.from('over tcp')] }],
  });
  socket.destroy();
});

test('garbage gets FORMERR or silence, and the server goes on', async () => {
  const { port, server } = await serve();
  const socket = createSocket('udp4');
  closing.push(() => void socket.close());
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async bytes => {
      await new Promise(resolve => socket.send(bytes, port, '127.0.0.1', resolve));
      // Lets the server read: the kernel keeps only so many datagrams.
      await new Promise(resolve => setImmediate(resolve));
    }),
    { numRuns: 2000 },
  );
  expect(await ask(port, question('n07.lab.test'))).toMatchObject({ answers: [{ data: '127.0.0.7' }] });
  expect(server.stats().queries).toBeGreaterThan(2000);
});
