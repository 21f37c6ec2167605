/** The site's CA and the certificates of its nodes, kept among the cloud's secrets: `pki/ca`, `pki/node/NAME`. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { Clock } from '../../provisioner/core/clock.js';
import { tryParseIpv4 } from '../../provisioner/core/net/ipv4.js';
import { fail } from '../../provisioner/core/problem.js';
import type { CloudModel, CloudNode } from '../model/cloud.js';
import type { CloudSecrets } from '../secrets/secrets.js';
import { type CertificateNames, expiresMs, issue, type KeyPair, makeCa, needsRenewal } from './certificate.js';

export interface SitePki {
  /** Certificate of the CA, PEM. */
  readonly ca: string;
  readonly caExpiresMs: number;
  /** The node's certificate: the stored one, or a new one when there is none or it must be renewed. Stored by the secrets' `flush()`. */
  node(name: string, commonName: string, wanted: CertificateNames): KeyPair;
  /** Forgets the certificates of nodes that are not named, at the secrets' `flush()`. They stay valid until they expire: there is no list of revoked ones. */
  keepOnly(nodes: readonly string[]): void;
}

function parsePair(name: string, json: string): KeyPair {
  const pair = JSON.parse(json) as Partial<KeyPair>;
  if (typeof pair.certificate !== 'string' || typeof pair.key !== 'string')
    return fail('keys-unusable', `The stored certificate ${name} is damaged.`);
  return { certificate: pair.certificate, key: pair.key };
}

/**
 * The CA is made at the first use and never by itself again: a new one would break every connection of the cloud.
 * @throws ProblemError keys-unusable when what is stored is damaged
 */
export function openSitePki(secrets: CloudSecrets, siteName: string, clock: Clock): SitePki {
  const stored = secrets.read('pki/ca');
  const ca = stored === undefined ? makeCa({ siteName, nowMs: clock.nowMs() }) : parsePair('pki/ca', stored);
  if (stored === undefined) secrets.write('pki/ca', JSON.stringify(ca));
  else if (!new X509Certificate(ca.certificate).checkPrivateKey(createPrivateKey(ca.key)))
    fail('keys-unusable', 'The stored CA of the site and its key do not belong together.');
  return {
    ca: ca.certificate,
    caExpiresMs: expiresMs(ca.certificate),
    node(name, commonName, wanted) {
      const id = `pki/node/${name}`;
      const json = secrets.read(id);
      const nowMs = clock.nowMs();
      if (json !== undefined) {
        const pair = parsePair(id, json);
        if (needsRenewal(pair, ca.certificate, wanted, nowMs) === null) return pair;
      }
      const pair = issue(ca, commonName, wanted, nowMs);
      secrets.write(id, JSON.stringify(pair));
      return pair;
    },
    keepOnly(nodes) {
      for (const id of secrets.names('pki/node/'))
        if (!nodes.includes(id.slice('pki/node/'.length))) secrets.remove(id);
    },
  };
}

/** Interfaces that the cloud itself or a container engine makes; their addresses come and go. */
const MADE_BY_SOFTWARE = /^(lo|br-|ovs-|tap|qvo|qvb|qbr|vnet|virbr|docker|veth|genev_sys|vxlan_sys)/;

/** Of the certificates of hypervisors: libvirt takes migrations from all of them, whoever comes and goes. */
export const HYPERVISOR_UNIT = 'hypervisor';

/**
 * What a node's certificate is good for: its names and IPv4 addresses, and the API's name where APIs answer. Elsewhere it
 * would let a hypervisor that was broken into pass as the API.
 */
export function certificateNames(cloud: CloudModel, node: CloudNode): CertificateNames {
  const own = node.facts.interfaces
    .filter(i => !MADE_BY_SOFTWARE.test(i.name))
    .flatMap(i => i.addresses.map(a => a.split('/')[0]!))
    .filter(a => tryParseIpv4(a) !== undefined && !a.startsWith('169.254.'));
  const answers =
    node.address === cloud.api.address ||
    cloud.services.some(s => s.endpoints.length > 0 && node.services.includes(s.name));
  return {
    names: [node.name, node.fqdn, ...(answers ? [cloud.api.host] : [])],
    addresses: [node.address, node.tunnel.address, node.storageAddress, ...own],
    ...(node.services.includes('hypervisor') ? { unit: HYPERVISOR_UNIT } : {}),
  };
}

/** `tls` of ServiceContext for a node. */
export function nodeTls(
  pki: SitePki,
  cloud: CloudModel,
  node: CloudNode,
): { readonly ca: string; readonly certificate: string; readonly key: string } {
  return { ca: pki.ca, ...pki.node(node.name, node.fqdn, certificateNames(cloud, node)) };
}
