import { describe, expect, it } from 'vitest';
import { chooseBoot } from '../../../provisioner/node/boot-choice.js';
import { lifecyclePage } from '../../../provisioner/node/diagram.js';
import {
  isFailure,
  isWorking,
  legalActions,
  NODE_ACTIONS,
  NODE_STATES,
  type NodeEvent,
  stateLabel,
  TRANSITIONS,
  transition,
  WORKING_STATES,
} from '../../../provisioner/node/lifecycle.js';
import { aNode } from './fixtures.js';

describe('the lifecycle table', () => {
  it('has no dead ends: every state is left by some event', () => {
    for (const state of NODE_STATES) {
      const ways = (Object.keys(TRANSITIONS) as NodeEvent[]).filter(e => transition(state, e).ok);
      expect(ways, `${state} can be left`).not.toHaveLength(0);
    }
  });

  it('reaches every state from discovered', () => {
    const seen = new Set<string>(['discovered']);
    for (let grown = true; grown; ) {
      grown = false;
      for (const state of [...seen] as (typeof NODE_STATES)[number][]) {
        const next = (Object.keys(TRANSITIONS) as NodeEvent[]).flatMap(e => {
          const r = transition(state, e);
          return r.ok ? [r.to] : [];
        });
        if (isWorking(state)) next.push(`${state}-failed`);
        for (const to of next)
          if (!seen.has(to)) {
            seen.add(to);
            grown = true;
          }
      }
    }
    expect([...seen].sort()).toEqual([...NODE_STATES].sort());
  });

  it('derives one failure state per working state, and an operator can leave each', () => {
    expect(NODE_STATES.filter(isFailure)).toEqual(WORKING_STATES.map(s => `${s}-failed`));
    for (const state of NODE_STATES.filter(isFailure)) expect(legalActions(state), state).not.toHaveLength(0);
  });

  it('lets every working state be aborted', () => {
    for (const state of WORKING_STATES) expect(transition(state, 'abort')).toEqual({ ok: true, to: `${state}-failed` });
  });

  it.each(NODE_ACTIONS)('refuses %s with a sentence that names the states it is possible from', action => {
    const refused = NODE_STATES.filter(s => !(TRANSITIONS[action].from as readonly string[]).includes(s));
    expect(refused.length).toBeGreaterThan(0);
    for (const state of refused) {
      const result = transition(state, action);
      expect(result.ok).toBe(false);
      if (!result.ok) {
        expect(result.sentence).toContain(stateLabel(state));
        expect(result.sentence).toContain(stateLabel(TRANSITIONS[action].from[0]!));
      }
    }
  });

  it('never wipes by accident: install is not possible from available, discovered or a working state', () => {
    for (const state of ['available', 'discovered', 'inspecting', 'installing', 'releasing'] as const)
      expect(transition(state, 'install').ok, state).toBe(false);
  });

  it('is what docs/lifecycle.md shows', async () => {
    await expect(lifecyclePage()).toMatchFileSnapshot('../../../docs/lifecycle.md');
  });

  it('returns from rescue to where the node came from', () => {
    expect(transition('rescue', 'end-rescue', 'ready')).toEqual({ ok: true, to: 'ready' });
  });
});

describe('what a node boots', () => {
  it.each(NODE_STATES)('has an answer with a reason in state %s', state => {
    const choice = chooseBoot(aNode({ state }));
    expect(choice.reason).toContain(stateLabel(state));
  });

  it('boots its disk while installing only after the disk was written to its end', () => {
    expect(chooseBoot(aNode({ state: 'installing' })).kind).toBe('ram');
    expect(chooseBoot(aNode({ state: 'installing', status: { diskReady: true } })).kind).toBe('local');
  });

  it.each(['installed', 'ready', 'applying', 'applying-failed'] as const)(
    'never takes a node that is %s off its disk',
    state => {
      expect(chooseBoot(aNode({ state })).kind).toBe('local');
    },
  );
});
