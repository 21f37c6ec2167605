/** Builds OS images: tree, root archive and whole-disk image, published into the image store in one step. */
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { type Distribution, loadDistribution, packageRoot } from '../core/distributions/load.js';
import { inputHash } from '../core/input-hash.js';
import { fail } from '../core/problem.js';
import { archiveState, bakeTree } from './bake.js';
import { makeDiskImage, mke2fsArgv, PARTITION, sgdiskArgv } from './disk-image.js';
import {
  type AptSource,
  checkKeyring,
  describeFile,
  machineSources,
  makeTree,
  mmdebstrapArgv,
  type RunOptions,
  resolveSources,
  runLogged,
  sourceLines,
  type TreeSpec,
} from './mmdebstrap.js';
import { GRUB_CORE, imageName, type KernelFlavour, type OsRecipe, osRecipe, ROOT_LABEL } from './os-recipe.js';
import { createImageStore } from './store.js';
import type { OsImageManifest } from './types.js';

export interface BuildOsOptions {
  /** Release, a name of core/distributions, e.g. `debian-12`. */
  readonly name: string;
  readonly kernel: KernelFlavour;
  readonly imagesDir: string;
  /** Instead of the archive named in the data. */
  readonly mirror?: string;
  /** Keyring instead of the data's. */
  readonly keyring?: string;
  /** Level of zstd: 19 for release, less where time counts. */
  readonly compression?: number;
  /** What goes in on top of the system, for hosts with these roles. */
  readonly bake?: RolePackages;
  /** Builds although the same inputs were built already. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

/** Packages of roles; their services are off until somebody enables them. */
export interface RolePackages {
  readonly roles: readonly string[];
  readonly packages: readonly string[];
  /** Lines of debconf-set-selections(1). */
  readonly preseed: readonly string[];
  /** Archives beside those of the distribution. */
  readonly archives: readonly (AptSource & { readonly keyring: { readonly file: string; readonly package: string } })[];
}

const OVERLAY = 'templates/install/os';
const STUB = 'templates/install/esp/grub.cfg';
const DEFAULT_COMPRESSION = 9;

/** Everything that decides about the result, for the hash and for the golden. Pure but for reading our own templates. */
export async function osBuildPlan(
  distribution: Distribution,
  kernel: KernelFlavour,
  sources: readonly AptSource[],
  target: string,
): Promise<{ recipe: OsRecipe; tree: TreeSpec; argv: string[]; overlay: Record<string, string>; stub: string }> {
  const recipe = osRecipe(distribution, kernel);
  const tree: TreeSpec = { distribution, sources, target, ...recipe.tree };
  return {
    recipe,
    tree,
    argv: mmdebstrapArgv(tree),
    overlay: await readOverlay(),
    stub: await readFile(join(packageRoot(), STUB), 'utf8'),
  };
}

/**
 * Builds an OS image, or returns the one there is when its inputs are the same. Publishes root.tar.zst and disk.raw.zst.
 * Throws ProblemError: image-missing (no data for the name), dependency-missing (mmdebstrap, mtools, keyring …),
 * capability-missing, image-build.
 */
export async function buildOsImage(options: BuildOsOptions): Promise<OsImageManifest> {
  const loaded = loadDistribution(options.name);
  const distribution: Distribution =
    options.keyring === undefined ? loaded : { ...loaded, keyring: { ...loaded.keyring, file: options.keyring } };
  await checkKeyring(distribution);
  const sources = resolveSources(
    distribution,
    await machineSources(),
    options.mirror === undefined ? {} : { mirror: options.mirror },
  );
  const { bake } = options;
  const compression = options.compression ?? DEFAULT_COMPRESSION;
  const plan = await osBuildPlan(distribution, options.kernel, sources, '/tree');
  const hash = inputHash({
    plan: { ...plan, tree: null },
    disk: [mke2fsArgv({ label: ROOT_LABEL, tree: '', target: '', sizeMiB: 0 }), sgdiskArgv('')],
    compression,
    builder: 2,
    ...(bake ? { bake, archive: await archiveState([...sources, ...bake.archives]) } : {}),
  });
  const store = createImageStore(options.imagesDir);
  const name = imageName(options.name, options.kernel) + (bake ? `-${[...bake.roles].sort().join('-')}` : '');
  const present = await store.get(name).catch(() => null);
  if (!options.force && present?.kind === 'os' && present.inputHash === hash) return present;

  const began = performance.now();
  await mkdir(options.imagesDir, { recursive: true });
  const work = await mkdtemp(join(options.imagesDir, `.build-${name}-`));
  const logFile = join(options.imagesDir, `${name}.log`);
  await rm(logFile, { force: true });
  const progress = options.onProgress ?? (() => undefined);
  const run = {
    logFile,
    onProgress: progress,
    ...(options.signal ? { signal: options.signal } : {}),
  };
  const logged = (program: string, argv: readonly string[], dependency: string) =>
    runLogged(program, argv, { ...run, what: `the image ${name}`, dependency });
  try {
    const tree = join(work, 'tree');
    const out = join(work, 'out');
    await mkdir(out);
    await makeTree({ ...plan.tree, target: tree }, run);

    // Before anything is configured: what of it starts at boot is the recipe's to say.
    const came = bake ? await bakeRoles(tree, sources, bake, { ...run, scratch: join(work, 'bake') }) : 0;

    progress('configuring the system');
    for (const [path, content] of Object.entries(plan.overlay)) await put(tree, path, content, await overlayMode(path));
    for (const file of plan.recipe.files) await put(tree, file.path, file.content, file.mode);
    for (const command of plan.recipe.commands) await logged('chroot', [tree, ...command], 'coreutils');
    await logged('chroot', [tree, ...plan.recipe.grubCore], 'coreutils');
    const coreImg = join(work, 'core.img');
    await copyFile(join(tree, GRUB_CORE), coreImg);
    const kernelVersion = await readKernelVersion(tree);
    await cleanTree(tree);

    progress('making the disk image');
    const stubFile = join(work, 'grub.cfg');
    await writeFile(stubFile, plan.stub);
    const raw = join(work, 'disk.raw');
    const { rawBytes } = await makeDiskImage(
      {
        tree,
        rootLabel: ROOT_LABEL,
        esp: Object.fromEntries(
          Object.entries(plan.recipe.esp).map(([to, from]) => [to, from === null ? stubFile : join(tree, from)]),
        ),
        bootImg: join(tree, 'usr/lib/grub/i386-pc/boot.img'),
        coreImg,
        target: raw,
        workDir: work,
      },
      run,
    );
    progress('compressing');
    const zstd = ['-q', '-f', '-T0', `-${compression}`];
    await logged('zstd', [...zstd, '--rm', raw, '-o', join(out, 'disk.raw.zst')], 'zstd');
    const tar = join(work, 'root.tar');
    await logged(
      'tar',
      [
        ...['--create', '--file', tar, '--directory', tree, '--numeric-owner', '--xattrs', '--xattrs-include=*'],
        ...['--acls', '--one-file-system', '--sort=name', '.'],
      ],
      'tar',
    );
    await logged('zstd', [...zstd, '--rm', tar, '-o', join(out, 'root.tar.zst')], 'zstd');

    const manifest: OsImageManifest = {
      schema: 1,
      kind: 'os',
      name,
      distribution: distribution.distribution,
      release: distribution.release,
      arch: 'amd64',
      createdMs: Date.now(),
      inputHash: hash,
      disk: {
        name: 'disk.raw.zst',
        ...(await describeFile(join(out, 'disk.raw.zst'))),
        rawBytes,
        rootPartition: PARTITION.root,
        espPartition: PARTITION.esp,
      },
      root: { name: 'root.tar.zst', ...(await describeFile(join(out, 'root.tar.zst'))) },
      rootLabel: ROOT_LABEL,
      kernel: kernelVersion,
      ...(bake
        ? {
            baked: { roles: bake.roles, packages: came, seconds: Math.round((performance.now() - began) / 100) / 10 },
          }
        : {}),
    };
    await store.publish(manifest, out);
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Resolves with the number of packages that came. */
async function bakeRoles(
  tree: string,
  sources: readonly AptSource[],
  { packages, preseed, archives }: RolePackages,
  run: RunOptions & { readonly scratch: string },
): Promise<number> {
  if (archives.length === 0) return bakeTree({ ...run, root: tree, packages, preseed });
  // Their keyrings come from the distribution's own archives.
  const keyrings = await bakeTree({ ...run, root: tree, packages: archives.map(a => a.keyring.package) });
  const lines = archives.flatMap(a =>
    sourceLines([a]).map(l => l.replace(/^deb /, `deb [signed-by=${a.keyring.file}] `)),
  );
  const aptSources = [...sourceLines(sources), ...lines, ''].join('\n');
  return keyrings + (await bakeTree({ ...run, root: tree, packages, preseed, aptSources }));
}

/** The files of templates/install/os by their path in the tree. */
async function readOverlay(): Promise<Record<string, string>> {
  const base = join(packageRoot(), OVERLAY);
  const files: Record<string, string> = {};
  const walk = async (dir: string): Promise<void> => {
    for (const entry of (await readdir(dir, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) await walk(path);
      else files[`/${relative(base, path)}`] = await readFile(path, 'utf8');
    }
  };
  await walk(base);
  return files;
}

async function overlayMode(path: string): Promise<number> {
  return (await stat(join(packageRoot(), OVERLAY, path))).mode & 0o111 ? 0o755 : 0o644;
}

async function put(tree: string, path: string, content: string, mode: number): Promise<void> {
  const file = join(tree, path);
  const first = await mkdir(dirname(file), { recursive: true });
  // Services that are not root's read here, too; our own umask would keep them out.
  for (let dir = dirname(file); first !== undefined && dir.length >= first.length; dir = dirname(dir))
    await chmod(dir, 0o755);
  await writeFile(file, content);
  await chmod(file, mode);
}

async function readKernelVersion(tree: string): Promise<string> {
  const versions = (await readdir(join(tree, 'boot'))).flatMap(file =>
    file.startsWith('vmlinuz-') ? [file.slice('vmlinuz-'.length)] : [],
  );
  if (versions.length !== 1) fail('image-build', `The tree has ${versions.length} kernels instead of one.`);
  return versions[0]!;
}

/** What must not be the same on two hosts, and what nobody needs. */
async function cleanTree(tree: string): Promise<void> {
  const gone = [
    ...['tmp/halligan-core.img', 'tmp/halligan-debconf', 'var/lib/systemd/random-seed', 'var/log/bootstrap.log'],
    ...['var/log/apt', 'var/log/dpkg.log', 'var/log/alternatives.log', 'var/cache/debconf/config.dat-old'],
    ...['var/cache/debconf/templates.dat-old', 'var/lib/dpkg/status-old', 'var/lib/dbus/machine-id'],
  ];
  for (const path of gone) await rm(join(tree, path), { recursive: true, force: true });
  for (const key of await readdir(join(tree, 'etc/ssh')).catch(() => [] as string[]))
    if (key.startsWith('ssh_host_')) await rm(join(tree, 'etc/ssh', key));
}
