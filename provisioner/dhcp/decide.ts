/**
 * What a request gets, as a value: RFC 2131 section 4.3. Opens no socket, writes nothing, knows no clock.
 *
 * Rules of our own where the RFC leaves a choice:
 * - A known node gets its reservation at each DISCOVER; a running lease is extended as it is, so a reservation that is
 *   made during an install does not cut the connection.
 * - A reserved address that somebody else still holds is not taken away, only not extended: the node gets one of the
 *   pool meanwhile.
 * - INIT-REBOOT and renewals of an address that we have no record of are granted when the address is free and ours to
 *   give, refused when somebody else holds it, and not answered otherwise: another server may own it.
 */
import type { DirectoryEntry } from '../boot/types.js';
import { formatIpv4, tryParseIpv4 } from '../core/net/ipv4.js';
import { type BootFile, bootFile, type Client, describeClient } from './client.js';
import { type DhcpMessage, encodeDomainSearch, encodeRoutes, type ReplyMessage } from './codec.js';
import { isLive, type Lease, type LeaseChange, type LeaseView } from './leases.js';
import { inPool, type ServedNetwork, usable } from './network.js';
import { MESSAGE_TYPE, messageTypeName, OPTION } from './registry.js';

export interface DecideContext {
  readonly network: ServedNetwork;
  /** Every server identifier that is ours. */
  readonly ourAddresses: ReadonlySet<string>;
  readonly leases: LeaseView;
  readonly known: DirectoryEntry | undefined;
  readonly unknownNoBootFile: string | null;
  /** Is the address reserved for a node? */
  readonly reserved: (address: number) => boolean;
  /** Source address of the datagram. */
  readonly source: string;
}

export interface Reply {
  readonly kind: 'reply';
  readonly type: 'OFFER' | 'ACK' | 'NAK';
  readonly message: ReplyMessage;
  /** Applied at once; an ACK goes out only after a `lease` is durable. */
  readonly change: LeaseChange | null;
  /** For the trace: what was asked and what was answered. */
  readonly summary: string;
  readonly client: Client;
}

export interface Silence {
  readonly kind: 'silence';
  readonly reason: string;
  readonly change: LeaseChange | null;
  readonly client: Client;
  /** The request named this other server: passive detection. */
  readonly otherServer?: string;
  readonly poolFull?: true;
  readonly declined?: string;
}

/** How long an offer is held for its client. */
export const OFFER_MS = 30_000;
/** How long an address stays in quarantine after a client found somebody else using it. */
export const DECLINE_MS = 600_000;

const NONE = '0.0.0.0';
/**
 * `ipxe.no-pxedhcp` (175.176, https://ipxe.org/cfg/no-pxedhcp) = 1: nobody else has a boot file for it. iPXE otherwise
 * waits 3 seconds for offers of a ProxyDHCP server before it takes ours.
 */
const IPXE_NO_PROXY_DHCP = [0xb0, 1, 1];
/** RFC 2131 section 2: what every client takes, less IP and UDP headers. */
const MIN_MESSAGE_BYTES = 576 - 28;
const MAX_MESSAGE_BYTES = 1400;

/** Decides on one request. `now` is monotonic milliseconds. */
export function decide(message: DhcpMessage, context: DecideContext, now: number): Reply | Silence {
  const request = new Request(message, context, now);
  switch (message.type) {
    case MESSAGE_TYPE.DISCOVER:
      return request.discover();
    case MESSAGE_TYPE.REQUEST:
      if (message.serverIdentifier !== null) return request.selecting(message.serverIdentifier);
      return message.ciaddr === NONE ? request.initReboot() : request.renewing();
    case MESSAGE_TYPE.DECLINE:
      return request.decline();
    case MESSAGE_TYPE.RELEASE:
      return request.release();
    case MESSAGE_TYPE.INFORM:
      return request.inform();
    default:
      return request.silence(`${messageTypeName(message.type)} is nothing that a server answers`);
  }
}

class Request {
  readonly #m: DhcpMessage;
  readonly #c: DecideContext;
  readonly #now: number;
  readonly #client: Client;
  readonly #reservation: number | undefined;

  constructor(message: DhcpMessage, context: DecideContext, now: number) {
    this.#m = message;
    this.#c = context;
    this.#now = now;
    this.#client = describeClient(message);
    const address = context.known?.address ? tryParseIpv4(context.known.address) : undefined;
    // A reservation of another network says nothing here: the node asks from elsewhere.
    this.#reservation = address !== undefined && usable(context.network, address) ? address : undefined;
  }

