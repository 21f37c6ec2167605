/** Gathers what the checks look at: one read-only program per node over SSH, and some requests to the APIs. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Executor, SshTarget } from '../../provisioner/core/executor/types.js';
import { asProblem, ProblemError, problem } from '../../provisioner/core/problem.js';
import { quote, templatesDir } from '../../provisioner/core/render.js';
import { type CloudModel, nodesWith } from '../model/cloud.js';
import type { OpenStackClient } from '../openstack/client.js';
import { formFields, keepCookies } from '../verify/steps/dashboard.js';
import { parseIni } from './ini.js';
import { DASHBOARD_LOGINS, keystoneLogins, type Login } from './logins.js';
import { isSecretValue, type Needles, needlesOf } from './needles.js';
import { CONFIG_FILES, type EvidenceRequest, evidenceRequest } from './request.js';
import type { ApiEvidence, Evidence, NodeEvidence } from './types.js';

/** Reading logs of a busy node takes a while. */
const NODE_TIMEOUT_MS = 300_000;
const REQUEST_TIMEOUT_MS = 60_000;

/** The program for a node's `python3`. */
export const evidenceProgram = (request: EvidenceRequest): string =>
  `import json\nREQUEST = json.loads(${quote('py', JSON.stringify(request))})\n${readFileSync(join(templatesDir(), 'security/evidence.py'), 'utf8')}`;

/** @throws ProblemError command-failed */
export function parseEvidence(output: string, node: string): NodeEvidence {
  try {
    return JSON.parse(output) as NodeEvidence;
  } catch {
    throw new ProblemError(problem('command-failed', `What ${node} told of its state was cut off.`));
  }
}

export interface GatherDeps {
  readonly executor: Pick<Executor, 'run'>;
  readonly model: CloudModel;
  readonly targets: ReadonlyMap<string, SshTarget>;
  readonly ca: string;
  /** The cloud's secrets by name. */
  readonly secrets: ReadonlyMap<string, string>;
  readonly client: OpenStackClient;
  readonly signal: AbortSignal;
  /** Told when a node, or the APIs (null), were looked at; the problem, where they could not be. */
  readonly onLooked: (node: string | null, problem: string | null) => void;
}

async function lookAt(deps: GatherDeps, name: string, needles: Needles): Promise<NodeEvidence> {
  const node = deps.model.nodes.find(n => n.name === name)!;
  const target = deps.targets.get(name)!;
  const done = await deps.executor.run(target, 'python3 -I -', {
    stdin: evidenceProgram(evidenceRequest(deps.model, node, { ca: deps.ca, needles })),
    timeoutMs: NODE_TIMEOUT_MS,
    signal: deps.signal,
  });
  if (done.code === 0) return parseEvidence(done.stdout, name);
  const words = done.stderr.trim().split('\n').at(-1)?.slice(0, 200) ?? '';
  throw new ProblemError(problem('command-failed', `The look at ${name} failed with code ${done.code}: ${words}.`));
}

/** Whether the account logs in at Keystone. */
async function keystoneTakes({ client, model, signal }: GatherDeps, login: Login): Promise<boolean> {
  const user = { name: login.user, password: login.password, domain: { id: 'default' } };
  const reply = await client.http.send({
    method: 'POST',
    url: `https://${model.api.host}:5000/v3/auth/tokens`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth: { identity: { methods: ['password'], password: { user } } } }),
    timeoutMs: REQUEST_TIMEOUT_MS,
    signal,
  });
  return reply.status === 201;
}

async function dashboard({ client, model, signal }: GatherDeps) {
  const base = `https://${model.api.host}`;
  const url = `${base}/horizon/auth/login/`;
  const page = await client.http.send({ method: 'GET', url, timeoutMs: REQUEST_TIMEOUT_MS, signal });
  const takes = async (login: Login): Promise<boolean> => {
    const jar = new Map<string, string>();
    keepCookies(jar, page.headers['set-cookie']);
    const fields = { ...formFields(page.bytes.toString('utf8')), username: login.user, password: login.password };
    const reply = await client.http.send({
      method: 'POST',
      url,
      headers: {
        cookie: [...jar].map(([k, v]) => `${k}=${v}`).join('; '),
        'content-type': 'application/x-www-form-urlencoded',
        referer: url,
        origin: base,
      },
      body: new URLSearchParams(fields).toString(),
      timeoutMs: REQUEST_TIMEOUT_MS,
      signal,
    });
    // A login that was taken leads on; one that was not shows the page again.
    return reply.status >= 300 && reply.status < 400;
  };
  return { page, takes };
}

