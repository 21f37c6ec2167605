/** The operators' side of the nodes: records intents, refuses what is not possible with a sentence, answers why. */
import type { Clock } from '../core/clock.js';
import type { EventFeed } from '../core/events.js';
import type { Journal } from '../core/journal.js';
import { fail, problem } from '../core/problem.js';
import type { BootTrace } from '../core/trace.js';
import type { Inventory } from '../inventory/types.js';
import type { Power } from '../power/types.js';
import { type ClaimChange, claimChange, matchProfiles, ownSpec } from '../profile/match.js';
import type { Site } from '../site/schema.js';
import { networkOf } from './addresses.js';
import type { JobMaker } from './context.js';
import { addressOf } from './directory.js';
import { isFailure, type NodeAction, TRANSITIONS, transition } from './lifecycle.js';
import type { StateLoop } from './loop.js';
import type { NodeChange, NodeRepository } from './repository.js';
import { nextStep, toView } from './sentence.js';
import type { ActionParams, NodeService } from './service.js';
import type { Node, NodeSpec } from './types.js';

export interface NodeServiceDeps {
  readonly site: Site;
  /** Line of the site file for a path like nodes[3].roles, for refusals. */
  readonly siteLine: (path: string) => string;
  readonly nodes: NodeRepository;
  readonly journal: Journal;
  readonly events: EventFeed;
  readonly trace: BootTrace;
  readonly power: Power;
  readonly loop: StateLoop;
  readonly clock: Clock;
  /** Plans the install without doing it, so that what cannot work is refused at once. */
  readonly jobs: JobMaker;
  /** Ends what runs on the node for us, as far as it can be reached; what is left is ended before the next job. */
  readonly stopJobs: (node: Node) => Promise<void>;
  readonly adopt: (request: Parameters<NodeService['adopt']>[0]) => Promise<{
    name: string;
    os: { address: string; port?: number; hostKey: string; login: string; image: string };
    inventory: Inventory;
  }>;
}

/** Actions that start a run of the journal. */
const WITH_RUN = new Set<NodeAction>(['inspect', 'install', 'release', 'rescue']);