  discover(): Reply | Silence {
    const { network, leases } = this.#c;
    const boot = this.#bootFile();
    if (boot.kind === 'refused') return this.silence(boot.reason);
    const address = this.#choose();
    if (address === undefined) {
      const size = network.poolTo - network.poolFrom + 1;
      return {
        ...this.silence(
          `no address is free: the pool of network ${network.name} (${size} addresses) is full${this.#reservationTrouble()}`,
        ),
        poolFull: true,
      };
    }
    const own = leases.ofClient(network.name, this.#m.mac);
    const holds = own?.address === address && isLive(own, this.#now);
    return this.#reply('OFFER', address, boot, this.#leaseMs(address), {
      change: holds
        ? null
        : {
            kind: 'offer',
            offer: { address, network: network.name, mac: this.#m.mac, expiresAt: this.#now + OFFER_MS },
          },
      note: this.#reservationTrouble(),
    });
  }

  /** The client chose an offer and names its server. */
  selecting(server: string): Reply | Silence {
    if (!this.#c.ourAddresses.has(server))
      return {
        ...this.silence(`the client took the offer of another server, ${server}`),
        change: { kind: 'withdraw', network: this.#c.network.name, mac: this.#m.mac },
        otherServer: server,
      };
    const address = this.#address(this.#m.requestedAddress);
    if (address === undefined) return this.silence('the request names no address');
    const refusal = this.#refusal(address);
    return refusal ? this.#nak(address, refusal) : this.#ack(address);
  }

  /** The client restarted and asks whether its former address still holds. */
  initReboot(): Reply | Silence {
    const address = this.#address(this.#m.requestedAddress);
    if (address === undefined) return this.silence('the request names neither an address nor a server');
    if (!usable(this.#c.network, address)) return this.#nak(address, 'it is not of this network');
    const reservation = this.#reservation;
    if (reservation !== undefined && reservation !== address && this.#available(reservation))
      return this.#nak(address, `${formatIpv4(reservation)} is reserved for this node`);
    return this.#confirm(address);
  }

  /** Renewing (unicast) or rebinding (broadcast) of an address in use. */
  renewing(): Reply | Silence {
    const address = this.#address(this.#m.ciaddr);
    if (address === undefined || !usable(this.#c.network, address))
      return this.#nak(address, 'it is not of this network');
    return this.#confirm(address);
  }

  decline(): Silence {
    const server = this.#m.serverIdentifier;
    if (server !== null && !this.#c.ourAddresses.has(server))
      return this.silence(`the DECLINE is for another server, ${server}`);
    const address = this.#address(this.#m.requestedAddress);
    if (address === undefined || this.#c.leases.holder(address, this.#now) !== this.#m.mac)
      return this.silence('the DECLINE names an address that this client does not have');
    const text = formatIpv4(address);
    return {
      ...this.silence(
        `the client found ${text} in use by somebody else; it is in quarantine for ${DECLINE_MS / 60_000} minutes`,
      ),
      change: {
        kind: 'lease',
        lease: { ...this.#lease(address), state: 'declined', expiresAt: this.#now + DECLINE_MS },
      },
      declined: text,
    };
  }

  release(): Silence {
    const { ciaddr, giaddr, serverIdentifier, mac } = this.#m;
    if (serverIdentifier !== null && !this.#c.ourAddresses.has(serverIdentifier))
      return this.silence(`the RELEASE is for another server, ${serverIdentifier}`);
    // Comes by unicast from the address itself; anything else may be somebody who wants the client off the network.
    if (giaddr === NONE && this.#c.source !== ciaddr)
      return this.silence(`the RELEASE of ${ciaddr} came from ${this.#c.source}`);
    const lease = this.#c.leases.ofClient(this.#c.network.name, mac);
    if (!lease || !isLive(lease, this.#now) || formatIpv4(lease.address) !== ciaddr)
      return this.silence(`the RELEASE names ${ciaddr}, which this client does not have`);
    return {
      ...this.silence(`${ciaddr} was released`),
      change: { kind: 'lease', lease: { ...lease, state: 'released', expiresAt: this.#now } },
    };
  }

  inform(): Reply | Silence {
    const address = this.#address(this.#m.ciaddr);
    if (address === undefined || address === 0) return this.silence('the INFORM names no address');
    const boot = this.#bootFile();
    if (boot.kind === 'refused') return this.silence(boot.reason);
    return this.#reply('ACK', null, boot, null, { change: null, note: '' });
  }

  silence(reason: string): Silence {
    return { kind: 'silence', reason, change: null, client: this.#client };
  }

  #bootFile(): BootFile {
    const { known, unknownNoBootFile, network } = this.#c;
    return bootFile(this.#client, known ? known.noBootFile : unknownNoBootFile, network.bootOrigin);
  }

  #address(text: string | null): number | undefined {
    return text === null || text === NONE ? undefined : tryParseIpv4(text);
  }

  /** Free, or this client's own already. */
  #available(address: number): boolean {
    const holder = this.#c.leases.holder(address, this.#now);
    return holder === undefined || holder === this.#m.mac;
  }

  #fromPool(address: number | undefined): address is number {
    return (
      address !== undefined &&
      inPool(this.#c.network, address) &&
      !this.#c.reserved(address) &&
      this.#available(address)
    );
  }

  #choose(): number | undefined {
    const { network, leases } = this.#c;
    if (this.#reservation !== undefined && this.#available(this.#reservation)) return this.#reservation;
    const former = leases.ofClient(network.name, this.#m.mac);
    const offered = leases.offeredTo(network.name, this.#m.mac, this.#now);
    const running = former && isLive(former, this.#now);
    const wish = this.#address(this.#m.requestedAddress);
    const candidates = running ? [former.address, offered, wish] : [offered, former?.address, wish];
    for (const address of candidates) if (this.#fromPool(address)) return address;
    return leases.free(network, this.#now, address => !usable(network, address) || this.#c.reserved(address));
  }

  /** Why the client may not have the address; undefined when it may. */
  #refusal(address: number): string | undefined {
    const { network, leases } = this.#c;
    if (!usable(network, address)) return 'it is not of this network';
    const holder = leases.holder(address, this.#now);
    if (holder === 'declined') return 'it is in quarantine';
    if (holder !== undefined && holder !== this.#m.mac) return `it belongs to ${holder}`;
    if (this.#c.reserved(address)) return 'it is reserved for another node';
    if (holder === this.#m.mac || address === this.#reservation) return undefined;
    return inPool(network, address) ? undefined : 'it is not in the pool';
  }

  #confirm(address: number): Reply | Silence {
    const refusal = this.#refusal(address);
    if (!refusal) return this.#ack(address);
    // Neither leased by us nor ours to give: some other server may have given it, and answering would break that.
    if (this.#c.leases.holder(address, this.#now) === undefined && !this.#c.reserved(address))
      return this.silence(`we know nothing of ${formatIpv4(address)}: ${refusal}, and no lease of this client has it`);
    return this.#nak(address, refusal);
  }

  #leaseMs(address: number): number {
    return address === this.#reservation ? this.#c.network.reservedLeaseMs : this.#c.network.leaseMs;
  }

  #lease(address: number): Lease {
    const { network } = this.#c;
    return {
      address,
      network: network.name,
      mac: this.#m.mac,
      clientIdentifier: this.#m.clientIdentifier?.toString('hex') ?? null,
      hostName: this.#m.hostName,
      state: 'bound',
      expiresAt: this.#now + this.#leaseMs(address),
    };
  }

  #ack(address: number): Reply | Silence {
    const boot = this.#bootFile();
    if (boot.kind === 'refused') return this.silence(boot.reason);
    return this.#reply('ACK', address, boot, this.#leaseMs(address), {
      change: { kind: 'lease', lease: this.#lease(address) },
      note: this.#reservationTrouble(),
    });
  }

  /** Says in the trace why a known node does not get its reserved address. */
  #reservationTrouble(): string {
    const { known } = this.#c;
    if (!known?.address) return '';
    if (this.#reservation === undefined)
      return `; ${known.address}, reserved for ${known.name}, is not of this network`;
    if (this.#available(this.#reservation)) return '';
    const holder = this.#c.leases.holder(this.#reservation, this.#now);
    return `; ${known.address}, reserved for ${known.name}, ${
      holder === 'declined' ? 'is in quarantine' : `is still held by ${holder}`
    }`;
  }

  #nak(address: number | undefined, reason: string): Reply {
    const asked = address === undefined ? 'an address' : formatIpv4(address);
    // A client that is refused its own address stops using it, so whoever it is reserved for need not wait.
    const own = this.#c.leases.ofClient(this.#c.network.name, this.#m.mac);
    const givesUp = own !== undefined && own.address === address && isLive(own, this.#now);
    return {
      kind: 'reply',
      type: 'NAK',
      client: this.#client,
      change: givesUp ? { kind: 'lease', lease: { ...own, state: 'released', expiresAt: this.#now } } : null,
      summary: `${this.#asked()} for ${asked}: NAK, ${reason}`,
      message: {
        ...this.#frame(),
        type: MESSAGE_TYPE.NAK,
        // The client may have no address on this network: its relay must broadcast (RFC 2131 section 4.3.2).
        flags: this.#m.giaddr === NONE ? this.#m.flags : this.#m.flags | 0x8000,
        options: {
          [OPTION.SERVER_IDENTIFIER]: this.#c.network.serverAddress,
          [OPTION.MESSAGE]: `${asked}: ${reason}`.slice(0, 200),
          ...this.#echoedIdentifier(),
        },
      },
    };
  }

  #asked(): string {
    const name = this.#c.known ? ` of ${this.#c.known.name}` : '';
    return `${messageTypeName(this.#m.type)} by ${this.#client.label}${name}`;
  }

  #frame() {
    const { xid, flags, giaddr, mac, relayInformation, maximumMessageSize } = this.#m;
    return {
      xid,
      flags,
      giaddr,
      mac,
      ciaddr: NONE,
      yiaddr: NONE,
      siaddr: NONE,
      file: '',
      relayInformation,
      maximumBytes: Math.min(MAX_MESSAGE_BYTES, Math.max(MIN_MESSAGE_BYTES, (maximumMessageSize ?? 576) - 28)),
    };
  }

  /** RFC 6842. */
  #echoedIdentifier() {
    const id = this.#m.clientIdentifier;
    return { [OPTION.CLIENT_IDENTIFIER]: id ? [...id] : null };
  }

  /** @param address null for an INFORM: the client keeps the one it has */
  #reply(
    type: 'OFFER' | 'ACK',
    address: number | null,
    boot: BootFile & { kind: 'file' | 'none' },
    leaseMs: number | null,
    more: { change: LeaseChange | null; note: string },
  ): Reply {
    const { network, known } = this.#c;
    const wants = this.#m.parameterRequestList;
    const asked = <T>(code: number, value: T): T | null => (wants.length === 0 || wants.includes(code) ? value : null);
    const list = <T>(values: readonly T[]): T[] | null => (values.length > 0 ? [...values] : null);
    const file = boot.kind === 'file' ? boot.file : '';
    const explicitly = (code: number, value: string) => (file !== '' && wants.includes(code) ? value : null);
    const seconds = (share: number) => (leaseMs === null ? null : Math.floor((leaseMs / 1000) * share));
    // Clients that take option 121 ignore option 3 (RFC 3442), so the default route is repeated there.
    const routes =
      network.routes.length === 0
        ? []
        : [
            ...network.routes,
            ...(network.gateway === null
              ? []
              : [{ to: { base: 0, prefix: 0, mask: 0, last: 0xffffffff }, via: tryParseIpv4(network.gateway)! }]),
          ];
    const text = address === null ? this.#m.ciaddr : formatIpv4(address);
    return {
      kind: 'reply',
      type,
      client: this.#client,
      change: more.change,
      summary: `${this.#asked()}: ${type} ${text}, ${
        boot.kind === 'file' ? `boot file ${file}` : `no boot file: ${boot.reason}`
      }${more.note}`,
      message: {
        ...this.#frame(),
        type: MESSAGE_TYPE[type],
        ciaddr: type === 'ACK' ? this.#m.ciaddr : NONE,
        yiaddr: address === null ? NONE : text,
        siaddr: file === '' ? NONE : network.serverAddress,
        file,
        options: {
          [OPTION.SERVER_IDENTIFIER]: network.serverAddress,
          [OPTION.SUBNET_MASK]: formatIpv4(network.cidr.mask),
          [OPTION.ROUTER]: list(network.gateway === null ? [] : [network.gateway]),
          [OPTION.DOMAIN_NAME_SERVER]: list(network.dns),
          [OPTION.HOST_NAME]: asked(OPTION.HOST_NAME, known?.name ?? null),
          [OPTION.DOMAIN_NAME]: asked(OPTION.DOMAIN_NAME, network.domain),
          [OPTION.BROADCAST_ADDRESS]: asked(OPTION.BROADCAST_ADDRESS, formatIpv4(network.cidr.last)),
          [OPTION.NTP_SERVERS]: asked(OPTION.NTP_SERVERS, list(network.ntp)),
          [OPTION.LEASE_TIME]: seconds(1),
          [OPTION.RENEWAL_TIME]: seconds(0.5),
          [OPTION.REBINDING_TIME]: seconds(0.875),
          // UEFI HTTP boot takes only offers that say so (UEFI 2.10, section 24.7.3.1).
          [OPTION.VENDOR_CLASS]: boot.kind === 'file' && boot.httpClient ? 'HTTPClient' : null,
          [OPTION.TFTP_SERVER_NAME]: explicitly(OPTION.TFTP_SERVER_NAME, network.serverAddress),
          [OPTION.BOOTFILE_NAME]: explicitly(OPTION.BOOTFILE_NAME, file),
          [OPTION.DOMAIN_SEARCH]: wants.includes(OPTION.DOMAIN_SEARCH) ? encodeDomainSearch([network.domain]) : null,
          [OPTION.CLASSLESS_STATIC_ROUTE]: asked(OPTION.CLASSLESS_STATIC_ROUTE, list(encodeRoutes(routes))),
          [OPTION.IPXE]: this.#client.stage === 'ipxe' ? IPXE_NO_PROXY_DHCP : null,
          ...this.#echoedIdentifier(),
        },
      },
    };
  }
}
