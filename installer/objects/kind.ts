/** What the diff and the batch need to know of each kind of object. One object per kind; see kinds.ts. */
import type { OpenStackClient } from '../openstack/client.js';
import type { DesiredObject, FieldChange, FieldValue, ObjectKind, ObservedObject } from './types.js';

type Row = Record<string, unknown>;

/** One look at the cloud: each list is asked for once, whoever needs it. */
export interface Look {
  readonly client: OpenStackClient;
  readonly signal?: AbortSignal | undefined;
  /** A list of the API, once. Empty when the cloud has no such service yet. */
  list(
    service: Parameters<OpenStackClient['list']>[0],
    path: string,
    key: string,
    microversion?: string,
  ): Promise<Row[]>;
  /** A single answer of the API, once. */
  get(service: Parameters<OpenStackClient['list']>[0], path: string, microversion?: string): Promise<unknown>;
  /** Tells that this name has this id: saves looking it up when something refers to it. */
  seen(id: string, apiId: string): void;
}

/** While things are changed. */
export interface Change {
  readonly client: OpenStackClient;
  readonly signal?: AbortSignal | undefined;
  readonly passwordKey: string | Buffer;
  /** Id in the API of the object with our id, e.g. `project:service`. @throws ProblemError cloud-api-failed when there is none */
  idOf(id: string): Promise<string>;
}

export type Desired<K extends ObjectKind> = Extract<DesiredObject, { kind: K }>;

export interface Kind<K extends ObjectKind> {
  /** What makes it the same object, e.g. the name; our id is `KIND:KEY`. */
  key(desired: Desired<K>): string;
  /** Ids of objects that it refers to. */
  refers(desired: Desired<K>): string[];
  /** What is compared. Only named fields are: what the desired object leaves open is left alone. */
  fields(desired: Desired<K>, passwordKey: string | Buffer): Record<string, FieldValue>;
  /** What the cloud has of them, by key. */
  observe(look: Look, wanted: readonly Desired<K>[]): Promise<Map<string, ObservedObject>>;
  /** Fields whose change takes a new object: the old one goes. */
  readonly replacing?: readonly string[];
  /** Fields that only a new object could have, where the old one is left as it is: why, and what the operator can do. */
  readonly left?: Readonly<Record<string, string>>;
  /** Fields that cannot be changed, with the reason. */
  readonly fixed?: Readonly<Record<string, string>>;
  /** Fields that are not shown. */
  readonly secret?: readonly string[];
  /** Makes it; returns its id in the API. */
  create(change: Change, desired: Desired<K>): Promise<string>;
  update(change: Change, desired: Desired<K>, id: string, changes: readonly FieldChange[]): Promise<void>;
  /** Absent for kinds that are never deleted. */
  remove?(change: Change, id: string): Promise<void>;
}

/** Fields of a map with a prefix: `spec hw:cpu_policy`. */
export function mapFields(prefix: string, map: Readonly<Record<string, string>> = {}): Record<string, FieldValue> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [`${prefix} ${key}`, value]));
}

/** The part of a map that is among the changes. */
export function changedMap(
  prefix: string,
  map: Readonly<Record<string, string>> = {},
  changes: readonly FieldChange[],
): Record<string, string> | undefined {
  const names = new Set(changes.map(c => c.field));
  const part = Object.entries(map).filter(([key]) => names.has(`${prefix} ${key}`));
  return part.length > 0 ? Object.fromEntries(part) : undefined;
}

/** Leaves out what is undefined. */
export function given<T extends Record<string, unknown>>(values: T): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

export const reply = (signal: AbortSignal | undefined, microversion?: string) => ({
  ...(signal ? { signal } : {}),
  ...(microversion ? { microversion } : {}),
});
