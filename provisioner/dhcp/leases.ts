/**
 * Who has which address, in memory. Offers live only here; leases are written through (lease-store.ts).
 *
 * A client is its Ethernet address, not its client identifier (option 61): firmware, iPXE, the RAM environment and the
 * installed system of one machine send different identifiers and must get one address, and cloned systems send the
 * same identifier from different machines and must not.
 *
 * All times are monotonic milliseconds.
 */
import { ExpiryHeap } from './expiry-heap.js';
import type { ServedNetwork } from './network.js';

export interface Lease {
  readonly address: number;
  readonly network: string;
  readonly mac: string;
  readonly clientIdentifier: string | null;
  readonly hostName: string | null;
  /** released: free again, remembered so that the client can have it back. declined: in quarantine. */
  readonly state: 'bound' | 'released' | 'declined';
  readonly expiresAt: number;
}

export interface Offer {
  readonly address: number;
  readonly network: string;
  readonly mac: string;
  readonly expiresAt: number;
}

export type LeaseChange =
  | { readonly kind: 'offer'; readonly offer: Offer }
  /** Binds, releases or declines. Durable. */
  | { readonly kind: 'lease'; readonly lease: Lease }
  | { readonly kind: 'withdraw'; readonly network: string; readonly mac: string };

/** A lease as it stands now and as it stood before. */
export interface Applied {
  readonly lease: Lease;
  readonly before: Lease | undefined;
}

/** What a decision may ask of the table. */
export interface LeaseView {
  /** Who holds the address now by lease or offer: an Ethernet address, or `declined`; undefined when it is free. */
  holder(address: number, now: number): string | undefined;
  /** The newest lease of a client on a network, also when it has ended. */
  ofClient(network: string, mac: string): Lease | undefined;
  /** The address that is on offer to a client. */
  offeredTo(network: string, mac: string, now: number): number | undefined;
  /** A free address of the pool: one never used if there is one, else the one that ended first. */
  free(network: ServedNetwork, now: number, excluded: (address: number) => boolean): number | undefined;
}

export const isLive = (lease: { readonly expiresAt: number; readonly state?: Lease['state'] }, now: number): boolean =>
  lease.state !== 'released' && lease.expiresAt > now;

interface Pool {
  readonly network: ServedNetwork;
  /** Everything below was handed out or set aside at least once. */
  cursor: number;
  /** Ended, the first to end first. */
  readonly ended: Set<number>;
  /** Passed over while they were reserved. */
  readonly setAside: Set<number>;
}

const clientKey = (network: string, mac: string) => `${network} ${mac}`;

export class LeaseTable implements LeaseView {
  readonly #leases = new Map<number, Lease>();
  readonly #byClient = new Map<string, number>();
  readonly #offers = new Map<number, Offer>();
  readonly #offerOf = new Map<string, number>();
  readonly #pools = new Map<string, Pool>();
  readonly #expiry = new ExpiryHeap();

  /** @param stored what the database has; ended ones are remembered for their clients */
  constructor(networks: readonly ServedNetwork[], stored: readonly Lease[] = []) {
    for (const network of networks)
      this.#pools.set(network.name, { network, cursor: network.poolFrom, ended: new Set(), setAside: new Set() });
    for (const lease of [...stored].sort((a, b) => a.expiresAt - b.expiresAt)) this.#put(lease);
  }

  holder(address: number, now: number): string | undefined {
    const lease = this.#leases.get(address);
    if (lease && isLive(lease, now)) return lease.state === 'declined' ? 'declined' : lease.mac;
    const offer = this.#offers.get(address);
    return offer && isLive(offer, now) ? offer.mac : undefined;
  }

  ofClient(network: string, mac: string): Lease | undefined {
    const address = this.#byClient.get(clientKey(network, mac));
    const lease = address === undefined ? undefined : this.#leases.get(address);
    return lease?.mac === mac && lease.network === network ? lease : undefined;
  }

  offeredTo(network: string, mac: string, now: number): number | undefined {
    const address = this.#offerOf.get(clientKey(network, mac));
    const offer = address === undefined ? undefined : this.#offers.get(address);
    return offer && isLive(offer, now) ? address : undefined;
  }

