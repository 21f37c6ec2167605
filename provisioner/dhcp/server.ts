/** The sockets of the DHCP server: one per interface, one more for relays, and the advertisements for iPXE. */
import { randomInt } from 'node:crypto';
import type { Socket } from 'node:dgram';
import type { BootDirectory } from '../boot/types.js';
import { type Clock, sleep } from '../core/clock.js';
import type { EventFeed, NewEvent } from '../core/events.js';
import type { Log } from '../core/log.js';
import { serverAddressFor } from '../core/net/addresses.js';
import { contains, formatIpv4 } from '../core/net/ipv4.js';
import {
  bindUdp,
  interfaceIndexes,
  interfaceMac,
  openRouterAdvertiser,
  type RouterAdvertiser,
} from '../core/net/sockets.js';
import { asProblem } from '../core/problem.js';
import type { Db } from '../core/store/store.js';
import type { BootTrace } from '../core/trace.js';
import type { Network, Site } from '../site/schema.js';
import { createCodec } from './codec.js';
import { createEngine, type DhcpCounters, type Outgoing } from './engine.js';
import { createLeaseWriter, loadLeases } from './lease-store.js';
import { LeaseTable } from './leases.js';
import { type ServedNetwork, serveNetwork } from './network.js';
import { probeForServers } from './probe.js';
import { createRogueWatch, type Rogue } from './rogue.js';

export interface DhcpOptions {
  site: Site;
  /** `site.networks` by default. */
  networks?: readonly Network[];
  directory: BootDirectory;
  db: Db;
  clock: Clock;
  log: Log;
  trace: BootTrace;
  events: EventFeed;
  /** Hand out ourselves as resolver where a network names none: true when startDns runs. */
  ownDns?: boolean;
  /** How often other servers are looked for; 0 for never. 60 000 by default. */
  probeIntervalMs?: number;
}

/** A lease that runs, as DNS and the API show it. */
export interface LiveLease {
  readonly address: string;
  readonly network: string;
  readonly mac: string;
  /** As the client named itself: untrusted text. */
  readonly hostName: string | null;
  readonly secondsLeft: number;
}

export interface DhcpStats extends DhcpCounters {
  readonly networks: readonly { name: string; live: number; poolSize: number }[];
  readonly rogues: readonly Rogue[];
}

