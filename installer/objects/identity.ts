/** Keystone: projects, users, roles, assignments, services, regions, endpoints. https://docs.openstack.org/api-ref/identity/v3/ */
import { createHmac } from 'node:crypto';
import { at, maybeText, text } from '../openstack/json.js';
import { given, type Kind, type Look, reply } from './kind.js';
import type { ObservedObject } from './types.js';

/** The attribute of a user that tells which password was laid down. */
export const PASSWORD_ATTRIBUTE = 'halligan_password';

export const passwordMark = (key: string | Buffer, user: string, password: string): string =>
  createHmac('sha256', key).update(`${user}\0${password}`).digest('base64url').slice(0, 32);

const enabled = (row: unknown): boolean => at(row, 'enabled') !== false;

async function inDomain(look: Look, path: string, key: string) {
  const { userDomainId } = await look.client.session(look.signal);
  return look.list('identity', `${path}?domain_id=${encodeURIComponent(userDomainId)}`, key);
}
export const projectsOf = (look: Look) => inDomain(look, '/projects', 'projects');

export async function projectNames(look: Look): Promise<ReadonlyMap<string, string>> {
  return new Map((await projectsOf(look)).map(row => [text(row, 'id'), text(row, 'name')]));
}

export async function projectId(look: Look, name: string | undefined): Promise<string | undefined> {
  if (name === undefined) return undefined;
  return (
    text(
      (await projectsOf(look)).find(row => row['name'] === name),
      'id',
    ) || undefined
  );
}

function byName<T extends { name: string }>(
  wanted: readonly T[],
  rows: readonly Record<string, unknown>[],
  fields: (row: Record<string, unknown>) => ObservedObject['fields'],
): Map<string, ObservedObject> {
  const out = new Map<string, ObservedObject>();
  for (const { name } of wanted) {
    const row = rows.find(r => r['name'] === name);
    if (row) out.set(name, { id: text(row, 'id'), fields: fields(row) });
  }
  return out;
}

export const project: Kind<'project'> = {
  key: d => d.name,
  refers: () => [],
  fields: d => ({ enabled: true, ...(d.description === undefined ? {} : { description: d.description }) }),
  observe: async (look, wanted) =>
    byName(wanted, await projectsOf(look), row => ({ enabled: enabled(row), description: text(row, 'description') })),
  create: async (change, d) => {
    const { userDomainId } = await change.client.session(change.signal);
    const project = given({ name: d.name, description: d.description, domain_id: userDomainId, enabled: true });
    const { body } = await change.client.request('identity', 'POST', '/projects', { project }, reply(change.signal));
    return text(body, 'project', 'id');
  },
  update: async (change, d, id) => {
    const project = given({ description: d.description, enabled: true });
    await change.client.request('identity', 'PATCH', `/projects/${id}`, { project }, reply(change.signal));
  },
  remove: async (change, id) => {
    await change.client.request('identity', 'DELETE', `/projects/${id}`, undefined, reply(change.signal));
  },
};

