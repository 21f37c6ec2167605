/** What nodes were at the last look: a node that does not answer stays part of the cloud while the others go on. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { NodeFacts } from '../model/cloud.js';

export interface RememberedFacts {
  get(node: string): NodeFacts | undefined;
  /** Keeps what was seen, and forgets nodes that are no longer named. Written when something changed. */
  keep(seen: ReadonlyMap<string, NodeFacts>, named: readonly string[]): void;
}

/** What changes at every look says nothing about a node. */
const lasting = ({ clockOffsetMs: _, freeMiB: __, ...facts }: NodeFacts) => ({ ...facts, clockOffsetMs: 0 });

/** @param path a JSON file, made when there is something to keep; one that cannot be read counts as empty */
export function rememberFacts(path: string): RememberedFacts {
  let stored: Record<string, NodeFacts> = {};
  try {
    stored = JSON.parse(readFileSync(path, 'utf8')) as Record<string, NodeFacts>;
  } catch {
    // The first look fills it.
  }
  return {
    get: node => stored[node],
    keep(seen, named) {
      const next = Object.fromEntries(
        named.flatMap(name => {
          const facts = seen.get(name);
          const known = facts ? lasting(facts) : stored[name];
          return known ? [[name, known] as const] : [];
        }),
      );
      const text = JSON.stringify(next);
      if (text === JSON.stringify(stored)) return;
      stored = next;
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    },
  };
}
