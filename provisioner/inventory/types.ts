/** The normalised hardware of a node. Sizes in bytes, speeds in Mb/s; null where the machine does not say. */

export interface InventoryDisk {
  /** Kernel path in the RAM environment, e.g. /dev/nvme0n1; moves between boots. */
  path: string;
  /** Stable link below /dev/disk/by-path, used to order equal disks. */
  byPath: string | null;
  sizeBytes: number;
  type: 'nvme' | 'ssd' | 'hdd';
  model: string | null;
  serial: string | null;
  wwn: string | null;
  transport: string | null;
  /** PCI address of the controller. */
  controller: string | null;
  removable: boolean;
  readOnly: boolean;
  logicalSectorBytes: number;
  /** What is on it: partition table, file systems, LVM, RAID, ZFS, Ceph signatures (wipefs). Empty: blank. */
  signatures: { offset: number; type: string; label: string | null; uuid: string | null; partition: string | null }[];
  /** The first 8 hex digits of the id of the node that installed it (GPT partition name `halligan-…`), or null. */
  ownedBy: { nodeId: string } | null;
  smart: 'passed' | 'failed' | null;
}

export interface InventoryNic {
  name: string;
  mac: string;
  driver: string | null;
  /** PCI address. */
  bus: string | null;
  speedMbps: number | null;
  carrier: boolean;
  mtu: number;
  addresses: string[];
  lldp: { chassis: string | null; port: string | null; system: string | null } | null;
}

export interface Inventory {
  schema: 1;
  system: {
    manufacturer: string | null;
    product: string | null;
    serial: string | null;
    uuid: string | null;
    asset: string | null;
  };
  firmware: {
    type: 'bios' | 'uefi';
    vendor: string | null;
    version: string | null;
    date: string | null;
    secureBoot: boolean | null;
    bootCurrent: string | null;
    bootOrder: string[];
  };
  tpm: { version: string | null } | null;
  cpu: {
    model: string | null;
    arch: string;
    sockets: number;
    cores: number;
    threads: number;
    numaNodes: number;
    flags: string[];
  };
  memory: {
    totalBytes: number;
    dimms: {
      slot: string | null;
      sizeBytes: number;
      type: string | null;
      speedMtps: number | null;
      serial: string | null;
    }[];
  };
  disks: InventoryDisk[];
  nics: InventoryNic[];
  pci: { address: string; class: string; vendor: string; device: string; driver: string | null }[];
  bmc: { address: string | null; mac: string | null; vendor: string | null; firmware: string | null } | null;
  kernel: string;
  /** Tools that were missing or failed, with the reason; never fatal. */
  warnings: string[];
}
