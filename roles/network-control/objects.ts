import type { CloudModel } from '../../installer/model/cloud.js';
import type { DesiredObject } from '../../installer/objects/types.js';

/** The network that floating IPs come from, when the site has one. */
export function networkObjects(cloud: CloudModel): readonly DesiredObject[] {
  const { external, mtu } = cloud.settings;
  if (!external) return [];
  return [
    {
      kind: 'network',
      name: external.name,
      project: 'admin',
      external: true,
      mtu,
      provider: {
        type: external.vlan === null ? 'flat' : 'vlan',
        physicalNetwork: external.physicalNetwork,
        ...(external.vlan === null ? {} : { segment: external.vlan }),
      },
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
