import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { mergeIni } from '../../../../installer/engine/ini.js';

const BASE = `[DEFAULT]
# the number
workers = 2
names = a,
  b,
  c
debug = false

[database]
connection = mysql://x
`;

describe('additions of the operator to a configuration file', () => {
  it('replace a value where it stands', () => {
    expect(mergeIni(BASE, { DEFAULT: { workers: 7 } })).toBe(BASE.replace('workers = 2', 'workers = 7'));
  });

  it('replace all lines of a value that goes on', () => {
    expect(mergeIni(BASE, { DEFAULT: { names: 'z' } })).toBe(BASE.replace(/names = a,\n {2}b,\n {2}c/, 'names = z'));
  });

  it('come at the end of their section when they are new', () => {
    expect(mergeIni(BASE, { DEFAULT: { cpu_allocation_ratio: 4.5 } })).toContain(
      'debug = false\ncpu_allocation_ratio = 4.5\n\n[database]',
    );
  });

  it('bring a section that is not there', () => {
    expect(mergeIni(BASE, { quota: { cores: -1 } })).toBe(`${BASE}\n[quota]\ncores = -1\n`);
  });

  it('change nothing when there are none', () => {
    expect(mergeIni(BASE, {})).toBe(BASE);
    expect(mergeIni(BASE, { DEFAULT: {} })).toBe(BASE);
  });

  it('are read by Python as they were meant', () => {
    const merged = mergeIni(BASE, { DEFAULT: { workers: 7, x: 'y=z' }, database: { max: 5 }, new: { a: true } });
    const program = `import configparser,json,sys
c=configparser.RawConfigParser(strict=True,default_section='none');c.read_string(sys.stdin.read())
print(json.dumps({s:dict(c[s]) for s in c.sections()}))`;
    expect(JSON.parse(execFileSync('python3', ['-c', program], { input: merged, encoding: 'utf8' }))).toEqual({
      DEFAULT: { workers: '7', names: 'a,\nb,\nc', debug: 'false', x: 'y=z' },
      database: { connection: 'mysql://x', max: '5' },
      new: { a: 'true' },
    });
  });
});
