/**
 * What is inside an image file, read by us before any other program may open it: a qcow2 can name other files of the
 * machine as its contents (CVE-2024-32498, CVE-2024-44082). Layouts: QEMU's docs/interop/qcow2.txt, UEFI 2.10 5.3 (GPT).
 */
import { type FileHandle, open } from 'node:fs/promises';
import { fail } from './problem.js';

export type DiskFormat = 'raw' | 'zstd' | 'qcow2';

const MIB = 1024 * 1024;
const SECTOR = 512;

/** Guesses by the first bytes. Formats that we know and refuse are named. */
export function sniffFormat(head: Buffer): DiskFormat {
  const magic = head.subarray(0, 4).toString('latin1');
  if (magic === 'QFI\xfb') return 'qcow2';
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return 'zstd';
  const others: [string, string][] = [
    ['KDMV', 'a VMDK'],
    ['COWD', 'a VMDK'],
    ['# Di', 'a VMDK descriptor'],
    ['cone', 'a VHD'],
    ['vhdx', 'a VHDX'],
    ['<<< ', 'a VDI'],
    ['QED\0', 'a QED'],
    ['\x1f\x8b', 'gzip-compressed'],
    ['\xfd7zX', 'xz-compressed'],
    ['BZh', 'bzip2-compressed'],
    ['PK\x03\x04', 'a zip archive'],
  ];
  const found = others.find(([start]) => head.subarray(0, start.length).toString('latin1') === start);
  if (found) fail('image-format', `The image is ${found[1]}; raw, raw.zst and qcow2 are accepted.`);
  return 'raw';
}

/** The incompatible features of qcow2 that only change how data lies inside the file. */
const HARMLESS_FEATURES = {
  dirty: 1n << 0n,
  compressionType: 1n << 3n,
  extendedL2: 1n << 4n,
} as const;
const EXTERNAL_DATA = 1n << 2n;

/**
 * The virtual size of a qcow2, after everything was refused that reads other files or is damaged.
 * @param head the first MiB of the file, or all of it
 */
export function checkQcow2(head: Buffer, maxBytes: number): number {
  const refuse = (reason: string) => fail('image-format', `The qcow2 image is refused: ${reason}.`);
  if (head.length < 72 || head.subarray(0, 4).toString('latin1') !== 'QFI\xfb') return refuse('it has no header');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) return refuse(`it is of version ${version}`);
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) return refuse('it names a backing file');
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) return refuse(`its clusters have 2^${clusterBits} bytes`);
  const size = head.readBigUInt64BE(24);
  if (size === 0n || size > BigInt(maxBytes))
    return refuse(`its disk has ${size} bytes, at most ${maxBytes} are accepted`);
  if (head.readUInt32BE(32) !== 0) return refuse('it is encrypted');
  if (head.readUInt32BE(60) !== 0) return refuse('it holds snapshots');
  let headerLength = 72;
  if (version === 3) {
    if (head.length < 104) return refuse('its header is cut off');
    const features = head.readBigUInt64BE(72);
    if (features & EXTERNAL_DATA) return refuse('its data is in another file');
    const known = HARMLESS_FEATURES.dirty | HARMLESS_FEATURES.compressionType | HARMLESS_FEATURES.extendedL2;
    if (features & ~known) return refuse(`it needs features that are not known (0x${features.toString(16)})`);
    headerLength = head.readUInt32BE(100);
    if (headerLength < 104 || headerLength > Math.min(head.length, 1 << clusterBits))
      return refuse('its header is damaged');
  }
  // Header extensions: those that name files or formats of files are refused too, however the feature bits stand.
  for (let at = headerLength; ; ) {
    if (at + 8 > head.length) return refuse('its header extensions do not end');
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === 0) break;
    if (type === 0xe2792aca) return refuse('it names the format of a backing file');
    if (type === 0x44415441) return refuse('it names an external data file');
    if (length > 65_536) return refuse('a header extension is too long');
    at += 8 + Math.ceil(length / 8) * 8;
    if (at > 1 << clusterBits) return refuse('its header extensions do not end');
  }
  return Number(size);
}

