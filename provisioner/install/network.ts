/** The network of the installed system, as netplan YAML version 2, which is also the network-config of cloud-init. */
import { stringify } from 'yaml';
import { fail } from '../core/problem.js';
import type { InterfaceConfig } from '../site/schema.js';

export interface NetworkIntent {
  /** Of the site file; empty for DHCP on the NIC that the node booted from. */
  readonly interfaces: readonly InterfaceConfig[];
  readonly bootMac: string;
  /** MACs that the inventory has; null when there is none. */
  readonly knownMacs: readonly string[] | null;
  readonly domain: string;
}

/** Name of the interface when the site says nothing about interfaces. */
export const DEFAULT_INTERFACE = 'mgmt0';

type Netplan = {
  network: { version: 2; ethernets?: Settings; bonds?: Settings; vlans?: Settings };
};
type Settings = Record<string, Record<string, unknown>>;

/**
 * Netplan's configuration as a value. Throws ProblemError request-invalid with a sentence for what would leave the node
 * without a network: an unknown NIC, an interface of no kind or of two, a VLAN on nothing, no address at all.
 */
export function networkConfig(intent: NetworkIntent): Netplan {
  const interfaces: readonly InterfaceConfig[] =
    intent.interfaces.length > 0
      ? intent.interfaces
      : [{ name: DEFAULT_INTERFACE, mac: intent.bootMac, dhcp: true, addresses: [], dns: [] }];
  const ethernets: Settings = {};
  const bonds: Settings = {};
  const vlans: Settings = {};
  const macs = new Map<string, string>();
  const names = new Set<string>();

  const nic = (name: string, rawMac: string, settings: Record<string, unknown>) => {
    const mac = rawMac.toLowerCase();
    const user = macs.get(mac);
    if (user !== undefined) fail('request-invalid', `The NIC ${mac} is used by ${user} and by ${name}.`);
    if (intent.knownMacs !== null && !intent.knownMacs.includes(mac))
      fail('request-invalid', `The interface ${name} names the NIC ${mac}, which the node does not have.`);
    macs.set(mac, name);
    ethernets[name] = { match: { macaddress: mac }, 'set-name': name, ...settings };
  };

  for (const config of interfaces) {
    const kinds = [config.mac, config.bond, config.vlan].filter(kind => kind !== undefined).length;
    if (kinds !== 1) fail('request-invalid', `The interface ${config.name} needs exactly one of mac, bond and vlan.`);
    if (names.has(config.name)) fail('request-invalid', `There are two interfaces ${config.name}.`);
    names.add(config.name);
    const settings = addressing(config, intent.domain);
    if (config.mac !== undefined) nic(config.name, config.mac, settings);
    if (config.bond !== undefined) {
      const members = config.bond.macs.map((_, index) => `${config.name}p${index}`);
      for (const [index, mac] of config.bond.macs.entries()) {
        if (members[index]!.length > 15)
          fail('request-invalid', `The name ${config.name} is too long for a bond: its NICs get it with a suffix.`);
        nic(members[index]!, mac, config.mtu === undefined ? {} : { mtu: config.mtu });
      }
      bonds[config.name] = {
        interfaces: members,
        // The address of the first NIC, whatever comes up first: reservations hang on it.
        macaddress: config.bond.macs[0]!.toLowerCase(),
        parameters: {
          mode: config.bond.mode,
          'mii-monitor-interval': 100,
          ...(config.bond.mode === '802.3ad' ? { 'lacp-rate': 'fast' } : {}),
          ...(config.bond.mode === 'active-backup' ? {} : { 'transmit-hash-policy': 'layer3+4' }),
        },
        ...settings,
      };
    }
    if (config.vlan !== undefined) vlans[config.name] = { id: config.vlan.id, link: config.vlan.link, ...settings };
  }
  for (const [name, vlan] of Object.entries(vlans))
    if (!names.has(String(vlan['link'])) || vlan['link'] === name)
      fail('request-invalid', `The VLAN ${name} runs on ${String(vlan['link'])}, which is no interface of this node.`);
  if (!interfaces.some(config => config.dhcp || config.addresses.length > 0))
    fail('request-invalid', 'No interface of the node has an address or DHCP: it could not be reached.');
  return {
    network: {
      version: 2,
      ...(Object.keys(ethernets).length > 0 ? { ethernets } : {}),
      ...(Object.keys(bonds).length > 0 ? { bonds } : {}),
      ...(Object.keys(vlans).length > 0 ? { vlans } : {}),
    },
  };
}

function addressing(config: InterfaceConfig, domain: string): Record<string, unknown> {
  const idle = !config.dhcp && config.addresses.length === 0;
  return {
    // The server knows a node by its NIC; a client id made from the machine id would look like another machine.
    ...(config.dhcp ? { dhcp4: true, 'dhcp-identifier': 'mac' } : {}),
    ...(config.addresses.length > 0 ? { addresses: config.addresses } : {}),
    ...(config.gateway === undefined ? {} : { routes: [{ to: '0.0.0.0/0', via: config.gateway }] }),
    // Named here, because networkd takes no search domain from DHCP unless told to: nodes find each other by bare name.
    ...(config.dhcp || config.dns.length > 0
      ? { nameservers: { ...(config.dns.length > 0 ? { addresses: config.dns } : {}), search: [domain] } }
      : {}),
    ...(config.mtu === undefined ? {} : { mtu: config.mtu }),
    // An interface without addresses only carries others; the boot does not wait for it.
    ...(idle ? { optional: true } : {}),
  };
}

/** As text for /etc/netplan; JSON-like scalars are quoted by the YAML library where they must be. */
export const netplanYaml = (config: Netplan): string =>
  stringify(config, { lineWidth: 0, defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN' });
