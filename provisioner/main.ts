#!/usr/bin/env node
/** Composition root: reads flags and environment, wires the parts, ends the process. */
import { readFileSync } from 'node:fs';
import { pino } from 'pino';
import { systemClock } from './core/clock.js';
import { asProblem, PROBLEMS } from './core/problem.js';
import { startServer } from './serve.js';
import { loadSiteOrThrow } from './site/load.js';

const [command, , sitePath] = process.argv.slice(2);
const log = pino({ level: process.env['LOG_LEVEL'] ?? 'info', base: null });
try {
  if (command === 'serve') {
    const loaded = loadSiteOrThrow(readFileSync(sitePath!, 'utf8'), sitePath!);
    const server = await startServer({ loaded, version: '0.1.0', clock: systemClock, log, env: process.env });
    for (const line of server.listening) console.log(line);
    const stop = () => void server.close().then(() => process.exit(0));
    process.once('SIGTERM', stop);
    process.once('SIGINT', stop);
  }
} catch (error) {
  const problem = asProblem(error, 'internal');
  console.error(`${problem.message}\n${problem.hint}`, error);
  process.exit(PROBLEMS[problem.code].exit);
}
