/** A Ceph cluster out of the volume nodes' disks, as resources. Keys are made by us: nothing is fetched from one node to another. */
import type { ServiceContext } from '../../installer/model/catalogue.js';
import { type CloudModel, nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, type Resource, unit } from '../../installer/model/resources.js';
import { between, dropIn, unitName } from '../shared.js';

const MON_PORT = 3300;
const MIB = 1024 * 1024;
const MOST_COPIES = 3;
const CONF = '/etc/ceph/ceph.conf';
const POOL = 'volumes';
/** Placement groups of the pool to begin with; the autoscaler of the manager takes it from there. */
const POOL_PGS = 8;

export const usesCeph = (cloud: CloudModel): boolean =>
  cloud.settings.volumes.backend === 'ceph' && nodesWith(cloud, 'volume-backend').length > 0;

/** The node that had the role first has the only monitor and the only manager; while it is down, volumes cannot be opened. */
const monitorNode = (cloud: CloudModel) => nodesWith(cloud, 'volume-backend')[0]!;

export const cephMonitors = (cloud: CloudModel): string => `[v2:${monitorNode(cloud).storageAddress}:${MON_PORT}]`;

/** Copies are on different nodes where there are several, else on different disks, else there is one. */
export function copies(cloud: CloudModel): {
  readonly size: number;
  readonly minSize: number;
  readonly across: 'host' | 'osd';
} {
  const nodes = nodesWith(cloud, 'volume-backend').length;
  const across = nodes > 1 ? 'host' : 'osd';
  const size = Math.min(MOST_COPIES, nodes > 1 ? nodes : cloud.settings.volumes.devices.length);
  return { size, minSize: Math.max(1, size - 1), across };
}

const keyringText = (context: ServiceContext, entity: string, key: string): string =>
  context.template('etc/ceph/keyring.conf.hbs', { entity, key });

/** Accounts and what they may do; they come into being with the monitor. */
function accounts({
  cloud,
  secret,
}: ServiceContext): readonly { name: string; key: string; caps: readonly string[] }[] {
  const mon = monitorNode(cloud).name;
  return [
    { name: 'mon.', key: secret('ceph/mon', 'ceph'), caps: ["mon 'allow *'"] },
    {
      name: 'client.admin',
      key: secret('ceph/client.admin', 'ceph'),
      caps: ["mon 'allow *'", "osd 'allow *'", "mds 'allow *'", "mgr 'allow *'"],
    },
    {
      name: 'client.bootstrap-osd',
      key: secret('ceph/client.bootstrap-osd', 'ceph'),
      caps: ["mon 'profile bootstrap-osd'", "mgr 'allow r'"],
    },
    {
      name: `mgr.${mon}`,
      key: secret(`ceph/mgr.${mon}`, 'ceph'),
      caps: ["mon 'allow profile mgr'", "osd 'allow *'", "mds 'allow *'"],
    },
    {
      name: 'client.cinder',
      key: secret('ceph/client.cinder', 'ceph'),
      caps: ["mon 'profile rbd'", `osd 'profile rbd pool=${POOL}'`, `mgr 'profile rbd pool=${POOL}'`],
    },
  ];
}

