/**
 * GRUB's two boot sectors for BIOS, laid into a disk image without running its installer: no loop device, no chroot that
 * sees the machine's own disks. Offsets as in GRUB 2.06's include/grub/i386/pc/boot.h and offsets.h.
 *
 *   LBA 0   boot.img, bytes 0..439   0x5c  u64  LBA of core.img's first sector
 *                                    0x64  u8   boot drive, 0xff: the one the BIOS handed over
 *                                    0x66  2×u8 jump of the floppy check; two NOPs on a hard disk, where some BIOSes
 *                                               hand over a wrong drive number and GRUB must set it right
 *   core    diskboot.img, 512 bytes  0x1f4 u64 LBA of the sector after it, u16 sectors, u16 segment (0x820)
 *           the rest of core.img
 */

const SECTOR = 512;
/** Partition table and disk signature of the MBR start here and must stay. */
export const BOOT_CODE_BYTES = 440;
const KERNEL_SECTOR = 0x5c;
const BOOT_DRIVE = 0x64;
const DRIVE_CHECK = 0x66;
const BLOCK_LIST = 0x1f4;
const LOAD_SEGMENT = 0x820;
const NOP = 0x90;

/** What goes to LBA 0 (its first 440 bytes) and to the first sectors of the BIOS boot partition. */
export interface GrubBiosSectors {
  readonly bootCode: Buffer;
  readonly core: Buffer;
}

/**
 * Patches boot.img and core.img (of grub-mkimage -O i386-pc) for a core image that starts at `coreLba`. Pure.
 * @throws Error when the files are not what they should be or core.img does not fit into `maxSectors`
 */
export function patchGrubBios(boot: Buffer, core: Buffer, coreLba: number, maxSectors: number): GrubBiosSectors {
  if (boot.length !== SECTOR || boot.readUInt16LE(510) !== 0xaa55) throw new Error('boot.img is no boot sector');
  if (core.length <= SECTOR) throw new Error('core.img is too short');
  const sectors = Math.ceil(core.length / SECTOR);
  if (sectors > maxSectors) throw new Error(`core.img has ${sectors} sectors, the BIOS boot partition ${maxSectors}`);
  if (core.readUInt16LE(BLOCK_LIST + 10) !== LOAD_SEGMENT) throw new Error('core.img does not start with diskboot.img');

  const bootCode = Buffer.from(boot.subarray(0, BOOT_CODE_BYTES));
  bootCode.writeBigUInt64LE(BigInt(coreLba), KERNEL_SECTOR);
  bootCode.writeUInt8(0xff, BOOT_DRIVE);
  bootCode.fill(NOP, DRIVE_CHECK, DRIVE_CHECK + 2);

  const padded = Buffer.alloc(sectors * SECTOR);
  core.copy(padded);
  padded.writeBigUInt64LE(BigInt(coreLba + 1), BLOCK_LIST);
  padded.writeUInt16LE(sectors - 1, BLOCK_LIST + 8);
  padded.writeUInt16LE(LOAD_SEGMENT, BLOCK_LIST + 10);
  return { bootCode, core: padded };
}
