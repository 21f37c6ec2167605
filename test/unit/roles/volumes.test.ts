import { describe, expect, it } from 'vitest';
import type { CloudModel } from '../../../installer/model/cloud.js';
import type { CommandResource } from '../../../installer/model/resources.js';
import { cephMonitors, copies } from '../../../roles/volume-backend/ceph.js';
import { volumesRefusal } from '../../../roles/volume-backend/service.js';
import { desired, filesOf, fourNodes, inContainer, model, nodeInput, settings } from './fixture.js';

const commands = (cloud: CloudModel, node: string): ReadonlyMap<string, CommandResource> =>
  new Map(
    desired(cloud).placed.flatMap(p =>
      p.node === node && p.service === 'volume-backend' && p.resource.kind === 'command'
        ? [[p.resource.id, p.resource] as const]
        : [],
    ),
  );
const volumeNodes = (count: number) => [
  ...fourNodes(),
  ...Array.from({ length: count - 1 }, (_, i) => nodeInput(`vol${i + 2}`, `10.99.0.${20 + i}`, ['volume'])),
];

describe('volumes on Ceph', () => {
  it('are encrypted on the wire and bound to the storage address', async () => {
    const files = filesOf(desired(), 'vol');
    await expect(files.get('/etc/ceph/ceph.conf')!.content).toMatchFileSnapshot('golden/ceph.conf.golden');
    await expect(files.get('/etc/cinder/cinder-volume.conf')!.content).toMatchFileSnapshot(
      'golden/cinder-volume.conf.golden',
    );
    expect(filesOf(desired(), 'cmp').get('/etc/ceph/ceph.conf')!.content).toContain(
      `mon_host = ${cephMonitors(model())}`,
    );
  });

  it('have copies on different nodes where there are several, and say when there is one', () => {
    expect(copies(model())).toEqual({ size: 1, minSize: 1, across: 'osd' });
    expect(copies(model(volumeNodes(2)))).toEqual({ size: 2, minSize: 1, across: 'host' });
    expect(copies(model(volumeNodes(5)))).toEqual({ size: 3, minSize: 2, across: 'host' });
    expect(commands(model(), 'vol').get('command:pool')!.title).toMatch(/one copy, lost with its disk/);
  });

  it('get more copies when a second node comes, in the pool that is there', () => {
    const one = commands(model(), 'vol').get('command:pool-copies')!;
    const two = commands(model(volumeNodes(2)), 'vol').get('command:pool-copies')!;
    expect(two.stamp).not.toBe(one.stamp);
    expect(two.apply).toContain('osd pool set volumes size 2');
    expect(two.apply).toContain('osd crush rule create-replicated halligan-across-host default host');
    expect(two.check).toContain("= '2 1' ]");
    expect(commands(model(volumeNodes(2)), 'vol2').has('command:pool-copies')).toBe(false);
  });

  it('have their one monitor on the first volume node', () => {
    const cloud = model(volumeNodes(2));
    expect(commands(cloud, 'vol').has('command:monitor')).toBe(true);
    expect(commands(cloud, 'vol2').has('command:monitor')).toBe(false);
    expect(filesOf(desired(cloud), 'vol2').has('/etc/ceph/ceph.client.admin.keyring')).toBe(false);
  });

  it('keep their monitor where it is when a node that was discovered earlier gets the role', () => {
    const before = model();
    const early = nodeInput('early', '10.99.0.10', ['volume']);
    const cloud = model([early, ...fourNodes()], {}, undefined, before.memory);
    expect(cephMonitors(cloud)).toBe(cephMonitors(before));
    expect(commands(cloud, 'vol').has('command:monitor')).toBe(true);
    expect(commands(cloud, 'early').has('command:monitor')).toBe(false);
  });

  it('refuse to lose their only monitor', () => {
    const { memory } = model();
    const other = fourNodes().map(n => (n.name === 'vol' ? nodeInput('vol2', '10.99.0.20', ['volume']) : n));
    expect(() => model(other, {}, undefined, memory)).toThrow(
      /^vol: It has the only monitor of Ceph.*Give the role volume back to vol/,
    );
    // One that is away, or is installed anew, has it still: nothing is planned around it.
    expect(() => model(other, {}, undefined, memory, ['vol'])).toThrow(/^vol: It has the only monitor.*Bring vol back/);
    // LVM keeps nothing for others.
    const lvm = { volumes: { backend: 'lvm' as const, devices: [{ path: '/dev/sdb', fileSize: null }] } };
    expect(() => model(other, lvm, undefined, memory)).not.toThrow();
  });

  it('ask before a disk is given away, and refuse one that holds something', () => {
    const osd = commands(model(), 'vol').get('command:osd-dev-sdb')!;
    expect(osd.destroys).toBe('Everything on /dev/sdb of vol.');
    expect(osd.apply).toMatch(/wipefs -n -O TYPE[\s\S]*it is not touched/);
    const file = model(fourNodes(inContainer), {
      volumes: { backend: 'ceph', devices: [{ path: '/srv/osd.img', fileSize: '8G' }] },
    });
    expect(commands(file, 'vol').get('command:osd-srv-osd-img')!.destroys).toBeNull();
  });

  it('keep keys out of titles and arguments', () => {
    for (const c of commands(model(), 'vol').values()) {
      expect(`${c.id} ${c.title}`).not.toContain('SECRET');
      expect(`${c.apply} ${c.check}`).not.toContain('SECRET-ceph-client');
    }
  });
});

