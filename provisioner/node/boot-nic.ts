/** Which NIC a node boots from. Pure. */
import { fail } from '../core/problem.js';
import type { Node } from './types.js';

/** MAC of the NIC that carries the RAM environment's address; else of the first that is known. @throws ProblemError request-invalid */
export function bootMac(node: Node): string {
  const address = node.status.ram?.address;
  const nics = node.status.inventory?.nics ?? [];
  const carrying = nics.find(nic => nic.addresses.some(text => text.split('/')[0] === address));
  const mac = carrying?.mac ?? nics.find(nic => node.macs.includes(nic.mac.toLowerCase()))?.mac ?? node.macs[0];
  if (mac === undefined) return fail('request-invalid', `${node.name} has no NIC that it could boot from.`);
  return mac.toLowerCase();
}
