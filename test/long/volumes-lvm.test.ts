/**
 * Both ends of volumes on LVM over iSCSI, which containers have neither of: an emulated machine that is volume and compute
 * node of a cloud whose controller is a container host. The machine is installed over PXE with the image that `halligan
 * image bake` makes of its roles, so that laying it down is configuration only.
 *
 * Its servers are emulated inside an emulated machine: a guest takes about 40 times as long as one that is emulated
 * directly. What services wait for is raised in the site file; the proof's time-outs follow what is seen of the node.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskSerial } from '../../provisioner/lab/index.js';
import { cloudUp, failuresOf, NETWORKS, type TestCloud } from '../harness/cloud.js';

const LAB = 'lvm';
const MACHINE = 'vol1';
const DATA_DISK = `/dev/disk/by-id/virtio-${diskSerial(LAB, MACHINE, 1)}`;
/** Seconds that services of an emulated node may be silent, and take for an answer. */
const PATIENT = { service_down_time: 300, rpc_response_timeout: 300 };
const LOOK_MS = 20_000;
/** Both ends of volumes in one look, for a session costs an emulated machine seconds. */
const LOOK = `iscsiadm -m session 2>/dev/null; echo @@
tgtadm --lld iscsi --mode target --op show; echo @@
for d in $(virsh -q list --name); do virsh -q domblklist --details $d; done | awk '$1 == "block"'; echo @@
lvs --noheadings -o lv_name,pool_lv,lv_size cinder-volumes`;

let cloud: TestCloud;
const on = (command: string) => cloud.onMachine(MACHINE, command);

beforeAll(async () => {
  cloud = await cloudUp({
    name: LAB,
    hosts: [{ name: 'ctl', roles: ['controller', 'network'] }],
    machines: [
      {
        node: { name: MACHINE, disks: [12, 8], nics: 3, memoryMiB: 6144, cpus: 2 },
        roles: ['compute', 'volume'],
        install: machine => ({
          disk_layout: { kind: 'plain', disks: [{ serial: machine.disks[0]!.serial }] },
          interfaces: [
            { name: 'mgmt0', mac: machine.macs[0], dhcp: true },
            { name: 'tun0', mac: machine.macs[2], addresses: ['10.96.0.20/24'] },
          ],
        }),
      },
    ],
    cloud: {
      ...NETWORKS,
      dashboard: false,
      workers: 2,
      volumes: { backend: 'lvm', devices: [{ path: DATA_DISK }] },
      config: {
        'compute-control': { '/etc/nova/nova.conf': { DEFAULT: PATIENT } },
        hypervisor: {
          '/etc/nova/nova-compute.conf': { DEFAULT: { rpc_response_timeout: 300, vif_plugging_timeout: 900 } },
        },
        'volume-control': { '/etc/cinder/cinder.conf': { DEFAULT: PATIENT } },
        'volume-backend': { '/etc/cinder/cinder-volume.conf': { DEFAULT: { rpc_response_timeout: 300 } } },
      },
    },
    runSeconds: 3000,
    onProgress: line => console.log(line),
  });
});
afterAll(() => cloud?.down());

describe('an emulated machine that is volume and compute node', () => {
  it('is installed with the image baked for its roles, and its second disk is left alone', async () => {
    const began = Date.now();
    const node = await cloud.install(MACHINE, 900);
    console.log(`installed in ${Math.round((Date.now() - began) / 1000)} s`);
    expect(node.status.os?.image).toBe('debian-12-cloud-compute-volume');
    expect(await on('uname -r')).toMatch(/-cloud-amd64$/);
    expect(await on('systemd-detect-virt')).toBe('qemu');
    for (const name of ['cinder-volume', 'nova-compute', 'tgt', 'ovn-host'])
      expect(await on(`dpkg-query -W -f '\${Status}' ${name}`)).toBe('install ok installed');
    expect(await on(`blkid -p ${DATA_DISK} || echo empty`)).toBe('empty');
  });

  it('gets configuration only: the plan installs nothing on it, names the disk it takes and the datapath it chose', async () => {
    const plan = await cloud.plan();
    expect(plan.problems.filter(p => p.severity === 'refuse')).toEqual([]);
    const own = plan.actions.filter(a => a.node === MACHINE);
    expect(own.length).toBeGreaterThan(50);
    expect(own.filter(a => a.kind === 'packages').map(a => a.title)).toEqual([]);
    expect(plan.summary.destroys).toEqual([`${MACHINE}: Everything on ${DATA_DISK} of ${MACHINE}.`]);
    expect(own.map(a => a.title)).toContainEqual(
      expect.stringContaining(`(system: The kernel of ${MACHINE} has the module openvswitch.)`),
    );
  });

  it('is laid down, and then nothing is left to do', async () => {
    const { run, result } = await cloud.apply({ confirmed: [MACHINE] });
    expect(failuresOf(result)).toBe('');
    expect(run.state).toBe('done');
    console.log(`laid down in ${result.seconds} s: ${JSON.stringify(result.chain.slice(-6))}`);
    expect(await on('vgs --noheadings -o vg_name,pv_count')).toMatch(/^cinder-volumes +1$/);
    expect(await on('ovs-dpctl show')).toContain('system@ovs-system');
    expect(await on('ovs-vsctl get bridge br-int datapath_type')).toBe('system');
    expect((await cloud.plan()).actions.map(a => `${a.id}: ${a.reason}`)).toEqual([]);
  });

  it('keeps what servers write on volumes that come over iSCSI, and leaves nothing of them', async () => {
    const seen = { sessions: '', targets: '', disks: '', volumes: '' };
    let over = false;
    const looking = (async () => {
      while (!over) {
        const [sessions = '', targets = '', disks = '', volumes = ''] = (await on(LOOK).catch(() => '')).split('@@\n');
        // What is there while a volume is attached.
        if (sessions && disks) Object.assign(seen, { sessions, targets, disks, volumes });
        await new Promise(r => setTimeout(r, LOOK_MS));
      }
    })();
    const report = await cloud.verify({ only: ['volume-snapshot', 'boot-volume'] }).finally(() => {
      over = true;
    });
    await looking;
    console.log(report.steps.map(s => `${s.name} ${s.state} ${s.seconds} s`).join('\n'), seen);
    expect(report.steps.filter(s => s.state !== 'passed').map(s => `${s.name}: ${s.message}`)).toEqual([]);
    for (const name of ['volume', 'volume-attach', 'volume-snapshot', 'boot-volume'])
      expect(report.steps.map(s => s.name)).toContain(name);
    expect(report.leftovers).toEqual([]);
    expect(seen.sessions).toMatch(/^tcp: \[\d+\] 10\.99\.0\.\d+:3260,1 iqn\.2010-10\.org\.openstack:volume-/m);
    expect(seen.targets).toMatch(/Backing store path: \/dev\/cinder-volumes\/volume-/);
    expect(seen.disks).toMatch(/^block +disk +vd[b-z] +\/dev\/sd[a-z]$/m);
    expect(seen.volumes).toMatch(/volume-\S+ +cinder-volumes-pool +1\.00g/);

    expect(await on('lvs --noheadings -o lv_name cinder-volumes | tr -d " "')).toBe('cinder-volumes-pool');
    expect(await on('tgtadm --lld iscsi --mode target --op show')).toBe('');
    expect(await on('ls -A /var/lib/cinder/volumes')).toBe('');
    expect(await on('iscsiadm -m session 2>&1 || :')).toMatch(/No active sessions/);
  });
});
