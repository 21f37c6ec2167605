/** What a node will look like once its system is installed: enough to plan its roles before it is. Pure. */
import type { ExpectedHardware } from '../../provisioner/core/machines.js';
import type { Observed } from '../engine/observe.js';
import type { NodeFacts, Release } from '../model/cloud.js';

/** @param release its distribution is what is installed */
export function expectedFacts(
  name: string,
  hardware: ExpectedHardware,
  release: Pick<Release, 'distribution'>,
): NodeFacts {
  const [id = '', version = ''] = release.distribution.split(/-(.*)/);
  return {
    hostname: name,
    os: { id, version },
    kernel: hardware.kernel,
    architecture: hardware.architecture,
    cpus: hardware.cpus,
    memoryMiB: hardware.memoryMiB,
    container: false,
    kvm: hardware.kvm,
    // The distribution's kernels have them all.
    modules: { openvswitch: true, deviceMapper: true, iscsi: true, vlan: true },
    interfaces: hardware.interfaces.map(i => ({
      name: i.name,
      mac: i.mac,
      mtu: i.mtu,
      up: true,
      addresses: i.addresses,
      defaultRoute: i.gateway,
    })),
    disks: hardware.disks.map(d => ({ ...d, mounted: false })),
    clockOffsetMs: 0,
  };
}

/** A system on which nothing of ours is yet. */
export const nothingObserved = (node: string): Observed => ({
  node,
  packages: new Map(),
  candidates: new Map(),
  units: new Map(),
  paths: new Map(),
  different: new Map(),
  sources: new Map(),
  stamps: new Map(),
  stampedMs: new Map(),
  left: [],
  checks: new Map(),
});
