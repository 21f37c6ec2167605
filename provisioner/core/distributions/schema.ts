/**
 * What differs between distributions and releases, as data: archives, keyring, package names. One YAML file per release
 * in this folder; code asks the data and never the distribution's name.
 */
import { type Static, Type } from 'typebox';

const PackageName = Type.String({
  pattern: '^[a-z0-9][a-z0-9+.-]+$',
  maxLength: 100,
  description: 'Name of a binary package (Debian policy 5.6.7).',
});
const Packages = Type.Array(PackageName, { uniqueItems: true });
const object = <P extends Parameters<typeof Type.Object>[0]>(properties: P, description: string) =>
  Type.Object(properties, { additionalProperties: false, description });

export const DistributionSchema = object(
  {
    schema: Type.Literal(1),
    name: Type.String({ pattern: '^[a-z]+-[0-9.]+$', description: 'Also the name of the OS image, e.g. debian-12.' }),
    distribution: Type.String({ pattern: '^[a-z]+$', description: 'ID of os-release(5).' }),
    release: Type.String({ pattern: '^[0-9.]+$', description: 'VERSION_ID of os-release(5).' }),
    tested: Type.Boolean({ description: 'Built and booted by the tests of this repository.' }),
    suite: Type.String({ pattern: '^[a-z]+$', description: 'Code name, the suite that mmdebstrap is given.' }),
    archives: Type.Array(
      object(
        {
          /** Left out: what this machine's apt sources say of the suite, or `--mirror`. */
          uri: Type.Optional(Type.String({ pattern: '^https?://[A-Za-z0-9./_:-]+$' })),
          /** Folder beside that of the first archive on the same mirror, where nothing else says more. */
          beside: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9._-]+$' })),
          suites: Type.Array(Type.String({ pattern: '^[a-z]+(-[a-z]+)*$' }), { minItems: 1 }),
          components: Type.Array(Type.String({ pattern: '^[a-z-]+$' }), { minItems: 1 }),
        },
        'One archive; used where the machine’s own apt sources do not name a mirror of these suites.',
      ),
      { minItems: 1 },
    ),
    keyring: object(
      {
        file: Type.String({ pattern: '^/[A-Za-z0-9/._-]+$', description: 'Keyring on the machine that builds.' }),
        package: Type.String({ description: 'Package of the building machine that brings the keyring.' }),
      },
      'What signatures of the archive are checked with; without it nothing is built.',
    ),
    kernel: object(
      { generic: PackageName, cloud: PackageName },
      'Kernel packages: for any host; for virtual machines.',
    ),
    firmware: object(
      {
        components: Type.Array(Type.String({ pattern: '^[a-z-]+$' }), {
          description: 'Components that hold the firmware, added to the archives above.',
        }),
        packages: Packages,
      },
      'Firmware for NICs and storage of real hosts; a package that the archive does not have is left out.',
    ),
    ram: object({ packages: Packages }, 'What the RAM environment holds.'),
    os: object(
      {
        packages: Packages,
        bootloader: object({ bios: Packages, uefi: Packages }, 'Bootloader packages by firmware, all in one image.'),
        cloud_initramfs_modules: Type.Array(Type.String({ pattern: '^[a-z0-9_-]+$' }), {
          description: 'Drivers that the initramfs of virtual machines needs to reach the root file system.',
        }),
        mask_units: Type.Array(Type.String({ pattern: '^[a-zA-Z0-9@_.-]+$' }), {
          description: 'Units that only cost time at boot.',
        }),
      },
      'What the image that lands on a disk holds.',
    ),
    names: Type.Record(Type.String({ pattern: '^[a-z_]+$' }), Type.String({ maxLength: 200 }), {
      description: 'Other names that differ: units, paths, users.',
    }),
  },
  'One release of a distribution.',
);

export type Distribution = Static<typeof DistributionSchema>;
