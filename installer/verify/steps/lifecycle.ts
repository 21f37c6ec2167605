/** What happens to servers in their life: an image is made of one, they move, they are resized. */
import { asProblem } from '../../../provisioner/core/problem.js';
import type { OpenStackClient } from '../../openstack/client.js';
import { cloudWords } from '../../openstack/errors.js';
import { items, text } from '../../openstack/json.js';
import { broken, call, made, type TestServer, until, untilStatus, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl, type StepOutcome, skipped } from '../runner.js';
import { sweep } from '../sweep.js';
import { makeFlavor } from './prepare.js';
import { outputOn, type PingWatch, pair, watchPings } from './reachability.js';
import { untilReady } from './servers.js';
import { bootAndDrop } from './volumes.js';

export const serverSnapshot: Step<VerifyContext> = {
  name: 'server-image',
  title: 'An image is made of a running server, and boots',
  needs: ['guest-ready'],
  // These work in the same guest, or compete for the same emulated CPUs.
  after: ['firewall-shut', 'east-west', 'console', 'volume-attach', 'boot-from-volume'],
  expectedSeconds: 40,
  timeoutSeconds: 400,
  hint: 'Look at nova-compute’s log on the host: it needs room for the copy of the disk, and uploads it to Glance.',
  run: async (context, control) => {
    const user = made(context, 'user');
    const [a] = pair(context);
    const { body } = await call(
      user,
      control,
      'compute',
      'POST',
      `/servers/${a.id}/action`,
      { createImage: { name: `${context.run}-server-image` } },
      { microversion: '2.45' },
    );
    const image = text(body, 'image_id');
    await untilStatus(context, user, control, {
      service: 'image',
      path: `/images/${image}`,
      key: null,
      title: `the image of ${a.name}`,
      good: ['active'],
      bad: ['killed', 'deleted', 'pending_delete'],
    });
    const { host } = await bootAndDrop(context, control, { letter: 'from-image', image });
    return passed({ host });
  },
  undo: async (context, control) => {
    const left = await sweep(context.scope, ['server', 'image'], control.signal, found =>
      /-(from-image|server-image)$/.test(found.name),
    );
    if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
  },
};

/** What the last action of this kind came to, in Nova's words; for a server that is back where it was. */
async function actionFault(operator: OpenStackClient, control: StepControl, server: string): Promise<string> {
  const { body } = await call(operator, control, 'compute', 'GET', `/servers/${server}/os-instance-actions`);
  const last = items(body, 'instanceActions')[0];
  const id = text(last, 'request_id');
  const reply = await call(
    operator,
    control,
    'compute',
    'GET',
    `/servers/${server}/os-instance-actions/${id}`,
    undefined,
    { accept: [404], microversion: '2.84' },
  );
  const events = items(reply.body, 'instanceAction', 'events');
  const failed = events.find(event => event['result'] === 'Error');
  // The traceback's last line names the exception; ordinary users see neither.
  const trace = text(failed, 'traceback').trim().split('\n').at(-1) ?? '';
  return (text(failed, 'details') || trace || text(last, 'message')).slice(0, 300);
}

async function serverNow(operator: OpenStackClient, control: StepControl, server: TestServer) {
  const { body } = await call(operator, control, 'compute', 'GET', `/servers/${server.id}`);
  const row = (body as { server?: unknown }).server;
  return {
    status: text(row, 'status'),
    host: text(row, 'OS-EXT-SRV-ATTR:host'),
    task: text(row, 'OS-EXT-STS:task_state'),
    fault: text(row, 'fault', 'message'),
  };
}

/** Another compute than the server's own. */
const elsewhere = (context: VerifyContext, server: TestServer): string | undefined =>
  (context.made.computes ?? []).find(host => host !== server.host);

