/** A bounded recording of a serial console: the newest bytes in FILE, those before in FILE.1. */
import { closeSync, fstatSync, openSync, readSync, renameSync, statSync, writeSync } from 'node:fs';

export interface Recording {
  /** Appends at once; at most two times `maxBytes` are kept in all. Disk errors are swallowed: a console goes on without its record. */
  write(data: Buffer): void;
  close(): void;
}

export const RECORDING_MAX_BYTES = 4 * 1024 * 1024;

/** Opens (appends to) the recording at `path`, mode 0600: consoles show boot secrets. */
export function openRecording(path: string, maxBytes = RECORDING_MAX_BYTES): Recording {
  let fd: number | null = openSync(path, 'a', 0o600);
  let size = fstatSync(fd).size;
  const swallow = (work: () => void) => {
    try {
      work();
    } catch {
      // A full disk must not end the console.
    }
  };
  return {
    write(data) {
      swallow(() => {
        if (fd === null) return;
        if (size + data.length > maxBytes && size > 0) {
          closeSync(fd);
          fd = null;
          renameSync(path, `${path}.1`);
          fd = openSync(path, 'a', 0o600);
          size = 0;
        }
        const part = data.length > maxBytes ? data.subarray(data.length - maxBytes) : data;
        size += writeSync(fd, part);
      });
    },
    close() {
      if (fd !== null) swallow(() => closeSync(fd!));
      fd = null;
    },
  };
}

function lastBytes(path: string, bytes: number): Buffer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return Buffer.alloc(0);
  }
  try {
    const { size } = statSync(path);
    const length = Math.min(size, bytes);
    const buffer = Buffer.alloc(length);
    const read = readSync(fd, buffer, 0, length, size - length);
    return buffer.subarray(0, read);
  } finally {
    closeSync(fd);
  }
}

/** The newest `bytes` bytes of the recording at `path`; empty when there is none. */
export function readRecording(path: string, bytes: number): Buffer {
  const newest = lastBytes(path, bytes);
  if (newest.length >= bytes) return newest;
  return Buffer.concat([lastBytes(`${path}.1`, bytes - newest.length), newest]);
}
