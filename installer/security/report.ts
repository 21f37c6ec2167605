/** From evidence to a report, in the shape of the proof's. Pure. */
import type { VerifyStep } from '../../provisioner/core/cloud-service.js';
import { CHECKS } from './checks.js';
import type { Evidence, SecurityCheck } from './types.js';

export function evaluateAll(
  evidence: Evidence,
  mask: (text: string) => string,
  checks: readonly SecurityCheck[] = CHECKS,
): VerifyStep[] {
  return checks.map(c => {
    const step = { name: c.id, title: c.title, seconds: 0, expectedSeconds: 0 };
    const applies = c.applies(evidence.model);
    if (applies !== true) return { ...step, state: 'skipped', message: `Not applicable: ${applies}`, hint: null };
    const verdict = c.evaluate(evidence);
    return verdict.ok
      ? { ...step, state: 'passed', message: verdict.remark === null ? null : mask(verdict.remark), hint: null }
      : { ...step, state: 'failed', message: mask(verdict.reason), hint: c.hint };
  });
}
