/** Drivers with verification, one thing at a time per node, and no third try with refused credentials. */
import { createHash } from 'node:crypto';
import { type Clock, sleep } from '../core/clock.js';
import type { EventFeed } from '../core/events.js';
import type { Log } from '../core/log.js';
import { asProblem, fail, ProblemError } from '../core/problem.js';
import type { BootTrace } from '../core/trace.js';
import type { Bmc } from '../site/schema.js';
import { createIpmiDriver } from './ipmi.js';
import { createManualDriver } from './manual.js';
import { createRedfishDriver } from './redfish.js';
import type { Power, PowerDriver, PowerDriverFactory, PowerState } from './types.js';

export interface PowerTarget {
  readonly bmc: Bmc | null;
  /** Resolved from its reference. */
  readonly password: string | null;
  readonly firmware: 'bios' | 'uefi' | null;
  /** For messages; the id when left out. */
  readonly name?: string;
  /** For the boot trace. */
  readonly mac?: string | null;
}

export interface PowerOptions {
  /** Null when there is no such node. */
  lookup(nodeId: string): Promise<PowerTarget | null> | PowerTarget | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly events?: Pick<EventFeed, 'emit'>;
  readonly trace?: Pick<BootTrace, 'record'>;
  readonly drivers?: PowerDriverFactory;
  /** How long a BMC may take until it reports what it accepted. */
  readonly followMs?: number;
  readonly pollMs?: number;
}

export const AUTH_TRIES_MAX = 2;
const FOLLOW_MS = 45_000;
const POLL_MS = 1000;

/** The driver that the BMC's entry names. */
export const powerDriver: PowerDriverFactory = (bmc, password) =>
  bmc.driver === 'ipmi'
    ? createIpmiDriver(bmc, password)
    : bmc.driver === 'redfish'
      ? createRedfishDriver(bmc, password)
      : createManualDriver();

interface Entry {
  /** Changes when BMC or credentials change; a hash, so that no password is kept here. */
  readonly identity: string;
  readonly driver: PowerDriver;
  authFailures: number;
}

