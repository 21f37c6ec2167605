/** The shapes of `/cloud`: what `core/cloud-service.ts` says in types, for OpenAPI. */
import { Type } from 'typebox';
import { IMAGE_PROFILES, IMAGE_VISIBILITIES } from '../core/cloud-images.js';
import { NodeSchema } from '../site/schema.js';
import { ProblemSchema, Selector } from './schemas.js';

const closed = { additionalProperties: false };
const nullableText = (description: string) => Type.Union([Type.String(), Type.Null()], { description });
const Names = Type.Array(Selector, { maxItems: 1000, uniqueItems: true });

export const ActionSchema = Type.Object({
  id: Type.String({ description: 'Unique in the cloud: NODE/SERVICE/RESOURCE.' }),
  node: Type.String(),
  service: Type.String(),
  kind: Type.Enum(['machine', 'packages', 'file', 'directory', 'unit', 'command', 'object']),
  title: Type.String({ description: 'What will be done; begins with its verb.' }),
  reason: Type.String({ description: 'Why.' }),
  needs: Type.Array(Type.String(), { description: 'Ids of actions that must have succeeded before.' }),
  destroys: nullableText('What data it destroys.'),
  interrupts: nullableText('What users notice meanwhile.'),
  expectedSeconds: Type.Number(),
  diff: Type.Optional(Type.String({ description: 'Unified diff of a file, secrets masked.' })),
});

export const PlanSchema = Type.Object({
  hash: Type.String({ description: 'Changes when anything that would be done changes.' }),
  createdMs: Type.Number(),
  release: Type.String(),
  nodes: Type.Array(
    Type.Object({
      name: Type.String(),
      roles: Type.Array(Type.String()),
      reachable: Type.Boolean({ description: 'False: nothing is planned for it.' }),
      expected: Type.Boolean({
        description: 'It has no system yet: what is planned for it follows from its inventory.',
      }),
      problem: Type.Union([ProblemSchema, Type.Null()]),
    }),
  ),
  problems: Type.Array(
    Type.Object({
      severity: Type.Enum(['refuse', 'hold', 'warn']),
      node: nullableText('Name of the node; null for the cloud as a whole.'),
      message: Type.String(),
      hint: Type.String(),
    }),
    {
      description:
        'What stands in the way of all of it (refuse) or of one node (hold: it is left as it is, the others go on), or is worth knowing (warn).',
    },
  ),
  actions: Type.Array(ActionSchema),
  summary: Type.Object({
    actions: Type.Number(),
    nodes: Type.Number(),
    destroys: Type.Array(Type.String()),
    interrupts: Type.Array(Type.String()),
    expectedSeconds: Type.Number(),
  }),
});

export const ApplySchema = Type.Object(
  {
    planHash: Type.Optional(
      Type.String({
        pattern: '^[0-9a-f]{8,64}$',
        expects: 'the hash of a plan',
        examples: ['3f2a9c51d0e4b768'],
        description: 'Refused with plan-changed when the plan has another hash by now.',
      }),
    ),
    nodes: Type.Optional(Names),
    confirmed: Type.Array(Selector, {
      maxItems: 1000,
      uniqueItems: true,
      default: [],
      description: 'Nodes on which data may be destroyed.',
    }),
  },
  closed,
);

export const VerifySchema = Type.Object(
  {
    only: Type.Optional(
      Type.Array(
        Type.String({ pattern: '^[a-z][a-z0-9-]{0,62}$', expects: 'the name of a step', examples: ['floating-ip'] }),
        {
          minItems: 1,
          maxItems: 100,
          uniqueItems: true,
          description: 'Steps, with what they need; all when left out.',
        },
      ),
    ),
    keep: Type.Optional(Type.Boolean({ description: 'Leave what was made.' })),
  },
  closed,
);

export const SecuritySchema = Type.Object({}, closed);

export const RemovalSchema = Type.Object(
  { force: Type.Boolean({ default: false, description: 'Although that costs data or virtual machines.' }) },
  closed,
);

