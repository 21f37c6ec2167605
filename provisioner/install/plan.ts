/** What an installation will do, as a value: pure, so that it can be shown, checked and tested before a disk is touched. */
import { createHash } from 'node:crypto';
import { type Problem, problem } from '../core/problem.js';
import type { OsImageManifest } from '../image/types.js';
import type { InventoryDisk } from '../inventory/types.js';
import type { DiskLayout, InterfaceConfig } from '../site/schema.js';
import { chooseDisks } from './disks.js';
import { networkConfig } from './network.js';
import { ownerLabel } from './owner.js';
import { type Seed, seed } from './seed.js';
import { installStages, type Stage } from './stages.js';

export interface InstallIntent {
  readonly node: { readonly id: string; readonly name: string; readonly firmware: 'bios' | 'uefi' };
  readonly disks: readonly InventoryDisk[];
  /** MACs of the inventory; null when there is none. */
  readonly knownMacs: readonly string[] | null;
  /** The NIC that the node boots from. */
  readonly bootMac: string;
  readonly image: OsImageManifest;
  readonly layout: DiskLayout;
  readonly interfaces: readonly InterfaceConfig[];
  readonly wipe: boolean;
  readonly domain: string;
  readonly login: string;
  /** Public keys, the server's own among them. */
  readonly keys: readonly string[];
  readonly siteUserData: string | null;
  readonly nodeUserData: string | null;
  /** As the kernel takes it, e.g. ttyS0,115200. */
  readonly console: string;
  /** The boot plane as the node sees it: http://ADDRESS:PORT */
  readonly url: string;
  /** One-time token of the first boot. */
  readonly token: string;
}

/** What the scripts find a disk by. */
export type DiskIdentity = Pick<InventoryDisk, 'path' | 'sizeBytes' | 'serial' | 'wwn'>;

export interface InstallPlan {
  readonly node: { readonly id: string; readonly name: string };
  readonly method: 'disk-image' | 'root-archive';
  readonly layout: DiskLayout['kind'];
  readonly image: {
    readonly name: string;
    readonly url: string;
    readonly sha256: string;
    readonly bytes: number;
    readonly rawBytes: number | null;
    readonly rootPartition: number;
    readonly espPartition: number | null;
    readonly rootLabel: string;
    /** Built by us: its boot files are known and get this node's names. */
    readonly ours: boolean;
  };
  readonly disks: readonly DiskIdentity[];
  readonly rootBytes: number | null;
  readonly owner: string;
  readonly wipe: boolean;
  readonly console: string;
  readonly login: string;
  readonly network: ReturnType<typeof networkConfig>;
  readonly seed: Seed;
  readonly callHome: { readonly url: string; readonly token: string; readonly afterUserData: boolean };
  readonly stages: readonly Stage[];
  /** One sentence: image, disks, layout. */
  readonly summary: string;
}

/** BIOS boot, ESP and room to breathe beside the system itself. */
const OVERHEAD_BYTES = 512e6;
/** What an unpacked archive needs at least, as a multiple of its compressed size. */
const UNPACKED = 5;

const isProblem = (value: object): value is Problem => 'code' in value;

/**
 * Plans an installation, or says why it cannot be: disk-no-match, disk-foreign, image-format (no image of the right kind
 * for the layout or firmware). Throws ProblemError request-invalid for interfaces, keys or user-data that cannot work.
 */
export function planInstall(intent: InstallIntent): InstallPlan | Problem {
  const { node, image, layout } = intent;
  const disk = layout.kind === 'plain' ? image.disk : null;
  const method = disk ? 'disk-image' : 'root-archive';
  const file = disk ?? image.root;
  if (!file)
    return problem(
      'image-format',
      `The image ${image.name} is a whole-disk image; the layout ${layout.kind} needs a root archive.`,
      { hint: 'Install it with the layout plain, or use an image that Halligan built.' },
    );
  if (disk && disk.espPartition === null && node.firmware === 'uefi')
    return problem('image-format', `The image ${image.name} has no EFI system partition, ${node.name} boots by UEFI.`, {
      hint: 'Use an image with an EFI system partition, or boot the machine in BIOS mode.',
    });

  const count = layout.kind === 'mdraid' ? 2 : 1;
  const hints = Array.from({ length: Math.max(count, layout.kind === 'mdraid' ? layout.disks.length : 1) }, (_, n) => ({
    ...layout.disks[n],
  }));
  const rootBytes = layout.kind === 'lvm' && layout.root_gb !== undefined ? Math.floor(layout.root_gb * 1e9) : null;
  const chosen = chooseDisks(intent.disks, {
    nodeId: node.id,
    hints,
    wipe: intent.wipe,
    minBytes: Math.max(disk ? disk.rawBytes : file.bytes * UNPACKED, rootBytes ?? 0) + OVERHEAD_BYTES,
    needs512: disk !== null,
  });
  if (isProblem(chosen)) return { ...chosen, message: `${node.name}: ${chosen.message}` };

  const disks = chosen.disks.map(({ path, sizeBytes, serial, wwn }) => ({ path, sizeBytes, serial, wwn }));
  const names = disks.map(d => `${d.path}${d.serial ? ` (${d.serial})` : ''}`).join(' and ');
  return {
    node: { id: node.id, name: node.name },
    method,
    layout: layout.kind,
    image: {
      name: image.name,
      url: `${intent.url}/image/${encodeURIComponent(image.name)}/${encodeURIComponent(file.name)}`,
      sha256: file.sha256,
      bytes: file.bytes,
      rawBytes: disk?.rawBytes ?? null,
      rootPartition: disk?.rootPartition ?? 1,
      espPartition: disk ? disk.espPartition : 15,
      rootLabel: image.rootLabel,
      ours: image.root !== null,
    },
    disks,
    rootBytes,
    owner: ownerLabel(node.id),
    wipe: intent.wipe,
    console: intent.console,
    login: intent.login,
    network: networkConfig(intent),
    seed: seed({
      // Bound to this installation: another one gets another token.
      instanceId: `halligan-${createHash('sha256').update(`instance ${intent.token}`).digest('hex').slice(0, 16)}`,
      hostname: node.name,
      domain: intent.domain,
      login: intent.login,
      keys: intent.keys,
      siteUserData: intent.siteUserData,
      nodeUserData: intent.nodeUserData,
    }),
    callHome: {
      url: `${intent.url}/call-home/installed`,
      token: intent.token,
      afterUserData: intent.siteUserData !== null || intent.nodeUserData !== null,
    },
    stages: installStages(method, node.firmware),
    summary: `writes ${image.name} to ${names}, layout ${layout.kind}${intent.wipe ? ', whatever is on it' : ''}`,
  };
}
