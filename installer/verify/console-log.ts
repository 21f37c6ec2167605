/** What a guest says on its console. Pure; kernel messages may stand between and within lines, so lines are searched, not read. */
import { stripVTControlCharacters } from 'node:util';

export interface ConsoleFacts {
  readonly dhcp: { readonly address: string; readonly mtu: number | null } | 'failed' | null;
  /** What it read; why not, when it says so. */
  readonly metadata: { readonly hostname: string; readonly instance: string } | { readonly failed: string } | null;
  /** Bytes of the public keys that it may be logged in with; null: not said. */
  readonly keyBytes: number | null;
  /** Of the last boot: `ssh-ed25519 AAAA…`. */
  readonly hostKey: string | null;
  readonly ready: boolean;
  /** Of the last lines, for people. */
  readonly tail: string;
}

function last<T extends RegExp>(log: string, pattern: T): RegExpExecArray | undefined {
  return [...log.matchAll(pattern)].at(-1);
}

const HOST_KEY = 'ssh-ed25519 (AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}=?)';

/** The last boot only: a guest that was restarted has another key, and is not ready before it says so again. */
function lastBoot(log: string): string {
  const start = log.lastIndexOf('GUEST-INIT');
  return start < 0 ? log : log.slice(start);
}

export function readMarkers(log: string): ConsoleFacts {
  const boot = lastBoot(log);
  const dhcp = last(boot, /GUEST-DHCP[ \t]([^\r\n]*)/g)?.[1];
  const value = (line: string, name: string) =>
    new RegExp(`(?:^|[ \\t])${name}=([^ \\t\\r\\n]+)`).exec(line)?.[1] ?? '';
  const metadata = last(boot, /GUEST-METADATA[ \t]([^\r\n]*)/g)?.[1];
  const failed = last(boot, /GUEST-METADATA-FAILED[ \t]*([^\r\n]*)/g)?.[1];
  const key = last(boot, /GUEST-KEY[ \t]+(\d+)/g)?.[1];
  const mtu = Number.parseInt(value(dhcp ?? '', 'mtu'), 10);
  return {
    dhcp: dhcp
      ? { address: value(dhcp, 'ip').split('/')[0]!, mtu: Number.isFinite(mtu) ? mtu : null }
      : /GUEST-DHCP-FAILED/.test(boot)
        ? 'failed'
        : null,
    metadata: metadata
      ? {
          hostname: value(metadata, 'hostname'),
          instance: value(metadata, 'instance') || value(metadata, 'instance-id'),
        }
      : failed !== undefined
        ? { failed }
        : null,
    keyBytes: key === undefined ? null : Number(key),
    hostKey: hostKey(last(boot, new RegExp(`GUEST-HOSTKEY[ \\t]+${HOST_KEY}`, 'g'))?.[1]),
    ready: /GUEST-READY/.test(boot),
    tail: tailOf(log),
  };
}

/** What cloud-init writes: the addresses (ci-info), and the host keys in a block. `expected`: what must be found. */
export function readCloudInit(
  log: string,
  expected: { readonly address: string; readonly name: string },
): ConsoleFacts {
  const block = log.lastIndexOf('BEGIN SSH HOST KEY KEYS');
  const key = block < 0 ? undefined : new RegExp(HOST_KEY).exec(log.slice(block))?.[1];
  const login = log.includes(`${expected.name} login:`) || new RegExp(`\\b${expected.name}\\b`).test(log);
  return {
    dhcp: log.includes(expected.address) ? { address: expected.address, mtu: null } : null,
    metadata: login ? { hostname: expected.name, instance: '' } : null,
    keyBytes: null,
    hostKey: hostKey(key),
    ready: key !== undefined,
    tail: tailOf(log),
  };
}

const hostKey = (base64: string | undefined): string | null => (base64 ? `ssh-ed25519 ${base64}` : null);

function tailOf(log: string): string {
  return stripVTControlCharacters(log)
    .split(/[\r\n]+/)
    .map(line => line.replace(/\p{C}/gu, ' ').trim())
    .filter(line => line !== '')
    .slice(-6)
    .join(' | ')
    .slice(-500);
}

/**
 * Whether the metadata that the guest read is its own: by its UUID, by Nova's EC2 id (`i-` and the number in
 * `instance-0000002a`), or by its host name, which is unique in a run. EC2 numbers may differ from instance numbers when
 * servers are made at the same time, so that they prove but do not refute.
 */
export function isOwnMetadata(
  read: { readonly hostname: string; readonly instance: string },
  server: { readonly id: string; readonly name: string; readonly instanceName: string },
): boolean {
  if (/^[0-9a-f]{8}-[0-9a-f]{4}-/.test(read.instance)) return read.instance === server.id;
  const number = /^instance-([0-9a-f]{8})$/.exec(server.instanceName)?.[1];
  if (number !== undefined && read.instance === `i-${number}`) return true;
  return read.hostname.split('.')[0] === server.name;
}
