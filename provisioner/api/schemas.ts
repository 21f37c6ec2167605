/** The shapes of the API: what comes in is checked against them, what goes out is documented (and tested) by them. */
import { Type } from 'typebox';
import { PROBLEMS } from '../core/problem.js';
import { NODE_ACTIONS, NODE_STATES } from '../node/lifecycle.js';
import { BmcSchema, InstallSchema, NodeSchema } from '../site/schema.js';

const closed = { additionalProperties: false };
const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const ms = (description: string) => Type.Number({ description: `${description}, milliseconds since 1970.` });

export const ProblemSchema = Type.Object(
  {
    code: Type.Enum(Object.keys(PROBLEMS), { description: 'Stable name of the kind of problem.' }),
    message: Type.String({ description: 'One sentence that names the thing and the reason.' }),
    hint: Type.String({ description: 'What to do next.' }),
    retry: Type.Boolean({ description: 'Can the same request succeed later without anybody changing anything?' }),
    detail: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { description: 'Every failure has this shape.', ...closed },
);

export const Selector = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Name, MAC, serial number, UUID or id of a node, or an unambiguous prefix of one.',
});
export const NodeParams = Type.Object({ node: Selector }, closed);
export const Action = Type.Enum([...NODE_ACTIONS], { description: 'An action of the lifecycle table.' });
export const PowerAction = Type.Enum(['status', 'on', 'off', 'cycle']);
const PowerStateSchema = Type.Enum(['on', 'off', 'unknown']);

/** What the site file may say about installing, here with nothing filled in: what is not said is left as it is. */
const { image, disk_layout, interfaces, ssh_keys, user_data } = InstallSchema.properties;
const PartialInstall = Type.Object(
  {
    image,
    disk_layout,
    interfaces: Type.Optional(Type.Array(interfaces.items, { maxItems: 64 })),
    ssh_keys: Type.Optional(Type.Array(ssh_keys.items, { maxItems: 64 })),
    user_data,
  },
  closed,
);

export const NodeViewSchema = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    source: Type.Enum(['site', 'api', 'dhcp', 'adopt'], { description: 'Where the node comes from.' }),
    uuid: nullable(Type.String()),
    serial: nullable(Type.String()),
    macs: Type.Array(Type.String()),
    state: Type.Enum([...NODE_STATES]),
    stateSinceMs: ms('When it came to this state'),
    deadlineMs: nullable(ms('When this state is overdue')),
    waitingFor: nullable(Type.String()),
    failure: nullable(ProblemSchema),
    maintenance: nullable(Type.String({ description: 'Why it is in maintenance.' })),
    spec: Type.Object(
      {
        address: nullable(Type.String()),
        bmc: nullable(BmcSchema),
        roles: Type.Array(Type.String()),
        install: Type.Record(Type.String(), Type.Unknown()),
        rack: Type.Optional(nullable(Type.Object({ name: Type.String(), unit: nullable(Type.Number()) }))),
      },
      { description: 'What the operator said.' },
    ),
    status: Type.Object(
      {
        inventory: nullable(Type.Record(Type.String(), Type.Unknown())),
        power: nullable(Type.Object({ state: PowerStateSchema, seenMs: Type.Number() })),
        lastSeenMs: nullable(Type.Number()),
        runId: nullable(Type.String()),
        attempt: Type.Number(),
        profile: Type.Optional(
          nullable(
            Type.Object(
              {
                name: Type.String(),
                number: Type.Number(),
                gave: Type.Object({
                  roles: Type.Array(Type.String()),
                  install: Type.Record(Type.String(), Type.Unknown()),
                }),
              },
              { description: 'The profile that it was last claimed with, its number in it, and what it gave.' },
            ),
          ),
        ),
        warnings: Type.Array(Type.String()),
      },
      { description: 'What was seen.' },
    ),
    createdMs: ms('When it was first seen or added'),
    label: Type.String(),
    sentence: Type.String({ description: 'What the node does and waits for, in one sentence.' }),
    overdue: Type.Boolean(),
    actions: Type.Array(Action, { description: 'What is possible now.' }),
  },
  { description: 'A node: what was said (spec) and what was seen (status).' },
);

