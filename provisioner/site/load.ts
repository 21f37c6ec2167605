/** Reads `site.yaml`: text to a checked Site, or every fault in it with its line. */
import type { ErrorObject, ValidateFunction } from 'ajv';
import { isAlias, isCollection, isMap, isScalar, LineCounter, parseDocument, type Node as YamlNode } from 'yaml';
import { once } from '../core/once.js';
import { type Problem, ProblemError, problem } from '../core/problem.js';
import { createAjv, explain, type Fault, fieldName } from '../core/schema/explain.js';
import { checkSite } from './check.js';
import { type Site, SiteSchema } from './schema.js';

/** A site of ten thousand nodes is about 3 MB. */
const TEXT_MAX = 16 * 1024 * 1024;
const FAULTS_MAX = 100;

/** Compiled once: that takes longer than checking a site of thousands of nodes. */
const validator = once(() => createAjv({ allErrors: true, useDefaults: true }).compile<Site>(SiteSchema));

export interface LoadedSite {
  readonly site: Site;
  /** As given; used in messages. */
  readonly path: string;
  /** The line (from 1) of a field such as `nodes[3].address`, or of its nearest parent that is written down. */
  lineOf(field: readonly (string | number)[]): number;
  /** The line of a node's entry, or null when the file does not name it. */
  nodeLine(name: string): number | null;
}

/**
 * Parses and checks the text of a site file. All faults are found at once, in the order of their lines.
 * @param path how the file is called in messages
 * @returns the site with defaults filled in and MACs in lower case with colons, or problems `site-invalid`, whose
 *   messages read `site.yaml:12: networks[0].cidr: expected …, found …` and whose detail is `{line, field}`
 */
export function loadSite(text: string, path: string): LoadedSite | Problem[] {
  const fault = (line: number, field: string, message: string): Problem =>
    problem('site-invalid', `${path}:${line}: ${field ? `${field}: ` : ''}${message}`, { detail: { line, field } });

  if (text.length > TEXT_MAX) return [fault(1, '', `the file is larger than ${TEXT_MAX / 1024 / 1024} MiB`)];
  const counter = new LineCounter();
  const doc = parseDocument(text, { lineCounter: counter, prettyErrors: false, logLevel: 'error' });
  const line = (offset: number) => Math.max(1, counter.linePos(offset).line);
  const broken = [...doc.errors, ...doc.warnings];
  if (broken.length > 0)
    return broken.slice(0, FAULTS_MAX).map(e => fault(line(e.pos[0]), '', yamlSentence(e.code, e.message)));

  let data: unknown;
  try {
    data = doc.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return [fault(1, '', error instanceof Error ? error.message : String(error))];
  }
  if (data === null || data === undefined)
    return [fault(1, '', 'the file is empty; docs/example-site.yaml is one to start from')];

  const locate = (field: readonly (string | number)[], key = false): number => {
    let node: YamlNode | null | undefined = doc.contents as YamlNode | null;
    let offset = node?.range?.[0] ?? 0;
    for (const [index, part] of field.entries()) {
      if (isAlias(node)) node = node.resolve(doc) as YamlNode | undefined;
      if (isMap(node)) {
        const pair = node.items.find(item => isScalar(item.key) && String(item.key.value) === String(part));
        if (!pair) break;
        const keyNode = pair.key as YamlNode;
        node = pair.value as YamlNode | null;
        // A list or mapping below its key is found by the key; a value by itself.
        const last = index === field.length - 1;
        offset =
          (last && key) || !node || isCollection(node) ? (keyNode.range?.[0] ?? offset) : (node.range?.[0] ?? offset);
      } else if (isCollection(node)) {
        const item = node.items[Number(part)] as YamlNode | undefined;
        if (!item) break;
        node = item;
        offset = item.range?.[0] ?? offset;
      } else break;
    }
    return line(offset);
  };
  const source = (field: readonly (string | number)[]): string | undefined => {
    const node = doc.getIn(field, true);
    // 0123 and 1_000 are read as numbers; show what was written.
    return isScalar(node) && typeof node.value !== 'string' && node.source !== undefined && node.source !== ''
      ? node.source.slice(0, 80)
      : undefined;
  };

  const disksGiven = collectGivenDisks(data);
  const validate = validator();
  let faults: Fault[];
  if (validate(data)) {
    normalise(data, disksGiven);
    faults = checkSite(data);
  } else {
    faults = explain(validate.errors as ErrorObject[], data, source);
    faults.push(...checkSoundPart(validate, data, faults, disksGiven));
  }
  if (faults.length > 0) {
    const all = faults.map(f => ({ at: locate(f.path, f.key), field: fieldName(f.path), message: f.message }));
    all.sort((a, b) => a.at - b.at);
    return all.slice(0, FAULTS_MAX).map(f => fault(f.at, f.field, f.message));
  }
  const site = data as Site;
  const index = new Map(site.nodes.map((n, i) => [n.name, i]));
  return {
    site,
    path,
    lineOf: field => locate(field),
    nodeLine: name => (index.has(name) ? locate(['nodes', index.get(name)!]) : null),
  };
}

/** loadSite for callers that cannot go on without one. @throws ProblemError `site-invalid`, one fault per line */
export function loadSiteOrThrow(text: string, path: string): LoadedSite {
  const loaded = loadSite(text, path);
  if (!Array.isArray(loaded)) return loaded;
  throw new ProblemError(
    problem('site-invalid', loaded.map(p => p.message).join('\n'), {
      detail: { faults: loaded.map(p => ({ message: p.message, ...p.detail })) },
    }),
  );
}

function yamlSentence(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'this field is given twice';
  if (code === 'TAB_AS_INDENT') return 'tabs cannot indent YAML; use spaces';
  if (code === 'MULTIPLE_DOCS') return 'the file has several YAML documents (---); expected one';
  return `not valid YAML: ${message.split('\n')[0]}`;
}

type Loose = { nodes?: unknown };

/** Which nodes say `disks` themselves: ajv's default must not count as their word. */
function collectGivenDisks(data: unknown): Set<number> {
  const nodes = (data as Loose).nodes;
  const given = new Set<number>();
  if (Array.isArray(nodes))
    for (const [i, node] of nodes.entries()) if (node?.install?.disk_layout?.disks !== undefined) given.add(i);
  return given;
}

const normaliseMac = (text: string) => text.toLowerCase().replaceAll('-', ':');

function normalise(site: Site, disksGiven: Set<number>): void {
  for (const [i, node] of site.nodes.entries()) {
    node.macs = node.macs.map(normaliseMac);
    if (node.uuid) node.uuid = node.uuid.toLowerCase();
    const layout = node.install?.disk_layout;
    if (layout?.kind === 'mdraid' && !disksGiven.has(i)) layout.disks = [{}, {}];
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
  disksGiven: Set<number>,
): Fault[] {
  if (typeof data !== 'object' || data === null) return [];
  const skip = new Set(faults.map(f => f.path.slice(0, 2).join('/')));
  const copy: Record<string, unknown> = { ...(data as Record<string, unknown>) };
  // What is wrong in other groups is replaced by a default or by something harmless.
  for (const [group] of faults.map(f => f.path))
    if (group !== 'networks' && group !== 'nodes') delete copy[group ?? ''];
  for (const key of ['networks', 'nodes'] as const) {
    if (!Array.isArray(copy[key])) skip.add(key);
    copy[key] = skip.has(key)
      ? []
      : (copy[key] as unknown[]).map((entry, i) => (skip.has(`${key}/${i}`) ? HARMLESS[key] : entry));
  }
  const whole = { version: 1, name: 'site', ...copy } as Record<string, unknown>;
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
