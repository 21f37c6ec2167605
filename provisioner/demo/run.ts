/**
 * `halligan demo`: the main job on a rack made of nothing. Builds what is missing, starts lab and server, and takes bare
 * machines from power-on by their BMC to SSH in the installed system, showing each node's stage as it goes.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Clock, sleep } from '../core/clock.js';
import type { FeedEvent } from '../core/events.js';
import { shQuote } from '../core/executor/quote.js';
import { asProblem, fail } from '../core/problem.js';
import type { Lab, LabNodeSpec } from '../lab/index.js';
import type { NodeView } from '../node/service.js';
import type { DemoClient } from './client.js';
import { connected, startServerProcess } from './server-process.js';
import { type DemoNode, STAGE_TEXT, STAGES, stageSeconds, stageTable } from './stages.js';

const run = promisify(execFile);

export interface DemoOptions {
  readonly nodes: number;
  /** JSON report. */
  readonly report?: string;
  /** Leave lab and server running until Ctrl-C. */
  readonly keep: boolean;
  /** Folder for images, disks and logs; images are kept between runs. */
  readonly dir: string;
  readonly image: string;
  /** bios | uefi for all nodes; alternating when left out. */
  readonly firmware?: 'bios' | 'uefi';
  /** A node that is not installed by then failed. */
  readonly timeoutSeconds: number;
  /** Name of the lab; `demo` when left out. */
  readonly labName?: string;
}

export interface DemoDeps {
  readonly clock: Clock;
  readonly print: (line: string) => void;
  /** Builds both images where they are not there yet; tells what it does. */
  readonly buildImages: (dataDir: string, image: string, onProgress: (line: string) => void) => Promise<void>;
  readonly labUp: (spec: {
    dir: string;
    name: string;
    nodes: LabNodeSpec[];
    dataDir: string;
    siteNodes: boolean;
    sshKeys: string[];
  }) => Promise<Lab>;
  readonly labDown: (lab: Lab) => Promise<unknown>;
  readonly labCpuSeconds: (lab: Lab) => Promise<Record<string, number>>;
  /** argv of this program: node and its main file. */
  readonly self: readonly string[];
  readonly signal: AbortSignal;
  /** Sees every event of the nodes as it comes. */
  readonly onEvent?: (event: FeedEvent) => void;
}

export interface DemoReport {
  readonly nodes: readonly DemoNode[];
  readonly accel: string;
  readonly wallSeconds: number;
  readonly server: { readonly rssMaxMiB: number | null };
  readonly imageSeconds: number;
}

const QUIET_MS = 30_000;
/** Events worth a line while watching. */
const SHOWN =
  /^(node\.(state|called-home|first-boot|conflict)|boot\.milestone|install\.|power\.|security\.|dhcp\.rogue)/;

