/**
 * What the services' declarations share: where things stand, and the values that every OpenStack configuration needs.
 * Pure functions of the context.
 */

import type { ServiceContext } from '../installer/model/catalogue.js';
import { addressOf, type CloudModel, endpointUrl } from '../installer/model/cloud.js';
import {
  type CommandResource,
  command,
  type DirectoryResource,
  directory,
  type FileResource,
  file,
  masked,
  type Resource,
  unit,
} from '../installer/model/resources.js';
import { quote } from '../provisioner/core/render.js';

/** The CA of the site as update-ca-certificates(8) lays it out (a link to CA_SOURCE), and where `host` writes it. */
export const CA_FILE = '/etc/ssl/certs/halligan-ca.pem';
export const CA_SOURCE = '/usr/local/share/ca-certificates/halligan-ca.crt';

/** Processes per API: as the site says, or one for two CPUs. */
export const workersOf = (ctx: ServiceContext): number =>
  ctx.cloud.settings.workers ?? Math.min(8, Math.max(1, Math.ceil(ctx.node.facts.cpus / 2)));

/** Between least and most, for sizes by memory. */
export const between = (least: number, value: number, most: number): number =>
  Math.min(most, Math.max(least, Math.floor(value)));

/** The node's own address; every address where the APIs' name stands for another one. */
export const listenAddress = (ctx: ServiceContext): string =>
  ctx.cloud.api.address === ctx.node.address ? ctx.node.address : '0.0.0.0';

/**
 * URL of a database for SQLAlchemy. PyMySQL verifies the server's certificate and its address when `ssl_ca` is given; it is
 * the one TLS option that SQLAlchemy 1.4 hands on unchanged.
 */
export const databaseUrl = (ctx: ServiceContext, d: { readonly name: string; readonly user: string }): string =>
  `mysql+pymysql://${d.user}:${ctx.secret(`database/${d.user}`)}@${addressOf(ctx.cloud, 'database')}:3306/${d.name}?charset=utf8&ssl_ca=${CA_FILE}`;

/** Where messages of an account go; that the connection is TLS says `[oslo_messaging_rabbit]`. */
export const messagingUrl = (ctx: ServiceContext, user: string): string =>
  `rabbit://${user}:${ctx.secret(`messaging/${user}`)}@${addressOf(ctx.cloud, 'messaging')}:5671/`;

/** Keystone without version, as keystoneauth wants it. */
export const identityUrl = (cloud: CloudModel): string => new URL(endpointUrl(cloud, 'identity')).origin;

/**
 * memcached asks nobody who he is, and Keystone and Horizon run what they find in it (pickle): so it is there for its own
 * node only, and who uses it must be on that node.
 */
export const CACHE = { address: '127.0.0.1', port: 11_211 } as const;

/** @throws Error when the node has no cache */
export function memcachedServers(ctx: Pick<ServiceContext, 'node'>): string {
  if (!ctx.node.services.includes('cache'))
    throw new Error(`a service on ${ctx.node.name} uses the cache, which is on another node and cannot be reached`);
  return `${CACHE.address}:${CACHE.port}`;
}

/** Values that the configuration of each OpenStack service needs, under the same names in all templates. */
export function openstackValues(
  ctx: ServiceContext,
  user: string,
): Readonly<Record<string, string | number | boolean>> {
  return {
    ca_file: CA_FILE,
    host: ctx.node.name,
    address: ctx.node.address,
    workers: workersOf(ctx),
    region: ctx.cloud.settings.region,
    identity_url: identityUrl(ctx.cloud),
    // A template that asks for them on a node without a cache does not render.
    ...(ctx.node.services.includes('cache')
      ? { memcached_servers: memcachedServers(ctx), memcache_secret: ctx.secret(`cache/${user}`) }
      : {}),
    user,
    password: ctx.secret(`identity/${user}`),
  };
}

/** A service's own copy of the node's certificate and key: `FOLDER/node.crt`, `FOLDER/node.key`. */
export function certificate(
  ctx: ServiceContext,
  folder: string,
  group: string,
): { readonly certificate: string; readonly key: string; readonly resources: (DirectoryResource | FileResource)[] } {
  const paths = { certificate: `${folder}/node.crt`, key: `${folder}/node.key` };
  return {
    ...paths,
    resources: [
      directory({ path: folder, group, mode: 0o750 }),
      file({ path: paths.certificate, content: ctx.tls.certificate, group, mode: 0o640 }),
      file({ path: paths.key, content: ctx.tls.key, group, mode: 0o640 }),
    ],
  };
}

