/** A small forwarding DNS for the nodes: UDP and TCP on our address of each network. */
import type { Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import * as dns from 'dns-packet';
import type { BootDirectory } from '../boot/types.js';
import type { Clock } from '../core/clock.js';
import type { Log } from '../core/log.js';
import { contains, tryParseIpv4 } from '../core/net/ipv4.js';
import { bindUdp } from '../core/net/sockets.js';
import { fail } from '../core/problem.js';
import type { ServedNetwork } from '../dhcp/network.js';
import type { LiveLease } from '../dhcp/server.js';
import type { Site } from '../site/schema.js';
import { answerQuestion, type DnsDecision, type Rcode, type Zone } from './answer.js';
import { forward, frame } from './forward.js';
import { createNames } from './names.js';

export interface DnsOptions {
  site: Site;
  /** As startDhcp made them ready. */
  networks: readonly ServedNetwork[];
  directory: BootDirectory;
  /** The running leases: `() => dhcp.leases()`. */
  leases(): readonly LiveLease[];
  clock: Clock;
  log: Log;
  /** 53 by default. */
  port?: number;
}

export interface DnsStats {
  queries: number;
  answered: number;
  forwarded: number;
  refused: number;
  failed: number;
  malformed: number;
}

export interface DnsServer {
  stats(): DnsStats;
  close(): Promise<void>;
}

const RCODES: Readonly<Record<Rcode, number>> = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
};
const AUTHORITATIVE = 1 << 10;
const RECURSION_DESIRED = 1 << 8;
const RECURSION_AVAILABLE = 1 << 7;
const FORWARDED_MAX = 512;
const TCP_MAX = 64;
const TCP_IDLE_MS = 10_000;
const TCP_QUERY_MAX = 4096;

/**
 * Starts the DNS server. Only clients inside the networks are answered: anything else would make it an open resolver.
 * @throws ProblemError port-in-use, capability-missing, interface-missing
 */
