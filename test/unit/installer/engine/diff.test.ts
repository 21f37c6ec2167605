import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { diffNodes, planHash } from '../../../../installer/engine/diff.js';
import { type Observed, stampName, stampOfUnit } from '../../../../installer/engine/observe.js';
import { command, directory, file, masked, packages, unit } from '../../../../installer/model/resources.js';
import { desired, nothing, placed } from './fixture.js';

const CONF = file({ path: '/etc/x.conf', content: '[a]\nb = 1\n', group: 'x', mode: 0o640, grammar: 'ini' });
const UNIT = unit({ unit: 'x.service', watches: ['/etc/x.conf'], interrupts: 'X is away.' });
const DONE = command({
  name: 'make',
  title: 'Make it',
  check: 'test -e /made',
  apply: 'touch /made',
  destroys: 'All of it.',
});
const SYNC = command({ name: 'sync', title: 'Sync it', stamp: 'v1', apply: 'true' });
const LIST = [CONF, DONE, SYNC, UNIT].map(r => placed('n1', 'x', r));
const STATE = desired(LIST);
const STAMP = stampOfUnit(LIST[3]!, LIST);
const HASH = createHash('sha256').update('v1').digest('hex').slice(0, 32);

const inPlace = (): Observed => ({
  node: 'n1',
  packages: new Map(),
  candidates: new Map(),
  units: new Map([
    [
      'x.service',
      { load: 'loaded', active: 'active', sub: 'running', enabled: 'enabled', reloadNeeded: false, changedMs: 200 },
    ],
  ]),
  paths: new Map([['/etc/x.conf', { mode: 0o640, owner: 'root', group: 'x', type: 'regular file', writtenMs: 100 }]]),
  different: new Map(),
  sources: new Map(),
  stamps: new Map([
    [stampName('x', 'unit:x.service'), STAMP],
    [stampName('x', 'command:sync'), HASH],
  ]),
  // Started at 200, ready and recorded at 300.
  stampedMs: new Map([[stampName('x', 'unit:x.service'), 300]]),
  left: [],
  checks: new Map([['n1/x/command:make', 0]]),
});
/** No secrets here. */
const plain = (text: string) => text;
const diff = (seen: Observed, state = STATE) =>
  diffNodes(state, new Map([['n1', seen]]), new Map(), plain).map(a => a.action);

describe('a node that is as it should be', () => {
  it('gets no action', () => {
    expect(diff(inPlace())).toEqual([]);
  });
});

describe('a node with nothing on it', () => {
  it('gets all of it, in order', () => {
    const actions = diff(nothing('n1'));
    expect(actions.map(a => a.title)).toEqual(['create /etc/x.conf', 'Make it', 'Sync it', 'start x.service']);
    expect(actions.map(a => a.needs)).toEqual([
      [],
      ['n1/x/file:/etc/x.conf'],
      ['n1/x/command:make'],
      ['n1/x/command:sync'],
    ]);
    expect(actions[1]!.destroys).toBe('All of it.');
  });

  it('is not planned for when it could not be looked at', () => {
    expect(diffNodes(STATE, new Map(), new Map(), plain)).toEqual([]);
  });

  it('is named in the needs of others when it could not be looked at', () => {
    const mine = placed('n2', 'y', DONE);
    const state = {
      ...STATE,
      placed: [...STATE.placed, mine],
      before: new Map([...STATE.before, [mine.key, [LIST[3]!.key]]]),
    };
    const both = new Map([
      ['n1', inPlace()],
      ['n2', nothing('n2')],
    ]);
    expect(diffNodes(state, both, new Map(), plain).map(a => a.action.needs)).toEqual([[]]);
    both.delete('n1');
    expect(diffNodes(state, both, new Map(), plain).map(a => a.action.needs)).toEqual([[LIST[3]!.key]]);
  });
});

describe('a changed configuration value', () => {
  const seen = {
    ...inPlace(),
    different: new Map([['/etc/x.conf', '[a]\nb = 2\n']]),
    stamps: new Map(inPlace().stamps),
  };
  seen.stamps.set(stampName('x', 'unit:x.service'), 'old');
  const actions = diff(seen);

  it('changes the file and restarts what reads it, and nothing else', () => {
    expect(actions.map(a => a.title)).toEqual(['change /etc/x.conf', 'restart x.service']);
    expect(actions[0]!.diff).toContain('-b = 2\n+b = 1');
    expect(actions[1]).toMatchObject({ interrupts: 'X is away.', needs: ['n1/x/file:/etc/x.conf'] });
  });

  it('is not lost when the run was killed between the file and the restart', () => {
    const killed = { ...inPlace(), stamps: seen.stamps };
    expect(diff(killed).map(a => a.title)).toEqual(['restart x.service']);
  });
});

describe('a file that was changed by hand', () => {
  const other = new Map([['/etc/x.conf', '[a]\nb = 2\n']]);
  const seen = (startedMs: number, writtenMs: number, different: Observed['different']): Observed => {
    const o = inPlace();
    return {
      ...o,
      different,
      units: new Map([...o.units].map(([u, v]) => [u, { ...v, changedMs: startedMs }])),
      paths: new Map([...o.paths].map(([p, v]) => [p, { ...v, writtenMs }])),
    };
  };
  const titles = (o: Observed) => diff(o).map(a => a.title);

  it('is put back without a restart while the unit runs as we started it', () => {
    expect(titles(seen(200, 400, other))).toEqual(['change /etc/x.conf']);
  });

  it('restarts what was started with it meanwhile, after it was put back', () => {
    const actions = diff(seen(500, 400, other));
    expect(actions.map(a => a.title)).toEqual(['change /etc/x.conf', 'restart x.service']);
    expect(actions[1]).toMatchObject({
      reason: 'it may have read another /etc/x.conf',
      needs: ['n1/x/file:/etc/x.conf'],
      interrupts: 'X is away.',
    });
  });

  it('restarts what was started by others before its last change: that may not have been the first', () => {
    expect(titles(seen(500, 600, other))).toEqual(['change /etc/x.conf', 'restart x.service']);
  });

  it('restarts still when it was put back, by a killed run or by hand, but not the unit', () => {
    expect(titles(seen(500, 600, new Map()))).toEqual(['restart x.service']);
  });

  it('is no matter when the unit was started anew with what is wanted', () => {
    expect(titles(seen(500, 400, new Map()))).toEqual([]);
  });
});

