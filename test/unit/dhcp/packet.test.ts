import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCidr, parseIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { createCodec, encodeDomainSearch, encodeRoutes } from '../../../provisioner/dhcp/codec.js';
import { encodeOption, sanitise } from '../../../provisioner/dhcp/packet.js';
import { address, IPXE_DISCOVER, optionsOf, request } from './packets.js';

const codec = createCodec();
const read = (raw: Buffer) => {
  const parsed = codec.parse(raw);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.message;
};
const refused = (raw: Buffer) => {
  const parsed = codec.parse(raw);
  return parsed.ok ? undefined : parsed.reason;
};
const edited = (edit: (raw: Buffer) => void) => {
  const raw = request();
  edit(raw);
  return raw;
};

describe('the packet', () => {
  test("reads the DISCOVER of QEMU's iPXE ROM, which ends npm dhcp's own server", () => {
    const message = read(IPXE_DISCOVER);
    expect(message).toMatchObject({
      type: 1,
      mac: '52:54:00:aa:00:02',
      xid: 0x49a7dc4b,
      architectures: [0],
      vendorClass: 'PXEClient:Arch:00000:UNDI:002001',
      maximumMessageSize: 1472,
      uuid: '00000000-0000-0000-0000-000000000000',
    });
    expect(message.userClass?.toString()).toBe('iPXE');
    expect(message.parameterRequestList).toContain(60);
  });

  test.each([
    ['has fewer bytes than a header', request().subarray(0, 239), /^it has 239 bytes/],
    ['is larger than any DHCP message', Buffer.concat([request(), Buffer.alloc(5000)]), /more than 4096/],
    ['is a reply', edited(r => r.writeUInt8(2, 0)), 'its op is 2, not 1'],
    ['is of InfiniBand', edited(r => r.writeUInt8(32, 1)), /hardware type is 32/],
    ['has a hardware address of 255 bytes', edited(r => r.writeUInt8(255, 2)), /with 255 bytes/],
    ['passed too many relays', edited(r => r.writeUInt8(17, 3)), /passed 17 relays/],
    ['has no magic cookie', edited(r => r.writeUInt8(0, 236)), 'it has no DHCP magic cookie'],
    ['is BOOTP', request({ type: 0 }), /BOOTP/],
    [
      'ends inside an option',
      request({ tail: Buffer.from([12, 200, 65]) }),
      'option 12 in options is longer than the packet',
    ],
    [
      'ends after an option code',
      request({ tail: Buffer.from([12]) }),
      'option 12 in options is longer than the packet',
    ],
    ['has a requested address of 3 bytes', request({ options: [[50, [10, 0, 0]]] }), 'option 50 has 3 bytes, not 4'],
    ['has two message types', request({ options: [[53, [3]]] }), 'option 53 has 2 bytes, not 1'],
    [
      'overflows an overloaded file field',
      request({ options: [[52, [1]]], file: Buffer.from([12, 127, 65]) }),
      'option 12 in file is longer than the packet',
    ],
  ])('is refused when it %s', (_, raw, reason) => {
    expect(refused(raw)).toMatch(
      reason instanceof RegExp ? reason : new RegExp(`^${reason.replace(/[()]/g, '\\$&')}$`),
    );
  });

  test('may have padding between options', () => {
    const raw = request({ type: 0, tail: Buffer.from([0, 0, 53, 1, 1, 0, 12, 2, 65, 66, 0, 255]) });
    expect(read(raw)).toMatchObject({ type: 1, hostName: 'AB' });
  });

  test('may lack its END', () => {
    expect(read(request({ tail: Buffer.alloc(0) })).type).toBe(1);
  });

  test('may carry options in file and sname, in that order', () => {
    const raw = request({
      options: [
        [52, [3]],
        [12, 'a'],
      ],
      file: Buffer.from([12, 1, 98, 255]),
      sname: Buffer.from([12, 1, 99, 60, 2, 72, 73, 255]),
    });
    expect(read(raw)).toMatchObject({ hostName: 'abc', vendorClass: 'HI' });
  });

  test('does not follow an overload option that stands in an overloaded field', () => {
    const raw = request({ options: [[52, [1]]], file: Buffer.from([12, 1, 65, 255]), sname: Buffer.from([12, 1, 66]) });
    expect(read(raw).hostName).toBe('A');
  });

  test('joins an option that comes in parts, beyond 255 bytes for the relay information', () => {
    const raw = request({
      options: [
        [82, Buffer.alloc(255, 7)],
        [61, [1, 2]],
        [82, [8, 9]],
        [61, [3]],
      ],
    });
    const message = read(raw);
    expect(message.relayInformation).toEqual(Buffer.concat([Buffer.alloc(255, 7), Buffer.from([8, 9])]));
    expect(message.clientIdentifier).toEqual(Buffer.from([1, 2, 3]));
    expect(encodeOption(82, message.relayInformation!)).toEqual(
      Buffer.concat([Buffer.from([82, 255]), Buffer.alloc(255, 7), Buffer.from([82, 2, 8, 9])]),
    );
  });

  test('keeps client identifiers as bytes: those that differ after a NUL stay different', () => {
    expect(read(request({ options: [[61, [0, 0, 200, 1]]] })).clientIdentifier).toEqual(Buffer.from([0, 0, 200, 1]));
  });

  test('reads the SMBIOS UUID with its little-endian fields', () => {
    const uuid = Buffer.from(`00${'33221100554477668899aabbccddeeff'}`, 'hex');
    expect(read(request({ options: [[97, uuid]] })).uuid).toBe('00112233-4455-6677-8899-aabbccddeeff');
  });

  test('never throws and never yields a message without a type, whatever the bytes', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 700 }).map(b => Buffer.from(b)),
      fc.uint8Array({ maxLength: 400 }).map(b => request({ tail: Buffer.from(b) })),
      fc.array(fc.tuple(fc.nat(IPXE_DISCOVER.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }).map(edits => {
        const raw = Buffer.from(IPXE_DISCOVER);
        for (const [at, value] of edits) raw[at] = value;
        return raw;
      }),
      fc.nat(IPXE_DISCOVER.length).map(end => IPXE_DISCOVER.subarray(0, end)),
    );
    fc.assert(
      fc.property(bytes, raw => {
        for (const op of [1, 2] as const) {
          const parsed = codec.parse(raw, op);
          if (parsed.ok) expect(parsed.message.type).toBeTypeOf('number');
          else expect(parsed.reason).not.toBe('');
          const clean = sanitise(raw, op);
          if (clean.ok) expect(clean.header).toHaveLength(240);
        }
      }),
      { numRuns: 20_000 },
    );
  });
});

