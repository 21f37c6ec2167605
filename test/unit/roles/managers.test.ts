/** Runs of a manager, with a real Python and a manager of our own. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { managers } from '../../../roles/shared.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-managers-'));
  // `log TEXT`, `fail CODE`, `meet A B`: writes A and waits for B.
  writeFileSync(
    join(dir, 'sample_manager.py'),
    `import os, sys, time
def main():
    what, rest = sys.argv[1], sys.argv[2:]
    with open('${dir}/log', 'a') as log:
        log.write(' '.join([os.path.basename(sys.argv[0]), what, *rest]) + '\\n')
    if what == 'fail':
        return int(rest[0])
    if what == 'meet':
        open('${dir}/' + rest[0], 'w').close()
        for _ in range(100):
            if os.path.exists('${dir}/' + rest[1]):
                return 0
            time.sleep(0.1)
        return 1
`,
  );
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const run = (...chains: Parameters<typeof managers>[3][]) => {
  const script = managers(userInfo().username, 'sample-manage', 'sample_manager', ...chains);
  const { status, stderr } = spawnSync('sh', ['-eu', '-c', script], {
    encoding: 'utf8',
    env: { ...process.env, PYTHONPATH: dir, PYTHONDONTWRITEBYTECODE: '1' },
  });
  return { status, stderr, log: readFileSync(join(dir, 'log'), 'utf8').trim().split('\n') };
};

describe('runs of a manager', () => {
  it('are one after the other within a chain, and chains are side by side', () => {
    // Each of the two waits for the other.
    const out = run(
      [{ words: ['log', '1'] }, { words: ['meet', 'a', 'b'] }, { words: ['log', '2'] }],
      [{ words: ['meet', 'b', 'a'] }],
    );
    expect(out.status).toBe(0);
    const first = out.log.filter(l => !l.includes('meet b'));
    expect(first).toEqual(['sample-manage log 1', 'sample-manage meet a b', 'sample-manage log 2']);
    expect(out.log).toContain('sample-manage meet b a');
  });

  it('end at the first that fails, with its name; other chains are brought to their end', () => {
    const out = run(
      [{ words: ['fail', '3'] }, { words: ['log', 'never'] }],
      [{ words: ['log', '1'] }, { words: ['log', '2'] }],
    );
    expect(out.status).toBe(1);
    expect(out.stderr).toContain('sample-manage fail 3 failed');
    expect([...out.log].sort()).toEqual(['sample-manage fail 3', 'sample-manage log 1', 'sample-manage log 2']);
  });

  it('may end with a code that is accepted', () => {
    expect(run([{ words: ['fail', '2'], accept: [2] }, { words: ['log', '1'] }])).toMatchObject({
      status: 0,
      log: ['sample-manage fail 2', 'sample-manage log 1'],
    });
  });
});
