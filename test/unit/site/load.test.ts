import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { exportSite } from '../../../provisioner/site/export.js';
import { type LoadedSite, loadSite, loadSiteOrThrow } from '../../../provisioner/site/load.js';
import { nodeView } from '../api/fakes.js';

const good = (text: string): LoadedSite => {
  const loaded = loadSite(text, 'site.yaml');
  if (Array.isArray(loaded)) throw new Error(loaded.map(p => p.message).join('\n'));
  return loaded;
};
const faults = (text: string): string[] => {
  const loaded = loadSite(text, 'site.yaml');
  return Array.isArray(loaded) ? loaded.map(p => p.message) : [];
};
const BASE = {
  version: 1,
  name: 'dc1',
  networks: [
    { name: 'boot', cidr: '10.99.0.0/24', interface: 'br0', pool: { from: '10.99.0.200', to: '10.99.0.239' } },
  ] as Record<string, unknown>[],
  nodes: [] as Record<string, unknown>[],
};
/** The faults of the base site with one network and one node changed, without the `site.yaml:LINE: `. */
const faultsWith = (network: object, ...nodes: object[]): string[] =>
  faults(
    stringify({
      ...BASE,
      networks: [{ ...BASE.networks[0], ...network }],
      nodes: nodes.map((n, i) => ({ name: `n${i}`, macs: [`52:54:00:99:00:0${i}`], ...n })),
    }),
  ).map(m => m.replace(/^site\.yaml:\d+:\d+: /, ''));