  free(network: ServedNetwork, now: number, excluded: (address: number) => boolean): number | undefined {
    const pool = this.#pools.get(network.name);
    if (!pool) return undefined;
    this.#sweep(now);
    for (; pool.cursor <= network.poolTo; pool.cursor++) {
      if (this.#leases.has(pool.cursor) || this.#offers.has(pool.cursor)) continue;
      if (!excluded(pool.cursor)) return pool.cursor;
      pool.setAside.add(pool.cursor);
    }
    for (const set of [pool.ended, pool.setAside])
      for (const address of set) {
        if (this.holder(address, now) !== undefined) set.delete(address);
        else if (!excluded(address)) return address;
      }
    return undefined;
  }

  /** Returns what to write: a client that is bound anew gives up its former address. */
  apply(change: LeaseChange, now: number): Applied[] {
    if (change.kind === 'withdraw') {
      this.#dropOffer(clientKey(change.network, change.mac));
      return [];
    }
    if (change.kind === 'offer') {
      const { offer } = change;
      this.#dropOffer(clientKey(offer.network, offer.mac));
      this.#offers.set(offer.address, offer);
      this.#offerOf.set(clientKey(offer.network, offer.mac), offer.address);
      this.#expiry.push(offer.address, offer.expiresAt);
      return [];
    }
    const { lease } = change;
    const changed: Applied[] = [{ lease, before: this.#leases.get(lease.address) }];
    const former = this.ofClient(lease.network, lease.mac);
    this.#dropOffer(clientKey(lease.network, lease.mac));
    if (lease.state === 'bound' && former && former.address !== lease.address && isLive(former, now)) {
      const released: Lease = { ...former, state: 'released', expiresAt: now };
      this.#put(released);
      changed.push({ lease: released, before: former });
    }
    this.#put(lease);
    this.#sweep(now);
    return changed;
  }

  /** Puts back what was there before changes that could not be stored, unless something newer stands there. */
  restore(applied: readonly Applied[]): void {
    for (const { lease, before } of applied) {
      if (this.#leases.get(lease.address) !== lease) continue;
      if (before) this.#put(before);
      else {
        this.#leases.delete(lease.address);
        this.#byClient.delete(clientKey(lease.network, lease.mac));
        this.#end(lease.address, lease.network);
      }
    }
  }

  *all(): IterableIterator<Lease> {
    yield* this.#leases.values();
  }

  *live(now: number): IterableIterator<Lease> {
    for (const lease of this.#leases.values()) if (isLive(lease, now) && lease.state === 'bound') yield lease;
  }

  #put(lease: Lease): void {
    this.#leases.set(lease.address, lease);
    // A quarantined address is nobody's, so the client gets another one.
    const key = clientKey(lease.network, lease.mac);
    if (lease.state === 'declined') {
      if (this.#byClient.get(key) === lease.address) this.#byClient.delete(key);
    } else if (lease.state === 'bound' || !this.#byClient.has(key)) {
      this.#byClient.set(key, lease.address);
    }
    if (lease.state === 'released') this.#end(lease.address, lease.network);
    else {
      this.#pools.get(lease.network)?.ended.delete(lease.address);
      this.#expiry.push(lease.address, lease.expiresAt);
    }
  }

  #dropOffer(key: string): void {
    const address = this.#offerOf.get(key);
    if (address === undefined) return;
    const network = this.#offers.get(address)?.network;
    this.#offerOf.delete(key);
    this.#offers.delete(address);
    if (network !== undefined) this.#end(address, network);
  }

  #end(address: number, network: string): void {
    const pool = this.#pools.get(network);
    if (!pool || address < pool.network.poolFrom || address > pool.network.poolTo) return;
    pool.ended.delete(address);
    pool.ended.add(address);
  }

  /** Returns ended leases and offers to their pools. */
  #sweep(now: number): void {
    for (let address = this.#expiry.popEnded(now); address !== undefined; address = this.#expiry.popEnded(now)) {
      const offer = this.#offers.get(address);
      if (offer && !isLive(offer, now)) {
        this.#offers.delete(address);
        this.#offerOf.delete(clientKey(offer.network, offer.mac));
      }
      const lease = this.#leases.get(address);
      const latest = Math.max(
        this.#offers.get(address)?.expiresAt ?? 0,
        lease && lease.state !== 'released' ? lease.expiresAt : 0,
      );
      if (latest > now) this.#expiry.push(address, latest);
      else this.#end(address, (lease ?? offer)?.network ?? '');
    }
  }
}
