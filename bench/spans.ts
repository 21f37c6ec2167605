/** Figures that are read off the events of a run. Pure. */
import type { CloudEventData } from '../provisioner/core/cloud-service.js';
import type { FeedEvent } from '../provisioner/core/events.js';

interface Span {
  readonly beginMs: number;
  readonly endMs: number;
}

/** Seconds in which at least one of them was open. */
export function unionSeconds(spans: readonly Span[]): number {
  let [total, until] = [0, Number.NEGATIVE_INFINITY];
  for (const { beginMs, endMs } of [...spans].sort((a, b) => a.beginMs - b.beginMs)) {
    total += Math.max(0, endMs - Math.max(beginMs, until));
    until = Math.max(until, endMs);
  }
  return total / 1000;
}

/** An action of a run as its events tell it; actions that did not end well are left out. */
export interface ActionSpan extends Span {
  readonly id: string;
  readonly node: string;
  readonly title: string;
}

export function actionSpans(events: readonly FeedEvent[], runId: string): ActionSpan[] {
  const begun = new Map<string, number>();
  return events.flatMap(event => {
    if (event.type !== 'cloud.action' || event.data['runId'] !== runId) return [];
    const { id, node, title, state, seconds } = event.data as unknown as CloudEventData['cloud.action'];
    if (state === 'begin') begun.set(id, event.atMs);
    const beginMs = begun.get(id);
    if (state !== 'ok' || beginMs === undefined) return [];
    // An event is stamped when it is stored, and many are stored at once: what the action measured is the better figure.
    return [{ id, node, title, beginMs, endMs: beginMs + Math.round((seconds ?? 0) * 1000) }];
  });
}

/** When a step of a verification passed, in ms; null when it did not. */
export function passedAtMs(events: readonly FeedEvent[], runId: string, step: string): number | null {
  const passed = events.find(e => {
    if (e.type !== 'cloud.check' || e.data['runId'] !== runId) return false;
    return e.data['name'] === step && e.data['state'] === 'passed';
  });
  return passed?.atMs ?? null;
}
