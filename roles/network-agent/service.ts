import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import type { CloudModel, CloudNode } from '../../installer/model/cloud.js';
import { command, directory, file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import { ovnSouthbound } from '../network-control/service.js';
import { CA_FILE, certificate, dropIn, guarded, NEUTRON_FILES, unitName } from '../shared.js';
import {
  bridgeMappings,
  bridgesOf,
  chassisMac,
  datapathReason,
  datapathRefusal,
  firstRefusal,
  isGateway,
  optionalPackages,
  userspaceDatapath,
} from './chassis.js';

const SSL = '/etc/openvswitch/ssl';
const SCRIPT = '/usr/local/sbin/halligan-bridges';
const COMPAT = '/usr/local/sbin/halligan-chassis-compat';
const BRIDGES = '/etc/halligan/bridges';
/** Of the package openvswitch-switch, which requires it: masked, Open vSwitch would not start. */
const RECORD_HOSTNAME = 'ovs-record-hostname.service';
const PROBE_MS = 60_000;

/** Keys of Open_vSwitch.external_ids that ovn-controller reads; null: must not be there. */
function externalIds(cloud: CloudModel, node: CloudNode): Readonly<Record<string, string | null>> {
  const mappings = bridgeMappings(cloud, node);
  const macs =
    cloud.settings.distributedFloatingIp || cloud.settings.tenantNetworks === 'vlan'
      ? node.provider.map(p => `${p.physicalNetwork}:${chassisMac(node, p.physicalNetwork)}`).join(',')
      : '';
  return {
    hostname: node.name,
    'ovn-remote': ovnSouthbound(cloud),
    'ovn-remote-probe-interval': String(PROBE_MS),
    'ovn-encap-type': 'geneve',
    'ovn-encap-ip': node.tunnel.address,
    'ovn-bridge-datapath-type': userspaceDatapath(cloud, node) ? 'netdev' : 'system',
    'ovn-bridge-mappings': mappings || null,
    'ovn-chassis-mac-mappings': macs || null,
    // On gateways the service network-gateway says what this is.
    ...(isGateway(node) ? {} : { 'ovn-cms-options': null }),
  };
}

const ovs = 'ovs-vsctl --timeout=10';

/** Everything of Open vSwitch but the bridges with interfaces: in one transaction, so that ovn-controller never sees half of it. */
function openVswitch(cloud: CloudModel, node: CloudNode): Resource {
  const ids = Object.entries(externalIds(cloud, node));
  const datapath = userspaceDatapath(cloud, node) ? 'netdev' : 'system';
  // os-vif of Nova plugs guests' ports over this; on the loopback address, and only where there are guests.
  const manager = node.services.includes('hypervisor');
  const is = (k: string, v: string | null) =>
    `[ "$(${ovs} --if-exists get open_vswitch . external_ids:${k} | tr -d '"')" = '${v ?? ''}' ]`;
  const set = ids.flatMap(([k, v]) => (v === null ? [] : [`external_ids:${k}='"${v}"'`]));
  const remove = ids.flatMap(([k, v]) => (v === null ? [` -- remove open_vswitch . external_ids ${k}`] : []));
  return command({
    name: 'open-vswitch',
    title: `Tell Open vSwitch where OVN is and how to forward (${datapath}: ${datapathReason(cloud, node)})`,
    check: [
      ...ids.map(([k, v]) => is(k, v)),
      `[ "$(${ovs} get bridge br-int datapath_type)" = ${datapath} ]`,
      `[ "$(${ovs} get bridge br-int fail_mode)" = secure ]`,
      `${ovs} get-ssl | grep -qx 'Private key: ${SSL}/node.key'`,
      ...(manager ? [`${ovs} get-manager | grep -qx ptcp:6640:127.0.0.1`] : []),
    ].join(' && '),
    apply: `${ovs} set-ssl ${SSL}/node.key ${SSL}/node.crt ${CA_FILE}${manager ? `\n${ovs} set-manager ptcp:6640:127.0.0.1` : ''}
${ovs} --may-exist add-br br-int -- set bridge br-int datapath_type=${datapath} fail_mode=secure other_config:disable-in-band=true \\
  -- set open_vswitch . ${set.join(' ')}${remove.join('')}`,
  });
}

function providerBridges(context: ServiceContext): readonly Resource[] {
  const { cloud, node, template } = context;
  const bridges = bridgesOf(cloud, node);
  if (bridges.length === 0) return [];
  const carriers = node.facts.interfaces.filter(i => bridges.some(b => b.uplink.what === i.name && i.addresses.length));
  const persist = unitName(context, 'bridges');
  const unitFile = `/etc/systemd/system/${persist}`;
  return [
    file({ path: SCRIPT, content: template('usr/local/sbin/halligan-bridges.sh.hbs', {}), mode: 0o755 }),
    file({
      path: BRIDGES,
      content: `# Written by Halligan: BRIDGE DATAPATH name INTERFACE | address ADDRESS/PREFIX\n${bridges
        .map(b => `${b.name} ${b.datapath} ${b.uplink.kind} ${b.uplink.what}\n`)
        .join('')}`,
    }),
    file({ path: unitFile, content: template('etc/systemd/system/halligan-bridges.service.hbs', {}) }),
    command({
      name: 'bridges',
      title: `Put interfaces under the bridges ${bridges.map(b => b.name).join(', ')}`,
      check: `${SCRIPT} check`,
      apply: `${SCRIPT} take-over`,
      timeoutSeconds: 150,
      expectedSeconds: 3,
      interrupts: carriers.length
        ? `The addresses of ${carriers.map(i => i.name).join(', ')} move onto a bridge: connections stall for a second. It is undone after a minute when this server is not heard of.`
        : null,
    }),
    unit({ unit: persist, watches: [unitFile, BRIDGES] }),
  ];
}

/** Zed's Neutron and OVN 23.03 disagree on where a chassis keeps its options. */
function chassisCompat(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, template } = context;
  if (release.options['chassis_options_copied'] !== true) return [];
  const name = unitName(context, 'compat');
  const unitFile = `/etc/systemd/system/${name}`;
  return [
    file({
      path: COMPAT,
      content: template('usr/local/sbin/halligan-chassis-compat.sh.hbs', {
        southbound: ovnSouthbound(cloud),
        chassis: node.name,
      }),
      mode: 0o755,
    }),
    file({ path: unitFile, content: template('etc/systemd/system/ovn-chassis-compat.service.hbs', {}) }),
    unit({ unit: name, watches: [COMPAT, unitFile], ready: `${COMPAT} check` }),
    // The options may change without a restart of ovn-controller.
    command({
      name: 'chassis-options',
      title: 'Copy the options of this chassis to where Neutron looks for them',
      check: `${COMPAT} check`,
      apply: COMPAT,
    }),
  ];
}

