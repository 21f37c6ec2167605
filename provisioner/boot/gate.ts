/** A bounded number of things at once, in all and per client; the others wait in order, in a bounded queue. */
import { fail } from '../core/problem.js';

export interface Gate {
  /**
   * Waits for a place. Returns the way to give it back (safe to call twice).
   * @throws ProblemError server-busy when the queue is full; the signal's reason when it aborts while waiting
   */
  enter(client: string, signal: AbortSignal): Promise<() => void>;
  readonly running: number;
  readonly waiting: number;
}

export function createGate(limits: { total: number; perClient: number; queue: number }): Gate {
  const clients = new Map<string, number>();
  const queue: { client: string; go(leave: () => void): void }[] = [];
  let running = 0;

  const open = (client: string) => running < limits.total && (clients.get(client) ?? 0) < limits.perClient;
  const take = (client: string): (() => void) => {
    running++;
    clients.set(client, (clients.get(client) ?? 0) + 1);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      running--;
      const rest = clients.get(client)! - 1;
      if (rest > 0) clients.set(client, rest);
      else clients.delete(client);
      next();
    };
  };
  const next = () => {
    // The first whose client has a place left: one greedy client does not hold up the rest of the queue.
    for (let i = 0; i < queue.length && running < limits.total; ) {
      const waiter = queue[i]!;
      if (!open(waiter.client)) i++;
      else {
        queue.splice(i, 1);
        waiter.go(take(waiter.client));
      }
    }
  };

  return {
    get running() {
      return running;
    },
    get waiting() {
      return queue.length;
    },
    enter(client, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (open(client)) return Promise.resolve(take(client));
      if (queue.length >= limits.queue) fail('server-busy', `${queue.length} requests wait already.`);
      return new Promise((resolve, reject) => {
        const waiter = {
          client,
          go(leave: () => void) {
            signal.removeEventListener('abort', abandon);
            resolve(leave);
          },
        };
        const abandon = () => {
          queue.splice(queue.indexOf(waiter), 1);
          reject(signal.reason);
        };
        signal.addEventListener('abort', abandon, { once: true });
        queue.push(waiter);
      });
    },
  };
}
