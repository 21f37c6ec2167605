/** Filter of the page of events. Pure. */
import type { FeedEvent } from '../../../provisioner/core/events.js';

/** Newest first; every word is in the message, is the type's begin, the severity, or the name of the node. */
export function eventsMatching(
  events: readonly FeedEvent[],
  text: string,
  nameOf: (nodeId: string) => string | undefined,
): FeedEvent[] {
  const words = text
    .toLowerCase()
    .split(/\s+/)
    .filter(w => w !== '');
  const holds = (e: FeedEvent, word: string) =>
    e.severity === word ||
    e.type.startsWith(word) ||
    e.message.toLowerCase().includes(word) ||
    (e.nodeId !== null && (nameOf(e.nodeId)?.toLowerCase().startsWith(word) ?? false));
  return events.filter(e => words.every(w => holds(e, w))).reverse();
}
