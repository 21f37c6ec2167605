import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { bakeLayer } from '../../provisioner/image/bake.js';
import { mountsBelow } from '../../provisioner/lab/container.js';
import { findLab, labCpuSeconds, labDown, labPower, labRootfs, labStatus, labUp } from '../../provisioner/lab/index.js';
import { LAB_MARK } from '../../provisioner/lab/plan.js';
import { allPids, carries } from '../../provisioner/lab/procs.js';
import type { Lab } from '../../provisioner/lab/types.js';
import { type CloudLab, cloudCache, cloudLabUp } from '../harness/cloud-lab.js';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;
const suffix = process.pid.toString(36);
const base = mkdtempSync(join(tmpdir(), 'hal-lab-'));
const where = (name: string) => ({ name: `${name}-${suffix}`, dir: join(base, name) });
const NAMES = ['crash', 'lost', 'two', 'boot', 'host'];
const cache = cloudCache();

beforeAll(async () => {
  // The agent runs as compiled code, as it does for people.
  await run('npx', ['tsc', '-p', 'tsconfig.json'], { cwd: root }).catch(() => {});
  expect(existsSync(join(root, 'dist/provisioner/lab/agent.js'))).toBe(true);
});
afterAll(async () => {
  for (const name of NAMES) await labDown(where(name));
  rmSync(base, { recursive: true, force: true });
});

/** Everything on this machine that carries the lab's name. */
function traces(name: string): string[] {
  const full = where(name).name;
  const netns = existsSync('/run/netns') ? readdirSync('/run/netns') : [];
  return [
    ...allPids()
      .filter(pid => carries(pid, LAB_MARK, full))
      .map(pid => `process ${pid}`),
    ...netns.filter(file => file === `hal-${full}` || file.startsWith(`hal-${full}.`)),
    ...(existsSync(`/run/halligan-lab/${full}`) ? ['/run/halligan-lab'] : []),
    ...(existsSync(where(name).dir) ? [where(name).dir] : []),
    ...readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter(line => line.includes(where(name).dir)),
  ];
}
const pidOf = async (lab: Lab, node: string) =>
  (await labStatus({ name: lab.name })).nodes.find(n => n.name === node)!.pid!;
const text = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

