/** For machines without a BMC: a person at the rack does it. */
import { fail } from '../core/problem.js';
import type { PowerDriver } from './types.js';

export function createManualDriver(): PowerDriver {
  const ask = async (what: string): Promise<never> =>
    fail('bmc-unsupported', `This node has no BMC: ${what} by hand.`, {
      hint: 'Do it at the machine; the server notices when the node boots. Or give the node a BMC.',
    });
  return {
    status: async () => 'unknown',
    on: () => ask('switch it on'),
    off: () => ask('switch it off'),
    bootFromNetworkOnce: () => ask('choose the network as boot device'),
    close: async () => {},
  };
}
