/**
 * The APIs of a cloud: a token that renews itself, the catalogue, and one request function. The command line costs one to
 * four seconds a call (knowledge: Q23); this costs what the service needs.
 */
import { type Clock, sleep } from '../../provisioner/core/clock.js';
import { type Log, silentLog } from '../../provisioner/core/log.js';
import { fail, ProblemError } from '../../provisioner/core/problem.js';
import { apiMessage } from './errors.js';
import { createHttp, type Http, type HttpReply, Payload } from './http.js';
import { items, maybeText, text } from './json.js';
import { apiRoot, SERVICES, type ServiceName } from './services.js';

export type EndpointInterface = 'public' | 'internal' | 'admin';

export interface Credentials {
  readonly user: string;
  /** A function keeps it out of values that are printed. */
  readonly password: string | (() => string);
  /** Name of the project, unless `projectId` is given; neither: a token that is scoped to no project. */
  readonly project?: string;
  readonly projectId?: string;
  /** Name of the domain of user and project; `Default` unless said otherwise. */
  readonly domain?: string;
}

export interface CatalogueEndpoint {
  readonly interface: string;
  readonly url: string;
  readonly region: string;
}

export interface CatalogueService {
  readonly type: string;
  readonly name: string;
  readonly endpoints: readonly CatalogueEndpoint[];
}

/** Who we are, and what the cloud has, as the token says. */
export interface Session {
  readonly userId: string;
  readonly userDomainId: string;
  readonly projectId: string;
  readonly roles: readonly string[];
  readonly catalogue: readonly CatalogueService[];
}

export interface RequestOptions {
  /** e.g. `2.74`; sent as the header of the service. */
  readonly microversion?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** The answer is no JSON: `body` stays null, `bytes` has it. */
  readonly raw?: boolean;
  /** Statuses from 300 up that are an answer, not a failure. */
  readonly accept?: readonly number[];
  /** 60 seconds unless said otherwise. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly bytes: Buffer;
}

export interface OpenStackClient {
  readonly region: string;
  readonly clock: Clock;
  /** Trusts what this client trusts; for addresses that are no API of the catalogue (dashboard, console, S3). */
  readonly http: Http;
  /**
   * One request. `path` begins after the API's root (`/servers`, `/networks`, `/users`): versions and, for volumes, the
   * project are put before it. Tried again with growing pauses when it cannot have arrived, when the service answers 503,
   * and, for GET and HEAD only, when the exchange broke off.
   * @throws ProblemError cloud-api-failed with service, method, path, status, said, requestId in `detail`; cloud-unreachable,
   *   cloud-login-refused, cloud-service-missing; the signal's reason when aborted
   */
  request(service: ServiceName, method: string, path: string, body?: unknown, options?: RequestOptions): Promise<Reply>;
  /** All pages of a list; `key` is the name of the list in the answer. */
  list(service: ServiceName, path: string, key: string, options?: RequestOptions): Promise<Record<string, unknown>[]>;
  /** Where the API of the service begins. @throws ProblemError cloud-service-missing */
  endpoint(service: ServiceName, endpointInterface?: EndpointInterface): Promise<string>;
  has(service: ServiceName): Promise<boolean>;
  session(signal?: AbortSignal): Promise<Session>;
  /** Forgets the token: the next request gets a new one, with the catalogue of then. */
  renew(): void;
  /** Another user or project on the same cloud, over the same connections. */
  as(credentials: Credentials): OpenStackClient;
  /** The same user in another project. */
  inProject(projectId: string): OpenStackClient;
  /** Ends the connections, of the clients made by `as` too. */
  close(): Promise<void>;
}

export interface ClientOptions {
  /** `https://cloud.example.org:5000`, with or without `/v3`. */
  readonly authUrl: string;
  readonly caPem?: string | undefined;
  readonly region: string;
  readonly credentials: Credentials;
  readonly clock: Clock;
  /** Ends every request of the client. */
  readonly signal?: AbortSignal | undefined;
  readonly endpointInterface: EndpointInterface;
  /** Addresses of host names in the catalogue that this machine cannot resolve. */
  readonly resolve?: Readonly<Record<string, string>> | undefined;
  /** Requests at the same time; 8 unless said otherwise. */
  readonly concurrency?: number | undefined;
  /** Pauses before the second, third … try. */
  readonly backoffMs?: readonly number[] | undefined;
  readonly log?: Log | undefined;
}

