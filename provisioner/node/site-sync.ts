/** What the site file names, it owns: its nodes are made or updated at start, and its values cannot be changed elsewhere. */
import type { Site, SiteNode } from '../site/schema.js';
import { usableSerial, usableUuid } from './identity.js';
import type { NodeRepository } from './repository.js';
import type { Node, NodeSpec } from './types.js';

/** What the entry says; what it leaves open is the operator's, and stays as it was set. */
const specOf = (entry: SiteNode): Partial<NodeSpec> => ({
  ...(entry.address === undefined ? {} : { address: entry.address }),
  ...(entry.bmc === undefined ? {} : { bmc: entry.bmc }),
  ...(entry.roles.length === 0 ? {} : { roles: [...entry.roles] }),
  ...(entry.install === undefined ? {} : { install: entry.install }),
  ...(entry.rack ? { rack: { name: entry.rack.name, unit: entry.rack.unit ?? null } } : {}),
});

/** The node that an entry of the site file means: same MAC, else same UUID, else same name. */
export function nodeOfEntry(entry: SiteNode, nodes: readonly Node[]): Node | undefined {
  const macs = entry.macs.map(m => m.toLowerCase());
  return (
    nodes.find(n => n.macs.some(m => macs.includes(m))) ??
    nodes.find(
      n => entry.uuid !== undefined && usableUuid(n.uuid) === usableUuid(entry.uuid) && usableUuid(n.uuid) !== null,
    ) ??
    nodes.find(
      n =>
        entry.serial !== undefined &&
        usableSerial(n.serial) === usableSerial(entry.serial) &&
        usableSerial(n.serial) !== null,
    ) ??
    nodes.find(n => n.name === entry.name)
  );
}

/** Brings the nodes of the site file into the repository. Nodes that the file no longer names stay, as the operator's. */
export async function syncSite(site: Site, nodes: NodeRepository): Promise<void> {
  const named = new Set<string>();
  // Names may have been exchanged between nodes: free those that are to change before they are given anew.
  for (const entry of site.nodes) {
    const known = nodeOfEntry(entry, nodes.all());
    if (known && known.name !== entry.name) await nodes.update(known.id, () => ({ name: `renamed-${known.id}` }));
  }
  for (const entry of site.nodes) {
    const known = nodeOfEntry(entry, nodes.all());
    if (!known) {
      const made = await nodes.create({
        name: entry.name,
        source: 'site',
        uuid: usableUuid(entry.uuid),
        serial: usableSerial(entry.serial),
        macs: entry.macs,
        spec: specOf(entry),
        reason: 'Named in the site file.',
      });
      named.add(made.id);
      continue;
    }
    named.add(known.id);
    for (const mac of entry.macs) await nodes.assignMac(known.id, mac);
    await nodes.update(known.id, n => ({ name: entry.name, source: 'site', spec: { ...n.spec, ...specOf(entry) } }));
  }
  for (const node of nodes.all())
    if (node.source === 'site' && !named.has(node.id)) await nodes.update(node.id, () => ({ source: 'api' }));
}
