/** A cloud to build: four nodes as they are in a server room, or what a test makes of them. */
import { createHash } from 'node:crypto';
import { buildDesired, type DesiredState } from '../../../installer/engine/desired.js';
import { buildCloudModel, type NodeInput } from '../../../installer/model/build.js';
import type { Catalogue, SecretKind } from '../../../installer/model/catalogue.js';
import type { CloudModel, NodeFacts } from '../../../installer/model/cloud.js';
import { type CloudMemory, NO_MEMORY } from '../../../installer/model/memory.js';
import { loadRelease, releasesDir } from '../../../installer/model/releases.js';
import type { FileResource } from '../../../installer/model/resources.js';
import { machineFacts, SAMPLE_SETTINGS } from '../../../installer/model/sample.js';
import type { CloudSettings } from '../../../installer/model/settings.js';
import { openTemplates } from '../../../installer/model/templates.js';
import { catalogue as wholeCatalogue } from '../../../roles/catalogue.js';

export const settings = (changes: Partial<CloudSettings> = {}): CloudSettings => ({
  ...SAMPLE_SETTINGS,
  release: 'debian-12-zed',
  provider: [{ physicalNetwork: 'physnet1', interface: 'eth2', vlanRange: null }],
  dns: ['192.0.2.53'],
  ntp: ['192.0.2.123'],
  volumes: { backend: 'ceph', devices: [{ path: '/dev/sdb', fileSize: null }] },
  objects: { enabled: false, replicas: 3, devices: [] },
  ...changes,
});

export const facts = (hostname: string, address: string, changes: Partial<NodeFacts> = {}): NodeFacts => ({
  ...machineFacts({ distribution: 'debian-12' }),
  hostname,
  interfaces: [
    { name: 'lo', mac: '00:00:00:00:00:00', mtu: 65_536, up: true, addresses: ['127.0.0.1/8'], defaultRoute: null },
    {
      name: 'eth0',
      mac: '52:54:00:00:00:01',
      mtu: 1500,
      up: true,
      addresses: [`${address}/24`],
      defaultRoute: '10.99.0.1',
    },
    { name: 'eth1', mac: '52:54:00:00:00:02', mtu: 1500, up: true, addresses: [], defaultRoute: null },
    { name: 'eth2', mac: '52:54:00:00:00:03', mtu: 1500, up: true, addresses: [], defaultRoute: null },
  ],
  disks: [
    { path: '/dev/sda', bytes: 480_000_000_000, mounted: true, signature: 'gpt' },
    { path: '/dev/sdb', bytes: 960_000_000_000, mounted: false, signature: null },
  ],
  ...changes,
});

export const nodeInput = (
  name: string,
  address: string,
  roles: readonly string[],
  changes: Partial<NodeFacts> = {},
): NodeInput => ({ name, roles, sshAddress: address, facts: facts(name, address, changes) });

/** Controller, network, compute and volume node. */
export const fourNodes = (changes: Partial<NodeFacts> = {}): readonly NodeInput[] => [
  nodeInput('ctl', '10.99.0.11', ['controller'], changes),
  nodeInput('net', '10.99.0.12', ['network'], changes),
  nodeInput('cmp', '10.99.0.13', ['compute'], changes),
  nodeInput('vol', '10.99.0.14', ['volume'], changes),
];

export const oneNode = (changes: Partial<NodeFacts> = {}): readonly NodeInput[] => [
  nodeInput('one', '10.99.0.11', ['controller', 'network', 'compute', 'volume'], changes),
];

/** What a container of the lab tells of itself. */
export const inContainer: Partial<NodeFacts> = {
  container: true,
  kvm: false,
  cpus: 2,
  memoryMiB: 4096,
  modules: { openvswitch: false, deviceMapper: false, iscsi: false, vlan: false },
};

/** Stands in a file where the secret will; it says whose. Long enough for what checks lengths. */
const namedSecret = (name: string, kind: SecretKind = 'password'): string => {
  if (kind === 'uuid')
    return createHash('md5')
      .update(name)
      .digest('hex')
      .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  if (kind === 'hex') return createHash('sha256').update(name).digest('hex');
  return `SECRET-${name.replace(/[^A-Za-z0-9]/g, '-')}`;
};

export const tlsOf = (name: string) => ({
  ca: '-----BEGIN CERTIFICATE-----\nCA of the site\n-----END CERTIFICATE-----\n',
  certificate: `-----BEGIN CERTIFICATE-----\ncertificate of ${name}\n-----END CERTIFICATE-----\n`,
  key: `-----BEGIN PRIVATE KEY-----\nSECRET key of ${name}\n-----END PRIVATE KEY-----\n`,
});

export function model(
  nodes: readonly NodeInput[] = fourNodes(),
  changes: Partial<CloudSettings> = {},
  catalogue: Catalogue = wholeCatalogue,
  memory: CloudMemory = NO_MEMORY,
  unseen: readonly string[] = [],
): CloudModel {
  const release = loadRelease(settings(changes).release);
  if (!release) throw new Error('no such release');
  const built = buildCloudModel({
    siteName: 'lab',
    domain: 'lab.example',
    settings: settings(changes),
    release,
    catalogue,
    nodes,
    memory,
    unseen,
  });
  if (!built.ok) throw new Error(built.problems.map(p => `${p.node ?? 'cloud'}: ${p.message} ${p.hint}`).join('\n'));
  return built.model;
}

export function desired(cloud: CloudModel = model(), catalogue: Catalogue = wholeCatalogue): DesiredState {
  return buildDesired({
    catalogue,
    model: cloud,
    secret: namedSecret,
    tls: node => tlsOf(node.name),
    template,
    outside: ['identity:catalog'],
  });
}

export const rolesDir = (): string => releasesDir().replace(/\/releases$/, '');

/** Compiling takes longer than rendering: once for all tests of a file. */
const template = openTemplates(rolesDir()).render;

/** Files of a node by path. */
export const filesOf = (state: DesiredState, node: string): ReadonlyMap<string, FileResource> =>
  new Map(
    state.placed.flatMap(p =>
      p.node === node && p.resource.kind === 'file' ? [[p.resource.path, p.resource] as const] : [],
    ),
  );
