/** Neutron: networks, subnets, routers, security groups. https://docs.openstack.org/api-ref/network/v2/ */
import { fail } from '../../provisioner/core/problem.js';
import { at, items, maybeText, number, text, texts } from '../openstack/json.js';
import { projectId } from './identity.js';
import { type Change, given, type Kind, type Look, reply } from './kind.js';
import type { FieldValue, ObservedObject, SecurityRule } from './types.js';

type Row = Record<string, unknown>;

const networksOf = async (look: Look) => {
  const rows = await look.list('network', '/networks', 'networks');
  for (const row of rows) look.seen(`network:${text(row, 'name')}`, text(row, 'id'));
  return rows;
};

/** Names are not unique in Neutron: the one of the right project, the oldest id of several. */
async function pick(
  look: Look,
  rows: readonly Row[],
  name: string,
  project: string | undefined,
): Promise<Row | undefined> {
  const id = await projectId(look, project);
  return rows
    .filter(r => r['name'] === name && (project === undefined || text(r, 'project_id') === id))
    .sort((a, b) => (text(a, 'created_at') + text(a, 'id') < text(b, 'created_at') + text(b, 'id') ? -1 : 1))[0];
}

const ownerOf = async (change: Change, project: string | undefined) =>
  project === undefined ? undefined : await change.idOf(`project:${project}`);

async function post(change: Change, path: string, key: string, values: Record<string, unknown>): Promise<string> {
  const { body } = await change.client.request('network', 'POST', path, { [key]: given(values) }, reply(change.signal));
  return text(body, key, 'id');
}
async function put(change: Change, path: string, body: unknown, accept: number[] = []): Promise<void> {
  await change.client.request('network', 'PUT', path, body, { ...reply(change.signal), accept });
}
const remover =
  (path: string) =>
  async (change: Change, id: string): Promise<void> => {
    await change.client.request('network', 'DELETE', `${path}/${id}`, undefined, reply(change.signal));
  };

const SEGMENT_FIXED =
  'Neutron cannot move a network to another segment: delete it and what is on it, then apply again.';

export const network: Kind<'network'> = {
  key: d => d.name,
  refers: d => (d.project === undefined ? [] : [`project:${d.project}`]),
  fixed: { provider_type: SEGMENT_FIXED, provider_network: SEGMENT_FIXED, provider_segment: SEGMENT_FIXED },
  fields: d =>
    given({
      description: d.description,
      external: d.external,
      shared: d.shared,
      mtu: d.mtu,
      port_security: d.portSecurity,
      dns_domain: d.dnsDomain,
      provider_type: d.provider?.type,
      provider_network: d.provider?.physicalNetwork,
      provider_segment: d.provider?.segment,
    }) as Record<string, FieldValue>,
  observe: async (look, wanted) => {
    const rows = await networksOf(look);
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const row = await pick(look, rows, d.name, d.project);
      if (!row) continue;
      look.seen(`network:${d.name}`, text(row, 'id'));
      out.set(d.name, {
        id: text(row, 'id'),
        fields: {
          description: text(row, 'description'),
          external: row['router:external'] === true,
          shared: row['shared'] === true,
          mtu: number(row, 'mtu') ?? 0,
          port_security: row['port_security_enabled'] !== false,
          dns_domain: text(row, 'dns_domain'),
          provider_type: text(row, 'provider:network_type'),
          provider_network: text(row, 'provider:physical_network'),
          provider_segment: number(row, 'provider:segmentation_id') ?? null,
        },
      });
    }
    return out;
  },
  create: async (change, d) =>
    post(change, '/networks', 'network', {
      name: d.name,
      project_id: await ownerOf(change, d.project),
      description: d.description,
      'router:external': d.external,
      shared: d.shared,
      mtu: d.mtu,
      port_security_enabled: d.portSecurity,
      dns_domain: d.dnsDomain,
      'provider:network_type': d.provider?.type,
      'provider:physical_network': d.provider?.physicalNetwork,
      'provider:segmentation_id': d.provider?.segment,
    }),
  update: (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    const network = given({
      description: named.has('description') ? d.description : undefined,
      'router:external': named.has('external') ? d.external : undefined,
      shared: named.has('shared') ? d.shared : undefined,
      mtu: named.has('mtu') ? d.mtu : undefined,
      port_security_enabled: named.has('port_security') ? d.portSecurity : undefined,
      dns_domain: named.has('dns_domain') ? d.dnsDomain : undefined,
    });
    return put(change, `/networks/${id}`, { network });
  },
  remove: remover('/networks'),
};

