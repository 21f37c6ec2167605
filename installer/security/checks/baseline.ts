/** What the Security Guide's lists leave out, and the advisories of the last years taught. Pure. */
import {
  APPLY_HINT,
  api,
  check,
  closed,
  config,
  content,
  everywhere,
  isExactly,
  isFalse,
  isTrue,
  laidDown,
  notApplicable,
  on,
  output,
  type Seen,
  said,
  values,
} from '../check.js';
import { asBoolean, parseIni } from '../ini.js';
import { isAny, isLoopback, listenerFaults, parseListeners } from '../listeners.js';
import { CONFIG_FILES, FORMAT_INSPECTORS, TOKEN_APIS } from '../request.js';
import type { Evidence, Found, SecurityCheck } from '../types.js';
import { dashboardWanted } from './guide.js';

const ours = 'Halligan’s baseline';

const keys = (s: Seen, folder: string) =>
  s.evidence.paths.filter(p => p.path.startsWith(`${folder}/`) && /key(\.pem)?$/.test(p.path));
/** Keys below a folder are closed to all but their owner and his group. */
const keyFaults = (s: Seen, folder: string): string[] => {
  const found = keys(s, folder);
  if (found.length === 0) return [`${s.node.name}: no key in ${folder}`];
  return found.filter(p => !closed(p, 0o640)).map(p => `${s.node.name}: ${p.path} is ${said(p)}`);
};

const listeners = (s: Seen) => parseListeners(output(s, 'listeners'));
/** A program must be there, and on the node's own address only, or where else it may be. */
function boundTo(
  s: Seen,
  name: string,
  port: number,
  right = (address: string) => address === s.node.address,
): string[] {
  const found = listeners(s).filter(l => l.port === port);
  if (found.length === 0) return [`${s.node.name}: ${name} does not listen on port ${port}`];
  return found
    .filter(l => l.protocol === 'udp' || !right(l.address))
    .map(l => `${s.node.name}: ${name} listens on ${l.address} port ${l.port}/${l.protocol}`);
}

function json<T>(s: Seen, name: string): T {
  return JSON.parse(output(s, name)) as T;
}

const rows = (s: Seen, kind: string): string[][] =>
  output(s, 'accounts')
    .split('\n')
    .map(l => l.split('\t'))
    .filter(r => r[0] === kind)
    .map(r => r.slice(1));

const local = (host: string) => ['localhost', '127.0.0.1', '::1'].includes(host);

const messaging: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Messaging-TLS',
    title: 'RabbitMQ listens over TLS only, on the management network',
    source: ours,
    faults: e =>
      on(e, 'messaging').flatMap(s => {
        const { listeners: all } = json<{ listeners: { protocol: string; interface: string; port: number }[] }>(
          s,
          'broker',
        );
        const conf = parseIni(content(s, '/etc/rabbitmq/rabbitmq.conf'))['DEFAULT'] ?? {};
        return [
          ...all
            .filter(l => l.protocol !== 'clustering' && !/(ssl|tls|https)/.test(l.protocol))
            .map(l => `${s.node.name}: ${l.protocol} without TLS on ${l.interface} port ${l.port}`),
          ...all
            .filter(l => l.protocol !== 'clustering' && l.interface !== s.node.address)
            .map(l => `${s.node.name}: ${l.protocol} listens on ${l.interface}`),
          ...listeners(s)
            .filter(l => [25_672, 4369].includes(l.port) && !isLoopback(l.address))
            .map(l => `${s.node.name}: ${l.program} listens on ${l.address} port ${l.port}`),
          ...(conf['ssl_options.verify'] === 'verify_peer'
            ? []
            : [`${s.node.name}: ssl_options.verify is not verify_peer`]),
          ...keyFaults(s, '/etc/rabbitmq/ssl'),
        ];
      }),
    remark: () => 'Services log in by password; no certificate of theirs is asked for.',
  }),
  check({
    id: 'Halligan-Messaging-Accounts',
    title: 'RabbitMQ has an account per service and no other, and its Erlang cookie is a secret',
    source: ours,
    faults: e =>
      on(e, 'messaging').flatMap(s => {
        const cookie = s.evidence.paths.find(p => p.path.endsWith('/.erlang.cookie'));
        const users = json<{ user: string; tags: string[] }[]>(s, 'users');
        return [
          ...users
            .filter(u => !e.model.services.some(x => x.messagingUser === u.user))
            .map(u => `${s.node.name}: there is the account ${u.user}`),
          ...users
            .filter(u => u.tags.length > 0)
            .map(u => `${s.node.name}: ${u.user} has the tags ${u.tags.join(', ')}`),
          ...(closed(cookie, 0o600) && cookie?.owner === 'rabbitmq'
            ? []
            : [`${s.node.name}: the Erlang cookie is ${cookie ? said(cookie) : 'not there'}`]),
        ];
      }),
    remark: () => 'All accounts are in one virtual host.',
  }),
  check({
    id: 'Halligan-Messaging-Verify',
    title: 'Services check the name in RabbitMQ’s certificate',
    source: `${ours}; OSSN-0096`,
    applies: laidDown('messaging', 'There is no messaging.'),
    faults: e =>
      values(
        e,
        ['compute-control', 'hypervisor', 'network-control', 'volume-control', 'volume-backend'].flatMap(service => [
          { service, section: 'oslo_messaging_rabbit', key: 'ssl', wrong: isTrue },
          { service, section: 'oslo_messaging_rabbit', key: 'ssl_ca_file', wrong: v => (v ? null : 'is not set') },
          { service, section: 'oslo_messaging_rabbit', key: 'ssl_enforce_hostname_verification', wrong: isTrue },
        ]),
      ),
  }),
];

