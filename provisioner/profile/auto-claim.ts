/**
 * Claims nodes by their profile, as soon as their inventory is there. Decides nothing itself: `matchProfiles` does, and the
 * site file says for which profiles. One node at a time, each from the picture that the claim before it left.
 */
import { isDeepStrictEqual } from 'node:util';
import type { EventFeed } from '../core/events.js';
import type { Log } from '../core/log.js';
import { asProblem, fail } from '../core/problem.js';
import type { NodeRepository } from '../node/repository.js';
import type { Node } from '../node/types.js';
import { claimChange, matchProfiles, type NodeMatch, type ProfileSite } from './match.js';

export interface AutoClaimDeps {
  readonly site: ProfileSite;
  readonly nodes: NodeRepository;
  readonly events: EventFeed;
  readonly log: Log;
}

export interface AutoClaim {
  /** Resolves when everything that was to be looked at so far is. */
  idle(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Looks at all nodes now (the server may have died between an inventory and its claim, or the file has changed), then
 * whenever a node comes or goes.
 *
 * Only a node that comes from its inspection is claimed. One that somebody took back (`unclaim`, `release`) waits for a
 * person, or for its next inspection: otherwise the operator and the server would undo each other's work for ever.
 */
export function startAutoClaim({ site, nodes, events, log }: AutoClaimDeps): AutoClaim {
  if (!site.profiles.some(p => p.auto_claim)) return { idle: async () => {}, close: async () => {} };
  let closed = false;
  let again = false;
  let running: Promise<void> | null = null;
  /** What a decision rests on, of each node. */
  const seen = new Map<string, string>();
  const told = new Map<string, string>();
  /** The picture in force, and the claim that is being written into it; null when a node has changed since. */
  let picture: readonly NodeMatch[] | null = null;
  let claiming: string | null = null;
  const look = (): readonly NodeMatch[] => {
    picture ??= matchProfiles(site, nodes.all());
    return picture;
  };

  const tell = async (node: Node, match: NodeMatch): Promise<void> => {
    const why = match.claim?.sentence ?? explain(match);
    const key = `${node.stateSinceMs} ${why}`;
    if (told.get(node.id) === key) return;
    told.set(node.id, key);
    await events.emit({
      type: 'node.not-claimed',
      severity: match.kind === 'ambiguous' ? 'warn' : 'info',
      nodeId: node.id,
      message: `${node.name} is not claimed by itself. ${match.sentence} ${why}`.trim(),
      data: { kind: match.kind, profile: match.profile, rejected: match.rejected },
    });
  };

  const claim = async (node: Node, match: NodeMatch): Promise<void> => {
    const { name, number, roles } = match.becomes!;
    const why = `${match.sentence} ${match.claim!.sentence}`;
    const does = `Becomes ${name}${roles.length > 0 ? ` with ${roles.join(', ')}` : ''}, number ${number} of ${match.profile}.`;
    const write = (now: Node) => {
      // Others may have come and gone since: what is written is what holds at this moment, or nothing is.
      const still = picture?.includes(match) ? match : look().find(m => m.nodeId === now.id);
      const same = still?.claim?.automatic && isDeepStrictEqual(still.becomes, match.becomes);
      const change = same ? claimChange(now, still) : null;
      if (!change) return fail('conflict', `${node.name}: other nodes changed while it was to be claimed.`);
      claiming = now.id;
      return change;
    };
    try {
      await nodes.transition(node.id, 'claim', `${why} ${does}`, write);
    } finally {
      claiming = null;
    }
    await events.emit({
      type: 'node.auto-claimed',
      nodeId: node.id,
      message: `${name}: claimed by its profile. ${why}`,
      data: { profile: match.profile, number, roles, before: node.name, rejected: match.rejected },
    });
  };

  /** @param inspected nodes whose newest event is known to be their inspection, or known not to be */
  const lookOnce = async (inspected: Map<string, boolean>): Promise<void> => {
    const left: [Node, NodeMatch][] = [];
    for (const match of look()) {
      const node = nodes.byId(match.nodeId);
      if (closed || node?.state !== 'available' || match.kind === 'named' || match.kind === 'uninspected') continue;
      const key = `${node.id} ${node.stateSinceMs}`;
      if (!inspected.has(key)) inspected.set(key, (await nodes.history(node.id, 1))[0]?.event === 'inspected');
      if (!inspected.get(key)) continue;
      if (!match.claim?.automatic || !match.becomes) {
        left.push([node, match]);
        continue;
      }
      await claim(node, match).catch(error => {
        const { code, message } = asProblem(error, 'internal');
        if (code === 'conflict') again = true;
        else if (code === 'not-allowed-now' || code === 'name-taken') log.warn({ node: node.name }, message);
        else throw error;
      });
    }
    // While others are claimed the reasons still change: those of the last look are told.
    if (!again) for (const [node, match] of left) await tell(node, match);
  };
  const lookAround = async (): Promise<void> => {
    const inspected = new Map<string, boolean>();
    while (again && !closed) {
      again = false;
      picture = null;
      await lookOnce(inspected);
    }
  };
  const wake = () => {
    again = true;
    running ??= lookAround()
      .catch(error => log.error({ error: String(error) }, 'claims by profile'))
      .finally(() => {
        running = null;
        if (again && !closed) wake();
      });
  };

  const unsubscribe = nodes.onChange(node => {
    const now = nodes.byId(node.id) ? basis(node) : null;
    if ((seen.get(node.id) ?? null) === now) return;
    if (now === null) {
      seen.delete(node.id);
      told.delete(node.id);
    } else seen.set(node.id, now);
    // A claim of ours is in the picture already.
    if (claiming !== node.id) picture = null;
    wake();
  });
  for (const node of nodes.all()) seen.set(node.id, basis(node));
  wake();

  return {
    async idle() {
      while (running) await running;
    },
    async close() {
      closed = true;
      unsubscribe();
      while (running) await running;
    },
  };
}

/** Everything of a node that `matchProfiles` looks at, as one text. */
const basis = ({ name, state, stateSinceMs, maintenance, source, macs, uuid, serial, spec, status }: Node): string =>
  JSON.stringify([
    [name, state, stateSinceMs, maintenance, source, macs, uuid, serial, spec],
    [status.address, status.inventoryMs, status.profile, status.ram?.address],
  ]);

/** The reasons of all profiles, for a node that none takes. */
const explain = (match: NodeMatch): string =>
  match.rejected
    .slice(0, 8)
    .map(r => `${r.profile}: ${r.reasons.join('; ')}.`)
    .join(' ');
