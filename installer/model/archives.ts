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
