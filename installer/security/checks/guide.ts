/** The checklists of the OpenStack Security Guide, chapter by chapter, but for owners and modes. Pure. */
import type { CloudModel } from '../../model/cloud.js';
import {
  api,
  check,
  closed,
  config,
  isExactly,
  isFalse,
  isHttps,
  isNotTrue,
  isPositive,
  laidDown,
  notApplicable,
  on,
  said,
  values,
} from '../check.js';
import { HORIZON_SETTINGS, horizonUser, settingsFolder } from '../request.js';
import type { Evidence, SecurityCheck } from '../types.js';
import { modeChecks } from './modes.js';

const source = 'OpenStack Security Guide';
const of = (name: string) => modeChecks[name]!;

/** TLS on the port of an API, as seen by a client on its node. */
export const portFaults = (evidence: Evidence, service: string, ports: readonly number[]): string[] =>
  on(evidence, service).flatMap(({ node, evidence: e }) =>
    ports.flatMap(port => {
      const found = e.tls.find(t => t.port === port);
      if (!found) return [`${node.name}: port ${port} was not tried`];
      return [
        ...(found.ok ? [] : [`${node.name}: ${found.name} on port ${port} gives no trusted TLS (${found.error})`]),
        ...(/^HTTP\/\S+ [123]/.test(found.clear)
          ? [`${node.name}: ${found.name} on port ${port} answers plain HTTP (${found.clear})`]
          : []),
      ];
    }),
  );

/** `www_authenticate_uri` and `insecure`, the check 04 of four chapters. */
const keystoneOverTls = (evidence: Evidence, service: string) =>
  values(evidence, [
    { service, section: 'keystone_authtoken', key: 'www_authenticate_uri', wrong: isHttps },
    { service, section: 'keystone_authtoken', key: 'auth_url', wrong: isHttps },
    { service, section: 'keystone_authtoken', key: 'insecure', wrong: isFalse },
  ]);

const BODY = 'max_request_body_size';

