/** Reserved addresses: outside the pool, one per node, chosen once and kept. Pure. */
import ipaddr from 'ipaddr.js';
import type { Network } from '../site/schema.js';

const toNumber = (ip: string): number =>
  ipaddr.IPv4.parse(ip)
    .toByteArray()
    .reduce((sum, byte) => sum * 256 + byte, 0);
const toText = (n: number): string => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join('.');

/** The network whose subnet holds the address. */
export function networkOf(networks: readonly Network[], address: string): Network | undefined {
  if (!ipaddr.IPv4.isValid(address)) return undefined;
  const ip = ipaddr.IPv4.parse(address);
  return networks.find(n => ip.match(ipaddr.IPv4.parseCIDR(n.cidr)));
}

/**
 * The first free address of the subnet outside the pool, or null when none is left.
 * @param taken addresses of nodes, the server, gateways and relays
 */
export function chooseAddress(network: Network, taken: ReadonlySet<string>): string | null {
  const [base, bits] = ipaddr.IPv4.parseCIDR(network.cidr);
  const size = 2 ** (32 - bits);
  const first = toNumber(base.toString()) - (toNumber(base.toString()) % size);
  const poolFrom = toNumber(network.pool.from);
  const poolTo = toNumber(network.pool.to);
  const own = new Set([...taken, network.gateway, network.server_address, ...network.relays, ...network.dns]);
  // .1 to .9 are what people give to routers and servers by hand.
  for (let n = first + Math.min(10, Math.max(1, size - 2)); n < first + size - 1; n++) {
    if (n >= poolFrom && n <= poolTo) {
      n = poolTo;
      continue;
    }
    const text = toText(n);
    if (!own.has(text)) return text;
  }
  return null;
}
