import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { type CloudModel, endpointUrl, nodesWith } from '../../installer/model/cloud.js';
import {
  branch,
  command,
  directory,
  file,
  masked,
  packages,
  type Resource,
  unit,
} from '../../installer/model/resources.js';
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
  listenAddress,
  listening,
  type ManagerRun,
  managers,
  messagingUrl,
  openstackValues,
  sql,
  sqlEnv,
  sqlOptions,
  startedBy,
  unitName,
  uwsgiApi,
  workersOf,
} from '../shared.js';

const MESSAGING_USER = 'nova';

const CONFIG = '/etc/nova/nova.conf';
const API = { name: 'nova_api', user: 'nova' };
const CELL0 = { name: 'nova_cell0', user: 'nova' };
const CELL1 = { name: 'nova', user: 'nova' };

/** Nova fills these in from its own configuration, so that no password stands in the cells' table. */
const FROM_CONFIG = '{scheme}://{username}:{password}@{hostname}:{port}/';
/** What create_cell says when there is a cell with these connections. */
const CELL_EXISTS = 2;

/** Cells in the API's database: cell0 holds servers that found no host, cell1 all others. */
const CELLS: readonly ManagerRun[] = [
  { words: ['api_db', 'sync'] },
  { words: ['cell_v2', 'map_cell0', '--database_connection', `${FROM_CONFIG}nova_cell0?{query}`] },
  {
    words: [
      ...['cell_v2', 'create_cell', '--name', 'cell1'],
      ...['--transport-url', `${FROM_CONFIG}?{query}`, '--database_connection', `${FROM_CONFIG}{path}?{query}`],
    ],
    accept: [CELL_EXISTS],
  },
];

/**
 * Tables and cells. The two cells have the same tables, and making them takes Nova some hundred migrations: a new cloud
 * makes them once, in cell1, and cell0 gets the finished ones. Its alembic_version comes last: until then it counts as new.
 */
function schema(ctx: ServiceContext): Resource {
  const query = (database: string, what: string) => sql(ctx, 'nova', database, what);
  const manage = (...chains: (readonly ManagerRun[])[]) =>
    managers('nova', 'nova-manage', 'nova.cmd.manage', ...chains);
  const version = (database: string) => query(database, 'SELECT version_num FROM alembic_version');
  const dump = `mysqldump ${sqlOptions(ctx, 'nova')} --no-tablespaces --skip-lock-tables --skip-comments`;
  return command({
    name: 'schema',
    title: 'Create the tables and cells of Nova',
    needs: ['database:ready'],
    check: `[ "$(${query('nova_api', 'SELECT COUNT(*) FROM cell_mappings')})" -ge 2 ] && v=$(${version('nova')}) && [ -n "$v" ] && [ "$(${version('nova_cell0')})" = "$v" ]`,
    stamp: ctx.cloud.release.name,
    apply: `if [ "$(${query('information_schema', "SELECT COUNT(*) FROM TABLES WHERE TABLE_SCHEMA = 'nova_cell0' AND TABLE_NAME = 'alembic_version'")})" = 0 ]; then
${manage(CELLS, [{ words: ['db', 'sync', '--local_cell'] }])}
umask 077
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
${dump} --no-data --ignore-table=nova.alembic_version nova >"$d/tables"
${dump} nova alembic_version >"$d/version"
cat "$d/tables" "$d/version" | mysql ${sqlOptions(ctx, 'nova')} nova_cell0
else
${manage([...CELLS, { words: ['db', 'sync'] }])}
fi`,
    env: sqlEnv(ctx, 'nova'),
    timeoutSeconds: 900,
    expectedSeconds: 30,
  });
}