const sha256 = Type.Optional(
  Type.String({
    pattern: '^[0-9a-fA-F]{64}$',
    expects: '64 hexadecimal digits',
    description: 'SHA-256 of the file; needed for http://.',
  }),
);
const ImageSource = Type.Union(
  [
    Type.Object({ file: Type.String({ minLength: 1, maxLength: 4096 }), sha256 }, closed),
    Type.Object({ url: Type.String({ minLength: 1, maxLength: 4096 }), sha256 }, closed),
  ],
  { description: 'A path on the server’s machine, or an address.' },
);
export const ImageImportSchema = Type.Object(
  {
    name: Type.String({
      pattern: '^[\\w][\\w .+:()-]{0,199}$',
      expects: 'a name of letters, digits, blanks and ._+:()-',
      examples: ['debian-12'],
    }),
    profile: Type.Enum([...IMAGE_PROFILES], { default: 'plain' }),
    source: ImageSource,
    kernel: Type.Optional(ImageSource),
    ramdisk: Type.Optional(ImageSource),
    driverIso: Type.Optional(ImageSource),
    visibility: Type.Optional(Type.Enum([...IMAGE_VISIBILITIES], { description: 'Glance’s default when left out.' })),
    minDiskGiB: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_536 })),
    minMemoryMiB: Type.Optional(Type.Integer({ minimum: 0, maximum: 16_777_216 })),
    firmware: Type.Optional(Type.Enum(['bios', 'uefi'])),
    tpm: Type.Optional(Type.Boolean({ description: 'A TPM 2.0 and Secure Boot, for Windows 11.' })),
    guestAgent: Type.Optional(Type.Boolean({ description: 'The image runs qemu-guest-agent.' })),
    commandLine: Type.Optional(Type.String({ maxLength: 500, description: 'Added to the kernel’s, of an ami.' })),
    properties: Type.Optional(
      Type.Record(Type.String({ maxLength: 100 }), Type.String({ maxLength: 255 }), {
        maxProperties: 100,
        description: 'Image properties beside or instead of the profile’s.',
      }),
    ),
    allowHosts: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 255 }), {
        maxItems: 20,
        description: 'Hosts and CIDRs of own networks that may be fetched from.',
      }),
    ),
  },
  closed,
);

export const RunIdSchema = Type.Object({ runId: Type.String({ description: 'See GET /runs/RUN.' }) });

export const VerifyReportSchema = Type.Object({
  runId: Type.String(),
  startedMs: Type.Number(),
  seconds: Type.Number(),
  ok: Type.Boolean(),
  steps: Type.Array(
    Type.Object({
      name: Type.String(),
      title: Type.String(),
      state: Type.Enum(['passed', 'failed', 'skipped']),
      seconds: Type.Number(),
      expectedSeconds: Type.Number(),
      message: nullableText('Why it failed or was skipped.'),
      hint: nullableText('What to do.'),
    }),
  ),
  leftovers: Type.Array(Type.String()),
});

export const CredentialsSchema = Type.Object({
  authUrl: Type.String(),
  region: Type.String(),
  username: Type.String(),
  password: Type.String(),
  project: Type.String(),
  userDomain: Type.String(),
  projectDomain: Type.String(),
  caFile: Type.String({ description: 'The CA of the site, a file on the server’s machine.' }),
  ca: Type.String({ description: 'Its content, PEM.' }),
});

const Said = Type.Array(Type.Object({ role: Type.String(), sentence: Type.String() }));
export const CatalogueSchema = Type.Object({
  services: Type.Array(
    Type.Object({
      name: Type.String(),
      title: Type.String(),
      sentence: Type.String(),
      needs: Type.Array(Type.String(), { description: 'Services that must be somewhere in the cloud.' }),
    }),
  ),
  roles: Type.Array(
    Type.Object({
      name: Type.String(),
      title: Type.String(),
      sentence: Type.String(),
      services: Type.Array(Type.String()),
      limits: Type.Array(
        Type.Object({
          least: Type.Optional(Type.Number()),
          most: Type.Optional(Type.Number()),
          sentence: Type.String(),
        }),
      ),
      needs: Said,
      conflicts: Said,
    }),
  ),
});

export const RolesSchema = Type.Object(
  {
    add: Type.Array(NodeSchema.properties.roles.items, { maxItems: 32, default: [], description: 'Roles to give.' }),
    remove: Type.Array(NodeSchema.properties.roles.items, { maxItems: 32, default: [], description: 'Roles to take.' }),
  },
  closed,
);
