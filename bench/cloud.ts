/**
 * From hosts that answer SSH to a cloud whose servers do: four container hosts with their packages baked in, TLS
 * everywhere. Then the same once more, with nothing to do; then a compute that joins from packages, beside a twin on which
 * plain apt-get installs the same ones.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { loadDistribution } from '../provisioner/core/distributions/load.js';
import { machineSources } from '../provisioner/image/mmdebstrap.js';
import { uplinkSocket } from '../provisioner/lab/plan.js';
import { archivesOf, sourcesText } from '../provisioner/packages/archives.js';
import { cloudUp, failuresOf, NETWORKS, type TestCloud } from '../test/harness/cloud.js';
import { type Bar, table } from './cost.js';
import type { Part } from './part.js';
import { actionSpans, passedAtMs, unionSeconds } from './spans.js';

/** The same by hand, with shell scripts and without TLS, on two cores (docs/speed.md). */
const BY_HAND_SECONDS = 182;
const BARS = { secondApply: 5, packages: 1.2, objects: 2, rssMiB: 256 };
const AIM = 0.7;

const HOSTS = [
  { name: 'ctl', roles: ['controller'] },
  { name: 'net', roles: ['network'] },
  { name: 'cmp', roles: ['compute'] },
  { name: 'vol', roles: ['volume', 'storage'] },
] as const;
/** Hosts without packages: one joins, one has plain apt. */
const BARE = { joins: 'cmp2', twin: 'twin', roles: ['compute'] } as const;
const CLOUD = {
  ...NETWORKS,
  packages: 'proxy',
  volumes: { backend: 'ceph', devices: [{ path: '/var/lib/halligan/ceph0', file_size: '8G' }] },
  objects: {
    replicas: 2,
    devices: [
      { path: '/var/lib/halligan/swift0', file_size: '1G' },
      { path: '/var/lib/halligan/swift1', file_size: '1G' },
    ],
  },
};
/** The way out for plain apt: the lab's uplink, as an HTTP proxy on the lab's gateway. */
const APT_PROXY = { address: '10.99.0.1', port: 3128 };
const APT_TIMEOUT_MS = 1_200_000;
/** Steps of the chain that are shown. */
const CHAIN_SECONDS = 0.5;

const sinceMs = (beginMs: number) => (Date.now() - beginMs) / 1000;
const round = (n: number) => Math.round(n * 10) / 10;

/** User and system seconds of all that ran on the hosts so far, what has ended included. */
async function hostsCpuSeconds(cloud: TestCloud, hosts: readonly string[]): Promise<number> {
  // utime, stime, and those of children that were waited for; a process without its parent goes to the first one, which waits.
  const sum = `cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^.*) //' | awk '{ s += $12 + $13 + $14 + $15 } END { print s / 100 }'`;
  const each = await Promise.all(hosts.map(host => cloud.lab.ssh(host, sum)));
  return each.reduce((total, text) => total + Number(text), 0);
}

