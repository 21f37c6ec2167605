/** Other DHCP servers: who was seen, and one event for each change. */
import type { NewEvent } from '../core/events.js';

export interface Rogue {
  readonly network: string;
  /** Its server identifier (option 54). */
  readonly server: string;
  readonly mac: string | null;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
}

export interface RogueWatch {
  /** A server that is not ours was seen, by an answer to our probe or in a request that names it. */
  seen(network: string, server: string, mac: string | null, how: 'probe' | 'request', nowMs: number): void;
  /** A probe of the network ended; whoever is silent for several of them is gone. */
  probed(network: string): void;
  list(): Rogue[];
}

/** A hostile client can name any number of servers. */
const REMEMBERED_MAX = 32;
const SILENT_PROBES = 3;

export function createRogueWatch(emit: (event: NewEvent) => void): RogueWatch {
  const rogues = new Map<string, Rogue & { silentProbes: number }>();
  return {
    seen(network, server, mac, how, nowMs) {
      const key = `${network} ${server}`;
      const before = rogues.get(key);
      if (!before && rogues.size >= REMEMBERED_MAX) return;
      const known = mac ?? before?.mac ?? null;
      rogues.set(key, {
        network,
        server,
        mac: known,
        firstSeenMs: before?.firstSeenMs ?? nowMs,
        lastSeenMs: nowMs,
        silentProbes: 0,
      });
      if (before && (before.mac === known || before.mac === null)) return;
      const who = `${server}${known ? ` (${known})` : ''}`;
      emit({
        type: 'dhcp.rogue',
        severity: 'warn',
        message:
          how === 'probe'
            ? `Another DHCP server, ${who}, answers on network ${network}; nodes may boot from it instead.`
            : `Another DHCP server, ${who}, is in use on network ${network}: a client asked it for its address.`,
        data: { network, server, mac: known, how },
      });
    },
    probed(network) {
      for (const [key, rogue] of rogues) {
        if (rogue.network !== network || ++rogue.silentProbes <= SILENT_PROBES) continue;
        rogues.delete(key);
        emit({
          type: 'dhcp.rogue-gone',
          severity: 'info',
          message: `The other DHCP server, ${rogue.server}, does not answer on network ${network} any more.`,
          data: { network, server: rogue.server, mac: rogue.mac },
        });
      }
    },
    list: () => [...rogues.values()].map(({ silentProbes: _, ...rogue }) => rogue),
  };
}
