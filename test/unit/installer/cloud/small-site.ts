/** The service of the cloud half with a real store, journal and secrets, for nodes that a test gives it. */
import { createCloudService } from '../../../../installer/cloud/service.js';
import type { Catalogue } from '../../../../installer/model/catalogue.js';
import type { ReleaseData } from '../../../../installer/model/releases.js';
import { openTemplates } from '../../../../installer/model/templates.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import type { CloudHost, HandedNode, RunningCloud } from '../../../../provisioner/core/cloud-host.js';
import { createEventFeed } from '../../../../provisioner/core/events.js';
import type { Executor } from '../../../../provisioner/core/executor/types.js';
import { createJournal } from '../../../../provisioner/core/journal.js';
import { silentLog } from '../../../../provisioner/core/log.js';
import { createSecretStore } from '../../../../provisioner/core/secrets.js';
import type { Store } from '../../../../provisioner/core/store/store.js';
import { settings } from '../model/sample.js';

/** What the facts script says on a sound node with the address 127.0.0.LAST. */
export const factsOf = (name: string, last: number, ahead = 0, os = 'debian 12') => `@hostname ${name}
@os ${os}
@kernel 6.1.0 x86_64
@cpus 2
@memory 16000
@kvm yes
@module openvswitch
@free 50000
@links [{"ifname":"eth0","address":"52:54:00:00:00:0${last}","mtu":1500,"flags":["UP"],"addr_info":[{"family":"inet","local":"127.0.0.${last}","prefixlen":24}]},{"ifname":"eth1","mtu":1500}]
@routes []
@disks {}
@begin ${Date.now() + ahead}
@end ${Date.now() + ahead}
`;

export const handed = (name: string, last: number, roles: readonly string[]): HandedNode => ({
  id: `id-${name}`,
  name,
  roles: [...roles],
  target: { address: `127.0.0.${last}`, user: 'root', hostKey: 'ssh-ed25519 AAAA' },
  unreachableBecause: null,
  rolesSetIn: null,
});

export const smallSite = (
  given: {
    readonly dir: string;
    readonly store: Store;
    readonly catalogue: Catalogue;
    readonly release: ReleaseData;
    readonly nodes: readonly HandedNode[];
    readonly executor: Executor;
  },
  over: Partial<CloudHost> = {},
): RunningCloud =>
  createCloudService({
    siteName: 'berlin',
    domain: 'cloud',
    settings: settings({ volumes: { backend: 'none', devices: [] }, dashboard: false }),
    dataDir: given.dir,
    nodes: () => given.nodes,
    node: name => given.nodes.find(n => n.name === name) ?? null,
    setRoles: async () => {},
    onNode: async () => {},
    executor: given.executor,
    journal: createJournal(given.store, systemClock),
    events: createEventFeed(given.store.db, systemClock),
    secrets: createSecretStore(given.store.db, Buffer.alloc(32, 7), systemClock, {}),
    clock: systemClock,
    log: silentLog,
    imageFile: async () => '',
    packageSources: () => null,
    catalogue: given.catalogue,
    release: given.release,
    templates: openTemplates(given.dir),
    machines: { plan: async () => null, prepare: async () => {} },
    ...over,
  });
