/**
 * The one transition table of a node. States, labels, legal actions, failure states and the diagram of the docs derive
 * from it. `maintenance`, `unreachable` and `overdue` are flags beside the state, not states.
 */

/** kind working: has a handler, a deadline and a derived failure state. kind resting: waits for somebody. */
export const STATES = {
  discovered: { kind: 'resting', label: 'Discovered', waitsFor: 'its first boot from the network' },
  inspecting: { kind: 'working', label: 'Inspecting' },
  available: { kind: 'resting', label: 'Available', waitsFor: 'somebody to claim it' },
  claimed: { kind: 'resting', label: 'Claimed', waitsFor: 'the order to install' },
  installing: { kind: 'working', label: 'Installing' },
  installed: { kind: 'resting', label: 'Installed', waitsFor: 'roles' },
  applying: { kind: 'working', label: 'Applying' },
  ready: { kind: 'resting', label: 'Ready', waitsFor: 'nothing' },
  releasing: { kind: 'working', label: 'Releasing' },
  rescuing: { kind: 'working', label: 'Entering rescue' },
  rescue: { kind: 'resting', label: 'Rescue', waitsFor: 'somebody to end the rescue' },
} as const satisfies Record<string, { kind: 'working' | 'resting'; label: string; waitsFor?: string }>;

export type BaseState = keyof typeof STATES;
export type WorkingState = { [S in BaseState]: (typeof STATES)[S]['kind'] extends 'working' ? S : never }[BaseState];
export type FailureState = `${WorkingState}-failed`;
export type NodeState = BaseState | FailureState;

export const BASE_STATES = Object.keys(STATES) as BaseState[];
export const WORKING_STATES = BASE_STATES.filter(s => STATES[s].kind === 'working') as WorkingState[];
export const NODE_STATES: readonly NodeState[] = [...BASE_STATES, ...WORKING_STATES.map(s => `${s}-failed` as const)];

export const isWorking = (state: NodeState): state is WorkingState => (WORKING_STATES as NodeState[]).includes(state);
export const isFailure = (state: NodeState): state is FailureState => state.endsWith('-failed');
export const stateLabel = (state: NodeState): string =>
  isFailure(state)
    ? `${STATES[state.slice(0, -'-failed'.length) as WorkingState].label} failed`
    : STATES[state as BaseState].label;

/** What moves a node: `from` lists states, `to` is where it goes. Events named like actions are ordered by operators. */
export const TRANSITIONS = {
  // The operator's actions (intents).
  inspect: { from: ['discovered', 'available', 'inspecting-failed', 'claimed'], to: 'inspecting', action: true },
  claim: { from: ['available'], to: 'claimed', action: true },
  unclaim: { from: ['claimed'], to: 'available', action: true },
  install: {
    from: ['claimed', 'installing-failed', 'installed', 'ready', 'applying-failed', 'rescue', 'rescuing-failed'],
    to: 'installing',
    action: true,
  },
  release: {
    from: [
      'claimed',
      'installed',
      'ready',
      'installing-failed',
      'applying-failed',
      'releasing-failed',
      'rescue',
      'rescuing-failed',
    ],
    to: 'releasing',
    action: true,
  },
  rescue: {
    from: [
      'available',
      'claimed',
      'installed',
      'ready',
      'installing-failed',
      'applying-failed',
      'rescuing-failed',
      'releasing-failed',
    ],
    to: 'rescuing',
    action: true,
  },
  apply: { from: ['installed', 'ready', 'applying-failed'], to: 'applying', action: true },
  abort: { from: ['inspecting', 'installing', 'applying', 'releasing', 'rescuing'], to: 'failure', action: true },
  // What the state loop sees.
  'called-home': { from: ['discovered'], to: 'inspecting', action: false },
  inspected: { from: ['inspecting'], to: 'available', action: false },
  'install-done': { from: ['installing'], to: 'installed', action: false },
  'apply-done': { from: ['applying'], to: 'ready', action: false },
  released: { from: ['releasing'], to: 'available', action: false },
  'rescue-ready': { from: ['rescuing'], to: 'rescue', action: false },
  // Leaving rescue returns to where the node came from (status.rescueFrom).
  'end-rescue': { from: ['rescue', 'rescuing-failed'], to: 'previous', action: true },
  adopted: { from: ['discovered'], to: 'installed', action: false },
} as const satisfies Record<
  string,
  { from: readonly NodeState[]; to: BaseState | 'failure' | 'previous'; action: boolean }
>;

export type NodeEvent = keyof typeof TRANSITIONS;
export type NodeAction = { [E in NodeEvent]: (typeof TRANSITIONS)[E]['action'] extends true ? E : never }[NodeEvent];
export const NODE_ACTIONS = (Object.keys(TRANSITIONS) as NodeEvent[]).filter(
  e => TRANSITIONS[e].action,
) as NodeAction[];

export type TransitionResult =
  | { readonly ok: true; readonly to: NodeState }
  | { readonly ok: false; readonly sentence: string };

/**
 * Where `event` leads from `state`, or the sentence that the operator reads when it does not.
 * @param previous the state that a rescue came from
 */
export function transition(state: NodeState, event: NodeEvent, previous?: NodeState): TransitionResult {
  const row: { from: readonly NodeState[]; to: BaseState | 'failure' | 'previous' } = TRANSITIONS[event];
  if (!row.from.includes(state)) {
    const froms = row.from.map(stateLabel).join(', ');
    return {
      ok: false,
      sentence: `${event} is not possible while the node is ${stateLabel(state)}; it is from: ${froms}.`,
    };
  }
  if (row.to === 'failure') return { ok: true, to: `${state as WorkingState}-failed` };
  if (row.to === 'previous') return { ok: true, to: previous ?? 'available' };
  return { ok: true, to: row.to };
}

/** The actions that are legal now, in the table's order. */
export function legalActions(state: NodeState): NodeAction[] {
  return NODE_ACTIONS.filter(a => (TRANSITIONS[a].from as readonly NodeState[]).includes(state));
}

/** What a working state's handler says about a node: nothing else changes a state. */
export type Outcome =
  | { readonly kind: 'stay'; readonly waitingFor: string }
  | { readonly kind: 'go'; readonly event: NodeEvent; readonly reason: string }
  | { readonly kind: 'fail'; readonly problem: import('../core/problem.js').Problem };

export const stay = (waitingFor: string): Outcome => ({ kind: 'stay', waitingFor });
export const go = (event: NodeEvent, reason: string): Outcome => ({ kind: 'go', event, reason });
