import { afterEach, describe, expect, it } from 'vitest';
import {
  type ClientOptions,
  createOpenStackClient,
  type OpenStackClient,
} from '../../../../installer/openstack/client.js';
import { apiMessage } from '../../../../installer/openstack/errors.js';
import { lookupWith } from '../../../../installer/openstack/http.js';
import { apiRoot } from '../../../../installer/openstack/services.js';
import { issue, makeCa } from '../../../../installer/pki/certificate.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { ProblemError } from '../../../../provisioner/core/problem.js';
import { ADMIN_PASSWORD, busy, type FakeCloud, type FakeOptions, startFakeCloud, torn } from './fake-cloud.js';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(
  options: FakeOptions = {},
  extra: Partial<ClientOptions> = {},
): Promise<{ cloud: FakeCloud; client: OpenStackClient }> {
  const cloud = await startFakeCloud(options);
  const client = createOpenStackClient({
    authUrl: cloud.authUrl,
    region: 'RegionOne',
    credentials: { user: 'admin', password: ADMIN_PASSWORD, project: 'admin' },
    clock: systemClock,
    endpointInterface: 'internal',
    backoffMs: [5, 10, 15],
    ...extra,
  });
  closers.push(() => cloud.close());
  closers.push(() => client.close());
  return { cloud, client };
}

const problemOf = async (promise: Promise<unknown>) => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ProblemError) return error.problem;
    throw error;
  }
  throw new Error('no problem');
};

describe('a token', () => {
  it('is asked for once, also by requests at the same time', async () => {
    const { cloud, client } = await start();
    await Promise.all(Array.from({ length: 5 }, () => client.request('identity', 'GET', '/projects')));
    expect(cloud.logins).toBe(1);
  });

  it('that is refused is renewed once, and the request is sent again', async () => {
    const { cloud, client } = await start();
    await client.request('identity', 'GET', '/projects');
    cloud.expireTokens();
    const reply = await client.request('identity', 'GET', '/projects');
    expect(reply.status).toBe(200);
    expect(cloud.logins).toBe(2);
  });

  it('is renewed before it expires, by Keystone’s own clock and ours monotonic', async () => {
    let now = 1000;
    const clock = { nowMs: () => 0, monotonicMs: () => now };
    const { cloud, client } = await start({ tokenSeconds: 3600 }, { clock });
    await client.request('identity', 'GET', '/projects');
    now += 3_400_000;
    await client.request('identity', 'GET', '/projects');
    expect(cloud.logins).toBe(1);
    now += 100_000;
    await client.request('identity', 'GET', '/projects');
    expect(cloud.logins).toBe(2);
  });

  it('goes on being fetched for the others when one who waits gives up', async () => {
    const { client } = await start();
    const impatient = new AbortController();
    const first = client.request('identity', 'GET', '/projects', undefined, { signal: impatient.signal });
    const second = client.request('identity', 'GET', '/projects');
    impatient.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    expect((await second).status).toBe(200);
  });

  it('is not given for a wrong password, and the password is in no message', async () => {
    const { client } = await start(
      {},
      { credentials: { user: 'admin', password: 'wrong-password-1', project: 'admin' } },
    );
    const found = await problemOf(client.request('identity', 'GET', '/projects'));
    expect(found.code).toBe('cloud-login-refused');
    expect(JSON.stringify(found)).not.toContain('wrong-password-1');
  });
});

