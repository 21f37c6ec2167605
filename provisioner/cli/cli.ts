/** The command line: `halligan <object> <action> [names] [--options]`. Built from what the composition root hands in. */
import { createWriteStream, readFileSync, rmSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Command, CommanderError, Option } from 'commander';
import type { Lease, ServiceHealth } from '../api/services.js';
import { sleep } from '../core/clock.js';
import { DEFAULT_RELEASE, ROLE_NAMES } from '../core/cloud-settings.js';
import type { FeedEvent } from '../core/events.js';
import type { Run, StepRow } from '../core/journal.js';
import { EXIT, fail, type Problem, ProblemError } from '../core/problem.js';
import type { TraceEntry } from '../core/trace.js';
import type { ImageManifest } from '../image/types.js';
import { cloudSettings } from '../site/cloud.js';
import { readSite } from '../site/files.js';
import { parseSse } from './client.js';
import { addCloudCommands } from './cloud.js';
import {
  type Context,
  command,
  dataDirOf,
  explainFailure,
  parseCount,
  parseDuration,
  usage,
  watch,
  withFormat,
} from './context.js';
import type { CliDeps, LabReport } from './deps.js';
import { addNodeCommands } from './node.js';
import { age, plain, render, time } from './output.js';
import { addSiteCommands } from './site.js';

export type { CliDeps } from './deps.js';

/** Every command of `halligan`; `runCli` parses arguments with it. */
export function buildCli(deps: CliDeps): Command {
  const program = new Command('halligan')
    .description('From a rack of bare servers to a proved cloud.')
    .version(deps.version)
    .option('--socket <path>', 'Unix socket of the server (HALLIGAN_SOCKET)')
    .configureOutput({
      writeOut: text => void deps.stdout.write(text),
      writeErr: text => void deps.stderr.write(text),
      getOutHelpWidth: () => deps.stdout.columns ?? 100,
      getErrHelpWidth: () => deps.stderr.columns ?? 100,
    })
    .showHelpAfterError('(see --help)')
    .exitOverride();

  program
    .command('serve')
    .description('run the server: DHCP, TFTP, HTTP boot, API, state loop')
    .option('--site <file>', 'the site file', '/etc/halligan/site.yaml')
    .action(
      command(deps, async (_context, options: { site: string }) => deps.serve({ loaded: readSite(options.site) })),
    );

  addNodeCommands(program, deps);
  addCloudCommands(program, deps);
  addBoot(program, deps);
  addImages(program, deps);
  addEvents(program, deps);
  addRuns(program, deps);
  addSiteCommands(program, deps);
  addLab(program, deps);
  addOperations(program, deps);
  // Sub-commands made above inherit neither by themselves.
  const inherit = (c: Command) => {
    for (const sub of c.commands) {
      sub.copyInheritedSettings(c);
      inherit(sub);
    }
  };
  inherit(program);
  return program;
}

/**
 * Parses and runs. Ends with `deps.exit(code)`, also for usage errors (2) and help (0).
 * @param args without node and script
 */
export async function runCli(deps: CliDeps, args: readonly string[]): Promise<void> {
  try {
    await buildCli(deps).parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return deps.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage);
    deps.exit(explainFailure(deps, error));
  }
}

function addBoot(program: Command, deps: CliDeps): void {
  const boot = program.command('boot').description('how machines boot from the network');
  withFormat(
    boot
      .command('trace')
      .argument('<mac>', 'MAC address')
      .description('what a MAC asked, what it got, and why it got nothing'),
  )
    .option('--limit <count>', 'newest lines', parseCount(1, 2000), 200)
    .option('-w, --watch', 'print again and again until Ctrl-C')
    .action(
      command(deps, async (context, mac: string, options: { limit: number; watch?: boolean }) => {
        const draw = async () => {
          const answer = await context
            .api()
            .json<{ mac: string; trace: TraceEntry[] }>(
              'GET',
              `/boot/trace/${encodeURIComponent(mac)}?limit=${options.limit}`,
            );
          return render(answer.trace, {
            format: context.format,
            value: answer,
            name: t => t.message,
            columns: [
              { title: 'TIME', cell: t => time(t.atMs) },
              { title: 'LAYER', cell: t => t.layer },
              { title: 'ANSWER', cell: t => (t.silent ? 'none' : 'yes') },
              { title: 'WHAT', cell: t => t.message },
              { title: 'DATA', cell: t => JSON.stringify(t.data), wide: true },
            ],
            empty: `Nothing was heard from ${plain(answer.mac)}. Check cable, VLAN, and the relay of its subnet.`,
          });
        };
        if (options.watch) await watch(context, draw);
        else context.out(await draw());
      }),
    );

  const lease = program.command('lease').description('DHCP leases');
  withFormat(lease.command('list').description('list leases'))
    .option('--network <name>', 'only this network')
    .action(
      command(deps, async (context, options: { network?: string }) => {
        const query = options.network === undefined ? '' : `?network=${encodeURIComponent(options.network)}`;
        const { leases } = await context.api().json<{ leases: Lease[] }>('GET', `/leases${query}`);
        context.print(leases, {
          name: l => l.ip,
          columns: [
            { title: 'ADDRESS', cell: l => l.ip },
            { title: 'MAC', cell: l => l.mac },
            { title: 'STATE', cell: l => l.state },
            { title: 'NETWORK', cell: l => l.network },
            { title: 'HOSTNAME', cell: l => l.hostname },
            { title: 'EXPIRES', cell: l => time(l.expiresMs) },
          ],
          empty: 'No leases.',
        });
      }),
    );
}

