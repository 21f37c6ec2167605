import type { CloudModel } from '../../installer/model/cloud.js';
import type { ProviderNetwork } from '../../installer/model/settings.js';
import type { DesiredObject } from '../../installer/objects/types.js';

/** Networks of the site file: the one that floating IPs come from, and those that virtual machines are plugged into. */
export const networkObjects = (cloud: CloudModel): readonly DesiredObject[] => [
  ...externalObjects(cloud),
  ...cloud.settings.providerNetworks.flatMap(network => providerObjects(network, cloud.settings.mtu)),
];

const segmentOf = (network: { readonly physicalNetwork: string; readonly vlan: number | null }) => ({
  type: network.vlan === null ? ('flat' as const) : ('vlan' as const),
  physicalNetwork: network.physicalNetwork,
  ...(network.vlan === null ? {} : { segment: network.vlan }),
});

function providerObjects(network: ProviderNetwork, mtu: number): DesiredObject[] {
  return [
    {
      kind: 'network',
      name: network.name,
      project: 'admin',
      shared: network.shared,
      mtu,
      provider: segmentOf(network),
    },
    ...network.subnets.map(
      (s): DesiredObject => ({
        kind: 'subnet',
        name: s.name,
        network: network.name,
        project: 'admin',
        cidr: s.cidr,
        gateway: s.gateway,
        dhcp: s.dhcp,
        ...(s.pool === null ? {} : { pools: [s.pool] }),
        dns: s.dns,
        hostRoutes: s.routes.map(r => ({ destination: r.to, nexthop: r.via })),
      }),
    ),
    ...network.ports.map(
      (p): DesiredObject => ({
        kind: 'port',
        name: p.name,
        network: network.name,
        subnets: network.subnets.map(s => s.name),
        project: 'admin',
        ...(p.address === null ? {} : { address: p.address }),
        ...(p.mac === null ? {} : { mac: p.mac }),
        dhcpOptions: p.dhcpOptions,
      }),
    ),
  ];
}

function externalObjects(cloud: CloudModel): readonly DesiredObject[] {
  const { external, mtu } = cloud.settings;
  if (!external) return [];
  return [
    {
      kind: 'network',
      name: external.name,
      project: 'admin',
      external: true,
      mtu,
      provider: segmentOf(external),
    },
    {
      kind: 'subnet',
      name: `${external.name}-v4`,
      network: external.name,
      project: 'admin',
      cidr: external.cidr,
      gateway: external.gateway,
      // Its addresses are routers' and floating IPs; nothing on it asks for one.
      dhcp: false,
      pools: [external.pool],
    },
  ];
}
