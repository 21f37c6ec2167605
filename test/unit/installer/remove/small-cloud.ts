/** A cloud of two computes that lives in memory: what its APIs, its databases and a shell on its nodes answer. */
import type { OpenStackClient, Reply } from '../../../../installer/openstack/client.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import type { CommandResult, Executor, SshTarget } from '../../../../provisioner/core/executor/types.js';
import { fail, ProblemError } from '../../../../provisioner/core/problem.js';

type Row = Record<string, unknown>;

interface Server {
  id: string;
  name: string;
  host: string;
  status: string;
  task: string | null;
  fault?: string;
}

export interface SmallCloud {
  readonly api: OpenStackClient;
  readonly executor: Executor;
  /** `METHOD service path` of what changes something, and `SHELL address: first telling word` of programs. */
  readonly log: string[];
  services: { id: string; host: string; status: string; state: string; forced_down: boolean }[];
  servers: Server[];
  providers: { uuid: string; name: string; parent: string | null; consumers: Set<string> }[];
  agents: { id: string; host: string }[];
  chassis: string[];
  gateways: string[];
  mappings: string[];
  /** Hosts of services that Nova only marks as deleted. */
  deletedServices: string[];
  ports: { id: string; host: string }[];
  volumeServices: string[];
  /** Behaviours. */
  live: 'moves' | 'stays' | 'errs';
  cold: 'moves' | 'stays' | 'is refused';
  /** ovn-controller does not take its chassis away. */
  chassisStays: boolean;
  /** Nova removes its service, and nothing in Placement. */
  novaForgetsPlacement: boolean;
  /** Addresses that SSH does not reach. */
  readonly silent: Set<string>;
  /** Throws at the n-th request that matches, as a server that is killed does. */
  killAt: RegExp | null;
}

export const ADDRESS = { ctl: '10.99.0.1', cmp: '10.99.0.2', cmp2: '10.99.0.3' } as const;
export const target = (name: keyof typeof ADDRESS): SshTarget => ({
  address: ADDRESS[name],
  user: 'root',
  hostKey: 'ssh-ed25519 x',
});

