/** Writes the whole site as a file again: what the file says, and what people did by API and UI since. */
import { isDeepStrictEqual } from 'node:util';
import { stringify } from 'yaml';
import type { Node } from '../node/types.js';
import { escapeVariables } from './migrate.js';
import { NodeSchema, type Site, type SiteNode, SiteSchema } from './schema.js';

/**
 * A machine that was merely seen is not yet part of the site; one that somebody claimed, added or adopted is.
 */
const belongs = (node: Node): boolean =>
  node.source !== 'dhcp' || !['discovered', 'inspecting', 'inspecting-failed', 'available'].includes(node.state);

/** A node of the database as an entry of the file. */
export function siteNode(node: Node): SiteNode {
  const { spec } = node;
  const entry: Record<string, unknown> = {
    name: node.name,
    macs: [...node.macs],
    uuid: node.uuid ?? undefined,
    serial: node.serial ?? undefined,
    address: spec.address ?? undefined,
    bmc: spec.bmc ?? undefined,
    rack: spec.rack
      ? { name: spec.rack.name, ...(spec.rack.unit === null ? {} : { unit: spec.rack.unit }) }
      : undefined,
    roles: [...spec.roles],
    install: Object.keys(spec.install).length > 0 ? spec.install : undefined,
  };
  return Object.fromEntries(Object.entries(entry).filter(([, v]) => v !== undefined)) as SiteNode;
}

/**
 * The text of a site file that `loadSite` reads to the same site, with the nodes of the database: for a node that the
 * file names, its values there win, and what it leaves open is filled in. Values equal to their default are left out.
 */
export function exportSite(site: Site, nodes: readonly Node[]): string {
  const named = new Map(site.nodes.map(n => [n.name, n]));
  const seen = new Map(nodes.map(n => [n.name, n]));
  const all: SiteNode[] = site.nodes.map(entry => {
    const node = seen.get(entry.name);
    if (!node) return entry;
    const filled = siteNode(node);
    return {
      ...filled,
      ...entry,
      macs: entry.macs.length > 0 ? entry.macs : filled.macs,
      roles: entry.roles.length > 0 ? entry.roles : filled.roles,
    };
  });
  for (const node of nodes) if (!named.has(node.name) && belongs(node)) all.push(siteNode(node));
  const whole = escaped(prune({ ...site, nodes: all.map(n => prune(n, NodeSchema)) }, SiteSchema));
  return stringify(whole, { lineWidth: 120, aliasDuplicateObjects: false, compat: 'yaml-1.1' });
}

/** Variables are filled in: what looks like one now is meant as it stands. */
function escaped(value: unknown): unknown {
  if (typeof value === 'string') return escapeVariables(value);
  if (Array.isArray(value)) return value.map(escaped);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, escaped(v)]));
}

interface Shape {
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly items?: Shape;
  readonly default?: unknown;
  readonly required?: readonly string[];
}

/** Leaves out what the schema would fill in anyway. */
function prune(value: unknown, schema: object): unknown {
  const shape = schema as Shape;
  if (Array.isArray(value)) return shape.items ? value.map(v => prune(v, shape.items!)) : value;
  if (typeof value !== 'object' || value === null || !shape.properties) return value;
  const out: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) {
    const part = shape.properties[key];
    if (inner === undefined || inner === null) continue;
    const pruned = part ? prune(inner, part) : inner;
    if (part?.default !== undefined && isDeepStrictEqual(pruned, part.default)) continue;
    out[key] = pruned;
  }
  return out;
}
