/** `halligan node …` */
import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { sleep } from '../core/clock.js';
import { EXIT, type ExitCode, fail, PROBLEMS, type Problem } from '../core/problem.js';
import { reachedAt, readFilter } from '../node/filter.js';
import { isFailure, isWorking, type NodeAction, stateLabel } from '../node/lifecycle.js';
import { planAction } from '../node/plan.js';
import type { ActionParams, NodeView, Why } from '../node/service.js';
import type { PowerState } from '../power/types.js';
import { attachConsole } from './console.js';
import {
  type Context,
  collect,
  command,
  type ItemResult,
  parseCount,
  parseDuration,
  usage,
  watch,
  withFormat,
} from './context.js';
import type { CliDeps } from './deps.js';
import { age, type Colour, type Column, gibibytes, gigabytes, rackText, render, sheet, time } from './output.js';

const POLL_MS = 1000;
const POWER = ['status', 'on', 'off', 'cycle'] as const;
type PowerWord = (typeof POWER)[number];

const path = (selector: string) => `/nodes/${encodeURIComponent(selector)}`;

const stateColour = (n: NodeView): Colour | null =>
  isFailure(n.state) || n.overdue
    ? 'red'
    : isWorking(n.state)
      ? 'yellow'
      : ['installed', 'ready'].includes(n.state)
        ? 'green'
        : null;

const flags = (n: NodeView) =>
  [n.overdue ? 'overdue' : '', n.maintenance === null ? '' : 'maintenance'].filter(Boolean).join(', ');

const columns = (nowMs: number): Column<NodeView>[] => [
  { title: 'NAME', cell: n => n.name },
  { title: 'STATE', cell: n => n.label + (flags(n) ? ` (${flags(n)})` : ''), colour: stateColour },
  { title: 'FOR', cell: n => age(nowMs - n.stateSinceMs) },
  { title: 'POWER', cell: n => n.status.power?.state },
  { title: 'ADDRESS', cell: reachedAt },
  { title: 'MAC', cell: n => n.macs[0] },
  { title: 'IMAGE', cell: n => n.status.os?.image },
  { title: 'SERIAL', cell: n => n.serial, wide: true },
  { title: 'FIRMWARE', cell: n => n.status.platform, wide: true },
  { title: 'SOURCE', cell: n => n.source, wide: true },
  { title: 'ROLES', cell: n => n.spec.roles.join(','), wide: true },
  { title: 'WHAT', cell: n => n.sentence, wide: true },
];