const database: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Database',
    title: 'MariaDB answers on the management network, over TLS only',
    source: ours,
    faults: e =>
      on(e, 'database').flatMap(s => {
        const tls = s.evidence.tls.find(t => t.port === 3306);
        const variables = new Map(rows(s, 'variable').map(r => [r[0], r[1]]));
        return [
          ...boundTo(s, 'MariaDB', 3306),
          ...(tls?.ok ? [] : [`${s.node.name}: MariaDB gives no trusted TLS (${tls?.error ?? 'not tried'})`]),
          ...(variables.get('REQUIRE_SECURE_TRANSPORT') === 'ON'
            ? []
            : [`${s.node.name}: require_secure_transport is off`]),
          ...(variables.get('LOCAL_INFILE') === 'OFF' ? [] : [`${s.node.name}: local_infile is on`]),
          ...keyFaults(s, '/etc/mysql/ssl'),
        ];
      }),
  }),
  check({
    id: 'Halligan-Database-Accounts',
    title: 'Each account of MariaDB has a password, needs TLS, and reaches only the databases of its service',
    source: ours,
    faults: e =>
      on(e, 'database').flatMap(s => {
        const own = new Map<string, Set<string>>();
        for (const d of e.model.services.flatMap(x => x.databases))
          own.set(d.user, (own.get(d.user) ?? new Set()).add(d.name));
        const at = (what: string) => `${s.node.name}: ${what}`;
        return [
          ...rows(s, 'account').flatMap(([user = '', host = '', tls, , empty]) => [
            ...(user === '' ? [at(`there is an anonymous account at ${host}`)] : []),
            ...(empty === '1' ? [at(`${user}@${host} has no password`)] : []),
            ...(user === 'root' && !local(host) ? [at(`root may log in from ${host}`)] : []),
            ...(local(host) || tls ? [] : [at(`${user}@${host} does not need TLS`)]),
          ]),
          ...rows(s, 'grant').flatMap(([user = '', host = '', db = '']) =>
            local(host) || own.get(user)?.has(db.replaceAll('\\', ''))
              ? []
              : [at(`${user === '' ? 'everybody' : user} may use the database ${db}`)],
          ),
          ...rows(s, 'global').flatMap(([grantee = '', privilege]) =>
            /@'(localhost|127\.0\.0\.1|::1)'$/.test(grantee) ? [] : [at(`${grantee} has ${privilege} on everything`)],
          ),
        ];
      }),
  }),
  check({
    id: 'Halligan-Database-Durable',
    title: 'What MariaDB has acknowledged outlives a loss of power',
    source: `${ours}; Jepsen on MariaDB`,
    faults: e =>
      on(e, 'database').flatMap(s =>
        rows(s, 'variable').some(r => r[0] === 'INNODB_FLUSH_LOG_AT_TRX_COMMIT' && r[1] === '1')
          ? []
          : [`${s.node.name}: innodb_flush_log_at_trx_commit is not 1`],
      ),
  }),
  check({
    id: 'Halligan-Database-Hypervisors',
    title: 'What runs on hypervisors knows no password of a database',
    source: ours,
    faults: e =>
      (['hypervisor', 'network-agent'] as const).flatMap(service =>
        on(e, service).flatMap(s => {
          const path = CONFIG_FILES[service]!;
          const text = s.evidence.contents[path];
          if (text === undefined) return [];
          return Object.entries(parseIni(text)).flatMap(([section, pairs]) =>
            Object.entries(pairs)
              .filter(([key, value]) => key === 'connection' || /mysql\+?\w*:\/\//.test(value))
              .map(([key]) => `${s.node.name}: ${path} has [${section}] ${key}`),
          );
        }),
      ),
  }),
];

