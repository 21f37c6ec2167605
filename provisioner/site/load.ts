/** Reads `site.yaml`: text to a checked Site, or every fault in it with its place. */
import type { ErrorObject, ValidateFunction } from 'ajv';
import { once } from '../core/once.js';
import { type Problem, ProblemError, problem } from '../core/problem.js';
import { createAjv, explain, type Fault, fieldName } from '../core/schema/explain.js';
import { checkSite } from './check.js';
import { SITE_VERSION } from './migrate.js';
import { type Site, SiteSchema } from './schema.js';
import { compose, type IncludeReader, type Place, type TextFault } from './source.js';

const FAULTS_MAX = 100;

/** Compiled once: that takes longer than checking a site of thousands of nodes. */
const validator = once(() => createAjv({ allErrors: true, useDefaults: true }).compile<Site>(SiteSchema));

export interface LoadedSite {
  readonly site: Site;
  /** As given; used in messages. */
  readonly path: string;
  /** Version that the file says; an older one than the present was brought up to it in memory. */
  readonly version: number;
  /** Where a field such as `nodes[3].address` stands, or its nearest parent that is written down. */
  placeOf(field: readonly (string | number)[]): Place;
}

/**
 * Parses and checks the text of a site file. All faults are found at once, in the order of their places.
 * @param path how the file is called in messages
 * @param read for included files; null where there are none to read
 * @returns the site with variables and defaults filled in and MACs in lower case with colons, or problems
 *   `site-invalid`, whose messages read `site.yaml:12:9: networks[0].cidr: expected …, found …` (line and column from 1)
 *   and whose detail is `{file, line, column, field}`. In a site of several files the numbers in `field` count over all.
 */
export function loadSite(text: string, path: string, read: IncludeReader | null = null): LoadedSite | Problem[] {
  const composed = compose(text, path, read);
  if (Array.isArray(composed)) return problems(composed);
  const { data, locate, source } = composed;

  const disksGiven = collectGivenDisks(data);
  const validate = validator();
  const faults: Fault[] = [...composed.faults];
  // A text with an unknown variable is told once, not again for its shape.
  const told = new Set(faults.map(f => fieldName(f.path)));
  const add = (more: readonly Fault[]) => faults.push(...more.filter(f => !told.has(fieldName(f.path))));
  if (validate(data)) {
    normalise(data, disksGiven);
    add(checkSite(data));
  } else {
    const wrong = explain(validate.errors as ErrorObject[], data, source);
    add(wrong);
    add(checkSoundPart(validate, data, wrong, disksGiven));
  }
  if (faults.length > 0)
    return problems(
      faults.map(f => ({
        place: locate(f.path, f.key, f.needle),
        field: fieldName(f.path),
        message: f.secret ? `${f.message}; ${howToStore(f.path, data)}` : f.message,
      })),
    );
  const { include: _, vars: __, ...site } = data as Site;
  return { site, path, version: composed.version ?? SITE_VERSION, placeOf: field => locate(field) };
}

function problems(faults: readonly TextFault[]): Problem[] {
  const files = [...new Set(faults.map(f => f.place.file))];
  const order = (a: TextFault, b: TextFault) =>
    files.indexOf(a.place.file) - files.indexOf(b.place.file) ||
    a.place.line - b.place.line ||
    a.place.column - b.place.column;
  return [...faults]
    .sort(order)
    .slice(0, FAULTS_MAX)
    .map(({ place, field, message }) =>
      problem('site-invalid', `${place.file}:${place.line}:${place.column}: ${field ? `${field}: ` : ''}${message}`, {
        detail: { ...place, field },
      }),
    );
}

/** The command that puts the secret where it belongs, with a name that says whose it is. */
function howToStore(path: readonly (string | number)[], data: unknown): string {
  const [group, index] = path;
  const list = group === 'nodes' || group === 'profiles' ? (data as Record<string, unknown>)[group] : undefined;
  const owner = Array.isArray(list) ? (list[Number(index)] as { name?: unknown } | null)?.name : undefined;
  const name = typeof owner === 'string' && /^[a-z0-9-]+$/.test(owner) ? `bmc/${owner}` : 'NAME';
  return `store it with: halligan secret set ${name} < FILE, and write secret:${name}`;
}

