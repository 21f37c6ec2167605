/** Volumes: to a guest and away again with what was written, snapshots, and servers that boot from one. */
import { randomBytes } from 'node:crypto';
import { text } from '../../openstack/json.js';
import { broken, call, made, type TestServer, untilStatus, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl } from '../runner.js';
import { sweep } from '../sweep.js';
import { sweepAway } from './prepare.js';
import { outputOn, pair } from './reachability.js';
import { bootServer, untilReady } from './servers.js';

const VOLUME_HINT =
  'Look at cinder-volume’s log on the volume host (and at cinder-scheduler’s: “No valid backend” means the backend is down or full).';
const ATTACH_HINT =
  'Look at nova-compute’s log on the host, and whether it reaches the volume’s backend (iSCSI portal or Ceph monitors).';

const volumeReason = (object: unknown) => text(object, 'metadata', 'error');

async function makeVolume(
  context: VerifyContext,
  control: StepControl,
  suffix: string,
  source: Readonly<Record<string, string>> = {},
): Promise<string> {
  const user = made(context, 'user');
  const { body } = await call(user, control, 'volume', 'POST', '/volumes', {
    volume: { name: `${context.run}-${suffix}`, size: 1, ...source },
  });
  const id = text(body, 'volume', 'id');
  context.scope.ids.add(id);
  await untilVolume(context, control, id, ['available']);
  return id;
}

const untilVolume = (context: VerifyContext, control: StepControl, id: string, good: readonly string[]) =>
  untilStatus(context, made(context, 'user'), control, {
    service: 'volume',
    path: `/volumes/${id}`,
    key: 'volume',
    title: `volume ${id}`,
    good,
    bad: ['error', 'error_deleting', 'error_extending'],
    reason: volumeReason,
    hint: VOLUME_HINT,
  });

/** Finds the disk by its serial, the first 20 characters of the volume's id; waits for the guest to see it. Prints its name. */
export const findDiskCommand = (volume: string, device: string): string =>
  `n=0; while [ $n -lt 30 ]; do for d in /sys/block/vd* /sys/block/sd*; do [ -e $d/size ] || continue; ` +
  `case "$(cat $d/serial $d/device/serial 2>/dev/null)" in ${volume.slice(0, 20)}*) echo \${d##*/}; exit 0;; esac; done; n=$((n+1)); sleep 1; done; ` +
  // Buses without serials: where Nova says that it put it.
  `[ -b ${device} ] && echo ${device.replace('/dev/', '')} && exit 0; ls /sys/block; exit 1`;

async function attach(
  context: VerifyContext,
  control: StepControl,
  server: TestServer,
  volume: string,
): Promise<string> {
  const user = made(context, 'user');
  control.waitingFor(`volume ${volume} to be attached to ${server.name}`);
  const { body } = await call(user, control, 'compute', 'POST', `/servers/${server.id}/os-volume_attachments`, {
    volumeAttachment: { volumeId: volume },
  });
  await untilVolume(context, control, volume, ['in-use']);
  const said = text(body, 'volumeAttachment', 'device');
  const device = /^\/dev\/[a-z]+$/.test(said) ? said : '/dev/vdb';
  const disk = (
    await outputOn(
      context,
      control,
      server,
      findDiskCommand(volume, device),
      `Looking for the disk of volume ${volume}`,
    )
  ).trim();
  if (!/^[a-z]+$/.test(disk)) broken(`The guest of ${server.name} sees no disk of volume ${volume}.`, ATTACH_HINT);
  return disk;
}

async function detach(context: VerifyContext, control: StepControl, server: TestServer, volume: string): Promise<void> {
  control.waitingFor(`volume ${volume} to be detached from ${server.name}`);
  await call(
    made(context, 'user'),
    control,
    'compute',
    'DELETE',
    `/servers/${server.id}/os-volume_attachments/${volume}`,
  );
  await untilVolume(context, control, volume, ['available']);
}

/** One block at 1 MiB: past any partition table, without a file system. */
const write = (disk: string, marker: string) =>
  `printf %s ${marker} | dd of=/dev/${disk} bs=512 seek=2048 count=1 conv=sync,fsync 2>/dev/null && sync`;
const read = (disk: string) => `dd if=/dev/${disk} bs=512 skip=2048 count=1 2>/dev/null`;

const unpad = (block: string): string => block.replace(/\0/g, '').trim();

