/** Reserved addresses: outside the pool, one per node, chosen once and kept. Pure. */
import { contains, formatIpv4, parseCidr, parseIpv4, tryParseIpv4 } from '../core/net/ipv4.js';
import type { Network } from '../site/schema.js';

/** The network whose subnet holds the address. */
export function networkOf(networks: readonly Network[], address: string): Network | undefined {
  const ip = tryParseIpv4(address);
  return ip === undefined ? undefined : networks.find(n => contains(parseCidr(n.cidr), ip));
}

/**
 * The first free address of the subnet outside the pool, or null when none is left.
 * @param taken addresses of nodes, the server, gateways and relays
 */
export function chooseAddress(network: Network, taken: ReadonlySet<string>): string | null {
  const { base, last } = parseCidr(network.cidr);
  const poolFrom = parseIpv4(network.pool.from);
  const poolTo = parseIpv4(network.pool.to);
  const own = new Set([...taken, network.gateway, network.server_address, ...network.relays, ...network.dns]);
  // .1 to .9 are what people give to routers and servers by hand.
  for (let n = base + Math.min(10, Math.max(1, last - base - 1)); n < last; n++) {
    if (n >= poolFrom && n <= poolTo) {
      n = poolTo;
      continue;
    }
    const text = formatIpv4(n);
    if (!own.has(text)) return text;
  }
  return null;
}
