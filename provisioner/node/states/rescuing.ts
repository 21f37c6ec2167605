/** rescuing: the node leaves its disk alone and comes up in the RAM environment, with a shell for the operator. */

import type { StateHandler } from '../context.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam } from '../ram.js';

export const rescuing: StateHandler = async (node, context, signal) => {
  const answer = await ensureRam(node, context, signal);
  if ('waitingFor' in answer) return stay(answer.waitingFor);
  return go('rescue-ready', `root can log in at ${answer.ram.address} with the operators’ keys.`);
};
