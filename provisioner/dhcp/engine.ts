/** From a datagram to the datagram that answers it: everything of the DHCP server but the sockets. */
import type { BootDirectory } from '../boot/types.js';
import type { Clock } from '../core/clock.js';
import type { NewEvent } from '../core/events.js';
import type { Log } from '../core/log.js';
import { formatIpv4 } from '../core/net/ipv4.js';
import type { BootTrace } from '../core/trace.js';
import type { Codec, DhcpMessage } from './codec.js';
import { decide, type Reply, type Silence } from './decide.js';
import type { LeaseWriter } from './lease-store.js';
import type { Applied, LeaseTable } from './leases.js';
import type { ServedNetwork } from './network.js';
import { createNodeAddresses } from './node-addresses.js';
import { senderMac } from './packet.js';
import { createRateLimit } from './rate-limit.js';
import { messageTypeName } from './registry.js';
import type { RogueWatch } from './rogue.js';
import { type Arrival, selectNetwork } from './select-network.js';

export interface EngineOptions {
  networks: readonly ServedNetwork[];
  directory: BootDirectory;
  leases: LeaseTable;
  writer: LeaseWriter;
  codec: Codec;
  clock: Clock;
  trace: BootTrace;
  log: Log;
  emit(event: NewEvent): void;
  rogues: RogueWatch;
  /** Port of servers and relays; clients have the next one. */
  serverPort: number;
  /** An iPXE asked: it waits for a router advertisement. */
  advertise(network: ServedNetwork, mac: string): void;
  /** Is this DISCOVER a probe of our own? */
  isOwnProbe(mac: string, xid: number): boolean;
}

export interface Outgoing {
  readonly packet: Buffer;
  readonly address: string;
  readonly port: number;
  readonly mac: string;
}

export interface DhcpCounters {
  received: number;
  malformed: number;
  rateLimited: number;
  overloaded: number;
  silences: number;
  offers: number;
  acks: number;
  naks: number;
  notStored: number;
  /** Replies that the kernel did not take. */
  notSent: number;
}

export interface Engine {
  /** Never rejects. Undefined: nothing is sent, and the trace has the reason. */
  handle(raw: Buffer, arrival: Arrival): Promise<Outgoing | undefined>;
  readonly counters: DhcpCounters;
}

/** ACKs that may wait for the disk. More than this is a storm; clients ask again. */
const WAITING_MAX = 4096;
const BURST = 20;
const PER_SECOND = 5;
const CLIENTS_REMEMBERED = 50_000;
/** Where the trace keeps packets that do not even name a client. */
export const NO_MAC = '00:00:00:00:00:00';
const POOL_EVENT_EVERY_MS = 600_000;

