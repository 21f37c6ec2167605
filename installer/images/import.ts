/** An image into Glance: taken, checked, made where it must be made, uploaded, and held against what Glance got. */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../provisioner/core/clock.js';
import type { ImageImportOptions, ImportedImage } from '../../provisioner/core/cloud-images.js';
import { forbiddenAddress } from '../../provisioner/core/fetch.js';
import { fail } from '../../provisioner/core/problem.js';
import { image } from '../objects/image.js';
import type { OpenStackClient } from '../openstack/client.js';
import { maybeText, text } from '../openstack/json.js';
import { checkCommandLine, checkKernel, type GrubTools, makeAmiDisk, rootSystem } from './ami.js';
import { DRIVER_PROPERTIES, imageNotes, imageProperties } from './profiles.js';
import { checkSource, inspect, readThrough, SOURCE_LIMITS, type Taken, takeSource } from './source.js';

const GIB = 2 ** 30;
const KERNEL_MAX_BYTES = 512 * 2 ** 20;
const WORK_PREFIX = '.import-';

export interface ImageImportDeps {
  readonly client: OpenStackClient;
  /** For files in the making; only one import at a time works in it. */
  readonly dir: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  /** What is done next: a sentence without full stop. */
  readonly onStep?: (message: string) => Promise<void>;
  readonly grub?: GrubTools;
  /** A hypervisor of the cloud has KVM; assumed when left out. */
  readonly kvm?: boolean;
  readonly resolve?: (host: string) => Promise<string[]>;
}

/** What can be said without looking at anything. @throws ProblemError request-invalid */
export function checkImport(options: ImageImportOptions): void {
  imageProperties(options);
  checkSource(options.source, 'the image');
  if (options.kernel) checkSource(options.kernel, 'the kernel');
  if (options.ramdisk) checkSource(options.ramdisk, 'the RAM disk');
  if (options.driverIso) checkSource(options.driverIso, 'the driver ISO');
  if (options.commandLine !== undefined) checkCommandLine(options.commandLine);
  for (const entry of options.allowHosts ?? []) checkAllowed(entry);
}

function checkAllowed(entry: string): void {
  try {
    forbiddenAddress('192.0.2.1', [entry]);
  } catch {
    fail('request-invalid', `${JSON.stringify(entry)} is no host and no network.`);
  }
}

interface Upload {
  readonly name: string;
  readonly file: Taken;
  readonly diskFormat: string;
  readonly minDiskGiB: number;
  readonly minMemoryMiB?: number | undefined;
  readonly properties: Readonly<Record<string, string>>;
}

/**
 * @throws ProblemError request-invalid, name-taken, image-url, image-missing, image-checksum, image-format, image-build,
 *   dependency-missing, timed-out, cloud-… of the client. Leaves nothing behind when it fails.
 */
