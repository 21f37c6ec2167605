import { afterAll, beforeAll, expect, it } from 'vitest';
import { adoptHost } from '../../provisioner/adopt/adopt.js';
import { systemClock } from '../../provisioner/core/clock.js';
import { hostKeyFingerprint, parseHostKey } from '../../provisioner/core/executor/connection.js';
import { createExecutor, type PooledExecutor } from '../../provisioner/core/executor/executor.js';
import { makeSshKey } from '../../provisioner/core/keys.js';
import { silentLog } from '../../provisioner/core/log.js';
import { type SystemdHost, startSystemdHost } from './systemd-host.js';

let host: SystemdHost;
/** The server's executor: its key is unknown to the host before the adoption. */
let executor: PooledExecutor;
beforeAll(async () => {
  host = await startSystemdHost();
  executor = createExecutor({ privateKey: makeSshKey(), maxConnections: 4, clock: systemClock, log: silentLog });
});
afterAll(async () => {
  await executor?.close();
  await host?.stop();
});
const request = (user: string) => ({
  address: '127.0.0.1',
  port: host.port,
  user,
  executor,
  clock: systemClock,
  log: silentLog,
});
const fingerprint = () => hostKeyFingerprint(parseHostKey(host.hostKey).blob);
const problemOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    error => error.problem ?? error,
  );
const everything = async () => {
  const root = createExecutor({ privateKey: host.privateKey, maxConnections: 1, clock: systemClock, log: silentLog });
  const target = { address: '127.0.0.1', port: host.port, user: 'root', hostKey: host.hostKey };
  const listing = await root.run(
    target,
    'find /etc /root /home /usr/local /opt /srv -xdev -type f ! -path /etc/hal/\\* -exec sha256sum {} + | sort -k2',
  );
  await root.close();
  return listing.stdout.split('\n').filter(Boolean);
};

it('takes over a running host as a user with sudo, changing nothing on it but one line of authorized_keys', async () => {
  const before = await everything();
  const adopted = await adoptHost({ ...request('op'), hostKey: fingerprint(), privateKey: host.privateKey });
  expect(adopted).toMatchObject({
    name: 'hal-host',
    os: { address: '127.0.0.1', port: host.port, hostKey: host.hostKey, login: 'op', image: 'debian-12' },
    inventory: { schema: 1, cpu: { arch: 'x86_64' } },
  });
  expect(adopted.inventory.memory.totalBytes).toBeGreaterThan(2 ** 28);
  expect(adopted.inventory.kernel).toMatch(/^\d+\.\d+/);
  const after = await everything();
  const changed = after.filter(line => !before.includes(line)).map(line => line.split(/\s+/)[1]);
  expect(changed).toEqual(['/home/op/.ssh/authorized_keys']);
  expect(before.filter(line => !after.includes(line))).toEqual([]);

  const target = { address: '127.0.0.1', port: host.port, user: 'op', hostKey: host.hostKey, sudo: true };
  const own = await executor.run(target, 'stat -c "%a %U" /home/op/.ssh /home/op/.ssh/authorized_keys');
  expect(own.stdout).toBe('700 op\n600 op\n');
  // Again, now without another key: nothing is added twice.
  await adoptHost({ ...request('op'), hostKey: host.hostKey, name: 'other' });
  expect((await executor.run(target, 'wc -l </home/op/.ssh/authorized_keys')).stdout).toBe('1\n');
});

it('keeps the keys that are there, also when the last line has no end', async () => {
  const root = { address: '127.0.0.1', port: host.port, user: 'root', hostKey: host.hostKey };
  const first = createExecutor({ privateKey: host.privateKey, maxConnections: 1, clock: systemClock, log: silentLog });
  await first.run(root, 'mkdir -p /root/.ssh && printf "ssh-ed25519 AAAA somebody" >/root/.ssh/authorized_keys');
  await first.close();
  await adoptHost({ ...request('root'), hostKey: host.hostKey, privateKey: host.privateKey });
  const lines = (await executor.run(root, 'cat /root/.ssh/authorized_keys')).stdout.split('\n');
  expect(lines).toEqual(['ssh-ed25519 AAAA somebody', executor.publicKey, '']);
});

it('logs in by password where that is what there is', async () => {
  const problem = await problemOf(adoptHost({ ...request('plain'), hostKey: host.hostKey, password: 'secret-plain' }));
  // Logged in, and refused for the right reason.
  expect(problem).toMatchObject({ code: 'adopt-refused' });
  expect(problem.message).toContain('plain is not root and has no sudo');
  expect(await problemOf(adoptHost({ ...request('plain'), hostKey: host.hostKey, password: 'wrong' }))).toMatchObject({
    code: 'adopt-refused',
    message: expect.stringContaining('did not accept'),
  });
});

it('refuses without a host key, and shows the fingerprint that the host itself shows', async () => {
  const problem = await problemOf(adoptHost({ ...request('root'), privateKey: host.privateKey }));
  expect(problem).toMatchObject({ code: 'adopt-refused', detail: { fingerprint: fingerprint() } });
});

it('refuses a system that it does not know, and adds no key to it', async () => {
  const strange = await startSystemdHost({ osRelease: 'ID=slackware\nVERSION_ID=15.0\n' });
  try {
    const problem = await problemOf(
      adoptHost({ ...request('op'), port: strange.port, hostKey: strange.hostKey, privateKey: strange.privateKey }),
    );
    expect(problem).toMatchObject({ code: 'adopt-refused' });
    expect(problem.message).toContain('slackware 15.0');
    const theirs = createExecutor({
      privateKey: strange.privateKey,
      maxConnections: 1,
      clock: systemClock,
      log: silentLog,
    });
    const target = { address: '127.0.0.1', port: strange.port, user: 'op', hostKey: strange.hostKey };
    expect((await theirs.run(target, 'ls -a ~')).stdout).not.toContain('.ssh');
    await theirs.close();
  } finally {
    await strange.stop();
  }
});
