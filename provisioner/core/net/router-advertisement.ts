/**
 * The router advertisement that ends iPXE's wait.
 *
 * iPXE runs its IPv6 configurator beside DHCPv4 and gives it about 13 seconds to hear a router. An advertisement
 * without a prefix, without the M and O flags and with router lifetime 0 (RFC 4861 sections 4.2 and 6.2.3: "not a default
 * router") ends that wait and changes nothing on any other host.
 */

const ICMPV6 = 58;

const macBytes = (mac: string): Buffer => {
  const bytes = Buffer.from(mac.replaceAll(':', ''), 'hex');
  if (bytes.length !== 6) throw new RangeError(`not an Ethernet address: ${mac}`);
  return bytes;
};

/** fe80::/64 with the modified EUI-64 of the address (RFC 4291 appendix A). */
function linkLocal(mac: Buffer): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16BE(0xfe80, 0);
  mac.copy(address, 8, 0, 3);
  address[8] = mac[0]! ^ 2;
  address.writeUInt16BE(0xfffe, 11);
  mac.copy(address, 13, 3, 6);
  return address;
}

/** The Internet checksum (RFC 1071) over data of even length. */
function checksum(data: Buffer): number {
  let sum = 0;
  for (let i = 0; i < data.length; i += 2) sum += data.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/**
 * An Ethernet frame with the advertisement.
 *
 *   Ethernet (14) | IPv6 (40) | ICMPv6 router advertisement (16) | source link-layer address option (8)
 *
 * @param from Ethernet address of our interface
 * @param to Ethernet address of the client. The packet goes to its link-local address alone (RFC 4861 section 6.2.6
 *   allows it), which iPXE makes from its Ethernet address: nobody else is woken, and no snooping switch drops it.
 */
export function routerAdvertisementFrame(from: string, to: string): Buffer {
  const source = macBytes(from);
  const client = macBytes(to);
  const advertisement = Buffer.alloc(24);
  advertisement[0] = 134; // type
  advertisement[4] = 64; // hop limit that hosts may use; flags and lifetime stay 0
  advertisement[16] = 1; // option: source link-layer address, length in units of 8 bytes
  advertisement[17] = 1;
  source.copy(advertisement, 18);

  const ip = Buffer.alloc(40);
  ip[0] = 0x60;
  ip.writeUInt16BE(advertisement.length, 4);
  ip[6] = ICMPV6;
  ip[7] = 255; // RFC 4861 section 6.1.2: a receiver drops any other hop limit
  linkLocal(source).copy(ip, 8);
  linkLocal(client).copy(ip, 24);

  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(advertisement.length, 0);
  pseudo[7] = ICMPV6;
  advertisement.writeUInt16BE(checksum(Buffer.concat([ip.subarray(8), pseudo, advertisement])), 2);
  return Buffer.concat([client, source, Buffer.from([0x86, 0xdd]), ip, advertisement]);
}
