/**
 * Writer of the "newc" cpio format, which the kernel unpacks as initramfs (Documentation/driver-api/early-userspace/
 * buffer-format.rst). Own, because the one big member must be streamed and the members' order and owners are ours.
 *
 *   header: "070701", then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
 *   rdevminor namesize check; then the name with its NUL, padded to 4; then the data, padded to 4.
 */

/** File types of stat(2) that the writer knows. */
export const CPIO_TYPE = { directory: 0o040000, file: 0o100000, characterDevice: 0o020000 } as const;

export interface CpioMember {
  readonly name: string;
  /** Type and permissions, e.g. CPIO_TYPE.file | 0o644. */
  readonly mode: number;
  /** Bytes of data that follow the header. */
  readonly size: number;
  /** Major and minor of a device. */
  readonly device?: readonly [number, number];
}

const pad4 = (length: number) => Buffer.alloc((4 - (length % 4)) % 4);

/** Header and name of a member, owner root; `index` makes its inode number. The data and `cpioPadding(size)` follow. */
export function cpioHeader(member: CpioMember, index: number): Buffer {
  if (member.size > 0xffff_ffff) throw new RangeError(`${member.name} is larger than 4 GiB, the limit of the format`);
  const name = Buffer.from(`${member.name}\0`);
  const [major, minor] = member.device ?? [0, 0];
  const fields = [index + 1, member.mode, 0, 0, 1, 0, member.size, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}`);
  return Buffer.concat([header, name, pad4(header.length + name.length)]);
}

/** What follows data of this length. */
export const cpioPadding = (size: number): Buffer => pad4(size);

/** A small member with its data. */
export function cpioFile(name: string, mode: number, data: Buffer, index: number): Buffer {
  return Buffer.concat([cpioHeader({ name, mode, size: data.length }, index), data, pad4(data.length)]);
}

/** The end of an archive that `length` bytes precede, padded to 512: the EFI stub joins initrds without padding. */
export function cpioTrailer(length: number): Buffer {
  const trailer = cpioHeader({ name: 'TRAILER!!!', mode: 0, size: 0 }, -1);
  return Buffer.concat([trailer, Buffer.alloc((512 - ((length + trailer.length) % 512)) % 512)]);
}
