/** The node half's side of the boot plane: who is asking, what it boots, and what it says when it calls home. */
import type { BootDecision, BootIdentity, BootOracle } from '../boot/types.js';
import type { Clock } from '../core/clock.js';
import type { EventFeed } from '../core/events.js';
import { asProblem, fail } from '../core/problem.js';
import type { BootTrace } from '../core/trace.js';
import type { Inventory } from '../inventory/types.js';
import type { Site } from '../site/schema.js';
import { chooseAddress, networkOf } from './addresses.js';
import { chooseBoot } from './boot-choice.js';
import { addressOf } from './directory.js';
import { identify, usableSerial, usableUuid } from './identity.js';
import type { NodeRepository } from './repository.js';
import { TokenReplayed, type Tokens } from './tokens.js';
import type { Node } from './types.js';

/** Firmware, RAM environment and call home together must fit in; an operator may look at the machine meanwhile. */
const RAM_TOKEN_SECONDS = 30 * 60;
/** Machines that asked what to boot and never called home. */
const UNKNOWN_MAX = 2000;

/** What the boot scripts report, for people. */
const MILESTONES: Readonly<Record<string, string>> = {
  kernel: 'its boot script fetches kernel and RAM environment',
  boot: 'the kernel of the RAM environment starts',
  local: 'its firmware goes on to its own disk',
};

export interface OracleDeps {
  readonly site: Site;
  readonly nodes: NodeRepository;
  readonly tokens: Tokens;
  readonly events: EventFeed;
  readonly trace: BootTrace;
  readonly clock: Clock;
  /** Throws ProblemError inventory-refused. */
  readonly normaliseInventory: (raw: unknown) => Inventory;
  /** Name of the RAM environment's image that is there now. */
  readonly ramImage: () => Promise<string>;
  /** Addresses of this server, which no node may get. */
  readonly ownAddresses: () => readonly string[];
  /** The MAC that we leased this address to, undefined when we did not. */
  readonly macAt: (address: string) => string | undefined;
  /** Ends what the state loop does with this node right now. */
  readonly halt: (nodeId: string) => Promise<void>;
  /** Wakes the state loop for this node. */
  readonly poke: (nodeId: string) => void;
}