const RackPosition = Type.Object({ name: Type.String(), unit: nullable(Type.Number()) });

export const NodeMatchSchema = Type.Object(
  {
    nodeId: Type.String(),
    node: Type.String({ description: 'As it is called now.' }),
    kind: Type.Enum(['matched', 'ambiguous', 'none', 'held', 'named', 'taken', 'uninspected'], {
      description:
        'matched: one profile is left; ambiguous: several are; none: none is; held: claimed with a profile; named: by the site file; taken: claimed without a profile; uninspected: no inventory yet.',
    }),
    profile: nullable(Type.String()),
    sentence: Type.String({ description: 'Why.' }),
    rejected: Type.Array(
      Type.Object({ profile: Type.String(), reasons: Type.Array(Type.String(), { description: 'Why not.' }) }),
    ),
    becomes: nullable(
      Type.Object(
        {
          name: Type.String(),
          number: Type.Number({ description: 'Within the profile, from 1.' }),
          roles: Type.Array(Type.String()),
          install: Type.Record(Type.String(), Type.Unknown()),
          bmc: nullable(BmcSchema),
          rack: nullable(RackPosition),
        },
        { description: 'What a claim makes of it; null where it cannot be had.' },
      ),
    ),
    claim: nullable(
      Type.Object({
        automatic: Type.Boolean({ description: 'The server claims it by itself.' }),
        sentence: Type.String(),
      }),
    ),
  },
  { description: 'What the profiles of the site make of a node.' },
);

export const NodeAdditionSchema = Type.Object(
  {
    name: NodeSchema.properties.name,
    macs: NodeSchema.properties.macs,
    uuid: NodeSchema.properties.uuid,
    serial: NodeSchema.properties.serial,
    address: NodeSchema.properties.address,
    bmc: Type.Optional(BmcSchema),
    roles: NodeSchema.properties.roles,
    install: Type.Optional(PartialInstall),
  },
  closed,
);

export const NodeChangeSchema = Type.Object(
  {
    name: Type.Optional(NodeSchema.properties.name),
    address: Type.Optional(nullable(Type.String({ format: 'ipv4' }))),
    bmc: Type.Optional(nullable(BmcSchema)),
    roles: Type.Optional(Type.Array(NodeSchema.properties.roles.items, { maxItems: 32 })),
    install: Type.Optional(PartialInstall),
    maintenance: Type.Optional(
      nullable(Type.String({ minLength: 1, maxLength: 500, description: 'Why; null ends the maintenance.' })),
    ),
  },
  { minProperties: 1, ...closed },
);

export const ActionParamsSchema = Type.Object(
  {
    image: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'install: another image.' })),
    wipe: Type.Optional(
      Type.Boolean({ description: 'install: foreign data on the chosen disks may go; release: that on all disks.' }),
    ),
    layout: Type.Optional(Type.Enum(['plain', 'lvm', 'mdraid'], { description: 'install: another disk layout.' })),
    erase: Type.Optional(
      Type.Enum(['quick', 'full'], { description: 'release: erase signatures only, or everything.' }),
    ),
    name: Type.Optional(NodeSchema.properties.name),
    profile: Type.Optional(
      Type.Boolean({ description: 'claim: false leaves out what would follow from its hardware profile.' }),
    ),
  },
  closed,
);

export const ActSchema = Type.Object({ action: Action, params: Type.Optional(ActionParamsSchema) }, closed);
export const BulkSchema = Type.Object(
  {
    nodes: Type.Array(Selector, { minItems: 1, maxItems: 1000, uniqueItems: true }),
    action: Action,
    params: Type.Optional(ActionParamsSchema),
  },
  closed,
);
export const BulkPowerSchema = Type.Object(
  { nodes: Type.Array(Selector, { minItems: 1, maxItems: 1000, uniqueItems: true }), action: PowerAction },
  closed,
);

