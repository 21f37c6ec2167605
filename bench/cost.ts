/** Where the seconds of an installation go: CPU of the machine's emulator at each event. Pure. */
import type { FeedEvent } from '../provisioner/core/events.js';
import { type Stage, stageEnds } from '../provisioner/demo/stages.js';

/** An event, and what the emulator of its node had used when it came. */
export interface Sample extends FeedEvent {
  /** User and system seconds. */
  readonly cpuSeconds: number;
}

export interface Cost {
  readonly name: string;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

function costs(parts: readonly { name: string; sample: Sample }[], poweredMs: number): Cost[] {
  let [ms, cpu] = [poweredMs, 0];
  return parts.map(({ name, sample }) => {
    const cost = { name, wallSeconds: (sample.atMs - ms) / 1000, cpuSeconds: sample.cpuSeconds - cpu };
    [ms, cpu] = [sample.atMs, sample.cpuSeconds];
    return cost;
  });
}

/** @param samples of one node, oldest first; @param poweredMs when the BMC was told to start it */
export const stageCosts = (samples: readonly Sample[], poweredMs: number): (Cost & { name: Stage })[] =>
  costs(
    stageEnds(samples).map(({ stage, event }) => ({ name: stage, sample: event })),
    poweredMs,
  ) as (Cost & { name: Stage })[];

/** From sign of life to sign of life, until SSH answers: each line is named by the event that ends it. */
export function partCosts(samples: readonly Sample[], poweredMs: number): Cost[] {
  const last = stageEnds(samples).at(-1)?.event;
  const parts = samples.flatMap(sample => {
    const name = last && sample.id <= last.id ? partName(sample) : null;
    return name === null ? [] : [{ name, sample }];
  });
  return costs(parts, poweredMs);
}

function partName({ type, message, data }: Sample): string | null {
  switch (type) {
    case 'boot.decision':
      return 'until iPXE asks what to boot';
    case 'boot.milestone':
      return `until the milestone ${String(data['name'])}`;
    case 'node.called-home':
      return 'until the RAM environment calls home';
    case 'install.start':
      return 'until the installer starts';
    case 'install.stage':
      return `until the installer is ${message.replace(/^[^:]+: /, '')}`;
    case 'install.written':
      return 'until its disk is written';
    case 'node.first-boot':
      return 'until the installed system calls home';
    case 'node.state':
      return data['to'] === 'installed' ? 'until SSH answers' : null;
    default:
      return null;
  }
}

export interface Bar {
  readonly name: string;
  readonly value: number | null;
  readonly limit: number;
  readonly unit: string;
}

/** A value that could not be taken is not below the bar. */
export const passes = (bar: Bar): boolean => bar.value !== null && bar.value <= bar.limit;

export function table(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string {
  const text = rows.map(row => row.map(c => (c === null ? '–' : typeof c === 'number' ? c.toFixed(1) : c)));
  const widths = head.map((h, i) => Math.max(h.length, ...text.map(row => row[i]?.length ?? 0)));
  const number = head.map((_, i) => rows.some(row => typeof row[i] === 'number'));
  const line = (cells: readonly string[]) =>
    `  ${cells.map((c, i) => (number[i] ? c.padStart(widths[i]!) : c.padEnd(widths[i]!))).join('  ')}`.trimEnd();
  return [line(head), ...text.map(line)].join('\n');
}
