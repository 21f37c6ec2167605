/** What a typed or pasted text can mean. Pure. */
import { reachedAt } from '../../../provisioner/node/filter.js';
import type { NodeView } from '../../../provisioner/node/service.js';

export type Hit<P extends string> =
  | { readonly kind: 'page'; readonly to: P; readonly title: string; readonly note: string }
  | { readonly kind: 'node'; readonly id: string; readonly title: string; readonly note: string };

const HITS_MAX = 12;

/** Pages by their begin, then nodes: exact matches first. A MAC may be written with hyphens or without any sign. */
export function hitsOf<P extends string>(
  text: string,
  places: readonly { readonly to: P; readonly title: string }[],
  nodes: readonly NodeView[],
): Hit<P>[] {
  const word = text.trim().toLowerCase();
  const pages = places
    .filter(p => p.title.toLowerCase().startsWith(word))
    .map((p): Hit<P> => ({ kind: 'page', to: p.to, title: p.title, note: 'page' }));
  if (word === '') return pages;
  const hex = word.replace(/[:.-]/g, '');
  const isMac = /^[0-9a-f]{6,12}$/.test(hex);
  const rank = (n: NodeView): number => {
    const own = [n.name, n.serial, n.uuid, reachedAt(n), ...n.macs].flatMap(v => (v ? [v.toLowerCase()] : []));
    if (own.includes(word)) return 0;
    if (isMac && n.macs.some(m => m.replaceAll(':', '').startsWith(hex))) return 1;
    if (own.some(v => v.startsWith(word))) return 2;
    return own.some(v => v.includes(word)) ? 3 : 4;
  };
  const found = nodes
    .map(node => ({ node, rank: rank(node) }))
    .filter(f => f.rank < 4)
    .sort((a, b) => a.rank - b.rank)
    .slice(0, HITS_MAX)
    .map((f): Hit<P> => ({ kind: 'node', id: f.node.id, title: f.node.name, note: f.node.label }));
  return [...pages, ...found].slice(0, HITS_MAX);
}
