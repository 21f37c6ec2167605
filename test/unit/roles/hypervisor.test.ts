import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type CloudModel, nodesWith } from '../../../installer/model/cloud.js';
import { initiatorName, virtualization, virtualizationRefusal } from '../../../roles/hypervisor/service.js';
import { desired, filesOf, fourNodes, inContainer, model, nodeInput, oneNode, settings } from './fixture.js';

const nodeOf = (cloud: CloudModel, name: string) => cloud.nodes.find(n => n.name === name)!;

it('has an account nova with a shell, in which disks are copied, where the package gives it none', () => {
  const shell = desired().placed.find(p => p.key === 'cmp/hypervisor/command:shell')!.resource;
  if (shell.kind !== 'command') throw new Error('no command');
  const judge = (line: string) => spawnSync('sh', ['-c', `getent() { echo '${line}'; }\n${shell.check}`]).status;
  expect(judge('nova:x:64060:64060:Nova:/var/lib/nova:/bin/false')).toBe(1);
  expect(judge('nova:x:64060:64060:Nova:/var/lib/nova:/usr/sbin/nologin')).toBe(1);
  expect(judge('nova:x:64060:64060:Nova:/var/lib/nova:/bin/sh')).toBe(0);
});

describe('a hypervisor', () => {
  it('reads one file, without a database', async () => {
    const { content } = filesOf(desired(), 'cmp').get('/etc/nova/nova-compute.conf')!;
    await expect(content).toMatchFileSnapshot('golden/nova-compute.conf.golden');
    expect(content).not.toMatch(/^\[(api_)?database\]/m);
  });

  it('shows screens and takes migrations over TLS only, from other hypervisors only', async () => {
    const files = filesOf(desired(), 'cmp');
    await expect(files.get('/etc/libvirt/qemu.conf')!.content).toMatchFileSnapshot('golden/qemu.conf.golden');
    expect(files.get('/etc/libvirt/libvirtd.conf')!.content).toContain(
      'tls_allowed_dn_list = [ "O=Halligan,OU=hypervisor,CN=*" ]',
    );
    const socket = files.get('/etc/systemd/system/libvirtd-tls.socket.d/halligan.conf')!.content;
    expect(socket).toMatch(/ListenStream=\nListenStream=10\.99\.0\.13:16514\n/);
  });

  it('is not restarted when another comes or goes: its own files name no peer', () => {
    const one = filesOf(desired(), 'cmp').get('/etc/libvirt/libvirtd.conf');
    const more = model([...fourNodes(), nodeInput('cmp2', '10.99.0.15', ['compute'])]);
    expect(nodesWith(more, 'hypervisor')).toHaveLength(2);
    expect(filesOf(desired(more), 'cmp').get('/etc/libvirt/libvirtd.conf')).toEqual(one);
  });

  it('keeps keys from everybody but those who use them', () => {
    for (const [path, f] of filesOf(desired(), 'cmp'))
      if (f.content.includes('PRIVATE KEY')) expect([path, f.mode & 0o007]).toEqual([path, 0]);
  });

  it('says why it emulates', () => {
    const cloud = model(fourNodes(inContainer));
    const node = nodeOf(cloud, 'cmp');
    expect(virtualization(cloud, node)).toMatchObject({ type: 'qemu', reason: expect.stringMatching(/no \/dev\/kvm/) });
    expect(virtualization(model(), nodeOf(model(), 'cmp')).type).toBe('kvm');
    const wanted = { ...cloud, settings: settings({ virtualization: 'kvm' }) };
    expect(virtualizationRefusal(wanted, node)).toMatch(/VT-x or AMD-V/);
  });

  it('works around missing offloads only where packets are forwarded in userspace', () => {
    const wrapper = '/usr/bin/qemu-system-x86_64';
    expect(filesOf(desired(), 'cmp').has(wrapper)).toBe(false);
    expect(filesOf(desired(model(fourNodes(inContainer))), 'cmp').get(wrapper)!.content).toContain('csum=off');
  });

  it('leaves the distribution’s security driver alone outside of containers', () => {
    const qemu = (cloud: CloudModel) => filesOf(desired(cloud), 'cmp').get('/etc/libvirt/qemu.conf')!.content;
    expect(qemu(model())).not.toContain('security_driver');
    expect(qemu(model(fourNodes(inContainer)))).toContain('security_driver = "none"');
  });

  it('is given time to start where its CPUs are emulated, and only there', () => {
    const path = '/etc/systemd/system.conf.d/halligan.conf';
    const emulated = fourNodes().map(n => (n.name === 'cmp' ? { ...n, facts: { ...n.facts, emulated: true } } : n));
    expect(filesOf(desired(model(emulated)), 'cmp').get(path)!.content).toContain('DefaultTimeoutStartSec=900');
    expect(filesOf(desired(model(emulated)), 'vol').has(path)).toBe(false);
  });

  it('has a name for iSCSI that no copied image shares', () => {
    const [a, b] = model().nodes;
    expect(initiatorName(a!)).not.toBe(initiatorName(b!));
  });

  it('leaves the files of Ceph to the volume backend of the same node', () => {
    const state = desired(model(oneNode()));
    const writers = state.placed.flatMap(p =>
      p.resource.kind === 'file' && p.resource.path === '/etc/ceph/ceph.conf' ? [p.service] : [],
    );
    expect(writers).toEqual(['volume-backend']);
  });
});

describe('services of one node', () => {
  it('never write the same file twice', () => {
    const all = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdc', fileSize: null }] };
    const nodes = oneNode(inContainer).map(n => ({ ...n, roles: [...n.roles, 'storage'] }));
    const writers = new Map<string, string>();
    for (const p of desired(model(nodes, { objects: all })).placed) {
      if (p.resource.kind !== 'file') continue;
      expect([p.resource.path, writers.get(p.resource.path)]).toEqual([p.resource.path, undefined]);
      writers.set(p.resource.path, p.service);
    }
    expect(writers.size).toBeGreaterThan(60);
  });

  it('agree on owners and modes of the folders they share', () => {
    const seen = new Map<string, string>();
    for (const p of desired(model(oneNode())).placed) {
      if (p.resource.kind !== 'directory') continue;
      const text = `${p.resource.owner}:${p.resource.group} ${p.resource.mode.toString(8)}`;
      expect([p.resource.path, seen.get(p.resource.path) ?? text]).toEqual([p.resource.path, text]);
      seen.set(p.resource.path, text);
    }
  });
});
