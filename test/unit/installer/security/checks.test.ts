import { describe, expect, it } from 'vitest';
import type { ReleaseData } from '../../../../installer/model/releases.js';
import { CHECKS } from '../../../../installer/security/checks.js';
import { evaluateAll } from '../../../../installer/security/report.js';
import type { Evidence } from '../../../../installer/security/types.js';
import { model, nodeInput } from '../../roles/fixture.js';
import { asLaidDown, type Changeable } from './fixture.js';

type Spoiled = Changeable<Evidence>;
const report = (evidence: Evidence | Spoiled) => evaluateAll(evidence as Evidence, text => text);
const failed = (evidence: Evidence | Spoiled) =>
  Object.fromEntries(report(evidence).flatMap(s => (s.state === 'failed' ? [[s.name, s.message]] : [])));
const state = (evidence: Evidence | Spoiled, id: string) => report(evidence).find(s => s.name === id)!;

const node = (e: Spoiled, name: string) => e.nodes.get(name)!;
const edit = (e: Spoiled, name: string, path: string, change: (text: string) => string) => {
  const { contents } = node(e, name);
  const before = contents[path]!;
  contents[path] = change(before);
  expect(contents[path], `${path} of ${name} is what it was`).not.toBe(before);
};
const path = (e: Spoiled, name: string, p: string) => node(e, name).paths.find(f => f.path === p)!;
const listen = (e: Spoiled, name: string, where: string, program = 'socat') => {
  const { commands } = node(e, name);
  commands['listeners']!.out += `tcp LISTEN 0 5 ${where} 0.0.0.0:* users:(("${program}",pid=9,fd=3))\n`;
};
const tls = (e: Spoiled, name: string, port: number) => node(e, name).tls.find(t => t.port === port)!;
const account = (e: Spoiled, line: string) => {
  node(e, 'ctl').commands['accounts']!.out += `${line}\n`;
};

describe('the checks', () => {
  it('have ids of their own, and a sentence', () => {
    const ids = CHECKS.map(c => c.id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const c of CHECKS) expect(c.title, c.id).not.toBe('');
  });

  it('are all of the Security Guide for the services that it lists', () => {
    const count = (chapter: string) => CHECKS.filter(c => c.id.startsWith(`Check-${chapter}-`)).length;
    expect(
      Object.fromEntries(
        ['Identity', 'Dashboard', 'Compute', 'Block', 'Image', 'Neutron', 'Shared', 'Key-Manager'].map(c => [
          c,
          count(c),
        ]),
      ),
    ).toEqual({
      Identity: 8,
      Dashboard: 11,
      Compute: 5,
      Block: 9,
      Image: 5,
      Neutron: 5,
      Shared: 8,
      'Key-Manager': 4,
    });
  });
});

describe('a cloud as the roles lay it down', () => {
  it('fails none', () => {
    expect(failed(asLaidDown())).toEqual({});
  });

  it('has a reason for each check that does not apply', () => {
    const skipped = report(asLaidDown()).filter(s => s.state === 'skipped');
    for (const s of skipped) expect(s.message, s.name).toMatch(/^Not applicable: [A-Z].*\.$/);
    expect(skipped.map(s => s.name).filter(n => !/Shared|Key-Manager|Swift/.test(n))).toEqual([
      'Check-Identity-04',
      'Check-Dashboard-11',
      'Check-Block-09',
      'Halligan-RBAC',
      'Halligan-Firewall',
      'Halligan-Audit',
    ]);
  });

  it.each(['ubuntu-24.04-caracal', 'ubuntu-26.04-2026.1'])('fails none as rendered for %s', release => {
    expect(failed(asLaidDown(model(undefined, { release })))).toEqual({});
  });

  it('fails none without volumes and a dashboard', () => {
    const cloud = model(undefined, { dashboard: false, volumes: { backend: 'none', devices: [] } });
    const evidence = asLaidDown(cloud);
    expect(failed(evidence)).toEqual({});
    for (const id of ['Check-Dashboard-03', 'Check-Block-04']) expect(state(evidence, id).state).toBe('skipped');
  });

  it('fails none with objects on a storage node', () => {
    const objects = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdb', fileSize: null }] };
    const nodes = [
      nodeInput('ctl', '10.99.0.11', ['controller']),
      nodeInput('net', '10.99.0.12', ['network']),
      nodeInput('cmp', '10.99.0.13', ['compute']),
      nodeInput('sto', '10.99.0.15', ['storage']),
    ];
    const cloud = model(nodes, { objects, volumes: { backend: 'none', devices: [] } });
    const evidence = asLaidDown(cloud);
    expect(failed(evidence)).toEqual({});
    expect(state(evidence, 'Halligan-Swift-05').state).toBe('passed');
    listen(evidence, 'sto', '0.0.0.0:6200', 'swift-object-server');
    edit(evidence, 'sto', '/etc/swift/swift.conf', t => t.replace(/^(swift_hash_path_suffix = ).*$/m, '$1changeme'));
    expect(Object.keys(failed(evidence))).toEqual(['Halligan-Listeners', 'Halligan-Swift-05', 'Halligan-Swift-08']);
  });

  it('looks at scopes where the release is of an age for it', () => {
    const cloud = model();
    const of = (version: string) => asLaidDown({ ...cloud, release: { ...cloud.release, version } as ReleaseData });
    // What services do by default then is in no file, so nothing is passed unseen.
    expect(state(of('2024.1'), 'Halligan-RBAC')).toMatchObject({
      state: 'skipped',
      message: expect.stringContaining('a default of its own'),
    });
    const evidence = of('2024.2');
    expect(state(evidence, 'Halligan-RBAC').state).toBe('passed');
    edit(evidence, 'ctl', '/etc/nova/nova.conf', t => `${t}\n[oslo_policy]\nenforce_scope = false\n`);
    expect(failed(evidence)).toEqual({
      'Halligan-RBAC': 'ctl: [oslo_policy] enforce_scope of /etc/nova/nova.conf is false.',
    });
  });
});

