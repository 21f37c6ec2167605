/** The nodes as DHCP and DNS see them: answered from memory. */
import type { BootDirectory } from '../boot/types.js';
import type { Site } from '../site/schema.js';
import { noBootFile } from './boot-choice.js';
import type { NodeRepository } from './repository.js';
import type { Node } from './types.js';

export const addressOf = (node: Node): string | null => node.spec.address ?? node.status.address;

export function createDirectory(nodes: NodeRepository, site: Site): BootDirectory {
  return {
    byMac(mac) {
      const node = nodes.byMac(mac);
      return node && { nodeId: node.id, name: node.name, address: addressOf(node), noBootFile: noBootFile(node) };
    },
    *names() {
      for (const node of nodes.all()) {
        const address = node.status.os?.address ?? addressOf(node);
        if (address) yield { name: node.name, address };
      }
    },
    unknownNoBootFile: () =>
      site.discovery.unknown === 'inspect' ? null : 'the site ignores unknown machines (discovery.unknown: ignore)',
  };
}
