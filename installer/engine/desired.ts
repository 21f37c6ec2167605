/**
 * From the catalogue and the model of the cloud to what is wanted on every node: placed resources with the edges that
 * order them. Pure.
 */
import { createHash } from 'node:crypto';
import { fail } from '../../provisioner/core/problem.js';
import type { Catalogue, SecretKind, ServiceDeclaration, ServiceRelease } from '../model/catalogue.js';
import type { CloudModel, CloudNode } from '../model/cloud.js';
import type { FileResource, Resource } from '../model/resources.js';
import { mergeIni } from './ini.js';

/** A resource on a node. `key` is unique in the cloud: `NODE/SERVICE/ID`. */
export interface Placed {
  readonly key: string;
  readonly node: string;
  readonly service: string;
  readonly resource: Resource;
}

export interface DesiredState {
  readonly model: CloudModel;
  /** In the order of nodes, services and resources. */
  readonly placed: readonly Placed[];
  /** Keys that must be in place before a key may be worked on. */
  readonly before: ReadonlyMap<string, readonly string[]>;
  /** Milestone → keys that provide it. */
  readonly milestones: ReadonlyMap<string, readonly string[]>;
}

export interface BuildInput {
  readonly catalogue: Catalogue;
  readonly model: CloudModel;
  readonly secret: (name: string, kind?: SecretKind) => string;
  readonly tls: (node: CloudNode) => { ca: string; certificate: string; key: string };
  readonly template: (service: string, path: string, values: Parameters<TemplateOf>[1]) => string;
  /** Text of sources.list(5) for a node, in place of its own; null: it keeps them. */
  readonly sources?: (node: string) => string | null;
  /** Milestones that others than resources bring about, such as `identity:catalog`. */
  readonly outside: readonly string[];
}
type TemplateOf = (path: string, values: import('../../provisioner/core/render.js').TemplateValues) => string;

export const packagesKey = (node: string) => `${node}/packages/packages`;
const NO_RELEASE: ServiceRelease = { packages: [], preseed: [], units: {}, mask: [], wsgi: null, options: {} };

/** The stamp of a unit: it changes when anything that the unit reads at its start does. */
export function unitStamp(watched: readonly FileResource[]): string {
  const hash = createHash('sha256');
  for (const f of watched) hash.update(`${f.path}\0${f.owner}:${f.group}:${f.mode}\0${f.content}\0`);
  return hash.digest('hex').slice(0, 32);
}

/** Builds the desired state. Throws Error for what only a wrong catalogue can cause; it is checked at start. */
export function buildDesired(input: BuildInput): DesiredState {
  const { catalogue, model } = input;
  const placed: Placed[] = [];
  const before = new Map<string, string[]>();
  const milestones = new Map<string, string[]>();
  const provide = (milestone: string, key: string) =>
    milestones.set(milestone, [...(milestones.get(milestone) ?? []), key]);
  const needs: { key: string; milestone: string }[] = [];
  const known = new Set<string>();

  for (const node of model.nodes) {
    const own: Placed[] = [];
    const merged: { names: Set<string>; preseed: string[] } = { names: new Set(), preseed: [] };
    let hostLast: string | null = null;
    for (const name of node.services) {
      const declaration = catalogue.services.get(name);
      if (!declaration) throw new Error(`the service ${name} is not in the catalogue`);
      // What the next resource without a branch follows, and the ends of branches since then.
      let trunk: string | null = null;
      const branches = new Map<string, string>();
      for (const resource of resourcesOf(declaration, node, input)) {
        if (resource.kind === 'packages') {
          for (const p of resource.names) merged.names.add(p);
          merged.preseed.push(...resource.preseed);
          continue;
        }
        const key = `${node.name}/${name}/${resource.id}`;
        if (known.has(key)) throw new Error(`${key} is declared twice`);
        known.add(key);
        own.push({ key, node: node.name, service: name, resource });
        const first = [packagesKey(node.name), ...(name !== 'host' && hostLast ? [hostLast] : [])];
        const begin = trunk ? [trunk] : first;
        if (resource.branch === undefined) {
          before.set(key, branches.size > 0 ? [...branches.values()] : begin);
          branches.clear();
          trunk = key;
        } else {
          const previous = branches.get(resource.branch);
          before.set(key, previous ? [previous] : begin);
          branches.set(resource.branch, key);
        }
        for (const milestone of resource.needs) needs.push({ key, milestone });
        for (const milestone of resource.provides) provide(milestone, key);
      }
      const ends = branches.size > 0 ? [...branches.values()] : [trunk ?? packagesKey(node.name)];
      for (const end of ends) {
        provide(`${name}:done`, end);
        provide(`${name}:done@${node.name}`, end);
      }
      if (name === 'host') hostLast = trunk;
    }
    const key = packagesKey(node.name);
    placed.push({
      key,
      node: node.name,
      service: 'packages',
      resource: {
        kind: 'packages',
        id: 'packages',
        names: [...new Set([...merged.names, ...model.release.archives.map(a => a.keyring.package)])].sort(),
        preseed: [...new Set(merged.preseed)],
        archives: model.release.archives,
        sources: input.sources?.(node.name) ?? null,
        needs: [],
        provides: [],
      },
    });
    before.set(key, []);
    placed.push(...own);
    linkWatches(own, before);
  }
  for (const { key, milestone } of needs) {
    const providers = milestones.get(milestone);
    if (!providers) {
      if (input.outside.includes(milestone)) before.get(key)!.push(`@${milestone}`);
      else throw new Error(`${key} needs ${milestone}, which nothing provides`);
    } else before.get(key)!.push(...providers.filter(p => p !== key));
  }
  refuseCycles(before);
  refuseUnused(model, placed);
  return { model, placed, before, milestones };
}