describe('the virtual lab', () => {
  test('starts machines of both firmwares, keeps their consoles, counts their CPU seconds, and leaves nothing', async () => {
    const lab = await labUp({
      ...where('boot'),
      accel: 'tcg',
      nodes: [
        { name: 'b1', firmware: 'bios', memoryMiB: 512 },
        { name: 'u1', firmware: 'uefi', memoryMiB: 512, bmc: 'redfish', nics: 2, disks: [8, 4] },
      ],
    });
    expect((await labStatus(where('boot'))).nodes.map(node => node.power)).toEqual(['off', 'off']);
    await labPower(lab, 'b1', 'on');
    await vi.waitFor(() => expect(text(lab.nodes[0]!.consoleLog)).toMatch(/iPXE/), { timeout: 60_000, interval: 200 });
    // The network comes first: iPXE asks before anything was read from the disk.
    await vi.waitFor(() => expect(text(lab.nodes[0]!.consoleLog)).toMatch(/Configuring \(net0/), {
      timeout: 60_000,
      interval: 200,
    });
    await labPower(lab, 'b1', 'off');
    await labPower(lab, 'u1', 'on');
    await vi.waitFor(() => expect(text(lab.nodes[1]!.consoleLog)).toMatch(/PXE over IPv4/), {
      timeout: 90_000,
      interval: 200,
    });
    const before = (await labCpuSeconds(lab))['u1']!;
    expect(before).toBeGreaterThan(0.5);
    await labPower(lab, 'u1', 'cycle');
    const status = (await labStatus(where('boot'))).nodes[1]!;
    expect(status).toMatchObject({ power: 'on', lives: 2, ended: 'power cycle by the lab' });
    // The seconds of the first life are not lost with it.
    expect((await labCpuSeconds(lab))['u1']!).toBeGreaterThanOrEqual(before);
    expect(text(join(lab.dir, 'site.yaml'))).toContain('interface: br0');
    await labDown(where('boot'));
    expect(traces('boot')).toEqual([]);
  });

  test('dies with its agent, and is cleaned up by the next start', async () => {
    const nodes = [{ name: 'n1', memoryMiB: 256 }];
    const lab = await labUp({ ...where('crash'), accel: 'tcg', nodes });
    await labPower(lab, 'n1', 'on');
    const qemu = await pidOf(lab, 'n1');
    const agent = JSON.parse(text(join(lab.runDir, 'agent.json'))).pid as number;
    process.kill(agent, 'SIGKILL');
    await vi.waitFor(() => expect(allPids().filter(pid => carries(pid, LAB_MARK, lab.name))).toEqual([]), {
      timeout: 5000,
    });
    expect(existsSync(`/proc/${qemu}/exe`)).toBe(false);
    expect((await labStatus(where('crash'))).running).toBe(false);
    await labUp({ ...where('crash'), accel: 'tcg', nodes });
    expect((await labStatus(where('crash'))).running).toBe(true);
    await labDown(where('crash'));
    expect(traces('crash')).toEqual([]);
  });

  test('is removed by its name alone when all state files are gone', async () => {
    const lab = await labUp({ ...where('lost'), accel: 'tcg', nodes: [{ name: 'n1', memoryMiB: 256 }] });
    await labPower(lab, 'n1', 'on');
    // A server that somebody started inside, without the lab's mark.
    const server = spawn('ip', ['netns', 'exec', lab.netns, 'sleep', '600'], { stdio: 'ignore' });
    const ended = new Promise(resolve => server.once('exit', resolve));
    rmSync(lab.runDir, { recursive: true });
    rmSync(lab.dir, { recursive: true });
    expect(findLab(where('lost'))).toBeNull();
    const result = await labDown({ name: lab.name });
    expect(result.processes).toBeGreaterThanOrEqual(4);
    await ended;
    expect(traces('lost')).toEqual([]);
  });

  test('stands beside another lab, and leaves foreign files alone', async () => {
    const one = await labUp({ ...where('two'), accel: 'tcg', nodes: [{ name: 'n1', memoryMiB: 256 }] });
    const other = await labUp({ ...where('lost'), accel: 'tcg', nodes: [{ name: 'n1', memoryMiB: 256 }] });
    writeFileSync(join(one.dir, 'notes.txt'), 'mine');
    await labDown(where('two'));
    expect(readdirSync(one.dir)).toEqual(['notes.txt']);
    expect((await labStatus(where('lost'))).running).toBe(true);
    await labPower(other, 'n1', 'on');
    await expect(labPower(other, 'nobody', 'on')).rejects.toMatchObject({ problem: { code: 'lab-failed' } });
    await labDown(where('lost'));
    // A second time is no error.
    expect(await labDown(where('lost'))).toEqual({ processes: 0, namespace: false, files: false });
    rmSync(one.dir, { recursive: true });
    expect(traces('two')).toEqual([]);
  });

  test('boots container hosts with real systemd and sshd under known host keys', async () => {
    const key = join(base, 'id');
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
    const lab = await labUp({
      ...where('host'),
      kind: 'container',
      cacheDir: cache.lab,
      sshKeys: [readFileSync(`${key}.pub`, 'utf8').trim()],
      nodes: [{ name: 'h1' }, { name: 'h2' }],
    });
    for (const host of lab.hosts) {
      const known = join(base, host.name);
      writeFileSync(known, `${host.address} ${host.hostKey}\n`);
      const ssh = [
        'ssh',
        '-i',
        key,
        '-o',
        `UserKnownHostsFile=${known}`,
        '-o',
        'BatchMode=yes',
        `root@${host.address}`,
      ];
      const { stdout } = await run('ip', [
        ...['netns', 'exec', lab.netns, ...ssh],
        'hostname; systemctl is-system-running --wait; ls /sys/class/net; . /etc/os-release; echo $ID',
      ]).catch(error => error as { stdout: string });
      expect(stdout.trim().split('\n')).toEqual([host.name, 'running', 'eth0', 'lo', 'debian']);
    }
    await labDown(where('host'));
    expect(traces('host')).toEqual([]);
  });
});

describe('hosts for a cloud', () => {
  let cloud: CloudLab;
  beforeAll(async () => {
    cloud = await cloudLabUp({
      name: `cloud-${suffix}`,
      layers: [{ name: 'small', on: null, packages: ['memcached'] }],
      hosts: [
        { name: 'ctl', layer: 'small' },
        { name: 'net' },
        { name: 'cmp', layer: 'small', packages: ['jq'] },
        { name: 'late', layer: 'small', start: false },
      ],
    });
  });
  afterAll(() => cloud?.down());
  const inside = (...argv: string[]) => run('ip', ['netns', 'exec', cloud.lab.netns, ...argv]);

  test('have the packages of their layers, and nothing of them runs', async () => {
    const state = (host: string) =>
      cloud.ssh(
        host,
        `systemctl is-system-running --wait
        dpkg-query -Wf '\${Package}\\n' memcached jq 2>/dev/null
        systemctl is-enabled memcached 2>/dev/null
        pgrep -c memcached
        wc -c </etc/machine-id
        ls /usr/sbin/policy-rc.d 2>/dev/null; true`,
      );
    expect((await state('ctl')).split('\n')).toEqual(['running', 'memcached', 'disabled', '0', '33']);
    expect((await state('cmp')).split('\n')).toEqual(['running', 'jq', 'memcached', 'disabled', '0', '33']);
    expect((await state('net')).split('\n')).toEqual(['running', '0', '33']);
    // The layer is shared, what is written is not.
    await cloud.ssh('ctl', 'systemctl enable --now memcached');
    expect(await cloud.ssh('cmp', 'pgrep -c memcached; true')).toBe('0');
  });

  test('reach each other by management and tunnel network, and a router outside', async () => {
    await cloud.ssh('ctl', 'ping -c1 -W5 cmp && ping -c1 -W5 -I eth2 10.96.0.152');
    expect(await cloud.ssh('net', 'ip -4 -o addr show dev eth1; cat /sys/class/net/eth1/operstate')).toBe('up');
    await cloud.ssh('net', 'ip addr add 10.97.0.50/24 dev eth1 && ping -c1 -W5 10.97.0.1');
    // From where the tests are, and routed from a host that is not in that network.
    await cloud.ssh('ctl', 'ping -c1 -W5 10.97.0.50');
    for (const nic of ['eth1', 'eth2'])
      expect(await cloud.ssh('cmp', `ethtool -k ${nic} | grep tx-checksumming`)).toBe('tx-checksumming: off');
    expect((await inside('ethtool', '-k', 've1-2')).stdout).toContain('tx-checksumming: off');
    expect(await cloud.ssh('cmp', 'ls /dev/net/tun /dev/loop-control; ls /dev/kvm 2>&1 | tail -c 27')).toContain(
      'No such file or directory',
    );
  });

  test('lose their power and come back with their disk, without what only lived in the kernel', async () => {
    await cloud.ssh(
      'net',
      'truncate -s 400M /srv/disk && mkfs.ext4 -q /srv/disk && mount -o loop /srv/disk /mnt && ip link add br-x type bridge && nft add table inet lost && sync',
    );
    const boot = await cloud.ssh('net', 'cat /proc/sys/kernel/random/boot_id');
    await cloud.stop('net');
    const power = async () => (await labStatus({ name: cloud.lab.name })).hosts.map(host => host.power);
    expect(await power()).toEqual(['on', 'off', 'on', 'off']);
    // Loop devices are the machine's: they went with the host.
    expect((await run('losetup', ['-a'])).stdout).not.toContain('/srv/disk');
    await cloud.stop('net');
    await cloud.start('net');
    await cloud.start('net');
    await cloud.start('late');
    expect(await power()).toEqual(['on', 'on', 'on', 'on']);
    const back = await cloud.ssh(
      'net',
      'cat /proc/sys/kernel/random/boot_id; ls /srv; ls /mnt; ls /sys/class/net; nft list tables',
    );
    expect(back.split('\n').slice(1)).toEqual(['disk', 'eth0', 'eth1', 'eth2', 'lo']);
    expect(back.split('\n')[0]).not.toBe(boot);
    await cloud.ssh('late', 'ping -c1 -W5 -I eth2 10.96.0.151');
  });

  test('reboot by themselves, with the same addresses', async () => {
    const before = await cloud.ssh('late', 'ip -4 -o addr; cat /proc/sys/kernel/random/boot_id');
    await cloud.ssh('late', 'systemctl reboot').catch(() => {});
    await vi.waitFor(
      async () => {
        const after = await cloud.ssh('late', 'ip -4 -o addr; cat /proc/sys/kernel/random/boot_id');
        expect(after.split('\n').slice(0, -1)).toEqual(before.split('\n').slice(0, -1));
        expect(after).not.toBe(before);
      },
      { timeout: 60_000, interval: 500 },
    );
  });

  test('are gone as a whole', async () => {
    await cloud.ssh('net', 'losetup -f /srv/disk');
    await cloud.down();
    expect(allPids().filter(pid => carries(pid, LAB_MARK, cloud.lab.name))).toEqual([]);
    expect(readdirSync('/run/netns').filter(file => file.startsWith(cloud.lab.netns))).toEqual([]);
    expect(mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), cloud.dir)).toEqual([]);
    expect((await run('losetup', ['-a'])).stdout).not.toContain('/srv/disk');
    expect(existsSync(cloud.dir)).toBe(false);
  });
});

