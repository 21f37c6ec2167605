/** What plans and proofs of the cloud say in words and signs: the same for command line and UI. Pure. */
import type { ActionView, PlanView, VerifyReport } from './cloud-service.js';

/** What an action means for what is there, as one character. */
export type Sign = '+' | '~' | '!' | 'x';

/** Titles begin with their verb (core/cloud-service.ts). */
export function signOf(action: ActionView): Sign {
  if (action.destroys !== null) return 'x';
  const verb = action.title.split(' ', 1)[0]!.toLowerCase();
  if (['delete', 'remove'].includes(verb)) return 'x';
  if (action.interrupts !== null || ['restart', 'reload'].includes(verb)) return '!';
  return ['change', 'set', 'mask', 'update'].includes(verb) ? '~' : '+';
}

/** 95 s, 4 min: for what takes its time. */
export const about = (seconds: number): string =>
  seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
export const took = (seconds: number): string => (seconds < 100 ? `${seconds.toFixed(1)} s` : about(seconds));
export const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;

/** The first few of a list, and how many more. */
function few(items: readonly string[], most = 4): string {
  const some = items.slice(0, most).join(', ');
  return items.length > most ? `${some} and ${items.length - most} more` : some;
}

/** Name of the unit of an action that restarts one. */
const restarted = (a: ActionView): string[] =>
  a.kind === 'unit' && /^(restart|reload) /.test(a.title) ? [`${a.title.replace(/^\w+ /, '')} on ${a.node}`] : [];

/** `37 actions on 4 nodes, about 95 s; restarts …; destroys nothing. Hash 3f2a….` */
export function planSentence(plan: PlanView): string {
  const { summary, actions } = plan;
  const silent = plan.nodes.filter(n => !n.reachable).map(n => n.name);
  const without = silent.length > 0 ? ` ${silent.join(', ')} could not be looked at.` : '';
  if (summary.actions === 0)
    return `Nothing to do: ${silent.length > 0 ? 'the nodes that answer are' : 'the cloud is'} as wanted.${without} Hash ${plan.hash}.`;
  const restarts = actions.flatMap(restarted);
  const installs = actions.filter(a => a.kind === 'machine').map(a => a.node);
  return `${[
    `${count(summary.actions, 'action')} on ${count(summary.nodes, 'node')}, about ${about(Math.max(1, summary.expectedSeconds))}`,
    ...(installs.length > 0 ? [`installs ${few(installs)}`] : []),
    ...(restarts.length > 0 ? [`restarts ${few(restarts)}`] : []),
    ...(summary.interrupts.length > 0 ? [`interrupts ${few(summary.interrupts)}`] : []),
    `destroys ${summary.destroys.length > 0 ? summary.destroys.join(', ') : 'nothing'}`,
  ].join('; ')}.${without} Hash ${plan.hash}.`;
}

/** The sentence under the table of a proof. */
export function verifySentence(report: VerifyReport): string {
  const of = (state: string) => report.steps.filter(s => s.state === state).length;
  const parts = [`${of('passed')} of ${count(report.steps.length, 'step')} passed in ${about(report.seconds)}`];
  if (of('failed') > 0) parts.push(`${of('failed')} failed`);
  if (of('skipped') > 0) parts.push(`${of('skipped')} skipped`);
  parts.push(report.leftovers.length === 0 ? 'nothing left behind' : `left behind: ${report.leftovers.join(', ')}`);
  return `${parts.join('; ')}.`;
}
