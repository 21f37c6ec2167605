/** Images on disk: `IMAGES/NAME` is a link to `IMAGES/.NAME-HASH`, so that publishing is one rename, also over an old one. */
import { randomBytes } from 'node:crypto';
import { open, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { asProblem, fail, type Problem } from '../core/problem.js';
import { IMAGE_NAME, manifestFiles, parseManifest } from './manifest.js';
import type { ImageManifest, ImageStore } from './types.js';

const MANIFEST = 'manifest.json';
/** A manifest is a few hundred bytes; more is not one. */
const MAX_MANIFEST_BYTES = 64 * 1024;
const NAME = new RegExp(IMAGE_NAME);

export function createImageStore(imagesDir: string): ImageStore {
  const folder = (name: string) => join(imagesDir, name);

  async function get(name: string): Promise<ImageManifest> {
    if (!NAME.test(name)) return fail('image-missing', `There is no image ${JSON.stringify(name.slice(0, 64))}.`);
    const path = join(folder(name), MANIFEST);
    const size = await stat(path).then(
      found => found.size,
      () => fail('image-missing', `There is no image ${name}.`),
    );
    const corrupt = (reason: string) =>
      fail('image-corrupt', `The manifest ${path} cannot be used: ${reason}.`, { detail: { path } });
    if (size > MAX_MANIFEST_BYTES) return corrupt(`it has ${size} bytes`);
    const manifest = parseManifest(await readFile(path, 'utf8'));
    if (typeof manifest === 'string') return corrupt(manifest);
    if (manifest.name !== name) return corrupt(`it is that of ${manifest.name}`);
    for (const file of manifestFiles(manifest)) {
      const bytes = await stat(join(folder(name), file.name)).then(
        found => found.size,
        () => -1,
      );
      if (bytes === -1) return corrupt(`its file ${file.name} is missing`);
      if (bytes !== file.bytes) return corrupt(`its file ${file.name} has ${bytes} bytes instead of ${file.bytes}`);
    }
    return manifest;
  }

  async function all(): Promise<(ImageManifest | Problem)[]> {
    const entries = await readdir(imagesDir).catch((): string[] => []);
    const found: (ImageManifest | Problem)[] = [];
    for (const name of entries.filter(entry => NAME.test(entry)).sort())
      if (await exists(join(folder(name), MANIFEST)))
        found.push(await get(name).catch((error: unknown) => asProblem(error, 'image-corrupt')));
    return found;
  }

  return {
    get,
    async list() {
      return (await all()).flatMap(entry => ('code' in entry ? [] : [entry]));
    },
    async broken() {
      return (await all()).flatMap(entry => ('code' in entry ? [entry] : []));
    },
    async path(name, file) {
      const manifest = await get(name);
      if (!manifestFiles(manifest).some(entry => entry.name === file))
        fail('image-missing', `The image ${name} has no file ${JSON.stringify(file.slice(0, 128))}.`);
      return join(folder(name), file);
    },
    async publish(manifest, stagingDir) {
      const text = JSON.stringify(manifest, null, 2);
      const checked = parseManifest(text);
      if (typeof checked === 'string') throw new Error(`manifest of ${manifest.name}: ${checked}`);
      await writeFile(join(stagingDir, MANIFEST), `${text}\n`);
      for (const name of [MANIFEST, ...manifestFiles(manifest).map(file => file.name)])
        await syncPath(join(stagingDir, name));
      const version = `.${manifest.name}-${randomBytes(4).toString('hex')}`;
      await rename(stagingDir, join(imagesDir, version));
      const old = await readlink(folder(manifest.name)).catch(() => null);
      const link = `${join(imagesDir, version)}.link`;
      await symlink(version, link);
      // A folder made by hand, or by hand copied, stands in the way of the link.
      if (old === null) await rm(folder(manifest.name), { recursive: true, force: true });
      await rename(link, folder(manifest.name));
      await syncPath(imagesDir);
      await removeVersions(manifest.name, version);
    },
    async remove(name) {
      await get(name).catch((error: unknown) => {
        if (asProblem(error).code !== 'image-corrupt') throw error;
      });
      await rm(folder(name), { recursive: true, force: true });
      await removeVersions(name, null);
    },
  };

  async function removeVersions(name: string, keep: string | null): Promise<void> {
    const version = new RegExp(`^\\.${name.replaceAll('.', '\\.')}-[0-9a-f]{8}(\\.link)?$`);
    for (const entry of await readdir(imagesDir))
      if (version.test(entry) && entry !== keep) await rm(join(imagesDir, entry), { recursive: true, force: true });
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
