/**
 * Packages put on top of a tree as an overlay layer: once, at native speed, kept by content. A host whose root is such
 * a stack has the packages before it boots, and none of their services is started.
 *
 * The work happens in a process and mount namespace of its own, so that whatever a package's scripts start or mount is
 * gone with it, however a bake ends: when it fails, is aborted, or is killed with us.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  access,
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { inputHash } from '../core/input-hash.js';
import { fail, ProblemError, problem } from '../core/problem.js';
import { type AptSource, machineSources, parseAptSources, type RunOptions, runLogged } from './mmdebstrap.js';

const execFileAsync = promisify(execFile);

/** Raised when the same packages would give another layer than before. */
const BUILDER = 2;
/** Length of the name of a layer's folder; the whole key stands in its layer.json. */
const NAME_LENGTH = 24;

export interface BakeOptions extends RunOptions {
  /** Folder of the complete root file system below everything. */
  readonly base: string;
  /** Layers between the base and the new one, topmost first. */
  readonly lowers: readonly string[];
  readonly packages: readonly string[];
  /** Answers to debconf's questions: lines of debconf-set-selections(1). */
  readonly preseed?: readonly string[];
  readonly cacheDir: string;
  /** Text of a sources.list(5) in place of the base's own. */
  readonly aptSources?: string | undefined;
}

export interface BakedLayer {
  /** Upper folder of an overlay: complete, or not there at all. */
  readonly dir: string;
  readonly key: string;
  /** Packages installed in the whole stack. */
  readonly packages: number;
  /** How long the bake took, whenever that was. */
  readonly seconds: number;
  readonly cached: boolean;
}

interface LayerFile {
  readonly version: 1;
  readonly key: string;
  readonly asked: readonly string[];
  readonly packages: number;
  readonly seconds: number;
}

/** What decides about a layer. Pure. */
export function bakeKey(inputs: {
  readonly base: string;
  readonly lowers: readonly string[];
  readonly packages: readonly string[];
  readonly preseed: readonly string[];
  readonly aptSources: string | null;
  readonly archive: string;
}): string {
  return inputHash({ builder: BUILDER, ...inputs, packages: [...new Set(inputs.packages)].sort() });
}

/** A tree is what its packages are: dpkg's own record, which each layer carries whole. */
async function treeId(dir: string): Promise<string> {
  const status = await readFile(join(dir, 'var/lib/dpkg/status')).catch(() =>
    fail('image-build', `${dir} is no root file system of Debian or Ubuntu: it has no var/lib/dpkg/status.`),
  );
  return createHash('sha256').update(status).digest('hex');
}

/**
 * The state of the archives as this machine's apt saw it last, for the suites of `sources`; `unknown` when it never
 * looked. A layer is baked anew when the machine has seen a new one.
 */
export async function archiveState(sources: readonly AptSource[], listsDir = '/var/lib/apt/lists'): Promise<string> {
  const suites = new Set(sources.flatMap(source => source.suites.map(suite => suite.replaceAll('/', '_'))));
  const seen: Record<string, string> = {};
  for (const file of (await readdir(listsDir).catch((): string[] => [])).sort()) {
    const suite = /_dists_(.+)_(?:In)?Release$/.exec(file)?.[1];
    if (suite === undefined || !suites.has(suite)) continue;
    const date = /^Date: (.*)$/m.exec(await readFile(join(listsDir, file), 'utf8'))?.[1];
    if (date !== undefined) seen[file] = date;
  }
  return Object.keys(seen).length === 0 ? 'unknown' : inputHash(seen);
}

/** How this machine's apt reaches archives, as text of apt.conf(5): proxy, and how old an archive may be. */
async function machineAptConf(): Promise<string> {
  const names = ['http::Proxy', 'https::Proxy', 'Retries', 'Check-Valid-Until', 'Check-Date'];
  return execFileAsync('apt-config', ['dump', '--format', '%F "%v";%n', ...names.map(name => `Acquire::${name}`)]).then(
    result => result.stdout,
    () => '',
  );
}

interface Held {
  readonly pid: number;
  release(): Promise<void>;
}