export async function startDns(options: DnsOptions): Promise<DnsServer> {
  const { site, networks, log } = options;
  const port = options.port ?? 53;
  const own = new Set(networks.map(n => n.serverAddress));
  // A forwarder that is ourselves would be asked for ever.
  const resolvers = site.dns.forward.filter(resolver => !own.has(resolver) || port !== 53);
  const zone: Zone = {
    domain: site.domain.toLowerCase().replace(/\.$/, ''),
    networks: networks.map(n => n.cidr),
    names: createNames(options.directory, options.leases, options.clock),
  };
  const stats: DnsStats = { queries: 0, answered: 0, forwarded: 0, refused: 0, failed: 0, malformed: 0 };
  let forwarding = 0;

  const reply = (query: Buffer, decision: Exclude<DnsDecision, { kind: 'forward' }>, packet?: dns.DecodedPacket) =>
    Buffer.from(
      dns.encode({
        type: 'response',
        id: query.readUInt16BE(0),
        flags:
          (query.readUInt16BE(2) & (RECURSION_DESIRED | 0x7800)) |
          RECURSION_AVAILABLE |
          (decision.authoritative ? AUTHORITATIVE : 0) |
          RCODES[decision.rcode],
        questions: packet?.questions ?? [],
        answers: decision.answers,
        authorities: decision.authorities,
        additionals: packet?.additionals?.some(a => a.type === 'OPT')
          ? [
              {
                name: '.',
                type: 'OPT',
                udpPayloadSize: 1232,
                extendedRcode: 0,
                ednsVersion: 0,
                flags: 0,
                flag_do: false,
                options: [],
              },
            ]
          : [],
      }),
    );
  const refuse = (query: Buffer, rcode: Rcode, packet?: dns.DecodedPacket) =>
    reply(query, { kind: 'answer', rcode, authoritative: false, answers: [], authorities: [] }, packet);

  /** The answer, or undefined for what must not be answered at all. */
  const handle = async (query: Buffer, source: string, over: 'udp' | 'tcp'): Promise<Buffer | undefined> => {
    stats.queries++;
    // An answer to an answer would let two servers play ping-pong.
    if (query.length < 12 || (query[2]! & 0x80) !== 0) {
      stats.malformed++;
      return undefined;
    }
    const address = tryParseIpv4(source.replace(/^::ffff:/, ''));
    if (address === undefined || !networks.some(n => contains(n.cidr, address))) {
      stats.refused++;
      return refuse(query, 'REFUSED');
    }
    if ((query[2]! & 0x78) !== 0) return refuse(query, 'NOTIMP');
    let packet: dns.DecodedPacket;
    try {
      packet = dns.decode(query);
    } catch {
      stats.malformed++;
      return refuse(query, 'FORMERR');
    }
    const question = packet.questions?.[0];
    if (!question || packet.questions?.length !== 1) {
      stats.malformed++;
      return refuse(query, 'FORMERR');
    }
    const type = String(question.type);
    if ((question.class ?? 'IN') !== 'IN' || type === 'AXFR' || type === 'IXFR') {
      stats.refused++;
      return refuse(query, 'REFUSED', packet);
    }
    const decision = answerQuestion(question, zone);
    if (decision.kind === 'answer') {
      stats.answered++;
      return reply(query, decision, packet);
    }
    if (resolvers.length === 0) {
      stats.refused++;
      return refuse(query, 'REFUSED', packet);
    }
    if (forwarding >= FORWARDED_MAX) {
      stats.failed++;
      return refuse(query, 'SERVFAIL', packet);
    }
    forwarding++;
    try {
      const forwarded = await forward(query, resolvers, over);
      stats.forwarded++;
      // The largest UDP answer that the client announced is known to the resolver, which got the same query.
      return forwarded;
    } catch (error) {
      stats.failed++;
      log.debug({ name: question.name, error: String(error) }, 'a DNS query could not be forwarded');
      return refuse(query, 'SERVFAIL', packet);
    } finally {
      forwarding--;
    }
  };

  const respond = async (query: Buffer, source: string, over: 'udp' | 'tcp'): Promise<Buffer | undefined> => {
    try {
      return await handle(query, source, over);
    } catch (error) {
      log.error({ error: String(error) }, 'DNS failed');
      return query.length >= 12 ? refuse(query, 'SERVFAIL') : undefined;
    }
  };

  const sockets: UdpSocket[] = [];
  const servers: Server[] = [];
  const connections = new Set<Socket>();

  const serveConnection = (connection: Socket) => {
    connections.add(connection);
    connection.setTimeout(TCP_IDLE_MS, () => connection.destroy());
    connection.on('error', () => connection.destroy());
    connection.on('close', () => connections.delete(connection));
    let data = Buffer.alloc(0);
    let busy = false;
    const next = async () => {
      if (busy || data.length < 2) return;
      const length = data.readUInt16BE(0);
      if (length > TCP_QUERY_MAX) return void connection.destroy();
      if (data.length < 2 + length) return;
      busy = true;
      connection.pause();
      const query = data.subarray(2, 2 + length);
      data = data.subarray(2 + length);
      const answer = await respond(query, connection.remoteAddress ?? '', 'tcp');
      if (connection.destroyed) return;
      if (!answer) return void connection.destroy();
      connection.write(frame(answer));
      busy = false;
      connection.resume();
      await next();
    };
    connection.on('data', chunk => {
      data = Buffer.concat([data, chunk]);
      void next();
    });
  };

  const listen = async (address: string) => {
    const udp = await bindUdp({ address, port });
    sockets.push(udp);
    udp.on('error', error => log.error({ address, error: error.message }, 'the DNS socket failed'));
    udp.on('message', (query, from) => {
      void respond(query, from.address, 'udp').then(answer => {
        if (answer && sockets.includes(udp)) udp.send(answer, from.port, from.address, () => {});
      });
    });
    const tcp = createServer(serveConnection);
    tcp.maxConnections = TCP_MAX;
    servers.push(tcp);
    await new Promise<void>((resolve, reject) => {
      tcp.once('error', (error: NodeJS.ErrnoException) => {
        servers.splice(servers.indexOf(tcp), 1);
        reject(error);
      });
      tcp.listen({ host: address, port: udp.address().port }, resolve);
    }).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') fail('port-in-use', `TCP port ${port} on ${address} is already in use.`);
      throw error;
    });
  };

  const close = async () => {
    for (const connection of connections) connection.destroy();
    await Promise.all([
      ...sockets.splice(0).map(s => new Promise<void>(done => s.close(() => done()))),
      ...servers.splice(0).map(s => new Promise<void>(done => s.close(() => done()))),
    ]);
  };

  try {
    for (const address of own) await listen(address);
  } catch (error) {
    await close();
    throw error;
  }
  return { stats: () => ({ ...stats }), close };
}
