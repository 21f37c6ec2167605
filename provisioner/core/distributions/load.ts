/** Reads the data files of this folder. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Compile } from 'typebox/compile';
import { parse } from 'yaml';
import { fail } from '../problem.js';
import { type Distribution, DistributionSchema } from './schema.js';

export type { Distribution } from './schema.js';

/** The folder that holds package.json, above `from`; compiled code runs from dist/, data files stay where they are. */
export function packageRoot(from: string = import.meta.url): string {
  for (let dir = dirname(fileURLToPath(from)); ; dir = dirname(dir)) {
    if (existsSync(join(dir, 'package.json'))) return dir;
    if (dir === '/') throw new Error(`no package.json above ${from}`);
  }
}

export const distributionsDir = (): string => join(packageRoot(), 'provisioner/core/distributions');

/** Names of the releases that there is data for, sorted. */
export function distributionNames(dir: string = distributionsDir()): string[] {
  return readdirSync(dir)
    .filter(file => file.endsWith('.yaml'))
    .map(file => file.slice(0, -'.yaml'.length))
    .sort();
}

/** The data of one release, e.g. `debian-12`. Throws ProblemError image-missing for an unknown name; a file of ours that does not fit its schema is a bug and throws Error. */
export function loadDistribution(name: string, dir: string = distributionsDir()): Distribution {
  const known = distributionNames(dir);
  if (!known.includes(name))
    fail(
      'image-missing',
      `There is no data for the distribution ${JSON.stringify(name)}; known are ${known.join(', ')}.`,
    );
  return parseDistribution(readFileSync(join(dir, `${name}.yaml`), 'utf8'), name);
}

/** Parses and checks the text of a data file. */
export function parseDistribution(text: string, name: string): Distribution {
  const value: unknown = parse(text);
  const validator = Compile(DistributionSchema);
  if (!validator.Check(value)) {
    const first = validator.Errors(value)[0];
    throw new Error(`${name}.yaml: ${first?.instancePath || '/'} ${first?.message ?? 'does not fit the schema'}`);
  }
  if (value.name !== name) throw new Error(`${name}.yaml: name is ${value.name}`);
  return value;
}
