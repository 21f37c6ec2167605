/** Building and importing images for a data directory: names of the command line turned into builds. */
import { join } from 'node:path';
import type { Clock } from './core/clock.js';
import { distributionNames } from './core/distributions/load.js';
import { loadKeys } from './core/keys.js';
import { fail } from './core/problem.js';
import { buildGuestImage } from './image/guest.js';
import { importImage as importInto } from './image/import.js';
import { buildOsImage } from './image/os.js';
import { buildRamImage } from './image/ram/build.js';
import type { ImageManifest } from './image/types.js';

export interface BuildRequest {
  /** `ram`, `ram-cloud`, `guest` (what proves a cloud), a release such as `debian-12`, or `debian-12-cloud` with the kernel for virtual machines. */
  readonly name: string;
  readonly dataDir: string;
  readonly mirror?: string;
  readonly force?: boolean;
  /** Level of zstd; high by default, because an image is built once and written often. */
  readonly compression?: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  readonly credentialsDirectory?: string;
  readonly onProgress?: (line: string) => void;
}

/** @throws ProblemError image-build, image-missing (no such release), dependency-missing */
export async function buildImage(request: BuildRequest): Promise<ImageManifest> {
  const { name, dataDir, clock, credentialsDirectory, compression, ...rest } = request;
  const common = {
    imagesDir: join(dataDir, 'images'),
    kernel: name.endsWith('-cloud') ? ('cloud' as const) : ('generic' as const),
    ...(rest.mirror === undefined ? {} : { mirror: rest.mirror }),
    ...(rest.force === undefined ? {} : { force: rest.force }),
    ...(rest.signal === undefined ? {} : { signal: rest.signal }),
    ...(rest.onProgress === undefined ? {} : { onProgress: rest.onProgress }),
  };
  if (name === 'ram' || name === 'ram-cloud') {
    // The server's key goes into the RAM environment: that is how the server gets in.
    const { publicKey } = loadKeys(dataDir, credentialsDirectory);
    return buildRamImage({ ...common, authorizedKeys: [publicKey], clock });
  }
  if (name === 'guest') {
    const { kernel: _, ...guest } = common;
    return buildGuestImage({ ...guest, clock });
  }
  const release = name.replace(/-cloud$/, '');
  const known = distributionNames();
  if (!known.includes(release))
    fail('image-missing', `There is no data file for "${release}".`, {
      hint: `Known: ram, ram-cloud, guest, ${known.flatMap(n => [n, `${n}-cloud`]).join(', ')}. Adding a release adds a file to provisioner/core/distributions.`,
    });
  return buildOsImage({ ...common, name: release, ...(compression === undefined ? {} : { compression }) });
}

export interface ImportRequest {
  readonly url: string;
  readonly sha256: string;
  readonly name?: string;
  readonly dataDir: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

/** @throws ProblemError image-url, image-checksum, image-format, request-invalid */
export function importImage(request: ImportRequest): Promise<ImageManifest> {
  const { url, dataDir, name, ...rest } = request;
  const local = /^[a-z][a-z0-9+.-]*:/i.test(url) ? undefined : url;
  const base = url.split(/[?#]/)[0]!.split('/').pop()!;
  const derived = base.replace(/\.(img|qcow2|raw|zst)+$/gi, '').replace(/\.(img|qcow2|raw)$/i, '');
  return importInto({
    ...rest,
    name: name ?? derived,
    imagesDir: join(dataDir, 'images'),
    source: local === undefined ? { url } : { file: local },
  });
}