function monitor(context: ServiceContext): readonly Resource[] {
  const { cloud, node, secret } = context;
  if (monitorNode(cloud).name !== node.name) return [];
  const monDir = `/var/lib/ceph/mon/ceph-${node.name}`;
  const mgrDir = `/var/lib/ceph/mgr/ceph-${node.name}`;
  const all = accounts(context);
  const instance = (key: string) => unitName(context, key).replace('@.', `@${node.name}.`);
  return [
    file({
      path: '/etc/ceph/ceph.client.admin.keyring',
      content: keyringText(context, 'client.admin', secret('ceph/client.admin', 'ceph')),
      mode: 0o600,
    }),
    directory({ path: monDir, owner: 'ceph', group: 'ceph', mode: 0o750 }),
    command({
      name: 'monitor',
      title: `Make Ceph's monitor on ${node.name}, with all accounts`,
      check: `[ -e ${monDir}/kv_backend ] && [ -d ${monDir}/store.db ]`,
      env: Object.fromEntries(all.map((a, i) => [`KEY_${i}`, a.key])),
      apply: `d=$(mktemp -d /var/lib/ceph/tmp.XXXXXX); trap 'rm -rf "$d"' EXIT
{
${all.map((a, i) => `printf '[%s]\\n\\tkey = %s\\n' '${a.name}' "$KEY_${i}"\n${a.caps.map(c => `printf '\\tcaps %s = "%s"\\n' ${c}`).join('\n')}`).join('\n')}
} >"$d/keyring"
monmaptool --create --fsid ${secret('ceph/fsid', 'uuid')} --addv ${node.name} '${cephMonitors(cloud)}' "$d/monmap" >/dev/null
chown -R ceph:ceph "$d"
rm -rf ${monDir}/store.db
runuser -u ceph -- ceph-mon --mkfs -i ${node.name} --monmap "$d/monmap" --keyring "$d/keyring"`,
      timeoutSeconds: 60,
    }),
    // Instances are started at boot by their targets.
    unit({ unit: unitName(context, 'mon_target') }),
    unit({ unit: unitName(context, 'mgr_target') }),
    unit({
      unit: instance('mon'),
      watches: [CONF],
      ready: 'timeout 5 rados lspools',
      expectedSeconds: 3,
      interrupts: 'Volumes cannot be opened for some seconds; open ones go on.',
      provides: ['volume-backend:monitor'],
    }),
    directory({ path: mgrDir, owner: 'ceph', group: 'ceph', mode: 0o750 }),
    file({
      path: `${mgrDir}/keyring`,
      content: keyringText(context, `mgr.${node.name}`, secret(`ceph/mgr.${node.name}`, 'ceph')),
      owner: 'ceph',
      group: 'ceph',
      mode: 0o600,
    }),
    unit({ unit: instance('mgr'), watches: [CONF, `${mgrDir}/keyring`] }),
  ];
}

/** A name for ids, of a path. */
const slug = (path: string) => path.replace(/^\/+/, '').replace(/[^A-Za-z0-9]+/g, '-');

function disk(context: ServiceContext, device: { readonly path: string; readonly fileSize: string | null }): Resource {
  const { node, secret } = context;
  const name = `ceph/osd/${node.name}${device.path}`;
  const uuid = secret(name, 'uuid');
  const bootstrap = '-n client.bootstrap-osd -k /var/lib/ceph/bootstrap-osd/ceph.keyring';
  const prepare =
    device.fileSize === null
      ? `dev=$(readlink -f ${device.path})
[ -b "$dev" ] || { echo '${device.path} is no disk of this node.'; exit 1; }
found=$(wipefs -n -O TYPE --noheadings "$dev")
case $found in ''|ceph_bluestore) ;; *) echo "$dev holds $(echo $found): it is not touched. Wipe it by hand (wipefs -a $dev) if it may be lost."; exit 1;; esac
for l in /dev/disk/by-id/*; do [ "$(readlink -f "$l")" != "$dev" ] || { dev=$l; break; }; done
chown ceph:ceph "$(readlink -f "$dev")"`
      : `dev=${device.path}
mkdir -p "$(dirname "$dev")"
[ -e "$dev" ] || { truncate -s ${device.fileSize} "$dev.new"; chown ceph:ceph "$dev.new"; chmod 600 "$dev.new"; mv "$dev.new" "$dev"; }`;
  return command({
    name: `osd-${slug(device.path)}`,
    title: `Give ${device.path} of ${node.name} to Ceph`,
    needs: ['volume-backend:monitor'],
    env: { OSD_KEY: secret(`${name}/key`, 'ceph') },
    check: `for d in /var/lib/ceph/osd/ceph-*; do
  if [ "$(cat "$d/fsid" 2>/dev/null)" = ${uuid} ] && [ -e "$d/ready" ]; then exec systemctl is-active --quiet "ceph-osd@$(cat "$d/whoami")"; fi
done
exit 1`,
    apply: `${prepare}
id=$(printf '{"cephx_secret": "%s"}' "$OSD_KEY" | ceph --connect-timeout 30 ${bootstrap} osd new ${uuid} -i -)
d=/var/lib/ceph/osd/ceph-$id
if [ ! -e "$d/ready" ]; then
  rm -rf "$d"; mkdir -p "$d"
  ln -s "$dev" "$d/block"
  (umask 077; printf '[osd.%s]\\n\\tkey = %s\\n' "$id" "$OSD_KEY" >"$d/keyring")
  chown -Rh ceph:ceph "$d"
  runuser -u ceph -- ceph-osd -i "$id" --mkfs --osd-uuid ${uuid} --osd-data "$d"
fi
systemctl daemon-reload
systemctl reset-failed "ceph-osd@$id" 2>/dev/null || :
systemctl enable --quiet --now "ceph-osd@$id"`,
    timeoutSeconds: 300,
    expectedSeconds: 8,
    destroys: device.fileSize === null ? `Everything on ${device.path} of ${node.name}.` : null,
  });
}