export function addNodeCommands(program: Command, deps: CliDeps): void {
  const node = program.command('node').description('physical machines');
  const names = '<names...>';
  const about = 'name, MAC, serial number, or an unambiguous prefix of one';

  withFormat(node.command('list').description('list nodes'))
    .argument('[filter...]', 'terms that must all hold: state:failed "ram>=64" rack:B2 -power:on, or a part of a name')
    .option('--state <state>', 'only nodes in this state')
    .option('-w, --watch', 'print again and again until Ctrl-C')
    .action(
      command(deps, async (context, terms: string[], options: { state?: string; watch?: boolean }) => {
        const filter = readFilter(
          [...terms, ...(options.state === undefined ? [] : [`state:${options.state}`])].join(' '),
        );
        if (!filter.ok) return usage(filter.sentence);
        const draw = async () => {
          const { nodes } = await context.api().json<{ nodes: NodeView[] }>('GET', '/nodes');
          return render(nodes.filter(filter.matches), {
            format: context.format,
            colour: context.colour,
            columns: columns(deps.clock.nowMs()),
            name: n => n.name,
            empty: 'No nodes. Machines that boot from the network appear by themselves.',
          });
        };
        if (options.watch) await watch(context, draw);
        else context.out(await draw());
      }),
    );

  withFormat(node.command('show').argument(names, about).description('show everything about nodes')).action(
    command(deps, async (context, selectors: string[]) => {
      const found: NodeView[] = [];
      const failed = await eachOf(selectors, async s => void found.push(await context.api().json('GET', path(s))));
      if (['json', 'yaml', 'name'].includes(context.format))
        context.print(found, {
          columns: columns(0),
          name: n => n.name,
          value: selectors.length === 1 && found.length === 1 ? found[0] : found,
        });
      else context.out(found.map(n => describeNode(n, deps.clock.nowMs())).join('\n'));
      return tellFailures(context, failed, selectors.length);
    }),
  );

  node
    .command('add')
    .description('add a node before it is seen')
    .argument('<name>', 'its name')
    .option('--mac <mac>', 'MAC address of a NIC; may be given several times', collect)
    .option('--uuid <uuid>', 'SMBIOS UUID')
    .option('--serial <serial>', 'serial number')
    .option('--address <address>', 'reserved address')
    .option('--role <role>', 'role; may be given several times', collect)
    .option('--bmc <driver>', 'ipmi, redfish or manual')
    .option('--bmc-address <address>', 'where the BMC answers')
    .option('--bmc-user <user>', 'account on the BMC')
    .option('--bmc-password <reference>', 'file:/PATH, env:NAME or secret:NAME; never the password itself')
    .action(
      command(deps, async (context, name: string, options: Record<string, string & string[]>) => {
        const added = await context.api().json<NodeView>('POST', '/nodes', {
          name,
          macs: options['mac'] ?? [],
          ...pick(options, 'uuid', 'serial', 'address'),
          ...(options['role'] ? { roles: options['role'] } : {}),
          ...bmcOf(options),
        });
        return context.results([{ item: added.name, ok: true, message: `${added.label}.` }]);
      }),
    );

  node
    .command('update')
    .description('change what you said about a node')
    .argument('<name>', about)
    .option('--name <name>', 'new name')
    .option('--address <address>', 'reserved address; "none" to let us choose')
    .option('--role <role>', 'its roles from now on; may be given several times', collect)
    .option('--image <image>', 'image of its next installation')
    .option('--bmc <driver>', 'ipmi, redfish, manual or none')
    .option('--bmc-address <address>', 'where the BMC answers')
    .option('--bmc-user <user>', 'account on the BMC')
    .option('--bmc-password <reference>', 'file:/PATH, env:NAME or secret:NAME; never the password itself')
    .option('--maintenance <reason>', 'take it out of use')
    .option('--no-maintenance', 'end its maintenance')
    .action(
      command(deps, async (context, name: string, options: Record<string, string & string[] & boolean>) => {
        const change: Record<string, unknown> = {
          ...pick(options, 'name'),
          ...(options['address'] ? { address: options['address'] === 'none' ? null : options['address'] } : {}),
          ...(options['role'] ? { roles: options['role'] } : {}),
          ...(options['bmc'] === 'none' ? { bmc: null } : bmcOf(options)),
          ...(options['maintenance'] === undefined || options['maintenance'] === true
            ? {}
            : { maintenance: options['maintenance'] === false ? null : options['maintenance'] }),
        };
        if (options['image']) {
          const now = await context.api().json<NodeView>('GET', path(name));
          change['install'] = { ...now.spec.install, image: options['image'] };
        }
        if (Object.keys(change).length === 0) usage('Nothing to change was named.');
        const changed = await context.api().json<NodeView>('PATCH', path(name), change);
        return context.results([{ item: changed.name, ok: true, message: changed.sentence }]);
      }),
    );

  /** Roles by word: what a node does in the cloud from the next apply on. */
  const roles = (name: 'assign' | 'unassign', description: string) =>
    withFormat(node.command(name).argument(names, about).description(description))
      .requiredOption('--role <role>', 'name of a role; may be given several times', collect)
      .action(
        command(deps, async (context, selectors: string[], options: { role: string[] }) => {
          const results: ItemResult[] = [];
          const failed = await eachOf([...new Set(selectors)], async item => {
            const change = name === 'assign' ? { add: options.role } : { remove: options.role };
            const changed = await context.api().json<NodeView>('POST', `${path(item)}/roles`, change);
            results.push({ item, ok: true, message: `Roles: ${changed.spec.roles.join(', ') || 'none'}.` });
          });
          return context.results(inOrder(selectors, [...results, ...failed]));
        }),
      );
  roles('assign', 'give nodes roles in the cloud; halligan apply lays them down');
  roles('unassign', 'take roles from nodes');

  node
    .command('remove')
    .description('forget nodes; their disks stay as they are')
    .argument(names, about)
    .action(
      command(deps, async (context, selectors: string[]) => {
        const results: ItemResult[] = [];
        const failed = await eachOf(selectors, async item => {
          await context.api().json('DELETE', path(item));
          results.push({ item, ok: true, message: 'Forgotten.' });
        });
        return context.results(inOrder(selectors, [...results, ...failed]));
      }),
    );

  /** An action of the lifecycle as a command. */
  const action = (name: NodeAction, description: string, configure: (c: Command) => Command = c => c) =>
    configure(withFormat(node.command(name).argument(names, about).description(description)))
      .option('--wait', 'wait until the work is done')
      .addOption(
        new Option('--timeout <duration>', 'with --wait: give up after this time')
          .argParser(parseDuration)
          .default(3_600_000, '1h'),
      )
      .option('--dry-run', 'print what would be done, and do nothing')
      .action(
        command(deps, (context, selectors: string[], options: ActionOptions) => act(context, name, selectors, options)),
      );
  action('claim', 'take available nodes for this site', c =>
    c
      .option('--name <name>', 'name of the node from now on')
      .option('--no-profile', 'without what would follow from its hardware profile'),
  );
  action('unclaim', 'give claimed nodes back');
  action('inspect', 'read the hardware again');
  action('install', 'install the operating system', c =>
    c
      .option('--image <image>', 'image instead of the one that is set')
      .option('--layout <layout>', 'plain, lvm or mdraid instead of what is set')
      .option('--wipe', 'data on the chosen disks that is not ours may go')
      .option('--yes', 'do not ask'),
  );
  action('release', 'erase nodes and give them back', c =>
    c
      .option('--erase <how>', 'quick (signatures) or full (every block)')
      .option('--wipe', 'disks with data that is not ours, too')
      .option('--yes', 'do not ask'),
  );
  action('rescue', 'boot the RAM environment, with a shell for the operators’ keys');
  action('end-rescue', 'leave the rescue');
  action('abort', 'stop the work that is under way');

  withFormat(node.command('power'))
    .description('ask for the power of nodes, or switch it')
    .argument('<names...>', `${about}; then status, on, off or cycle`)
    .action(
      command(deps, async (context, words: string[]) => {
        const last = words.at(-1) as PowerWord;
        const selectors = POWER.includes(last) ? words.slice(0, -1) : words;
        if (selectors.length === 0) usage('Name a node, then status, on, off or cycle.');
        const order: PowerWord = POWER.includes(last) ? last : 'status';
        const answer = await context.api().json<{
          results: { item: string; ok: boolean; power?: PowerState; problem?: Problem }[];
        }>('POST', '/nodes/power', { nodes: [...new Set(selectors)], action: order });
        return context.results(
          answer.results.map(r => ({
            item: r.item,
            ok: r.ok,
            message: r.ok ? String(r.power) : (r.problem?.message ?? ''),
            ...(r.problem ? { problem: r.problem } : {}),
          })),
        );
      }),
    );

  node
    .command('console')
    .description('the serial console; leave with ~. at the beginning of a line')
    .argument('<name>', about)
    .option('--bytes <count>', 'begin with this much of the recording', parseCount(0, 1_048_576), 4096)
    .option('--tail', 'print the recording and end')
    .action(
      command(deps, async (context, name: string, options: { bytes: number; tail?: boolean }) => {
        await attachConsole(context, `${path(name)}/console`, options);
      }),
    );

  withFormat(
    node.command('why').argument('<name>', about).description('why a node is where it is, and what is next'),
  ).action(
    command(deps, async (context, name: string) => {
      const why = await context.api().json<Why>('GET', `${path(name)}/why`);
      if (context.format === 'json' || context.format === 'yaml')
        context.print([why], { columns: [], name: w => w.node.name, value: why });
      else context.out(describeWhy(why));
    }),
  );

  node
    .command('adopt')
    .description('take over an installed host by SSH, without wiping it')
    .argument('<address>', 'address or host name')
    .option('--name <name>', 'name of the node; its host name when left out')
    .option('--user <user>', 'user to log in as, root or one with sudo', 'root')
    .option('--port <port>', 'port of its sshd', parseCount(1, 65_535))
    .option('--host-key <key>', 'its host key, or the fingerprint SHA256:… that you compared')
    .option('--key <file>', 'private key for this first visit; never stored')
    .action(
      command(deps, async (context, address: string, options: Record<string, string> & { port?: number }) => {
        const adopted = await context.api().json<NodeView>('POST', '/nodes/adopt', {
          address,
          user: options['user'],
          ...pick(options, 'name', 'port', 'hostKey'),
          ...(options['key'] ? { privateKey: readKey(options['key']) } : {}),
        });
        return context.results([{ item: adopted.name, ok: true, message: `Adopted: ${adopted.sentence}` }]);
      }),
    );
}