/** Orders a move that ends in VERIFY_RESIZE, confirms it, and waits for the guest. Tells Nova's words when it did not move. */
async function moveAndConfirm(
  context: VerifyContext,
  control: StepControl,
  server: TestServer,
  order: unknown,
  microversion: string,
): Promise<{ refused: string } | { host: string }> {
  const operator = made(context, 'operator');
  try {
    await call(operator, control, 'compute', 'POST', `/servers/${server.id}/action`, order, { microversion });
  } catch (error) {
    if (asProblem(error).code !== 'cloud-api-failed') throw error;
    return { refused: cloudWords(error) };
  }
  const outcome = await until<{ refused: string } | { host: string }>(context, control, async () => {
    const now = await serverNow(operator, control, server);
    if (now.status === 'VERIFY_RESIZE') return { done: { host: now.host } };
    if (now.status === 'ERROR')
      return broken(
        `Server ${server.name} went into state ERROR while it was moved: ${now.fault || 'Nova gives no reason'}.`,
      );
    // Back at rest without having moved: Nova gave up.
    if (now.status === 'ACTIVE' && now.task === '') {
      const fault = await actionFault(operator, control, server.id);
      if (fault) return { done: { refused: fault } };
    }
    return { waitingFor: `server ${server.name} to be moved; it is ${now.status}${now.task ? ` (${now.task})` : ''}` };
  });
  if ('refused' in outcome) return outcome;
  await call(operator, control, 'compute', 'POST', `/servers/${server.id}/action`, { confirmResize: null });
  await until(context, control, async () => {
    const now = await serverNow(operator, control, server);
    if (now.status === 'ACTIVE' && now.task === '') return { done: undefined };
    if (now.status === 'ERROR')
      return broken(`Server ${server.name} went into state ERROR when its move was confirmed: ${now.fault}.`);
    return { waitingFor: `the move of ${server.name} to be confirmed; it is ${now.status}` };
  });
  server.host = outcome.host;
  // The guest was started anew: it made another key.
  delete server.hostKey;
  await untilReady(context, control, server);
  return outcome;
}

export const migrate: Step<VerifyContext> = {
  name: 'migrate',
  title: 'A server is moved to another compute, or resized on the only one, and confirmed',
  needs: ['guest-ready'],
  after: ['firewall-shut', 'east-west', 'volume-snapshot', 'server-image'],
  expectedSeconds: 45,
  timeoutSeconds: 400,
  hint: 'Look at nova-compute’s logs on both hosts: the user nova must reach the other by SSH to copy the disk, and both need the same CPU features.',
  run: async (context, control): Promise<StepOutcome> => {
    const [, b] = pair(context);
    const from = b.host;
    const target = elsewhere(context, b);
    let outcome: Awaited<ReturnType<typeof moveAndConfirm>>;
    if (target !== undefined)
      outcome = await moveAndConfirm(context, control, b, { migrate: { host: target } }, '2.56');
    else {
      const size = context.spec.flavor ?? { memoryMiB: 192, vcpus: 1, diskGiB: 1 };
      const flavorRef = await makeFlavor(context, control, `${context.run}-larger`, {
        ...size,
        memoryMiB: size.memoryMiB + 32,
      });
      outcome = await moveAndConfirm(context, control, b, { resize: { flavorRef } }, '2.37');
      if ('refused' in outcome && /no valid host|allow_resize_to_same_host|same host/i.test(outcome.refused))
        return skipped('There is one compute, and Nova resizes on the same host only with allow_resize_to_same_host.');
    }
    if ('refused' in outcome) return broken(`Nova did not move ${b.name} from ${from}: ${outcome.refused}.`);
    if (target !== undefined && outcome.host !== target)
      return broken(`${b.name} was to move to ${target}; Nova says that it is on ${outcome.host}.`);
    if (b.floating && context.made.external)
      await outputOn(context, control, b, 'echo proof', 'A command after the move');
    return passed(target === undefined ? { resizedOn: from } : { from, to: outcome.host });
  },
};

/** What an answer to a ping may take, before the factor. */
const PING_MS = 1000;
/** A guest that moves is silent for one to three seconds: between its last instruction here and Neutron's rebinding there. */
const SILENCE_SECONDS = 15;

