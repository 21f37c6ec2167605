/**
 * Is the catalogue of roles/ whole? Asked once at start, so that a role that cannot be laid down is refused before anybody
 * plans with it, with the place of the fault: names, templates, and what every service makes of sample clouds in every
 * release that there is data for.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { buildDesired } from '../engine/desired.js';
import { buildCloudModel, type NodeInput } from './build.js';
import type { Catalogue, RoleDeclaration, SecretKind, ServiceDeclaration, ServiceRelease } from './catalogue.js';
import type { CloudModel, CloudNode, NodeFacts } from './cloud.js';
import { NO_MEMORY } from './memory.js';
import type { ReleaseData } from './releases.js';
import type { CloudSettings } from './settings.js';
import { openTemplates, type Templates } from './templates.js';

/** Milestones that the engine brings about itself. */
export const OUTSIDE_MILESTONES: readonly string[] = ['identity:catalog'];

const NAME = /^[a-z]+(-[a-z]+)*$/;

/**
 * Every fault, one line each; empty when there is none.
 * @param rolesDir folder with the services' folders, which hold their templates
 */
export function checkCatalogue(
  catalogue: Catalogue,
  releases: ReadonlyMap<string, ReleaseData>,
  rolesDir: string,
  templates: Templates = openTemplates(rolesDir),
): string[] {
  const faults = [
    ...checkRoles(catalogue),
    ...checkServices(catalogue),
    ...[...catalogue.services.keys()].flatMap(service => checkTemplates(service, rolesDir, templates)),
    ...[...releases.values()].flatMap(release => checkRelease(catalogue, release)),
  ];
  // With a wrong name somewhere, a sample would only say the same in other words.
  if (faults.length > 0) return faults;
  for (const release of releases.values())
    for (const sample of SAMPLES) faults.push(...checkSample(catalogue, release, sample, templates.render));
  return [...new Set(faults)];
}

function checkRoles({ roles, services }: Catalogue): string[] {
  const faults: string[] = [];
  for (const [key, role] of roles) {
    const at = `roles/${key}/role.ts`;
    if (role.name !== key || !NAME.test(key)) faults.push(`${at}: the role calls itself ${JSON.stringify(role.name)}`);
    if (role.services.length === 0) faults.push(`${at}: it has no service`);
    for (const s of role.services) if (!services.has(s)) faults.push(`${at}: there is no service ${JSON.stringify(s)}`);
    for (const [field, others] of [
      ['needs', role.needs],
      ['conflicts', role.conflicts],
    ] as const)
      for (const other of others) {
        if (!roles.has(other.role)) faults.push(`${at}: ${field}: there is no role ${JSON.stringify(other.role)}`);
        if (other.role === key) faults.push(`${at}: ${field}: it names itself`);
      }
    for (const said of [role, ...role.limits, ...role.needs, ...role.conflicts])
      if (!/[.!?]$/.test(said.sentence)) faults.push(`${at}: ${JSON.stringify(said.sentence)} is no sentence`);
    for (const limit of role.limits)
      if (limit.least === undefined && limit.most === undefined) faults.push(`${at}: a limit limits nothing`);
  }
  return faults;
}

function checkServices({ roles, services }: Catalogue): string[] {
  const faults: string[] = [];
  const owners = new Map<string, string>();
  const own = (what: string, service: string) => {
    const other = owners.get(what);
    if (other !== undefined && other !== service)
      faults.push(`roles/${service}/service.ts: ${what} is ${other}'s already`);
    owners.set(what, service);
  };
  const placed = new Set([...roles.values()].flatMap(r => r.services));
  for (const [key, service] of services) {
    const at = `roles/${key}/service.ts`;
    if (service.name !== key || !NAME.test(key))
      faults.push(`${at}: the service calls itself ${JSON.stringify(service.name)}`);
    if (!placed.has(key)) faults.push(`${at}: no role has it`);
    if (!/[.!?]$/.test(service.sentence)) faults.push(`${at}: ${JSON.stringify(service.sentence)} is no sentence`);
    // Two services may need each other: these are wishes for the cloud, not an order.
    for (const need of service.needs) {
      if (!services.has(need)) faults.push(`${at}: needs: there is no service ${JSON.stringify(need)}`);
      if (need === key) faults.push(`${at}: needs: it names itself`);
    }
    for (const d of service.databases ?? []) own(`the database ${d.name}`, key);
    for (const e of service.endpoints ?? []) {
      own(`the endpoint type ${e.type}`, key);
      own(`port ${e.port}`, key);
    }
    if (service.user !== undefined) own(`the user ${service.user}`, key);
  }
  return faults;
}

