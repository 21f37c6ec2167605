/** What is asked of a node, by the services that are on it. Pure. */
import type { CloudModel, CloudNode } from '../model/cloud.js';
import { databaseLogins, MESSAGING_LOGINS } from './logins.js';
import type { Needles } from './needles.js';

export interface TlsProbe {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** What the certificate must be for. */
  readonly host: string;
  /** MariaDB speaks some words of its own before TLS begins. */
  readonly speaks: 'tls' | 'mysql';
  /** Sent by a client without a certificate, where none but holders of one may be answered. */
  readonly says: string | null;
}

export interface EvidenceRequest {
  readonly ca: string;
  readonly trees: readonly string[];
  readonly paths: readonly string[];
  readonly contents: readonly string[];
  readonly settings: readonly string[];
  readonly commands: readonly {
    readonly name: string;
    readonly argv: readonly string[];
    readonly stdin?: string;
    readonly env?: Readonly<Record<string, string>>;
  }[];
  readonly tls: readonly TlsProbe[];
  readonly amqp: readonly {
    readonly address: string;
    readonly port: number;
    readonly host: string;
    readonly user: string;
    readonly password: string;
  }[];
  readonly needles: Needles;
  readonly logs: readonly string[];
  readonly readable: readonly string[];
}

const CA_FILE = '/etc/ssl/certs/halligan-ca.pem';

/** Configuration of services, by its folder below /etc and the account that reads it. */
export const CONFIG_FOLDERS = {
  keystone: 'keystone',
  glance: 'glance',
  placement: 'placement',
  nova: 'nova',
  neutron: 'neutron',
  cinder: 'cinder',
  swift: 'swift',
} as const;

/** Files of oslo.config that a service of ours reads. */
export const CONFIG_FILES: Readonly<Record<string, string>> = {
  identity: '/etc/keystone/keystone.conf',
  image: '/etc/glance/glance-api.conf',
  placement: '/etc/placement/placement.conf',
  'compute-control': '/etc/nova/nova.conf',
  hypervisor: '/etc/nova/nova-compute.conf',
  'network-control': '/etc/neutron/neutron.conf',
  'network-agent': '/etc/neutron/neutron_ovn_metadata_agent.ini',
  'volume-control': '/etc/cinder/cinder.conf',
  'volume-backend': '/etc/cinder/cinder-volume.conf',
};

/** Where Python modules of the distribution are. */
export const PYTHON = '/usr/lib/python3/dist-packages';
export const FORMAT_INSPECTORS = [
  `${PYTHON}/nova/image/format_inspector.py`,
  `${PYTHON}/glance/common/format_inspector.py`,
  `${PYTHON}/oslo_utils/imageutils/format_inspector.py`,
] as const;
export const TOKEN_APIS = [`${PYTHON}/keystone/api/ec2tokens.py`, `${PYTHON}/keystone/api/s3tokens.py`] as const;

export const HORIZON_SETTINGS = '/etc/openstack-dashboard/local_settings.py';
export const settingsFolder = (model: CloudModel): string =>
  String(model.release.services['dashboard']?.options['settings_dir'] ?? '/etc/openstack-dashboard/local_settings.d');
/** The account that Horizon runs as. */
export const horizonUser = (model: CloudModel): string =>
  String(model.release.services['dashboard']?.options['user'] ?? 'www-data');

const ACCOUNTS_SQL = `SELECT 'account', u.User, u.Host, u.ssl_type, u.plugin,
  IF(u.authentication_string = '' AND u.plugin <> 'unix_socket' AND IFNULL(JSON_VALUE(p.Priv, '$.account_locked'), 0) NOT IN (1, 'true'), 1, 0)
  FROM mysql.user u JOIN mysql.global_priv p ON p.User = u.User AND p.Host = u.Host WHERE u.is_role = 'N';
SELECT 'grant', User, Host, Db FROM mysql.db;
SELECT 'global', GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE <> 'USAGE';
SELECT 'variable', VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES
  WHERE VARIABLE_NAME IN ('REQUIRE_SECURE_TRANSPORT', 'INNODB_FLUSH_LOG_AT_TRX_COMMIT', 'LOCAL_INFILE');
`;

/** Ports beside those of the catalogue's endpoints. */
const OTHER_PORTS: Readonly<Record<string, readonly (readonly [string, number])[]>> = {
  messaging: [['RabbitMQ', 5671]],
  'compute-control': [
    ['metadata of Nova', 8775],
    ['consoles (noVNC)', 6080],
  ],
  dashboard: [['Horizon', 443]],
};
/** Ports where both ends show a certificate; a word that those who have one would be answered; the address, where it is not the node's. */
const MUTUAL_PORTS: Readonly<Record<string, readonly (readonly [string, number, string, string?])[]>> = {
  'network-control': [
    ['OVN’s northbound database', 6641, '{"method":"list_dbs","params":[],"id":1}', '127.0.0.1'],
    ['OVN’s southbound database', 6642, '{"method":"list_dbs","params":[],"id":1}'],
  ],
  // A call of libvirt's protocol, REMOTE_PROC_AUTH_LIST.
  hypervisor: [
    ['libvirt', 16_514, '\u0000\u0000\u0000\u001c \u0000\u0080\u0086\u0000\u0000\u0000\u0001\u0000\u0000\u0000B'],
  ],
};

