import { expect, it } from 'vitest';
import { joinedAfter, NO_MEMORY, readMemory, writeMemory } from '../../../../installer/model/memory.js';

const node = (name: string, ...services: string[]) => ({ name, services });

it('keeps the order in which nodes got a service, and forgets those that left', () => {
  const first = joinedAfter({}, [node('b', 'disk'), node('c', 'disk', 'api')]);
  expect(first).toEqual({ disk: ['b', 'c'], api: ['c'] });
  const second = joinedAfter(first, [node('a', 'disk'), node('c', 'disk'), node('d', 'disk')]);
  expect(second).toEqual({ disk: ['c', 'a', 'd'] });
});

it('keeps the place of a node that is only away', () => {
  const before = { disk: ['b', 'c'], api: ['b'] };
  expect(joinedAfter(before, [node('a', 'disk'), node('c', 'disk')], ['b'])).toEqual({
    disk: ['b', 'c', 'a'],
    api: ['b'],
  });
});

it('comes back from the store as it was, and refuses what is not of its making', () => {
  const memory = {
    joined: { disk: ['b'] },
    rings: [{ replicas: 2, add: [{ node: 'b', disk: 'sdb', zone: 1, address: '192.0.2.1' }], remove: [] }],
  };
  expect(readMemory(writeMemory(memory))).toEqual(memory);
  expect(readMemory(undefined)).toEqual(NO_MEMORY);
  expect(() => readMemory('{"joined": []}')).toThrow(/another version/);
});