function checkTemplates(service: string, rolesDir: string, templates: Templates): string[] {
  const dir = join(rolesDir, service, 'files');
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter(entry => !entry.isDirectory())
    .flatMap(entry => {
      const path = join(entry.parentPath, entry.name);
      const at = `roles/${service}/files/${relative(dir, path)}`;
      if (!entry.name.endsWith('.hbs')) return [`${at}: it is no template (.hbs)`];
      try {
        templates.compile(relative(rolesDir, path), at);
        return [];
      } catch (error) {
        return (error as Error).message.split('\n');
      }
    });
}

function checkRelease(catalogue: Catalogue, release: ReleaseData): string[] {
  const at = `roles/releases/${release.name}.yaml`;
  const named = Object.keys(release.services);
  return [
    ...[...catalogue.services.keys()].filter(s => !named.includes(s)).map(s => `${at}: services: ${s} is missing`),
    ...named.filter(s => !catalogue.services.has(s)).map(s => `${at}: services: there is no service ${s}`),
  ];
}

/** A cloud that does not exist, to build for. */
interface Sample {
  readonly title: string;
  /** Roles per node. */
  readonly place: (roles: readonly RoleDeclaration[]) => readonly (readonly string[])[];
  readonly facts: Partial<NodeFacts>;
  readonly settings: Partial<CloudSettings>;
}

const SAMPLES: readonly Sample[] = [
  {
    title: 'nodes of one role',
    // Two of each, where that is allowed, so that each has a twin to be told from.
    place: roles =>
      roles.flatMap(role => (role.limits.some(l => (l.most ?? 2) < 2) ? [[role.name]] : [[role.name], [role.name]])),
    facts: {},
    settings: {},
  },
  {
    title: 'all roles on one container',
    place: roles => [roles.map(r => r.name)],
    facts: {
      container: true,
      kvm: false,
      modules: { openvswitch: false, deviceMapper: false, iscsi: false, vlan: false },
    },
    settings: {
      apiName: 'api.sample.example',
      provider: [{ physicalNetwork: 'physnet1', interface: 'eth1', vlanRange: '100:299' }],
      tenantNetworks: 'vlan',
      distributedFloatingIp: true,
      volumes: { backend: 'ceph', devices: [{ path: '/var/lib/halligan/volumes', fileSize: '8G' }] },
      objects: { enabled: true, replicas: 1, devices: [{ path: '/var/lib/halligan/objects', fileSize: '1G' }] },
      ntp: [],
      dns: [],
      dashboard: false,
    },
  },
];

const SETTINGS: Omit<CloudSettings, 'release'> = {
  region: 'RegionOne',
  apiName: null,
  networks: { management: null, tunnel: '192.0.2.0/24', storage: null },
  provider: [{ physicalNetwork: 'physnet1', interface: 'eth1', vlanRange: null }],
  external: {
    name: 'public',
    physicalNetwork: 'physnet1',
    vlan: null,
    cidr: '203.0.113.0/24',
    gateway: '203.0.113.1',
    pool: { from: '203.0.113.100', to: '203.0.113.200' },
  },
  providerNetworks: [],
  tenantNetworks: 'geneve',
  distributedFloatingIp: false,
  mtu: 1500,
  datapath: 'auto',
  virtualization: 'auto',
  workers: null,
  dns: ['198.51.100.53'],
  ntp: ['198.51.100.123'],
  volumes: { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] },
  objects: { enabled: true, replicas: 2, devices: [{ path: '/dev/sdc', fileSize: null }] },
  dashboard: true,
  flavors: [{ name: 'small', vcpus: 1, memoryMiB: 2048, diskGiB: 10 }],
  config: {},
  packages: null,
};

function sampleFacts(hostname: string, last: number, release: ReleaseData): NodeFacts {
  const [id = '', version = ''] = release.distribution.split('-');
  const link = (name: string, addresses: readonly string[], defaultRoute: string | null = null) => ({
    ...{ name, addresses, defaultRoute, mtu: 1500, up: true },
    mac: `02:00:00:00:00:${last.toString(16).padStart(2, '0')}`,
  });
  const disk = (path: string, mounted: boolean) => ({ path, bytes: 1e12, mounted, signature: mounted ? 'gpt' : null });
  return {
    hostname,
    os: { id, version },
    kernel: '6.1.0',
    architecture: 'x86_64',
    cpus: 8,
    memoryMiB: 32_768,
    container: false,
    kvm: true,
    modules: { openvswitch: true, deviceMapper: true, iscsi: true, vlan: true },
    interfaces: [
      link('eth0', [`198.51.100.${last}/24`], '198.51.100.1'),
      link('eth1', []),
      link('eth2', [`192.0.2.${last}/24`]),
    ],
    disks: [disk('/dev/sda', true), disk('/dev/sdb', false), disk('/dev/sdc', false)],
    clockOffsetMs: 0,
  };
}

