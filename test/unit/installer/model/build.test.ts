import { describe, expect, it } from 'vitest';
import { buildCloudModel, type ModelInput, type NodeInput } from '../../../../installer/model/build.js';
import type { CloudModel } from '../../../../installer/model/cloud.js';
import { NO_MEMORY } from '../../../../installer/model/memory.js';
import { catalogueOf, facts, node, release, role, service, settings, smallCatalogue } from './sample.js';

const four = [
  node('ctl', 1, ['controller']),
  node('cmp1', 2, ['compute']),
  node('cmp2', 3, ['compute']),
  node('vol', 4, ['volume']),
];
const build = (nodes: readonly NodeInput[], over: Partial<ModelInput> = {}) =>
  buildCloudModel({
    siteName: 'berlin',
    domain: 'cloud.example.org',
    settings: settings(),
    release,
    catalogue: smallCatalogue,
    nodes,
    memory: NO_MEMORY,
    ...over,
  });
const modelOf = (...args: Parameters<typeof build>): CloudModel => {
  const built = build(...args);
  if (!built.ok) throw new Error(JSON.stringify(built.problems, null, 1));
  return built.model;
};
const problemsOf = (...args: Parameters<typeof build>): string[] => {
  const built = build(...args);
  return built.ok ? [] : built.problems.map(p => `${p.node ?? '*'}: ${p.message} → ${p.hint}`);
};
const networks = { management: '10.99.0.0/24', tunnel: '10.77.0.0/24', storage: null };

describe('the model of a cloud', () => {
  it('gives each node its services in the catalogue’s order, whatever order roles and services are named in', () => {
    const model = modelOf([node('ctl', 1, ['compute', 'controller']), node('cmp1', 2, ['compute'])]);
    expect(model.nodes.map(n => n.services)).toEqual([
      ['database', 'identity', 'volume-control', 'hypervisor'],
      ['hypervisor'],
    ]);
    expect(model.services.map(s => s.name)).toEqual(['database', 'identity', 'volume-control', 'hypervisor']);
    expect(model.services[1]).toEqual({
      name: 'identity',
      databases: [{ name: 'keystone', user: 'keystone' }],
      user: null,
      messagingUser: null,
      endpoints: [{ type: 'identity', name: 'keystone', port: 5000, path: '/v3' }],
    });
  });

  it('takes the address that SSH reached when no network is named', () => {
    const [ctl] = modelOf(four).nodes;
    expect(ctl).toMatchObject({
      fqdn: 'ctl.cloud.example.org',
      address: '10.99.0.1',
      tunnel: { address: '10.99.0.1', prefix: 24, interface: 'eth0' },
      storageAddress: '10.99.0.1',
      provider: [{ physicalNetwork: 'physnet1', interface: 'eth1' }],
    });
  });

  it('takes the addresses in the named networks', () => {
    const [ctl] = modelOf(four, {
      settings: settings({ networks: { management: '10.77.0.0/24', tunnel: '10.77.0.0/24', storage: '10.99.0.0/24' } }),
    }).nodes;
    expect(ctl).toMatchObject({
      address: '10.77.0.1',
      tunnel: { address: '10.77.0.1', interface: 'eth2' },
      storageAddress: '10.99.0.1',
    });
  });

  it('takes the one of two addresses in the management network that SSH reached', () => {
    const twice = facts('ctl', 1);
    const interfaces = [...twice.interfaces];
    interfaces[1] = { ...interfaces[1]!, addresses: ['10.99.0.200/24', '10.99.0.1/24'] };
    const model = modelOf([node('ctl', 1, ['controller'], { facts: { ...twice, interfaces } })], {
      settings: settings({ networks }),
    });
    expect(model.nodes[0]!.address).toBe('10.99.0.1');
  });

  it('keeps the interface of the tunnels when its address has moved to a bridge', () => {
    const moved = facts('cmp1', 2);
    const interfaces = [
      ...moved.interfaces.map(i => (i.name === 'eth2' ? { ...i, addresses: [] } : i)),
      { name: 'br-tun', mac: '', mtu: 1500, up: true, addresses: ['10.77.0.2/24'], defaultRoute: null },
    ];
    const model = modelOf(
      [four[0]!, node('cmp1', 2, ['compute'], { facts: { ...moved, interfaces }, tunnelInterface: 'eth2' })],
      { settings: settings({ networks }) },
    );
    expect(model.nodes[1]!.tunnel).toEqual({ address: '10.77.0.2', prefix: 24, interface: 'eth2' });
  });

  it('puts the APIs on the node of identity, under the site’s name for it', () => {
    const nodes = [node('cmp1', 2, ['compute']), node('ctl', 1, ['controller'])];
    expect(modelOf(nodes).api).toEqual({ host: '10.99.0.1', address: '10.99.0.1' });
    expect(modelOf(nodes, { settings: settings({ apiName: 'api.example.org' }) }).api).toEqual({
      host: 'api.example.org',
      address: '10.99.0.1',
    });
  });

  it('leaves out services that the settings do not want, with their endpoints', () => {
    const model = modelOf(four, { settings: settings({ volumes: { backend: 'none', devices: [] } }) });
    expect(model.services.map(s => s.name)).toEqual(['database', 'identity', 'hypervisor']);
    expect(model.nodes[3]!.services).toEqual([]);
  });
});