export function tlsProbes(model: CloudModel, node: CloudNode): TlsProbe[] {
  const at = (name: string, port: number, more: Partial<TlsProbe> = {}): TlsProbe => ({
    name,
    address: node.address,
    port,
    host: node.address,
    speaks: 'tls',
    says: null,
    ...more,
  });
  return node.services.flatMap(service => [
    ...(model.services.find(s => s.name === service)?.endpoints ?? []).map(e => at(e.name, e.port)),
    ...(service === 'database' ? [at('MariaDB', 3306, { speaks: 'mysql' })] : []),
    ...(OTHER_PORTS[service] ?? []).map(([name, port]) => at(name, port)),
    ...(MUTUAL_PORTS[service] ?? []).map(([name, port, says, address]) =>
      at(name, port, { says, ...(address === undefined ? {} : { address }) }),
    ),
  ]);
}

export function evidenceRequest(
  model: CloudModel,
  node: CloudNode,
  given: { readonly ca: string; readonly needles: Needles },
): EvidenceRequest {
  const has = (service: string) => node.services.includes(service);
  const accounts = [...new Set(model.services.flatMap(s => s.databases.map(d => d.user)))];
  const command = (name: string, ...argv: string[]) => ({ name, argv });
  return {
    ca: given.ca,
    trees: Object.keys(CONFIG_FOLDERS).map(f => `/etc/${f}`),
    paths: [
      '/etc/openstack-dashboard',
      HORIZON_SETTINGS,
      `${settingsFolder(model)}/*.py`,
      '/var/lib/rabbitmq/.erlang.cookie',
      ...['rabbitmq/ssl', 'mysql/ssl', 'ovn/ssl', 'openvswitch/ssl', 'apache2/tls'].map(f => `/etc/${f}/*`),
      ...['libvirt/private', 'libvirt-vnc', 'qemu'].map(f => `/etc/pki/${f}/*`),
      '/etc/ceph/*.keyring',
      ...FORMAT_INSPECTORS,
    ],
    contents: [
      ...Object.values(CONFIG_FILES),
      '/etc/keystone/keystone-paste.ini',
      '/etc/libvirt/qemu.conf',
      '/etc/libvirt/libvirtd.conf',
      '/etc/rabbitmq/rabbitmq.conf',
      '/etc/memcached.conf',
      '/etc/ceph/ceph.conf',
      '/etc/swift/*.conf',
      '/etc/rsyncd.conf',
      ...TOKEN_APIS,
    ],
    settings: has('dashboard') ? [HORIZON_SETTINGS, `${settingsFolder(model)}/*.py`] : [],
    commands: [
      command('listeners', 'ss', '-Hltnup'),
      command('sshd', 'sshd', '-T'),
      ...(has('database')
        ? [
            { name: 'accounts', argv: ['mysql', '--no-defaults', '-N', '-B'], stdin: ACCOUNTS_SQL },
            ...databaseLogins(accounts).map(({ user, password }) => ({
              name: `login ${user}/${password}`,
              argv: [
                ...['mysql', '--no-defaults', '-N', '-B', '-h', node.address, '-u', user, `--ssl-ca=${CA_FILE}`],
                ...['--ssl-verify-server-cert', '--connect-timeout=5', '-e', 'SELECT 1'],
              ],
              env: { MYSQL_PWD: password },
            })),
          ]
        : []),
      ...(has('messaging')
        ? [
            command('users', 'rabbitmqctl', '-q', 'list_users', '--formatter', 'json'),
            command('broker', 'rabbitmq-diagnostics', '-q', 'listeners', '--formatter', 'json'),
          ]
        : []),
      ...(has('network-control')
        ? ['nb', 'sb'].map(db =>
            command(
              `ovn-${db}`,
              ...[`ovn-${db}ctl`, '--timeout=10', '--no-leader-only', '--bare', '--no-headings', '--columns=target'],
              ...['list', 'connection'],
            ),
          )
        : []),
    ],
    tls: tlsProbes(model, node),
    amqp: has('messaging')
      ? MESSAGING_LOGINS.map(l => ({ address: node.address, port: 5671, host: node.address, ...l }))
      : [],
    needles: given.needles,
    logs: ['/var/log'],
    readable: ['/etc', '/usr/local', '/var/lib/halligan', '/opt', '/srv', '/home', '/run', '/tmp', '/var/tmp'],
  };
}