const bytesOf = (image: ImageManifest): number =>
  image.kind === 'os'
    ? (image.disk?.bytes ?? 0) + (image.root?.bytes ?? 0)
    : image.kernel.bytes + image.initrd.bytes + (image.kind === 'guest' ? image.disk.bytes : 0);

function printImages(context: Context, images: readonly ImageManifest[], value?: unknown): void {
  context.print(images, {
    name: i => i.name,
    ...(value === undefined ? {} : { value }),
    columns: [
      { title: 'NAME', cell: i => i.name },
      { title: 'KIND', cell: i => i.kind },
      { title: 'SYSTEM', cell: i => `${i.distribution} ${i.release}` },
      { title: 'SIZE', cell: i => `${Math.round(bytesOf(i) / 1e6)} MB` },
      { title: 'CREATED', cell: i => time(i.createdMs) },
      { title: 'KERNEL', cell: i => (i.kind === 'os' ? i.kernel : i.kernelVersion), wide: true },
      { title: 'INPUTS', cell: i => i.inputHash.slice(0, 12), wide: true },
    ],
    empty: 'No images. Build them: halligan image build ram; halligan image build debian-12.',
  });
}

/** For commands that work on the data directory, as root, server or not. */
const withDataDir = (c: Command): Command =>
  c
    .option('--site <file>', 'site file that names the data directory')
    .option('--data-dir <dir>', 'the data directory itself');