const identity: readonly SecurityCheck[] = [
  ...of('Identity'),
  check({
    id: 'Check-Identity-03',
    title: 'Keystone answers over TLS only',
    source,
    faults: e => portFaults(e, 'identity', [5000]),
  }),
  notApplicable('Check-Identity-04', 'Hashes of PKI tokens', source, 'Obsolete in the guide: PKI tokens are gone.'),
  check({
    id: 'Check-Identity-05',
    title: 'Keystone bounds the size of requests',
    source,
    faults: e => values(e, [{ service: 'identity', section: 'oslo_middleware', key: BODY, wrong: isPositive }]),
  }),
  check({
    id: 'Check-Identity-06',
    title: 'Keystone has no administrator’s token',
    source,
    faults: e =>
      on(e, 'identity').flatMap(s => {
        const token = config(s, 'identity')['DEFAULT']?.['admin_token'];
        const paste = s.evidence.contents['/etc/keystone/keystone-paste.ini'] ?? '';
        return [
          ...(token === undefined || token === '' || token.toLowerCase() === 'none'
            ? []
            : [`${s.node.name}: [DEFAULT] admin_token is set`]),
          ...(/^[^#\n]*(admin_token_auth|AdminTokenAuthMiddleware)/m.test(paste)
            ? [`${s.node.name}: keystone-paste.ini has the middleware for it`]
            : []),
        ];
      }),
  }),
  check({
    id: 'Check-Identity-07',
    title: 'Keystone tells strangers nothing of why it refuses',
    source,
    faults: e => values(e, [{ service: 'identity', section: 'DEFAULT', key: 'insecure_debug', wrong: isFalse }]),
  }),
  check({
    id: 'Check-Identity-08',
    title: 'Tokens are Fernet tokens',
    source,
    faults: e => values(e, [{ service: 'identity', section: 'token', key: 'provider', wrong: isExactly('fernet') }]),
  }),
];

const dashboard = laidDown('dashboard', 'The site wants no dashboard (cloud.dashboard: false).');
const setting = (id: string, title: string, name: string, right: (value: unknown) => boolean) =>
  check({
    id,
    title,
    source,
    applies: dashboard,
    faults: e =>
      on(e, 'dashboard').flatMap(s => (right(s.evidence.settings[name]) ? [] : [`${s.node.name}: ${name} is not so`])),
  });
/** The file that the guide names, and that with our settings. */
const settingsFiles = (e: Evidence) =>
  on(e, 'dashboard').flatMap(s =>
    s.evidence.paths
      .filter(p => p.path === HORIZON_SETTINGS || p.path === `${settingsFolder(e.model)}/_9999_halligan.py`)
      .map(path => ({ node: s.node, path })),
  );

const horizon: readonly SecurityCheck[] = [
  check({
    id: 'Check-Dashboard-01',
    title: 'Settings of Horizon belong to root and Horizon’s group',
    source,
    applies: dashboard,
    faults: e => {
      const files = settingsFiles(e);
      if (files.length === 0) return [`${HORIZON_SETTINGS} was not found`];
      return files
        .filter(({ path }) => path.owner !== 'root' || path.group !== horizonUser(e.model))
        .map(({ node, path }) => `${node.name}: ${path.path} is ${said(path)}`);
    },
    remark: e => (horizonUser(e.model) === 'horizon' ? null : `Horizon runs as ${horizonUser(e.model)} here.`),
  }),
  check({
    id: 'Check-Dashboard-02',
    title: 'Only root and Horizon read its settings',
    source,
    applies: dashboard,
    faults: e =>
      settingsFiles(e)
        .filter(({ path }) => !closed(path, 0o640))
        .map(({ node, path }) => `${node.name}: ${path.path} is ${said(path)}`),
  }),
  check({
    id: 'Check-Dashboard-03',
    title: 'No other page shows Horizon within itself',
    source,
    applies: dashboard,
    faults: e => [
      ...on(e, 'dashboard').flatMap(s =>
        s.evidence.settings['DISALLOW_IFRAME_EMBED'] === true
          ? []
          : [`${s.node.name}: DISALLOW_IFRAME_EMBED is not True`],
      ),
      ...(/^(DENY|SAMEORIGIN)$/i.test(api(e).dashboard?.headers['x-frame-options'] ?? '')
        ? []
        : ['the login page has no X-Frame-Options']),
    ],
  }),
  ...(
    [
      ['04', 'CSRF_COOKIE_SECURE', 'The cookie against forged requests travels over TLS only', 'csrftoken', 'secure'],
      ['05', 'SESSION_COOKIE_SECURE', 'The session’s cookie travels over TLS only', 'sessionid', 'secure'],
      ['06', 'SESSION_COOKIE_HTTPONLY', 'No script reads the session’s cookie', 'sessionid', 'httponly'],
    ] as const
  ).map(([number, name, title, cookie, flag]) =>
    check({
      id: `Check-Dashboard-${number}`,
      title,
      source,
      applies: dashboard,
      faults: e => [
        ...on(e, 'dashboard').flatMap(s =>
          s.evidence.settings[name] === true ? [] : [`${s.node.name}: ${name} is not True`],
        ),
        ...(api(e).dashboard?.headers['set-cookie'] ?? '')
          .split('\n')
          .filter(line => line.toLowerCase().startsWith(`${cookie}=`) && !new RegExp(`;\\s*${flag}\\b`, 'i').test(line))
          .map(() => `the cookie ${cookie} is set without ${flag}`),
      ],
    }),
  ),
  setting(
    'Check-Dashboard-07',
    'Browsers do not keep passwords for Horizon',
    'PASSWORD_AUTOCOMPLETE',
    v => v === 'off',
  ),
  setting('Check-Dashboard-08', 'Passwords are not shown in clear', 'DISABLE_PASSWORD_REVEAL', v => v === true),
  setting(
    'Check-Dashboard-09',
    'Administrators give their own password to change another',
    'ENFORCE_PASSWORD_CHECK',
    v => v === true,
  ),
  setting(
    'Check-Dashboard-10',
    'New passwords are checked',
    'PASSWORD_VALIDATOR',
    v => typeof v === 'object' && v !== null && !['', '.*', undefined].includes((v as { regex?: string }).regex),
  ),
  notApplicable(
    'Check-Dashboard-11',
    'Horizon knows of the TLS proxy before it',
    source,
    'There is no proxy: Apache ends TLS itself, and a header of clients must not be believed.',
  ),
];

const compute: readonly SecurityCheck[] = [
  ...of('Compute'),
  check({
    id: 'Check-Compute-03',
    title: 'Nova asks Keystone who calls',
    source,
    faults: e =>
      values(e, [{ service: 'compute-control', section: 'api', key: 'auth_strategy', wrong: isExactly('keystone') }]),
  }),
  check({
    id: 'Check-Compute-04',
    title: 'Nova talks to Keystone over TLS and checks its certificate',
    source,
    faults: e => keystoneOverTls(e, 'compute-control'),
  }),
  check({
    id: 'Check-Compute-05',
    title: 'Nova talks to Glance over TLS and checks its certificate',
    source,
    faults: e =>
      values(
        e,
        ['compute-control', 'hypervisor'].flatMap(service => [
          { service, section: 'glance', key: 'api_servers', wrong: isHttps },
          { service, section: 'glance', key: 'insecure', wrong: isFalse },
          { service, section: 'glance', key: 'api_insecure', wrong: isNotTrue },
        ]),
      ),
  }),
];

const volumes = laidDown('volume-control', 'The site wants no volumes (cloud.volumes.backend: none).');
const block: readonly SecurityCheck[] = [
  ...of('Block'),
  check({
    id: 'Check-Block-03',
    title: 'Cinder asks Keystone who calls',
    source,
    applies: volumes,
    faults: e =>
      values(e, [
        { service: 'volume-control', section: 'DEFAULT', key: 'auth_strategy', wrong: isExactly('keystone') },
      ]),
  }),
  check({
    id: 'Check-Block-04',
    title: 'Cinder talks to Keystone over TLS and checks its certificate',
    source,
    applies: volumes,
    faults: e => keystoneOverTls(e, 'volume-control'),
  }),
  check({
    id: 'Check-Block-05',
    title: 'Cinder talks to Nova over TLS and checks its certificate',
    source,
    applies: volumes,
    faults: e =>
      values(
        e,
        ['volume-control', 'volume-backend'].flatMap(service => [
          { service, section: 'DEFAULT', key: 'nova_api_insecure', wrong: isNotTrue },
          { service, section: 'nova', key: 'auth_url', wrong: isHttps },
          { service, section: 'nova', key: 'insecure', wrong: isFalse },
        ]),
      ),
  }),
  check({
    id: 'Check-Block-06',
    title: 'Cinder talks to Glance over TLS and checks its certificate',
    source,
    applies: volumes,
    faults: e =>
      values(
        e,
        ['volume-control', 'volume-backend'].flatMap(service => [
          { service, section: 'DEFAULT', key: 'glance_api_servers', wrong: isHttps },
          { service, section: 'DEFAULT', key: 'glance_api_insecure', wrong: isFalse },
        ]),
      ),
  }),
  check({
    id: 'Check-Block-07',
    title: 'Volumes that are files on a NAS would be closed',
    source,
    applies: volumes,
    faults: e =>
      values(
        e,
        ['nas_secure_file_permissions', 'nas_secure_file_operations'].flatMap(key => [
          {
            service: 'volume-control',
            section: 'DEFAULT',
            key,
            wrong: (v: string | undefined) => (v === 'auto' || v?.toLowerCase() === 'true' ? null : 'is not auto'),
          },
          {
            service: 'volume-backend',
            section: 'DEFAULT',
            key,
            wrong: (v: string | undefined) => (v?.toLowerCase() === 'false' ? 'is false' : null),
          },
        ]),
      ),
    remark: e => `The backend ${e.model.settings.volumes.backend} keeps no files on a NAS.`,
  }),
  check({
    id: 'Check-Block-08',
    title: 'Cinder bounds the size of requests',
    source,
    applies: volumes,
    faults: e => values(e, [{ service: 'volume-control', section: 'oslo_middleware', key: BODY, wrong: isPositive }]),
  }),
  check({
    id: 'Check-Block-09',
    title: 'Volumes can be encrypted',
    source,
    applies: () => 'No key manager (Barbican) is laid down: there is nothing to keep the keys of volumes in.',
    faults: () => [],
  }),
];

const image: readonly SecurityCheck[] = [
  ...of('Image'),
  check({
    id: 'Check-Image-03',
    title: 'Glance asks Keystone who calls',
    source,
    faults: e =>
      values(e, [
        {
          service: 'image',
          section: 'paste_deploy',
          key: 'flavor',
          wrong: v => (v?.includes('keystone') ? null : 'has no keystone'),
        },
      ]),
  }),
  check({
    id: 'Check-Image-04',
    title: 'Glance talks to Keystone over TLS and checks its certificate',
    source,
    faults: e => keystoneOverTls(e, 'image'),
  }),
  check({
    id: 'Check-Image-05',
    title: 'Glance fetches no images from addresses that users name',
    source,
    faults: e =>
      values(e, [
        {
          service: 'image',
          section: 'DEFAULT',
          key: 'enabled_import_methods',
          wrong: v =>
            v === undefined
              ? 'is not set (web-download is a default)'
              : /web-download|copy_from/.test(v)
                ? 'has web-download'
                : null,
        },
      ]),
    remark: () => 'copy_from went with the API v1; its successor web-download is off.',
  }),
];

const network: readonly SecurityCheck[] = [
  ...of('Neutron'),
  check({
    id: 'Check-Neutron-03',
    title: 'Neutron asks Keystone who calls',
    source,
    faults: e =>
      values(e, [
        { service: 'network-control', section: 'DEFAULT', key: 'auth_strategy', wrong: isExactly('keystone') },
      ]),
  }),
  check({
    id: 'Check-Neutron-04',
    title: 'Neutron talks to Keystone over TLS and checks its certificate',
    source,
    faults: e => keystoneOverTls(e, 'network-control'),
  }),
  check({
    id: 'Check-Neutron-05',
    title: 'Neutron answers over TLS only',
    source,
    // `use_ssl` is read by the server of one process only; what counts is the port.
    faults: e => [
      ...(e.model.release.services['network-control']?.wsgi === 'eventlet'
        ? values(e, [
            {
              service: 'network-control',
              section: 'DEFAULT',
              key: 'use_ssl',
              wrong: v => (v === 'true' ? null : 'is not true'),
            },
          ])
        : []),
      ...portFaults(e, 'network-control', [9696]),
    ],
  }),
];

const absent = (chapter: string, count: number, title: string, reason: string): SecurityCheck[] =>
  Array.from({ length: count }, (_, i) =>
    notApplicable(`Check-${chapter}-${String(i + 1).padStart(2, '0')}`, title, source, reason),
  );

export const guideChecks: readonly SecurityCheck[] = [
  ...identity,
  ...horizon,
  ...compute,
  ...block,
  ...image,
  ...network,
  ...absent('Shared', 8, 'Shared file systems', 'Manila is not laid down.'),
  ...absent('Key-Manager', 4, 'Key manager', 'Barbican is not laid down.'),
];

/** Used by checks of ours as well. */
export const dashboardWanted = (model: CloudModel): true | string => dashboard(model);
