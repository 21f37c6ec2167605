/**
 * What differs between releases of OpenStack and of the distributions that carry them, as data: one YAML file per pair
 * in `roles/releases/`. Roles ask the data and never a release's name.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorObject, ValidateFunction } from 'ajv';
import { type Static, Type } from 'typebox';
import { isScalar, LineCounter, parseDocument, type Node as YamlNode } from 'yaml';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import { createAjv, explain, fieldName, nearest } from '../../provisioner/core/schema/explain.js';
import type { Release } from './cloud.js';
import { compareVersions, inRange, isVersion, isVersionRange } from './debian-version.js';

const object = <P extends Parameters<typeof Type.Object>[0]>(properties: P, description: string) =>
  Type.Object(properties, { additionalProperties: false, description });
const PackageName = Type.String({
  pattern: '^[a-z0-9][a-z0-9+.-]+$',
  maxLength: 100,
  expects: 'the name of a binary package',
  description: 'Name of a binary package (Debian policy 5.6.7).',
});
const UnitName = Type.String({
  pattern: '^[A-Za-z0-9:_.@-]+\\.(service|socket|target|timer|mount)$',
  maxLength: 200,
  expects: 'the name of a systemd unit with its suffix',
  examples: ['nova-api.service'],
  description: 'Name of a systemd unit with its suffix.',
});
const Key = '^[a-z][a-z0-9_]*$';

const ServiceReleaseSchema = object(
  {
    packages: Type.Array(PackageName, { uniqueItems: true, description: 'What is installed for the service.' }),
    preseed: Type.Array(
      Type.String({ pattern: '^\\S+ \\S+ [a-z]+( .*)?$', expects: 'a line like PACKAGE QUESTION TYPE ANSWER' }),
      {
        default: [],
        description: 'Lines for debconf-set-selections(1).',
      },
    ),
    units: Type.Record(Type.String({ pattern: Key }), UnitName, {
      default: {},
      description: 'Names of units by what they do; the keys are the same in all releases.',
    }),
    mask: Type.Array(UnitName, {
      uniqueItems: true,
      default: [],
      description: 'Units of the packages that must never run.',
    }),
    wsgi: Type.Unsafe<'uwsgi' | 'apache' | 'eventlet' | null>({
      enum: ['uwsgi', 'apache', 'eventlet', null],
      default: null,
      expects: 'uwsgi, apache, eventlet or null',
      description: 'How the API is run; null where there is none.',
    }),
    options: Type.Record(
      Type.String({ pattern: Key }),
      Type.Unsafe<string | number | boolean>({
        type: ['string', 'number', 'boolean'],
        expects: 'text, a number, true or false',
      }),
      { default: {}, description: 'Differences of configuration; roles say what they mean.' },
    ),
  },
  'The part of one service.',
);

export const ReleaseSchema = object(
  {
    schema: Type.Literal(1),
    name: Type.String({
      pattern: '^[a-z]+-[0-9.]+-[a-z0-9.-]+$',
      description: 'Also the name of the file: debian-12-zed.',
    }),
    distribution: Type.String({
      pattern: '^[a-z]+-[0-9.]+$',
      description: 'Name of the data file in provisioner/core/distributions, e.g. debian-12.',
    }),
    openstack: Type.String({ pattern: '^[a-z]+$', description: 'Code name of the OpenStack release, e.g. zed.' }),
    version: Type.String({
      pattern: '^20\\d\\d\\.[12]$',
      expects: 'the number of an OpenStack release in quotes',
      examples: ['"2022.2"'],
      description: 'Number of the OpenStack release.',
    }),
    tested: Type.Boolean({ description: 'Laid down and proved by the tests of this repository.' }),
    archives: Type.Array(
      object(
        {
          uri: Type.String({ pattern: '^https?://[A-Za-z0-9./_:-]+$', expects: 'the address of an archive' }),
          suites: Type.Array(Type.String({ pattern: '^[a-z]+(-[a-z]+)*(/[a-z0-9.]+)?$' }), { minItems: 1 }),
          components: Type.Array(Type.String({ pattern: '^[a-z-]+$' }), { minItems: 1 }),
          keyring: object(
            {
              file: Type.String({ pattern: '^/[A-Za-z0-9/._-]+$', description: 'Keyring on the node.' }),
              package: Type.String({ description: 'Package of the distribution that brings the keyring.' }),
            },
            'What the archive’s signatures are checked with.',
          ),
        },
        'An archive that nodes need beside those of the distribution.',
      ),
      {
        default: [],
        description: 'Archives beside those of the distribution, such as a pocket of the Ubuntu Cloud Archive.',
      },
    ),
    bad_packages: Type.Array(
      object(
        {
          package: PackageName,
          versions: Type.String({
            expects: 'versions with operators of control files',
            examples: ['<< 2:28.0.0-0ubuntu1.1'],
            description: 'All of these must hold, separated by commas.',
          }),
          bug: Type.String({
            pattern: '^(LP#\\d+|Debian#\\d+|CVE-\\d{4}-\\d+)$',
            expects: 'a bug like LP#2150285 or Debian#1012345',
          }),
          reason: Type.String({ minLength: 1, description: 'What goes wrong, a sentence.' }),
        },
        'A package that is known not to work.',
      ),
      { default: [], description: 'Packages that are known not to work; the precheck refuses them.' },
    ),
    services: Type.Record(Type.String({ pattern: '^[a-z]+(-[a-z]+)*$' }), ServiceReleaseSchema, {
      description: 'By the name of the service, which is its folder in roles/.',
    }),
  },
  'One OpenStack release on one release of a distribution.',
);

/** A data file as it is; a `Release` with what only prechecks and the nodes' apt need. */
export type ReleaseData = Release & Pick<Static<typeof ReleaseSchema>, 'archives' | 'bad_packages'>;