function resourcesOf(declaration: ServiceDeclaration, node: CloudNode, input: BuildInput): readonly Resource[] {
  const { model } = input;
  const overrides = model.settings.config[declaration.name] ?? {};
  const resources = declaration.build({
    cloud: model,
    node,
    release: model.release.services[declaration.name] ?? NO_RELEASE,
    secret: input.secret,
    tls: input.tls(node),
    template: (path, values) => input.template(declaration.name, path, values),
  });
  return resources.map(r => {
    const additions = r.kind === 'file' ? overrides[r.path] : undefined;
    if (r.kind !== 'file' || !additions) return r;
    if (r.grammar !== 'ini')
      fail('site-invalid', `cloud.config.${declaration.name} adds to ${r.path}, which has no sections.`, {
        hint: 'Only files of sections with `key = value` take additions.',
      });
    return { ...r, content: mergeIni(r.content, additions) };
  });
}

/** An addition to a file that nothing writes would be forgotten in silence. */
function refuseUnused(model: CloudModel, placed: readonly Placed[]): void {
  const written = (service: string, grammar?: 'ini') => [
    ...new Set(
      placed.flatMap(({ service: s, resource: r }) =>
        s === service && r.kind === 'file' && (grammar === undefined || r.grammar === grammar) ? [r.path] : [],
      ),
    ),
  ];
  for (const [service, files] of Object.entries(model.settings.config))
    for (const path of Object.keys(files))
      if (!written(service).includes(path))
        fail('site-invalid', `cloud.config.${service} adds to ${path}, which this service writes on no node.`, {
          hint: placed.some(p => p.service === service)
            ? `It writes ${written(service, 'ini').join(', ') || 'no file that takes additions'}.`
            : `No node has the service ${service}; there are ${[...new Set(placed.map(p => p.service))].join(', ')}.`,
        });
}

/** A unit comes after every file that it watches, of whatever service. */
function linkWatches(own: readonly Placed[], before: Map<string, string[]>): void {
  const files = new Map(own.flatMap(p => (p.resource.kind === 'file' ? [[p.resource.path, p.key] as const] : [])));
  for (const p of own)
    if (p.resource.kind === 'unit')
      for (const path of p.resource.watches) {
        const key = files.get(path);
        if (!key) throw new Error(`${p.key} watches ${path}, which no service writes on this node`);
        before.get(p.key)!.push(key);
      }
}

function refuseCycles(before: ReadonlyMap<string, readonly string[]>): void {
  const state = new Map<string, 'open' | 'done'>();
  const walk = (key: string, path: readonly string[]): void => {
    if (state.get(key) === 'done' || key.startsWith('@')) return;
    if (state.get(key) === 'open') throw new Error(`these wait for each other: ${[...path, key].join(' ← ')}`);
    state.set(key, 'open');
    for (const next of before.get(key) ?? []) walk(next, [...path, key]);
    state.set(key, 'done');
  };
  for (const key of before.keys()) walk(key, []);
}