/** Name of a unit in this release. @throws Error when the release's data file does not say */
export function unitName(ctx: ServiceContext, key: string): string {
  const name = ctx.release.units[key];
  if (name === undefined) throw new Error(`the release ${ctx.cloud.release.name} names no unit "${key}"`);
  return name;
}

/** A difference between releases. @throws Error when the release's data file does not say */
export function option(ctx: ServiceContext, key: string): string {
  const value = ctx.release.options[key];
  if (value === undefined) throw new Error(`the release ${ctx.cloud.release.name} gives no option "${key}"`);
  return String(value);
}

/** Shell: exits 0 when somebody listens there. */
export const listening = (address: string, port: number): string => `ss -Hltn 'src ${address}:${port}' | grep -q .`;

/** Shell: exits 0 when an API answers over TLS with a certificate of our CA. */
export const answers = (address: string, port: number, path = '/healthcheck'): string =>
  `curl -sf --max-time 20 --cacert ${CA_FILE} https://${address}:${port}${path} -o /dev/null`;

/** Folder for drop-ins of a unit of the distribution. */
export const dropIn = (unit: string): string => `/etc/systemd/system/${unit}.d/halligan.conf`;

/** Options of MariaDB's clients: a service's own account over TLS. The password is in MYSQL_PWD (see `sqlEnv`). */
export const sqlOptions = (ctx: ServiceContext, user: string): string =>
  `--no-defaults -h ${addressOf(ctx.cloud, 'database')} -u ${user} --ssl-ca=${CA_FILE} --ssl-verify-server-cert`;
/** Shell: what one query answers. */
export const sql = (ctx: ServiceContext, user: string, database: string, query: string): string =>
  `mysql ${sqlOptions(ctx, user)} -N -B --connect-timeout=5 -e "${query}" ${database}`;
export const sqlEnv = (ctx: ServiceContext, user: string): Readonly<Record<string, string>> => ({
  MYSQL_PWD: ctx.secret(`database/${user}`),
});

/** What a daemon of the distribution is started with, in place of its init script. */
export const startedBy = (execStart: string): string => `# Written by Halligan.
[Unit]
# After a power failure everything starts at once: who comes before its database tries again, without end.
StartLimitIntervalSec=0

[Service]
ExecStart=
ExecStart=${execStart}
RestartSec=2
UMask=0027
`;

/** An API of our own making: the packages run theirs as daemons or as sites of Apache, on all addresses, without TLS. */
const apiUnit = (
  title: string,
  user: string,
  ini: string,
): string => `# Written by Halligan; it takes the place of the package's.
[Unit]
Description=${title}
After=network-online.target local-fs.target
Wants=network-online.target
# After a power failure everything starts at once: who comes before its database tries again, without end.
StartLimitIntervalSec=0

[Service]
User=${user}
Group=${user}
ExecStart=/usr/bin/uwsgi_python3 --ini ${ini}
Restart=on-failure
RestartSec=2
TimeoutStopSec=15
LimitNOFILE=65535
UMask=0027
NoNewPrivileges=true
PrivateTmp=true
ProtectSystem=full
ProtectHome=true

[Install]
WantedBy=multi-user.target
`;

export interface UwsgiApi {
  readonly title: string;
  /** Key of its unit in the release's data; the WSGI application is the option `wsgi_KEY`. */
  readonly key: string;
  /** Target path of its ini; the template is files/PATH.hbs. */
  readonly ini: string;
  readonly port: number;
  readonly user: string;
  readonly processes: number;
  readonly tls: { readonly certificate: string; readonly key: string };
  readonly interrupts: string;
  /** Further files that it reads. */
  readonly watches: readonly string[];
  readonly needs?: readonly string[];
  readonly provides?: readonly string[];
  /** Path that answers 200 without a token. */
  readonly path: string;
  /** Not the first API of its service: what becomes of Apache has been said. */
  readonly further?: true;
}

/** Apache comes with some packages as the home of their APIs; without the dashboard it has nothing to do. */
export const withoutApache = (ctx: ServiceContext): readonly Resource[] =>
  ctx.release.wsgi === 'apache' && !ctx.node.services.includes('dashboard')
    ? [masked(ctx.cloud.release.services['dashboard']?.units['web'] ?? 'apache2.service')]
    : [];