export const user: Kind<'user'> = {
  key: d => d.name,
  refers: d => (d.defaultProject === undefined ? [] : [`project:${d.defaultProject}`]),
  secret: ['password'],
  fields: (d, key) => ({
    enabled: true,
    password: passwordMark(key, d.name, d.password()),
    ...(d.description === undefined ? {} : { description: d.description }),
    ...(d.defaultProject === undefined ? {} : { default_project: d.defaultProject }),
  }),
  observe: async (look, wanted) => {
    const [rows, names] = await Promise.all([
      inDomain(look, '/users', 'users'),
      wanted.some(d => d.defaultProject !== undefined) ? projectNames(look) : new Map<string, string>(),
    ]);
    for (const row of rows) look.seen(`user:${text(row, 'name')}`, text(row, 'id'));
    return byName(wanted, rows, row => ({
      enabled: enabled(row),
      password: text(row, PASSWORD_ATTRIBUTE),
      description: text(row, 'description'),
      default_project: names.get(text(row, 'default_project_id')) ?? '',
    }));
  },
  create: async (change, d) => {
    const { userDomainId } = await change.client.session(change.signal);
    const user = given({
      name: d.name,
      password: d.password(),
      [PASSWORD_ATTRIBUTE]: passwordMark(change.passwordKey, d.name, d.password()),
      description: d.description,
      default_project_id: d.defaultProject === undefined ? undefined : await change.idOf(`project:${d.defaultProject}`),
      domain_id: userDomainId,
      enabled: true,
    });
    const { body } = await change.client.request('identity', 'POST', '/users', { user }, reply(change.signal));
    return text(body, 'user', 'id');
  },
  update: async (change, d, id, changes) => {
    const named = new Set(changes.map(c => c.field));
    const user = given({
      enabled: true,
      description: d.description,
      default_project_id: named.has('default_project') ? await change.idOf(`project:${d.defaultProject}`) : undefined,
      ...(named.has('password')
        ? {
            password: d.password(),
            [PASSWORD_ATTRIBUTE]: passwordMark(change.passwordKey, d.name, d.password()),
          }
        : {}),
    });
    await change.client.request('identity', 'PATCH', `/users/${id}`, { user }, reply(change.signal));
  },
  remove: async (change, id) => {
    await change.client.request('identity', 'DELETE', `/users/${id}`, undefined, reply(change.signal));
  },
};

const rolesOf = async (look: Look) => {
  const rows = await look.list('identity', '/roles', 'roles');
  for (const row of rows) look.seen(`role:${text(row, 'name')}`, text(row, 'id'));
  return rows;
};

export const role: Kind<'role'> = {
  key: d => d.name,
  refers: () => [],
  fields: () => ({}),
  observe: async (look, wanted) => byName(wanted, await rolesOf(look), () => ({})),
  create: async (change, d) => {
    const { body } = await change.client.request(
      'identity',
      'POST',
      '/roles',
      { role: { name: d.name } },
      reply(change.signal),
    );
    return text(body, 'role', 'id');
  },
  update: async () => {},
};

export const assignment: Kind<'assignment'> = {
  key: d => `${d.user}/${d.project}/${d.role}`,
  refers: d => [`user:${d.user}`, `project:${d.project}`, `role:${d.role}`],
  fields: () => ({}),
  observe: async (look, wanted) => {
    const [projects, users, roles] = await Promise.all([
      projectsOf(look),
      inDomain(look, '/users', 'users'),
      rolesOf(look),
    ]);
    const name = (rows: readonly Record<string, unknown>[], id: string) =>
      text(
        rows.find(r => r['id'] === id),
        'name',
      );
    const scopes = projects.filter(row => wanted.some(d => d.project === row['name']));
    for (const row of scopes) look.seen(`project:${text(row, 'name')}`, text(row, 'id'));
    const rows = await Promise.all(
      scopes.map(row =>
        look.list('identity', `/role_assignments?scope.project.id=${text(row, 'id')}`, 'role_assignments'),
      ),
    );
    const there = new Set(
      rows
        .flat()
        .map(
          r =>
            `${name(users, text(r, 'user', 'id'))}/${name(projects, text(r, 'scope', 'project', 'id'))}/${name(roles, text(r, 'role', 'id'))}`,
        ),
    );
    return new Map(
      wanted
        .map(d => `${d.user}/${d.project}/${d.role}`)
        .filter(key => there.has(key))
        .map(key => [key, { id: key, fields: {} }]),
    );
  },
  create: async (change, d) => {
    const [user, project, role] = await Promise.all([
      change.idOf(`user:${d.user}`),
      change.idOf(`project:${d.project}`),
      change.idOf(`role:${d.role}`),
    ]);
    const path = `/projects/${project}/users/${user}/roles/${role}`;
    await change.client.request('identity', 'PUT', path, undefined, reply(change.signal));
    return `${d.user}/${d.project}/${d.role}`;
  },
  update: async () => {},
};

