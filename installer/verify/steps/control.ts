/** The control plane says of itself that it is well: catalogue, token, services, agents. */
import { asProblem } from '../../../provisioner/core/problem.js';
import { items, maybeText, text } from '../../openstack/json.js';
import { SERVICES, type ServiceName } from '../../openstack/services.js';
import { broken, call, LOST_SERVICE_HINT, offers, until, type VerifyContext } from '../context.js';
import { passed, type Step, skipped } from '../runner.js';

const TOKENS = 5;
/** Without these there is no cloud. */
const ALWAYS: readonly ServiceName[] = ['identity', 'image', 'placement', 'compute', 'network'];

export const catalogue: Step<VerifyContext> = {
  name: 'catalogue',
  title: 'The catalogue has the services, and every endpoint answers',
  needs: [],
  expectedSeconds: 3,
  timeoutSeconds: 60,
  hint: 'Look at the service that does not answer: `systemctl status` on the controller, then its log.',
  run: async ({ admin, spec }, control) => {
    const startMs = admin.clock.monotonicMs();
    for (let i = 0; i < TOKENS; i++) {
      control.waitingFor('a token of Keystone');
      admin.renew();
      await admin.session(control.signal);
    }
    const tokenMs = Math.round((admin.clock.monotonicMs() - startMs) / TOKENS);
    const session = await admin.session(control.signal);
    const wanted = [...new Set([...ALWAYS, ...(spec.expect?.services ?? [])])];
    // An entry without an endpoint that the proof can use is as good as none.
    const there = await Promise.all(wanted.map(service => admin.has(service)));
    const inCatalogue = (service: ServiceName) =>
      session.catalogue.some(entry => SERVICES[service].types.includes(entry.type));
    const missing = wanted.filter((service, i) => !there[i] || !inCatalogue(service));
    if (missing.length > 0) broken(`The catalogue lacks: ${missing.join(', ')}.`, LOST_SERVICE_HINT);
    const endpoints = session.catalogue.flatMap(service =>
      service.endpoints
        .filter(e => admin.region === '' || e.region === admin.region)
        .map(e => ({ service: service.type, ...e })),
    );
    control.waitingFor('every endpoint of the catalogue to answer');
    const deaf = await Promise.all(
      endpoints.map(async e => {
        const name = `${e.service} ${e.interface} (${e.url})`;
        if (!URL.canParse(e.url)) return `${name} is no URL`;
        try {
          const { status } = await admin.http.send({
            method: 'GET',
            url: e.url,
            timeoutMs: 20_000,
            signal: control.signal,
          });
          return status >= 500 ? `${name} answers ${status}` : undefined;
        } catch (error) {
          control.signal.throwIfAborted();
          return `${name}: ${asProblem(error, 'cloud-unreachable').message}`;
        }
      }),
    );
    const faults = deaf.filter(fault => fault !== undefined);
    if (faults.length > 0)
      broken(`${faults.length} of ${endpoints.length} endpoints do not answer: ${faults.join('; ')}`);
    return passed({
      services: session.catalogue.map(service => service.type).sort(),
      endpoints: endpoints.length,
      tokenMs,
      ...(spec.dashboardUrl ? { dashboard: spec.dashboardUrl } : {}),
    });
  },
};

interface Health {
  readonly host: string;
  readonly what: string;
  readonly up: boolean;
  /** Taken out of service on purpose. */
  readonly disabled: boolean;
}

/** Why the services are not all up yet, as what is waited for; undefined when they are. */
export function faultsOf(all: readonly Health[], expectedHosts: readonly string[], noun: string): string | undefined {
  const down = all.filter(s => !s.up && !s.disabled).map(s => `${s.what} on ${s.host} is down`);
  const absent = expectedHosts
    .filter(host => !all.some(s => s.host.split('@')[0] === host && s.up && !s.disabled))
    .map(host => `no ${noun} of ${host} is up`);
  const faults = [...down, ...absent];
  return faults.length > 0 ? faults.join('; ') : undefined;
}

