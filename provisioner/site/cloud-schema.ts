/** The schema of the `cloud` part of `site.yaml`: what is laid down on nodes with roles. `cloud: {}` is a small cloud. */
import { type Static, Type } from 'typebox';
import { DEFAULT_RELEASE, ROLE_NAMES } from '../core/cloud-settings.js';
import { group, ipv4, mac, object, oneOf, subnet, text } from './fields.js';

/** A role, as text: lists of roles come from the database, too. */
export const RoleName = Type.Unsafe<string>({
  type: 'string',
  enum: [...ROLE_NAMES],
  examples: ['compute'],
  description: 'A role.',
});

const physicalNetwork = (description: string) =>
  Type.String({
    pattern: '^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$',
    expects: 'the name of a physical network in lower case (letters, digits, inner hyphens; at most 32)',
    examples: ['physnet1'],
    description,
  });
const vlanTag = (description: string) => Type.Integer({ minimum: 1, maximum: 4094, examples: [100], description });

const devices = (whose: string, example: string) =>
  Type.Array(
    object(
      {
        path: Type.String({
          pattern: '^/[a-zA-Z0-9._/:@+-]{1,200}$',
          expects: 'the absolute path of a disk, or of a file with file_size',
          examples: [example],
          description: 'The disk, best by its name below /dev/disk/by-id: sdb may be another one after a reboot.',
        }),
        file_size: Type.Optional(
          Type.String({
            pattern: '^[1-9]\\d{0,4}[GT]$',
            expects: 'a size in GiB or TiB',
            examples: ['8G'],
            description: 'Make a plain file of this size at `path` in place of a disk; for trials.',
          }),
        ),
      },
      'A disk that is given away with everything on it.',
    ),
    {
      maxItems: 64,
      default: [],
      examples: [[{ path: example }]],
      description: `Disks of ${whose}, the same on each of them. The plan asks before it takes one, and a disk that holds anything of others is refused: wipe it first.`,
    },
  );

const PortSchema = object(
  {
    name: text('Name of the port in Neutron, to start a virtual machine with.', 'printer', 64),
    address: Type.Optional(ipv4('Its address, of one of the subnets; one of the pool when left out.', '10.120.0.20')),
    mac: Type.Optional(mac('Its MAC address; Neutron’s choice when left out.', 'fa:16:3e:00:00:20')),
    dhcp_options: Type.Record(
      Type.String(),
      Type.Unsafe<string | number>({
        type: ['string', 'number'],
        maxLength: 255,
        expects: 'text or a number',
      }),
      {
        default: {},
        examples: [{ router: '10.120.0.2', 'ntp-server': '10.120.0.3' }],
        description:
          'What DHCP tells this port in place of what it tells its subnet, by the names of Neutron: router, dns-server, domain-name, mtu, ntp-server, classless-static-route, tftp-server, bootfile-name, server-ip-address and others. `router` leads everything that leaves the subnet; metadata keep their own way.',
      },
    ),
  },
  'A port that is there before its virtual machine.',
);

const ProviderSubnetSchema = object(
  {
    cidr: subnet('The subnet.', '10.120.0.0/24'),
    gateway: Type.Optional(
      ipv4('The hardware router, which DHCP names to virtual machines; no router when left out.', '10.120.0.1'),
    ),
    dhcp: Type.Boolean({ default: true, description: 'OVN answers DHCP. False where something else does.' }),
    pool: Type.Optional(
      object(
        {
          from: ipv4('First address.', '10.120.0.100'),
          to: ipv4('Last address, itself included.', '10.120.0.199'),
        },
        'Addresses for virtual machines; nothing else may use them. When left out: all of the subnet but the gateway’s.',
      ),
    ),
    dns: Type.Array(ipv4('A resolver.', '10.120.0.53'), {
      maxItems: 4,
      default: [],
      examples: [['10.120.0.53']],
      description: 'Resolvers for this subnet; `cloud.dns` when empty.',
    }),
    routes: Type.Array(
      object(
        {
          to: subnet('Where the route leads.', '10.130.0.0/16'),
          via: ipv4('The router, inside the subnet.', '10.120.0.2'),
        },
        'A static route (DHCP option 121, RFC 3442).',
      ),
      { maxItems: 20, default: [], description: 'More routes for virtual machines.' },
    ),
  },
  'A subnet.',
);

const ProviderNetworkSchema = object(
  {
    name: text('Name of the network in Neutron.', 'lan', 60),
    physical_network: physicalNetwork('The physical network it is on, one of `provider`.'),
    vlan: Type.Optional(vlanTag('VLAN tag on the physical network; untagged when left out.')),
    shared: Type.Boolean({ default: true, description: 'All projects may use it; false: the project admin alone.' }),
    subnets: Type.Array(ProviderSubnetSchema, { maxItems: 8, default: [], description: 'Its subnets.' }),
    ports: Type.Array(PortSchema, {
      maxItems: 256,
      default: [],
      description: 'Ports that are there before their virtual machines, with an address or DHCP options of their own.',
    }),
  },
  'A network that virtual machines share with what is outside of the cloud.',
);

