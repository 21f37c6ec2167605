/** The virtual lab: a rack made of nothing on one Linux machine. */

export type LabKind = 'qemu' | 'container';
export type Firmware = 'bios' | 'uefi';
export type Netboot = 'pxe' | 'http';
export type DiskBus = 'virtio' | 'nvme';

export interface LabNodeSpec {
  /** One label of a host name. */
  readonly name: string;
  /** As the lab's when left out: machines and container hosts may stand side by side. */
  readonly kind?: LabKind;
  readonly firmware?: Firmware;
  /** How UEFI firmware boots from the network; `pxe` by default. */
  readonly netboot?: Netboot;
  /** What the disks are; `virtio` by default. */
  readonly diskBus?: DiskBus;
  /** Sizes of the empty disks, in GiB; one of 8 by default. */
  readonly disks?: readonly number[];
  /** The first is on the boot network, the second outside, the third for tunnels. */
  readonly nics?: 1 | 2 | 3;
  readonly memoryMiB?: number;
  readonly cpus?: number;
  readonly bmc?: 'ipmi' | 'redfish';
  /** The machine sees its BMC in-band (KCS); ipmi only. Costs a few seconds of boot under emulation. */
  readonly kcs?: boolean;
  /** Container hosts only: folders that lie above the base root file system, topmost first (baked layers). */
  readonly layers?: readonly string[];
  /** Container hosts only: false leaves it switched off, for `startHost`. */
  readonly start?: boolean;
}

export interface LabSpec {
  /** Folder of the lab's disks, logs and `site.yaml`. Made when missing. */
  readonly dir: string;
  /** Several labs live side by side by their names: `[a-z0-9-]`, at most 20 characters. */
  readonly name: string;
  /** Of nodes that say nothing else; `qemu` by default. */
  readonly kind?: LabKind;
  readonly nodes: readonly LabNodeSpec[];
  /** `auto` uses KVM only when a probe boot proves it; it asks for machines only. Container hosts see /dev/kvm where KVM is used. */
  readonly accel?: 'auto' | 'kvm' | 'tcg';
  /** Folder of the server's database, keys and images in the written `site.yaml`; `data` in `dir` by default. */
  readonly dataDir?: string;
  /** Put the nodes with name and BMC into `site.yaml` (true), or leave them to be discovered (false). */
  readonly siteNodes?: boolean;
  /** Public keys for `install.ssh_keys` of `site.yaml`, and for root of container hosts. */
  readonly sshKeys?: readonly string[];
  /** Ready root file system of container hosts; built with mmdebstrap and cached when left out. */
  readonly rootfs?: string;
  /** Where built root file systems are cached. */
  readonly cacheDir?: string;
}

export interface LabDisk {
  readonly path: string;
  readonly sizeGiB: number;
  readonly serial: string;
}

export interface LabNode {
  readonly name: string;
  readonly firmware: Firmware;
  readonly netboot: Netboot;
  readonly uuid: string;
  readonly serial: string;
  /** One per NIC: the first is on br0, the second on br1, the third on br2. */
  readonly macs: readonly string[];
  /** Interfaces of the namespace, one per NIC. */
  readonly taps: readonly string[];
  readonly disks: readonly LabDisk[];
  readonly diskBus: DiskBus;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly bmc: { readonly driver: 'ipmi' | 'redfish'; readonly ip: string; readonly address: string };
  readonly kcs: boolean;
  /** TCP port on the namespace's loopback where `ipmi_sim` finds the serial line. */
  readonly solPort: number;
  /** Folder of disks, variables and logs. */
  readonly dir: string;
  /** Folder of sockets. */
  readonly runDir: string;
  /** Unix socket of the serial console; any number of clients. */
  readonly console: string;
  readonly consoleLog: string;
}

export interface LabHostNic {
  /** Inside the host: eth0, eth1, eth2. */
  readonly name: string;
  readonly mac: string;
  readonly bridge: string;
  /** Its other end, in the lab's namespace. */
  readonly veth: string;
  /** Without prefix; all networks of a lab are /24. Null where the host shall find its own use for it. */
  readonly address: string | null;
}

/** A systemd-nspawn host. */
export interface LabHost {
  readonly name: string;
  /** On the first NIC. */
  readonly address: string;
  /** Of the first NIC. */
  readonly mac: string;
  readonly nics: readonly LabHostNic[];
  /** What lies above the base root file system, topmost first. */
  readonly layers: readonly string[];
  /** `ssh-ed25519 AAAA…` */
  readonly hostKey: string;
  readonly dir: string;
  readonly root: string;
}

/** What `labUp` made; stored as `lab.json`, holds no secrets. */
export interface Lab {
  readonly version: 1;
  readonly name: string;
  readonly dir: string;
  /** Short folder for sockets and pid files: `/run/halligan-lab/NAME`. */
  readonly runDir: string;
  readonly netns: string;
  readonly bridge: string;
  /** The address on the bridge that the server uses. */
  readonly address: string;
  readonly cidr: string;
  readonly accel: 'tcg' | 'kvm';
  /** Why this acceleration. */
  readonly accelReason: string;
  readonly dataDir: string;
  readonly siteNodes: boolean;
  readonly sshKeys: readonly string[];
  readonly bmcUser: string;
  readonly bmcPasswordFile: string;
  /** `sha256:…` of the Redfish services' certificate; null when no node has Redfish. */
  readonly tlsFingerprint: string | null;
  /** Machines. */
  readonly nodes: readonly LabNode[];
  /** Container hosts. */
  readonly hosts: readonly LabHost[];
}

export interface LabHostStatus {
  readonly name: string;
  readonly power: 'on' | 'off';
}

export interface BootOverride {
  readonly target: 'none' | 'pxe' | 'hdd';
  readonly once: boolean;
}

export interface LabNodeStatus {
  readonly name: string;
  readonly power: 'on' | 'off';
  readonly pid: number | null;
  readonly boot: BootOverride;
  /** User and system seconds of QEMU, over all its lives. */
  readonly cpuSeconds: number;
  /** How often it was powered on. */
  readonly lives: number;
  /** Why the last life ended, e.g. `guest-shutdown`, `power off by BMC`, `exit 1: …`. */
  readonly ended: string | null;
}

export interface LabStatus {
  readonly name: string;
  readonly running: boolean;
  /** What is there of it, for a lab that does not run in order. */
  readonly reason: string | null;
  readonly lab: Lab | null;
  /** Of its machines. */
  readonly nodes: readonly LabNodeStatus[];
  /** Of its container hosts. */
  readonly hosts: readonly LabHostStatus[];
}
