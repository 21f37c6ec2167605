/** Imports published disk images: fetched or copied, checksum first, format checked by us, then into the store. */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Clock, systemClock } from '../core/clock.js';
import { fetchFile } from '../core/fetch.js';
import { checkQcow2, extLabel, readGpt, readHead, sniffFormat, systemPartitions } from '../core/image-format.js';
import { inputHash } from '../core/input-hash.js';
import { fail, ProblemError, problem } from '../core/problem.js';
import { IMAGE_NAME } from './manifest.js';
import { describeFile, runLogged } from './mmdebstrap.js';
import { createImageStore } from './store.js';
import type { OsImageManifest } from './types.js';

export interface ImportOptions {
  /** Name that the image gets. */
  readonly name: string;
  readonly source: { readonly url: string } | { readonly file: string };
  /** Hex SHA-256 of the file as published; nothing is looked into before it is right. */
  readonly sha256: string;
  readonly imagesDir: string;
  /** Host names and CIDRs of own networks that may be fetched from. */
  readonly allowHosts?: readonly string[];
  readonly maxBytes?: number;
  /** Largest disk after decompression. */
  readonly maxRawBytes?: number;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
  readonly clock?: Clock;
  readonly resolve?: (host: string) => Promise<string[]>;
}

const GIB = 2 ** 30;
const DEFAULTS = { maxBytes: 16 * GIB, maxRawBytes: 64 * GIB, timeoutMs: 3_600_000 } as const;

/**
 * Throws ProblemError: request-invalid (name, checksum), image-url, image-checksum, image-format, dependency-missing
 * (qemu-img for qcow2, zstd), timed-out. Leaves nothing behind when it fails.
 */
export async function importImage(options: ImportOptions): Promise<OsImageManifest> {
  const { name, source, imagesDir } = options;
  const sha256 = options.sha256.toLowerCase();
  if (!new RegExp(IMAGE_NAME).test(name))
    fail(
      'request-invalid',
      `${JSON.stringify(name.slice(0, 80))} is no name for an image: letters, digits, dots and dashes.`,
    );
  if (!/^[0-9a-f]{64}$/.test(sha256)) fail('request-invalid', 'The checksum is no SHA-256: 64 hexadecimal digits.');
  const maxBytes = options.maxBytes ?? DEFAULTS.maxBytes;
  const maxRawBytes = options.maxRawBytes ?? DEFAULTS.maxRawBytes;
  const progress = options.onProgress ?? (() => undefined);

  await mkdir(imagesDir, { recursive: true });
  const work = await mkdtemp(join(imagesDir, `.import-${name}-`));
  const run = { logFile: join(imagesDir, `${name}.log`), ...(options.signal ? { signal: options.signal } : {}) };
  try {
    const download = join(work, 'download');
    progress('fetching');
    const got =
      'url' in source
        ? await fetchFile(source.url, download, {
            allow: options.allowHosts ?? [],
            maxBytes,
            timeoutMs: options.timeoutMs ?? DEFAULTS.timeoutMs,
            ...(options.signal ? { signal: options.signal } : {}),
            ...(options.resolve ? { resolve: options.resolve } : {}),
          })
        : await copyIn(source.file, download, maxBytes);
    if (got.sha256 !== sha256)
      fail('image-checksum', `The image ${name} has the checksum ${got.sha256} instead of ${sha256}.`);

    const head = await readHead(download);
    const format = sniffFormat(head);
    progress(`converting (${format})`);
    const raw = format === 'raw' ? download : join(work, 'raw');
    if (format === 'zstd') {
      await decompress(download, raw, maxRawBytes);
      const inner = sniffFormat(await readHead(raw, 4096));
      if (inner !== 'raw') fail('image-format', `Inside the compressed file is ${inner}, not a raw disk.`);
    }
    if (format === 'qcow2') {
      checkQcow2(head, maxRawBytes);
      await runLogged('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', download, raw], {
        ...run,
        what: `the image ${name}`,
        dependency: 'qemu-utils',
      }).catch((error: unknown) => {
        if (error instanceof ProblemError && error.problem.code === 'image-build')
          fail('image-format', `The qcow2 image ${name} cannot be read: ${error.message}`);
        throw error;
      });
    }
    const rawBytes = (await stat(raw)).size;
    if (rawBytes > maxRawBytes)
      fail('image-format', `The disk has ${rawBytes} bytes, at most ${maxRawBytes} are accepted.`);

    const file = await open(raw, 'r');
    let layout: { root: number; esp: number | null; label: string };
    try {
      const { root, esp } = systemPartitions(await readGpt(file, rawBytes));
      layout = { root: root.number, esp: esp?.number ?? null, label: await extLabel(file, root.firstByte) };
    } finally {
      await file.close();
    }
    progress('compressing');
    const out = join(work, 'out');
    await mkdir(out);
    const compressed = join(out, 'disk.raw.zst');
    await runLogged('zstd', ['-q', '-f', '-T0', '-3', '--check', raw, '-o', compressed], {
      ...run,
      what: `the image ${name}`,
      dependency: 'zstd',
    });
    const manifest: OsImageManifest = {
      schema: 1,
      kind: 'os',
      name,
      distribution: 'imported',
      release: '',
      arch: 'amd64',
      createdMs: (options.clock ?? systemClock).nowMs(),
      inputHash: inputHash({ imported: sha256 }),
      disk: {
        name: 'disk.raw.zst',
        ...(await describeFile(compressed)),
        rawBytes,
        rootPartition: layout.root,
        espPartition: layout.esp,
      },
      root: null,
      rootLabel: layout.label,
      kernel: null,
    };
    await createImageStore(imagesDir).publish(manifest, out);
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function copyIn(from: string, to: string, maxBytes: number): Promise<{ bytes: number; sha256: string }> {
  const found = await stat(from).catch(() => fail('image-url', `The file ${from} cannot be read.`));
  if (!found.isFile()) fail('image-url', `${from} is no file.`);
  if (found.size > maxBytes)
    fail('image-url', `The file ${from} is larger than the ${maxBytes} bytes that are accepted.`);
  const hash = createHash('sha256');
  let bytes = 0;
  const tee = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      bytes += chunk.length;
      done(bytes > maxBytes ? new Error('the file grew') : null, chunk);
    },
  });
  await pipeline(createReadStream(from), tee, createWriteStream(to, { mode: 0o600 }));
  return { bytes, sha256: hash.digest('hex') };
}

/** zstd -dc with a bound: a few kilobytes can stand for terabytes. */
async function decompress(from: string, to: string, maxBytes: number): Promise<void> {
  const child = spawn('zstd', ['-dcq', '--memory=256MB', from], { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  }).catch((error: NodeJS.ErrnoException) =>
    error.code === 'ENOENT' ? fail('dependency-missing', 'zstd is not installed.') : Promise.reject(error),
  );
  let bytes = 0;
  const bound = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      done(bytes > maxBytes ? new ProblemError(tooLarge(maxBytes)) : null, chunk);
    },
  });
  try {
    await pipeline(child.stdout, bound, createWriteStream(to, { mode: 0o600 }));
  } catch (error) {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
    throw error;
  }
  if ((await ended) !== 0) fail('image-format', 'The image cannot be decompressed: it is damaged.');
}

const tooLarge = (maxBytes: number) =>
  problem('image-format', `The decompressed disk is larger than the ${maxBytes} bytes that are accepted.`);
