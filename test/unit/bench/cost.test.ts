import { describe, expect, it } from 'vitest';
import { partCosts, passes, type Sample, stageCosts, table } from '../../../bench/cost.js';

let id = 0;
const at = (
  seconds: number,
  cpuSeconds: number,
  type: string,
  message = '',
  data: Record<string, unknown> = {},
): Sample => ({
  id: ++id,
  atMs: 100_000 + seconds * 1000,
  type,
  severity: 'info',
  nodeId: 'n',
  message,
  data,
  cpuSeconds,
});
const samples = [
  at(0, 0, 'node.state', '', { to: 'inspecting' }),
  at(10, 8, 'boot.decision'),
  at(12, 9, 'boot.milestone', 'n01: words', { name: 'kernel' }),
  at(40, 36, 'node.called-home'),
  at(41, 36.5, 'node.state', '', { to: 'available' }),
  at(42, 37, 'install.stage', 'n01: writing the image'),
  at(60, 55, 'install.written'),
  at(70, 62, 'boot.decision'),
  at(120, 110, 'node.first-boot'),
  at(122, 112, 'node.state', '', { to: 'installed' }),
  at(130, 118, 'boot.milestone', 'n01: words', { name: 'late' }),
];

describe('the cost of an installation', () => {
  it('is told by stage, and adds up to what the machine used until SSH answered', () => {
    const stages = stageCosts(samples, 100_000);
    expect(stages.map(s => [s.name, s.wallSeconds, s.cpuSeconds])).toEqual([
      ['firmware', 10, 8],
      ['ram', 30, 28],
      ['install', 20, 19],
      ['boot', 60, 55],
      ['ssh', 2, 2],
    ]);
    expect(stages.reduce((sum, s) => sum + s.cpuSeconds, 0)).toBe(112);
  });
  it('is told from sign of life to sign of life, and nothing after SSH counts', () => {
    const parts = partCosts(samples, 100_000);
    expect(parts.map(p => p.name)).toEqual([
      'until iPXE asks what to boot',
      'until the milestone kernel',
      'until the RAM environment calls home',
      'until the installer is writing the image',
      'until its disk is written',
      'until iPXE asks what to boot',
      'until the installed system calls home',
      'until SSH answers',
    ]);
    expect(parts.reduce((sum, p) => sum + p.cpuSeconds, 0)).toBe(112);
  });
});

describe('a bar', () => {
  it('is held by what is at it, missed by what is above it or was never measured', () => {
    const bar = { name: 'x', limit: 1.7, unit: '' };
    expect([1.7, 1.71, null, Number.NaN].map(value => passes({ ...bar, value }))).toEqual([true, false, false, false]);
  });
});

it('a table aligns words to the left and numbers to the right', () => {
  expect(
    table(
      ['part', 's'],
      [
        ['one', 1],
        ['eleven', 11.25],
      ],
    ),
  ).toBe('  part       s\n  one      1.0\n  eleven  11.3');
});
