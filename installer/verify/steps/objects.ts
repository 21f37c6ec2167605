/** Swift and S3: what is put in comes out again. */
import { createHash, randomBytes } from 'node:crypto';
import { apiMessage } from '../../openstack/errors.js';
import { Payload } from '../../openstack/http.js';
import { at, text } from '../../openstack/json.js';
import { broken, call, made, offers, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl, skipped } from '../runner.js';
import { signS3 } from '../sigv4.js';
import { sweepAway } from './prepare.js';

const SWIFT_HINT =
  'Look at swift-proxy’s log and at the storage hosts: are the disks mounted, do the rings name the right addresses (`swift-recon --all`)?';
const SEGMENT_BYTES = 1024 * 1024 + 13;
const BYTES = 'application/octet-stream';

const payload = (bytes: Buffer) => new Payload(BYTES, bytes.length, () => bytes);

/** What the store says of itself; undefined when it does not say. */
async function storeInfo(context: VerifyContext, control: StepControl): Promise<unknown> {
  const { origin } = new URL(await context.admin.endpoint('object-store'));
  const reply = await context.admin.http.send({
    method: 'GET',
    url: `${origin}/info`,
    signal: control.signal,
    timeoutMs: 20_000,
  });
  try {
    return reply.status === 200 ? JSON.parse(reply.bytes.toString('utf8')) : undefined;
  } catch {
    return undefined;
  }
}

export const objectStore: Step<VerifyContext> = {
  name: 'object-store',
  title: 'Swift: objects small and large come back as they were put',
  needs: ['identity'],
  expectedSeconds: 3,
  timeoutSeconds: 120,
  hint: SWIFT_HINT,
  run: async (context, control) => {
    if (!(await offers(context, 'object-store'))) return skipped('The cloud has no object store.');
    const user = made(context, 'user');
    const container = `/${context.run}-container`;
    const put = (path: string, body: unknown, headers: Record<string, string> = {}) =>
      call(user, control, 'object-store', 'PUT', path, body, { raw: true, headers });
    const get = async (path: string) =>
      (await call(user, control, 'object-store', 'GET', path, undefined, { raw: true })).bytes;
    await put(container, undefined);
    const small = randomBytes(1000);
    await put(`${container}/small`, payload(small));
    if (!(await get(`${container}/small`)).equals(small)) broken('A small object came back changed.');
    const segments = [randomBytes(SEGMENT_BYTES), randomBytes(SEGMENT_BYTES)];
    await Promise.all(segments.map((bytes, i) => put(`${container}/large-segment-${i}`, payload(bytes))));
    const manifest = Buffer.from(
      JSON.stringify(
        segments.map((bytes, i) => ({
          path: `${container}/large-segment-${i}`,
          etag: createHash('md5').update(bytes).digest('hex'),
          size_bytes: bytes.length,
        })),
      ),
    );
    const slo = at(await storeInfo(context, control), 'slo') !== undefined;
    if (slo) await put(`${container}/large?multipart-manifest=put`, payload(manifest));
    else
      await put(`${container}/large`, payload(Buffer.alloc(0)), {
        'x-object-manifest': `${container.slice(1)}/large-segment-`,
      });
    const large = await get(`${container}/large`);
    if (!large.equals(Buffer.concat(segments)))
      broken(
        `A large object (${segments.length} segments) came back changed: ${large.length} of ${SEGMENT_BYTES * segments.length} bytes.`,
      );
    return passed({ largeBytes: large.length, manifest: slo ? 'static' : 'dynamic' });
  },
  undo: sweepAway('container'),
};

export const s3: Step<VerifyContext> = {
  name: 's3',
  title: 'S3: a bucket and an object, signed with version 4',
  needs: ['object-store'],
  expectedSeconds: 3,
  timeoutSeconds: 90,
  hint: 'Look at swift-proxy’s log: its pipeline needs s3api and s3token before keystoneauth, and `location` must be the region.',
  run: async (context, control) => {
    const { admin } = context;
    const info = await storeInfo(context, control);
    if (info !== undefined && at(info, 's3api') === undefined) {
      if (context.spec.expect?.s3) broken('The object store offers no S3: `/info` does not name s3api.');
      return skipped('The object store offers no S3.');
    }
    const { userId, id } = made(context, 'project');
    const { body } = await call(
      made(context, 'user'),
      control,
      'identity',
      'POST',
      `/users/${userId}/credentials/OS-EC2`,
      {
        tenant_id: id,
      },
    );
    const credentials = {
      accessKey: text(body, 'credential', 'access'),
      secretKey: text(body, 'credential', 'secret'),
      region: admin.region,
    };
    const { origin } = new URL(await admin.endpoint('object-store'));
    const bucket = `${context.run}-bucket`;
    const send = async (method: string, path: string, data?: Buffer, good: readonly number[] = [200, 204]) => {
      const url = `${origin}/${bucket}${path}`;
      const reply = await admin.http.send({
        method,
        url,
        headers: signS3(credentials, { method, url, ...(data ? { body: data } : {}) }, admin.clock.nowMs()),
        ...(data ? { body: payload(data) } : {}),
        signal: control.signal,
      });
      if (!good.includes(reply.status))
        broken(
          `S3: ${method} of ${path === '' ? 'the bucket' : 'an object'} failed with ${reply.status}: ${apiMessage(reply.bytes, [credentials.secretKey])}`,
        );
      return reply;
    };
    await send('PUT', '');
    const data = randomBytes(2000);
    await send('PUT', '/object', data);
    const back = await send('GET', '/object');
    if (!back.bytes.equals(data)) broken('An object came back changed over S3.');
    const list = await send('GET', '?list-type=2');
    if (!list.bytes.toString('utf8').includes('<Key>object</Key>'))
      broken('The bucket’s list does not have the object.');
    await send('DELETE', '/object');
    await send('DELETE', '');
    return passed({ endpoint: origin });
  },
  undo: sweepAway('container'),
};