export const volume: Step<VerifyContext> = {
  name: 'volume',
  title: 'A volume is made',
  needs: ['identity', 'volume-services'],
  expectedSeconds: 3,
  timeoutSeconds: 120,
  hint: VOLUME_HINT,
  run: async (context, control) => {
    context.made.volume = await makeVolume(context, control, 'volume');
    return passed({ sizeGiB: 1 });
  },
  undo: sweepAway('snapshot', 'volume'),
};

export const volumeAttach: Step<VerifyContext> = {
  name: 'volume-attach',
  title: 'What one guest writes to a volume, another reads',
  needs: ['volume', 'ssh'],
  after: ['firewall-shut'],
  // Pings of the other step would share the guest's one CPU: nothing wrong with that, only slow.
  expectedSeconds: 25,
  timeoutSeconds: 300,
  hint: ATTACH_HINT,
  run: async (context, control) => {
    const [a, b] = pair(context);
    const id = made(context, 'volume');
    const marker = `halligan-${randomBytes(12).toString('hex')}`;
    const disk = await attach(context, control, a, id);
    await outputOn(context, control, a, write(disk, marker), 'Writing to the volume');
    await detach(context, control, a, id);
    const other = await attach(context, control, b, id);
    const got = unpad(await outputOn(context, control, b, read(other), 'Reading from the volume'));
    if (got !== marker) broken(`${a.name} wrote a marker to the volume, ${b.name} read something else.`);
    await detach(context, control, b, id);
    context.made.marker = marker;
    return passed({ written: `${a.name}, /dev/${disk}`, read: `${b.name}, /dev/${other}` });
  },
};

export const volumeSnapshot: Step<VerifyContext> = {
  name: 'volume-snapshot',
  title: 'A snapshot of the volume, and a volume of it with the same content',
  needs: ['volume-attach'],
  expectedSeconds: 20,
  timeoutSeconds: 300,
  hint: VOLUME_HINT,
  run: async (context, control) => {
    const [, b] = pair(context);
    const user = made(context, 'user');
    const { body } = await call(user, control, 'volume', 'POST', '/snapshots', {
      snapshot: { name: `${context.run}-snapshot`, volume_id: made(context, 'volume') },
    });
    const snapshot_id = text(body, 'snapshot', 'id');
    await untilStatus(context, user, control, {
      service: 'volume',
      path: `/snapshots/${snapshot_id}`,
      key: 'snapshot',
      title: 'the snapshot',
      good: ['available'],
    });
    const copy = await makeVolume(context, control, 'copy', { snapshot_id });
    const disk = await attach(context, control, b, copy);
    const got = unpad(await outputOn(context, control, b, read(disk), 'Reading from the copy'));
    if (got !== made(context, 'marker')) broken('The volume made of the snapshot has other content than the snapshot.');
    await detach(context, control, b, copy);
    return passed();
  },
};

export const bootVolume: Step<VerifyContext> = {
  name: 'boot-volume',
  title: 'A volume with the image on it',
  needs: ['image', 'volume-services'],
  expectedSeconds: 15,
  timeoutSeconds: 300,
  hint: 'Look at cinder-volume’s log: it fetches the image from Glance and needs room to convert it (image_conversion_dir).',
  run: async (context, control) => {
    context.made.bootVolume = await makeVolume(context, control, 'boot', { imageRef: made(context, 'image') });
    return passed();
  },
  undo: sweepAway('snapshot', 'volume'),
};

/** Boots one server more, waits for its guest, and takes it away again: memory on small hosts is scarce. */
export async function bootAndDrop(
  context: VerifyContext,
  control: StepControl,
  wanted: { readonly letter: string; readonly image?: string; readonly volume?: string },
): Promise<{ host: string }> {
  const server = await bootServer(context, control, wanted);
  await untilReady(context, control, server);
  control.waitingFor(`server ${server.name} to be deleted`);
  const left = await sweep(context.scope, ['server'], control.signal, found => found.id === server.id);
  if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
  return { host: server.host };
}

export const bootFromVolume: Step<VerifyContext> = {
  name: 'boot-from-volume',
  title: 'A server boots from a volume',
  needs: ['boot-volume', 'servers'],
  // Not while the first guests start: emulated ones take all CPUs.
  after: ['guest-ready'],
  expectedSeconds: 30,
  timeoutSeconds: 400,
  hint: ATTACH_HINT,
  run: async (context, control) => {
    const { host } = await bootAndDrop(context, control, {
      letter: 'from-volume',
      volume: made(context, 'bootVolume'),
    });
    return passed({ host });
  },
  undo: async (context, control) => {
    const left = await sweep(context.scope, ['server'], control.signal, found => found.name.endsWith('-from-volume'));
    if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
  },
};
