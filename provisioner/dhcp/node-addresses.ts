/** Names and addresses of the nodes, indexed both ways for DHCP and DNS. */
import type { BootDirectory } from '../boot/types.js';
import type { Clock } from '../core/clock.js';
import { tryParseIpv4 } from '../core/net/ipv4.js';

export interface NodeAddresses {
  nameOf(address: number): string | undefined;
  addressOf(name: string): number | undefined;
}

/** The directory lists everything; a flood of requests must not make it do so more than once in this time. */
const FRESH_MS = 500;

export function createNodeAddresses(directory: Pick<BootDirectory, 'names'>, clock: Clock): NodeAddresses {
  let builtAt = Number.NEGATIVE_INFINITY;
  let byAddress = new Map<number, string>();
  let byName = new Map<string, number>();
  const refresh = () => {
    const now = clock.monotonicMs();
    if (now - builtAt < FRESH_MS) return;
    builtAt = now;
    byAddress = new Map();
    byName = new Map();
    for (const { name, address } of directory.names()) {
      const number = tryParseIpv4(address);
      if (number === undefined) continue;
      byAddress.set(number, name);
      byName.set(name.toLowerCase(), number);
    }
  };
  return {
    nameOf(address) {
      refresh();
      return byAddress.get(address);
    },
    addressOf(name) {
      refresh();
      return byName.get(name.toLowerCase());
    },
  };
}
