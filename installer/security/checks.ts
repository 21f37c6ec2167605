/** Every security check, in the order of the report. */
import { baselineChecks } from './checks/baseline.js';
import { guideChecks } from './checks/guide.js';
import { objectChecks } from './checks/objects.js';
import type { SecurityCheck } from './types.js';

export const CHECKS: readonly SecurityCheck[] = [...guideChecks, ...baselineChecks, ...objectChecks];