function addImages(program: Command, deps: CliDeps): void {
  const image = program.command('image').description('what nodes run: RAM environment and systems');
  withDataDir(
    withFormat(image.command('list').description('list images; without a server with --site or --data-dir')),
  ).action(
    command(deps, async (context, options: { site?: string; dataDir?: string }) => {
      if (options.site !== undefined || options.dataDir !== undefined)
        return printImages(context, await deps.listImages(dataDirOf(options)));
      const answer = await context.api().json<{ images: ImageManifest[]; broken: Problem[] }>('GET', '/images');
      printImages(context, answer.images, answer);
      for (const p of answer.broken) context.note(`damaged: ${p.message}`);
    }),
  );
  withDataDir(
    withFormat(
      image
        .command('build')
        .argument(
          '<names...>',
          'ram, ram-cloud, guest (what the proof of the cloud boots), or a release like debian-12',
        ),
    ),
  )
    .description('build images from the distribution’s archive (as root; no server needed)')
    .option('--mirror <url>', 'archive instead of the one in the data')
    .option('--force', 'build although nothing changed')
    .action(
      command(
        deps,
        async (
          context,
          names: string[],
          options: { site?: string; dataDir?: string; mirror?: string; force?: boolean },
        ) => {
          const dataDir = dataDirOf(options);
          const built: ImageManifest[] = [];
          for (const name of names)
            built.push(
              await deps.buildImage(
                { name, dataDir, force: options.force ?? false, ...(options.mirror ? { mirror: options.mirror } : {}) },
                line => context.note(`${name}: ${line}`),
              ),
            );
          printImages(context, built);
        },
      ),
    );
  withDataDir(withFormat(image.command('bake').argument('<roles...>', 'roles whose packages go into it')))
    .description(
      'put the packages of roles into one image, so that nodes need none of them (as root; no server needed)',
    )
    .option('--release <release>', 'release of the cloud; that of the site file, or debian-12-zed')
    .addOption(
      new Option(
        '--kernel <kernel>',
        'generic runs on all hosts; cloud is smaller, for nodes that are virtual machines',
      )
        .choices(['generic', 'cloud'])
        .default('generic'),
    )
    .option('--mirror <url>', 'archive instead of the one in the data')
    .option('--force', 'bake although nothing changed')
    .action(
      command(
        deps,
        async (
          context,
          roles: string[],
          options: {
            site?: string;
            dataDir?: string;
            release?: string;
            kernel: 'generic' | 'cloud';
            mirror?: string;
            force?: boolean;
          },
        ) => {
          const unknown = roles.find(r => !(ROLE_NAMES as readonly string[]).includes(r));
          if (unknown !== undefined)
            fail('role-unknown', `There is no role ${JSON.stringify(unknown)}; there are ${ROLE_NAMES.join(', ')}.`);
          const site = options.site === undefined ? undefined : readSite(options.site).site;
          const cloud = site ? cloudSettings(site) : null;
          const baked = await deps.bakeRoles(
            {
              roles: [...new Set(roles)],
              release: options.release ?? site?.cloud?.release ?? DEFAULT_RELEASE,
              kernel: options.kernel,
              dataDir: dataDirOf(options),
              force: options.force ?? false,
              ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
              ...(cloud ? { cloud } : {}),
            },
            line => context.note(line),
          );
          context.print([baked], {
            name: b => b.name,
            value: baked,
            columns: [
              { title: 'NAME', cell: b => b.name },
              { title: 'ROLES', cell: b => b.roles.join(', ') },
              { title: 'PACKAGES', cell: b => b.packages },
              { title: 'TOOK', cell: b => (b.cached ? 'nothing changed' : `${Math.round(b.seconds)} s`) },
              { title: 'WHERE', cell: b => b.path, wide: true },
            ],
          });
        },
      ),
    );
  withDataDir(withFormat(image.command('import').argument('<url>', 'http or https address of a raw or qcow2 image')))
    .description('fetch a published cloud image (as root; no server needed)')
    .requiredOption('--sha256 <hex>', 'its checksum, from the publisher')
    .option('--name <name>', 'name here; taken from the address when left out')
    .action(
      command(
        deps,
        async (context, url: string, options: { site?: string; dataDir?: string; sha256: string; name?: string }) => {
          if (!/^[0-9a-fA-F]{64}$/.test(options.sha256)) usage('--sha256 expects 64 hexadecimal digits.');
          const imported = await deps.importImage(
            {
              url,
              sha256: options.sha256.toLowerCase(),
              dataDir: dataDirOf(options),
              ...(options.name ? { name: options.name } : {}),
            },
            line => context.note(line),
          );
          printImages(context, [imported]);
        },
      ),
    );
}

const eventLine = (e: FeedEvent) => `${time(e.atMs)}  ${e.severity.padEnd(5)}  ${plain(e.type)}  ${plain(e.message)}\n`;

function addEvents(program: Command, deps: CliDeps): void {
  const event = program.command('event').description('what happens');
  const printOne = (context: Context, e: FeedEvent) =>
    context.out(
      context.format === 'json'
        ? `${JSON.stringify(e)}\n`
        : context.format === 'yaml'
          ? `---\n${render([e], { format: 'yaml', columns: [], name: () => '', value: e })}`
          : context.format === 'name'
            ? `${e.id}\n`
            : eventLine(e),
    );

  withFormat(event.command('list').description('the newest events'))
    .option('--node <name>', 'only those of a node')
    .option('--limit <count>', 'how many', parseCount(1, 1000), 50)
    .action(
      command(deps, async (context, options: { node?: string; limit: number }) => {
        const query = new URLSearchParams({
          limit: String(options.limit),
          ...(options.node ? { node: options.node } : {}),
        });
        const { events } = await context.api().json<{ events: FeedEvent[] }>('GET', `/events?${query}`);
        if (context.format === 'json' || context.format === 'yaml')
          context.print(events, { columns: [], name: e => String(e.id) });
        else for (const e of events) printOne(context, e);
      }),
    );

  withFormat(
    event.command('follow').description('print events as they happen, until Ctrl-C; -o json prints one per line'),
  )
    .option('--node <name>', 'only those of a node')
    .option(
      '--after <number>',
      'begin after this event; 0 for all that are kept',
      parseCount(0, Number.MAX_SAFE_INTEGER),
    )
    .action(
      command(deps, async (context, options: { node?: string; after?: number }) => {
        const query = options.node ? `?node=${encodeURIComponent(options.node)}` : '';
        let last = options.after === undefined ? null : String(options.after);
        let connected = false;
        while (!deps.signal.aborted) {
          try {
            const stream = await context.api().stream(`/events${query}`, {
              headers: { accept: 'text/event-stream', ...(last === null ? {} : { 'last-event-id': last }) },
              signal: deps.signal,
            });
            connected = true;
            for await (const message of parseSse(stream)) {
              last = message.id ?? last;
              if (message.event === 'reload')
                context.note('Some events are missing: they are no longer kept. Going on with the newest.');
              else printOne(context, JSON.parse(message.data) as FeedEvent);
            }
          } catch (error) {
            if (deps.signal.aborted) return;
            // The first connection must work; later the server may be restarting.
            const gone = error instanceof ProblemError ? error.problem.code === 'server-unreachable' : true;
            if (!connected || !gone) throw error;
          }
          if (deps.signal.aborted) return;
          context.note('The server is gone; trying again.');
          await sleep(2000, deps.signal);
        }
      }),
    );
}

