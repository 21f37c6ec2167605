/**
 * The lines that the scripts print for the server:
 *
 *   HALLIGAN stage NAME SECONDS        the stage begins, SECONDS after the start of the script
 *   HALLIGAN progress NAME DONE TOTAL  bytes
 *   HALLIGAN problem CODE TEXT         why it is about to end with an error
 *   HALLIGAN warning TEXT
 *   HALLIGAN result JSON               the end; {"hostKey": "ssh-ed25519 AAAA…"} for an installation
 */
import { PROBLEMS, type ProblemCode } from '../core/problem.js';
import { STAGES, type StageName } from './stages.js';

export type ProgressLine =
  | { readonly kind: 'stage'; readonly name: StageName; readonly text: string; readonly seconds: number }
  | { readonly kind: 'progress'; readonly name: string; readonly done: number; readonly total: number }
  | { readonly kind: 'problem'; readonly code: ProblemCode; readonly message: string }
  | { readonly kind: 'result'; readonly hostKey: string }
  | { readonly kind: 'text'; readonly text: string };

const HOST_KEY = /^ssh-ed25519 [A-Za-z0-9+/]{68}$/;
const printable = (text: string) => text.replace(/\p{Cc}/gu, ' ').slice(0, 500);

/** Never throws: what it does not know is text. The node is not trusted. */
export function readProgress(line: string): ProgressLine {
  const text: ProgressLine = { kind: 'text', text: printable(line) };
  const [tag, kind, first = '', ...rest] = line.split(' ');
  if (tag !== 'HALLIGAN') return text;
  if (kind === 'stage' && Object.hasOwn(STAGES, first)) {
    const name = first as StageName;
    return { kind: 'stage', name, text: STAGES[name].text, seconds: Number(rest[0]) || 0 };
  }
  if (
    kind === 'progress' &&
    /^[a-z-]{1,20}$/.test(first) &&
    /^\d{1,15}$/.test(rest[0] ?? '') &&
    /^\d{1,15}$/.test(rest[1] ?? '')
  )
    return { kind: 'progress', name: first, done: Number(rest[0]), total: Number(rest[1]) };
  if (kind === 'problem' && Object.hasOwn(PROBLEMS, first))
    return { kind: 'problem', code: first as ProblemCode, message: printable(rest.join(' ')) };
  if (kind === 'result') {
    try {
      const value: unknown = JSON.parse([first, ...rest].join(' '));
      if (typeof value === 'object' && value !== null && 'hostKey' in value) {
        const { hostKey } = value;
        if (typeof hostKey === 'string' && HOST_KEY.test(hostKey)) return { kind: 'result', hostKey };
      }
    } catch {
      // not ours
    }
  }
  return text;
}
