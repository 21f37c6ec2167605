import { createHash } from 'node:crypto';
import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { type CloudModel, type CloudNode, endpointUrl, nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import { HYPERVISOR_UNIT } from '../../installer/pki/site.js';
import { firstRefusal, optionalPackages, userspaceDatapath } from '../network-agent/chassis.js';
import { dropIn, guarded, messagingUrl, NOVA_FILES, openstackValues, unitName } from '../shared.js';
import { cephMonitors, usesCeph } from '../volume-backend/ceph.js';

const MESSAGING_USER = 'nova-compute';

const QEMU = '/usr/bin/qemu-system-x86_64';
const MIGRATION_PORT = 16_514;

/** https://gnutls.org/manual/html_node/System_002dwide-configuration-of-the-library.html; Ubuntu brings the same since 24.04. */
const GNUTLS = '/etc/gnutls/config';
const OLD_TLS_OFF = `# Written by Halligan.
[overrides]
disabled-version = tls1.0
disabled-version = tls1.1
disabled-version = dtls0.9
disabled-version = dtls1.0
`;

/** How instances run, and why: an operator who sees `qemu` asks at once. */
export function virtualization(
  cloud: CloudModel,
  node: CloudNode,
): { readonly type: 'kvm' | 'qemu'; readonly reason: string } {
  const wanted = cloud.settings.virtualization;
  if (wanted !== 'auto') return { type: wanted, reason: `The site says so (cloud.virtualization: ${wanted}).` };
  return node.facts.kvm
    ? { type: 'kvm', reason: `${node.name} has /dev/kvm.` }
    : { type: 'qemu', reason: `${node.name} has no /dev/kvm: instances are emulated, many times slower.` };
}

/** The sentence an operator reads when KVM is wanted and not there; null when all is well. */
export const virtualizationRefusal = (cloud: CloudModel, node: CloudNode): string | null =>
  cloud.settings.virtualization === 'kvm' && !node.facts.kvm
    ? `cloud.virtualization is kvm, but ${node.name} has no /dev/kvm. Switch on VT-x or AMD-V in its firmware, or say auto.`
    : null;

/** What the node's own system keeps for itself, of MiB. */
const reservedMemory = (node: CloudNode): number =>
  Math.max(512, Math.min(4096, Math.floor(node.facts.memoryMiB / 16)));

const INITIATOR = '/etc/iscsi/initiatorname.iscsi';

/** `iqn.…`, the node's name for iSCSI: images that are copied to many nodes carry one for all. */
export const initiatorName = (node: CloudNode): string =>
  `iqn.1993-08.org.debian:01:${createHash('sha256').update(node.name).digest('hex').slice(0, 12)}`;

/** Type of the volume service in the catalogue; null when there is none. */
function cinderType(cloud: CloudModel): string | null {
  const types = cloud.services.flatMap(s => s.endpoints.map(e => e.type));
  return ['volumev3', 'block-storage'].find(t => types.includes(t)) ?? null;
}

/** Certificates at the places that libvirt and QEMU look for them. */
function pki({ tls }: ServiceContext): readonly Resource[] {
  const pem = (path: string, content: string, group = 'root', mode = 0o644) => file({ path, content, group, mode });
  const qemu = (dir: string, names: readonly (readonly [string, string, number])[]) => [
    directory({ path: dir, group: 'libvirt-qemu', mode: 0o750 }),
    ...names.map(([name, content, mode]) => pem(`${dir}/${name}`, content, 'libvirt-qemu', mode)),
  ];
  return [
    directory({ path: '/etc/pki' }),
    directory({ path: '/etc/pki/CA' }),
    pem('/etc/pki/CA/cacert.pem', tls.ca),
    directory({ path: '/etc/pki/libvirt' }),
    directory({ path: '/etc/pki/libvirt/private', mode: 0o750 }),
    pem('/etc/pki/libvirt/servercert.pem', tls.certificate),
    pem('/etc/pki/libvirt/clientcert.pem', tls.certificate),
    pem('/etc/pki/libvirt/private/serverkey.pem', tls.key, 'root', 0o600),
    pem('/etc/pki/libvirt/private/clientkey.pem', tls.key, 'root', 0o600),
    ...qemu('/etc/pki/qemu', [
      ['ca-cert.pem', tls.ca, 0o640],
      ['server-cert.pem', tls.certificate, 0o640],
      ['server-key.pem', tls.key, 0o640],
      ['client-cert.pem', tls.certificate, 0o640],
      ['client-key.pem', tls.key, 0o640],
    ]),
    ...qemu('/etc/pki/libvirt-vnc', [
      ['ca-cert.pem', tls.ca, 0o640],
      ['server-cert.pem', tls.certificate, 0o640],
      ['server-key.pem', tls.key, 0o640],
    ]),
  ];
}

/** For the userspace datapath only: with the kernel's module the kernel fills in checksums. */
function checksumWrapper({ cloud, node, template }: ServiceContext): readonly Resource[] {
  if (!userspaceDatapath(cloud, node)) return [];
  return [
    command({
      name: 'divert-qemu',
      title: 'Put QEMU aside for a wrapper that leaves no checksums to virtual NICs',
      check: `[ -x ${QEMU}.real ]`,
      apply: `[ -x ${QEMU}.real ] || dpkg-divert --local --rename --divert ${QEMU}.real --add ${QEMU}`,
    }),
    file({ path: QEMU, content: template('usr/bin/qemu-system-x86_64.sh.hbs', {}), mode: 0o755 }),
  ];
}

const SSH_DIR = '/var/lib/nova/.ssh';

/**
 * A server that does not run is moved by copying its disk over SSH, from one hypervisor's account `nova` to the other's
 * (nova, libvirt.remote_filesystem_transport). One key for all of them, taken from the hypervisors' addresses only, and
 * their host keys are those that we log in with.
 */
function migrationKeys({ cloud, secret }: ServiceContext): readonly Resource[] {
  const hypervisors = nodesWith(cloud, 'hypervisor');
  const own = (path: string, content: string, mode: number) =>
    file({ path: `${SSH_DIR}/${path}`, content, owner: 'nova', group: 'nova', mode });
  const restrict = `from="${hypervisors.map(n => n.address).join(',')}",no-agent-forwarding,no-port-forwarding,no-pty,no-X11-forwarding`;
  return [
    command({
      name: 'shell',
      title: 'Give the account nova a shell, in which SSH copies disks',
      // Debian's package gives it one, Ubuntu's /bin/false.
      check: `case $(getent passwd nova) in *:/bin/false|*/nologin) exit 1 ;; esac`,
      apply: 'usermod -s /bin/sh nova',
    }),
    directory({ path: SSH_DIR, owner: 'nova', group: 'nova', mode: 0o700 }),
    own('id_ed25519', secret('nova/ssh', 'ssh'), 0o600),
    own(
      'known_hosts',
      hypervisors.flatMap(n => (n.hostKey ? [`${n.address},${n.name},${n.fqdn} ${n.hostKey}\n`] : [])).join(''),
      0o644,
    ),
    command({
      name: 'migration-key',
      title: 'Let the hypervisors copy disks to each other',
      check: `[ "$(cat ${SSH_DIR}/authorized_keys)" = '${restrict}'" $(ssh-keygen -y -f ${SSH_DIR}/id_ed25519)" ]`,
      apply: `t=$(mktemp ${SSH_DIR}/authorized_keys.XXXXXX)
printf '%s %s\\n' '${restrict}' "$(ssh-keygen -y -f ${SSH_DIR}/id_ed25519)" >"$t"
chown nova:nova "$t"; chmod 600 "$t"; mv -f "$t" ${SSH_DIR}/authorized_keys`,
    }),
  ];
}

/** The account of Ceph that attaches volumes. Written by volume-backend where that is on this node. */
function cephClient(context: ServiceContext): readonly Resource[] {
  const { cloud, node, secret, template } = context;
  if (!usesCeph(cloud)) return [];
  const key = secret('ceph/client.cinder', 'ceph');
  const uuid = secret('ceph/libvirt-secret', 'uuid');
  const files: Resource[] = node.services.includes('volume-backend')
    ? []
    : [
        file({
          path: '/etc/ceph/ceph.conf',
          content: template('etc/ceph/ceph.conf.hbs', {
            fsid: secret('ceph/fsid', 'uuid'),
            monitors: cephMonitors(cloud),
          }),
          grammar: 'ini',
        }),
        file({
          path: '/etc/ceph/ceph.client.cinder.keyring',
          content: template('etc/ceph/keyring.conf.hbs', { entity: 'client.cinder', key }),
          group: 'nova',
          mode: 0o640,
        }),
      ];
  return [
    ...files,
    command({
      name: 'ceph-secret',
      title: 'Give libvirt the key that instances open volumes with',
      env: { CEPH_KEY: key },
      check: `[ "$(virsh -q secret-get-value ${uuid})" = "$CEPH_KEY" ]`,
      apply: `d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
cat >"$d/secret.xml" <<'XML'
<secret ephemeral='no' private='no'><uuid>${uuid}</uuid><usage type='ceph'><name>client.cinder</name></usage></secret>
XML
virsh -q secret-define "$d/secret.xml"
printf %s "$CEPH_KEY" >"$d/value"
virsh -q secret-set-value --secret ${uuid} --file "$d/value"`,
    }),
  ];
}

function libvirt(context: ServiceContext): readonly Resource[] {
  const { node, template } = context;
  const libvirtd = unitName(context, 'libvirt');
  const tlsSocket = unitName(context, 'libvirt_tls');
  const socketFile = dropIn(tlsSocket);
  const listen = `${node.address}:${MIGRATION_PORT}`;
  return [
    ...pki(context),
    file({
      path: '/etc/libvirt/qemu.conf',
      content: template('etc/libvirt/qemu.conf.hbs', { container: node.facts.container }),
      mode: 0o600,
    }),
    file({
      path: '/etc/libvirt/libvirtd.conf',
      content: template('etc/libvirt/libvirtd.conf.hbs', { unit: HYPERVISOR_UNIT }),
    }),
    ...checksumWrapper(context),
    // libvirt and QEMU (screens, migrations) take the TLS versions of the system; QEMU has no option of its own.
    directory({ path: '/etc/gnutls' }),
    file({ path: GNUTLS, content: OLD_TLS_OFF }),
    file({
      path: socketFile,
      content: template('etc/systemd/system/libvirtd-tls.socket.d/halligan.conf.hbs', { listen }),
    }),
    unit({ unit: unitName(context, 'log') }),
    command({
      name: 'migration-socket',
      title: `Let libvirt listen for live migrations on ${listen}, over TLS`,
      check: `ss -Hltn 'sport = :${MIGRATION_PORT}' | grep -q ${listen} && systemctl is-enabled --quiet ${tlsSocket}`,
      // The socket can only be made while libvirtd does not run; instances go on without it.
      apply: `systemctl daemon-reload
systemctl stop ${libvirtd}
systemctl enable --quiet ${tlsSocket}
systemctl restart ${tlsSocket}`,
      expectedSeconds: 2,
      interrupts: 'Instances run on; what starts, stops or migrates them on this node just then fails.',
    }),
    unit({
      unit: libvirtd,
      watches: [
        '/etc/libvirt/qemu.conf',
        '/etc/libvirt/libvirtd.conf',
        '/etc/pki/CA/cacert.pem',
        '/etc/pki/libvirt/servercert.pem',
        GNUTLS,
      ],
      ready: `virsh -q -c qemu:///system version && ss -Hltn 'sport = :${MIGRATION_PORT}' | grep -q ${listen}`,
      expectedSeconds: 3,
      interrupts: 'Instances run on; starting, stopping and migrating them on this node waits for some seconds.',
    }),
  ];
}

function build(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, secret, template } = context;
  const { type, reason } = virtualization(cloud, node);
  const config = '/etc/nova/nova-compute.conf';
  const defaults = '/etc/default/nova-compute';
  const catalog = cinderType(cloud);
  const ceph = usesCeph(cloud);
  return [
    packages([...release.packages, ...optionalPackages(context, 'ceph', usesCeph(cloud))], {
      preseed: release.preseed,
    }),
    ...release.mask.map(masked),
    ...(cloud.settings.volumes.backend === 'lvm'
      ? [
          file({ path: INITIATOR, content: `InitiatorName=${initiatorName(node)}\n`, mode: 0o600 }),
          // It reads its name at its start; open sessions go on without it.
          unit({ unit: unitName(context, 'iscsi'), watches: [INITIATOR] }),
        ]
      : []),
    ...libvirt(context),
    ...cephClient(context),
    directory({ path: '/etc/nova', group: 'nova', mode: 0o750 }),
    guarded('nova', NOVA_FILES),
    file({
      path: config,
      content: template('etc/nova/nova-compute.conf.hbs', {
        ...openstackValues(context, 'nova'),
        transport_url: messagingUrl(context, MESSAGING_USER),
        storage_address: node.storageAddress,
        reserved_memory: reservedMemory(node),
        virt_reason: reason,
        virt_type: type,
        cpu_mode: type === 'kvm' ? 'host-model' : 'none',
        image_url: endpointUrl(cloud, 'image'),
        ceph,
        rbd_secret: ceph ? secret('ceph/libvirt-secret', 'uuid') : '',
        vnc_url: `https://${cloud.api.host}:6080/vnc_lite.html`,
        volumes: catalog !== null,
        cinder_catalog: `${catalog}::internalURL`,
        cinder_password: catalog === null ? '' : secret('identity/cinder'),
        placement_password: secret('identity/placement'),
        neutron_password: secret('identity/neutron'),
      }),
      group: 'nova',
      mode: 0o640,
      grammar: 'ini',
    }),
    ...migrationKeys(context),
    file({ path: defaults, content: template('etc/default/nova-compute.sh.hbs', {}) }),
    unit({
      unit: unitName(context, 'compute'),
      watches: [config, defaults],
      needs: [
        'messaging:ready',
        'identity:catalog',
        'placement:ready',
        'compute-control:conductor',
        `network-agent:ready@${node.name}`,
      ],
      // The unit tells systemd when nova-compute has its record in Nova; then it holds connections to RabbitMQ.
      ready: `ss -Htnp state established 'dport = :5671' | grep -q '"nova-compute"'`,
      timeoutSeconds: 240,
      expectedSeconds: 8,
      interrupts: 'Instances run on; starting and stopping them on this node waits for some seconds.',
      provides: ['hypervisor:ready'],
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'hypervisor',
  title: 'Hypervisor',
  sentence: 'Runs instances: libvirt, QEMU and nova-compute.',
  messagingUser: MESSAGING_USER,
  needs: ['compute-control', 'messaging', 'identity', 'placement', 'image', 'network-agent'],
  networks: ['storage'],
  refusal: cloud => firstRefusal(cloud, 'hypervisor', virtualizationRefusal),
  build,
};
