import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../provisioner/core/clock.js';
import type { NewEvent } from '../../../provisioner/core/events.js';
import { type Log, silentLog } from '../../../provisioner/core/log.js';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { createPower, type PowerTarget } from '../../../provisioner/power/power.js';
import { distrustfulBmc, type FakeBmc, lyingBmc, obedientBmc, silentBmc } from './fakes.js';

const BMC = { driver: 'ipmi', address: '10.98.0.11', user: 'admin', cipher_suite: 3 } as const;

const POLL_MS = 5;

function setUp(bmc: FakeBmc, found: Partial<PowerTarget> = {}, log: Log = silentLog) {
  let looks = 0;
  const events: NewEvent[] = [];
  const traces: string[] = [];
  let target: PowerTarget = { bmc: BMC, password: 'canary-pw', firmware: 'bios', mac: '52:54:00:99:00:01', ...found };
  let made = 0;
  const power = createPower({
    lookup: id => (id === 'n1' ? target : null),
    // As many looks as fit into the time, however long they take on a busy machine.
    clock: { ...systemClock, monotonicMs: () => (looks += POLL_MS) },
    log,
    events: {
      async emit(event) {
        events.push(event);
        return { id: 1, atMs: 0, severity: 'info', nodeId: null, data: {}, ...event };
      },
    },
    trace: { record: entry => void traces.push(entry.message) },
    drivers: () => {
      made++;
      return bmc;
    },
    followMs: 12 * POLL_MS,
    pollMs: POLL_MS,
  });
  return {
    power,
    events,
    traces,
    made: () => made,
    change: (more: Partial<PowerTarget>) => {
      target = { ...target, ...more };
    },
  };
}

const codeOf = async (work: Promise<unknown>) => {
  try {
    await work;
    return 'no problem';
  } catch (error) {
    return error instanceof ProblemError ? error.problem.code : `bug: ${String(error)}`;
  }
};

describe('power', () => {
  test('switches a node on and waits until the BMC reports it', async () => {
    const bmc = obedientBmc('off', 3);
    const { power, events, traces } = setUp(bmc);
    expect(await power.set('n1', 'on')).toBe('on');
    expect(bmc.calls.filter(call => call === 'on')).toHaveLength(1);
    expect(bmc.state).toBe('on');
    expect(events.map(event => event.type)).toEqual(['power.on']);
    expect(traces).toHaveLength(1);
  });

  test('sends no command for a state that is there already', async () => {
    const bmc = obedientBmc('on');
    await setUp(bmc).power.set('n1', 'on');
    expect(bmc.calls).toEqual(['status']);
  });

  test('cycles by off and on, each seen', async () => {
    const bmc = obedientBmc('on');
    await setUp(bmc).power.set('n1', 'cycle');
    expect(bmc.calls.filter(call => call !== 'status')).toEqual(['off', 'on']);
  });

  test('sets the next boot between off and on', async () => {
    const bmc = obedientBmc('on');
    await setUp(bmc, { firmware: 'uefi' }).power.netboot('n1');
    expect(bmc.calls.filter(call => call !== 'status')).toEqual(['off', 'netboot uefi', 'on']);
  });

  test('tells a BMC that lies from one that is silent', async () => {
    const lying = setUp(lyingBmc());
    expect(await codeOf(lying.power.set('n1', 'on'))).toBe('bmc-lies');
    expect(lying.events[0]).toMatchObject({ type: 'power.failed', data: { code: 'bmc-lies' } });
    expect(await codeOf(setUp(silentBmc()).power.set('n1', 'on'))).toBe('bmc-silent');
  });

  test('does not believe in a cycle of a BMC that only says yes', async () => {
    expect(await codeOf(setUp(lyingBmc('on')).power.set('n1', 'cycle'))).toBe('bmc-lies');
  });

  test('takes a BMC that is deaf while it switches for neither silent nor lying', async () => {
    const bmc = obedientBmc('off', 0);
    const status = bmc.status;
    let deaf = 0;
    const silent = silentBmc();
    const moody = Object.assign(bmc, {
      status: () => (bmc.calls.includes('on') && deaf++ < 3 ? silent.status() : status()),
    });
    expect(await setUp(moody).power.set('n1', 'on')).toBe('on');
    expect(deaf).toBeGreaterThan(2);
  });

  test('tries refused credentials two times, then never again until they change', async () => {
    const bmc = distrustfulBmc();
    const { power, change, made } = setUp(bmc);
    for (let i = 0; i < 5; i++) expect(await codeOf(power.status('n1'))).toBe('bmc-auth');
    expect(await codeOf(power.netboot('n1'))).toBe('bmc-auth');
    expect(bmc.calls).toEqual(['status', 'status']);
    change({ password: 'another' });
    expect(await codeOf(power.status('n1'))).toBe('bmc-auth');
    expect(bmc.calls.filter(call => call === 'status')).toHaveLength(3);
    expect(made()).toBe(2);
  });

  test('never runs two commands of one node at the same time', async () => {
    let running = 0;
    let most = 0;
    const bmc = obedientBmc();
    const status = bmc.status;
    Object.assign(bmc, {
      status: async () => {
        most = Math.max(most, ++running);
        await new Promise(resolve => setTimeout(resolve, 3));
        running--;
        return status();
      },
    });
    const { power } = setUp(bmc);
    await Promise.all([power.set('n1', 'on'), power.status('n1'), power.set('n1', 'off'), power.status('n1')]);
    expect(most).toBe(1);
    expect(bmc.state).toBe('off');
  });

  test('leaves manual nodes and nodes without a BMC to a person', async () => {
    const manual = createPower({
      lookup: () => ({ bmc: null, password: null, firmware: null }),
      clock: systemClock,
      log: silentLog,
    });
    expect(await manual.automatic('n1')).toBe(false);
    expect(await manual.status('n1')).toBe('unknown');
    expect(await codeOf(manual.set('n1', 'on'))).toBe('bmc-unsupported');
    expect(await setUp(obedientBmc()).power.automatic('n1')).toBe(true);
    expect(await codeOf(setUp(obedientBmc()).power.status('n2'))).toBe('node-unknown');
  });

  test('keeps the password out of events, traces and the log', async () => {
    const lines: unknown[] = [];
    const note = (fields: object, message: string) => void lines.push(fields, message);
    const seen = setUp(lyingBmc(), {}, { debug: note, info: note, warn: note, error: note });
    await codeOf(seen.power.set('n1', 'on'));
    expect(lines.length).toBeGreaterThan(0);
    expect(JSON.stringify([lines, seen.events, seen.traces])).not.toContain('canary-pw');
  });

  test('gives sessions back when it closes', async () => {
    const bmc = obedientBmc();
    const { power } = setUp(bmc);
    await power.status('n1');
    await power.close();
    expect(bmc.calls).toContain('close');
  });
});
