/** What a plan shows of files that hold secrets that are not ours. */
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { buildDesired } from '../../../../installer/engine/desired.js';
import type { SecretKind } from '../../../../installer/model/catalogue.js';
import { openTemplates } from '../../../../installer/model/templates.js';
import { SecretMask } from '../../../../installer/secrets/mask.js';
import { veil } from '../../../../installer/secrets/veil.js';
import { catalogue } from '../../../../roles/catalogue.js';
import { model, nodeInput, rolesDir } from '../../roles/fixture.js';

const key = (type: string, bytes: Buffer) =>
  `-----BEGIN ${type}-----\n${bytes.toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END ${type}-----\n`;

/** Secrets of one cloud, with all the values that it has. */
function secrets() {
  const values = new Map<string, string>();
  /** Unique and no secret, such as Ceph's fsid. */
  const names = new Map<string, string>();
  const make = (kind: SecretKind): string => {
    switch (kind) {
      case 'hex':
        return randomBytes(32).toString('hex');
      case 'uuid':
        return randomBytes(16)
          .toString('hex')
          .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
      case 'fernet':
        return randomBytes(32).toString('base64url').concat('=');
      case 'ceph':
        return randomBytes(28).toString('base64');
      case 'ssh':
        return key('OPENSSH PRIVATE KEY', randomBytes(300));
      default:
        return randomBytes(24).toString('base64url');
    }
  };
  const secret = (name: string, kind: SecretKind = 'password'): string => {
    const of = kind === 'uuid' ? names : values;
    const known = of.get(name) ?? make(kind);
    of.set(name, known);
    return known;
  };
  const tls = (node: string) => {
    const pem = values.get(`tls/${node}`) ?? key('PRIVATE KEY', randomBytes(120));
    values.set(`tls/${node}`, pem);
    return {
      ca: key('CERTIFICATE', Buffer.alloc(90, 1)),
      certificate: key('CERTIFICATE', Buffer.alloc(90, 2)),
      key: pem,
    };
  };
  return { values, secret, tls };
}

const ROLES = ['controller', 'network', 'compute', 'volume', 'storage'];
const cloud = model([nodeInput('one', '10.99.0.11', ROLES)], {
  volumes: { backend: 'ceph', devices: [{ path: '/dev/sdb', fileSize: null }] },
  objects: { enabled: true, replicas: 1, devices: [{ path: '/dev/sdc', fileSize: '1G' }] },
});
const filesOf = (of: ReturnType<typeof secrets>) =>
  new Map(
    buildDesired({
      catalogue,
      model: cloud,
      secret: of.secret,
      tls: node => of.tls(node.name),
      template: openTemplates(rolesDir()).render,
      outside: ['identity:catalog'],
    }).placed.flatMap(p => (p.resource.kind === 'file' ? [[p.resource.path, p.resource] as const] : [])),
  );