describe('what is spoiled fails, and only that', () => {
  it.each<[string, (e: Spoiled) => void, Record<string, RegExp>]>([
    [
      'a configuration that everybody reads',
      e => {
        path(e, 'ctl', '/etc/nova/nova.conf').mode = 0o644;
      },
      { 'Check-Compute-02': /^ctl: \/etc\/nova\/nova\.conf is root:nova 644\.$/ },
    ],
    [
      'a folder of another owner',
      e => {
        path(e, 'ctl', '/etc/glance').group = 'root';
      },
      { 'Check-Image-01': /\/etc\/glance is root:root 750/ },
    ],
    [
      'an administrator’s token',
      e =>
        edit(e, 'ctl', '/etc/keystone/keystone.conf', t =>
          t.replace('[DEFAULT]\n', '[DEFAULT]\nadmin_token = ADMIN\n'),
        ),
      { 'Check-Identity-06': /admin_token is set/ },
    ],
    [
      'Keystone that explains itself',
      e =>
        edit(e, 'ctl', '/etc/keystone/keystone.conf', t =>
          t.replace('insecure_debug = false', 'insecure_debug = true'),
        ),
      { 'Check-Identity-07': /insecure_debug .* is not false/ },
    ],
    [
      'Keystone over plain HTTP',
      e => {
        tls(e, 'ctl', 5000).clear = 'HTTP/1.1 300 MULTIPLE CHOICES';
        tls(e, 'ctl', 5000).ok = false;
        tls(e, 'ctl', 5000).error = 'WRONG_VERSION_NUMBER';
      },
      {
        'Check-Identity-03': /no trusted TLS.*plain HTTP/,
        'Halligan-TLS': /WRONG_VERSION_NUMBER/,
        'Halligan-Endpoints': /keystone on port 5000 answers plain HTTP/,
      },
    ],
    [
      'an endpoint in clear',
      e => {
        e.api!.endpoints[0]!.url = 'http://10.99.0.11:5000/v3';
      },
      { 'Halligan-Endpoints': /http:\/\/10\.99\.0\.11:5000/ },
    ],
    [
      'TLS of the last century',
      e => {
        tls(e, 'cmp', 16_514).old = ['TLSv1.1'];
      },
      { 'Halligan-TLS': /^cmp: libvirt on port 16514 takes TLSv1\.1\.$/ },
    ],
    [
      'a client that trusts everybody',
      e =>
        edit(e, 'cmp', '/etc/nova/nova-compute.conf', t =>
          t.replace(/(\[neutron\][\s\S]*?)insecure = false/, '$1insecure = true'),
        ),
      { 'Halligan-Clients': /^cmp: \[neutron\] insecure of \/etc\/nova\/nova-compute\.conf\.$/ },
    ],
    [
      'a cookie for plain HTTP',
      e => {
        node(e, 'ctl').settings['SESSION_COOKIE_SECURE'] = false;
      },
      { 'Check-Dashboard-05': /SESSION_COOKIE_SECURE is not True/ },
    ],
    [
      'a dashboard for every name, without HSTS',
      e => {
        node(e, 'ctl').settings['ALLOWED_HOSTS'] = ['*'];
        delete e.api!.dashboard!.headers['strict-transport-security'];
      },
      { 'Halligan-Dashboard-Page': /ALLOWED_HOSTS.*Strict-Transport-Security/ },
    ],
    [
      'a broker with a guest',
      e => {
        node(e, 'ctl').commands['users']!.out = '[{"user":"nova","tags":[]},{"user":"guest","tags":["administrator"]}]';
      },
      { 'Halligan-Messaging-Accounts': /the account guest; ctl: guest has the tags administrator/ },
    ],
    [
      'a broker without TLS',
      e => {
        node(e, 'ctl').commands['broker']!.out =
          '{"listeners":[{"protocol":"amqp","interface":"10.99.0.11","port":5672}]}';
      },
      { 'Halligan-Messaging-TLS': /amqp without TLS on 10\.99\.0\.11 port 5672/ },
    ],
    [
      'an account without TLS and password, and root from afar',
      e => {
        account(e, 'account\tzz\t%\t\tmysql_native_password\t1');
        account(e, 'account\troot\t%\tANY\tmysql_native_password\t0');
        account(e, "global\t'root'@'%'\tSUPER");
        account(e, 'grant\tnova\t%\tkeystone');
      },
      {
        'Halligan-Database-Accounts':
          /zz@% has no password; ctl: zz@% does not need TLS; ctl: root may log in from %; ctl: nova may use the database keystone; ctl: 'root'@'%' has SUPER/,
      },
    ],
    [
      'a hypervisor that knows the database',
      e =>
        edit(
          e,
          'cmp',
          '/etc/nova/nova-compute.conf',
          t => `${t}\n[database]\nconnection = mysql+pymysql://nova:x@ctl/nova\n`,
        ),
      { 'Halligan-Database-Hypervisors': /^cmp: .* has \[database\] connection\.$/ },
    ],
    [
      'a cache for everybody',
      e => {
        const { commands } = node(e, 'ctl');
        commands['listeners']!.out = commands['listeners']!.out.replace('127.0.0.1:11211', '0.0.0.0:11211');
      },
      {
        'Halligan-Cache': /memcached listens on 0\.0\.0\.0 port 11211\/tcp/,
        'Halligan-Listeners': /memcached listens on 0\.0\.0\.0 port 11211\/tcp, and the cloud needs no such port/,
      },
    ],
    [
      'a cache for the management network',
      e => {
        const { commands } = node(e, 'ctl');
        commands['listeners']!.out = commands['listeners']!.out.replace('127.0.0.1:11211', '10.99.0.11:11211');
      },
      { 'Halligan-Cache': /memcached listens on 10\.99\.0\.11 port 11211\/tcp/ },
    ],
    [
      'databases of OVN in clear',
      e => {
        node(e, 'ctl').commands['ovn-sb']!.out = 'pssl:6642:10.99.0.11 ptcp:6642:0.0.0.0\n';
        tls(e, 'ctl', 6641).answer = '{"id":1,"result":[]}';
      },
      { 'Halligan-OVN': /ovn-sb listens on ptcp:6642:0\.0\.0\.0; .*answers a client without a certificate/ },
    ],
    [
      'a northbound database for the management network',
      e => {
        node(e, 'ctl').commands['ovn-nb']!.out = 'pssl:6641:10.99.0.11\n';
      },
      { 'Halligan-OVN': /ovn-nb listens on pssl:6641:10\.99\.0\.11/ },
    ],
    [
      'Ceph in clear',
      e => edit(e, 'cmp', '/etc/ceph/ceph.conf', t => t.replace('ms_client_mode = secure', 'ms_client_mode = crc')),
      { 'Halligan-Ceph': /^cmp: ms_client_mode of \/etc\/ceph\/ceph\.conf is not secure\.$/ },
    ],
    [
      'a screen in clear',
      e => {
        node(e, 'cmp').processes.at(-1)!.vnc = '0.0.0.0:0';
      },
      { 'Halligan-Console': /a screen is at 0\.0\.0\.0:0/ },
    ],
    [
      'no service tokens',
      e => edit(e, 'ctl', '/etc/cinder/cinder.conf', t => t.replace('service_token_roles_required = true', '')),
      { 'Halligan-Service-Tokens': /service_token_roles_required of \/etc\/cinder\/cinder\.conf is not set/ },
    ],
    [
      'images from anywhere',
      e =>
        edit(e, 'ctl', '/etc/glance/glance-api.conf', t =>
          t.replace('[glance-direct]', '[glance-direct,web-download]'),
        ),
      { 'Check-Image-05': /has web-download/ },
    ],
    [
      'metadata with two secrets',
      e => edit(e, 'cmp', '/etc/neutron/neutron_ovn_metadata_agent.ini', t => t.replace(/(shared_secret = )./, '$1-')),
      { 'Halligan-Metadata': /not the same everywhere/ },
    ],
    [
      'a secret in arguments, in a log and in an open file',
      e => {
        node(e, 'vol').processes[0]!.secrets = [0];
        node(e, 'vol').logs.hits = [{ path: '/var/log/x.log', secrets: [0] }];
        node(e, 'vol').readable = [{ path: '/etc/x', secrets: [-1] }];
      },
      {
        'Halligan-Arguments': /^vol: the secret identity\/nova in the arguments of init\.$/,
        'Halligan-Logs': /^vol: the secret identity\/nova in \/var\/log\/x\.log\.$/,
        'Halligan-Readable': /^vol: a private key in \/etc\/x\.$/,
      },
    ],
    [
      'a password that everybody knows',
      e => {
        e.api!.taken = ['admin/admin at Keystone'];
        node(e, 'ctl').amqp[0]!.result = 'taken';
        node(e, 'ctl').commands['login root/root'] = { code: 0, out: '1\n', error: '' };
      },
      { 'Halligan-Defaults': /admin\/admin at Keystone; guest\/guest at RabbitMQ; root\/root at MariaDB/ },
    ],
    [
      'guesses that could not be made',
      e => {
        node(e, 'ctl').commands['login root/root'] = { code: 1, out: '', error: 'ERROR 2002 (HY000): no server' };
      },
      { 'Halligan-Defaults': /MariaDB could not be asked/ },
    ],
    [
      'secrets that are short or shared',
      e => {
        e.secrets[0]!.length = 8;
        e.secrets[1]!.same = 'identity/nova';
      },
      { 'Halligan-Secrets': /identity\/nova has 8 characters; database\/nova is the same as identity\/nova/ },
    ],
    [
      'something that listens to all',
      e => listen(e, 'net', '0.0.0.0:7777'),
      { 'Halligan-Listeners': /^net: socat listens on 0\.0\.0\.0 port 7777\/tcp, and the cloud needs no such port\.$/ },
    ],
    [
      'logins by password',
      e => {
        node(e, 'net').commands['sshd']!.out = 'passwordauthentication yes\nkbdinteractiveauthentication no\n';
        node(e, 'net').passwords.empty = ['toor'];
      },
      { 'Halligan-Hosts': /^net: sshd takes passwords; net: toor needs no password\.$/ },
    ],
    [
      'packages with old holes',
      e => {
        node(e, 'cmp').paths = node(e, 'cmp').paths.filter(
          p => !p.path.includes('inspector') && !p.path.includes('imageutils'),
        );
        e.api!.withoutToken['/v3/s3tokens'] = 200;
      },
      { 'Halligan-EC2': /\/v3\/s3tokens answers 200/, 'Halligan-Image-Formats': /^cmp: .*CVE-2024-32498/ },
    ],
  ])('%s', (_, spoil, expected) => {
    const evidence = asLaidDown();
    spoil(evidence);
    const found = failed(evidence);
    expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
    for (const [id, words] of Object.entries(expected)) expect(found[id], id).toMatch(words);
  });

  it('a node that does not answer: whatever needs it fails and says so, the rest is judged', () => {
    const evidence = asLaidDown();
    evidence.nodes.delete('cmp');
    evidence.missing.set('cmp', 'It is off.');
    const found = failed(evidence);
    expect(found['Halligan-Console']).toBe('cmp could not be looked at: It is off.');
    expect(state(evidence, 'Check-Identity-03').state).toBe('passed');
  });

  it('APIs that do not answer', () => {
    const found = failed({ ...asLaidDown(), api: null, apiMissing: 'Keystone is away.' } as Evidence);
    expect(found['Halligan-Endpoints']).toBe('The APIs could not be asked: Keystone is away.');
  });

  it('many faults are told in few words', () => {
    const evidence = asLaidDown();
    for (let i = 0; i < 20; i++) listen(evidence, 'net', `0.0.0.0:${7000 - i}`, `p${i}`);
    expect(failed(evidence)['Halligan-Listeners']).toMatch(/; and 14 more\.$/);
  });

  it('no message shows a secret', () => {
    const evidence = asLaidDown();
    evidence.nodes.get('ctl')!.commands['accounts'] = { code: 1, out: '', error: 'near hush-hush' };
    const steps = evaluateAll(evidence as Evidence, text => text.replaceAll('hush-hush', '<secret>'));
    expect(steps.find(s => s.name === 'Halligan-Database')!.message).toContain('near <secret>');
    expect(JSON.stringify(steps)).not.toContain('hush-hush');
  });
});
