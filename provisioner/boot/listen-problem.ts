/** One clear sentence for each way in which a socket cannot be opened. */
import { type Problem, problem } from '../core/problem.js';

/** @param what e.g. `TFTP on 10.99.0.1:69` */
export function listenProblem(error: unknown, what: string): Problem {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'EADDRINUSE') return problem('port-in-use', `${what}: another program holds this port.`);
  if (code === 'EACCES' || code === 'EPERM')
    return problem('capability-missing', `${what}: ports below 1024 need root or CAP_NET_BIND_SERVICE.`);
  if (code === 'EADDRNOTAVAIL') return problem('interface-missing', `${what}: no interface has this address.`);
  return problem('interface-missing', `${what}: ${error instanceof Error ? error.message : error}`);
}