async function layDown(cloud: TestCloud, say: (text: string) => void) {
  const names = HOSTS.map(h => h.name);
  const cpuBefore = await hostsCpuSeconds(cloud, names);
  const serverBefore = cloud.serverUsage().cpuSeconds ?? 0;
  const beginMs = Date.now();
  const { run, result } = await cloud.apply();
  const layDownSeconds = sinceMs(beginMs);
  if (result.failed.length > 0) throw new Error(`The cloud was not laid down: ${failuresOf(result)}`);
  const cpuSeconds = (await hostsCpuSeconds(cloud, names)) - cpuBefore;
  const report = await cloud.verify({ only: ['ssh'] });
  const failed = report.steps.find(s => s.state === 'failed');
  const sshMs = passedAtMs(cloud.events, report.runId, 'ssh');
  if (failed || sshMs === null) throw new Error(`No server answers SSH: ${failed?.message ?? 'the step did not run'}`);
  const sshSeconds = (sshMs - beginMs) / 1000;
  const spans = actionSpans(cloud.events, run.id);
  const objects = spans.filter(s => s.node === 'cloud');
  const objectSeconds = unionSeconds(objects);
  const serverCpuSeconds = (cloud.serverUsage().cpuSeconds ?? Number.NaN) - serverBefore;

  say(
    `  laid down after ${layDownSeconds.toFixed(1)} s (${result.done} actions, ${cpuSeconds.toFixed(0)} CPU seconds on the hosts); a server answers SSH after ${sshSeconds.toFixed(1)} s`,
  );
  say('\n  The longest chain of the lay-down (what would have to be faster for the whole to be faster):\n');
  say(
    table(
      ['seconds', 'waited', 'action'],
      result.chain
        .filter(c => c.seconds >= CHAIN_SECONDS || c.waited >= CHAIN_SECONDS)
        .map(c => [c.seconds, c.waited, c.id]),
    ),
  );
  const slowest = [...spans].sort((a, b) => b.endMs - b.beginMs - (a.endMs - a.beginMs)).slice(0, 12);
  say('\n  The longest actions, in their order:\n');
  say(
    table(
      ['begins at', 'seconds', 'action'],
      slowest
        .sort((a, b) => a.beginMs - b.beginMs)
        .map(s => [(s.beginMs - beginMs) / 1000, (s.endMs - s.beginMs) / 1000, s.id]),
    ),
  );
  say(`\n  ${objects.length} objects behind the APIs: ${objectSeconds.toFixed(1)} s.`);
  say(
    table(
      ['step of the proof', 'seconds'],
      report.steps.filter(s => s.state !== 'skipped').map(s => [s.name, s.seconds]),
    ),
  );
  return {
    sshSeconds: round(sshSeconds),
    layDownSeconds: round(layDownSeconds),
    planSeconds: round(layDownSeconds - result.seconds),
    ratioToByHand: sshSeconds / BY_HAND_SECONDS,
    actions: result.done,
    hostsCpuSeconds: round(cpuSeconds),
    serverCpuSeconds: round(serverCpuSeconds),
    objects: objects.length,
    objectSeconds: round(objectSeconds),
    chain: result.chain,
    took: spans
      .map(s => ({
        id: s.id,
        begin: round((s.beginMs - beginMs) / 1000),
        seconds: round((s.endMs - s.beginMs) / 1000),
      }))
      .sort((a, b) => b.seconds - a.seconds),
    proof: report.steps.map(s => ({ name: s.name, state: s.state, seconds: s.seconds })),
  };
}

async function again(cloud: TestCloud) {
  const beginMs = Date.now();
  const { result } = await cloud.apply();
  return { actions: result.actions, seconds: sinceMs(beginMs) };
}