interface ActionOptions extends ActionParams {
  wait?: boolean;
  timeout: number;
  dryRun?: boolean;
  yes?: boolean;
}

async function act(
  context: Context,
  action: NodeAction,
  selectors: string[],
  options: ActionOptions,
): Promise<ExitCode> {
  const api = context.api();
  const wanted = [...new Set(selectors)];
  if (options.name !== undefined && wanted.length > 1) usage('--name is for one node at a time.');
  const params: ActionParams = {
    ...pick(options, 'image', 'wipe', 'layout', 'erase', 'name'),
    ...(options.profile === false ? { profile: false } : {}),
  };

  // Looked up before anything is done, so that a misspelt name stops the command before it half happened.
  const before = new Map<string, NodeView>();
  const unknown = await eachOf(wanted, async s => void before.set(s, await api.json('GET', path(s))));
  if (options.dryRun) {
    const plan = [...before.values()].map(n => planAction(n, action, params));
    context.print(plan, {
      name: p => p.node,
      columns: [
        { title: 'NODE', cell: p => p.node },
        { title: 'ACTION', cell: p => p.action },
        {
          title: 'POSSIBLE',
          cell: p => (p.refusal === null ? 'yes' : 'no'),
          colour: p => (p.refusal ? 'red' : 'green'),
        },
        { title: 'DESTROYS', cell: p => p.destroys.join('; ') },
        { title: 'INTERRUPTS', cell: p => p.interrupts.join('; ') },
        { title: 'ABOUT', cell: p => (p.expectedSeconds === null ? null : `${Math.ceil(p.expectedSeconds / 60)} min`) },
        { title: 'REFUSED', cell: p => p.refusal },
      ],
    });
    if (unknown.length > 0) return tellFailures(context, unknown, wanted.length);
    return plan.every(p => p.refusal === null)
      ? EXIT.ok
      : plan.some(p => p.refusal === null)
        ? EXIT.partly
        : EXIT.refused;
  }
  const plans = [...before.values()].map(n => planAction(n, action, params));
  const losing = plans.filter(p => p.refusal === null && p.destroys.length > 0);
  if (losing.length > 0)
    await context.confirm(
      `${action} destroys: ${losing.map(p => `${p.node}: ${p.destroys.join(', ')}`).join('; ')}.`,
      losing.map(p => p.node),
      options.yes,
    );

  const known = wanted.filter(s => before.has(s));
  const answer =
    known.length === 0
      ? { results: [] }
      : await api.json<{ results: { item: string; ok: boolean; node?: NodeView; problem?: Problem }[] }>(
          'POST',
          '/nodes/actions',
          { nodes: known, action, params },
        );
  let results: ItemResult[] = answer.results.map(r => ({
    item: r.item,
    ok: r.ok,
    message: r.ok ? (r.node?.sentence ?? '') : (r.problem?.message ?? ''),
    ...(r.problem ? { problem: r.problem } : {}),
  }));
  if (options.wait) {
    const deadline = context.deps.clock.monotonicMs() + options.timeout;
    const ordered = answer.results.filter(r => r.ok).map(r => r.item);
    const ends = await Promise.all(ordered.map(s => settled(context, s, before.get(s)!, action, deadline)));
    results = results.map(r => ends.find(e => e.item === r.item) ?? r);
  }
  return context.results(inOrder(wanted, [...results, ...unknown]));
}

