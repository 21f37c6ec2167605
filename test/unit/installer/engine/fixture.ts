import type { DesiredState, Placed } from '../../../../installer/engine/desired.js';
import type { Resource } from '../../../../installer/model/resources.js';

export const placed = (node: string, service: string, resource: Resource): Placed => ({
  key: `${node}/${service}/${resource.id}`,
  node,
  service,
  resource,
});

/** Resources in one lane after the other: each waits for the one before it. */
export function desired(list: readonly Placed[]): DesiredState {
  const before = new Map<string, string[]>();
  for (const [i, p] of list.entries()) {
    const previous = list.slice(0, i).findLast(o => o.node === p.node && o.service === p.service);
    before.set(p.key, previous ? [previous.key] : []);
  }
  return { model: {} as DesiredState['model'], placed: list, before, milestones: new Map() };
}

export { nothingObserved as nothing } from '../../../../installer/cloud/predict.js';
