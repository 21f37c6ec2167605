import { describe, expect, it } from 'vitest';
import { chooseAddress, networkOf } from '../../../provisioner/node/addresses.js';
import { identify, usableSerial, usableUuid } from '../../../provisioner/node/identity.js';
import { aNode, aSite } from './fixtures.js';

const U1 = '11111111-1111-4111-8111-111111111111';
const U2 = '22222222-2222-4222-8222-222222222222';
const a = aNode({ id: 'a', name: 'a', macs: ['52:54:00:00:00:0a'], uuid: U1, serial: 'S-A' });
const b = aNode({ id: 'b', name: 'b', macs: ['52:54:00:00:00:0b'], uuid: U2, serial: 'S-B' });
const who = (mac: string, uuid: string | null, serial: string | null) => ({
  mac,
  uuid,
  serial,
  manufacturer: null,
  product: null,
  platform: null,
});

describe('which node is asking', () => {
  it('knows a node by its MAC', () => {
    expect(identify(who('52:54:00:00:00:0A', U1, 'S-A'), [a, b])).toMatchObject({
      kind: 'known',
      node: a,
      learnMac: false,
    });
    expect(identify(who('52:54:00:00:00:0a', null, null), [a, b])).toMatchObject({ kind: 'known', node: a });
  });
  it('knows the same machine with another NIC by its UUID, and learns the MAC', () => {
    expect(identify(who('52:54:00:00:00:ff', U1, 'S-A'), [a, b])).toMatchObject({
      kind: 'known',
      node: a,
      learnMac: true,
    });
  });
  it('takes two machines with one UUID for two machines when their serials differ', () => {
    expect(identify(who('52:54:00:00:00:ff', U1, 'S-X'), [a, b])).toMatchObject({ kind: 'new' });
  });
  it('follows a NIC that was moved from one node into another', () => {
    expect(identify(who('52:54:00:00:00:0a', U2, 'S-B'), [a, b])).toMatchObject({
      kind: 'known',
      node: b,
      learnMac: true,
    });
  });
  it('boots nothing on an unknown machine that shows a NIC of a known node', () => {
    const r = identify(who('52:54:00:00:00:0a', '33333333-3333-4333-8333-333333333333', 'S-X'), [a, b]);
    expect(r).toMatchObject({ kind: 'conflict', node: a });
    expect(r.reason).toContain('remove that node');
  });
  it('stays with the node when only the serial changed', () => {
    expect(identify(who('52:54:00:00:00:0a', U1, 'S-NEW'), [a, b])).toMatchObject({
      kind: 'known',
      node: a,
      learnMac: false,
    });
  });
  it('identifies nothing by UUIDs and serials that vendors ship on every board', () => {
    expect(usableUuid('03000200-0400-0500-0006-000700080009')).toBeNull();
    expect(usableUuid('not a uuid')).toBeNull();
    for (const text of ['To Be Filled By O.E.M.', 'Default string', '0', 'None', '   ', '123456789'])
      expect(usableSerial(text), text).toBeNull();
    const twin = aNode({ id: 'c', name: 'c', macs: ['52:54:00:00:00:0c'], serial: 'Default string' });
    expect(identify(who('52:54:00:00:00:ff', null, 'Default string'), [twin])).toMatchObject({ kind: 'new' });
  });
  it('knows a machine without a UUID by its serial', () => {
    expect(identify(who('52:54:00:00:00:ff', null, 'S-B'), [a, b])).toMatchObject({
      kind: 'known',
      node: b,
      learnMac: true,
    });
  });
});

describe('reserved addresses', () => {
  const [network] = aSite().networks;
  it('are outside the pool and taken once', () => {
    const taken = new Set<string>(['10.99.0.1']);
    for (;;) {
      const ip = chooseAddress(network!, taken);
      if (ip === null) break;
      expect(taken.has(ip)).toBe(false);
      expect(networkOf([network!], ip)).toBe(network);
      const last = Number(ip.split('.')[3]);
      expect(last < 100 || last > 120).toBe(true);
      expect(last).toBeLessThan(255);
      taken.add(ip);
    }
    expect(taken.size).toBe(1 + (254 - 9) - 21);
  });
});