/**
 * Starts `program … cat` and waits until cat answers. It ends with its input, which is ours: when this process dies,
 * however that happens, what it holds is let go.
 */
async function hold(
  argv: readonly [string, ...string[]],
  what: string,
  signal: AbortSignal | undefined,
): Promise<Held> {
  const [program, ...args] = argv;
  const child = spawn(program, [...args, 'cat'], { stdio: ['pipe', 'pipe', 'pipe'], detached: true, cwd: '/' });
  const closed = new Promise<void>(resolve => child.once('close', () => resolve()));
  const abort = () => child.stdin.end();
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort, { once: true });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    said = (said + part).slice(-300);
  });
  child.stdin.on('error', () => undefined);
  try {
    await new Promise<void>((resolve, reject) => {
      const broken = (code: 'dependency-missing' | 'image-build', message: string) =>
        reject(new ProblemError(problem(code, message)));
      child.once('error', () => broken('dependency-missing', `${program} is not installed (package util-linux).`));
      child.once('close', () =>
        broken('image-build', signal?.aborted ? `Baking was stopped.` : `${what} was not to be had: ${said.trim()}`),
      );
      child.stdout.once('data', () => resolve());
      child.stdin.write('\n');
    });
  } finally {
    signal?.removeEventListener('abort', abort);
  }
  return {
    pid: child.pid!,
    async release() {
      child.stdin.end();
      await closed;
    },
  };
}

const lock = (file: string, signal: AbortSignal | undefined) => hold(['flock', '-x', file], `The lock ${file}`, signal);

/** A tree that programs run in, in namespaces that end with it. */
interface Sandbox {
  /** Where this process finds a path of the tree. */
  at(path: string): string;
  /** Runs a program of the machine within the namespaces. Throws ProblemError image-build. */
  outside(program: string, argv: readonly string[]): Promise<void>;
  /** Runs a program of the tree. `before` stands in front of chroot, e.g. flock(1) and its arguments. */
  inside(program: string, argv: readonly string[], more?: InsideOptions): Promise<void>;
  close(): Promise<void>;
}

interface InsideOptions {
  readonly before?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly line?: (line: string) => void;
}

async function openSandbox(root: string, what: string, run: RunOptions): Promise<Sandbox> {
  const held = await hold(
    ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private'],
    'A namespace',
    run.signal,
  );
  const init = (await readFile(`/proc/${held.pid}/task/${held.pid}/children`, 'utf8')).trim();
  const enter = async (argv: readonly string[], program: string, more: InsideOptions) => {
    try {
      await runLogged('nsenter', [`--target=${init}`, '--mount', '--pid', '--', ...argv], {
        ...run,
        what,
        dependency: 'util-linux',
        ...(more.env ? { env: more.env } : {}),
        progress: line => {
          more.line?.(line);
          return null;
        },
      });
    } catch (error) {
      if (!(error instanceof ProblemError) || error.problem.code !== 'image-build') throw error;
      // What failed is the program, not the door to it.
      const message = error.problem.message.replace(/^nsenter /, `${program} `);
      throw new ProblemError({ ...error.problem, message }, { cause: error });
    }
  };
  return {
    at: path => join(`/proc/${init}/root`, root, path),
    outside: (program, argv) => enter([program, ...argv], program, {}),
    inside: (program, argv, more = {}) =>
      enter([...(more.before ?? []), 'chroot', root, program, ...argv], program, more),
    async close() {
      // The first process of the namespace: the kernel ends all others with it, and drops the mounts.
      await held.release();
    },
  };
}

/** Scratch folder inside the tree. */
const SCRATCH = '/var/tmp/halligan-bake';
const APT_ENV = { APT_CONFIG: `${SCRATCH}/apt.conf` };

function aptConf(machine: string, ownSources: boolean): string {
  return [
    machine,
    'Acquire::Languages "none";',
    'APT::Install-Recommends "false";',
    // Packages are kept for the next layer; who writes there holds a lock of ours, since apt's own does not wait.
    'APT::Keep-Downloaded-Packages "true";',
    'Debug::NoLocking "true";',
    'APT::Sandbox::User "root";',
    'Dpkg::Use-Pty "false";',
    'Dpkg::Options { "--force-confdef"; "--force-confold"; "--force-unsafe-io"; };',
    ...(ownSources ? [`Dir::Etc::sourcelist "${SCRATCH}/sources.list";`, 'Dir::Etc::sourceparts "/dev/null";'] : []),
    '',
  ].join('\n');
}

