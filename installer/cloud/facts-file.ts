/**
 * What was last seen on each node, in `DATA_DIR/cloud-facts.json`: addresses and hardware, no secrets. While a node is dead the
 * others' configuration is made with what it was like, so that it does not change because one is away.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeFacts } from '../model/cloud.js';

/** By id of the node. */
export type FactsById = ReadonlyMap<string, NodeFacts>;

const VERSION = 1;
const fileIn = (dataDir: string) => join(dataDir, 'cloud-facts.json');

/** A file that is not there, or not readable as ours, is no memory. */
export function recallFacts(dataDir: string): FactsById {
  try {
    const stored = JSON.parse(readFileSync(fileIn(dataDir), 'utf8')) as {
      version: number;
      nodes: Record<string, NodeFacts>;
    };
    return new Map(stored.version === VERSION ? Object.entries(stored.nodes) : []);
  } catch {
    return new Map();
  }
}

/** @throws Error of the file system */
export function rememberFacts(dataDir: string, facts: FactsById): void {
  const file = fileIn(dataDir);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, JSON.stringify({ version: VERSION, nodes: Object.fromEntries(facts) }), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
