/** Requests to the APIs of a cloud in a lab, as an administrator at a shell makes them: curl in the lab's network. */
import { spawn } from 'node:child_process';
import type { CloudCredentials } from '../../provisioner/core/cloud-service.js';

const PORTS = { compute: '8774/v2.1', network: '9696/v2.0', image: '9292/v2' } as const;
type Json = Record<string, unknown>;

export interface Administrator {
  /** @throws Error with what the API answered, when that is no success */
  call(
    service: keyof typeof PORTS,
    method: string,
    path: string,
    body?: object | { readonly file: string },
  ): Promise<Json>;
}

interface Curl {
  readonly url: string;
  readonly method: string;
  readonly headers: readonly string[];
  readonly data?: string;
  readonly upload?: string;
}

/** Everything by standard input: tokens and passwords are in no argument. */
function curl(netns: string, ca: string, request: Curl): Promise<{ status: number; token: string; body: string }> {
  const quoted = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  const config = [
    `url = ${quoted(request.url)}`,
    `request = ${request.method}`,
    `cacert = ${quoted(ca)}`,
    'silent',
    'show-error',
    'max-time = 120',
    'write-out = "\\n%{http_code} %header{x-subject-token}"',
    ...request.headers.map(h => `header = ${quoted(h)}`),
    ...(request.data === undefined ? [] : [`data = ${quoted(request.data)}`]),
    ...(request.upload === undefined ? [] : [`upload-file = ${quoted(request.upload)}`]),
  ].join('\n');
  return new Promise((resolve, reject) => {
    const child = spawn('ip', ['netns', 'exec', netns, 'curl', '-K', '-'], { stdio: ['pipe', 'pipe', 'pipe'] });
    let out = '';
    let errors = '';
    child.stdout.on('data', part => {
      out += part;
    });
    child.stderr.on('data', part => {
      errors += part;
    });
    child.once('error', reject);
    child.once('close', code => {
      if (code !== 0) return reject(new Error(`curl ${request.url}: ${errors.trim() || `exit ${code}`}`));
      const cut = out.lastIndexOf('\n');
      const [status = '', token = ''] = out.slice(cut + 1).split(' ');
      resolve({ status: Number(status), token, body: out.slice(0, cut) });
    });
    child.stdin.end(`${config}\n`);
  });
}

export async function administrator(netns: string, credentials: CloudCredentials): Promise<Administrator> {
  const { authUrl, username, password, project, userDomain, projectDomain, caFile } = credentials;
  const json = 'Content-Type: application/json';
  const login = await curl(netns, caFile, {
    url: `${authUrl}/auth/tokens`,
    method: 'POST',
    headers: [json],
    data: JSON.stringify({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: username, password, domain: { name: userDomain } } },
        },
        scope: { project: { name: project, domain: { name: projectDomain } } },
      },
    }),
  });
  if (login.status !== 201) throw new Error(`Keystone answered ${login.status}: ${login.body}`);
  const host = new URL(authUrl).hostname;
  return {
    async call(service, method, path, body) {
      const upload = body && 'file' in body ? String(body.file) : undefined;
      const reply = await curl(netns, caFile, {
        url: `https://${host}:${PORTS[service]}${path}`,
        method,
        headers: [`X-Auth-Token: ${login.token}`, upload ? 'Content-Type: application/octet-stream' : json],
        ...(upload ? { upload } : body ? { data: JSON.stringify(body) } : {}),
      });
      if (reply.status < 200 || reply.status > 299)
        throw new Error(`${method} ${service} ${path} was answered with ${reply.status}: ${reply.body.slice(0, 500)}`);
      return reply.body.trim() === '' ? {} : (JSON.parse(reply.body) as Json);
    },
  };
}
