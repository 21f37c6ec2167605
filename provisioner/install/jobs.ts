/** The node half's view of installing and erasing: plans made from node, site and images, as jobs for the executor. */
import { fail, ProblemError } from '../core/problem.js';
import type { ImageStore, OsImageManifest } from '../image/types.js';
import { bootMac } from '../node/boot-nic.js';
import type { JobMaker } from '../node/context.js';
import type { Node } from '../node/types.js';
import type { DiskLayout, Site } from '../site/schema.js';
import { ownerTag } from './owner.js';
import { planInstall } from './plan.js';
import { readProgress } from './progress.js';
import { renderEraseScript, renderInstallScript } from './script.js';

export interface JobMakerDeps {
  readonly site: Site;
  readonly images: ImageStore;
  /** The server's public key in authorized_keys form (`Executor.publicKey`). */
  readonly serverKey: string;
}

const ERASE_TIMEOUT_MS = { quick: 15 * 60_000, full: 24 * 3_600_000 } as const;

export function createJobMaker(deps: JobMakerDeps): JobMaker {
  const { site, images } = deps;
  return {
    async install(node, params, firstBootToken, url) {
      const image = await osImage(images, params.image ?? node.spec.install.image ?? site.images.default);
      const inventory = node.status.inventory;
      if (!inventory) return fail('disk-no-match', `${node.name}: nothing is known of its disks yet.`);
      const plan = planInstall({
        node: { id: node.id, name: node.name, firmware: firmwareOf(node) },
        disks: inventory.disks,
        knownMacs: inventory.nics.map(nic => nic.mac.toLowerCase()),
        bootMac: bootMac(node),
        image,
        layout: layoutOf(node, params.layout),
        interfaces: node.spec.install.interfaces ?? [],
        wipe: params.wipe === true,
        domain: site.domain,
        login: site.install.login,
        keys: [deps.serverKey, ...site.install.ssh_keys, ...(node.spec.install.ssh_keys ?? [])].map(key => key.trim()),
        siteUserData: site.install.user_data ?? null,
        nodeUserData: node.spec.install.user_data ?? null,
        console: site.boot.console,
        url,
        token: firstBootToken,
      });
      if ('code' in plan) throw new ProblemError(plan);
      return {
        ...renderInstallScript(plan),
        timeoutMs: site.deadlines.installing_seconds * 1000,
        summary: plan.summary,
        image: image.name,
        login: plan.login,
        claims: { disks: plan.disks.map(disk => disk.path), owner: ownerTag(node.id) },
      };
    },
    erase(node, mode, all) {
      const disks = (node.status.inventory?.disks ?? []).filter(disk => !disk.removable && !disk.readOnly);
      // Data that is not ours goes by the operator's word only, as when installing.
      const erased = disks.filter(disk => all || disk.ownedBy?.nodeId === ownerTag(node.id));
      const left = disks.filter(disk => !erased.includes(disk) && disk.signatures.length > 0);
      const names = (some: typeof disks) => some.map(disk => disk.path).join(', ');
      return {
        ...renderEraseScript(erased, mode),
        timeoutMs: ERASE_TIMEOUT_MS[mode],
        summary: `Erased ${names(erased) || 'no disk'} (${mode})${left.length > 0 ? `; left alone, because the data is not ours: ${names(left)}` : ''}.`,
        image: '',
        login: '',
      };
    },
    read(line) {
      const read = readProgress(line);
      switch (read.kind) {
        case 'progress':
          return { kind: 'text', text: `${Math.round((read.done / Math.max(1, read.total)) * 100)} %` };
        case 'problem':
          return { kind: 'problem', message: read.message };
        default:
          return read;
      }
    },
  };
}

async function osImage(images: ImageStore, name: string): Promise<OsImageManifest> {
  const image = await images.get(name);
  if (image.kind !== 'os')
    return fail('image-format', `${name} is an image of the kind ${image.kind}, not a system to install.`);
  return image;
}

function layoutOf(node: Node, kind: DiskLayout['kind'] | undefined): DiskLayout {
  const spec = node.spec.install.disk_layout;
  if (kind === undefined) return spec ?? { kind: 'plain', disks: [{}] };
  // Another kind than the spec's is asked for: the spec's hints stay, its sizes were meant for its own kind.
  return spec?.kind === kind ? spec : { kind, disks: spec?.disks ?? [{}] };
}

const firmwareOf = (node: Node): 'bios' | 'uefi' =>
  node.status.ram?.firmware ?? node.status.platform ?? node.status.inventory?.firmware.type ?? 'bios';