/** One entry per thing asked for, in the order of the request. */
const resultOf = <T extends Parameters<typeof Type.Object>[0]>(payload: T) =>
  Type.Object({
    results: Type.Array(
      Type.Object({ item: Type.String(), ok: Type.Boolean(), ...payload, problem: Type.Optional(ProblemSchema) }),
    ),
    done: Type.Number(),
    failed: Type.Number(),
  });
export const BulkResultSchema = resultOf({ node: Type.Optional(NodeViewSchema) });
export const BulkPowerResultSchema = resultOf({ power: Type.Optional(PowerStateSchema) });

export const AdoptSchema = Type.Object(
  {
    address: Type.String({
      minLength: 1,
      maxLength: 253,
      pattern: '^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$',
      expects: 'an address or a host name',
      examples: ['10.98.0.7'],
    }),
    name: Type.Optional(NodeSchema.properties.name),
    user: Type.String({
      pattern: '^[a-z_][a-z0-9_-]{0,30}$',
      expects: 'a Linux user name in lower case',
      default: 'root',
    }),
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
    hostKey: Type.Optional(
      Type.String({ maxLength: 8192, description: 'The host key that is expected: `ssh-ed25519 AAAA…`.' }),
    ),
    privateKey: Type.Optional(
      Type.String({ maxLength: 32_768, writeOnly: true, description: 'A key for this first visit; never stored.' }),
    ),
  },
  closed,
);

export const RunSchema = Type.Object({
  id: Type.String(),
  kind: Type.String(),
  nodeId: nullable(Type.String()),
  state: Type.Enum(['running', 'done', 'failed', 'aborted']),
  input: Type.Unknown(),
  result: Type.Unknown(),
  createdMs: Type.Number(),
  endedMs: nullable(Type.Number()),
});
export const StepSchema = Type.Object({
  step: Type.String(),
  attempt: Type.Number(),
  state: Type.Enum(['before', 'after', 'failed']),
  beforeMs: Type.Number(),
  afterMs: nullable(Type.Number()),
  output: Type.Unknown(),
});
export const TraceEntrySchema = Type.Object({
  atMs: Type.Number(),
  mac: Type.String(),
  layer: Type.String(),
  message: Type.String(),
  silent: Type.Boolean(),
  data: Type.Record(Type.String(), Type.Unknown()),
});
export const EventSchema = Type.Object({
  id: Type.Number(),
  atMs: Type.Number(),
  type: Type.String(),
  severity: Type.Enum(['debug', 'info', 'warn', 'error']),
  nodeId: nullable(Type.String()),
  message: Type.String(),
  data: Type.Record(Type.String(), Type.Unknown()),
});
export const WhySchema = Type.Object({
  node: NodeViewSchema,
  next: Type.String(),
  history: Type.Array(
    Type.Object({
      atMs: Type.Number(),
      from: nullable(Type.String()),
      to: Type.String(),
      event: Type.String(),
      reason: Type.String(),
    }),
  ),
  trace: Type.Array(TraceEntrySchema),
  run: nullable(Type.Intersect([RunSchema, Type.Object({ steps: Type.Array(StepSchema) })])),
  events: Type.Array(EventSchema),
});
export const ImageSchema = Type.Object({
  schema: Type.Number(),
  kind: Type.Enum(['os', 'ram', 'guest']),
  name: Type.String(),
  distribution: Type.String(),
  release: Type.String(),
  arch: Type.String(),
  createdMs: Type.Number(),
  inputHash: Type.String(),
});
export const LeaseSchema = Type.Object({
  ip: Type.String(),
  network: Type.String(),
  mac: Type.String(),
  hostname: nullable(Type.String()),
  state: Type.Enum(['bound', 'released', 'declined']),
  expiresMs: Type.Number(),
});
export const HealthSchema = Type.Object({
  ok: Type.Boolean({ description: 'True when every service is.' }),
  version: Type.String(),
  uptimeSeconds: Type.Number(),
  services: Type.Record(Type.String(), Type.Object({ ok: Type.Boolean(), message: Type.String() })),
});
