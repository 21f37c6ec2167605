import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { endpointUrl } from '../../installer/model/cloud.js';
import { command, directory, packages, type Resource } from '../../installer/model/resources.js';
import {
  as,
  certificate,
  config,
  databaseUrl,
  folders,
  guarded,
  openstackValues,
  sql,
  sqlEnv,
  uwsgiApi,
  workersOf,
} from '../shared.js';

const CONFIG = '/etc/glance/glance-api.conf';
const DATABASE = { name: 'glance', user: 'glance' };

function build(ctx: ServiceContext): readonly Resource[] {
  const tls = certificate(ctx, '/etc/glance/tls', 'glance');
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/glance', group: 'glance', mode: 0o750 }),
    ...tls.resources,
    ...folders('glance', [
      '/var/lib/glance',
      ...['images', 'staging', 'tasks', 'lock'].map(f => `/var/lib/glance/${f}`),
    ]),
    guarded('glance', [
      '/etc/glance/glance-api-paste.ini',
      '/etc/glance/glance-cache.conf',
      '/etc/glance/glance-manage.conf',
      '/etc/glance/glance-scrubber.conf',
      '/etc/glance/glance-swift.conf',
      '/etc/glance/rootwrap.conf',
      '/etc/glance/schema-image.json',
    ]),
    config(
      'glance',
      CONFIG,
      ctx.template('etc/glance/glance-api.conf.hbs', {
        ...openstackValues(ctx, 'glance'),
        image_url: endpointUrl(ctx.cloud, 'image'),
        own_url: `https://${ctx.node.address}:9292`,
        database_url: databaseUrl(ctx, DATABASE),
      }),
    ),
    command({
      name: 'schema',
      title: 'Create the tables of Glance',
      needs: ['database:ready'],
      check: `[ -n "$(${sql(ctx, 'glance', 'glance', 'SELECT version_num FROM alembic_version')})" ]`,
      stamp: ctx.cloud.release.name,
      apply: as('glance', 'glance-manage db_sync'),
      env: sqlEnv(ctx, 'glance'),
      timeoutSeconds: 600,
      expectedSeconds: 10,
    }),
    ...uwsgiApi(ctx, {
      title: 'OpenStack Image API (Glance)',
      key: 'api',
      ini: '/etc/glance/glance-api-uwsgi.ini',
      port: 9292,
      user: 'glance',
      processes: workersOf(ctx),
      tls,
      watches: [CONFIG],
      interrupts: 'Up- and downloads of images are cut off.',
      provides: ['image:ready'],
      path: '/healthcheck',
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'image',
  title: 'Images',
  sentence: 'Glance: the disks that servers start from, kept as files on the controller.',
  firstAlone: () => 'the images',
  needs: ['database', 'identity', 'cache'],
  databases: [DATABASE],
  user: 'glance',
  endpoints: [{ type: 'image', name: 'glance', port: 9292, path: '' }],
  build,
};