export function createEngine(options: EngineOptions): Engine {
  const { networks, directory, leases, writer, codec, clock, trace, log, rogues } = options;
  const counters: DhcpCounters = {
    received: 0,
    malformed: 0,
    rateLimited: 0,
    overloaded: 0,
    silences: 0,
    offers: 0,
    acks: 0,
    naks: 0,
    notStored: 0,
    notSent: 0,
  };
  const limit = createRateLimit(BURST, PER_SECOND, CLIENTS_REMEMBERED);
  const nodes = createNodeAddresses(directory, clock);
  const ourAddresses = new Set(networks.map(n => n.serverAddress));
  const poolEventAt = new Map<string, number>();
  let waiting = 0;

  const silent = (mac: string, message: string, data: Record<string, unknown>) => {
    counters.silences++;
    trace.record({ mac, layer: 'dhcp', message, silent: true, data });
    log.debug({ mac, ...data }, message);
  };

  const route = (message: DhcpMessage, reply: Reply, network: ServedNetwork, arrival: Arrival): Outgoing => {
    const packet = codec.format(reply.message);
    const to = (address: string, port: number) => ({ packet, address, port, mac: message.mac });
    const client = options.serverPort + 1;
    if (message.giaddr !== '0.0.0.0') return to(message.giaddr, options.serverPort);
    const onLink = network.interface !== undefined && network.interface === arrival.interface;
    // Unicast to an address that the client does not have yet would need its link-layer address in the ARP table;
    // RFC 2131 section 4.1 allows the broadcast. A NAK is always broadcast on the link.
    if (message.ciaddr !== '0.0.0.0' && (reply.type !== 'NAK' || !onLink)) return to(message.ciaddr, client);
    return to('255.255.255.255', client);
  };

  const noteSilence = (silence: Silence, message: DhcpMessage, network: ServedNetwork) => {
    if (silence.otherServer) rogues.seen(network.name, silence.otherServer, null, 'request', clock.nowMs());
    const now = clock.monotonicMs();
    if (silence.poolFull && now - (poolEventAt.get(network.name) ?? Number.NEGATIVE_INFINITY) > POOL_EVENT_EVERY_MS) {
      poolEventAt.set(network.name, now);
      options.emit({
        type: 'dhcp.pool-full',
        severity: 'warn',
        message: `The DHCP pool of network ${network.name} is full; ${message.mac} got no address.`,
        data: { network: network.name, mac: message.mac },
      });
    }
    if (silence.declined)
      options.emit({
        type: 'dhcp.declined',
        severity: 'warn',
        message: `${silence.declined} on network ${network.name} is used by a machine that did not get it from us: ${message.mac} declined it.`,
        data: { network: network.name, address: silence.declined, mac: message.mac },
      });
  };

  /** True when the leases are on disk. */
  const store = async (applied: readonly Applied[]): Promise<boolean> => {
    waiting++;
    try {
      await writer.write(applied.map(a => a.lease));
      return true;
    } catch (error) {
      counters.notStored++;
      log.error({ error: String(error) }, 'a lease could not be stored');
      leases.restore(applied);
      return false;
    } finally {
      waiting--;
    }
  };

  const answer = async (raw: Buffer, arrival: Arrival): Promise<Outgoing | undefined> => {
    counters.received++;
    const now = clock.monotonicMs();
    const parsed = codec.parse(raw);
    if (!parsed.ok) {
      counters.malformed++;
      const mac = senderMac(raw) ?? NO_MAC;
      if (limit.take(mac, now).ok)
        silent(mac, `Packet ignored: ${parsed.reason}.`, { source: arrival.source, interface: arrival.interface });
      return undefined;
    }
    const { message } = parsed;
    if (options.isOwnProbe(message.mac, message.xid)) return undefined;
    const asked = messageTypeName(message.type);
    const taken = limit.take(message.mac, now);
    if (!taken.ok) {
      counters.rateLimited++;
      if (!taken.noted) silent(message.mac, `${asked} ignored: more than ${PER_SECOND} packets a second.`, {});
      return undefined;
    }
    if (waiting >= WAITING_MAX) {
      counters.overloaded++;
      silent(message.mac, `${asked} ignored: ${waiting} answers wait for the disk already.`, {});
      return undefined;
    }

    const known = directory.byMac(message.mac);
    const selected = selectNetwork(networks, message, arrival, [
      known?.address,
      ...networks.map(n => {
        const lease = leases.ofClient(n.name, message.mac);
        return lease && formatIpv4(lease.address);
      }),
    ]);
    if ('reason' in selected) {
      silent(message.mac, `${asked} ignored: ${selected.reason}.`, { giaddr: message.giaddr, source: arrival.source });
      return undefined;
    }
    const { network } = selected;
    const own = known?.address ?? null;
    const decision = decide(
      message,
      {
        network,
        ourAddresses,
        leases,
        known,
        unknownNoBootFile: known ? null : directory.unknownNoBootFile(),
        reserved: address => nodes.nameOf(address) !== undefined && formatIpv4(address) !== own,
        source: arrival.source,
      },
      now,
    );
    if (decision.client.stage === 'ipxe' && network.routerAdvertisements && message.giaddr === '0.0.0.0')
      options.advertise(network, message.mac);

    const { change } = decision;
    const applied = change ? leases.apply(change, now) : [];
    const data = {
      network: network.name,
      xid: message.xid,
      ...(message.giaddr === '0.0.0.0' ? {} : { giaddr: message.giaddr }),
      ...(message.uuid ? { uuid: message.uuid } : {}),
      ...(message.vendorClass ? { vendorClass: message.vendorClass } : {}),
    };
    if (decision.kind === 'silence') {
      silent(message.mac, `${asked} by ${decision.client.label} not answered: ${decision.reason}.`, data);
      noteSilence(decision, message, network);
      if (applied.length > 0) await store(applied);
      return undefined;
    }
    const outgoing = route(message, decision, network, arrival);
    if (applied.length > 0 && !(await store(applied))) {
      silent(message.mac, `${asked} not answered: the lease could not be stored.`, data);
      return undefined;
    }
    counters[({ OFFER: 'offers', ACK: 'acks', NAK: 'naks' } as const)[decision.type]]++;
    trace.record({
      mac: message.mac,
      layer: 'dhcp',
      message: `${decision.summary}.`,
      data: { ...data, to: outgoing.address },
    });
    return outgoing;
  };

  return {
    counters,
    async handle(raw, arrival) {
      try {
        return await answer(raw, arrival);
      } catch (error) {
        // A packet must never take the server down; this line is a bug report.
        log.error({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, 'DHCP failed');
        silent(senderMac(raw) ?? NO_MAC, 'Packet not answered: an error of the server; its log has it.', {});
        return undefined;
      }
    },
  };
}