export function createNodeService(deps: NodeServiceDeps): NodeService {
  const { site, nodes, journal, events, trace, power, loop, clock } = deps;
  const view = (node: Node) => toView(node, clock.nowMs());

  const refuseSiteOwned = (node: Node, fields: readonly string[]) => {
    if (node.source !== 'site') return;
    const index = site.nodes.findIndex(n => n.name === node.name);
    const entry = site.nodes[index];
    if (!entry) return;
    for (const field of fields) {
      const owned = field === 'name' || (entry as Record<string, unknown>)[field] !== undefined;
      const empty =
        Array.isArray((entry as Record<string, unknown>)[field]) &&
        ((entry as Record<string, unknown>)[field] as unknown[]).length === 0;
      if (owned && !empty)
        fail(
          'site-owns',
          `${node.name}: ${field} is set in ${deps.siteLine(`nodes[${index}].${field}`)}; change it there.`,
        );
    }
  };

  const siteRoles = (node: Node): boolean =>
    node.source === 'site' && (site.nodes.find(n => n.name === node.name)?.roles.length ?? 0) > 0;

  const checkAddress = (address: string | null | undefined, id?: string) => {
    if (!address) return;
    const network = networkOf(site.networks, address);
    if (!network)
      fail(
        'request-invalid',
        `address: ${address} is in no network of the site (${site.networks.map(n => n.cidr).join(', ')}).`,
      );
    const other = nodes.all().find(n => n.id !== id && addressOf(n) === address);
    if (other) fail('name-taken', `address: ${address} belongs to the node ${other.name}.`);
  };

  const legal = (node: Node, action: NodeAction) => {
    const result = transition(node.state, action, node.status.rescueFrom ?? undefined);
    if (!result.ok) fail('not-allowed-now', `${node.name}: ${result.sentence}`);
    if (node.maintenance !== null && action !== 'abort' && action !== 'rescue')
      fail('not-allowed-now', `${node.name} is in maintenance (${node.maintenance}); end it first.`);
  };

  return {
    list: async () => nodes.all().map(view),
    get: async selector => view(nodes.find(selector)),
    async add(addition) {
      checkAddress(addition.address);
      const spec: Partial<NodeSpec> = {
        address: addition.address ?? null,
        bmc: addition.bmc ?? null,
        roles: addition.roles ?? [],
        install: addition.install ?? {},
      };
      return view(
        await nodes.create({
          name: addition.name,
          source: 'api',
          uuid: addition.uuid ?? null,
          serial: addition.serial ?? null,
          macs: addition.macs,
          spec,
          reason: 'Added by an operator.',
        }),
      );
    },
    async remove(selector) {
      const node = nodes.find(selector);
      if (node.source === 'site') fail('site-owns', `${node.name} is named in the site file; take it out there.`);
      await loop.stop(node.id, () => nodes.remove(node.id));
    },
    async update(selector, change) {
      const node = nodes.find(selector);
      const { maintenance, name, ...spec } = change;
      refuseSiteOwned(
        node,
        Object.keys(change).filter(k => k !== 'maintenance'),
      );
      checkAddress(change.address, node.id);
      const what: NodeChange = {
        ...(name === undefined ? {} : { name }),
        ...(maintenance === undefined ? {} : { maintenance }),
        spec: Object.fromEntries(Object.entries(spec).filter(([, v]) => v !== undefined)) as Partial<NodeSpec>,
      };
      const updated = await nodes.update(node.id, () => what);
      if (maintenance) await loop.stop(node.id, async () => {});
      await events.emit({
        type: 'node.changed',
        nodeId: node.id,
        message: `${updated.name}: an operator changed ${Object.keys(change).join(', ')}.`,
      });
      return view(updated);
    },
    async act(selector, action, params) {
      const node = nodes.find(selector);
      legal(node, action);
      if (action === 'abort') {
        const aborted = await loop.stop(node.id, () =>
          nodes.failWorking(
            node.id,
            problem(
              'aborted',
              `${node.name}: an operator aborted it while it waited for ${node.waitingFor ?? 'nothing named'}.`,
            ),
          ),
        );
        await deps.stopJobs(aborted);
        if (node.status.runId !== null) await journal.end(node.status.runId, 'aborted', null).catch(() => {});
        return view(aborted);
      }
      if (action === 'claim' && params.name !== undefined) refuseSiteOwned(node, ['name']);
      if (action === 'install') await checkInstall(node, params);
      const status: Partial<Node['status']> = { netboot: null, attempt: 0 };
      if (TRANSITIONS[action].to !== 'claimed') status.milestone = null;
      if (WITH_RUN.has(action)) status.runId = (await journal.begin(action, node.id, params)).id;
      if (action === 'inspect') status.ram = null;
      if (action === 'install') status.diskReady = false;
      if (action === 'rescue' && node.state !== 'rescuing-failed')
        status.rescueFrom = isFailure(node.state) ? 'claimed' : node.state;
      const given: NodeChange = { status };
      if (params.name !== undefined && action === 'claim') given.name = params.name;
      let because = '';
      const change = (now: Node): NodeChange => {
        const profiled = action === 'claim' && params.profile !== false ? byProfile(now) : null;
        because = profiled?.sentence ?? '';
        const spec =
          action === 'unclaim'
            ? ownSpec(now)
            : // Whoever gives a node up does not want the next plan to install it again; the site file keeps what it says.
              action === 'release' && !siteRoles(now)
              ? { roles: [] }
              : profiled?.change.spec;
        return {
          ...profiled?.change,
          ...given,
          ...(spec ? { spec } : {}),
          status: { ...status, ...profiled?.change.status },
        };
      };
      const moved = await nodes
        .transition(node.id, action, () => `Ordered by an operator${describe(params)}.${because}`, change)
        .catch(async error => {
          // Somebody else was faster: the run that was begun for it has no work.
          if (WITH_RUN.has(action) && status.runId) await journal.end(status.runId, 'aborted', null);
          throw error;
        });
      if (action === 'end-rescue') await leaveRescue(moved);
      loop.poke(node.id);
      return view(moved);
    },
    async power(selector, action) {
      const node = nodes.find(selector);
      const state = action === 'status' ? await power.status(node.id) : await power.set(node.id, action);
      await nodes.update(node.id, () => ({ status: { power: { state, seenMs: clock.nowMs() } } }));
      if (action !== 'status')
        await events.emit({
          type: `power.${action}`,
          nodeId: node.id,
          message: `${node.name}: power ${action}, ordered by an operator.`,
        });
      return state;
    },
    async why(selector) {
      const node = nodes.find(selector);
      const run = node.status.runId === null ? undefined : await journal.get(node.status.runId);
      const traces = await Promise.all(node.macs.map(mac => trace.read(mac, 40)));
      const newest = await events.latestId();
      return {
        node: view(node),
        next: nextStep(node),
        history: await nodes.history(node.id, 50),
        trace: traces
          .flat()
          .sort((a, b) => a.atMs - b.atMs)
          .slice(-40),
        run: run ? { ...run, steps: await journal.steps(run.id) } : null,
        events: (await events.after(Math.max(0, newest - 20_000), 20_000, { nodeId: node.id })).slice(-40),
      };
    },
    async adopt(request) {
      const taken = await deps.adopt(request);
      const macs = taken.inventory.nics.map(n => n.mac);
      const known = macs.map(m => nodes.byMac(m)).find(n => n !== undefined);
      if (known) fail('name-taken', `${request.address} is the node ${known.name} already.`);
      const node = await nodes.create({
        name: taken.name,
        source: 'adopt',
        uuid: taken.inventory.system.uuid,
        serial: taken.inventory.system.serial,
        macs,
        reason: `Adopted at ${taken.os.address}.`,
        status: {
          inventory: taken.inventory,
          inventoryMs: clock.nowMs(),
          lastSeenMs: clock.nowMs(),
          diskReady: true,
          os: { ...taken.os, installedMs: clock.nowMs(), firstBootMs: clock.nowMs() },
        },
      });
      return view(
        await nodes.transition(
          node.id,
          'adopted',
          `Taken over as it is; nothing on it was changed but our public key.`,
        ),
      );
    },
    trace: (mac, limit) => trace.read(mac, limit),
  };

  /** What follows from the node's profile when a person claims it; nothing when none or several fit. */
  function byProfile(node: Node): { change: ClaimChange; sentence: string } | null {
    if (site.profiles.length === 0) return null;
    const match = matchProfiles(site, nodes.all()).find(m => m.nodeId === node.id);
    const change = match && claimChange(node, match);
    return change ? { change, sentence: ` ${match.sentence}` } : null;
  }

  async function checkInstall(node: Node, params: ActionParams): Promise<void> {
    if (!node.status.inventory) return;
    await deps.jobs.install(node, params, 'dry-run', 'http://dry.run');
  }

  /** Back from rescue: an installed node starts its disk again. */
  async function leaveRescue(node: Node): Promise<void> {
    await nodes.update(node.id, () => ({
      status: { rescueFrom: null, ...(node.status.diskReady ? { ram: null } : {}) },
    }));
    if (node.status.diskReady && (await power.automatic(node.id))) await power.set(node.id, 'cycle');
  }
}

const describe = (params: ActionParams): string => {
  const parts = [
    params.image && `image ${params.image}`,
    params.layout && `layout ${params.layout}`,
    params.wipe && 'data on its disks may go',
    params.erase && `${params.erase} erase`,
    params.name && `name ${params.name}`,
  ].filter(Boolean);
  return parts.length > 0 ? ` (${parts.join(', ')})` : '';
};
