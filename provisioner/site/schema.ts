/**
 * The schema of `site.yaml`, version 1. Every field has a reason (`description`), a default where one makes sense, and
 * an example. JSON Schema, so that the same text checks the file, documents it and draws forms.
 */
import { type Static, Type } from 'typebox';

const Ipv4 = Type.String({ format: 'ipv4', examples: ['10.99.0.1'] });
const Cidr = Type.String({ format: 'ipv4-cidr', examples: ['10.99.0.0/24'] });
const Mac = Type.String({ format: 'mac', examples: ['52:54:00:99:00:01'] });
const HostName = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
  examples: ['n07'],
  description: 'One label of a host name (RFC 1123), lower case.',
});
const SecretRef = Type.String({
  pattern: '^(file|env|secret):.+$',
  examples: ['file:/etc/halligan/bmc-password', 'env:BMC_PASSWORD', 'secret:bmc/n07'],
  description: 'Where the secret is; never the secret itself, so that the file can be shared and versioned.',
});
const object = <P extends Parameters<typeof Type.Object>[0]>(properties: P, description: string) =>
  Type.Object(properties, { additionalProperties: false, description });

export const NetworkSchema = object(
  {
    name: HostName,
    cidr: Type.String({
      format: 'ipv4-cidr',
      examples: ['10.99.0.0/24'],
      description: 'The subnet that nodes boot from.',
    }),
    interface: Type.Optional(
      Type.String({
        pattern: '^[^/\\s]{1,15}$',
        examples: ['br0'],
        description:
          'The interface of this server on the subnet. Leave it out for a subnet that only a DHCP relay reaches.',
      }),
    ),
    server_address: Type.Optional(
      Type.String({
        format: 'ipv4',
        description: 'Our address that nodes use; the first one of the interface inside cidr by default.',
      }),
    ),
    pool: Type.Object(
      { from: Ipv4, to: Ipv4 },
      {
        additionalProperties: false,
        description: 'Addresses for unknown machines; keep it small and apart from reservations.',
      },
    ),
    gateway: Type.Optional(Type.String({ format: 'ipv4', description: 'Default router handed to nodes (option 3).' })),
    dns: Type.Array(Ipv4, {
      default: [],
      description: 'Resolvers handed to nodes (option 6); our own forwarding DNS when empty.',
    }),
    ntp: Type.Array(Ipv4, {
      default: [],
      description: 'Time servers handed to nodes (option 42); `ntp` of the site when empty.',
    }),
    routes: Type.Array(object({ to: Cidr, via: Ipv4 }, 'A static route (option 121, RFC 3442).'), {
      default: [],
      description: 'More routes for nodes.',
    }),
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
    relays: Type.Array(Ipv4, {
      default: [],
      description: 'Addresses (giaddr) of the relays that may ask for this subnet; any address inside cidr when empty.',
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
    driver: Type.Union([Type.Literal('ipmi'), Type.Literal('redfish'), Type.Literal('manual')], {
      description: 'How the machine is switched: IPMI over LAN, Redfish, or by hand.',
    }),
    address: Type.Optional(
      Type.String({
        examples: ['10.98.0.7', '10.98.0.7:623', 'https://10.98.0.7'],
        description: 'Where the BMC answers: host[:port] for ipmi, a URL for redfish.',
      }),
    ),
    user: Type.Optional(Type.String({ maxLength: 64, description: 'Account on the BMC.' })),
    password: Type.Optional(SecretRef),
    cipher_suite: Type.Integer({
      minimum: 0,
      maximum: 17,
      default: 3,
      description: 'IPMI cipher suite; 17 where the BMC has it.',
    }),
    system: Type.Optional(Type.String({ description: 'Redfish system URI when the BMC manages several.' })),
    tls_fingerprint: Type.Optional(
      Type.String({
        pattern: '^sha256:[0-9a-fA-F]{64}$',
        description: 'Pinned certificate of a Redfish service; without it the certificate must verify.',
      }),
    ),
  },
  'How the node is switched on and off.',
);

export const DiskHintsSchema = object(
  {
    name: Type.Optional(
      Type.String({ examples: ['/dev/nvme0n1'], description: 'Kernel name; prefer serial or wwn, names move.' }),
    ),
    serial: Type.Optional(Type.String({ description: 'Serial number of the disk.' })),
    wwn: Type.Optional(Type.String({ description: 'World wide name of the disk.' })),
    type: Type.Optional(Type.Union([Type.Literal('nvme'), Type.Literal('ssd'), Type.Literal('hdd')])),
    min_gb: Type.Optional(Type.Number({ minimum: 0, description: 'Least size, in 10^9 bytes.' })),
    max_gb: Type.Optional(Type.Number({ minimum: 0, description: 'Largest size, in 10^9 bytes.' })),
  },
  'Which disk gets the system; the smallest that fits, the first by path among equals.',
);

export const DiskLayoutSchema = object(
  {
    kind: Type.Union([Type.Literal('plain'), Type.Literal('lvm'), Type.Literal('mdraid')], {
      default: 'plain',
      description: 'plain: one root partition. lvm: root as a logical volume. mdraid: root mirrored over two disks.',
    }),
    root_gb: Type.Optional(
      Type.Number({ minimum: 3, description: 'Size of the root volume (lvm); the whole disk by default.' }),
    ),
    disks: Type.Array(DiskHintsSchema, {
      default: [{}],
      description: 'One entry per disk that is used; mdraid needs two.',
    }),
  },
  'How the disks are laid out.',
);

export const InterfaceSchema = object(
  {
    name: Type.String({
      pattern: '^[a-zA-Z0-9_.-]{1,15}$',
      examples: ['mgmt0', 'bond0'],
      description: 'Name in the installed system.',
    }),
    mac: Type.Optional(Mac),
    bond: Type.Optional(
      object(
        {
          macs: Type.Array(Mac, { minItems: 1, description: 'The NICs of the bond.' }),
          mode: Type.Union([Type.Literal('active-backup'), Type.Literal('802.3ad'), Type.Literal('balance-xor')], {
            default: 'active-backup',
          }),
        },
        'Several NICs as one.',
      ),
    ),
    vlan: Type.Optional(
      object(
        {
          id: Type.Integer({ minimum: 1, maximum: 4094 }),
          link: Type.String({ description: 'The interface it runs on.' }),
        },
        'A tagged VLAN.',
      ),
    ),
    dhcp: Type.Boolean({ default: false, description: 'Ask for an address by DHCP.' }),
    addresses: Type.Array(Type.String({ format: 'ipv4-cidr', examples: ['10.98.0.7/24'] }), {
      default: [],
      description: 'Static addresses.',
    }),
    gateway: Type.Optional(Ipv4),
    dns: Type.Array(Ipv4, { default: [] }),
    mtu: Type.Optional(Type.Integer({ minimum: 576, maximum: 9216 })),
  },
  'An interface of the installed system.',
);

export const InstallSchema = object(
  {
    image: Type.Optional(
      Type.String({ examples: ['debian-12'], description: 'Image to install; `images.default` when left out.' }),
    ),
    disk_layout: Type.Optional(DiskLayoutSchema),
    interfaces: Type.Array(InterfaceSchema, {
      default: [],
      description: 'Network of the installed system; DHCP on the boot NIC when empty.',
    }),
    ssh_keys: Type.Array(Type.String({ pattern: '^(ssh-|ecdsa-|sk-)' }), {
      default: [],
      description: 'More public keys for the login user.',
    }),
    user_data: Type.Optional(
      Type.String({ description: 'Own cloud-init user-data (#cloud-config), merged after ours.' }),
    ),
  },
  'What gets installed.',
);

export const NodeSchema = object(
  {
    name: HostName,
    macs: Type.Array(Mac, { default: [], description: 'NICs of the node; one is enough to recognise it.' }),
    uuid: Type.Optional(Type.String({ format: 'uuid', description: 'SMBIOS UUID.' })),
    serial: Type.Optional(Type.String({ description: 'Serial number of the machine.' })),
    address: Type.Optional(
      Type.String({ format: 'ipv4', description: 'Reserved address, outside the pool; chosen by us when left out.' }),
    ),
    bmc: Type.Optional(BmcSchema),
    roles: Type.Array(Type.String(), {
      default: [],
      description: 'Roles: controller, compute, volume, network, storage.',
    }),
    install: Type.Optional(InstallSchema),
  },
  'A machine that the site names.',
);

export const SiteSchema = object(
  {
    version: Type.Literal(1, { description: 'Version of this file format.' }),
    name: HostName,
    domain: Type.String({
      pattern: '^[a-z0-9.-]+$',
      default: 'halligan.internal',
      description: 'DNS domain of the nodes.',
    }),
    data_dir: Type.String({ default: '/var/lib/halligan', description: 'Database, keys and images.' }),
    socket: Type.Optional(
      Type.String({ description: 'Unix socket of the API, for root only; `halligan.sock` in data_dir by default.' }),
    ),
    api: object(
      {
        listen: Type.String({
          default: '127.0.0.1',
          description: 'Loopback only; another address needs TLS, which this version does not have.',
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
    boot: object(
      {
        http_port: Type.Integer({
          minimum: 1,
          maximum: 65_535,
          default: 7481,
          description: 'HTTP for booting nodes; serves no API.',
        }),
        tftp_port: Type.Integer({ minimum: 1, maximum: 65_535, default: 69 }),
        dhcp_port: Type.Integer({ minimum: 1, maximum: 65_535, default: 67 }),
        console: Type.String({
          default: 'ttyS0,115200',
          description: 'Serial console of nodes, as the kernel takes it.',
        }),
        ram_image: Type.Optional(
          Type.String({ description: 'RAM environment; `ram` or, where only that exists, `ram-cloud`.' }),
        ),
      },
      'The nodes’ side.',
    ),
    dns: object(
      {
        forward: Type.Array(Ipv4, {
          default: [],
          description: 'Resolvers that our DNS asks for names that are not nodes.',
        }),
      },
      'Names for nodes.',
    ),
    ntp: Type.Array(Ipv4, { default: [], description: 'Time servers for nodes.' }),
    networks: Type.Array(NetworkSchema, { minItems: 1, description: 'Subnets that nodes boot from.' }),
    images: object(
      { default: Type.String({ default: 'debian-12', description: 'Image of nodes that name none.' }) },
      'What gets installed by default.',
    ),
    discovery: object(
      {
        unknown: Type.Union([Type.Literal('inspect'), Type.Literal('ignore')], {
          default: 'inspect',
          description:
            'inspect: an unknown machine that PXE-boots gets the RAM environment and is listed. ignore: it gets no boot file.',
        }),
      },
      'What happens to machines that nobody named.',
    ),
    install: object(
      {
        login: HostName,
        ssh_keys: Type.Array(Type.String({ pattern: '^(ssh-|ecdsa-|sk-)' }), {
          default: [],
          description: 'The operators’ public keys, for every node.',
        }),
        user_data: Type.Optional(Type.String({ description: 'cloud-init user-data for every node.' })),
      },
      'What every installed system gets.',
    ),
    deadlines: object(
      {
        inspecting_seconds: Type.Integer({ minimum: 30, default: 1200 }),
        installing_seconds: Type.Integer({ minimum: 60, default: 3600 }),
        releasing_seconds: Type.Integer({ minimum: 30, default: 1800 }),
        rescuing_seconds: Type.Integer({ minimum: 30, default: 1200 }),
      },
      'How long each working state may last before the node is failed with a reason.',
    ),
    limits: object(
      {
        ssh_sessions: Type.Integer({ minimum: 1, maximum: 256, default: 24, description: 'SSH connections at once.' }),
        installs: Type.Integer({ minimum: 1, maximum: 1000, default: 32, description: 'Nodes that install at once.' }),
      },
      'Bounds of what runs at once.',
    ),
    nodes: Type.Array(NodeSchema, {
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