/**
 * The pool is as it was made until somebody says otherwise: with a second node there would still be one copy. Copies are only
 * ever added; where there are fewer disks than before, that is for people to decide.
 */
function poolCopies(cloud: CloudModel): Resource {
  const { size, minSize, across } = copies(cloud);
  const rule = `halligan-across-${across}`;
  const seen = `timeout 10 ceph osd pool ls detail -f json | python3 -c 'import json, sys
print(*[[p["size"], p["min_size"]] for p in json.load(sys.stdin) if p["pool_name"] == "${POOL}"][0])'`;
  return command({
    name: 'pool-copies',
    title: `Keep ${size === 1 ? 'one copy' : `${size} copies on different ${across === 'host' ? 'nodes' : 'disks'}`} in the pool ${POOL}`,
    check: `set -- $(${seen}) && [ "$1" -gt ${size} ] || [ "$1 $2" = '${size} ${minSize}' ]`,
    stamp: `${size} ${minSize} ${across}`,
    apply: `ceph --connect-timeout 30 osd crush rule create-replicated ${rule} default ${across}
ceph osd pool set ${POOL} crush_rule ${rule}
set -- $(${seen})
if [ "$1" -lt ${size} ]; then ceph osd pool set ${POOL} size ${size}; fi
if [ "$1" -le ${size} ]; then ceph osd pool set ${POOL} min_size ${minSize}; fi`,
    timeoutSeconds: 120,
    expectedSeconds: 5,
    interrupts: 'When copies are added, disks are busy with making them.',
    provides: ['volume-backend:pool'],
  });
}

export function cephResources(context: ServiceContext): readonly Resource[] {
  const { cloud, node, secret, template } = context;
  const { size, minSize, across } = copies(cloud);
  const devices = cloud.settings.volumes.devices;
  const mon = monitorNode(cloud);
  const osdDropIn = dropIn('ceph-osd@.service');
  const perOsd = (node.facts.memoryMiB * MIB) / 2 / Math.max(1, devices.length);
  return [
    file({
      path: CONF,
      content: template('etc/ceph/ceph.conf.hbs', {
        fsid: secret('ceph/fsid', 'uuid'),
        monitor: mon.name,
        monitors: cephMonitors(cloud),
        address: node.storageAddress,
        size,
        min_size: minSize,
        chooseleaf: across === 'host' ? 1 : 0,
        single: size === 1,
        // Less than 896 MiB bluestore refuses.
        osd_memory: between(896 * MIB, perOsd, 4096 * MIB),
      }),
      grammar: 'ini',
    }),
    file({
      path: '/etc/ceph/ceph.client.cinder.keyring',
      content: keyringText(context, 'client.cinder', secret('ceph/client.cinder', 'ceph')),
      group: 'cinder',
      mode: 0o640,
    }),
    directory({ path: '/var/lib/ceph/bootstrap-osd', owner: 'ceph', group: 'ceph', mode: 0o750 }),
    file({
      path: '/var/lib/ceph/bootstrap-osd/ceph.keyring',
      content: keyringText(context, 'client.bootstrap-osd', secret('ceph/client.bootstrap-osd', 'ceph')),
      owner: 'ceph',
      group: 'ceph',
      mode: 0o600,
    }),
    ...monitor(context),
    file({ path: osdDropIn, content: template('etc/systemd/system/ceph-osd@.service.d/halligan.conf.hbs', {}) }),
    ...devices.map(d => disk(context, d)),
    unit({ unit: unitName(context, 'osds'), provides: ['volume-backend:disks'] }),
    ...(mon.name === node.name
      ? [
          command({
            name: 'pool',
            title: `Make the pool ${POOL}: ${size === 1 ? 'one copy, lost with its disk' : `${size} copies on different ${across === 'host' ? 'nodes' : 'disks'}`}`,
            needs: ['volume-backend:disks'],
            check: `timeout 10 rados lspools | grep -qx ${POOL} && [ "$(timeout 10 rbd -p ${POOL} ls -l --format json | head -c 1)" = '[' ]`,
            stamp: 'initialised',
            apply: `timeout 10 rados lspools | grep -qx ${POOL} || ceph --connect-timeout 30 osd pool create ${POOL} ${POOL_PGS}
timeout 90 rbd pool init ${POOL}`,
            timeoutSeconds: 150,
            expectedSeconds: 5,
          }),
          poolCopies(cloud),
        ]
      : []),
  ];
}