const authtokens = ['image', 'placement', 'compute-control', 'network-control', 'volume-control'];

const cache: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Cache',
    title: 'memcached listens for its own node only, and not over UDP',
    source: ours,
    faults: e => on(e, 'cache').flatMap(s => boundTo(s, 'memcached', 11_211, isLoopback)),
  }),
  check({
    id: 'Halligan-Cache-Tokens',
    title: 'Tokens in memcached are encrypted, with a key per service',
    source: ours,
    applies: laidDown('cache', 'There is no cache.'),
    faults: e => {
      const seen = new Map<string, string>();
      return [
        ...values(
          e,
          authtokens.flatMap(service => [
            { service, section: 'keystone_authtoken', key: 'memcache_security_strategy', wrong: isExactly('ENCRYPT') },
            {
              service,
              section: 'keystone_authtoken',
              key: 'memcache_secret_key',
              wrong: v => {
                if (v === undefined || v.length < 32) return 'is shorter than 32 characters';
                const other = seen.get(v);
                seen.set(v, service);
                return other === undefined || other === service ? null : `is that of ${other}`;
              },
            },
          ]),
        ),
      ];
    },
  }),
];

const identity: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Fernet',
    title: 'Keys of tokens and credentials are Keystone’s alone, with the next one in place',
    source: ours,
    faults: e =>
      on(e, 'identity').flatMap(s =>
        ['fernet-keys', 'credential-keys'].flatMap(name => {
          const folder = `/etc/keystone/${name}`;
          const self = s.evidence.paths.find(p => p.path === folder);
          const files = s.evidence.paths.filter(p => p.path.startsWith(`${folder}/`));
          return [
            ...(closed(self, 0o700) && self?.owner === 'keystone'
              ? []
              : [`${s.node.name}: ${folder} is ${self ? said(self) : 'not there'}`]),
            ...files
              .filter(p => !closed(p, 0o600) || p.owner !== 'keystone')
              .map(p => `${s.node.name}: ${p.path} is ${said(p)}`),
            ...(files.length >= 2 ? [] : [`${s.node.name}: ${folder} holds ${files.length} keys, not 2`]),
          ];
        }),
      ),
    remark: () => 'Those of tokens are rotated each day by keystone-fernet-rotate.timer; those of credentials are not.',
  }),
  check({
    id: 'Halligan-EC2',
    title: 'Keystone exchanges signatures of EC2 and S3 for tokens only for services',
    source: 'OSSA-2025-002',
    faults: e => [
      ...on(e, 'identity').flatMap(s =>
        TOKEN_APIS.filter(p => !/enforce_call\(\s*action='identity:(ec2|s3)tokens_/.test(content(s, p))).map(
          p => `${s.node.name}: ${p} asks nobody for a token (CVE-2025-65073): upgrade the package`,
        ),
      ),
      ...Object.entries(api(e).withoutToken)
        .filter(([, status]) => status !== 401 && status !== 403 && status !== 404)
        .map(([path, status]) => `${path} answers ${status} to a client without a token`),
    ],
    hint: 'Install the security updates of the distribution.',
  }),
  check({
    id: 'Halligan-Service-Tokens',
    title: 'Services show a token of their own beside the user’s, and ask for it',
    source: 'OSSA-2023-003',
    faults: e =>
      values(e, [
        ...authtokens.flatMap(service => [
          { service, section: 'keystone_authtoken', key: 'service_token_roles_required', wrong: isTrue },
          { service, section: 'keystone_authtoken', key: 'service_token_roles', wrong: isExactly('service') },
        ]),
        ...['compute-control', 'hypervisor', 'volume-control', 'volume-backend'].map(service => ({
          service,
          section: 'service_user',
          key: 'send_service_user_token',
          wrong: isTrue,
        })),
      ]),
  }),
  check({
    id: 'Halligan-RBAC',
    title: 'Policies look at the scope of a token',
    source: 'OSSA-2019-006',
    applies: model =>
      model.release.version < '2023.1'
        ? `In ${model.release.openstack} this refuses the administrator of a project what the services themselves ask for; from 2023.1 on they do without. The hole of OSSA-2019-006 itself is closed in its code.`
        : model.release.version < '2024.2'
          ? `In ${model.release.openstack} each service has a default of its own, which its files do not tell; from 2024.2 on (oslo.policy 4.4) it is on in all.`
          : true,
    faults: e =>
      values(
        e,
        [...authtokens, 'identity'].flatMap(service =>
          ['enforce_scope', 'enforce_new_defaults'].map(key => ({
            service,
            section: 'oslo_policy',
            key,
            wrong: (v: string | undefined) => (asBoolean(v) === false ? 'is false' : null),
          })),
        ),
      ),
  }),
  check({
    id: 'Halligan-Endpoints',
    title: 'Every endpoint of the catalogue is https, and no API answers plain HTTP',
    source: ours,
    faults: e => [
      ...api(e)
        .endpoints.filter(x => !x.url.startsWith('https://'))
        .map(x => `${x.service}: ${x.url}`),
      ...everywhere(e).flatMap(s =>
        s.evidence.tls
          .filter(t => /^HTTP\/\S+ [123]/.test(t.clear))
          .map(t => `${s.node.name}: ${t.name} on port ${t.port} answers plain HTTP`),
      ),
    ],
    remark: e => `${api(e).endpoints.length} endpoints`,
  }),
];

