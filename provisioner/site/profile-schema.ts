/** The part of the site file that says what machines become by what they are made of. */
import { type Static, Type } from 'typebox';
import { ROLE_NAMES } from '../core/cloud-settings.js';
import { RoleName } from './cloud-schema.js';
import { bondMode, hostName, ipv4, object, oneOf, secretRef, taggedVlan, text, userData } from './fields.js';

const glob = (description: string, example: string) =>
  Type.String({
    minLength: 1,
    maxLength: 128,
    expects: 'text in which * stands for any characters and ? for one',
    examples: [example],
    description,
  });

/** Bounds of a number, both included. */
const range = (what: string, example: { min?: number; max?: number }) =>
  Type.Optional(
    object(
      {
        min: Type.Optional(
          Type.Number({ minimum: 0, examples: [example.min ?? 1], description: `At least so ${what}.` }),
        ),
        max: Type.Optional(
          Type.Number({ minimum: 0, examples: [example.max ?? 8], description: `At most so ${what}.` }),
        ),
      },
      `How ${what}.`,
    ),
  );

const lldp = (description: string) =>
  object(
    {
      system: Type.Optional(glob('Name of the switch, as it says itself.', 'leaf-r1*')),
      port: Type.Optional(glob('Port of the switch.', 'Ethernet1/*')),
    },
    description,
  );

export const MatchSchema = object(
  {
    manufacturer: Type.Optional(glob('Maker of the machine (SMBIOS).', 'Dell*')),
    product: Type.Optional(glob('Product name of the machine (SMBIOS).', 'PowerEdge R6?0')),
    serial: Type.Optional(glob('Serial number of the machine.', '7XK*')),
    arch: Type.Optional(text('Architecture, as the kernel calls it.', 'x86_64', 32)),
    cpu: Type.Optional(
      object(
        {
          model: Type.Optional(glob('Name of the CPU.', '*Gold 63*')),
          sockets: range('many sockets', { min: 2 }),
          cores: range('many cores in all sockets', { min: 16 }),
          threads: range('many threads in all sockets', { min: 32 }),
        },
        'Processors.',
      ),
    ),
    memory_gib: range('much memory, in 2^30 bytes: the modules, where the firmware tells them', { min: 64, max: 300 }),
    disks: Type.Array(
      object(
        {
          type: Type.Optional(oneOf(['nvme', 'ssd', 'hdd'], { examples: ['nvme'], description: 'Kind of disk.' })),
          min_gb: Type.Optional(
            Type.Number({ minimum: 0, examples: [900], description: 'Least size, in 10^9 bytes.' }),
          ),
          max_gb: Type.Optional(
            Type.Number({ minimum: 0, examples: [2000], description: 'Largest size, in 10^9 bytes.' }),
          ),
          model: Type.Optional(glob('Model of the disk.', 'SAMSUNG MZ*')),
          controller: Type.Optional(
            glob('Vendor and device, driver or PCI address of the controller that it is on.', '*MegaRAID*'),
          ),
          count: range('many disks like this; at least one when left out', { min: 2, max: 4 }),
        },
        'Disks of a kind; removable ones do not count.',
      ),
      { maxItems: 16, default: [], description: 'Every entry must be met, each for itself.' },
    ),
    nics: Type.Array(
      object(
        {
          min_mbps: Type.Optional(
            Type.Integer({ minimum: 1, examples: [25_000], description: 'Least speed of the link, in Mb/s.' }),
          ),
          driver: Type.Optional(glob('Driver of the NIC.', 'mlx5_core')),
          lldp: Type.Optional(lldp('What it is connected to.')),
          count: range('many NICs like this; at least one when left out', { min: 2 }),
        },
        'NICs of a kind.',
      ),
      { maxItems: 16, default: [], description: 'Every entry must be met, each for itself.' },
    ),
    lldp: Type.Optional(lldp('The neighbour that some NIC sees.')),
    firmware: Type.Optional(
      object(
        {
          type: Type.Optional(oneOf(['bios', 'uefi'], { examples: ['uefi'], description: 'How it booted.' })),
          vendor: Type.Optional(glob('Maker of the firmware.', 'Dell*')),
          version: Type.Optional(glob('Version of the firmware.', '2.1*')),
          secure_boot: Type.Optional(Type.Boolean({ description: 'Secure Boot is on, or is not.' })),
        },
        'Firmware of the machine.',
      ),
    ),
  },
  'Rules over the inventory; all of them must fit.',
);