export async function importCloudImage(options: ImageImportOptions, deps: ImageImportDeps): Promise<ImportedImage> {
  const { client, clock, signal } = deps;
  const beganMs = clock.monotonicMs();
  const step = deps.onStep ?? (async () => {});
  checkImport(options);
  const driversName = `${options.name}-drivers`;
  for (const name of [options.name, ...(options.driverIso ? [driversName] : [])])
    await refuseTaken(client, name, signal);

  await mkdir(deps.dir, { recursive: true, mode: 0o700 });
  // What a server that was killed left.
  for (const left of await readdir(deps.dir))
    if (left.startsWith(WORK_PREFIX)) await rm(join(deps.dir, left), { recursive: true, force: true });
  const workDir = await mkdtemp(join(deps.dir, WORK_PREFIX));
  const made: string[] = [];
  try {
    const take = {
      workDir,
      allowHosts: options.allowHosts ?? [],
      ...(signal ? { signal } : {}),
      ...(deps.resolve ? { resolve: deps.resolve } : {}),
    };
    const small = { ...take, maxBytes: KERNEL_MAX_BYTES };
    await step('url' in options.source ? 'fetch the image' : 'read the image');
    const source = await takeSource(options.source, 'The image', 'source', take);
    const kernel = options.kernel ? await takeSource(options.kernel, 'The kernel', 'kernel', small) : null;
    const ramdisk = options.ramdisk ? await takeSource(options.ramdisk, 'The RAM disk', 'ramdisk', small) : null;
    const iso = options.driverIso ? await takeSource(options.driverIso, 'The driver ISO', 'drivers', take) : null;

    const seen = inspect(source);
    if (iso && inspect(iso).diskFormat !== 'iso') fail('image-format', 'The driver ISO is no ISO 9660 image.');
    let file = source;
    let { diskFormat, virtualBytes }: { diskFormat: string; virtualBytes: number } = seen;
    if (options.profile === 'ami' && kernel) {
      if (seen.diskFormat !== 'raw') fail('image-format', `An AMI is a raw file system, this is ${seen.diskFormat}.`);
      // Before the disk is made: the faults of the input are the operator's to mend.
      rootSystem(source.head);
      checkKernel(kernel.head);
      await step('make a disk that boots of file system, kernel and RAM disk');
      const disk = await makeAmiDisk(
        { root: source, kernel, ramdisk, commandLine: options.commandLine ?? '' },
        {
          workDir,
          ...(deps.grub ? { grub: deps.grub } : {}),
          ...(signal ? { signal } : {}),
        },
      );
      file = await readThrough(disk, SOURCE_LIMITS.maxVirtualBytes, signal);
      diskFormat = 'raw';
      virtualBytes = file.bytes;
    }

    const properties = imageProperties(options);
    const least = Math.ceil(virtualBytes / GIB);
    const minDiskGiB = Math.max(options.minDiskGiB ?? 0, least);
    let drivers: { id: string; name: string; sizeGiB: number } | null = null;
    if (iso) {
      const sizeGiB = Math.ceil(iso.bytes / GIB);
      await step(`upload ${driversName}`);
      const id = await upload(
        {
          name: driversName,
          file: iso,
          diskFormat: 'iso',
          minDiskGiB: sizeGiB,
          properties: DRIVER_PROPERTIES,
        },
        options,
        deps,
        made,
      );
      drivers = { id, name: driversName, sizeGiB };
    }
    await step(`upload ${options.name}`);
    const all = { ...properties, ...(drivers ? { halligan_drivers: drivers.id } : {}) };
    const id = await upload(
      { name: options.name, file, diskFormat, minDiskGiB, minMemoryMiB: options.minMemoryMiB, properties: all },
      options,
      deps,
      made,
    );
    const row = await show(client, id, signal);
    return {
      id,
      name: options.name,
      profile: options.profile,
      diskFormat,
      bytes: file.bytes,
      virtualBytes,
      sha256: source.sha256,
      minDiskGiB,
      visibility: text(row, 'visibility'),
      properties: all,
      drivers: drivers && { id: drivers.id, name: drivers.name },
      notes: imageNotes(options, drivers, deps.kvm ?? true),
      seconds: Math.round((clock.monotonicMs() - beganMs) / 100) / 10,
    };
  } catch (error) {
    // Without the signal: what was begun is taken back also when the server ends.
    for (const id of made.reverse()) await client.request('image', 'DELETE', `/images/${id}`).catch(() => {});
    throw error;
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

async function refuseTaken(client: OpenStackClient, name: string, signal?: AbortSignal): Promise<void> {
  const query = `/images?name=${encodeURIComponent(name)}&limit=200`;
  const [there] = (await client.list('image', query, 'images', signal ? { signal } : {})).filter(
    row => row['name'] === name,
  );
  if (there)
    fail('name-taken', `The cloud has an image ${name}: ${text(there, 'id')} (${text(there, 'status')}).`, {
      hint: `Choose another name, or delete it: openstack image delete ${text(there, 'id')}`,
    });
}

const show = async (client: OpenStackClient, id: string, signal?: AbortSignal): Promise<unknown> =>
  (await client.request('image', 'GET', `/images/${id}`, undefined, signal ? { signal } : {})).body;

/** Uploads it and compares what Glance got with what was checked: the file may have been exchanged in between. */
async function upload(
  what: Upload,
  options: ImageImportOptions,
  deps: ImageImportDeps,
  made: string[],
): Promise<string> {
  const { client, signal } = deps;
  const id = await image.create(
    {
      client,
      signal,
      passwordKey: '',
      idOf: async name => fail('request-invalid', `${name} is not looked up here.`),
    },
    {
      kind: 'image',
      name: what.name,
      file: what.file.path,
      diskFormat: what.diskFormat,
      minDiskGiB: what.minDiskGiB,
      properties: what.properties,
      ...(what.minMemoryMiB === undefined ? {} : { minMemoryMiB: what.minMemoryMiB }),
      ...(options.visibility === undefined ? {} : { visibility: options.visibility }),
    },
  );
  made.push(id);
  const row = await show(client, id, signal);
  if (maybeText(row, 'os_hash_algo') !== 'sha512')
    fail('image-checksum', `Glance computed no SHA-512 of ${what.name}: its content cannot be compared.`);
  if (text(row, 'os_hash_value') !== what.file.sha512)
    fail('image-checksum', `Glance got other bytes for ${what.name} than those that were checked.`, {
      hint: 'The file was changed meanwhile, or the way to the cloud damages data; the image was deleted. Try again.',
    });
  return id;
}