describe('loadSite', () => {
  it('fills in every default of the least site that is possible', () => {
    const { site } = good(
      'version: 1\nname: dc1\nnetworks:\n- {name: boot, cidr: 10.99.0.0/24, interface: br0, pool: {from: 10.99.0.200, to: 10.99.0.239}}\n',
    );
    expect(site.api).toEqual({ listen: '127.0.0.1', port: 7480 });
    expect(site.boot.http_port).toBe(7481);
    expect(site.discovery.unknown).toBe('inspect');
    expect(site.networks[0]!.lease_seconds).toBe(600);
    expect(site.install).toEqual({ login: 'halligan', ssh_keys: [] });
    expect(site.nodes).toEqual([]);
  });

  it('reads the example of the documentation', () => {
    const loaded = good(readFileSync('docs/example-site.yaml', 'utf8'));
    expect(loaded.site.nodes.map(n => n.name)).toEqual(['n01', 'n02', 'n03']);
    const line = readFileSync('docs/example-site.yaml', 'utf8').split('\n').indexOf('  - name: n02') + 1;
    expect(loaded.placeOf(['nodes', 1])).toEqual({ file: 'site.yaml', line, column: 5 });
  });

  it('names line, field, what was expected and what stands there', () => {
    const text =
      'version: 1\nname: dc1\nnetworks:\n  - name: boot\n    interface: br0\n    cidr: 10.99.0/24\n    pool: {from: 10.99.0.200, to: 10.99.0.239}\n';
    expect(faults(text)).toEqual([
      'site.yaml:6:11: networks[0].cidr: expected an IPv4 subnet like 10.99.0.0/24, found "10.99.0/24"',
    ]);
    const [fault] = loadSite(text, 'site.yaml') as Exclude<ReturnType<typeof loadSite>, LoadedSite>;
    expect(fault).toMatchObject({
      code: 'site-invalid',
      detail: { file: 'site.yaml', line: 6, column: 11, field: 'networks[0].cidr' },
    });
  });

  it('tells all faults at once, those of shape and those of sense, in the order of their lines', () => {
    const text = readFileSync('test/unit/site/golden/many-faults.yaml', 'utf8');
    expect(`${faults(text).join('\n')}\n`).toBe(readFileSync('test/unit/site/golden/many-faults.golden', 'utf8'));
  });

  it('puts the line of the wrong thing into each sentence', () => {
    const text = readFileSync('test/unit/site/golden/many-faults.yaml', 'utf8').split('\n');
    for (const message of faults(text.join('\n'))) {
      const line = Number(/^site\.yaml:(\d+):\d+:/.exec(message)![1]);
      const last = /: (\S+?)(\[\d+\])?: /
        .exec(message)![1]!
        .split('.')
        .pop()!
        .replace(/\[\d+\]/g, '');
      // The line has the field, or (where the field is missing or an item of a list) begins its parent.
      expect(text[line - 1], message).toMatch(new RegExp(`${last}|bmc|- `));
    }
  });

  it('asks for a known field where one is misspelt', () => {
    expect(faultsWith({ intreface: 'br1' })).toEqual(['networks[0].intreface: unknown field; did you mean interface?']);
    expect(faults(stringify({ ...BASE, zzz: 1 }))[0]).toMatch(
      /unknown field; known here are: version, include, vars, name, domain/,
    );
  });

  it('shows a number as it is written and asks for quotes', () => {
    expect(faults(stringify(BASE).replace('name: dc1', 'name: 0123'))[0]).toMatch(/found 0123; put it in quotes$/);
  });

  it('never repeats a password that stands where a reference belongs', () => {
    const all = faultsWith({}, { bmc: { driver: 'ipmi', address: 'h', user: 'u', password: 'hunter2-secret' } });
    expect(all[0]).toMatch(/expected a reference to a secret/);
    expect(JSON.stringify(all)).not.toContain('hunter2');
  });

  it('says where YAML itself is broken', () => {
    expect(faults('a: [')[0]).toMatch(/^site\.yaml:1:5: not valid YAML: /);
    expect(faults('a: 1\na: 2')).toEqual(['site.yaml:2:1: this field is given twice']);
    expect(faults('version: 1\n\tname: x')[0]).toBe('site.yaml:2:1: tabs cannot indent YAML; use spaces');
    expect(faults('')[0]).toMatch(/the file is empty/);
    expect(faults('a: 1\n---\nb: 2')[0]).toMatch(/several YAML documents/);
    expect(faults('version: !!js/function 1')[0]).toMatch(/Unresolved tag/);
  });

  it('refuses an alias bomb instead of unfolding it', () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x]'];
    for (const [now, before] of ['ba', 'cb', 'dc', 'ed', 'fe'])
      bomb.push(`${now}: &${now} [${Array(8).fill(`*${before}`)}]`);
    expect(faults(bomb.join('\n'))[0]).toMatch(/alias/);
  });

  it('is not fooled by __proto__', () => {
    expect(faults(`${stringify(BASE)}__proto__: {polluted: 1}\n`)[0]).toMatch(/__proto__: unknown field/);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('throws one problem with a line per fault for callers that need a site', () => {
    expect(() => loadSiteOrThrow('version: 3', 'x.yaml')).toThrow(/^x\.yaml:1:1: .*\nx\.yaml:1:1: /);
  });

  it('ends with a site or with faults for any text', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.object().map(o => stringify(o)),
        ),
        text => {
          const loaded = loadSite(text, 'f');
          if (Array.isArray(loaded)) expect(loaded.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 150 },
    );
  }, 120_000);

  it('ends with a site or with faults when one value of a good site is replaced by anything', () => {
    const example = parse(readFileSync('docs/example-site.yaml', 'utf8')) as object;
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]) => {
      if (path.length > 0) paths.push(path);
      if (Array.isArray(value)) for (const [i, v] of value.entries()) walk(v, [...path, i]);
      else if (typeof value === 'object' && value !== null)
        for (const [k, v] of Object.entries(value)) walk(v, [...path, k]);
    };
    walk(example, []);
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        const copy = structuredClone(example) as Record<string | number, unknown>;
        let at: Record<string | number, unknown> = copy;
        for (const part of path.slice(0, -1)) at = at[part] as Record<string | number, unknown>;
        at[path.at(-1)!] = value;
        const loaded = loadSite(stringify(copy), 'f');
        if (Array.isArray(loaded)) for (const p of loaded) expect(p.message).toMatch(/^f:\d+:\d+: ./);
      }),
      { numRuns: 150 },
    );
  }, 120_000);
});

describe('the export', () => {
  it('writes a dollar and a brace so that it is read as it was', () => {
    const text = `${stringify(BASE)}install:\n  user_data: "#cloud-config\\nruncmd: ['echo \${HOME} $\${x}']\\n"\n`;
    const { site } = good(text);
    expect(site.install.user_data).toContain(`echo \${HOME} $\${x}`);
    expect(good(exportSite(site, [])).site).toEqual(site);
  });

  it('carries profiles, layouts and racks, and the rack of a node', () => {
    const { site } = good(readFileSync('docs/example-site.yaml', 'utf8'));
    const racked = nodeView('n77', 'claimed', {
      spec: { address: null, bmc: null, roles: [], install: {}, rack: { name: 'r1', unit: 3 } },
    });
    const again = good(exportSite(site, [racked])).site;
    expect(again.profiles).toEqual(site.profiles);
    expect(again.layouts).toEqual(site.layouts);
    expect(again.nodes.find(n => n.name === 'n77')!.rack).toEqual({ name: 'r1', unit: 3 });
  });
});

