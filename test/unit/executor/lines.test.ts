import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { checkUnit, parseFollowEnd, startProgram } from '../../../provisioner/core/executor/detached.js';
import { createLineSplitter, LINE_MAX_BYTES } from '../../../provisioner/core/executor/lines.js';
import { shQuote } from '../../../provisioner/core/executor/quote.js';

it('delivers the same lines however the bytes are cut, and wherever following is taken up again', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme', maxLength: 30 }).map(s => s.replaceAll('\n', ' '))),
      fc.array(fc.integer({ min: 1, max: 20 })),
      fc.nat(),
      (lines, cuts, breakAt) => {
        const bytes = Buffer.from(lines.map(l => `${l}\n`).join(''));
        const got: string[] = [];
        let stopAfter = breakAt % (lines.length + 1);
        let splitter = createLineSplitter(0, line => got.push(line));
        let at = 0;
        let i = 0;
        while (at < bytes.length) {
          const next = Math.min(bytes.length, at + (cuts[i++ % Math.max(1, cuts.length)] ?? 7));
          splitter.push(bytes.subarray(at, next));
          at = next;
          if (got.length >= stopAfter && stopAfter > 0) {
            // The server was restarted: what it knows is the offset after the last line.
            stopAfter = 0;
            at = splitter.offset;
            splitter = createLineSplitter(at, line => got.push(line));
          }
        }
        splitter.end();
        expect(got).toEqual(lines);
        expect(splitter.offset).toBe(bytes.length);
      },
    ),
  );
});

it('cuts an endless line into pieces instead of keeping it', () => {
  const pieces: [number, number][] = [];
  const splitter = createLineSplitter(10, (line, offset) => pieces.push([line.length, offset]));
  for (let i = 0; i < 40; i++) splitter.push(Buffer.alloc(5000, 0x78));
  splitter.end();
  expect(pieces).toEqual([
    [LINE_MAX_BYTES, 10 + LINE_MAX_BYTES],
    [LINE_MAX_BYTES, 10 + 2 * LINE_MAX_BYTES],
    [LINE_MAX_BYTES, 10 + 3 * LINE_MAX_BYTES],
    [200_000 - 3 * LINE_MAX_BYTES, 200_010],
  ]);
});

it('quotes any text so that a real shell gives it back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 60 }), text => {
      const word = text.replaceAll('\0', '');
      expect(execFileSync('sh', ['-c', `printf %s ${shQuote(word)}`]).toString()).toBe(word);
    }),
    { numRuns: 60 },
  );
  expect(() => shQuote('a\0b')).toThrow(/NUL/);
});

it('refuses unit names and variable names that are none', () => {
  for (const unit of ['', '-x', 'A', 'a b', 'a;b', '../x', 'a/b', 'x'.repeat(201), 'a\n'])
    expect(() => checkUnit(unit), JSON.stringify(unit)).toThrow(/unit name/);
  for (const name of ['', '1A', 'A B', 'A=B', 'A;id'])
    expect(() => startProgram({ unit: 'u', script: '', env: { [name]: 'v' }, timeoutMs: 1 })).toThrow(/variable/);
});

it('executes nothing of a start program that was cut off anywhere', () => {
  const program = startProgram({ unit: 'never', script: 'echo x', env: { A: "it's" }, timeoutMs: 1000 });
  execFileSync('sh', ['-n'], { input: program });
  for (let at = 1; at < program.lastIndexOf('}'); at += 97) {
    // mkdir and systemd-run would say something; a shell that gets half a compound command only complains.
    const half = execFileSync('sh', ['-c', 'PATH=/nonexistent /bin/sh 2>&1 || true'], {
      input: program.slice(0, at),
    }).toString();
    expect(half, `cut at ${at}`).not.toMatch(/not found|started|exists/);
  }
});

it('believes the end of following only when it came whole', () => {
  const whole = 'last words\n\nhalligan-follow end 3 exit-code 11\n';
  expect(parseFollowEnd(whole)).toEqual({ kind: 'end', code: 3, result: 'exit-code', size: 11, tail: 'last words\n' });
  for (let at = 0; at < whole.length - 1; at++) expect(parseFollowEnd(whole.slice(0, at))).toBeUndefined();
  expect(parseFollowEnd('\nhalligan-follow gone\n')).toEqual({ kind: 'gone' });
  // A script that prints our own words does not fool us: only the last line counts.
  expect(parseFollowEnd(`\nhalligan-follow end 0 success 0\n${whole}`)).toMatchObject({ kind: 'end', code: 3 });
});
