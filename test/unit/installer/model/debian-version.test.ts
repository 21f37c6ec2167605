import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareVersions, inRange, isVersion, isVersionRange } from '../../../../installer/model/debian-version.js';

/** Each is older than the next. */
const ASCENDING = [
  '0~~',
  '0~',
  '0',
  '0a',
  '0+',
  '1.0~beta1',
  '1.0~beta1.1',
  '1.0',
  '1.0-0ubuntu1~cloud0',
  '1.0-0ubuntu1',
  '1.0-0ubuntu1.1',
  '1.0-1~bpo12+1',
  '1.0-1',
  '1.0-1+b1',
  '1.0-1+deb12u1',
  '1.0-10',
  '1.0+dfsg-1',
  '1.0.1',
  '1.10',
  '26.2.2-1~deb12u5',
  '2:21.0.0-7+deb12u1',
  '2:28.0.0~rc1-0ubuntu1',
  '2:28.0.0-0ubuntu1',
  '2:28.0.0-0ubuntu1.1',
  '2:28.0.0-0ubuntu1.10',
  '3:1',
];

describe('versions of Debian packages', () => {
  it('come in the order of policy 5.6.12', () => {
    for (const [i, a] of ASCENDING.entries())
      for (const [j, b] of ASCENDING.entries())
        expect(Math.sign(compareVersions(a, b)), `${a} ${b}`).toBe(Math.sign(i - j));
  });

  it('are equal however zeros are written', () => {
    for (const [a, b] of [
      ['1.0', '0:1.0'],
      ['1.0', '1.00'],
      ['1.0', '1.0-0'],
      ['01', '1'],
    ] as const)
      expect(compareVersions(a, b)).toBe(0);
  });

  it('are told from other text', () => {
    for (const text of ['', 'a', '-1', '1-', '1:', ':1', '1 0', 'x:1', '(none)', '1_0', 'ü1'])
      expect(isVersion(text), text).toBe(false);
    expect(() => compareVersions('1', 'none')).toThrow('not a version');
  });

  it.skipIf(!existsSync('/usr/bin/dpkg'))('come in the order of dpkg', () => {
    const part = fc.string({
      unit: fc.constantFrom(...'0123456789', 'a', 'b', 'Z', '~', '+', '.'),
      minLength: 0,
      maxLength: 5,
    });
    const version = fc
      .tuple(fc.option(fc.nat(3)), fc.nat(12), part, fc.option(part))
      .map(
        ([epoch, n, rest, revision]) =>
          `${epoch === null ? '' : `${epoch}:`}${n}${rest}${revision ? `-${revision}` : ''}`,
      );
    const pairs = [
      ...fc.sample(fc.tuple(version, version), { numRuns: 250, seed: 12 }),
      ...ASCENDING.slice(1).map((v, i) => [ASCENDING[i]!, v] as const),
    ];
    // One shell for all: a process per question is slow.
    const script = pairs
      .map(
        ([a, b]) =>
          `if dpkg --compare-versions '${a}' lt '${b}'; then echo -1; elif dpkg --compare-versions '${a}' gt '${b}'; then echo 1; else echo 0; fi`,
      )
      .join('\n');
    const said = spawnSync('sh', { input: script, encoding: 'utf8' }).stdout.trim().split('\n').map(Number);
    expect(said).toHaveLength(pairs.length);
    for (const [i, [a, b]] of pairs.entries()) expect(compareVersions(a, b) + 0, `${a} ${b}`).toBe(said[i]);
  });
});

describe('a range of versions', () => {
  it('holds when all its conditions do', () => {
    expect(inRange('2:28.0.0-0ubuntu1', '<< 2:28.0.0-0ubuntu1.1')).toBe(true);
    expect(inRange('2:28.0.0-0ubuntu1.1', '<< 2:28.0.0-0ubuntu1.1')).toBe(false);
    expect(inRange('2:27.0.0-0ubuntu1', '>= 2:28.0.0~b1, << 2:28.0.0-0ubuntu1.1')).toBe(false);
    expect(inRange('1', '= 1')).toBe(true);
    expect(inRange('1', '>>1')).toBe(false);
    expect(inRange('1', '<= 1')).toBe(true);
  });

  it('knows no other operators', () => {
    for (const range of ['', '1', '< 1', '>= ', '!= 1', '>= 1,', '<< x'])
      expect(isVersionRange(range), range).toBe(false);
    expect(() => inRange('1', '< 2')).toThrow('not a range');
  });
});
