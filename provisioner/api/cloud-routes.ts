/** The routes of `/cloud`: thin, over the cloud half. */
import { Type } from 'typebox';
import type { Api } from '../core/api/server.js';
import type { CloudService } from '../core/cloud-service.js';
import { fail } from '../core/problem.js';
import { answers, query } from './answers.js';
import * as C from './cloud-schemas.js';
import * as S from './schemas.js';
import type { ApiServices } from './services.js';

export function addCloudRoutes(api: Api, services: ApiServices): void {
  const { nodes } = services;
  const cloud = (): CloudService =>
    services.cloud ?? fail('cloud-missing', `${services.site.path} has no \`cloud\` part.`);
  /** Selectors as names; one that means no node is refused before anything is looked at. */
  const namesOf = async (selectors: readonly string[]): Promise<string[]> => {
    const found = await Promise.all(selectors.map(s => nodes.get(s)));
    return [...new Set(found.map(n => n.name))];
  };

  api.get(
    '/cloud/plan',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Look at the nodes, and say what an apply would do',
        querystring: query({
          node: Type.Optional(
            Type.Array(S.Selector, { maxItems: 1000, description: 'Only these nodes; may be given several times.' }),
          ),
        }),
        response: answers(200, C.PlanSchema, 'The plan'),
      },
    },
    async request => {
      const service = cloud();
      const { node } = request.query;
      return service.plan(node === undefined ? {} : { nodes: await namesOf(node) });
    },
  );
  api.post(
    '/cloud/apply',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Bring the cloud to what is wanted; answers as soon as the run is recorded',
        body: C.ApplySchema,
        response: answers(202, C.RunIdSchema, 'The run'),
      },
    },
    async (request, reply) => {
      const service = cloud();
      const { planHash, nodes: only, confirmed } = request.body;
      return reply.code(202).send(
        await service.apply({
          confirmed: await namesOf(confirmed),
          ...(planHash === undefined ? {} : { planHash }),
          ...(only === undefined ? {} : { nodes: await namesOf(only) }),
        }),
      );
    },
  );
  api.get(
    '/cloud/drift',
    {
      schema: {
        tags: ['cloud'],
        summary: 'What is no longer as it was laid down',
        response: answers(200, C.PlanSchema, 'What an apply would do about it'),
      },
    },
    async () => cloud().drift(),
  );
  api.post(
    '/cloud/verify',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Prove that the cloud works: virtual machines, networks, volumes',
        body: C.VerifySchema,
        response: answers(202, C.RunIdSchema, 'The run; its result is the report'),
      },
    },
    async (request, reply) => reply.code(202).send(await cloud().verify(request.body)),
  );
  api.post(
    '/cloud/security',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Check the cloud against the OpenStack Security Guide, and more; nothing is changed',
        body: C.SecuritySchema,
        response: answers(202, C.RunIdSchema, 'The run; its result is the report'),
      },
    },
    async (_request, reply) => reply.code(202).send(await cloud().security()),
  );
  api.get(
    '/cloud/verify/latest',
    {
      schema: {
        tags: ['cloud'],
        summary: 'The newest report',
        response: answers(
          200,
          Type.Object({ report: Type.Union([C.VerifyReportSchema, Type.Null()]) }),
          'The report; null before the first',
        ),
      },
    },
    async () => ({ report: await cloud().latestVerification() }),
  );
  api.get(
    '/cloud/credentials',
    {
      config: { socketOnly: true },
      schema: {
        tags: ['cloud'],
        summary: 'How the administrator logs in to the cloud',
        response: answers(200, C.CredentialsSchema, 'As clients take them (openrc)'),
      },
    },
    async () => cloud().credentials(),
  );
  api.post(
    '/cloud/images',
    {
      // It reads files of the server's machine, as root.
      config: { socketOnly: true },
      schema: {
        tags: ['cloud'],
        summary: 'Import an image into the cloud; answers as soon as the run is recorded',
        body: C.ImageImportSchema,
        response: answers(202, C.RunIdSchema, 'The run; its result is the image'),
      },
    },
    async (request, reply) => reply.code(202).send(await cloud().importImage(request.body)),
  );
  api.post(
    '/cloud/nodes/:node/remove',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Drain a node and take every record of it out of the cloud',
        params: S.NodeParams,
        body: C.RemovalSchema,
        response: answers(202, C.RunIdSchema, 'The run'),
      },
    },
    async (request, reply) => {
      const service = cloud();
      const { name } = await nodes.get(request.params.node);
      return reply.code(202).send(await service.removeNode(name, { force: request.body.force }));
    },
  );
  api.get(
    '/cloud/catalogue',
    {
      schema: {
        tags: ['cloud'],
        summary: 'Services and roles, with their limits and conflicts',
        response: answers(200, C.CatalogueSchema, 'The catalogue'),
      },
    },
    async () => services.catalogue ?? fail('cloud-missing', 'This server lays down no cloud: it has no catalogue.'),
  );
  api.post(
    '/nodes/:node/roles',
    {
      schema: {
        tags: ['node'],
        summary: 'Give a node roles, or take them; the next apply acts on it',
        params: S.NodeParams,
        body: C.RolesSchema,
        response: answers(200, S.NodeViewSchema, 'The node'),
      },
    },
    async request => {
      const { add, remove } = request.body;
      const node = await nodes.get(request.params.node);
      const kept = node.spec.roles.filter(r => !remove.includes(r));
      const roles = [...new Set([...kept, ...add])];
      // What is so already is no change, also where the site file says it.
      if (roles.length === node.spec.roles.length && roles.every((r, i) => r === node.spec.roles[i])) return node;
      return nodes.update(node.id, { roles });
    },
  );
}
