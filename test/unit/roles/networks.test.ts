import { describe, expect, it } from 'vitest';
import type { CloudModel } from '../../../installer/model/cloud.js';
import type { ProviderNetwork } from '../../../installer/model/settings.js';
import { catalogue } from '../../../roles/catalogue.js';
import {
  bridgeName,
  bridgesOf,
  chassisMac,
  datapathReason,
  datapathRefusal,
} from '../../../roles/network-agent/chassis.js';
import { networkObjects } from '../../../roles/network-control/objects.js';
import { networkRefusal } from '../../../roles/network-control/service.js';
import { desired, filesOf, fourNodes, inContainer, model, settings } from './fixture.js';

const LAN: ProviderNetwork = {
  name: 'lan',
  physicalNetwork: 'physnet1',
  vlan: 120,
  shared: true,
  subnets: [
    {
      name: 'lan-v4',
      cidr: '10.120.0.0/24',
      gateway: '10.120.0.1',
      dhcp: true,
      pool: null,
      dns: [],
      routes: [{ to: '10.130.0.0/16', via: '10.120.0.2' }],
    },
  ],
  ports: [{ name: 'printer', address: '10.120.0.20', mac: null, dhcpOptions: { router: '10.120.0.2' } }],
};
const nodeOf = (cloud: CloudModel, name: string) => cloud.nodes.find(n => n.name === name)!;
const commandOf = (cloud: CloudModel, key: string) => {
  const r = desired(cloud).placed.find(p => p.key === key)?.resource;
  if (r?.kind !== 'command') throw new Error(`no command ${key}`);
  return r;
};

describe('a chassis', () => {
  it('has the name of its node again after each boot: the package would fill in the full name', () => {
    const files = filesOf(desired(), 'cmp');
    const record = files.get('/etc/systemd/system/ovs-record-hostname.service.d/halligan.conf')!.content;
    expect(record).toMatch(/^ExecStart=\nExecStart=\/usr\/bin\/ovs-vsctl .* 'external_ids:hostname="cmp"'$/m);
    // Drift of the name itself is seen by the look at Open vSwitch.
    const look = desired().placed.find(p => p.node === 'cmp' && p.resource.id === 'command:open-vswitch')!.resource;
    expect(look.kind === 'command' && look.check).toContain("external_ids:hostname | tr -d '\"')\" = 'cmp'");
  });
});

