/** The fleet at a glance: what needs a person, and how many are where. Pure. */
import { needsPerson } from '../../../provisioner/node/filter.js';
import {
  BASE_STATES,
  isFailure,
  isWorking,
  NODE_STATES,
  type NodeAction,
  type NodeState,
  stateLabel,
} from '../../../provisioner/node/lifecycle.js';
import type { NodeView } from '../../../provisioner/node/service.js';

export type Tone = 'bad' | 'busy' | 'good' | 'wait';

export const toneOf = (node: Pick<NodeView, 'state' | 'overdue'>): Tone =>
  isFailure(node.state) || node.overdue
    ? 'bad'
    : isWorking(node.state)
      ? 'busy'
      : node.state === 'ready' || node.state === 'installed'
        ? 'good'
        : 'wait';

/** A shape for each tone, so that colour is never alone. */
export const GLYPH: Readonly<Record<Tone, string>> = { bad: '✕', busy: '◐', good: '●', wait: '○' };

export interface StateCount {
  readonly state: NodeState;
  readonly label: string;
  readonly count: number;
  readonly tone: Tone;
}

/** States that nodes are in, in the order of the lifecycle, each failure after its state. */
export function byState(nodes: readonly NodeView[]): StateCount[] {
  const counts = new Map<NodeState, number>();
  for (const node of nodes) counts.set(node.state, (counts.get(node.state) ?? 0) + 1);
  const order = BASE_STATES.flatMap(s => NODE_STATES.filter(n => n === s || n === `${s}-failed`));
  return order.flatMap(state => {
    const count = counts.get(state);
    return count === undefined
      ? []
      : [{ state, label: stateLabel(state), count, tone: toneOf({ state, overdue: false }) }];
  });
}

export interface Attention {
  readonly title: string;
  readonly reason: string;
  readonly nodes: readonly NodeView[];
  /** What a person can order for all of them; null: each has to be looked at. */
  readonly action: NodeAction | null;
  readonly tone: Tone;
}

/** The action that takes a failed node on: the one it failed in. */
const RETRY: Partial<Record<NodeState, NodeAction>> = {
  'inspecting-failed': 'inspect',
  'installing-failed': 'install',
  'applying-failed': 'apply',
  'releasing-failed': 'release',
  'rescuing-failed': 'rescue',
};

/** What needs a person, worst first. Failures for one reason are one line. */
export function attention(nodes: readonly NodeView[]): Attention[] {
  const groups = new Map<string, NodeView[]>();
  for (const node of nodes)
    if (isFailure(node.state) && node.maintenance === null) {
      const key = `${node.state} ${node.failure?.code ?? ''}`;
      groups.set(key, [...(groups.get(key) ?? []), node]);
    }
  const failures = [...groups.values()].map((group): Attention => {
    const first = group[0]!;
    return {
      title: `${first.label}${group.length > 1 ? ` on ${group.length} nodes` : `: ${first.name}`}`,
      reason: `${first.failure?.message ?? 'No reason was recorded.'} ${first.failure?.hint ?? ''}`.trim(),
      nodes: group,
      action: RETRY[first.state] ?? null,
      tone: 'bad',
    };
  });
  const late = nodes.filter(n => n.overdue && !isFailure(n.state) && n.maintenance === null);
  const available = nodes.filter(n => n.state === 'available' && !needsPerson(n));
  const claimed = nodes.filter(n => n.state === 'claimed' && !needsPerson(n));
  const kept = nodes.filter(n => n.maintenance !== null);
  const line = (title: string, reason: string, some: NodeView[], action: NodeAction | null, tone: Tone): Attention[] =>
    some.length === 0 ? [] : [{ title, reason, nodes: some, action, tone }];
  const many = (some: NodeView[]) => `${some.length} ${some.length === 1 ? 'node' : 'nodes'}`;
  return [
    ...failures.sort((a, b) => b.nodes.length - a.nodes.length),
    ...line(`${many(late)} longer than expected`, late[0]?.sentence ?? '', late, null, 'bad'),
    ...line(`${many(available)} to claim`, 'Inspected, and nobody claimed them yet.', available, 'claim', 'wait'),
    ...line(`${many(claimed)} to install`, 'Claimed; they wait for the order to install.', claimed, 'install', 'wait'),
    ...line(`${many(kept)} in maintenance`, kept[0]?.maintenance ?? '', kept, null, 'wait'),
  ];
}
