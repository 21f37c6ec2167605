import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { CPIO_TYPE, cpioFile, cpioHeader, cpioTrailer } from '../../../provisioner/image/ram/cpio.js';

describe('the initramfs archive', () => {
  it('has a header of 110 bytes, and pads name and data to 4', () => {
    const member = cpioFile('init', CPIO_TYPE.file | 0o755, Buffer.from('abcde'), 0);
    expect(member.toString('latin1')).toBe(
      '070701' +
        '00000001' + // ino
        '000081ed' + // -rwxr-xr-x
        '0000000000000000' + // root
        '0000000100000000' + // nlink, mtime
        '00000005' + // size
        '00000000000000000000000000000000' + // devices
        '0000000500000000' + // name with its NUL, no check
        'init\0\0' +
        'abcde\0\0\0',
    );
  });

  it('ends on 512 bytes, so that another archive can stand behind it', () => {
    for (const length of [0, 4, 388, 400, 512]) expect((length + cpioTrailer(length).length) % 512).toBe(0);
  });

  it('refuses a member that the size field cannot hold', () => {
    expect(() => cpioHeader({ name: 'big', mode: CPIO_TYPE.file, size: 2 ** 32 }, 0)).toThrow('larger than 4 GiB');
  });

  it('is read by cpio', () => {
    const archive = [
      cpioHeader({ name: 'dev', mode: CPIO_TYPE.directory | 0o755, size: 0 }, 0),
      cpioHeader({ name: 'dev/console', mode: CPIO_TYPE.characterDevice | 0o600, size: 0, device: [5, 1] }, 1),
      cpioFile('init', CPIO_TYPE.file | 0o755, Buffer.from('x'), 2),
    ];
    const body = Buffer.concat(archive);
    let listing: string;
    try {
      listing = execFileSync('cpio', ['-itv', '--numeric-uid-gid', '--quiet'], {
        input: Buffer.concat([body, cpioTrailer(body.length)]),
        encoding: 'utf8',
      });
    } catch (error) {
      // The unit tests need no packages; where cpio is missing the spine test has the kernel read the archive.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    expect(listing).toMatch(/^drwxr-xr-x .* dev$/m);
    expect(listing).toMatch(/^crw------- .* 5, +1 .* dev\/console$/m);
    expect(listing).toMatch(/^-rwxr-xr-x +1 0 +0 +1 .* init$/m);
  });
});