/** The uplink as an HTTP proxy for hosts, until `close`. */
async function aptProxy(cloud: TestCloud): Promise<{ close(): Promise<void> }> {
  const { lab } = cloud.lab;
  const { address, port } = APT_PROXY;
  const listen = `TCP-LISTEN:${port},bind=${address},fork,reuseaddr`;
  const child = spawn('ip', ['netns', 'exec', lab.netns, 'socat', listen, `UNIX-CONNECT:${uplinkSocket(lab)}`], {
    stdio: 'ignore',
  });
  const ended = new Promise<void>(resolve => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  await once(child, 'spawn');
  return {
    async close() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

async function plainApt(cloud: TestCloud, host: string): Promise<number> {
  const { packages, preseed } = cloud.packagesOf(BARE.roles);
  const sources = sourcesText(
    archivesOf({ distribution: loadDistribution('debian-12'), extra: [], machine: await machineSources() }),
    null,
  );
  const beginMs = Date.now();
  await cloud.lab.ssh(
    host,
    `set -e
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
rm -f /etc/apt/sources.list.d/*
cat >/etc/apt/sources.list <<'END'\n${sources}END
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
debconf-set-selections <<'END'\n${preseed.join('\n')}\nEND
apt() { apt-get -q -y -o Acquire::http::Proxy=http://${APT_PROXY.address}:${APT_PROXY.port} -o APT::Install-Recommends=false "$@"; }
{ apt update && apt install ${packages.join(' ')}; } >/var/log/plain-apt.log 2>&1 </dev/null ||
  { tail -n 3 /var/log/plain-apt.log; exit 1; }`,
    { timeoutMs: APT_TIMEOUT_MS },
  );
  return sinceMs(beginMs);
}

async function fromPackages(cloud: TestCloud) {
  const { joins, twin, roles } = BARE;
  await Promise.all([cloud.lab.start(joins), cloud.lab.start(twin)]);
  await cloud.adopt(joins, roles);
  const proxy = await aptProxy(cloud);
  try {
    // Both at once, so that both have half of the machine.
    const beginMs = Date.now();
    const [plain, ours] = await Promise.all([
      plainApt(cloud, twin),
      cloud.apply().then(done => ({ ...done, seconds: sinceMs(beginMs) })),
    ]);
    if (ours.result.failed.length > 0) throw new Error(`${joins} did not join: ${failuresOf(ours.result)}`);
    const installed = actionSpans(cloud.events, ours.run.id).find(s => s.id === `${joins}/packages/packages`);
    const list = (host: string) =>
      cloud.lab.ssh(host, `dpkg-query -W -f '\${db:Status-Abbrev}\${Package} \${Version}\\n' | grep ^ii`);
    const [own, other] = await Promise.all([list(joins), list(twin)]);
    if (own !== other) throw new Error(`${joins} and ${twin} have other packages: they cannot be compared`);
    return {
      packages: installed?.title ?? null,
      plainAptSeconds: round(plain),
      installSeconds: installed ? round((installed.endMs - installed.beginMs) / 1000) : null,
      joinedSeconds: round(ours.seconds),
      installRatio: installed ? (installed.endMs - installed.beginMs) / 1000 / plain : null,
      joinedRatio: ours.seconds / plain,
    };
  } finally {
    await proxy.close();
  }
}

export const cloud: Part = async ({ say, signal }) => {
  say('\nA cloud on four hosts (controller, network, compute, volume and storage), packages in place, TLS:');
  signal.throwIfAborted();
  const made = await cloudUp({
    name: 'bench-cloud',
    hosts: [
      ...HOSTS,
      { name: BARE.joins, roles: BARE.roles, baked: false, start: false },
      { name: BARE.twin, roles: BARE.roles, baked: false, start: false },
    ],
    cloud: CLOUD,
    onProgress: line => say(`    ${line}`),
  });
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  aborted.catch(() => {});
  const measure = async () => {
    const first = await layDown(made, say);
    const second = await again(made);
    say(`\n  The second apply: ${second.actions} actions, ${second.seconds.toFixed(1)} s.`);
    const packages = await fromPackages(made);
    say(
      `  A compute from packages beside plain apt-get on its twin: ${packages.packages} in ${packages.installSeconds} s, part of the cloud after ${packages.joinedSeconds} s; plain apt-get ${packages.plainAptSeconds} s.`,
    );
    return { first, second, packages, server: made.serverUsage() };
  };
  let found: Awaited<ReturnType<typeof measure>>;
  try {
    found = await Promise.race([measure(), aborted]);
  } finally {
    await made.down();
  }
  const { first, second, packages, server } = found;
  say(
    `  The server: ${server.rssMaxMiB} MiB at most, ${first.serverCpuSeconds} s of CPU until a server answered SSH, ${server.cpuSeconds} s in all.`,
  );
  say(
    `  To the way by hand (${BY_HAND_SECONDS} s): ${first.ratioToByHand.toFixed(2)}; ${first.ratioToByHand <= AIM ? 'within' : 'above'} the aim of ${AIM}.`,
  );
  const bars: Bar[] = [
    {
      name: 'hosts that answer SSH to a server that does (by hand 182)',
      value: first.sshSeconds,
      limit: BY_HAND_SECONDS,
      unit: 's',
    },
    { name: 'actions of the second apply', value: second.actions, limit: 0, unit: '' },
    { name: 'time of the second apply', value: second.seconds, limit: BARS.secondApply, unit: 's' },
    {
      name: 'packages of a compute, to plain apt-get at the same time',
      value: packages.installRatio,
      limit: BARS.packages,
      unit: '×',
    },
    {
      name: 'a compute from packages to part of the cloud, to plain apt-get',
      value: packages.joinedRatio,
      limit: BARS.packages,
      unit: '×',
    },
    { name: 'objects behind the APIs', value: first.objectSeconds, limit: BARS.objects, unit: 's' },
    {
      name: 'memory of the server with a cloud, high water',
      value: server.rssMaxMiB,
      limit: BARS.rssMiB,
      unit: 'MiB',
    },
  ];
  return { bars, figures: found };
};
