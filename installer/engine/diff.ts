/** Wanted against observed: the plan of one node's actions. Pure. */
import { createHash } from 'node:crypto';
import { createTwoFilesPatch } from 'diff';
import type { ActionView } from '../../provisioner/core/cloud-service.js';
import { sourceFiles } from '../model/archives.js';
import { veil } from '../secrets/veil.js';
import type { DesiredState, Placed } from './desired.js';
import { type Observed, stampName, stampOfUnit } from './observe.js';

/** One thing that will be done, as it is shown. Secrets are masked: in diffs here, in the rest before it leaves the planner. */
export type Action = ActionView;

/** An action of a node with what is needed to carry it out. */
export interface NodeAction {
  readonly action: Action;
  readonly placed: Placed;
  /** For units: whether it must be restarted (or reloaded), or started only. */
  readonly verb?: 'start' | 'restart' | 'reload' | 'enable' | 'mask';
  /** For units and commands: recorded after success. */
  readonly stamp?: string;
  /** For packages: names that are missing. */
  readonly missing?: readonly string[];
}

export interface Expectations {
  /** Seconds that this action took before, when known. */
  seconds(id: string): number | undefined;
}

/** As diff(1) shows it, unified; null: there is none on this side. */
const patch = (from: string | null, to: string | null, shown: { readonly found: string; readonly wanted: string }) =>
  createTwoFilesPatch(
    from === null ? '/dev/null' : `a${from}`,
    to === null ? '/dev/null' : `b${to}`,
    shown.found,
    shown.wanted,
    '',
    '',
    { context: 3 },
  )
    .split('\n')
    .slice(1)
    .join('\n');

const octal = (mode: number) => mode.toString(8).padStart(4, '0');

/**
 * A file that a unit may have read with another content than what is wanted. What we started last has read ours; what
 * was started (or reloaded) since by others has so only where the file is as wanted and was not written after that:
 * what stood in it before is not known.
 */
function readOther(
  watches: readonly string[],
  changedMs: number | null,
  stamp: string,
  { different, paths, stampedMs }: Observed,
): string | undefined {
  const recordedMs = stampedMs.get(stamp);
  if (changedMs === null || recordedMs === undefined || changedMs <= recordedMs) return undefined;
  return watches.find(path => different.has(path) || (paths.get(path)?.writtenMs ?? Infinity) > changedMs);
}

