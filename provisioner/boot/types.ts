/**
 * What DHCP, TFTP, HTTP boot and the node half have to tell each other.
 *
 * The boot plane (plain HTTP on `boot.http_port`, the nodes' side, serves no API):
 *
 *   GET  /boot.ipxe                        "who are you": one line that chains to the next with the SMBIOS identity
 *   GET  /boot.ipxe?mac=&uuid=&serial=&manufacturer=&product=&platform=&arch=    "what do you boot"; serial_hex=
 *                                          and so on carry the same in hex, as our own script sends it
 *   GET  /milestone?mac=&name=             progress, fetched by the boot script itself
 *   GET  /loader/snponly.efi …             loaders for UEFI HTTP boot
 *   GET  /image/NAME/FILE                  kernel, initrd, disk images: Range, ETag
 *   POST /call-home/ram                    Authorization: Bearer TOKEN; RamCallHome
 *   POST /call-home/installed              Authorization: Bearer TOKEN; InstalledCallHome
 *
 * The kernel command line of the RAM environment carries `hal.url=http://ADDRESS:PORT` (the boot plane as this node
 * sees it), `hal.token=TOKEN` (one use, bound to node and stage) and `hal.mac=MAC` (the NIC it booted from).
 */

/** A machine as firmware and iPXE describe it; fields are untrusted text. */
export interface BootIdentity {
  readonly mac: string;
  readonly uuid: string | null;
  readonly serial: string | null;
  readonly manufacturer: string | null;
  readonly product: string | null;
  readonly platform: 'bios' | 'uefi' | null;
}

/** What a known machine is to DHCP. Answered from memory: firmware waits seconds, not for a database. */
export interface DirectoryEntry {
  readonly nodeId: string;
  readonly name: string;
  /** Reserved address, outside the pools. */
  readonly address: string | null;
  /** Null: gets a boot file. Otherwise the reason why it gets none, a sentence. */
  readonly noBootFile: string | null;
}

export interface BootDirectory {
  byMac(mac: string): DirectoryEntry | undefined;
  /** Every node with an address, for DNS. */
  names(): Iterable<{ name: string; address: string }>;
  /** What an unknown machine gets: null for a boot file, else the reason why not. */
  unknownNoBootFile(): string | null;
}

/** What a machine boots, with the reason that goes into the trace and onto its console. */
export type BootDecision =
  | {
      readonly kind: 'ram';
      readonly image: string;
      readonly token: string;
      readonly reason: string;
      readonly rescue: boolean;
    }
  | { readonly kind: 'local'; readonly reason: string }
  | { readonly kind: 'nothing'; readonly reason: string };

/** The node half's side of the boot plane. */
export interface BootOracle {
  /** Finds or makes the node, and says what it boots. Never rejects for a known node because something else is slow. */
  decide(identity: BootIdentity, remoteAddress: string): Promise<BootDecision>;
  milestone(mac: string, name: string): Promise<void>;
  /**
   * Could this token be accepted? From memory and without spending it; so that whoever has none does not get a body of
   * 16 MiB parsed. Left out: every token is passed on.
   */
  knowsToken?(token: string, kind: 'ram' | 'installed'): boolean;
  /** Throws ProblemError: token-refused, inventory-refused. `report.raw` was checked for size and depth only. */
  ramCallHome(token: string, report: RamCallHome, remoteAddress: string): Promise<void>;
  installedCallHome(token: string, report: InstalledCallHome, remoteAddress: string): Promise<void>;
}

/** Body of POST /call-home/ram. */
export interface RamCallHome {
  readonly schema: 1;
  readonly mac: string;
  /** /proc/sys/kernel/random/boot_id */
  readonly bootId: string;
  /** `ssh-ed25519 AAAA…`, made on the node at this boot. */
  readonly hostKey: string;
  readonly firmware: 'bios' | 'uefi';
  readonly uptimeSeconds: number;
  /** Outputs of the inventory tools as they are; normalised by the server (provisioner/inventory). */
  readonly raw: unknown;
}

/** Body of POST /call-home/installed. */
export interface InstalledCallHome {
  readonly schema: 1;
  readonly bootId: string;
  readonly uptimeSeconds: number;
  readonly hostname: string;
}
