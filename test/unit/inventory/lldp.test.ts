import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseLldp, parseLldpFrame } from '../../../provisioner/inventory/lldp.js';

const tlv = (type: number, value: string) => {
  const bytes = Buffer.from(value, 'latin1');
  const head = Buffer.alloc(2);
  head.writeUInt16BE((type << 9) | bytes.length);
  return Buffer.concat([head, bytes]);
};
const frame = (...tlvs: Buffer[]) => Buffer.concat([Buffer.from('0180c200000eaabbccddee0188cc', 'hex'), ...tlvs]);

it('reads chassis, port and system of a neighbour', () => {
  expect(
    parseLldpFrame(frame(tlv(1, '\x04\xaa\xbb\xcc\xdd\xee\x00'), tlv(2, '\x05swp7'), tlv(5, 'leaf1'), tlv(0, ''))),
  ).toEqual({ chassis: 'aa:bb:cc:dd:ee:00', port: 'swp7', system: 'leaf1' });
});

it('reads a frame that carries a VLAN tag', () => {
  const plain = frame(tlv(5, 'leaf1'));
  const tagged = Buffer.concat([plain.subarray(0, 12), Buffer.from('81000064', 'hex'), plain.subarray(12)]);
  expect(parseLldpFrame(tagged)?.system).toBe('leaf1');
});

it('takes what stands before the damage of a frame that was cut short', () => {
  const whole = frame(tlv(2, '\x05swp7'), tlv(5, 'a-long-name'));
  expect(parseLldpFrame(whole.subarray(0, whole.length - 3))).toEqual({ chassis: null, port: 'swp7', system: null });
});

it('hears nothing in another protocol, in silence, and in any garbage', () => {
  expect(parseLldp('')).toBeNull();
  expect(parseLldpFrame(Buffer.from('0180c200000eaabbccddee010800', 'hex'))).toBeNull();
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), bytes => void parseLldpFrame(Buffer.from(bytes))));
  fc.assert(fc.property(fc.string(), text => void parseLldp(text)));
});
