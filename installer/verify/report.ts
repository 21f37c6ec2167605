/** The report for people. */
import type { StepReport, VerifyReport } from './types.js';

const MARK: Readonly<Record<StepReport['state'], string>> = { passed: 'ok', failed: 'FAILED', skipped: 'skipped' };

/** A value as few words. */
function short(value: unknown): string {
  if (Array.isArray(value)) return value.map(short).join(', ');
  if (typeof value === 'object' && value !== null)
    return Object.entries(value)
      .map(([key, inner]) => `${key} ${short(inner)}`)
      .join(', ');
  return String(value);
}

/** `memoryMiB` as `memory MiB`, `madeForTheRun` as `made for the run`. */
const words = (name: string): string =>
  name.replace(/(?<=[a-z])(MiB|GiB|[A-Z])/g, c => ` ${c.length > 1 ? c : c.toLowerCase()}`);

/** How the time compares with what is expected; said only where it is out of proportion. */
function pace(step: StepReport): string {
  if (step.state !== 'passed' || step.seconds < 5 || step.seconds < step.expectedSeconds * 3) return '';
  return ` (expected about ${step.expectedSeconds} s)`;
}

export function renderReport(report: VerifyReport): string {
  const { steps, leftovers } = report;
  const lines: string[] = [];
  for (const step of steps) {
    const time = step.state === 'skipped' && step.seconds === 0 ? '' : `${step.seconds.toFixed(1)} s`;
    lines.push(`${MARK[step.state].padEnd(8)}${time.padStart(8)}  ${step.title}${pace(step)}`);
    const indent = ' '.repeat(18);
    if (step.reason) lines.push(`${indent}${step.reason}`);
    if (step.state === 'failed' && step.hint) lines.push(`${indent}Next: ${step.hint}`);
    if (step.state === 'passed')
      for (const [name, value] of Object.entries(step.detail)) lines.push(`${indent}${words(name)}: ${short(value)}`);
  }
  const count = (state: StepReport['state']) => steps.filter(step => step.state === state).length;
  lines.push('');
  for (const left of leftovers) lines.push(`left over: ${left}`);
  lines.push(
    `${report.ok ? 'The cloud is proved' : report.aborted ? 'The proof was aborted' : 'The cloud is not proved'}: ` +
      `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped, ${leftovers.length} left over; ${Math.round(report.seconds)} s.`,
  );
  return `${lines.join('\n')}\n`;
}