/** Words that switch the check of a certificate off. */
const CARELESS = /^(insecure|.*_insecure|ssl_verify|verify_ssl|.*_no_verify|ssl_enforce_hostname_verification)$/;
const SAFE_WHEN_TRUE = /^(ssl_verify|verify_ssl|ssl_enforce_hostname_verification)$/;

const transport: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-TLS',
    title: 'Every port of the cloud speaks TLS 1.2 or later, with a certificate of the site for its address',
    source: ours,
    faults: e =>
      everywhere(e).flatMap(s =>
        s.evidence.tls.flatMap(t => [
          ...(t.ok ? [] : [`${s.node.name}: ${t.name} on port ${t.port}: ${t.error}`]),
          ...t.old.map(v => `${s.node.name}: ${t.name} on port ${t.port} takes ${v}`),
        ]),
      ),
    remark: e => `${everywhere(e).reduce((n, s) => n + s.evidence.tls.length, 0)} ports`,
  }),
  check({
    id: 'Halligan-Clients',
    title: 'No client of the cloud’s own leaves certificates unchecked',
    source: ours,
    faults: e =>
      everywhere(e).flatMap(s =>
        Object.entries(CONFIG_FILES)
          .filter(([service, path]) => s.node.services.includes(service) && s.evidence.contents[path] !== undefined)
          .flatMap(([, path]) =>
            Object.entries(parseIni(s.evidence.contents[path]!)).flatMap(([section, pairs]) =>
              Object.entries(pairs)
                .filter(([key, value]) => CARELESS.test(key) && asBoolean(value) === !SAFE_WHEN_TRUE.test(key))
                .map(([key]) => `${s.node.name}: [${section}] ${key} of ${path}`),
            ),
          ),
      ),
  }),
  check({
    id: 'Halligan-Ceph',
    title: 'Ceph encrypts what it moves, and asks every client for a key',
    source: ours,
    applies: model =>
      model.settings.volumes.backend === 'ceph'
        ? true
        : `Volumes are kept by ${model.settings.volumes.backend}, not by Ceph.`,
    faults: e =>
      ['volume-backend', 'hypervisor'].flatMap(service =>
        on(e, service).flatMap(s => {
          const global = parseIni(content(s, '/etc/ceph/ceph.conf'))['global'] ?? {};
          // A hypervisor is a client, and nothing else.
          const sides = s.node.services.includes('volume-backend') ? ['cluster', 'service', 'client'] : ['client'];
          const must = (key: string, value: string) =>
            global[key] === value ? [] : [`${s.node.name}: ${key} of /etc/ceph/ceph.conf is not ${value}`];
          return [
            ...sides.flatMap(x => must(`ms_${x}_mode`, 'secure')),
            ...sides.flatMap(x => must(`auth_${x}_required`, 'cephx')),
          ];
        }),
      ),
  }),
  check({
    id: 'Halligan-OVN',
    title: 'OVN’s databases answer only holders of a certificate of the site, the northbound one only its own node',
    source: ours,
    faults: e =>
      on(e, 'network-control').flatMap(s => [
        ...['ovn-nb', 'ovn-sb'].flatMap(db => {
          const targets = output(s, db).split(/\s+/).filter(Boolean);
          return targets.length === 0
            ? [`${s.node.name}: ${db} listens to nobody`]
            : targets
                .filter(t => !t.startsWith('pssl:') || (db === 'ovn-nb' && !isLoopback(t.split(':')[2] ?? '')))
                .map(t => `${s.node.name}: ${db} listens on ${t}`);
        }),
        ...s.evidence.tls
          .filter(t => [6641, 6642].includes(t.port) && t.answer)
          .map(t => `${s.node.name}: ${t.name} answers a client without a certificate`),
        ...keyFaults(s, '/etc/ovn/ssl'),
      ]),
  }),
  check({
    id: 'Halligan-Migration',
    title: 'libvirt takes migrations over TLS only, from hypervisors that show a certificate',
    source: ours,
    faults: e => [
      ...on(e, 'hypervisor').flatMap(s => {
        const text = content(s, '/etc/libvirt/libvirtd.conf');
        return [
          ...listeners(s)
            .filter(l => l.port === 16_509 && !isLoopback(l.address))
            .map(() => `${s.node.name}: libvirt listens without TLS on port 16509`),
          ...s.evidence.tls
            .filter(t => t.port === 16_514 && t.answer)
            .map(() => `${s.node.name}: libvirt answers a client without a certificate`),
          ...(/^\s*tls_no_verify_certificate\s*=\s*1/m.test(text)
            ? [`${s.node.name}: certificates are not checked`]
            : []),
          ...(/^\s*tls_allowed_dn_list\s*=\s*\[\s*"/m.test(text)
            ? []
            : [`${s.node.name}: anybody with a certificate is let in`]),
          ...keyFaults(s, '/etc/pki/libvirt/private'),
        ];
      }),
      ...values(e, [
        { service: 'hypervisor', section: 'libvirt', key: 'live_migration_with_native_tls', wrong: isTrue },
        { service: 'hypervisor', section: 'libvirt', key: 'live_migration_scheme', wrong: isExactly('tls') },
      ]),
    ],
  }),
];

