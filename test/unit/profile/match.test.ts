import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Inventory } from '../../../provisioner/inventory/types.js';
import type { Node } from '../../../provisioner/node/types.js';
import { globMatches } from '../../../provisioner/profile/glob.js';
import { claimChange, matchProfiles, type NodeMatch } from '../../../provisioner/profile/match.js';
import { isMadeUpName, nameOf, numberIn } from '../../../provisioner/profile/names.js';
import { misfits, rackOf } from '../../../provisioner/profile/rules.js';
import type { Match } from '../../../provisioner/site/profile-schema.js';
import { aDisk, aNic, had, hardware, idOf, machine, macOf, siteFaults, siteWith } from './machines.js';

const rules = (match: object): Match => siteWith({ profiles: [{ name: 'p', match }] }).profiles[0]!.match;
const why = (match: object, inventory: Inventory) => misfits(rules(match), inventory);

describe('rules', () => {
  const server = hardware(1, 32, {
    system: { manufacturer: 'Dell Inc.', product: 'PowerEdge R640', serial: '7XK1', uuid: null, asset: null },
    cpu: {
      model: 'Intel(R) Xeon(R) Gold 6330',
      arch: 'x86_64',
      sockets: 1,
      cores: 28,
      threads: 56,
      numaNodes: 1,
      flags: [],
    },
    disks: [
      aDisk(),
      aDisk({
        path: '/dev/nvme0n1',
        type: 'nvme',
        sizeBytes: 1920e9,
        model: 'SAMSUNG MZQL',
        controller: '0000:5e:00.0',
      }),
      aDisk({ path: '/dev/sdz', type: 'hdd', sizeBytes: 8e9, removable: true }),
    ],
    nics: [
      aNic(macOf(1), {
        speedMbps: 25_000,
        driver: 'mlx5_core',
        lldp: { chassis: null, system: 'leaf-r1a', port: 'Ethernet7' },
      }),
      aNic(macOf(1, 2), { speedMbps: null }),
    ],
    pci: [
      { address: '0000:00:1f.2', class: 'RAID', vendor: 'Broadcom', device: 'MegaRAID SAS-3', driver: 'megaraid_sas' },
    ],
    firmware: {
      type: 'uefi',
      vendor: 'Dell',
      version: '2.14.2',
      date: null,
      secureBoot: false,
      bootCurrent: null,
      bootOrder: [],
    },
  });

  it.each<[string, object]>([
    ['product and maker', { product: 'poweredge r6?0', manufacturer: 'Dell*', serial: '7XK*', arch: 'x86_64' }],
    ['CPUs', { cpu: { model: '*Gold 63*', sockets: { min: 1, max: 1 }, cores: { min: 28 }, threads: { max: 56 } } }],
    ['memory within bounds', { memory_gib: { min: 32, max: 32 } }],
    ['a disk of a kind', { disks: [{ type: 'nvme', min_gb: 1900, max_gb: 2000, model: 'samsung*' }] }],
    ['disks of several kinds', { disks: [{ type: 'nvme' }, { type: 'ssd' }, { count: { min: 2, max: 2 } }] }],
    ['a controller by name', { disks: [{ controller: '*MegaRAID*' }] }],
    ['a controller by driver', { disks: [{ controller: 'megaraid_sas' }] }],
    ['a controller by address', { disks: [{ controller: '0000:5e:00.0' }] }],
    ['no disk of a kind', { disks: [{ type: 'hdd', count: { min: 0, max: 0 } }] }],
    ['a NIC', { nics: [{ min_mbps: 25_000, driver: 'mlx5*', lldp: { system: 'leaf-r1?', port: 'Ethernet*' } }] }],
    ['a neighbour', { lldp: { system: 'leaf-r1a' } }],
    ['firmware', { firmware: { type: 'uefi', vendor: 'dell', version: '2.14*', secure_boot: false } }],
  ])('let %s in', (_, match) => expect(why(match, server)).toEqual([]));

  it.each<[object, string]>([
    [{ product: 'R750' }, 'needs the product R750, has "PowerEdge R640"'],
    [{ arch: 'aarch64' }, 'needs the architecture aarch64, has x86_64'],
    [{ memory_gib: { min: 64 } }, 'needs at least 64 GiB of memory, has 32 GiB'],
    [{ memory_gib: { max: 16 } }, 'needs at most 16 GiB of memory, has 32 GiB'],
    [{ cpu: { sockets: { min: 2 } } }, 'needs at least 2 CPU sockets, has 1 CPU socket'],
    [
      { disks: [{ type: 'nvme', min_gb: 900, count: { min: 2 } }] },
      'needs at least 2 disks (nvme, from 900 GB), has 1 among 960 GB ssd, 1920 GB nvme',
    ],
    [{ disks: [{ count: { max: 1 } }] }, 'needs at most 1 disk, has 2'],
    [
      { nics: [{ min_mbps: 25_000, count: { min: 2 } }] },
      'needs at least 2 NICs (from 25000 Mb/s), has 1 among 25000 Mb/s, one of unknown speed',
    ],
    [
      { lldp: { system: 'leaf-r2*', port: 'x' } },
      'needs the neighbour leaf-r2* port x (LLDP), sees leaf-r1a port Ethernet7',
    ],
    [{ firmware: { type: 'bios' } }, 'needs firmware of the type bios, has uefi'],
    [{ firmware: { secure_boot: true } }, 'needs Secure Boot on, has it off'],
    [{ firmware: { version: '3.*' } }, 'needs the firmware version 3.*, has "2.14.2"'],
  ])('say what is missing: %j', (match, sentence) => expect(why(match, server)).toEqual([sentence]));

  it('say all that is missing, and never round up', () => {
    const tight = hardware(1, 63.96);
    expect(why({ memory_gib: { min: 64 }, lldp: { system: 'x' }, product: 'Z' }, tight)).toEqual([
      'needs the product Z, has "R1"',
      'needs at least 64 GiB of memory, has 63.9 GiB',
      'needs the neighbour x (LLDP), sees none',
    ]);
  });

  it('find the rack by the switch, and nothing where two say different things', () => {
    const { racks } = siteWith({
      racks: [
        { name: 'r1', switches: ['leaf-r1*'], first_unit: 3, units_per_port: 2 },
        { name: 'r2', switches: ['leaf-r2*'] },
      ],
    });
    expect(rackOf(racks, server)).toEqual({ name: 'r1', unit: 15 });
    const lldp = (system: string, port: string) => ({ chassis: null, system, port });
    const at = (...seen: [string, string][]) =>
      rackOf(racks, hardware(1, 1, { nics: seen.map(([s, p], i) => aNic(macOf(1, i + 1), { lldp: lldp(s, p) })) }));
    expect(at(['leaf-r1a', 'Eth1/4'], ['leaf-r1b', 'Eth1/4'])).toEqual({ name: 'r1', unit: 9 });
    expect(at(['leaf-r1a', 'Eth1/4'], ['leaf-r1b', 'Eth1/5'])).toEqual({ name: 'r1', unit: null });
    expect(at(['leaf-r1a', 'Eth1/4'], ['leaf-r2a', 'Eth1/4'])).toBeNull();
    expect(at(['spine', 'Eth1/4'])).toBeNull();
  });
});

