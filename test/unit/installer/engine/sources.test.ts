/** The sources that packages come from: the program of the engine, run by `sh` on files of a temporary folder. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Placed } from '../../../../installer/engine/desired.js';
import type { Action, NodeAction } from '../../../../installer/engine/diff.js';
import { type BadPackages, batchScript } from '../../../../installer/engine/script.js';
import { file, packages } from '../../../../installer/model/resources.js';
import { placed } from './fixture.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-sources-'));
  for (const d of ['bin', 'etc/apt/sources.list.d', 'keyrings', 'lists', 'run', 'sbin'])
    mkdirSync(join(dir, d), { recursive: true });
  writeFileSync(join(dir, 'etc/apt/sources.list.d/ubuntu.sources'), 'own\n');
  writeFileSync(join(dir, 'lists/x_Packages'), '');
  // What apt would see at each call; the package of the keyring brings the keyring.
  writeFileSync(
    join(dir, 'bin/apt-get'),
    `#!/bin/sh
for word; do case $word in -s) cat ${dir}/simulated; exit 0;; update) what=update;; install) what=install;; pocket-keyring) echo key >${dir}/keyrings/pocket.gpg;; esac; done
echo "$what $word | $(cat ${dir}/etc/apt/sources.list ${dir}/etc/apt/sources.list.d/*.sources 2>/dev/null | grep -c pocket) of pocket" >>${dir}/log
`,
    { mode: 0o755 },
  );
  writeFileSync(join(dir, 'bin/systemctl'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  // Versions are compared by the real one.
  const dpkg = '#!/bin/sh\n[ "$1" != --compare-versions ] || exec /usr/bin/dpkg "$@"\n';
  writeFileSync(join(dir, 'bin/dpkg'), dpkg, { mode: 0o755 });
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const archive = {
  uri: 'http://archive.example.net/pocket',
  suites: ['noble-updates/epoxy'],
  components: ['main'],
  keyring: { file: '/usr/share/keyrings/pocket.gpg', package: 'pocket-keyring' },
};

const actionOf = (p: Placed): Action => ({
  id: p.key,
  node: 'n1',
  service: p.service,
  kind: p.resource.kind,
  title: '',
  reason: '',
  needs: [],
  destroys: null,
  interrupts: null,
  expectedSeconds: 1,
});
/** The program with this folder in place of the system's. */
const programOf = (batch: readonly NodeAction[], bad: BadPackages = [], timeoutFactor = 1): string =>
  batchScript(batch, { unconfiguredUnits: [], timeoutFactor, bad })
    .replaceAll('/etc/apt', `${dir}/etc/apt`)
    .replaceAll('/usr/share/keyrings', `${dir}/keyrings`)
    .replaceAll('/var/lib/apt/lists', `${dir}/lists`)
    .replaceAll('/run/halligan', `${dir}/run`)
    .replaceAll('/usr/sbin/policy-rc.d', `${dir}/sbin/policy-rc.d`)
    .replaceAll('export PATH=', `export PATH=${dir}/bin:`);

function run(sources: string | null, bad: BadPackages = [], timeoutFactor = 1): string {
  const p = placed('n1', 'packages', { ...packages(['nova-compute']), archives: [archive], sources });
  const script = programOf([{ action: actionOf(p), placed: p }], bad, timeoutFactor);
  rmSync(join(dir, 'log'), { force: true });
  return spawnSync('sh', ['-c', script], { encoding: 'utf8' }).stdout;
}
const install = (sources: string | null): string[] => {
  expect(run(sources)).toMatch(/@@halligan ok 0/);
  return readFileSync(join(dir, 'log'), 'utf8').trim().split('\n');
};
const read = (path: string) => readFileSync(join(dir, path), 'utf8');

it('brings the keyring of an archive before apt hears of the archive, and fetches its lists', () => {
  expect(install(null)).toEqual([
    'update update | 0 of pocket',
    'install pocket-keyring | 0 of pocket',
    'update update | 2 of pocket',
    'install nova-compute | 2 of pocket',
  ]);
  expect(read('etc/apt/sources.list.d/halligan.sources')).toMatch(
    /^Types: deb\nURIs: http:\/\/archive\.example\.net\/pocket\nSuites: noble-updates\/epoxy\nComponents: main\nSigned-By: .*\/pocket\.gpg$/m,
  );
  expect(existsSync(join(dir, 'etc/apt/sources.list.d/ubuntu.sources'))).toBe(true);
  // The second time everything is there, and the lists are young.
  expect(install(null)).toEqual(['install nova-compute | 2 of pocket']);
});

