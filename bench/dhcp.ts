/** How many DISCOVER…ACK exchanges the DHCP engine does, with every lease on disk before its ACK. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../provisioner/core/clock.js';
import { silentLog } from '../provisioner/core/log.js';
import { parseCidr } from '../provisioner/core/net/ipv4.js';
import { openStore } from '../provisioner/core/store/store.js';
import { createBootTrace } from '../provisioner/core/trace.js';
import { createCodec } from '../provisioner/dhcp/codec.js';
import { createEngine } from '../provisioner/dhcp/engine.js';
import { createLeaseWriter } from '../provisioner/dhcp/lease-store.js';
import { LeaseTable } from '../provisioner/dhcp/leases.js';
import type { ServedNetwork } from '../provisioner/dhcp/network.js';
import { createRogueWatch } from '../provisioner/dhcp/rogue.js';

export interface DhcpBench {
  exchanges: number;
  exchangesPerSecond: number;
  cpuMsPerExchange: number;
  p99Ms: number;
}

/** A request of client number `client`. */
function packet(client: number, type: 1 | 3, address?: Buffer): Buffer {
  const raw = Buffer.alloc(300);
  raw.set([1, 1, 6]);
  raw.writeUInt32BE(client, 4);
  raw.writeUInt16BE(0x5254, 28);
  raw.writeUInt32BE(client, 30);
  raw.set([99, 130, 83, 99, 53, 1, type, 55, 4, 1, 3, 6, 15], 236);
  raw.set(address ? [50, 4, ...address, 54, 4, 10, 96, 0, 1, 255] : [255], 249);
  return raw;
}

/** @param exchanges one fresh client each, at most 60 000; @param atOnce exchanges in flight */
export async function benchDhcp(exchanges = 20_000, atOnce = 32): Promise<DhcpBench> {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-bench-'));
  const store = await openStore(join(dir, 'db'));
  const cidr = parseCidr('10.96.0.0/16');
  const network: ServedNetwork = {
    name: 'bench',
    interface: 'br0',
    cidr,
    poolFrom: cidr.base + 256,
    poolTo: cidr.last - 1,
    serverAddress: '10.96.0.1',
    bootOrigin: 'http://10.96.0.1:7481',
    gateway: null,
    dns: ['10.96.0.1'],
    ntp: [],
    routes: [],
    domain: 'bench.test',
    leaseMs: 600_000,
    reservedLeaseMs: 600_000,
    relays: new Set(),
    routerAdvertisements: false,
  };
  const trace = createBootTrace(store.db, systemClock);
  const writer = createLeaseWriter(store.db, systemClock);
  const engine = createEngine({
    networks: [network],
    directory: { byMac: () => undefined, names: () => [], unknownNoBootFile: () => null },
    leases: new LeaseTable([network]),
    writer,
    codec: createCodec(),
    clock: systemClock,
    trace,
    log: silentLog,
    emit: () => {},
    rogues: createRogueWatch(() => {}),
    serverPort: 67,
    advertise: () => {},
    isOwnProbe: () => false,
  });
  const arrival = { interface: 'br0', source: '0.0.0.0' };
  const took: number[] = [];
  let next = 0;
  const client = async () => {
    while (next < exchanges) {
      const number = ++next;
      const started = performance.now();
      const offer = await engine.handle(packet(number, 1), arrival);
      const ack = await engine.handle(packet(number, 3, offer!.packet.subarray(16, 20)), arrival);
      if (!ack) throw new Error('an exchange got no ACK');
      took.push(performance.now() - started);
    }
  };
  const cpu = process.cpuUsage();
  const started = performance.now();
  try {
    await Promise.all(Array.from({ length: atOnce }, client));
    const { user, system } = process.cpuUsage(cpu);
    const seconds = (performance.now() - started) / 1000;
    took.sort((a, b) => a - b);
    return {
      exchanges,
      exchangesPerSecond: Math.round(exchanges / seconds),
      cpuMsPerExchange: Number(((user + system) / 1000 / exchanges).toFixed(3)),
      p99Ms: Number(took[Math.floor(took.length * 0.99)]!.toFixed(1)),
    };
  } finally {
    await writer.close();
    await trace.close();
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  }
}
