/** A network of the site, made ready for decisions. */
import { type Cidr, contains, formatIpv4, parseCidr, parseIpv4 } from '../core/net/ipv4.js';
import { fail } from '../core/problem.js';
import type { Network, Site } from '../site/schema.js';

export interface ServedNetwork {
  readonly name: string;
  /** Undefined: only relays reach it. */
  readonly interface: string | undefined;
  readonly cidr: Cidr;
  readonly poolFrom: number;
  readonly poolTo: number;
  /** Ours, as its nodes reach it: server identifier, next server, boot URL. */
  readonly serverAddress: string;
  /** `http://ADDRESS:PORT` of the boot listener. */
  readonly bootOrigin: string;
  readonly gateway: string | null;
  readonly dns: readonly string[];
  readonly ntp: readonly string[];
  readonly routes: readonly { readonly to: Cidr; readonly via: number }[];
  readonly domain: string;
  readonly leaseMs: number;
  readonly reservedLeaseMs: number;
  /** giaddr values that are accepted; any inside cidr when empty. */
  readonly relays: ReadonlySet<string>;
  readonly routerAdvertisements: boolean;
}

/**
 * @param serverAddress see serverAddressFor
 * @param ownDns hand out ourselves as resolver when the network names none
 * @throws ProblemError site-invalid when the pool is not inside the network
 */
export function serveNetwork(network: Network, site: Site, serverAddress: string, ownDns: boolean): ServedNetwork {
  const cidr = parseCidr(network.cidr);
  const poolFrom = parseIpv4(network.pool.from);
  const poolTo = parseIpv4(network.pool.to);
  if (!contains(cidr, poolFrom) || !contains(cidr, poolTo) || poolFrom > poolTo)
    fail(
      'site-invalid',
      `Network ${network.name}: the pool ${network.pool.from} to ${network.pool.to} is not a range inside ${network.cidr}.`,
    );
  const port = site.boot.http_port === 80 ? '' : `:${site.boot.http_port}`;
  return {
    name: network.name,
    interface: network.interface,
    cidr,
    poolFrom: Math.max(poolFrom, cidr.base + 1),
    poolTo: Math.min(poolTo, cidr.last - 1),
    serverAddress,
    bootOrigin: `http://${serverAddress}${port}`,
    gateway: network.gateway ?? null,
    dns: network.dns.length > 0 ? network.dns : ownDns ? [serverAddress] : [],
    ntp: network.ntp.length > 0 ? network.ntp : site.ntp,
    routes: network.routes.map(route => ({ to: parseCidr(route.to), via: parseIpv4(route.via) })),
    domain: site.domain,
    leaseMs: network.lease_seconds * 1000,
    reservedLeaseMs: network.reserved_lease_seconds * 1000,
    relays: new Set(network.relays),
    routerAdvertisements: network.router_advertisements,
  };
}

/** Can a host of this network have the address? Not the network's own, not the broadcast, not ours. */
export function usable(network: ServedNetwork, address: number): boolean {
  return (
    contains(network.cidr, address) &&
    address !== network.cidr.base &&
    address !== network.cidr.last &&
    formatIpv4(address) !== network.serverAddress
  );
}

export const inPool = (network: ServedNetwork, address: number): boolean =>
  address >= network.poolFrom && address <= network.poolTo && usable(network, address);
