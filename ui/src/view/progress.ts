/** What the events of a run of the cloud come to: its actions or steps, each with how it stands. Pure. */
import type { CloudEventData } from '../../../provisioner/core/cloud-service.js';
import type { FeedEvent } from '../../../provisioner/core/events.js';

export interface Item {
  readonly id: string;
  readonly where: string;
  readonly title: string;
  readonly state: 'running' | 'ok' | 'failed' | 'blocked' | 'skipped';
  readonly sinceMs: number;
  readonly seconds: number | null;
  readonly message: string | null;
}

const CHECK = { begin: 'running', passed: 'ok', failed: 'failed', skipped: 'skipped' } as const;

/** In the order they began. @param events oldest first, of any run */
export function itemsOf(events: readonly FeedEvent[], runId: string): Item[] {
  const items = new Map<string, Item>();
  for (const event of events) {
    if (event.data['runId'] !== runId) continue;
    if (event.type === 'cloud.action') {
      const data = event.data as unknown as CloudEventData['cloud.action'];
      items.set(data.id, {
        id: data.id,
        where: `${data.node} · ${data.service}`,
        title: data.title,
        state: data.state === 'begin' ? 'running' : data.state,
        sinceMs: items.get(data.id)?.sinceMs ?? event.atMs,
        seconds: data.seconds,
        message: data.message,
      });
    } else if (event.type === 'cloud.check') {
      const data = event.data as unknown as CloudEventData['cloud.check'];
      items.set(data.name, {
        id: data.name,
        where: '',
        title: data.title,
        state: CHECK[data.state],
        sinceMs: items.get(data.name)?.sinceMs ?? event.atMs,
        seconds: data.seconds,
        message: data.message,
      });
    }
  }
  return [...items.values()];
}

/** How many actions the run has; null when its begin was not seen. */
export function plannedOf(events: readonly FeedEvent[], runId: string): number | null {
  const begin = events.find(e => e.type === 'cloud.plan' && e.data['runId'] === runId);
  return begin ? (begin.data as unknown as CloudEventData['cloud.plan']).actions : null;
}