const console: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Console',
    title:
      'Consoles are under TLS from the browser to the hypervisor, and both ends of the second leg show a certificate',
    source: `${ours}; OSSN-0101`,
    faults: e => [
      ...values(e, [
        { service: 'compute-control', section: 'DEFAULT', key: 'ssl_only', wrong: isTrue },
        { service: 'compute-control', section: 'vnc', key: 'auth_schemes', wrong: isExactly('vencrypt') },
        { service: 'compute-control', section: 'vnc', key: 'vencrypt_ca_certs', wrong: v => (v ? null : 'is not set') },
        {
          service: 'compute-control',
          section: 'vnc',
          key: 'novncproxy_base_url',
          wrong: v => (v?.startsWith('https://') ? null : 'is not https'),
        },
        {
          service: 'compute-control',
          section: 'console',
          key: 'allowed_origins',
          wrong: v => (!v ? 'is not set' : v.includes('*') ? 'lets every page in' : null),
        },
        {
          service: 'compute-control',
          section: 'consoleauth',
          key: 'token_ttl',
          wrong: v => (v === undefined || Number(v) <= 600 ? null : 'is longer than 10 minutes'),
        },
        {
          service: 'hypervisor',
          section: 'vnc',
          key: 'server_listen',
          wrong: (v, s) => (v === s.node.address ? null : `is not ${s.node.address}`),
        },
      ]),
      ...on(e, 'hypervisor').flatMap(s => {
        const qemu = parseIni(content(s, '/etc/libvirt/qemu.conf'))['DEFAULT'] ?? {};
        return [
          ...['vnc_tls', 'vnc_tls_x509_verify'].flatMap(key =>
            qemu[key] === '1' ? [] : [`${s.node.name}: ${key} of qemu.conf is not 1`],
          ),
          ...s.evidence.processes
            .filter(p => p.vnc !== null && (!p.vnc.includes('tls-creds=') || isAny(p.vnc.split(':')[0]!)))
            .map(p => `${s.node.name}: a screen is at ${p.vnc}`),
          ...keyFaults(s, '/etc/pki/libvirt-vnc'),
        ];
      }),
    ],
    remark: e => {
      const screens = on(e, 'hypervisor').flatMap(s => s.evidence.processes.filter(p => p.vnc !== null)).length;
      return screens === 0
        ? 'No server ran meanwhile; the settings were read.'
        : `${screens} running servers were looked at.`;
    },
  }),
  check({
    id: 'Halligan-Metadata',
    title: 'Nova and the agents on hypervisors share a secret for metadata',
    source: ours,
    faults: e => {
      const secrets = [
        ...on(e, 'compute-control').map(s => config(s, 'compute-control')['neutron']?.['metadata_proxy_shared_secret']),
        ...on(e, 'network-agent')
          .filter(s => s.node.services.includes('hypervisor'))
          .map(s => config(s, 'network-agent')['DEFAULT']?.['metadata_proxy_shared_secret']),
      ];
      return [
        ...(secrets.every(s => (s ?? '').length >= 32) ? [] : ['it is not set, or shorter than 32 characters']),
        ...(new Set(secrets).size <= 1 ? [] : ['it is not the same everywhere']),
        ...values(e, [
          { service: 'compute-control', section: 'neutron', key: 'service_metadata_proxy', wrong: isTrue },
        ]),
        ...on(e, 'network-agent')
          .filter(s => s.node.services.includes('hypervisor'))
          .flatMap(s => {
            const fault = isExactly('https')(config(s, 'network-agent')['DEFAULT']?.['nova_metadata_protocol']);
            const careless = isFalse(config(s, 'network-agent')['DEFAULT']?.['nova_metadata_insecure']);
            return [fault, careless].flatMap(f => (f === null ? [] : [`${s.node.name}: metadata over TLS ${f}`]));
          }),
      ];
    },
  }),
];

