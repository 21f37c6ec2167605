import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { command, type Resource } from '../../installer/model/resources.js';

const OPTION = 'enable-chassis-as-gw';
const ovs = 'ovs-vsctl --timeout=10';

/** Bridges and everything else of Open vSwitch are the network agent's: this adds what makes the chassis a gateway. */
function build({ cloud, node }: ServiceContext): readonly Resource[] {
  const copied = cloud.release.services['network-agent']?.options['chassis_options_copied'] === true;
  const compat = '/usr/local/sbin/halligan-chassis-compat';
  return [
    command({
      name: 'gateway',
      title: 'Make this node a gateway between project and provider networks',
      needs: [`network-agent:ready@${node.name}`],
      check: `[ "$(${ovs} --if-exists get open_vswitch . external_ids:ovn-cms-options | tr -d '"')" = '${OPTION}' ]${copied ? ` && ${compat} check` : ''}`,
      apply: `${ovs} set open_vswitch . external_ids:ovn-cms-options='"${OPTION}"'${copied ? `\n${compat}` : ''}`,
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'network-gateway',
  title: 'Network gateway',
  sentence: 'Routers of projects and their floating IPs leave the cloud here.',
  needs: ['network-agent', 'network-control'],
  build,
};
