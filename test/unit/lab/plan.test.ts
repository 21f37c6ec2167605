import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { devicesBelow, loopsOn, mountsBelow } from '../../../provisioner/lab/container.js';
import { chassisScript, lanConf } from '../../../provisioner/lab/ipmisim.js';
import { planLab } from '../../../provisioner/lab/plan.js';
import { alive, carries, identify, ownLine, parseStat, processStat } from '../../../provisioner/lab/procs.js';
import { bootIndexes, qemuArgs } from '../../../provisioner/lab/qemu.js';
import { rootfsArgv } from '../../../provisioner/lab/rootfs.js';
import { labSite } from '../../../provisioner/lab/site.js';
import type { LabNodeSpec, LabSpec } from '../../../provisioner/lab/types.js';
import { loadSiteOrThrow } from '../../../provisioner/site/load.js';

const TCG = { accel: 'tcg', reason: 'for the test' } as const;
const plan = (nodes: LabNodeSpec[], more: Partial<LabSpec> = {}) =>
  planLab({ dir: '/var/lib/halligan/lab', name: 'rack', nodes, ...more }, TCG);

describe('the plan of a lab', () => {
  test('gives each node names, addresses and serials of its own', () => {
    const lab = plan([{ name: 'n1' }, { name: 'n2', nics: 2, disks: [8, 20] }]);
    const all = lab.nodes.flatMap(n => [
      n.uuid,
      n.serial,
      n.bmc.ip,
      n.console,
      ...n.macs,
      ...n.taps,
      ...n.disks.map(d => d.serial),
    ]);
    expect(new Set(all).size).toBe(all.length);
    expect(lab.nodes[1]!.disks.map(d => d.sizeGiB)).toEqual([8, 20]);
  });

  test('has machines and container hosts side by side, numbered together so that nothing of theirs is the same', () => {
    const lab = plan([
      { name: 'ctl', kind: 'container', nics: 3 },
      { name: 'vol', nics: 3 },
      { name: 'net', kind: 'container' },
    ]);
    expect([lab.nodes.map(n => n.name), lab.hosts.map(h => h.name)]).toEqual([['vol'], ['ctl', 'net']]);
    const macs = [...lab.nodes.flatMap(n => n.macs), ...lab.hosts.flatMap(h => h.nics.map(nic => nic.mac))];
    expect(new Set(macs).size).toBe(3 + 3 + 1);
    expect(lab.hosts.map(h => h.address)).toEqual(['10.99.0.150', '10.99.0.152']);
    expect(() =>
      plan([
        { name: 'ctl', kind: 'container' },
        { name: 'vol', layers: ['/x'] },
      ]),
    ).toThrow(/"vol"/);
  });

  test('is the same again for the same lab, and another for another', () => {
    expect(plan([{ name: 'n1' }])).toEqual(plan([{ name: 'n1' }]));
    expect(plan([{ name: 'n1' }]).nodes[0]!.uuid).not.toBe(plan([{ name: 'n1' }], { name: 'other' }).nodes[0]!.uuid);
  });

  test.each<[string, LabNodeSpec[], Partial<LabSpec>]>([
    ['a lab name that leaves its folder', [{ name: 'n1' }], { name: '../../etc' }],
    ['a lab name with a dot, which separates hosts', [{ name: 'n1' }], { name: 'a.b' }],
    ['no node', [], {}],
    ['more nodes than addresses', Array.from({ length: 65 }, (_, i) => ({ name: `n${i}` })), {}],
    ['two nodes of one name', [{ name: 'n1' }, { name: 'n1' }], {}],
    ['a node name with a comma, which QEMU splits at', [{ name: 'n1,id=x' }], {}],
    ['a disk of no size', [{ name: 'n1', disks: [0] }], {}],
    ['half a disk', [{ name: 'n1', disks: [0.5] }], {}],
    ['no memory', [{ name: 'n1', memoryMiB: 1 }], {}],
    ['a socket path longer than the kernel takes', [{ name: 'n'.repeat(63) }], { name: 'a-lab-with-long-name' }],
    ['a fourth NIC of a machine', [{ name: 'n1', nics: 4 as 3 }], {}],
    ['layers under a machine', [{ name: 'n1', layers: ['/l'] }], {}],
    ['a machine that is not to be started: none is', [{ name: 'n1', start: false }], {}],
    ['HTTP boot of a BIOS', [{ name: 'n1', netboot: 'http' }], {}],
    ['in-band IPMI without IPMI', [{ name: 'n1', bmc: 'redfish', kcs: true }], {}],
  ])('refuses %s', (_what, nodes, more) => {
    expect(() => plan(nodes, more)).toThrow(ProblemError);
  });
});

