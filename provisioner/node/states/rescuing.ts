/** rescuing: the node leaves its disk alone and comes up in the RAM environment, with a shell for the operator. */
import type { StateHandler } from '../context.js';
import { go, stay } from '../lifecycle.js';
import { ensureRam, ramTarget } from '../ram.js';

export const rescuing: StateHandler = async (node, context, signal) => {
  const answer = await ensureRam(node, context, signal);
  if ('waitingFor' in answer) return stay(answer.waitingFor);
  const keys = [...context.site.install.ssh_keys, ...(node.spec.install.ssh_keys ?? [])];
  // Written whole, so that doing it twice is no harm.
  await context.executor.write(
    ramTarget(answer.ram),
    '/root/.ssh/authorized_keys',
    `${[context.executor.publicKey, ...keys].join('\n')}\n`,
    0o600,
  );
  return go('rescue-ready', `root can log in at ${answer.ram.address} with ${keys.length} operators’ keys.`);
};
