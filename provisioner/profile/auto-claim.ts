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
  /** The last state that was looked at, and what was told about it. */
  const states = new Map<string, string>();
  const told = new Map<string, string>();

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
    await nodes.transition(node.id, 'claim', `${why} ${does}`, now => {
      // Others may have come and gone since: what is written is what holds at this moment, or nothing is.
      const match2 = matchProfiles(site, nodes.all()).find(m => m.nodeId === now.id);
      const change =
        match2?.claim?.automatic && isDeepStrictEqual(match2.becomes, match.becomes) && claimChange(now, match2);
      return change || fail('conflict', `${node.name}: the picture changed while it was to be claimed.`);
    });
    await events.emit({
      type: 'node.auto-claimed',
      nodeId: node.id,
      message: `${name}: claimed by its profile. ${why}`,
      data: { profile: match.profile, number, roles, before: node.name, rejected: match.rejected },
    });
  };

  /** @param inspected nodes whose newest event is known to be their inspection, or known not to be */
  const lookOnce = async (inspected: Map<string, boolean>): Promise<void> => {
    for (const match of matchProfiles(site, nodes.all())) {
      const node = nodes.byId(match.nodeId);
      if (closed || node?.state !== 'available' || match.kind === 'named' || match.kind === 'uninspected') continue;
      const key = `${node.id} ${node.stateSinceMs}`;
      if (!inspected.has(key)) inspected.set(key, (await nodes.history(node.id, 1))[0]?.event === 'inspected');
      if (!inspected.get(key)) continue;
      if (!match.claim?.automatic || !match.becomes) {
        await tell(node, match);
        continue;
      }
      await claim(node, match).catch(error => {
        const { code, message } = asProblem(error, 'internal');
        if (code === 'conflict') again = true;
        else if (code === 'not-allowed-now' || code === 'name-taken') log.warn({ node: node.name }, message);
        else throw error;
      });
    }
  };
  const look = async (): Promise<void> => {
    const inspected = new Map<string, boolean>();
    while (again && !closed) {
      again = false;
      await lookOnce(inspected);
    }
  };
  const wake = () => {
    again = true;
    running ??= look()
      .catch(error => log.error({ error: String(error) }, 'claims by profile'))
      .finally(() => {
        running = null;
        if (again && !closed) wake();
      });
  };

  const unsubscribe = nodes.onChange(node => {
    const state = nodes.byId(node.id) ? `${node.state} ${node.stateSinceMs} ${node.maintenance ?? ''}` : 'gone';
    if (states.get(node.id) === state) return;
    if (state === 'gone') states.delete(node.id);
    else states.set(node.id, state);
    wake();
  });
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

/** The reasons of all profiles, for a node that none takes. */
const explain = (match: NodeMatch): string =>
  match.rejected
    .slice(0, 8)
    .map(r => `${r.profile}: ${r.reasons.join('; ')}.`)
    .join(' ');