/** One of the names differs from the others everywhere: hypervisors and providers have the full one. */
export function smallCloud(): SmallCloud {
  const log: string[] = [];
  const cloud: Omit<SmallCloud, 'api' | 'executor'> = {
    log,
    services: ['cmp', 'cmp2'].map(host => ({
      id: `service-${host}`,
      host,
      status: 'enabled',
      state: 'up',
      forced_down: false,
    })),
    servers: [],
    providers: ['cmp', 'cmp2'].map(host => ({
      uuid: `provider-${host}`,
      name: `${host}.lab.example`,
      parent: null,
      consumers: new Set<string>(),
    })),
    agents: ['cmp', 'cmp2'].map(host => ({ id: host, host })),
    chassis: ['net', 'cmp', 'cmp2'],
    gateways: [],
    mappings: ['cmp', 'cmp2'],
    deletedServices: [],
    ports: [],
    volumeServices: [],
    live: 'moves',
    cold: 'moves',
    chassisStays: false,
    novaForgetsPlacement: false,
    silent: new Set(),
    killAt: null,
  };
  const provider = (host: string) => cloud.providers.find(p => p.name.startsWith(`${host}.`));
  const moveTo = (server: Server, host: string) => {
    provider(server.host)?.consumers.delete(server.id);
    server.host = host;
    provider(host)?.consumers.add(server.id);
  };
  const reply = (body: unknown, status = 200): Reply => ({ status, headers: {}, body, bytes: Buffer.alloc(0) });
  const refused = (status: number, said: string) =>
    fail('cloud-api-failed', `failed with ${status}: ${said}`, { detail: { status, said } });

  const lists: Record<string, () => Row[]> = {
    'compute/os-services': () => cloud.services.map(s => ({ ...s, binary: 'nova-compute' })),
    'compute/os-hypervisors': () =>
      cloud.services.map(s => ({ id: `provider-${s.host}`, hypervisor_hostname: `${s.host}.lab.example` })),
    'compute/os-aggregates': () => [],
    'compute/os-migrations': () => [],
    'network/agents': () => cloud.agents.map(a => ({ ...a, agent_type: 'OVN Controller agent' })),
    'network/ports': () => cloud.ports.map(p => ({ id: p.id, 'binding:host_id': p.host, device_owner: '' })),
    'placement/resource_providers': () =>
      cloud.providers.map(p => ({
        uuid: p.uuid,
        name: p.name,
        parent_provider_uuid: p.parent,
        root_provider_uuid: p.parent ?? p.uuid,
      })),
    'compute/servers/detail': () => cloud.servers.map(view),
    'volume/os-services': () =>
      cloud.volumeServices.map(host => ({ binary: 'cinder-volume', host, status: 'enabled' })),
    'volume/volumes/detail': () => [],
  };
  const view = (s: Server): Row => ({
    id: s.id,
    name: s.name,
    status: s.status,
    'OS-EXT-SRV-ATTR:host': s.host,
    'OS-EXT-STS:task_state': s.task,
    fault: s.fault ? { message: s.fault } : undefined,
  });

  function act(server: Server, order: Row): Reply {
    if ('os-migrateLive' in order) {
      if (cloud.live === 'moves') moveTo(server, 'cmp');
      if (cloud.live === 'errs') Object.assign(server, { status: 'ERROR', fault: 'no way' });
    } else if ('migrate' in order) {
      if (cloud.cold === 'is refused') refused(409, 'Service is unavailable at this time.');
      if (cloud.cold === 'moves') {
        moveTo(server, 'cmp');
        server.status = 'VERIFY_RESIZE';
      }
    } else if ('confirmResize' in order) server.status = 'SHUTOFF';
    else if ('shelve' in order) {
      provider(server.host)?.consumers.delete(server.id);
      Object.assign(server, { status: 'SHELVED_OFFLOADED', host: '' });
    } else if ('evacuate' in order) {
      if (!cloud.services.find(s => s.host === server.host)?.forced_down) refused(400, 'Compute service is in use.');
      // What it had stays allocated until the host is back.
      server.host = 'cmp';
      server.status = 'ACTIVE';
      provider('cmp')?.consumers.add(server.id);
    }
    return reply(null, 202);
  }

  const request: OpenStackClient['request'] = async (service, method, path, body) => {
    const line = `${method} ${service} ${path}`;
    if (method !== 'GET') log.push(line);
    if (cloud.killAt?.test(line)) {
      cloud.killAt = null;
      throw new Error('killed');
    }
    const [, list = '', id = '', sub] = path.split('/');
    const gone = <T>(rows: T[], is: (row: T) => boolean) => {
      const at = rows.findIndex(is);
      if (at >= 0) rows.splice(at, 1);
      return reply(null, at < 0 ? 404 : 204);
    };
    if (list === 'servers') {
      const server = cloud.servers.find(s => s.id === id);
      if (!server) return reply({}, 404);
      if (sub === 'os-instance-actions')
        return reply(
          path.endsWith('os-instance-actions')
            ? { instanceActions: [{ request_id: 'r1', message: 'Error' }] }
            : { instanceAction: { events: [{ result: 'Error', details: 'Resize error:\n not able to execute ssh' }] } },
        );
      if (method === 'DELETE') {
        provider(server.host)?.consumers.delete(server.id);
        return gone(cloud.servers, s => s === server);
      }
      return method === 'POST' ? act(server, body as Row) : reply({ server: view(server) });
    }
    if (service === 'compute' && list === 'os-services') {
      const found = cloud.services.find(s => s.id === id);
      if (method === 'PUT') Object.assign(found!, body);
      if (method === 'DELETE') {
        if (cloud.servers.some(s => s.host === found?.host)) refused(409, 'it is hosting instances');
        cloud.mappings = cloud.mappings.filter(m => m !== found?.host);
        if (!cloud.novaForgetsPlacement)
          cloud.providers = cloud.providers.filter(p => !p.name.startsWith(`${found?.host}.`));
        if (found) cloud.deletedServices.push(found.host);
        return gone(cloud.services, s => s === found);
      }
      return reply({});
    }
    if (list === 'resource_providers') {
      const found = cloud.providers.find(p => p.uuid === id);
      if (method === 'DELETE') {
        if (found && found.consumers.size > 0) refused(409, 'it is in use');
        if (cloud.providers.some(p => p.parent === id)) refused(409, 'it has children');
        return gone(cloud.providers, p => p === found);
      }
      return found
        ? reply({ allocations: Object.fromEntries([...found.consumers].map(c => [c, { resources: { VCPU: 1 } }])) })
        : reply({}, 404);
    }
    if (list === 'allocations') {
      const mine = cloud.providers.filter(p => p.consumers.has(id));
      if (method === 'PUT') {
        const rest = Object.keys((body as { allocations: Row }).allocations);
        for (const p of mine) if (!rest.includes(p.uuid)) p.consumers.delete(id);
        return reply(null, 204);
      }
      return reply({
        allocations: Object.fromEntries(mine.map(p => [p.uuid, { resources: { VCPU: 1 } }])),
        consumer_generation: 3,
        project_id: 'p',
        user_id: 'u',
      });
    }
    if (line === 'PUT volume /os-services/disable-log-reason') return reply({});
    if (list === 'agents') return gone(cloud.agents, a => a.id === id);
    if (list === 'ports') {
      const port = cloud.ports.find(p => p.id === id);
      if (port) port.host = (body as { port: { 'binding:host_id': string } }).port['binding:host_id'];
      return reply({}, port ? 200 : 404);
    }
    return refused(404, `nothing at ${line}`);
  };

  const api = {
    region: 'RegionOne',
    clock: systemClock,
    request,
    list: async (service, path) => {
      const rows = lists[`${service}${path.split('?')[0]}`];
      if (!rows) throw new Error(`no list ${service}${path}`);
      return rows();
    },
    has: async () => true,
    close: async () => {},
  } as Partial<OpenStackClient> as OpenStackClient;

  const table = (headings: string[], data: unknown[][]) => `${JSON.stringify({ headings, data })}\n`;
  const uuid = (text: string) => ['uuid', text];
  const ok = (stdout = ''): CommandResult => ({ code: 0, stdout, stderr: '' });

  async function shell(to: SshTarget, script: string): Promise<CommandResult> {
    if (script.includes('@@chassis'))
      return ok(
        `@@chassis\n${table(
          ['_uuid', 'name', 'hostname'],
          cloud.chassis.map(c => [uuid(c), c, `${c}.lab.example`]),
        )}@@privates\n${table(
          ['_uuid', 'name'],
          cloud.chassis.map(c => [uuid(`p-${c}`), c]),
        )}@@gateways\n${table(
          ['_uuid', 'chassis_name'],
          cloud.gateways.map(c => [uuid(`g-${c}`), c]),
        )}@@groups\n${table(['_uuid', 'chassis_name'], [])}@@ports\n${table(
          ['name', 'options'],
          cloud.servers
            .filter(s => s.host !== '')
            .map(s => [
              `port-${s.id}`,
              [
                'map',
                [
                  ['mcast', 'true'],
                  ['requested-chassis', s.host],
                ],
              ],
            ]),
        )}`,
      );
    if (script.includes('shadow_services')) {
      cloud.deletedServices = cloud.deletedServices.filter(h => !script.includes(`'${h}'`));
      return ok();
    }
    if (script.startsWith('mysql'))
      return ok(
        (
          [
            ['nova_api.host_mappings', cloud.mappings],
            ['nova.services', [...cloud.services.map(s => s.host), ...cloud.deletedServices]],
          ] as const
        )
          .flatMap(([table, hosts]) => hosts.filter(h => script.includes(`'${h}'`)).map(h => `${table}\t${h}\n`))
          .join(''),
      );
    if (script === 'true') return ok();
    log.push(
      `SHELL ${to.address}: ${/systemctl stop|chassis-del|lrp-del|cinder-manage|rabbitmqctl/.exec(script)?.[0]}`,
    );
    if (script.includes('systemctl stop')) {
      if (!cloud.chassisStays) cloud.chassis = cloud.chassis.filter(c => c !== 'cmp2');
      for (const s of cloud.services) if (s.host === 'cmp2') s.state = 'down';
    }
    if (script.includes('chassis-del')) cloud.chassis = cloud.chassis.filter(c => c !== 'cmp2');
    if (script.includes('lrp-del-gateway-chassis')) cloud.gateways = [];
    if (script.includes('cinder-manage service remove')) cloud.volumeServices = [];
    return ok();
  }

  const executor: Executor = {
    run: async (to, command, options) => {
      if (cloud.silent.has(to.address))
        throw new ProblemError({ code: 'ssh-failed', message: `${to.address} is silent.`, hint: '', retry: true });
      return shell(to, command === 'sh' ? String(options?.stdin) : command);
    },
    write: async () => {},
    detached: async () => ({ kind: 'exited', code: 0, tail: '' }),
    stop: async () => {},
    close: async () => {},
    publicKey: '',
  };
  return Object.assign(cloud, { api, executor });
}