describe('the container hosts of a lab', () => {
  const hosts = (nodes: LabNodeSpec[]) => plan(nodes, { kind: 'container' }).hosts;

  test('have up to three NICs: management, outside without an address, tunnels with the same last number', () => {
    const [one, three] = hosts([{ name: 'h1' }, { name: 'h2', nics: 3 }]);
    expect(one!.nics.map(nic => nic.name)).toEqual(['eth0']);
    expect(three!.nics.map(nic => [nic.name, nic.bridge, nic.address])).toEqual([
      ['eth0', 'br0', '10.99.0.151'],
      ['eth1', 'br1', null],
      ['eth2', 'br2', '10.96.0.151'],
    ]);
    expect(three).toMatchObject({ address: '10.99.0.151', mac: three!.nics[0]!.mac });
  });

  test('share no MAC and no device', () => {
    const nics = hosts(Array.from({ length: 64 }, (_, i) => ({ name: `h${i}`, nics: 3 }))).flatMap(host => host.nics);
    expect(new Set(nics.map(nic => nic.mac)).size).toBe(64 * 3);
    expect(new Set(nics.map(nic => nic.veth)).size).toBe(64 * 3);
    // IFNAMSIZ
    expect(nics.every(nic => nic.veth.length < 16)).toBe(true);
  });

  test('have the packages of an installed server, and none that boots one', () => {
    const packages = rootfsArgv()
      .argv.find(arg => arg.startsWith('--include='))!
      .slice('--include='.length)
      .split(',');
    expect(packages).toEqual(
      expect.arrayContaining(['openssh-server', 'python3', 'nftables', 'ethtool', 'systemd-sysv']),
    );
    expect(packages.filter(name => /^(cloud-|linux-|grub|initramfs)/.test(name))).toEqual([]);
  });
});

describe('the machine of a lab', () => {
  test('boots the network first by BIOS, the disk first when the BMC says so', () => {
    const node = plan([{ name: 'n1', nics: 2, disks: [8, 8] }]).nodes[0]!;
    expect(bootIndexes(node, 'none')).toEqual({ nics: [1, 2], disks: [3, 4] });
    expect(bootIndexes(node, 'pxe')).toEqual(bootIndexes(node, 'none'));
    expect(bootIndexes(node, 'hdd')).toEqual({ disks: [1, 2], nics: [3, 4] });
  });

  test('leaves the boot order to OVMF, with its own PXE client', () => {
    const lab = plan([{ name: 'n1', firmware: 'uefi' }]);
    const args = qemuArgs(lab, lab.nodes[0]!, 'hdd').join(' ');
    expect(args).not.toContain('bootindex');
    expect(args).toContain('romfile=');
    expect(args).toContain('OVMF_CODE');
    expect(args).not.toContain('PXESupport');
  });

  test('has no PXE client left where the firmware boots by HTTP', () => {
    const lab = plan([{ name: 'n1', firmware: 'uefi', netboot: 'http' }]);
    const args = qemuArgs(lab, lab.nodes[0]!, 'none').join(' ');
    expect(args).toContain('-fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n');
    expect(args).toContain('-fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n');
  });

  test('has serial numbers, in-band IPMI only when asked for, and KVM only when chosen', () => {
    const lab = plan([{ name: 'n1' }, { name: 'n2', kcs: true }]);
    const [first, second] = lab.nodes.map(node => qemuArgs(lab, node, 'none').join(' '));
    expect(first).toContain(`serial=${lab.nodes[0]!.serial}`);
    expect(first).not.toContain('ipmi');
    expect(second).toContain('isa-ipmi-kcs');
    expect(first).toContain('tcg');
    expect(qemuArgs({ ...lab, accel: 'kvm' }, lab.nodes[0]!, 'none').slice(4, 8)).toEqual([
      '-accel',
      'kvm',
      '-cpu',
      'host',
    ]);
  });

  test('has more room for translated code with more memory, up to a bound', () => {
    const lab = plan([
      { name: 'n1', memoryMiB: 512 },
      { name: 'n2', memoryMiB: 6144 },
      { name: 'n3', memoryMiB: 32_768 },
    ]);
    const room = lab.nodes.map(node => /tb-size=(\d+)/.exec(qemuArgs(lab, node, 'none').join(' '))?.[1]);
    expect(room).toEqual(['256', '1536', '2000']);
  });

  test('has virtio disks, or NVMe ones where they are asked for, in the same boot order', () => {
    const lab = plan([{ name: 'n1' }, { name: 'n2', diskBus: 'nvme' }]);
    const [first, second] = lab.nodes.map(node => qemuArgs(lab, node, 'none').join(' '));
    expect(first).toMatch(/virtio-blk-pci,id=disk0,drive=d0,serial=\w+D0,bootindex=2/);
    expect(second).toMatch(/ nvme,id=disk0,drive=d0,serial=\w+D0,bootindex=2/);
  });

  test('carries paths with a comma to QEMU unbroken', () => {
    const lab = plan([{ name: 'n1' }], { dir: '/srv/a,readonly=on' });
    expect(qemuArgs(lab, lab.nodes[0]!, 'none').join(' ')).toContain('file=/srv/a,,readonly=on/');
  });
});