const BACKOFF_MS = [250, 500, 1000, 2000, 4000];
/** A token is renewed when less than this, or a tenth of its life, is left of it. */
const RENEW_BEFORE_MS = 120_000;
/** A token is asked for as often as other things; Keystone hashes passwords slowly on purpose. */
const LOGIN_TIMEOUT_MS = 60_000;
const PAGES_MAX = 500;

interface Token extends Session {
  readonly token: string;
  readonly renewAtMs: number;
}

const quiet = (method: string): boolean => method === 'GET' || method === 'HEAD';

/** The promise, unless the signal aborts before it is settled. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    // One of its own: many requests wait on the same signal, and Node.js warns of more than ten listeners.
    const mine = AbortSignal.any([signal]);
    const onAbort = () => reject(signal.reason);
    if (mine.aborted) onAbort();
    mine.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => mine.removeEventListener('abort', onAbort));
  });
}

function readCatalogue(token: unknown): CatalogueService[] {
  return items(token, 'catalog').map(service => ({
    type: text(service, 'type'),
    name: text(service, 'name'),
    endpoints: items(service, 'endpoints').map(e => ({
      interface: text(e, 'interface'),
      url: text(e, 'url'),
      region: maybeText(e, 'region_id') ?? text(e, 'region'),
    })),
  }));
}

export function createOpenStackClient(options: ClientOptions): OpenStackClient {
  const http = createHttp(options);
  return clientOver(http, options);
}

function clientOver(http: Http, options: ClientOptions): OpenStackClient {
  const { credentials, clock, region, endpointInterface, backoffMs = BACKOFF_MS, log = silentLog } = options;
  if (!URL.canParse(options.authUrl) || !/^https?:$/.test(new URL(options.authUrl).protocol))
    fail('cloud-unreachable', `"${options.authUrl}" is no address of a Keystone: https://HOST:5000 was expected.`);
  const identityRoot = apiRoot('identity', options.authUrl, '');
  const secure = new URL(identityRoot).protocol === 'https:';
  const password = () => (typeof credentials.password === 'string' ? credentials.password : credentials.password());
  const domain = credentials.domain ?? 'Default';

  const withOurs = (signal: AbortSignal | undefined): AbortSignal | undefined =>
    signal && options.signal ? AbortSignal.any([signal, options.signal]) : (signal ?? options.signal);

  /** Sends, and tries again where that cannot do a thing twice. */
  const sendPatiently = async (
    request: Parameters<Http['send']>[0],
    signal: AbortSignal | undefined,
  ): Promise<HttpReply> => {
    for (let attempt = 0; ; attempt++) {
      const pause = backoffMs[attempt];
      try {
        const reply = await http.send({ ...request, ...(signal ? { signal } : {}) });
        if (pause === undefined || !(reply.status === 503 || (quiet(request.method) && reply.status === 502)))
          return reply;
        const asked = Number(reply.headers['retry-after'] ?? 0) * 1000;
        await sleep(Math.min(5000, Math.max(pause, Number.isFinite(asked) ? asked : 0)), signal);
      } catch (error) {
        const again =
          error instanceof ProblemError &&
          error.problem.retry &&
          (error.problem.detail?.['sent'] === false || quiet(request.method));
        if (!again || pause === undefined) throw error;
        await sleep(pause, signal);
      }
      signal?.throwIfAborted();
    }
  };

  const login = async (signal: AbortSignal | undefined): Promise<Token> => {
    const { projectId, project, user } = credentials;
    const scope = projectId
      ? { scope: { project: { id: projectId } } }
      : project
        ? { scope: { project: { name: project, domain: { name: domain } } } }
        : {};
    const secret = password();
    const reply = await sendPatiently(
      {
        method: 'POST',
        url: `${identityRoot}/auth/tokens`,
        headers: { accept: 'application/json', 'content-type': 'application/json' },
        body: JSON.stringify({
          auth: {
            identity: {
              methods: ['password'],
              password: { user: { name: user, domain: { name: domain }, password: secret } },
            },
            ...scope,
          },
        }),
        timeoutMs: LOGIN_TIMEOUT_MS,
      },
      signal,
    );
    const askedAtMs = clock.monotonicMs();
    const where = `Keystone at ${new URL(identityRoot).host}`;
    const said = apiMessage(reply.bytes, [secret]);
    const detail = {
      service: 'identity',
      method: 'POST',
      path: '/auth/tokens',
      status: reply.status,
      said,
      requestId: reply.headers['x-openstack-request-id'] ?? '',
    };
    if (reply.status === 401) fail('cloud-login-refused', `${where} refused the login of ${user}: ${said}`, { detail });
    if (reply.status >= 300)
      fail('cloud-api-failed', `${where} gave ${user} no token (${reply.status}): ${said}`, { detail });
    let body: unknown;
    try {
      body = JSON.parse(reply.bytes.toString('utf8'));
    } catch {
      body = undefined;
    }
    const token = reply.headers['x-subject-token'];
    const info = (body as { token?: unknown } | undefined)?.token;
    if (!token || info === undefined)
      return fail('cloud-api-failed', `${where} answered a login with no token: is it a Keystone?`, { detail });
    // Both times are Keystone's own, so that a wrong clock here or there does not matter.
    const lifeMs = Date.parse(text(info, 'expires_at')) - Date.parse(text(info, 'issued_at'));
    const usableMs = Number.isFinite(lifeMs) && lifeMs > 0 ? lifeMs : 600_000;
    return {
      token,
      renewAtMs: askedAtMs + usableMs - Math.min(RENEW_BEFORE_MS, usableMs / 10),
      userId: text(info, 'user', 'id'),
      userDomainId: text(info, 'user', 'domain', 'id'),
      projectId: text(info, 'project', 'id'),
      roles: items(info, 'roles').map(role => text(role, 'name')),
      catalogue: readCatalogue(info),
    };
  };

  let current: { readonly promise: Promise<Token>; token?: Token } | undefined;
  /** The token in use; one login serves all who wait for it, and goes on when one of them gives up. */
  const token = (signal: AbortSignal | undefined): Promise<Token> => {
    if (!current || (current.token && clock.monotonicMs() >= current.token.renewAtMs)) {
      const mine: NonNullable<typeof current> = { promise: login(options.signal) };
      current = mine;
      mine.promise.then(
        got => {
          mine.token = got;
        },
        () => {
          if (current === mine) current = undefined;
        },
      );
    }
    return unlessAborted(current.promise, signal);
  };

  const endpointOf = (session: Session, service: ServiceName, wanted: EndpointInterface): string | undefined => {
    if (service === 'identity' && wanted === endpointInterface) return identityRoot;
    for (const type of SERVICES[service].types)
      for (const entry of session.catalogue) {
        if (entry.type !== type) continue;
        const found = entry.endpoints.find(e => e.interface === wanted && (region === '' || e.region === region));
        if (found) return found.url;
      }
    return undefined;
  };

  const rootOf = (session: Session, service: ServiceName, wanted: EndpointInterface = endpointInterface): string => {
    const url = endpointOf(session, service, wanted);
    if (url === undefined)
      return fail(
        'cloud-service-missing',
        `The catalogue has no ${wanted} endpoint of ${service} in region ${region}.`,
      );
    if (!URL.canParse(url))
      return fail('cloud-service-missing', `The catalogue's ${wanted} endpoint of ${service} is no URL: "${url}".`);
    if (secure && new URL(url).protocol !== 'https:')
      return fail(
        'cloud-service-missing',
        `The ${wanted} endpoint of ${service} is ${url}: the token would go over the network in clear.`,
        { hint: 'Register it with https://, as Keystone itself is.' },
      );
    return apiRoot(service, url, session.projectId);
  };

  const request: OpenStackClient['request'] = async (service, method, path, body, wanted = {}) => {
    const signal = withOurs(wanted.signal);
    const { microversion } = wanted;
    const name = SERVICES[service].microversion;
    let renewed = false;
    for (;;) {
      const session = await token(signal);
      // A service that was registered after the token was made is in the next one's catalogue.
      if (!renewed && endpointOf(session, service, endpointInterface) === undefined) {
        if (current?.token === session) current = undefined;
        renewed = true;
        continue;
      }
      const startedMs = clock.monotonicMs();
      const reply = await sendPatiently(
        {
          method,
          url: rootOf(session, service) + path,
          headers: {
            accept: 'application/json',
            'x-auth-token': session.token,
            ...(body === undefined || body instanceof Payload ? {} : { 'content-type': 'application/json' }),
            ...(microversion && name ? { 'openstack-api-version': `${name} ${microversion}` } : {}),
            ...wanted.headers,
          },
          ...(body === undefined ? {} : { body: body instanceof Payload ? body : JSON.stringify(body) }),
          ...(wanted.timeoutMs === undefined ? {} : { timeoutMs: wanted.timeoutMs }),
        },
        signal,
      );
      const { status } = reply;
      const ms = Math.round(clock.monotonicMs() - startedMs);
      log.debug({ service, method, path, status, ms }, 'cloud request');
      if (status === 401 && !renewed && !wanted.accept?.includes(401)) {
        // Another request may have renewed it already.
        if (current?.token === session) current = undefined;
        renewed = true;
        continue;
      }
      const requestId = reply.headers['x-openstack-request-id'] ?? reply.headers['x-compute-request-id'] ?? '';
      const broken = (said: string): never =>
        fail(
          'cloud-api-failed',
          `${service}: ${method} ${path} failed with ${status}${said ? `: ${said}` : ''}${requestId ? ` (${requestId})` : ''}`,
          { detail: { service, method, path, status, said, requestId }, retry: status >= 500 },
        );
      if (status >= 300 && !wanted.accept?.includes(status))
        broken(apiMessage(reply.bytes, [session.token, password()]));
      let parsed: unknown = null;
      if (!wanted.raw && reply.bytes.length > 0) {
        try {
          parsed = JSON.parse(reply.bytes.toString('utf8'));
        } catch {
          if (status < 300) broken('the answer is no JSON');
        }
      }
      return { status, headers: reply.headers, body: parsed, bytes: reply.bytes };
    }
  };

  const list: OpenStackClient['list'] = async (service, path, key, wanted) => {
    const all: Record<string, unknown>[] = [];
    const [base = path] = path.split('?');
    let next: string | undefined = path;
    for (let page = 0; next !== undefined; page++) {
      if (page >= PAGES_MAX) fail('cloud-api-failed', `${service}: GET ${path} has no end after ${PAGES_MAX} pages.`);
      const { body }: Reply = await request(service, 'GET', next, undefined, wanted);
      const found = items(body, key);
      all.push(...found);
      // Keystone {links: {next}}, Glance {next}, Nova, Neutron and Cinder {servers_links: [{rel: next}]}.
      const link: string | undefined =
        maybeText(body, 'links', 'next') ??
        maybeText(body, 'next') ??
        maybeText(
          items(body, `${key}_links`).find(l => l['rel'] === 'next'),
          'href',
        );
      // Only its query is believed: hosts in links are wrong behind proxies, and a token goes with the request.
      const query: string = link?.split('?')[1] ?? '';
      next = query && found.length > 0 ? `${base}?${query}` : undefined;
    }
    return all;
  };

  return {
    region,
    clock,
    http,
    request,
    list,
    endpoint: async (service, wanted) => rootOf(await token(options.signal), service, wanted),
    has: async service => endpointOf(await token(options.signal), service, endpointInterface) !== undefined,
    session: async signal => {
      const { userId, userDomainId, projectId, roles, catalogue } = await token(withOurs(signal));
      return { userId, userDomainId, projectId, roles, catalogue };
    },
    renew: () => {
      current = undefined;
    },
    as: other => clientOver(http, { ...options, credentials: other }),
    inProject: id => {
      const { project: _, ...who } = credentials;
      return clientOver(http, { ...options, credentials: { ...who, projectId: id } });
    },
    close: () => http.close(),
  };
}