const horizon: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Dashboard-Key',
    title: 'Horizon signs with a long random key, the same on all its nodes',
    source: ours,
    applies: dashboardWanted,
    faults: e => {
      const found = on(e, 'dashboard').map(s => s.evidence.settings['SECRET_KEY']);
      return [
        ...(found.every(k => typeof k === 'string' && k.length >= 64) ? [] : ['it is shorter than 64 characters']),
        ...(new Set(found).size <= 1 ? [] : ['it is not the same everywhere']),
      ];
    },
  }),
  check({
    id: 'Halligan-Dashboard-Page',
    title: 'Horizon answers only to its names, tells browsers to stay with TLS, and shows no innards',
    source: ours,
    applies: dashboardWanted,
    faults: e => {
      const page = api(e).dashboard;
      const header = (name: string) => page?.headers[name] ?? '';
      return [
        ...on(e, 'dashboard').flatMap(s => {
          const { settings } = s.evidence;
          const hosts = settings['ALLOWED_HOSTS'];
          return [
            ...(Array.isArray(hosts) && hosts.length > 0 && !hosts.includes('*')
              ? []
              : [`${s.node.name}: ALLOWED_HOSTS lets all names in`]),
            ...(settings['DEBUG'] === false ? [] : [`${s.node.name}: DEBUG is on`]),
            ...(settings['OPENSTACK_SSL_NO_VERIFY'] === true ? [`${s.node.name}: OPENSTACK_SSL_NO_VERIFY is on`] : []),
            ...(String(settings['SESSION_ENGINE']).endsWith('.cache')
              ? []
              : [`${s.node.name}: sessions are not in the cache`]),
          ];
        }),
        ...(page?.status === 200 ? [] : [`the login page answers ${page?.status ?? 'nothing'}`]),
        ...(/max-age=[1-9]\d{6,}/.test(header('strict-transport-security'))
          ? []
          : ['there is no Strict-Transport-Security']),
        ...(header('x-content-type-options') === 'nosniff' ? [] : ['there is no X-Content-Type-Options']),
        ...(/\d/.test(header('server')) ? [`the server tells its version: ${header('server')}`] : []),
      ];
    },
  }),
];

