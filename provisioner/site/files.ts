/** The edge of the site file: reads it and what it includes, and writes a migrated one. */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fail } from '../core/problem.js';
import { type LoadedSite, loadSite, loadSiteOrThrow } from './load.js';
import type { IncludeReader } from './source.js';

/** The text of a site file. @throws ProblemError site-invalid when it cannot be read */
export function readSiteText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return fail('site-invalid', `${path}: ${code === 'ENOENT' ? 'there is no such file' : (error as Error).message}.`, {
      hint: 'Name the file; docs/example-site.yaml is one to start from.',
    });
  }
}

/** Reads files below the folder of the site file; a link that leads elsewhere is refused. */
export function includesOf(sitePath: string): IncludeReader {
  const folder = dirname(sitePath);
  return path => {
    try {
      const real = realpathSync(join(folder, path));
      if (!real.startsWith(realpathSync(folder) + sep)) return { reason: 'leads out of the folder of the site file' };
      if (!statSync(real).isFile()) return { reason: 'is no file' };
      return { text: readFileSync(real, 'utf8') };
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      return { reason: code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? String(error)})` };
    }
  };
}

/** Reads and checks a site file with everything it includes. @throws ProblemError site-invalid */
export const readSite = (path: string): LoadedSite => loadSiteOrThrow(readSiteText(path), path, includesOf(path));

/** As `readSite`, with the faults as values. @throws ProblemError site-invalid when the file itself cannot be read */
export const checkSiteFile = (path: string) => loadSite(readSiteText(path), path, includesOf(path));

/**
 * Replaces a site file; the old text stays beside it. Either the whole new text is there afterwards, or the old one.
 * @param version of the old text, for the name of its copy: `site.yaml.v1`
 * @returns path of the copy
 * @throws ProblemError site-invalid when the copy exists already or a file cannot be written
 */
export function replaceSiteFile(path: string, oldText: string, newText: string, version: number): string {
  const copy = `${path}.v${version}`;
  const { mode } = statSync(path);
  const write = (file: string, text: string) => {
    const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode & 0o777);
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  };
  const draft = `${path}.new`;
  try {
    write(copy, oldText);
    write(draft, newText);
    renameSync(draft, path);
  } catch (error) {
    const { code, path: which } = error as NodeJS.ErrnoException;
    const why = code === 'EEXIST' ? 'exists already' : `cannot be written (${code ?? String(error)})`;
    fail('site-invalid', `${which ?? path} ${why}; ${path} is as it was.`, { hint: 'Move it away, or make room.' });
  }
  return copy;
}
