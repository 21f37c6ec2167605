import { describe, expect, it } from 'vitest';
import { readFilter } from '../../../provisioner/node/filter.js';
import { inventory } from '../../harness/machines.js';
import { nodeView } from '../api/fakes.js';

const plainNode = nodeView('n01', 'available');
const withHardware = nodeView('n02', 'installing-failed', {
  spec: { ...plainNode.spec, roles: ['compute'], rack: { name: 'B2', unit: 3 } },
  status: { ...plainNode.status, inventory: inventory(), power: { state: 'on', seenMs: 1 } },
});
const kept = nodeView('n10', 'ready', { maintenance: 'fan' });
const nodes = [plainNode, withHardware, kept];

function found(text: string): string[] {
  const filter = readFilter(text);
  if (!filter.ok) throw new Error(filter.sentence);
  return nodes.filter(filter.matches).map(n => n.name);
}

describe('the filter of nodes', () => {
  it('takes states, their failures as one, and several values', () => {
    expect(found('state:available,ready')).toEqual(['n01', 'n10']);
    expect(found('state:failed')).toEqual(['n02']);
    expect(found('state:installing')).toEqual([]);
  });

  it('compares numbers, and never with what is not known', () => {
    expect(found('ram>=64')).toEqual(['n02']);
    expect(found('ram<64')).toEqual([]);
    expect(found('cores=40')).toEqual(['n02']);
  });

  it('joins terms, and turns them round', () => {
    expect(found('rack:b2 role:compute power:on')).toEqual(['n02']);
    expect(found('-role:compute')).toEqual(['n01', 'n10']);
    expect(found('is:attention -is:maintenance')).toEqual(['n02']);
  });

  it('finds words in names, MACs and serials; a MAC is no field', () => {
    expect(found('n0')).toEqual(['n01', 'n02']);
    expect(found('52:54:00:99:00:10')).toEqual(['n10']);
    expect(found('mac:52:54:00:99:00:01')).toEqual(['n01']);
    expect(found('SER10')).toEqual(['n10']);
    expect(found('')).toHaveLength(3);
  });

  it('says what is wrong with a term', () => {
    const wrong = (text: string) => {
      const filter = readFilter(text);
      return filter.ok ? null : filter.sentence;
    };
    expect(wrong('colour:red')).toContain('there is no field "colour"; there are state, is, name');
    expect(wrong('ram>=much')).toContain('compared with a number');
    expect(wrong('state>=ready')).toContain('write state:VALUE');
    expect(wrong('state:')).toContain('a value is missing');
  });
});