describe('a reply', () => {
  const reply = {
    type: 2,
    xid: 0x49a7dc4b,
    flags: 0x8000,
    ciaddr: '0.0.0.0',
    yiaddr: '10.99.0.100',
    siaddr: '10.99.0.1',
    giaddr: '10.99.0.2',
    mac: '52:54:00:aa:00:02',
    file: 'undionly.kpxe',
    options: { 1: '255.255.255.0', 51: 600, 54: '10.99.0.1', 121: [0, 10, 99, 0, 254], 12: null },
    relayInformation: Buffer.from([1, 2, 0xab, 0xcd]),
    maximumBytes: 548,
  };

  test('starts with the message type, ends with the relay’s option, and is 300 bytes at least', () => {
    const packet = codec.format(reply);
    expect(optionsOf(packet).map(([code]) => code)).toEqual([53, 54, 1, 51, 121, 82]);
    expect(packet).toHaveLength(300);
    expect(packet.toString('hex')).toBe(
      `0201060049a7dc4b00008000${'00000000'}0a6300640a6300010a630002525400aa0002${'00'.repeat(74)}` +
        `${Buffer.from('undionly.kpxe').toString('hex')}${'00'.repeat(115)}63825363` +
        '35010236040a6300010104ffffff00330400000258790500' +
        `0a6300fe520401 02abcdff`.replace(' ', '') +
        '00'.repeat(300 - 240 - 35),
    );
  });

  test('leaves out what is least needed when the client takes no more', () => {
    const large = { ...reply, options: { ...reply.options, 119: Array(250).fill(1), 42: Array(63).fill('10.0.0.1') } };
    expect(optionsOf(codec.format({ ...large, maximumBytes: 500 })).map(([code]) => code)).toEqual([
      53, 54, 1, 51, 121, 82,
    ]);
    expect(optionsOf(codec.format({ ...large, maximumBytes: 1400 })).map(([code]) => code)).toContain(119);
  });

  test('carries routes as RFC 3442 and search domains as RFC 3397 have them', () => {
    expect(
      encodeRoutes([
        { to: parseCidr('10.98.128.0/17'), via: parseIpv4('10.99.0.3') },
        { to: parseCidr('0.0.0.0/0'), via: parseIpv4('10.99.0.254') },
      ]),
    ).toEqual([17, 10, 98, 128, 10, 99, 0, 3, 0, 10, 99, 0, 254]);
    expect(Buffer.from(encodeDomainSearch(['lab.test'])).toString('latin1')).toBe('\x03lab\x04test\x00');
  });

  test('is read back as it was written, with the address of a relay and of a client', () => {
    const parsed = codec.parse(codec.format(reply), 2);
    expect(parsed).toMatchObject({
      ok: true,
      message: { yiaddr: '10.99.0.100', giaddr: '10.99.0.2', serverIdentifier: '10.99.0.1', mac: reply.mac },
    });
    expect(address('10.99.0.1')).toEqual(Buffer.from([10, 99, 0, 1]));
  });
});
