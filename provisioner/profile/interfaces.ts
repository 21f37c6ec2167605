/** A network layout and a machine's NICs: the interfaces of its installed system. Pure. */
import { contains, formatIpv4, hostRange, parseCidr } from '../core/net/ipv4.js';
import type { Inventory, InventoryNic } from '../inventory/types.js';
import type { NetworkLayout, NicChoice } from '../site/profile-schema.js';
import type { InterfaceConfig } from '../site/schema.js';
import { globMatches } from './glob.js';
import { seesNeighbour } from './rules.js';

export type Interfaces =
  | { readonly ok: true; readonly interfaces: InterfaceConfig[] }
  /** Why not, the end of a sentence that begins with the layout. */
  | { readonly ok: false; readonly reason: string };

function sayChoice(choice: NicChoice): string {
  const { min_mbps, driver, lldp, boot, number } = choice;
  return (
    [
      number === undefined ? '' : `number ${number}`,
      boot === undefined ? '' : boot ? 'booted from' : 'not booted from',
      min_mbps === undefined ? '' : `from ${min_mbps} Mb/s`,
      driver === undefined ? '' : `with the driver ${driver}`,
      lldp === undefined ? '' : `connected to ${lldp.system ?? 'any switch'}${lldp.port ? ` port ${lldp.port}` : ''}`,
    ]
      .filter(Boolean)
      .join(', ') || 'any'
  );
}

/**
 * The layout for this machine. NICs count in the order of the inventory (by PCI address); one is used once.
 * @param bootMac the NIC that it booted from, null when that is not known
 * @param number of the node in its profile, from 1
 */
export function interfacesOf(
  layout: NetworkLayout,
  nics: Inventory['nics'],
  bootMac: string | null,
  number: number,
): Interfaces {
  const used = new Set<string>();
  const choose = (choice: NicChoice): string | null => {
    const fits = (nic: InventoryNic) =>
      (choice.boot === undefined || choice.boot === (nic.mac === bootMac)) &&
      (choice.min_mbps === undefined || (nic.speedMbps !== null && nic.speedMbps >= choice.min_mbps)) &&
      (choice.driver === undefined || (nic.driver !== null && globMatches(choice.driver, nic.driver))) &&
      (choice.lldp === undefined || seesNeighbour(choice.lldp, nic));
    const fitting = nics.filter(fits);
    const nic = choice.number === undefined ? fitting.find(n => !used.has(n.mac)) : fitting[choice.number - 1];
    if (!nic || used.has(nic.mac)) return null;
    used.add(nic.mac);
    return nic.mac;
  };

  const interfaces: InterfaceConfig[] = [];
  for (const entry of layout.interfaces) {
    const choices = entry.nic ? [entry.nic] : (entry.bond?.nics ?? []);
    const macs: string[] = [];
    for (const choice of choices) {
      const mac = choose(choice);
      if (mac === null) return { ok: false, reason: `needs another NIC for ${entry.name} (${sayChoice(choice)})` };
      macs.push(mac);
    }
    const addresses: string[] = [];
    if (entry.first_address !== undefined) {
      const net = parseCidr(entry.first_address);
      const address = net.address + number - 1;
      if (!contains(net, address) || address > hostRange(net).to)
        return {
          ok: false,
          reason: `has no address left for ${entry.name}: number ${number} counted from ${entry.first_address}`,
        };
      addresses.push(`${formatIpv4(address)}/${net.prefix}`);
    }
    interfaces.push({
      name: entry.name,
      ...(entry.nic ? { mac: macs[0]! } : {}),
      ...(entry.bond ? { bond: { macs, mode: entry.bond.mode } } : {}),
      ...(entry.vlan ? { vlan: { ...entry.vlan } } : {}),
      dhcp: entry.dhcp,
      addresses,
      ...(entry.gateway === undefined ? {} : { gateway: entry.gateway }),
      dns: [...entry.dns],
      ...(entry.mtu === undefined ? {} : { mtu: entry.mtu }),
    });
  }
  return { ok: true, interfaces };
}
