import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { socketClient } from '../../../provisioner/cli/client.js';
import { type CloudService, planSummary } from '../../../provisioner/core/cloud-service.js';
import { PROBLEMS, type Problem, ProblemError } from '../../../provisioner/core/problem.js';
import { createAjv } from '../../../provisioner/core/schema/explain.js';
import { ACTIONS, action, BAD_REPORT, busyCloud, DESTROYING, obedientCloud, plan, SILENT_NODE } from './clouds.js';
import { type CloudStage, type FakeServer, fakeServer, nodeView } from './fakes.js';

let server: FakeServer | undefined;
let dir: string | undefined;
afterEach(async () => {
  await server?.handle.close();
  if (dir) rmSync(dir, { recursive: true, force: true });
  server = dir = undefined;
});

/** A server with this cloud, and a client of its socket. */
async function withCloud(cloud?: (stage: CloudStage) => CloudService) {
  dir = mkdtempSync(join(tmpdir(), 'halligan-cloud-'));
  server = await fakeServer(
    [
      nodeView('ctl', 'installed', { macs: ['52:54:00:99:00:01'] }),
      nodeView('cmp1', 'installed', {
        spec: { address: null, bmc: null, roles: ['compute'], install: {} },
        macs: ['52:54:00:99:00:02'],
      }),
      nodeView('vol', 'installed'),
      nodeView('n01', 'installed', {
        source: 'site',
        spec: { address: null, bmc: null, roles: ['compute'], install: {} },
      }),
    ],
    { socketPath: join(dir, 's'), ...(cloud ? { cloud } : {}) },
  );
  const client = socketClient(join(dir, 's'));
  const problemOf = async (method: 'GET' | 'POST', path: string, body?: unknown): Promise<Problem> => {
    try {
      await client.json(method, path, body);
    } catch (error) {
      if (error instanceof ProblemError) return error.problem;
      throw error;
    }
    throw new Error(`${method} ${path} was not refused`);
  };
  return { client, problemOf };
}

describe('the cloud of a site without one', () => {
  it('is missing, whatever is asked of it; roles are known all the same', async () => {
    const { client, problemOf } = await withCloud();
    for (const [method, path, body] of [
      ['GET', '/cloud/plan'],
      ['GET', '/cloud/drift'],
      ['GET', '/cloud/verify/latest'],
      ['GET', '/cloud/credentials'],
      ['POST', '/cloud/apply', {}],
      ['POST', '/cloud/verify', {}],
      ['POST', '/cloud/security', {}],
      ['POST', '/cloud/nodes/vol/remove', {}],
    ] as const) {
      const p = await problemOf(method, path, body);
      expect([p.code, p.message], path).toEqual(['cloud-missing', '/etc/halligan/site.yaml has no `cloud` part.']);
    }
    expect(await client.json('GET', '/cloud/catalogue')).toMatchObject({ roles: [{ name: 'controller' }, {}] });
  });
});

describe('a plan', () => {
  it('is of all nodes, or of those that are named in any way a node can be', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls }));
    expect(await client.json('GET', '/cloud/plan')).toEqual(plan(ACTIONS));
    await client.json('GET', '/cloud/plan?node=52:54:00:99:00:02&node=cmp1');
    await client.json('GET', '/cloud/plan?node=vol');
    expect(calls).toEqual([
      ['plan', {}],
      ['plan', { nodes: ['cmp1'] }],
      ['plan', { nodes: ['vol'] }],
    ]);
    expect((await problemOf('GET', '/cloud/plan?node=nowhere')).code).toBe('node-unknown');
    expect(calls).toHaveLength(3);
  });

  it('is applied as it was read, and refused with another hash', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls }));
    const body = { planHash: plan(ACTIONS).hash, confirmed: ['vol'], nodes: ['cmp1', 'vol'] };
    expect(await client.json('POST', '/cloud/apply', body)).toEqual({ runId: 'run-apply' });
    expect(calls).toEqual([['apply', body]]);
    expect(await client.json('GET', '/runs/run-apply')).toMatchObject({ run: { state: 'done', result: { done: 6 } } });
    expect((await problemOf('POST', '/cloud/apply', { planHash: '0123456789abcdef' })).code).toBe('plan-changed');
    expect((await problemOf('POST', '/cloud/apply', { planHash: 'latest' })).message).toBe(
      'body.planHash: expected the hash of a plan, for example 3f2a9c51d0e4b768, found "latest"',
    );
    expect((await problemOf('POST', '/cloud/apply', { confirmed: ['nowhere'] })).code).toBe('node-unknown');
  });

  it('is not applied while another is', async () => {
    const { problemOf } = await withCloud(busyCloud());
    const p = await problemOf('POST', '/cloud/apply', {});
    expect([p.code, PROBLEMS[p.code].http]).toEqual(['cloud-busy', 409]);
  });
});

