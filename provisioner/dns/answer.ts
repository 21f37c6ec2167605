/** What a DNS question gets, as a value: names and addresses of nodes and leases, the rest is for the forwarder. */
import type { Answer, Question } from 'dns-packet';
import { type Cidr, contains, formatIpv4, tryParseIpv4 } from '../core/net/ipv4.js';

export interface Names {
  /** Of the label alone, without the domain. */
  addressOf(label: string): number | undefined;
  /** The label. */
  labelOf(address: number): string | undefined;
}

export type Rcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED';

export type DnsDecision =
  | {
      readonly kind: 'answer';
      readonly rcode: Rcode;
      readonly authoritative: boolean;
      readonly answers: Answer[];
      readonly authorities: Answer[];
    }
  | { readonly kind: 'forward' };

export interface Zone {
  /** Of the nodes, without a trailing dot. */
  readonly domain: string;
  /** Networks whose reverse names are ours. */
  readonly networks: readonly Cidr[];
  readonly names: Names;
}

/** Short: a lease may end, and a node may be given another address. Seconds. */
const TTL = 60;
const NEGATIVE_TTL = 10;

/** RFC 1035 section 3.5. */
function reverseAddress(name: string): number | undefined {
  const labels = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name);
  return labels ? tryParseIpv4(labels.slice(1, 5).reverse().join('.')) : undefined;
}

/** Decides on one question of class IN. */
export function answerQuestion(question: Question, zone: Zone): DnsDecision {
  const name = question.name.toLowerCase().replace(/\.$/, '');
  const wants = (type: string) => question.type === type || String(question.type) === 'ANY';
  const answer = (answers: Answer[], rcode: Rcode = 'NOERROR'): DnsDecision => ({
    kind: 'answer',
    rcode,
    authoritative: true,
    answers,
    // RFC 2308: resolvers keep a "no" only together with the SOA.
    authorities: answers.length > 0 ? [] : [soa(zone.domain)],
  });

  const reverse = reverseAddress(name);
  if (reverse !== undefined && zone.networks.some(n => contains(n, reverse))) {
    const label = zone.names.labelOf(reverse);
    if (label === undefined) return answer([], 'NXDOMAIN');
    return answer(
      wants('PTR') ? [{ name: question.name, type: 'PTR', ttl: TTL, data: `${label}.${zone.domain}` }] : [],
    );
  }

  const suffix = `.${zone.domain}`;
  if (name === zone.domain) return answer(wants('SOA') ? [soa(zone.domain)] : []);
  const inZone = name.endsWith(suffix);
  const label = inZone ? name.slice(0, -suffix.length) : name;
  const address = label.includes('.') ? undefined : zone.names.addressOf(label);
  if (address !== undefined)
    return answer(wants('A') ? [{ name: question.name, type: 'A', ttl: TTL, data: formatIpv4(address) }] : []);
  return inZone ? answer([], 'NXDOMAIN') : { kind: 'forward' };
}

function soa(domain: string): Answer {
  return {
    name: domain,
    type: 'SOA',
    ttl: NEGATIVE_TTL,
    data: {
      mname: domain,
      rname: `hostmaster.${domain}`,
      serial: 1,
      refresh: 3600,
      retry: 600,
      expire: 86_400,
      minimum: NEGATIVE_TTL,
    },
  };
}
