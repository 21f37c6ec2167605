/** Who listens where on a node: `ss -Hltnup`, and what may be there. Pure. */
import type { CloudModel, CloudNode } from '../model/cloud.js';

export interface Listener {
  readonly protocol: 'tcp' | 'udp';
  /** Without brackets and interface: `0.0.0.0`, `::`, `10.0.0.1`. */
  readonly address: string;
  readonly port: number;
  readonly program: string;
}

export function parseListeners(text: string): Listener[] {
  return text.split('\n').flatMap(line => {
    const m = /^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+(?:\s+users:\(\("([^"]*)")?/.exec(line);
    if (!m) return [];
    const address = m[2]!
      .replace(/%[^\]]*/, '')
      .replace(/^\[(.*)\]$/, '$1')
      .replace('*', '::');
    return [{ protocol: m[1] as 'tcp' | 'udp', address, port: Number(m[3]), program: m[4] ?? 'the kernel' }];
  });
}

export const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1';
export const isAny = (address: string): boolean => address === '0.0.0.0' || address === '::';

interface Place {
  /** First and last port. */
  readonly ports: readonly [number, number];
  readonly protocol?: 'udp';
  readonly service?: string;
  /** `users`: where the APIs are asked from, all addresses when their name stands for another one than the node's. */
  readonly at: 'management' | 'storage' | 'tunnel' | 'users' | 'any';
}

const one = (port: number): readonly [number, number] => [port, port];

/** Ports of services beside those of the catalogue. What is not here may listen on single addresses, but not on all. */
const PLACES: readonly Place[] = [
  { ports: one(22), at: 'any' },
  // Clients of DHCP, and the time.
  { ports: [67, 68], protocol: 'udp', at: 'any' },
  { ports: one(546), protocol: 'udp', at: 'any' },
  { ports: one(123), protocol: 'udp', service: 'host', at: 'any' },
  { ports: one(6081), protocol: 'udp', service: 'network-agent', at: 'any' },
  { ports: one(3306), service: 'database', at: 'management' },
  { ports: one(5671), service: 'messaging', at: 'management' },
  { ports: [6642, 6644], service: 'network-control', at: 'management' },
  { ports: one(8775), service: 'compute-control', at: 'users' },
  { ports: one(6080), service: 'compute-control', at: 'users' },
  { ports: one(443), service: 'dashboard', at: 'users' },
  { ports: one(16_514), service: 'hypervisor', at: 'management' },
  { ports: [5900, 6399], service: 'hypervisor', at: 'management' },
  { ports: one(3260), service: 'volume-backend', at: 'storage' },
  { ports: one(3300), service: 'volume-backend', at: 'storage' },
  { ports: one(6789), service: 'volume-backend', at: 'storage' },
  { ports: [6800, 7568], service: 'volume-backend', at: 'storage' },
  { ports: [6200, 6202], service: 'object-store', at: 'storage' },
  { ports: one(873), service: 'object-store', at: 'storage' },
];

/** Addresses that may be listened on; null: any. */
function allowed(model: CloudModel, node: CloudNode, place: Place): readonly string[] | null {
  if (place.at === 'any') return null;
  if (place.at === 'storage') return [node.storageAddress, node.address];
  if (place.at === 'tunnel') return [node.tunnel.address];
  if (place.at === 'users' && model.api.address !== node.address) return null;
  return [node.address];
}

export function listenerFaults(model: CloudModel, node: CloudNode, listeners: readonly Listener[]): string[] {
  const places: Place[] = [
    ...PLACES,
    ...model.services.flatMap(s =>
      s.endpoints.map(e => ({ ports: one(e.port), service: s.name, at: 'users' as const })),
    ),
  ];
  return listeners.flatMap(l => {
    if (isLoopback(l.address)) return [];
    const place = places.find(
      p =>
        (p.protocol ?? 'tcp') === l.protocol &&
        l.port >= p.ports[0] &&
        l.port <= p.ports[1] &&
        (p.service === undefined || node.services.includes(p.service)),
    );
    const where = `${node.name}: ${l.program} listens on ${l.address} port ${l.port}/${l.protocol}`;
    if (!place) return isAny(l.address) ? [`${where}, and the cloud needs no such port`] : [];
    const right = allowed(model, node, place);
    return right === null || right.includes(l.address) ? [] : [`${where}, not on ${right[0]}`];
  });
}
