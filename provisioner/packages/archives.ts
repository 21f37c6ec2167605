/** Which archives nodes get their packages from, and what that is as text of sources.list(5). Pure. */
import type { Distribution } from '../core/distributions/load.js';
import { type AptSource, resolveSources } from '../image/mmdebstrap.js';

/** An archive beside those of the distribution, such as a pocket of the Ubuntu Cloud Archive. */
export interface ExtraArchive extends AptSource {
  readonly keyring: { readonly file: string };
}

export interface Archive extends AptSource {
  /** What stands for it in our addresses: `debian`, `debian-security`. */
  readonly name: string;
  /** Keyring on the node; null: the distribution's. */
  readonly keyring: string | null;
}

/**
 * Archives of a release.
 * @param input.machine apt sources of this machine: they say where it gets the same suites from
 * @param input.mirror in place of the distribution's first archive; the others are looked for beside it
 * @throws ProblemError image-build when no mirror is known of a suite
 */
export function archivesOf(input: {
  readonly distribution: Distribution;
  readonly extra: readonly ExtraArchive[];
  readonly machine: readonly AptSource[];
  readonly mirror?: string;
}): Archive[] {
  const { distribution, extra, machine, mirror } = input;
  // Nodes that are sent to a mirror because they reach nothing else do not reach what this machine uses either.
  const found = resolveSources(
    distribution,
    mirror === undefined ? machine : [],
    mirror === undefined ? {} : { mirror },
  );
  const beside = extra.map(archive => {
    const own = machine.find(s => archive.suites.every(suite => s.suites.includes(suite)));
    return { ...archive, uri: own?.uri ?? archive.uri, keyring: archive.keyring.file };
  });
  const names = new Map<string, string>();
  return [...found.map(source => ({ ...source, keyring: null })), ...beside].map(source => {
    const name = names.get(source.uri) ?? freeName(source.uri, [...names.values()]);
    names.set(source.uri, name);
    return { uri: source.uri, suites: source.suites, components: source.components, keyring: source.keyring, name };
  });
}

/** The last folder of the address; with a number where that is taken. */
function freeName(uri: string, taken: readonly string[]): string {
  const last = /\/([a-z0-9][a-z0-9-]*)$/.exec(uri.replace(/^https?:\/\/[^/]*/, ''))?.[1] ?? 'archive';
  for (let n = 1; ; n++) {
    const name = n === 1 ? last : `${last}-${n}`;
    if (!taken.includes(name)) return name;
  }
}

/**
 * Lines for a node.
 * @param base address of our boot listener; null: the archives' own addresses
 */
export function sourcesText(archives: readonly Archive[], base: string | null): string {
  return archives
    .flatMap(({ uri, name, suites, components, keyring }) =>
      suites.map(
        suite =>
          `deb ${keyring === null ? '' : `[signed-by=${keyring}] `}${base === null ? uri : `${base}/packages/${name}`} ${suite} ${components.join(' ')}\n`,
      ),
    )
    .join('');
}
