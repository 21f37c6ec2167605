import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { type CloudModel, endpointUrl } from '../../installer/model/cloud.js';
import { branch, command, directory, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import type { DesiredObject } from '../../installer/objects/types.js';
import {
  as,
  CA_SOURCE,
  certificate,
  config,
  databaseUrl,
  dropIn,
  folders,
  guarded,
  messagingUrl,
  openstackValues,
  sql,
  sqlEnv,
  startedBy,
  unitName,
  uwsgiApi,
  workersOf,
} from '../shared.js';

const MESSAGING_USER = 'cinder';

const CONFIG = '/etc/cinder/cinder.conf';
const DATABASE = { name: 'cinder', user: 'cinder' };

function build(ctx: ServiceContext): readonly Resource[] {
  const tls = certificate(ctx, '/etc/cinder/tls', 'cinder');
  const scheduler = unitName(ctx, 'scheduler');
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/cinder', group: 'cinder', mode: 0o750 }),
    ...tls.resources,
    ...folders('cinder', ['/var/lib/cinder/tmp']),
    guarded('cinder', ['/etc/cinder/api-paste.ini', '/etc/cinder/resource_filters.json', '/etc/cinder/rootwrap.conf']),
    config(
      'cinder',
      CONFIG,
      ctx.template('etc/cinder/cinder.conf.hbs', {
        ...openstackValues(ctx, 'cinder'),
        transport_url: messagingUrl(ctx, MESSAGING_USER),
        volume_type: ctx.cloud.settings.volumes.backend,
        image_url: endpointUrl(ctx.cloud, 'image'),
        nova_password: ctx.secret('identity/nova'),
        database_url: databaseUrl(ctx, DATABASE),
      }),
    ),
    command({
      name: 'schema',
      title: 'Create the tables of Cinder',
      needs: ['database:ready'],
      check: `[ -n "$(${sql(ctx, 'cinder', 'cinder', 'SELECT version_num FROM alembic_version')})" ]`,
      stamp: ctx.cloud.release.name,
      apply: as('cinder', 'cinder-manage db sync'),
      env: sqlEnv(ctx, 'cinder'),
      timeoutSeconds: 600,
      expectedSeconds: 12,
    }),
    ...branch(
      'api',
      uwsgiApi(ctx, {
        title: 'OpenStack Block Storage API (Cinder)',
        key: 'api',
        ini: '/etc/cinder/cinder-api-uwsgi.ini',
        port: 8776,
        user: 'cinder',
        processes: workersOf(ctx),
        tls,
        watches: [CONFIG],
        interrupts: 'The volume API does not answer for some seconds; volumes go on.',
        needs: ['messaging:ready'],
        provides: ['volume-control:ready'],
        path: '/healthcheck',
      }),
    ),
    ...branch('scheduler', [
      file({
        path: dropIn(scheduler),
        content: startedBy(
          `/usr/bin/cinder-scheduler --config-file=${CONFIG} --log-file=/var/log/cinder/cinder-scheduler.log`,
        ),
      }),
      unit({
        unit: scheduler,
        watches: [dropIn(scheduler), CA_SOURCE, CONFIG],
        expectedSeconds: 4,
        interrupts: 'New volumes wait for some seconds.',
        provides: ['volume-control:ready'],
        needs: ['messaging:ready'],
      }),
    ]),
  ];
}

const objects = (cloud: CloudModel): readonly DesiredObject[] => {
  const { backend } = cloud.settings.volumes;
  if (backend === 'none') return [];
  return [{ kind: 'volume-type', name: backend, public: true, extraSpecs: { volume_backend_name: backend } }];
};

export const service: ServiceDeclaration = {
  name: 'volume-control',
  title: 'Volume control',
  sentence: 'Cinder: takes orders for volumes and finds a place for each.',
  messagingUser: MESSAGING_USER,
  needs: ['database', 'messaging', 'cache', 'identity', 'image', 'compute-control', 'volume-backend'],
  wanted: settings => settings.volumes.backend !== 'none',
  databases: [DATABASE],
  user: 'cinder',
  endpoints: [{ type: 'volumev3', name: 'cinderv3', port: 8776, path: '/v3/%(project_id)s' }],
  build,
  objects,
};