/** A daemon of Nova that is no API. */
function daemon(
  ctx: ServiceContext,
  key: string,
  program: string,
  more: Partial<Parameters<typeof unit>[0]>,
): Resource[] {
  const name = unitName(ctx, key);
  return [
    file({
      path: dropIn(name),
      content: startedBy(`/usr/bin/${program} --config-file=${CONFIG} --log-file=/var/log/nova/${program}.log`),
    }),
    unit({
      unit: name,
      watches: [dropIn(name), CA_SOURCE, CONFIG],
      timeoutSeconds: 240,
      expectedSeconds: 5,
      // Both ask Placement for its versions at their start, with an account of the catalogue.
      needs: ['messaging:ready', 'identity:catalog', 'placement:ready'],
      ...more,
    }),
  ];
}

/**
 * What `nova-manage cell_v2 discover_hosts` does (objects/host_mapping.py), without the seconds that its start takes: a
 * mapping for each hypervisor that has none. Should a later Nova have other tables, nova-manage itself is asked.
 */
const MAP_HOSTS = `START TRANSACTION;
INSERT INTO host_mappings (created_at, cell_id, host)
  SELECT UTC_TIMESTAMP(), cell.id, new.host
  FROM (SELECT DISTINCT host FROM nova.compute_nodes WHERE deleted = 0 AND COALESCE(mapped, 0) < 1) AS new
  JOIN cell_mappings AS cell ON cell.name = 'cell1'
  LEFT JOIN host_mappings AS old ON old.host = new.host
  WHERE old.id IS NULL;
UPDATE nova.compute_nodes SET mapped = 1
  WHERE deleted = 0 AND COALESCE(mapped, 0) < 1 AND host IN (SELECT host FROM host_mappings);
COMMIT;
`;

/**
 * Hosts of hypervisors are looked up by the scheduler in a table of the API's database, which somebody must fill. Each for
 * itself: one that does not come up must not keep the others out. The first maps all that have reported.
 */
function discoverHosts(ctx: ServiceContext): Resource[] {
  if (nodesWith(ctx.cloud, 'compute-control')[0]?.name !== ctx.node.name) return [];
  return nodesWith(ctx.cloud, 'hypervisor').flatMap(({ name }) => {
    const has = (database: string, what: string) =>
      `[ "$(${sql(ctx, 'nova', database, `SELECT COUNT(*) FROM ${what} WHERE host = '${name}'`)})" -gt 0 ]`;
    const mapped = has('nova_api', 'host_mappings');
    return branch(`discover-${name}`, [
      command({
        name: `discover-host-${name}`,
        title: `Map the hypervisor ${name} to the cell`,
        needs: [`hypervisor:done@${name}`],
        check: mapped,
        apply: `exec 9>/run/lock/halligan-discover-hosts
end=$(($(date +%s) + 420))
until ${has('nova', 'compute_nodes')}; do
  [ "$(date +%s)" -lt "$end" ] || { echo 'It did not report to Nova within 7 minutes: look at /var/log/nova/nova-compute.log there.'; exit 1; }
  sleep 0.5
done
flock 9
${mapped} || mysql ${sqlOptions(ctx, 'nova')} nova_api <<'SQL' || ${as('nova', 'nova-manage cell_v2 discover_hosts')}
${MAP_HOSTS}SQL`,
        env: sqlEnv(ctx, 'nova'),
        timeoutSeconds: 900,
        expectedSeconds: 1,
      }),
    ]);
  });
}

