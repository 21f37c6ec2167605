/** Archives that nodes need beside those of their distribution, such as a pocket of the Ubuntu Cloud Archive. */

export interface ReleaseArchive {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** What signatures are checked with: a file on the node, and the distribution's package that brings it. */
  readonly keyring: { readonly file: string; readonly package: string };
}

/** Where nodes that have sources of their own find them (apt reads `.sources` as deb822, see sources.list(5)). */
export const ARCHIVES_FILE = '/etc/apt/sources.list.d/halligan.sources';

/** Stanzas of deb822. */
export const archivesText = (archives: readonly ReleaseArchive[]): string =>
  `# Written by Halligan: what the release of the cloud needs beside the distribution.\n${archives
    .map(
      a => `Types: deb
URIs: ${a.uri}
Suites: ${a.suites.join(' ')}
Components: ${a.components.join(' ')}
Signed-By: ${a.keyring.file}
`,
    )
    .join('\n')}`;

/** Sources of an installed system, which are replaced where the site says where packages come from. */
const OWN_SOURCES = ['debian', 'ubuntu'].map(n => `/etc/apt/sources.list.d/${n}.sources`);
export const SOURCES_FILE = '/etc/apt/sources.list';

/**
 * Files of apt as they are before packages are installed: path → content, null: removed. What is not named stays.
 * @param sources text of sources.list(5) in place of the node's own; null: it keeps them
 */
export const sourceFiles = (
  archives: readonly ReleaseArchive[],
  sources: string | null,
): ReadonlyMap<string, string | null> =>
  sources !== null
    ? new Map([
        ...[...OWN_SOURCES, ARCHIVES_FILE].map(path => [path, null] as const),
        [SOURCES_FILE, sources.endsWith('\n') ? sources : `${sources}\n`] as const,
      ])
    : new Map(archives.length > 0 ? [[ARCHIVES_FILE, archivesText(archives)]] : []);