export const service: Kind<'service'> = {
  key: d => d.type,
  refers: () => [],
  fields: d => ({
    name: d.name,
    enabled: true,
    ...(d.description === undefined ? {} : { description: d.description }),
  }),
  observe: async (look, wanted) => {
    const rows = await look.list('identity', '/services', 'services');
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const same = rows.filter(r => r['type'] === d.type);
      const row = same.find(r => r['name'] === d.name) ?? same[0];
      if (row)
        out.set(d.type, {
          id: text(row, 'id'),
          fields: { name: text(row, 'name'), enabled: enabled(row), description: text(row, 'description') },
        });
    }
    return out;
  },
  create: async (change, d) => {
    const service = given({ type: d.type, name: d.name, description: d.description, enabled: true });
    const { body } = await change.client.request('identity', 'POST', '/services', { service }, reply(change.signal));
    return text(body, 'service', 'id');
  },
  update: async (change, d, id) => {
    const service = given({ name: d.name, description: d.description, enabled: true });
    await change.client.request('identity', 'PATCH', `/services/${id}`, { service }, reply(change.signal));
  },
  remove: async (change, id) => {
    await change.client.request('identity', 'DELETE', `/services/${id}`, undefined, reply(change.signal));
  },
};

export const region: Kind<'region'> = {
  key: d => d.name,
  refers: () => [],
  fields: () => ({}),
  observe: async (look, wanted) => {
    const rows = await look.list('identity', '/regions', 'regions');
    return new Map(
      wanted.filter(d => rows.some(r => r['id'] === d.name)).map(d => [d.name, { id: d.name, fields: {} }]),
    );
  },
  create: async (change, d) => {
    await change.client.request('identity', 'POST', '/regions', { region: { id: d.name } }, reply(change.signal));
    return d.name;
  },
  update: async () => {},
};

export const endpoint: Kind<'endpoint'> = {
  key: d => `${d.service}/${d.interface}/${d.region}`,
  refers: d => [`service:${d.service}`, `region:${d.region}`],
  fields: d => ({ url: d.url, enabled: true }),
  observe: async (look, wanted) => {
    const [services, rows] = await Promise.all([
      look.list('identity', '/services', 'services'),
      look.list('identity', '/endpoints', 'endpoints'),
    ]);
    const types = new Map(services.map(r => [text(r, 'id'), text(r, 'type')]));
    const out = new Map<string, ObservedObject>();
    for (const d of wanted) {
      const same = rows
        .filter(
          r =>
            types.get(text(r, 'service_id')) === d.service &&
            r['interface'] === d.interface &&
            (maybeText(r, 'region_id') ?? text(r, 'region')) === d.region,
        )
        // The one that is right, if any, is kept.
        .sort(
          (a, b) => Number(b['url'] === d.url) - Number(a['url'] === d.url) || (text(a, 'id') < text(b, 'id') ? -1 : 1),
        );
      const [first, ...others] = same;
      if (first)
        out.set(endpoint.key(d), {
          id: text(first, 'id'),
          fields: { url: text(first, 'url'), enabled: enabled(first) },
          ...(others.length > 0 ? { duplicates: others.map(r => text(r, 'id')) } : {}),
        });
    }
    return out;
  },
  create: async (change, d) => {
    const service_id = await change.idOf(`service:${d.service}`);
    const endpoint = { service_id, interface: d.interface, region_id: d.region, url: d.url, enabled: true };
    const { body } = await change.client.request('identity', 'POST', '/endpoints', { endpoint }, reply(change.signal));
    return text(body, 'endpoint', 'id');
  },
  update: async (change, d, id) => {
    const endpoint = { url: d.url, enabled: true };
    await change.client.request('identity', 'PATCH', `/endpoints/${id}`, { endpoint }, reply(change.signal));
  },
  remove: async (change, id) => {
    await change.client.request('identity', 'DELETE', `/endpoints/${id}`, undefined, reply(change.signal));
  },
};
