/** Which disks get the system: a pure decision, with the reason for each disk that was left out. */
import { type Problem, problem } from '../core/problem.js';
import type { InventoryDisk } from '../inventory/types.js';
import type { DiskHints } from '../site/schema.js';
import { ownerTag } from './owner.js';

export interface DiskDemand {
  readonly nodeId: string;
  /** One entry per disk that is needed. */
  readonly hints: readonly DiskHints[];
  /** Data on the chosen disks may go. */
  readonly wipe: boolean;
  /** Least size of each disk. */
  readonly minBytes: number;
  /** A whole-disk image is written: its GPT counts in sectors of 512 bytes. */
  readonly needs512: boolean;
}

export interface LeftOut {
  readonly path: string;
  readonly reason: string;
}

const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;

/** Why a disk cannot be used at all, or does not fit the hints; null when it can. */
function unfit(disk: InventoryDisk, hints: DiskHints, demand: DiskDemand): string | null {
  if (disk.removable) return 'is removable';
  if (disk.readOnly) return 'is read-only';
  if (disk.smart === 'failed') return 'says of itself that it is failing (SMART)';
  if (disk.sizeBytes < demand.minBytes) return `has ${gb(disk.sizeBytes)}, ${gb(demand.minBytes)} are needed`;
  if (demand.needs512 && disk.logicalSectorBytes !== 512)
    return `has sectors of ${disk.logicalSectorBytes} bytes, which a disk image cannot be written to (the layouts lvm and mdraid can)`;
  if (hints.name !== undefined && disk.path !== hints.name && disk.byPath !== hints.name) return `is not ${hints.name}`;
  if (hints.serial !== undefined && disk.serial !== hints.serial)
    return `has the serial number ${disk.serial ?? '(none)'}, not ${hints.serial}`;
  if (hints.wwn !== undefined && disk.wwn?.toLowerCase() !== hints.wwn.toLowerCase())
    return `has the WWN ${disk.wwn ?? '(none)'}, not ${hints.wwn}`;
  if (hints.type !== undefined && disk.type !== hints.type) return `is of type ${disk.type}, not ${hints.type}`;
  if (hints.min_gb !== undefined && disk.sizeBytes < hints.min_gb * 1e9)
    return `has ${gb(disk.sizeBytes)}, less than min_gb ${hints.min_gb}`;
  if (hints.max_gb !== undefined && disk.sizeBytes > hints.max_gb * 1e9)
    return `has ${gb(disk.sizeBytes)}, more than max_gb ${hints.max_gb}`;
  return null;
}

const owned = (disk: InventoryDisk, nodeId: string) => disk.ownedBy?.nodeId === ownerTag(nodeId);

/** What foreign data a disk carries, as the end of a sentence; null for a blank disk or one of this node's own. */
export function foreignData(disk: InventoryDisk, nodeId: string): string | null {
  if (owned(disk, nodeId)) return null;
  if (disk.ownedBy) return `belongs to the node ${disk.ownedBy.nodeId} of Halligan`;
  if (disk.signatures.length === 0) return null;
  const kinds = [...new Set(disk.signatures.map(s => (s.label ? `${s.type} "${s.label}"` : s.type)))];
  return `carries ${kinds.slice(0, 6).join(', ')}${kinds.length > 6 ? ` and ${kinds.length - 6} more` : ''}`;
}

/**
 * Chooses a disk for each entry of the hints. Preferred is the node's own disk of an earlier installation, then a blank
 * one, then (with `wipe`) one with data; among these the smallest, then the first by controller path. Narrow hints are
 * served first, so that `[{}, {serial}]` does not fail because the first took the second's disk.
 * Returns the disks in the hints' order, or the problem disk-no-match or disk-foreign with the reason for every disk.
 */
export function chooseDisks(
  disks: readonly InventoryDisk[],
  demand: DiskDemand,
): { readonly disks: InventoryDisk[] } | Problem {
  const candidates = demand.hints.map((hints, index) => ({
    index,
    hints,
    fitting: disks.filter(disk => unfit(disk, hints, demand) === null),
  }));
  const rank = (disk: InventoryDisk) =>
    owned(disk, demand.nodeId) ? 0 : foreignData(disk, demand.nodeId) === null ? 1 : 2;
  const order = (a: InventoryDisk, b: InventoryDisk) =>
    rank(a) - rank(b) ||
    a.sizeBytes - b.sizeBytes ||
    compare(a.byPath ?? '~', b.byPath ?? '~') ||
    compare(a.path, b.path);

  const chosen: InventoryDisk[] = [];
  const taken = new Set<InventoryDisk>();
  for (const { index, hints, fitting } of [...candidates].sort((a, b) => a.fitting.length - b.fitting.length)) {
    const free = fitting.filter(disk => !taken.has(disk));
    const which = demand.hints.length > 1 ? ` number ${index + 1} of ${demand.hints.length}` : '';
    if (free.length === 0) {
      const leftOut = disks.map(disk => ({
        path: disk.path,
        reason: unfit(disk, hints, demand) ?? 'is taken by another entry of the layout',
      }));
      return problem(
        'disk-no-match',
        disks.length === 0
          ? `No disk${which} fits: the node has no disk.`
          : `No disk${which} fits: ${sentence(leftOut)}.`,
        { detail: { disks: leftOut } },
      );
    }
    const usable = free.filter(disk => demand.wipe || foreignData(disk, demand.nodeId) === null).sort(order);
    const best = usable[0];
    if (best === undefined) {
      const leftOut = free.map(disk => ({ path: disk.path, reason: foreignData(disk, demand.nodeId) ?? '' }));
      return problem('disk-foreign', `Disk${which} would be overwritten: ${sentence(leftOut)}.`, {
        detail: { disks: leftOut },
      });
    }
    taken.add(best);
    chosen[index] = best;
  }
  return { disks: chosen };
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

function sentence(leftOut: readonly LeftOut[]): string {
  const shown = leftOut.slice(0, 8).map(({ path, reason }) => `${path} ${reason}`);
  return shown.join('; ') + (leftOut.length > 8 ? `; and ${leftOut.length - 8} more` : '');
}
