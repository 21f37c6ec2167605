/** Redfish (DMTF DSP0266) over HTTPS: power and next boot, tolerant of what vendors leave out. */
import { timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { Agent, buildConnector, type Dispatcher, request } from 'undici';
import { sleep } from '../core/clock.js';
import { fail, ProblemError } from '../core/problem.js';
import type { Bmc } from '../site/schema.js';
import { hidePassword } from './hide.js';
import type { PowerDriver, PowerState } from './types.js';

const BODY_MAX_BYTES = 1024 * 1024;

export interface RedfishLimits {
  readonly connectMs: number;
  readonly requestMs: number;
  readonly taskMs: number;
}
const LIMITS: RedfishLimits = { connectMs: 5000, requestMs: 20_000, taskMs: 60_000 };

type Json = Record<string, unknown>;
interface Reply {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Json;
}

/** `https://host[:port]`, or a bare host, which gets https. Throws ProblemError bmc-unsupported. */
export function parseRedfishAddress(address: string | undefined): URL {
  const text = address?.includes('://') ? address : `https://${address ?? ''}`;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || !url.hostname || url.search) {
    return fail('bmc-unsupported', `"${address ?? ''}" is no address of a Redfish service: https://HOST was expected.`);
  }
  return new URL('/', url);
}

const at = (value: unknown, ...path: string[]): unknown => {
  let now = value;
  for (const key of path) now = typeof now === 'object' && now !== null ? (now as Json)[key] : undefined;
  return now;
};
const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const header = (reply: Reply, name: string) => text(reply.headers[name]);

/** The service's own words for an error, short. */
export function redfishMessage(body: unknown, password: string | null = null): string {
  const info = at(body, 'error', '@Message.ExtendedInfo');
  const first = Array.isArray(info) ? text(at(info[0], 'Message')) : undefined;
  // Hidden before it is cut: half a password is one, too.
  return hidePassword(first ?? text(at(body, 'error', 'message')) ?? '', password).slice(0, 200);
}

/** Which reset types to try, best first, out of those the BMC offers (null: it does not say). Pure. */
export function resetCandidates(action: 'on' | 'off', allowed: readonly string[] | null): string[] {
  const wish = action === 'on' ? ['On', 'ForceOn', 'PushPowerButton'] : ['ForceOff', 'PowerOff', 'GracefulShutdown'];
  return allowed === null ? wish.slice(0, 2) : wish.filter(type => allowed.includes(type));
}

/** Connects, and checks the certificate against the pin before a byte is sent. */
function pinned(fingerprint: string, connectMs: number): buildConnector.connector {
  const want = Buffer.from(fingerprint.slice('sha256:'.length), 'hex');
  // A resumed session shows no certificate: none is cached. What verifies here is the pin, not a CA.
  const connector = buildConnector({ rejectUnauthorized: false, maxCachedSessions: 0, timeout: connectMs });
  return (options, callback) =>
    connector(options, (...result) => {
      const socket = result[1];
      if (!socket) return callback(...result);
      const shown = (socket as TLSSocket).getPeerCertificate?.(false)?.fingerprint256?.replaceAll(':', '') ?? '';
      const have = Buffer.from(shown, 'hex');
      if (have.length === want.length && timingSafeEqual(have, want)) return callback(null, socket);
      socket.destroy();
      return callback(Object.assign(new Error('certificate differs from the pin'), { code: 'ERR_PIN' }), null);
    });
}

const SILENT =
  /^(ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN|UND_ERR_CONNECT_TIMEOUT|UND_ERR_HEADERS_TIMEOUT|UND_ERR_BODY_TIMEOUT|UND_ERR_SOCKET|ABORT_ERR)$/;