/** @returns the report, also when a node failed; throws ProblemError when lab, images or server cannot be had */
export async function runDemo(options: DemoOptions, deps: DemoDeps): Promise<DemoReport> {
  const { clock, print, signal } = deps;
  const dataDir = join(options.dir, 'data');
  const labDir = join(options.dir, 'lab');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });

  const began = clock.monotonicMs();
  const seconds = () => ((clock.monotonicMs() - began) / 1000).toFixed(1).padStart(6);
  const say = (text: string) => print(`${seconds()} s  ${text}`);

  say(`Images: ${options.image} and the RAM environment, in ${join(dataDir, 'images')}.`);
  await deps.buildImages(dataDir, options.image, line => say(`  ${line}`));
  const imageSeconds = (clock.monotonicMs() - began) / 1000;

  // A new world each time, but for keys and images.
  for (const file of ['halligan.db', 'halligan.db-wal', 'halligan.db-shm'])
    rmSync(join(dataDir, file), { force: true });
  rmSync(join(dataDir, 'consoles'), { recursive: true, force: true });

  const key = await operatorKey(options.dir);
  const specs: LabNodeSpec[] = Array.from({ length: options.nodes }, (_, i) => ({
    name: `n${String(i + 1).padStart(2, '0')}`,
    firmware: options.firmware ?? (i % 2 === 0 ? 'bios' : 'uefi'),
    disks: [8],
    memoryMiB: 1024,
    bmc: i % 2 === 0 ? 'ipmi' : 'redfish',
  }));
  say(`Lab: ${specs.map(n => `${n.name} (${n.firmware?.toUpperCase()}, BMC by ${n.bmc})`).join(', ')}.`);
  const lab = await deps.labUp({
    dir: labDir,
    name: options.labName ?? 'demo',
    nodes: specs,
    dataDir,
    siteNodes: true,
    sshKeys: [key.public],
  });
  say(`  Network namespace ${lab.netns}; ${lab.accel.toUpperCase()}: ${lab.accelReason}`);

  const server = startServerProcess(lab, deps.self, join(options.dir, 'server.log'));
  let client: DemoClient | undefined;
  try {
    client = await connected(join(dataDir, 'halligan.sock'), server, clock, signal);
    say(`Server: process ${server.pid}, log in ${join(options.dir, 'server.log')}.`);
    const nodes = await installAll(options, deps, lab, client, key, say);
    const report: DemoReport = {
      nodes,
      accel: lab.accel,
      wallSeconds: Math.round((clock.monotonicMs() - began) / 100) / 10,
      server: { rssMaxMiB: server.usage().rssMaxMiB },
      imageSeconds: Math.round(imageSeconds * 10) / 10,
    };
    if (options.report) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`);
    finish(options, report, lab, key, print);
    if (options.keep && !signal.aborted) {
      say('Everything is left running. Ctrl-C ends it and cleans up.');
      while (!signal.aborted) await sleep(60_000, signal);
    }
    return report;
  } finally {
    await client?.close();
    await server.stop();
    await deps.labDown(lab);
  }
}

/** A key pair for the operator of a lab, made once per folder. */
export async function operatorKey(dir: string): Promise<{ file: string; public: string }> {
  const file = join(dir, 'operator-key');
  if (!existsSync(file)) await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'demo-operator', '-f', file]);
  return { file, public: readFileSync(`${file}.pub`, 'utf8').trim() };
}

async function installAll(
  options: DemoOptions,
  deps: DemoDeps,
  lab: Lab,
  client: DemoClient,
  key: { file: string },
  say: (text: string) => void,
): Promise<DemoNode[]> {
  const { clock, signal } = deps;
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const events = new Map<string, FeedEvent[]>();
  let lastLine = clock.monotonicMs();
  const known = new Map(
    (await client.get<{ nodes: NodeView[] } | NodeView[]>('/nodes').then(listOf)).map(n => [n.id, n]),
  );
  const following = client.follow(event => {
    if (event.nodeId === null) return;
    deps.onEvent?.(event);
    const list = events.get(event.nodeId) ?? [];
    list.push(event);
    events.set(event.nodeId, list);
    const node = known.get(event.nodeId);
    if (!node || !SHOWN.test(event.type)) return;
    lastLine = clock.monotonicMs();
    const text = event.message.startsWith(`${node.name}: `) ? event.message.slice(node.name.length + 2) : event.message;
    say(`${node.name}  ${text}`);
  }, both);

  const poweredMs = new Map<string, number>();
  const results = await Promise.all(
    [...known.values()].map(async node => {
      poweredMs.set(node.id, clock.nowMs());
      const until = clock.monotonicMs() + options.timeoutSeconds * 1000;
      /** Waits for a state; a failure state or the end of the time is the node's end. */
      const reach = async (state: string): Promise<NodeView> => {
        for (;;) {
          const now = await client.get<NodeView>(`/nodes/${node.id}`);
          if (now.state === state) return now;
          if (now.state.endsWith('-failed') || now.maintenance !== null) fail('install-failed', now.sentence);
          if (clock.monotonicMs() > until) fail('timed-out', `after ${options.timeoutSeconds} s: ${now.sentence}`);
          if (both.aborted) fail('aborted', `stopped: ${now.sentence}`);
          if (clock.monotonicMs() - lastLine > QUIET_MS) {
            lastLine = clock.monotonicMs();
            say(`${now.name}  ${now.sentence}`);
          }
          await sleep(500, both);
        }
      };
      const act = (action: string, params = {}) => client.post(`/nodes/${node.id}/actions`, { action, params });
      try {
        await act('inspect');
        await reach('available');
        await act('claim');
        await act('install', { image: options.image });
        const done = await reach('installed');
        const proof = await proveSsh(lab, done, key.file, options.dir);
        say(`${node.name}  SSH as an operator: ${proof}`);
        return { node: done, result: 'installed' as const };
      } catch (error) {
        const problem = asProblem(error, 'install-failed');
        say(`${node.name}  FAILED: ${problem.message} ${problem.hint}`);
        return { node, result: 'failed' as const, reason: problem.message };
      }
    }),
  );
  // The last events may still be on their way through the stream.
  await sleep(500);
  stop.abort();
  await following;
  const cpu: Record<string, number> = await deps.labCpuSeconds(lab).catch(() => ({}));
  return results.map(({ node, result, ...rest }) => ({
    name: node.name,
    firmware: lab.nodes.find(n => n.name === node.name)?.firmware ?? 'bios',
    image: options.image,
    result,
    ...('reason' in rest && rest.reason !== undefined ? { reason: rest.reason } : {}),
    ...stageSeconds(events.get(node.id) ?? [], poweredMs.get(node.id) ?? 0),
    cpuSeconds: cpu[node.name] ?? null,
    address: node.status.os?.address ?? null,
    login: node.status.os?.login ?? null,
  }));
}

const listOf = (answer: { nodes: NodeView[] } | NodeView[]): NodeView[] =>
  Array.isArray(answer) ? answer : answer.nodes;

/** A real ssh, with the operator's key and only the host key that the server knows. */
async function proveSsh(lab: Lab, node: NodeView, keyFile: string, dir: string): Promise<string> {
  const { os } = node.status;
  if (!os) return fail('ssh-failed', `${node.name} has no record of its system`);
  const known = join(dir, `known-hosts-${node.name}`);
  writeFileSync(known, `${os.address} ${os.hostKey}\n`, { mode: 0o600 });
  const { stdout } = await run(
    'ip',
    [
      ...['netns', 'exec', lab.netns, 'ssh', '-i', keyFile, '-o', `UserKnownHostsFile=${known}`],
      ...[
        '-o',
        'StrictHostKeyChecking=yes',
        '-o',
        'BatchMode=yes',
        '-o',
        'ConnectTimeout=20',
        `${os.login}@${os.address}`,
      ],
      '. /etc/os-release; echo "$(hostname) runs $PRETTY_NAME, Linux $(uname -r), root on $(findmnt -no SOURCE /)"',
    ],
    { timeout: 60_000 },
  );
  return stdout.trim();
}

function finish(
  options: DemoOptions,
  report: DemoReport,
  lab: Lab,
  key: { file: string },
  print: (line: string) => void,
): void {
  const done = report.nodes.filter(n => n.result === 'installed').length;
  print('');
  print('Seconds per stage, from power-on by BMC to SSH in the installed system:');
  print('');
  print(stageTable(report.nodes));
  print('');
  for (const stage of STAGES) print(`  ${stage.padEnd(9)} ${STAGE_TEXT[stage]}`);
  print('');
  print(
    `${done} of ${report.nodes.length} nodes answer SSH. Server memory: ${report.server.rssMaxMiB ?? '?'} MiB at most. ` +
      `Images: ${report.imageSeconds} s of ${report.wallSeconds} s in all.`,
  );
  if (options.report) print(`Report: ${options.report}`);
  const socket = join(lab.dataDir, 'halligan.sock');
  const cli = `npm run -s halligan -- --socket ${shWord(socket)}`;
  const first = report.nodes[0];
  print('');
  print(options.keep ? 'Try next, in another terminal:' : 'Try next (with --keep everything stays up until Ctrl-C):');
  print(`  ${cli} node list`);
  print(`  ${cli} node why ${first?.name ?? 'n01'}`);
  print(`  ${cli} node release ${first?.name ?? 'n01'} --yes`);
  if (first?.address) print(`  ip netns exec ${lab.netns} ssh -i ${shWord(key.file)} ${first.login}@${first.address}`);
  print(`  less ${shWord(join(lab.dir, 'site.yaml'))}`);
}

/** Quoted only where a shell would take it apart. */
const shWord = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : shQuote(text));
