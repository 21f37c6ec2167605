import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { archiveState, bakeKey, bakeLayer, bakeStack, startLinks, stopLink } from '../../../provisioner/image/bake.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hal-bake-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
const put = (path: string, text = '') => {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  writeFileSync(join(dir, path), text);
};
const link = (path: string) => {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  symlinkSync('/lib/systemd/system/x.service', join(dir, path));
};
const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    error => error.problem ?? error,
  );

describe('the key of a layer', () => {
  const inputs = {
    base: 'b',
    lowers: ['l1', 'l2'],
    packages: ['nova-api', 'jq'],
    preseed: ['a b c d'],
    aptSources: null,
    archive: 's',
  };
  test('is the same for the same packages in another order, or named twice', () => {
    expect(bakeKey({ ...inputs, packages: ['jq', 'nova-api', 'jq'] })).toBe(bakeKey(inputs));
  });

  test.each<[string, Partial<typeof inputs>]>([
    ['a package', { packages: ['nova-api'] }],
    ['an answer', { preseed: [] }],
    ['the base', { base: 'c' }],
    ['the order of what lies below', { lowers: ['l2', 'l1'] }],
    ['the state of the archives', { archive: 't' }],
  ])('is another with another: %s', (_what, change) => {
    expect(bakeKey({ ...inputs, ...change })).not.toBe(bakeKey(inputs));
  });
});

describe('the state of the archives', () => {
  const sources = [
    { uri: 'http://mirror.invalid/debian', suites: ['bookworm'], components: ['main'] },
    { uri: 'http://mirror.invalid/debian-security', suites: ['bookworm-security'], components: ['main'] },
  ];
  const release = (date: string) => `-----BEGIN PGP SIGNED MESSAGE-----\n\nSuite: x\nDate: ${date}\nSHA256:\n`;
  const files = (main: string, other: string) => {
    put('mirror_debian_dists_bookworm_InRelease', release(main));
    put('mirror_debian_dists_bookworm_main_binary-amd64_Packages.lz4', 'x');
    put('node_dists_nodistro_InRelease', release(other));
  };

  test('moves with the suites that are used, and not with others', async () => {
    files('Sat, 11 Jul 2026', '1');
    const first = await archiveState(sources, dir);
    files('Sat, 11 Jul 2026', '2');
    expect(await archiveState(sources, dir)).toBe(first);
    files('Sun, 12 Jul 2026', '2');
    expect(await archiveState(sources, dir)).not.toBe(first);
  });

  test('is unknown on a machine whose apt never looked', async () => {
    expect(await archiveState(sources, dir)).toBe('unknown');
    expect(await archiveState(sources, join(dir, 'nowhere'))).toBe('unknown');
  });
});

test('what starts at boot is found in every target and runlevel, and aliases and stops are not taken for it', async () => {
  const starts = [
    'etc/rc2.d/S01apache2',
    'etc/rcS.d/S01lvm2',
    'etc/systemd/system/multi-user.target.wants/nova-api.service',
    'etc/systemd/system/nova-compute.service.requires/libvirtd.service',
    'etc/systemd/user/sockets.target.wants/gpg-agent.socket',
  ];
  for (const path of [
    ...starts,
    'etc/rc0.d/K01apache2',
    'etc/systemd/system/dbus-org.example.service',
    'etc/systemd/system/ssh.service.d/x.conf',
  ])
    link(path);
  expect(await startLinks(dir)).toEqual(starts);
  expect(await startLinks(join(dir, 'nowhere'))).toEqual([]);
  for (const path of starts) await stopLink(dir, path);
  expect(await startLinks(dir)).toEqual([]);
  // An init script that is off is known as such in its runlevel, or it could not be enabled again.
  expect(readdirSync(join(dir, 'etc/rc2.d'))).toEqual(['K01apache2']);
});

describe('a bake', () => {
  const options = (packages: string[]) => ({
    base: join(dir, 'base'),
    lowers: [],
    packages,
    cacheDir: join(dir, 'cache'),
    logFile: join(dir, 'log'),
  });

  test.each([['-oDir=/'], ['a b'], ['../x'], ['nova-api=1'], ['Nova']])('takes "%s" for no package', async name => {
    expect(await problemOf(bakeLayer(options([name])))).toMatchObject({ code: 'request-invalid' });
  });

  test('refuses what is no root file system, by name', async () => {
    const problem = await problemOf(bakeLayer(options(['jq'])));
    expect(problem).toMatchObject({ code: 'image-build' });
    expect(problem.message).toContain(join(dir, 'base'));
  });
});

describe('a stack of layers', () => {
  const stack = (layers: { name: string; on: string | null }[]) =>
    problemOf(
      bakeStack({
        base: join(dir, 'base'),
        cacheDir: join(dir, 'cache'),
        logDir: dir,
        layers: layers.map(layer => ({ ...layer, packages: ['jq'] })),
      }),
    );

  test('is refused when a layer stands on one that is not before it, or on itself', async () => {
    expect(await stack([{ name: 'a', on: 'b' }])).toMatchObject({ code: 'request-invalid' });
    expect(await stack([{ name: 'a', on: 'a' }])).toMatchObject({ code: 'request-invalid' });
    expect(
      await stack([
        { name: 'a', on: null },
        { name: 'a', on: null },
      ]),
    ).toMatchObject({ code: 'request-invalid' });
  });

  test('fails by the layer that failed, not by those above it', async () => {
    const problem = await stack([
      { name: 'common', on: null },
      { name: 'ctl', on: 'common' },
    ]);
    expect(problem.message).toContain('no root file system');
  });
});
