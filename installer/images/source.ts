/** A file that shall become an image: fetched where it is not here, its checksum first, then its format by our own reader. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageSource } from '../../provisioner/core/cloud-images.js';
import { fetchFile } from '../../provisioner/core/fetch.js';
import { checkQcow2, sniffFormat } from '../../provisioner/core/image-format.js';
import { fail } from '../../provisioner/core/problem.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
export const SOURCE_LIMITS = { maxBytes: 128 * GIB, maxVirtualBytes: 2048 * GIB, timeoutMs: 4 * 3_600_000 } as const;

export interface TakeOptions {
  readonly workDir: string;
  readonly allowHosts: readonly string[];
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  readonly resolve?: (host: string) => Promise<string[]>;
}

/** A file of this machine, read from the first to the last byte: what is known of it is known of these bytes. */
export interface Taken {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  /** As Glance computes it: an upload of other bytes is noticed. */
  readonly sha512: string;
  /** The first MiB. */
  readonly head: Buffer;
}

/** @throws ProblemError request-invalid */
export function checkSource(source: ImageSource, what: string): void {
  if (source.sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(source.sha256))
    fail('request-invalid', `The checksum of ${what} is no SHA-256: 64 hexadecimal digits.`);
  if ('url' in source && /^http:/i.test(source.url) && source.sha256 === undefined)
    fail('request-invalid', `${what} comes over http:// without a checksum: anybody on the way could exchange it.`, {
      hint: 'Give the SHA-256 that the publisher names, or an https:// address.',
    });
  if ('file' in source && !source.file.startsWith('/'))
    fail('request-invalid', `The path of ${what} must be absolute: ${source.file}.`);
}

/**
 * Fetches the file where it has a URL, reads it, and holds it against its checksum. Nothing in it is interpreted.
 * @param name of the file in the work folder
 * @throws ProblemError image-url, image-missing, image-checksum, timed-out
 */
export async function takeSource(
  source: ImageSource,
  what: string,
  name: string,
  options: TakeOptions,
): Promise<Taken> {
  const maxBytes = options.maxBytes ?? SOURCE_LIMITS.maxBytes;
  let path: string;
  if ('url' in source) {
    path = join(options.workDir, name);
    await fetchFile(source.url, path, {
      allow: options.allowHosts,
      maxBytes,
      timeoutMs: SOURCE_LIMITS.timeoutMs,
      ...(options.signal ? { signal: options.signal } : {}),
      ...(options.resolve ? { resolve: options.resolve } : {}),
    });
  } else path = source.file;
  const taken = await readThrough(path, maxBytes, options.signal);
  if (source.sha256 !== undefined && taken.sha256 !== source.sha256.toLowerCase())
    fail('image-checksum', `${what} has the checksum ${taken.sha256} instead of ${source.sha256.toLowerCase()}.`);
  return taken;
}

export async function readThrough(path: string, maxBytes: number, signal?: AbortSignal): Promise<Taken> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) =>
    fail('image-missing', `The file ${path} cannot be read (${error.code}).`, {
      hint: 'Name a file that the server can read.',
    }),
  );
  try {
    const found = await file.stat();
    if (!found.isFile()) fail('image-missing', `${path} is no file.`, { hint: 'Copy a device to a file first.' });
    if (found.size > maxBytes)
      fail('image-format', `${path} has ${found.size} bytes; at most ${maxBytes} are accepted.`);
    const sha256 = createHash('sha256');
    const sha512 = createHash('sha512');
    const chunk = Buffer.alloc(MIB);
    let head = Buffer.alloc(0);
    let bytes = 0;
    while (bytes <= maxBytes) {
      signal?.throwIfAborted();
      const { bytesRead } = await file.read(chunk, 0, chunk.length, bytes);
      if (bytesRead === 0) break;
      const part = chunk.subarray(0, bytesRead);
      if (head.length < MIB) head = Buffer.concat([head, part.subarray(0, MIB - head.length)]);
      sha256.update(part);
      sha512.update(part);
      bytes += bytesRead;
    }
    return { path, bytes, sha256: sha256.digest('hex'), sha512: sha512.digest('hex'), head };
  } finally {
    await file.close();
  }
}

export interface Inspected {
  /** As Glance and Nova name it. */
  readonly diskFormat: 'raw' | 'qcow2' | 'iso';
  readonly virtualBytes: number;
}

const ISO_SIGNATURE = { offset: 32_769, text: 'CD001' } as const;

/**
 * What the file is. What Nova's own inspection would refuse at the first boot, or what reads other files of a hypervisor,
 * is refused here, before it is uploaded.
 * @throws ProblemError image-format
 */
export function inspect(taken: Pick<Taken, 'head' | 'bytes'>): Inspected {
  const { head, bytes } = taken;
  if (bytes < 512) fail('image-format', `The image has ${bytes} bytes: that is no disk.`);
  const format = sniffFormat(head);
  if (format === 'zstd')
    return fail('image-format', 'The image is zstd-compressed.', { hint: 'Decompress it first: zstd -d FILE.' });
  if (format === 'qcow2') return { diskFormat: 'qcow2', virtualBytes: checkQcow2(head, SOURCE_LIMITS.maxVirtualBytes) };
  const { offset, text } = ISO_SIGNATURE;
  const iso = head.subarray(offset, offset + text.length).toString('latin1') === text;
  return { diskFormat: iso ? 'iso' : 'raw', virtualBytes: bytes };
}
