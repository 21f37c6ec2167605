import { describe, expect, it } from 'vitest';
import { BOOT_CODE_BYTES, patchGrubBios } from '../../../provisioner/core/grub-bios.js';

const boot = (): Buffer => {
  const sector = Buffer.alloc(512, 0xeb);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
};
const core = (bytes: number): Buffer => {
  const image = Buffer.alloc(bytes, 0xcc);
  image.writeBigUInt64LE(1n, 0x1f4);
  image.writeUInt16LE(99, 0x1fc);
  image.writeUInt16LE(0x820, 0x1fe);
  return image;
};

describe('GRUB’s boot sectors for BIOS', () => {
  it('point at the core image and let GRUB find the boot drive itself', () => {
    const { bootCode } = patchGrubBios(boot(), core(5000), 2048, 8192);
    expect(bootCode.length).toBe(BOOT_CODE_BYTES);
    expect(bootCode.readBigUInt64LE(0x5c)).toBe(2048n);
    expect(bootCode[0x64]).toBe(0xff);
    expect([...bootCode.subarray(0x66, 0x68)]).toEqual([0x90, 0x90]);
  });

  it('list the rest of the core image as one run of whole sectors', () => {
    const patched = patchGrubBios(boot(), core(5000), 2048, 8192).core;
    expect(patched.length).toBe(10 * 512);
    expect(patched.readBigUInt64LE(0x1f4)).toBe(2049n);
    expect(patched.readUInt16LE(0x1fc)).toBe(9);
    expect(patched.readUInt16LE(0x1fe)).toBe(0x820);
    expect(patched.subarray(5000).every(byte => byte === 0)).toBe(true);
  });

  it('are refused when they are not what they should be, or do not fit', () => {
    expect(() => patchGrubBios(Buffer.alloc(512), core(5000), 2048, 8192)).toThrow('no boot sector');
    expect(() => patchGrubBios(boot(), Buffer.alloc(5000), 2048, 8192)).toThrow('diskboot.img');
    expect(() => patchGrubBios(boot(), core(512), 2048, 8192)).toThrow('too short');
    expect(() => patchGrubBios(boot(), core(5000), 2048, 9)).toThrow('10 sectors');
  });
});