export function createOracle(deps: OracleDeps): BootOracle {
  const { site, nodes, tokens, events, trace, clock } = deps;

  const nameFor = (identity: BootIdentity): string => {
    const wanted = `node-${identity.mac.replaceAll(':', '').toLowerCase()}`;
    return nodes.all().some(n => n.name === wanted) ? `${wanted}-${clock.nowMs().toString(36)}` : wanted;
  };

  /** Finds or makes the node; null with the reason when it gets nothing. */
  const nodeOf = async (identity: BootIdentity): Promise<{ node: Node } | { none: string }> => {
    const found = identify(identity, nodes.all());
    if (found.kind === 'conflict') {
      await events.emit({ type: 'node.conflict', severity: 'warn', nodeId: found.node.id, message: found.reason });
      return { none: found.reason };
    }
    if (found.kind === 'new') {
      if (site.discovery.unknown === 'ignore') return { none: 'the site ignores unknown machines' };
      // Anybody on the segment can make up MACs.
      if (nodes.all().filter(n => n.state === 'discovered' && n.source === 'dhcp').length >= UNKNOWN_MAX)
        return { none: `${UNKNOWN_MAX} unknown machines wait for their inspection already` };
      const node = await nodes.create({
        name: nameFor(identity),
        source: 'dhcp',
        uuid: usableUuid(identity.uuid),
        serial: usableSerial(identity.serial),
        macs: [identity.mac],
        reason: `Seen on the network: ${found.reason}.`,
      });
      return { node };
    }
    if (found.learnMac) {
      await nodes.assignMac(found.node.id, identity.mac);
      await events.emit({ type: 'node.mac', nodeId: found.node.id, message: `${found.node.name}: ${found.reason}.` });
    }
    return { node: nodes.byId(found.node.id) ?? found.node };
  };

  const reserve = async (node: Node, remoteAddress: string): Promise<Node> => {
    if (addressOf(node) !== null) return node;
    const network = networkOf(site.networks, remoteAddress);
    if (!network) return node;
    // Chosen inside the change: of two nodes that start at the same moment the second sees what the first got.
    return nodes.update(node.id, now => {
      const taken = new Set([...deps.ownAddresses(), ...nodes.all().flatMap(n => addressOf(n) ?? [])]);
      const address = addressOf(now) === null ? chooseAddress(network, taken) : null;
      return address === null ? null : { status: { address } };
    });
  };

  return {
    async decide(identity, remoteAddress): Promise<BootDecision> {
      // Whoever knows a MAC could ask in its name for its token. The address it asks from was leased to a MAC by us.
      const leased = deps.macAt(remoteAddress);
      if (leased !== undefined && leased !== identity.mac && !nodes.byMac(identity.mac)?.macs.includes(leased)) {
        const reason = `${remoteAddress} was leased to ${leased}, but asks in the name of ${identity.mac}`;
        await events.emit({ type: 'security.wrong-address', severity: 'error', message: `Boot refused: ${reason}.` });
        return { kind: 'nothing', reason };
      }
      const found = await nodeOf(identity);
      if ('none' in found) return { kind: 'nothing', reason: found.none };
      const at = clock.nowMs();
      const node = await reserve(
        await nodes.update(found.node.id, n => ({
          uuid: n.uuid ?? usableUuid(identity.uuid),
          serial: n.serial ?? usableSerial(identity.serial),
          status: {
            lastSeenMs: at,
            platform: identity.platform ?? n.status.platform,
            milestone: { name: 'boot script', atMs: at },
          },
        })),
        remoteAddress,
      );
      if (node.maintenance !== null)
        return { kind: 'nothing', reason: `${node.name} is in maintenance (${node.maintenance})` };
      const choice = chooseBoot(node);
      await events.emit({
        type: 'boot.decision',
        severity: 'debug',
        nodeId: node.id,
        message: `${choice.kind}: ${choice.reason}`,
      });
      if (choice.kind === 'local') return choice;
      const image = await deps.ramImage();
      const token = await tokens.issue(node.id, 'ram', node.status.runId, RAM_TOKEN_SECONDS);
      return { kind: 'ram', image, token, rescue: choice.rescue, reason: choice.reason };
    },

    async milestone(mac, name) {
      const node = nodes.byMac(mac);
      if (!node) return;
      const at = clock.nowMs();
      await nodes.update(node.id, () => ({ status: { milestone: { name, atMs: at }, lastSeenMs: at } }));
      await events.emit({
        type: 'boot.milestone',
        severity: 'debug',
        nodeId: node.id,
        message: `${node.name}: ${MILESTONES[name] ?? name}`,
        data: { mac, name },
      });
    },

    knowsToken: (token, kind) => tokens.known(token, kind === 'ram' ? 'ram' : 'first-boot'),

    async ramCallHome(token, report, remoteAddress) {
      const use = await tokens.use(token, 'ram', report.bootId).catch(async error => {
        if (error instanceof TokenReplayed) await freeze(error.nodeId, remoteAddress);
        throw error;
      });
      const node = nodes.byId(use.nodeId) ?? fail('node-unknown', 'The node of this token was removed.');
      if (use.repeated && node.status.ram?.bootId === report.bootId) return;
      if (!node.macs.includes(report.mac.toLowerCase()))
        fail('token-refused', `The token belongs to ${node.name}, which has no NIC ${report.mac}.`);
      let inventory: Inventory;
      try {
        inventory = deps.normaliseInventory(report.raw);
      } catch (error) {
        const refused = asProblem(error, 'inventory-refused');
        await nodes.failWorking(node.id, refused);
        await events.emit({ type: 'inventory.refused', severity: 'error', nodeId: node.id, message: refused.message });
        throw error;
      }
      const at = clock.nowMs();
      // MACs of other nodes are not taken over because a report claims them: that needs the firmware to show them.
      for (const nic of inventory.nics) if (!nodes.byMac(nic.mac)) await nodes.assignMac(node.id, nic.mac);
      const updated = await nodes.update(node.id, n => ({
        uuid: n.uuid ?? usableUuid(inventory.system.uuid),
        serial: n.serial ?? usableSerial(inventory.system.serial),
        status: {
          inventory,
          inventoryMs: at,
          lastSeenMs: at,
          platform: report.firmware,
          milestone: { name: 'RAM environment called home', atMs: at },
          ram: {
            bootId: report.bootId,
            address: remoteAddress,
            hostKey: report.hostKey,
            startedMs: at,
            firmware: report.firmware,
          },
        },
      }));
      trace.record({
        mac: report.mac,
        layer: 'call-home',
        message: `The RAM environment called home from ${remoteAddress}.`,
      });
      await events.emit({
        type: 'node.called-home',
        nodeId: node.id,
        message: `${updated.name}: the RAM environment called home from ${remoteAddress} after ${Math.round(report.uptimeSeconds)} s.`,
        data: { bootId: report.bootId, uptimeSeconds: report.uptimeSeconds },
      });
      if (updated.state === 'discovered')
        await nodes.transition(node.id, 'called-home', 'It booted the RAM environment and called home.');
      deps.poke(node.id);
    },

    async installedCallHome(token, report, remoteAddress) {
      const use = await tokens.use(token, 'first-boot', report.bootId).catch(async error => {
        if (!(error instanceof TokenReplayed)) throw error;
        const os = nodes.byId(error.nodeId)?.status.os;
        // Its power was cut before its disk had forgotten the token, so it shows it again. That is no alarm; and what
        // comes next, SSH with the host key of the installation, is proof enough for a call that we did not record.
        if (os?.address !== remoteAddress) await freeze(error.nodeId, remoteAddress);
        else if (os.firstBootMs === null) return { nodeId: error.nodeId };
        throw error;
      });
      const node = nodes.byId(use.nodeId) ?? fail('node-unknown', 'The node of this token was removed.');
      // The server may have died between the token and the record.
      if (node.status.os?.firstBootMs !== null) return;
      const at = clock.nowMs();
      await nodes.update(node.id, n => ({
        status: {
          lastSeenMs: at,
          ram: null,
          milestone: { name: 'installed system called home', atMs: at },
          os: n.status.os ? { ...n.status.os, address: remoteAddress, firstBootMs: at } : null,
        },
      }));
      await events.emit({
        type: 'node.first-boot',
        nodeId: node.id,
        message: `${node.name}: the installed system called home from ${remoteAddress} after ${Math.round(report.uptimeSeconds)} s.`,
        data: { uptimeSeconds: report.uptimeSeconds },
      });
      deps.poke(node.id);
    },
  };

  /** A token came back from another boot: stop touching the node until a person has looked. */
  async function freeze(nodeId: string, remoteAddress: string): Promise<void> {
    const node = nodes.byId(nodeId);
    if (!node) return;
    const why = `a one-time token of this node was used a second time, from ${remoteAddress}`;
    await nodes.update(nodeId, () => ({ maintenance: why }));
    await deps.halt(nodeId);
    await events.emit({ type: 'security.token-replayed', severity: 'error', nodeId, message: `${node.name}: ${why}.` });
  }
}