const found = (e: Evidence, s: Seen, where: string, secrets: readonly number[]): string[] =>
  secrets.map(i => `${s.node.name}: ${i < 0 ? 'a private key' : `the secret ${e.searched[i] ?? '?'}`} in ${where}`);
const foundIn = (e: Evidence, s: Seen, hits: readonly Found[]) => hits.flatMap(h => found(e, s, h.path, h.secrets));

const secrets: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Secrets',
    title: 'The cloud’s secrets are long and distinct',
    source: ours,
    faults: e => [
      ...e.secrets.filter(s => s.length < 32).map(s => `${s.name} has ${s.length} characters`),
      ...e.secrets.filter(s => s.same !== null).map(s => `${s.name} is the same as ${s.same}`),
    ],
    remark: e => `${e.secrets.length} secrets`,
  }),
  check({
    id: 'Halligan-Arguments',
    title: 'No secret stands in the arguments of a process',
    source: ours,
    faults: e =>
      everywhere(e).flatMap(s =>
        s.evidence.processes.flatMap(p => found(e, s, `the arguments of ${p.program}`, p.secrets)),
      ),
    remark: e => `${everywhere(e).reduce((n, s) => n + s.evidence.processes.length, 0)} processes`,
  }),
  check({
    id: 'Halligan-Logs',
    title: 'No secret stands in a log',
    source: ours,
    faults: e => everywhere(e).flatMap(s => foundIn(e, s, s.evidence.logs.hits)),
    remark: e => {
      const all = everywhere(e).map(s => s.evidence.logs);
      const short = all.some(l => !l.whole) ? ', not all of them: they are too many' : '';
      return `${all.reduce((n, l) => n + l.files, 0)} files and the journals${short}`;
    },
    hint: 'Turn off debug messages of the service that wrote it, delete the log, and change the secret.',
  }),
  check({
    id: 'Halligan-Readable',
    title: 'No secret stands in a file that every user of a node can read',
    source: ours,
    faults: e => everywhere(e).flatMap(s => foundIn(e, s, s.evidence.readable)),
  }),
  check({
    id: 'Halligan-Defaults',
    title: 'No pair of name and password that everybody knows is taken by Keystone, Horizon, RabbitMQ or MariaDB',
    source: ours,
    faults: e => [
      ...api(e).taken,
      ...(api(e).notTried === null ? [] : [api(e).notTried!]),
      ...on(e, 'messaging').flatMap(s => [
        ...s.evidence.amqp.filter(a => a.result === 'taken').map(a => `${a.user}/${a.password} at RabbitMQ`),
        ...(s.evidence.amqp.some(a => a.result === 'unknown') || s.evidence.amqp.length === 0
          ? [`${s.node.name}: RabbitMQ could not be asked`]
          : []),
      ]),
      ...on(e, 'database').flatMap(s => {
        const tried = Object.entries(s.evidence.commands).filter(([name]) => name.startsWith('login '));
        return [
          ...tried.filter(([, c]) => c.code === 0).map(([name]) => `${name.slice(6)} at MariaDB`),
          // 1045 access denied, 1698 no login of this kind; anything else proves nothing.
          ...tried
            .filter(([, c]) => c.code !== 0 && !/ERROR (1045|1698|1044|1130)\b/.test(c.error))
            .map(([, c]) => `${s.node.name}: MariaDB could not be asked (${c.error.trim().slice(0, 80)})`),
        ];
      }),
    ],
    remark: e =>
      `${
        api(e).tried +
        on(e, 'messaging').reduce((n, s) => n + s.evidence.amqp.length, 0) +
        on(e, 'database').reduce(
          (n, s) => n + Object.keys(s.evidence.commands).filter(c => c.startsWith('login ')).length,
          0,
        )
      } tries`,
    hint: 'Change the password; `halligan apply` writes those of services.',
  }),
];