/** An API under uwsgi with TLS, on the node's own address, with as many processes as the node can carry. */
export function uwsgiApi(ctx: ServiceContext, api: UwsgiApi): readonly Resource[] {
  const name = unitName(ctx, api.key);
  const unitFile = `/etc/systemd/system/${name}`;
  const application = option(ctx, `wsgi_${api.key}`);
  return [
    ...(api.further ? [] : withoutApache(ctx)),
    file({
      path: api.ini,
      group: api.user,
      mode: 0o640,
      grammar: 'ini',
      content: ctx.template(`${api.ini.slice(1)}.hbs`, {
        listen: listenAddress(ctx),
        certificate: api.tls.certificate,
        key: api.tls.key,
        processes: api.processes,
        /** A script, in older releases; a module later. */
        script: application.startsWith('/'),
        application,
      }),
    }),
    file({ path: unitFile, content: apiUnit(api.title, api.user, api.ini) }),
    unit({
      unit: name,
      watches: [api.ini, unitFile, CA_SOURCE, api.tls.certificate, api.tls.key, ...api.watches],
      ready: answers(ctx.node.address, api.port, api.path),
      timeoutSeconds: 240,
      expectedSeconds: 6,
      interrupts: api.interrupts,
      needs: api.needs ?? [],
      provides: api.provides ?? [],
    }),
  ];
}

/** A configuration file with secrets, as the Security Guide wants it: the service reads, root writes. */
export const config = (group: string, path: string, content: string): FileResource =>
  file({ path, content, group, mode: 0o640, grammar: 'ini' });

/** What packages of Neutron bring to every node that has one of them; `neutron.conf` with passwords is only written where the server runs. */
export const NEUTRON_FILES = ['neutron.conf', 'api-paste.ini', 'rootwrap.conf', 'dnsmasq-neutron.conf'].map(
  f => `/etc/neutron/${f}`,
);
/** The same for Nova and Cinder, on nodes that have no API of theirs. */
export const NOVA_FILES = ['nova.conf', 'api-paste.ini', 'logging.conf', 'rootwrap.conf'].map(f => `/etc/nova/${f}`);
export const CINDER_FILES = ['cinder.conf', 'api-paste.ini', 'resource_filters.json', 'rootwrap.conf'].map(
  f => `/etc/cinder/${f}`,
);

/** The folders that a service keeps to itself. */
export const folders = (user: string, paths: readonly string[]): DirectoryResource[] =>
  paths.map(path => directory({ path, owner: user, group: user, mode: 0o750 }));

/**
 * Files of the packages beside those that we write, as the Security Guide wants them: root writes, the service reads,
 * nobody else. Those that a release does not have are passed over.
 * @param paths names, or patterns of the shell
 */
export const guarded = (group: string, paths: readonly string[]): CommandResource =>
  command({
    name: 'modes',
    title: `Let only root and ${group} read the configuration that the package brought`,
    check: `for f in ${paths.join(' ')}; do [ ! -e $f ] || [ "$(stat -c %U:%G:%a $f)" = root:${group}:640 ] || exit 1; done`,
    apply: `for f in ${paths.join(' ')}; do [ ! -e $f ] || { chown root:${group} $f; chmod 640 $f; }; done`,
  });

/** Shell: runs a program as the service's user, with the environment of the command. */
export const as = (user: string, program: string): string => `runuser -u ${user} -- ${program}`;

export interface ManagerRun {
  readonly words: readonly string[];
  /** Exit codes that are no failure, beside 0: "there is one already". */
  readonly accept?: readonly number[];
}

/**
 * Shell: several runs of a manager such as nova-manage. Most of a run's seconds go into importing the program; here it is
 * imported once, and each run is a fork of that.
 * @param module with the function main(), e.g. `nova.cmd.manage`
 * @param chains side by side; the runs of one are one after the other
 */
export const managers = (
  user: string,
  program: string,
  module: string,
  ...chains: readonly (readonly ManagerRun[])[]
): string =>
  `${as(user, 'python3 -')} <<'PYTHON'
import sys
# Before the program, which may put its own in their place.
from os import fork, waitpid, waitstatus_to_exitcode
from ${module} import main
def code(child):
    return waitstatus_to_exitcode(waitpid(child, 0)[1])
children = []
for runs in ${quote(
    'py',
    chains.map(runs => runs.map(r => [[...r.words], [0, ...(r.accept ?? [])]])),
  )}:
    chain = fork()
    if chain:
        children.append(chain)
        continue
    for words, accept in runs:
        child = fork()
        if child == 0:
            sys.argv = [${quote('py', program)}, *words]
            sys.exit(main())
        if code(child) not in accept:
            sys.exit(' '.join([${quote('py', program)}, *words[:2], 'failed']))
    sys.exit(0)
# All are waited for: none may work on behind our back.
if any([code(child) for child in children]):
    sys.exit(1)
PYTHON`;
