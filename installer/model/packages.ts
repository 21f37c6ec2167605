/** Which packages a set of roles needs: what is baked into images, and what an installation brings. Pure. */

import type { CloudSettings } from '../../provisioner/core/cloud-settings.js';
import { fail } from '../../provisioner/core/problem.js';
import { buildCloudModel } from './build.js';
import type { Catalogue } from './catalogue.js';
import type { NodeFacts, Release } from './cloud.js';
import { NO_MEMORY } from './memory.js';

const SAMPLE_SECRETS = {
  password: 'x'.repeat(40),
  fernet: `${'x'.repeat(43)}=`,
  uuid: '00000000-0000-4000-8000-000000000000',
  ceph: `AQ${'x'.repeat(36)}==`,
  ssh: '-----BEGIN OPENSSH PRIVATE KEY-----\nsample\n-----END OPENSSH PRIVATE KEY-----\n',
  hex: '0'.repeat(64),
} as const;

/** A real machine of a release, for what is baked before any is seen: its kernel has everything. */
export const machineFacts = (release: Release): NodeFacts => {
  const [id = '', version = ''] = release.distribution.split(/-(?=[0-9])/);
  return {
    hostname: 'sample',
    os: { id, version },
    kernel: '6',
    architecture: 'x86_64',
    cpus: 8,
    memoryMiB: 65_536,
    container: false,
    kvm: true,
    modules: { openvswitch: true, deviceMapper: true, iscsi: true, vlan: true },
    interfaces: [],
    disks: [],
    clockOffsetMs: 0,
  };
};

export interface BakeList {
  readonly packages: readonly string[];
  /** Lines for debconf-set-selections(1). */
  readonly preseed: readonly string[];
}

/**
 * Packages of a node with these roles, in a cloud that has every role somewhere.
 * @param facts of the nodes that the image is for: kernel modules and containers make a difference
 * @throws ProblemError request-invalid when the roles do not fit together
 */
export function packagesOfRoles(
  input: {
    readonly catalogue: Catalogue;
    readonly release: Release;
    readonly settings: CloudSettings;
    readonly facts: NodeFacts;
  },
  roles: readonly string[],
): BakeList {
  const { catalogue, release, settings } = input;
  const others = [...catalogue.roles.keys()].filter(r => !roles.includes(r));
  const at = (n: number): NodeFacts => ({
    ...input.facts,
    interfaces: [
      {
        name: 'eth0',
        mac: '02:00:00:00:00:01',
        mtu: 1500,
        up: true,
        addresses: [`192.0.2.${n}/24`],
        defaultRoute: '192.0.2.254',
      },
      ...settings.provider.map((p, i) => ({
        name: p.interface,
        mac: `02:00:00:00:01:0${i}`,
        mtu: 1500,
        up: true,
        addresses: [],
        defaultRoute: null,
      })),
    ],
  });
  const sample: CloudSettings = { ...settings, networks: { management: null, tunnel: null, storage: null } };
  const node = (name: string, n: number, has: readonly string[]) => ({
    name,
    roles: has,
    sshAddress: `192.0.2.${n}`,
    facts: { ...at(n), hostname: name },
  });
  const built = buildCloudModel({
    siteName: 'sample',
    domain: 'sample.invalid',
    settings: sample,
    release,
    catalogue,
    memory: NO_MEMORY,
    nodes: [node('a', 1, roles), ...(others.length > 0 ? [node('b', 2, others)] : [])],
  });
  if (!built.ok) return fail('request-invalid', built.problems.map(p => p.message).join(' '));
  const { model } = built;
  const own = model.nodes[0]!;
  const names = new Set<string>();
  const preseed = new Set<string>();
  for (const service of own.services) {
    const declaration = catalogue.services.get(service)!;
    const resources = declaration.build({
      cloud: model,
      node: own,
      release: release.services[service] ?? { packages: [], preseed: [], units: {}, mask: [], wsgi: null, options: {} },
      secret: (_name, kind = 'password') => SAMPLE_SECRETS[kind],
      tls: { ca: '', certificate: '', key: '' },
      template: () => '',
    });
    for (const r of resources) {
      if (r.kind !== 'packages') continue;
      for (const p of r.names) names.add(p);
      for (const line of r.preseed) preseed.add(line);
    }
  }
  return { packages: [...names].sort(), preseed: [...preseed].sort() };
}