const hosts: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Listeners',
    title: 'Whatever listens does so on the network that it is for',
    source: ours,
    faults: e => everywhere(e).flatMap(s => listenerFaults(e.model, s.node, listeners(s))),
    remark: e =>
      `${everywhere(e).reduce((n, s) => n + listeners(s).filter(l => !isLoopback(l.address)).length, 0)} ports`,
    hint: 'Stop what the cloud does not need (`ss -ltnup` names the process), or bind it to one address.',
  }),
  check({
    id: 'Halligan-Hosts',
    title: 'Nodes take SSH keys only, and no account has an empty password',
    source: ours,
    faults: e =>
      everywhere(e).flatMap(s => {
        const sshd = output(s, 'sshd');
        const is = (key: string) => new RegExp(`^${key} (.*)$`, 'm').exec(sshd)?.[1];
        return [
          ...(is('passwordauthentication') === 'no' ? [] : [`${s.node.name}: sshd takes passwords`]),
          ...(is('kbdinteractiveauthentication') === 'no'
            ? []
            : [`${s.node.name}: sshd takes keyboard-interactive logins`]),
          ...(is('permitrootlogin') === 'yes' ? [`${s.node.name}: sshd lets root in by password`] : []),
          ...(is('permitemptypasswords') === 'yes' ? [`${s.node.name}: sshd takes empty passwords`] : []),
          ...s.evidence.passwords.empty.map(name => `${s.node.name}: ${name} needs no password`),
        ];
      }),
    hint: `${APPLY_HINT} Files in /etc/ssh/sshd_config.d with a smaller number win.`,
  }),
  check({
    id: 'Halligan-Image-Formats',
    title: 'Images are looked into before they are used, in named formats only',
    source: 'OSSA-2024-001, OSSA-2024-002',
    faults: e => [
      ...(['compute-control', 'image', 'hypervisor'] as const).flatMap(service =>
        on(e, service).flatMap(s =>
          s.evidence.paths.some(p => (FORMAT_INSPECTORS as readonly string[]).includes(p.path))
            ? []
            : [`${s.node.name}: the packages do not inspect images (CVE-2024-32498): upgrade them`],
        ),
      ),
      ...values(e, [
        { service: 'image', section: 'image_format', key: 'disk_formats', wrong: v => (v ? null : 'is not set') },
      ]),
    ],
    hint: 'Install the security updates of the distribution.',
  }),
  notApplicable(
    'Halligan-Firewall',
    'Nodes have a firewall that denies by default',
    ours,
    'No firewall is laid down. What listens, and where, is checked by Halligan-Listeners.',
  ),
  notApplicable(
    'Halligan-Audit',
    'Nodes keep an audit log and install security updates by themselves',
    ours,
    'Neither auditd nor unattended-upgrades is laid down: they are the operator’s choice.',
  ),
];

export const baselineChecks: readonly SecurityCheck[] = [
  ...transport,
  ...messaging,
  ...database,
  ...cache,
  ...identity,
  ...console,
  ...horizon,
  ...secrets,
  ...hosts,
];
