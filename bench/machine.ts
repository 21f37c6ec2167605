/** The path from a bare machine to SSH: CPU seconds of one, two at once, and the DHCP engine. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { systemClock as clock } from '../provisioner/core/clock.js';
import { loadKeys } from '../provisioner/core/keys.js';
import { type DemoReport, runDemo } from '../provisioner/demo/run.js';
import { buildOsImage } from '../provisioner/image/os.js';
import { buildRamImage } from '../provisioner/image/ram/build.js';
import { type Lab, labCpuSeconds, labDown, labUp } from '../provisioner/lab/index.js';
import { type Bar, partCosts, type Sample, stageCosts, table } from './cost.js';
import { benchDhcp } from './dhcp.js';
import type { Part, PartContext } from './part.js';

/** The same path by hand, one machine after the other, with the usual tools (docs/speed.md). */
const BY_HAND_CPU_SECONDS = 176;
const BARS = { cpuSeconds: 0.8 * BY_HAND_CPU_SECONDS, ratio: 1.7, rssMiB: 256 };
const IMAGE = 'debian-12-cloud';
const TIMEOUT_SECONDS = 900;

// dist/bench → the project's folder.
const root = resolve(import.meta.dirname, '../..');
const shared = join(resolve(process.env['HALLIGAN_CACHE'] ?? join(root, '.cache')), 'demo', 'data');

interface Run {
  readonly report: DemoReport;
  /** Oldest first; taken with one node only. */
  readonly samples: readonly Sample[];
  readonly poweredMs: number;
}

/** Images and keys are those of the demo; the rest is a new world. */
async function install(nodes: number, { say, signal, firmware }: PartContext): Promise<Run> {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-bench-'));
  const data = join(dir, 'data');
  mkdirSync(data, { mode: 0o700 });
  for (const name of ['images', 'keys']) symlinkSync(join(shared, name), join(data, name));
  const samples: Sample[] = [];
  const reading: Promise<void>[] = [];
  let lab: Lab | undefined;
  let poweredMs = 0;
  try {
    const report = await runDemo(
      { nodes, keep: false, dir, image: IMAGE, firmware, timeoutSeconds: TIMEOUT_SECONDS, labName: `bench-${nodes}` },
      {
        clock,
        print: line => say(`    ${line}`),
        buildImages: async () => {},
        async labUp(spec) {
          lab = await labUp(spec);
          return lab;
        },
        labDown: l => labDown({ name: l.name, dir: l.dir }),
        labCpuSeconds,
        self: [process.execPath, join(root, 'dist/provisioner/main.js')],
        signal,
        onEvent(event) {
          const { nodeId } = event;
          // With two nodes an event would have to be matched to its machine, and nothing is made of it.
          if (nodeId === null || !lab || nodes > 1) return;
          if (event.type === 'node.state' && event.data['to'] === 'inspecting' && poweredMs === 0)
            poweredMs = event.atMs;
          reading.push(
            labCpuSeconds(lab).then(
              cpu => {
                const own = Object.values(cpu)[0];
                if (own !== undefined) samples.push({ ...event, cpuSeconds: own });
              },
              () => {},
            ),
          );
        },
      },
    );
    await Promise.all(reading);
    samples.sort((a, b) => a.id - b.id);
    const failed = report.nodes.find(n => n.result === 'failed');
    if (failed) throw new Error(`${failed.name} was not installed: ${failed.reason}`);
    return { report, samples, poweredMs };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export const machine: Part = async context => {
  const { say, firmware } = context;
  mkdirSync(shared, { recursive: true, mode: 0o700 });
  const images = join(shared, 'images');
  say(`Images in ${images}.`);
  await buildRamImage({ kernel: 'cloud', imagesDir: images, authorizedKeys: [loadKeys(shared).publicKey] });
  await buildOsImage({ name: 'debian-12', kernel: 'cloud', imagesDir: images, compression: 3 });

  say(`\nOne node (${firmware.toUpperCase()}):`);
  const one = await install(1, context);
  const stages = stageCosts(one.samples, one.poweredMs);
  const parts = partCosts(one.samples, one.poweredMs);
  const cpu = stages.reduce((sum, s) => sum + s.cpuSeconds, 0);

  say('\nTwo nodes at once:');
  const two = await install(2, context);
  say('\nDHCP, one fresh client per exchange, every lease on disk before its ACK:');
  const dhcp = await benchDhcp();

  const wall = (run: Run) => Math.max(...run.report.nodes.map(n => n.totalSeconds ?? Number.POSITIVE_INFINITY));
  const rss = [one, two].map(r => r.report.server.rssMaxMiB ?? Number.POSITIVE_INFINITY);
  const bars: Bar[] = [
    {
      name: `CPU of one node, bare to SSH (by hand ${BY_HAND_CPU_SECONDS})`,
      value: cpu,
      limit: BARS.cpuSeconds,
      unit: 's',
    },
    { name: 'time of two nodes at once to that of one', value: wall(two) / wall(one), limit: BARS.ratio, unit: '×' },
    { name: 'memory of the server, high water', value: Math.max(...rss), limit: BARS.rssMiB, unit: 'MiB' },
  ];

  const row = (c: { name: string; wallSeconds: number; cpuSeconds: number }) => [
    c.name,
    c.wallSeconds,
    c.cpuSeconds,
    `${Math.round((100 * c.cpuSeconds) / cpu)} %`,
  ];
  say(`\nOne node by stage (CPU is user and system time of the emulator, ${one.report.accel}):\n`);
  say(
    table(
      ['stage', 'wall s', 'CPU s', 'share'],
      [...stages.map(row), row({ name: 'in all', wallSeconds: wall(one), cpuSeconds: cpu })],
    ),
  );
  say('\nWhere each second goes:\n');
  say(table(['part', 'wall s', 'CPU s', 'share'], parts.map(row)));
  say(
    `\nDHCP: ${dhcp.exchangesPerSecond} exchanges a second, ${dhcp.cpuMsPerExchange} ms of CPU each, p99 ${dhcp.p99Ms} ms.\n`,
  );
  return {
    bars,
    figures: { firmware, accel: one.report.accel, stages, parts, one: one.report, two: two.report, dhcp },
  };
};