describe('a proof', () => {
  it('takes steps by name and answers with its run; the newest report is there afterwards', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls, report: BAD_REPORT }));
    await client.json('POST', '/cloud/verify', { only: ['floating-ip'], keep: true });
    expect(calls).toEqual([['verify', { only: ['floating-ip'], keep: true }]]);
    expect(await client.json('GET', '/cloud/verify/latest')).toEqual({ report: BAD_REPORT });
    expect((await problemOf('POST', '/cloud/verify', { only: [] })).message).toMatch(/at least 1 entries/);
  });

  it('of its security is begun without words, and answers with its run', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls, report: BAD_REPORT }));
    expect(await client.json('POST', '/cloud/security', {})).toHaveProperty('runId');
    expect(calls).toEqual([['security', null]]);
    expect((await problemOf('POST', '/cloud/security', { only: ['x'] })).message).toMatch(/only/);
  });

  it('is null before the first', async () => {
    const { client } = await withCloud(obedientCloud());
    expect(await client.json('GET', '/cloud/verify/latest')).toEqual({ report: null });
  });
});

describe('an import of an image', () => {
  it('is taken with its profile and answers with its run; what is no image is refused with its place', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls }));
    const body = { name: 'w11', profile: 'windows', source: { file: '/srv/w11.qcow2' }, tpm: true };
    expect(await client.json('POST', '/cloud/images', body)).toEqual({ runId: 'run-image' });
    expect(calls).toEqual([['importImage', body]]);
    expect(await client.json('GET', '/runs/run-image')).toMatchObject({ run: { result: { name: 'w11' } } });
    await client.json('POST', '/cloud/images', { name: 'x', source: { url: 'https://mirror.test/x' } });
    expect(calls[1]).toEqual([
      'importImage',
      { name: 'x', profile: 'plain', source: { url: 'https://mirror.test/x' } },
    ]);
    for (const wrong of [
      { ...body, profile: 'mac' },
      { ...body, name: '-x\n' },
      { ...body, source: { file: '/x', url: 'https://mirror.test/x' } },
      { ...body, source: {} },
      { ...body, properties: { a: 1 } },
    ])
      expect((await problemOf('POST', '/cloud/images', wrong)).code, JSON.stringify(wrong)).toBe('request-invalid');
  });
});

