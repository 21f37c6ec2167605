/** Owners and modes of configuration: the checks 01 and 02 of each chapter of the Security Guide. Pure. */
import { check, closed, inFolder, laidDown, on, type Seen, said } from '../check.js';
import type { Evidence, SecurityCheck } from '../types.js';

const GUIDE = 'OpenStack Security Guide';

interface Chapter {
  /** `Identity`: the ids are Check-Identity-01 and -02. */
  readonly name: string;
  /** Below /etc, and the account that reads it. */
  readonly folder: string;
  readonly account: string;
  /** Files that the guide names. */
  readonly files: readonly string[];
  /** Services of ours that keep their configuration there. */
  readonly services: readonly string[];
  /** The guide has the service own its files; we do with root, which is stricter. */
  readonly ownedByService?: true;
}

const CHAPTERS: readonly Chapter[] = [
  {
    name: 'Identity',
    folder: 'keystone',
    account: 'keystone',
    files: ['keystone.conf', 'keystone-paste.ini', 'policy.json', 'policy.yaml', 'logging.conf', 'keystone-uwsgi.ini'],
    services: ['identity'],
    ownedByService: true,
  },
  {
    name: 'Compute',
    folder: 'nova',
    account: 'nova',
    files: ['nova.conf', 'nova-compute.conf', 'api-paste.ini', 'policy.json', 'policy.yaml', 'rootwrap.conf'],
    services: ['compute-control', 'hypervisor'],
  },
  {
    name: 'Block',
    folder: 'cinder',
    account: 'cinder',
    files: ['cinder.conf', 'cinder-volume.conf', 'api-paste.ini', 'policy.json', 'policy.yaml', 'rootwrap.conf'],
    services: ['volume-control', 'volume-backend'],
  },
  {
    name: 'Image',
    folder: 'glance',
    account: 'glance',
    files: [
      ...['glance-api-paste.ini', 'glance-api.conf', 'glance-cache.conf', 'glance-manage.conf', 'glance-scrubber.conf'],
      ...['glance-registry-paste.ini', 'glance-registry.conf', 'glance-swift-store.conf', 'glance-swift.conf'],
      ...['policy.json', 'policy.yaml', 'schema-image.json', 'schema.json'],
    ],
    services: ['image'],
  },
  {
    name: 'Neutron',
    folder: 'neutron',
    account: 'neutron',
    files: [
      ...['neutron.conf', 'neutron_ovn_metadata_agent.ini', 'api-paste.ini', 'policy.json', 'policy.yaml'],
      ...['rootwrap.conf'],
    ],
    services: ['network-control', 'network-agent'],
  },
];

/** Nodes of the chapter that have its folder; a gateway has an agent of OVN only, and no configuration of Neutron. */
const homes = (evidence: Evidence, c: Chapter): Seen[] =>
  [...new Map(c.services.flatMap(s => on(evidence, s)).map(s => [s.node.name, s])).values()].filter(
    s => c.services[0] === undefined || s.node.services.includes(c.services[0]) || inFolder(s, `/etc/${c.folder}`).self,
  );

function chapter(c: Chapter): SecurityCheck[] {
  const folder = `/etc/${c.folder}`;
  const applies = laidDown(c.services[0]!, `No node has the service ${c.services[0]}.`);
  const named = (s: Seen) => inFolder(s, folder).files.filter(f => c.files.includes(f.path.slice(folder.length + 1)));
  return [
    check({
      id: `Check-${c.name}-01`,
      title: `Configuration of ${c.account} belongs to root and the group ${c.account}`,
      source: GUIDE,
      applies,
      faults: evidence =>
        homes(evidence, c).flatMap(s => {
          const { self } = inFolder(s, folder);
          const right = (owner: string) => owner === 'root' || (c.ownedByService === true && owner === c.account);
          return [...(self ? [self] : []), ...named(s)]
            .filter(p => !right(p.owner) || p.group !== c.account)
            .map(p => `${s.node.name}: ${p.path} is ${said(p)}`);
        }),
      remark: () =>
        c.ownedByService
          ? `The guide says ${c.account}:${c.account}; with root the service cannot change its own.`
          : null,
    }),
    check({
      id: `Check-${c.name}-02`,
      title: `Only root and the group ${c.account} read its configuration`,
      source: GUIDE,
      applies,
      // The guide lets a closed folder stand for its files; where it is closed, what is in it must be closed, too, if it is named.
      faults: evidence =>
        homes(evidence, c).flatMap(s => {
          const { self } = inFolder(s, folder);
          return [
            ...(closed(self, 0o750) ? [] : [`${s.node.name}: ${folder} is ${self ? said(self) : 'not there'}`]),
            ...named(s)
              .filter(p => !closed(p, 0o640))
              .map(p => `${s.node.name}: ${p.path} is ${said(p)}`),
          ];
        }),
    }),
  ];
}

/** By chapter. */
export const modeChecks: Readonly<Record<string, readonly SecurityCheck[]>> = Object.fromEntries(
  CHAPTERS.map(c => [c.name, chapter(c)]),
);