describe('what differs in one thing', () => {
  const cases: [string, (o: Observed) => Partial<Observed>, string[]][] = [
    [
      'mode of a file',
      o => ({ paths: new Map([...o.paths].map(([p, v]) => [p, { ...v, mode: 0o644 }])) }),
      ['set owner and mode of /etc/x.conf'],
    ],
    ['a check that fails', () => ({ checks: new Map([['n1/x/command:make', 1]]) }), ['Make it']],
    [
      'a stamp of another version',
      o => ({ stamps: new Map([...o.stamps, [stampName('x', 'command:sync'), 'v0']]) }),
      ['Sync it'],
    ],
    [
      'a unit that is down',
      o => ({ units: new Map([...o.units].map(([u, v]) => [u, { ...v, active: 'failed' }])) }),
      ['start x.service'],
    ],
    [
      'a unit that is disabled',
      o => ({ units: new Map([...o.units].map(([u, v]) => [u, { ...v, enabled: 'disabled' }])) }),
      ['enable x.service'],
    ],
  ];
  it.each(cases)('%s', (_, edit, titles) => {
    const o = inPlace();
    expect(diff({ ...o, ...edit(o) }).map(a => a.title)).toEqual(titles);
  });
});

describe('packages, folders and masked units', () => {
  const list = [
    placed('n1', 'packages', packages(['a', 'b'])),
    placed('n1', 'x', directory({ path: '/d', mode: 0o750 })),
    placed('n1', 'x', masked('y.service')),
  ];
  const state = desired(list);

  it('are named when they are missing', () => {
    const seen = { ...nothing('n1'), packages: new Map([['a', '1']]) };
    expect(diff(seen, state).map(a => [a.title, a.reason])).toEqual([
      ['install 1 packages', 'not installed: b'],
      ['create folder /d', 'it does not exist'],
      ['mask y.service', 'it must not run here'],
    ]);
  });

  it('show what becomes of the sources of packages, and only when packages come from there', () => {
    const sources = 'deb http://10.99.0.1:7481/packages/debian bookworm main\n';
    const wanting = desired([placed('n1', 'packages', { ...packages(['a']), sources })]);
    const own = 'Types: deb\nURIs: http://me:hunter2hunter2@archive.example.net/debian\n';
    const seen = { ...nothing('n1'), sources: new Map([['/etc/apt/sources.list.d/debian.sources', own]]) };
    const [action] = diff(seen, wanting);
    expect(action!.reason).toBe(
      'not installed: a; where they come from changes: /etc/apt/sources.list.d/debian.sources is removed, /etc/apt/sources.list is written',
    );
    expect(action!.diff).toContain('--- a/etc/apt/sources.list.d/debian.sources\n+++ /dev/null');
    expect(action!.diff).toContain('+deb http://10.99.0.1:7481/packages/debian bookworm main');
    expect(action!.diff).toContain('archive.example.net');
    expect(action!.diff).not.toContain('hunter2');
    const there = { ...nothing('n1'), sources: new Map([['/etc/apt/sources.list', sources]]) };
    expect(diff(there, wanting)[0]!.reason).toBe('not installed: a');
    expect(diff({ ...seen, packages: new Map([['a', '1']]) }, wanting)).toEqual([]);
  });

  it('say that a unit that is masked runs, for it serves somebody', () => {
    const active = { load: 'loaded', active: 'active', sub: 'running', enabled: 'enabled', reloadNeeded: false };
    const seen = { ...nothing('n1'), units: new Map([['y.service', { ...active, changedMs: 1 }]]) };
    expect(diff(seen, state).find(a => a.title === 'mask y.service')?.interrupts).toBe(
      'y.service runs and is stopped, with all that it serves here.',
    );
    expect(diff(nothing('n1'), state).find(a => a.title === 'mask y.service')?.interrupts).toBeNull();
  });

  it('are left alone when they are right', () => {
    const seen: Observed = {
      ...nothing('n1'),
      packages: new Map([
        ['a', '1'],
        ['b', '1'],
      ]),
      paths: new Map([['/d', { mode: 0o750, owner: 'root', group: 'root', type: 'directory', writtenMs: 100 }]]),
      units: new Map([
        [
          'y.service',
          { load: 'masked', active: 'inactive', sub: 'dead', enabled: 'masked', reloadNeeded: false, changedMs: 200 },
        ],
      ]),
    };
    expect(diff(seen, state)).toEqual([]);
  });
});

describe('the hash of a plan', () => {
  it('is the same for the same plan and another for any change', () => {
    const actions = diff(nothing('n1'));
    expect(planHash(actions)).toBe(planHash([...actions].reverse()));
    expect(planHash(actions)).not.toBe(planHash(actions.slice(1)));
    expect(planHash(actions)).not.toBe(planHash([{ ...actions[0]!, diff: 'other' }, ...actions.slice(1)]));
  });
});
