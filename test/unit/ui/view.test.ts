import { describe, expect, it } from 'vitest';
import { problem } from '../../../provisioner/core/problem.js';
import type { NodeView, Why } from '../../../provisioner/node/service.js';
import { few, review, reviewTitle, wordToType } from '../../../ui/src/view/bulk.js';
import { diffLines } from '../../../ui/src/view/diff.js';
import { eventsMatching } from '../../../ui/src/view/events.js';
import { attention, byState } from '../../../ui/src/view/fleet.js';
import { diskSize, memory, plain, span } from '../../../ui/src/view/format.js';
import { hitsOf } from '../../../ui/src/view/palette.js';
import { itemsOf, plannedOf } from '../../../ui/src/view/progress.js';
import { extend, hidden, keep, toggle, toggleShown } from '../../../ui/src/view/selection.js';
import { nextSort, sorted } from '../../../ui/src/view/sort.js';
import { timeline } from '../../../ui/src/view/timeline.js';
import { nodeView } from '../api/fakes.js';

const names = (nodes: readonly NodeView[]) => nodes.map(n => n.name);

describe('the selection', () => {
  const order = ['a', 'b', 'c', 'd'];
  it('toggles one, extends from the last one to this, and never changes what it was given', () => {
    const one = toggle(new Set(), 'b');
    expect([...extend(one, order, 'b', 'd')]).toEqual(['b', 'c', 'd']);
    expect([...extend(one, order, 'd', 'c')].sort()).toEqual(['b', 'c', 'd']);
    expect([...extend(one, order, 'gone', 'a')]).toEqual(['b', 'a']);
    expect([...toggle(one, 'b')]).toEqual([]);
    expect([...one]).toEqual(['b']);
  });

  it('of all takes what is shown, gives it back when all were, and leaves what the filter hides', () => {
    const some = new Set(['z', 'a']);
    const all = toggleShown(some, order);
    expect([...all].sort()).toEqual(['a', 'b', 'c', 'd', 'z']);
    expect([...toggleShown(all, order)]).toEqual(['z']);
    expect(hidden(all, order)).toBe(1);
  });

  it('forgets nodes that are gone', () => {
    expect([...keep(new Set(['a', 'x']), new Set(order))]).toEqual(['a']);
    const same = new Set(['a']);
    expect(keep(same, new Set(order))).toBe(same);
  });
});

describe('an order for several nodes', () => {
  const nodes = [nodeView('n01', 'available'), nodeView('n02', 'ready'), nodeView('n03', 'ready')];

  it('says before the act which cannot, by reason', () => {
    const found = review(nodes, { kind: 'action', action: 'claim', params: {} });
    expect(names(found.can)).toEqual(['n01']);
    expect(found.cannot).toHaveLength(1);
    expect(names(found.cannot[0]!.nodes)).toEqual(['n02', 'n03']);
    expect(found.cannot[0]!.reason).toMatch(/^claim is not possible while the node is Ready/);
    expect(reviewTitle({ kind: 'action', action: 'claim', params: {} }, found)).toBe('Claim 1 · 2 cannot');
    expect(wordToType(found)).toBeNull();
  });

  it('wants a name typed where data dies, or how many', () => {
    const order = { kind: 'action', action: 'release', params: {} } as const;
    expect(wordToType(review(nodes.slice(0, 2), order))).toBe('n02');
    expect(wordToType(review(nodes, order))).toBe('2 nodes');
    expect(review(nodes, order).destroys[0]).toMatch(/^n02: everything on /);
  });

  it('refuses to switch what has no BMC, and roles that are so already', () => {
    const [power] = review(nodes, { kind: 'power', action: 'on' }).cannot;
    expect(power?.reason).toContain('no BMC');
    const roles = review(nodes, { kind: 'roles', add: [], remove: ['compute'] });
    expect(names(roles.can)).toEqual([]);
    expect(names(review(nodes, { kind: 'roles', add: ['compute'], remove: [] }).can)).toEqual(names(nodes));
  });

  it('names a few', () => {
    expect(few(nodes, 2)).toBe('n01, n02 and 1 more');
    expect(few(nodes)).toBe('n01, n02, n03');
  });
});