function addRuns(program: Command, deps: CliDeps): void {
  const run = program.command('run').description('what the server did, step by step');
  const state = (r: Run) => (r.endedMs === null ? '' : age(r.endedMs - r.createdMs));
  withFormat(run.command('list').description('newest runs'))
    .option('--node <name>', 'only those of a node')
    .option('--limit <count>', 'how many', parseCount(1, 500), 20)
    .action(
      command(deps, async (context, options: { node?: string; limit: number }) => {
        const query = new URLSearchParams({
          limit: String(options.limit),
          ...(options.node ? { node: options.node } : {}),
        });
        const { runs } = await context.api().json<{ runs: Run[] }>('GET', `/runs?${query}`);
        context.print(runs, {
          name: r => r.id,
          columns: [
            { title: 'RUN', cell: r => r.id },
            { title: 'KIND', cell: r => r.kind },
            { title: 'NODE', cell: r => r.nodeId },
            {
              title: 'STATE',
              cell: r => r.state,
              colour: r => (r.state === 'failed' ? 'red' : r.state === 'done' ? 'green' : null),
            },
            { title: 'BEGAN', cell: r => time(r.createdMs) },
            { title: 'TOOK', cell: state },
          ],
          empty: 'No runs.',
        });
      }),
    );
  withFormat(run.command('show').argument('<run>', 'id of the run').description('the steps of a run')).action(
    command(deps, async (context, id: string) => {
      const answer = await context.api().json<{ run: Run; steps: StepRow[] }>('GET', `/runs/${encodeURIComponent(id)}`);
      context.print(answer.steps, {
        value: answer,
        name: s => s.step,
        columns: [
          { title: 'STEP', cell: s => s.step },
          { title: 'TRY', cell: s => s.attempt + 1 },
          { title: 'STATE', cell: s => ({ before: 'under way', after: 'done', failed: 'failed' })[s.state] },
          { title: 'BEGAN', cell: s => time(s.beforeMs) },
          { title: 'TOOK', cell: s => (s.afterMs === null ? null : age(s.afterMs - s.beforeMs)) },
          { title: 'OUTPUT', cell: s => (s.output === null ? null : JSON.stringify(s.output)), wide: true },
        ],
        empty: 'No steps.',
      });
    }),
  );
}

function printLab(context: Context, report: LabReport): void {
  context.print(report.machines, {
    value: report,
    name: m => m.name,
    columns: [
      { title: 'NAME', cell: m => m.name },
      { title: 'POWER', cell: m => m.power },
      { title: 'FIRMWARE', cell: m => m.firmware },
      { title: 'MACS', cell: m => m.macs.join(', ') },
      { title: 'BMC', cell: m => m.bmc },
    ],
    empty: report.reason ?? 'The lab has no machines.',
  });
  if (report.siteFile) context.note(`site file: ${report.siteFile}`);
  if (report.netns && report.running && report.siteFile)
    context.note(`server: ip netns exec ${report.netns} halligan serve --site ${report.siteFile}`);
}