describe('patterns', () => {
  it.each([
    ['*', '', true],
    ['a*c', 'abbc', true],
    ['a*c', 'abcd', false],
    ['?', '', false],
    ['a?c', 'ABC', true],
    ['*ab', 'aab', true],
    ['a.c', 'abc', false],
    ['(x)*', '(X) y', true],
  ])('%s against %s: %s', (pattern, text, fits) => expect(globMatches(pattern, text)).toBe(fits));

  it('agree with a regular expression', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 8 });
    fc.assert(
      fc.property(letters, fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 8 }), (pattern, text) => {
        const regex = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`);
        expect(globMatches(pattern, text)).toBe(regex.test(text));
      }),
      { numRuns: 500 },
    );
  });

  it('take no time for a nasty one', () => {
    expect(globMatches(`${'*a'.repeat(60)}b`, 'a'.repeat(128))).toBe(false);
  });
});

describe('names', () => {
  it('are made from a template and read back', () => {
    expect(nameOf('compute-##', 7)).toBe('compute-07');
    expect(nameOf('c#-dc1', 123)).toBe('c123-dc1');
    expect(numberIn('compute-##', 'compute-07')).toBe(7);
    expect(numberIn('compute-##', 'compute-7')).toBeNull();
    expect(numberIn('compute-##', 'storage-07')).toBeNull();
    expect(numberIn('c#-dc1', 'c123-dc1')).toBe(123);
    expect(isMadeUpName('node-525400990001')).toBe(true);
    expect(isMadeUpName('node-5254009900zz')).toBe(false);
    expect(isMadeUpName('node-1')).toBe(false);
  });
});

const PROFILES = [
  {
    name: 'controller',
    priority: 20,
    at_most: 3,
    auto_claim: true,
    match: { memory_gib: { min: 64 } },
    node_name: 'ctl-#',
    roles: ['controller'],
  },
  {
    name: 'compute',
    priority: 10,
    auto_claim: true,
    match: { memory_gib: { min: 32 } },
    node_name: 'compute-##',
    roles: ['compute'],
  },
];
const ofNode = (matches: readonly NodeMatch[], n: number) => matches.find(m => m.nodeId === idOf(n))!;

describe('elimination', () => {
  it('fills the higher priority up, gives the rest to the next, and says why not', () => {
    const site = siteWith({ profiles: PROFILES });
    const nodes = [1, 2, 3, 4, 5].map(n => machine(n, hardware(n, n === 5 ? 16 : 64)));
    const matches = matchProfiles(site, nodes);
    expect(matches.map(m => [m.kind, m.becomes?.name])).toEqual([
      ['matched', 'ctl-1'],
      ['matched', 'ctl-2'],
      ['matched', 'ctl-3'],
      ['matched', 'compute-01'],
      ['none', undefined],
    ]);
    expect(matches[0]).toMatchObject({
      sentence: 'It fits controller, and no other is left.',
      rejected: [{ profile: 'compute', reasons: ['has priority 10, below 20 of controller'] }],
      claim: { automatic: true, sentence: 'By itself.' },
    });
    expect(matches[3]!.rejected[0]!.reasons[0]).toMatch(/^has its 3 nodes already: node-52540001/);
    expect(matches[4]!.rejected).toEqual([
      { profile: 'controller', reasons: ['needs at least 64 GiB of memory, has 16 GiB'] },
      { profile: 'compute', reasons: ['needs at least 32 GiB of memory, has 16 GiB'] },
    ]);
  });

  it('refuses what fits two of the same priority, with both names', () => {
    const site = siteWith({
      profiles: PROFILES.map(p => ({ ...p, priority: 5, at_most: undefined })).map(({ at_most: _, ...p }) => p),
    });
    const [match] = matchProfiles(site, [machine(1, hardware(1, 64))]);
    expect(match).toMatchObject({
      kind: 'ambiguous',
      profile: null,
      becomes: null,
      claim: null,
      sentence:
        'It fits controller and compute, all of priority 5; give one of them a higher priority or a narrower rule.',
    });
  });

  it('goes on until one is left: who has no choice fills a profile, and that decides for who has', () => {
    const site = siteWith({
      profiles: [
        { name: 'big', at_most: 1, match: { memory_gib: { min: 64 } } },
        { name: 'any', match: { memory_gib: { min: 1 }, cpu: { threads: { min: 8 } } } },
      ],
    });
    const small = { ...hardware(1, 64).cpu };
    const nodes = [machine(1, hardware(1, 64, { cpu: { ...small, threads: 8 } })), machine(2, hardware(2, 64))];
    expect(matchProfiles(site, nodes).map(m => m.profile)).toEqual(['any', 'big']);
  });

  it('counts those that have a profile already, in whatever state, and keeps their places', () => {
    const site = siteWith({ profiles: PROFILES });
    const held = [1, 2, 3].map(n =>
      machine(n, hardware(n, 64), {
        name: `ctl-${n}`,
        state: 'ready',
        status: { profile: had('controller', n) },
      }),
    );
    const matches = matchProfiles(site, [...held, machine(4, hardware(4, 64))]);
    expect(matches.map(m => [m.kind, m.profile])).toEqual([
      ['held', 'controller'],
      ['held', 'controller'],
      ['held', 'controller'],
      ['matched', 'compute'],
    ]);
    expect(matches[3]!.rejected[0]!.reasons).toEqual(['has its 3 nodes already: ctl-1, ctl-2, ctl-3']);
  });
});

describe('what the file names', () => {
  const site = siteWith({
    profiles: PROFILES,
    nodes: [
      { name: 'a', macs: [macOf(1)] },
      { name: 'b', serial: 'SER2' },
      { name: 'c', macs: [macOf(3, 9)] },
      { name: 'ctl-1', serial: 'ELSEWHERE' },
    ],
  });
  it('wins over every profile: by MAC, by serial, by a MAC that only the inventory shows', () => {
    const system = { manufacturer: null, product: null, serial: 'SER2', uuid: null, asset: null };
    const matches = matchProfiles(site, [
      machine(1, hardware(1, 64)),
      machine(2, hardware(2, 64, { system })),
      machine(3, hardware(3, 64, { nics: [aNic(macOf(3)), aNic(macOf(3, 9))] })),
      machine(4, hardware(4, 64)),
    ]);
    expect(matches.map(m => [m.kind, m.sentence])).toEqual([
      ['named', 'The site file names it under nodes as a.'],
      ['named', 'The site file names it under nodes as b.'],
      ['named', 'The site file names it under nodes as c.'],
      ['matched', 'It fits controller, and no other is left.'],
    ]);
    // The name of a node of the file is not given away, even if that machine was never seen.
    expect(matches[3]!.becomes!.name).toBe('ctl-2');
  });
});

describe('what follows', () => {
  const site = siteWith({
    layouts: {
      disk: [{ name: 'mirrored', kind: 'mdraid' }],
      network: [
        {
          name: 'bonded',
          interfaces: [
            { name: 'boot0', nic: { boot: true }, dhcp: true },
            { name: 'bond0', bond: { nics: [{ min_mbps: 25_000 }, { min_mbps: 25_000 }] } },
            { name: 'storage', vlan: { id: 100, link: 'bond0' }, first_address: '10.97.0.11/24', mtu: 9000 },
          ],
        },
      ],
    },
    racks: [{ name: 'r1', switches: ['leaf-r1*'] }],
    profiles: [
      {
        name: 'compute',
        match: { memory_gib: { min: 32 } },
        node_name: 'compute-##',
        roles: ['compute'],
        image: 'debian-12',
        disk_layout: 'mirrored',
        network_layout: 'bonded',
        bmc: { driver: 'ipmi', user: 'halligan', password: 'secret:bmc/r1' },
      },
    ],
  });
  const full = (n: number) =>
    hardware(n, 64, {
      disks: [aDisk(), aDisk({ path: '/dev/sdb' })],
      nics: [
        aNic(macOf(n), { addresses: ['10.99.0.7/24'] }),
        aNic(macOf(n, 2), { speedMbps: 25_000 }),
        aNic(macOf(n, 3), { speedMbps: 25_000, lldp: { chassis: null, system: 'leaf-r1a', port: 'swp12' } }),
      ],
      bmc: { address: '10.98.0.7', mac: null, vendor: null, firmware: null },
    });

  it('is the name, the roles, both layouts with this machine’s own NICs, the BMC and the place', () => {
    const node = machine(1, full(1));
    const [match] = matchProfiles(site, [node]);
    expect(match!.becomes).toEqual({
      name: 'compute-01',
      number: 1,
      roles: ['compute'],
      install: {
        image: 'debian-12',
        disk_layout: { kind: 'mdraid', disks: [{}, {}] },
        interfaces: [
          { name: 'boot0', mac: macOf(1), dhcp: true, addresses: [], dns: [] },
          {
            name: 'bond0',
            bond: { macs: [macOf(1, 2), macOf(1, 3)], mode: 'active-backup' },
            dhcp: false,
            addresses: [],
            dns: [],
          },
          {
            name: 'storage',
            vlan: { id: 100, link: 'bond0' },
            dhcp: false,
            addresses: ['10.97.0.11/24'],
            dns: [],
            mtu: 9000,
          },
        ],
      },
      bmc: { driver: 'ipmi', address: '10.98.0.7', user: 'halligan', password: 'secret:bmc/r1', cipher_suite: 3 },
      rack: { name: 'r1', unit: 12 },
    });
    expect(claimChange(node, match!)).toMatchObject({
      name: 'compute-01',
      spec: { roles: ['compute'], rack: { name: 'r1', unit: 12 } },
      status: { profile: { name: 'compute', number: 1 } },
    });
  });

  it('leaves what an operator said of the node', () => {
    const node = machine(1, full(1), { spec: { install: { image: 'mine' }, rack: { name: 'x', unit: 1 } } });
    const change = claimChange(node, matchProfiles(site, [node])[0]!)!;
    expect(change.spec.install).toMatchObject({ image: 'mine', disk_layout: { kind: 'mdraid' } });
    expect(change.spec).not.toHaveProperty('rack');
  });

  it('takes the place of what an earlier profile gave, and of nothing else', () => {
    const gave = { roles: ['storage'], install: { image: 'old', user_data: '#cloud-config\n' } };
    const node = machine(1, full(1), {
      name: 'compute-04',
      spec: { roles: ['storage'], install: { image: 'old', user_data: '#cloud-config\npackages: [tmux]\n' } },
      status: { profile: had('storage', 4, gave) },
    });
    const change = claimChange(node, matchProfiles(site, [node])[0]!)!;
    expect(change.spec.roles).toEqual(['compute']);
    expect(change.spec.install).toMatchObject({ image: 'debian-12', user_data: '#cloud-config\npackages: [tmux]\n' });
  });

  it('is nothing for a node that an operator gave roles', () => {
    const node = machine(1, full(1), { spec: { roles: ['network'] } });
    expect(matchProfiles(site, [node])[0]).toMatchObject({
      kind: 'taken',
      sentence: 'An operator gave it the roles network.',
      becomes: null,
    });
  });

  it.each<[string, Partial<Inventory>, string]>([
    ['disks', { disks: [aDisk()] }, 'Not by itself: the disk layout mirrored: No disk number 2 of 2 fits'],
    [
      'NICs',
      { nics: [aNic(macOf(1))] },
      'Not by itself: the network layout bonded needs another NIC for bond0 (from 25000 Mb/s).',
    ],
    ['a BMC', { bmc: null }, 'Not by itself: its inventory tells no address of a BMC.'],
  ])('says what the layout lacks: %s', (_, over, sentence) => {
    const [match] = matchProfiles(site, [machine(1, { ...full(1), ...over })]);
    expect(match).toMatchObject({ kind: 'matched', becomes: null, claim: { automatic: false } });
    expect(match!.claim!.sentence).toContain(sentence);
  });

  it('gives no address away that another node has', () => {
    const other = machine(9, null, { name: 'old', spec: { address: '10.97.0.11' } });
    const [match] = matchProfiles(site, [machine(1, full(1)), other]);
    expect(match!.claim!.sentence).toBe('Not by itself: the address 10.97.0.11/24 of storage belongs to old.');
  });
});

describe('other people’s data', () => {
  const data = { offset: 1080, type: 'ext4', label: 'photos', uuid: null, partition: null };
  const disks = (n: number, over = {}) =>
    hardware(n, 64, { disks: [aDisk(), aDisk({ path: '/dev/sdb', signatures: [data], ...over })] });
  const site = (foreign_data?: string) =>
    siteWith({ profiles: [{ ...PROFILES[1], ...(foreign_data ? { foreign_data } : {}) }] });

  it('on any disk keeps a node from being claimed by itself', () => {
    expect(matchProfiles(site(), [machine(1, disks(1))])[0]!.claim).toEqual({
      automatic: false,
      sentence:
        'Not by itself: /dev/sdb carries ext4 "photos", and the profile compute does not say foreign_data: claim.',
    });
    const another = { signatures: [], ownedBy: { nodeId: 'deadbeef' } };
    expect(matchProfiles(site(), [machine(1, disks(1, another))])[0]!.claim!.automatic).toBe(false);
  });

  it('does not where the profile allows it, where it is ours, or on a stick', () => {
    expect(matchProfiles(site('claim'), [machine(1, disks(1))])[0]!.claim).toEqual({
      automatic: true,
      sentence: 'By itself, although /dev/sdb carries ext4 "photos" (foreign_data: claim).',
    });
    const own = { ownedBy: { nodeId: idOf(1).slice(0, 8) } };
    expect(matchProfiles(site(), [machine(1, disks(1, own))])[0]!.claim!.automatic).toBe(true);
    expect(matchProfiles(site(), [machine(1, disks(1, { removable: true }))])[0]!.claim!.automatic).toBe(true);
  });
});

describe('names that were given', () => {
  const site = siteWith({ profiles: PROFILES });
  it('stay, also when their node was released, and are not given twice', () => {
    const released = machine(7, hardware(7, 32), {
      name: 'compute-05',
      status: { profile: had('compute', 5) },
    });
    const renamed = machine(8, hardware(8, 32), { name: 'bob', status: { profile: had('compute', 1) } });
    const matches = matchProfiles(site, [machine(1, hardware(1, 32)), released, renamed, machine(2, hardware(2, 32))]);
    expect(matches.map(m => [m.becomes?.name, m.becomes?.number])).toEqual([
      ['compute-02', 2],
      ['compute-05', 5],
      ['bob', 1],
      ['compute-03', 3],
    ]);
  });
});

describe('two templates', () => {
  it('that make one name do not give it twice', () => {
    const site = siteWith({
      profiles: [
        { ...PROFILES[1], name: 'a', at_most: 10, node_name: 'c#' },
        { ...PROFILES[1], name: 'b', priority: 0, node_name: 'c##' },
      ],
    });
    const ready = Array.from({ length: 18 }, (_, i) =>
      machine(i + 1, hardware(i + 1, 64), {
        name: `x${i}`,
        state: 'ready',
        status: { profile: had(i < 9 ? 'a' : 'b', (i % 9) + 1) },
      }),
    );
    const matches = matchProfiles(site, [...ready, machine(40, hardware(40, 64)), machine(41, hardware(41, 64))]);
    expect(matches.slice(-2).map(m => [m.profile, m.becomes!.name])).toEqual([
      ['a', 'c10'],
      ['b', 'c11'],
    ]);
  });
});

describe('for any machines and any profiles', () => {
  const profile = fc.record({
    priority: fc.integer({ min: 0, max: 2 }),
    at_most: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
    auto_claim: fc.boolean(),
    foreign_data: fc.constantFrom('refuse', 'claim'),
    match: fc.record({
      memory_gib: fc.record({ min: fc.constantFrom(1, 16, 32), max: fc.constantFrom(32, 64) }),
      cpu: fc.record({ threads: fc.record({ min: fc.constantFrom(1, 2, 4) }) }),
    }),
  });
  const rack = fc.record({
    profiles: fc.array(profile, { maxLength: 4 }),
    pinned: fc.boolean(),
    machines: fc.array(
      fc.record({
        gib: fc.constantFrom(8, 16, 32, 64, null),
        threads: fc.constantFrom(1, 2, 4),
        state: fc.constantFrom('available', 'available', 'available', 'claimed', 'ready', 'discovered'),
        before: fc.option(fc.record({ profile: fc.nat({ max: 3 }), number: fc.integer({ min: 1, max: 9 }) }), {
          nil: null,
        }),
        data: fc.boolean(),
      }),
      { maxLength: 8 },
    ),
  });
  type Rack = typeof rack extends fc.Arbitrary<infer T> ? T : never;

  const build = ({ profiles, pinned, machines }: Rack) => {
    const site = siteWith({
      profiles: profiles.map(({ at_most, ...p }, i) => ({
        name: `p${i}`,
        node_name: `p${i}-##`,
        roles: ['compute'],
        ...(at_most === undefined ? {} : { at_most }),
        ...p,
      })),
      nodes: pinned ? [{ name: 'pinned', macs: [macOf(1)] }] : [],
    });
    const used = new Set<string>();
    const nodes = machines.map(({ gib, threads, state, before, data }, i): Node => {
      const n = i + 1;
      const key = before && `${before.profile} ${before.number}`;
      const keeps = before && key !== null && before.profile < profiles.length && !used.has(key);
      if (keeps) used.add(key!);
      const base = gib === null ? null : hardware(n, gib);
      const signatures = data ? [{ offset: 0, type: 'xfs', label: null, uuid: null, partition: null }] : [];
      const inventory = base && { ...base, cpu: { ...base.cpu, threads }, disks: [aDisk({ signatures })] };
      return machine(n, inventory, {
        state: state as Node['state'],
        ...(keeps ? { name: nameOf(`p${before.profile}-##`, before.number) } : {}),
        status: { profile: keeps ? had(`p${before.profile}`, before.number) : null },
      });
    });
    return { site, nodes };
  };

  it('holds: the order of nodes does not matter', () => {
    fc.assert(
      fc.property(rack, fc.infiniteStream(fc.nat()), (parts, random) => {
        const { site, nodes } = build(parts);
        const shuffled = [...nodes]
          .map(node => ({ node, key: random.next().value as number }))
          .sort((a, b) => a.key - b.key)
          .map(e => e.node);
        const sorted = (list: readonly NodeMatch[]) => [...list].sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
        expect(sorted(matchProfiles(site, shuffled))).toEqual(sorted(matchProfiles(site, nodes)));
      }),
      { numRuns: 200 },
    );
  }, 120_000);

  it('holds: never more than at_most, never a claim without a match, the file wins, names are unique and stay', () => {
    fc.assert(
      fc.property(rack, parts => {
        const { site, nodes } = build(parts);
        const matches = matchProfiles(site, nodes);
        expect(matches.map(m => m.nodeId)).toEqual(nodes.map(n => n.id));
        for (const [i, p] of site.profiles.entries()) {
          const held = matches.filter(m => m.kind === 'held' && m.profile === p.name).length;
          const matched = matches.filter(m => m.kind === 'matched' && m.profile === p.name).length;
          if (matched > 0) expect(held + matched).toBeLessThanOrEqual(p.at_most ?? Number.POSITIVE_INFINITY);
          expect(p.name).toBe(`p${i}`);
        }
        for (const match of matches) {
          const node = nodes.find(n => n.id === match.nodeId)!;
          if (match.claim?.automatic) {
            const won = site.profiles.find(p => p.name === match.profile)!;
            expect(match.kind).toBe('matched');
            expect(node.state).toBe('available');
            expect(won.auto_claim).toBe(true);
            expect(misfits(won.match, node.status.inventory!)).toEqual([]);
            if (node.status.inventory!.disks[0]!.signatures.length > 0) expect(won.foreign_data).toBe('claim');
          }
          if (match.kind !== 'matched') expect(claimChange(node, match)).toBeNull();
          if (match.kind === 'none' || match.kind === 'ambiguous' || match.kind === 'matched') {
            const considered = new Set([...match.rejected.map(r => r.profile), match.profile]);
            if (match.kind !== 'ambiguous') for (const p of site.profiles) expect(considered).toContain(p.name);
            for (const r of match.rejected) expect(r.reasons.every(reason => /^(needs|has) ./.test(reason))).toBe(true);
          }
          if (match.becomes && !isMadeUpName(node.name)) expect(match.becomes.name).toBe(node.name);
        }
        if (parts.pinned && nodes.length > 0) expect(ofNode(matches, 1).kind).toBe('named');
        const after = matches.map((m, i) => m.becomes?.name ?? nodes[i]!.name);
        expect(new Set(after).size).toBe(after.length);
      }),
      { numRuns: 200 },
    );
  }, 120_000);

  it('holds: what was claimed one by one is what was shown for all at once', () => {
    fc.assert(
      fc.property(rack, parts => {
        const { site, nodes } = build(parts);
        const shown = matchProfiles(site, nodes);
        let now = nodes;
        for (const match of shown) {
          const node = now.find(n => n.id === match.nodeId)!;
          const again = ofNode(matchProfiles(site, now), Number.parseInt(node.id.slice(0, 8), 16));
          expect(again.becomes).toEqual(match.becomes);
          const change = claimChange(node, again);
          if (!change || !again.claim?.automatic) continue;
          now = now.map(n =>
            n.id === node.id
              ? {
                  ...n,
                  state: 'claimed',
                  name: change.name ?? n.name,
                  spec: { ...n.spec, ...change.spec },
                  status: { ...n.status, ...change.status },
                }
              : n,
          );
        }
      }),
      { numRuns: 150 },
    );
  }, 120_000);
});

