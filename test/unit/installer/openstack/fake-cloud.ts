/** A cloud that lives in memory: as much of the APIs as we use, over real HTTP, with the ways in which real ones misbehave. */
import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

type Row = Record<string, unknown>;

export interface Misbehaviour {
  /** Answers of this many requests that match `METHOD PATH` (a prefix) before the real one. */
  readonly match: RegExp;
  times: number;
  readonly status: number;
  readonly body: string;
  readonly headers?: Record<string, string>;
  /** The connection is torn down in place of an answer. */
  readonly tear?: boolean;
}

export const busy = (match: RegExp, times: number): Misbehaviour => ({
  match,
  times,
  status: 503,
  body: 'Service Unavailable',
});
export const conflict = (match: RegExp): Misbehaviour => ({
  match,
  times: 1,
  status: 409,
  body: JSON.stringify({ error: { code: 409, message: 'Conflict occurred attempting to store.', title: 'Conflict' } }),
});
export const torn = (match: RegExp, times = 1): Misbehaviour => ({ match, times, status: 0, body: '', tear: true });

interface ServerSim extends Row {
  id: string;
  name: string;
  status: string;
  host: string;
  address: string;
  boots: number;
  project: string;
  group: string;
  volumes: string[];
}

export interface FakeCloud {
  readonly url: string;
  readonly authUrl: string;
  /** `METHOD /service/path` of every request. */
  readonly requests: string[];
  readonly headers: IncomingMessage['headers'][];
  readonly delays: { match: RegExp; ms: number }[];
  /** Types in the catalogue. */
  readonly types: string[];
  mostAtOnce: number;
  readonly tables: Record<string, Row[]>;
  readonly servers: ServerSim[];
  readonly misbehave: Misbehaviour[];
  /** Tokens are refused that were given out before. */
  expireTokens(): void;
  logins: number;
  hosts: string[];
  /** What a new server comes to. */
  serverFate: (name: string) => { status: 'ACTIVE' } | { status: 'ERROR'; fault: string };
  /** What the guest writes; `GUEST-READY` and so on. */
  consoleOf: (server: ServerSim) => string;
  /** Called for each migration: where it goes, or why not. */
  migrationFault: string | null;
  /** Things whose deletion is refused: by name. */
  undeletable: Set<string>;
  readonly hostKeys: Map<string, string>;
  close(): Promise<void>;
}

export const ADMIN_PASSWORD = 'correct horse battery';
const DOMAIN = 'default';

export interface FakeOptions {
  readonly hosts?: readonly string[];
  readonly without?: readonly string[];
  readonly tokenSeconds?: number;
  readonly tls?: { readonly key: string; readonly cert: string };
  /** The catalogue says http:// where Keystone is https://. */
  readonly plainCatalogue?: boolean;
}

export const fakeHostKey = (): string =>
  `ssh-ed25519 ${Buffer.concat([Buffer.from([0, 0, 0, 11]), Buffer.from('ssh-ed25519'), Buffer.from([0, 0, 0, 32]), createHash('sha256').update(randomUUID()).digest()]).toString('base64')}`;