describe('networks of a site', () => {
  it.each<[string, object, string]>([
    [
      'a pool outside the subnet',
      { pool: { from: '10.98.0.1', to: '10.99.0.9' } },
      'networks[0].pool.from: expected an address of 10.99.0.0/24 (10.99.0.1 to 10.99.0.254), found 10.98.0.1',
    ],
    [
      'a pool that ends before it begins',
      { pool: { from: '10.99.0.9', to: '10.99.0.8' } },
      'networks[0].pool.to: expected an address not below pool.from (10.99.0.9), found 10.99.0.8',
    ],
    [
      'a pool with the broadcast address',
      { pool: { from: '10.99.0.9', to: '10.99.0.255' } },
      'networks[0].pool.to: expected an address of 10.99.0.0/24 (10.99.0.1 to 10.99.0.254), found 10.99.0.255',
    ],
    [
      'a gateway of another subnet',
      { gateway: '10.1.0.1' },
      'networks[0].gateway: expected an address of 10.99.0.0/24 (10.99.0.1 to 10.99.0.254), found 10.1.0.1',
    ],
    [
      'a gateway inside the pool',
      { gateway: '10.99.0.210' },
      'networks[0].gateway: expected an address outside the pool (10.99.0.200 to 10.99.0.239), found 10.99.0.210',
    ],
    [
      'host bits in the subnet',
      { cidr: '10.99.0.1/24' },
      'networks[0].cidr: expected an IPv4 subnet like 10.99.0.0/24, found "10.99.0.1/24"',
    ],
    [
      'a subnet too small to boot from',
      { cidr: '10.99.0.200/31', pool: { from: '10.99.0.200', to: '10.99.0.201' } },
      'networks[0].cidr: expected a prefix length from 8 to 30, found 31',
    ],
    [
      'a route by way of elsewhere',
      { routes: [{ to: '10.1.0.0/16', via: '10.2.0.1' }] },
      'networks[0].routes[0].via: expected a router inside 10.99.0.0/24, found 10.2.0.1',
    ],
  ])('refuses %s', (_, network, sentence) => {
    expect(faultsWith(network)).toEqual([sentence]);
  });

  it('refuses subnets that overlap, share an interface or a name', () => {
    const second = { ...BASE.networks[0], cidr: '10.99.0.128/25' };
    const all = faults(stringify({ ...BASE, networks: [BASE.networks[0], second] })).join('\n');
    expect(all).toContain('networks[1].cidr: 10.99.0.128/25 overlaps 10.99.0.0/24 of networks[0] (boot)');
    expect(all).toContain('networks[1].name: network name boot is already used at networks[0].name');
    expect(all).toContain('networks[1].interface: interface (one subnet per interface) br0 is already used');
  });

  it('takes any address of ours for a subnet that only a relay reaches, but not for our own', () => {
    const relayed = { name: 'far', cidr: '10.1.0.0/24', pool: { from: '10.1.0.10', to: '10.1.0.20' } };
    expect(faultsWith({ server_address: '10.1.0.1' })[0]).toMatch(
      /networks\[0\]\.server_address: expected an address of/,
    );
    expect(faults(stringify({ ...BASE, networks: [{ ...relayed, server_address: '10.99.0.1' }] }))).toEqual([]);
  });

  it.each(['0.0.0.0', '10.99.0.1', '::', 'localhost', '192.168.0.1'])('refuses to listen on %s', listen => {
    expect(faults(stringify({ ...BASE, api: { listen } }))[0]).toMatch(/api\.listen: expected a loopback address/);
  });
});