export const CloudSchema = object(
  {
    release: Type.String({
      pattern: '^[a-z]+-[0-9.]+-[a-z0-9.]+$',
      maxLength: 64,
      expects: 'distribution, its release and the OpenStack release, joined by hyphens',
      default: DEFAULT_RELEASE,
      examples: ['ubuntu-24.04-2024.1'],
      description:
        'OpenStack release on the distribution of the nodes; a data file of this name says what it is made of.',
    }),
    region: Type.String({
      pattern: '^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$',
      expects: 'a name of letters, digits, dots and inner hyphens',
      default: 'RegionOne',
      examples: ['dc1'],
      description: 'Name of the region in the catalogue; clients name it, so it is hard to change later.',
    }),
    api_name: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$',
        maxLength: 190,
        expects: 'a host name in lower case, or an IPv4 address',
        examples: ['cloud.dc1.example.net'],
        description:
          'Name in the URLs of the APIs and of the dashboard, which your DNS resolves to the controller; the address of the first controller when left out.',
      }),
    ),
    networks: group(
      {
        management: Type.Optional(
          subnet('APIs, database, messages. The network that nodes boot from when left out.', '10.99.0.0/24'),
        ),
        tunnel: Type.Optional(
          subnet('Traffic between virtual machines of different hosts; as management when left out.', '10.96.0.0/24'),
        ),
        storage: Type.Optional(subnet('Volumes, images and objects; as management when left out.', '10.97.0.0/24')),
      },
      'Which subnet carries what; a node’s address in it is what its services use.',
    ),
    provider: Type.Array(
      object(
        {
          physical_network: physicalNetwork(
            'Name of the network behind the interface, for `external` and for Neutron.',
          ),
          interface: Type.String({
            pattern: '^[a-zA-Z0-9_.-]{1,15}$',
            expects: 'the name of a network interface (at most 15 letters, digits, dots, hyphens)',
            examples: ['eth1'],
            description:
              'The interface on nodes with the role network (and compute, with `distributed_floating_ip`, `provider_networks` or VLAN networks): a NIC, a bond or a VLAN. One that carries the node’s own address is taken over with it, and given back when the node is not reached again.',
          }),
          vlan_range: Type.Optional(
            Type.String({
              pattern: '^\\d{1,4}:\\d{1,4}$',
              expects: 'first and last VLAN tag, joined by a colon',
              examples: ['100:299'],
              description: 'Tags that projects may get for networks of their own; untagged only when left out.',
            }),
          ),
        },
        'A physical network.',
      ),
      { maxItems: 16, default: [], description: 'Physical networks that virtual machines may reach.' },
    ),
    external: Type.Optional(
      object(
        {
          name: text('Name of the network in Neutron.', 'public', 64),
          physical_network: physicalNetwork('The physical network it is on, one of `provider`.'),
          vlan: Type.Optional(vlanTag('VLAN tag on the physical network; untagged when left out.')),
          cidr: subnet('The subnet.', '203.0.113.0/24'),
          gateway: Type.Optional(ipv4('The hardware router; none when left out.', '203.0.113.1')),
          pool: object(
            {
              from: ipv4('First address.', '203.0.113.100'),
              to: ipv4('Last address, itself included.', '203.0.113.199'),
            },
            'Addresses for routers and floating IPs; nothing else may use them.',
          ),
        },
        'The network of floating IPs; without it virtual machines are reached by tenant and provider networks only.',
      ),
    ),
    provider_networks: Type.Array(ProviderNetworkSchema, {
      maxItems: 64,
      default: [],
      description:
        'Networks on a physical network that virtual machines are plugged into directly, with a hardware router as their gateway. Every compute node needs the interface of `provider`.',
    }),
    tenant_networks: oneOf(['geneve', 'vlan'], {
      default: 'geneve',
      description:
        'What projects’ own networks are made of. geneve: tunnels, needs nothing of the switches. vlan: tags of `vlan_range`, which the switches must carry.',
    }),
    distributed_floating_ip: Type.Boolean({
      default: false,
      description:
        'Floating IPs on the hypervisors themselves instead of on the network nodes: shorter ways and no bottleneck, but every compute node needs the provider interface.',
    }),
    mtu: Type.Integer({
      minimum: 1280,
      maximum: 9216,
      default: 1500,
      description: 'MTU of the networks below; tenant networks get what tunnels leave of it.',
    }),
    datapath: oneOf(['auto', 'kernel', 'userspace'], {
      default: 'auto',
      description: 'Open vSwitch in the kernel or in userspace. auto: the kernel’s where its module is there.',
    }),
    virtualization: oneOf(['auto', 'kvm', 'qemu'], {
      default: 'auto',
      description: 'auto: KVM where the CPU has it; qemu emulates and is slow.',
    }),
    workers: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 64,
        examples: [4],
        description: 'Processes per API; chosen by the CPUs of the node when left out.',
      }),
    ),
    dns: Type.Array(ipv4('A resolver.', '192.0.2.53'), {
      maxItems: 4,
      default: [],
      examples: [['192.0.2.53']],
      description: 'Resolvers for virtual machines; `dns.forward` of the site when empty.',
    }),
    ntp: Type.Array(ipv4('A time server.', '192.0.2.123'), {
      maxItems: 8,
      default: [],
      examples: [['192.0.2.123']],
      description: 'Time servers of the cloud’s nodes; `ntp` of the site when empty.',
    }),
    volumes: group(
      {
        backend: Type.Optional(
          oneOf(['lvm', 'ceph', 'none'], {
            examples: ['lvm'],
            description:
              'lvm: logical volumes over iSCSI. ceph: replicated block storage, laid down on the same disks. none: no volumes. When left out: lvm with `devices`, none without.',
          }),
        ),
        devices: devices('nodes with the role volume', '/dev/sdb'),
      },
      'Block storage for virtual machines.',
    ),
    objects: group(
      {
        enabled: Type.Optional(
          Type.Boolean({ description: 'Object storage (Swift and S3); when left out: where there are `devices`.' }),
        ),
        replicas: Type.Optional(
          Type.Integer({
            minimum: 1,
            maximum: 8,
            examples: [3],
            description:
              'Copies of each object, each on another disk; 3 when left out, fewer where the file names fewer disks.',
          }),
        ),
        devices: devices('nodes with the role storage', '/dev/sdc'),
      },
      'Object storage.',
    ),
    dashboard: Type.Boolean({ default: true, description: 'The web dashboard (Horizon) on the controllers.' }),
    flavors: Type.Array(
      object(
        {
          name: Type.String({
            pattern: '^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$',
            expects: 'a name of letters, digits, dots and inner hyphens',
            examples: ['m1.small'],
            description: 'Name of the flavor.',
          }),
          vcpus: Type.Integer({ minimum: 1, maximum: 1024, examples: [1], description: 'Virtual CPUs.' }),
          memory_mib: Type.Integer({
            minimum: 64,
            maximum: 16_777_216,
            examples: [2048],
            description: 'Memory in MiB.',
          }),
          disk_gib: Type.Integer({
            minimum: 0,
            maximum: 1_048_576,
            examples: [20],
            description: 'Root disk in GiB; 0: as large as the image.',
          }),
        },
        'A size of virtual machines.',
      ),
      {
        maxItems: 256,
        default: [
          { name: 'm1.nano', vcpus: 1, memory_mib: 192, disk_gib: 1 },
          { name: 'm1.tiny', vcpus: 1, memory_mib: 512, disk_gib: 1 },
          { name: 'm1.small', vcpus: 1, memory_mib: 2048, disk_gib: 20 },
          { name: 'm1.medium', vcpus: 2, memory_mib: 4096, disk_gib: 40 },
        ],
        description: 'Sizes of virtual machines.',
      },
    ),
    config: Type.Record(
      Type.String(),
      Type.Record(
        Type.String(),
        Type.Record(
          Type.String(),
          Type.Record(
            Type.String(),
            Type.Unsafe<string | number | boolean>({
              type: ['string', 'number', 'boolean'],
              maxLength: 4096,
              expects: 'text, a number, or true or false',
            }),
          ),
        ),
      ),
      {
        default: {},
        examples: [{ hypervisor: { '/etc/nova/nova-compute.conf': { DEFAULT: { cpu_allocation_ratio: 4 } } } }],
        description:
          'Additions to configuration files that we write: service, path, section, key, value. What stands here wins. `halligan role show ROLE` names the services of a role.',
      },
    ),
    packages: Type.Optional(
      Type.String({
        pattern: '^(proxy|https?://[^\\s]+)$',
        maxLength: 1024,
        expects: 'proxy, or the URL of a mirror',
        examples: ['proxy'],
        description:
          'Where nodes get packages: `proxy` (through this server, from its own sources), or a mirror; the nodes’ own sources when left out.',
      }),
    ),
  },
  'The cloud that is laid down on nodes with roles; `cloud: {}` takes every default. Without this part there is none.',
);

export const PackagesSchema = group(
  {
    uplink: Type.Optional(
      Type.String({
        pattern: '^unix:/[^\\0\\s]{1,106}$',
        expects: 'unix: and the absolute path of a socket',
        examples: ['unix:/run/halligan-lab/lab/uplink.sock'],
        description:
          'Socket of a program that fetches from archives for a server without a way to them, such as one in a virtual lab. When left out: directly, or through the proxy of this machine’s apt.',
      }),
    ),
  },
  'How this server gets the packages that it hands to nodes (`cloud.packages: proxy`).',
);

export type CloudConfig = Static<typeof CloudSchema>;