function build(ctx: ServiceContext): readonly Resource[] {
  const { cloud } = ctx;
  const tls = certificate(ctx, '/etc/nova/tls', 'nova');
  const volumes = cloud.services.flatMap(s => s.endpoints).find(e => e.name === 'cinderv3');
  const workers = workersOf(ctx);
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    ...ctx.release.mask.map(masked),
    directory({ path: '/etc/nova', group: 'nova', mode: 0o750 }),
    ...tls.resources,
    ...folders('nova', ['/var/lib/nova/tmp']),
    guarded('nova', ['/etc/nova/api-paste.ini', '/etc/nova/logging.conf', '/etc/nova/rootwrap.conf']),
    config(
      'nova',
      CONFIG,
      ctx.template('etc/nova/nova.conf.hbs', {
        ...openstackValues(ctx, 'nova'),
        transport_url: messagingUrl(ctx, MESSAGING_USER),
        listen: listenAddress(ctx),
        api_host: cloud.api.host,
        certificate: tls.certificate,
        key: tls.key,
        api_database_url: databaseUrl(ctx, API),
        database_url: databaseUrl(ctx, CELL1),
        scheduler_workers: workers,
        placement_password: ctx.secret('identity/placement'),
        neutron_password: ctx.secret('identity/neutron'),
        metadata_secret: ctx.secret('metadata-proxy'),
        image_url: endpointUrl(cloud, 'image'),
        volumes: volumes !== undefined,
        volume_catalog: volumes ? `${volumes.type}:${volumes.name}:internalURL` : '',
        cinder_password: volumes ? ctx.secret('identity/cinder') : '',
        vnc_url: `https://${cloud.api.host}:6080/vnc_lite.html`,
      }),
    ),
    schema(ctx),
    // Each starts for itself: most of a start is Python that reads itself in.
    ...branch(
      'conductor',
      daemon(ctx, 'conductor', 'nova-conductor', {
        interrupts: 'Requests about servers wait for some seconds.',
        // A hypervisor talks to it first of all, and to nothing else of Nova.
        provides: ['compute-control:ready', 'compute-control:conductor'],
      }),
    ),
    ...branch(
      'api',
      uwsgiApi(ctx, {
        title: 'OpenStack Compute API (Nova)',
        key: 'api',
        ini: '/etc/nova/nova-api-uwsgi.ini',
        port: 8774,
        user: 'nova',
        // Nova patches its sockets for eventlet, which no second thread may touch: processes only.
        processes: Math.max(2, workers),
        tls,
        watches: [CONFIG],
        interrupts: 'The compute API does not answer for some seconds; servers go on.',
        provides: ['compute-control:ready'],
        path: '/',
      }),
    ),
    ...branch(
      'scheduler',
      daemon(ctx, 'scheduler', 'nova-scheduler', { interrupts: 'New servers wait for some seconds.' }),
    ),
    ...branch(
      'metadata',
      uwsgiApi(ctx, {
        title: 'OpenStack Compute metadata API (Nova)',
        key: 'metadata',
        ini: '/etc/nova/nova-api-metadata-uwsgi.ini',
        port: 8775,
        user: 'nova',
        processes: workers,
        tls,
        watches: [CONFIG],
        interrupts: 'Servers that start just now wait for their metadata.',
        path: '/',
        further: true,
      }),
    ),
    ...branch('console', [
      file({
        path: '/etc/default/nova-consoleproxy',
        content: ctx.template('etc/default/nova-consoleproxy.sh.hbs', {}),
      }),
      ...daemon(ctx, 'console', 'nova-novncproxy', {
        ready: listening(listenAddress(ctx), 6080),
        interrupts: 'Open consoles are cut off.',
        needs: [],
      }),
    ]),
    ...discoverHosts(ctx),
  ];
}

const objects = (cloud: CloudModel): readonly DesiredObject[] =>
  cloud.settings.flavors.map(f => ({
    kind: 'flavor',
    name: f.name,
    vcpus: f.vcpus,
    memoryMiB: f.memoryMiB,
    diskGiB: f.diskGiB,
  }));

export const service: ServiceDeclaration = {
  name: 'compute-control',
  title: 'Compute control',
  sentence: 'Nova: takes orders for servers, finds a hypervisor for each, and shows their consoles.',
  messagingUser: MESSAGING_USER,
  needs: ['database', 'messaging', 'cache', 'identity', 'placement', 'image', 'network-control', 'hypervisor'],
  databases: [API, CELL0, CELL1],
  user: 'nova',
  endpoints: [{ type: 'compute', name: 'nova', port: 8774, path: '/v2.1' }],
  build,
  objects,
};