/** Drawn at random by the guest's kernel when it starts, random(4). */
async function bootId(context: VerifyContext, control: StepControl, server: TestServer): Promise<string> {
  const said = await outputOn(
    context,
    control,
    server,
    'cat /proc/sys/kernel/random/boot_id',
    'Reading the id of the boot',
  );
  const id = said.trim();
  if (!/^[0-9a-f-]{36}$/.test(id)) broken(`The guest of ${server.name} does not tell the id of its boot.`);
  return id;
}

export const liveMigrate: Step<VerifyContext> = {
  name: 'live-migrate',
  title: 'A server moves to another compute while it runs',
  needs: ['ssh'],
  after: ['firewall-shut', 'migrate', 'server-image', 'volume-attach', 'console', 'east-west'],
  expectedSeconds: 25,
  timeoutSeconds: 300,
  hint: 'Look at nova-compute’s log on the source: libvirt there must reach libvirt on the target (live_migration_uri), and CPUs must match.',
  run: async (context, control): Promise<StepOutcome> => {
    const [a] = pair(context);
    const target = elsewhere(context, a);
    if (target === undefined) return skipped('There is one compute: nowhere to move to.');
    const operator = made(context, 'operator');
    const from = a.host;
    const factor = control.timeoutFactor;
    control.waitingFor(`SSH to ${a.name} before the move`);
    const before = await bootId(context, control, a);
    const pings = watchPings(context, a.floating!, PING_MS * factor);
    let watch: PingWatch = { sent: 0, lost: 0, silenceMs: 0 };
    try {
      await call(
        operator,
        control,
        'compute',
        'POST',
        `/servers/${a.id}/action`,
        // Without shared storage the disk is copied; Nova finds out by itself.
        { 'os-migrateLive': { host: target, block_migration: 'auto' } },
        { microversion: '2.30' },
      );
      await until(context, control, async () => {
        const now = await serverNow(operator, control, a);
        if (now.status === 'ACTIVE' && now.task === '' && now.host === target) return { done: undefined };
        if (now.status === 'ERROR')
          return broken(`Server ${a.name} went into state ERROR while it moved: ${now.fault}.`);
        if (now.status === 'ACTIVE' && now.task === '') {
          const failed = await failedMigration(operator, control, a.id);
          if (failed) {
            const fault = await actionFault(operator, control, a.id);
            return broken(
              `Nova did not move ${a.name} from ${from} to ${target}: ${fault || `the migration ended as "${failed}"`}.`,
            );
          }
        }
        return {
          waitingFor: `server ${a.name} to move; it is ${now.status} on ${now.host}${now.task ? ` (${now.task})` : ''}`,
        };
      });
      a.host = target;
      control.waitingFor(`SSH to ${a.name} after the move`);
      // A guest that was started anew has another host key too, which would be taken from its console: the boot id tells.
      if ((await bootId(context, control, a)) !== before)
        broken(`The guest of ${a.name} is on ${target}, but it was started anew there: it did not move while it ran.`);
    } finally {
      watch = await pings.stop();
    }
    const silentSeconds = Math.round(watch.silenceMs / 100) / 10;
    const mostSeconds = SILENCE_SECONDS * factor;
    if (silentSeconds > mostSeconds)
      broken(
        `${a.name} did not answer for ${silentSeconds} s while it moved; up to ${mostSeconds} s are no wonder here.`,
        'Is the network between the computes wide enough for the guest’s memory? Until Neutron has bound the port to the target (ovn-controller there) nothing arrives.',
      );
    return passed({ from, to: target, pingsLost: `${watch.lost} of ${watch.sent}`, silentSeconds });
  },
};

/** How the last migration of the server ended, when not well; undefined while it is under way or when none began. */
async function failedMigration(
  operator: OpenStackClient,
  control: StepControl,
  server: string,
): Promise<string | undefined> {
  const { body } = await call(
    operator,
    control,
    'compute',
    'GET',
    `/os-migrations?instance_uuid=${server}`,
    undefined,
    {
      microversion: '2.59',
    },
  );
  const last = items(body, 'migrations').sort((x, y) => (text(x, 'created_at') < text(y, 'created_at') ? 1 : -1))[0];
  const status = text(last, 'status');
  return /^(error|failed|cancelled)$/.test(status) ? status : undefined;
}
