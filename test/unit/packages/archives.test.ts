import { describe, expect, it } from 'vitest';
import { distributionNames, loadDistribution } from '../../../provisioner/core/distributions/load.js';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { archivesOf, sourcesText } from '../../../provisioner/packages/archives.js';
import { packagePath } from '../../../provisioner/packages/path.js';

const DEBIAN = loadDistribution('debian-12');
const MACHINE = [
  {
    uri: 'http://mirror.example.net/debian',
    suites: ['bookworm', 'bookworm-updates'],
    components: ['main', 'contrib'],
  },
  { uri: 'https://sec.example.net/debian-security', suites: ['bookworm-security'], components: ['main'] },
];
const UCA = {
  uri: 'http://cloud.example.net/ubuntu',
  suites: ['noble-updates/gazpacho'],
  components: ['main'],
  keyring: { file: '/usr/share/keyrings/ubuntu-cloud-keyring.gpg', package: 'ubuntu-cloud-keyring' },
};

describe('the sources of a node', () => {
  it('are those of this machine, through us', () => {
    const archives = archivesOf({ distribution: DEBIAN, extra: [], machine: MACHINE });
    expect(sourcesText(archives, 'http://10.99.0.1:7481')).toBe(
      'deb http://10.99.0.1:7481/packages/debian bookworm main\n' +
        'deb http://10.99.0.1:7481/packages/debian bookworm-updates main\n' +
        'deb http://10.99.0.1:7481/packages/debian-security bookworm-security main\n',
    );
    expect(archives.map(a => a.uri)).toEqual(MACHINE.map(m => m.uri));
  });

  it('are a mirror’s, and none of this machine’s, when one is named', () => {
    const archives = archivesOf({
      distribution: DEBIAN,
      extra: [],
      machine: MACHINE,
      mirror: 'http://10.0.0.5/debian',
    });
    expect(sourcesText(archives, null)).toBe(
      'deb http://10.0.0.5/debian bookworm main\n' +
        'deb http://10.0.0.5/debian bookworm-updates main\n' +
        'deb http://10.0.0.5/debian-security bookworm-security main\n',
    );
  });

  it('have the archive of an OpenStack release with its own keyring, and a name of its own', () => {
    const archives = archivesOf({ distribution: loadDistribution('ubuntu-24.04'), extra: [UCA], machine: [] });
    const text = sourcesText(archives, 'http://10.99.0.1:7481');
    expect(text).toContain('deb http://10.99.0.1:7481/packages/ubuntu noble main universe\n');
    expect(text).toContain(
      'deb [signed-by=/usr/share/keyrings/ubuntu-cloud-keyring.gpg] http://10.99.0.1:7481/packages/ubuntu-3 noble-updates/gazpacho main\n',
    );
    expect(archives.find(a => a.name === 'ubuntu-3')!.uri).toBe('http://cloud.example.net/ubuntu');
  });

  it('can be made of every distribution’s data and a mirror', () => {
    for (const name of distributionNames()) {
      const archives = archivesOf({
        distribution: loadDistribution(name),
        extra: [],
        machine: [],
        mirror: 'http://10.0.0.5/mirror',
      });
      expect(sourcesText(archives, null)).toMatch(/^(deb http:\S+ [a-z-]+ main.*\n)+$/);
    }
  });

  it('are refused when nobody knows where a suite is', () => {
    expect(() => archivesOf({ distribution: DEBIAN, extra: [], machine: [] })).toThrow(ProblemError);
  });
});

describe('what a node may ask for', () => {
  const HASH = 'a'.repeat(64);
  it.each([
    ['debian/pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb', true, null],
    ['debian/pool/main/x/x/x_1~rc1_all.deb', true, null],
    [`debian/dists/bookworm/main/binary-amd64/by-hash/SHA256/${HASH}`, true, HASH],
    ['debian/dists/bookworm/main/by-hash/MD5Sum/0123456789abcdef0123456789abcdef', true, null],
    ['debian-security/dists/bookworm-security/InRelease', false, null],
    ['ubuntu-3/dists/noble-updates/gazpacho/main/i18n/Translation-en.xz', false, null],
  ])('%s', (text, immutable, sha256) => {
    const [archive, ...rest] = text.split('/');
    expect(packagePath(text.split('/'))).toEqual({ archive, path: rest.join('/'), immutable, sha256 });
  });

  it.each([
    ['debian', 'pool', '..', '..', 'etc', 'passwd'],
    ['debian', 'pool', '../../etc/passwd'],
    ['..', 'pool', 'main'],
    ['debian', 'dists', '.', 'x'],
    ['debian', 'dists', '', 'x'],
    ['debian', 'pool', '.htaccess'],
    ['debian', 'pool', 'a\0b'],
    ['debian', 'pool', 'a\\b'],
    ['debian', 'pool', 'a b'],
    ['debian', 'pool', 'a%2fb'],
    ['debian', 'pool', 'a?b'],
    ['debian', 'project', 'trace'],
    ['debian', 'pool'],
    ['debian'],
    [],
    ['debian', 'pool', 'x'.repeat(256)],
    ['debian', 'pool', ...Array(20).fill('x')],
  ])('is never %j', (...segments: string[]) => {
    expect(() => packagePath(segments)).toThrow(/^There is no /);
  });
});