export function createPower(options: PowerOptions): Power {
  const { clock, log, drivers = powerDriver, followMs = FOLLOW_MS, pollMs = POLL_MS } = options;
  const entries = new Map<string, Entry>();
  const queues = new Map<string, Promise<unknown>>();
  const ending = new AbortController();

  const inTurn = <T>(nodeId: string, work: () => Promise<T>): Promise<T> => {
    const next = (queues.get(nodeId) ?? Promise.resolve()).then(work, work);
    const settled = next.catch(() => {});
    queues.set(nodeId, settled);
    void settled.then(() => {
      if (queues.get(nodeId) === settled) queues.delete(nodeId);
    });
    return next;
  };

  const target = async (nodeId: string): Promise<PowerTarget & { bmc: Bmc }> => {
    const found = await options.lookup(nodeId);
    if (!found) return fail('node-unknown', `There is no node ${nodeId}.`);
    return { ...found, bmc: found.bmc ?? ({ driver: 'manual', cipher_suite: 3 } satisfies Bmc) };
  };

  const entryOf = (nodeId: string, { bmc, password }: PowerTarget & { bmc: Bmc }): Entry => {
    const identity = createHash('sha256')
      .update(JSON.stringify([bmc, password]))
      .digest('hex');
    const known = entries.get(nodeId);
    if (known?.identity === identity) return known;
    void known?.driver.close().catch(() => {});
    const entry = { identity, driver: drivers(bmc, password), authFailures: 0 };
    entries.set(nodeId, entry);
    return entry;
  };

  /** One command to the BMC, with the count of refusals kept. */
  const ask = async <T>(name: string, entry: Entry, work: (driver: PowerDriver) => Promise<T>): Promise<T> => {
    if (entry.authFailures >= AUTH_TRIES_MAX) {
      fail(
        'bmc-auth',
        `The BMC of ${name} refused these credentials ${AUTH_TRIES_MAX} times; it is left alone until they change.`,
      );
    }
    try {
      const result = await work(entry.driver);
      entry.authFailures = 0;
      return result;
    } catch (error) {
      if (error instanceof ProblemError && error.problem.code === 'bmc-auth') entry.authFailures++;
      throw error;
    }
  };

  /** Reads the state until it is the wanted one. A BMC may be deaf for a while when it switches. */
  const follow = async (name: string, entry: Entry, wanted: 'on' | 'off'): Promise<void> => {
    const until = clock.monotonicMs() + followMs;
    let seen: PowerState | null = null;
    let silence: unknown = null;
    for (;;) {
      try {
        seen = await ask(name, entry, driver => driver.status());
        silence = null;
      } catch (error) {
        const code = error instanceof ProblemError ? error.problem.code : null;
        if (code !== 'bmc-silent' && code !== 'bmc-protocol') throw error;
        silence = error;
      }
      if (!silence && seen === wanted) return;
      if (ending.signal.aborted || clock.monotonicMs() >= until) {
        if (silence) throw silence;
        fail(
          'bmc-lies',
          `The BMC of ${name} accepted to switch it ${wanted}, but still reports "${seen}" after ${Math.round(followMs / 1000)} s.`,
        );
      }
      await sleep(pollMs, ending.signal);
    }
  };

  const switchTo = async (name: string, entry: Entry, wanted: 'on' | 'off'): Promise<void> => {
    if ((await ask(name, entry, driver => driver.status())) === wanted) return;
    await ask(name, entry, driver => (wanted === 'on' ? driver.on() : driver.off()));
    await follow(name, entry, wanted);
  };

  /** Runs a command of the operator or of the state loop, and tells the feed and the boot trace how it ended. */
  const perform = (
    nodeId: string,
    action: 'on' | 'off' | 'cycle' | 'netboot',
    work: (name: string, entry: Entry, found: PowerTarget) => Promise<void>,
  ): Promise<void> =>
    inTurn(nodeId, async () => {
      const found = await target(nodeId);
      const name = found.name ?? nodeId;
      const tell = (message: string, failed: boolean, data: Record<string, unknown>) => {
        if (found.mac) options.trace?.record({ mac: found.mac, layer: 'power', message, data });
        void options.events
          ?.emit({
            type: failed ? 'power.failed' : `power.${action}`,
            severity: failed ? 'warn' : 'info',
            nodeId,
            message,
            data,
          })
          .catch(error => log.warn({ error: String(error) }, 'a power event could not be stored'));
      };
      const started = clock.monotonicMs();
      try {
        await work(name, entryOf(nodeId, found), found);
        tell(`Power ${action} by ${found.bmc.driver}.`, false, { ms: Math.round(clock.monotonicMs() - started) });
      } catch (error) {
        const { code, message } = asProblem(error, 'bmc-protocol');
        log.warn({ nodeId, action, code }, message);
        tell(message, true, { action, code });
        throw error;
      }
    });

  return {
    status: nodeId =>
      inTurn(nodeId, async () => {
        const found = await target(nodeId);
        return ask(found.name ?? nodeId, entryOf(nodeId, found), driver => driver.status());
      }),
    async set(nodeId, action) {
      await perform(nodeId, action, async (name, entry) => {
        if (action !== 'on') await switchTo(name, entry, 'off');
        if (action !== 'off') await switchTo(name, entry, 'on');
      });
      return action === 'off' ? 'off' : 'on';
    },
    async netboot(nodeId) {
      await perform(nodeId, 'netboot', async (name, entry, { firmware }) => {
        await switchTo(name, entry, 'off');
        await ask(name, entry, driver => driver.bootFromNetworkOnce(firmware));
        await switchTo(name, entry, 'on');
      });
    },
    async automatic(nodeId) {
      const found = await options.lookup(nodeId);
      return Boolean(found?.bmc && found.bmc.driver !== 'manual');
    },
    async close() {
      ending.abort();
      await Promise.all([...queues.values()]);
      await Promise.all([...entries.values()].map(entry => entry.driver.close().catch(() => {})));
      entries.clear();
    },
  };
}
