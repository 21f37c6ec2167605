/**
 * A Redfish service (DMTF DSP0266) for one lab machine, with what real ones insist on: sessions or basic
 * authentication, 401, ETag with If-Match on PATCH, a list of allowed reset types, optionally 202 and a task.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { BootOverride } from './types.js';

/** The machine behind a BMC. */
export interface ChassisMachine {
  power(): 'on' | 'off';
  on(): Promise<void>;
  off(reason: string): Promise<void>;
  reset(): Promise<void>;
  /** Presses the power button: the guest may follow, or not. */
  shutdown(): Promise<void>;
  boot(): BootOverride;
  setBoot(override: BootOverride): void;
}

export interface RedfishOptions {
  readonly machine: ChassisMachine;
  readonly identity: { readonly name: string; readonly uuid: string; readonly serial: string };
  readonly firmware: 'bios' | 'uefi';
  readonly user: string;
  readonly password: string;
  /** Id of the system, as vendors differ: `1`, `System.Embedded.1`, `Self`. */
  readonly systemId?: string;
  readonly resetTypes?: readonly string[];
  /** PATCH without If-Match is refused (428), with another ETag too (412). */
  readonly requireIfMatch?: boolean;
  /** Actions answer 202 with a task that ends after so many reads. */
  readonly taskReads?: number;
  /** No SessionService: basic authentication only. */
  readonly noSessions?: boolean;
}

const ALL_RESETS = [
  'On',
  'ForceOff',
  'GracefulShutdown',
  'GracefulRestart',
  'ForceRestart',
  'PowerCycle',
  'PushPowerButton',
] as const;
const SESSIONS_MAX = 16;
const BODY_MAX = 64 * 1024;

const same = (a: string, b: string) => {
  const [x, y] = [a, b].map(s => createHash('sha256').update(s).digest()) as [Buffer, Buffer];
  return timingSafeEqual(x, y);
};

const TARGETS: Record<string, BootOverride['target']> = { None: 'none', Pxe: 'pxe', Hdd: 'hdd' };

async function readBody(request: IncomingMessage): Promise<Record<string, unknown> | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > BODY_MAX) return null;
    chunks.push(chunk as Buffer);
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

