import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { endpointUrl } from '../../installer/model/cloud.js';
import { branch, command, directory, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import {
  certificate,
  config,
  databaseUrl,
  guarded,
  managers,
  openstackValues,
  sql,
  sqlEnv,
  unitName,
  uwsgiApi,
  workersOf,
} from '../shared.js';

const CONFIG = '/etc/keystone/keystone.conf';
const DATABASE = { name: 'keystone', user: 'keystone' };

/** Fernet: 0 is the next key, 1 the one that signs. Both come from us at first. */
const KEYS = ['0', '1'] as const;
const TOKEN_KEYS = '/etc/keystone/fernet-keys';

/** How long a token is good for; */
const TOKEN_SECONDS = 3600;
/** and how long after that services still take it for what was begun with it (Keystone's own default, two days). */
const EXPIRED_WINDOW_SECONDS = 172_800;
/** `OnCalendar=daily` of the timer. */
const ROTATION_SECONDS = 86_400;
/**
 * The next key, the one that signs, and those of tokens that are still taken: with fewer, a rotation would end tokens
 * before their time (Keystone's administrator guide, "Fernet - Frequently Asked Questions").
 */
export const ACTIVE_KEYS = Math.ceil((TOKEN_SECONDS + EXPIRED_WINDOW_SECONDS) / ROTATION_SECONDS) + 2;

/** Keys of tokens: laid down once, then Keystone's own business. There is one controller, so nobody else needs them. */
function tokenKeys(ctx: ServiceContext): readonly Resource[] {
  const timer = unitName(ctx, 'rotate');
  const timerFile = `/etc/systemd/system/${timer}`;
  const serviceFile = timerFile.replace(/timer$/, 'service');
  return [
    directory({ path: TOKEN_KEYS, owner: 'keystone', group: 'keystone', mode: 0o700 }),
    command({
      name: 'token-keys',
      title: 'Give Keystone its first keys for tokens',
      check: `[ -s ${TOKEN_KEYS}/0 ] && ls ${TOKEN_KEYS} | grep -q '^[1-9]'`,
      env: Object.fromEntries(KEYS.map(k => [`KEY_${k}`, ctx.secret(`identity/fernet/${k}`, 'fernet')])),
      apply: `umask 077
cd ${TOKEN_KEYS}
${KEYS.map(k => `printf %s "$KEY_${k}" >.${k}\nchown keystone:keystone .${k}\nmv -f .${k} ${k}`).join('\n')}`,
    }),
    file({
      path: serviceFile,
      content: ctx.template('etc/systemd/system/keystone-fernet-rotate.service.hbs', { config: CONFIG }),
    }),
    file({ path: timerFile, content: ctx.template('etc/systemd/system/keystone-fernet-rotate.timer.hbs', {}) }),
  ];
}

/** Begins once Keystone has its configuration: what it rotates to depends on it. */
function rotation(ctx: ServiceContext): Resource {
  const timer = unitName(ctx, 'rotate');
  return unit({ unit: timer, watches: [`/etc/systemd/system/${timer}`] });
}

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
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/keystone', group: 'keystone', mode: 0o750 }),
    ...tls.resources,
    ...tokenKeys(ctx),
    ...keys(ctx, 'credential-keys', 'identity/credential'),
    guarded('keystone', ['/etc/keystone/logging.conf']),
    config(
      'keystone',
      CONFIG,
      ctx.template('etc/keystone/keystone.conf.hbs', {
        ...openstackValues(ctx, 'keystone'),
        database_url: databaseUrl(ctx, DATABASE),
        token_seconds: TOKEN_SECONDS,
        expired_window_seconds: EXPIRED_WINDOW_SECONDS,
        active_keys: ACTIVE_KEYS,
      }),
    ),
    rotation(ctx),
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
        // Keystone reads the keys of tokens at each use.
        watches: [CONFIG, ...KEYS.map(k => `/etc/keystone/credential-keys/${k}`)],
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
