/**
 * What goes wrong while a cloud is laid down, for real and several at once: an archive that is not reached, a unit that does not
 * start, a wrong time, a host that dies in the middle, a full disk, an apt that is killed, a server that is killed. Each is a
 * failure with a name on its node, the other nodes go on, and the next apply repairs.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ActionFailure,
  type ApplyResult,
  asApplyResult,
  type CloudEventData,
} from '../../provisioner/core/cloud-service.js';
import type { Run } from '../../provisioner/core/journal.js';
import { cloudUp, failuresOf, NETWORKS, type TestCloud } from '../harness/cloud.js';

type ActionEvent = CloudEventData['cloud.action'];

let cloud: TestCloud;

beforeAll(async () => {
  cloud = await cloudUp({
    name: 'fail',
    hosts: [
      { name: 'ctl', roles: ['controller'] },
      // Its packages come through the server while roles are laid down.
      { name: 'net', roles: ['network'], baked: false },
      { name: 'cmp', roles: ['compute'] },
      { name: 'cmp2', roles: ['compute'] },
    ],
    cloud: {
      ...NETWORKS,
      packages: 'proxy',
      dashboard: false,
      volumes: { backend: 'none' },
      objects: { enabled: false },
    },
    onProgress: line => console.log(line),
  });
}, 1_500_000);
afterAll(async () => {
  await cloud?.down();
});

const host = (name: string, command: string, timeoutMs = 120_000) => cloud.lab.ssh(name, command, { timeoutMs });
const active = async (name: string, ...units: string[]) =>
  (await host(name, `systemctl is-active ${units.join(' ')} || :`)).split('\n');

const begin = async (): Promise<string> =>
  (await cloud.client().post<{ runId: string }>('/cloud/apply', { confirmed: [] })).runId;
const end = async (runId: string): Promise<{ run: Run; result: ApplyResult }> => {
  const run = await cloud.waitFor(runId, 900);
  const result = asApplyResult(run.result);
  if (!result) throw new Error(`the run could not go on: ${JSON.stringify(run.result)}`);
  console.log(
    [
      `${result.done} of ${result.actions} actions in ${result.seconds} s; ${result.blocked.length} wait`,
      ...result.failed.map(f => `  ${f.problem.message}\n    ${f.problem.hint}`),
    ].join('\n'),
  );
  return { run, result };
};
const actionsOf = (runId: string): ActionEvent[] =>
  cloud.events
    .filter(e => e.type === 'cloud.action' && e.data['runId'] === runId)
    .map(e => e.data as unknown as ActionEvent);
/** Waits until an action of this run has got so far. */
const action = async (runId: string, what: string, match: (a: ActionEvent) => boolean): Promise<void> => {
  const until = Date.now() + 300_000;
  while (!actionsOf(runId).some(match)) {
    if (Date.now() > until) throw new Error(`not within 300 s: ${what}`);
    await new Promise(r => setTimeout(r, 100));
  }
};
const nodesOf = (failures: readonly ActionFailure[]) => [...new Set(failures.map(f => f.node))].sort();
const failureOf = (result: ApplyResult, node: string, match: (f: ActionFailure) => boolean = () => true) => {
  const found = result.failed.find(f => f.node === node && match(f));
  if (!found) throw new Error(`nothing failed on ${node}: ${failuresOf(result)}`);
  return found.problem;
};
const holds = async () => (await cloud.plan()).problems.filter(p => p.severity === 'hold');
/** The server's only way to archives. A file stays in its place, for the uplink ends when there is none. */
const uplink = (to: 'gone' | 'there') => {
  const socket = join(cloud.lab.lab.runDir, 'uplink.sock');
  if (to === 'gone') {
    renameSync(socket, `${socket}.off`);
    writeFileSync(socket, '');
  } else renameSync(`${socket}.off`, socket);
};