export const ProfileSchema = object(
  {
    name: hostName('Name of the profile.', 'compute'),
    priority: Type.Integer({
      minimum: -1000,
      maximum: 1000,
      default: 0,
      description: 'Where several profiles fit, the highest wins; two of the same are refused.',
    }),
    at_most: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 10_000,
        examples: [3],
        description: 'Nodes that may have it; any number when left out.',
      }),
    ),
    match: MatchSchema,
    auto_claim: Type.Boolean({
      default: false,
      description: 'Claim nodes by themselves, as soon as their inventory is there. Nothing is installed by that.',
    }),
    foreign_data: oneOf(['refuse', 'claim'], {
      default: 'refuse',
      description:
        'refuse: a node whose disks hold data that is not ours is not claimed by itself. claim: it is, too; installing still asks before it overwrites.',
    }),
    node_name: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9#]([a-z0-9#-]{0,53}[a-z0-9#])?$',
        expects: 'a host name in lower case with one run of # for the number',
        examples: ['compute-##'],
        description:
          'Name of the nodes: the run of # is the lowest free number, with as many digits. A node that has a name of its own keeps it.',
      }),
    ),
    roles: Type.Array(RoleName, {
      maxItems: 32,
      default: [],
      examples: [['compute']],
      description: `What the nodes do in the cloud: ${ROLE_NAMES.join(', ')}.`,
    }),
    image: Type.Optional(text('Image to install; `images.default` when left out.', 'debian-12', 64)),
    disk_layout: Type.Optional(text('One of `layouts.disk`.', 'mirrored', 63)),
    network_layout: Type.Optional(text('One of `layouts.network`.', 'bonded', 63)),
    user_data: Type.Optional(userData('Own cloud-init user-data of the nodes, merged after ours and the site’s.')),
    rack: Type.Optional(text('Rack of the nodes, where `racks` does not tell it.', 'r1', 63)),
    bmc: Type.Optional(
      object(
        {
          driver: oneOf(['ipmi', 'redfish'], { examples: ['ipmi'], description: 'How the nodes are switched.' }),
          user: text('Account on the BMCs.', 'halligan', 64),
          password: secretRef('Where the password of the account is.', 'secret:bmc/rack1'),
          cipher_suite: Type.Integer({ minimum: 0, maximum: 17, default: 3, description: 'IPMI cipher suite.' }),
        },
        'Access to the BMC whose address the inventory tells.',
      ),
    ),
  },
  'What machines with these parts become.',
);

export const NicChoiceSchema = object(
  {
    number: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 64,
        examples: [2],
        description:
          'Which one of those that fit, in the order of their PCI addresses; the first that is free when left out.',
      }),
    ),
    min_mbps: Type.Optional(Type.Integer({ minimum: 1, examples: [25_000], description: 'Least speed, in Mb/s.' })),
    driver: Type.Optional(glob('Driver of the NIC.', 'mlx5_core')),
    boot: Type.Optional(Type.Boolean({ description: 'The NIC that the node booted from, or one that is not.' })),
    lldp: Type.Optional(lldp('What it is connected to.')),
  },
  'Which NIC; any when empty.',
);

export const LayoutInterfaceSchema = object(
  {
    name: Type.String({
      pattern: '^[a-zA-Z0-9_.-]{1,15}$',
      expects: 'the name of a network interface (at most 15 letters, digits, dots, hyphens)',
      examples: ['mgmt0'],
      description: 'Name in the installed system.',
    }),
    nic: Type.Optional(NicChoiceSchema),
    bond: Type.Optional(
      object(
        {
          nics: Type.Array(NicChoiceSchema, { minItems: 1, maxItems: 8, description: 'The NICs of the bond.' }),
          mode: bondMode,
        },
        'Several NICs as one.',
      ),
    ),
    vlan: Type.Optional(taggedVlan),
    dhcp: Type.Boolean({ default: false, description: 'Ask for an address by DHCP.' }),
    first_address: Type.Optional(
      Type.String({
        format: 'ipv4-host-cidr',
        examples: ['10.97.0.11/24'],
        description: 'Address of the node with the number 1 of its profile; number 2 has the next one.',
      }),
    ),
    gateway: Type.Optional(ipv4('Default router, reached through this interface.', '10.97.0.254')),
    dns: Type.Array(ipv4('A resolver.', '10.98.0.53'), {
      maxItems: 8,
      default: [],
      examples: [['10.98.0.53']],
      description: 'Resolvers, where DHCP does not name them.',
    }),
    mtu: Type.Optional(
      Type.Integer({ minimum: 576, maximum: 9216, examples: [9000], description: 'MTU; the driver’s when left out.' }),
    ),
  },
  'An interface of the installed system; exactly one of `nic`, `bond` and `vlan` is given.',
);

export const NetworkLayoutSchema = object(
  {
    name: hostName('Name of the layout.', 'bonded'),
    interfaces: Type.Array(LayoutInterfaceSchema, { minItems: 1, maxItems: 64, description: 'Interfaces.' }),
  },
  'A network of installed systems, without the MACs of any.',
);

export const RackSchema = object(
  {
    name: text('Name of the rack.', 'r1', 63),
    switches: Type.Array(glob('Name of a switch, as LLDP tells it.', 'leaf-r1*'), {
      minItems: 1,
      maxItems: 16,
      examples: [['leaf-r1a', 'leaf-r1b']],
      description: 'Switches in the rack: who is connected to one of them is in it.',
    }),
    first_unit: Type.Integer({
      minimum: 1,
      maximum: 60,
      default: 1,
      description: 'Rack unit of the machine on port 1; the last number of a port’s name counts.',
    }),
    units_per_port: Type.Integer({
      minimum: 0,
      maximum: 10,
      default: 1,
      description: 'Units from one port’s machine to the next; 0 where ports do not follow the units.',
    }),
  },
  'A rack, told by its switches.',
);

export const racksField = Type.Array(RackSchema, {
  maxItems: 1000,
  default: [],
  description: 'Where machines stand, by the switch that they see (LLDP).',
});
export const profilesField = Type.Array(ProfileSchema, {
  maxItems: 256,
  default: [],
  description:
    'What machines become that `nodes` does not name. Of the profiles whose rules all fit, the one of the highest priority that is not full; `halligan site match` shows it.',
});
export const networkLayoutsField = Type.Array(NetworkLayoutSchema, {
  maxItems: 256,
  default: [],
  description: 'Networks of installed systems.',
});

export type Match = Static<typeof MatchSchema>;
export type Profile = Static<typeof ProfileSchema>;
export type NicChoice = Static<typeof NicChoiceSchema>;
export type NetworkLayout = Static<typeof NetworkLayoutSchema>;
export type Rack = Static<typeof RackSchema>;
