import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createImageStore } from '../../../provisioner/image/store.js';
import type { OsImageManifest } from '../../../provisioner/image/types.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'halligan-store-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const manifest = (name: string, bytes: number): OsImageManifest => ({
  schema: 1,
  kind: 'os',
  name,
  distribution: 'debian',
  release: '12',
  arch: 'amd64',
  createdMs: 1,
  inputHash: 'x',
  disk: { name: 'disk.raw.zst', bytes, sha256: 'a'.repeat(64), rawBytes: 4096, rootPartition: 1, espPartition: 15 },
  root: null,
  rootLabel: 'cloudimg-rootfs',
  kernel: null,
});

async function publish(name: string, content: string): Promise<void> {
  const staging = join(dir, `.staging-${content}`);
  await mkdir(staging);
  await writeFile(join(staging, 'disk.raw.zst'), content);
  await createImageStore(dir).publish(manifest(name, content.length), staging);
}
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no problem',
    (error: { problem?: { code: string; message: string } }) => `${error.problem?.code}: ${error.problem?.message}`,
  );

describe('the image store', () => {
  it('shows what was published, and only files that the manifest names', async () => {
    await publish('debian-12', 'one');
    const store = createImageStore(dir);
    expect((await store.list()).map(image => image.name)).toEqual(['debian-12']);
    expect(await readFile(await store.path('debian-12', 'disk.raw.zst'), 'utf8')).toBe('one');
    for (const file of ['manifest.json', '../debian-12/disk.raw.zst', 'root.tar.zst', ''])
      expect(await code(store.path('debian-12', file))).toMatch(/^image-missing: The image debian-12 has no file/);
  });

  it('replaces an image in one step and leaves no older one behind', async () => {
    await publish('debian-12', 'one');
    await publish('debian-12', 'second');
    expect(await readFile(await createImageStore(dir).path('debian-12', 'disk.raw.zst'), 'utf8')).toBe('second');
    expect((await readdir(dir)).filter(name => name.startsWith('.'))).toHaveLength(1);
  });

  it('replaces a folder that somebody copied there by hand, and keeps images whose name begins alike', async () => {
    await mkdir(join(dir, 'debian-12'));
    await publish('debian-12-cloud', 'cloud');
    await publish('debian-12', 'one');
    expect((await createImageStore(dir).list()).map(image => image.name)).toEqual(['debian-12', 'debian-12-cloud']);
    await createImageStore(dir).remove('debian-12');
    expect((await createImageStore(dir).list()).map(image => image.name)).toEqual(['debian-12-cloud']);
  });

  it('says of a damaged image what is wrong with it, and still lists the others', async () => {
    await publish('good', 'fine');
    for (const [name, damage] of [
      ['no-json', (file: string) => writeFile(file, '{')],
      ['no-kind', (file: string) => writeFile(file, '{"kind":"toast"}')],
      ['too-long', (file: string) => writeFile(file, ' '.repeat(100_000))],
      ['extra', async (file: string) => writeFile(file, (await readFile(file, 'utf8')).replace('{', '{"more":1,'))],
      [
        'other',
        async (file: string) => writeFile(file, (await readFile(file, 'utf8')).replace('"other"', '"another"')),
      ],
      ['short', (file: string) => truncate(file.replace('manifest.json', 'disk.raw.zst'), 1)],
      ['gone', (file: string) => rm(file.replace('manifest.json', 'disk.raw.zst'))],
    ] as const) {
      await publish(name, `content-${name}`);
      await damage(join(dir, name, 'manifest.json'));
    }
    const store = createImageStore(dir);
    expect((await store.list()).map(image => image.name)).toEqual(['good']);
    expect((await store.broken()).map(problem => `${problem.code} ${problem.message.replace(dir, '')}`)).toEqual([
      'image-corrupt The manifest /extra/manifest.json cannot be used: /more is not known.',
      'image-corrupt The manifest /gone/manifest.json cannot be used: its file disk.raw.zst is missing.',
      'image-corrupt The manifest /no-json/manifest.json cannot be used: it is no JSON.',
      'image-corrupt The manifest /no-kind/manifest.json cannot be used: its kind is not one of os, ram, guest.',
      'image-corrupt The manifest /other/manifest.json cannot be used: it is that of another.',
      'image-corrupt The manifest /short/manifest.json cannot be used: its file disk.raw.zst has 1 bytes instead of 13.',
      'image-corrupt The manifest /too-long/manifest.json cannot be used: it has 100000 bytes.',
    ]);
    await store.remove('short');
    expect(await code(store.get('short'))).toBe('image-missing: There is no image short.');
  });

  it('knows no image by a path', async () => {
    for (const name of ['../x', '.', '', '.debian-12-00000000', 'a/b', 'A', 'x'.repeat(80)])
      expect(await code(createImageStore(dir).get(name))).toMatch(/^image-missing/);
    expect(await createImageStore(join(dir, 'nowhere')).list()).toEqual([]);
  });
});
