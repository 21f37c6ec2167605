/** inspecting: the node runs the RAM environment and tells what it is made of. */

import type { StateHandler } from '../context.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam } from '../ram.js';

export const inspecting: StateHandler = async (node, context, signal) => {
  const answer = await ensureRam(node, context, signal);
  if ('waitingFor' in answer) return stay(answer.waitingFor);
  if (!node.status.inventory) return stay('its inventory');
  const { cpu, memory, disks, nics } = node.status.inventory;
  return go(
    'inspected',
    `${cpu.threads} threads, ${Math.round(memory.totalBytes / 2 ** 30)} GiB, ${disks.length} disks, ${nics.length} NICs.`,
  );
};
