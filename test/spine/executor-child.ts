/** A server process that follows one detached job and writes down what it got; killed by the test. */
import { appendFileSync, readFileSync } from 'node:fs';
import { systemClock } from '../../provisioner/core/clock.js';
import { createExecutor } from '../../provisioner/core/executor/executor.js';
import { silentLog } from '../../provisioner/core/log.js';

const { privateKey, target, job, journal } = JSON.parse(readFileSync(process.argv[2]!, 'utf8'));
const known = readFileSync(journal, 'utf8').split('\n').filter(Boolean);
const fromOffset = known.length > 0 ? Number(known.at(-1)!.split(' ')[0]) : 0;
const executor = createExecutor({ privateKey, maxConnections: 2, clock: systemClock, log: silentLog });
const result = await executor.detached(target, job, (line, offset) => appendFileSync(journal, `${offset} ${line}\n`), {
  fromOffset,
});
process.stdout.write(JSON.stringify(result));
await executor.close();
