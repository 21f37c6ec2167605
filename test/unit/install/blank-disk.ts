import type { InventoryDisk } from '../../../provisioner/inventory/types.js';

/** A disk of an inventory, blank unless said otherwise. */
export const disk = (path: string, gb: number, more: Partial<InventoryDisk> = {}): InventoryDisk => ({
  path,
  byPath: null,
  sizeBytes: gb * 1e9,
  type: 'ssd',
  model: null,
  serial: null,
  wwn: null,
  transport: null,
  controller: null,
  removable: false,
  readOnly: false,
  logicalSectorBytes: 512,
  signatures: [],
  ownedBy: null,
  smart: null,
  ...more,
});
