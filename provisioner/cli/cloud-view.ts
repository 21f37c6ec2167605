/** How plans, runs and proofs of the cloud read. Pure. */
import type {
  ActionFailure,
  ApplyResult,
  CatalogueView,
  CloudCredentials,
  CloudEventData,
  PlanView,
  RoleView,
  VerifyReport,
} from '../core/cloud-service.js';
import { about, count, planSentence, type Sign, signOf, took } from '../core/cloud-words.js';
import type { FeedEvent } from '../core/events.js';
import { shQuote } from '../core/executor/quote.js';
import { type Colour, paint, plain, sheet, time } from './output.js';

const SIGN_COLOUR: Record<Sign, Colour> = { '+': 'green', '~': 'yellow', '!': 'yellow', x: 'red' };

const PROBLEM_WORD = { refuse: 'refused', hold: 'left out' } as const;

/** The plan for people: problems, then by node and service, then one sentence. */
export function planText(plan: PlanView, options: { diff: boolean; colour: boolean }): string {
  const { colour } = options;
  const out: string[] = [];
  for (const p of plan.problems) {
    const word =
      p.severity === 'warn' ? paint('warning', 'yellow', colour) : paint(PROBLEM_WORD[p.severity], 'red', colour);
    out.push(`${word}: ${plain(p.node === null ? p.message : `${p.node}: ${p.message}`)}`, `  ${plain(p.hint)}`);
  }
  if (out.length > 0) out.push('');
  const width = Math.min(56, Math.max(0, ...plan.actions.map(a => plain(a.title).length)));
  const known = new Set(plan.nodes.map(n => n.name));
  const nodes = [
    ...plan.nodes,
    ...[...new Set(plan.actions.map(a => a.node))]
      .filter(n => !known.has(n))
      .map(name => ({ name, roles: [], reachable: true, expected: false, problem: null })),
  ];
  for (const node of nodes) {
    const own = plan.actions.filter(a => a.node === node.name);
    if (own.length === 0 && node.problem === null) continue;
    const roles = node.roles.length > 0 ? ` (${node.roles.join(', ')})` : '';
    out.push(plain(`${node.name}${roles}${node.expected ? ', no system yet: planned from its inventory' : ''}`));
    if (node.problem) {
      const word = node.reachable ? 'warning' : 'not reachable';
      out.push(`  ${paint(word, 'red', colour)}: ${plain(node.problem.message)}`, `  ${plain(node.problem.hint)}`);
    }
    for (const service of new Set(own.map(a => a.service))) {
      out.push(`  ${plain(service)}`);
      for (const action of own.filter(a => a.service === service)) {
        const sign = signOf(action);
        const why = [
          action.reason,
          ...(action.interrupts === null ? [] : [`interrupts ${action.interrupts}`]),
          ...(action.destroys === null ? [] : [`DESTROYS ${action.destroys}`]),
        ].join('; ');
        out.push(`    ${paint(sign, SIGN_COLOUR[sign], colour)} ${plain(action.title).padEnd(width)}  ${plain(why)}`);
        if (options.diff && action.diff) out.push(...diffLines(action.diff, colour));
      }
    }
    out.push('');
  }
  out.push(plain(planSentence(plan)));
  return `${out.join('\n')}\n`;
}

function diffLines(diff: string, colour: boolean): string[] {
  return diff
    .replace(/\n$/, '')
    .split('\n')
    .map(line => {
      const tone = /^(\+\+\+|---|@@)/.test(line)
        ? null
        : line.startsWith('+')
          ? 'green'
          : line.startsWith('-')
            ? 'red'
            : null;
      // Tabs would be blanks of another width, and a diff is read column by column.
      return `        ${paint(plain(line.replaceAll('\t', '    ')), tone, colour)}`.trimEnd();
    });
}

export interface ProgressWidths {
  readonly node: number;
  readonly service: number;
}

export const progressWidths = (plan: PlanView): ProgressWidths => ({
  node: Math.max(0, ...plan.actions.map(a => a.node.length)),
  service: Math.max(0, ...plan.actions.map(a => a.service.length)),
});

const clockOf = (e: FeedEvent) => time(e.atMs).slice(11, 19);

/** `12:01:07 ctl  identity  restart keystone.service  3.1 s`, or null for what is not told. */
export function actionLine(e: FeedEvent, widths: ProgressWidths): string | null {
  const data = e.data as unknown as CloudEventData['cloud.action'];
  // One failure can block hundreds: how many is told at the end.
  if (data.state === 'begin' || data.state === 'blocked') return null;
  const what = plain(
    `${clockOf(e)} ${data.node.padEnd(widths.node)}  ${data.service.padEnd(widths.service)}  ${data.title}`,
  );
  if (data.state === 'ok') return data.seconds === null ? what : `${what}  ${took(data.seconds)}`;
  return `${what}  FAILED${data.message ? `: ${plain(data.message)}` : ''}`;
}

