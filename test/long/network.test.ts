/** Static addresses, a bond and VLANs of the site file, between two real machines with two NICs each. */
import { execFile, spawn } from 'node:child_process';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import type { Lab } from '../../provisioner/lab/index.js';
import { SECOND_BRIDGE } from '../../provisioner/lab/plan.js';
import { IMAGE, type Rack, rackUp } from '../harness/rack.js';

const run = promisify(execFile);
const VLAN = 120;
const OF = {
  // The address of the boot network is also the static one …
  n01: { boot: '10.99.0.31', management: '10.99.0.31', vlan: '10.97.120.31' },
  // … or another: the node is then where it says it is.
  n02: { boot: '10.99.0.32', management: '10.99.0.72', vlan: '10.97.120.32' },
};

/** n01: both NICs in a bond, a VLAN on it. n02: a named NIC, and a VLAN on the other NIC. */
function interfaces(name: string, [first, second]: readonly string[]): object[] {
  const own = OF[name as keyof typeof OF];
  const management = { addresses: [`${own.management}/24`], dns: ['10.99.0.1'] };
  return name === 'n01'
    ? [
        { name: 'bond0', bond: { macs: [first, second], mode: 'active-backup' }, ...management },
        { name: 'storage', vlan: { id: VLAN, link: 'bond0' }, addresses: [`${own.vlan}/24`] },
      ]
    : [
        { name: 'mgmt0', mac: first, ...management },
        { name: 'data0', mac: second, mtu: 1600 },
        { name: 'storage', vlan: { id: VLAN, link: 'data0' }, addresses: [`${own.vlan}/24`] },
      ];
}

let rack: Rack;
beforeAll(async () => {
  rack = await rackUp(
    'long-net',
    ['n01', 'n02'].map(name => ({ name, firmware: 'bios', disks: [8], nics: 2, memoryMiB: 1024, bmc: 'redfish' })),
    {
      prepare: joinBridges,
      siteText(text, lab) {
        const site = parse(text) as { nodes: { name: string }[] };
        return stringify({
          ...site,
          nodes: site.nodes.map(node => ({
            ...node,
            address: OF[node.name as keyof typeof OF].boot,
            install: { interfaces: interfaces(node.name, lab.nodes.find(n => n.name === node.name)!.macs) },
          })),
        });
      },
    },
  );
});
afterAll(() => rack?.down());

/** Both bridges are one segment, as two switches with a trunk between them are; a bond needs that. */
async function joinBridges(lab: Lab): Promise<void> {
  const ip = (...args: string[]) => run('ip', ['-n', lab.netns, ...args]);
  await ip('link', 'add', 'trunk0', 'type', 'veth', 'peer', 'name', 'trunk1');
  await ip('link', 'set', 'trunk0', 'master', lab.bridge, 'up');
  await ip('link', 'set', 'trunk1', 'master', SECOND_BRIDGE, 'up');
}

/** Takes the cable out of a NIC, or puts it back. */
function cable(node: string, nic: number, up: boolean): Promise<void> {
  const socket = connect(join(rack.lab.nodes.find(n => n.name === node)!.runDir, 'qmp-user.sock'));
  return new Promise((resolve, reject) => {
    let answers = '';
    socket.setEncoding('utf8').setTimeout(10_000, () => socket.destroy(new Error('QMP does not answer')));
    socket.on('error', reject);
    socket.on('data', (text: string) => {
      answers += text;
      const done = (answers.match(/"return"/g) ?? []).length;
      if (answers.includes('"error"')) socket.destroy(new Error(answers));
      else if (done === 2) {
        socket.destroy();
        resolve();
      }
    });
    socket.write(
      `{"execute":"qmp_capabilities"}\n{"execute":"set_link","arguments":{"name":"nic${nic}","up":${up}}}\n`,
    );
  });
}

/** Frames that pass a NIC of the namespace and match, while `work` goes on. */
async function watch(tap: string, filter: string, work: () => Promise<unknown>): Promise<string[]> {
  const args = ['netns', 'exec', rack.lab.netns, 'tcpdump', '-i', tap, '-n', '-e', '-l', '--immediate-mode', filter];
  const dump = spawn('ip', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  // Not `exit`: what it printed may come after that.
  const closed = new Promise(r => dump.once('close', r));
  let lines = '';
  let heardMs = 0;
  dump.stdout.on('data', data => {
    lines += data;
    heardMs = Date.now();
  });
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('tcpdump does not listen')), 20_000);
    dump.stderr.on('data', data => {
      if (!String(data).includes('listening on')) return;
      clearTimeout(late);
      resolve();
    });
  });
  try {
    await work();
    // On a busy machine it is behind; what it has not read by then is lost.
    do await new Promise(r => setTimeout(r, 500));
    while (Date.now() - heardMs < 500);
  } finally {
    dump.kill('SIGINT');
    await closed;
  }
  return lines.split('\n').filter(line => line.includes('>'));
}

