/** Which network a request belongs to. */
import { contains, tryParseIpv4 } from '../core/net/ipv4.js';
import type { DhcpMessage } from './codec.js';
import type { ServedNetwork } from './network.js';

export interface Arrival {
  /** The interface whose socket got it; undefined for the socket of all interfaces. */
  readonly interface: string | undefined;
  /** Source address of the datagram. */
  readonly source: string;
}

/** Suboption 5 of option 82 (RFC 3527): the subnet that the client is on when giaddr is not inside it. */
export function linkSelection(relayInformation: Buffer | null): string | undefined {
  if (!relayInformation) return undefined;
  for (let at = 0; at + 2 <= relayInformation.length; ) {
    const end = at + 2 + relayInformation[at + 1]!;
    if (end > relayInformation.length) return undefined;
    if (relayInformation[at] === 5 && end - at === 6) return [...relayInformation.subarray(at + 2, end)].join('.');
    at = end;
  }
  return undefined;
}

/**
 * @param preferred addresses that the client has or is to have (reservation, earlier lease): they decide when several
 *   networks share one interface
 */
export function selectNetwork(
  networks: readonly ServedNetwork[],
  message: DhcpMessage,
  arrival: Arrival,
  preferred: readonly (string | null | undefined)[],
): { readonly network: ServedNetwork } | { readonly reason: string } {
  const holding = (list: readonly ServedNetwork[], address: string | null | undefined) => {
    const number = address ? tryParseIpv4(address) : undefined;
    return number === undefined ? undefined : list.find(n => contains(n.cidr, number));
  };
  if (message.giaddr !== '0.0.0.0') {
    const link = linkSelection(message.relayInformation);
    const network =
      holding(networks, link) ?? networks.find(n => n.relays.has(message.giaddr)) ?? holding(networks, message.giaddr);
    if (!network)
      return { reason: `no network of the site has the relay ${message.giaddr}${link ? ` or the link ${link}` : ''}` };
    const accepted =
      network.relays.size > 0
        ? network.relays.has(message.giaddr)
        : contains(network.cidr, tryParseIpv4(message.giaddr)!);
    return accepted ? { network } : { reason: `the relay ${message.giaddr} is not one of network ${network.name}` };
  }
  // A renewal from behind a router comes straight from the client, not through its relay.
  if (message.ciaddr !== '0.0.0.0' && arrival.source === message.ciaddr) {
    const network = holding(networks, message.ciaddr);
    if (network) return { network };
  }
  const here = networks.filter(n => n.interface !== undefined && n.interface === arrival.interface);
  if (here.length === 0) return { reason: 'it came in over an interface that serves no network' };
  for (const address of [message.ciaddr, ...preferred, message.requestedAddress]) {
    const network = holding(here, address);
    if (network) return { network };
  }
  return { network: here[0]! };
}
