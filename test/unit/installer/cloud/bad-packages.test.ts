/** Packages that are known to be bad, through the whole plan: the look runs in a shell here, on what apt and dpkg said on a host. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { loadRelease } from '../../../../installer/model/releases.js';
import { packages } from '../../../../installer/model/resources.js';
import type { Executor } from '../../../../provisioner/core/executor/types.js';
import { openStore, type Store } from '../../../../provisioner/core/store/store.js';
import { catalogueOf, role, service } from '../model/sample.js';
import { factsOf, handed, smallSite } from './small-site.js';

let dir: string;
let store: Store;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-bad-'));
  mkdirSync(join(dir, 'bin'));
  store = await openStore(':memory:');
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

/** @param installed `ii  NAME VERSION` of dpkg-query; `simulated`: lines of `apt-get -s install` */
const findings = async (installed: readonly string[], simulated: readonly string[]) => {
  const program = (name: string, text: string) =>
    writeFileSync(join(dir, 'bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const dpkg = installed.map(line => {
    const [status, name, version] = line.split(/ +/);
    return `case $2 in @package*) echo '@package ${status}  ${name} ${version}';; *) echo '${status}  ${name}';; esac`;
  });
  program('dpkg-query', `[ "$1" = -W ] || exit 2; shift\n${dpkg.join('\n')}`);
  program('apt-get', `echo "$*" >>${dir}/apt.log\ncat <<'END'\n${simulated.join('\n')}\nEND`);
  const executor: Executor = {
    publicKey: '',
    async run(_target, _command, options) {
      const text = String(options?.stdin ?? '');
      const stdout = text.includes('@hostname')
        ? factsOf('ctl', 1, 0, 'ubuntu 26.04')
        : execFileSync('sh', {
            input: text.replace('PATH=', `PATH=${dir}/bin:`),
            encoding: 'utf8',
          });
      return { code: 0, stdout, stderr: '' };
    },
    write: async () => {},
    detached: async () => ({ kind: 'exited', code: 0, tail: '' }),
    stop: async () => {},
    close: async () => {},
  };
  const catalogue = catalogueOf(
    [service('identity', { build: () => [packages(['neutron-server'])] })],
    [role('controller', ['identity'])],
  );
  const cloud = smallSite({
    dir,
    store,
    catalogue,
    release: loadRelease('ubuntu-26.04-2026.1')!,
    nodes: [handed('ctl', 1, ['controller'])],
    executor,
  });
  try {
    const plan = await cloud.plan({});
    return plan.problems.filter(p => p.message.includes('known to be bad'));
  } finally {
    await cloud.close();
  }
};

const INST = (version: string) => [
  'NOTE: This is only a simulation!',
  'Inst python3-neutron-lib (3.24.0-1 Ubuntu:26.04/resolute [all])',
  `Inst neutron-common (${version} Ubuntu:26.04/resolute [all])`,
  `Inst neutron-server (${version} Ubuntu:26.04/resolute [all])`,
  `Conf neutron-common (${version} Ubuntu:26.04/resolute [all])`,
];

it('what an installation would bring leaves the node out, with the bug', async () => {
  expect(await findings([], INST('2:28.0.0-0ubuntu1'))).toEqual([
    {
      node: 'ctl',
      severity: 'hold',
      message:
        'neutron-common 2:28.0.0-0ubuntu1 is known to be bad (LP#2150285): Networks of projects cannot be made with ML2/OVN and Geneve (NoNetworkAvailable).',
      hint: "Let the node's sources offer 2:28.0.0-0ubuntu1.1 or newer, such as the distribution's updates; where it is installed already, upgrade it.",
    },
  ]);
  expect(await findings([], INST('2:28.0.0-0ubuntu1.1'))).toEqual([]);
});

it('what is installed does, too, though no service asks for it by name', async () => {
  const both = (version: string) => [`ii  neutron-server ${version}`, `ii  neutron-common ${version}`];
  const found = await findings(both('2:28.0.0-0ubuntu1'), []);
  expect(found.map(p => p.severity)).toEqual(['hold']);
  expect(await findings(both('2:28.0.0-0ubuntu1.1'), [])).toEqual([]);
});

it('what an upgrade on the way would mend is not held against the node', async () => {
  const upgrade = [
    'Inst neutron-common [2:28.0.0-0ubuntu1] (2:28.0.0-0ubuntu1.1 Ubuntu:26.04/resolute-updates [all]) []',
    'Inst neutron-server (2:28.0.0-0ubuntu1.1 Ubuntu:26.04/resolute-updates [all])',
  ];
  expect(await findings(['ii  neutron-common 2:28.0.0-0ubuntu1'], upgrade)).toEqual([]);
});
