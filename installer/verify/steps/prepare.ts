/** What servers are made of: a project with a plain user, a key, an image, a flavor. */
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import ssh2 from 'ssh2';
import { makeSshKey } from '../../../provisioner/core/keys.js';
import { setQuota } from '../../objects/compute.js';
import { uploadImage } from '../../objects/image.js';
import { at, items, number, text } from '../../openstack/json.js';
import { broken, call, made, untilStatus, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl } from '../runner.js';
import { joinProject, type SweepKind, sweep } from '../sweep.js';

/** The undo of most steps: no such thing of this run is there any more. */
export const sweepAway =
  (...kinds: readonly SweepKind[]): NonNullable<Step<VerifyContext>['undo']> =>
  async (context, control) => {
    const left = await sweep(context.scope, kinds, control.signal);
    if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
  };

export const identity: Step<VerifyContext> = {
  name: 'identity',
  title: 'A project with a plain user and limits',
  needs: ['catalogue'],
  expectedSeconds: 2,
  timeoutSeconds: 90,
  hint: 'Look at Keystone’s log on the controller; the role `member` comes from `keystone-manage bootstrap`.',
  run: async (context, control) => {
    const { admin, run, scope, spec } = context;
    const { userDomainId, userId } = await admin.session(control.signal);
    const password = randomBytes(24).toString('base64url');
    const created = await Promise.all([
      call(admin, control, 'identity', 'POST', '/projects', {
        project: { name: run, domain_id: userDomainId, description: 'Halligan proves the cloud; deleted at its end.' },
      }),
      call(admin, control, 'identity', 'POST', '/users', {
        user: { name: run, domain_id: userDomainId, password },
      }),
      call(admin, control, 'identity', 'GET', '/roles?name=member'),
    ]);
    const id = text(created[0].body, 'project', 'id');
    const plain = text(created[1].body, 'user', 'id');
    scope.projects.add(id);
    scope.users.add(plain);
    scope.ids.add(id);
    const role = text(items(created[2].body, 'roles')[0], 'id');
    if (!role) broken('Keystone has no role `member`.');
    // Those of the first batch stay while further ones come and go.
    const servers = 2 * (spec.maxComputes ?? 8) + 6;
    const memory = (spec.flavor?.memoryMiB ?? 192) + 64;
    const hasVolumes = await admin.has('volume');
    await Promise.all([
      call(admin, control, 'identity', 'PUT', `/projects/${id}/users/${plain}/roles/${role}`),
      joinProject(admin, id, userId, control.signal),
      setQuota(
        admin,
        id,
        {
          compute: { instances: servers, cores: servers * 2 * (spec.flavor?.vcpus ?? 1), ram: servers * 2 * memory },
          ...(hasVolumes ? { volume: { volumes: 8, snapshots: 4, gigabytes: 64 } } : {}),
          network: { floatingip: 4, network: 2, router: 2 },
        },
        control.signal,
      ),
    ]);
    const { body } = await call(admin, control, 'compute', 'GET', `/os-quota-sets/${id}`);
    const shown = number(body, 'quota_set', 'instances');
    if (shown !== servers) broken(`Nova was told a limit of ${servers} servers for the project, and shows ${shown}.`);
    context.made.user = admin.as({ user: run, password: () => password, projectId: id });
    context.made.operator = admin.inProject(id);
    context.made.project = { id, userId: plain, userName: run, password };
    await context.made.user.session(control.signal);
    return passed({ project: run, limits: { servers } });
  },
  undo: sweepAway('user', 'project'),
};

export const keypair: Step<VerifyContext> = {
  name: 'keypair',
  title: 'A key pair (ed25519)',
  needs: ['identity'],
  expectedSeconds: 1,
  timeoutSeconds: 60,
  hint: 'Look at nova-api’s log on the controller.',
  run: async (context, control) => {
    const privateKey = makeSshKey();
    const parsed = ssh2.utils.parseKey(privateKey);
    if (parsed instanceof Error) throw parsed;
    const public_key = `ssh-ed25519 ${parsed.getPublicSSH().toString('base64')} ${context.run}`;
    const name = `${context.run}-key`;
    // Key pairs belong to users: the administrator who chooses hosts needs it too.
    for (const client of [made(context, 'user'), made(context, 'operator')])
      await call(client, control, 'compute', 'POST', '/os-keypairs', { keypair: { name, public_key } });
    context.made.key = { privateKey, name };
    return passed({ name });
  },
  undo: sweepAway('keypair'),
};

export const image: Step<VerifyContext> = {
  name: 'image',
  title: 'An image is uploaded',
  needs: ['identity'],
  expectedSeconds: 3,
  timeoutSeconds: 300,
  hint: 'Look at glance-api’s log on the controller; is its store full or not writable?',
  run: async (context, control) => {
    const { run, spec } = context;
    const user = made(context, 'user');
    const { body } = await call(user, control, 'image', 'POST', '/images', {
      ...spec.guest.properties,
      name: `${run}-image`,
      disk_format: spec.guest.diskFormat,
      container_format: 'bare',
      visibility: 'private',
    });
    const id = text(body, 'id');
    context.made.image = id;
    control.waitingFor('the upload');
    await uploadImage(user, id, spec.guest.file, control.signal);
    const object = await untilStatus(context, user, control, {
      service: 'image',
      path: `/images/${id}`,
      key: null,
      title: 'The image',
      good: ['active'],
    });
    const bytes = number(object, 'size') ?? 0;
    const { size } = await stat(spec.guest.file);
    if (bytes !== size) broken(`The image has ${size} bytes; Glance shows ${bytes}.`);
    return passed({ bytes, store: text(object, 'stores') });
  },
  undo: sweepAway('image'),
};

export const flavor: Step<VerifyContext> = {
  name: 'flavor',
  title: 'A flavor',
  needs: ['identity'],
  expectedSeconds: 1,
  timeoutSeconds: 60,
  hint: 'Look at nova-api’s log on the controller.',
  run: async (context, control) => {
    const { memoryMiB, vcpus, diskGiB } = context.spec.flavor ?? { memoryMiB: 192, vcpus: 1, diskGiB: 1 };
    context.made.flavor = await makeFlavor(context, control, `${context.run}-flavor`, { memoryMiB, vcpus, diskGiB });
    return passed({ memoryMiB, vcpus, diskGiB });
  },
  undo: sweepAway('flavor'),
};

/** A flavor that only the run's project sees. */
export async function makeFlavor(
  context: VerifyContext,
  control: Pick<StepControl, 'signal' | 'timeoutFactor'>,
  name: string,
  size: { readonly memoryMiB: number; readonly vcpus: number; readonly diskGiB: number },
): Promise<string> {
  const { admin } = context;
  const { body } = await call(admin, control, 'compute', 'POST', '/flavors', {
    flavor: {
      name,
      ram: size.memoryMiB,
      vcpus: size.vcpus,
      disk: size.diskGiB,
      'os-flavor-access:is_public': false,
    },
  });
  const id = text(at(body, 'flavor'), 'id');
  await call(admin, control, 'compute', 'POST', `/flavors/${id}/action`, {
    addTenantAccess: { tenant: made(context, 'project').id },
  });
  return id;
}
