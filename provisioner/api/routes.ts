/** The routes of `/api/v1`: thin, over the services. */
import type { FastifyReply } from 'fastify';
import { Type } from 'typebox';
import { streamEvents } from '../core/api/event-stream.js';
import type { Api } from '../core/api/server.js';
import type { Clock } from '../core/clock.js';
import { asProblem, fail, type Problem, ProblemError } from '../core/problem.js';
import { fieldName } from '../core/schema/explain.js';
import type { NodeView } from '../node/service.js';
import type { PowerState } from '../power/types.js';
import { matchProfiles } from '../profile/match.js';
import { checkBmc } from '../site/check.js';
import { exportSite } from '../site/export.js';
import { loadSite } from '../site/load.js';
import type { Bmc } from '../site/schema.js';
import { answers, query } from './answers.js';
import { addCloudRoutes } from './cloud-routes.js';
import * as S from './schemas.js';
import type { ApiServices } from './services.js';

export interface RouteOptions {
  readonly services: ApiServices;
  readonly clock: Clock;
  readonly version: string;
  readonly closing: AbortSignal;
  readonly heartbeatMs?: number;
}

/** Streams at once: events and consoles together. */
const STREAMS_MAX = 64;
const CONSOLE_BYTES_MAX = 1024 * 1024;
const INPUT_MAX = 64 * 1024;
/** Nodes worked on at once within one bulk request. */
const BULK_PARALLEL = 16;

const Empty = Type.Object({}, { additionalProperties: false });
const limit = (most: number, usual: number) => Type.Integer({ minimum: 1, maximum: most, default: usual });
const stream = (type: string, description: string) => ({
  200: { description, content: { [type]: { schema: Type.Unsafe<unknown>({ type: 'string', format: 'binary' }) } } },
  '4xx': { description: 'A problem', content: { 'application/json': { schema: S.ProblemSchema } } },
});

