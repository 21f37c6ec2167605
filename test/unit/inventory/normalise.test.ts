import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { diskOf, normaliseInventory } from '../../../provisioner/inventory/normalise.js';
import { parseInventoryStream, RAW_LIMITS } from '../../../provisioner/inventory/raw.js';

const here = dirname(fileURLToPath(import.meta.url));
const fixture = (name: string) => parseInventoryStream(readFileSync(join(here, 'fixtures', `${name}.txt`), 'utf8'));
const raw = (files: Record<string, unknown>) => ({ schema: 1, files });

/** The field of the refusal, or what came instead. */
function refusedField(report: unknown): unknown {
  try {
    normaliseInventory(report);
  } catch (error) {
    if (error instanceof ProblemError && error.problem.code === 'inventory-refused')
      return error.problem.detail?.['field'];
    throw error;
  }
  return 'accepted';
}

describe('reports of whole machines', () => {
  const names = readdirSync(join(here, 'fixtures')).map(file => file.replace(/\.txt$/, ''));
  it.each(names)('%s becomes the inventory of its golden file', name => {
    const golden = join(here, 'golden', `${name}.json`);
    const text = `${JSON.stringify(normaliseInventory(fixture(name)), null, 2)}\n`;
    if (process.env['UPDATE_GOLDEN'] || !existsSync(golden)) {
      if (!process.env['UPDATE_GOLDEN'])
        throw new Error(`${golden} is missing; make it with UPDATE_GOLDEN=1 and read it`);
      writeFileSync(golden, text);
    }
    expect(text).toBe(readFileSync(golden, 'utf8'));
  });

  it('names the controller, the stable path and the world wide name of a disk behind a RAID controller', () => {
    const disk = normaliseInventory(fixture('dell-r640')).disks.find(({ path }) => path === '/dev/sda');
    expect(disk).toMatchObject({
      controller: '0000:3b:00.0',
      byPath: '/dev/disk/by-path/pci-0000:3b:00.0-scsi-0:2:0:0',
      wwn: '0x6d09466078cf5f0026b1b1f30a3c5d12',
      ownedBy: null,
    });
    expect(disk?.signatures.map(({ type, partition }) => [type, partition])).toContainEqual([
      'LVM2_member',
      '/dev/sda2',
    ]);
  });

  it('recognises the members of its own mirror by their partition labels', () => {
    const { disks } = normaliseInventory(fixture('hpe-dl380'));
    expect(disks.map(({ ownedBy, smart }) => [ownedBy?.nodeId, smart])).toEqual([
      ['0a1b2c3d', 'passed'],
      ['0a1b2c3d', 'failed'],
    ]);
  });

  it('leaves out a virtual floppy without medium and an InfiniBand port', () => {
    expect(normaliseInventory(fixture('dell-r640')).disks.map(({ path }) => path)).not.toContain('/dev/sdb');
    const hpe = normaliseInventory(fixture('hpe-dl380'));
    expect(hpe.nics.map(({ name }) => name)).toEqual(['eth0']);
    expect(hpe.warnings).toContain('ib0 has no Ethernet address and was left out');
  });

  it('hears its LLDP neighbour, and prefers a port description to a port MAC', () => {
    expect(normaliseInventory(fixture('qemu-bios')).nics.find(({ name }) => name === 'eth1')?.lldp).toEqual({
      chassis: 'aa:bb:cc:dd:ee:00',
      port: 'Ethernet1/7',
      system: 'leaf-1a',
    });
    expect(normaliseInventory(fixture('hpe-dl380')).nics[0]?.lldp?.port).toBe('GigabitEthernet1/0/12');
  });
});

