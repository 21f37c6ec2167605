import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { findLab, labCpuSeconds, labDown, labPower, labStatus, labUp } from '../../provisioner/lab/index.js';
import { LAB_MARK } from '../../provisioner/lab/plan.js';
import { allPids, carries } from '../../provisioner/lab/procs.js';
import type { Lab } from '../../provisioner/lab/types.js';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;
const suffix = process.pid.toString(36);
const base = mkdtempSync(join(tmpdir(), 'hal-lab-'));
const where = (name: string) => ({ name: `${name}-${suffix}`, dir: join(base, name) });
const NAMES = ['crash', 'lost', 'two', 'boot', 'host'];

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
