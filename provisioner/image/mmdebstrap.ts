/**
 * The one way in which trees of a distribution are made: mmdebstrap(1), called by argv, signatures checked, output in a
 * log file, from the mirror that this machine itself uses.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, constants, mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import type { Distribution } from '../core/distributions/load.js';
import { fail } from '../core/problem.js';

/** One archive as apt sees it. */
export interface AptSource {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
}

export interface TreeSpec {
  readonly distribution: Distribution;
  /** What apt fetches from; `resolveSources()` finds it. */
  readonly sources: readonly AptSource[];
  readonly variant: 'minbase' | 'important';
  readonly packages: readonly string[];
  /** Packages that are taken where an archive has them, and left out silently where not. */
  readonly optionalPackages?: readonly string[];
  /** Paths that dpkg leaves out, e.g. /usr/share/man/*. */
  readonly excludePaths?: readonly string[];
  /** Taken all the same, from the paths left out. */
  readonly includePaths?: readonly string[];
  /** Options of apt inside the call, e.g. `Apt::Install-Recommends "false"` (the default). */
  readonly aptOptions?: readonly string[];
  /** Absolute path of the folder that becomes the tree; mmdebstrap makes it. */
  readonly target: string;
  readonly arch?: 'amd64';
  /** Kernel packages make no initramfs (INITRD=No, kernel-package's and initramfs-tools' own switch). */
  readonly noInitramfs?: boolean;
}

/**
 * The argv of mmdebstrap for a tree. Pure. Hooks are left out on purpose: they are shell text; callers change the tree
 * afterwards, from Node.
 */
export function mmdebstrapArgv(spec: TreeSpec): string[] {
  const packages = [...spec.packages].sort();
  // An apt pattern that matches nothing is no error, a name that does not exist is.
  const optional = [...(spec.optionalPackages ?? [])].sort().map(name => `?exact-name(${name})`);
  const comma = packages.find(name => /[^a-z0-9+.-]/.test(name));
  if (comma !== undefined) throw new Error(`not a package name: ${comma}`);
  return [
    '--mode=root',
    '--format=directory',
    `--variant=${spec.variant}`,
    `--architectures=${spec.arch ?? 'amd64'}`,
    `--keyring=${spec.distribution.keyring.file}`,
    ...(packages.length > 0 ? [`--include=${packages.join(',')}`] : []),
    ...optional.map(pattern => `--include=${pattern}`),
    ...[
      'Acquire::Languages "none"',
      'Acquire::Retries "3"',
      ...(spec.aptOptions ?? ['Apt::Install-Recommends "false"']),
    ].map(option => `--aptopt=${option}`),
    ...(spec.excludePaths ?? []).map(path => `--dpkgopt=path-exclude=${path}`),
    ...(spec.includePaths ?? []).map(path => `--dpkgopt=path-include=${path}`),
    spec.distribution.suite,
    spec.target,
    ...sourceLines(spec.sources),
  ];
}

/** One-line sources of apt (sources.list(5)). */
export function sourceLines(sources: readonly AptSource[]): string[] {
  return sources.flatMap(({ uri, suites, components }) =>
    suites.map(suite => `deb ${uri} ${suite} ${components.join(' ')}`),
  );
}

/**
 * Reads sources.list(5) text, one-line or deb822, into archives. Disabled, source-only and flat entries are left out;
 * options (signed-by and others) are ignored, because the keyring is the distribution's.
 */
