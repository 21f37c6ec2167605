import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { addressOf, type CloudModel, nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import {
  CA_FILE,
  certificate,
  databaseUrl,
  guarded,
  listenAddress,
  messagingUrl,
  NEUTRON_FILES,
  openstackValues,
  unitName,
} from '../shared.js';
import { networkObjects } from './objects.js';
import { neutronServer } from './server.js';

const MESSAGING_USER = 'neutron';

/** Idle time after which OVN's databases ask whether a client is still there; 5 s (the default) drops busy ones. */
const PROBE_MS = 60_000;
const OVN_SSL = '/etc/ovn/ssl';

/** Only Neutron's server writes here, on the same node: who writes decides on all networks of the cloud. */
const NORTHBOUND = '127.0.0.1';
export const ovnSouthbound = (cloud: CloudModel): string => `ssl:${addressOf(cloud, 'network-control')}:6642`;

/**
 * The northbound database is for this node; the southbound one listens on the management address, for ovn-controllers and
 * metadata agents. Both only for holders of a certificate of the site.
 */
function listenOverTls(address: string): Resource {
  const databases = [
    ['ovn-nbctl', NORTHBOUND, 6641],
    ['ovn-sbctl', address, 6642],
  ] as const;
  const files = `${OVN_SSL}/node.key ${OVN_SSL}/node.crt ${CA_FILE}`;
  return command({
    name: 'ovn-tls',
    title: `Let OVN's databases listen over TLS: the southbound one on ${address}, the northbound one for this node only`,
    check: databases
      .map(
        ([ctl, at, port]) =>
          `[ "$(${ctl} --timeout=5 --bare --no-headings --columns=target,inactivity_probe list connection)" = "pssl:${port}:${at}
${PROBE_MS}" ]
${ctl} --timeout=5 get-ssl | grep -qx 'Private key: ${OVN_SSL}/node.key'
ss -Hltn 'sport = :${port}' | grep -q ${at}:${port}`,
      )
      .join(' && '),
    apply: `${databases
      .map(
        ([ctl, at, port]) => `${ctl} --timeout=30 set-ssl ${files}
${ctl} --timeout=30 set-connection pssl:${port}:${at} -- set connection . inactivity_probe=${PROBE_MS}`,
      )
      .join('\n')}
for at in ${databases.map(([, at, port]) => `${at}:${port}`).join(' ')}; do
  n=0
  until ss -Hltn "src $at" | grep -q .; do
    n=$((n + 1)); [ $n -lt 100 ] || { echo "Nothing listens on $at."; exit 1; }
    sleep 0.1
  done
done`,
    provides: ['network-control:ovn'],
  });
}

/** Tags of a physical network: an untagged one has its name only. */
const vlanRanges = (cloud: CloudModel): string =>
  cloud.settings.provider.map(p => (p.vlanRange ? `${p.physicalNetwork}:${p.vlanRange}` : p.physicalNetwork)).join(',');

function build(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, secret, template } = context;
  const { settings } = cloud;
  const physical = settings.provider.map(p => p.physicalNetwork);
  const ovn = unitName(context, 'ovn');
  const config = (path: string, content: string) =>
    file({ path, content, group: 'neutron', mode: 0o640, grammar: 'ini' });
  const tls = certificate(context, '/etc/neutron/ssl', 'neutron');
  const neutronConf = '/etc/neutron/neutron.conf';
  const ml2Conf = '/etc/neutron/plugins/ml2/ml2_conf.ini';
  return [
    packages(release.packages, { preseed: release.preseed }),
    ...release.mask.map(masked),
    file({ path: '/etc/default/ovn-central', content: template('etc/default/ovn-central.sh.hbs', {}) }),
    ...certificate(context, OVN_SSL, 'root').resources,
    unit({
      unit: ovn,
      watches: ['/etc/default/ovn-central'],
      ready:
        'ovn-nbctl --timeout=3 --no-leader-only get-connection && ovn-sbctl --timeout=3 --no-leader-only get-connection && systemctl is-active --quiet ovn-northd.service',
      expectedSeconds: 3,
      interrupts: 'Changes of networks wait; traffic goes on.',
    }),
    listenOverTls(node.address),
    directory({ path: '/etc/neutron', group: 'neutron', mode: 0o750 }),
    ...tls.resources,
    guarded('neutron', NEUTRON_FILES),
    config(
      neutronConf,
      template('etc/neutron/neutron.conf.hbs', {
        service_plugins: 'ovn-router,trunk',
        ...openstackValues(context, 'neutron'),
        transport_url: messagingUrl(context, MESSAGING_USER),
        bind_host: listenAddress(context),
        mtu: settings.mtu,
        dns_domain: `${cloud.domain}.`,
        database_url: databaseUrl(context, { name: 'neutron', user: 'neutron' }),
        nova_password: secret('identity/nova'),
        placement_password: secret('identity/placement'),
      }),
    ),
    config(
      ml2Conf,
      template('etc/neutron/plugins/ml2/ml2_conf.ini.hbs', {
        type_drivers: 'flat,vlan,geneve',
        tenant_option_is_new: release.options['project_network_types'] === true,
        tenant_types: settings.tenantNetworks,
        mtu: settings.mtu,
        physical_mtus: physical.map(p => `${p}:${settings.mtu}`).join(','),
        flat_networks: physical.join(','),
        vlan_ranges: vlanRanges(cloud),
        nb: `ssl:${NORTHBOUND}:6641`,
        sb: ovnSouthbound(cloud),
        ca: CA_FILE,
        distributed: settings.distributedFloatingIp,
        dns: settings.dns.join(','),
      }),
    ),
    command({
      name: 'schema',
      title: 'Bring the schema of the database neutron up to date',
      needs: ['database:ready'],
      // Over the socket, as root: no password. On other nodes the stamp alone tells.
      check: node.services.includes('database')
        ? 'mysql -N neutron -e "SELECT 1 FROM alembic_version LIMIT 1" | grep -q 1'
        : null,
      stamp: cloud.release.name,
      apply: `su -s /bin/sh -c 'neutron-db-manage --config-file ${neutronConf} --config-file ${ml2Conf} upgrade head' neutron`,
      timeoutSeconds: 600,
      expectedSeconds: 30,
    }),
    ...neutronServer(context, { neutronConf, ml2Conf, tls }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'network-control',
  title: 'Network control',
  sentence: 'Networks, routers, floating IPs and security groups: Neutron with OVN.',
  firstAlone: () => 'the databases of OVN',
  messagingUser: MESSAGING_USER,
  needs: ['database', 'messaging', 'cache', 'identity', 'network-gateway'],
  databases: [{ name: 'neutron', user: 'neutron' }],
  user: 'neutron',
  endpoints: [{ type: 'network', name: 'neutron', port: 9696, path: '' }],
  build,
  objects: networkObjects,
  refusal: networkRefusal,
};

/** The sentence an operator reads when networks of the site file cannot work; null when they can. */
export function networkRefusal(cloud: CloudModel): string | null {
  const { external, provider, providerNetworks, tenantNetworks, distributedFloatingIp } = cloud.settings;
  if (tenantNetworks === 'vlan' && !provider.some(p => p.vlanRange))
    return 'cloud.tenant_networks is vlan, but no provider network has a vlan_range to take tags from.';
  for (const { name, physicalNetwork } of providerNetworks) {
    const deaf = hypervisorWithout(cloud, physicalNetwork);
    if (deaf !== undefined)
      return `${deaf} has no interface on ${physicalNetwork}: virtual machines of the network ${name} could not be there.`;
  }
  if (!external) return null;
  const known = provider.find(p => p.physicalNetwork === external.physicalNetwork);
  if (!known)
    return `The external network lies on ${external.physicalNetwork}, which is no provider network of the site.`;
  const gateways = nodesWith(cloud, 'network-gateway');
  if (!gateways.some(n => n.provider.some(p => p.physicalNetwork === external.physicalNetwork)))
    return `No network node has an interface on ${external.physicalNetwork}, where the external network lies.`;
  const deaf = distributedFloatingIp ? hypervisorWithout(cloud, external.physicalNetwork) : undefined;
  if (deaf !== undefined)
    return `${deaf} has no interface on ${external.physicalNetwork}, and with cloud.distributed_floating_ip floating IPs leave the hypervisors themselves.`;
  return null;
}

/** Name of the first hypervisor that a physical network does not reach. */
const hypervisorWithout = (cloud: CloudModel, physicalNetwork: string): string | undefined =>
  nodesWith(cloud, 'hypervisor').find(n => !n.provider.some(p => p.physicalNetwork === physicalNetwork))?.name;