describe('the files of a lab', () => {
  test('are a site that the server accepts, with references in place of passwords', () => {
    const lab = {
      ...plan([{ name: 'n1' }, { name: 'n2', bmc: 'redfish' }]),
      tlsFingerprint: `sha256:${'a'.repeat(64)}`,
    };
    const text = labSite(lab);
    const loaded = loadSiteOrThrow(text, 'site.yaml');
    expect(loaded.site.nodes.map(node => node.bmc?.driver)).toEqual(['ipmi', 'redfish']);
    expect(loaded.site.nodes[1]!.bmc?.tls_fingerprint).toBe(lab.tlsFingerprint);
    expect(loaded.site.packages.uplink).toBe(`unix:${lab.runDir}/uplink.sock`);
    expect(parse(text).nodes[0].bmc.password).toBe('file:/var/lib/halligan/lab/bmc-password');
  });

  test('name no nodes when they shall be discovered', () => {
    expect(loadSiteOrThrow(labSite(plan([{ name: 'n1' }], { siteNodes: false })), 'site.yaml').site.nodes).toEqual([]);
  });

  test('quote what goes into a shell script', () => {
    const lab = plan([{ name: 'n1' }], { dir: "/srv/it's $(id)" });
    expect(chassisScript({ ...lab, runDir: "/run/it's $(id)" }, lab.nodes[0]!)).toContain(
      `'/run/it'\\''s $(id)/agent.sock'`,
    );
    expect(lanConf(lab, lab.nodes[0]!, 'pw')).toContain('user 2 true "admin" "pw" admin');
  });
});

describe('what a lab left behind', () => {
  test('is told by start time, so that a recycled pid is not ours', () => {
    const me = identify(process.pid)!;
    expect(alive(me)).toBe(true);
    expect(alive({ ...me, start: `${Number(me.start) + 1}` })).toBe(false);
    expect(processStat(process.pid)!.cpuSeconds).toBeGreaterThan(0);
    expect(ownLine().has(process.ppid)).toBe(true);
  });

  test('is found by its mark in the environment, whole and exact', () => {
    const [name, value] = readFileSync('/proc/self/environ', 'utf8').split('\0')[0]!.split(/=(.*)/s) as [
      string,
      string,
    ];
    expect(carries(process.pid, name, value)).toBe(true);
    expect(carries(process.pid, name, `${value}x`)).toBe(false);
    expect(carries(process.pid, name.slice(1), value)).toBe(false);
  });

  test('reads the state of a process whose name has parentheses', () => {
    const text = `7 (a) b (c) S 3 ${'0 '.repeat(9)}150 50 0 0 20 0 1 0 4711 0`;
    expect(parseStat(text)).toEqual({ state: 'S', ppid: 3, start: '4711', cpuSeconds: 2 });
    expect(parseStat('')).toBeNull();
  });

  test('unmounts only what is mounted below the lab, deepest first', () => {
    const line = (path: string) => `36 35 98:0 / ${path} rw - overlay overlay rw`;
    const table = ['/lab/nodes', '/lab/nodes/h1/root', '/lab/nodes/h1/root/x\\040y', '/lab/nodes-2', '/']
      .map(line)
      .join('\n');
    expect(mountsBelow(table, '/lab/nodes')).toEqual(['/lab/nodes/h1/root/x y', '/lab/nodes/h1/root', '/lab/nodes']);
  });

  test('knows the loop devices on its own disks only', () => {
    const table = [
      '36 35 0:47 / /lab/nodes/h1/root rw - overlay overlay rw',
      '37 35 0:48 / /lab/nodes-2/h1/root rw - overlay overlay rw',
    ].join('\n');
    const devices = devicesBelow(table, '/lab/nodes');
    expect([...devices]).toEqual(['0:47']);
    const loop = (name: string, device: string | null) => ({ name, 'back-maj:min': device });
    // losetup pads the column also in JSON.
    const json = JSON.stringify({
      loopdevices: [loop('/dev/loop0', '       0:47 '), loop('/dev/loop1', '0:48'), loop('/dev/loop2', null)],
    });
    expect(loopsOn(json, devices)).toEqual(['/dev/loop0']);
    expect(loopsOn('', devices)).toEqual([]);
  });
});