describe('network control', () => {
  it('reaches OVN over TLS with a key of its own', async () => {
    const files = filesOf(desired(), 'ctl');
    await expect(files.get('/etc/neutron/plugins/ml2/ml2_conf.ini')!.content).toMatchFileSnapshot(
      'golden/ml2_conf.ini.golden',
    );
    await expect(files.get('/etc/neutron/neutron.conf')!.content).toMatchFileSnapshot('golden/neutron.conf.golden');
    const key = files.get('/etc/neutron/ssl/node.key')!;
    expect([key.owner, key.group, key.mode]).toEqual(['root', 'neutron', 0o640]);
  });

  it('lets the southbound database listen on the management address and the northbound one for its node, with TLS only', () => {
    const { apply } = commandOf(model(), 'ctl/network-control/command:ovn-tls');
    expect(apply).toContain('set-connection pssl:6642:10.99.0.11 ');
    expect(apply).toContain('set-connection pssl:6641:127.0.0.1 ');
    expect(apply).not.toMatch(/\bptcp:/);
  });

  it('runs one server in place of the units under which OVN never initialises', () => {
    const units = desired().placed.flatMap(p =>
      p.service === 'network-control' && p.resource.kind === 'unit' ? [`${p.resource.unit} ${p.resource.state}`] : [],
    );
    expect(units).toEqual([
      'neutron-api.service masked',
      'neutron-rpc-server.service masked',
      'ovn-central.service running',
      'neutron-server.service running',
    ]);
  });

  it('makes the external network with the hardware router as its gateway', () => {
    expect(networkObjects(model())).toMatchObject([
      { kind: 'network', name: 'public', external: true, provider: { type: 'flat', physicalNetwork: 'physnet1' } },
      { kind: 'subnet', network: 'public', gateway: '203.0.113.1', dhcp: false },
    ]);
    expect(networkObjects(model(fourNodes(), { external: null }))).toEqual([]);
  });

  it('tags the external network when the site names a VLAN', () => {
    const external = { ...settings().external!, vlan: 120 };
    expect(networkObjects(model(fourNodes(), { external }))[0]).toMatchObject({
      provider: { type: 'vlan', segment: 120 },
    });
  });

  it('refuses an external network that no gateway reaches', () => {
    const cloud = model();
    const lost = { ...cloud, settings: settings({ external: { ...settings().external!, physicalNetwork: 'dc' } }) };
    expect(networkRefusal(cloud)).toBeNull();
    expect(networkRefusal(lost)).toMatch(/dc, which is no provider network/);
    const deaf = { ...cloud, nodes: cloud.nodes.map(n => (n.name === 'net' ? { ...n, provider: [] } : n)) };
    expect(networkRefusal(deaf)).toMatch(/^No network node has an interface on physnet1/);
  });

  it('makes provider networks with their subnets and ports, and nothing that the file leaves open', () => {
    const cloud = model(fourNodes(), { external: null, providerNetworks: [LAN] });
    expect(networkObjects(cloud)).toEqual([
      {
        kind: 'network',
        name: 'lan',
        project: 'admin',
        shared: true,
        mtu: 1500,
        provider: { type: 'vlan', physicalNetwork: 'physnet1', segment: 120 },
      },
      {
        kind: 'subnet',
        name: 'lan-v4',
        network: 'lan',
        project: 'admin',
        cidr: '10.120.0.0/24',
        gateway: '10.120.0.1',
        dhcp: true,
        dns: [],
        hostRoutes: [{ destination: '10.130.0.0/16', nexthop: '10.120.0.2' }],
      },
      {
        kind: 'port',
        name: 'printer',
        network: 'lan',
        subnets: ['lan-v4'],
        project: 'admin',
        address: '10.120.0.20',
        dhcpOptions: { router: '10.120.0.2' },
      },
    ]);
  });

  it('refuses networks that a hypervisor does not reach', () => {
    const cloud = model(fourNodes(), { providerNetworks: [LAN] });
    const deaf = (changes: object) => ({
      ...cloud,
      settings: { ...cloud.settings, ...changes },
      nodes: cloud.nodes.map(n => (n.name === 'cmp' ? { ...n, provider: [] } : n)),
    });
    expect(networkRefusal(cloud)).toBeNull();
    expect(networkRefusal(deaf({}))).toMatch(/^cmp has no interface on physnet1: virtual machines of the network lan/);
    expect(networkRefusal(deaf({ providerNetworks: [] }))).toBeNull();
    expect(networkRefusal(deaf({ providerNetworks: [], distributedFloatingIp: true }))).toMatch(
      /floating IPs leave the/,
    );
  });

  it('refuses VLANs for projects without a range of tags', () => {
    const cloud = model();
    expect(networkRefusal({ ...cloud, settings: settings({ tenantNetworks: 'vlan' }) })).toMatch(/vlan_range/);
  });
});