const poolText = (pools: readonly { from: string; to: string }[]) => pools.map(p => `${p.from}-${p.to}`).sort();
const routeText = (routes: readonly { destination: string; nexthop: string }[]) =>
  routes.map(r => `${r.destination} via ${r.nexthop}`).sort();

export const subnet: Kind<'subnet'> = {
  key: d => d.name,
  refers: d => [`network:${d.network}`, ...(d.project === undefined ? [] : [`project:${d.project}`])],
  fixed: { cidr: 'Neutron cannot give a subnet another range: delete it and the ports on it, then apply again.' },
  fields: d =>
    given({
      cidr: d.cidr,
      gateway: d.gateway,
      dhcp: d.dhcp ?? true,
      pools: d.pools && poolText(d.pools),
      dns: d.dns,
      host_routes: d.hostRoutes && routeText(d.hostRoutes),
    }) as Record<string, FieldValue>,
  observe: async (look, wanted) => {
    const [rows, networks] = await Promise.all([look.list('network', '/subnets', 'subnets'), networksOf(look)]);
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const on = new Set(networks.filter(n => n['name'] === d.network).map(n => n['id']));
      const row = await pick(
        look,
        rows.filter(r => on.has(r['network_id'])),
        d.name,
        d.project,
      );
      if (!row) continue;
      out.set(d.name, {
        id: text(row, 'id'),
        fields: {
          cidr: text(row, 'cidr'),
          gateway: maybeText(row, 'gateway_ip') ?? null,
          dhcp: row['enable_dhcp'] === true,
          pools: poolText(items(row, 'allocation_pools').map(p => ({ from: text(p, 'start'), to: text(p, 'end') }))),
          dns: texts(row, 'dns_nameservers'),
          host_routes: routeText(
            items(row, 'host_routes').map(r => ({ destination: text(r, 'destination'), nexthop: text(r, 'nexthop') })),
          ),
        },
      });
    }
    return out;
  },
  create: async (change, d) =>
    post(change, '/subnets', 'subnet', {
      name: d.name,
      network_id: await change.idOf(`network:${d.network}`),
      project_id: await ownerOf(change, d.project),
      cidr: d.cidr,
      ip_version: d.cidr.includes(':') ? 6 : 4,
      gateway_ip: d.gateway,
      enable_dhcp: d.dhcp ?? true,
      allocation_pools: d.pools?.map(p => ({ start: p.from, end: p.to })),
      dns_nameservers: d.dns,
      host_routes: d.hostRoutes,
    }),
  update: (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    const subnet = given({
      gateway_ip: named.has('gateway') ? d.gateway : undefined,
      enable_dhcp: named.has('dhcp') ? (d.dhcp ?? true) : undefined,
      allocation_pools: named.has('pools') ? d.pools?.map(p => ({ start: p.from, end: p.to })) : undefined,
      dns_nameservers: named.has('dns') ? d.dns : undefined,
      host_routes: named.has('host_routes') ? d.hostRoutes : undefined,
    });
    return put(change, `/subnets/${id}`, { subnet });
  },
  remove: remover('/subnets'),
};

