/** Moves one server off its host and waits for the end. It looks before it acts, so that it can be taken up again. */
import { type Clock, sleep } from '../../provisioner/core/clock.js';
import { fail, ProblemError } from '../../provisioner/core/problem.js';
import type { OpenStackClient } from '../openstack/client.js';
import { cloudStatus, cloudWords } from '../openstack/errors.js';
import { at, items, text } from '../openstack/json.js';
import { COMPUTE } from './observe.js';

export interface MoveDeps {
  readonly api: OpenStackClient;
  readonly clock: Clock;
  readonly pollMs: number;
  readonly signal: AbortSignal;
  /** Whether a host is the one that is left. */
  readonly here: (host: string) => boolean;
  /** Whether SSH reaches that host. */
  readonly alive: boolean;
}

interface Now {
  readonly name: string;
  readonly host: string;
  readonly status: string;
  readonly task: string;
  readonly fault: string;
}

const options = (d: MoveDeps) => ({ microversion: COMPUTE, signal: d.signal });

async function look(d: MoveDeps, server: string): Promise<Now | null> {
  const { status, body } = await d.api.request('compute', 'GET', `/servers/${server}`, undefined, {
    ...options(d),
    accept: [404],
  });
  if (status === 404) return null;
  const row = at(body, 'server');
  return {
    name: text(row, 'name'),
    host: text(row, 'OS-EXT-SRV-ATTR:host'),
    status: text(row, 'status'),
    task: text(row, 'OS-EXT-STS:task_state'),
    fault: text(row, 'fault', 'message'),
  };
}

const act = (d: MoveDeps, server: string, order: unknown) =>
  d.api.request('compute', 'POST', `/servers/${server}/action`, order, options(d));

/** Why the last action on the server came to nothing, in Nova's words. */
async function faultOf(d: MoveDeps, server: string): Promise<string> {
  const path = `/servers/${server}/os-instance-actions`;
  const { body } = await d.api.request('compute', 'GET', path, undefined, { ...options(d), accept: [404] });
  const last = items(body, 'instanceActions')[0];
  const id = text(last, 'request_id');
  if (!id) return '';
  const reply = await d.api.request('compute', 'GET', `${path}/${id}`, undefined, { ...options(d), accept: [404] });
  const failed = items(reply.body, 'instanceAction', 'events').find(e => e['result'] === 'Error');
  // The traceback's last line names the exception, unless it was cut.
  const trace = text(failed, 'traceback').trimEnd().split('\n').at(-1) ?? '';
  const said = text(failed, 'details') || (/^\S/.test(trace) ? trace : '') || text(last, 'message');
  return said.replace(/\s+/g, ' ').trim().slice(0, 300);
}

type Ordered = 'live' | 'cold' | 'rebuild' | 'shelve';

const ORDERS: Readonly<Record<Ordered, unknown>> = {
  // Without shared storage the disk is copied; Nova finds out by itself, and chooses the host.
  live: { 'os-migrateLive': { host: null, block_migration: 'auto' } },
  cold: { migrate: null },
  rebuild: { evacuate: {} },
  shelve: { shelve: null },
};
/** Looks at a server that rests on its old host after an order, before the order counts as failed. */
const RESTS = 2;

/**
 * Where the server is now, in words. A stopped server that Nova cannot move (its disk is copied by SSH between hosts) is
 * kept as an image in Glance until somebody unshelves it: its data is safe, and it is not started unasked.
 * @throws ProblemError cloud-step-failed with Nova's reason
 */
export async function moveServer(d: MoveDeps, server: string, how: 'live' | 'cold' | 'rebuild'): Promise<string> {
  let ordered: Ordered | null = null;
  let rests = 0;
  let confirmed = false;
  let coldFault = '';
  const shelve = async (why: string) => {
    coldFault = why;
    ordered = 'shelve';
    rests = 0;
    await act(d, server, ORDERS.shelve);
  };
  for (;;) {
    d.signal.throwIfAborted();
    const now = await look(d, server);
    if (now === null) return 'it is gone';
    const resting = now.task === '';
    if (resting && now.status === 'ERROR' && !(how === 'rebuild' && ordered === null))
      fail(
        'cloud-step-failed',
        `Server ${now.name} (${server}) went into state ERROR while it was moved: ${now.fault || 'Nova gives no reason'}.`,
        { hint: 'Mend or delete the server, then remove the node again.' },
      );
    if (resting && now.status === 'VERIFY_RESIZE') {
      if (!confirmed) await act(d, server, { confirmResize: null });
      confirmed = true;
    } else if (resting && now.status === 'SHELVED') await act(d, server, { shelveOffload: null });
    else if (resting && !d.here(now.host))
      return now.host === ''
        ? `it is shelved, because Nova could not move it${coldFault ? `: ${coldFault}` : ''}`
        : `it is on ${now.host}`;
    else if (resting && ordered === null) {
      ordered = !d.alive
        ? 'rebuild'
        : now.status === 'ACTIVE' || now.status === 'PAUSED'
          ? 'live'
          : now.status === 'SHUTOFF'
            ? 'cold'
            : fail(
                'cloud-step-failed',
                `Server ${now.name} (${server}) is in state ${now.status} now: it cannot be moved.`,
              );
      try {
        await act(d, server, ORDERS[ordered]);
      } catch (error) {
        if (ordered !== 'cold' || cloudStatus(error) !== 409) throw error;
        await shelve(cloudWords(error));
      }
    } else if (resting && ++rests >= RESTS) {
      const fault = await faultOf(d, server);
      if (ordered !== 'cold')
        fail(
          'cloud-step-failed',
          `Nova did not move server ${now.name} (${server}): ${fault || 'it gives no reason'}.`,
          { hint: 'Look at nova-compute’s logs on both hosts, mend the cause, then remove the node again.' },
        );
      await shelve(fault);
    }
    if (!resting) rests = 0;
    await sleep(d.pollMs, d.signal);
  }
}

/** Ends a resize or move that waits for its user, so that nothing of it is left on the old host. */
export async function confirmMove(d: MoveDeps, server: string): Promise<void> {
  let confirmed = false;
  for (;;) {
    d.signal.throwIfAborted();
    const now = await look(d, server);
    if (now === null || (now.task === '' && now.status !== 'VERIFY_RESIZE')) return;
    if (now.task === '' && !confirmed) {
      await act(d, server, { confirmResize: null });
      confirmed = true;
    }
    await sleep(d.pollMs, d.signal);
  }
}

export async function deleteServer(d: MoveDeps, server: string): Promise<void> {
  let ordered = false;
  for (;;) {
    d.signal.throwIfAborted();
    if ((await look(d, server)) === null) return;
    if (!ordered)
      try {
        await d.api.request('compute', 'DELETE', `/servers/${server}`, undefined, { ...options(d), accept: [404] });
        ordered = true;
      } catch (error) {
        if (!(error instanceof ProblemError) || cloudStatus(error) !== 409) throw error;
        fail('cloud-step-failed', `Server ${server} could not be deleted: ${cloudWords(error)}`);
      }
    await sleep(d.pollMs, d.signal);
  }
}
