/**
 * The cloud's APIs for a test, which runs outside of the lab's network: the project's own client in a child inside of it.
 * This file is both: imported, the parent's side; run, the child.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { uploadImage } from '../../installer/objects/image.js';
import { createOpenStackClient } from '../../installer/openstack/client.js';
import type { ServiceName } from '../../installer/openstack/services.js';
import { systemClock } from '../../provisioner/core/clock.js';
import type { CloudCredentials } from '../../provisioner/core/cloud-service.js';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import { asProblem } from '../../provisioner/core/problem.js';

type Question =
  | {
      readonly service: ServiceName;
      readonly method: string;
      readonly path: string;
      readonly body?: unknown;
      readonly microversion?: string;
    }
  | { readonly image: string; readonly file: string };
type Answer = { readonly body: unknown } | { readonly failed: string };

export interface CloudApi {
  /** The answer's JSON. @throws Error with the API's words */
  call(service: ServiceName, method: string, path: string, body?: unknown, microversion?: string): Promise<unknown>;
  /** The content of an image of Glance. */
  upload(image: string, file: string): Promise<void>;
  close(): void;
}

/** As the administrator, in the project `admin`. */
export function cloudApi(netns: string, credentials: CloudCredentials): CloudApi {
  const program = join(packageRoot(import.meta.url), 'dist/test/harness/cloud-api.js');
  if (!existsSync(program)) throw new Error('not built: npm run build');
  const child = spawn('ip', ['netns', 'exec', netns, process.execPath, program], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  child.send(credentials);
  const waiting: { resolve: (body: unknown) => void; reject: (error: Error) => void }[] = [];
  child.on('message', (answer: Answer) => {
    const first = waiting.shift();
    if ('failed' in answer) first?.reject(new Error(answer.failed));
    else first?.resolve(answer.body);
  });
  child.on('exit', () => {
    for (const { reject } of waiting.splice(0)) reject(new Error('the client of the cloud has ended'));
  });
  const ask = (question: Question) =>
    new Promise<unknown>((resolve, reject) => {
      waiting.push({ resolve, reject });
      child.send(question);
    });
  return {
    call: (service, method, path, body, microversion) =>
      ask({ service, method, path, body, ...(microversion === undefined ? {} : { microversion }) }),
    async upload(image, file) {
      await ask({ image, file });
    },
    close: () => end(child),
  };
}

function end(child: ChildProcess): void {
  if (child.connected) child.disconnect();
}

/** The child: credentials first, then a question at a time, answered in order, until the parent goes. */
function serve(): void {
  let client: ReturnType<typeof createOpenStackClient> | undefined;
  let before: Promise<void> = Promise.resolve();
  const answer = async (question: Question): Promise<Answer> => {
    if (!client) return { failed: 'no credentials yet' };
    try {
      if ('image' in question) {
        await uploadImage(client, question.image, question.file);
        return { body: null };
      }
      const { service, method, path, body, microversion } = question;
      const reply = await client.request(service, method, path, body, microversion ? { microversion } : {});
      return { body: reply.body };
    } catch (error) {
      return { failed: asProblem(error).message };
    }
  };
  process.on('message', (message: CloudCredentials | Question) => {
    if ('authUrl' in message) {
      const { authUrl, region, ca, username, password, project } = message;
      client = createOpenStackClient({
        ...{ authUrl, region, caPem: ca, clock: systemClock, endpointInterface: 'public' },
        credentials: { user: username, password, project },
      });
      return;
    }
    before = before.then(async () => {
      process.send?.(await answer(message));
    });
  });
  process.on('disconnect', () => process.exit());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve();
