/** The images of the suites on real parts: built once, the same that the demo and the bench use. */
import { execFile } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, realpathSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import { loadKeys } from '../../provisioner/core/keys.js';
import { buildOsImage } from '../../provisioner/image/os.js';
import { buildRamImage } from '../../provisioner/image/ram/build.js';

const ROOT = packageRoot(import.meta.url);
export type Kernel = 'cloud' | 'generic';

export interface Cache {
  /** Folder of the images. */
  readonly images: string;
  /** Folder of the keys whose owner may log in to the RAM environment. */
  readonly keys: string;
}

/** Kept between runs in HALLIGAN_CACHE, `.cache` by default. */
export function imageCache(kernel: Kernel = 'cloud'): Cache {
  const cache = resolve(process.env['HALLIGAN_CACHE'] ?? join(ROOT, '.cache'));
  const shared = join(cache, 'demo', 'data');
  // Apart: a server that finds both RAM environments takes the one for real machines.
  return { images: kernel === 'cloud' ? join(shared, 'images') : join(cache, kernel, 'images'), keys: shared };
}

export async function ramImage(kernel: Kernel = 'cloud'): Promise<Cache> {
  const cache = imageCache(kernel);
  mkdirSync(cache.keys, { recursive: true, mode: 0o700 });
  const { publicKey } = loadKeys(cache.keys);
  await buildRamImage({ kernel, imagesDir: cache.images, authorizedKeys: [publicKey] });
  return cache;
}

/** The RAM environment and `debian-12`. */
export async function bothImages(kernel: Kernel = 'cloud'): Promise<Cache> {
  const cache = await ramImage(kernel);
  await buildOsImage({ name: 'debian-12', kernel, imagesDir: cache.images, compression: 3 });
  return cache;
}

/** The RAM environment, and the image that `halligan image bake` makes of roles; yields that image's name. */
export async function bakedImage(roles: readonly string[], site: string): Promise<Cache & { readonly name: string }> {
  const cache = await ramImage();
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      ...[join(ROOT, 'dist/provisioner/main.js'), 'image', 'bake', ...roles, '--kernel', 'cloud'],
      ...['--site', site, '--data-dir', cache.keys, '--output', 'json'],
    ],
    { maxBuffer: 1 << 24 },
  );
  return { ...cache, name: (JSON.parse(stdout) as { name: string }).name };
}

/** Hard links where that is possible: an image that is built anew meanwhile does not take this one away. */
export function linkFiles(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const file of readdirSync(from))
    try {
      linkSync(realpathSync(join(from, file)), join(to, file));
    } catch {
      symlinkSync(realpathSync(join(from, file)), join(to, file));
    }
}