it('takes them from where the site says instead of the node’s own sources, in the same order', () => {
  const sources =
    'deb http://10.99.0.1:7481/packages/ubuntu noble main\ndeb [signed-by=/usr/share/keyrings/pocket.gpg] http://10.99.0.1:7481/packages/pocket noble-updates/epoxy main\n';
  install(null);
  rmSync(join(dir, 'keyrings/pocket.gpg'));
  expect(install(sources)).toEqual([
    'update update | 0 of pocket',
    'install pocket-keyring | 0 of pocket',
    'update update | 1 of pocket',
    'install nova-compute | 1 of pocket',
  ]);
  expect(read('etc/apt/sources.list').trim().split('\n')).toHaveLength(2);
  expect(existsSync(join(dir, 'etc/apt/sources.list.d/halligan.sources'))).toBe(false);
  expect(existsSync(join(dir, 'etc/apt/sources.list.d/ubuntu.sources'))).toBe(false);
});

it('installs no version that is known to be bad, also when only the lists that it just fetched tell', () => {
  const bad = [
    { package: 'neutron-common', versions: '>= 2:28.0.0~, << 2:28.0.0-0ubuntu1.1', bug: 'LP#2150285', reason: 'No.' },
  ];
  const simulated = (version: string) =>
    writeFileSync(join(dir, 'simulated'), `Inst neutron-common (${version} Ubuntu:26.04/resolute [all])\n`);
  simulated('2:28.0.0-0ubuntu1');
  const said = run(null, bad);
  expect(said).toContain(
    'neutron-common 2:28.0.0-0ubuntu1 is known to be bad (LP#2150285: No.) and was not installed.',
  );
  expect(said).toMatch(/@@halligan fail 0 1/);
  expect(read('log')).not.toContain('nova-compute');
  simulated('2:28.0.0-0ubuntu1.1');
  expect(run(null, bad)).toMatch(/@@halligan ok 0/);
  expect(read('log')).toContain('install nova-compute');
});

it('lets nothing of its own behind when it takes too long: services may start again', () => {
  // It ends with the program that waits for it; what it installs is not configured yet.
  const hangs = `#!/bin/sh\ncp ${dir}/sbin/policy-rc.d ${dir}/seen\nsleep 30\n`;
  writeFileSync(join(dir, 'bin/apt-get'), hangs, { mode: 0o755 });
  expect(run(null, [], 1 / 1800)).toMatch(/@@halligan fail 0 124/);
  expect(read('seen')).toContain('exit 101');
  expect(readdirSync(join(dir, 'sbin'))).toEqual([]);
  expect(readdirSync(join(dir, 'run'))).toEqual([]);
});

it('takes away what a killed program of ours left, and leaves what one that runs needs', () => {
  // A process that has ended, and this one.
  const gone = spawnSync('sh', ['-c', 'echo $$'], { encoding: 'utf8' }).stdout.trim();
  const policy = (pid: string) => `#!/bin/sh\n# halligan ${pid}: nothing starts before it is configured\nexit 101\n`;
  const target = join(dir, 'secret.conf');
  const batch = () => {
    const [owner, group] = [String(process.getuid!()), String(process.getgid!())];
    const p = placed('n1', 'x', file({ path: target, content: 'new\n', owner, group }));
    const said = spawnSync('sh', ['-c', programOf([{ action: actionOf(p), placed: p }])], { encoding: 'utf8' });
    expect(said.stdout).toMatch(/@@halligan ok 0/);
  };
  for (const [pid, left] of [
    [gone, []],
    [String(process.pid), ['policy-rc.d']],
  ] as const) {
    writeFileSync(join(dir, 'sbin/policy-rc.d'), policy(pid));
    mkdirSync(join(dir, `run/work.${pid}.abcdef`));
    writeFileSync(`${target}.halligan-abcdef`, 'secret');
    batch();
    expect(readdirSync(join(dir, 'sbin'))).toEqual(left);
    expect(readdirSync(join(dir, 'run'))).toEqual(left.length === 0 ? [] : [`work.${pid}.abcdef`]);
    expect(existsSync(`${target}.halligan-abcdef`)).toBe(false);
    expect(read('secret.conf')).toBe('new\n');
  }
  // Somebody else's stays.
  writeFileSync(join(dir, 'sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n');
  batch();
  expect(readdirSync(join(dir, 'sbin'))).toEqual(['policy-rc.d']);
});
