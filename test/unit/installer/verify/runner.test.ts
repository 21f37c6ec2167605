import { describe, expect, it } from 'vitest';
import {
  passed,
  runSteps,
  type Step,
  type StepControl,
  selectSteps,
  skipped,
  undoSteps,
} from '../../../../installer/verify/runner.js';
import type { StepEvent } from '../../../../installer/verify/types.js';
import { sleep, systemClock } from '../../../../provisioner/core/clock.js';
import { fail } from '../../../../provisioner/core/problem.js';

interface Notes {
  readonly log: string[];
}

const step = (name: string, extra: Partial<Step<Notes>> = {}): Step<Notes> => ({
  name,
  title: `Step ${name}`,
  needs: [],
  expectedSeconds: 1,
  timeoutSeconds: 5,
  hint: `Look at ${name}.`,
  run: async ({ log }) => {
    log.push(name);
    return passed();
  },
  undo: async ({ log }) => {
    log.push(`undo ${name}`);
  },
  ...extra,
});

async function run(
  steps: readonly Step<Notes>[],
  extra: { signal?: AbortSignal; parallel?: number; onStep?: (e: StepEvent) => void; left?: Map<string, string> } = {},
) {
  const notes: Notes = { log: [] };
  const result = await runSteps(
    steps,
    notes,
    {
      clock: systemClock,
      signal: extra.signal ?? new AbortController().signal,
      timeoutFactor: 1,
      parallel: extra.parallel ?? 4,
      onStep: extra.onStep,
    },
    extra.left,
  );
  const byName = Object.fromEntries(result.reports.map(r => [r.name, r]));
  return { notes, result, byName };
}

describe('steps', () => {
  it('run when what they need is done, and the others at the same time', async () => {
    const { notes } = await run([
      step('c', { needs: ['a', 'b'] }),
      step('a', { run: async ({ log }) => sleep(30).then(() => passed({ n: log.push('a') })) }),
      step('b'),
    ]);
    expect(notes.log).toEqual(['b', 'a', 'c']);
  });

  it('are no more at a time than allowed', async () => {
    let now = 0;
    let most = 0;
    const slow = (name: string) =>
      step(name, {
        run: async () => {
          most = Math.max(most, ++now);
          await sleep(10);
          now--;
          return passed();
        },
      });
    await run(['a', 'b', 'c', 'd', 'e'].map(slow), { parallel: 2 });
    expect(most).toBe(2);
  });

  it('that need a failed one are skipped, with the reason, down the whole line', async () => {
    const { byName, notes } = await run([
      step('a', { run: async () => fail('cloud-verify-failed', 'The disk is full.') }),
      step('b', { needs: ['a'] }),
      step('c', { needs: ['b'] }),
      step('d', { after: ['a'] }),
    ]);
    expect(byName['a']).toMatchObject({ state: 'failed', reason: 'The disk is full.', hint: 'Look at a.' });
    expect(byName['b']).toMatchObject({ state: 'skipped', reason: '"Step a" failed, and this needs it.' });
    expect(byName['c']!.reason).toBe('"Step b" was skipped, and this needs it: "Step a" failed, and this needs it.');
    expect(notes.log).toEqual(['d']);
  });

  it('that are not applicable say why, and so do those that need them', async () => {
    const { byName } = await run([
      step('a', { run: async () => skipped('There is one.') }),
      step('b', { needs: ['a'] }),
    ]);
    expect(byName['a']).toMatchObject({ state: 'skipped', reason: 'There is one.' });
    expect(byName['b']!.reason).toBe('"Step a" was skipped, and this needs it: There is one.');
  });

  it('that fail with a hint of their own keep it', async () => {
    const { byName } = await run([
      step('a', { run: async () => fail('cloud-verify-failed', 'No.', { hint: 'Turn it on.', detail: { port: 3 } }) }),
    ]);
    expect(byName['a']).toMatchObject({ hint: 'Turn it on.', detail: { problem: 'cloud-verify-failed', port: 3 } });
  });

  it('whose time is up say what they waited for', async () => {
    const { byName } = await run([
      step('a', {
        timeoutSeconds: 0.1,
        run: async (_: Notes, control: StepControl) => {
          control.waitingFor('the moon');
          await sleep(10_000, control.signal);
          control.signal.throwIfAborted();
          return passed();
        },
      }),
    ]);
    expect(byName['a']).toMatchObject({
      state: 'failed',
      reason: 'It was not done after 0 s: still waiting for the moon.',
    });
  });

  it('that throw something unexpected are failed, not the whole run', async () => {
    const { byName, notes } = await run([
      step('a', {
        run: async () => {
          throw new TypeError('x is not a function');
        },
      }),
      step('b'),
    ]);
    expect(byName['a']).toMatchObject({ state: 'failed', reason: 'x is not a function' });
    expect(notes.log).toEqual(['b']);
  });

  it('do not begin after an abort; the one in the middle says so', async () => {
    const stop = new AbortController();
    const { byName } = await run(
      [
        step('a', {
          run: async (_: Notes, control: StepControl) => {
            stop.abort();
            control.signal.throwIfAborted();
            return passed();
          },
        }),
        step('b', { needs: ['a'] }),
      ],
      { signal: stop.signal },
    );
    expect(byName['a']).toMatchObject({ state: 'skipped', reason: 'The run was aborted in the middle of it.' });
    expect(byName['b']!.state).toBe('skipped');
  });

  it('tell when they begin, wait and end', async () => {
    const events: StepEvent[] = [];
    await run(
      [
        step('a', {
          run: async (_: Notes, control: StepControl) => {
            control.waitingFor('x');
            control.waitingFor('x');
            return passed({ n: 1 });
          },
        }),
      ],
      { onStep: e => events.push(e) },
    );
    expect(events.map(e => e.kind)).toEqual(['started', 'waiting', 'ended']);
  });
});