/** The request handler of the service, for `http.createServer` or `https.createServer`. */
export function redfishService(options: RedfishOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const { machine, identity, user, password } = options;
  const root = '/redfish/v1';
  const system = `${root}/Systems/${options.systemId ?? '1'}`;
  const resets = options.resetTypes ?? ALL_RESETS;
  const sessions = new Map<string, string>();
  const tasks = new Map<string, { reads: number; error: string | null; done: boolean }>();
  let counter = 0;

  const document = (): Record<string, unknown> => {
    const boot = machine.boot();
    return {
      '@odata.id': system,
      '@odata.type': '#ComputerSystem.v1_10_0.ComputerSystem',
      Id: options.systemId ?? '1',
      Name: identity.name,
      SystemType: 'Physical',
      Manufacturer: 'Halligan',
      Model: 'Lab node',
      UUID: identity.uuid,
      SerialNumber: identity.serial,
      Status: { State: 'Enabled', Health: 'OK' },
      PowerState: machine.power() === 'on' ? 'On' : 'Off',
      Boot: {
        BootSourceOverrideEnabled: boot.target === 'none' ? 'Disabled' : boot.once ? 'Once' : 'Continuous',
        BootSourceOverrideTarget: { none: 'None', pxe: 'Pxe', hdd: 'Hdd' }[boot.target],
        BootSourceOverrideMode: options.firmware === 'uefi' ? 'UEFI' : 'Legacy',
        'BootSourceOverrideTarget@Redfish.AllowableValues': Object.keys(TARGETS),
      },
      Actions: {
        '#ComputerSystem.Reset': {
          target: `${system}/Actions/ComputerSystem.Reset`,
          'ResetType@Redfish.AllowableValues': resets,
        },
      },
    };
  };
  const collection = (uri: string, name: string, members: string[]) => ({
    '@odata.id': uri,
    Name: name,
    'Members@odata.count': members.length,
    Members: members.map(m => ({ '@odata.id': m })),
  });
  const etagOf = (value: unknown) =>
    `"${createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16)}"`;

  const send = (response: ServerResponse, code: number, body?: unknown, headers: Record<string, string> = {}) => {
    const text = body === undefined ? '' : JSON.stringify(body);
    response.writeHead(code, {
      'OData-Version': '4.0',
      'Cache-Control': 'no-cache',
      ...(text ? { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(text)) } : {}),
      ...headers,
    });
    response.end(text);
  };
  const refuse = (response: ServerResponse, code: number, id: string, message: string) =>
    send(response, code, {
      error: {
        code: `Base.1.8.${id}`,
        message,
        '@Message.ExtendedInfo': [{ MessageId: `Base.1.8.${id}`, Message: message }],
      },
    });

  const reset = async (type: string): Promise<void> => {
    switch (type) {
      case 'On':
      case 'ForceOn':
        return machine.on();
      case 'ForceOff':
        return machine.off('power off by BMC');
      case 'GracefulShutdown':
      case 'PushPowerButton':
        return machine.power() === 'on' ? machine.shutdown() : type === 'PushPowerButton' ? machine.on() : undefined;
      case 'PowerCycle':
        await machine.off('power cycle by BMC');
        return machine.on();
      default:
        return machine.power() === 'on' ? machine.reset() : machine.on();
    }
  };

  const authorised = (request: IncomingMessage): boolean => {
    const token = request.headers['x-auth-token'];
    if (typeof token === 'string') return sessions.has(token);
    return same(request.headers.authorization ?? '', `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`);
  };

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = (request.url ?? '').replace(/\?.*$/, '').replace(/\/+$/, '');
    const method = request.method ?? 'GET';
    if (path === '/redfish' && method === 'GET') return send(response, 200, { v1: `${root}/` });
    if (path === root && method === 'GET') {
      return send(response, 200, {
        '@odata.id': `${root}/`,
        '@odata.type': '#ServiceRoot.v1_5_0.ServiceRoot',
        Id: 'RootService',
        Name: 'Halligan lab BMC',
        RedfishVersion: '1.6.0',
        Systems: { '@odata.id': `${root}/Systems` },
        ...(options.noSessions
          ? {}
          : {
              SessionService: { '@odata.id': `${root}/SessionService` },
              Links: { Sessions: { '@odata.id': `${root}/SessionService/Sessions` } },
            }),
      });
    }
    if (!options.noSessions && path === `${root}/SessionService/Sessions` && method === 'POST') {
      const body = await readBody(request);
      if (!same(`${body?.['UserName']}\0${body?.['Password']}`, `${user}\0${password}`)) {
        return refuse(response, 401, 'ResourceAtUriUnauthorized', 'The user name or password is wrong.');
      }
      if (sessions.size >= SESSIONS_MAX) {
        return refuse(response, 503, 'SessionLimitExceeded', 'The session limit is reached.');
      }
      const token = randomBytes(16).toString('hex');
      const uri = `${root}/SessionService/Sessions/${++counter}`;
      sessions.set(token, uri);
      return send(
        response,
        201,
        { '@odata.id': uri, Id: String(counter), Name: 'Session', UserName: user },
        { Location: uri, 'X-Auth-Token': token },
      );
    }
    if (!authorised(request)) {
      return refuse(response, 401, 'NoValidSession', 'There is no valid session established with the service.');
    }
    if (method === 'DELETE' && path.startsWith(`${root}/SessionService/Sessions/`)) {
      for (const [token, uri] of sessions) {
        if (uri === path) {
          sessions.delete(token);
          return send(response, 204);
        }
      }
      return refuse(response, 404, 'ResourceMissingAtURI', `There is no session ${path}.`);
    }
    if (method === 'GET' && path === `${root}/Systems`) {
      return send(response, 200, collection(path, 'Systems', [system]));
    }
    if (method === 'GET' && path === system) {
      const body = document();
      return send(response, 200, body, { ETag: etagOf(body) });
    }
    if (method === 'GET' && tasks.has(path)) {
      const task = tasks.get(path)!;
      task.reads--;
      const ended = task.done && task.reads <= 0;
      return send(response, ended ? 200 : 202, {
        '@odata.id': path,
        '@odata.type': '#Task.v1_4_0.Task',
        Id: path.split('/').pop(),
        Name: 'Reset',
        TaskState: !ended ? 'Running' : task.error ? 'Exception' : 'Completed',
        TaskStatus: task.error ? 'Critical' : 'OK',
        Messages: task.error ? [{ Message: task.error }] : [],
      });
    }
    if (method === 'PATCH' && path === system) {
      const match = request.headers['if-match'];
      if (!match && options.requireIfMatch !== false) {
        return refuse(response, 428, 'PreconditionRequired', 'If-Match is required.');
      }
      if (match && match !== '*' && match !== etagOf(document())) {
        return refuse(response, 412, 'PreconditionFailed', 'The ETag does not match.');
      }
      const body = await readBody(request);
      const boot = body?.['Boot'] as Record<string, unknown> | undefined;
      if (!boot || typeof boot !== 'object') return refuse(response, 400, 'PropertyMissing', 'Boot is missing.');
      const now = machine.boot();
      const target = boot['BootSourceOverrideTarget'];
      const enabled = boot['BootSourceOverrideEnabled'];
      if (target !== undefined && (typeof target !== 'string' || TARGETS[target] === undefined)) {
        return refuse(response, 400, 'PropertyValueNotInList', `${String(target)} is no boot source of this system.`);
      }
      machine.setBoot({
        target: enabled === 'Disabled' ? 'none' : typeof target === 'string' ? TARGETS[target]! : now.target,
        once: enabled === undefined ? now.once : enabled !== 'Continuous',
      });
      return send(response, 200, document());
    }
    if (method === 'POST' && path === `${system}/Actions/ComputerSystem.Reset`) {
      const type = (await readBody(request))?.['ResetType'];
      if (typeof type !== 'string' || !resets.includes(type)) {
        return refuse(
          response,
          400,
          'ActionParameterNotSupported',
          `ResetType ${String(type)} is not one of ${resets.join(', ')}.`,
        );
      }
      if (options.taskReads !== undefined) {
        const uri = `${root}/TaskService/Tasks/${++counter}`;
        const task = { reads: options.taskReads, error: null as string | null, done: false };
        tasks.set(uri, task);
        if (tasks.size > 32) tasks.delete(tasks.keys().next().value as string);
        reset(type)
          .catch(error => {
            task.error = String(error);
          })
          .finally(() => {
            task.done = true;
          });
        return send(response, 202, { '@odata.id': uri, TaskState: 'New' }, { Location: uri, 'Retry-After': '1' });
      }
      await reset(type);
      return send(response, 204);
    }
    if (path === system || path === `${root}/Systems`) {
      return refuse(response, 405, 'OperationNotAllowed', `${method} is not allowed here.`);
    }
    return refuse(response, 404, 'ResourceMissingAtURI', `There is no resource ${path}.`);
  };

  return (request, response) => {
    handle(request, response).catch(error => {
      if (!response.headersSent) refuse(response, 500, 'InternalError', String(error));
      else response.destroy();
    });
  };
}
