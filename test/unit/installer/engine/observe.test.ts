/** The look at a node: its program, run by `sh` on real files with what systemctl says on a host. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { observeScript, parseObserved, parseUnitTime, STAMPS } from '../../../../installer/engine/observe.js';
import { file, unit } from '../../../../installer/model/resources.js';
import { placed } from './fixture.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-observe-'));
  for (const d of ['bin', 'stamps']) mkdirSync(join(dir, d));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

it('tells when a file was written, a unit last changed, and a stamp was recorded', () => {
  const path = join(dir, 'x.conf');
  writeFileSync(path, 'b = 2\n');
  utimesSync(path, 1_800_000_000.25, 1_800_000_000.25);
  const stamp = join(dir, 'stamps/x%unit:x.service');
  writeFileSync(stamp, 'abc');
  for (const name of ['dashboard%unit:old.service', 'dashboard%unit:stopped.service', 'x%command:done'])
    writeFileSync(join(dir, 'stamps', name), 'abc');
  writeFileSync(
    join(dir, 'bin/systemctl'),
    `#!/bin/sh
case $1 in is-active|is-enabled) [ "$4" = old.service ]; exit;; esac
case " $* " in *" --timestamp=us+utc "*" -p StateChangeTimestamp "*) ;; *) exit 1;; esac
cat <<'END'
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=no
StateChangeTimestamp=Tue 2026-11-24 20:07:33.123456 UTC

LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=disabled
NeedDaemonReload=no
StateChangeTimestamp=n/a
END
`,
    { mode: 0o755 },
  );
  const list = [
    file({ path, content: 'b = 1\n' }),
    unit({ unit: 'x.service', watches: [path] }),
    unit({ unit: 'y.service' }),
  ].map(r => placed('n1', 'x', r));
  const script = observeScript(list).replaceAll(STAMPS, join(dir, 'stamps')).replace('PATH=', `PATH=${dir}/bin:`);
  const seen = parseObserved(execFileSync('sh', { input: script, encoding: 'utf8' }), 'n1', list);
  expect(seen.different.get(path)).toBe('b = 2\n');
  expect(seen.paths.get(path)?.writtenMs).toBe(1_800_000_000_250);
  expect(seen.units.get('x.service')?.changedMs).toBe(Date.UTC(2026, 10, 24, 20, 7, 33, 123));
  expect(seen.units.get('y.service')?.changedMs).toBeNull();
  // Neither what is wanted nor what was stopped already.
  expect(seen.left).toEqual([{ service: 'dashboard', unit: 'old.service' }]);
  expect(seen.stamps.get('x%unit:x.service')).toBe('abc');
  expect(Math.abs(seen.stampedMs.get('x%unit:x.service')! - statSync(stamp).mtimeMs)).toBeLessThanOrEqual(1);
});

it('reads times with and without fractions, and none from what is no time', () => {
  expect(parseUnitTime('Tue 2026-11-24 20:07:33 UTC')).toBe(Date.UTC(2026, 10, 24, 20, 7, 33));
  for (const text of [undefined, '', 'n/a']) expect(parseUnitTime(text)).toBeNull();
});
