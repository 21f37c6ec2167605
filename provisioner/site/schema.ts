/**
 * The schema of `site.yaml`, version 2. Every field has a reason (`description`), a default where one makes sense, and
 * an example. JSON Schema, so that the same text checks the file, documents it and draws forms.
 *
 * Two words stand beside JSON Schema's own: `expects` ends the sentence "expected …" where a pattern would tell a person
 * nothing, and `examples[0]` is what that sentence and the documentation show.
 */
import { type Static, Type } from 'typebox';
import { ROLE_NAMES } from '../core/cloud-settings.js';
import { CloudSchema, PackagesSchema, RoleName } from './cloud-schema.js';
import {
  bondMode,
  group,
  hostName,
  ipv4,
  mac,
  object,
  oneOf,
  secretRef,
  sshKey,
  subnet,
  taggedVlan,
  text,
  userData,
} from './fields.js';
import { SITE_VERSION } from './migrate.js';
import { networkLayoutsField, profilesField, racksField } from './profile-schema.js';

export const NetworkSchema = object(
  {
    name: hostName('Name of the network, for messages and for `halligan lease list`.', 'boot'),
    cidr: subnet('The subnet that nodes boot from.'),
    interface: Type.Optional(
      Type.String({
        pattern: '^[^/\\s]{1,15}$',
        expects: 'the name of a network interface (at most 15 characters)',
        examples: ['br0'],
        description:
          'The interface of this server on the subnet. Leave it out for a subnet that only a DHCP relay reaches.',
      }),
    ),
    server_address: Type.Optional(
      ipv4(
        'Our address that nodes use. When left out: the first address of the interface inside `cidr`, or (without `interface`) the source address of our route there.',
      ),
    ),
    pool: object(
      {
        from: ipv4('First address of the pool.', '10.99.0.200'),
        to: ipv4('Last address of the pool, itself included.', '10.99.0.239'),
      },
      'Addresses for machines that nobody named yet; keep it small and apart from the addresses of nodes.',
    ),
    gateway: Type.Optional(ipv4('Default router handed to nodes (DHCP option 3); none when left out.', '10.99.0.254')),
    dns: Type.Array(ipv4('A resolver.', '10.99.0.53'), {
      maxItems: 8,
      default: [],
      examples: [['10.99.0.53']],
      description: 'Resolvers handed to nodes (DHCP option 6); our own forwarding DNS when empty.',
    }),
    ntp: Type.Array(ipv4('A time server.', '10.99.0.123'), {
      maxItems: 8,
      default: [],
      examples: [['10.99.0.123']],
      description: 'Time servers handed to nodes (DHCP option 42); `ntp` of the site when empty.',
    }),
    routes: Type.Array(
      object(
        {
          to: subnet('Where the route leads.', '10.98.0.0/16'),
          via: ipv4('The router, inside the subnet.', '10.99.0.253'),
        },
        'A static route (DHCP option 121, RFC 3442).',
      ),
      { maxItems: 32, default: [], description: 'More routes for nodes.' },
    ),
    lease_seconds: Type.Integer({
      minimum: 60,
      maximum: 604_800,
      default: 600,
      description: 'Lease time of unknown machines; short, so that a small pool lasts.',
    }),
    reserved_lease_seconds: Type.Integer({
      minimum: 60,
      maximum: 31_536_000,
      default: 86_400,
      description: 'Lease time of known nodes, whose address is reserved anyway.',
    }),
    relays: Type.Array(ipv4('Address of a relay.', '10.99.0.254'), {
      maxItems: 64,
      default: [],
      examples: [['10.99.0.254']],
      description:
        'Addresses (giaddr) of the relays that may ask for this subnet; any address inside `cidr` when empty.',
    }),
    router_advertisements: Type.Boolean({
      default: true,
      description: 'Send IPv6 router advertisements without addresses: iPXE otherwise waits 13 seconds for one.',
    }),
  },
  'A subnet that nodes boot from.',
);

