/** Images that are imported into the cloud: what is asked for, and what came of it. See docs/cloud-images.md. */

export const IMAGE_PROFILES = ['plain', 'cloud-init', 'windows', 'ami'] as const;
export type ImageProfile = (typeof IMAGE_PROFILES)[number];

export const IMAGE_VISIBILITIES = ['private', 'shared', 'community', 'public'] as const;
export type ImageVisibility = (typeof IMAGE_VISIBILITIES)[number];

/** Where a file comes from: this machine, or an address. */
export type ImageSource = (
  | {
      /** Absolute path on the server's machine. */
      readonly file: string;
    }
  | { readonly url: string }
) & {
  /** Hex SHA-256 of the file; nothing is looked into before it is right. Needed for http://. */
  readonly sha256?: string;
};

export interface ImageImportOptions {
  readonly name: string;
  readonly profile: ImageProfile;
  readonly source: ImageSource;
  /** Of an `ami`: the AKI and, where there is one, the ARI. */
  readonly kernel?: ImageSource;
  readonly ramdisk?: ImageSource;
  /** Of `windows`: an ISO with drivers (virtio-win), imported as an image of its own. */
  readonly driverIso?: ImageSource;
  /** Glance's default (shared: the project's own until it is shared) when left out. */
  readonly visibility?: ImageVisibility;
  /** The least that the image fits on when left out. */
  readonly minDiskGiB?: number;
  readonly minMemoryMiB?: number;
  readonly firmware?: 'bios' | 'uefi';
  /** A TPM 2.0 and, where the hypervisor can, Secure Boot: what Windows 11 asks for. */
  readonly tpm?: boolean;
  /** The image runs qemu-guest-agent. */
  readonly guestAgent?: boolean;
  /** Of an `ami`: added to the kernel's command line. */
  readonly commandLine?: string;
  /** Image properties beside, or instead of, the profile's. */
  readonly properties?: Readonly<Record<string, string>>;
  /** Host names and CIDRs of own networks that may be fetched from. */
  readonly allowHosts?: readonly string[];
}

/** Result of a run of the kind `cloud-image`. */
export interface ImportedImage {
  readonly id: string;
  readonly name: string;
  readonly profile: ImageProfile;
  readonly diskFormat: string;
  /** Of what was uploaded. */
  readonly bytes: number;
  /** Of the disk that a server sees. */
  readonly virtualBytes: number;
  /** Of the file that was given. */
  readonly sha256: string;
  readonly minDiskGiB: number;
  readonly visibility: string;
  readonly properties: Readonly<Record<string, string>>;
  /** The image of the driver ISO. */
  readonly drivers: { readonly id: string; readonly name: string } | null;
  /** What the operator does next, or must know: sentences. */
  readonly notes: readonly string[];
  readonly seconds: number;
}

/** `run.result` as an imported image, or null when the run ended otherwise. */
export const asImportedImage = (result: unknown): ImportedImage | null => {
  const r = result as Partial<ImportedImage> | null;
  return r && typeof r === 'object' && typeof r.id === 'string' && typeof r.diskFormat === 'string'
    ? (r as ImportedImage)
    : null;
};