describe('values that vendors leave in place of one', () => {
  it.each(['To Be Filled By O.E.M.', 'Default string', 'Not Specified', '0000000', 'System Serial Number', ' '])(
    'takes no serial number from %j',
    serial => {
      const sysfs = `/sys/class/dmi/id/product_serial=${serial}\n`;
      expect(normaliseInventory(raw({ sysfs })).system.serial).toBeNull();
    },
  );
  it.each(['03000200-0400-0500-0006-000700080009', 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF', 'not a uuid'])(
    'takes no UUID from %s',
    uuid => {
      expect(normaliseInventory(raw({ sysfs: `/sys/class/dmi/id/product_uuid=${uuid}\n` })).system.uuid).toBeNull();
    },
  );
});

describe('disk ownership', () => {
  const disk = (labels: unknown[]) =>
    normaliseInventory(
      raw({
        sysfs: '/sys/block/sda/size=1000\n',
        lsblk: JSON.stringify({
          blockdevices: [{ name: 'sda', children: labels.map((partlabel, at) => ({ name: `sda${at}`, partlabel })) }],
        }),
      }),
    );
  it('takes a disk for foreign when two nodes claim it', () => {
    const { disks, warnings } = disk(['halligan-00000001', 'halligan-00000002']);
    expect(disks[0]?.ownedBy).toBeNull();
    expect(warnings).toEqual(['the partitions of sda claim more than one owner; it counts as foreign']);
  });
  it.each(['halligan-0000000', 'xhalligan-00000001', 'halligan-0000000g', 'halligan-000000011', 'HALLIGAN-00000001'])(
    'does not take %s for its own',
    label => expect(disk([label]).disks[0]?.ownedBy).toBeNull(),
  );
  it.each([
    ['nvme0n1p2', 'nvme0n1'],
    ['nvme0n1', 'nvme0n1'],
    ['sda15', 'sda'],
    ['vdb', 'vdb'],
    ['mmcblk0p1', 'mmcblk0'],
    ['mmcblk0boot0', 'mmcblk0boot0'],
  ])('%s belongs to %s', (device, whole) => expect(diskOf(device)).toBe(whole));
});

describe('a broken or hostile report', () => {
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  it.each<[string, unknown, unknown]>([
    ['no object', 'text', 'the whole'],
    ['null', null, 'the whole'],
    ['a list', [], 'the whole'],
    ['another schema', { schema: 2, files: {} }, '/schema'],
    ['an unknown member', { schema: 1, files: {}, more: 1 }, '/more'],
    ['a number as output', raw({ lsblk: 7 }), '/files/lsblk'],
    ['an object as output', raw({ lsblk: { blockdevices: [] } }), '/files/lsblk'],
    ['a name that climbs', raw({ '../../etc/passwd': 'x' }), '/files/..~1..~1etc~1passwd'],
    ['a name that is a prototype', JSON.parse('{"schema":1,"files":{"__proto__":"x"}}'), '/files/__proto__'],
    ['output beyond the limit', raw({ lspci: 'x'.repeat(RAW_LIMITS.fileCharacters + 1) }), '/files/lspci'],
    ['deep JSON', raw({ lsblk: deep }), 'files.lsblk'],
    ['deep JSON in another tool', raw({ sysfs: '/sys/block/sda/size=9\n', 'smart-sda': deep }), 'files.smart-sda'],
    ['a number where a name belongs', raw({ lsblk: '{"blockdevices":[{"name":5}]}' }), 'files.lsblk.name'],
    ['devices that are no list', raw({ lsblk: '{"blockdevices":{"name":"sda"}}' }), 'files.lsblk.blockdevices'],
    ['a device that is no object', raw({ wipefs: '{"signatures":["sda"]}' }), 'files.wipefs.signatures[0]'],
    [
      'more disks than a machine holds',
      raw({ sysfs: Array.from({ length: 600 }, (_, at) => `/sys/block/d${at}/size=8`).join('\n') }),
      'files.sysfs',
    ],
    ['a disk beyond counting', raw({ sysfs: '/sys/block/sda/size=9007199254740991\n' }), 'files.sysfs sda/size'],
  ])('is refused with its field: %s', (_, report, field) => expect(refusedField(report)).toBe(field));

  it('is refused when its files together are too large', () => {
    const files = Object.fromEntries(Array.from({ length: 13 }, (_, at) => [`f${at}`, 'x'.repeat(1_000_000)]));
    expect(refusedField(raw(files))).toBe('files');
  });

  it('cannot put control characters or endless text into what people read', () => {
    const { system, warnings } = normaliseInventory(
      raw({
        sysfs: `/sys/class/dmi/id/product_name=\u001b]0;owned\u0007R\u202e640\u0000${'x'.repeat(5000)}\n`,
        warnings: '\u001b[2J<script>\ud800\n',
      }),
    );
    expect(system.product).toHaveLength(128);
    expect(system.product).toMatch(/^\]0;owned R 640 x+$/);
    expect(warnings).toEqual(['[2J<script>']);
  });

  it('gives a warning, no refusal, for a tool that was cut off', () => {
    const inventory = normaliseInventory(raw({ sysfs: '/sys/block/sda/size=2048\n', lsblk: '{"blockdev' }));
    expect(inventory.warnings).toEqual(['the output of lsblk is no JSON']);
    expect(inventory.disks).toHaveLength(1);
  });

  it('is answered by an inventory or by a refusal, whatever the bytes', () => {
    const names = fc.constantFrom(
      'sysfs',
      'net',
      'lsblk',
      'wipefs',
      'dmidecode',
      'lscpu',
      'lspci',
      'ip',
      'efibootmgr',
      'ipmi-lan',
      'lldp-eth0',
      'smart-sda',
    );
    const base = fixture('dell-r640').files;
    const mutated = fc
      .tuple(names, fc.nat(5000), fc.nat(40), fc.string({ unit: 'binary', maxLength: 40 }))
      .map(([name, at, cut, text]): [string, string] => {
        const old = base[name] ?? '';
        return [name, old.slice(0, at) + text + old.slice(at + cut)];
      });
    const json = fc.tuple(names, fc.json({ maxDepth: 5 }));
    const garbage = fc.tuple(names, fc.string({ unit: 'binary', maxLength: 2000 }));
    fc.assert(
      fc.property(fc.array(fc.oneof(mutated, json, garbage), { maxLength: 4 }), changes => {
        const report = raw({ ...base, ...Object.fromEntries(changes) });
        const field = refusedField(report);
        if (field !== 'accepted') return;
        const text = JSON.stringify(normaliseInventory(report));
        // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is checked
        expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
        expect(text.length).toBeLessThan(1_000_000);
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.anything({ withNullPrototype: true, withBigInt: true }), anything => {
        expect(() => refusedField(anything)).not.toThrow();
      }),
      { numRuns: 500 },
    );
  });
});
