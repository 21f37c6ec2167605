/** Pure: the command line of a lab machine. */
import { join } from 'node:path';
import type { BootOverride, Lab, LabNode } from './types.js';

/**
 * A named model, not `max`: `max` shows AMD's SVM to the guest, whose kvm modules then load and complain. The vendor is
 * AMD because a guest on an Intel CPU of that age isolates its page tables against Meltdown, which costs a quarter of
 * all CPU seconds under emulation; measured in docs/lab.md.
 */
export const TCG_CPU = 'Nehalem,vendor=AuthenticAMD';
export const OVMF_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd';
export const OVMF_VARS = '/usr/share/OVMF/OVMF_VARS_4M.fd';

const DISK_DEVICE = { virtio: 'virtio-blk-pci', nvme: 'nvme' } as const;

/** QEMU reads a comma inside an option's value when it is doubled. */
const q = (value: string) => value.replaceAll(',', ',,');

export const sockets = (node: LabNode) => ({
  serial: join(node.runDir, 'serial.sock'),
  qmp: join(node.runDir, 'qmp.sock'),
  qmpUser: join(node.runDir, 'qmp-user.sock'),
});

/** Boot order numbers of NICs and disks in BIOS mode; the network comes first unless the BMC asked for the disk. */
export function bootIndexes(node: LabNode, boot: BootOverride['target']): { nics: number[]; disks: number[] } {
  const nics = node.macs.map((_, i) => i);
  const disks = node.disks.map((_, i) => i);
  return boot === 'hdd'
    ? { disks: disks.map(i => 1 + i), nics: nics.map(i => 1 + disks.length + i) }
    : { nics: nics.map(i => 1 + i), disks: disks.map(i => 1 + nics.length + i) };
}

/**
 * argv of `qemu-system-x86_64` for one life of the machine. The sockets for serial line and QMP are the agent's: QEMU
 * connects to them, so that no byte of output is lost and none is left behind.
 *
 * In UEFI mode no `bootindex` is given: OVMF would sort its BootOrder by it on every start, over what the installed
 * system wrote there. A boot override of the BMC is therefore kept and reported, but it is the BootOrder that decides.
 */
export function qemuArgs(lab: Lab, node: LabNode, boot: BootOverride['target'], tune: QemuTune = {}): string[] {
  const { serial, qmp, qmpUser } = sockets(node);
  const uefi = node.firmware === 'uefi';
  const order = bootIndexes(node, boot);
  const index = (n: number | undefined) => (uefi ? '' : `,bootindex=${n}`);
  return [
    '-name',
    q(`halligan-${lab.name}-${node.name}`),
    '-machine',
    tune.machine ?? 'q35,graphics=off',
    '-accel',
    lab.accel === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${tune.tbSizeMiB ?? translationMiB(node.memoryMiB)}`,
    '-cpu',
    lab.accel === 'kvm' ? 'host' : (tune.cpu ?? TCG_CPU),
    '-smp',
    String(node.cpus),
    '-m',
    String(node.memoryMiB),
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    // A machine that its system switched off stays until the agent has read its CPU seconds.
    '-no-shutdown',
    '-uuid',
    node.uuid,
    '-smbios',
    `type=1,manufacturer=Halligan,product=Lab node,serial=${q(node.serial)},uuid=${node.uuid}`,
    '-smbios',
    `type=3,manufacturer=Halligan,asset=${q(`${lab.name}/${node.name}`)}`,
    ...(uefi
      ? [
          '-drive',
          `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF_CODE}`,
          '-drive',
          `if=pflash,format=raw,unit=1,file=${q(join(node.dir, 'vars.fd'))}`,
        ]
      : []),
    // A setup screen's "PXE: disabled": what is left of OVMF's network boot is HTTP (edk2, PxeBcPcdProducerLib).
    ...(node.netboot === 'http'
      ? ['4', '6'].flatMap(ip => ['-fw_cfg', `name=opt/org.tianocore/IPv${ip}PXESupport,string=n`])
      : []),
    ...node.disks.flatMap((disk, i) => [
      '-drive',
      `if=none,id=d${i},file=${q(disk.path)},format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap`,
      '-device',
      `${DISK_DEVICE[node.diskBus]},id=disk${i},drive=d${i},serial=${disk.serial}${index(order.disks[i])}`,
    ]),
    ...node.macs.flatMap((mac, i) => [
      '-netdev',
      `tap,id=n${i},ifname=${node.taps[i]},script=no,downscript=no`,
      // OVMF's own PXE client, not the iPXE in the card's ROM: that is what real UEFI machines do.
      '-device',
      `virtio-net-pci,id=nic${i},netdev=n${i},mac=${mac}${index(order.nics[i])}${uefi ? ',romfile=' : ''}`,
    ]),
    '-chardev',
    `socket,id=serial0,path=${q(serial)}`,
    '-serial',
    'chardev:serial0',
    '-chardev',
    `socket,id=qmp0,path=${q(qmp)}`,
    '-mon',
    'chardev=qmp0,mode=control',
    '-qmp',
    `unix:${q(qmpUser)},server=on,wait=off`,
    '-device',
    'virtio-rng-pci',
    ...(node.kcs
      ? [
          '-chardev',
          `socket,id=ipmi0,host=${node.bmc.ip},port=9002,reconnect=2`,
          '-device',
          'ipmi-bmc-extern,id=bmc0,chardev=ipmi0',
          '-device',
          'isa-ipmi-kcs,bmc=bmc0,ioport=0xca2',
        ]
      : []),
  ];
}

/**
 * Room for translated code: a machine that boots and installs fills 256 MiB; one with memory for a cloud's services runs
 * far more code, and each time the room is full all of it is translated anew.
 */
const translationMiB = (memoryMiB: number) => Math.min(2000, Math.max(256, Math.floor(memoryMiB / 4)));

/** Overrides for measuring. */
export interface QemuTune {
  readonly cpu?: string;
  readonly machine?: string;
  readonly tbSizeMiB?: number;
}