export function addRoutes(api: Api, options: RouteOptions): void {
  const { services, clock, closing } = options;
  const { nodes } = services;
  const started = clock.monotonicMs();
  let streams = 0;

  /** Runs a stream over the raw response; the reply is taken out of Fastify's hands. */
  const streaming = async (reply: FastifyReply, run: (signal: AbortSignal) => Promise<void>) => {
    if (streams >= STREAMS_MAX)
      fail('too-many-clients', `${STREAMS_MAX} clients already follow events and consoles; no more are served.`);
    streams++;
    const gone = new AbortController();
    reply.raw.once('close', () => gone.abort());
    reply.hijack();
    try {
      await run(AbortSignal.any([closing, gone.signal]));
    } catch {
      // The head is sent: all that is left is to end. The client connects again and gets the reason.
      reply.raw.destroy();
    } finally {
      streams--;
    }
  };

  api.get(
    '/health',
    {
      schema: {
        tags: ['server'],
        summary: 'State of the server’s parts',
        response: answers(200, S.HealthSchema, 'Health'),
      },
    },
    async () => {
      const parts = await services.health();
      return {
        ok: Object.values(parts).every(s => s.ok),
        version: options.version,
        uptimeSeconds: Math.round((clock.monotonicMs() - started) / 1000),
        services: parts,
      };
    },
  );
  api.get(
    '/version',
    {
      schema: {
        tags: ['server'],
        summary: 'Version',
        response: answers(200, Type.Object({ version: Type.String(), api: Type.Literal(1) }), 'Version'),
      },
    },
    async () => ({ version: options.version, api: 1 }),
  );

  // Nodes
  api.get(
    '/nodes',
    {
      schema: {
        tags: ['node'],
        summary: 'List nodes',
        response: answers(200, Type.Object({ nodes: Type.Array(S.NodeViewSchema) }), 'All nodes, by name'),
      },
    },
    async () => ({
      nodes: [...(await nodes.list())].sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true })),
    }),
  );
  api.post(
    '/nodes',
    {
      schema: {
        tags: ['node'],
        summary: 'Add a node',
        body: S.NodeAdditionSchema,
        response: answers(201, S.NodeViewSchema, 'The node'),
      },
    },
    async (request, reply) => {
      if (request.body.bmc) refuseBmc(request.body.bmc);
      return reply.code(201).send(await nodes.add(request.body));
    },
  );
  api.post(
    '/nodes/adopt',
    {
      schema: {
        tags: ['node'],
        summary: 'Take over a running host by SSH, without wiping it',
        body: S.AdoptSchema,
        response: answers(201, S.NodeViewSchema, 'The node'),
      },
    },
    async (request, reply) => reply.code(201).send(await nodes.adopt(request.body)),
  );
  api.post(
    '/nodes/actions',
    {
      schema: {
        tags: ['node'],
        summary: 'One action on several nodes',
        body: S.BulkSchema,
        response: answers(200, S.BulkResultSchema, 'One result per node'),
      },
    },
    async request => {
      const { action, params = {} } = request.body;
      return each(request.body.nodes, async item => ({ node: await nodes.act(item, action, params) }));
    },
  );
  api.post(
    '/nodes/power',
    {
      schema: {
        tags: ['node'],
        summary: 'Power of several nodes',
        body: S.BulkPowerSchema,
        response: answers(200, S.BulkPowerResultSchema, 'One result per node'),
      },
    },
    async request => each(request.body.nodes, async item => ({ power: await nodes.power(item, request.body.action) })),
  );
  api.get(
    '/nodes/:node',
    {
      schema: {
        tags: ['node'],
        summary: 'Show a node',
        params: S.NodeParams,
        response: answers(200, S.NodeViewSchema, 'The node'),
      },
    },
    async request => nodes.get(request.params.node),
  );
  api.patch(
    '/nodes/:node',
    {
      schema: {
        tags: ['node'],
        summary: 'Change what the operator says about a node',
        params: S.NodeParams,
        body: S.NodeChangeSchema,
        response: answers(200, S.NodeViewSchema, 'The node'),
      },
    },
    async request => {
      if (request.body.bmc) refuseBmc(request.body.bmc);
      return nodes.update(request.params.node, request.body);
    },
  );
  api.delete(
    '/nodes/:node',
    {
      schema: {
        tags: ['node'],
        summary: 'Forget a node; its disks stay as they are',
        params: S.NodeParams,
        response: { 204: Type.Null(), ...answers(404, S.ProblemSchema, 'Unknown') },
      },
    },
    async (request, reply) => {
      await nodes.remove(request.params.node);
      return reply.code(204).send(null);
    },
  );
  api.post(
    '/nodes/:node/actions',
    {
      schema: {
        tags: ['node'],
        summary: 'Order an action; the state loop does the work',
        params: S.NodeParams,
        body: S.ActSchema,
        response: answers(202, S.NodeViewSchema, 'The node, the order recorded'),
      },
    },
    async (request, reply) =>
      reply.code(202).send(await nodes.act(request.params.node, request.body.action, request.body.params ?? {})),
  );
  const Power = Type.Object({ power: Type.Enum(['on', 'off', 'unknown']) });
  api.get(
    '/nodes/:node/power',
    {
      schema: { tags: ['node'], summary: 'Ask the BMC', params: S.NodeParams, response: answers(200, Power, 'Power') },
    },
    async request => ({
      power: await nodes.power(request.params.node, 'status'),
    }),
  );
  api.post(
    '/nodes/:node/power',
    {
      schema: {
        tags: ['node'],
        summary: 'Switch a node',
        params: S.NodeParams,
        body: Type.Object({ action: S.PowerAction }, { additionalProperties: false }),
        response: answers(200, Power, 'Power afterwards, as the BMC reports it'),
      },
    },
    async request => ({
      power: await nodes.power(request.params.node, request.body.action),
    }),
  );
  api.get(
    '/nodes/:node/why',
    {
      schema: {
        tags: ['node'],
        summary: 'Why the node is where it is',
        params: S.NodeParams,
        response: answers(200, S.WhySchema, 'State, reasons, history'),
      },
    },
    async request => nodes.why(request.params.node),
  );

  // Consoles
  api.get(
    '/nodes/:node/console',
    {
      schema: {
        tags: ['console'],
        summary: 'The end of the recorded console',
        params: S.NodeParams,
        querystring: query({ bytes: limit(CONSOLE_BYTES_MAX, 16_384) }),
        response: stream('application/octet-stream', 'Raw bytes of the console'),
      },
    },
    async (request, reply) => {
      const { id } = await nodes.get(request.params.node);
      return reply.type('application/octet-stream').send(await services.consoles.tail(id, request.query.bytes));
    },
  );
  api.get(
    '/nodes/:node/console/stream',
    {
      schema: {
        tags: ['console'],
        summary: 'The console from now on',
        params: S.NodeParams,
        querystring: query({
          bytes: Type.Integer({
            minimum: 0,
            maximum: CONSOLE_BYTES_MAX,
            default: 0,
            description: 'Begin with this much of the recording.',
          }),
        }),
        response: stream('application/octet-stream', 'Raw bytes, until the client ends it'),
      },
    },
    async (request, reply) => {
      const { id } = await nodes.get(request.params.node);
      // Both may refuse; the head is sent only then.
      const past = await services.consoles.tail(id, request.query.bytes);
      await streaming(reply, async signal => {
        reply.raw.writeHead(200, {
          'content-type': 'application/octet-stream',
          'cache-control': 'no-store',
          'x-content-type-options': 'nosniff',
        });
        reply.raw.write(past);
        reply.raw.flushHeaders();
        for await (const chunk of services.consoles.follow(id, signal)) {
          if (signal.aborted) break;
          if (!reply.raw.write(chunk)) await drained(reply, signal);
        }
        reply.raw.end();
      });
    },
  );
  api.register(async raw => {
    raw.addContentTypeParser(
      'application/octet-stream',
      { parseAs: 'buffer', bodyLimit: INPUT_MAX },
      (_request, body, done) => done(null, body),
    );
    raw.post<{ Params: { node: string }; Body: Buffer }>(
      '/nodes/:node/console/input',
      {
        bodyLimit: INPUT_MAX,
        schema: {
          tags: ['console'],
          summary: 'Type into the console',
          consumes: ['application/octet-stream'],
          params: S.NodeParams,
          response: { 204: Type.Null() },
        },
      },
      async (request, reply) => {
        if (!Buffer.isBuffer(request.body)) fail('content-type-refused', 'Console input is application/octet-stream.');
        const { id } = await nodes.get(request.params.node);
        await services.consoles.write(id, request.body);
        return reply.code(204).send(null);
      },
    );
  });

  // Boot
  api.get(
    '/boot/trace/:mac',
    {
      schema: {
        tags: ['boot'],
        summary: 'What a MAC asked, what it got, and why it got nothing',
        params: Type.Object({ mac: Type.String({ format: 'mac' }) }),
        querystring: query({ limit: limit(2000, 200) }),
        response: answers(
          200,
          Type.Object({ mac: Type.String(), trace: Type.Array(S.TraceEntrySchema) }),
          'Oldest first',
        ),
      },
    },
    async request => {
      const mac = request.params.mac.toLowerCase().replaceAll('-', ':');
      return { mac, trace: await nodes.trace(mac, request.query.limit) };
    },
  );
  api.get(
    '/leases',
    {
      schema: {
        tags: ['boot'],
        summary: 'DHCP leases',
        querystring: query({ network: Type.Optional(Type.String({ maxLength: 63 })) }),
        response: answers(200, Type.Object({ leases: Type.Array(S.LeaseSchema) }), 'Leases'),
      },
    },
    async request => ({
      leases: (await services.leases()).filter(l => !request.query.network || l.network === request.query.network),
    }),
  );

  // Images
  api.get(
    '/images',
    {
      schema: {
        tags: ['image'],
        summary: 'List images',
        response: answers(
          200,
          Type.Object({ images: Type.Array(S.ImageSchema), broken: Type.Array(S.ProblemSchema) }),
          'Manifests',
        ),
      },
    },
    async () => ({
      images: await services.images.list(),
      broken: await services.images.broken(),
    }),
  );
  api.get(
    '/images/:name',
    {
      schema: {
        tags: ['image'],
        summary: 'Show an image',
        params: Type.Object({ name: Type.String({ maxLength: 64 }) }),
        response: answers(200, S.ImageSchema, 'Manifest'),
      },
    },
    async request => services.images.get(request.params.name),
  );

  // Runs
  api.get(
    '/runs',
    {
      schema: {
        tags: ['run'],
        summary: 'Runs of the journal, newest first',
        querystring: query({ node: Type.Optional(S.Selector), limit: limit(500, 50) }),
        response: answers(200, Type.Object({ runs: Type.Array(S.RunSchema) }), 'Runs'),
      },
    },
    async request => {
      const { node, limit: most } = request.query;
      const filter = node === undefined ? {} : { nodeId: (await nodes.get(node)).id };
      return { runs: await services.journal.list({ ...filter, limit: most }) };
    },
  );
  api.get(
    '/runs/:run',
    {
      schema: {
        tags: ['run'],
        summary: 'A run with its steps',
        params: Type.Object({ run: Type.String({ maxLength: 64 }) }),
        response: answers(200, Type.Object({ run: S.RunSchema, steps: Type.Array(S.StepSchema) }), 'Run and steps'),
      },
    },
    async request => {
      const run = await services.journal.get(request.params.run);
      if (!run) return fail('run-unknown', `There is no run ${JSON.stringify(request.params.run)}.`);
      return { run, steps: await services.journal.steps(run.id) };
    },
  );

  // Events
  api.get(
    '/events',
    {
      schema: {
        tags: ['event'],
        summary: 'The event feed',
        description:
          'Server-Sent Events; with `Accept: application/json` one page instead. `Last-Event-ID` (or `after`) resumes; an event `reload` says that the client is too far behind and must read everything anew.',
        headers: Type.Object({ 'last-event-id': Type.Optional(Type.String({ pattern: '^\\d{1,15}$' })) }),
        querystring: query({
          after: Type.Optional(
            Type.Integer({ minimum: 0, description: 'Events after this number; the newest only when left out.' }),
          ),
          node: Type.Optional(S.Selector),
          limit: limit(1000, 100),
        }),
        response: {
          200: {
            description: 'Events',
            content: {
              'text/event-stream': { schema: Type.String() },
              'application/json': {
                schema: Type.Object({ events: Type.Array(S.EventSchema), latestId: Type.Number() }),
              },
            },
          },
        },
      },
    },
    async (request, reply) => {
      const nodeId = request.query.node === undefined ? undefined : (await nodes.get(request.query.node)).id;
      const seen = request.headers['last-event-id'];
      const afterId = seen !== undefined ? Number(seen) : (request.query.after ?? null);
      if (/\bapplication\/json\b/.test(request.headers.accept ?? '')) {
        const latestId = await services.events.latestId();
        const from = afterId ?? Math.max(0, latestId - request.query.limit);
        const filter = nodeId === undefined ? undefined : { nodeId };
        return { events: await services.events.after(from, request.query.limit, filter), latestId };
      }
      await streaming(reply, signal =>
        streamEvents({
          feed: services.events,
          clock,
          response: reply.raw,
          afterId,
          signal,
          ...(nodeId === undefined ? {} : { nodeId }),
          ...(options.heartbeatMs === undefined ? {} : { heartbeatMs: options.heartbeatMs }),
        }),
      );
      return reply;
    },
  );

  // Site
  api.get(
    '/site',
    {
      schema: {
        tags: ['site'],
        summary: 'The site as it is in force, defaults filled in',
        response: answers(
          200,
          Type.Object({ path: Type.String(), site: Type.Record(Type.String(), Type.Unknown()) }),
          'Site',
        ),
      },
    },
    async () => ({ path: services.site.path, site: services.site.site }),
  );
  api.get(
    '/site/export',
    {
      schema: {
        tags: ['site'],
        summary: 'The site and what was changed by API, as one file',
        response: stream('application/yaml', 'site.yaml'),
      },
    },
    async (_request, reply) =>
      reply.type('application/yaml; charset=utf-8').send(exportSite(services.site.site, await nodes.list())),
  );
  api.get(
    '/site/match',
    {
      schema: {
        tags: ['site'],
        summary: 'Which node matches which profile, what it becomes, and why not',
        response: answers(
          200,
          Type.Object({ matches: Type.Array(S.NodeMatchSchema) }),
          'One entry per node, by name; nothing is changed',
        ),
      },
    },
    async () => ({
      matches: matchProfiles(services.site.site, await nodes.list()).sort((a, b) =>
        a.node.localeCompare(b.node, 'en', { numeric: true }),
      ),
    }),
  );
  api.post(
    '/site/check',
    {
      bodyLimit: 2 * 1024 * 1024,
      schema: {
        tags: ['site'],
        summary: 'Check the text of a site file',
        body: Type.Object(
          {
            text: Type.String({ maxLength: 2 * 1024 * 1024 }),
            path: Type.String({ maxLength: 256, default: 'site.yaml' }),
          },
          { additionalProperties: false },
        ),
        response: answers(
          200,
          Type.Object({ ok: Type.Boolean(), faults: Type.Array(S.ProblemSchema) }),
          'All faults at once',
        ),
      },
    },
    async request => {
      const loaded = loadSite(request.body.text, request.body.path);
      return Array.isArray(loaded) ? { ok: false, faults: loaded } : { ok: true, faults: [] };
    },
  );

  // What carries secrets: on the Unix socket alone.
  api.get(
    '/backup',
    {
      config: { socketOnly: true },
      schema: {
        tags: ['server'],
        summary: 'A consistent copy of database and keys',
        response: stream('application/octet-stream', 'The backup'),
      },
    },
    async (_request, reply) => reply.type('application/octet-stream').send(await services.backup(closing)),
  );
  const { secrets } = services;
  if (secrets) {
    const Name = Type.Object({
      name: Type.String({
        pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}$',
        expects: 'a name like bmc/n07',
        maxLength: 256,
      }),
    });
    api.get(
      '/secrets',
      {
        config: { socketOnly: true },
        schema: {
          tags: ['secret'],
          summary: 'Names of the stored secrets',
          response: answers(200, Type.Object({ secrets: Type.Array(Type.String()) }), 'Names'),
        },
      },
      async () => ({ secrets: await secrets.list() }),
    );
    api.put(
      '/secrets/:name',
      {
        config: { socketOnly: true },
        schema: {
          tags: ['secret'],
          summary: 'Store a secret; it cannot be read back',
          params: Name,
          body: Type.Object(
            { value: Type.String({ minLength: 1, maxLength: 65_536, writeOnly: true }) },
            { additionalProperties: false },
          ),
          response: { 204: Type.Null() },
        },
      },
      async (request, reply) => {
        await secrets.set(request.params.name, request.body.value);
        return reply.code(204).send(null);
      },
    );
    api.delete(
      '/secrets/:name',
      {
        config: { socketOnly: true },
        schema: { tags: ['secret'], summary: 'Delete a secret', params: Name, response: { 204: Type.Null() } },
      },
      async (request, reply) => {
        await secrets.remove(request.params.name);
        return reply.code(204).send(null);
      },
    );
  }

  addCloudRoutes(api, services);

  api.get('/openapi.json', { schema: { hide: true, querystring: Empty } }, async () => api.swagger());
}

function refuseBmc(bmc: Bmc): void {
  checkBmc(bmc, ['body', 'bmc'], (path, message) => fail('request-invalid', `${fieldName(path)}: ${message}`));
}

const drained = (reply: FastifyReply, signal: AbortSignal) =>
  new Promise<void>(resolve => {
    reply.raw.once('drain', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });

type Result = { item: string; ok: boolean; node?: NodeView; power?: PowerState; problem?: Problem };

/** Works through the items, a few at a time; one result each, in order. A bug in one is thrown, not reported as its problem. */
async function each(items: readonly string[], work: (item: string) => Promise<Partial<Result>>) {
  const results: Result[] = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next++;
      const item = items[index]!;
      try {
        results[index] = { item, ok: true, ...(await work(item)) };
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error;
        results[index] = { item, ok: false, problem: asProblem(error) };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(BULK_PARALLEL, items.length) }, worker));
  const done = results.filter(r => r.ok).length;
  return { results, done, failed: results.length - done };
}
