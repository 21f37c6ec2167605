/** Looking for other DHCP servers: a DISCOVER of our own, and whoever answers it. */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { sleep } from '../core/clock.js';
import { bindUdp, interfaceMac } from '../core/net/sockets.js';
import type { Codec } from './codec.js';
import { MESSAGE_TYPE } from './registry.js';

export interface Found {
  readonly server: string;
  readonly mac: string | null;
}

const LISTEN_MS = 3000;
const ARP_MS = 300;
const ANSWERS_MAX = 16;

/** The neighbour's Ethernet address from the ARP table; null when it is not on the link. */
function neighbourMac(address: string, device: string): string | null {
  for (const line of readFileSync('/proc/net/arp', 'utf8').split('\n')) {
    const [ip, , flags, mac, , on] = line.trim().split(/\s+/);
    if (ip === address && on === device && flags !== '0x0' && mac && mac !== '00:00:00:00:00:00') return mac;
  }
  return null;
}

/** Makes the kernel ask for the address: one datagram to its discard port. */
async function resolve(address: string, device: string): Promise<string | null> {
  const socket = createSocket('udp4');
  socket.on('error', () => {});
  await new Promise<void>(done => socket.send(Buffer.alloc(1), 9, address, () => done()));
  await sleep(ARP_MS);
  socket.close();
  return neighbourMac(address, device);
}

/**
 * Sends one DISCOVER with the interface's own Ethernet address and gathers the offers of others.
 * @throws ProblemError port-in-use when the client port is held by a program that does not share it
 */
export async function probeForServers(options: {
  device: string;
  serverPort: number;
  codec: Codec;
  ourAddresses: ReadonlySet<string>;
  xid: number;
  signal: AbortSignal;
}): Promise<Found[]> {
  const { device, codec, xid } = options;
  const mac = interfaceMac(device);
  if (!mac) return [];
  const socket = await bindUdp({ device, port: options.serverPort + 1, share: true });
  const sources = new Map<string, string>();
  try {
    socket.on('error', () => {});
    socket.on('message', (raw, from) => {
      const parsed = codec.parse(raw, 2);
      if (!parsed.ok || parsed.message.xid !== xid || parsed.message.mac !== mac) return;
      if (parsed.message.type !== MESSAGE_TYPE.OFFER || sources.size >= ANSWERS_MAX) return;
      const server = parsed.message.serverIdentifier ?? from.address;
      if (!options.ourAddresses.has(server)) sources.set(server, from.address);
    });
    const probe = codec.formatProbe(mac, xid);
    await new Promise<void>(done => socket.send(probe, options.serverPort, '255.255.255.255', () => done()));
    await sleep(LISTEN_MS, options.signal);
  } finally {
    socket.close();
  }
  return Promise.all([...sources].map(async ([server, source]) => ({ server, mac: await resolve(source, device) })));
}
