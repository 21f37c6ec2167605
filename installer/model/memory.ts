/**
 * What was settled by earlier applies and must not settle itself anew: which node had a service first, how rings grew.
 * The order in which nodes are handed in is that of their discovery; what lives on disks must not follow it. Pure.
 */
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';

const Disk = Type.Object({
  node: Type.String(),
  /** Name of its folder under /srv/node. */
  disk: Type.String(),
  zone: Type.Integer({ minimum: 1 }),
  /** At the time of the step. */
  address: Type.String(),
});
/** One rebalance of Swift's rings. */
const RingStep = Type.Object({
  replicas: Type.Integer({ minimum: 1 }),
  add: Type.Array(Disk),
  remove: Type.Array(Type.Object({ node: Type.String(), disk: Type.String() })),
});
const Memory = Type.Object({
  /** Service → the nodes that have it, in the order in which they got it. */
  joined: Type.Record(Type.String(), Type.Array(Type.String())),
  /** From the first day on; only ever appended to. */
  rings: Type.Array(RingStep),
});

export type RingDisk = Readonly<Static<typeof Disk>>;
export type RingStep = {
  readonly replicas: number;
  readonly add: readonly RingDisk[];
  readonly remove: readonly Pick<RingDisk, 'node' | 'disk'>[];
};
export interface CloudMemory {
  readonly joined: Readonly<Record<string, readonly string[]>>;
  readonly rings: readonly RingStep[];
}

/** Of a cloud that was never laid down. */
export const NO_MEMORY: CloudMemory = { joined: {}, rings: [] };

/** @throws Error for a text that `writeMemory` did not make */
export function readMemory(text: string | undefined): CloudMemory {
  if (text === undefined) return NO_MEMORY;
  const value: unknown = JSON.parse(text);
  if (!Value.Check(Memory, value))
    throw new Error('what earlier applies settled cannot be read: it was written by another version of Halligan');
  return value;
}

export const writeMemory = (memory: CloudMemory): string => JSON.stringify(memory);

/**
 * Those that left are forgotten, those that are new come last; a service that is on no node any more begins anew.
 * @param unseen nodes that are away or not planned with for now: they keep their place
 */
export function joinedAfter(
  before: CloudMemory['joined'],
  nodes: readonly { readonly name: string; readonly services: readonly string[] }[],
  unseen: readonly string[] = [],
): CloudMemory['joined'] {
  const having = new Map<string, string[]>();
  for (const [service, names] of Object.entries(before))
    for (const n of names) if (unseen.includes(n)) having.set(service, [...(having.get(service) ?? []), n]);
  for (const n of nodes) for (const s of n.services) having.set(s, [...(having.get(s) ?? []), n.name]);
  return Object.fromEntries(
    [...having].map(([service, names]) => {
      const stay = (before[service] ?? []).filter(n => names.includes(n));
      return [service, [...stay, ...names.filter(n => !stay.includes(n))]];
    }),
  );
}