export const BmcSchema = object(
  {
    driver: oneOf(['ipmi', 'redfish', 'manual'], {
      examples: ['ipmi'],
      description: 'How the machine is switched: IPMI over LAN, Redfish, or by a person.',
    }),
    address: Type.Optional(
      text(
        'Where the BMC answers: host[:port] for ipmi, a URL for redfish. Needed unless the driver is manual.',
        '10.98.0.7',
      ),
    ),
    user: Type.Optional(text('Account on the BMC.', 'halligan', 64)),
    password: Type.Optional(
      secretRef(
        'Where the password of the account is; the file can then be shared and versioned.',
        'file:/etc/halligan/bmc-password',
      ),
    ),
    cipher_suite: Type.Integer({
      minimum: 0,
      maximum: 17,
      default: 3,
      description: 'IPMI cipher suite; 17 where the BMC has it.',
    }),
    system: Type.Optional(
      text('Redfish system URI, when the BMC manages several.', '/redfish/v1/Systems/System.Embedded.1'),
    ),
    tls_fingerprint: Type.Optional(
      Type.String({
        pattern: '^sha256:[0-9a-fA-F]{64}$',
        expects: 'sha256: and 64 hexadecimal digits',
        examples: ['sha256:5f2b9f3d5b0c1a4e8d7c6b5a493827160f1e2d3c4b5a69788796a5b4c3d2e1f0'],
        description: 'Pinned certificate of a Redfish service; without it the certificate must verify.',
      }),
    ),
  },
  'How the node is switched on and off.',
);

export const DiskHintsSchema = object(
  {
    name: Type.Optional(text('Kernel name; prefer serial or wwn, names move between boots.', '/dev/nvme0n1')),
    serial: Type.Optional(text('Serial number of the disk.', 'S4EVNF0M123456')),
    wwn: Type.Optional(text('World wide name of the disk.', '0x5002538e40b0c1d2')),
    type: Type.Optional(oneOf(['nvme', 'ssd', 'hdd'], { examples: ['ssd'], description: 'Kind of disk.' })),
    min_gb: Type.Optional(Type.Number({ minimum: 0, examples: [200], description: 'Least size, in 10^9 bytes.' })),
    max_gb: Type.Optional(Type.Number({ minimum: 0, examples: [2000], description: 'Largest size, in 10^9 bytes.' })),
  },
  'Which disk gets the system: the smallest that fits all hints, the first by path among equals.',
);

export const DiskLayoutSchema = object(
  {
    kind: oneOf(['plain', 'lvm', 'mdraid'], {
      default: 'plain',
      description: 'plain: one root partition. lvm: root as a logical volume. mdraid: root mirrored over two disks.',
    }),
    root_gb: Type.Optional(
      Type.Number({
        minimum: 3,
        examples: [40],
        description: 'Size of the root volume in 10^9 bytes (lvm only); the whole disk when left out.',
      }),
    ),
    disks: Type.Array(DiskHintsSchema, {
      minItems: 1,
      maxItems: 2,
      default: [{}],
      examples: [[{ serial: 'S4EVNF0M123456' }]],
      description: 'One entry per disk that is used; mdraid has two, of which each may be empty (`{}`).',
    }),
  },
  'How the disks are laid out; plain on the smallest disk when left out.',
);

const NamedDiskLayoutSchema = object(
  { name: hostName('Name of the layout.', 'mirrored'), ...DiskLayoutSchema.properties },
  'A disk layout that profiles name.',
);