export const computeServices: Step<VerifyContext> = {
  name: 'compute-services',
  title: 'Nova’s services and hypervisors are up',
  needs: ['catalogue'],
  expectedSeconds: 1,
  timeoutSeconds: 90,
  hint: 'On the host named: `systemctl status nova-compute`, then /var/log/nova/. A new compute appears after `nova-manage cell_v2 discover_hosts`.',
  run: async (context, control) => {
    const { admin, spec } = context;
    const services = await until(context, control, async () => {
      const { body } = await call(admin, control, 'compute', 'GET', '/os-services');
      const all = items(body, 'services').map(s => ({
        host: text(s, 'host'),
        what: text(s, 'binary'),
        up: s['state'] === 'up',
        disabled: s['status'] === 'disabled',
      }));
      const roles = ['nova-scheduler', 'nova-conductor', 'nova-compute'].filter(
        what => !all.some(s => s.what === what && s.up),
      );
      const computes = all.filter(s => s.what === 'nova-compute');
      const others = all.filter(s => s.what !== 'nova-compute');
      const fault =
        faultsOf(others, [], '') ??
        faultsOf(computes, spec.expect?.computes ?? [], 'nova-compute') ??
        (roles.length > 0 ? `no ${roles.join(', ')} is up` : undefined);
      return fault === undefined ? { done: all } : { waitingFor: `Nova's services: ${fault}` };
    });
    const hypervisors = await until(context, control, async () => {
      const { body } = await call(admin, control, 'compute', 'GET', '/os-hypervisors/detail', undefined, {
        microversion: '2.53',
      });
      const all = items(body, 'hypervisors').map(h => ({
        host: text(h, 'service', 'host'),
        what: 'the hypervisor',
        up: h['state'] === 'up',
        disabled: h['status'] === 'disabled',
      }));
      const computes = services.filter(s => s.what === 'nova-compute' && s.up && !s.disabled).map(s => s.host);
      const fault = faultsOf(all, computes, 'hypervisor');
      return fault === undefined ? { done: all } : { waitingFor: `hypervisors: ${fault}` };
    });
    const usable = hypervisors.filter(h => h.up && !h.disabled).map(h => h.host);
    context.made.computes = [...new Set(usable)].sort();
    const off = services.filter(s => s.disabled).map(s => `${s.what} on ${s.host}`);
    return passed({
      computes: context.made.computes,
      services: services.length,
      ...(off.length > 0 ? { disabled: off } : {}),
    });
  },
};

export const networkAgents: Step<VerifyContext> = {
  name: 'network-agents',
  title: 'Neutron’s agents are alive',
  needs: ['catalogue'],
  expectedSeconds: 1,
  timeoutSeconds: 90,
  hint: 'On the host named: `systemctl status ovn-controller neutron-ovn-metadata-agent`, and whether it reaches OVN’s databases on the controller.',
  run: async (context, control) => {
    const { admin, spec } = context;
    const agents = await until(context, control, async () => {
      const { body } = await call(admin, control, 'network', 'GET', '/agents');
      const all = items(body, 'agents').map(a => ({
        host: text(a, 'host'),
        what: maybeText(a, 'agent_type') ?? text(a, 'binary'),
        up: a['alive'] === true,
        disabled: a['admin_state_up'] === false,
      }));
      const fault =
        faultsOf(all, spec.expect?.networkHosts ?? [], 'agent') ??
        (all.length === 0 ? 'none has registered' : undefined);
      return fault === undefined ? { done: all } : { waitingFor: `Neutron's agents: ${fault}` };
    });
    return passed({ agents: agents.map(a => `${a.what} on ${a.host}`).sort() });
  },
};

export const volumeServices: Step<VerifyContext> = {
  name: 'volume-services',
  title: 'Cinder’s services are up',
  needs: ['catalogue'],
  expectedSeconds: 1,
  timeoutSeconds: 90,
  hint: 'On the host named: `systemctl status cinder-volume`, then /var/log/cinder/cinder-volume.log: a backend that cannot be reached shows there.',
  run: async (context, control) => {
    const { admin, spec } = context;
    if (!(await offers(context, 'volume'))) return skipped('The cloud has no volume service.');
    const services = await until(context, control, async () => {
      const { body } = await call(admin, control, 'volume', 'GET', '/os-services');
      const all = items(body, 'services').map(s => ({
        host: text(s, 'host'),
        what: text(s, 'binary'),
        up: s['state'] === 'up',
        disabled: s['status'] === 'disabled',
      }));
      // By kind: a scheduler on a volume host says nothing of its cinder-volume.
      const backends = all.filter(s => s.what === 'cinder-volume');
      const absent = ['cinder-scheduler', 'cinder-volume'].filter(
        what => !all.some(s => s.what === what && s.up && !s.disabled),
      );
      const fault =
        faultsOf(all, [], '') ??
        faultsOf(backends, spec.expect?.volumeHosts ?? [], 'cinder-volume') ??
        (absent.length > 0 ? `no ${absent.join(', ')} is up` : undefined);
      return fault === undefined ? { done: all } : { waitingFor: `Cinder's services: ${fault}` };
    });
    return passed({ services: services.map(s => `${s.what} on ${s.host}`).sort() });
  },
};
