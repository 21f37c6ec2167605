/**
 * `npm run bench`: what the two long ways cost: a bare machine to SSH (`machine`), hosts to a cloud (`cloud`). Seconds of
 * wall time depend on the machine and on what else it does; docs/speed.md says what each bar is worth.
 *
 *   node dist/bench/main.js [--only machine|cloud]… [--json FILE] [--firmware bios|uefi]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { asProblem, fail } from '../provisioner/core/problem.js';
import { cloud } from './cloud.js';
import { type Bar, passes, table } from './cost.js';
import { machine } from './machine.js';
import type { Part } from './part.js';

const PARTS: Readonly<Record<string, Part>> = { machine, cloud };

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => stop.abort(new Error(`it was ended by ${signal}`)));
const say = (text: string) => process.stdout.write(`${text}\n`);

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: Object.keys(PARTS) },
      json: { type: 'string' },
      firmware: { type: 'string', default: 'bios' },
    },
  });
  const chosen = values.only.map(
    name =>
      [
        name,
        PARTS[name] ??
          fail('request-invalid', `There is no part ${JSON.stringify(name)} of the bench.`, {
            hint: `--only takes ${Object.keys(PARTS).join(' or ')}.`,
          }),
      ] as const,
  );
  const firmware = values.firmware === 'uefi' ? ('uefi' as const) : ('bios' as const);
  const bars: Bar[] = [];
  const figures: Record<string, unknown> = {};
  for (const [name, part] of chosen) {
    const result = await part({ say, signal: stop.signal, firmware });
    bars.push(...result.bars);
    figures[name] = result.figures;
  }
  say('');
  say(
    table(
      ['result', 'bar', 'value', 'at most', ''],
      bars.map(b => [passes(b) ? 'PASS' : 'FAIL', b.name, b.value?.toFixed(2) ?? '–', b.limit.toFixed(2), b.unit]),
    ),
  );
  if (values.json)
    writeFileSync(
      values.json,
      `${JSON.stringify({ bars: bars.map(b => ({ ...b, pass: passes(b) })), ...figures }, null, 2)}\n`,
    );
  return bars.every(passes);
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  const problem = asProblem(error, 'lab-failed');
  process.stderr.write(`bench: ${problem.message} ${problem.hint ?? ''}\n`);
  process.exitCode = 1;
}