/** Links by which something starts at boot (systemd.unit(5), rc?.d), relative to the tree. */
export async function startLinks(root: string): Promise<string[]> {
  const found: string[] = [];
  const list = (path: string) => readdir(join(root, path)).catch((): string[] => []);
  for (const kind of ['system', 'user'])
    for (const folder of await list(`etc/systemd/${kind}`))
      if (/\.(wants|requires)$/.test(folder))
        for (const unit of await list(`etc/systemd/${kind}/${folder}`))
          found.push(`etc/systemd/${kind}/${folder}/${unit}`);
  for (const folder of await list('etc'))
    if (/^rc[0-6S]\.d$/.test(folder))
      for (const script of await list(`etc/${folder}`))
        if (script.startsWith('S')) found.push(`etc/${folder}/${script}`);
  return found.sort();
}

/** What `systemctl disable` would do of a link that startLinks found; `systemctl enable` undoes it. */
export async function stopLink(root: string, link: string): Promise<void> {
  // Runlevels keep a record that the script is off: update-rc.d(8) refuses to enable one that has stop links only.
  const script = /^(etc\/rc[0-6S]\.d\/)S(.*)$/.exec(link);
  if (script) await rename(join(root, link), join(root, `${script[1]}K${script[2]}`));
  else await rm(join(root, link));
}

/** Puts the machine's resolv.conf into the tree; the returned function puts back what was there. */
async function lendResolvConf(path: string): Promise<() => Promise<void>> {
  const own = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  const was = await lstat(path).catch(() => null);
  const before = was?.isSymbolicLink() ? await readlink(path) : was ? await readFile(path, 'utf8') : null;
  await rm(path, { force: true });
  await writeFile(path, own);
  return async () => {
    // A package that brought its own (systemd-resolved makes a link) is right.
    const is = await lstat(path).catch(() => null);
    if (!is?.isFile() || (await readFile(path, 'utf8')) !== own) return;
    await rm(path);
    if (was?.isSymbolicLink()) await symlink(before!, path);
    else if (before !== null) await writeFile(path, before);
  };
}

async function makeLayer(options: BakeOptions, name: string, lists: string, work: string): Promise<number> {
  const [upper, root] = [join(work, 'upper'), join(work, 'root')];
  for (const dir of [upper, join(work, 'work'), root]) await mkdir(dir, { recursive: true });
  // It becomes the root folder of hosts, whatever our umask is.
  await chmod(upper, 0o755);
  const lowers = [...options.lowers, options.base];
  const unfit = [...lowers, work].find(path => /[,:\\]/.test(path));
  if (unfit !== undefined)
    fail('request-invalid', `${unfit} cannot be a layer: its path has a comma, colon or backslash.`);
  // Volatile: nothing in it is worth an fsync(2) before all of it is done.
  const overlay = `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${join(work, 'work')},volatile`;
  return installInto({
    ...options,
    root,
    mount: ['-t', 'overlay', 'overlay', '-o', overlay, root],
    what: `the layer ${name}`,
    archives: join(options.cacheDir, 'debs'),
    lists,
    atEnd: async () => {},
  });
}

export interface BakeTreeOptions extends RunOptions, Pick<BakeOptions, 'packages' | 'preseed' | 'aptSources'> {
  /** Folder of a complete root file system, which gets the packages. */
  readonly root: string;
  /** For packages and lists; may go afterwards. */
  readonly scratch: string;
}

/**
 * Puts packages into a tree itself, with none of them started now or at boot. Resolves with the number of packages that
 * came. Throws ProblemError image-build.
 */
export async function bakeTree(options: BakeTreeOptions): Promise<number> {
  const { root, scratch } = options;
  const status = join(root, 'var/lib/dpkg/status');
  const before = installed(await readFile(status, 'utf8'));
  const after = await installInto({
    ...options,
    mount: ['--bind', root, root],
    what: `the tree ${basename(root)}`,
    archives: join(scratch, 'debs'),
    lists: join(scratch, `lists-${inputHash(options.aptSources ?? null).slice(0, NAME_LENGTH)}`),
    atEnd: namesOfHosts,
  });
  return after - before;
}

