/** Neutron: ports that are there before their servers. https://docs.openstack.org/api-ref/network/v2/#ports */
import { at, items, text } from '../openstack/json.js';
import { projectId } from './identity.js';
import { type Change, type Desired, given, type Kind, reply } from './kind.js';
import type { FieldValue, ObservedObject } from './types.js';

type Row = Record<string, unknown>;

const ROUTES = 'classless-static-route';
const METADATA = '169.254.169.254/32';
const FIXED = 'Neutron cannot give a port another one: delete the port, then apply again.';

/** Ours, as Neutron takes and gives them back; it may put text into quotation marks. */
const unquoted = (value: string) => value.replace(/^"(.*)"$/, '$1');

/**
 * Classless routes with another router as the way out; undefined where the router alone is enough. A client that gets
 * option 121 ignores option 3 (RFC 3442), and OVN sends 121 wherever there are metadata or routes of the subnet.
 */
export function routesBehind(router: string, metadata: string | undefined, routes: readonly Row[]): string | undefined {
  const pairs = [
    ...(metadata === undefined ? [] : [`${METADATA},${metadata}`]),
    ...routes.map(r => `${text(r, 'destination')},${text(r, 'nexthop')}`),
  ];
  return pairs.length === 0 ? undefined : `{${[...pairs, `0.0.0.0/0,${router}`].join(', ')}}`;
}

/** The port of the subnet that answers for metadata, as far as it has one. */
const metadataAddress = (ports: readonly Row[], network: string, subnet: string): string | undefined =>
  ports
    .filter(p => text(p, 'network_id') === network && /^network:(distributed|dhcp)$/.test(text(p, 'device_owner')))
    .flatMap(p => items(p, 'fixed_ips'))
    .filter(ip => text(ip, 'subnet_id') === subnet)
    .map(ip => text(ip, 'ip_address'))[0];

/** What DHCP is told of a port: what is wanted, and the routes that follow from it. */
function optionsOf(
  d: Desired<'port'>,
  subnet: Row | undefined,
  ports: readonly Row[],
): Readonly<Record<string, string>> {
  const router = d.dhcpOptions['router'];
  if (router === undefined || d.dhcpOptions[ROUTES] !== undefined || subnet === undefined) return d.dhcpOptions;
  const metadata = metadataAddress(ports, text(subnet, 'network_id'), text(subnet, 'id'));
  const routes = routesBehind(router, metadata, items(subnet, 'host_routes'));
  return routes === undefined ? d.dhcpOptions : { ...d.dhcpOptions, [ROUTES]: routes };
}

const optionTexts = (options: Readonly<Record<string, string>>) =>
  Object.entries(options)
    .map(([name, value]) => `${name}=${value}`)
    .sort();

const optionsIn = (row: unknown): Record<string, string> =>
  Object.fromEntries(items(row, 'extra_dhcp_opts').map(o => [text(o, 'opt_name'), unquoted(text(o, 'opt_value'))]));

const asBody = (options: Readonly<Record<string, string>>) =>
  Object.entries(options).map(([opt_name, opt_value]) => ({ opt_name, opt_value, ip_version: 4 }));

async function rowsOf(change: Change, path: string, key: string): Promise<Row[]> {
  const { body } = await change.client.request('network', 'GET', path, undefined, reply(change.signal));
  return items(body, key);
}

/** Options of a port that is there: its subnet is known from its address. */
async function optionsFor(change: Change, d: Desired<'port'>, row: unknown): Promise<Readonly<Record<string, string>>> {
  if (d.dhcpOptions['router'] === undefined) return d.dhcpOptions;
  const id = text(items(row, 'fixed_ips')[0], 'subnet_id');
  const network = text(row, 'network_id');
  const [subnets, ports] = await Promise.all([
    rowsOf(change, `/subnets?id=${id}`, 'subnets'),
    rowsOf(change, `/ports?network_id=${network}`, 'ports'),
  ]);
  return optionsOf(d, subnets[0], ports);
}