/** `12:01:07 floating-ip  passed  1.2 s` */
export function checkLine(e: FeedEvent): string | null {
  const data = e.data as unknown as CloudEventData['cloud.check'];
  if (data.state === 'begin') return null;
  return plain(
    `${clockOf(e)} ${data.title}: ${data.state}${data.seconds === null ? '' : ` in ${took(data.seconds)}`}${data.state !== 'passed' && data.message ? `: ${data.message}` : ''}`,
  );
}

/** What came of an apply: one sentence, then each failure with its next action. */
export function resultText(result: ApplyResult, options: { colour: boolean; chain: boolean }): string {
  const { colour } = options;
  const out: string[] = [];
  const { failed, blocked } = result;
  if (failed.length === 0 && blocked.length === 0)
    out.push(`${paint('Done', 'green', colour)}: ${count(result.done, 'action')} in ${about(result.seconds)}.`);
  else {
    const waits =
      blocked.length === 0
        ? ''
        : `, ${blocked.length} ${blocked.length === 1 ? 'waits' : 'wait'} for ${failed.length === 1 ? 'it' : 'them'}`;
    out.push(
      `${paint(result.done > 0 ? 'Partly done' : 'Failed', 'red', colour)}: ${result.done} of ${count(result.actions, 'action')} in ${about(result.seconds)}; ${failed.length} failed${waits}.`,
    );
    for (const f of failed) out.push('', ...failureLines(f));
  }
  if (options.chain && result.chain.length > 0) {
    out.push('', 'The longest chain:');
    for (const c of result.chain)
      out.push(
        plain(
          `  ${took(c.seconds).padStart(8)}  ${c.title}  (${c.id.split('/').slice(0, 2).join(' ')}${c.waited >= 0.1 ? `, after ${took(c.waited)} of waiting` : ''})`,
        ),
      );
  }
  return `${out.join('\n')}\n`;
}

const LOG_LINES = 5;

function failureLines(f: ActionFailure): string[] {
  const detail = f.problem.detail ?? {};
  const log = Array.isArray(detail['log']) ? detail['log'].filter((l): l is string => typeof l === 'string') : [];
  return [
    `${plain(f.node)}  ${plain(f.service)}  ${plain(f.title)}`,
    `  why:  ${plain(f.problem.message)}`,
    ...(typeof detail['unit'] === 'string' ? [`  unit: ${plain(detail['unit'])}`] : []),
    ...log.slice(-LOG_LINES).map((line, i) => `  ${i === 0 ? 'log: ' : '     '} ${plain(line)}`),
    `  next: ${plain(f.problem.hint)}`,
  ];
}

export function securitySentence(report: VerifyReport): string {
  const of = (state: string) => report.steps.filter(s => s.state === state).length;
  return `${of('passed')} passed, ${of('failed')} failed, ${of('skipped')} not applicable; ${about(report.seconds)}.`;
}

/** For `source` in a shell, as every client of OpenStack reads it. */
export const openrc = (c: CloudCredentials): string =>
  [
    ['OS_AUTH_URL', c.authUrl],
    ['OS_IDENTITY_API_VERSION', '3'],
    ['OS_REGION_NAME', c.region],
    ['OS_USERNAME', c.username],
    ['OS_PASSWORD', c.password],
    ['OS_PROJECT_NAME', c.project],
    ['OS_USER_DOMAIN_NAME', c.userDomain],
    ['OS_PROJECT_DOMAIN_NAME', c.projectDomain],
    ['OS_CACERT', c.caFile],
  ]
    .map(([name, value]) => `export ${name}=${shQuote(value!)}\n`)
    .join('');

export const credentialsText = (c: CloudCredentials): string =>
  sheet([
    ['Identity', c.authUrl],
    ['Region', c.region],
    ['User', c.username],
    ['Password', c.password],
    ['Project', c.project],
    ['Domains', `${c.userDomain} (user), ${c.projectDomain} (project)`],
    ['CA', c.caFile],
  ]);

export function roleText(role: RoleView, catalogue: CatalogueView): string {
  const services = role.services.map(name => {
    const service = catalogue.services.find(s => s.name === name);
    return `  ${name}${service ? `: ${service.sentence}` : ''}`;
  });
  const rules = [
    ...role.limits.map(l => l.sentence),
    ...role.needs.map(n => n.sentence),
    ...role.conflicts.map(c => c.sentence),
  ].map(s => `  ${s}`);
  return [
    `${role.name}: ${role.title}`,
    role.sentence,
    '',
    'Services',
    ...services,
    ...(rules.length > 0 ? ['', 'Rules', ...rules] : []),
  ]
    .map(line => `${plain(line)}\n`)
    .join('');
}
