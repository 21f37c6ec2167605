import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { type CloudModel, endpointUrl, nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import { optionalPackages } from '../network-agent/chassis.js';
import { CINDER_FILES, databaseUrl, dropIn, guarded, messagingUrl, openstackValues, unitName } from '../shared.js';
import { cephResources, usesCeph } from './ceph.js';

const MESSAGING_USER = 'cinder-volume';

export const VOLUME_GROUP = 'cinder-volumes';

/** The sentence an operator reads when the site's volumes cannot work on its nodes; null when they can. */
export function volumesRefusal(cloud: CloudModel): string | null {
  const { backend, devices } = cloud.settings.volumes;
  const nodes = nodesWith(cloud, 'volume-backend');
  if (nodes.length === 0) return null;
  if (devices.length === 0)
    return `cloud.volumes.backend is ${backend}, but cloud.volumes.devices names no disk to put volumes on.`;
  if (backend === 'ceph') return null;
  const without = nodes.find(n => !n.facts.modules.deviceMapper);
  if (without)
    return `cloud.volumes.backend is lvm, but the kernel of ${without.name} has no device-mapper (containers have none). Use a machine of its own, or the backend ceph.`;
  const hypervisor = nodesWith(cloud, 'hypervisor').find(n => !n.facts.modules.iscsi);
  if (hypervisor)
    return `cloud.volumes.backend is lvm, but the kernel of ${hypervisor.name} cannot reach volumes over iSCSI (no module iscsi_tcp). Use the backend ceph.`;
  if (devices.some(d => d.fileSize !== null))
    return 'cloud.volumes.backend is lvm, which takes whole disks; plain files (size) work with the backend ceph.';
  return null;
}

function lvmResources(context: ServiceContext): readonly Resource[] {
  const { cloud, node, template } = context;
  const tgt = unitName(context, 'tgt');
  const portal = `${node.storageAddress}:3260`;
  const disks = cloud.settings.volumes.devices.map(d => d.path);
  return [
    file({ path: '/etc/lvm/lvmlocal.conf', content: template('etc/lvm/lvmlocal.conf.hbs', {}) }),
    command({
      name: 'volume-group',
      title: `Make the volume group ${VOLUME_GROUP} of ${disks.join(', ')}`,
      check: disks.map(d => `[ "$(pvs --noheadings -o vg_name ${d} | tr -d ' ')" = ${VOLUME_GROUP} ]`).join(' && '),
      apply: `for d in ${disks.join(' ')}; do
  vg=$(pvs --noheadings -o vg_name "$d" 2>/dev/null | tr -d ' ') || vg=
  [ "$vg" != ${VOLUME_GROUP} ] || continue
  [ -b "$d" ] || { echo "$d is no disk of this node."; exit 1; }
  found=$(wipefs -n -O TYPE --noheadings "$d")
  [ -z "$found" ] || { echo "$d holds $(echo $found): it is not touched. Wipe it by hand (wipefs -a $d) if it may be lost."; exit 1; }
  pvcreate --yes --quiet "$d"
  if vgs ${VOLUME_GROUP} >/dev/null 2>&1; then vgextend --quiet ${VOLUME_GROUP} "$d"; else vgcreate --quiet ${VOLUME_GROUP} "$d"; fi
done`,
      destroys: `Everything on ${disks.join(', ')} of ${node.name}.`,
    }),
    file({
      path: dropIn(tgt),
      content: template('etc/systemd/system/tgt.service.d/halligan.conf.hbs', { portal }),
    }),
    unit({
      unit: tgt,
      watches: [dropIn(tgt)],
      ready: `ss -Hltn 'sport = :3260' | grep -q ${portal}`,
      interrupts: 'Instances wait for their volumes for some seconds.',
    }),
  ];
}

function build(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, secret, template } = context;
  const { backend } = cloud.settings.volumes;
  const ceph = usesCeph(cloud);
  const config = '/etc/cinder/cinder-volume.conf';
  const defaults = '/etc/default/cinder-volume';
  return [
    packages([...release.packages, ...optionalPackages(context, backend, true)], { preseed: release.preseed }),
    ...release.mask.map(masked),
    ...(ceph ? cephResources(context) : lvmResources(context)),
    directory({ path: '/etc/cinder', group: 'cinder', mode: 0o750 }),
    guarded('cinder', CINDER_FILES),
    file({
      path: config,
      content: template('etc/cinder/cinder-volume.conf.hbs', {
        ...openstackValues(context, 'cinder'),
        transport_url: messagingUrl(context, MESSAGING_USER),
        backend,
        ceph,
        lvm: !ceph,
        rbd_secret: ceph ? secret('ceph/libvirt-secret', 'uuid') : '',
        volume_group: VOLUME_GROUP,
        storage_address: node.storageAddress,
        glance_url: endpointUrl(cloud, 'image'),
        database_url: databaseUrl(context, { name: 'cinder', user: 'cinder' }),
        nova_password: secret('identity/nova'),
      }),
      group: 'cinder',
      mode: 0o640,
      grammar: 'ini',
    }),
    file({ path: defaults, content: template('etc/default/cinder-volume.sh.hbs', {}) }),
    unit({
      unit: unitName(context, 'volume'),
      watches: [config, defaults],
      // The schema of its database is made on the controller.
      needs: ['messaging:ready', 'volume-control:ready', ...(ceph ? ['volume-backend:pool'] : [])],
      ready: `ss -Htnp state established 'dport = :5671' | grep -q '"cinder-volume"'`,
      expectedSeconds: 6,
      interrupts: 'Volumes in use go on; creating and attaching wait for some seconds.',
      provides: ['volume-backend:ready'],
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'volume-backend',
  title: 'Volume backend',
  sentence: 'Keeps volumes: Ceph on disks of the volume nodes, or LVM over iSCSI.',
  messagingUser: MESSAGING_USER,
  needs: ['volume-control', 'messaging', 'database', 'identity', 'image'],
  wanted: settings => settings.volumes.backend !== 'none',
  networks: ['storage'],
  firstAlone: settings =>
    settings.volumes.backend === 'ceph' ? 'the only monitor of Ceph, the way to all volumes' : null,
  refusal: volumesRefusal,
  build,
};
