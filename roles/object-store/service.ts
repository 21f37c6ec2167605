import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import { listening, unitName, workersOf } from '../shared.js';
import { disksOf, objectsRefusal, PORTS, ringSteps, swiftCommon } from './rings.js';

const SCRIPT = '/usr/local/sbin/halligan-object-disks';
const LIST = '/etc/halligan/object-disks';

/** Daemons beside each server; they find work by themselves and answer nobody. */
const DAEMONS = {
  account: ['account_auditor', 'account_reaper', 'account_replicator'],
  container: ['container_auditor', 'container_replicator', 'container_updater'],
  object: ['object_auditor', 'object_replicator', 'object_updater'],
} as const;

function disks(context: ServiceContext): readonly Resource[] {
  const { cloud, node, template } = context;
  const own = disksOf(cloud, node);
  const whole = own.filter(d => d.fileSize === null).map(d => d.path);
  const name = unitName(context, 'disks');
  const unitFile = `/etc/systemd/system/${name}`;
  return [
    file({ path: SCRIPT, content: template('usr/local/sbin/halligan-object-disks.sh.hbs', {}), mode: 0o755 }),
    file({
      path: LIST,
      content: `# Written by Halligan: NAME LABEL disk PATH | NAME LABEL file PATH SIZE\n${own
        .map(d => `${d.name} ${d.label} ${d.fileSize === null ? `disk ${d.path}` : `file ${d.path} ${d.fileSize}`}\n`)
        .join('')}`,
    }),
    command({
      name: 'disks',
      title: `Make file systems for objects on ${own.map(d => d.path).join(', ')}`,
      check: `${SCRIPT} check`,
      apply: `${SCRIPT} prepare`,
      timeoutSeconds: 300,
      destroys: whole.length > 0 ? `Everything on ${whole.join(', ')} of ${node.name}.` : null,
    }),
    file({ path: unitFile, content: template('etc/systemd/system/halligan-object-disks.service.hbs', {}) }),
    unit({ unit: name, watches: [unitFile, LIST] }),
  ];
}

function servers(context: ServiceContext): readonly Resource[] {
  const { node, template } = context;
  const workers = workersOf(context);
  return (['account', 'container', 'object'] as const).flatMap((kind): readonly Resource[] => {
    const path = `/etc/swift/${kind}-server.conf`;
    const watches = ['/etc/swift/swift.conf', path];
    return [
      file({
        path,
        content: template(`etc/swift/${kind}-server.conf.hbs`, { address: node.storageAddress, workers }),
        group: 'swift',
        mode: 0o640,
        grammar: 'ini',
      }),
      unit({
        unit: unitName(context, kind),
        watches,
        ready: listening(node.storageAddress, PORTS[kind]),
        interrupts: 'Other copies answer while this node’s server restarts.',
      }),
      ...DAEMONS[kind].map(key => unit({ unit: unitName(context, key), watches })),
    ];
  });
}

function build(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, template } = context;
  const rsync = unitName(context, 'rsync');
  const resources: Resource[] = [
    packages(release.packages, { preseed: release.preseed }),
    ...release.mask.map(masked),
    directory({ path: '/srv/node' }),
    ...disks(context),
    ...swiftCommon(context),
    file({
      path: '/etc/rsyncd.conf',
      content: template('etc/rsyncd.conf.hbs', {
        address: node.storageAddress,
        peers: nodesWith(cloud, 'object-store')
          .map(n => n.storageAddress)
          .join(' '),
        modules: Object.keys(PORTS),
      }),
    }),
    unit({ unit: rsync, watches: ['/etc/rsyncd.conf'], ready: listening(node.storageAddress, 873) }),
    ...servers(context),
  ];
  const last = resources.pop()!;
  return [...resources, { ...last, provides: [...last.provides, 'object-store:disks'] }];
}

export const service: ServiceDeclaration = {
  name: 'object-store',
  title: 'Object store',
  sentence: 'Swift’s servers: keep objects on disks, each in several copies.',
  needs: ['object-proxy'],
  wanted: settings => settings.objects.enabled,
  networks: ['storage'],
  refusal: objectsRefusal,
  remember: cloud => ({ ...cloud.memory, rings: ringSteps(cloud) }),
  build,
};
