/** Requests on the wire, written down byte by byte so that the tests do not trust the codec they test. */

/** DISCOVER of QEMU 7.2's iPXE ROM (virtio-net, BIOS), as captured; runs of zero are folded. */
export const IPXE_DISCOVER = Buffer.concat([
  Buffer.from('0101060049a7dc4b00040000', 'hex'),
  Buffer.alloc(16),
  Buffer.from('525400aa0002', 'hex'),
  Buffer.alloc(202),
  Buffer.from(
    '63825363350101390205c05d0200005e030102013c20505845436c69656e743a417263683a30303030303a554e44493a303032303031' +
      '4d04695058453717010306070c0f111a2b3c4243778081828384858687afcbaf30b105011af41000eb03010000170101220101130101' +
      '1101012701011901012901011001022101011501011801011201013d0701525400aa0002611100000000000000000000000000000000' +
      '00ff',
    'hex',
  ),
]);

export interface RequestFields {
  type?: number;
  mac?: string;
  xid?: number;
  flags?: number;
  hops?: number;
  ciaddr?: string;
  giaddr?: string;
  sname?: Buffer;
  file?: Buffer;
  /** Further options in order; a Buffer is taken as it is. */
  options?: readonly (readonly [number, Buffer | string | readonly number[]])[];
  /** Bytes after the options instead of END. */
  tail?: Buffer;
}

const ip = (text: string) => Buffer.from(text.split('.').map(Number));

/** A BOOTREQUEST; option 53 first unless `type` is 0. */
export function request(fields: RequestFields = {}): Buffer {
  const header = Buffer.alloc(240);
  header.set([1, 1, 6, fields.hops ?? 0]);
  header.writeUInt32BE(fields.xid ?? 0x1234abcd, 4);
  header.writeUInt16BE(fields.flags ?? 0, 10);
  ip(fields.ciaddr ?? '0.0.0.0').copy(header, 12);
  ip(fields.giaddr ?? '0.0.0.0').copy(header, 24);
  Buffer.from((fields.mac ?? '52:54:00:00:00:01').replaceAll(':', ''), 'hex').copy(header, 28);
  fields.sname?.copy(header, 44);
  fields.file?.copy(header, 108);
  header.writeUInt32BE(0x63825363, 236);
  const options = [...(fields.type === 0 ? [] : ([[53, [fields.type ?? 1]]] as const)), ...(fields.options ?? [])].map(
    ([code, value]) => {
      const bytes = Buffer.from(value as Buffer);
      return Buffer.concat([Buffer.from([code, bytes.length]), bytes]);
    },
  );
  return Buffer.concat([header, ...options, fields.tail ?? Buffer.from([255])]);
}

export const address = (text: string): Buffer => ip(text);

/** Options of a packet in order, for assertions. */
export function optionsOf(packet: Buffer): [number, Buffer][] {
  const found: [number, Buffer][] = [];
  for (let at = 240; packet[at] !== 255 && at < packet.length; ) {
    if (packet[at] === 0) {
      at++;
      continue;
    }
    const end = at + 2 + packet[at + 1]!;
    found.push([packet[at]!, packet.subarray(at + 2, end)]);
    at = end;
  }
  return found;
}
