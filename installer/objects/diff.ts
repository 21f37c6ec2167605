/** What is to do, so that the cloud has what it shall have. Pure; an unchanged cloud yields nothing. */
import { expand, kindOf, objectTitle, rankOf } from './kinds.js';
import type {
  DesiredObject,
  DesiredObjects,
  FieldChange,
  FieldValue,
  ObjectAction,
  ObjectKind,
  ObservedObject,
  ObservedObjects,
} from './types.js';

const same = (a: FieldValue, b: FieldValue): boolean => JSON.stringify(a) === JSON.stringify(b);

function changesOf(desired: DesiredObject, observed: ObservedObject | undefined, key: string | Buffer): FieldChange[] {
  const kind = kindOf(desired.kind);
  return Object.entries(kind.fields(desired, key))
    .map(([field, to]) => ({ field, from: observed?.fields[field] ?? null, to }))
    .filter(({ from, to }) => !observed || !same(from, to))
    .map(change =>
      kind.secret?.includes(change.field)
        ? { field: change.field, from: observed ? '(another or unknown)' : null, to: '(secret)' }
        : change,
    );
}

/** An object that differs and is left as it is, for it would have to be deleted. */
export interface LeftObject {
  readonly object: string;
  readonly changes: readonly FieldChange[];
  readonly why: string;
}

/** What differs and is not touched: the operator's, to judge. Pure. */
export const leftObjects = (desired: DesiredObjects, observed: ObservedObjects): LeftObject[] =>
  [...expand(desired).objects].flatMap(([id, object]) => {
    const { left = {} } = kindOf(object.kind);
    const there = observed.objects[id];
    const changes = there
      ? changesOf(object, there, desired.passwordKey).filter(c => Object.hasOwn(left, c.field))
      : [];
    return changes.length === 0 ? [] : [{ object: objectTitle(id), changes, why: left[changes[0]!.field]! }];
  });

const kindIn = (id: string): ObjectKind => id.slice(0, id.indexOf(':')) as ObjectKind;

export function diffObjects(desired: DesiredObjects, observed: ObservedObjects): ObjectAction[] {
  const { objects, absent } = expand(desired);
  const actions: ObjectAction[] = [];
  const remove = (id: string, target: string, suffix = ''): ObjectAction => ({
    id: `delete:${id}${suffix}`,
    kind: 'delete',
    object: objectTitle(id),
    changes: [],
    needs: [],
    target,
  });

  for (const [id, object] of objects) {
    const kind = kindOf(object.kind);
    const there = observed.objects[id];
    for (const extra of there?.duplicates ?? []) actions.push(remove(id, extra, `:${extra}`));
    const changes = changesOf(object, there, desired.passwordKey).filter(
      c => !there || !Object.hasOwn(kind.left ?? {}, c.field),
    );
    if (there && changes.length === 0) continue;
    const needs = kind.refers(object);
    const base = { id, object: objectTitle(id), changes };
    const fixed = there && changes.find(c => Object.hasOwn(kind.fixed ?? {}, c.field));
    if (!there) actions.push({ ...base, kind: 'create', needs });
    else if (fixed)
      actions.push({ ...base, kind: 'update', needs, target: there.id, blocked: kind.fixed![fixed.field]! });
    else if (changes.some(c => kind.replacing?.includes(c.field))) {
      const gone = remove(id, there.id);
      // All fields are set anew; those that differ are what people want to see.
      actions.push(gone, { ...base, kind: 'create', needs: [gone.id, ...needs] });
    } else actions.push({ ...base, kind: 'update', needs, target: there.id });
  }

  const going = [...absent.keys()]
    .filter(id => observed.objects[id])
    .sort((a, b) => rankOf(kindIn(b)) - rankOf(kindIn(a)))
    .map(id => remove(id, observed.objects[id]!.id));
  // What may refer to others goes before them.
  for (const [i, action] of going.entries())
    actions.push({
      ...action,
      needs: going
        .slice(0, i)
        .filter(a => rankOf(kindIn(a.id.slice(7))) > rankOf(kindIn(action.id.slice(7))))
        .map(a => a.id),
    });

  // Only what is made anew has to be waited for: an id that exists stays the same.
  const waited = new Set(actions.filter(a => a.kind !== 'update').map(a => a.id));
  const rank = (a: ObjectAction) => rankOf(kindIn(a.id.replace(/^delete:/, '')));
  return actions
    .map(action => ({ ...action, needs: action.needs.filter(id => waited.has(id)) }))
    .sort((a, b) => rank(a) - rank(b));
}
