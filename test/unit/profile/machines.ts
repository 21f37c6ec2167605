/** Machines and sites with profiles, for tests. */
import { stringify } from 'yaml';
import type { Inventory, InventoryDisk, InventoryNic } from '../../../provisioner/inventory/types.js';
import type { Node } from '../../../provisioner/node/types.js';
import { loadSite } from '../../../provisioner/site/load.js';
import type { Site } from '../../../provisioner/site/schema.js';
import { aNode, anInventory } from '../node/fixtures.js';

export const macOf = (n: number, nic = 1): string =>
  `52:54:00:${nic.toString(16).padStart(2, '0')}:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`;
export const idOf = (n: number): string => `${n.toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`;

export const aDisk = (over: Partial<InventoryDisk> = {}): InventoryDisk => ({
  path: '/dev/sda',
  byPath: 'pci-0000:00:1f.2-ata-1',
  sizeBytes: 960e9,
  type: 'ssd',
  model: 'ACME SSD',
  serial: null,
  wwn: null,
  transport: 'sata',
  controller: '0000:00:1f.2',
  removable: false,
  readOnly: false,
  logicalSectorBytes: 512,
  signatures: [],
  ownedBy: null,
  smart: 'passed',
  ...over,
});

export const aNic = (mac: string, over: Partial<InventoryNic> = {}): InventoryNic => ({
  name: 'eth0',
  mac,
  driver: 'ixgbe',
  bus: null,
  speedMbps: 10_000,
  carrier: true,
  mtu: 1500,
  addresses: [],
  lldp: null,
  ...over,
});

export const hardware = (n: number, gib: number, over: Partial<Inventory> = {}): Inventory =>
  anInventory(macOf(n), { memory: { totalBytes: gib * 2 ** 30, dimms: [] }, nics: [aNic(macOf(n))], ...over });

/** A profile that a node was claimed with. */
export const had = (
  name: string,
  number: number,
  gave: NonNullable<Node['status']['profile']>['gave'] = { roles: [], install: {} },
) => ({ name, number, gave });

/** An available machine that nobody named. */
export const machine = (n: number, inventory: Inventory | null, over: Parameters<typeof aNode>[0] = {}): Node => {
  const { status, ...rest } = over;
  return aNode({
    id: idOf(n),
    name: `node-${macOf(n).replaceAll(':', '')}`,
    macs: [macOf(n)],
    state: 'available',
    ...rest,
    status: { inventory, ...status },
  });
};

/** The sentences of a bad site; throws for a good one. */
export function siteFaults(parts: object): string[] {
  const loaded = loadSite(textOf(parts), 'site.yaml');
  if (!Array.isArray(loaded)) throw new Error('the site is good');
  return loaded.map(p => p.message.replace(/^site\.yaml:\d+:\d+: /, ''));
}

export function siteWith(parts: object): Site {
  const loaded = loadSite(textOf(parts), 'site.yaml');
  if (Array.isArray(loaded)) throw new Error(loaded.map(p => p.message).join('\n'));
  return loaded.site;
}

const textOf = (parts: object) =>
  stringify({
    version: 2,
    name: 'dc1',
    networks: [
      { name: 'boot', cidr: '10.99.0.0/24', interface: 'br0', pool: { from: '10.99.0.200', to: '10.99.0.239' } },
    ],
    ...parts,
  });