describe('the administrator’s password', () => {
  it('is served on the socket alone', async () => {
    const { client } = await withCloud(obedientCloud());
    expect(await client.json('GET', '/cloud/credentials')).toMatchObject({ username: 'admin' });
    const probe = createServer().listen(0, '127.0.0.1');
    await new Promise(resolve => probe.once('listening', resolve));
    const { port } = probe.address() as { port: number };
    await new Promise(resolve => probe.close(resolve));
    const tcp = await fakeServer([], { port, cloud: obedientCloud() });
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/cloud/credentials`);
      expect(answer.status).toBe(403);
      expect(await answer.text()).not.toContain('secret"');
    } finally {
      await tcp.handle.close();
    }
  });
});

describe('a node of the cloud', () => {
  it('is removed by any of its names, gently unless force is said', async () => {
    const calls: unknown[][] = [];
    const { client, problemOf } = await withCloud(obedientCloud({ calls }));
    expect(await client.json('POST', '/cloud/nodes/52:54:00:99:00:02/remove', {})).toEqual({
      runId: 'run-remove-node',
    });
    await client.json('POST', '/cloud/nodes/vol/remove', { force: true });
    expect(calls).toEqual([
      ['removeNode', 'cmp1', { force: false }],
      ['removeNode', 'vol', { force: true }],
    ]);
    expect((await problemOf('POST', '/cloud/nodes/nowhere/remove', {})).code).toBe('node-unknown');
  });

  it('gets and loses roles; what is so already is no change', async () => {
    const { client, problemOf } = await withCloud();
    const given = await client.json('POST', '/nodes/cmp1/roles', { add: ['volume', 'compute'] });
    expect(given).toMatchObject({ spec: { roles: ['compute', 'volume'] } });
    expect(await client.json('POST', '/nodes/cmp1/roles', { remove: ['compute'] })).toMatchObject({
      spec: { roles: ['volume'] },
    });
    const changes = server!.table.calls.length;
    await client.json('POST', '/nodes/cmp1/roles', { add: ['volume'] });
    expect(server!.table.calls).toHaveLength(changes);
    expect((await problemOf('POST', '/nodes/cmp1/roles', { add: ['computer'] })).message).toBe(
      'body.add[0]: expected one of controller, compute, volume, network, storage, found "computer"',
    );
  });

  it('has the roles of the site file where that names them', async () => {
    const { client, problemOf } = await withCloud();
    expect(await problemOf('POST', '/nodes/n01/roles', { add: ['volume'] })).toMatchObject({
      code: 'site-owns',
      message: 'n01: roles is set in /etc/halligan/site.yaml:12; change it there.',
    });
    expect(await client.json('POST', '/nodes/n01/roles', { add: ['compute'] })).toMatchObject({ name: 'n01' });
  });
});

describe('OpenAPI of the cloud', () => {
  it('describes what is really answered', async () => {
    const silent = plan([...ACTIONS, DESTROYING], {
      nodes: [...plan([]).nodes, SILENT_NODE],
      problems: [{ severity: 'warn', node: null, message: 'm', hint: 'h' }],
    });
    const { client } = await withCloud(obedientCloud({ plan: silent, drift: silent, report: BAD_REPORT }));
    const { paths } = await client.json<{
      paths: Record<string, { get?: { responses: Record<string, { content: Record<string, { schema: object }> }> } }>;
    }>('GET', '/openapi.json');
    for (const path of ['/plan', '/drift', '/verify/latest', '/credentials', '/catalogue']) {
      const { schema } = paths[`/api/v1/cloud${path}`]!.get!.responses['200']!.content['application/json']!;
      const check = createAjv().compile(schema);
      const answer = await client.json('GET', `/cloud${path}`);
      expect(check(answer), `${path} ${check.errors?.[0]?.instancePath} ${check.errors?.[0]?.message}`).toBe(true);
    }
  });
});

describe('planSummary', () => {
  it('takes the longest chain, what can run at once counted once', () => {
    expect(planSummary(ACTIONS)).toEqual({
      actions: 6,
      nodes: 2,
      destroys: [],
      interrupts: ['ctl: logins, for some seconds'],
      expectedSeconds: 83 + 4 + 7,
    });
  });

  it('tells each loss once', () => {
    expect(planSummary([DESTROYING, { ...DESTROYING, id: 'vol/x/y' }]).destroys).toEqual([
      'vol: everything on /dev/sdb',
    ]);
  });

  it('ends also with a circle, and with needs that are in place already', () => {
    const a = action({ id: 'n/s/a', kind: 'file', title: 'create a', needs: ['n/s/b'], expectedSeconds: 1 });
    const b = action({ id: 'n/s/b', kind: 'file', title: 'create b', needs: ['n/s/a', 'n/s/c'], expectedSeconds: 1 });
    expect(planSummary([a, b]).expectedSeconds).toBeGreaterThan(0);
    expect(planSummary([]).expectedSeconds).toBe(0);
  });
});
