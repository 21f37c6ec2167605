import { afterEach, expect, it } from 'vitest';
import { type AdoptRequest, adoptHost } from '../../../provisioner/adopt/adopt.js';
import { systemClock } from '../../../provisioner/core/clock.js';
import { createExecutor } from '../../../provisioner/core/executor/executor.js';
import { silentLog } from '../../../provisioner/core/log.js';
import { type ShellServer, soundKeyPair, startShellServer } from '../executor/shell-server.js';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
const ours = soundKeyPair();

/** Answers the probe with these lines, whatever it is asked. */
async function hostThatSays(
  lines: string,
  options: { password?: string; acceptKey?: string } = {},
): Promise<ShellServer> {
  const server = await startShellServer({
    ...options,
    onExec: (_command, channel) => {
      channel.resume();
      channel.write(lines);
      channel.exit(0);
      channel.end();
    },
  });
  closers.push(() => server.close());
  return server;
}
const adopt = (server: ShellServer, extra: Partial<AdoptRequest>) => {
  const executor = createExecutor({ privateKey: ours.private, maxConnections: 2, clock: systemClock, log: silentLog });
  closers.push(() => executor.close());
  return adoptHost({
    address: '127.0.0.1',
    port: server.port,
    user: 'root',
    executor,
    clock: systemClock,
    log: silentLog,
    ...extra,
  }).catch(error => error.problem);
};

it('refuses a host whose key nobody vouched for, shows the fingerprint, and sends no credential', async () => {
  const server = await hostThatSays('', { password: 'p' });
  const problem = await adopt(server, { password: 'p' });
  expect(problem.code).toBe('adopt-refused');
  expect(problem.message).toContain(problem.detail.fingerprint);
  expect(problem.hint).toContain(`--host-key ${problem.detail.fingerprint}`);
  expect(server.seen).toEqual([]);
  // Confirmed with what was shown, it goes on to the next step.
  const next = await adopt(server, { password: 'p', hostKey: problem.detail.fingerprint });
  expect(next.message).toContain('does not say what system it runs');
});

it('stops at a key or fingerprint that is another, before any login', async () => {
  const server = await hostThatSays('');
  for (const hostKey of [soundKeyPair().public, 'SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'])
    expect(await adopt(server, { hostKey })).toMatchObject({ code: 'host-key-mismatch' });
  expect(server.seen).toEqual([]);
});

it('says which key to put where when the host does not know us', async () => {
  const server = await hostThatSays('', { acceptKey: soundKeyPair().public });
  const problem = await adopt(server, { hostKey: server.hostKey });
  expect(problem.code).toBe('adopt-refused');
  expect(problem.hint).toContain(ours.public.split(' ')[1]);
});

it('refuses a key that cannot be used and a name that cannot be one without connecting', async () => {
  const server = await hostThatSays('');
  for (const extra of [{ privateKey: 'secret garbage' }, { privateKey: ours.public }, { name: 'Bad Name' }]) {
    const problem = await adopt(server, { hostKey: server.hostKey, ...extra });
    expect(problem.code).toBe('request-invalid');
    expect(JSON.stringify(problem)).not.toContain('secret garbage');
  }
  expect(server.seen).toEqual([]);
});
