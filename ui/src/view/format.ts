/** Numbers and times for people. Pure. */

const GIB = 2 ** 30;
const GB = 1e9;

/** 64 GiB */
export const memory = (bytes: number): string => `${Math.round((bytes / GIB) * 10) / 10} GiB`;

/** 480 GB, 7.7 TB: as disks are sold. */
export const diskSize = (bytes: number): string =>
  bytes >= 1000 * GB ? `${Math.round((bytes / GB / 1000) * 10) / 10} TB` : `${Math.round(bytes / GB)} GB`;

/** 45 s · 3 min · 2 h 5 min · 4 d */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

export const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

/**
 * Text from machines and people without what would turn the line round or hide: control and direction characters.
 * They are shown as a box, so that nothing is lost silently.
 */
export const plain = (text: string): string => text.replace(/[\p{Cc}\p{Bidi_Control}\u200b\u2060\ufeff]/gu, '␣');