export const releasesDir = (): string => join(packageRoot(), 'roles/releases');

/** Names of the releases that there is data for, sorted. */
export const releaseNames = (dir: string = releasesDir()): string[] =>
  readdirSync(dir)
    .filter(file => file.endsWith('.yaml'))
    .map(file => file.slice(0, -'.yaml'.length))
    .sort();

type Validate = ValidateFunction<Static<typeof ReleaseSchema>>;

/** Takes longer than all that it is used for. */
const compileSchema = (): Validate =>
  createAjv({ allErrors: true, useDefaults: true }).compile<Static<typeof ReleaseSchema>>(ReleaseSchema);

/**
 * Parses and checks the text of a data file.
 * @param file how the file is called in messages
 * @throws Error with every fault, each on a line: `roles/releases/debian-12-zed.yaml:12: services.identity.units.api: expected …`
 */
export function parseRelease(
  text: string,
  name: string,
  file = `roles/releases/${name}.yaml`,
  validate: Validate = compileSchema(),
): ReleaseData {
  const counter = new LineCounter();
  const doc = parseDocument(text, { lineCounter: counter, prettyErrors: false, logLevel: 'error' });
  const line = (offset: number) => Math.max(1, counter.linePos(offset).line);
  const broken = [...doc.errors, ...doc.warnings];
  if (broken.length > 0)
    throw new Error(broken.map(e => `${file}:${line(e.pos[0])}: ${e.message.split('\n')[0]}`).join('\n'));
  const place = (path: readonly (string | number)[]): number => {
    // A field that is missing is looked for where it should stand.
    for (let length = path.length; length >= 0; length--) {
      const node = length === 0 ? doc.contents : (doc.getIn(path.slice(0, length), true) as YamlNode | undefined);
      if (node?.range) return line(node.range[0]);
    }
    return 1;
  };
  const fault = (path: readonly (string | number)[], message: string) =>
    `${file}:${place(path)}: ${path.length > 0 ? `${fieldName(path)}: ` : ''}${message}`;

  const value: unknown = doc.toJS({ maxAliasCount: 100 });
  if (!validate(value)) {
    const source = (path: readonly (string | number)[]) => {
      const node = doc.getIn(path, true);
      return isScalar(node) && typeof node.value !== 'string' ? node.source : undefined;
    };
    const faults = explain(validate.errors as ErrorObject[], value, source);
    throw new Error(faults.map(f => fault(f.path, f.message)).join('\n'));
  }
  const faults: string[] = [];
  if (value.name !== name) faults.push(fault(['name'], `expected the name of the file, found ${value.name}`));
  if (!value.name.startsWith(`${value.distribution}-`))
    faults.push(fault(['name'], `expected a name that begins with ${value.distribution}-`));
  for (const [i, bad] of value.bad_packages.entries())
    if (!isVersionRange(bad.versions))
      faults.push(
        fault(
          ['bad_packages', i, 'versions'],
          `expected versions with operators like << 2:28.0.0-0ubuntu1.1, found ${JSON.stringify(bad.versions)}`,
        ),
      );
  for (const [service, data] of Object.entries(value.services))
    for (const [key, unit] of Object.entries(data.units))
      if (data.mask.includes(unit))
        faults.push(fault(['services', service, 'units', key], `${unit} is masked below and cannot run`));
  if (faults.length > 0) throw new Error(faults.join('\n'));
  return value;
}