function change(
  p: Placed,
  observed: Observed,
  onNode: readonly Placed[],
  mask: (text: string) => string,
): (Omit<NodeAction, 'action' | 'placed'> & { title: string; reason: string; diff?: string }) | null {
  const r = p.resource;
  switch (r.kind) {
    case 'packages': {
      const missing = r.names.filter(n => !observed.packages.has(n));
      if (missing.length === 0) return null;
      const some = missing.slice(0, 6).join(', ');
      const changed = [...sourceFiles(r.archives, r.sources)].filter(
        ([path, text]) => (observed.sources.get(path) ?? null) !== text,
      );
      const said = changed.map(([path, text]) => `${path} is ${text === null ? 'removed' : 'written'}`);
      return {
        title: `install ${missing.length} packages`,
        reason: [
          `not installed: ${some}${missing.length > 6 ? ` and ${missing.length - 6} more` : ''}`,
          ...(said.length > 0 ? [`where they come from changes: ${said.join(', ')}`] : []),
        ].join('; '),
        missing,
        ...(changed.length === 0
          ? {}
          : {
              diff: changed
                .map(([path, text]) => {
                  // Users of private archives stand in their addresses.
                  const shown = veil(observed.sources.get(path) ?? '', text ?? '', mask);
                  return patch(observed.sources.has(path) ? path : null, text === null ? null : path, shown);
                })
                .join(''),
            }),
      };
    }
    case 'directory': {
      const found = observed.paths.get(r.path);
      if (!found) return { title: `create folder ${r.path}`, reason: 'it does not exist' };
      if (found.mode === r.mode && found.owner === r.owner && found.group === r.group) return null;
      return {
        title: `set owner and mode of ${r.path}`,
        reason: `${found.owner}:${found.group} ${octal(found.mode)} becomes ${r.owner}:${r.group} ${octal(r.mode)}`,
      };
    }
    case 'file': {
      const found = observed.paths.get(r.path);
      const other = observed.different.has(r.path) || !found;
      if (other) {
        const old = observed.different.get(r.path) ?? '';
        const open = (mode: number) => (mode & 0o004) !== 0;
        const shown =
          open(r.mode) && (!found || open(found.mode))
            ? { found: mask(old), wanted: mask(r.content) }
            : veil(old, r.content, mask);
        return {
          title: `${found ? 'change' : 'create'} ${r.path}`,
          reason: found ? 'its content differs' : 'it does not exist',
          diff: patch(found ? r.path : null, r.path, shown),
        };
      }
      if (found.mode === r.mode && found.owner === r.owner && found.group === r.group) return null;
      return {
        title: `set owner and mode of ${r.path}`,
        reason: `${found.owner}:${found.group} ${octal(found.mode)} becomes ${r.owner}:${r.group} ${octal(r.mode)}`,
      };
    }
    case 'unit': {
      const found = observed.units.get(r.unit);
      if (r.state === 'masked') {
        if (found?.enabled === 'masked' && found.active !== 'active' && found.active !== 'activating') return null;
        // A unit that no package brought cannot start.
        if (found?.load === 'masked' && found.active !== 'active') return null;
        return { title: `mask ${r.unit}`, reason: 'it must not run here', verb: 'mask' };
      }
      const stamp = stampOfUnit(p, onNode);
      const recorded = observed.stamps.get(stampName(p.service, r.id));
      const running = found?.active === 'active' || found?.active === 'reloading';
      if (!running)
        return {
          title: `start ${r.unit}`,
          reason:
            found?.active === 'failed'
              ? 'it has failed'
              : found?.active === 'activating'
                ? 'it does not come up'
                : 'it does not run',
          // It may be half-way up on old configuration.
          verb: found?.active === 'activating' ? 'restart' : 'start',
          stamp,
        };
      if (recorded !== stamp)
        return {
          title: `${r.on} ${r.unit}`,
          reason: recorded === undefined ? 'it was not started by us' : 'what it reads at start changed',
          verb: r.on,
          stamp,
        };
      const other = readOther(r.watches, found?.changedMs ?? null, stampName(p.service, r.id), observed);
      if (other !== undefined)
        return { title: `${r.on} ${r.unit}`, reason: `it may have read another ${other}`, verb: r.on, stamp };
      if (found?.enabled === 'disabled')
        return { title: `enable ${r.unit}`, reason: 'it would not start at boot', verb: 'enable', stamp };
      return null;
    }
    case 'command': {
      const code = r.check === null ? undefined : observed.checks.get(p.key);
      const recorded = observed.stamps.get(stampName(p.service, r.id));
      const stamp = r.stamp === null ? undefined : createHash('sha256').update(r.stamp).digest('hex').slice(0, 32);
      const stale = stamp !== undefined && recorded !== stamp;
      const failed = r.check !== null && code !== 0;
      if (!failed && !stale && (r.check !== null || stamp !== undefined)) return null;
      return {
        title: r.title,
        reason: failed
          ? 'its check says that it is not done'
          : recorded === undefined
            ? 'it was never done'
            : 'what it depends on changed',
        ...(stamp === undefined ? {} : { stamp }),
      };
    }
  }
}

/** Seconds that a fresh installation takes at least; replaced by what was measured. */
function expected(p: Placed, missing: number): number {
  const r = p.resource;
  if (r.kind === 'packages') return Math.ceil(5 + missing * 0.25);
  if (r.kind === 'unit' || r.kind === 'command') return r.expectedSeconds;
  return 0;
}

