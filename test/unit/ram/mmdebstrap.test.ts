import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadDistribution } from '../../../provisioner/core/distributions/load.js';
import { inputHash } from '../../../provisioner/core/input-hash.js';
import { asProblem } from '../../../provisioner/core/problem.js';
import {
  checkKeyring,
  describeFile,
  mmdebstrapArgv,
  parseAptSources,
  resolveSources,
  runLogged,
} from '../../../provisioner/image/mmdebstrap.js';

const debian = loadDistribution('debian-12');

describe('apt sources of the building machine', () => {
  it('are read from deb822 with folded lines, comments and disabled stanzas', () => {
    const text = `Types: deb deb-src
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/x.gpg

Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/
Suites: bookworm
Components: main

Types: deb
URIs: file:/media/cdrom
Suites: ./
`;
    expect(parseAptSources(text, 'deb822')).toEqual([
      { uri: 'http://mirror.example/debian', suites: ['bookworm', 'bookworm-updates'], components: ['main'] },
    ]);
  });
  it('are read from one-line entries with options', () => {
    const text = `# deb http://no.example/ bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://mirror.example/debian bookworm main contrib # ours
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main`;
    expect(parseAptSources(text, 'list')).toEqual([
      { uri: 'http://mirror.example/debian', suites: ['bookworm'], components: ['main', 'contrib'] },
    ]);
  });
  it('decide about the mirror, suite by suite; without them a mirror must be named', () => {
    const machine = [{ uri: 'http://near.example/debian', suites: ['bookworm', 'trixie'], components: ['main'] }];
    expect(resolveSources(debian, machine)).toEqual([
      { uri: 'http://near.example/debian', suites: ['bookworm', 'bookworm-updates'], components: ['main'] },
      { uri: 'http://near.example/debian-security', suites: ['bookworm-security'], components: ['main'] },
    ]);
    expect(() => resolveSources(debian, [])).toThrow('No mirror is known for bookworm');
    expect(resolveSources(debian, machine, { mirror: 'http://own.example/debian' })[0]).toEqual({
      uri: 'http://own.example/debian',
      suites: ['bookworm', 'bookworm-updates'],
      components: ['main'],
    });
  });
});

describe('a call of mmdebstrap', () => {
  it('refuses a package name that would become something else', () => {
    const spec = { distribution: debian, sources: [], variant: 'minbase' as const, target: '/t' };
    expect(() => mmdebstrapArgv({ ...spec, packages: ['ssh,--hook'] })).toThrow('not a package name');
  });
  it('does not start without the keyring', async () => {
    const keyring = { file: '/nonexistent/keyring.gpg', package: 'some-keyring' };
    const refused = await checkKeyring({ ...debian, keyring }).catch(asProblem);
    expect(refused).toMatchObject({ code: 'dependency-missing', hint: expect.stringContaining('some-keyring') });
  });
});

describe('a logged run', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'halligan-run-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const logged = () => ({ logFile: join(dir, 'sub/build.log'), what: 'the test image', dependency: 'the-package' });

  it('keeps all output, and tells the stages', async () => {
    const stages: string[] = [];
    await runLogged('printf', ['I: one\nnoise\nI: two\n'], {
      ...logged(),
      progress: line => /^I: (.*)/.exec(line)?.[1] ?? null,
      onProgress: line => stages.push(line),
    });
    expect(stages).toEqual(['one', 'two']);
    expect(readFileSync(logged().logFile, 'utf8')).toContain('noise');
  });
  it('names the last error and the log when it fails', async () => {
    const failed = await runLogged('sh', ['-c', 'echo "E: no such suite" >&2; exit 3'], logged()).catch(asProblem);
    expect(failed).toMatchObject({
      code: 'image-build',
      message: `sh failed for the test image: E: no such suite (log: ${logged().logFile})`,
    });
  });
  it('names the package of a program that is not there', async () => {
    const failed = await runLogged('halligan-no-such-program', [], logged()).catch(asProblem);
    expect(failed).toMatchObject({ code: 'dependency-missing', hint: 'Install the package the-package.' });
  });
  it('ends with its children when it is stopped', async () => {
    const stop = new AbortController();
    const startedMs = Date.now();
    const run = runLogged('sh', ['-c', 'sleep 60 & wait'], { ...logged(), signal: stop.signal });
    setTimeout(() => stop.abort(), 100);
    expect(await run.catch(asProblem)).toMatchObject({
      code: 'image-build',
      message: expect.stringContaining('stopped'),
    });
    expect(Date.now() - startedMs).toBeLessThan(5000);
  });
});

it('hashes inputs regardless of the order of keys, and files by content', async () => {
  expect(inputHash({ a: 1, b: [1, { c: null, d: undefined }] })).toBe(inputHash({ b: [1, { c: null }], a: 1 }));
  expect(inputHash({ a: 1 })).not.toBe(inputHash({ a: '1' }));
  const { bytes, sha256 } = await describeFile('/dev/null');
  expect([bytes, sha256.slice(0, 8)]).toEqual([0, 'e3b0c442']);
});
