import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { command, directory, packages, type Resource } from '../../installer/model/resources.js';
import { as, certificate, config, databaseUrl, openstackValues, sql, sqlEnv, uwsgiApi, workersOf } from '../shared.js';

const CONFIG = '/etc/placement/placement.conf';
const DATABASE = { name: 'placement', user: 'placement' };

function build(ctx: ServiceContext): readonly Resource[] {
  const tls = certificate(ctx, '/etc/placement/tls', 'placement');
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/placement', group: 'placement', mode: 0o750 }),
    ...tls.resources,
    config(
      'placement',
      CONFIG,
      ctx.template('etc/placement/placement.conf.hbs', {
        ...openstackValues(ctx, 'placement'),
        database_url: databaseUrl(ctx, DATABASE),
      }),
    ),
    command({
      name: 'schema',
      title: 'Create the tables of Placement',
      needs: ['database:ready'],
      check: `[ -n "$(${sql(ctx, 'placement', 'placement', 'SELECT version_num FROM alembic_version')})" ]`,
      stamp: ctx.cloud.release.name,
      apply: as('placement', 'placement-manage db sync'),
      env: sqlEnv(ctx, 'placement'),
      timeoutSeconds: 600,
      expectedSeconds: 6,
    }),
    ...uwsgiApi(ctx, {
      title: 'OpenStack Placement API',
      key: 'api',
      ini: '/etc/placement/placement-api-uwsgi.ini',
      port: 8778,
      user: 'placement',
      processes: workersOf(ctx),
      tls,
      watches: [CONFIG],
      interrupts: 'New servers wait for some seconds.',
      provides: ['placement:ready'],
      path: '/',
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'placement',
  title: 'Placement',
  sentence: 'Placement counts what hypervisors have left, for the scheduler.',
  needs: ['database', 'identity', 'cache'],
  databases: [DATABASE],
  user: 'placement',
  endpoints: [{ type: 'placement', name: 'placement', port: 8778, path: '' }],
  build,
};
