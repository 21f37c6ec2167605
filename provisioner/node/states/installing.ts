/** installing: RAM environment → image on the disk → reboot → the installed system calls home and answers SSH. */
import { asProblem } from '../../core/problem.js';
import type { NodeJob, StateContext, StateHandler } from '../context.js';
import { diskStep, MAX_ATTEMPTS } from '../disk-step.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam, keepPowered, osTarget, ramAlive, ramTarget } from '../ram.js';
import type { ActionParams } from '../service.js';
import type { Node, RamSession } from '../types.js';

const FIRST_BOOT_TOKEN_SECONDS = 2 * 3600;
const REBOOT_SETTLE_MS = 15_000;
/** The RAM environment does not answer after the disk was written: only after this long is its BMC asked for a restart. */
const REBOOT_PATIENCE_MS = 90_000;

interface Written {
  hostKey: string;
  image: string;
  login: string;
  address: string;
}

export const installing: StateHandler = async (node, context, signal) => {
  const run = node.status.runId === null ? undefined : await context.journal.get(node.status.runId);
  if (!run) throw new Error(`${node.name} is installing without a run`);
  if (node.status.diskReady) return firstBoot(node, context, signal);

  // A server that died between the end of the writing and its record finds the end in the journal: never write twice.
  let written = (await context.journal.steps(run.id))
    .filter(s => s.step === 'write' && s.state === 'after')
    .map(s => s.output)
    .find(isWritten);
  if (!written) {
    const answer = await ensureRam(node, context, signal);
    if ('waitingFor' in answer) return stay(answer.waitingFor);
    const outcome = await write(node, answer.ram, run.id, run.input as ActionParams, context, signal);
    if (outcome === 'lost') return stay('the RAM environment again: the node was restarted while its disk was written');
    written = outcome;
    await context.events.emit({
      type: 'install.written',
      nodeId: node.id,
      message: `${node.name}: its disk is written.`,
    });
  }
  const { hostKey, login, image, address } = written;
  const ready = await context.nodes.update(node.id, () => ({
    status: {
      diskReady: true,
      netboot: null,
      os: { address, hostKey, login, image, installedMs: context.clock.nowMs(), firstBootMs: null },
    },
  }));
  return firstBoot(ready, context, signal);
};

const isWritten = (output: unknown): output is Written =>
  typeof output === 'object' && output !== null && 'hostKey' in output;

/** Stages of the installer in which a disk may still carry what the inventory saw on it. */
const BEFORE_CLAIM = new Set(['prepare', 'claim']);

/**
 * The inventory of this life of the RAM environment saw the disk before it became ours. Without this, an installation that
 * fails later could neither be repeated without `--wipe` nor released with its disk erased.
 */
function recordClaim(node: Node, { claims }: NodeJob, context: StateContext): void {
  if (!claims) return;
  context.nodes
    .update(node.id, n => {
      const { inventory } = n.status;
      const stale = inventory?.disks.some(d => claims.disks.includes(d.path) && d.ownedBy?.nodeId !== claims.owner);
      if (!inventory || !stale) return null;
      const disks = inventory.disks.map(d =>
        claims.disks.includes(d.path) ? { ...d, signatures: [], ownedBy: { nodeId: claims.owner } } : d,
      );
      return { status: { inventory: { ...inventory, disks } } };
    })
    .catch(error =>
      context.log.warn({ node: node.name, error: String(error) }, 'the claim of its disks was not recorded'),
    );
}

/** One attempt to write the disk. 'lost': the node was restarted, try again. */
async function write(
  node: Node,
  ram: RamSession,
  runId: string,
  params: ActionParams,
  context: StateContext,
  signal: AbortSignal,
): Promise<Written | 'lost'> {
  let hostKey = '';
  const end = await diskStep<Written>(
    node,
    ram,
    {
      name: 'write',
      runId,
      does: 'write its disk',
      done: 'its disk was written',
      who: 'the installer',
      input: { params },
      async job(unit) {
        const token = await context.tokens.issue(node.id, 'first-boot', runId, FIRST_BOOT_TOKEN_SECONDS, unit);
        const job = await context.jobs.install(node, params, token, context.bootUrl(ram.address));
        await context.events.emit({
          type: 'install.start',
          nodeId: node.id,
          message: `${node.name}: ${job.summary}`,
          data: { unit },
        });
        return job;
      },
      onLine(line, job) {
        if (line.kind === 'result') hostKey = line.hostKey;
        if (line.kind !== 'stage') return;
        if (!BEFORE_CLAIM.has(line.name)) recordClaim(node, job, context);
        context.events
          .emit({
            type: 'install.stage',
            nodeId: node.id,
            message: `${node.name}: ${line.text}`,
            data: { stage: line.name },
          })
          .catch(() => {});
      },
      result: job => (hostKey === '' ? null : { hostKey, image: job.image, login: job.login, address: ram.address }),
    },
    context,
    signal,
  );
  if (!('lost' in end)) return end;
  await context.events.emit({
    type: 'install.lost',
    severity: 'warn',
    nodeId: node.id,
    message: `${node.name}: ${end.lost}; attempt ${end.attempt} of ${MAX_ATTEMPTS} is void.`,
  });
  return 'lost';
}

async function reboot(node: Node, ram: RamSession, context: StateContext, signal: AbortSignal): Promise<void> {
  try {
    await context.executor.run(
      ramTarget(ram),
      'sync; systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot -ff',
      {
        timeoutMs: 20_000,
        signal,
      },
    );
  } catch (error) {
    context.log.warn({ node: node.name, problem: asProblem(error) }, 'reboot by SSH failed, using the BMC');
    if (await context.power.automatic(node.id)) await context.power.set(node.id, 'cycle');
  }
  await context.nodes.update(node.id, () => ({
    status: { ram: null, power: { state: 'on', seenMs: context.clock.nowMs() + REBOOT_SETTLE_MS } },
  }));
}

/** The disk is written: restart the node, once, and wait for the system on its disk. */
async function firstBoot(node: Node, context: StateContext, signal: AbortSignal) {
  const { os, milestone, ram } = node.status;
  if (!os) throw new Error(`${node.name} has a written disk but no record of its system`);
  if (os.firstBootMs === null) {
    if (ram) {
      // After a restart of the server the order may have been given already: the node is on its way then, and a BMC's
      // power cycle in the middle of its first boot is the last thing that it needs.
      const asked = context.clock.nowMs() - os.installedMs < REBOOT_PATIENCE_MS;
      if (asked && !(await ramAlive(node, context, ram, signal))) return stay('its restart from its own disk');
      await reboot(node, ram, context, signal);
      return stay('its restart from its own disk');
    }
    const power = await keepPowered(node, context);
    if (power === 'started') return stay('its start from its own disk; it was found switched off');
    return stay(`the installed system to call home${milestone ? ` (last seen: ${milestone.name})` : ''}`);
  }
  try {
    const result = await context.executor.run(osTarget(os), 'hostname', { timeoutMs: 20_000, signal });
    await context.journal.end(node.status.runId!, 'done', { hostname: result.stdout.trim() });
    return go('install-done', `${os.image} answers SSH at ${os.address} as ${result.stdout.trim()}.`);
  } catch (error) {
    const p = asProblem(error, 'ssh-failed');
    if (p.code === 'host-key-mismatch') throw error;
    return stay(`SSH of the installed system: ${p.message}`);
  }
}