describe('nodes of a site', () => {
  it.each<[string, object, string]>([
    [
      'an address of no network',
      { address: '10.1.0.1' },
      'nodes[0].address: expected an address inside a network (10.99.0.0/24), found 10.1.0.1',
    ],
    [
      'an address inside the pool',
      { address: '10.99.0.200' },
      'nodes[0].address: expected an address outside the pool of boot (10.99.0.200 to 10.99.0.239), found 10.99.0.200',
    ],
    [
      'the broadcast address',
      { address: '10.99.0.255' },
      'nodes[0].address: expected the address of a machine, found the network or broadcast address 10.99.0.255 of 10.99.0.0/24',
    ],
    [
      'a multicast MAC',
      { macs: ['01:00:5e:00:00:01'] },
      'nodes[0].macs[0]: expected the address of one NIC, found the group address 01:00:5e:00:00:01',
    ],
    [
      'a node that nothing recognises',
      { macs: [] },
      'nodes[0]: expected macs, uuid or serial: nothing says which machine n0 is',
    ],
    [
      'ipmi without an address',
      { bmc: { driver: 'ipmi', user: 'u', password: 'env:P' } },
      'nodes[0].bmc: expected address: driver ipmi needs to know where the BMC is',
    ],
    [
      'a Redfish address that is no URL',
      { bmc: { driver: 'redfish', address: '10.98.0.7', user: 'u', password: 'env:P' } },
      'nodes[0].bmc.address: expected a URL like https://10.98.0.7, found "10.98.0.7"',
    ],
    [
      'an ipmi address with shell in it',
      { bmc: { driver: 'ipmi', address: '$(id)', user: 'u', password: 'env:P' } },
      'nodes[0].bmc.address: expected host or host:port like 10.98.0.7:623, found "$(id)"',
    ],
    [
      'two disks for plain',
      { install: { disk_layout: { kind: 'plain', disks: [{}, {}] } } },
      'nodes[0].install.disk_layout.disks: expected 1 for plain, found 2',
    ],
    [
      'one disk for mdraid',
      { install: { disk_layout: { kind: 'mdraid', disks: [{}] } } },
      'nodes[0].install.disk_layout.disks: expected 2 for mdraid, found 1',
    ],
    [
      'an interface that is two things',
      {
        install: {
          interfaces: [
            { name: 'a', mac: '52:54:00:00:00:01', vlan: { id: 1, link: 'b' }, dhcp: true },
            { name: 'b', mac: '52:54:00:00:00:02' },
          ],
        },
      },
      'nodes[0].install.interfaces[0]: expected exactly one of mac, bond and vlan, found mac and vlan',
    ],
    [
      'a VLAN on nothing',
      {
        install: {
          interfaces: [
            { name: 'bond0', bond: { macs: ['52:54:00:00:00:01'] }, dhcp: true },
            { name: 'v', vlan: { id: 5, link: 'bond1' } },
          ],
        },
      },
      'nodes[0].install.interfaces[1].vlan.link: expected the name of an interface of this list, found "bond1"; did you mean bond0?',
    ],
    [
      'a gateway that the addresses do not reach',
      {
        install: {
          interfaces: [{ name: 'a', mac: '52:54:00:00:00:01', addresses: ['10.97.0.5/24'], gateway: '10.96.0.1' }],
        },
      },
      'nodes[0].install.interfaces[0].gateway: expected a router inside 10.97.0.5/24, found 10.96.0.1',
    ],
    [
      'a static address from the pool',
      { install: { interfaces: [{ name: 'a', mac: '52:54:00:00:00:01', addresses: ['10.99.0.201/24'] }] } },
      'nodes[0].install.interfaces[0].addresses[0]: expected an address outside the pool of boot (10.99.0.200 to 10.99.0.239), found 10.99.0.201',
    ],
    [
      'a node that nothing can reach',
      { install: { interfaces: [{ name: 'a', mac: '52:54:00:00:00:01' }] } },
      'nodes[0].install.interfaces: expected an interface with dhcp: true or addresses; nothing could reach the node',
    ],
    [
      'user-data that is a script',
      { install: { user_data: '#!/bin/sh\n' } },
      'nodes[0].install.user_data: expected cloud-init user-data whose first line is #cloud-config, for example #cloud-config, found "#!/bin/sh\\n"',
    ],
    [
      'user-data that is a list',
      { install: { user_data: '#cloud-config\n- a\n' } },
      'nodes[0].install.user_data: expected a mapping (fields with values) after #cloud-config, found a list',
    ],
    [
      'a damaged SSH key',
      { install: { ssh_keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5'] } },
      'nodes[0].install.ssh_keys[0]: expected a whole ssh-ed25519 public key, found one that is cut off or damaged',
    ],
  ])('refuses %s', (_, node, sentence) => {
    expect(faultsWith({}, node)).toEqual([sentence]);
  });

  it('refuses what two nodes share: name, MAC (however written), UUID, address, BMC, and our own addresses', () => {
    const bmc = { driver: 'ipmi', address: '10.98.0.7', user: 'u', password: 'env:P' };
    const uuid = '4c4c4544-0042-3510-8054-b4c04f564e31';
    const all = faultsWith(
      { gateway: '10.99.0.9', server_address: '10.99.0.1' },
      { name: 'a', macs: ['52:54:00:AA:00:01'], uuid, address: '10.99.0.5', bmc: { ...bmc } },
      { name: 'a', macs: ['52-54-00-aa-00-01'], uuid: uuid.toUpperCase(), address: '10.99.0.5', bmc },
      { address: '10.99.0.9' },
      { address: '10.99.0.1' },
    );
    expect(all).toEqual([
      'nodes[1].name: node name a is already used at nodes[0].name',
      'nodes[1].macs[0]: MAC 52:54:00:aa:00:01 is already used at nodes[0].macs[0]',
      `nodes[1].uuid: UUID ${uuid} is already used at nodes[0].uuid`,
      'nodes[1].address: address 10.99.0.5 is already used at nodes[0].address',
      'nodes[1].bmc.address: BMC 10.98.0.7 is already used at nodes[0].bmc.address',
      'nodes[2].address: address 10.99.0.9 is already used at networks[0].gateway',
      'nodes[3].address: address 10.99.0.1 is already used at networks[0].server_address',
    ]);
  });

  it('finds a circle of VLANs', () => {
    const nic = (name: string, link: string) => ({ name, vlan: { id: 5, link }, dhcp: true });
    expect(faultsWith({}, { install: { interfaces: [nic('a', 'b'), nic('b', 'a')] } })[0]).toMatch(
      /a circle through a/,
    );
  });

  it('gives mdraid two disks of any kind when none are named', () => {
    const { site } = good(
      stringify({ ...BASE, nodes: [{ name: 'n', serial: 'x', install: { disk_layout: { kind: 'mdraid' } } }] }),
    );
    expect(site.nodes[0]!.install!.disk_layout!.disks).toEqual([{}, {}]);
  });
});

describe('exportSite', () => {
  it('writes a file that reads back to the same site', () => {
    const { site } = good(readFileSync('docs/example-site.yaml', 'utf8'));
    expect(good(exportSite(site, [])).site).toEqual(site);
  });
});

describe('exportSite with nodes of the database', () => {
  it('keeps what the file says, fills in what it leaves open, adds who was added, leaves out who was merely seen', () => {
    const { site } = good(
      stringify({ ...BASE, nodes: [{ name: 'a', macs: ['52:54:00:00:00:0a'], roles: ['compute'] }] }),
    );
    const bmc = { driver: 'manual' as const, cipher_suite: 3 };
    const spec = { address: '10.99.0.5', bmc, roles: ['volume'], install: { image: 'x' } };
    const nodes = [
      nodeView('a', 'installed', {
        source: 'site',
        macs: ['52:54:00:00:00:0a', '52:54:00:00:00:0b'],
        serial: 'S',
        spec,
      }),
      nodeView('seen', 'available', { macs: ['52:54:00:00:00:0c'] }),
      nodeView('taken', 'claimed', { macs: ['52:54:00:00:00:0d'], serial: 'on' }),
      nodeView('added', 'discovered', { source: 'api', macs: ['52:54:00:00:00:0e'], serial: null }),
    ];
    const text = exportSite(site, nodes);
    expect(text).toContain('serial: "on"');
    expect(good(text).site.nodes).toEqual([
      {
        name: 'a',
        macs: ['52:54:00:00:00:0a'],
        serial: 'S',
        address: '10.99.0.5',
        bmc,
        roles: ['compute'],
        install: { image: 'x', interfaces: [], ssh_keys: [] },
      },
      { name: 'taken', macs: ['52:54:00:00:00:0d'], serial: 'on', roles: [] },
      { name: 'added', macs: ['52:54:00:00:00:0e'], roles: [] },
    ]);
  });
});