describe('a baked layer', () => {
  const dir = join(base, 'layers');
  const options = async (packages: string[], log: string) => ({
    base: await labRootfs({ cacheDir: cache.lab }),
    lowers: [],
    packages,
    cacheDir: dir,
    logFile: join(base, log),
  });
  const problemOf = (promise: Promise<unknown>) =>
    promise.then(
      () => undefined,
      error => error.problem ?? error,
    );
  /** Nothing of a bake is mounted on this machine, at any time; nor are its folders left. */
  const left = () => ({
    mounts: mountsBelow(readFileSync('/proc/self/mountinfo', 'utf8'), dir),
    folders: readdirSync(dir).filter(name => name.startsWith('.')),
  });

  test('is baked once by two who want it at the same time', async () => {
    const [one, two] = await Promise.all([
      options(['jq'], 'one.log').then(bakeLayer),
      options(['jq'], 'two.log').then(bakeLayer),
    ]);
    expect(one.dir).toBe(two.dir);
    expect([one.cached, two.cached].sort()).toEqual([false, true]);
    expect(existsSync(join(one.dir, 'usr/bin/jq'))).toBe(true);
    expect(existsSync(join(one.dir, 'usr/sbin/policy-rc.d'))).toBe(false);
    expect(left()).toEqual({ mounts: [], folders: [] });
    const again = await bakeLayer(await options(['jq'], 'three.log'));
    expect(again).toEqual({ ...one, cached: true });
  });

  test('says what apt says when it cannot be, and leaves nothing', async () => {
    const problem = await problemOf(bakeLayer(await options(['no-such-package-at-all'], 'bad.log')));
    expect(problem).toMatchObject({ code: 'image-build' });
    expect(problem.message).toMatch(/^apt-get failed for .*no-such-package-at-all.*bad\.log/);
    expect(left()).toEqual({ mounts: [], folders: [] });
  });

  test('that is aborted leaves nothing, and can be baked later', async () => {
    const stop = new AbortController();
    const problem = await problemOf(
      bakeLayer({
        ...(await options(['memcached'], 'aborted.log')),
        signal: stop.signal,
        onProgress: line => {
          if (line.startsWith('installing')) setTimeout(() => stop.abort(), 200);
        },
      }),
    );
    expect(problem).toMatchObject({ code: 'image-build' });
    expect(left()).toEqual({ mounts: [], folders: [] });
    expect((await bakeLayer(await options(['memcached'], 'later.log'))).cached).toBe(false);
  });
});
