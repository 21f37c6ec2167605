/** Nodes first, then leases by the name that the client gave itself, which is untrusted. */
import type { BootDirectory } from '../boot/types.js';
import type { Clock } from '../core/clock.js';
import { parseIpv4 } from '../core/net/ipv4.js';
import { createNodeAddresses } from '../dhcp/node-addresses.js';
import type { LiveLease } from '../dhcp/server.js';
import type { Names } from './answer.js';

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const FRESH_MS = 1000;

/**
 * A lease never takes a node's name, nor a name that another lease has already, nor one that a machine of the site is
 * likely to trust without it being a node: `localhost`, `wpad`, `isatap`.
 */
const NEVER = new Set(['localhost', 'wpad', 'isatap']);

/** A node without a reserved address is found at its lease, by its Ethernet address. */
export function createNames(
  directory: Pick<BootDirectory, 'names' | 'byMac'>,
  leases: () => readonly LiveLease[],
  clock: Clock,
): Names {
  const nodes = createNodeAddresses(directory, clock);
  let builtAt = Number.NEGATIVE_INFINITY;
  let byLabel = new Map<string, number>();
  let byAddress = new Map<number, string>();
  const refresh = () => {
    const now = clock.monotonicMs();
    if (now - builtAt < FRESH_MS) return;
    builtAt = now;
    byLabel = new Map();
    byAddress = new Map();
    for (const lease of leases()) {
      const node = directory.byMac(lease.mac)?.name;
      const label = node ?? lease.hostName?.toLowerCase().split('.')[0] ?? '';
      if (!LABEL.test(label) || NEVER.has(label)) continue;
      if (node === undefined && nodes.addressOf(label) !== undefined) continue;
      const address = parseIpv4(lease.address);
      if (node !== undefined || !byLabel.has(label)) {
        byLabel.set(label, address);
        byAddress.set(address, label);
      }
    }
  };
  return {
    addressOf(label) {
      refresh();
      return nodes.addressOf(label) ?? byLabel.get(label);
    },
    labelOf(address) {
      refresh();
      return nodes.nameOf(address) ?? byAddress.get(address);
    },
  };
}
