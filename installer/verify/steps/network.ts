/** Networks, router and firewall, made by the plain user; the external network by the administrator. */
import { at, items, number, text, texts } from '../../openstack/json.js';
import { broken, call, made, type VerifyContext } from '../context.js';
import { passed, type Step, skipped } from '../runner.js';
import { sweepAway } from './prepare.js';

export const TENANT_CIDR = '10.213.77.0/24';

export const externalNetwork: Step<VerifyContext> = {
  name: 'external-network',
  title: 'The external network',
  needs: ['identity'],
  expectedSeconds: 1,
  timeoutSeconds: 60,
  hint: 'Look at neutron-server’s log; the physical network must be in ML2’s configuration and in the bridge mappings of the gateway host.',
  run: async (context, control) => {
    const { admin, run, spec } = context;
    const wanted = spec.external;
    const there = await admin.list('network', '/networks?router:external=True', 'networks', { signal: control.signal });
    const usable =
      wanted === null
        ? there[0]
        : wanted.name !== undefined
          ? there.find(n => n['name'] === wanted.name)
          : there.find(n => n['provider:physical_network'] === wanted.physicalNetwork);
    if (usable) {
      const subnets = texts(usable, 'subnets').length;
      if (subnets === 0)
        broken(
          `The external network ${text(usable, 'name')} has no subnet: there are no addresses to float.`,
          'Give it a subnet with an allocation pool.',
        );
      context.made.external = { id: text(usable, 'id'), name: text(usable, 'name'), made: false };
      return passed({ network: text(usable, 'name'), madeForTheRun: false });
    }
    if (wanted?.name !== undefined)
      broken(
        `The cloud has no external network ${wanted.name}, which the site describes.`,
        '`halligan plan` shows that it is missing, `halligan apply` makes it again.',
      );
    if (wanted === null) return skipped('The cloud has no external network, and none is described to make one.');
    const name = `${run}-external`;
    const { body } = await call(admin, control, 'network', 'POST', '/networks', {
      network: {
        name,
        'router:external': true,
        'provider:network_type': wanted.kind,
        'provider:physical_network': wanted.physicalNetwork,
        ...(wanted.vlan === undefined ? {} : { 'provider:segmentation_id': wanted.vlan }),
      },
    });
    const id = text(body, 'network', 'id');
    await call(admin, control, 'network', 'POST', '/subnets', {
      subnet: {
        name,
        network_id: id,
        ip_version: 4,
        cidr: wanted.cidr,
        gateway_ip: wanted.gateway,
        enable_dhcp: false,
        allocation_pools: [{ start: wanted.pool.from, end: wanted.pool.to }],
      },
    });
    context.made.external = { id, name, made: true };
    return passed({ network: name, madeForTheRun: true, cidr: wanted.cidr });
  },
  undo: sweepAway('network'),
};

export const network: Step<VerifyContext> = {
  name: 'network',
  title: 'A network of the project’s own',
  needs: ['identity'],
  expectedSeconds: 1,
  timeoutSeconds: 60,
  hint: 'Look at neutron-server’s log; does it reach OVN’s northbound database?',
  run: async (context, control) => {
    const user = made(context, 'user');
    const name = `${context.run}-network`;
    const network = at(
      (await call(user, control, 'network', 'POST', '/networks', { network: { name } })).body,
      'network',
    );
    const cidr = context.spec.tenantCidr ?? TENANT_CIDR;
    const { body } = await call(user, control, 'network', 'POST', '/subnets', {
      subnet: {
        name,
        network_id: text(network, 'id'),
        ip_version: 4,
        cidr,
        // openstacksdk's default is the opposite of the command line's (knowledge: Q16).
        enable_dhcp: true,
        dns_nameservers: context.spec.dns,
      },
    });
    const mtu = number(network, 'mtu') ?? 0;
    context.made.network = { id: text(network, 'id'), subnetId: text(body, 'subnet', 'id'), mtu };
    return passed({ cidr, mtu });
  },
  undo: sweepAway('port', 'network'),
};

export const router: Step<VerifyContext> = {
  name: 'router',
  title: 'A router between the two',
  needs: ['network', 'external-network'],
  expectedSeconds: 2,
  timeoutSeconds: 60,
  hint: 'Look at neutron-server’s log; a gateway needs a host with the external bridge (`enable-chassis-as-gw` with OVN).',
  run: async (context, control) => {
    const user = made(context, 'user');
    const { body } = await call(user, control, 'network', 'POST', '/routers', {
      router: {
        name: `${context.run}-router`,
        external_gateway_info: { network_id: made(context, 'external').id },
      },
    });
    const id = text(body, 'router', 'id');
    context.made.router = id;
    const subnet_id = made(context, 'network').subnetId;
    await call(user, control, 'network', 'PUT', `/routers/${id}/add_router_interface`, { subnet_id });
    const gateway = items(body, 'router', 'external_gateway_info', 'external_fixed_ips').map(ip =>
      text(ip, 'ip_address'),
    );
    if (gateway.length === 0)
      broken('The router got no address on the external network.', 'Is its allocation pool used up?');
    return passed({ gateway });
  },
  undo: sweepAway('router'),
};

export const securityGroup: Step<VerifyContext> = {
  name: 'security-group',
  title: 'A security group that lets nothing in',
  needs: ['identity'],
  expectedSeconds: 1,
  timeoutSeconds: 60,
  hint: 'Look at neutron-server’s log.',
  run: async (context, control) => {
    const { body } = await call(made(context, 'user'), control, 'network', 'POST', '/security-groups', {
      security_group: { name: `${context.run}-group`, description: 'Closed at first, then ping and SSH.' },
    });
    context.made.group = text(body, 'security_group', 'id');
    const open = items(body, 'security_group', 'security_group_rules').filter(r => r['direction'] === 'ingress');
    if (open.length > 0) broken('A new security group lets traffic in before any rule was made.');
    return passed();
  },
  undo: sweepAway('security group'),
};