describe('an archive that is not reached, a unit that does not start, a wrong time and a host that dies', () => {
  let result: ApplyResult;
  let runId: string;

  beforeAll(async () => {
    uplink('gone');
    // Somebody else's program has Glance's port.
    await host(
      'ctl',
      `systemd-run --quiet --unit=squatter python3 -m http.server --bind ${cloud.lab.host('ctl').address} 9292`,
    );
    // All hosts of the lab have one clock.
    await host(
      'cmp2',
      `printf '#!/bin/sh\\nexec /usr/bin/date -d "+1 hour" "$@"\\n' >/usr/sbin/date && chmod 755 /usr/sbin/date`,
    );
    expect(await holds()).toEqual([
      expect.objectContaining({ node: 'cmp2', message: expect.stringMatching(/^Its clock is 60 min ahead\./) }),
    ]);
    runId = await begin();
    await action(
      runId,
      'the switch of cmp',
      a => a.node === 'cmp' && a.service === 'network-agent' && a.state === 'begin',
    );
    await cloud.lab.stop('cmp');
    const ended = await end(runId);
    expect(ended.run.state).toBe('failed');
    result = ended.result;
  });

  it('fail on their nodes and nowhere else', () => {
    expect(nodesOf(result.failed)).toEqual(['cmp', 'cmp2', 'ctl', 'net']);
    expect(result.failed.filter(f => f.node === 'ctl').map(f => f.id)).toEqual(['ctl/image/unit:glance-api.service']);
  });

  it('the archive: what was asked for, and why it did not come', () => {
    const p = failureOf(result, 'net');
    expect(p.message).toMatch(/^net: "install \d+ packages" \(/);
    expect(p.message).toMatch(/The package lists could not be fetched: http:\S+ .*502 .*cannot be reached/);
    expect(p.hint).toContain('package sources of net');
  });

  it('the unit: its name, its own words, and where to look', () => {
    const p = failureOf(result, 'ctl');
    expect(p.message).toMatch(
      /^ctl: "(re)?start glance-api.service" \(image\) failed with code 1: .*Address already in use/,
    );
    expect(p.detail).toMatchObject({ node: 'ctl', service: 'image', unit: 'glance-api.service', code: 1 });
    expect(p.hint).toContain('journalctl -u glance-api.service');
  });

  it('the time: by how much, and the node is not touched', async () => {
    const p = failureOf(result, 'cmp2');
    expect(p.code).toBe('cloud-node-held');
    expect(p.message).toMatch(/^cmp2: Its clock is 60 min ahead\. Tokens and certificates would not be valid there\.$/);
    expect(p.hint).toContain('timedatectl');
    expect(actionsOf(runId).filter(a => a.node === 'cmp2' && a.state === 'begin')).toEqual([]);
    expect(await host('cmp2', 'ls /var/lib/halligan/stamps 2>/dev/null || echo nothing')).toBe('nothing');
  });

  it('the dead host: which step it cut off, and that it is not reached', () => {
    const p = failureOf(result, 'cmp');
    expect(p.message).toMatch(/^cmp: ".+" \(.+\) was cut off: .*(could not be reached by SSH|SSH handshake)/);
    expect(p.detail).toMatchObject({ node: 'cmp', step: expect.stringMatching(/^cmp\//) });
    expect(p.hint).toContain('Bring cmp back');
  });

  it('all else of the controller runs', async () => {
    expect(
      await active('ctl', 'mariadb', 'rabbitmq-server', 'keystone', 'nova-api', 'nova-conductor', 'neutron-server'),
    ).toEqual(Array(6).fill('active'));
    const waits = result.blocked
      .filter(b => b.node === 'ctl')
      .map(b => b.id)
      .sort();
    expect(waits).toEqual(['cmp', 'cmp2'].map(n => `ctl/compute-control/command:discover-host-${n}`));
  });
});

describe('a host that is dead still, a full disk and an apt that is killed', () => {
  let result: ApplyResult;

  beforeAll(async () => {
    uplink('there');
    await host('ctl', 'systemctl stop squatter');
    await host(
      'cmp2',
      'rm /usr/sbin/date; mkdir -p /etc/pki && mount -t tmpfs -o size=16k none /etc/pki && ! dd if=/dev/zero of=/etc/pki/full bs=4k 2>/dev/null',
    );
    const plan = await cloud.plan();
    expect(plan.problems.filter(p => p.severity === 'hold')).toEqual([
      expect.objectContaining({ node: 'cmp', message: expect.stringMatching(/^It cannot be looked at: /) }),
    ]);
    // Nobody forgets the dead host.
    expect(plan.actions.map(a => `${a.node} ${a.title}`)).not.toContain('ctl change /etc/hosts');
    expect(await host('ctl', 'grep -cw cmp /etc/hosts')).toBe('1');
    const runId = await begin();
    // As the kernel does it when memory runs out, but to all of the program at once.
    const half = await host(
      'net',
      `half() { dpkg-query -W -f '\${db:Status-Abbrev} \${Package}\\n' | grep '^.[UFH] '; }
n=0
until p=$(pgrep -xo dpkg) && u=$(grep -o 'hal-[^/]*net-packages[^/]*service' /proc/$p/cgroup | head -n 1) && [ -n "$u" ] &&
  half >/dev/null; do
  n=$((n + 1)); [ $n -lt 2000 ] || { echo 'dpkg was not seen at work' >&2; exit 1; }; sleep 0.05
done
systemctl kill --signal=KILL "$u"
half`,
      400_000,
    );
    console.log(`left half-way on net:\n${half}`);
    const ended = await end(runId);
    expect(ended.run.state).toBe('failed');
    result = ended.result;
  });

  it('fail on their nodes and nowhere else', () => {
    expect(nodesOf(result.failed)).toEqual(['cmp', 'cmp2', 'net']);
    expect(
      result.blocked
        .filter(b => b.node === 'ctl')
        .map(b => b.id)
        .sort(),
    ).toEqual(['cmp', 'cmp2'].map(n => `ctl/compute-control/command:discover-host-${n}`));
  });

  it('the dead host is left out by name', () => {
    const p = failureOf(result, 'cmp');
    expect(p.code).toBe('cloud-node-held');
    expect(p.message).toMatch(/^cmp: It cannot be looked at: /);
  });

  it('the full disk: the step, the reason, and what to do', () => {
    const p = failureOf(result, 'cmp2');
    expect(p.message).toMatch(
      /^cmp2: ".* \/etc\/pki.*" \(hypervisor\) failed with code \d+: .*No space left on device/,
    );
    expect(p.hint).toContain('Make room on cmp2');
  });

  it('the killed apt: the step, and that it was killed', () => {
    const p = failureOf(result, 'net');
    expect(p.message).toMatch(
      /^net: "install \d+ packages" \(packages\) was cut off: its program was killed there \(code 137\)\. Its last words: /,
    );
    expect(p.hint).toContain('journalctl -k');
  });

  it('what was cured since runs, and so does what does not need what failed', async () => {
    expect(await active('ctl', 'glance-api')).toEqual(['active']);
    // Another service of the node with the full disk.
    expect(await active('cmp2', 'openvswitch-switch')).toEqual(['active']);
  });
});

describe('with all causes gone', () => {
  it('the next apply repairs, though the server is killed in the middle of it', async () => {
    await host('cmp2', 'umount /etc/pki');
    await cloud.lab.start('cmp');
    const runId = await begin();
    await action(runId, 'a step on net', a => a.node === 'net' && a.state === 'begin');
    await cloud.crashAndRestart();
    const { run, result } = await end(runId);
    expect(failuresOf(result)).toBe('');
    expect(result.blocked).toEqual([]);
    expect(run.state).toBe('done');
    expect(cloud.events.filter(e => e.type === 'cloud.resume').map(e => e.data['runId'])).toEqual([runId]);
    expect(await host('net', 'dpkg --audit')).toBe('');
  });

  it('nothing is left to do on any node', async () => {
    const plan = await cloud.plan();
    expect(plan.problems.filter(p => p.severity !== 'warn')).toEqual([]);
    expect(plan.nodes.filter(n => !n.reachable)).toEqual([]);
    expect(plan.actions.map(a => `${a.id}: ${a.reason}`)).toEqual([]);
    for (const name of ['ctl', 'net', 'cmp', 'cmp2'])
      expect((await cloud.client().get<{ state: string }>(`/nodes/${name}`)).state).toBe('ready');
  });

  it('and the cloud has all its services and agents', async () => {
    const report = await cloud.verify({ only: ['compute-services', 'network-agents'] });
    expect(report.steps.filter(s => s.state === 'failed').map(s => `${s.name}: ${s.message}`)).toEqual([]);
    expect(report.steps.filter(s => s.state === 'passed').map(s => s.name)).toEqual(
      expect.arrayContaining(['compute-services', 'network-agents']),
    );
  });
});