describe('every file that a cloud of another site has in place of ours', () => {
  const ours = secrets();
  const theirs = secrets();
  const wanted = filesOf(ours);
  const found = filesOf(theirs);
  const masks = new SecretMask();
  for (const [name, value] of ours.values) masks.add(name, value);
  const linesOf = (values: Iterable<string>) =>
    [...values].flatMap(v => v.split('\n')).filter(v => v.length >= 8 && !v.startsWith('-----'));
  const holding = [...wanted.values()].filter(f => linesOf(ours.values.values()).some(v => f.content.includes(v)));

  it('is not readable by everybody when it holds a secret', () => {
    expect(holding.length).toBeGreaterThan(20);
    expect(holding.filter(f => (f.mode & 0o004) !== 0).map(f => f.path)).toEqual([]);
    for (const name of ['nova.conf', 'swift.conf', 'proxy-server.conf', '.pem', '.cookie', '.py', 'libvirt', 'ceph'])
      expect(holding.map(f => f.path).filter(p => p.includes(name))).not.toEqual([]);
  });

  it.each(holding.map(f => f.path))('shows neither their secrets nor ours: %s', path => {
    const shown = veil(found.get(path)!.content, wanted.get(path)!.content, text => masks.mask(text));
    for (const value of linesOf(theirs.values.values())) expect(shown.found).not.toContain(value);
    for (const value of linesOf(ours.values.values())) expect(shown.wanted).not.toContain(value);
    expect(shown.found).toContain('<other value>');
    // What is no secret stays to be read, and what is the same stays the same.
    const same = wanted
      .get(path)!
      .content.split('\n')
      .filter(l => found.get(path)!.content.split('\n').includes(l));
    for (const line of same.filter(l => /^\[|^[a-z_]+ = \d+$/.test(l))) expect(shown.found).toContain(line);
  });
});

describe('a file of which nothing is known, by its grammar', () => {
  const NOT = 'Tr0ub4dor&3';
  const cases: [string, string, string][] = [
    ['ini', `admin_password = ${NOT}`, 'admin_password = <other value>'],
    ['ini, commented out', `#password=${NOT}`, '#password=<other value>'],
    ['a connection', `connection = mysql+pymysql://nova:${NOT}@db/nova`, 'connection = <other value>'],
    ['an address', `backend_url = redis://:${NOT}@cache:6379`, 'backend_url = redis://<other value>@cache:6379'],
    ['mysql’s client', `password="${NOT}"`, 'password=<other value>'],
    [
      'sql',
      `ALTER USER 'x'@'%' IDENTIFIED BY '${NOT}' REQUIRE SSL;`,
      "ALTER USER 'x'@'%' IDENTIFIED BY <other value> REQUIRE SSL;",
    ],
    [
      'sql of old',
      `SET PASSWORD FOR 'x'@'%' = PASSWORD('${NOT}');`,
      "SET PASSWORD FOR 'x'@'%' = PASSWORD(<other value>);",
    ],
    [
      'json on one line',
      `{"name": "nova", "password_hash": "${NOT}"}`,
      '{"name": "nova", "password_hash": <other value>}',
    ],
    ['json on lines', `  "password": "${NOT}",`, '  "password": <other value>'],
    ['python', `DATABASES['default']['PASSWORD'] = '${NOT}'`, "DATABASES['default']['PASSWORD'] = <other value>"],
    ['swift', `key = ${NOT}`, 'key = <other value>'],
    ['ceph', `\tkey = ${NOT}==`, '\tkey = <other value>'],
    ['rabbitmq.conf', `default_pass = ${NOT}`, 'default_pass = <other value>'],
    ['redis, words', `requirepass ${NOT}`, 'requirepass <other value>'],
    ['shell', `export OS_PASSWORD=${NOT}`, 'export OS_PASSWORD=<other value>'],
    [
      'an option',
      `OPTS="--user nova --password=${NOT} --verbose"`,
      'OPTS="--user nova --password=<other value> --verbose"',
    ],
    ['pairs in a value', `opts="host=db;password=${NOT}"`, 'opts="host=db;password=<other value>"'],
    ['a cookie alone', 'QWERTYUIOPASDFGHJKLZ', '<other value>'],
  ];
  it.each(cases)('%s', (_, line, shown) => {
    expect(veil(`[x]\n${line}\ny = 1`, '[x]\nz = 1', t => t).found).toBe(`[x]\n${shown}\ny = 1`);
  });

  it('keys in PEM, and values that go on in the next line', () => {
    const pem = key('RSA PRIVATE KEY', randomBytes(100));
    expect(
      veil(pem, '', t => t)
        .found.split('\n')
        .filter(l => l !== '<other value>'),
    ).toEqual(['-----BEGIN RSA PRIVATE KEY-----', '-----END RSA PRIVATE KEY-----', '']);
    expect(veil(`password =\n  ${NOT}\nx = 1`, '', t => t).found).not.toContain(NOT);
  });

  it('leaves what is no secret: switches, paths, names of keys’ files', () => {
    for (const line of [
      'service_token_roles_required = false',
      'ssl_key = /etc/nova/ssl/key.pem',
      'auth_type = password',
      'max_attempts = 1',
      'www_authenticate_uri = https://ctl:5000',
    ])
      expect(veil(line, '', t => t).found).toBe(line);
  });
});

it('what stands in the place of a secret of ours is hidden, whatever its name', () => {
  const mask = (text: string) => text.replaceAll('OURS-OURS', '<secret a/b>');
  const wanted = '[filter:tempauth]\nuser_nova_nova = OURS-OURS .admin\nodd: x/OURS-OURS\n';
  const { found } = veil('user_nova_nova=theirs .admin\nodd: x/theirs\n', wanted, mask);
  expect(found).toBe('user_nova_nova=<other value>\nodd: x/<other value>\n');
});

it('a secret that the site itself gives in additions is hidden too, and its change is still seen', () => {
  const shown = veil('rbd_password = old', 'rbd_password = new', t => t);
  expect(shown).toEqual({ found: 'rbd_password = <other value>', wanted: 'rbd_password = <value>' });
});