export interface DhcpServer {
  readonly networks: readonly ServedNetwork[];
  leases(): LiveLease[];
  stats(): DhcpStats;
  /** Looks for other servers now; resolves when the answers are in. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

const PROBE_EVERY_MS = 60_000;
const FIRST_PROBE_MS = 1000;
/** iPXE drops an advertisement that comes before its IPv6 configurator listens. */
const SECOND_ADVERTISEMENT_MS = 1000;
const ADVERTISEMENTS_PENDING_MAX = 1000;
const RECEIVE_BUFFER = 4 << 20;
const INTERFACE_CHECK_MS = 2000;

/**
 * Starts the DHCP server on the site's networks.
 * @throws ProblemError port-in-use, capability-missing, interface-missing, site-invalid
 */
export async function startDhcp(options: DhcpOptions): Promise<DhcpServer> {
  const { site, clock, log, db } = options;
  const configured = options.networks ?? site.networks;
  const port = site.boot.dhcp_port;
  const networks: ServedNetwork[] = [];
  for (const network of configured)
    networks.push(serveNetwork(network, site, await serverAddressFor(network), options.ownDns ?? true));
  const codec = createCodec();
  // By address, not by name: a network that was renamed keeps its leases, one that is gone loses them.
  const stored = (await loadLeases(db, clock)).flatMap(lease => {
    const network = networks.find(n => contains(n.cidr, lease.address));
    return network ? [{ ...lease, network: network.name }] : [];
  });
  const leases = new LeaseTable(networks, stored);
  const writer = createLeaseWriter(db, clock);
  const stopping = new AbortController();
  const emit = (event: NewEvent) => {
    options.events.emit(event).catch(error => log.error({ error: String(error) }, 'an event could not be stored'));
  };
  const rogues = createRogueWatch(emit);
  const devices = [...new Set(networks.flatMap(n => n.interface ?? []))];
  const sockets = new Map<string | undefined, Socket>();
  const advertisers = new Map<string, RouterAdvertiser>();
  const probes = new Set<string>();
  const timers = new Set<NodeJS.Timeout>();
  const notedErrors = new Set<string>();
  const logOnce = (key: string, fields: Record<string, unknown>, message: string) => {
    if (notedErrors.has(key)) return;
    notedErrors.add(key);
    log.warn(fields, message);
  };

  const advertiseOnce = (device: string, mac: string) => {
    const error = advertisers.get(device)?.send(mac);
    if (error)
      logOnce(
        `ra ${device} ${error}`,
        { device, error },
        'a router advertisement could not be sent: iPXE waits longer',
      );
  };

  const engine = createEngine({
    networks,
    directory: options.directory,
    leases,
    writer,
    codec,
    clock,
    trace: options.trace,
    log,
    emit,
    rogues,
    serverPort: port,
    advertise(network, mac) {
      const device = network.interface;
      if (device === undefined) return;
      advertiseOnce(device, mac);
      if (timers.size >= ADVERTISEMENTS_PENDING_MAX) return;
      const timer = setTimeout(() => {
        timers.delete(timer);
        advertiseOnce(device, mac);
      }, SECOND_ADVERTISEMENT_MS);
      timers.add(timer);
    },
    isOwnProbe: (mac, xid) => probes.has(`${mac} ${xid}`),
  });

  /** To relays and routed clients the way may lead through another interface than the one the request came in by. */
  const send = (out: Outgoing, via: Socket, device: string | undefined) => {
    const other = device === undefined ? undefined : sockets.get(undefined);
    via.send(out.packet, out.port, out.address, error => {
      if (!error) return;
      if (other && out.address !== '255.255.255.255') return send(out, other, undefined);
      engine.counters.notSent++;
      options.trace.record({
        mac: out.mac,
        layer: 'dhcp',
        message: `The answer could not be sent to ${out.address}: ${(error as NodeJS.ErrnoException).code ?? error.message}.`,
        silent: true,
      });
    });
  };

  const listen = async (device: string | undefined) => {
    const socket = await bindUdp({
      ...(device === undefined ? { share: true } : { device }),
      port,
      receiveBuffer: RECEIVE_BUFFER,
    });
    sockets.set(device, socket);
    socket.on('error', error => log.error({ device, error: error.message }, 'the DHCP socket failed'));
    socket.on('message', (raw, from) => {
      engine
        .handle(raw, { interface: device, source: from.address })
        .then(out => {
          if (out && !stopping.signal.aborted) send(out, socket, device);
        })
        .catch(error => log.error({ error: String(error) }, 'a DHCP answer could not be sent'));
    });
  };

  const ourAddresses = new Set(networks.map(n => n.serverAddress));
  const probeDevice = async (device: string) => {
    const mac = interfaceMac(device);
    const xid = randomInt(1, 0xffffffff);
    const key = `${mac} ${xid}`;
    const here = networks.filter(n => n.interface === device);
    probes.add(key);
    try {
      const found = await probeForServers({
        device,
        serverPort: port,
        codec,
        ourAddresses,
        xid,
        signal: stopping.signal,
      });
      if (stopping.signal.aborted) return;
      for (const { server, mac: rogueMac } of found)
        for (const network of here) rogues.seen(network.name, server, rogueMac, 'probe', clock.nowMs());
      for (const network of here) rogues.probed(network.name);
    } catch (error) {
      const { message } = asProblem(error);
      logOnce(`probe ${device} ${message}`, { device, error: message }, 'other DHCP servers cannot be looked for');
    } finally {
      probes.delete(key);
    }
  };
  const probe = async () => {
    await Promise.all(devices.map(probeDevice));
  };

  const close = async () => {
    stopping.abort();
    await looping;
    for (const timer of timers) clearTimeout(timer);
    await Promise.all([...sockets.values()].map(s => new Promise<void>(done => s.close(() => done()))));
    for (const advertiser of advertisers.values()) advertiser.close();
    await writer.close();
  };

  /**
   * A socket stays bound to the interface that was there when it was made. Bridges are made anew when the network
   * configuration is applied again, and the server would be deaf from then on without any error.
   */
  const interfaceIndex = interfaceIndexes();
  const indexes = new Map<string, number>();
  const followInterfaces = async () => {
    for (const device of devices) {
      const index = interfaceIndex(device);
      if (index === indexes.get(device)) continue;
      indexes.set(device, index);
      if (index === 0) {
        emit({
          type: 'dhcp.interface',
          severity: 'error',
          message: `The interface ${device} is gone; DHCP waits for it to come back.`,
          data: { interface: device },
        });
        continue;
      }
      try {
        const stale = sockets.get(device);
        sockets.delete(device);
        if (stale) await new Promise<void>(done => stale.close(() => done()));
        await listen(device);
        emit({
          type: 'dhcp.interface',
          severity: 'info',
          message: `The interface ${device} is back; DHCP answers there again.`,
          data: { interface: device },
        });
      } catch (error) {
        indexes.delete(device); // tried again
        logOnce(`listen ${device}`, { device, error: String(error) }, 'DHCP cannot listen on the interface yet');
      }
    }
  };
  const followLoop = async () => {
    while (!stopping.signal.aborted) {
      await sleep(INTERFACE_CHECK_MS, stopping.signal);
      if (!stopping.signal.aborted) await followInterfaces();
    }
  };

  let looping: Promise<unknown> = Promise.resolve();
  try {
    for (const device of devices) {
      await listen(device);
      indexes.set(device, interfaceIndex(device));
    }
    if (networks.some(n => n.interface === undefined || n.relays.size > 0)) await listen(undefined);
    for (const device of devices) {
      if (!networks.some(n => n.interface === device && n.routerAdvertisements)) continue;
      advertisers.set(device, openRouterAdvertiser(device));
    }
  } catch (error) {
    await close();
    throw error;
  }

  const everyMs = options.probeIntervalMs ?? PROBE_EVERY_MS;
  const probeLoop = async () => {
    await sleep(Math.min(FIRST_PROBE_MS, everyMs), stopping.signal);
    while (!stopping.signal.aborted) {
      await probe();
      await sleep(everyMs, stopping.signal);
    }
  };
  looping = Promise.all([followLoop(), everyMs > 0 ? probeLoop() : undefined]);

  return {
    networks,
    probe,
    close,
    leases() {
      const now = clock.monotonicMs();
      return [...leases.live(now)].map(lease => ({
        address: formatIpv4(lease.address),
        network: lease.network,
        mac: lease.mac,
        hostName: lease.hostName,
        secondsLeft: Math.floor((lease.expiresAt - now) / 1000),
      }));
    },
    stats() {
      const live = [...leases.live(clock.monotonicMs())];
      return {
        ...engine.counters,
        networks: networks.map(n => ({
          name: n.name,
          live: live.filter(lease => lease.network === n.name).length,
          poolSize: n.poolTo - n.poolFrom + 1,
        })),
        rogues: rogues.list(),
      };
    },
  };
}
