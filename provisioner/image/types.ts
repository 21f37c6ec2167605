import type { Problem } from '../core/problem.js';

/** Images on disk: one folder per image below `images/` of the data directory, with a manifest beside the files. */

export interface ImageFile {
  /** File name inside the image's folder. */
  readonly name: string;
  readonly bytes: number;
  /** Hex SHA-256 of the file as served. */
  readonly sha256: string;
}

/** A system that gets written to a disk. */
export interface OsImageManifest {
  readonly schema: 1;
  readonly kind: 'os';
  readonly name: string;
  readonly distribution: string;
  readonly release: string;
  readonly arch: 'amd64';
  readonly createdMs: number;
  /** Hash over everything that goes into the build; the same inputs are not built again. */
  readonly inputHash: string;
  /**
   * Whole disk, zstd-compressed raw: GPT with BIOS boot (14), ESP (15, label UEFI), root (1, ext4, label as below).
   * Boots by BIOS and by UEFI. Written as it is when the layout is plain; null for imported root archives.
   */
  readonly disk:
    | (ImageFile & { readonly rawBytes: number; readonly rootPartition: number; readonly espPartition: number | null })
    | null;
  /** The root file system as tar.zst, for LVM and mdraid layouts; null for imported disk images, which are not ours. */
  readonly root: ImageFile | null;
  readonly rootLabel: string;
  /** Kernel release, e.g. 6.1.0-56-amd64; null for imported images. */
  readonly kernel: string | null;
  /** Roles whose packages are in it, how many came for them, and how long the whole build took. */
  readonly baked?: { readonly roles: readonly string[]; readonly packages: number; readonly seconds: number };
}

/** A system that runs from memory: kernel and one initrd that holds everything. */
export interface RamImageManifest {
  readonly schema: 1;
  readonly kind: 'ram';
  readonly name: string;
  readonly distribution: string;
  readonly release: string;
  readonly arch: 'amd64';
  readonly createdMs: number;
  readonly inputHash: string;
  readonly kernel: ImageFile;
  readonly initrd: ImageFile;
  readonly kernelVersion: string;
  readonly minMemoryMiB: number;
  /** Kernel parameters that the image wants; the boot plane's own stand behind them. */
  readonly commandLine?: string;
}

/** A small server that proves a cloud: a disk for its image service, and kernel and initrd for boots without one. */
export interface GuestImageManifest {
  readonly schema: 1;
  readonly kind: 'guest';
  readonly name: string;
  readonly distribution: string;
  readonly release: string;
  readonly arch: 'amd64';
  readonly createdMs: number;
  readonly inputHash: string;
  /** qcow2, compressed; boots by BIOS. `rawBytes` is the size that the server sees. */
  readonly disk: ImageFile & { readonly rawBytes: number };
  readonly kernel: ImageFile;
  readonly initrd: ImageFile;
  readonly kernelVersion: string;
  readonly minMemoryMiB: number;
  /** Kernel parameters that it wants when it is booted without its disk. */
  readonly commandLine: string;
}

export type ImageManifest = OsImageManifest | RamImageManifest | GuestImageManifest;

export interface ImageStore {
  /** Every usable image, by name. */
  list(): Promise<ImageManifest[]>;
  /** A problem (image-corrupt) for every folder whose manifest or files cannot be used. */
  broken(): Promise<Problem[]>;
  /** Throws ProblemError image-missing, image-corrupt. */
  get(name: string): Promise<ImageManifest>;
  /** Absolute path of a file of the image; only names in the manifest are known. */
  path(name: string, file: string): Promise<string>;
  /**
   * Makes the files of `stagingDir` (same file system, named by the manifest) the image of that name, in one rename;
   * an older one of that name is gone afterwards. Readers that opened a file of it keep it.
   */
  publish(manifest: ImageManifest, stagingDir: string): Promise<void>;
  remove(name: string): Promise<void>;
}