export const router: Kind<'router'> = {
  key: d => d.name,
  refers: d => [
    ...(d.external === undefined ? [] : [`network:${d.external}`]),
    ...(d.interfaces ?? []).map(name => `subnet:${name}`),
    ...(d.project === undefined ? [] : [`project:${d.project}`]),
  ],
  fields: d => ({
    ...(given({ external: d.external, snat: d.snat }) as Record<string, FieldValue>),
    ...Object.fromEntries((d.interfaces ?? []).map(name => [`interface ${name}`, true])),
  }),
  observe: async (look, wanted) => {
    const [rows, networks, subnets] = await Promise.all([
      look.list('network', '/routers', 'routers'),
      networksOf(look),
      look.list('network', '/subnets', 'subnets'),
    ]);
    const out = new Map<string, ObservedObject>();
    await Promise.all(
      wanted.map(async d => {
        const row = await pick(look, rows, d.name, d.project);
        if (!row) return;
        const id = text(row, 'id');
        const ports = await look.list('network', `/ports?device_id=${id}`, 'ports');
        const on = new Set(
          ports
            .filter(p => /router_interface|ha_router/.test(text(p, 'device_owner')))
            .flatMap(p => items(p, 'fixed_ips').map(ip => text(ip, 'subnet_id'))),
        );
        const gateway = text(row, 'external_gateway_info', 'network_id');
        out.set(d.name, {
          id,
          fields: {
            external: text(
              networks.find(n => n['id'] === gateway),
              'name',
            ),
            snat: at(row, 'external_gateway_info', 'enable_snat') !== false,
            ...Object.fromEntries(
              subnets.filter(s => on.has(text(s, 'id'))).map(s => [`interface ${text(s, 'name')}`, true]),
            ),
          },
        });
      }),
    );
    return out;
  },
  create: async (change, d) => {
    const id = await post(change, '/routers', 'router', {
      name: d.name,
      project_id: await ownerOf(change, d.project),
      external_gateway_info: await gatewayOf(change, d),
    });
    await addInterfaces(change, id, d.interfaces ?? []);
    return id;
  },
  update: async (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    if (named.has('external') || named.has('snat'))
      await put(change, `/routers/${id}`, { router: { external_gateway_info: await gatewayOf(change, d) } });
    await addInterfaces(
      change,
      id,
      (d.interfaces ?? []).filter(name => named.has(`interface ${name}`)),
    );
  },
};

async function gatewayOf(change: Change, d: { external?: string; snat?: boolean }) {
  if (d.external === undefined) return undefined;
  return given({ network_id: await change.idOf(`network:${d.external}`), enable_snat: d.snat });
}

async function addInterfaces(change: Change, id: string, subnets: readonly string[]): Promise<void> {
  for (const name of subnets) {
    const subnet_id = await change.idOf(`subnet:${name}`);
    try {
      await put(change, `/routers/${id}/add_router_interface`, { subnet_id });
    } catch (error) {
      // Neutron answers 400 for "already has a port on this subnet", as for every other fault.
      const { body } = await change.client.request(
        'network',
        'GET',
        `/ports?device_id=${id}`,
        undefined,
        reply(change.signal),
      );
      const there = items(body, 'ports').some(p => items(p, 'fixed_ips').some(ip => ip['subnet_id'] === subnet_id));
      if (!there) throw error;
    }
  }
}

/** `4 tcp 22-22 from 0.0.0.0/0` */
function ruleText(rule: SecurityRule): string {
  const version = rule.ipVersion ?? (rule.remote?.includes(':') ? 6 : 4);
  // Neutron takes "any address" as null and as 0.0.0.0/0, and gives back what it took.
  const remote = rule.remote && !/\/0$/.test(rule.remote) ? rule.remote : 'any';
  return `${version} ${rule.protocol ?? 'any'}${rule.ports ? ` ${rule.ports.from}-${rule.ports.to}` : ''} from ${remote}`;
}