describe('volumes on LVM', () => {
  const lvm = { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] } as const;

  it('are exported on the storage address, thin and wiped', async () => {
    const files = filesOf(desired(model(fourNodes(), { volumes: lvm })), 'vol');
    await expect(files.get('/etc/cinder/cinder-volume.conf')!.content).toMatchFileSnapshot(
      'golden/cinder-volume-lvm.conf.golden',
    );
    expect(files.get('/etc/systemd/system/tgt.service.d/halligan.conf')!.content).toContain('portal=10.99.0.14:3260');
    expect(files.get('/etc/lvm/lvmlocal.conf')!.content).toContain('r|^/dev/cinder-volumes/');
    expect(files.has('/etc/ceph/ceph.conf')).toBe(false);
  });

  it('give each hypervisor its own name for iSCSI', () => {
    const state = desired(model(fourNodes(), { volumes: lvm }));
    const f = filesOf(state, 'cmp').get('/etc/iscsi/initiatorname.iscsi')!;
    expect(f.content).toMatch(/^InitiatorName=iqn\.1993-08\.org\.debian:01:[0-9a-f]{12}\n$/);
    expect(f.mode).toBe(0o600);
    const iscsid = state.placed.find(p => p.node === 'cmp' && p.resource.id === 'unit:iscsid.service')?.resource;
    expect(iscsid).toMatchObject({ state: 'running', watches: ['/etc/iscsi/initiatorname.iscsi'] });
    expect(desired().placed.some(p => p.resource.id === 'unit:iscsid.service')).toBe(false);
  });

  it('are refused where the kernel has neither end of them', () => {
    const cloud = { ...model(fourNodes(inContainer)), settings: settings({ volumes: lvm }) };
    expect(volumesRefusal(cloud)).toMatch(/kernel of vol has no device-mapper.*ceph\.$/);
    const noInitiator = {
      ...cloud,
      nodes: cloud.nodes.map(n => ({
        ...n,
        facts: { ...n.facts, modules: { ...n.facts.modules, deviceMapper: true } },
      })),
    };
    expect(volumesRefusal(noInitiator)).toMatch(/kernel of cmp cannot reach volumes over iSCSI/);
    const files = settings({ volumes: { backend: 'lvm', devices: [{ path: '/srv/x', fileSize: '1G' }] } });
    expect(volumesRefusal({ ...model(), settings: files })).toMatch(/whole disks/);
    expect(volumesRefusal({ ...model(), settings: settings({ volumes: { backend: 'ceph', devices: [] } }) })).toMatch(
      /names no disk/,
    );
    expect(volumesRefusal({ ...model(), settings: settings({ volumes: lvm }) })).toBeNull();
  });
});
