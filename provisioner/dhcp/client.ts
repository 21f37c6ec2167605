/** Who is asking, and which boot file that client gets. */
import type { DhcpMessage } from './codec.js';
import { archLabel, CLIENT_ARCH } from './registry.js';

/**
 * system: an operating system's DHCP client. pxe: PXE firmware, loads by TFTP. http: UEFI HTTP boot. ipxe: iPXE, as a
 * ROM or loaded by us.
 */
export type Stage = 'system' | 'pxe' | 'http' | 'ipxe';

export interface Client {
  readonly stage: Stage;
  readonly arch: number;
  /** iPXE built without HTTP cannot fetch our script; it is given our own iPXE instead. */
  readonly ipxeLacksHttp: boolean;
  /** For the trace: `iPXE (x86 BIOS)`. */
  readonly label: string;
}

/** RFC 3004 prefixes each class with its length; iPXE and some others send the bare text. */
function userClasses(value: Buffer | null): string[] {
  if (!value) return [];
  const framed: string[] = [];
  for (let at = 0; at < value.length; ) {
    const end = at + 1 + value[at]!;
    if (value[at] === 0 || end > value.length) return [value.toString('latin1')];
    framed.push(value.toString('latin1', at + 1, end));
    at = end;
  }
  return framed;
}

/** Codes of the records inside option 175; empty when they do not fit. https://github.com/ipxe/ipxe src/include/ipxe/dhcp.h */
function ipxeFeatures(value: Buffer | null): number[] {
  const codes: number[] = [];
  if (!value) return codes;
  for (let at = 0; at < value.length && value[at] !== 255; ) {
    const code = value[at++]!;
    if (code === 0) continue;
    const end = at + 1 + (value[at] ?? 256);
    if (end > value.length) return [];
    codes.push(code);
    at = end;
  }
  return codes;
}

/** DHCP_EB_FEATURE_HTTP, and the range that holds iPXE's feature indicators. */
const FEATURE_HTTP = 0x13;
const FEATURE_MIN = 0x10;
const FEATURE_MAX = 0x4f;

/** Reads what a client says about itself in options 60, 77, 93 and 175. */
export function describeClient(message: DhcpMessage): Client {
  const vendor = message.vendorClass;
  // `PXEClient:Arch:00007:UNDI:003016`: some firmware sends it without option 93.
  const named = /^(?:PXE|HTTP)Client:Arch:(\d{5})/.exec(vendor)?.[1];
  const listed = message.architectures.length > 0 ? message.architectures : named === undefined ? [] : [Number(named)];
  const arch = listed.find(a => a in BOOT_FILES) ?? listed[0] ?? CLIENT_ARCH.BIOS;
  const ipxe = userClasses(message.userClass).includes('iPXE') || message.ipxe !== null;
  const features = ipxeFeatures(message.ipxe).filter(code => code >= FEATURE_MIN && code <= FEATURE_MAX);
  const stage: Stage = ipxe
    ? 'ipxe'
    : vendor.startsWith('HTTPClient')
      ? 'http'
      : vendor.startsWith('PXEClient')
        ? 'pxe'
        : 'system';
  const kind = { ipxe: 'iPXE', http: 'HTTP boot firmware', pxe: 'PXE firmware', system: 'an operating system' }[stage];
  return {
    stage,
    arch,
    ipxeLacksHttp: features.length > 0 && !features.includes(FEATURE_HTTP),
    label: stage === 'system' ? kind : `${kind} (${archLabel(arch)})`,
  };
}

const LOADER_BIOS = 'undionly.kpxe';
const LOADER_EFI = 'snponly.efi';

/** The loader for each architecture that can be booted, and how it is fetched. */
const BOOT_FILES: Readonly<Record<number, { loader: string; by: 'tftp' | 'http' }>> = {
  [CLIENT_ARCH.BIOS]: { loader: LOADER_BIOS, by: 'tftp' },
  [CLIENT_ARCH.EFI_X86_64]: { loader: LOADER_EFI, by: 'tftp' },
  [CLIENT_ARCH.EFI_BC]: { loader: LOADER_EFI, by: 'tftp' },
  [CLIENT_ARCH.EFI_X86_64_HTTP]: { loader: LOADER_EFI, by: 'http' },
};

export type BootFile =
  | { readonly kind: 'file'; readonly file: string; readonly httpClient: boolean }
  | { readonly kind: 'none'; readonly reason: string }
  /** The firmware cannot be booted by us at all: it gets no answer. */
  | { readonly kind: 'refused'; readonly reason: string };

/**
 * The boot file of a client.
 * @param noBootFile why this machine need not boot, or null (BootDirectory)
 * @param origin `http://ADDRESS:PORT` of the boot listener as the client reaches it
 */
export function bootFile(client: Client, noBootFile: string | null, origin: string): BootFile {
  if (client.stage === 'system') return { kind: 'none', reason: 'it did not ask for one' };
  const entry = BOOT_FILES[client.arch];
  if (!entry)
    return { kind: 'refused', reason: `${archLabel(client.arch)} is not supported: there is no boot loader for it` };
  if (noBootFile !== null) return { kind: 'none', reason: noBootFile };
  if (client.stage === 'ipxe' && !client.ipxeLacksHttp)
    return { kind: 'file', file: `${origin}/boot.ipxe`, httpClient: false };
  // Some HTTP boot firmware names the architecture of its PXE client.
  if (entry.by === 'http' || client.stage === 'http')
    return { kind: 'file', file: `${origin}/loader/${entry.loader}`, httpClient: client.stage === 'http' };
  return { kind: 'file', file: entry.loader, httpClient: false };
}
