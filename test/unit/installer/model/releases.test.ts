import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  checkPackages,
  loadRelease,
  loadReleases,
  parseRelease,
  releaseNames,
  unknownRelease,
} from '../../../../installer/model/releases.js';
import { distributionNames } from '../../../../provisioner/core/distributions/load.js';

const GOOD = `schema: 1
name: debian-12-zed
distribution: debian-12
openstack: zed
version: "2022.2"
tested: true
bad_packages:
  - package: neutron-common
    versions: ">= 2:28.0.0~b1, << 2:28.0.0-0ubuntu1.1"
    bug: LP#2150285
    reason: Networks of projects cannot be made.
services:
  identity:
    packages: [keystone]
    units: {api: keystone.service}
    mask: []
    wsgi: uwsgi
`;
const faultsOf = (text: string): string[] => {
  try {
    parseRelease(text, 'debian-12-zed', 'zed.yaml');
  } catch (error) {
    return (error as Error).message.split('\n');
  }
  return [];
};

describe('the data of a release', () => {
  it('is read with defaults for what is left out', () => {
    const release = parseRelease(GOOD, 'debian-12-zed');
    expect(release.archives).toEqual([]);
    expect(release.services['identity']).toEqual({
      packages: ['keystone'],
      preseed: [],
      units: { api: 'keystone.service' },
      mask: [],
      wsgi: 'uwsgi',
      options: {},
    });
  });

  it.each([
    [GOOD.replace('"2022.2"', '2022.2'), 'zed.yaml:5: version: expected the number of an OpenStack release in quotes'],
    [
      GOOD.replace('keystone.service', 'keystone'),
      'zed.yaml:15: services.identity.units.api: expected the name of a systemd unit',
    ],
    [
      GOOD.replace('[keystone]', '[Keystone!]'),
      'zed.yaml:14: services.identity.packages[0]: expected the name of a binary package',
    ],
    [GOOD.replace('    mask: []', '    maks: []'), 'zed.yaml:16: services.identity.maks: '],
    [
      GOOD.replace('wsgi: uwsgi', 'wsgi: mod_wsgi'),
      'zed.yaml:17: services.identity.wsgi: expected uwsgi, apache, eventlet or null',
    ],
    [GOOD.replace('<< 2:28', '< 2:28'), 'zed.yaml:9: bad_packages[0].versions: expected versions with operators'],
    [GOOD.replace('LP#2150285', '2150285'), 'zed.yaml:10: bad_packages[0].bug: expected a bug like'],
    [
      GOOD.replace('mask: []', 'mask: [keystone.service]'),
      'zed.yaml:15: services.identity.units.api: keystone.service is masked',
    ],
    [GOOD.replace('name: debian-12-zed', 'name: debian-12-yoga'), 'zed.yaml:2: name: expected the name of the file'],
    [
      GOOD.replace('distribution: debian-12', 'distribution: debian-13'),
      'zed.yaml:2: name: expected a name that begins with debian-13-',
    ],
    [GOOD.replace('tested: true\n', ''), 'tested'],
    [`${GOOD}services: {}\n`, 'zed.yaml:18: Map keys must be unique'],
    ['', 'zed.yaml:1: '],
    ['a: [', 'zed.yaml:1: '],
  ])('with a fault is refused with file and line (%#)', (text, message) => {
    const faults = faultsOf(text);
    expect(faults, faults.join('\n')).toHaveLength(1);
    expect(faults[0]).toContain(message);
  });

  it('with many faults tells all of them', () => {
    expect(
      faultsOf(GOOD.replace('zed\n', 'Zed!\n').replace('[keystone]', '[_]').replace('uwsgi', 'no')).length,
    ).toBeGreaterThan(2);
  });

  it('of an unknown release is missing, and a likely one is named', () => {
    expect(loadRelease('debian-12-zde')).toBeUndefined();
    expect(unknownRelease('debian-12-zde', ['debian-12-zed', 'ubuntu-24.04-caracal']).message).toContain(
      'debian-12-zed is meant',
    );
  });

  it('is refused for all files at once', () => {
    const dir = mkdtempSync(join(tmpdir(), 'halligan-releases-'));
    try {
      writeFileSync(join(dir, 'debian-12-zed.yaml'), GOOD);
      writeFileSync(join(dir, 'a.yaml'), GOOD);
      writeFileSync(join(dir, 'b.yaml'), 'x');
      writeFileSync(join(dir, 'notes.txt'), 'x');
      expect(releaseNames(dir)).toEqual(['a', 'b', 'debian-12-zed']);
      expect(() => loadReleases(dir)).toThrow(/a\.yaml:2: name.*\n.*b\.yaml:1: /);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('a package that is known to be bad', () => {
  const release = parseRelease(GOOD, 'debian-12-zed');

  it('is told with its bug, and with the version that is good', () => {
    expect(checkPackages(release, { 'neutron-common': '2:28.0.0-0ubuntu1' })).toEqual([
      {
        package: 'neutron-common',
        version: '2:28.0.0-0ubuntu1',
        bug: 'LP#2150285',
        reason: 'Networks of projects cannot be made.',
        good: '2:28.0.0-0ubuntu1.1',
      },
    ]);
  });

  it('is not seen in a good version, an older one, or where there is none', () => {
    expect(checkPackages(release, { 'neutron-common': '2:28.0.0-0ubuntu1.1' })).toEqual([]);
    expect(checkPackages(release, new Map([['neutron-common', '2:24.0.0-0ubuntu1']]))).toEqual([]);
    expect(checkPackages(release, { 'neutron-common': '(none)', nova: '1' })).toEqual([]);
    expect(checkPackages(release, {})).toEqual([]);
  });
});

describe('the files of this repository', () => {
  it('are sound, and their distributions have data too', () => {
    const known = distributionNames();
    const releases = loadReleases();
    expect([...releases.keys()]).toEqual(releaseNames());
    for (const release of releases.values()) expect(known).toContain(release.distribution);
  });
});