/** The data of one release, e.g. `debian-12-zed`. Undefined for an unknown name. @throws Error when the file is bad */
export function loadRelease(name: string, dir: string = releasesDir()): ReleaseData | undefined {
  if (!releaseNames(dir).includes(name)) return undefined;
  return parseRelease(readFileSync(join(dir, `${name}.yaml`), 'utf8'), name);
}

/** Data of all releases. @throws Error with the faults of all files */
export function loadReleases(dir: string = releasesDir()): ReadonlyMap<string, ReleaseData> {
  const validate = compileSchema();
  const faults: string[] = [];
  const releases = new Map<string, ReleaseData>();
  for (const name of releaseNames(dir)) {
    try {
      const text = readFileSync(join(dir, `${name}.yaml`), 'utf8');
      releases.set(name, parseRelease(text, name, undefined, validate));
    } catch (error) {
      faults.push((error as Error).message);
    }
  }
  if (faults.length > 0) throw new Error(faults.join('\n'));
  return releases;
}

/** What to say of a release that there is no data for. */
export function unknownRelease(name: string, known: readonly string[]): { message: string; hint: string } {
  const guess = nearest(name, known);
  return {
    message: `There is no data for the release ${JSON.stringify(name)}${guess ? `; ${guess} is meant, perhaps` : ''}.`,
    hint: `Correct cloud.release of the site; known are ${known.join(', ')}.`,
  };
}

export interface BadPackage {
  readonly package: string;
  readonly version: string;
  readonly bug: string;
  readonly reason: string;
  /** The least version that is not bad, where the data names one. */
  readonly good: string | null;
}

/**
 * Packages that are known not to work.
 * @param versions of packages that are installed or would be; what is no version is left alone
 */
export function checkPackages(
  release: Pick<ReleaseData, 'bad_packages'>,
  versions: Readonly<Record<string, string>> | ReadonlyMap<string, string>,
): readonly BadPackage[] {
  const versionOf = (name: string) =>
    versions instanceof Map ? versions.get(name) : Object.entries(versions).find(([n]) => n === name)?.[1];
  return release.bad_packages.flatMap(bad => {
    const version = versionOf(bad.package);
    if (version === undefined || !isVersion(version) || !inRange(version, bad.versions)) return [];
    const below = bad.versions.split(',').flatMap(part => /^\s*<< *(\S+)/.exec(part)?.[1] ?? []);
    const good = below.sort(compareVersions)[0] ?? null;
    return [{ package: bad.package, version, bug: bad.bug, reason: bad.reason, good }];
  });
}
