/** From the event feed to seconds per stage of each node. Pure. */
import type { FeedEvent } from '../core/events.js';

export const STAGES = ['firmware', 'ram', 'install', 'boot', 'ssh'] as const;
export type Stage = (typeof STAGES)[number];

/** What each stage is, for the legend under the table. */
export const STAGE_TEXT: Readonly<Record<Stage, string>> = {
  firmware: 'power-on by BMC → firmware, DHCP, TFTP → iPXE asks what to boot',
  ram: 'kernel and RAM environment → inventory arrives',
  install: 'claimed, image written to the disk, configured',
  boot: 'restart, firmware, own disk → the system calls home',
  ssh: 'the call → SSH answers with the host key that we know',
};

export interface NodeTimes {
  readonly stages: Readonly<Partial<Record<Stage, number>>>;
  /** Seconds from power-on to SSH, null when it did not get there. */
  readonly totalSeconds: number | null;
}

const isState = (event: FeedEvent, state: string) => event.type === 'node.state' && event.data['to'] === state;
const ENDS: Readonly<Record<Stage, (event: FeedEvent) => boolean>> = {
  firmware: e => e.type === 'boot.decision',
  ram: e => e.type === 'node.called-home',
  install: e => e.type === 'install.written',
  boot: e => e.type === 'node.first-boot',
  ssh: e => isState(e, 'installed'),
};

/** The event that ended each stage that was reached, in order. @param events of one node, oldest first */
export function stageEnds<E extends FeedEvent>(events: readonly E[]): { stage: Stage; event: E }[] {
  const ends: { stage: Stage; event: E }[] = [];
  for (const stage of STAGES) {
    const event = events.find(ENDS[stage]);
    if (!event) break;
    ends.push({ stage, event });
  }
  return ends;
}

/**
 * @param events of one node, oldest first
 * @param poweredMs when the BMC was told to start it
 */
export function stageSeconds(events: readonly FeedEvent[], poweredMs: number): NodeTimes {
  const stages: Partial<Record<Stage, number>> = {};
  let before = poweredMs;
  for (const { stage, event } of stageEnds(events)) {
    stages[stage] = Math.max(0, event.atMs - before) / 1000;
    before = event.atMs;
  }
  const end = events.find(ENDS.ssh)?.atMs;
  return { stages, totalSeconds: end === undefined ? null : (end - poweredMs) / 1000 };
}

export interface DemoNode {
  readonly name: string;
  readonly firmware: 'bios' | 'uefi';
  readonly image: string;
  readonly result: 'installed' | 'failed';
  /** Why it failed. */
  readonly reason?: string;
  readonly stages: Readonly<Partial<Record<Stage, number>>>;
  readonly totalSeconds: number | null;
  /** User and system seconds of its QEMU process. */
  readonly cpuSeconds: number | null;
  /** Where and as whom it answers SSH. */
  readonly address: string | null;
  readonly login: string | null;
}

/** The table at the end of the demo. */
export function stageTable(nodes: readonly DemoNode[]): string {
  const cell = (n: number | null | undefined) => (n === null || n === undefined ? '–' : n.toFixed(1));
  const head = ['node', 'firmware', ...STAGES, 'total', 'CPU s', 'result'];
  const rows = nodes.map(n => [
    n.name,
    n.firmware.toUpperCase(),
    ...STAGES.map(s => cell(n.stages[s])),
    cell(n.totalSeconds),
    cell(n.cpuSeconds),
    n.result + (n.reason ? `: ${n.reason}` : ''),
  ]);
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map(r => (i === head.length - 1 ? 0 : r[i]!.length))));
  const line = (cells: readonly string[]) =>
    cells
      .map((c, i) => (i < 2 || i === cells.length - 1 ? c.padEnd(widths[i]!) : c.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(head), ...rows.map(line)].join('\n');
}