export function parseAptSources(text: string, format: 'list' | 'deb822'): AptSource[] {
  if (format === 'list')
    return text.split('\n').flatMap(line => {
      const match = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(https?:\/\/\S+)\s+([^\s/]+)\s+([^#]+)/.exec(line);
      if (!match) return [];
      const [, uri = '', suite = '', components = ''] = match;
      return [{ uri: trimSlash(uri), suites: [suite], components: components.trim().split(/\s+/) }];
    });
  return text.split(/\n\s*\n/).flatMap(stanza => {
    const fields = new Map<string, string>();
    let last = '';
    for (const line of stanza.split('\n')) {
      if (line.startsWith('#')) continue;
      const field = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
      if (field) {
        last = field[1]!.toLowerCase();
        fields.set(last, field[2]!);
      } else if (/^\s/.test(line) && last) fields.set(last, `${fields.get(last)} ${line.trim()}`);
    }
    const words = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter(word => word !== '');
    if (/^(no|false)$/i.test(fields.get('enabled') ?? '') || !words('types').includes('deb')) return [];
    const suites = words('suites').filter(suite => !suite.endsWith('/'));
    const components = words('components');
    if (suites.length === 0 || components.length === 0) return [];
    return words('uris')
      .filter(uri => /^https?:\/\//.test(uri))
      .map(uri => ({ uri: trimSlash(uri), suites, components }));
  });
}

/** http://host/debian and `debian-security`: http://host/debian-security */
const sibling = (uri: string, folder: string) => uri.replace(/[^/]*$/, folder);

const trimSlash = (uri: string) => uri.replace(/\/+$/, '');

/** The apt sources of this machine. Files that cannot be read count as empty. */
export async function machineSources(aptDir = '/etc/apt'): Promise<AptSource[]> {
  const read = (path: string) => readFile(path, 'utf8').catch(() => '');
  const parts = (await readdir(join(aptDir, 'sources.list.d')).catch((): string[] => [])).sort();
  const texts = [parseAptSources(await read(join(aptDir, 'sources.list')), 'list')];
  for (const part of parts) {
    const format = part.endsWith('.sources') ? 'deb822' : part.endsWith('.list') ? 'list' : null;
    if (format) texts.push(parseAptSources(await read(join(aptDir, 'sources.list.d', part)), format));
  }
  return texts.flat();
}

/**
 * Where to fetch a distribution from: for each suite of its data the mirror that this machine uses for that suite, else
 * the archive named in the data. `mirror` overrides the URI of the first archive. Components are the data's, plus
 * `extraComponents`; one that a mirror does not have is only a warning to apt.
 */
export function resolveSources(
  distribution: Distribution,
  machine: readonly AptSource[],
  options: { mirror?: string; extraComponents?: readonly string[] } = {},
): AptSource[] {
  const resolved: { uri: string; suites: string[]; components: readonly string[] }[] = [];
  let main: string | undefined;
  for (const [index, archive] of distribution.archives.entries()) {
    const components = [...new Set([...archive.components, ...(options.extraComponents ?? [])])];
    for (const suite of archive.suites) {
      const own = machine.find(source => source.suites.includes(suite) && source.components.includes(components[0]!));
      const beside = archive.beside !== undefined && main !== undefined ? sibling(main, archive.beside) : undefined;
      const uri =
        (index === 0 ? options.mirror : undefined) ?? own?.uri ?? archive.uri ?? (index === 0 ? main : beside);
      if (uri === undefined)
        return fail('image-build', `No mirror is known for ${suite}: this machine's apt sources do not name it.`, {
          hint: 'Name a mirror of the distribution with --mirror http://HOST/PATH.',
        });
      main ??= uri;
      const same = resolved.find(entry => entry.uri === uri && entry.components.join() === components.join());
      if (same) same.suites.push(suite);
      else resolved.push({ uri, suites: [suite], components });
    }
  }
  return resolved;
}

export interface RunOptions {
  /** Everything that mmdebstrap prints goes there; its folder is made. */
  readonly logFile: string;
  /** Called with each stage, e.g. "downloading packages with apt...". */
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Makes the tree. Throws ProblemError: dependency-missing (mmdebstrap, keyring), capability-missing (not root),
 * image-build (the last error line and the name of the log).
 */
export async function makeTree(spec: TreeSpec, options: RunOptions): Promise<void> {
  if (process.getuid?.() !== 0)
    fail('capability-missing', 'Images are built as root: files in them belong to root and a chroot is entered.');
  await checkKeyring(spec.distribution);
  const proxy = await aptProxy();
  await runLogged('mmdebstrap', mmdebstrapArgv(spec), {
    ...options,
    env: {
      ...(proxy === null ? {} : { http_proxy: proxy, https_proxy: proxy }),
      ...(spec.noInitramfs ? { INITRD: 'No' } : {}),
    },
    what: `the tree of ${spec.distribution.name}`,
    dependency: 'mmdebstrap',
    progress: line => /^I: (.*)$/.exec(line)?.[1] ?? null,
  });
}

/** Throws ProblemError dependency-missing when the keyring of the archive is not on this machine. */
export async function checkKeyring(distribution: Distribution): Promise<void> {
  const { file, package: name } = distribution.keyring;
  await access(file, constants.R_OK).catch(() =>
    fail('dependency-missing', `The keyring ${file}, which checks packages of ${distribution.name}, is missing.`, {
      hint: `Install the package ${name}, or copy the keyring to ${file}. Nothing is built unchecked.`,
    }),
  );
}

/** apt's own HTTP proxy; by environment, because mmdebstrap writes apt options into the tree. */
export async function aptProxy(): Promise<string | null> {
  return new Promise(resolve => {
    execFile('apt-config', ['dump', '--format', '%v%n', 'Acquire::http::Proxy'], (error, stdout) => {
      const value = error ? '' : stdout.trim();
      resolve(/^https?:\/\//.test(value) ? value : null);
    });
  });
}

export interface LoggedOptions extends RunOptions {
  /** What is being made, for the sentence of a failure. */
  readonly what: string;
  /** Package that brings the program. */
  readonly dependency: string;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Turns a line of output into a progress line, or null. */
  readonly progress?: (line: string) => string | null;
}

/**
 * Runs a program by argv with its output appended to the log file. Throws ProblemError: dependency-missing when it is
 * not installed, image-build when it fails or `signal` aborts (its whole process group is ended).
 */
export async function runLogged(program: string, argv: readonly string[], options: LoggedOptions): Promise<void> {
  await mkdir(dirname(options.logFile), { recursive: true });
  const log = createWriteStream(options.logFile, { flags: 'a', mode: 0o600 });
  log.write(`$ ${[program, ...argv].join(' ')}\n`);
  // What goes into an image is for all its users, whatever this process keeps to itself. Set around the fork only.
  const umask = process.umask(0o022);
  const child = spawn(program, argv, {
    cwd: options.cwd ?? '/',
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C.UTF-8',
      DEBIAN_FRONTEND: 'noninteractive',
      ...passedOn(),
      ...options.env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  process.umask(umask);
  const end = (signal: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // it has ended already
    }
  };
  let hard: NodeJS.Timeout | undefined;
  const abort = () => {
    end('SIGTERM');
    hard = setTimeout(() => end('SIGKILL'), 20_000);
  };
  if (options.signal?.aborted) abort();
  options.signal?.addEventListener('abort', abort, { once: true });

  let lastError = '';
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', line => {
      log.write(`${line}\n`);
      if (/^(E:|error|fatal)|failed/i.test(line)) lastError = line.slice(0, 300);
      const progress = options.progress?.(line) ?? null;
      if (progress !== null) options.onProgress?.(progress);
    });
  }
  const result = await new Promise<{ error?: NodeJS.ErrnoException; code?: number | null; by?: string | null }>(
    resolve => {
      child.once('error', error => resolve({ error }));
      child.once('close', (code, by) => resolve({ code, by }));
    },
  );
  clearTimeout(hard);
  options.signal?.removeEventListener('abort', abort);
  log.end();
  await finished(log);
  if (result.error?.code === 'ENOENT')
    fail('dependency-missing', `${program} is not installed.`, { hint: `Install the package ${options.dependency}.` });
  if (options.signal?.aborted) fail('image-build', `Building ${options.what} was stopped.`);
  if (result.error || result.code !== 0) {
    const reason = lastError || result.error?.message || `it ended with ${result.by ?? `status ${result.code}`}`;
    fail('image-build', `${program} failed for ${options.what}: ${reason} (log: ${options.logFile})`);
  }
}

/** Of our own environment a build sees only where temporary files and the proxy are. */
function passedOn(): Record<string, string> {
  const names = ['TMPDIR', 'http_proxy', 'https_proxy', 'no_proxy'];
  return Object.fromEntries(names.flatMap(name => (process.env[name] ? [[name, process.env[name]]] : [])));
}

/** Size and hex SHA-256 of a file, as it goes into a manifest. */
export async function describeFile(path: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}