describe('the overview', () => {
  const silent = problem('bmc-silent', 'Its BMC did not answer.');
  it('puts failures first, one line for one reason, with the action that goes on', () => {
    const lines = attention([
      nodeView('n01', 'available'),
      nodeView('n02', 'installing-failed', { failure: silent }),
      nodeView('n03', 'installing-failed', { failure: silent }),
      nodeView('n04', 'inspecting', { overdue: true, sentence: 'Inspecting · 20 min' }),
      nodeView('n05', 'ready'),
      nodeView('n06', 'available', { maintenance: 'fan' }),
    ]);
    expect(lines.map(l => [l.title, l.action, names(l.nodes)])).toEqual([
      ['Installing failed on 2 nodes', 'install', ['n02', 'n03']],
      ['1 node longer than expected', null, ['n04']],
      ['1 node to claim', 'claim', ['n01']],
      ['1 node in maintenance', null, ['n06']],
    ]);
    expect(lines[0]!.reason).toBe(`${silent.message} ${silent.hint}`);
  });

  it('is quiet when all is well', () => {
    expect(attention([nodeView('n01', 'ready'), nodeView('n02', 'installing')])).toEqual([]);
  });

  it('counts by state in the order of the lifecycle, failures beside their state', () => {
    const counted = byState(
      (['ready', 'installing-failed', 'available', 'installing', 'available'] as const).map((s, i) =>
        nodeView(`n0${i}`, s),
      ),
    );
    expect(counted.map(c => [c.state, c.count, c.tone])).toEqual([
      ['available', 2, 'wait'],
      ['installing', 1, 'busy'],
      ['installing-failed', 1, 'bad'],
      ['ready', 1, 'good'],
    ]);
  });
});

describe('the order of the table', () => {
  const nodes = [nodeView('n10', 'ready'), nodeView('n2', 'installing-failed'), nodeView('n1', 'installing')];
  it('reads numbers in names, and puts what needs a person first', () => {
    expect(names(sorted(nodes, 'name'))).toEqual(['n1', 'n2', 'n10']);
    expect(names(sorted(nodes, '-name'))).toEqual(['n10', 'n2', 'n1']);
    expect(names(sorted(nodes, 'state'))).toEqual(['n2', 'n1', 'n10']);
    expect(nextSort('name', 'name')).toBe('-name');
    expect(nextSort('-name', 'name')).toBe('name');
  });
});

describe('the palette', () => {
  const nodes = [nodeView('n01', 'ready'), nodeView('n10', 'ready')];
  const places = [
    { to: '/nodes', title: 'Nodes' },
    { to: '/events', title: 'Events' },
  ];
  it('finds a page by its begin and a node by a MAC however it is written', () => {
    expect(hitsOf('ev', places, nodes).map(h => h.title)).toEqual(['Events']);
    for (const mac of ['52:54:00:99:00:10', '52-54-00-99-00-10', '5254.0099.0010', '525400990010'])
      expect(
        hitsOf(mac, places, nodes).map(h => h.title),
        mac,
      ).toEqual(['n10']);
    expect(hitsOf('SER1', places, nodes).map(h => h.title)).toEqual(['n01', 'n10']);
    expect(hitsOf('', places, nodes)).toHaveLength(2);
  });
});

describe('the timeline of a node', () => {
  it('puts packets, states, steps and events in one line, newest first, and a state once', () => {
    const why: Why = {
      node: nodeView('n01', 'available'),
      next: '',
      history: [{ atMs: 30, from: 'inspecting', to: 'available', event: 'inspected', reason: 'It reported.' }],
      trace: [{ atMs: 10, mac: 'm', layer: 'dhcp', message: 'DISCOVER', silent: true, data: {} }],
      run: {
        id: 'r',
        kind: 'install',
        nodeId: 'a',
        state: 'done',
        input: null,
        result: null,
        createdMs: 15,
        endedMs: 29,
        steps: [{ step: 'write', attempt: 1, state: 'after', beforeMs: 20, afterMs: 25, output: null }],
      },
      events: [
        { id: 1, atMs: 30, type: 'node.state', severity: 'info', nodeId: 'a', message: 'Available', data: {} },
        { id: 2, atMs: 40, type: 'power.on', severity: 'info', nodeId: 'a', message: 'On', data: {} },
      ],
    };
    expect(timeline(why).map(m => [m.kind, m.text, m.tone, m.tookMs])).toEqual([
      ['event', 'On', 'plain', null],
      ['state', 'inspecting → available: It reported.', 'plain', null],
      ['step', 'write: done', 'plain', 5],
      ['packet', 'dhcp: DISCOVER', 'bad', null],
    ]);
  });
});