describe('the network agent', () => {
  it('bridges the provider interface on the gateway, and on hypervisors only where traffic leaves them', () => {
    const cloud = model();
    expect(bridgesOf(cloud, nodeOf(cloud, 'net')).map(b => b.name)).toEqual(['br-physnet1']);
    expect(bridgesOf(cloud, nodeOf(cloud, 'cmp'))).toEqual([]);
    const distributed = model(fourNodes(), { distributedFloatingIp: true });
    expect(bridgesOf(distributed, nodeOf(distributed, 'cmp')).map(b => b.uplink.what)).toEqual(['eth2']);
    const plugged = model(fourNodes(), { providerNetworks: [LAN] });
    expect(bridgesOf(plugged, nodeOf(plugged, 'cmp')).map(b => b.uplink.what)).toEqual(['eth2']);
  });

  it('moves the tunnel’s address onto a bridge when packets are forwarded in userspace', () => {
    const cloud = model(fourNodes(inContainer));
    expect(bridgesOf(cloud, nodeOf(cloud, 'cmp'))).toEqual([
      { name: 'br-tunl', datapath: 'netdev', uplink: { kind: 'address', what: '10.99.0.13/24' } },
    ]);
  });

  it('wants the same after the address has moved', () => {
    const before = model(fourNodes(inContainer));
    const node = nodeOf(before, 'cmp');
    const moved = { ...node, tunnel: { ...node.tunnel, interface: 'br-tunl' } };
    expect(bridgesOf(before, moved)).toEqual(bridgesOf(before, node));
  });

  it('uses one bridge when tunnels and provider networks share an interface', () => {
    const cloud = model(fourNodes(inContainer));
    const node = nodeOf(cloud, 'net');
    for (const carrier of ['eth2', 'br-physnet1'])
      expect(bridgesOf(cloud, { ...node, tunnel: { ...node.tunnel, interface: carrier } }).map(b => b.name)).toEqual([
        'br-physnet1',
      ]);
  });

  it('says why packets are forwarded as they are', () => {
    const cloud = model(fourNodes(inContainer));
    const node = nodeOf(cloud, 'cmp');
    expect(datapathReason(cloud, node)).toMatch(/has no module openvswitch/);
    const kernel = { ...cloud, settings: settings({ datapath: 'kernel' }) };
    expect(datapathRefusal(kernel, node)).toMatch(/Say auto or userspace/);
    expect(catalogue.services.get('network-agent')!.refusal!(kernel)).toMatch(/^cloud.datapath is kernel/);
  });

  it('connects to OVN over TLS under the name that Nova and Neutron know', () => {
    const { apply } = commandOf(model(), 'cmp/network-agent/command:open-vswitch');
    expect(apply).toContain(`external_ids:ovn-remote='"ssl:10.99.0.11:6642"'`);
    expect(apply).toContain(`external_ids:hostname='"cmp"'`);
    expect(apply).toContain('set-manager ptcp:6640:127.0.0.1');
    expect(commandOf(model(), 'net/network-agent/command:open-vswitch').apply).not.toContain('set-manager');
  });

  it('gives no other chassis than the gateway the option of one', () => {
    expect(commandOf(model(), 'net/network-gateway/command:gateway').apply).toContain('enable-chassis-as-gw');
    expect(commandOf(model(), 'cmp/network-agent/command:open-vswitch').apply).toContain(
      'remove open_vswitch . external_ids ovn-cms-options',
    );
    expect(commandOf(model(), 'net/network-agent/command:open-vswitch').apply).not.toContain('ovn-cms-options');
  });

  it('warns that an address moves onto a bridge', () => {
    const cloud = model(fourNodes(), {
      provider: [{ physicalNetwork: 'physnet1', interface: 'eth0', vlanRange: null }],
    });
    expect(commandOf(cloud, 'net/network-agent/command:bridges').interrupts).toMatch(/addresses of eth0 move/);
    expect(commandOf(model(), 'net/network-agent/command:bridges').interrupts).toBeNull();
  });

  it('answers instances’ questions for metadata over TLS, without a password of a database', async () => {
    const { content } = filesOf(desired(), 'cmp').get('/etc/neutron/neutron_ovn_metadata_agent.ini')!;
    await expect(content).toMatchFileSnapshot('golden/neutron_ovn_metadata_agent.ini.golden');
    expect(filesOf(desired(), 'net').has('/etc/neutron/neutron_ovn_metadata_agent.ini')).toBe(false);
  });

  it('keeps its names within what the kernel takes, and its addresses apart', () => {
    const long = bridgeName('datacenter-west');
    expect(long).toHaveLength(15);
    expect(long).not.toBe(bridgeName('datacenter-east'));
    const cloud = model();
    const macs = cloud.nodes.map(n => chassisMac(n, 'physnet1'));
    expect(new Set(macs).size).toBe(macs.length);
    for (const mac of macs) expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
  });
});