/** Waits until the node rests after the order: where the action leads, or in a failure. */
async function settled(
  context: Context,
  item: string,
  before: NodeView,
  action: NodeAction,
  deadlineMs: number,
): Promise<ItemResult> {
  const { clock, signal } = context.deps;
  let said = '';
  // By id: claim may have given another name.
  const { id } = before;
  while (!signal.aborted) {
    const node = await context.api().json<NodeView>('GET', path(id));
    if (node.sentence !== said) {
      said = node.sentence;
      context.note(`${node.name}: ${said}`);
    }
    const moved = node.state !== before.state || node.stateSinceMs !== before.stateSinceMs;
    if (moved && !isWorking(node.state)) {
      if (!isFailure(node.state) || action === 'abort') return { item, ok: true, message: node.sentence };
      const p = node.failure;
      return { item, ok: false, message: p?.message ?? node.sentence, ...(p ? { problem: p } : {}) };
    }
    const left = deadlineMs - clock.monotonicMs();
    if (left <= 0) {
      const entry = PROBLEMS['timed-out'];
      const message = `${node.name} is still ${stateLabel(node.state)}: ${node.waitingFor ?? node.sentence}`;
      return { item, ok: false, message, problem: { code: 'timed-out', message, hint: entry.hint, retry: true } };
    }
    await sleep(Math.min(POLL_MS, left), signal);
  }
  return fail('timed-out', `The wait for ${before.name} was interrupted; the work goes on in the server.`);
}