/** Instances ask 169.254.169.254; the agent on their hypervisor hands the question on to Nova, signed. */
function metadataAgent(context: ServiceContext): readonly Resource[] {
  const { cloud, node, secret, template } = context;
  if (!node.services.includes('hypervisor')) return [];
  const config = '/etc/neutron/neutron_ovn_metadata_agent.ini';
  const defaults = '/etc/default/neutron-ovn-metadata-agent';
  return [
    directory({ path: '/etc/neutron', group: 'neutron', mode: 0o750 }),
    guarded('neutron', NEUTRON_FILES),
    file({
      path: config,
      content: template('etc/neutron/neutron_ovn_metadata_agent.ini.hbs', {
        host: node.name,
        metadata_host: cloud.api.host,
        ca: CA_FILE,
        shared_secret: secret('metadata-proxy'),
        // One answers thousands of questions; more only cost memory.
        workers: Math.min(2, cloud.settings.workers ?? 1),
        sb: ovnSouthbound(cloud),
      }),
      group: 'neutron',
      mode: 0o640,
      grammar: 'ini',
    }),
    file({ path: defaults, content: template('etc/default/neutron-ovn-metadata-agent.sh.hbs', {}) }),
    unit({
      unit: unitName(context, 'metadata'),
      watches: [config, defaults, `${SSL}/node.key`, `${SSL}/node.crt`],
      ready: '[ -S /var/lib/neutron/metadata_proxy ]',
      expectedSeconds: 4,
      interrupts: 'Instances that boot on this node wait for their metadata for some seconds.',
    }),
  ];
}

function build(context: ServiceContext): readonly Resource[] {
  const { node, release, template } = context;
  const systemId = '/etc/openvswitch/system-id.conf';
  const resources: Resource[] = [
    packages([...release.packages, ...optionalPackages(context, 'metadata', node.services.includes('hypervisor'))], {
      preseed: release.preseed,
    }),
    ...release.mask.map(masked),
    // Otherwise ovs-ctl makes up a new identity at each boot, and the old chassis' record blocks the new one's tunnels.
    file({ path: systemId, content: `${node.name}\n` }),
    // For the next boot only, and so watched by no unit: to restart it restarts Open vSwitch, which requires it.
    file({
      path: dropIn(RECORD_HOSTNAME),
      content: template('etc/systemd/system/ovs-record-hostname.service.d/halligan.conf.hbs', { host: node.name }),
    }),
    ...certificate(context, SSL, 'root').resources,
    unit({
      unit: unitName(context, 'switch'),
      watches: [systemId],
      ready: `${ovs} --no-wait show`,
      interrupts: 'Traffic of this node’s instances stops for some seconds.',
    }),
    // Where its database ran before (netplan starts it at boot), it has the identity that it made up then.
    command({
      name: 'system-id',
      title: `Make ${node.name} known to OVN by its name`,
      check: `[ "$(${ovs} get open_vswitch . external_ids:system-id | tr -d '"')" = '${node.name}' ]`,
      apply: `${ovs} --no-wait set open_vswitch . external_ids:system-id=${node.name}`,
    }),
    openVswitch(context.cloud, node),
    ...providerBridges(context),
    unit({
      unit: unitName(context, 'controller'),
      needs: ['network-control:ovn'],
      ready: `[ "$(ovn-appctl --timeout=3 -t ovn-controller connection-status)" = connected ]`,
      expectedSeconds: 3,
      interrupts: 'Traffic of this node’s instances may stop for some seconds.',
    }),
    ...chassisCompat(context),
    ...metadataAgent(context),
  ];
  const last = resources.pop()!;
  return [
    ...resources,
    { ...last, provides: [...last.provides, 'network-agent:ready', `network-agent:ready@${node.name}`] },
  ];
}

export const service: ServiceDeclaration = {
  name: 'network-agent',
  title: 'Network agent',
  sentence: 'Open vSwitch and OVN on a node: networks of its instances, tunnels to the others, metadata.',
  needs: ['network-control'],
  networks: ['tunnel'],
  refusal: cloud => firstRefusal(cloud, 'network-agent', datapathRefusal),
  build,
};
