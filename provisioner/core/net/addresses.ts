/** Which of our own addresses a network's nodes use. */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { fail } from '../problem.js';
import { contains, formatIpv4, parseCidr, parseIpv4 } from './ipv4.js';

/** A network as the site file describes it, as far as it matters here. */
export interface AddressedNetwork {
  readonly name: string;
  readonly cidr: string;
  readonly interface?: string;
  readonly server_address?: string;
}

/**
 * IPv4 addresses of an interface, undefined when there is none of that name. Asked of ip(8): os.networkInterfaces() leaves
 * out interfaces without carrier, and a boot network may well be dark until the first node is switched on.
 */
function interfaceAddresses(name: string): Promise<string[] | undefined> {
  return new Promise(resolve => {
    execFile('ip', ['-j', '-4', 'address', 'show', 'dev', name], (error, stdout) => {
      if (error) return resolve(undefined);
      const links = JSON.parse(stdout || '[]') as { addr_info?: { local?: string }[] }[];
      resolve(links.flatMap(l => l.addr_info ?? []).flatMap(a => a.local ?? []));
    });
  });
}

/** Asks the kernel which source address leads to `target`; nothing is sent. */
function sourceAddressTowards(target: string): Promise<string | undefined> {
  return new Promise(resolve => {
    const socket = createSocket('udp4');
    const done = (address?: string) => {
      socket.close();
      resolve(address);
    };
    socket.once('error', () => done());
    socket.connect(9, target, () => done(socket.address().address));
  });
}

/**
 * Our address for the nodes of a network: `server_address`, else the first address of `interface` inside `cidr`, else
 * (a network behind a relay) the source address of the route there.
 * @throws ProblemError interface-missing
 */
export async function serverAddressFor(network: AddressedNetwork): Promise<string> {
  const cidr = parseCidr(network.cidr);
  if (network.interface !== undefined) {
    const entries = await interfaceAddresses(network.interface);
    const addresses = entries ?? [];
    if (network.server_address !== undefined) {
      if (addresses.includes(network.server_address)) return network.server_address;
      return fail(
        'interface-missing',
        `Network ${network.name}: interface ${network.interface} does not have the address ${network.server_address}.`,
      );
    }
    const own = addresses.find(a => contains(cidr, parseIpv4(a)));
    return (
      own ??
      fail(
        'interface-missing',
        `Network ${network.name}: interface ${network.interface} ${
          entries ? `has no address inside ${network.cidr}` : 'does not exist or has no address'
        }.`,
      )
    );
  }
  if (network.server_address !== undefined) return network.server_address;
  const own = await sourceAddressTowards(formatIpv4(cidr.base + 1));
  if (own !== undefined) return own;
  return fail(
    'interface-missing',
    `Network ${network.name}: no route leads to ${network.cidr}; name our address there as server_address.`,
  );
}
