import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { endpointUrl } from '../../installer/model/cloud.js';
import { branch, command, directory, file, packages, type Resource } from '../../installer/model/resources.js';
import {
  certificate,
  config,
  databaseUrl,
  guarded,
  managers,
  openstackValues,
  sql,
  sqlEnv,
  uwsgiApi,
  workersOf,
} from '../shared.js';

const CONFIG = '/etc/keystone/keystone.conf';
const DATABASE = { name: 'keystone', user: 'keystone' };

/** Fernet: 0 is the next key, 1 the one that signs. Both come from us, so that all controllers have the same. */
const KEYS = ['0', '1'] as const;

function keys(ctx: ServiceContext, folder: string, secret: string): readonly Resource[] {
  const path = `/etc/keystone/${folder}`;
  return [
    directory({ path, owner: 'keystone', group: 'keystone', mode: 0o700 }),
    ...KEYS.map(k =>
      file({
        path: `${path}/${k}`,
        content: ctx.secret(`${secret}/${k}`, 'fernet'),
        owner: 'keystone',
        group: 'keystone',
        mode: 0o600,
      }),
    ),
  ];
}

function build(ctx: ServiceContext): readonly Resource[] {
  const { cloud } = ctx;
  const tls = certificate(ctx, '/etc/keystone/tls', 'keystone');
  const url = endpointUrl(cloud, 'identity');
  const keyFolders = ['fernet-keys', 'credential-keys'];
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/keystone', group: 'keystone', mode: 0o750 }),
    ...tls.resources,
    ...keys(ctx, 'fernet-keys', 'identity/fernet'),
    ...keys(ctx, 'credential-keys', 'identity/credential'),
    guarded('keystone', ['/etc/keystone/logging.conf']),
    config(
      'keystone',
      CONFIG,
      ctx.template('etc/keystone/keystone.conf.hbs', {
        ...openstackValues(ctx, 'keystone'),
        database_url: databaseUrl(ctx, DATABASE),
      }),
    ),
    // The API reads itself in beside: it asks the database for nothing until it is asked.
    ...branch('bootstrap', [
      command({
        name: 'bootstrap',
        title: 'Create the tables of Keystone, its administrator and its own endpoints',
        needs: ['database:ready'],
        provides: ['identity:ready'],
        check: `[ "$(${sql(ctx, 'keystone', 'keystone', "SELECT COUNT(*) FROM local_user WHERE name = 'admin'")})" = 1 ]`,
        stamp: `${cloud.release.name} ${url} ${cloud.settings.region}`.replaceAll(' ', '|'),
        apply: managers('keystone', 'keystone-manage', 'keystone.cmd.manage', [
          { words: ['db_sync'] },
          { words: ['bootstrap'] },
        ]),
        env: {
          ...sqlEnv(ctx, 'keystone'),
          OS_BOOTSTRAP_PASSWORD: ctx.secret('identity/admin'),
          OS_BOOTSTRAP_USERNAME: 'admin',
          OS_BOOTSTRAP_PROJECT_NAME: 'admin',
          OS_BOOTSTRAP_SERVICE_NAME: 'keystone',
          OS_BOOTSTRAP_REGION_ID: cloud.settings.region,
          OS_BOOTSTRAP_ADMIN_URL: url,
          OS_BOOTSTRAP_INTERNAL_URL: url,
          OS_BOOTSTRAP_PUBLIC_URL: url,
        },
        timeoutSeconds: 600,
        expectedSeconds: 20,
      }),
    ]),
    ...branch(
      'api',
      uwsgiApi(ctx, {
        title: 'OpenStack Identity API (Keystone)',
        key: 'api',
        ini: '/etc/keystone/keystone-uwsgi.ini',
        port: 5000,
        user: 'keystone',
        processes: workersOf(ctx),
        tls,
        watches: [CONFIG, ...keyFolders.flatMap(f => KEYS.map(k => `/etc/keystone/${f}/${k}`))],
        interrupts: 'Nobody can log in, and all APIs answer with errors, for some seconds.',
        needs: ['cache:ready'],
        provides: ['identity:ready'],
        path: '/v3',
      }),
    ),
  ];
}

export const service: ServiceDeclaration = {
  name: 'identity',
  title: 'Identity',
  sentence: 'Keystone: users, projects, roles, tokens and the list of all endpoints.',
  needs: ['database', 'cache'],
  databases: [DATABASE],
  endpoints: [{ type: 'identity', name: 'keystone', port: 5000, path: '/v3' }],
  build,
};