export interface GptPartition {
  readonly number: number;
  readonly type: string;
  readonly firstByte: number;
  readonly bytes: number;
  readonly name: string;
}

export const GPT_TYPE = {
  esp: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  rootX86: '4f68bce3-e8cd-4db1-96e7-fbcaf984b709',
  linux: '0fc63daf-8483-4772-8e79-3d69d8477de4',
} as const;

/** Partitions of a raw disk image with sectors of 512 bytes. Throws ProblemError image-format without a sound GPT. */
export async function readGpt(file: FileHandle, rawBytes: number): Promise<GptPartition[]> {
  const refuse = (reason: string) => fail('image-format', `The disk image ${reason}.`);
  const header = Buffer.alloc(SECTOR);
  await file.read(header, 0, SECTOR, SECTOR);
  if (header.subarray(0, 8).toString('latin1') !== 'EFI PART') return refuse('has no GPT');
  const at = Number(header.readBigUInt64LE(72)) * SECTOR;
  const count = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  if (count > 1024 || entryBytes < 128 || entryBytes > 1024 || !(at >= 2 * SECTOR && at < MIB))
    return refuse('has a damaged GPT');
  const table = Buffer.alloc(count * entryBytes);
  await file.read(table, 0, table.length, at);
  const partitions: GptPartition[] = [];
  for (let n = 0; n < count; n++) {
    const entry = table.subarray(n * entryBytes, (n + 1) * entryBytes);
    const type = guid(entry);
    if (/^[0-]+$/.test(type)) continue;
    const first = Number(entry.readBigUInt64LE(32)) * SECTOR;
    const end = (Number(entry.readBigUInt64LE(40)) + 1) * SECTOR;
    if (!(first >= MIB && end > first && end <= rawBytes))
      return refuse(`has the partition ${n + 1} outside of itself or inside the first MiB`);
    partitions.push({
      number: n + 1,
      type,
      firstByte: first,
      bytes: end - first,
      name: entry.subarray(56, 128).toString('utf16le').replace(/\0.*$/s, ''),
    });
  }
  return partitions;
}

/** Root and ESP of an image: root by its type, else the largest Linux file system. */
export function systemPartitions(partitions: readonly GptPartition[]): {
  root: GptPartition;
  esp: GptPartition | null;
} {
  const bySize = [...partitions].sort((a, b) => b.bytes - a.bytes);
  const root = bySize.find(p => p.type === GPT_TYPE.rootX86) ?? bySize.find(p => p.type === GPT_TYPE.linux);
  if (!root) return fail('image-format', 'The disk image has no partition with a Linux root file system.');
  return { root, esp: partitions.find(p => p.type === GPT_TYPE.esp) ?? null };
}

/** Label of the ext file system that begins at `offset`; empty when there is none or it is another file system. */
export async function extLabel(file: FileHandle, offset: number): Promise<string> {
  const block = Buffer.alloc(1024);
  await file.read(block, 0, block.length, offset + 1024);
  if (block.readUInt16LE(0x38) !== 0xef53) return '';
  return block.subarray(0x78, 0x88).toString('utf8').replace(/\0.*$/s, '');
}

/** Mixed-endian GUID of GPT as text, lower case. */
function guid(b: Buffer): string {
  const hex = (buffer: Buffer) => buffer.toString('hex');
  const swapped = (from: number, to: number) => hex(Buffer.from(b.subarray(from, to)).reverse());
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(b.subarray(8, 10)), hex(b.subarray(10, 16))].join('-');
}

/** The first bytes of a file. */
export async function readHead(path: string, bytes = MIB): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(bytes);
    const { bytesRead } = await file.read(head, 0, bytes, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
