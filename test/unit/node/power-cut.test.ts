/** What the state loop makes of a power cut that it sees only by the silence, and of a disk that was taken before a failure. */
import { afterEach, expect, it } from 'vitest';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { aWorld, until } from './fixtures.js';

let world: Awaited<ReturnType<typeof aWorld>>;
afterEach(() => world.close());

it.each([
  ['install', 'write', 'the node was restarted while its disk was written'],
  ['release', 'erase', 'the node was restarted while its disks were erased'],
] as const)(
  'a try of %s ends with the life of the node that it began in, when all that was seen is silence',
  async (action, step, lost) => {
    world = await aWorld();
    await world.bootRam('boot-1');
    const id = world.nodes.all()[0]!.id;
    await until('available', () => world.nodes.byId(id)?.state === 'available');
    await world.service.act(id, 'claim', {});
    let tries = 0;
    const good = world.machine.job;
    world.machine.job = async (unit, onLine, signal) => {
      if (++tries > 1) return good(unit, onLine, signal);
      world.machine.bootId = null;
      world.machine.power = 'off';
      throw new ProblemError({ code: 'ssh-failed', message: 'no answer', hint: '', retry: true });
    };
    world.machine.onNetboot = () => {
      world.clock.advance(20_000);
      void world.bootRam('boot-2');
    };
    await world.service.act(id, action, {});
    const run = world.nodes.byId(id)!.status.runId!;
    await until('first try', () => tries === 1);
    for (let i = 0; i < 4; i++) world.clock.advance(11_000);
    world.loop.poke(id);
    await until('done', () => {
      world.clock.advance(1000);
      const { state, status } = world.nodes.byId(id)!;
      return status.diskReady || state === 'available';
    });
    const tried = (await world.journal.steps(run)).filter(s => s.step === step);
    expect(tried.map(s => s.attempt)).toEqual([1, 2]);
    expect(tried[0]!.output).toEqual({ lost });
  },
);
