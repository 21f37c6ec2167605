/**
 * Which node is asking? Pure: from what firmware says and what is known, to a decision with its rule.
 *
 * The rules, first that fits:
 *  1. The MAC is known and nothing contradicts it: that node.
 *  2. The MAC is known to A, but UUID or serial belong to B: the NIC was moved into B. The machine is B; the MAC moves.
 *  3. The MAC is known to A, and UUID and serial both differ from A's and belong to nobody: a NIC of A in an unknown
 *     machine. Nothing is booted that could harm: an operator decides (remove the MAC from A, or A itself).
 *     If only one of them differs, a part was replaced (a mainboard keeps neither, a BIOS reset loses one): A, updated.
 *  4. The MAC is new, the UUID is known, and the serials do not contradict: the same machine with another NIC. Learn it.
 *  5. The MAC is new, the UUID is known, but the serials differ: two machines with one UUID (vendors ship them). New node.
 *  6. The MAC is new, no usable UUID, the serial is known: the same machine.
 *  7. Otherwise it is new.
 */
import type { BootIdentity } from '../boot/types.js';
import type { Node } from './types.js';

/** UUIDs and serials that vendors ship on many machines; they identify nothing. */
const PLACEHOLDER_UUIDS = new Set([
  '00000000-0000-0000-0000-000000000000',
  'ffffffff-ffff-ffff-ffff-ffffffffffff',
  '03000200-0400-0500-0006-000700080009',
  '12345678-1234-5678-90ab-cddeefaabbcc',
]);
const PLACEHOLDER_SERIAL =
  /^(|0+|none|n\/?a|na|unknown|default( string)?|to be filled by o\.?e\.?m\.?|system serial number|not (specified|available|applicable)|123456789?0?|x+|\.+)$/i;

export const usableUuid = (uuid: string | null | undefined): string | null => {
  const text = uuid?.trim().toLowerCase() ?? '';
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text) && !PLACEHOLDER_UUIDS.has(text) ? text : null;
};
export const usableSerial = (serial: string | null | undefined): string | null => {
  const text = serial?.trim() ?? '';
  return text.length <= 64 && !PLACEHOLDER_SERIAL.test(text) ? text : null;
};

export type Identification =
  | { readonly kind: 'known'; readonly node: Node; readonly learnMac: boolean; readonly reason: string }
  | { readonly kind: 'new'; readonly reason: string }
  | { readonly kind: 'conflict'; readonly node: Node; readonly reason: string };

/** @param nodes all nodes; uuid and serial of each as last seen or as the operator gave them */
export function identify(seen: BootIdentity, nodes: readonly Node[]): Identification {
  const mac = seen.mac.toLowerCase();
  const uuid = usableUuid(seen.uuid);
  const serial = usableSerial(seen.serial);
  const byMac = nodes.find(n => n.macs.includes(mac));
  const sameUuid = uuid === null ? [] : nodes.filter(n => usableUuid(n.uuid) === uuid);
  const sameSerial = serial === null ? [] : nodes.filter(n => usableSerial(n.serial) === serial);
  const contradicts = (mine: string | null, theirs: string | null) =>
    mine !== null && theirs !== null && mine !== theirs;

  if (byMac) {
    const uuidDiffers = contradicts(uuid, usableUuid(byMac.uuid));
    const serialDiffers = contradicts(serial, usableSerial(byMac.serial));
    if (!uuidDiffers && !serialDiffers)
      return { kind: 'known', node: byMac, learnMac: false, reason: `the MAC ${mac} is its own` };
    const owner = [...sameUuid, ...sameSerial].find(n => n.id !== byMac.id);
    if (owner && (uuidDiffers ? sameUuid : sameSerial).includes(owner))
      return {
        kind: 'known',
        node: owner,
        learnMac: true,
        reason: `the NIC ${mac} was moved from ${byMac.name} into ${owner.name} (same ${uuidDiffers ? 'UUID' : 'serial'})`,
      };
    if (uuidDiffers && (serialDiffers || serial === null || usableSerial(byMac.serial) === null))
      return {
        kind: 'conflict',
        node: byMac,
        reason: `the NIC ${mac} belongs to ${byMac.name}, but the machine that shows it has another identity (UUID ${uuid}); take the MAC from ${byMac.name} or remove that node`,
      };
    return {
      kind: 'known',
      node: byMac,
      learnMac: false,
      reason: `the MAC ${mac} is its own; ${uuidDiffers ? 'the UUID' : 'the serial'} changed, a part was replaced`,
    };
  }
  const agreeing = sameUuid.filter(n => !contradicts(serial, usableSerial(n.serial)));
  if (agreeing.length === 1)
    return { kind: 'known', node: agreeing[0]!, learnMac: true, reason: `same UUID, another NIC (${mac})` };
  if (sameUuid.length > 0)
    return {
      kind: 'new',
      reason: `its UUID is also that of ${sameUuid[0]!.name}, but it is another machine (serial ${serial ?? 'unknown'})`,
    };
  if (uuid === null && sameSerial.length === 1)
    return { kind: 'known', node: sameSerial[0]!, learnMac: true, reason: `same serial, another NIC (${mac})` };
  return { kind: 'new', reason: `nobody knows the MAC ${mac}` };
}