describe('site check of profiles', () => {
  const good = { name: 'p', match: { product: 'x' } };
  it.each<[string, object, string]>([
    [
      'a layout that is not there',
      { profiles: [{ ...good, disk_layout: 'mirored' }], layouts: { disk: [{ name: 'mirrored' }] } },
      'profiles[0].disk_layout: expected the name of an entry of layouts.disk (mirrored), found "mirored"; did you mean mirrored?',
    ],
    ['two of one name', { profiles: [good, good] }, 'profiles[1].name: profile p is already used at profiles[0].name'],
    [
      'a name without a number',
      { profiles: [{ ...good, node_name: 'x' }] },
      'profiles[0].node_name: expected one run of # for the number, found 0 in "x"',
    ],
    [
      'two numbers in a name',
      { profiles: [{ ...good, node_name: '#-x-##' }] },
      'profiles[0].node_name: expected one run of # for the number, found 2 in "#-x-##"',
    ],
    [
      'a claim of everything',
      { profiles: [{ name: 'p', match: {}, auto_claim: true }] },
      'profiles[0].match: expected at least one rule: without one, auto_claim takes every machine that boots',
    ],
    [
      'bounds the wrong way round',
      { profiles: [{ name: 'p', match: { memory_gib: { min: 64, max: 32 } } }] },
      'profiles[0].match.memory_gib.max: expected at least min (64), found 32',
    ],
    [
      'a misspelt rule',
      { profiles: [{ name: 'p', match: { memroy_gib: { min: 64 } } }] },
      'profiles[0].match.memroy_gib: unknown field; did you mean memory_gib?',
    ],
    ['an unknown role', { profiles: [{ ...good, roles: ['computer'] }] }, 'profiles[0].roles[0]: expected one of'],
    [
      'an interface of nothing',
      { layouts: { network: [{ name: 'n', interfaces: [{ name: 'a', dhcp: true }] }] } },
      'layouts.network[0].interfaces[0]: expected exactly one of nic, bond and vlan, found none',
    ],
    [
      'a VLAN on nothing',
      {
        layouts: {
          network: [
            {
              name: 'n',
              interfaces: [
                { name: 'a', nic: {}, dhcp: true },
                { name: 'v', vlan: { id: 5, link: 'b' } },
              ],
            },
          ],
        },
      },
      'layouts.network[0].interfaces[1].vlan.link: expected the name of an interface of this list, found "b"',
    ],
    [
      'addresses that two profiles count',
      {
        layouts: { network: [{ name: 'n', interfaces: [{ name: 'a', nic: {}, first_address: '10.97.0.1/24' }] }] },
        profiles: [
          { ...good, network_layout: 'n' },
          { ...good, name: 'q', network_layout: 'n' },
        ],
      },
      'profiles[1].network_layout: expected another layout than that of p: both would count their addresses from first_address of n',
    ],
    [
      'one disk for a mirror',
      { layouts: { disk: [{ name: 'm', kind: 'mdraid', disks: [{}] }] } },
      'layouts.disk[0].disks: expected 2 for mdraid, found 1',
    ],
    [
      'two machines in one place',
      {
        nodes: [
          { name: 'a', serial: 'S1', rack: { name: 'r', unit: 3 } },
          { name: 'b', serial: 'S2', rack: { name: 'r', unit: 3 } },
        ],
      },
      'nodes[1].rack.unit: rack unit 3 of r is already used at nodes[0].rack.unit',
    ],
    [
      'a password',
      { profiles: [{ ...good, bmc: { driver: 'ipmi', user: 'u', password: 'hunter2' } }] },
      'profiles[0].bmc.password: expected a reference to a secret',
    ],
  ])('refuses %s', (_, parts, sentence) => {
    const all = siteFaults(parts);
    expect(all).toHaveLength(1);
    expect(all[0]!.startsWith(sentence), all[0]).toBe(true);
    expect(all[0]).not.toContain('hunter2');
  });
});
