/** The shape of manifest.json, checked whenever one is read: the folder is an operator's and may hold anything. */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { ImageManifest } from './types.js';

/** Names of images and of their files: path components and parts of URLs. */
export const IMAGE_NAME = '^[a-z0-9][a-z0-9._-]{0,62}$';
const FILE_NAME = '^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$';

const file = {
  name: Type.String({ pattern: FILE_NAME }),
  bytes: Type.Integer({ minimum: 1 }),
  sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
};
const closed = { additionalProperties: false };
const commandLine = Type.String({ maxLength: 512, pattern: '^[A-Za-z0-9_=., :/-]*$' });
const partition = Type.Integer({ minimum: 1, maximum: 128 });
const common = {
  schema: Type.Literal(1),
  name: Type.String({ pattern: IMAGE_NAME }),
  distribution: Type.String({ maxLength: 64 }),
  release: Type.String({ maxLength: 64 }),
  arch: Type.Literal('amd64'),
  createdMs: Type.Number({ minimum: 0 }),
  inputHash: Type.String({ maxLength: 128 }),
};
const OsManifestSchema = Type.Object(
  {
    ...common,
    kind: Type.Literal('os'),
    disk: Type.Union([
      Type.Null(),
      Type.Object(
        {
          ...file,
          rawBytes: Type.Integer({ minimum: 512 }),
          rootPartition: partition,
          espPartition: Type.Union([Type.Null(), partition]),
        },
        closed,
      ),
    ]),
    root: Type.Union([Type.Null(), Type.Object(file, closed)]),
    rootLabel: Type.String({ maxLength: 16 }),
    kernel: Type.Union([Type.Null(), Type.String({ maxLength: 128 })]),
    baked: Type.Optional(
      Type.Object(
        {
          roles: Type.Array(Type.String({ maxLength: 64 })),
          packages: Type.Integer({ minimum: 0 }),
          seconds: Type.Number({ minimum: 0 }),
        },
        closed,
      ),
    ),
  },
  closed,
);
const RamManifestSchema = Type.Object(
  {
    ...common,
    kind: Type.Literal('ram'),
    kernel: Type.Object(file, closed),
    initrd: Type.Object(file, closed),
    kernelVersion: Type.String({ maxLength: 128 }),
    minMemoryMiB: Type.Integer({ minimum: 1 }),
    commandLine: Type.Optional(commandLine),
  },
  closed,
);
const GuestManifestSchema = Type.Object(
  {
    ...common,
    kind: Type.Literal('guest'),
    disk: Type.Object({ ...file, rawBytes: Type.Integer({ minimum: 512 }) }, closed),
    kernel: Type.Object(file, closed),
    initrd: Type.Object(file, closed),
    kernelVersion: Type.String({ maxLength: 128 }),
    minMemoryMiB: Type.Integer({ minimum: 1 }),
    commandLine,
  },
  closed,
);
const SCHEMAS = { os: OsManifestSchema, ram: RamManifestSchema, guest: GuestManifestSchema };

/** The manifest, or a sentence fragment that says what is wrong with it. */
export function parseManifest(text: string): ImageManifest | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'it is no JSON';
  }
  const kind = typeof value === 'object' && value !== null && 'kind' in value ? value.kind : undefined;
  if (kind !== 'os' && kind !== 'ram' && kind !== 'guest') return 'its kind is not one of os, ram, guest';
  const validator = Compile<(typeof SCHEMAS)[keyof typeof SCHEMAS]>(SCHEMAS[kind]);
  if (!validator.Check(value)) {
    const first = validator.Errors(value)[0];
    const message = first?.message === 'schema is false' ? 'is not known' : (first?.message ?? 'does not fit');
    return `${first?.instancePath || 'the whole'} ${message}`;
  }
  return value as ImageManifest;
}

/** The files that a manifest names, by name. */
export function manifestFiles(manifest: ImageManifest): { name: string; bytes: number; sha256: string }[] {
  const files =
    manifest.kind === 'os'
      ? [manifest.disk, manifest.root]
      : [manifest.kernel, manifest.initrd, ...(manifest.kind === 'guest' ? [manifest.disk] : [])];
  return files.flatMap(entry => (entry === null ? [] : [entry]));
}