describe('a run as it goes', () => {
  const say = (id: number, type: string, data: Record<string, unknown>) => ({
    id,
    atMs: id * 10,
    type,
    severity: 'info' as const,
    nodeId: null,
    message: '',
    data,
  });
  it('is each action once, at its newest state, of this run alone', () => {
    const events = [
      say(1, 'cloud.plan', { runId: 'r', actions: 2 }),
      say(2, 'cloud.action', {
        runId: 'r',
        id: 'a',
        node: 'ctl',
        service: 's',
        title: 'T',
        state: 'begin',
        seconds: null,
        message: null,
      }),
      say(3, 'cloud.action', {
        runId: 'other',
        id: 'x',
        node: 'ctl',
        service: 's',
        title: 'X',
        state: 'begin',
        seconds: null,
        message: null,
      }),
      say(4, 'cloud.action', {
        runId: 'r',
        id: 'a',
        node: 'ctl',
        service: 's',
        title: 'T',
        state: 'failed',
        seconds: 2,
        message: 'no',
      }),
      say(5, 'cloud.check', { runId: 'r', name: 'c', title: 'C', state: 'begin', seconds: null, message: null }),
    ];
    expect(plannedOf(events, 'r')).toBe(2);
    expect(itemsOf(events, 'r').map(i => [i.id, i.state, i.sinceMs, i.seconds])).toEqual([
      ['a', 'failed', 20, 2],
      ['c', 'running', 50, null],
    ]);
  });
});

describe('the page of events', () => {
  it('finds by word, kind, severity and node, newest first', () => {
    const events = [1, 2, 3].map(id => ({
      id,
      atMs: id,
      type: id === 2 ? 'power.on' : 'node.state',
      severity: id === 3 ? ('error' as const) : ('info' as const),
      nodeId: id === 1 ? 'a' : null,
      message: `Message ${id}`,
      data: {},
    }));
    const find = (text: string) => eventsMatching(events, text, id => (id === 'a' ? 'n07' : undefined)).map(e => e.id);
    expect(find('')).toEqual([3, 2, 1]);
    expect(find('power')).toEqual([2]);
    expect(find('error')).toEqual([3]);
    expect(find('n07 message')).toEqual([1]);
    expect(find('n07 error')).toEqual([]);
  });
});

describe('words and numbers', () => {
  it('shows what would hide or turn text as a sign', () => {
    expect(plain('a\u202eb\u0000c\nd')).toBe('a␣b␣c␣d');
    expect(plain('Prüfstand 7 🏴')).toBe('Prüfstand 7 🏴');
  });
  it('are as the field says them', () => {
    expect([memory(137_438_953_472), diskSize(480e9), diskSize(7.68e12)]).toEqual(['128 GiB', '480 GB', '7.7 TB']);
    expect([span(45_000), span(180_000), span(7_500_000), span(4 * 86_400_000)]).toEqual([
      '45 s',
      '3 min',
      '2 h 5 min',
      '4 d',
    ]);
  });
  it('a diff keeps its heads, additions and removals apart', () => {
    expect(diffLines('--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\ty\n z\n').map(l => [l.kind, l.text])).toEqual([
      ['head', '--- a'],
      ['head', '+++ b'],
      ['head', '@@ -1 +1 @@'],
      ['remove', '-x'],
      ['add', '+    y'],
      ['same', ' z'],
    ]);
  });
});
