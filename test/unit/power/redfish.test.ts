import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { type ChassisMachine, type RedfishOptions, redfishService } from '../../../provisioner/lab/redfish.js';
import type { BootOverride } from '../../../provisioner/lab/types.js';
import { createRedfishDriver, parseRedfishAddress, resetCandidates } from '../../../provisioner/power/redfish.js';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function machine(): ChassisMachine & { calls: string[] } {
  let power: 'on' | 'off' = 'off';
  let boot: BootOverride = { target: 'none', once: true };
  const calls: string[] = [];
  const set = (state: 'on' | 'off', call: string) => async () => {
    calls.push(call);
    power = state;
  };
  return {
    calls,
    power: () => power,
    on: set('on', 'on'),
    off: set('off', 'off'),
    reset: async () => void calls.push('reset'),
    shutdown: set('off', 'shutdown'),
    boot: () => boot,
    setBoot: override => {
      calls.push(`boot ${override.target}${override.once ? ' once' : ''}`);
      boot = override;
    },
  };
}

async function serve(handler: (request: IncomingMessage, response: ServerResponse) => void) {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    handler(request, response);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

async function bmcWith(options: Partial<RedfishOptions> = {}, password = 'secret') {
  const box = machine();
  const { address, requests } = await serve(
    redfishService({
      machine: box,
      identity: { name: 'n1', uuid: '0', serial: 'S' },
      firmware: 'uefi',
      user: 'admin',
      password: 'secret',
      ...options,
    }),
  );
  const driver = createRedfishDriver({ driver: 'redfish', address, user: 'admin', cipher_suite: 3 }, password, {
    requestMs: 2000,
  });
  cleanups.push(() => void driver.close());
  return { driver, box, requests, address };
}

const codeOf = async (work: Promise<unknown>) => {
  try {
    await work;
    return 'no problem';
  } catch (error) {
    return error instanceof ProblemError ? error.problem.code : `bug: ${String(error)}`;
  }
};

describe('the redfish driver', () => {
  test('switches a machine by one session', async () => {
    const { driver, box, requests } = await bmcWith();
    expect(await driver.status()).toBe('off');
    await driver.on();
    expect(await driver.status()).toBe('on');
    await driver.off();
    expect(box.calls).toEqual(['on', 'off']);
    expect(requests.filter(line => line.startsWith('POST') && line.endsWith('/Sessions'))).toHaveLength(1);
  });

  test('gives its session back', async () => {
    const { driver, requests } = await bmcWith();
    await driver.status();
    await driver.close();
    expect(requests.at(-1)).toMatch(/^DELETE \/redfish\/v1\/SessionService\/Sessions\/1$/);
  });

  test('sets the network as next boot with If-Match', async () => {
    const { driver, box } = await bmcWith();
    await driver.bootFromNetworkOnce('uefi');
    expect(box.calls).toEqual(['boot pxe once']);
  });

  test('works without sessions', async () => {
    const { driver } = await bmcWith({ noSessions: true });
    await driver.on();
    expect(await driver.status()).toBe('on');
  });

  test('logs in anew when its session has expired', async () => {
    let forget = false;
    const box = machine();
    const options = {
      machine: box,
      identity: { name: 'n1', uuid: '0', serial: 'S' },
      firmware: 'bios' as const,
      user: 'admin',
      password: 'secret',
    };
    let service = redfishService(options);
    const { address, requests } = await serve((request, response) => {
      if (forget) service = redfishService(options);
      forget = false;
      service(request, response);
    });
    const driver = createRedfishDriver({ driver: 'redfish', address, user: 'admin', cipher_suite: 3 }, 'secret');
    await driver.status();
    forget = true;
    expect(await driver.status()).toBe('off');
    expect(requests.filter(line => line.startsWith('POST'))).toHaveLength(2);
    await driver.close();
  });

  test('offers a refused password once, not a second time by another way', async () => {
    for (const noSessions of [false, true]) {
      const { driver, requests } = await bmcWith({ noSessions }, 'wrong');
      expect(await codeOf(driver.status())).toBe('bmc-auth');
      const tries = requests.filter(line => !line.endsWith('/redfish/v1/'));
      expect(tries).toHaveLength(1);
    }
  });

  test('waits for the task of an action that was only accepted', async () => {
    const { driver, box, requests } = await bmcWith({ taskReads: 1 });
    await driver.on();
    expect(box.power()).toBe('on');
    expect(requests.some(line => line.includes('/TaskService/Tasks/'))).toBe(true);
  });

  test('falls back to the reset types that are there', async () => {
    const { driver, box } = await bmcWith({ resetTypes: ['PushPowerButton', 'GracefulShutdown'] });
    await driver.on();
    expect(box.power()).toBe('on');
    await driver.off();
    expect(box.calls).toEqual(['on', 'shutdown']);
  });

  test('says so when no reset type fits', async () => {
    const { driver } = await bmcWith({ resetTypes: ['Nmi'] });
    expect(await codeOf(driver.on())).toBe('bmc-unsupported');
    expect(resetCandidates('off', null)).toEqual(['ForceOff', 'PowerOff']);
  });

  test('refuses to send credentials to another host that the service names', async () => {
    const stranger = await serve((_request, response) => response.end('{}'));
    const { address } = await serve((_request, response) =>
      response.end(JSON.stringify({ Links: { Sessions: { '@odata.id': `${stranger.address}/steal` } } })),
    );
    const driver = createRedfishDriver({ driver: 'redfish', address, user: 'admin', cipher_suite: 3 }, 'secret');
    expect(await codeOf(driver.status())).toBe('bmc-protocol');
    expect(stranger.requests).toEqual([]);
    await driver.close();
  });

  test.each([
    ['a page of HTML', '<html>Login</html>'],
    ['an answer without end', 'x'.repeat(1_100_000)],
    ['a list', '[]'],
    ['null', 'null'],
  ])('calls %s no Redfish', async (_what, body) => {
    const { address } = await serve((_request, response) => response.end(body));
    const driver = createRedfishDriver({ driver: 'redfish', address, user: 'admin', cipher_suite: 3 }, 'secret');
    expect(await codeOf(driver.status())).toMatch(/^bmc-(protocol|unsupported)$/);
    await driver.close();
  });

  test('tells a BMC that never answers, and one where nothing listens', async () => {
    const tarPit = createTcpServer(socket => void socket.resume());
    await new Promise<void>(resolve => tarPit.listen(0, '127.0.0.1', resolve));
    const { port } = tarPit.address() as AddressInfo;
    const at = (p: number) =>
      createRedfishDriver({ driver: 'redfish', address: `http://127.0.0.1:${p}`, cipher_suite: 3 }, 'x', {
        requestMs: 200,
      });
    const deaf = at(port);
    const started = performance.now();
    expect(await codeOf(deaf.status())).toBe('bmc-silent');
    expect(performance.now() - started).toBeLessThan(2000);
    await deaf.close();
    await new Promise(resolve => tarPit.close(resolve));
    const gone = at(port);
    expect(await codeOf(gone.status())).toBe('bmc-silent');
    await gone.close();
  });

  test('takes a bare host as https and refuses credentials in the address', () => {
    expect(parseRedfishAddress('10.98.0.7').href).toBe('https://10.98.0.7/');
    for (const bad of [undefined, '', 'ftp://x', 'https://user:pw@host', 'file:///etc/passwd']) {
      expect(() => parseRedfishAddress(bad), bad).toThrow(ProblemError);
    }
  });
});

test('a password that a BMC repeats is not told', async () => {
  const { address } = await serve((request, response) => {
    if (/^\/redfish\/v1\/?$/.test(request.url ?? '')) {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ Systems: { '@odata.id': '/redfish/v1/Systems' } }));
      return;
    }
    response.writeHead(400, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify({
        error: {
          '@Message.ExtendedInfo': [
            { Message: "The value 'calvin-calvin' for the property Password is of a different format." },
          ],
        },
      }),
    );
  });
  const driver = createRedfishDriver({ driver: 'redfish', address, user: 'root', cipher_suite: 17 }, 'calvin-calvin');
  const error = await driver.status().catch((e: unknown) => e);
  expect(error).toBeInstanceOf(ProblemError);
  expect((error as ProblemError).message).toContain("The value '<password>' for the property Password");
});
