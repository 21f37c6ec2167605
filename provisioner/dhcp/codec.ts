/** DHCP messages to and from the wire, on the codec of npm `dhcp`. */
import npmOptions from 'dhcp/lib/options.js';
import protocol from 'dhcp/lib/protocol.js';
import { encodeOption, sanitise } from './packet.js';
import { MESSAGE_TYPE, OPTION } from './registry.js';

export interface DhcpMessage {
  readonly hops: number;
  readonly xid: number;
  readonly secs: number;
  /** Top bit: the client wants broadcasts. */
  readonly flags: number;
  readonly ciaddr: string;
  readonly yiaddr: string;
  readonly giaddr: string;
  /** Lower case, colons. */
  readonly mac: string;
  readonly type: number;
  readonly requestedAddress: string | null;
  readonly serverIdentifier: string | null;
  readonly parameterRequestList: readonly number[];
  readonly maximumMessageSize: number | null;
  readonly vendorClass: string;
  readonly clientIdentifier: Buffer | null;
  readonly hostName: string | null;
  readonly userClass: Buffer | null;
  /** Option 93, in the client's order. */
  readonly architectures: readonly number[];
  /** SMBIOS UUID of option 97, as dmidecode prints it. */
  readonly uuid: string | null;
  /** Option 175 as it came. */
  readonly ipxe: Buffer | null;
  /** Option 82 as it came: echoed byte for byte. */
  readonly relayInformation: Buffer | null;
}

/** What goes back. Options are in the types of npm `dhcp`; null ones are left out. */
export interface ReplyMessage {
  readonly type: number;
  readonly xid: number;
  readonly hops?: number;
  readonly flags: number;
  readonly ciaddr: string;
  readonly yiaddr: string;
  readonly siaddr: string;
  readonly giaddr: string;
  readonly mac: string;
  readonly file: string;
  readonly options: Readonly<Record<number, string | number | number[] | string[] | null>>;
  readonly relayInformation: Buffer | null;
  /** Largest DHCP message that the client takes, bytes. */
  readonly maximumBytes: number;
}

export type Parsed =
  | { readonly ok: true; readonly message: DhcpMessage }
  | { readonly ok: false; readonly reason: string };

export interface Codec {
  /** Never throws: what cannot be read comes back with its reason. */
  parse(raw: Buffer, op?: 1 | 2): Parsed;
  format(reply: ReplyMessage): Buffer;
  /** A DISCOVER of our own, which looks for other servers. */
  formatProbe(mac: string, xid: number): Buffer;
}

/** Options that npm `dhcp` lacks or reads as text although they are bytes. */
const OPAQUE = {
  [OPTION.CLIENT_IDENTIFIER]: 'clientIdentifier',
  [OPTION.USER_CLASS]: 'userClass',
  [OPTION.CLIENT_UUID]: 'clientUuid',
  [OPTION.DOMAIN_SEARCH]: 'domainSearchBytes',
  [OPTION.CLASSLESS_STATIC_ROUTE]: 'classlessStaticRouteBytes',
  [OPTION.IPXE]: 'ipxeOptions',
};

/** What the engine reads of a request; the rest never reaches the npm codec. */
const READ = [
  OPTION.HOST_NAME,
  OPTION.REQUESTED_IP_ADDRESS,
  OPTION.MESSAGE_TYPE,
  OPTION.SERVER_IDENTIFIER,
  OPTION.PARAMETER_REQUEST_LIST,
  OPTION.MAXIMUM_MESSAGE_SIZE,
  OPTION.VENDOR_CLASS,
  OPTION.CLIENT_IDENTIFIER,
  OPTION.USER_CLASS,
  OPTION.CLIENT_ARCH,
  OPTION.CLIENT_UUID,
  OPTION.IPXE,
];

/** Left out one after the other when a reply is larger than the client takes. */
const EXPENDABLE = [OPTION.DOMAIN_SEARCH, OPTION.NTP_SERVERS, OPTION.BROADCAST_ADDRESS, OPTION.CLASSLESS_STATIC_ROUTE];

/** RFC 1542 section 2.1: BOOTP relays may drop what is shorter. */
const MIN_BYTES = 300;

const bytes = (value: unknown): Buffer | null => (Array.isArray(value) ? Buffer.from(value as number[]) : null);

