import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseDisks, type DiskDemand } from '../../../provisioner/install/disks.js';
import type { InventoryDisk } from '../../../provisioner/inventory/types.js';
import { disk } from './blank-disk.js';

const NODE = '5f0c2a41-9d7e-4c1b-8a35-6e2f1b7d9c03';
const data = { signatures: [{ offset: 0, type: 'ext4', label: 'photos', uuid: null, partition: null }] };
const demand = (more: Partial<DiskDemand> = {}): DiskDemand => ({
  nodeId: NODE,
  hints: [{}],
  wipe: false,
  minBytes: 4e9,
  needs512: true,
  ...more,
});
const choose = (disks: InventoryDisk[], more: Partial<DiskDemand> = {}) => {
  const result = chooseDisks(disks, demand(more));
  return 'code' in result ? `${result.code}: ${result.message}` : result.disks.map(d => d.path).join(' ');
};

describe('the disk of an installation', () => {
  it('is the smallest that fits, among equals the first by controller path', () => {
    expect(choose([disk('/dev/sda', 500), disk('/dev/sdb', 100), disk('/dev/sdc', 2)])).toBe('/dev/sdb');
    expect(
      choose([
        disk('/dev/sda', 100, { byPath: '/dev/disk/by-path/b' }),
        disk('/dev/sdb', 100, { byPath: '/dev/disk/by-path/a' }),
      ]),
    ).toBe('/dev/sdb');
  });

  it('follows hints of size, serial number, WWN, type and name', () => {
    const disks = [
      disk('/dev/sda', 100, { serial: 'A1', wwn: '0x5000C500A1', type: 'hdd' }),
      disk('/dev/nvme0n1', 800, { serial: 'N1', type: 'nvme' }),
    ];
    expect(choose(disks, { hints: [{ type: 'nvme' }] })).toBe('/dev/nvme0n1');
    expect(choose(disks, { hints: [{ serial: 'A1' }] })).toBe('/dev/sda');
    expect(choose(disks, { hints: [{ wwn: '0x5000c500a1' }] })).toBe('/dev/sda');
    expect(choose(disks, { hints: [{ min_gb: 200 }] })).toBe('/dev/nvme0n1');
    expect(choose(disks, { hints: [{ max_gb: 200 }] })).toBe('/dev/sda');
    expect(choose(disks, { hints: [{ name: '/dev/nvme0n1' }] })).toBe('/dev/nvme0n1');
  });

  it('is never removable, read-only, failing or too small, and the problem says so of each', () => {
    expect(
      choose([
        disk('/dev/sda', 32, { removable: true }),
        disk('/dev/sdb', 100, { readOnly: true }),
        disk('/dev/sdc', 100, { smart: 'failed' }),
        disk('/dev/sdd', 2),
        disk('/dev/sde', 100, { logicalSectorBytes: 4096 }),
      ]),
    ).toBe(
      'disk-no-match: No disk fits: /dev/sda is removable; /dev/sdb is read-only; /dev/sdc says of itself that it is failing (SMART); ' +
        '/dev/sdd has 2.0 GB, 4.0 GB are needed; /dev/sde has sectors of 4096 bytes, which a disk image cannot be written to (the layouts lvm and mdraid can).',
    );
    expect(choose([], {})).toBe('disk-no-match: No disk fits: the node has no disk.');
    expect(choose([disk('/dev/sda', 32, { removable: true })], { wipe: true })).toMatch(/^disk-no-match/);
    expect(choose([disk('/dev/sde', 100, { logicalSectorBytes: 4096 })], { needs512: false })).toBe('/dev/sde');
  });

  it('does not carry data of somebody else, unless that may go', () => {
    expect(choose([disk('/dev/sda', 100, data)])).toBe(
      'disk-foreign: Disk would be overwritten: /dev/sda carries ext4 "photos".',
    );
    expect(choose([disk('/dev/sda', 100, data)], { wipe: true })).toBe('/dev/sda');
    expect(choose([disk('/dev/sda', 100, { ...data, ownedBy: { nodeId: 'deadbeef' } })])).toBe(
      'disk-foreign: Disk would be overwritten: /dev/sda belongs to the node deadbeef of Halligan.',
    );
  });

  it('is the node’s own of last time, then a blank one, and one with data only when nothing else is there', () => {
    const own = disk('/dev/sdc', 900, { ...data, ownedBy: { nodeId: '5f0c2a41' } });
    expect(choose([disk('/dev/sda', 100, data), disk('/dev/sdb', 500), own], { wipe: true })).toBe('/dev/sdc');
    expect(choose([disk('/dev/sda', 100, data), disk('/dev/sdb', 500)], { wipe: true })).toBe('/dev/sdb');
    expect(choose([disk('/dev/sda', 100, data), disk('/dev/sdb', 500)])).toBe('/dev/sdb');
  });

  it('is another for each entry of a mirror, whatever the order of the hints', () => {
    const disks = [disk('/dev/sda', 100, { serial: 'A' }), disk('/dev/sdb', 200, { serial: 'B' })];
    expect(choose(disks, { hints: [{}, { serial: 'A' }] })).toBe('/dev/sdb /dev/sda');
    expect(choose(disks.slice(0, 1), { hints: [{}, {}] })).toBe(
      'disk-no-match: No disk number 2 of 2 fits: /dev/sda is taken by another entry of the layout.',
    );
  });

  it('is never one that must not be written, for any machine', () => {
    const anyDisk = fc.record({
      path: fc.constantFrom('/dev/sda', '/dev/sdb', '/dev/sdc', '/dev/sdd'),
      gb: fc.integer({ min: 1, max: 20 }),
      removable: fc.boolean(),
      readOnly: fc.boolean(),
      foreign: fc.boolean(),
      owner: fc.constantFrom(null, '5f0c2a41', 'deadbeef'),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(anyDisk, { selector: d => d.path }),
        fc.boolean(),
        fc.integer({ min: 1, max: 2 }),
        (specs, wipe, count) => {
          const disks = specs.map(s =>
            disk(s.path, s.gb, {
              removable: s.removable,
              readOnly: s.readOnly,
              ...(s.foreign ? data : {}),
              ownedBy: s.owner === null ? null : { nodeId: s.owner },
            }),
          );
          const result = chooseDisks(disks, demand({ wipe, hints: Array.from({ length: count }, () => ({})) }));
          if ('code' in result) return result.message.length > 0;
          const clean = (d: InventoryDisk) =>
            !d.removable &&
            !d.readOnly &&
            d.sizeBytes >= 4e9 &&
            (wipe || d.ownedBy?.nodeId === '5f0c2a41' || (d.signatures.length === 0 && d.ownedBy === null));
          return new Set(result.disks).size === count && result.disks.every(clean);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