const installed = (status: string) => status.match(/^Status: install ok installed$/gm)?.length ?? 0;

interface InstallOptions extends RunOptions, Pick<BakeOptions, 'packages' | 'preseed' | 'aptSources'> {
  readonly root: string;
  /** Arguments of mount(8) that put the tree at `root`. */
  readonly mount: readonly string[];
  readonly what: string;
  /** Folders that keep packages and lists. */
  readonly archives: string;
  readonly lists: string;
  /** When all is installed. */
  readonly atEnd: (box: Sandbox) => Promise<void>;
}

/** Resolves with the number of packages that are in the tree then. */
async function installInto(options: InstallOptions): Promise<number> {
  const { root, archives, lists } = options;
  for (const dir of [join(archives, 'partial'), join(lists, 'partial')]) await mkdir(dir, { recursive: true });
  const progress = options.onProgress ?? (() => undefined);
  const box = await openSandbox(root, options.what, options);
  try {
    await box.outside('mount', options.mount);
    await box.outside('mount', ['-t', 'proc', 'proc', join(root, 'proc')]);
    await box.outside('mount', ['-o', 'bind,ro', '/sys', join(root, 'sys')]);
    for (const [from, to] of [
      ['/dev', 'dev'],
      ['/dev/pts', 'dev/pts'],
      [archives, 'var/cache/apt/archives'],
      [lists, 'var/lib/apt/lists'],
    ] as const)
      await box.outside('mount', ['--bind', from, join(root, to)]);

    const giveBack = await lendResolvConf(box.at('etc/resolv.conf'));
    await mkdir(box.at(SCRATCH), { recursive: true });
    await writeFile(box.at(`${SCRATCH}/apt.conf`), aptConf(await machineAptConf(), options.aptSources !== undefined));
    if (options.aptSources !== undefined) await writeFile(box.at(`${SCRATCH}/sources.list`), options.aptSources);
    // Exit 101: "not allowed" (invoke-rc.d(8)).
    await writeFile(box.at('usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n');
    await chmod(box.at('usr/sbin/policy-rc.d'), 0o755);
    if (options.preseed && options.preseed.length > 0) {
      await writeFile(box.at(`${SCRATCH}/preseed`), options.preseed.map(line => `${line}\n`).join(''));
      await box.inside('debconf-set-selections', [`${SCRATCH}/preseed`]);
    }

    const aptGet = (argv: readonly string[], locks: readonly string[], line?: (text: string) => void) =>
      box.inside('apt-get', ['--quiet', '--assume-yes', ...argv], {
        before: locks,
        env: APT_ENV,
        ...(line ? { line } : {}),
      });
    const listsLock = join(lists, 'halligan.lock');
    const update = async () => {
      progress('fetching the lists of packages');
      await aptGet(['-o', 'APT::Update::Error-Mode=any', 'update'], ['flock', '-x', listsLock]);
      await writeFile(join(lists, 'halligan.complete'), '');
    };
    const complete = await access(join(lists, 'halligan.complete')).then(
      () => true,
      () => false,
    );
    if (!complete) await update();
    let count = 0;
    const download = async () => {
      progress('downloading packages');
      await aptGet(
        ['--download-only', 'install', ...options.packages],
        ['flock', '-s', listsLock, 'flock', '-x', join(archives, 'halligan.lock')],
        line => {
          const numbers = /^(\d+) upgraded, (\d+) newly installed/.exec(line);
          if (numbers) count = Number(numbers[1]) + Number(numbers[2]);
        },
      );
    };
    try {
      await download();
    } catch (error) {
      // An archive forgets old versions: kept lists may name files that are gone.
      if (!complete || options.signal?.aborted) throw error;
      await update();
      await download();
    }
    const before = new Set(await startLinks(box.at('/')));
    progress(`installing ${count} packages`);
    const install = () => aptGet(['--no-download', 'install', ...options.packages], ['flock', '-s', listsLock]);
    await install().catch(async error => {
      // Scripts of packages that work on their own now and then do not: openstack-dashboard's style sheet compiler does
      // not always read its files to their end. A defect fails twice.
      if (options.signal?.aborted) throw error;
      progress('a package could not be configured; once more');
      await install();
    });

    progress('cleaning up');
    for (const link of await startLinks(box.at('/'))) if (!before.has(link)) await stopLink(box.at('/'), link);
    await giveBack();
    for (const path of [SCRATCH, 'usr/sbin/policy-rc.d', 'var/cache/apt/pkgcache.bin', 'var/cache/apt/srcpkgcache.bin'])
      await rm(box.at(path), { recursive: true, force: true });
    for (const path of [
      'var/lib/dpkg/status-old',
      'var/cache/debconf/config.dat-old',
      'var/cache/debconf/templates.dat-old',
    ])
      await rm(box.at(path), { force: true });
    await singular(box);
    await options.atEnd(box);
    const status = await readFile(box.at('var/lib/dpkg/status'), 'utf8');
    await box.outside('umount', ['--recursive', root]).catch(error => {
      // Something that a package started sits in there; it ends below.
      if (options.signal?.aborted) throw error;
    });
    return installed(status);
  } finally {
    await box.close();
  }
}

/** What must not be the same on two hosts. The id is emptied, not removed: see machine-id(5), first boot. */
async function singular(box: Sandbox): Promise<void> {
  const id = box.at('etc/machine-id');
  if ((await lstat(id).catch(() => null))?.isFile() && (await readFile(id)).length > 0) await writeFile(id, '');
  const dbus = box.at('var/lib/dbus/machine-id');
  if ((await lstat(dbus).catch(() => null))?.isFile()) await rm(dbus);
}

/** Names and secrets that packages made while they were installed: hosts that get the same disk make their own. */
async function namesOfHosts(box: Sandbox): Promise<void> {
  const initiator = box.at('etc/iscsi/initiatorname.iscsi');
  // startup-checks.sh of open-iscsi makes a name where it finds this, and refuses to start without the file.
  if ((await lstat(initiator).catch(() => null))?.isFile()) await writeFile(initiator, 'GenerateName=yes\n');
  for (const path of [
    // Made of the machine's own UUID where they are missing.
    ...['etc/nvme/hostnqn', 'etc/nvme/hostid'],
    'var/lib/rabbitmq/.erlang.cookie',
    ...['etc/ssl/private/ssl-cert-snakeoil.key', 'etc/ssl/certs/ssl-cert-snakeoil.pem'],
  ])
    await rm(box.at(path), { force: true });
}

async function readLayer(folder: string, key: string): Promise<BakedLayer | null> {
  const text = await readFile(join(folder, 'layer.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const file = JSON.parse(text) as LayerFile;
  if (file.version !== 1 || file.key !== key) return null;
  return { dir: join(folder, 'upper'), key, packages: file.packages, seconds: file.seconds, cached: true };
}

/**
 * Bakes a layer, or returns the one there is when its inputs are the same: packages, answers, what lies below, and the
 * state of the archives as this machine's apt knows it. A second bake of the same layer waits for the first.
 * Throws ProblemError: capability-missing (not root), request-invalid, dependency-missing, image-build (apt's last error
 * and the name of the log).
 */
export async function bakeLayer(options: BakeOptions): Promise<BakedLayer> {
  const wrong = options.packages.find(name => !/^[a-z0-9][a-z0-9+.-]+$/.test(name));
  if (wrong !== undefined) fail('request-invalid', `"${wrong}" is no name of a package.`);
  if (options.packages.length === 0) fail('request-invalid', 'A layer needs at least one package.');
  const sources =
    options.aptSources === undefined
      ? await machineSources(join(options.base, 'etc/apt'))
      : parseAptSources(options.aptSources, 'list');
  const archive = await archiveState(sources);
  const key = bakeKey({
    base: `${basename(options.base)} ${await treeId(options.base)}`,
    lowers: await Promise.all(options.lowers.map(treeId)),
    packages: options.packages,
    preseed: options.preseed ?? [],
    aptSources: options.aptSources ?? null,
    archive,
  });
  const folder = join(options.cacheDir, `layer-${key.slice(0, NAME_LENGTH)}`);
  const there = await readLayer(folder, key);
  if (there) return there;
  if (process.getuid?.() !== 0) fail('capability-missing', 'Layers are baked as root: they are mounted and entered.');

  await mkdir(options.cacheDir, { recursive: true });
  const held = await lock(`${folder}.lock`, options.signal);
  try {
    const meanwhile = await readLayer(folder, key);
    if (meanwhile) return meanwhile;
    const began = performance.now();
    const work = join(options.cacheDir, `.${basename(folder)}`);
    // Ours alone while the lock is held: left by a bake that was killed.
    await rm(work, { recursive: true, force: true });
    await rm(folder, { recursive: true, force: true });
    const lists = join(options.cacheDir, `lists-${inputHash({ archive, sources }).slice(0, NAME_LENGTH)}`);
    try {
      const packages = await makeLayer(options, basename(folder), lists, work);
      const seconds = Math.round((performance.now() - began) / 100) / 10;
      for (const dir of ['work', 'root']) await rm(join(work, dir), { recursive: true, force: true });
      const file: LayerFile = { version: 1, key, asked: [...options.packages].sort(), packages, seconds };
      await writeFile(join(work, 'layer.json'), `${JSON.stringify(file, null, 2)}\n`);
      await execFileAsync('sync', ['-f', work]);
      await rename(work, folder);
      return { dir: join(folder, 'upper'), key, packages, seconds, cached: false };
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  } finally {
    await held.release();
  }
}

export interface StackLayer {
  readonly name: string;
  readonly packages: readonly string[];
  /** Name of the layer below it, which stands before it in the list; null for the base. */
  readonly on: string | null;
  readonly preseed?: readonly string[];
}

export interface StackOptions extends Pick<BakeOptions, 'base' | 'cacheDir' | 'aptSources' | 'signal'> {
  readonly layers: readonly StackLayer[];
  /** Each layer's log is NAME.log in there. */
  readonly logDir: string;
  readonly onProgress?: (layer: string, line: string) => void;
  /** How many bake at the same time: dpkg uses one CPU. */
  readonly jobs?: number;
}

export interface BakedStack extends BakedLayer {
  /** What a host is mounted of above the base: this layer and those below it, topmost first. */
  readonly layers: readonly string[];
}

/**
 * Bakes layers that stand on each other, by name; those that do not wait for each other at the same time.
 * Throws ProblemError as bakeLayer does, after all that could be baked was.
 */
export async function bakeStack(options: StackOptions): Promise<Readonly<Record<string, BakedStack>>> {
  const { layers, jobs = 2, logDir, onProgress, ...shared } = options;
  const waiting: (() => void)[] = [];
  let running = 0;
  const slot = async <T>(work: () => Promise<T>): Promise<T> => {
    if (running >= jobs) await new Promise<void>(resolve => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
  for (const [i, { name, on }] of layers.entries()) {
    const before = layers.slice(0, i).map(layer => layer.name);
    if (before.includes(name)) fail('request-invalid', `Two layers are named ${name}.`);
    if (on !== null && !before.includes(on))
      fail('request-invalid', `The layer ${name} stands on ${on}, which is not before it.`);
  }
  const baked = new Map<string, Promise<BakedStack>>();
  for (const { name, on, packages, preseed } of layers) {
    const below = on === null ? undefined : baked.get(on);
    const bake = async (): Promise<BakedStack> => {
      const lowers = (await below)?.layers ?? [];
      const layer = await slot(() =>
        bakeLayer({
          ...shared,
          lowers,
          packages,
          ...(preseed ? { preseed } : {}),
          logFile: join(logDir, `${name}.log`),
          ...(onProgress ? { onProgress: (line: string) => onProgress(name, line) } : {}),
        }),
      );
      return { ...layer, layers: [layer.dir, ...lowers] };
    };
    baked.set(name, bake());
  }
  const done = await Promise.allSettled(baked.values());
  const failed = done.find(result => result.status === 'rejected');
  if (failed) throw failed.reason;
  return Object.fromEntries(await Promise.all([...baked].map(async ([name, layer]) => [name, await layer] as const)));
}
