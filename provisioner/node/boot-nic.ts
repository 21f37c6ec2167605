/** Which NIC a node boots from. Pure. */
import { fail } from '../core/problem.js';
import type { Node } from './types.js';

/** MAC of the NIC that carries the RAM environment's address; else of the first that is known; null where there is none. */
export function bootNic(node: Node): string | null {
  const address = node.status.ram?.address;
  const nics = node.status.inventory?.nics ?? [];
  const carrying = nics.find(nic => nic.addresses.some(text => text.split('/')[0] === address));
  const mac = carrying?.mac ?? nics.find(nic => node.macs.includes(nic.mac.toLowerCase()))?.mac ?? node.macs[0];
  return mac?.toLowerCase() ?? null;
}

/** As `bootNic`. @throws ProblemError request-invalid where there is none */
export const bootMac = (node: Node): string =>
  bootNic(node) ?? fail('request-invalid', `${node.name} has no NIC that it could boot from.`);
