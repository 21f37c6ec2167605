/** How checks are written: each lists what is wrong. Pure. */
import { type CloudModel, type CloudNode, nodesWith } from '../model/cloud.js';
import { asBoolean, type Ini, parseIni } from './ini.js';
import { CONFIG_FILES } from './request.js';
import type { Evidence, NodeEvidence, PathEvidence, SecurityCheck, Verdict } from './types.js';

/** What a check needs was not read; the message is the reason why it fails. */
export class NotSeen extends Error {}

export interface Seen {
  readonly node: CloudNode;
  readonly evidence: NodeEvidence;
}

interface Draft extends Omit<SecurityCheck, 'evaluate' | 'applies' | 'hint'> {
  readonly applies?: SecurityCheck['applies'];
  /** What is wrong; empty: nothing. */
  readonly faults: (evidence: Evidence) => readonly string[];
  /** Said where it passes. */
  readonly remark?: (evidence: Evidence) => string | null;
  readonly hint?: string;
}

const FAULTS_SHOWN = 6;
export const APPLY_HINT = 'Run `halligan drift` to see what was changed by hand, and `halligan apply` to mend it.';

export const check = (draft: Draft): SecurityCheck => ({
  id: draft.id,
  title: draft.title,
  source: draft.source,
  applies: draft.applies ?? (() => true),
  hint: draft.hint ?? APPLY_HINT,
  evaluate(evidence): Verdict {
    try {
      const faults = [...new Set(draft.faults(evidence))];
      if (faults.length === 0) return { ok: true, remark: draft.remark?.(evidence) ?? null };
      const more = faults.length - FAULTS_SHOWN;
      return {
        ok: false,
        reason: `${faults.slice(0, FAULTS_SHOWN).join('; ')}${more > 0 ? `; and ${more} more` : ''}.`,
      };
    } catch (error) {
      if (error instanceof NotSeen) return { ok: false, reason: error.message };
      throw error;
    }
  },
});

/** A check that this cloud has no use for, whatever is on it. */
export const notApplicable = (id: string, title: string, source: string, reason: string): SecurityCheck =>
  check({ id, title, source, applies: () => reason, faults: () => [] });

/** For `applies`: some node has the service. */
export const laidDown =
  (service: string, reason: string) =>
  (model: CloudModel): true | string =>
    nodesWith(model, service).length > 0 ? true : reason;

export function seen(evidence: Evidence, node: CloudNode): Seen {
  const found = evidence.nodes.get(node.name);
  if (!found)
    throw new NotSeen(`${node.name} could not be looked at: ${evidence.missing.get(node.name) ?? 'it has no answer.'}`);
  return { node, evidence: found };
}

/** Every node that has the service. @throws NotSeen */
export const on = (evidence: Evidence, service: string): Seen[] =>
  nodesWith(evidence.model, service).map(node => seen(evidence, node));
export const everywhere = (evidence: Evidence): Seen[] => evidence.model.nodes.map(node => seen(evidence, node));

/** @throws NotSeen */
export function api(evidence: Evidence): NonNullable<Evidence['api']> {
  if (evidence.api) return evidence.api;
  throw new NotSeen(`The APIs could not be asked: ${evidence.apiMissing ?? 'they gave no answer.'}`);
}

/** A file's content. @throws NotSeen */
export function content({ node, evidence }: Seen, path: string): string {
  const text = evidence.contents[path];
  if (text === undefined) throw new NotSeen(`${node.name} has no ${path}, or it cannot be read.`);
  return text;
}

/** Configuration of a service on a node. @throws NotSeen */
export const config = (s: Seen, service: string): Ini => parseIni(content(s, CONFIG_FILES[service]!));

/** Output of a command. @throws NotSeen when it failed */
export function output({ node, evidence }: Seen, name: string): string {
  const done = evidence.commands[name];
  if (done?.code === 0) return done.out;
  throw new NotSeen(
    `${node.name}: “${name}” could not be read${done ? ` (code ${done.code}: ${done.error.trim().split('\n').at(-1) ?? ''})` : ''}.`,
  );
}

export interface Wanted {
  readonly service: string;
  readonly section: string;
  readonly key: string;
  /** What is wrong with the value (undefined: not set), the end of a sentence; null: nothing. */
  readonly wrong: (value: string | undefined, seen: Seen) => string | null;
}

/** A configuration's values on all nodes of a service: `ctl: [api] auth_strategy …`. */
export const values = (evidence: Evidence, wanted: readonly Wanted[]): string[] =>
  wanted.flatMap(w =>
    on(evidence, w.service).flatMap(s => {
      const fault = w.wrong(config(s, w.service)[w.section]?.[w.key], s);
      return fault === null ? [] : [`${s.node.name}: [${w.section}] ${w.key} of ${CONFIG_FILES[w.service]} ${fault}`];
    }),
  );

export const isExactly = (wanted: string) => (value: string | undefined) =>
  value === wanted ? null : value === undefined ? 'is not set' : `is not ${wanted}`;
export const isTrue = (value: string | undefined) =>
  value === undefined ? 'is not set' : asBoolean(value) === true ? null : 'is not true';
export const isFalse = (value: string | undefined) =>
  value === undefined ? 'is not set' : asBoolean(value) === false ? null : 'is not false';
export const isNotTrue = (value: string | undefined) => (asBoolean(value) === true ? 'is true' : null);
export const isHttps = (value: string | undefined) =>
  value === undefined
    ? 'is not set'
    : value.split(',').every(u => u.trim().startsWith('https://'))
      ? null
      : 'is not https';
export const isPositive = (value: string | undefined) =>
  value !== undefined && Number(value) > 0 ? null : value === undefined ? 'is not set' : 'is no number of bytes';

const octal = (mode: number) => mode.toString(8).padStart(3, '0');
export const said = (p: PathEvidence): string => `${p.owner}:${p.group} ${octal(p.mode)}`;

/** The folder of a service and what is right in it, but for what only links. */
export const inFolder = (s: Seen, folder: string): { self: PathEvidence | undefined; files: PathEvidence[] } => ({
  self: s.evidence.paths.find(p => p.path === folder),
  files: s.evidence.paths.filter(
    p => p.kind === 'file' && p.path.startsWith(`${folder}/`) && !p.path.slice(folder.length + 1).includes('/'),
  ),
});

/** Nobody but the owner and his group gets at it. */
export const closed = (p: PathEvidence | undefined, most: number): boolean => p !== undefined && (p.mode & ~most) === 0;