/** Runs each in turn; what the server refuses becomes a result. */
async function eachOf(items: readonly string[], work: (item: string) => Promise<void>): Promise<ItemResult[]> {
  const failed: ItemResult[] = [];
  for (const item of items) {
    try {
      await work(item);
    } catch (error) {
      const p = (error as { problem?: Problem }).problem;
      // Without a server, the next name has no better luck.
      if (!p || p.code === 'server-unreachable') throw error;
      failed.push({ item, ok: false, message: p.message, problem: p });
    }
  }
  return failed;
}

const inOrder = (items: readonly string[], results: readonly ItemResult[]): ItemResult[] =>
  [...new Set(items)].flatMap(item => results.filter(r => r.item === item));

/** For commands whose standard output is the data itself: failures go to standard error. */
function tellFailures(context: Context, failed: readonly ItemResult[], of: number): ExitCode {
  for (const f of failed) context.deps.stderr.write(`error: ${f.message}\n`);
  for (const hint of new Set(failed.flatMap(f => f.problem?.hint ?? []))) context.note(`hint: ${hint}`);
  if (failed.length === 0) return EXIT.ok;
  if (failed.length < of) return EXIT.partly;
  return (failed[0]!.problem && PROBLEMS[failed[0]!.problem.code]?.exit) ?? EXIT.failed;
}

const pick = <T extends object, K extends string>(from: T, ...keys: K[]): Record<K, never> | object =>
  Object.fromEntries(
    keys
      .filter(k => (from as Record<string, unknown>)[k] !== undefined)
      .map(k => [k, (from as Record<string, unknown>)[k]]),
  );

function bmcOf(options: Record<string, unknown>): object {
  const given = ['bmcAddress', 'bmcUser', 'bmcPassword'].some(k => options[k] !== undefined);
  if (options['bmc'] === undefined) {
    if (given) usage('--bmc-address, --bmc-user and --bmc-password need --bmc ipmi, redfish or manual.');
    return {};
  }
  return {
    bmc: {
      driver: options['bmc'],
      ...(options['bmcAddress'] === undefined ? {} : { address: options['bmcAddress'] }),
      ...(options['bmcUser'] === undefined ? {} : { user: options['bmcUser'] }),
      ...(options['bmcPassword'] === undefined ? {} : { password: options['bmcPassword'] }),
    },
  };
}

function readKey(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    return usage(`The key ${file} cannot be read: ${(error as Error).message}.`);
  }
}