function addLab(program: Command, deps: CliDeps): void {
  const lab = program.command('lab').description('a virtual rack on this machine (as root)');
  const where = (c: Command) =>
    c.option('--name <name>', 'name of the lab', 'lab').option('--dir <dir>', 'folder of its disks and logs');
  where(withFormat(lab.command('up').description('make a lab of virtual machines with BMCs, or of containers')))
    .option('--nodes <count>', 'how many machines', parseCount(1, 64), 2)
    .addOption(
      new Option('--kind <kind>', 'machines that boot, or hosts to adopt')
        .choices(['qemu', 'container'])
        .default('qemu'),
    )
    .addOption(
      new Option('--firmware <firmware>', 'of all machines; alternating when left out').choices(['bios', 'uefi']),
    )
    .option('--nics <count>', 'NICs per machine', parseCount(1, 2), 1)
    .option('--disk <GiB>', 'size of the empty disk', parseCount(3, 4096), 8)
    .option('--memory <MiB>', 'memory per machine', parseCount(256, 1_048_576))
    .addOption(
      new Option('--bmc <driver>', 'how machines are switched').choices(['ipmi', 'redfish', 'both']).default('ipmi'),
    )
    .addOption(
      new Option('--accel <accel>', 'auto uses KVM only where a probe boot proves it')
        .choices(['auto', 'kvm', 'tcg'])
        .default('auto'),
    )
    .action(
      command(
        deps,
        async (
          context,
          options: {
            name: string;
            dir?: string;
            kind: 'qemu' | 'container';
            nodes: number;
            firmware?: 'bios' | 'uefi';
            nics: 1 | 2;
            disk: number;
            memory?: number;
            bmc: 'ipmi' | 'redfish' | 'both';
            accel: 'auto' | 'kvm' | 'tcg';
          },
        ) => {
          const { disk, memory, nics, kind, nodes, bmc, accel, name, dir, firmware } = options;
          const report = await deps.labUp(
            {
              name,
              kind,
              nodes,
              nics,
              bmc,
              accel,
              diskGiB: disk,
              ...(memory === undefined ? {} : { memoryMiB: memory }),
              ...(dir === undefined ? {} : { dir }),
              ...(firmware === undefined ? {} : { firmware }),
            },
            line => context.note(line),
          );
          printLab(context, report);
        },
      ),
    );
  where(withFormat(lab.command('status').description('what runs'))).action(
    command(deps, async (context, options: { name: string; dir?: string }) => {
      const report = await deps.labStatus(options);
      printLab(context, report);
      if (!report.running) context.note(report.reason ?? 'The lab does not run.');
      return report.running ? EXIT.ok : EXIT.notFound;
    }),
  );
  where(lab.command('down').description('remove the lab and everything of it, also after a crash'))
    .option('--keep-files', 'leave disks and logs')
    .action(
      command(deps, async (context, options: { name: string; dir?: string; keepFiles?: boolean }) => {
        context.note(await deps.labDown({ ...options, keepFiles: options.keepFiles ?? false }));
      }),
    );
}

/** The first line of a file, for passphrases. */
function passphraseFrom(file: string | undefined): { passphrase?: string } {
  if (file === undefined) return {};
  try {
    return { passphrase: readFileSync(file, 'utf8').split('\n')[0] ?? '' };
  } catch (error) {
    return usage(`The passphrase file cannot be read: ${(error as Error).message}.`);
  }
}

