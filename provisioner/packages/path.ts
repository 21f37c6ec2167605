/** What a node asks for below /packages. Pure. */
import { fail } from '../core/problem.js';

export interface PackagePath {
  /** Name of the archive, as in sources.list. */
  readonly archive: string;
  /** Below the archive's address, without a slash in front. */
  readonly path: string;
  /** Whether a file of this path never changes; an index is looked at again. */
  readonly immutable: boolean;
  /** Hex SHA-256 where the path names it. */
  readonly sha256: string | null;
}

/** No dot in front: neither `..` nor hidden files. Versions bring `+`, `~` and `:`. */
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._+~:-]{0,254}$/;
const SEGMENTS_MAX = 14;
const LENGTH_MAX = 700;

/**
 * @param segments parts of the address behind /packages/, escapes undone
 * @throws ProblemError route-unknown for everything that is no file of an archive
 */
export function packagePath(segments: readonly string[]): PackagePath {
  const [archive = '', ...rest] = segments;
  const path = rest.join('/');
  const fits =
    rest.length >= 2 &&
    rest.length <= SEGMENTS_MAX &&
    path.length <= LENGTH_MAX &&
    segments.every(s => SEGMENT.test(s)) &&
    (rest[0] === 'dists' || rest[0] === 'pool');
  if (!fits)
    fail('route-unknown', `There is no ${JSON.stringify(`/packages/${segments.join('/')}`.slice(0, 120))}.`, {
      hint: 'Only files below dists/ and pool/ of an archive of the cloud’s release are here.',
    });
  const byHash = /\/by-hash\/(SHA256|SHA512|SHA1|MD5Sum)\/([0-9a-f]{32,128})$/.exec(path);
  return {
    archive,
    path,
    immutable: rest[0] === 'pool' || byHash !== null,
    sha256: byHash?.[1] === 'SHA256' ? byHash[2]! : null,
  };
}
