/** What a look at four nodes tells when they are as the roles want them. */
import { createHash } from 'node:crypto';
import { buildDesired, type Placed } from '../../../../installer/engine/desired.js';
import { type CloudModel, type CloudNode, nodesWith } from '../../../../installer/model/cloud.js';
import { openTemplates } from '../../../../installer/model/templates.js';
import { evidenceRequest, FORMAT_INSPECTORS, horizonUser, TOKEN_APIS } from '../../../../installer/security/request.js';
import type { ApiEvidence, Evidence, NodeEvidence, PathEvidence } from '../../../../installer/security/types.js';
import { catalogue } from '../../../../roles/catalogue.js';
import { model, rolesDir, tlsOf } from '../../roles/fixture.js';

const hex = (text: string) => createHash('sha256').update(text).digest('hex');
const secretOf = (name: string): string => (name.startsWith('dashboard/') ? hex(name) : hex(name).slice(0, 40));

export type Changeable<T> = T extends readonly (infer U)[]
  ? Changeable<U>[]
  : T extends ReadonlyMap<infer K, infer V>
    ? Map<K, Changeable<V>>
    : T extends object
      ? { -readonly [K in keyof T]: Changeable<T[K]> }
      : T;

const template = openTemplates(rolesDir()).render;

const placedOf = (cloud: CloudModel): readonly Placed[] =>
  buildDesired({
    catalogue,
    model: cloud,
    secret: secretOf,
    tls: node => tlsOf(node.name),
    template,
    outside: ['identity:catalog'],
  }).placed;

/** Our own files are what the roles render; what packages bring is added by hand, as `guarded` leaves it. */
function pathsOf(cloud: CloudModel, placed: readonly Placed[], node: CloudNode): PathEvidence[] {
  const own = placed.flatMap(({ node: where, resource: r }): PathEvidence[] =>
    where === node.name && (r.kind === 'file' || r.kind === 'directory')
      ? [
          {
            path: r.path,
            mode: r.mode,
            owner: r.owner,
            group: r.group,
            kind: r.kind === 'file' ? 'file' : 'folder',
          },
        ]
      : [],
  );
  const packaged = (path: string, group = 'root', mode = 0o644): PathEvidence => ({
    path,
    mode,
    owner: 'root',
    group,
    kind: 'file',
  });
  return [
    ...own,
    packaged('/etc/openstack-dashboard/local_settings.py', horizonUser(cloud), 0o640),
    ...FORMAT_INSPECTORS.map(p => packaged(p)),
    // Keystone's own, after some rotations.
    ...(node.services.includes('identity') ? ['0', '4', '5'] : []).map(
      (key): PathEvidence => ({
        path: `/etc/keystone/fernet-keys/${key}`,
        mode: 0o600,
        owner: 'keystone',
        group: 'keystone',
        kind: 'file',
      }),
    ),
  ];
}

/** As Django ends up with them; the file itself is read by Python in evidence.test.ts. */
const HORIZON = {
  DEBUG: false,
  ALLOWED_HOSTS: ['10.99.0.11', 'ctl'],
  SECRET_KEY: hex('dashboard'),
  SESSION_ENGINE: 'django.contrib.sessions.backends.cache',
  SESSION_COOKIE_SECURE: true,
  SESSION_COOKIE_HTTPONLY: true,
  CSRF_COOKIE_SECURE: true,
  DISALLOW_IFRAME_EMBED: true,
  ENFORCE_PASSWORD_CHECK: true,
  PASSWORD_AUTOCOMPLETE: 'off',
  DISABLE_PASSWORD_REVEAL: true,
  PASSWORD_VALIDATOR: { regex: '^.{12,128}$', help_text: 'long' },
};

const accounts = (cloud: CloudModel): string => {
  const all = cloud.services.flatMap(s => s.databases);
  return [
    'account\troot\tlocalhost\t\tunix_socket\t0',
    ...[...new Set(all.map(d => d.user))].map(u => `account\t${u}\t%\tANY\tmysql_native_password\t0`),
    ...all.map(d => `grant\t${d.user}\t%\t${d.name.replace('_', '\\_')}`),
    "global\t'root'@'localhost'\tSUPER",
    'variable\tREQUIRE_SECURE_TRANSPORT\tON',
    'variable\tINNODB_FLUSH_LOG_AT_TRX_COMMIT\t1',
    'variable\tLOCAL_INFILE\tOFF',
    '',
  ].join('\n');
};

const listening = (where: string, program: string): string =>
  `tcp   LISTEN 0      128    ${where}      0.0.0.0:*    users:(("${program}",pid=1,fd=3))\n`;