/** loadSite for callers that cannot go on without one. @throws ProblemError `site-invalid`, one fault per line */
export function loadSiteOrThrow(text: string, path: string, read: IncludeReader | null = null): LoadedSite {
  const loaded = loadSite(text, path, read);
  if (!Array.isArray(loaded)) return loaded;
  throw new ProblemError(
    problem('site-invalid', loaded.map(p => p.message).join('\n'), {
      detail: { faults: loaded.map(p => ({ message: p.message, ...p.detail })) },
    }),
  );
}

type Loose = { nodes?: unknown; layouts?: { disk?: unknown } };

/** Which layouts say `disks` themselves, as `nodes/3` and `layouts/0`: ajv's default must not count as their word. */
function collectGivenDisks(data: unknown): Set<string> {
  const given = new Set<string>();
  const { nodes, layouts } = (data ?? {}) as Loose;
  if (Array.isArray(nodes))
    for (const [i, node] of nodes.entries())
      if (node?.install?.disk_layout?.disks !== undefined) given.add(`nodes/${i}`);
  if (Array.isArray(layouts?.disk))
    for (const [i, layout] of layouts.disk.entries()) if (layout?.disks !== undefined) given.add(`layouts/${i}`);
  return given;
}

const normaliseMac = (text: string) => text.toLowerCase().replaceAll('-', ':');

function normalise(site: Site, disksGiven: ReadonlySet<string>): void {
  for (const [i, layout] of site.layouts.disk.entries())
    if (layout.kind === 'mdraid' && !disksGiven.has(`layouts/${i}`)) layout.disks = [{}, {}];
  for (const [i, node] of site.nodes.entries()) {
    node.macs = node.macs.map(normaliseMac);
    if (node.uuid) node.uuid = node.uuid.toLowerCase();
    const layout = node.install?.disk_layout;
    if (layout?.kind === 'mdraid' && !disksGiven.has(`nodes/${i}`)) layout.disks = [{}, {}];
    for (const nic of node.install?.interfaces ?? []) {
      if (nic.mac) nic.mac = normaliseMac(nic.mac);
      if (nic.bond) nic.bond.macs = nic.bond.macs.map(normaliseMac);
    }
  }
}

/** Checks how those networks and nodes fit that have no fault of their own, so that all faults come at once. */
function checkSoundPart(
  validate: ValidateFunction<Site>,
  data: unknown,
  faults: readonly Fault[],
  disksGiven: ReadonlySet<string>,
): Fault[] {
  if (typeof data !== 'object' || data === null) return [];
  const skip = new Set(faults.map(f => f.path.slice(0, 2).join('/')));
  const copy: Record<string, unknown> = { ...(data as Record<string, unknown>) };
  // What is wrong in other groups is replaced by a default or by something harmless.
  for (const [group] of faults.map(f => f.path))
    if (group !== 'networks' && group !== 'nodes') delete copy[group ?? ''];
  // Profiles name layouts: without the one the other cannot be looked at.
  if (copy['layouts'] === undefined || copy['profiles'] === undefined) delete copy['profiles'];
  for (const key of ['networks', 'nodes'] as const) {
    if (!Array.isArray(copy[key])) skip.add(key);
    copy[key] = skip.has(key)
      ? []
      : (copy[key] as unknown[]).map((entry, i) => (skip.has(`${key}/${i}`) ? HARMLESS[key] : entry));
  }
  const whole = { version: SITE_VERSION, name: 'site', ...copy } as Record<string, unknown>;
  if (skip.has('networks')) whole['networks'] = [HARMLESS.networks];
  if (!validate(whole)) return [];
  if (skip.has('networks')) whole.networks = [];
  normalise(whole, disksGiven);
  return checkSite(whole, skip);
}

/** Stand in for entries that are not looked at. */
const HARMLESS = {
  networks: { name: 'x', cidr: '10.0.0.0/24', pool: { from: '10.0.0.1', to: '10.0.0.1' } },
  nodes: { name: 'x' },
} as const;
