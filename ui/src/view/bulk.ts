/** What one order would do to several nodes, said before it is given. Pure. */
import type { NodeAction } from '../../../provisioner/node/lifecycle.js';
import { planAction } from '../../../provisioner/node/plan.js';
import type { ActionParams, NodeView } from '../../../provisioner/node/service.js';

export type Order =
  | { readonly kind: 'action'; readonly action: NodeAction; readonly params: ActionParams }
  | { readonly kind: 'power'; readonly action: 'on' | 'off' | 'cycle' }
  | { readonly kind: 'roles'; readonly add: string[]; readonly remove: string[] };

export interface Review {
  readonly can: readonly NodeView[];
  /** Those that cannot, by reason. */
  readonly cannot: readonly { readonly reason: string; readonly nodes: readonly NodeView[] }[];
  /** `NODE: what`, of those that can. */
  readonly destroys: readonly string[];
  readonly interrupts: readonly string[];
}

export const orderLabel = (order: Order): string =>
  order.kind === 'action'
    ? order.action.charAt(0).toUpperCase() + order.action.slice(1).replaceAll('-', ' ')
    : order.kind === 'power'
      ? { on: 'Power on', off: 'Power off', cycle: 'Power cycle' }[order.action]
      : 'Change roles';

function refusal(node: NodeView, order: Order): string | null {
  if (order.kind === 'action') {
    const { refusal: sentence } = planAction(node, order.action, order.params);
    // For several nodes at once the sentence names no node.
    return sentence;
  }
  if (order.kind === 'power')
    return node.spec.bmc === null || node.spec.bmc.driver === 'manual'
      ? 'It has no BMC that switches it: a person has to.'
      : null;
  const after = new Set(node.spec.roles.filter(r => !order.remove.includes(r)));
  const changes = order.add.some(r => !after.has(r)) || after.size !== node.spec.roles.length;
  return changes ? null : 'Its roles are so already.';
}

export function review(nodes: readonly NodeView[], order: Order): Review {
  const can: NodeView[] = [];
  const reasons = new Map<string, NodeView[]>();
  for (const node of nodes) {
    const reason = refusal(node, order);
    if (reason === null) can.push(node);
    else reasons.set(reason, [...(reasons.get(reason) ?? []), node]);
  }
  const planned = order.kind === 'action' ? can.map(node => planAction(node, order.action, order.params)) : [];
  return {
    can,
    cannot: [...reasons].map(([reason, some]) => ({ reason, nodes: some })),
    destroys: planned.flatMap(p => p.destroys.map(what => `${p.node}: ${what}`)),
    interrupts:
      order.kind === 'power' && order.action !== 'on'
        ? can.filter(n => n.status.os).map(n => `${n.name}: the running system`)
        : planned.flatMap(p => p.interrupts.map(what => `${p.node}: ${what}`)),
  };
}

/** `Install 9 · 3 cannot` */
export const reviewTitle = (order: Order, { can, cannot }: Review): string => {
  const without = cannot.reduce((sum, c) => sum + c.nodes.length, 0);
  return `${orderLabel(order)} ${can.length}${without === 0 ? '' : ` · ${without} cannot`}`;
};

/** What has to be typed before data dies: the name of the one node, or how many. */
export const wordToType = (found: Review): string | null =>
  found.destroys.length === 0 ? null : found.can.length === 1 ? found.can[0]!.name : `${found.can.length} nodes`;

/** A few names, and how many more. */
export const few = (nodes: readonly { readonly name: string }[], most = 5): string =>
  nodes
    .slice(0, most)
    .map(n => n.name)
    .join(', ') + (nodes.length > most ? ` and ${nodes.length - most} more` : '');