function interruption({ resource: r }: Placed, verb: NodeAction['verb'], seen: Observed): string | null {
  if (r.kind === 'command') return r.interrupts;
  if (r.kind !== 'unit') return null;
  if (verb === 'restart') return r.interrupts;
  // Somebody else's, or the distribution's own: what it serves we do not know.
  return verb === 'mask' && seen.units.get(r.unit)?.active === 'active'
    ? `${r.unit} runs and is stopped, with all that it serves here.`
    : null;
}

/** Keys of what is wanted on nodes that could not be looked at: whether it is in place is not known. */
export const unseen = (desired: DesiredState, observed: ReadonlyMap<string, Observed>): string[] =>
  desired.placed.filter(p => !observed.has(p.node)).map(p => p.key);

/**
 * @param observed by node; nodes that could not be looked at are left out: nothing is planned for them, and what needs
 *   something of theirs names it in its needs
 * @param outside keys of actions that bring about milestones from outside (`@identity:catalog` → ids), in place of it
 * @param mask puts `<secret NAME>` in place of the cloud's secrets
 */
export function diffNodes(
  desired: DesiredState,
  observed: ReadonlyMap<string, Observed>,
  outside: ReadonlyMap<string, readonly string[]>,
  mask: (text: string) => string,
  expectations?: Expectations,
): NodeAction[] {
  const byNode = groupByNode(desired.placed);
  const changes = new Map<string, Omit<NodeAction, 'action'> & { title: string; reason: string; diff?: string }>();
  for (const [node, placed] of byNode) {
    const seen = observed.get(node);
    if (!seen) continue;
    for (const p of placed) {
      const c = change(p, seen, placed, mask);
      if (c) changes.set(p.key, { ...c, placed: p });
    }
  }
  const needsOf = resolveNeeds(desired.before, new Set([...changes.keys(), ...unseen(desired, observed)]), outside);
  return [...changes.values()].map(({ title, reason, diff, ...rest }) => {
    const { placed } = rest;
    const r = placed.resource;
    return {
      ...rest,
      action: {
        id: placed.key,
        node: placed.node,
        service: placed.service,
        kind: r.kind,
        title,
        reason,
        needs: needsOf(placed.key),
        destroys: r.kind === 'command' ? r.destroys : null,
        interrupts: interruption(placed, rest.verb, observed.get(placed.node)!),
        expectedSeconds: expectations?.seconds(placed.key) ?? expected(placed, rest.missing?.length ?? 0),
        ...(diff === undefined ? {} : { diff }),
      },
    };
  });
}

export function groupByNode(placed: readonly Placed[]): Map<string, Placed[]> {
  const byNode = new Map<string, Placed[]>();
  for (const p of placed) byNode.set(p.node, [...(byNode.get(p.node) ?? []), p]);
  return byNode;
}

/** Needs of an action: the nearest actions before it, through everything that is in place already. */
export function resolveNeeds(
  before: ReadonlyMap<string, readonly string[]>,
  actions: ReadonlySet<string>,
  outside: ReadonlyMap<string, readonly string[]>,
): (key: string) => string[] {
  const memo = new Map<string, ReadonlySet<string>>();
  const through = (key: string): ReadonlySet<string> => {
    if (key.startsWith('@')) return new Set(outside.get(key.slice(1)) ?? []);
    const known = memo.get(key);
    if (known) return known;
    const result = new Set<string>();
    memo.set(key, result);
    for (const previous of before.get(key) ?? []) {
      if (actions.has(previous)) result.add(previous);
      else for (const further of through(previous)) result.add(further);
    }
    return result;
  };
  return key => [...through(key)];
}

/** What a plan is worth: it changes when any action or what it is based on changes. */
export function planHash(actions: readonly Action[]): string {
  const hash = createHash('sha256');
  for (const a of [...actions].sort((x, y) => (x.id < y.id ? -1 : 1)))
    hash.update(JSON.stringify([a.id, a.kind, a.title, a.reason, a.destroys, a.diff ?? null]));
  return hash.digest('hex').slice(0, 16);
}