describe('a request', () => {
  it('names service, method, path, status, words and id when it fails', async () => {
    const { client } = await start();
    const found = await problemOf(client.request('compute', 'GET', '/servers/none'));
    expect(found.message).toMatch(
      /^compute: GET \/servers\/none failed with 404: Instance none could not be found\. \(req-/,
    );
    expect(found.detail).toMatchObject({ service: 'compute', method: 'GET', path: '/servers/none', status: 404 });
  });

  it('sends the microversion of the service, and closes the connection after each', async () => {
    const { cloud, client } = await start();
    await client.request('compute', 'GET', '/os-services', undefined, { microversion: '2.74' });
    expect(cloud.headers.at(-1)).toMatchObject({ 'openstack-api-version': 'compute 2.74', connection: 'close' });
  });

  it('is tried again when the service is busy, whatever the method', async () => {
    const { cloud, client } = await start();
    cloud.misbehave.push(busy(/^POST \/identity\/v3\/projects/, 2));
    const { body } = await client.request('identity', 'POST', '/projects', { project: { name: 'x' } });
    expect(body).toMatchObject({ project: { name: 'x' } });
    expect(cloud.requests.filter(r => r.startsWith('POST /identity/v3/projects'))).toHaveLength(3);
  });

  it('gives up after the last pause, with the service’s words', async () => {
    const { cloud, client } = await start();
    cloud.misbehave.push(busy(/^GET \/compute/, 100));
    const found = await problemOf(client.request('compute', 'GET', '/os-services'));
    expect(found.message).toContain('failed with 503: Service Unavailable');
    expect(cloud.requests.filter(r => r.includes('os-services'))).toHaveLength(4);
  });

  it('is tried again after a torn connection when it only reads, and never when it may have done something', async () => {
    const { cloud, client } = await start();
    cloud.misbehave.push(torn(/^GET \/compute/), torn(/^POST \/identity\/v3\/projects/));
    expect((await client.request('compute', 'GET', '/os-services')).status).toBe(200);
    const found = await problemOf(client.request('identity', 'POST', '/projects', { project: { name: 'y' } }));
    expect(found.code).toBe('cloud-unreachable');
    expect(cloud.requests.filter(r => r.startsWith('POST /identity/v3/projects'))).toHaveLength(1);
  });

  it('waits for a service that does not listen yet', async () => {
    const { cloud, client } = await start();
    const port = new URL(cloud.url).port;
    await cloud.close();
    const found = await problemOf(client.request('identity', 'GET', '/projects'));
    expect(found).toMatchObject({ code: 'cloud-unreachable', retry: true, detail: { sent: false } });
    expect(found.message).toBe(`127.0.0.1:${port} refuses connections: nothing listens there.`);
  });

  it('ends at its time-out', async () => {
    const { cloud, client } = await start({}, { backoffMs: [] });
    cloud.delays.push({ match: /os-services/, ms: 2000 });
    const found = await problemOf(client.request('compute', 'GET', '/os-services', undefined, { timeoutMs: 1000 }));
    expect(found.message).toMatch(/gave no whole answer within 1 s/);
  });

  it('is aborted with the client’s signal', async () => {
    const stop = new AbortController();
    const { cloud, client } = await start({}, { signal: stop.signal });
    cloud.delays.push({ match: /os-services/, ms: 5000 });
    const asked = client.request('compute', 'GET', '/os-services');
    setTimeout(() => stop.abort(new Error('stop')), 100);
    await expect(asked).rejects.toThrow('stop');
  });

  it('finds a service that was registered after the token was made', async () => {
    const { cloud, client } = await start({ without: ['placement'] });
    await client.request('identity', 'GET', '/projects');
    expect(await client.has('placement')).toBe(false);
    cloud.types.push('placement');
    expect((await client.request('placement', 'GET', '/usages')).status).toBe(200);
    const found = await problemOf(client.request('dashboard', 'GET', '/'));
    expect(found.code).toBe('cloud-service-missing');
  });

  it('never more than eight are under way', async () => {
    const { cloud, client } = await start();
    await client.session();
    cloud.delays.push({ match: /os-services/, ms: 30 });
    await Promise.all(Array.from({ length: 30 }, () => client.request('compute', 'GET', '/os-services')));
    expect(cloud.mostAtOnce).toBeLessThanOrEqual(8);
    expect(cloud.mostAtOnce).toBeGreaterThan(4);
  });

  it('needs an address that is one', () => {
    expect(() =>
      createOpenStackClient({
        authUrl: 'ftp://keystone',
        region: '',
        credentials: { user: 'a', password: 'b' },
        clock: systemClock,
        endpointInterface: 'public',
      }),
    ).toThrow(/is no address of a Keystone/);
  });
});

describe('TLS', () => {
  const ca = makeCa({ siteName: 'test', nowMs: Date.now() });
  const pair = issue(ca, 'ctl', { names: ['ctl'], addresses: ['127.0.0.1'] }, Date.now());
  const tls = { cert: pair.certificate, key: pair.key };

  it('is verified with the CA of the site', async () => {
    const { client } = await start({ tls }, { caPem: ca.certificate });
    expect((await client.request('identity', 'GET', '/projects')).status).toBe(200);
  });

  it('with a certificate of anybody else is refused, without a second try, before the password leaves', async () => {
    const { cloud, client } = await start(
      { tls },
      { caPem: makeCa({ siteName: 'other', nowMs: Date.now() }).certificate },
    );
    const found = await problemOf(client.request('identity', 'GET', '/projects'));
    expect(found).toMatchObject({ code: 'cloud-unreachable', retry: false });
    expect(found.message).toContain('has a certificate that is not trusted here');
    expect(cloud.requests).toEqual([]);
  });

  it('of Keystone keeps the token from a service that is registered without', async () => {
    const { client } = await start({ tls, plainCatalogue: true }, { caPem: ca.certificate });
    const found = await problemOf(client.request('compute', 'GET', '/os-services'));
    expect(found).toMatchObject({ code: 'cloud-service-missing', message: expect.stringContaining('in clear') });
  });
});

describe('a list', () => {
  it('has all pages, and follows only the query of what it is told to follow', async () => {
    const { cloud, client } = await start();
    for (let i = 0; i < 7; i++) cloud.tables['images']!.push({ id: `i${i}`, name: `n${i}` });
    const rows = await client.list('image', '/images?limit=3', 'images');
    expect(rows.map(r => r['id'])).toEqual(['i0', 'i1', 'i2', 'i3', 'i4', 'i5', 'i6']);
  });
});

describe('what an API says', () => {
  const said = (text: string, secrets: string[] = []) => apiMessage(Buffer.from(text), secrets);

  it.each([
    ['{"error":{"code":401,"message":"The request"}}', 'The request'],
    ['{"badRequest":{"code":400,"message":"Invalid volume"}}', 'Invalid volume'],
    ['{"NeutronError":{"type":"X","message":"In use","detail":""}}', 'In use'],
    ['{"errors":[{"status":404,"title":"Not Found","detail":"No such provider"}]}', 'No such provider'],
    ['{"message":"The server could not comply","code":"400 Bad Request"}', 'The server could not comply'],
    [
      '<html><head><title>409 Conflict</title></head><body><h1>409 Conflict</h1>Image &quot;x&quot; is in use<br/></body></html>',
      '409 Conflict Image "x" is in use',
    ],
  ])('is found in %s', (text, words) => {
    expect(said(text)).toBe(words);
  });

  it('comes without scripts, control characters, ends in time, and without our secrets', () => {
    const page = `<html><body><script>alert("x")</script>\u001b[31mX-Auth-Token: gAAAAA-token <b>denied</b>\u0000${'y'.repeat(5000)}</body></html>`;
    const words = said(page, ['gAAAAA-token']);
    expect(words).toMatch(/^\[31mX-Auth-Token: … denied y+…$/);
    expect(words.length).toBeLessThan(420);
  });

  it('survives a page that is cut off in the middle, and an empty one', () => {
    expect(said('<html><body><h1>502 Bad')).toBe('502 Bad');
    expect(said('')).toBe('');
    expect(said('[1,2]')).toBe('[1,2]');
  });
});

describe('where an API begins', () => {
  it.each([
    ['identity', 'https://c:5000', 'https://c:5000/v3'],
    ['identity', 'https://c:5000/v3/', 'https://c:5000/v3'],
    ['compute', 'https://c:8774/v2.1', 'https://c:8774/v2.1'],
    ['network', 'https://c:9696', 'https://c:9696/v2.0'],
    ['image', 'https://c:9292/', 'https://c:9292/v2'],
    ['volume', 'https://c:8776/v3/P', 'https://c:8776/v3/P'],
    ['volume', 'https://c:8776/v3', 'https://c:8776/v3'],
    ['placement', 'https://c:8778', 'https://c:8778'],
    ['object-store', 'https://c:8080/v1/AUTH_P', 'https://c:8080/v1/AUTH_P'],
  ] as const)('%s at %s: %s', (service, endpoint, root) => {
    expect(apiRoot(service, endpoint, 'P')).toBe(root);
  });
});

describe('a name that this machine cannot resolve', () => {
  it('is resolved as told, for both ways in which Node.js asks', () => {
    const lookup = lookupWith({ 'ctl.cloud': '10.0.0.5', six: 'fd00::5' });
    const got: unknown[] = [];
    lookup('ctl.cloud', {}, (...args) => got.push(args));
    lookup('six', { all: true }, (...args) => got.push(args));
    expect(got).toEqual([
      [null, '10.0.0.5', 4],
      [null, [{ address: 'fd00::5', family: 6 }]],
    ]);
  });

  it('is reached', async () => {
    const { cloud } = await start();
    const { port } = new URL(cloud.url);
    const client = createOpenStackClient({
      authUrl: `http://keystone.cloud.invalid:${port}/identity`,
      region: 'RegionOne',
      credentials: { user: 'admin', password: () => ADMIN_PASSWORD, project: 'admin' },
      clock: systemClock,
      endpointInterface: 'public',
      resolve: { 'keystone.cloud.invalid': '127.0.0.1' },
    });
    closers.push(() => client.close());
    expect((await client.session()).projectId).toBe('p-admin');
  });
});
