/** What an action would do to a node, as a value: for dry runs, for confirmation, and for whoever asks the API. Pure. */
import { type NodeAction, transition } from './lifecycle.js';
import type { ActionParams, NodeView } from './service.js';

export interface PlannedAction {
  readonly node: string;
  readonly action: NodeAction;
  /** Why it is not possible now, or null. */
  readonly refusal: string | null;
  /** What is lost. */
  readonly destroys: readonly string[];
  readonly interrupts: readonly string[];
  /** Rough; null where nothing is worked on. */
  readonly expectedSeconds: number | null;
}

const EXPECTED: Partial<Record<NodeAction, number>> = {
  inspect: 180,
  install: 420,
  release: 240,
  rescue: 180,
  'end-rescue': 180,
};

/** Rough seconds of an action; null where nothing is worked on. */
export const expectedSeconds = (action: NodeAction): number | null => EXPECTED[action] ?? null;

/** @param node as the API shows it: an inventory may be old or missing, then the sentences say less */
export function planAction(node: NodeView, action: NodeAction, params: ActionParams): PlannedAction {
  const result = transition(node.state, action, node.status.rescueFrom ?? undefined);
  const destroys: string[] = [];
  const interrupts: string[] = [];
  const { os, inventory } = node.status;
  const disks = inventory?.disks ?? [];
  const foreign = disks.filter(d => !d.ownedBy && d.signatures.length > 0).map(d => d.path);
  if (action === 'install' && (os || node.status.diskReady))
    destroys.push(`the installed system${os ? ` (${os.image})` : ''}`);
  if (action === 'install' && params.wipe)
    destroys.push(
      foreign.length > 0 ? `data on the chosen disks, of ${foreign.join(', ')}` : 'data on the chosen disks',
    );
  if (action === 'release') {
    const gone = disks.filter(d => !d.removable && !d.readOnly && (params.wipe || d.ownedBy)).map(d => d.path);
    const whose = params.wipe ? 'all disks' : 'the disks that we installed';
    destroys.push(
      `${os && node.source !== 'adopt' ? `the installed system (${os.image}) and ` : ''}everything on ${gone.length > 0 ? gone.join(', ') : whose}${params.erase === 'full' ? ', every block' : ''}`,
    );
  }
  if (os && ['install', 'release', 'rescue', 'inspect'].includes(action)) interrupts.push('the running system');
  return {
    node: node.name,
    action,
    refusal: result.ok ? null : result.sentence,
    destroys,
    interrupts,
    expectedSeconds: expectedSeconds(action),
  };
}
