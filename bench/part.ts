/** What `npm run bench` is made of: parts that measure, each with figures that are held to a bar. */
import type { Bar } from './cost.js';

export interface PartContext {
  readonly say: (text: string) => void;
  readonly signal: AbortSignal;
  readonly firmware: 'bios' | 'uefi';
}

export interface PartResult {
  readonly bars: readonly Bar[];
  /** All figures, for `--json`. */
  readonly figures: unknown;
}

/** Measures, says what it found, and leaves nothing behind. @throws Error when a figure could not be taken */
export type Part = (context: PartContext) => Promise<PartResult>;