function listenersOf(cloud: CloudModel, node: CloudNode): string {
  const probes = evidenceRequest(cloud, node, { ca: '', needles: { salt: '', width: 24, digests: [] } }).tls;
  return [
    listening('0.0.0.0:22', 'sshd'),
    listening('[::]:22', 'sshd'),
    listening('127.0.0.53%lo:53', 'systemd-resolve'),
    ...probes.map(p => listening(`${p.address}:${p.port}`, p.name)),
    ...(node.services.includes('cache') ? [listening('127.0.0.1:11211', 'memcached')] : []),
    ...(node.services.includes('object-store')
      ? [6200, 6201, 6202, 873].map(p => listening(`${node.storageAddress}:${p}`, 'swift'))
      : []),
  ].join('');
}

function nodeEvidence(cloud: CloudModel, node: CloudNode, placed: readonly Placed[]): NodeEvidence {
  const request = evidenceRequest(cloud, node, { ca: '', needles: { salt: '', width: 24, digests: [] } });
  const outputs: Record<string, string> = {
    listeners: listenersOf(cloud, node),
    sshd: 'passwordauthentication no\nkbdinteractiveauthentication no\npermitrootlogin without-password\npermitemptypasswords no\n',
    accounts: accounts(cloud),
    users: JSON.stringify(cloud.services.flatMap(s => (s.messagingUser ? [{ user: s.messagingUser, tags: [] }] : []))),
    broker: JSON.stringify({
      listeners: [
        { protocol: 'amqp/ssl', interface: node.address, port: 5671 },
        { protocol: 'clustering', interface: '127.0.0.1', port: 25_672 },
      ],
    }),
    'ovn-nb': 'pssl:6641:127.0.0.1\n',
    'ovn-sb': `pssl:6642:${node.address}\n`,
  };
  return {
    paths: pathsOf(cloud, placed, node),
    contents: {
      ...Object.fromEntries(
        placed.flatMap(p =>
          p.node === node.name && p.resource.kind === 'file' ? [[p.resource.path, p.resource.content]] : [],
        ),
      ),
      ...Object.fromEntries(TOKEN_APIS.map(p => [p, "ENFORCER.enforce_call(action='identity:s3tokens_validate')"])),
    },
    settings: node.services.includes('dashboard') ? HORIZON : {},
    commands: Object.fromEntries(
      request.commands.map(({ name }) => [
        name,
        name.startsWith('login ')
          ? { code: 1, out: '', error: "ERROR 1045 (28000): Access denied for user 'x'@'y'" }
          : { code: 0, out: outputs[name]!, error: '' },
      ]),
    ),
    tls: request.tls.map(p => ({
      name: p.name,
      address: p.address,
      port: p.port,
      ok: true,
      version: 'TLSv1.3',
      answer: p.says === null ? null : '',
      error: null,
      old: [],
      clear: '',
    })),
    amqp: request.amqp.map(a => ({ user: a.user, password: a.password, result: 'refused' })),
    passwords: { usable: [], empty: [] },
    processes: [
      { user: 'root', program: 'init', secrets: [], vnc: null },
      ...(node.services.includes('hypervisor')
        ? [{ user: 'libvirt-qemu', program: 'qemu', secrets: [], vnc: `${node.address}:0,tls-creds=vnc-tls-creds0` }]
        : []),
    ],
    logs: { files: 10, bytes: 1000, whole: true, hits: [] },
    readable: [],
  };
}

const api = (cloud: CloudModel): ApiEvidence => ({
  endpoints: cloud.services.flatMap(s =>
    s.endpoints.map(e => ({ service: e.name, url: `https://${cloud.api.host}:${e.port}${e.path}` })),
  ),
  taken: [],
  tried: 20,
  notTried: null,
  withoutToken: { '/v3/ec2tokens': 401, '/v3/s3tokens': 401 },
  dashboard:
    nodesWith(cloud, 'dashboard').length === 0
      ? null
      : {
          status: 200,
          headers: {
            server: 'Apache',
            'x-frame-options': 'DENY',
            'x-content-type-options': 'nosniff',
            'strict-transport-security': 'max-age=15768000',
            'set-cookie':
              'csrftoken=abc; Path=/; SameSite=Lax; Secure\nsessionid=def; HttpOnly; Path=/; SameSite=Lax; Secure',
          },
        },
});

/** Everything as laid down. Each call makes a copy that a test may spoil. */
export function asLaidDown(cloud: CloudModel = model()): Changeable<Evidence> {
  const placed = placedOf(cloud);
  const evidence: Evidence = {
    model: cloud,
    nodes: new Map(cloud.nodes.map(n => [n.name, nodeEvidence(cloud, n, placed)])),
    missing: new Map(),
    api: api(cloud),
    apiMissing: null,
    searched: ['identity/nova'],
    secrets: [
      { name: 'identity/nova', length: 40, same: null },
      { name: 'database/nova', length: 40, same: null },
    ],
  };
  return structuredClone(evidence) as Changeable<Evidence>;
}