export async function startFakeCloud(options: FakeOptions = {}): Promise<FakeCloud> {
  const tables: Record<string, Row[]> = {
    projects: [{ id: 'p-admin', name: 'admin', domain_id: DOMAIN, enabled: true }],
    users: [{ id: 'u-admin', name: 'admin', domain_id: DOMAIN, enabled: true, password: ADMIN_PASSWORD }],
    roles: [
      { id: 'r-admin', name: 'admin' },
      { id: 'r-member', name: 'member' },
    ],
    role_assignments: [{ user: { id: 'u-admin' }, role: { id: 'r-admin' }, scope: { project: { id: 'p-admin' } } }],
    regions: [{ id: 'RegionOne' }],
    services: [],
    endpoints: [],
    flavors: [],
    images: [],
    networks: [],
    subnets: [],
    routers: [],
    ports: [],
    floatingips: [],
    security_groups: [],
    volumes: [],
    snapshots: [],
    volume_types: [],
    keypairs: [],
    aggregates: [],
    containers: [],
    quotas: [],
    migrations: [],
    actions: [],
  };
  const table = (name: string): Row[] => {
    tables[name] ??= [];
    return tables[name];
  };
  const servers: ServerSim[] = [];
  const contents = new Map<string, Buffer>();
  let generation = 0;
  let counter = 10;
  let atOnce = 0;
  const upgraded = new Set<Duplex>();
  const types = ['identity', 'image', 'placement', 'compute', 'network', 'volumev3', 'object-store'].filter(
    type => !options.without?.includes(type),
  );

  const cloud: FakeCloud = {
    url: '',
    authUrl: '',
    requests: [],
    headers: [],
    delays: [],
    types,
    mostAtOnce: 0,
    tables,
    servers,
    misbehave: [],
    expireTokens: () => {
      generation++;
    },
    logins: 0,
    hosts: [...(options.hosts ?? ['cmp1', 'cmp2'])],
    serverFate: () => ({ status: 'ACTIVE' }),
    consoleOf: s =>
      [
        '[    0.000000] Linux version 6.1',
        `GUEST-INIT up=2.${s.boots}`,
        `GUEST-DHCP ip=${s.address} mask=24 router=10.213.77.1 mtu=1342 routes=`,
        `GUEST-METADATA hostname=${s.name} instance=i-00000001`,
        `GUEST-HOSTKEY ${cloud.hostKeys.get(s.id)}`,
        'GUEST-READY up=10.00',
      ].join('\r\n'),
    migrationFault: null,
    undeletable: new Set(),
    hostKeys: new Map(),
    close: async () => {},
  };

  const listener = (request: IncomingMessage, response: ServerResponse) => {
    void handle(request, response).catch((error: Error) => {
      response.writeHead(500).end(JSON.stringify({ error: { message: `fake: ${error.stack}` } }));
    });
  };
  const http = options.tls ? createTlsServer(options.tls, listener) : createServer(listener);

  // RFC 6455: one binary frame with the banner.
  http.on('upgrade', (request, socket) => {
    const token = new URL(request.url ?? '/', 'http://x').searchParams.get('token');
    if (token !== 'console-token') return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: binary\r\n\r\n`,
    );
    const banner = Buffer.from('RFB 003.008\n');
    socket.write(Buffer.concat([Buffer.from([0x82, banner.length]), banner]));
    upgraded.add(socket);
    socket.on('error', () => {});
  });

  async function bodyOf(request: IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }

  async function handle(request: IncomingMessage, response: ServerResponse) {
    const bytes = await bodyOf(request);
    const url = new URL(request.url ?? '/', 'http://fake');
    const path = decodeURIComponent(url.pathname);
    const method = request.method ?? 'GET';
    cloud.requests.push(`${method} ${path}${url.search}`);
    cloud.headers.push(request.headers);
    cloud.mostAtOnce = Math.max(cloud.mostAtOnce, ++atOnce);
    response.once('close', () => atOnce--);
    const delay = cloud.delays.find(d => d.match.test(path));
    if (delay) await new Promise(resolve => setTimeout(resolve, delay.ms));
    const send = (status: number, body?: unknown, headers: Record<string, string> = {}) => {
      const data = body === undefined ? '' : Buffer.isBuffer(body) ? body : JSON.stringify(body);
      response
        .writeHead(status, {
          'content-type': 'application/json',
          'x-openstack-request-id': `req-${cloud.requests.length}`,
          ...headers,
        })
        .end(data);
    };
    const bad = cloud.misbehave.find(m => m.times > 0 && m.match.test(`${method} ${path}`));
    if (bad) {
      bad.times--;
      if (bad.tear) return void request.socket.destroy();
      response.writeHead(bad.status, { 'x-openstack-request-id': 'req-bad', ...bad.headers }).end(bad.body);
      return;
    }
    const json = (): Row => (bytes.length > 0 ? (JSON.parse(bytes.toString()) as Row) : {});
    const query = url.searchParams;

    if (path === '/identity/v3/auth/tokens') return login(json(), send);
    if (path.startsWith('/horizon')) return horizon(method, path, bytes.toString(), request, response);
    if (path === '/vnc_lite.html') return send(200, Buffer.from('<title>noVNC</title>'));
    if (path === '/info') return send(200, { swift: {}, slo: {}, s3api: {} });
    if (request.headers.authorization?.startsWith('AWS4-HMAC-SHA256')) return s3(method, path, bytes, send);

    const token = /^t:([^:]*):([^:]*):(\d+)$/.exec(String(request.headers['x-auth-token'] ?? ''));
    const [, service = '', ...segments] = path.split('/');
    const rest = `/${segments.join('/')}`;
    if (segments.filter(s => s).length === 0) return send(service === 'compute' ? 300 : 200, { versions: [] });
    if (!token || Number(token[3]) !== generation)
      return send(401, { error: { code: 401, message: 'The request you have made requires authentication.' } });
    const me = { user: token[1]!, project: token[2]! };
    switch (service) {
      case 'identity':
        return identity(method, rest.replace('/v3', ''), query, json, send);
      case 'compute':
        return compute(method, rest.replace('/v2.1', ''), query, json, send, me);
      case 'network':
        return network(method, rest.replace('/v2.0', ''), query, json, send, me);
      case 'volume':
        return volume(method, rest.replace(/^\/v3\/[^/]+/, ''), query, json, send, me);
      case 'image':
        return image(method, rest.replace('/v2', ''), query, bytes, send, me);
      case 'placement':
        return send(200, rest.startsWith('/usages') ? { usages: {} } : { allocations: {} });
      case 'object-store':
        return swift(method, rest.replace(/^\/v1\/[^/]+/, ''), query, bytes, send, me);
      default:
        return send(404, { message: 'no such service' });
    }
  }

  type Send = (status: number, body?: unknown, headers?: Record<string, string>) => void;
  type Me = { user: string; project: string };

  function login(body: Row, send: Send) {
    cloud.logins++;
    const auth = body['auth'] as {
      identity: { password: { user: { name: string; password: string } } };
      scope?: { project: { id?: string; name?: string } };
    };
    const { name, password } = auth.identity.password.user;
    const user = table('users').find(u => u['name'] === name && u['password'] === password);
    const project = table('projects').find(
      p => p['id'] === auth.scope?.project.id || p['name'] === auth.scope?.project.name,
    );
    if (!user || !project)
      return send(401, {
        error: { code: 401, message: `The request you have made requires authentication. (${password})` },
      });
    const now = Date.now();
    const catalog = types.map(type => ({
      type,
      name: type,
      endpoints: ['public', 'internal', 'admin'].map(i => ({
        interface: i,
        region_id: 'RegionOne',
        url:
          cloud.url +
          {
            identity: '/identity',
            image: '/image',
            placement: '/placement',
            compute: '/compute/v2.1',
            network: '/network',
            volumev3: `/volume/v3/${project['id']}`,
            'object-store': `/object-store/v1/AUTH_${project['id']}`,
          }[type as 'identity'],
      })),
    }));
    send(
      201,
      {
        token: {
          issued_at: new Date(now).toISOString(),
          expires_at: new Date(now + (options.tokenSeconds ?? 3600) * 1000).toISOString(),
          user: { id: user['id'], domain: { id: DOMAIN } },
          project: { id: project['id'] },
          roles: [{ name: 'admin' }],
          catalog,
        },
      },
      { 'x-subject-token': `t:${user['id']}:${project['id']}:${generation}` },
    );
  }

  const matches = (row: Row, query: URLSearchParams, keys: readonly string[]) =>
    keys.every(key => !query.has(key) || row[key] === query.get(key));

  function identity(method: string, path: string, query: URLSearchParams, json: () => Row, send: Send) {
    const grant = /^\/projects\/([^/]+)\/users\/([^/]+)\/roles\/([^/]+)$/.exec(path);
    if (grant && method === 'PUT') {
      const [, project, user, role] = grant;
      const there = table('role_assignments').some(
        a =>
          (a['user'] as Row)['id'] === user &&
          (a['role'] as Row)['id'] === role &&
          ((a['scope'] as Row)['project'] as Row)['id'] === project,
      );
      if (!there)
        table('role_assignments').push({ user: { id: user }, role: { id: role }, scope: { project: { id: project } } });
      return send(204);
    }
    if (/credentials\/OS-EC2$/.test(path)) return send(201, { credential: { access: 'AK', secret: 'secret-of-s3' } });
    const [, list = '', id] = path.split('/');
    const key = list.replace(/ies$/, 'y').replace(/s$/, '');
    const rows = table(list);
    if (method === 'GET' && !id) {
      const filtered =
        list === 'role_assignments'
          ? rows.filter(r => ((r['scope'] as Row)['project'] as Row)['id'] === query.get('scope.project.id'))
          : rows.filter(r => matches(r, query, ['name', 'type', 'domain_id']));
      const shown = filtered.map(({ password: _, ...row }) => row);
      return send(200, { [list]: shown, links: { next: null } });
    }
    if (method === 'POST') {
      const row = json()[key] as Row;
      if (rows.some(r => row['name'] !== undefined && list !== 'services' && r['name'] === row['name']))
        return send(409, { error: { code: 409, message: `Conflict occurred: ${list} ${row['name']}` } });
      const made = { id: row['id'] ?? randomUUID(), ...row };
      rows.push(made);
      const { password: _, ...shown } = made as Row;
      return send(201, { [key]: shown });
    }
    const at = rows.findIndex(r => r['id'] === id);
    if (at < 0) return send(404, { error: { code: 404, message: `Could not find ${key}: ${id}.` } });
    if (method === 'PATCH') Object.assign(rows[at]!, json()[key]);
    if (method === 'DELETE') {
      rows.splice(at, 1);
      return send(204);
    }
    send(200, { [key]: rows[at] });
  }

  function serverView(s: ServerSim): Row {
    return {
      id: s.id,
      name: s.name,
      status: s.status,
      'OS-EXT-SRV-ATTR:host': s.host,
      'OS-EXT-SRV-ATTR:instance_name': 'instance-00000001',
      'OS-EXT-STS:task_state': s['task'] ?? null,
      addresses: { net: [{ addr: s.address, version: 4, 'OS-EXT-IPS:type': 'fixed' }] },
      ...(s['fault'] ? { fault: { message: s['fault'] } } : {}),
    };
  }

  function compute(method: string, path: string, query: URLSearchParams, json: () => Row, send: Send, me: Me) {
    const [, list = '', id, sub, subId] = path.split('/');
    if (list === 'os-services')
      return send(200, {
        services: [
          { host: 'ctl', binary: 'nova-scheduler', state: 'up', status: 'enabled' },
          { host: 'ctl', binary: 'nova-conductor', state: 'up', status: 'enabled' },
          ...cloud.hosts.map(host => ({ host, binary: 'nova-compute', state: 'up', status: 'enabled' })),
        ],
      });
    if (list === 'os-hypervisors')
      return send(200, {
        hypervisors: cloud.hosts.map(host => ({ service: { host }, state: 'up', status: 'enabled' })),
      });
    if (list === 'os-quota-sets') {
      const rows = table('quotas');
      if (method === 'PUT') rows.push({ id, set: json()['quota_set'] });
      return send(200, { quota_set: (rows.findLast(r => r['id'] === id)?.['set'] as Row) ?? { instances: 10 } });
    }
    if (list === 'os-migrations') return send(200, { migrations: table('migrations') });
    if (list === 'os-keypairs') {
      const rows = table('keypairs');
      const user = query.get('user_id') ?? me.user;
      if (method === 'POST') rows.push({ ...(json()['keypair'] as Row), user: me.user });
      if (method === 'DELETE') {
        const at = rows.findIndex(r => r['name'] === id && r['user'] === user);
        if (at < 0) return send(404, { itemNotFound: { message: 'no keypair' } });
        rows.splice(at, 1);
        return send(202);
      }
      return send(200, { keypairs: rows.filter(r => r['user'] === user).map(keypair => ({ keypair })) });
    }
    if (list === 'flavors') {
      const rows = table('flavors');
      if (method === 'POST' && !id) {
        const made = { id: randomUUID(), extra_specs: {}, ...(json()['flavor'] as Row) };
        rows.push(made);
        return send(200, { flavor: made });
      }
      if (method === 'POST' && sub === 'action') return send(200, {});
      if (method === 'POST' && sub === 'os-extra_specs') {
        const row = rows.find(r => r['id'] === id)!;
        row['extra_specs'] = { ...(row['extra_specs'] as Row), ...(json()['extra_specs'] as Row) };
        return send(200, {});
      }
      if (method === 'DELETE') return remove(rows, id, send, 202);
      return send(200, { flavors: rows });
    }
    if (list === 'os-aggregates') {
      const rows = table('aggregates');
      if (method === 'POST' && !id) {
        const made = { id: counter++, hosts: [] as string[], metadata: {}, ...(json()['aggregate'] as Row) };
        rows.push(made);
        return send(200, { aggregate: made });
      }
      if (sub === 'action') {
        const row = rows.find(r => String(r['id']) === id)!;
        const action = json() as { add_host?: { host: string }; set_metadata?: { metadata: Row } };
        if (action.add_host) (row['hosts'] as string[]).push(action.add_host.host);
        if (action.set_metadata) Object.assign(row['metadata'] as Row, action.set_metadata.metadata);
        return send(200, { aggregate: row });
      }
      return send(200, { aggregates: rows });
    }
    if (list === 'servers' && method === 'POST' && !id) {
      const wanted = json()['server'] as Row;
      const fate = cloud.serverFate(String(wanted['name']));
      const made: ServerSim = {
        id: randomUUID(),
        name: String(wanted['name']),
        status: fate.status,
        ...(fate.status === 'ERROR' ? { fault: fate.fault } : {}),
        host: fate.status === 'ERROR' ? '' : String(wanted['host'] ?? cloud.hosts[0]),
        address: `10.213.77.${counter++}`,
        boots: 1,
        project: me.project,
        group: String(((wanted['security_groups'] as Row[])[0] as Row)['name']),
        volumes: ((wanted['block_device_mapping_v2'] as Row[]) ?? []).map(b => String(b['uuid'])),
      };
      for (const id of made.volumes) table('volumes').find(v => v['id'] === id)!['status'] = 'in-use';
      servers.push(made);
      cloud.hostKeys.set(made.id, fakeHostKey());
      table('ports').push({
        id: randomUUID(),
        device_id: made.id,
        device_owner: 'compute:nova',
        project_id: me.project,
        name: '',
      });
      return send(202, { server: { id: made.id } });
    }
    if (list === 'servers' && id === 'detail') {
      const name = new RegExp(query.get('name') ?? '');
      return send(200, { servers: servers.filter(s => name.test(s.name)).map(serverView) });
    }
    const server = servers.find(s => s.id === id);
    if (list !== 'servers' || !server)
      return send(404, { itemNotFound: { message: `Instance ${id} could not be found.` } });
    if (sub === 'os-volume_attachments') {
      const volumeId = subId ?? String((json()['volumeAttachment'] as Row)['volumeId']);
      const volume = table('volumes').find(v => v['id'] === volumeId)!;
      if (method === 'DELETE') {
        server.volumes = server.volumes.filter(v => v !== volumeId);
        volume['status'] = 'available';
        return send(202);
      }
      server.volumes.push(volumeId);
      volume['status'] = 'in-use';
      return send(200, { volumeAttachment: { device: '/dev/vdb', volumeId } });
    }
    if (sub === 'remote-consoles')
      return send(200, { remote_console: { url: `${cloud.url}/vnc_lite.html?path=%3Ftoken%3Dconsole-token` } });
    if (sub === 'os-instance-actions')
      return send(
        200,
        subId
          ? {
              instanceAction: {
                events: [
                  { result: cloud.migrationFault ? 'Error' : 'Success', traceback: `x\n${cloud.migrationFault ?? ''}` },
                ],
              },
            }
          : { instanceActions: cloud.migrationFault ? [{ request_id: 'req-1', message: 'Error' }] : [] },
      );
    if (sub === 'action') {
      const action = json();
      if ('os-getConsoleOutput' in action) return send(200, { output: cloud.consoleOf(server) });
      if ('createImage' in action) {
        const made = {
          id: randomUUID(),
          name: (action['createImage'] as Row)['name'],
          status: 'active',
          owner: server.project,
        };
        table('images').push(made);
        return send(202, { image_id: made.id });
      }
      if ('migrate' in action || 'resize' in action) {
        if (!cloud.migrationFault) {
          server.status = 'VERIFY_RESIZE';
          server.host = String((action['migrate'] as Row | undefined)?.['host'] ?? server.host);
          server.boots++;
          cloud.hostKeys.set(server.id, fakeHostKey());
        }
        return send(202);
      }
      if ('confirmResize' in action) server.status = 'ACTIVE';
      if ('os-migrateLive' in action && !cloud.migrationFault)
        server.host = String((action['os-migrateLive'] as Row)['host']);
      if ('os-migrateLive' in action && cloud.migrationFault)
        table('migrations').push({ status: 'error', created_at: '1' });
      return send(202);
    }
    if (method === 'DELETE') {
      if (cloud.undeletable.has(server.name)) return send(500, { computeFault: { message: 'Unexpected API Error.' } });
      servers.splice(servers.indexOf(server), 1);
      for (const v of server.volumes) table('volumes').find(row => row['id'] === v)!['status'] = 'available';
      tables['ports'] = table('ports').filter(p => p['device_id'] !== server.id);
      return send(204);
    }
    send(200, { server: serverView(server) });
  }

  function remove(rows: Row[], id: string | undefined, send: Send, status = 204) {
    const at = rows.findIndex(r => r['id'] === id);
    if (at < 0) return send(404, { NeutronError: { message: `${id} could not be found.`, type: 'NotFound' } });
    rows.splice(at, 1);
    send(status);
  }

  function network(method: string, path: string, query: URLSearchParams, json: () => Row, send: Send, me: Me) {
    const [, list = '', id, sub] = path.split('/');
    if (list === 'agents')
      return send(200, {
        agents: ['net', ...cloud.hosts].map(host => ({
          host,
          agent_type: 'OVN Controller agent',
          alive: true,
          admin_state_up: true,
        })),
      });
    if (list === 'quotas') return send(200, { quota: json()['quota'] ?? {} });
    const name = list.replaceAll('-', '_');
    if (name === 'security_group_rules') {
      const group = (id: unknown) => table('security_groups').find(g => g['id'] === id);
      if (method === 'POST') {
        const rule = { id: randomUUID(), ...(json()['security_group_rule'] as Row) } as Row;
        (group(rule['security_group_id'])!['security_group_rules'] as Row[]).push(rule);
        return send(201, { security_group_rule: rule });
      }
      for (const g of table('security_groups'))
        g['security_group_rules'] = (g['security_group_rules'] as Row[]).filter(r => r['id'] !== id);
      return send(204);
    }
    const key = name.replace(/s$/, '');
    const rows = table(name);
    if (method === 'GET' && !id) {
      const found = rows.filter(
        r =>
          matches(r, query, ['name', 'project_id', 'device_id', 'network_id', 'id']) &&
          (!query.has('router:external') || r['router:external'] === true),
      );
      return send(200, { [name]: found });
    }
    if (method === 'POST') {
      const made: Row = { id: randomUUID(), project_id: me.project, status: 'ACTIVE', ...(json()[key] as Row) };
      if (name === 'networks') Object.assign(made, { mtu: made['mtu'] ?? 1342, subnets: [] });
      if (name === 'subnets')
        (table('networks').find(n => n['id'] === made['network_id'])!['subnets'] as string[]).push(String(made['id']));
      if (name === 'subnets' && made['enable_dhcp'])
        table('ports').push({
          ...{ id: randomUUID(), name: '', network_id: made['network_id'], device_owner: 'network:distributed' },
          fixed_ips: [{ subnet_id: made['id'], ip_address: String(made['cidr']).replace(/\d+\/.*/, '3') }],
        });
      if (name === 'ports') {
        const subnet = table('subnets').find(s => s['network_id'] === made['network_id'])!;
        const address = (made['fixed_ips'] as Row[] | undefined)?.[0]?.['ip_address'];
        made['fixed_ips'] = [{ subnet_id: subnet['id'], ip_address: address ?? '10.120.0.100' }];
        made['mac_address'] ??= 'fa:16:3e:00:00:01';
      }
      if (name === 'security_groups')
        made['security_group_rules'] = [{ id: randomUUID(), direction: 'egress', ethertype: 'IPv4' }];
      if (name === 'floatingips') made['floating_ip_address'] = `10.78.0.${counter++}`;
      if (name === 'routers' && made['external_gateway_info'])
        (made['external_gateway_info'] as Row)['external_fixed_ips'] = [{ ip_address: '10.78.0.100' }];
      rows.push(made);
      return send(201, { [key]: made });
    }
    if (sub === 'add_router_interface') {
      const subnet = json()['subnet_id'];
      if (table('ports').some(p => p['device_id'] === id && (p['fixed_ips'] as Row[])[0]?.['subnet_id'] === subnet))
        return send(400, { NeutronError: { message: 'Router already has a port on subnet', type: 'BadRequest' } });
      table('ports').push({
        id: randomUUID(),
        device_id: id,
        device_owner: 'network:router_interface',
        project_id: me.project,
        fixed_ips: [{ subnet_id: subnet }],
      });
      return send(200, {});
    }
    if (sub === 'remove_router_interface') {
      tables['ports'] = table('ports').filter(p => p['id'] !== json()['port_id']);
      return send(200, {});
    }
    if (method === 'PUT' && name === 'ports') {
      // Options that are not named stay; null takes one away.
      const row = rows.find(r => r['id'] === id)!;
      const options = new Map((row['extra_dhcp_opts'] as Row[]).map(o => [o['opt_name'], o]));
      for (const o of (json()['port'] as Row)['extra_dhcp_opts'] as Row[])
        if (o['opt_value'] === null) options.delete(o['opt_name']);
        else options.set(o['opt_name'], o);
      row['extra_dhcp_opts'] = [...options.values()];
      return send(200, { port: row });
    }
    if (method === 'PUT') {
      Object.assign(rows.find(r => r['id'] === id)!, json()[key]);
      return send(200, { [key]: rows.find(r => r['id'] === id) });
    }
    if (method === 'DELETE') {
      // Neutron's own ports go with their network.
      const own = (p: Row) => p['network_id'] === id && p['device_owner'] === 'network:distributed';
      if (name === 'networks') tables['ports'] = table('ports').filter(p => !own(p));
      if (name === 'networks' && table('ports').some(p => p['network_id'] === id))
        return send(409, { NeutronError: { message: 'ports in use' } });
      return remove(rows, id, send);
    }
    send(200, { [key]: rows.find(r => r['id'] === id) });
  }

  function volume(method: string, path: string, query: URLSearchParams, json: () => Row, send: Send, me: Me) {
    const [, list = '', id, sub] = path.split('/');
    if (list === 'os-services')
      return send(200, {
        services: [
          { host: 'ctl', binary: 'cinder-scheduler', state: 'up', status: 'enabled' },
          { host: 'vol@rbd', binary: 'cinder-volume', state: 'up', status: 'enabled' },
        ],
      });
    if (list === 'os-quota-sets') return send(200, { quota_set: json()['quota_set'] ?? {} });
    const name = list === 'types' ? 'volume_types' : list;
    const key = name.replace(/s$/, '');
    const rows = table(name);
    if (method === 'GET' && (!id || id === 'detail'))
      return send(200, {
        [name]: rows.filter(
          r => !query.has('project_id') || r['os-vol-tenant-attr:tenant_id'] === query.get('project_id'),
        ),
      });
    if (method === 'POST' && sub === 'extra_specs') return send(200, {});
    if (method === 'POST' && !id) {
      const made = {
        id: randomUUID(),
        status: 'available',
        'os-vol-tenant-attr:tenant_id': me.project,
        ...(json()[key] as Row),
      } as Row;
      const from = made['snapshot_id'] && table('snapshots').find(s => s['id'] === made['snapshot_id'])?.['volume_id'];
      if (from) contents.set(String(made['id']), contents.get(String(from)) ?? Buffer.alloc(0));
      rows.push(made);
      return send(202, { [key]: made });
    }
    if (method === 'DELETE') {
      if (rows.find(r => r['id'] === id)?.['status'] === 'in-use')
        return send(400, { badRequest: { message: 'Invalid volume: in use' } });
      return remove(rows, id, send, 202);
    }
    const row = rows.find(r => r['id'] === id);
    if (!row) return send(404, { itemNotFound: { message: 'not found' } });
    if (method === 'PUT') Object.assign(row, json()[key]);
    send(200, { [key]: row });
  }

  function image(method: string, path: string, query: URLSearchParams, bytes: Buffer, send: Send, me: Me) {
    const [, , id, sub] = path.split('/');
    const rows = table('images');
    if (method === 'POST') {
      const made = {
        id: randomUUID(),
        status: 'queued',
        owner: me.project,
        ...(JSON.parse(bytes.toString()) as Row),
      } as Row;
      rows.push(made);
      return send(201, made);
    }
    if (method === 'GET' && !id) {
      const found = rows.filter(r => matches(r, query, ['name', 'owner']));
      const from = query.has('marker') ? found.findIndex(r => r['id'] === query.get('marker')) + 1 : 0;
      const limit = Number(query.get('limit') ?? 25);
      const page = found.slice(from, from + limit);
      return send(200, {
        images: page,
        ...(found.length > from + limit ? { next: `/v2/images?limit=${limit}&marker=${page.at(-1)!['id']}` } : {}),
      });
    }
    const row = rows.find(r => r['id'] === id);
    if (!row) return send(404, { message: 'No image found' });
    if (method === 'PUT' && sub === 'file') {
      Object.assign(row, {
        status: 'active',
        size: bytes.length,
        os_hash_algo: 'sha512',
        os_hash_value: createHash('sha512').update(bytes).digest('hex'),
      });
      return send(204);
    }
    if (method === 'PATCH') {
      for (const { path: p, value } of JSON.parse(bytes.toString()) as { path: string; value: unknown }[])
        row[p.slice(1)] = value;
      return send(200, row);
    }
    if (method === 'DELETE') return remove(rows, id, send);
    send(200, row);
  }

  const objects = new Map<string, Buffer>();

  function swift(method: string, path: string, query: URLSearchParams, bytes: Buffer, send: Send, me: Me) {
    const [, container = '', ...rest] = path.split('/');
    const object = rest.join('/');
    const base = `${me.project}/${container}`;
    if (method === 'GET' && !container)
      return send(
        200,
        table('containers')
          .filter(c => c['project'] === me.project)
          .map(c => ({ name: c['name'] })),
      );
    if (method === 'PUT' && !object) {
      table('containers').push({ name: container, project: me.project });
      return send(201);
    }
    if (method === 'PUT') {
      const parts = query.get('multipart-manifest') ? (JSON.parse(bytes.toString()) as { path: string }[]) : undefined;
      objects.set(
        `${base}/${object}`,
        parts ? Buffer.concat(parts.map(p => objects.get(`${me.project}${p.path}`)!)) : bytes,
      );
      return send(201);
    }
    if (method === 'GET' && !object)
      return send(
        200,
        [...objects.keys()].filter(k => k.startsWith(`${base}/`)).map(k => ({ name: k.slice(base.length + 1) })),
      );
    if (method === 'DELETE' && !object) {
      tables['containers'] = table('containers').filter(c => c['name'] !== container);
      return send(204);
    }
    if (method === 'DELETE') return send(objects.delete(`${base}/${object}`) ? 204 : 404);
    const found = objects.get(`${base}/${object}`);
    send(found ? 200 : 404, found ?? { message: 'not found' });
  }

  function s3(method: string, path: string, bytes: Buffer, send: Send) {
    const key = `s3${path}`;
    if (method === 'PUT') objects.set(key, bytes);
    if (method === 'DELETE') return send(objects.delete(key) ? 204 : 404);
    const found = objects.get(key);
    if (method === 'GET' && path.split('/').length === 2)
      return send(200, Buffer.from('<ListBucketResult><Key>object</Key></ListBucketResult>'));
    send(found ? 200 : 404, method === 'GET' ? found : undefined);
  }

  function horizon(method: string, path: string, body: string, request: IncomingMessage, response: ServerResponse) {
    if (path.endsWith('.css')) return void response.writeHead(200).end('body{}');
    if (method === 'POST') {
      const form = new URLSearchParams(body);
      const user = table('users').find(
        u => u['name'] === form.get('username') && u['password'] === form.get('password'),
      );
      const ok =
        user && form.get('csrfmiddlewaretoken') === 'csrf' && /csrftoken=csrf/.test(request.headers.cookie ?? '');
      return void (ok
        ? response.writeHead(302, { location: '/horizon/', 'set-cookie': 'sessionid=s1; HttpOnly; Path=/' }).end()
        : response.writeHead(200).end('<div class="alert alert-danger">Invalid credentials.</div>'));
    }
    if (path.endsWith('/auth/login/'))
      return void response
        .writeHead(200, { 'set-cookie': 'csrftoken=csrf; Path=/' })
        .end(
          '<link rel="stylesheet" href="/horizon/static/a.css"><form method="POST"><input type="hidden" name="csrfmiddlewaretoken" value="csrf"><input name="username"><input name="password" type="password"><select name="region"><option value="default" selected>x</option></select></form>',
        );
    if (!/sessionid=s1/.test(request.headers.cookie ?? ''))
      return void response.writeHead(302, { location: '/horizon/auth/login/' }).end();
    response.writeHead(200).end('<title>\n Instance Overview - OpenStack Dashboard </title>');
  }

  await new Promise<void>(resolve => http.listen(0, '127.0.0.1', resolve));
  const { port } = http.address() as AddressInfo;
  Object.assign(cloud, {
    url: `${options.tls && !options.plainCatalogue ? 'https' : 'http'}://127.0.0.1:${port}`,
    authUrl: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}/identity/v3`,
    close: () =>
      new Promise<void>(resolve => {
        http.close(() => resolve());
        http.closeAllConnections();
        for (const socket of upgraded) socket.destroy();
      }),
  });
  (cloud as { contents?: Map<string, Buffer> }).contents = contents;
  return cloud;
}

/** What was written to a volume; see FakeReach. */
export const contentsOf = (cloud: FakeCloud): Map<string, Buffer> =>
  (cloud as unknown as { contents: Map<string, Buffer> }).contents;