/** Where Keystone locks accounts after failures, guesses would lock the administrator out. */
function locksAccounts(model: CloudModel, nodes: ReadonlyMap<string, NodeEvidence>): boolean | null {
  const configs = nodesWith(model, 'identity').map(n => nodes.get(n.name)?.contents[CONFIG_FILES['identity']!]);
  if (configs.some(c => c === undefined)) return null;
  return configs.some(c => Number(parseIni(c!)['security_compliance']?.['lockout_failure_attempts'] ?? 0) > 0);
}

async function askApis(deps: GatherDeps, nodes: ReadonlyMap<string, NodeEvidence>): Promise<ApiEvidence> {
  const { client, model, signal } = deps;
  const session = await client.session(signal);
  const locks = locksAccounts(model, nodes);
  const taken: string[] = [];
  let tried = 0;
  const withPage = nodesWith(model, 'dashboard').length > 0 ? await dashboard(deps) : null;
  if (locks === false) {
    // One after the other: Keystone hashes slowly on purpose, and others want to log in meanwhile.
    for (const login of keystoneLogins(model.services.flatMap(s => (s.user === null ? [] : [s.user])))) {
      tried++;
      if (await keystoneTakes(deps, login)) taken.push(`${login.user}/${login.password} at Keystone`);
    }
    for (const login of withPage ? DASHBOARD_LOGINS : []) {
      tried++;
      if (await withPage!.takes(login)) taken.push(`${login.user}/${login.password} at Horizon`);
    }
  }
  const withoutToken: Record<string, number> = {};
  for (const [path, body] of [
    ['/v3/ec2tokens', { credentials: { access: 'x', signature: 'x', host: 'x', verb: 'GET', path: '/', params: {} } }],
    ['/v3/s3tokens', { credentials: { access: 'x', signature: 'x', token: 'eA==' } }],
  ] as const) {
    const reply = await client.http.send({
      method: 'POST',
      url: `https://${model.api.host}:5000${path}`,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      timeoutMs: REQUEST_TIMEOUT_MS,
      signal,
    });
    withoutToken[path] = reply.status;
  }
  return {
    endpoints: session.catalogue.flatMap(s => s.endpoints.map(x => ({ service: s.name, url: x.url }))),
    taken,
    tried,
    notTried:
      locks === null
        ? 'no pairs were tried at Keystone: whether it locks accounts after failures is not known'
        : locks
          ? 'no pairs were tried at Keystone: it locks accounts after failures ([security_compliance] lockout_failure_attempts)'
          : null,
    withoutToken,
    dashboard: withPage ? { status: withPage.page.status, headers: withPage.page.headers } : null,
  };
}

/** @throws the signal's reason when aborted */
export async function gatherEvidence(deps: GatherDeps): Promise<Evidence> {
  const { model, signal } = deps;
  const all = [...deps.secrets].filter(([name]) => !name.startsWith('pki/'));
  const searched = all.filter(([, value]) => isSecretValue(value));
  const needles = needlesOf(
    randomBytes(16).toString('hex'),
    searched.map(([, value]) => value),
  );
  const nodes = new Map<string, NodeEvidence>();
  const missing = new Map<string, string>();
  const said = (error: unknown): string => {
    if (signal.aborted || !(error instanceof ProblemError)) throw error;
    return asProblem(error).message;
  };
  await Promise.all(
    model.nodes.map(async ({ name }) => {
      try {
        nodes.set(name, await lookAt(deps, name, needles));
      } catch (error) {
        missing.set(name, said(error));
      }
      deps.onLooked(name, missing.get(name) ?? null);
    }),
  );
  let api: ApiEvidence | null = null;
  let apiMissing: string | null = null;
  try {
    api = await askApis(deps, nodes);
  } catch (error) {
    apiMissing = said(error);
  }
  deps.onLooked(null, apiMissing);
  const first = new Map<string, string>();
  const secrets = all.map(([name, value]) => {
    const same = first.get(value) ?? null;
    first.set(value, first.get(value) ?? name);
    return { name, length: value.length, same };
  });
  return { model, nodes, missing, api, apiMissing, searched: searched.map(([name]) => name), secrets };
}