function checkSample(
  catalogue: Catalogue,
  release: ReleaseData,
  sample: Sample,
  template: Templates['render'],
): string[] {
  const nodes: NodeInput[] = sample.place([...catalogue.roles.values()]).map((roles, i) => {
    const name = `node${i + 1}`;
    const last = 11 + i;
    return {
      name,
      roles,
      sshAddress: `198.51.100.${last}`,
      facts: { ...sampleFacts(name, last, release), ...sample.facts },
    };
  });
  const at = (what: string) => `${what} (sample: ${sample.title}, ${release.name})`;
  const built = buildCloudModel({
    siteName: 'sample',
    domain: 'sample.example',
    settings: { release: release.name, ...SETTINGS, ...sample.settings },
    release,
    catalogue,
    nodes,
    memory: NO_MEMORY,
  });
  // Roles that exclude each other have no single node; that is their right.
  if (!built.ok) return nodes.length === 1 ? [] : built.problems.map(p => at(`${p.node ?? 'the cloud'}: ${p.message}`));
  const { model } = built;
  const objects = [...catalogue.services.values()].flatMap(service => {
    try {
      service.objects?.(model);
      return [];
    } catch (error) {
      return [at(`roles/${service.name}/service.ts: objects: ${(error as Error).message}`)];
    }
  });
  const faults: string[] = [];
  let whole: string | null = null;
  const asked = new Set<string>();
  try {
    // The order of the whole: milestones that nobody reaches, files that nobody writes, and those that wait for each other.
    const services = Object.entries(model.release.services).map(([name, s]) => [name, watchUnits(s, asked)] as const);
    const watched = { ...model, release: { ...model.release, services: Object.fromEntries(services) } };
    buildDesired({ catalogue, model: watched, secret, tls, template, outside: OUTSIDE_MILESTONES });
    if (asked.size === 0) return objects;
  } catch (error) {
    whole = at((error as Error).message);
  }
  // Something is wrong: each service by itself, so that every fault is found with its place.
  for (const node of model.nodes)
    for (const name of node.services) {
      const service = catalogue.services.get(name)!;
      const unknown = new Set<string>();
      try {
        const ids = buildService(service, model, node, template, unknown).map(r => r.id);
        for (const id of ids.filter((id, i) => ids.indexOf(id) !== i))
          faults.push(at(`roles/${name}/service.ts: ${id} is declared twice on ${node.name}`));
      } catch (error) {
        if (unknown.size === 0) faults.push(at(`roles/${name}/service.ts: ${(error as Error).message}`));
      }
      for (const key of unknown)
        faults.push(
          `roles/releases/${release.name}.yaml: services.${name}.units: ${key} is missing, and the service asks for it`,
        );
    }
  faults.push(...objects);
  return faults.length > 0 || whole === null ? faults : [whole];
}

/** @param unknown takes the keys of units that are asked for in vain */
const watchUnits = (release: ServiceRelease, unknown: Set<string>): ServiceRelease => ({
  ...release,
  units: new Proxy(release.units, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof key === 'string' && value === undefined) unknown.add(key);
      return value;
    },
  }),
});

/** @param unknown takes the keys of units that were asked for in vain */
function buildService(
  service: ServiceDeclaration,
  cloud: CloudModel,
  node: CloudNode,
  template: Templates['render'],
  unknown: Set<string>,
) {
  return service.build({
    cloud,
    node,
    release: watchUnits(cloud.release.services[service.name]!, unknown),
    secret,
    tls: tls(),
    template: (path, values) => template(service.name, path, values),
  });
}

/** Of the right form, and of no use. */
const secret = (_name: string, kind: SecretKind = 'password'): string =>
  ({
    password: 'X'.repeat(40),
    fernet: `${'X'.repeat(43)}=`,
    uuid: '00000000-0000-4000-8000-000000000000',
    ceph: `AQ${'A'.repeat(36)}==`,
    ssh: '-----BEGIN OPENSSH PRIVATE KEY-----\nsample\n-----END OPENSSH PRIVATE KEY-----\n',
    hex: '0'.repeat(64),
  })[kind];
const tls = () => ({ ca: 'CA\n', certificate: 'CERTIFICATE\n', key: 'KEY\n' });