describe('what stands in the way', () => {
  it('is told all at once', () => {
    const problems = problemsOf([
      node('n1', 1, ['controller', 'volume', 'volum']),
      node('n2', 1, ['controller'], { facts: facts('localhost', 1) }),
      node('n3', 3, []),
    ]);
    expect(problems).toEqual([
      'n2: It calls itself "localhost". Nova, Neutron and OVN know a node by its host name. → Run `hostnamectl set-hostname n2` on it, or give it the name localhost in the site file.',
      'n1: There is no role "volum"; volume is meant, perhaps. → Correct `roles` of the node; known are compute, controller, volume.',
      'n1: The roles controller and volume cannot be on one node. Its disks are too busy. → Take one of the two away from the node.',
      'n3: It has no role. → Give it `roles` in the site file, or take it out of the cloud.',
      '*: 2 nodes have the role controller. Several controllers are not supported yet. → Take the role controller away from a node.',
      'n2: It has the address 10.99.0.1, and so has n1. → Give each node an address of its own; `ip addr` on both shows where it comes from.',
    ]);
  });

  it('is a cloud without nodes, or without a role that must be', () => {
    expect(problemsOf([])[0]).toContain('No node of the site has a role');
    expect(problemsOf([node('cmp1', 2, ['compute'])])).toEqual([
      '*: The role compute needs the role controller, which no node has. It has nobody to listen to. → Give the role controller to a node.',
      '*: No node has the role controller. A cloud needs one. → Give the role controller to a node.',
      '*: identity (identity) is on no node, but hypervisor cannot do without it. → Give the role controller to a node.',
    ]);
  });

  it('is a service that another needs but the settings switch off', () => {
    const catalogue = catalogueOf(
      [service('a', { needs: ['b'] }), service('b', { wanted: s => s.dashboard })],
      [role('all', ['a', 'b'])],
    );
    const nodes = [node('n1', 1, ['all'])];
    expect(problemsOf(nodes, { catalogue })).toEqual([]);
    expect(problemsOf(nodes, { catalogue, settings: settings({ dashboard: false }) })).toEqual([
      "*: b (b) is switched off in the site's settings, but a cannot do without it. → Switch it on in the part `cloud` of the site file, or take away the roles that need it.",
    ]);
  });

  it('is an address outside of the management network, or one that SSH reached through another machine', () => {
    expect(problemsOf(four, { settings: settings({ networks: { ...networks, management: '10.1.0.0/16' } }) })[0]).toBe(
      'ctl: It has no address in the management network 10.1.0.0/16; its addresses are 10.99.0.1/24 (eth0), 10.77.0.1/24 (eth2). → Give it an address there, or correct cloud.networks.management.',
    );
    expect(problemsOf([node('ctl', 1, ['controller'], { sshAddress: '192.0.2.1' })])[0]).toContain(
      'ctl: SSH reaches it at 192.0.2.1, which none of its interfaces has',
    );
  });

  it('is a node without an address in the tunnel network, if it has an end of tunnels', () => {
    const lone = (name: string, last: number) => {
      const all = facts(name, last);
      return { ...all, interfaces: all.interfaces.filter(i => i.name !== 'eth2') };
    };
    const nodes = [
      node('ctl', 1, ['controller'], { facts: lone('ctl', 1) }),
      node('cmp1', 2, ['compute'], { facts: lone('cmp1', 2) }),
    ];
    expect(problemsOf(nodes, { settings: settings({ networks }) })).toEqual([
      'cmp1: It has no address in the tunnel network 10.77.0.0/24, which hypervisor needs; its addresses are 10.99.0.2/24 (eth0). → Give it an address there, or correct cloud.networks.tunnel.',
    ]);
  });

  it('is an interface that is nowhere', () => {
    expect(
      problemsOf(four, {
        settings: settings({ provider: [{ physicalNetwork: 'physnet1', interface: 'ens5', vlanRange: null }] }),
      }),
    ).toEqual([
      '*: No node has the interface ens5, on which the provider network physnet1 lies. → Correct `interface` of this entry of cloud.provider, or give the network nodes such an interface.',
    ]);
    expect(problemsOf([node('ctl', 1, ['controller'], { tunnelInterface: 'ens9' })])).toHaveLength(1);
  });

  it('is two nodes with one name', () => {
    expect(problemsOf([four[0]!, node('cmp1', 2, ['compute']), node('cmp1', 3, ['compute'])])).toEqual([
      'cmp1: Two nodes have this name. → Rename one of them in the site file.',
    ]);
  });

  it('is what a service says of the whole', () => {
    const catalogue = catalogueOf(
      [service('a', { refusal: cloud => (cloud.nodes.length < 2 ? 'One node is too few.' : null) })],
      [role('all', ['a'])],
    );
    expect(problemsOf([node('n1', 1, ['all'])], { catalogue })[0]).toContain('*: One node is too few. →');
    expect(problemsOf([node('n1', 1, ['all']), node('n2', 2, ['all'])], { catalogue })).toEqual([]);
  });
});
