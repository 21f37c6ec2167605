import { dirname } from 'node:path';
import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { endpointUrl } from '../../installer/model/cloud.js';
import { command, directory, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import {
  answers,
  CA_FILE,
  CA_SOURCE,
  dropIn,
  listenAddress,
  memcachedServers,
  option,
  unitName,
  workersOf,
} from '../shared.js';

const SETTINGS = '_9999_halligan.py';
const SITE = '/etc/apache2/sites-available/halligan-dashboard.conf';
const PORTS = '/etc/apache2/ports.conf';
const TLS = { certificate: '/etc/apache2/tls/node.crt', key: '/etc/apache2/tls/node.key' };

const MODULES = ['ssl', 'headers', 'wsgi'];

function build(ctx: ServiceContext): readonly Resource[] {
  const { cloud, node } = ctx;
  const apache = unitName(ctx, 'web');
  const etc = '/etc/apache2';
  const user = option(ctx, 'user');
  const settings = `${option(ctx, 'settings_dir')}/${SETTINGS}`;
  // What packages of other services put into Apache too: their APIs run elsewhere.
  const configurations = Object.values(cloud.release.services).flatMap(s => s.options['apache_conf'] ?? []);
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    directory({ path: '/etc/apache2/tls', mode: 0o750 }),
    file({ path: TLS.certificate, content: ctx.tls.certificate, mode: 0o640 }),
    file({ path: TLS.key, content: ctx.tls.key, mode: 0o600 }),
    file({ path: PORTS, content: ctx.template('etc/apache2/ports.conf.hbs', { listen: listenAddress(ctx) }) }),
    file({
      path: SITE,
      content: ctx.template('etc/apache2/sites-available/halligan-dashboard.conf.hbs', {
        listen: listenAddress(ctx),
        server_name: cloud.api.host,
        processes: Math.max(2, workersOf(ctx)),
        ...TLS,
        user,
        script: option(ctx, 'wsgi_script'),
        script_folder: dirname(option(ctx, 'wsgi_script')),
      }),
    }),
    file({
      path: settings,
      group: user,
      mode: 0o640,
      content: ctx.template('etc/openstack-dashboard/local_settings.d/_9999_halligan.py.hbs', {
        allowed_hosts: [...new Set([cloud.api.host, node.address, node.fqdn, node.name])],
        secret_key: ctx.secret('dashboard/secret-key', 'hex'),
        api_host: cloud.api.host,
        identity_url: endpointUrl(cloud, 'identity'),
        ca_file: CA_FILE,
        memcached: [memcachedServers(ctx)],
      }),
    }),
    command({
      name: 'site',
      title: 'Serve the dashboard, and nothing else of Apache',
      // Others are plain HTTP, or TLS with a key that every installation has.
      check: [
        `[ "$(ls ${etc}/sites-enabled)" = halligan-dashboard.conf ]`,
        ...configurations.map(c => `[ ! -e ${etc}/conf-enabled/${c}.conf ]`),
        ...MODULES.map(m => `[ -e ${etc}/mods-enabled/${m}.load ]`),
      ].join(' && '),
      apply: `a2enmod -q ${MODULES.join(' ')}
for s in $(ls ${etc}/sites-enabled); do [ "$s" = halligan-dashboard.conf ] || rm -f "${etc}/sites-enabled/$s"; done
${configurations.map(c => `[ ! -e ${etc}/conf-enabled/${c}.conf ] || a2disconf -q ${c}\n`).join('')}a2ensite -q halligan-dashboard
! systemctl is-active --quiet ${apache} || systemctl restart ${apache}`,
      interrupts: `Other sites of Apache on ${node.name}, where there are any, are served no longer.`,
    }),
    command({
      name: 'settings-modes',
      title: 'Let only the dashboard read its settings',
      check: `[ "$(stat -c %U:%G:%a /etc/openstack-dashboard/local_settings.py)" = root:${user}:640 ]`,
      apply: `chown root:${user} /etc/openstack-dashboard/local_settings.py
chmod 640 /etc/openstack-dashboard/local_settings.py`,
    }),
    file({
      path: dropIn(apache),
      content:
        '# Written by Halligan.\n[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nRestart=on-failure\nRestartSec=2\n',
    }),
    unit({
      unit: apache,
      watches: [PORTS, SITE, settings, TLS.certificate, TLS.key, CA_SOURCE, dropIn(apache)],
      needs: ['cache:ready', 'identity:ready'],
      ready: answers(node.address, 443, '/horizon/auth/login/'),
      expectedSeconds: 8,
      interrupts: 'The dashboard does not answer for some seconds; users stay logged in.',
      provides: ['dashboard:ready'],
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'dashboard',
  title: 'Dashboard',
  sentence: 'Horizon: the cloud in a browser.',
  needs: ['identity', 'cache', 'compute-control', 'image', 'network-control'],
  wanted: settings => settings.dashboard,
  build,
};