function addOperations(program: Command, deps: CliDeps): void {
  withFormat(program.command('health').description('state of the server’s parts')).action(
    command(deps, async context => {
      const health = await context
        .api()
        .json<{ ok: boolean; version: string; uptimeSeconds: number; services: Record<string, ServiceHealth> }>(
          'GET',
          '/health',
        );
      const parts = Object.entries(health.services);
      context.print(parts, {
        value: health,
        name: ([name]) => name,
        columns: [
          { title: 'PART', cell: ([name]) => name },
          { title: 'STATE', cell: ([, s]) => (s.ok ? 'ok' : 'failed'), colour: ([, s]) => (s.ok ? 'green' : 'red') },
          { title: 'MESSAGE', cell: ([, s]) => s.message },
        ],
      });
      if (context.format === 'table' || context.format === 'wide')
        context.note(`version ${health.version}, up for ${age(health.uptimeSeconds * 1000)}`);
      return health.ok ? EXIT.ok : EXIT.failed;
    }),
  );

  withDataDir(program.command('backup').argument('<file>', 'file to write; it must not exist yet'))
    .description('a consistent copy of database and keys; of the running server, or of a data directory')
    .option('--passphrase-file <file>', 'encrypt with the first line of this file (needs --site or --data-dir)')
    .action(
      command(
        deps,
        async (context, file: string, options: { site?: string; dataDir?: string; passphraseFile?: string }) => {
          const local = options.site !== undefined || options.dataDir !== undefined;
          if (local) {
            context.note(
              await deps.backup({ dataDir: dataDirOf(options), to: file, ...passphraseFrom(options.passphraseFile) }),
            );
            return;
          }
          if (options.passphraseFile !== undefined) usage('--passphrase-file needs --site or --data-dir.');
          const stream = await context.api().stream('/backup', { signal: deps.signal });
          let made = false;
          try {
            const out = createWriteStream(file, { flags: 'wx', mode: 0o600, flush: true });
            out.once('open', () => {
              made = true;
            });
            await pipeline(Readable.from(stream), out);
          } catch (error) {
            // Half a backup is worse than none; a file of somebody else stays.
            if (made) rmSync(file, { force: true });
            fail('backup-failed', `${file} was not written: ${(error as Error).message}.`);
          }
          context.note(`Written to ${file}. It holds the keys: keep it secret.`);
        },
      ),
    );
  withDataDir(program.command('restore').argument('<file>', 'the backup'))
    .description('put a backup back into a data directory; the server must not run')
    .option('--passphrase-file <file>', 'first line is the passphrase of an encrypted backup')
    .option('--force', 'replace what is there; it is kept aside')
    .action(
      command(
        deps,
        async (
          context,
          file: string,
          options: { site?: string; dataDir?: string; passphraseFile?: string; force?: boolean },
        ) => {
          context.note(
            await deps.restore({
              dataDir: dataDirOf(options),
              from: file,
              force: options.force ?? false,
              ...passphraseFrom(options.passphraseFile),
            }),
          );
        },
      ),
    );

  const secret = program.command('secret').description('secrets that references like secret:bmc/n07 name');
  withFormat(secret.command('list').description('their names')).action(
    command(deps, async context => {
      const { secrets } = await context.api().json<{ secrets: string[] }>('GET', '/secrets');
      context.print(secrets, { name: s => s, columns: [{ title: 'NAME', cell: s => s }], empty: 'No secrets.' });
    }),
  );
  secret
    .command('set')
    .argument('<name>', 'name like bmc/n07')
    .description('store a secret from standard input; it cannot be read back')
    .action(
      command(deps, async (context, name: string) => {
        // A terminal would show what is typed.
        if (deps.stdin.isTTY) usage('The secret comes from standard input: halligan secret set NAME < FILE.');
        let text = '';
        for await (const chunk of deps.stdin) {
          text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
          if (text.length > 65_536) usage('The secret is longer than 64 KiB.');
        }
        await context.api().json('PUT', `/secrets/${encodeURIComponent(name)}`, { value: text.replace(/\r?\n$/, '') });
        context.note(`Stored; refer to it as secret:${name}.`);
      }),
    );
  secret
    .command('remove')
    .argument('<name>', 'its name')
    .description('delete a secret')
    .action(
      command(deps, async (context, name: string) => {
        await context.api().json('DELETE', `/secrets/${encodeURIComponent(name)}`);
        context.note('Deleted.');
      }),
    );

  program
    .command('demo')
    .description('from nothing to SSH on virtual machines, on this machine (as root)')
    .option('--nodes <count>', 'how many machines', parseCount(1, 16), 2)
    .addOption(
      new Option('--firmware <firmware>', 'of all machines; alternating when left out').choices(['bios', 'uefi']),
    )
    .option('--image <image>', 'what gets installed; the kernel for virtual machines by default', 'debian-12-cloud')
    .option('--report <file>', 'write a report as JSON')
    .option('--keep', 'leave lab and server running until Ctrl-C')
    .option('--dir <dir>', 'folder of images, disks and logs')
    .addOption(
      new Option('--timeout <duration>', 'a node that is not installed by then failed')
        .argParser(parseDuration)
        .default(2_400_000, '40m'),
    )
    .action(
      command(
        deps,
        async (
          context,
          options: {
            nodes: number;
            firmware?: 'bios' | 'uefi';
            image: string;
            report?: string;
            keep?: boolean;
            dir?: string;
            timeout: number;
          },
        ) => {
          const { timeout, keep, ...rest } = options;
          const done = await deps.demo(
            { ...rest, keep: keep ?? false, timeoutSeconds: Math.round(timeout / 1000) },
            line => context.out(`${line}\n`),
          );
          return done ? EXIT.ok : EXIT.failed;
        },
      ),
    );
}