function describeNode(n: NodeView, nowMs: number): string {
  const { inventory: i } = n.status;
  const text = sheet([
    ['Name', n.name],
    ['State', `${n.label} for ${age(nowMs - n.stateSinceMs)}${flags(n) ? ` (${flags(n)})` : ''}`],
    ['What', n.sentence],
    ['Failure', n.failure?.message],
    ['Next', n.failure?.hint],
    ['Maintenance', n.maintenance],
    ['Possible now', n.actions.join(', ')],
    ['Address', reachedAt(n)],
    ['MACs', n.macs.join(', ')],
    ['Serial', n.serial],
    ['UUID', n.uuid],
    ['Firmware', n.status.platform],
    ['Power', n.status.power?.state],
    ['BMC', n.spec.bmc ? `${n.spec.bmc.driver} ${n.spec.bmc.address ?? ''}`.trim() : null],
    ['Roles', n.spec.roles.join(', ')],
    ['Profile', n.status.profile ? `${n.status.profile.name}, number ${n.status.profile.number}` : null],
    ['Rack', rackText(n.spec.rack)],
    ['Image', n.status.os?.image],
    ['SSH', n.status.os ? `${n.status.os.login}@${n.status.os.address}` : null],
    ['Source', n.source],
    ['Id', n.id],
    ['Warnings', n.status.warnings.join('; ')],
  ]);
  if (!i) return text;
  const hardware = sheet([
    ['Machine', [i.system.manufacturer, i.system.product].filter(Boolean).join(' ')],
    ['CPU', `${i.cpu.model ?? i.cpu.arch}, ${i.cpu.sockets} sockets, ${i.cpu.cores} cores, ${i.cpu.threads} threads`],
    ['Memory', gibibytes(i.memory.totalBytes)],
    ...i.disks.map(d => ['Disk', diskText(d)] as const),
    ...i.nics.map(
      c =>
        [
          'NIC',
          `${c.name} ${c.mac} ${c.driver ?? ''} ${c.carrier ? `${c.speedMbps ?? '?'} Mb/s` : 'no link'}${c.lldp ? `, ${c.lldp.system ?? c.lldp.chassis} ${c.lldp.port}` : ''}`,
        ] as const,
    ),
  ]);
  return `${text}\n${hardware}`;
}

const diskText = (d: NonNullable<NodeView['status']['inventory']>['disks'][number]) =>
  [
    d.path,
    gigabytes(d.sizeBytes),
    d.type,
    d.model,
    d.serial ? `serial ${d.serial}` : null,
    d.ownedBy
      ? 'ours'
      : d.signatures.length > 0
        ? `carries ${[...new Set(d.signatures.map(s => s.type))].join(', ')}`
        : 'blank',
  ]
    .filter(Boolean)
    .join(' ');

function describeWhy(why: Why): string {
  const section = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? '' : `\n${title}\n${lines.map(l => `  ${l}`).join('\n')}\n`;
  const { node } = why;
  return (
    sheet([
      ['Node', node.name],
      ['State', `${node.label}${flags(node) ? ` (${flags(node)})` : ''}`],
      ['What', node.sentence],
      ['Failure', node.failure?.message],
      ['Next', why.next],
    ]) +
    section(
      'How it came here',
      why.history.map(h => `${time(h.atMs)}  ${h.from ?? '-'} -> ${h.to}  ${clean(h.reason)}`),
    ) +
    section(
      why.run ? `Run ${why.run.id} (${why.run.kind}, ${why.run.state})` : 'Run',
      why.run?.steps.map(
        s =>
          `${time(s.beforeMs)}  ${s.step}${s.attempt > 0 ? ` (try ${s.attempt + 1})` : ''}  ${s.state === 'after' ? `done in ${age((s.afterMs ?? s.beforeMs) - s.beforeMs)}` : s.state === 'before' ? 'under way' : 'failed'}`,
      ) ?? [],
    ) +
    section(
      'Events',
      why.events.map(e => `${time(e.atMs)}  ${e.type}  ${clean(e.message)}`),
    ) +
    section(
      'Boot trace',
      why.trace.map(
        t => `${time(t.atMs)}  ${t.layer.padEnd(9)}${t.silent ? '  (no answer)' : ''}  ${clean(t.message)}`,
      ),
    )
  );
}

const clean = (text: string) => text.replace(/[\t\n\r]+/g, ' ').replace(/[\p{Cc}\p{Bidi_Control}]/gu, '');

/** Actions of the table that have no command, for the test that none is forgotten. */
export const WITHOUT_COMMAND: readonly NodeAction[] = ['apply'];