const ingressRows = (group: unknown) =>
  items(group, 'security_group_rules')
    .filter(r => r['direction'] === 'ingress')
    .map(r => ({
      id: text(r, 'id'),
      text: text(r, 'remote_group_id')
        ? `${text(r, 'ethertype') === 'IPv6' ? 6 : 4} ${maybeText(r, 'protocol') ?? 'any'} from group ${text(r, 'remote_group_id')}`
        : ruleText({
            direction: 'ingress',
            ipVersion: text(r, 'ethertype') === 'IPv6' ? 6 : 4,
            ...(maybeText(r, 'protocol') === undefined ? {} : { protocol: text(r, 'protocol') }),
            ...(number(r, 'port_range_min') === undefined
              ? {}
              : { ports: { from: number(r, 'port_range_min')!, to: number(r, 'port_range_max') ?? 0 } }),
            ...(maybeText(r, 'remote_ip_prefix') === undefined ? {} : { remote: text(r, 'remote_ip_prefix') }),
          }),
    }));

const ingress = (rules: readonly SecurityRule[]) => [
  ...new Set(
    rules
      .filter(r => r.direction === 'ingress')
      .map(ruleText)
      .sort(),
  ),
];

async function addRules(change: Change, group: string, rules: readonly SecurityRule[]): Promise<void> {
  await Promise.all(
    rules.map(rule =>
      change.client.request(
        'network',
        'POST',
        '/security-group-rules',
        {
          security_group_rule: given({
            security_group_id: group,
            direction: rule.direction,
            ethertype: (rule.ipVersion ?? (rule.remote?.includes(':') ? 6 : 4)) === 6 ? 'IPv6' : 'IPv4',
            protocol: rule.protocol,
            port_range_min: rule.ports?.from,
            port_range_max: rule.ports?.to,
            remote_ip_prefix: rule.remote,
          }),
        },
        // 409: it is there.
        { ...reply(change.signal), accept: [409] },
      ),
    ),
  );
}

export const securityGroup: Kind<'security-group'> = {
  key: d => d.name,
  refers: d => (d.project === undefined ? [] : [`project:${d.project}`]),
  fields: d => ({
    ...(d.description === undefined ? {} : { description: d.description }),
    rules: ingress(d.rules),
  }),
  observe: async (look, wanted) => {
    const rows = await look.list('network', '/security-groups', 'security_groups');
    const own = (await look.client.session(look.signal)).projectId;
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      // `default` is in every project: without a name of one, ours is meant.
      const among = d.project === undefined ? rows.filter(r => text(r, 'project_id') === own) : rows;
      const row = await pick(look, among, d.name, d.project);
      if (row)
        out.set(d.name, {
          id: text(row, 'id'),
          fields: {
            description: text(row, 'description'),
            rules: [...new Set(ingressRows(row).map(r => r.text))].sort(),
          },
        });
    }
    return out;
  },
  create: async (change, d) => {
    const id = await post(change, '/security-groups', 'security_group', {
      name: d.name,
      project_id: await ownerOf(change, d.project),
      description: d.description,
    });
    await addRules(change, id, d.rules);
    return id;
  },
  update: async (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    if (named.has('description'))
      await put(change, `/security-groups/${id}`, { security_group: { description: d.description } });
    if (!named.has('rules')) return;
    const { body } = await change.client.request(
      'network',
      'GET',
      `/security-groups/${id}`,
      undefined,
      reply(change.signal),
    );
    const group = at(body, 'security_group');
    if (group === undefined) fail('cloud-api-failed', `Neutron shows no security group ${id}.`);
    const there = ingressRows(group);
    const wanted = new Set(ingress(d.rules));
    await addRules(
      change,
      id,
      d.rules.filter(r => r.direction === 'ingress' && !there.some(t => t.text === ruleText(r))),
    );
    await Promise.all(
      there
        .filter(t => !wanted.has(t.text))
        .map(t =>
          change.client.request('network', 'DELETE', `/security-group-rules/${t.id}`, undefined, {
            ...reply(change.signal),
            accept: [404],
          }),
        ),
    );
  },
  remove: remover('/security-groups'),
};