/** Type byte 0, then the UUID with its first three fields little-endian (SMBIOS 2.6 and later, RFC 4578 section 2.3). */
function readUuid(value: Buffer | null): string | null {
  if (value?.length !== 17 || value[0] !== 0) return null;
  const b = Buffer.from(value.subarray(1));
  b.subarray(0, 4).reverse();
  b.subarray(4, 6).reverse();
  b.subarray(6, 8).reverse();
  return b.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** Makes the codec. Registers options with npm `dhcp` for the whole process; doing that twice changes nothing. */
export function createCodec(): Codec {
  for (const [code, attr] of Object.entries(OPAQUE))
    npmOptions.addOption(Number(code), { name: attr, type: 'UInt8s', attr });
  npmOptions.addOption(OPTION.CLIENT_ARCH, { name: 'clientArch', type: 'UInt16s', attr: 'clientArch' });

  const toWire = (reply: ReplyMessage, options: Record<number, string | number | number[] | string[]>): Buffer => {
    const written = protocol.format({
      op: 2,
      htype: 1,
      hlen: 6,
      hops: reply.hops ?? 0,
      xid: reply.xid,
      secs: 0,
      flags: reply.flags,
      ciaddr: reply.ciaddr,
      yiaddr: reply.yiaddr,
      siaddr: reply.siaddr,
      giaddr: reply.giaddr,
      chaddr: reply.mac,
      sname: '',
      file: reply.file,
      options,
    });
    const packet = written._data.subarray(0, written._w);
    // npm `dhcp` writes options by ascending code. Some boot ROMs want the message type first, and RFC 3046 section
    // 2.2 wants the relay's option last.
    const read = sanitise(packet, 2);
    if (!read.ok) throw new Error(`a reply of our own is broken: ${read.reason}`);
    const first = [OPTION.MESSAGE_TYPE, OPTION.SERVER_IDENTIFIER] as number[];
    const rest = [...read.options.keys()].filter(code => !first.includes(code));
    const parts = [packet.subarray(0, 240)];
    for (const code of [...first, ...rest]) {
      const value = read.options.get(code);
      if (value) parts.push(encodeOption(code, value));
    }
    if (reply.relayInformation) parts.push(encodeOption(OPTION.RELAY_AGENT_INFORMATION, reply.relayInformation));
    parts.push(Buffer.from([OPTION.END]));
    const whole = Buffer.concat(parts);
    return whole.length >= MIN_BYTES ? whole : Buffer.concat([whole, Buffer.alloc(MIN_BYTES - whole.length)]);
  };

  return {
    parse(raw, op = 1) {
      const clean = sanitise(raw, op);
      if (!clean.ok) return clean;
      const parts = [clean.header];
      for (const code of READ) {
        const value = clean.options.get(code);
        // Longer ones exist (RFC 3396), but the npm codec has one length byte and none of these means anything then.
        if (!value || value.length === 0 || value.length > 255) continue;
        if (code === OPTION.CLIENT_ARCH && value.length % 2 !== 0) continue;
        parts.push(Buffer.from([code, value.length]), value);
      }
      parts.push(Buffer.from([OPTION.END]));
      let wire: ReturnType<typeof protocol.parse>;
      try {
        wire = protocol.parse(Buffer.concat(parts));
      } catch (error) {
        return { ok: false, reason: error instanceof Error ? error.message : String(error) };
      }
      const o = wire.options;
      const type = o[OPTION.MESSAGE_TYPE];
      if (typeof type !== 'number') return { ok: false, reason: 'it is BOOTP: it has no DHCP message type' };
      const text = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);
      return {
        ok: true,
        message: {
          hops: wire.hops,
          xid: wire.xid,
          secs: wire.secs,
          flags: wire.flags,
          ciaddr: wire.ciaddr,
          yiaddr: wire.yiaddr,
          giaddr: wire.giaddr,
          mac: wire.chaddr.toLowerCase().replaceAll('-', ':'),
          type,
          requestedAddress: text(o[OPTION.REQUESTED_IP_ADDRESS]),
          serverIdentifier: text(o[OPTION.SERVER_IDENTIFIER]),
          parameterRequestList: (o[OPTION.PARAMETER_REQUEST_LIST] as number[] | undefined) ?? [],
          maximumMessageSize: (o[OPTION.MAXIMUM_MESSAGE_SIZE] as number | undefined) ?? null,
          vendorClass: text(o[OPTION.VENDOR_CLASS]) ?? '',
          clientIdentifier: bytes(o[OPTION.CLIENT_IDENTIFIER]),
          hostName: text(o[OPTION.HOST_NAME]),
          userClass: bytes(o[OPTION.USER_CLASS]),
          architectures: (o[OPTION.CLIENT_ARCH] as number[] | undefined) ?? [],
          uuid: readUuid(bytes(o[OPTION.CLIENT_UUID])),
          ipxe: bytes(o[OPTION.IPXE]),
          relayInformation: clean.options.get(OPTION.RELAY_AGENT_INFORMATION) ?? null,
        },
      };
    },

    format(reply) {
      const options: Record<number, string | number | number[] | string[]> = { [OPTION.MESSAGE_TYPE]: reply.type };
      for (const [code, value] of Object.entries(reply.options)) if (value !== null) options[Number(code)] = value;
      let packet = toWire(reply, options);
      for (const code of EXPENDABLE) {
        if (packet.length <= reply.maximumBytes) break;
        delete options[code];
        packet = toWire(reply, options);
      }
      return packet;
    },

    formatProbe(mac, xid) {
      const none = '0.0.0.0';
      const written = protocol.format({
        op: 1,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid,
        secs: 0,
        flags: 0x8000,
        ciaddr: none,
        yiaddr: none,
        siaddr: none,
        giaddr: none,
        chaddr: mac,
        sname: '',
        file: '',
        options: {
          [OPTION.MESSAGE_TYPE]: MESSAGE_TYPE.DISCOVER,
          [OPTION.PARAMETER_REQUEST_LIST]: [OPTION.SUBNET_MASK, OPTION.ROUTER],
        },
      });
      return Buffer.from(written._data.subarray(0, MIN_BYTES));
    },
  };
}

/** Domain names as option 119 carries them (RFC 3397; without compression, which is optional). */
export function encodeDomainSearch(domains: readonly string[]): number[] {
  const labels = domains.flatMap(domain => [...domain.split('.').filter(Boolean), '']);
  return labels.flatMap(label => [label.length, ...Buffer.from(label, 'latin1')]);
}

/** Routes as option 121 carries them (RFC 3442): prefix length, the significant octets, the router. */
export function encodeRoutes(routes: readonly { to: { base: number; prefix: number }; via: number }[]): number[] {
  const octets = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  return routes.flatMap(({ to, via }) => [
    to.prefix,
    ...octets(to.base).slice(0, Math.ceil(to.prefix / 8)),
    ...octets(via),
  ]);
}
