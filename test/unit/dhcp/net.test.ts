import { expect, test } from 'vitest';
import { contains, formatIpv4, parseCidr, tryParseIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { routerAdvertisementFrame } from '../../../provisioner/core/net/router-advertisement.js';
import { bindUdp, openRouterAdvertiser } from '../../../provisioner/core/net/sockets.js';
import { ProblemError } from '../../../provisioner/core/problem.js';
import { serveNetwork } from '../../../provisioner/dhcp/network.js';
import { NETWORK, site } from './world.js';

const problemOf = async (attempt: () => unknown) => {
  try {
    await attempt();
  } catch (error) {
    if (error instanceof ProblemError) return error.problem;
    throw error;
  }
  return undefined;
};

test('the router advertisement names no router, no prefix and no managed addresses, and goes to one client', () => {
  const frame = routerAdvertisementFrame('86:da:0e:e0:0e:d2', '52:54:00:aa:00:02').toString('hex');
  expect(frame).toBe(
    '525400aa0002' +
      '86da0ee00ed2' +
      '86dd' +
      '600000000018' +
      '3a' +
      'ff' +
      'fe8000000000000084da0efffee00ed2' +
      'fe80000000000000505400fffeaa0002' +
      '8600' +
      'a590' +
      '40' +
      '00' +
      '0000' +
      '00000000' +
      '00000000' +
      '0101' +
      '86da0ee00ed2',
  );
});

test('addresses and subnets are read strictly', () => {
  for (const bad of ['1.2.3', '1.2.3.256', '01.2.3.4', '1.2.3.4.5', ' 1.2.3.4', '0x1.2.3.4', ''])
    expect(tryParseIpv4(bad)).toBeUndefined();
  expect(formatIpv4(tryParseIpv4('255.1.0.9')!)).toBe('255.1.0.9');
  const cidr = parseCidr('10.99.3.7/22');
  expect([formatIpv4(cidr.base), formatIpv4(cidr.last), formatIpv4(cidr.mask)]).toEqual([
    '10.99.0.0',
    '10.99.3.255',
    '255.255.252.0',
  ]);
  expect(contains(cidr, tryParseIpv4('10.99.4.0')!)).toBe(false);
  expect(() => parseCidr('10.0.0.0/33')).toThrow(RangeError);
});

test('a pool outside its network is refused by name', async () => {
  const network = { ...NETWORK, pool: { from: '10.99.0.100', to: '10.99.1.100' } };
  expect(await problemOf(() => serveNetwork(network, site(), '10.99.0.1', true))).toMatchObject({
    code: 'site-invalid',
    message: 'Network boot: the pool 10.99.0.100 to 10.99.1.100 is not a range inside 10.99.0.0/24.',
  });
});

test('a port in use is one sentence that names its holder', async () => {
  const first = await bindUdp({ address: '127.0.0.1', port: 0 });
  const { port } = first.address();
  expect(await problemOf(() => bindUdp({ address: '127.0.0.1', port }))).toMatchObject({
    code: 'port-in-use',
    message: expect.stringMatching(
      new RegExp(`^UDP port ${port} on 127\\.0\\.0\\.1 is already in use by .+, pid ${process.pid}\\.$`),
    ),
  });
  first.close();
});

test('a missing interface and a foreign address are one sentence each', async () => {
  expect(await problemOf(() => bindUdp({ device: 'nosuch0', port: 0 }))).toMatchObject({
    code: 'interface-missing',
    message: 'There is no network interface nosuch0.',
  });
  expect(await problemOf(() => openRouterAdvertiser('nosuch0'))).toMatchObject({ code: 'interface-missing' });
  expect(await problemOf(() => bindUdp({ address: '192.0.2.1', port: 0 }))).toMatchObject({
    code: 'interface-missing',
    message: 'No interface of this machine has the address 192.0.2.1.',
  });
});

test('a socket bound to a device receives what is sent there', async () => {
  const receiver = await bindUdp({ device: 'lo', port: 0 });
  const sender = await bindUdp({ address: '127.0.0.1', port: 0 });
  const got = new Promise<string>(resolve => receiver.once('message', data => resolve(data.toString())));
  sender.send('hello', receiver.address().port, '127.0.0.1');
  expect(await got).toBe('hello');
  receiver.close();
  sender.close();
});