/** The greeting of the other node's SSH server, from one node to the other: both ways, by TCP. */
const greet = (from: string, address: string) =>
  rack.ssh(from, `timeout 20 bash -c 'read -r line </dev/tcp/${address}/22; echo "$line"'`);

describe('two machines with two NICs each', () => {
  it('are installed with the interfaces of the site file, and found at their static addresses', async () => {
    for (const name of ['n01', 'n02']) await rack.act(name, 'inspect');
    for (const name of ['n01', 'n02']) {
      const node = await rack.reach(name, 'available', 420);
      expect(node.status.inventory?.nics.map(nic => nic.mac)).toEqual(
        expect.arrayContaining([...rack.lab.nodes.find(n => n.name === name)!.macs]),
      );
      await rack.act(name, 'claim');
      await rack.act(name, 'install', { image: IMAGE });
    }
    for (const name of ['n01', 'n02'] as const) {
      const node = await rack.reach(name, 'installed', 600);
      expect(node.status.os?.address).toBe(OF[name].management);
      expect(await rack.ssh(name, 'hostname')).toBe(name);
    }
  });

  it('have a bond with both NICs, named NICs and tagged VLANs, and nothing by DHCP', async () => {
    const [first, second] = rack.lab.nodes.find(n => n.name === 'n01')!.macs;
    const bond = await rack.ssh('n01', 'cat /proc/net/bonding/bond0');
    expect(bond).toContain('Bonding Mode: fault-tolerance (active-backup)');
    expect(bond).toContain(`Permanent HW addr: ${first}`);
    expect(bond).toContain(`Permanent HW addr: ${second}`);
    expect(await rack.ssh('n01', 'cat /sys/class/net/bond0/address')).toBe(first);
    expect(await rack.ssh('n02', 'cat /sys/class/net/data0/address')).toBe(rack.lab.nodes[1]!.macs[1]);
    expect(await rack.ssh('n02', 'cat /sys/class/net/data0/mtu')).toBe('1600');
    for (const [name, own] of Object.entries(OF)) {
      expect(await rack.ssh(name, 'ip -d link show storage')).toContain(`vlan protocol 802.1Q id ${VLAN}`);
      const addresses = await rack.ssh(name, "ip -o -4 addr show scope global | awk '{ print $4 }' | sort");
      expect(addresses.split('\n').sort()).toEqual([`${own.management}/24`, `${own.vlan}/24`].sort());
      expect(await rack.ssh(name, 'ip -o -4 addr show dynamic | wc -l')).toBe('0');
    }
  });

  it('reach each other over the VLAN, with tagged frames on the second bridge', async () => {
    const tap = rack.lab.nodes.find(n => n.name === 'n02')!.taps[1]!;
    const tagged = await watch(tap, `vlan ${VLAN}`, async () => {
      expect(await greet('n01', OF.n02.vlan)).toMatch(/^SSH-2\.0/);
      expect(await greet('n02', OF.n01.vlan)).toMatch(/^SSH-2\.0/);
    });
    expect(tagged.length).toBeGreaterThan(4);
    const plain = rack.lab.nodes.find(n => n.name === 'n02')!.taps[0]!;
    // What goes to all reaches all, also in a segment of two bridges: neighbour discovery, for example.
    const strays = await watch(plain, `not ether multicast and vlan ${VLAN}`, () => greet('n01', OF.n02.vlan));
    expect(strays).toEqual([]);
  });

  it('resolve each other by the names of the site', async () => {
    expect(await rack.ssh('n01', 'getent hosts n02 | cut -d" " -f1')).toBe(OF.n02.management);
    expect(await rack.ssh('n02', 'getent hosts n01 | cut -d" " -f1')).toBe(OF.n01.management);
  });

  it('stay together when the cable of either NIC of the bond is pulled', async () => {
    for (const [pulled, left] of [
      [0, 1],
      [1, 0],
    ] as const) {
      await cable('n01', pulled, false);
      await new Promise(r => setTimeout(r, 2000));
      expect(await rack.ssh('n01', 'cat /sys/class/net/bond0/bonding/active_slave')).toBe(`bond0p${left}`);
      const own = rack.lab.nodes.find(n => n.name === 'n01')!.taps[left]!;
      const tagged = await watch(own, `vlan ${VLAN}`, async () => {
        expect(await greet('n02', OF.n01.vlan)).toMatch(/^SSH-2\.0/);
      });
      expect(tagged.length).toBeGreaterThan(2);
      await cable('n01', pulled, true);
      await new Promise(r => setTimeout(r, 2000));
    }
  });
});
