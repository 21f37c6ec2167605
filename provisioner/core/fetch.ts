/**
 * Fetches a file from an address that an operator, or somebody who got hold of the API, typed in. The server stands in
 * networks that this somebody may not reach, so an address is resolved, checked and then pinned: what was checked is what
 * is connected to, at every redirect anew (compare CVE-2026-34881: URL checked once, the redirect walked past it).
 */
import { createHash } from 'node:crypto';
import { lookup as dnsLookup } from 'node:dns/promises';
import { open } from 'node:fs/promises';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Agent, request } from 'undici';
import { fail, ProblemError } from './problem.js';

export interface FetchOptions {
  /** Host names and CIDRs that may be private: a mirror in the own network. */
  readonly allow: readonly string[];
  readonly maxBytes: number;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytes: number, total: number | null) => void;
  /** Name resolution; the system's by default. */
  readonly resolve?: (host: string) => Promise<string[]>;
}

const MAX_REDIRECTS = 5;
const REDIRECTS = [301, 302, 303, 307, 308];

/** The URL when its form is acceptable. Throws ProblemError image-url. */
export function checkUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return fail('image-url', `${JSON.stringify(text.slice(0, 200))} is no URL.`);
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    fail('image-url', `${url.protocol}// is not fetched; only http:// and https:// are.`);
  if (url.username !== '' || url.password !== '')
    fail('image-url', 'A URL with user name or password is not fetched: it would end up in logs and at redirects.');
  if (url.hostname === '') fail('image-url', 'The URL names no host.');
  return url;
}

/** Hosts may be addresses in brackets (IPv6), as URL has them. */
const bare = (host: string): string =>
  host
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase();

/** Why an address is not connected to; null when it may be. */
export function forbiddenAddress(address: string, allow: readonly string[]): string | null {
  if (!ipaddr.isValid(address)) return 'is no address';
  // ::ffff:127.0.0.1 is 127.0.0.1.
  const ip = ipaddr.process(address);
  for (const entry of allow) {
    if (!entry.includes('/')) {
      if (ipaddr.isValid(entry) && ipaddr.process(entry).toString() === ip.toString()) return null;
      continue;
    }
    const [range, bits] = ipaddr.parseCIDR(entry);
    if (range.kind() === ip.kind() && ip.match(range, bits)) return null;
  }
  // IPv6 outside of 2000::/3 is nobody's public address, whatever its name (RFC 4291): ::127.0.0.1 is one.
  if (ip.kind() === 'ipv6' && !ip.match(ipaddr.parse('2000::'), 3)) return 'is no public address';
  const range = ip.range();
  return range === 'unicast' ? null : `is ${/^[aeiou]/.test(range) ? 'an' : 'a'} ${range} address`;
}

/** Addresses of a host, all of them acceptable. Throws ProblemError image-url. */
export async function checkHost(
  url: URL,
  options: Pick<FetchOptions, 'allow' | 'resolve'>,
): Promise<{ address: string; family: 4 | 6 }[]> {
  const host = bare(url.hostname);
  const resolve = options.resolve ?? (async name => (await dnsLookup(name, { all: true })).map(found => found.address));
  const addresses = isIP(host)
    ? [host]
    : await resolve(host).catch((): string[] => fail('image-url', `The host ${host} cannot be resolved.`));
  if (addresses.length === 0) fail('image-url', `The host ${host} has no address.`);
  if (!options.allow.map(bare).includes(host))
    for (const address of addresses) {
      const reason = forbiddenAddress(address, options.allow);
      if (reason !== null)
        fail('image-url', `${host} leads to ${address}, which ${reason}.`, {
          hint: 'A mirror in the own network must be named with --allow-host.',
        });
    }
  return addresses.map(address => ({ address, family: isIP(address) === 6 ? 6 : 4 }));
}

/**
 * Writes what the URL serves to `target` and returns its size and hex SHA-256. Throws ProblemError: image-url (form,
 * host, redirect, status, too large), timed-out.
 */
export async function fetchFile(
  text: string,
  target: string,
  options: FetchOptions,
): Promise<{ bytes: number; sha256: string }> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal ? AbortSignal.any([deadline, options.signal]) : deadline;
  let url = checkUrl(text);
  try {
    for (let hop = 0; ; hop++) {
      const pinned = await checkHost(url, options);
      const agent = new Agent({
        connect: {
          timeout: 20_000,
          // Whatever is asked for, these are the addresses that were checked.
          lookup: (_host, wanted, done) => {
            if (typeof wanted === 'object' && wanted.all) done(null, pinned);
            else done(null, pinned[0]!.address, pinned[0]!.family);
          },
        },
        headersTimeout: 60_000,
        bodyTimeout: 60_000,
      });
      try {
        const response = await request(url, {
          dispatcher: agent,
          signal,
          headers: { 'user-agent': 'halligan', 'accept-encoding': 'identity' },
        });
        if (REDIRECTS.includes(response.statusCode)) {
          await response.body.dump({ limit: 64 * 1024 });
          const location = response.headers['location'];
          if (typeof location !== 'string') return fail('image-url', `${url.host} redirects without an address.`);
          if (hop >= MAX_REDIRECTS) fail('image-url', `${text} redirects more than ${MAX_REDIRECTS} times.`);
          url = checkUrl(new URL(location, url).href);
          continue;
        }
        if (response.statusCode !== 200) fail('image-url', `${url.host} answered ${response.statusCode}.`);
        const length = Number(response.headers['content-length'] ?? Number.NaN);
        if (length > options.maxBytes)
          fail('image-url', `The image has ${length} bytes, more than the ${options.maxBytes} that are accepted.`);
        return await store(response.body, target, Number.isFinite(length) ? length : null, options);
      } finally {
        await agent.destroy();
      }
    }
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    if (deadline.aborted) fail('timed-out', `${text} was not fetched within ${options.timeoutMs / 1000} seconds.`);
    const cause =
      error instanceof Error ? (error.cause instanceof Error ? error.cause : error) : new Error(String(error));
    return fail('image-url', `${text} cannot be fetched: ${cause.message}.`, { retry: true });
  }
}

async function store(
  source: AsyncIterable<Buffer>,
  target: string,
  total: number | null,
  options: FetchOptions,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  const file = await open(target, 'w', 0o600);
  let bytes = 0;
  try {
    for await (const chunk of source) {
      bytes += chunk.length;
      if (bytes > options.maxBytes)
        fail('image-url', `The image is larger than the ${options.maxBytes} bytes that are accepted.`);
      hash.update(chunk);
      await file.write(chunk);
      options.onProgress?.(bytes, total);
    }
  } finally {
    await file.close();
  }
  if (total !== null && bytes !== total)
    fail('image-url', `The transfer broke off at ${bytes} of ${total} bytes.`, { retry: true });
  return { bytes, sha256: hash.digest('hex') };
}