describe('undoing', () => {
  it('is in reverse, of all that began, whatever came of it', async () => {
    const steps = [
      step('a'),
      step('b', { needs: ['a'], run: async () => fail('cloud-verify-failed', 'no') }),
      step('c', { needs: ['b'] }),
      step('d', { needs: ['a'], after: ['b'] }),
    ];
    const { notes, result } = await run(steps);
    notes.log.length = 0;
    await undoSteps(steps, result.started, notes, { timeoutFactor: 1 });
    expect(notes.log).toEqual(['undo d', 'undo b', 'undo a']);
  });

  it('goes on after a failure and tells of it', async () => {
    const steps = [
      step('a'),
      step('b', {
        needs: ['a'],
        undo: async () => fail('cloud-verify-failed', 'It does not go.'),
      }),
    ];
    const { notes, result } = await run(steps);
    const failures = await undoSteps(steps, result.started, notes, { timeoutFactor: 1 });
    expect(failures).toMatchObject([{ name: 'b', problem: { message: 'It does not go.' } }]);
    expect(notes.log.at(-1)).toBe('undo a');
  });
});

describe('a choice of steps', () => {
  const steps = [step('a'), step('b', { needs: ['a'] }), step('c')];

  it('has all that they need', () => {
    expect(selectSteps(steps, ['b']).chosen.map(s => s.name)).toEqual(['a', 'b']);
    expect(selectSteps(steps, undefined).chosen).toHaveLength(3);
  });

  it('reports what was left out', async () => {
    const { chosen, left } = selectSteps(steps, undefined, ['a']);
    const { byName } = await run(chosen, { left: new Map(left) });
    expect(byName['a']).toMatchObject({ state: 'skipped', reason: 'It was left out on request.' });
    expect(byName['b']!.state).toBe('skipped');
    expect(byName['c']!.state).toBe('passed');
  });

  it('refuses a name that is none', () => {
    expect(() => selectSteps(steps, ['x'])).toThrow('There is no step "x": a, b, c.');
  });
});