export const InterfaceSchema = object(
  {
    name: Type.String({
      pattern: '^[a-zA-Z0-9_.-]{1,15}$',
      expects: 'the name of a network interface (at most 15 letters, digits, dots, hyphens)',
      examples: ['mgmt0'],
      description: 'Name in the installed system.',
    }),
    mac: Type.Optional(mac('The NIC that gets this name. Exactly one of `mac`, `bond` and `vlan` is given.')),
    bond: Type.Optional(
      object(
        {
          macs: Type.Array(mac('A NIC.'), {
            minItems: 1,
            maxItems: 8,
            examples: [['52:54:00:99:00:01', '52:54:00:99:00:02']],
            description: 'The NICs of the bond.',
          }),
          mode: bondMode,
        },
        'Several NICs as one.',
      ),
    ),
    vlan: Type.Optional(taggedVlan),
    dhcp: Type.Boolean({ default: false, description: 'Ask for an address by DHCP.' }),
    addresses: Type.Array(
      Type.String({
        format: 'ipv4-host-cidr',
        examples: ['10.98.0.7/24'],
        description: 'An address with its prefix length.',
      }),
      { maxItems: 16, default: [], examples: [['10.98.0.7/24']], description: 'Static addresses.' },
    ),
    gateway: Type.Optional(
      ipv4('Default router, reached through this interface; at most one per node.', '10.98.0.254'),
    ),
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
  'An interface of the installed system.',
);

export const InstallSchema = object(
  {
    image: Type.Optional(text('Image to install; `images.default` when left out.', 'debian-12', 64)),
    disk_layout: Type.Optional(DiskLayoutSchema),
    interfaces: Type.Array(InterfaceSchema, {
      maxItems: 64,
      default: [],
      description: 'Network of the installed system; DHCP on the boot NIC when empty.',
    }),
    ssh_keys: Type.Array(sshKey, {
      maxItems: 64,
      default: [],
      description: 'More public keys for the login user of this node.',
    }),
    user_data: Type.Optional(userData('Own cloud-init user-data of this node, merged after ours and the site’s.')),
  },
  'What gets installed; the site’s defaults when left out.',
);

export const NodeSchema = object(
  {
    name: hostName('Name of the node, and its host name once installed.'),
    macs: Type.Array(mac('MAC address of a NIC.'), {
      maxItems: 64,
      default: [],
      examples: [['52:54:00:99:00:01']],
      description: 'NICs of the node; one is enough to recognise it.',
    }),
    uuid: Type.Optional(
      Type.String({
        format: 'uuid',
        examples: ['4c4c4544-0042-3510-8054-b4c04f564e31'],
        description: 'SMBIOS UUID, to recognise the node by.',
      }),
    ),
    serial: Type.Optional(text('Serial number of the machine, to recognise it by.', 'B5TVN1J')),
    address: Type.Optional(ipv4('Reserved address, outside the pool; chosen by us when left out.', '10.99.0.7')),
    bmc: Type.Optional(BmcSchema),
    rack: Type.Optional(
      object(
        {
          name: text('Name of the rack.', 'r1', 63),
          unit: Type.Optional(
            Type.Integer({ minimum: 1, maximum: 60, examples: [12], description: 'Its lowest rack unit.' }),
          ),
        },
        'Where the machine stands.',
      ),
    ),
    roles: Type.Array(RoleName, {
      maxItems: 32,
      default: [],
      examples: [['compute']],
      description: `What the node does in the cloud: ${ROLE_NAMES.join(', ')}. \`halligan role show ROLE\` says what each is.`,
    }),
    install: Type.Optional(InstallSchema),
  },
  'A machine that the site names.',
);

export const SiteSchema = object(
  {
    version: Type.Literal(SITE_VERSION, {
      expects: `a version that this Halligan reads (1 to ${SITE_VERSION})`,
      examples: [SITE_VERSION],
      description:
        'Version of this file format. Older ones are read, too; `halligan site migrate` brings them up to it.',
    }),
    include: Type.Optional(
      Type.Array(
        text('A file, relative to the one that includes it and below the folder of the site file.', 'r1.yaml'),
        {
          maxItems: 256,
          examples: [['racks/r1.yaml']],
          description:
            'More files with parts of the site: lists and mappings are joined, any other value may stand only once.',
        },
      ),
    ),
    vars: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Unsafe<string | number | boolean>({
          type: ['string', 'number', 'boolean'],
          expects: 'text, a number, or true or false',
        }),
        {
          examples: [{ bmc_user: 'halligan' }],
          description: `Variables: \`\${bmc_user}\` in any text of the site stands for the value; \`$\${\` is \`\${\` itself. A text that is nothing but one variable has its type, too.`,
        },
      ),
    ),
    name: hostName('Name of the site; disks that we own carry it.', 'dc1'),
    domain: Type.String({
      pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$',
      maxLength: 190,
      expects: 'a DNS domain in lower case',
      default: 'halligan.internal',
      examples: ['dc1.example.net'],
      description: 'DNS domain of the nodes.',
    }),
    data_dir: Type.String({
      pattern: '^/[^\\0]*$',
      expects: 'an absolute path',
      default: '/var/lib/halligan',
      description: 'Folder of the database, the keys and the images.',
    }),
    socket: Type.Optional(
      Type.String({
        pattern: '^/[^\\0]*$',
        maxLength: 107,
        expects: 'an absolute path of at most 107 characters',
        examples: ['/run/halligan/halligan.sock'],
        description: 'Unix socket of the API, for root only; `halligan.sock` in `data_dir` when left out.',
      }),
    ),
    api: group(
      {
        listen: Type.String({
          format: 'loopback',
          default: '127.0.0.1',
          description: 'Loopback only: any other address needs TLS and accounts, which this version does not have.',
        }),
        port: Type.Integer({
          minimum: 0,
          maximum: 65_535,
          default: 7480,
          description: 'Port of the API; 0 for the socket alone.',
        }),
      },
      'The operators’ side.',
    ),
    boot: group(
      {
        http_port: Type.Integer({
          minimum: 1,
          maximum: 65_535,
          default: 7481,
          description: 'HTTP for booting nodes; serves no API.',
        }),
        tftp_port: Type.Integer({
          minimum: 1,
          maximum: 65_535,
          default: 69,
          description: 'TFTP for boot loaders. Firmware asks on 69; another port is for tests.',
        }),
        dhcp_port: Type.Integer({
          minimum: 1,
          maximum: 65_535,
          default: 67,
          description: 'DHCP. Clients ask on 67; another port is for tests.',
        }),
        console: Type.String({
          pattern: '^[a-zA-Z0-9,]{1,64}$',
          expects: 'a console as on a kernel command line',
          default: 'ttyS0,115200',
          description: 'Serial console of nodes, as the kernel takes it.',
        }),
        ram_image: Type.Optional(
          text('RAM environment of nodes; `ram` or, where only that exists, `ram-cloud` when left out.', 'ram', 64),
        ),
      },
      'The nodes’ side.',
    ),
    dns: group(
      {
        forward: Type.Array(ipv4('A resolver.', '192.0.2.53'), {
          maxItems: 8,
          default: [],
          examples: [['192.0.2.53']],
          description: 'Resolvers that our DNS asks for names that are not nodes; only nodes resolve when empty.',
        }),
      },
      'Names for nodes.',
    ),
    ntp: Type.Array(ipv4('A time server.', '192.0.2.123'), {
      maxItems: 8,
      default: [],
      examples: [['192.0.2.123']],
      description: 'Time servers for nodes, where a network names none.',
    }),
    networks: Type.Array(NetworkSchema, { minItems: 1, maxItems: 256, description: 'Subnets that nodes boot from.' }),
    images: group(
      {
        default: Type.String({
          minLength: 1,
          maxLength: 64,
          default: 'debian-12',
          description: 'Image of nodes that name none.',
        }),
      },
      'What gets installed by default.',
    ),
    discovery: group(
      {
        unknown: oneOf(['inspect', 'ignore'], {
          default: 'inspect',
          description:
            'inspect: an unknown machine that PXE-boots gets the RAM environment and is listed. ignore: it gets no boot file.',
        }),
      },
      'What happens to machines that nobody named.',
    ),
    install: group(
      {
        login: Type.String({
          pattern: '^[a-z_][a-z0-9_-]{0,30}$',
          expects: 'a Linux user name in lower case',
          default: 'halligan',
          examples: ['ops'],
          description: 'User that every installed system gets, with sudo and the SSH keys below.',
        }),
        ssh_keys: Type.Array(sshKey, {
          maxItems: 64,
          default: [],
          description: 'The operators’ public keys, for every node.',
        }),
        user_data: Type.Optional(userData('Own cloud-init user-data for every node, merged after ours.')),
      },
      'What every installed system gets.',
    ),
    deadlines: group(
      {
        inspecting_seconds: Type.Integer({
          minimum: 30,
          maximum: 86_400,
          default: 1200,
          description: 'From the order to inspect to the inventory.',
        }),
        installing_seconds: Type.Integer({
          minimum: 60,
          maximum: 86_400,
          default: 3600,
          description: 'From the order to install to the first boot’s call home.',
        }),
        releasing_seconds: Type.Integer({
          minimum: 30,
          maximum: 604_800,
          default: 1800,
          description: 'From the order to release to erased disks; raise it for full erasure of large disks.',
        }),
        rescuing_seconds: Type.Integer({
          minimum: 30,
          maximum: 86_400,
          default: 1200,
          description: 'From the order to rescue to a shell.',
        }),
      },
      'How long each working state may last before the node is failed with a reason.',
    ),
    limits: group(
      {
        ssh_sessions: Type.Integer({ minimum: 1, maximum: 256, default: 24, description: 'SSH connections at once.' }),
        installs: Type.Integer({ minimum: 1, maximum: 1000, default: 32, description: 'Nodes that install at once.' }),
        package_cache_gib: Type.Integer({
          minimum: 1,
          maximum: 10_000,
          default: 20,
          description: 'Packages kept for nodes in `data_dir`; what was used least recently goes.',
        }),
      },
      'Bounds of what runs at once and of what is kept.',
    ),
    packages: PackagesSchema,
    cloud: Type.Optional(CloudSchema),
    layouts: group(
      {
        disk: Type.Array(NamedDiskLayoutSchema, {
          maxItems: 256,
          default: [],
          description: 'Disk layouts of installed systems.',
        }),
        network: networkLayoutsField,
      },
      'Layouts that profiles name.',
    ),
    racks: racksField,
    profiles: profilesField,
    nodes: Type.Array(NodeSchema, {
      maxItems: 10_000,
      default: [],
      description: 'Machines that the site names. Others can be added by API and UI.',
    }),
  },
  'One datacenter.',
);

export type Site = Static<typeof SiteSchema>;
export type Network = Static<typeof NetworkSchema>;
export type Bmc = Static<typeof BmcSchema>;
export type DiskHints = Static<typeof DiskHintsSchema>;
export type DiskLayout = Static<typeof DiskLayoutSchema>;
export type InterfaceConfig = Static<typeof InterfaceSchema>;
export type InstallConfig = Static<typeof InstallSchema>;
export type SiteNode = Static<typeof NodeSchema>;