export const port: Kind<'port'> = {
  key: d => d.name,
  refers: d => [
    `network:${d.network}`,
    ...d.subnets.map(name => `subnet:${name}`),
    ...(d.project === undefined ? [] : [`project:${d.project}`]),
  ],
  fixed: { mac: FIXED, address: FIXED },
  fields: d =>
    given({ address: d.address, mac: d.mac, dhcp_options: optionTexts(d.dhcpOptions) }) as Record<string, FieldValue>,
  observe: async (look, wanted) => {
    const [rows, networks, subnets] = await Promise.all([
      look.list('network', '/ports', 'ports'),
      look.list('network', '/networks', 'networks'),
      look.list('network', '/subnets', 'subnets'),
    ]);
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const project = await projectId(look, d.project);
      const on = new Set(networks.filter(n => n['name'] === d.network).map(n => n['id']));
      const row = rows
        .filter(
          r =>
            r['name'] === d.name &&
            on.has(r['network_id']) &&
            (d.project === undefined || text(r, 'project_id') === project),
        )
        .sort((a, b) => (text(a, 'created_at') + text(a, 'id') < text(b, 'created_at') + text(b, 'id') ? -1 : 1))[0];
      if (!row) continue;
      const ip = items(row, 'fixed_ips')[0];
      const seen = optionsIn(row);
      // Routes that we made of the router are not wanted by name: they count when they are not what they should be.
      const made = optionsOf(
        d,
        subnets.find(s => s['id'] === text(ip, 'subnet_id')),
        rows,
      )[ROUTES];
      if (d.dhcpOptions[ROUTES] === undefined && seen[ROUTES] === made) delete seen[ROUTES];
      else if (d.dhcpOptions[ROUTES] === undefined && made !== undefined && seen[ROUTES] === undefined)
        seen[ROUTES] = '(missing)';
      out.set(d.name, {
        id: text(row, 'id'),
        fields: { address: text(ip, 'ip_address'), mac: text(row, 'mac_address'), dhcp_options: optionTexts(seen) },
      });
    }
    return out;
  },
  create: async (change, d) => {
    const { body } = await change.client.request(
      'network',
      'POST',
      '/ports',
      {
        port: given({
          name: d.name,
          network_id: await change.idOf(`network:${d.network}`),
          project_id: d.project === undefined ? undefined : await change.idOf(`project:${d.project}`),
          fixed_ips: d.address === undefined ? undefined : [{ ip_address: d.address }],
          mac_address: d.mac,
          extra_dhcp_opts: asBody(d.dhcpOptions),
        }),
      },
      reply(change.signal),
    );
    const id = text(body, 'port', 'id');
    // Which subnet it is on, and so its routes, are known only now.
    const options = await optionsFor(change, d, at(body, 'port'));
    if (options !== d.dhcpOptions) await putOptions(change, id, options, {});
    return id;
  },
  update: async (change, d, id, changes) => {
    if (!changes.some(c => c.field === 'dhcp_options')) return;
    const { body } = await change.client.request('network', 'GET', `/ports/${id}`, undefined, reply(change.signal));
    const row = at(body, 'port');
    await putOptions(change, id, await optionsFor(change, d, row), optionsIn(row));
  },
};

/** Options that are not named stay; without a value they go. */
async function putOptions(
  change: Change,
  id: string,
  options: Readonly<Record<string, string>>,
  before: Readonly<Record<string, string>>,
): Promise<void> {
  const gone = Object.keys(before).filter(name => options[name] === undefined);
  await change.client.request(
    'network',
    'PUT',
    `/ports/${id}`,
    {
      port: {
        extra_dhcp_opts: [...asBody(options), ...gone.map(opt_name => ({ opt_name, opt_value: null, ip_version: 4 }))],
      },
    },
    reply(change.signal),
  );
}