export function createRedfishDriver(
  bmc: Bmc,
  password: string | null,
  limits: Partial<RedfishLimits> = {},
): PowerDriver {
  const { connectMs, requestMs, taskMs } = { ...LIMITS, ...limits };
  const base = parseRedfishAddress(bmc.address);
  const where = base.host;
  const user = bmc.user ?? '';
  if (bmc.tls_fingerprint && base.protocol !== 'https:') {
    fail('bmc-unsupported', `The BMC ${where} has a pinned certificate, but its address is not https.`);
  }
  const dispatcher: Dispatcher = new Agent({
    connections: 1,
    keepAliveTimeout: 4000,
    headersTimeout: requestMs,
    bodyTimeout: requestMs,
    connect: bmc.tls_fingerprint ? pinned(bmc.tls_fingerprint, connectMs) : { timeout: connectMs },
  });
  let token: string | null = null;
  let session: string | null = null;
  let useBasic = false;
  let systemUri: string | null = bmc.system ?? null;

  /** A link of the service as a path on the same service: credentials never go elsewhere. */
  const link = (value: unknown, what: string): string => {
    const uri = text(value);
    const url = uri !== undefined && URL.canParse(uri, base.href) ? new URL(uri, base) : null;
    if (!url || url.origin !== base.origin)
      return fail('bmc-protocol', `The BMC ${where} has no usable link to ${what}.`);
    return url.pathname + url.search;
  };

  const send = async (
    method: string,
    path: string,
    body?: Json,
    headers: Record<string, string> = {},
  ): Promise<Reply> => {
    try {
      const reply = await request(new URL(path, base), {
        method: method as Dispatcher.HttpMethod,
        dispatcher,
        headers: {
          accept: 'application/json',
          'odata-version': '4.0',
          ...(body ? { 'content-type': 'application/json' } : {}),
          ...headers,
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
        signal: AbortSignal.timeout(requestMs),
      });
      let size = 0;
      const chunks: Buffer[] = [];
      for await (const chunk of reply.body) {
        size += (chunk as Buffer).length;
        if (size > BODY_MAX_BYTES) {
          reply.body.destroy();
          return fail('bmc-protocol', `The BMC ${where} sent more than ${BODY_MAX_BYTES} bytes for ${path}.`);
        }
        chunks.push(chunk as Buffer);
      }
      const raw = Buffer.concat(chunks).toString();
      let parsed: unknown = {};
      if (raw.trim()) {
        try {
          parsed = JSON.parse(raw);
        } catch {
          // Error pages are often HTML; success must be JSON.
          if (reply.statusCode < 400) return fail('bmc-protocol', `The BMC ${where} did not answer ${path} in JSON.`);
        }
      }
      return {
        status: reply.statusCode,
        headers: reply.headers,
        body: typeof parsed === 'object' && parsed !== null ? (parsed as Json) : {},
      };
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      const { code, name } = error as NodeJS.ErrnoException;
      if (code === 'ERR_PIN') {
        return fail('bmc-protocol', `The BMC ${where} shows another certificate than the pinned one.`, {
          hint: 'If the certificate was renewed, change `tls_fingerprint`; otherwise somebody stands in between.',
          retry: false,
        });
      }
      if (name === 'TimeoutError' || (code && SILENT.test(code))) {
        return fail('bmc-silent', `The BMC ${where} did not answer (${code ?? name}).`);
      }
      if (code && /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS/.test(code)) {
        return fail('bmc-protocol', `The certificate of the BMC ${where} does not verify (${code}).`, {
          hint: 'Pin it with `tls_fingerprint: sha256:…` of the BMC.',
          retry: false,
        });
      }
      return fail('bmc-protocol', `The BMC ${where} does not speak HTTP as expected (${code ?? name}).`);
    }
  };

  const refused = () => fail('bmc-auth', `The BMC ${where} refused the user name or password.`);

  const login = async (): Promise<void> => {
    if (useBasic) return;
    const root = await send('GET', '/redfish/v1/');
    if (root.status >= 400) fail('bmc-protocol', `${where} has no Redfish service (HTTP ${root.status}).`);
    const sessions = at(root.body, 'Links', 'Sessions', '@odata.id');
    if (sessions === undefined) {
      useBasic = true;
      return;
    }
    const reply = await send('POST', link(sessions, 'its sessions'), { UserName: user, Password: password ?? '' });
    if (reply.status === 401 || reply.status === 403) refused();
    token = header(reply, 'x-auth-token') ?? null;
    session = header(reply, 'location') ? link(header(reply, 'location'), 'the new session') : null;
    // No sessions left, or none offered after all: each request says who we are.
    if (!token) useBasic = true;
  };

  /** An authorised request. A session that has expired is opened again, once. */
  const call = async (
    method: string,
    path: string,
    body?: Json,
    headers: Record<string, string> = {},
  ): Promise<Reply> => {
    for (let attempt = 0; ; attempt++) {
      const fresh = token === null;
      if (fresh) await login();
      const credentials: Record<string, string> = token
        ? { 'x-auth-token': token }
        : { authorization: `Basic ${Buffer.from(`${user}:${password ?? ''}`).toString('base64')}` };
      const reply = await send(method, path, body, { ...credentials, ...headers });
      if (reply.status !== 401) return reply;
      // A password that was just refused is not tried again: accounts lock.
      if (useBasic || fresh || attempt > 0) refused();
      token = null;
      session = null;
    }
  };

  const expect = (reply: Reply, what: string): Reply => {
    if (reply.status < 300) return reply;
    const said = redfishMessage(reply.body, password);
    const message = `The BMC ${where} refused ${what} (HTTP ${reply.status}${said ? `: ${said}` : ''}).`;
    if (reply.status === 403) return fail('bmc-auth', `${message} The account lacks the right.`);
    if (reply.status === 400 || reply.status === 404 || reply.status === 405 || reply.status === 501) {
      return fail('bmc-unsupported', message);
    }
    return fail('bmc-protocol', message);
  };

  const system = async (): Promise<Reply & { uri: string }> => {
    if (!systemUri) {
      const root = await send('GET', '/redfish/v1/');
      const systems = link(at(root.body, 'Systems', '@odata.id'), 'its systems');
      const members = at(expect(await call('GET', systems), 'its list of systems').body, 'Members');
      const uris = Array.isArray(members) ? members.map(member => link(at(member, '@odata.id'), 'a system')) : [];
      if (uris.length === 0) fail('bmc-protocol', `The BMC ${where} names no system.`);
      if (uris.length > 1) {
        fail('bmc-unsupported', `The BMC ${where} manages ${uris.length} systems: ${uris.slice(0, 8).join(', ')}.`, {
          hint: 'Name the one that is this node as `system` of its BMC.',
        });
      }
      systemUri = uris[0]!;
    }
    const uri = link(systemUri, 'the system');
    return { ...expect(await call('GET', uri), 'its system'), uri };
  };

  /** Waits for the end of what was answered with 202 (DSP0266, 12.8). */
  const settle = async (reply: Reply): Promise<void> => {
    if (reply.status !== 202) return;
    const location = header(reply, 'location') ?? at(reply.body, '@odata.id');
    if (location === undefined) return;
    const uri = link(location, 'the task');
    const until = performance.now() + taskMs;
    let wait = Number(header(reply, 'retry-after') ?? 1);
    for (;;) {
      await sleep(Math.min(5, Number.isFinite(wait) ? Math.max(0.1, wait) : 1) * 1000);
      const task = await call('GET', uri);
      const state = text(task.body['TaskState']);
      // A monitor that is gone, or that answers with the result itself, is done.
      if (task.status === 404 || task.status === 204) return;
      if (state === undefined ? task.status !== 202 : state === 'Completed') return void expect(task, 'the task');
      if (state && /^(Exception|Killed|Cancelled|Interrupted)$/.test(state)) {
        const messages = task.body['Messages'];
        const words = Array.isArray(messages) ? (text(at(messages[0], 'Message')) ?? '') : '';
        const said = hidePassword(words, password).slice(0, 200);
        fail('bmc-protocol', `The BMC ${where} gave up the task (${state}${said ? `: ${said}` : ''}).`);
      }
      if (performance.now() > until) fail('bmc-lies', `The BMC ${where} does not finish its task (${state ?? '202'}).`);
      wait = Number(header(task, 'retry-after') ?? 1);
    }
  };

  const reset = async (action: 'on' | 'off'): Promise<void> => {
    const document = await system();
    const entry = at(document.body, 'Actions', '#ComputerSystem.Reset');
    const target = link(at(entry, 'target') ?? `${document.uri}/Actions/ComputerSystem.Reset`, 'its reset action');
    let allowed = at(entry, 'ResetType@Redfish.AllowableValues');
    if (allowed === undefined && at(entry, '@Redfish.ActionInfo') !== undefined) {
      const info = await call('GET', link(at(entry, '@Redfish.ActionInfo'), 'its action info'));
      const parameters = at(info.body, 'Parameters');
      if (Array.isArray(parameters)) {
        allowed = at(
          parameters.find(parameter => at(parameter, 'Name') === 'ResetType'),
          'AllowableValues',
        );
      }
    }
    const types = resetCandidates(action, Array.isArray(allowed) ? allowed.filter(v => typeof v === 'string') : null);
    let reply: Reply | null = null;
    for (const type of types) {
      reply = await call('POST', target, { ResetType: type });
      // A type that is listed but refused: the next one may do.
      if (reply.status !== 400 && reply.status !== 501) break;
    }
    if (!reply) {
      fail('bmc-unsupported', `The BMC ${where} offers no reset type to switch ${action}: ${String(allowed)}.`);
      return;
    }
    await settle(expect(reply, `to switch ${action}`));
  };

  return {
    async status(): Promise<PowerState> {
      // PoweringOn and PoweringOff are neither yet.
      const state = (await system()).body['PowerState'];
      return state === 'On' ? 'on' : state === 'Off' ? 'off' : 'unknown';
    },
    on: () => reset('on'),
    off: () => reset('off'),
    async bootFromNetworkOnce(firmware) {
      let document = await system();
      const allowed = at(document.body, 'Boot', 'BootSourceOverrideTarget@Redfish.AllowableValues');
      if (Array.isArray(allowed) && !allowed.includes('Pxe')) {
        fail('bmc-unsupported', `The BMC ${where} cannot set the network as next boot device: ${allowed.join(', ')}.`);
      }
      const boot: Json = { BootSourceOverrideEnabled: 'Once', BootSourceOverrideTarget: 'Pxe' };
      const mode: Json = firmware ? { BootSourceOverrideMode: firmware === 'uefi' ? 'UEFI' : 'Legacy' } : {};
      const patch = (body: Json, match: string | undefined) =>
        call('PATCH', document.uri, { Boot: body }, match ? { 'if-match': match } : {});
      const etag = () => header(document, 'etag') ?? text(document.body['@odata.etag']);
      let reply = await patch({ ...boot, ...mode }, etag());
      if (reply.status === 412 || reply.status === 428) {
        // Somebody changed it in between, or the service wants If-Match without giving an ETag.
        document = await system();
        reply = await patch({ ...boot, ...mode }, etag() ?? '*');
      }
      if (reply.status === 400 && firmware) {
        // Many services take no mode, or not this one.
        document = await system();
        reply = await patch(boot, etag());
      }
      await settle(expect(reply, 'the network as next boot device'));
      document = await system();
      const target = at(document.body, 'Boot', 'BootSourceOverrideTarget');
      // With a settings resource the value is pending until the next reset (DSP0266, 9.10).
      if (target !== undefined && target !== 'Pxe' && document.body['@Redfish.Settings'] === undefined) {
        fail('bmc-lies', `The BMC ${where} accepted the network as next boot device, but has "${String(target)}".`);
      }
    },
    async close() {
      if (token && session) await send('DELETE', session, undefined, { 'x-auth-token': token }).catch(() => {});
      token = null;
      session = null;
      await dispatcher.destroy();
    },
  };
}
