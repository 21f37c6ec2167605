/**
 * Packages through the server, for real: hosts without a way out install with apt, which checks signatures by its own
 * keyring; the server inside of the lab reaches archives by the lab's uplink.
 */
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { systemClock as clock } from '../../provisioner/core/clock.js';
import { loadDistribution, packageRoot } from '../../provisioner/core/distributions/load.js';
import { connected, type ServerProcess, startServerProcess } from '../../provisioner/demo/server-process.js';
import { machineSources } from '../../provisioner/image/mmdebstrap.js';
import { archivesOf, sourcesText } from '../../provisioner/packages/archives.js';
import { type CloudLab, cloudLabUp } from '../harness/cloud-lab.js';

const run = promisify(execFile);
const BASE = 'http://10.99.0.1:7481';
const MAIN = join(packageRoot(import.meta.url), 'dist/provisioner/main.js');
const PACKAGES = 'memcached jq';

let lab: CloudLab;
let server: ServerProcess;
let sources: string;

const logFile = () => join(lab.dir, 'server.log');
const startServer = async () => {
  server = startServerProcess(lab.lab, [process.execPath, MAIN], logFile());
  const client = await connected(join(lab.lab.dataDir, 'halligan.sock'), server, clock, new AbortController().signal);
  await client.close();
};
/** curl from inside of the lab's network: status, and the reason in its line. */
const curl = async (path: string, ...more: string[]) => {
  const argv = ['curl', '-sS', '-o', '/dev/null', '-D', '-', '--max-time', '60', '--path-as-is', ...more, BASE + path];
  const done = await run('ip', ['netns', 'exec', lab.lab.netns, ...argv]).catch(error => error as { stdout: string });
  return done.stdout.split('\r\n')[0]!.replace('HTTP/1.1 ', '');
};
const install = (host: string) =>
  lab.ssh(
    host,
    `set -e; export DEBIAN_FRONTEND=noninteractive LC_ALL=C
    rm -f /etc/apt/sources.list.d/*; cat >/etc/apt/sources.list <<'END'\n${sources}END
    apt-get -q -o APT::Update::Error-Mode=any update
    apt-get -q -y --no-install-recommends install ${PACKAGES} >/dev/null
    dpkg-query -W -f '\${db:Status-Abbrev}\${Package}\\n' ${PACKAGES}`,
    { timeoutMs: 400_000 },
  );
const uplinkPid = () => (JSON.parse(readFileSync(join(lab.lab.runDir, 'uplink.json'), 'utf8')) as { pid: number }).pid;

beforeAll(async () => {
  lab = await cloudLabUp({
    name: 'pkg',
    hosts: [
      { name: 'one', nics: 1 },
      { name: 'two', nics: 1 },
    ],
  });
  const file = join(lab.lab.dir, 'site.yaml');
  const site = parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, stringify({ ...site, cloud: { packages: 'proxy' } }));
  const archives = archivesOf({
    distribution: loadDistribution('debian-12'),
    extra: [],
    machine: await machineSources(),
  });
  sources = sourcesText(archives, BASE);
  await startServer();
});
afterAll(async () => {
  await server?.stop();
  await lab?.down();
});

describe('hosts without a way out', () => {
  it('install from the archives of this machine, with signatures checked', async () => {
    const out = await install('one');
    expect(out).toMatch(/^ii jq$/m);
    expect(out).toMatch(/^ii memcached$/m);
    expect(out).toMatch(/^Get:\d+ http:\/\/10\.99\.0\.1:7481\/packages\/debian bookworm InRelease/m);
    // apt says so when it takes anything without a signature.
    expect(out).not.toMatch(/not signed|unauthenticated|WARNING/i);
  });

  it('are refused by their own apt when nobody they trust has signed', async () => {
    const out = await lab.ssh(
      'one',
      `mkdir -p /tmp/none && apt-get -q -o Dir::Etc::Trusted=/dev/null -o Dir::Etc::TrustedParts=/tmp/none \
      -o Dir::State::Lists=/tmp/none update 2>&1 || echo refused`,
    );
    expect(out).toMatch(/NO_PUBKEY/);
    expect(out).toMatch(/refused$/);
  });

  it('get what was fetched before from the cache, with the uplink gone', async () => {
    process.kill(uplinkPid(), 'SIGKILL');
    const out = await install('two');
    expect(out).toMatch(/^ii jq$/m);
    expect(out).toMatch(/^ii memcached$/m);
    expect(await curl('/packages/debian/pool/main/n/none/none_1_all.deb')).toMatch(
      /^502 .* cannot be reached: .*uplink\.sock/,
    );
  });

  it('also after the server was killed', async () => {
    await server.kill();
    await startServer();
    expect(await curl('/packages/debian/dists/bookworm/InRelease')).toBe('200 OK');
  });
});

describe('what is not there', () => {
  it.each([
    '/packages/debian/../../etc/passwd',
    '/packages/debian/pool/%2e%2e/%2e%2e/etc/passwd',
    '/packages/debian/pool/..%2f..%2fetc/passwd',
    '/packages/%2e%2e/pool/x',
    '/packages/debian/project/trace/master',
    '/packages/ubuntu/pool/x',
    '/packages/',
  ])('%s', async path => expect(await curl(path)).toMatch(/^404 There is no /));
});

describe('an archive that breaks off', () => {
  let half: Server;
  let whole = false;
  const data = Buffer.alloc(300_000, 'x');
  beforeAll(async () => {
    half = createServer((_request, response) => {
      response.writeHead(200, { 'content-length': data.length });
      if (whole) response.end(data);
      else response.write(data.subarray(0, 200_000), () => setTimeout(() => response.destroy(), 50));
    });
    const path = join(lab.lab.runDir, 'uplink.sock');
    rmSync(path, { force: true });
    await new Promise<void>(resolve => half.listen(path, resolve));
  });
  afterAll(() => half.close());

  it('leaves nothing that is taken for the whole', async () => {
    const path = '/packages/debian/pool/main/h/half/half_1_all.deb';
    const curlCode = await run('ip', [
      ...['netns', 'exec', lab.lab.netns, 'curl', '-sS', '-o', '/dev/null', '--max-time', '60', BASE + path],
    ]).then(
      () => 0,
      error => (error as { code: number }).code,
    );
    expect(curlCode, 'curl: a part of the file came').toBe(18);
    whole = true;
    const { stdout } = await run('ip', [
      ...[
        'netns',
        'exec',
        lab.lab.netns,
        'curl',
        '-sS',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code} %{size_download}',
        BASE + path,
      ],
    ]);
    expect(stdout).toBe('200 300000');
  });
});
