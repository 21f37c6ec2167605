import { createHash } from 'node:crypto';
import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { command, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import { between, CA_FILE, CA_SOURCE, certificate, listening, unitName } from '../shared.js';

const CONFIG = '/etc/mysql/mariadb.conf.d/99-halligan.cnf';

/** Names stand in the check's SQL as they are. */
function plainName(name: string): string {
  if (!/^[a-z0-9_]+$/.test(name)) throw new Error(`"${name}" is no plain name of a database or account`);
  return name;
}
const listed = (names: readonly string[]) => names.map(n => `'${plainName(n)}'`).join(',');

function databases(ctx: ServiceContext): Resource {
  const wanted = ctx.cloud.services.flatMap(s => s.databases);
  const users = [...new Set(wanted.map(d => d.user))];
  const sql = ctx.template('databases.sql.hbs', {
    databases: wanted.map(d => ({ name: d.name, user: d.user })),
    accounts: users.map(user => ({ user, password: ctx.secret(`database/${user}`) })),
  });
  return command({
    name: 'databases',
    title: `Create the databases ${wanted.map(d => d.name).join(', ')} and their accounts`,
    // As root over the socket. One query, so that a look costs one client.
    check: `[ "$(mysql -N -B -e "SELECT (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN (${listed(wanted.map(d => d.name))})), (SELECT COUNT(*) FROM mysql.user WHERE User IN (${listed(users)}) AND Host = '%' AND ssl_type <> ''), (SELECT COUNT(*) FROM mysql.user WHERE User = ''), (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'test')")" = "$(printf '${wanted.length}\\t${users.length}\\t0\\t0')" ]`,
    stamp: createHash('sha256').update(sql).digest('hex').slice(0, 32),
    apply: 'printf %s "$SQL" | mysql',
    env: { SQL: sql },
    provides: ['database:ready'],
  });
}

function build(ctx: ServiceContext): readonly Resource[] {
  const { memoryMiB } = ctx.node.facts;
  const tls = certificate(ctx, '/etc/mysql/ssl', 'mysql');
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    ...tls.resources,
    file({
      path: CONFIG,
      grammar: 'ini',
      content: ctx.template('etc/mysql/mariadb.conf.d/99-halligan.cnf.hbs', {
        address: ctx.node.address,
        ca_file: CA_FILE,
        certificate: tls.certificate,
        key: tls.key,
        buffer_pool_mib: between(128, memoryMiB / 16, 16_384),
        connections: between(1024, memoryMiB / 8, 8192),
      }),
    }),
    unit({
      unit: unitName(ctx, 'server'),
      watches: [CONFIG, CA_SOURCE, tls.certificate, tls.key],
      ready: `${listening(ctx.node.address, 3306)} && mysql -N -e 'SELECT 1'`,
      expectedSeconds: 4,
      interrupts: 'The APIs answer with errors while the database restarts; servers, networks and volumes go on.',
    }),
    databases(ctx),
  ];
}

export const service: ServiceDeclaration = {
  name: 'database',
  title: 'Database',
  sentence: 'MariaDB, where all services of the cloud keep their state.',
  firstAlone: () => 'the databases',
  needs: [],
  build,
};
