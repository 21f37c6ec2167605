import { describe, expect, it } from 'vitest';
import { actionSpans, passedAtMs, unionSeconds } from '../../../bench/spans.js';
import type { FeedEvent } from '../../../provisioner/core/events.js';

let id = 0;
const at = (atMs: number, type: string, data: Record<string, unknown>): FeedEvent => ({
  id: ++id,
  atMs,
  type,
  severity: 'info',
  nodeId: null,
  message: '',
  data: { runId: 'r', ...data },
});
const action = (atMs: number, name: string, state: string, seconds: number | null = null) =>
  at(atMs, 'cloud.action', { id: name, node: 'cloud', title: name, state, seconds });

describe('figures of a run', () => {
  it('count time once in which several things went on', () => {
    const span = (beginMs: number, endMs: number) => ({ beginMs, endMs });
    expect(unionSeconds([])).toBe(0);
    expect(unionSeconds([span(5000, 6000), span(0, 2000), span(1000, 3000), span(1500, 1600)])).toBe(4);
  });

  it('take actions that ended well, of this run, with the seconds that they measured', () => {
    const events = [
      action(1000, 'a', 'begin'),
      action(1100, 'b', 'begin'),
      action(2000, 'b', 'failed', 0.9),
      action(3900, 'a', 'ok', 2.5),
      at(1000, 'cloud.action', { runId: 'other', id: 'c', node: 'cloud', title: 'c', state: 'begin', seconds: null }),
      at(2000, 'cloud.action', { runId: 'other', id: 'c', node: 'cloud', title: 'c', state: 'ok', seconds: 1 }),
    ];
    expect(actionSpans(events, 'r')).toEqual([{ id: 'a', node: 'cloud', title: 'a', beginMs: 1000, endMs: 3500 }]);
  });

  it('say when a step passed, and nothing of one that did not', () => {
    const check = (atMs: number, name: string, state: string) => at(atMs, 'cloud.check', { name, state });
    const events = [check(1, 'ssh', 'begin'), check(9, 'ssh', 'passed'), check(10, 'ping', 'failed')];
    expect(passedAtMs(events, 'r', 'ssh')).toBe(9);
    expect(passedAtMs(events, 'r', 'ping')).toBeNull();
    expect(passedAtMs(events, 'other', 'ssh')).toBeNull();
  });
});
