/** `halligan plan`, `apply`, `drift`, `cloud …`, `role …`: what lies between hosts that answer SSH and a cloud. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { sleep } from '../core/clock.js';
import {
  asImportedImage,
  IMAGE_PROFILES,
  IMAGE_VISIBILITIES,
  type ImageImportOptions,
  type ImageSource,
  type ImportedImage,
} from '../core/cloud-images.js';
import {
  asApplyResult,
  asVerifyReport,
  type CatalogueView,
  type CloudCredentials,
  type PlanView,
  planSummary,
  type VerifyReport,
} from '../core/cloud-service.js';
import { planSentence, verifySentence } from '../core/cloud-words.js';
import type { FeedEvent } from '../core/events.js';
import type { Run } from '../core/journal.js';
import { EXIT, type ExitCode, fail, PROBLEMS, type Problem, ProblemError } from '../core/problem.js';
import { nearest } from '../core/schema/explain.js';
import {
  actionLine,
  checkLine,
  credentialsText,
  openrc,
  planText,
  progressWidths,
  resultText,
  roleText,
  securitySentence,
} from './cloud-view.js';
import { type Context, collect, command, parseCount, parseDuration, usage, withFormat } from './context.js';
import type { CliDeps } from './deps.js';
import { plain } from './output.js';

const POLL_MS = 500;
/** The journal is asked this often beside the feed: a run that was cut off emits nothing more. */
const ASK_RUN_EVERY = 10;
const SERVER_GONE_MS = 2000;
const EVENTS_PAGE = 500;

export function addCloudCommands(program: Command, deps: CliDeps): void {
  const onlyNodes = (c: Command) => c.option('--node <name>', 'only this node; may be given several times', collect);

  onlyNodes(withFormat(program.command('plan').description('what an apply would do to the cloud, and nothing done')))
    .option('--diff', 'show how files change')
    .action(
      command(deps, async (context, options: { node?: string[]; diff?: boolean }) => {
        const plan = await readPlan(context, options.node);
        printPlan(context, plan, options.diff ?? false);
        return plan.problems.some(p => p.severity === 'refuse') ? EXIT.refused : EXIT.ok;
      }),
    );

  onlyNodes(
    withFormat(
      program.command('apply').description('bring the cloud to what is wanted: print the plan, then carry it out'),
    ),
  )
    .option('--plan <hash>', 'only if this is still the plan')
    .option('--yes', 'do not ask before data is destroyed')
    .option('--no-wait', 'end as soon as the run has begun')
    .option('--timeout <duration>', 'give up waiting after this time; the run goes on', parseDuration)
    .action(command(deps, apply));

  withFormat(program.command('drift').description('what is no longer as it was laid down; exit code 1 if anything is'))
    .option('--diff', 'show how files differ')
    .action(
      command(deps, async (context, options: { diff?: boolean }) => {
        const plan = await context.api().json<PlanView>('GET', '/cloud/drift');
        printPlan(context, plan, options.diff ?? false);
        // What was not looked at is not known to be as it was.
        const unknown = plan.nodes.some(n => !n.reachable) || plan.problems.some(p => p.severity === 'refuse');
        return plan.actions.length > 0 || unknown ? EXIT.failed : EXIT.ok;
      }),
    );

  addCloud(program, deps);
  addRoles(program, deps);
}

const people = (context: Context) => context.format === 'table' || context.format === 'wide';

const readPlan = (context: Context, nodes: readonly string[] | undefined): Promise<PlanView> => {
  const query = (nodes ?? []).map(n => `node=${encodeURIComponent(n)}`).join('&');
  return context.api().json<PlanView>('GET', `/cloud/plan${query ? `?${query}` : ''}`);
};

function printPlan(context: Context, plan: PlanView, diff: boolean): void {
  if (people(context)) context.out(planText(plan, { diff, colour: context.colour }));
  else context.print(plan.actions, { columns: [], name: a => a.id, value: plan });
}

interface ApplyCommand {
  node?: string[];
  plan?: string;
  yes?: boolean;
  wait: boolean;
  timeout?: number;
}

async function apply(context: Context, options: ApplyCommand): Promise<ExitCode> {
  const api = context.api();
  const plan = await readPlan(context, options.node);
  const lines = planText(plan, { diff: false, colour: false }).trimEnd().split('\n');
  // Where there is nothing to do, the last line is the result.
  for (const line of plan.actions.length > 0 ? lines : lines.slice(0, -1)) context.note(line);
  if (options.plan !== undefined && (options.plan.length < 8 || !plan.hash.startsWith(options.plan)))
    fail('plan-changed', `The plan is ${plan.hash} by now, not ${options.plan}.`);
  const refusals = plan.problems.filter(p => p.severity === 'refuse');
  if (refusals.length > 0)
    fail('plan-refused', refusals.map(p => (p.node === null ? p.message : `${p.node}: ${p.message}`)).join('\n'), {
      hint: refusals[0]!.hint,
    });
  const held = new Set(plan.problems.flatMap(p => (p.severity === 'hold' && p.node !== null ? [p.node] : [])));
  const silent = plan.nodes.filter(n => !n.reachable || held.has(n.name));
  /** What was done is not all where a node was left out. */
  const short = (code: ExitCode): ExitCode =>
    code !== EXIT.ok || silent.length === 0 ? code : silent.length < plan.nodes.length ? EXIT.partly : EXIT.failed;
  if (plan.actions.length === 0) {
    if (people(context)) context.out(`${plain(planSentence(plan))}\n`);
    else
      context.print([], { columns: [], name: () => '', value: { run: null, plan: planOutline(plan), result: null } });
    return short(EXIT.ok);
  }

  const dying = [...new Set(plan.actions.flatMap(a => (a.destroys === null ? [] : [a.node])))];
  if (dying.length > 0)
    await context.confirm(`This destroys ${planSummary(plan.actions).destroys.join('; ')}.`, dying, options.yes);
  const from = await latestEvent(context);
  const { runId } = await api.json<{ runId: string }>('POST', '/cloud/apply', {
    planHash: plan.hash,
    confirmed: dying,
    ...(options.node === undefined ? {} : { nodes: options.node }),
  });
  if (!options.wait) return printRunId(context, runId);
  const widths = progressWidths(plan);
  const run = await follow(context, runId, from, options.timeout, e =>
    e.type === 'cloud.action' ? actionLine(e, widths) : null,
  );
  return short(printApplied(context, run, plan));
}

const planOutline = ({ hash, createdMs, release, summary }: PlanView) => ({ hash, createdMs, release, summary });

function printRunId(context: Context, runId: string): ExitCode {
  context.print([runId], { name: id => id, columns: [{ title: 'RUN', cell: id => id }], value: { runId } });
  context.note(`It goes on: halligan run show ${runId}`);
  return EXIT.ok;
}

/** Prints what came of a run that lays down or removes. */
function printApplied(context: Context, run: Run, plan: PlanView | null): ExitCode {
  const result = asApplyResult(run.result);
  if (!people(context))
    context.print([run], {
      columns: [],
      name: r => r.id,
      value: {
        run: { id: run.id, kind: run.kind, state: run.state, createdMs: run.createdMs, endedMs: run.endedMs },
        ...(plan === null ? {} : { plan: planOutline(plan) }),
        result: run.result,
      },
    });
  if (!result) return withoutResult(run);
  if (people(context)) context.out(resultText(result, { colour: context.colour, chain: context.format === 'wide' }));
  if (result.failed.length === 0 && result.blocked.length === 0) return run.state === 'done' ? EXIT.ok : EXIT.failed;
  return result.done > 0 ? EXIT.partly : EXIT.failed;
}

/** A run that ended otherwise than by walking to its end. */
function withoutResult(run: Run): never {
  const p = run.result as Partial<Problem> | null;
  if (p && typeof p === 'object' && typeof p.message === 'string' && p.code !== undefined && p.code in PROBLEMS)
    throw new ProblemError(p as Problem);
  return fail(run.state === 'aborted' ? 'aborted' : 'cloud-step-failed', `The run ${run.id} ended as ${run.state}.`, {
    hint: `Look at \`halligan run show ${run.id}\`.`,
  });
}

const latestEvent = async (context: Context): Promise<number> =>
  (await context.api().json<{ latestId: number }>('GET', '/events?limit=1')).latestId;

/**
 * Tells a run's events until it is over. It outlives a restart of the server: the feed and the journal are durable.
 * @param tell a line for an event, null for none
 * @throws ProblemError timed-out, also when the wait is interrupted; the run goes on
 */
async function follow(
  context: Context,
  runId: string,
  from: number,
  timeoutMs: number | undefined,
  tell: (e: FeedEvent) => string | null,
): Promise<Run> {
  const { clock, signal } = context.deps;
  const api = context.api();
  const deadline = timeoutMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonicMs() + timeoutMs;
  let after = from;
  let gone = false;
  for (let turn = 0; !signal.aborted; turn++) {
    try {
      // The journal first: what happened before a run's end is in the feed then.
      let run: Run | null = null;
      const ask = async () => {
        const answer = await api.json<{ run: Run }>('GET', `/runs/${encodeURIComponent(runId)}`);
        run = answer.run;
      };
      if (turn % ASK_RUN_EVERY === 0) await ask();
      let over = false;
      for (;;) {
        const { events } = await api.json<{ events: FeedEvent[] }>(
          'GET',
          `/events?after=${after}&limit=${EVENTS_PAGE}`,
        );
        for (const e of events) {
          after = e.id;
          if (e.data['runId'] !== runId) continue;
          if (e.type === 'cloud.done') over = true;
          const line = tell(e);
          if (line !== null) context.note(line);
        }
        if (events.length < EVENTS_PAGE) break;
      }
      if (over) await ask();
      const ended = run as Run | null;
      if (ended && ended.endedMs !== null) return ended;
      gone = false;
    } catch (error) {
      if (!(error instanceof ProblemError) || error.problem.code !== 'server-unreachable') throw error;
      if (!gone) context.note('The server is gone; trying again.');
      gone = true;
    }
    const left = deadline - clock.monotonicMs();
    if (left <= 0)
      return fail('timed-out', `The run ${runId} is not over; it goes on in the server.`, stillRuns(runId));
    await sleep(Math.min(gone ? SERVER_GONE_MS : POLL_MS, left), signal);
  }
  return fail(
    'timed-out',
    `The wait for the run ${runId} was interrupted; it goes on in the server.`,
    stillRuns(runId),
  );
}

const stillRuns = (runId: string) => ({ hint: `Look at \`halligan run show ${runId}\`.` });

function addCloud(program: Command, deps: CliDeps): void {
  const cloud = program.command('cloud').description('the cloud that was laid down');
  withFormat(cloud.command('verify').description('prove that the cloud works, and remove again what that made'))
    .option(
      '--only <step>',
      'this step and what it needs; may be given several times. `cleanup` goes alone: it deletes what earlier proofs left',
      collect,
    )
    .option('--keep', 'leave what was made, to look at it')
    .option('--no-wait', 'end as soon as the run has begun')
    .option('--timeout <duration>', 'give up waiting after this time; the run goes on', parseDuration)
    .action(
      command(deps, async (context, options: { only?: string[]; keep?: boolean; wait: boolean; timeout?: number }) => {
        const from = await latestEvent(context);
        const { runId } = await context.api().json<{ runId: string }>('POST', '/cloud/verify', {
          ...(options.only === undefined ? {} : { only: options.only }),
          ...(options.keep === undefined ? {} : { keep: options.keep }),
        });
        if (!options.wait) return printRunId(context, runId);
        const run = await follow(context, runId, from, options.timeout, e =>
          e.type === 'cloud.check' ? checkLine(e) : null,
        );
        return printReport(context, asVerifyReport(run.result) ?? withoutResult(run));
      }),
    );
  withFormat(
    cloud
      .command('security')
      .description('check the cloud against the OpenStack Security Guide, and more; exit code 1 if anything fails'),
  )
    .option('--no-wait', 'end as soon as the run has begun')
    .option('--timeout <duration>', 'give up waiting after this time; the run goes on', parseDuration)
    .action(
      command(deps, async (context, options: { wait: boolean; timeout?: number }) => {
        const from = await latestEvent(context);
        const { runId } = await context.api().json<{ runId: string }>('POST', '/cloud/security', {});
        if (!options.wait) return printRunId(context, runId);
        const run = await follow(context, runId, from, options.timeout, e =>
          e.type === 'cloud.check' && e.data['state'] === 'failed' ? checkLine(e) : null,
        );
        return printSecurity(context, asVerifyReport(run.result) ?? withoutResult(run));
      }),
    );
  withFormat(cloud.command('report').description('the newest proof')).action(
    command(deps, async context => {
      const { report } = await context.api().json<{ report: VerifyReport | null }>('GET', '/cloud/verify/latest');
      if (report) return printReport(context, report);
      return fail('run-unknown', 'The cloud was not verified yet.', { hint: 'Run `halligan cloud verify`.' });
    }),
  );
  withFormat(cloud.command('credentials').description('how the administrator logs in to the cloud'))
    .option('--export', 'print lines for a shell: source <(halligan cloud credentials --export)')
    .action(
      command(deps, async (context, options: { export?: boolean }) => {
        const credentials = await context.api().json<CloudCredentials>('GET', '/cloud/credentials');
        if (options.export) context.out(openrc(credentials));
        else if (people(context)) context.out(credentialsText(credentials));
        else context.print([credentials], { columns: [], name: c => c.username, value: credentials });
      }),
    );
  addImageImport(cloud, deps);
  withFormat(
    cloud
      .command('remove')
      .argument('<node>', 'name of the node')
      .description('drain a node and take every record of it out of the cloud; its system stays'),
  )
    .option('--force', 'although that costs data or virtual machines')
    .option('--yes', 'do not ask')
    .option('--no-wait', 'end as soon as the run has begun')
    .option('--timeout <duration>', 'give up waiting after this time; the run goes on', parseDuration)
    .action(
      command(
        deps,
        async (context, node: string, options: { force?: boolean; yes?: boolean; wait: boolean; timeout?: number }) => {
          const { name } = await context.api().json<{ name: string }>('GET', `/nodes/${encodeURIComponent(node)}`);
          await context.confirm(
            `This takes ${name} out of the cloud${options.force ? ', with the data and virtual machines that only it has' : ''}.`,
            [name],
            options.yes,
          );
          const from = await latestEvent(context);
          const { runId } = await context
            .api()
            .json<{ runId: string }>('POST', `/cloud/nodes/${encodeURIComponent(name)}/remove`, {
              force: options.force ?? false,
            });
          if (!options.wait) return printRunId(context, runId);
          const run = await follow(context, runId, from, options.timeout, e =>
            e.type === 'cloud.action' ? actionLine(e, { node: name.length, service: 0 }) : null,
          );
          return printApplied(context, run, null);
        },
      ),
    );
}

interface ImageImportCommand {
  name: string;
  profile: ImageImportOptions['profile'];
  sha256?: string;
  kernel?: string;
  ramdisk?: string;
  driverIso?: string;
  visibility?: ImageImportOptions['visibility'];
  minDisk?: number;
  minMemory?: number;
  firmware?: 'bios' | 'uefi';
  tpm?: boolean;
  guestAgent?: boolean;
  commandLine?: string;
  property?: string[];
  allowHost?: string[];
  wait: boolean;
  timeout?: number;
}

const MOST_GIB = 65_536;
const MOST_MIB = 16_777_216;

function addImageImport(cloud: Command, deps: CliDeps): void {
  const image = cloud.command('image').description('images of virtual machines');
  withFormat(
    image
      .command('import')
      .argument('<file|url>', 'raw, qcow2 or ISO; behind a URL may stand #sha256=HEX')
      .description('bring an image into the cloud, with the properties that its kind of system needs'),
  )
    .requiredOption('--name <name>', 'name in the cloud')
    .addOption(new Option('--profile <profile>', 'kind of system').choices([...IMAGE_PROFILES]).default('plain'))
    .option('--sha256 <hex>', 'checksum of the file as published')
    .option('--kernel <file|url>', 'AKI of an ami')
    .option('--ramdisk <file|url>', 'ARI of an ami')
    .option('--command-line <words>', 'added to the kernel’s command line of an ami')
    .option('--driver-iso <file|url>', 'drivers for windows (virtio-win), imported as NAME-drivers')
    .addOption(new Option('--visibility <who>', 'who sees it').choices([...IMAGE_VISIBILITIES]))
    .option('--min-disk <gib>', 'least disk of a server; from the image when left out', parseCount(0, MOST_GIB))
    .option('--min-memory <mib>', 'least memory of a server', parseCount(0, MOST_MIB))
    .addOption(new Option('--firmware <firmware>', 'what starts the system').choices(['bios', 'uefi']))
    .option('--tpm', 'a TPM 2.0 and Secure Boot, for Windows 11')
    .option('--guest-agent', 'the image runs qemu-guest-agent')
    .option('--property <key=value>', 'image property beside or instead of the profile’s; several times', collect)
    .option('--allow-host <host|cidr>', 'own network that may be fetched from; several times', collect)
    .option('--no-wait', 'end as soon as the run has begun')
    .option('--timeout <duration>', 'give up waiting after this time; the run goes on', parseDuration)
    .action(command(deps, importCloudImage));
}

/** `FILE`, `URL` or `URL#sha256=HEX`. The server has another working directory. */
function imageSource(text: string, sha256?: string): ImageSource {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text))
    return { file: resolve(text), ...(sha256 === undefined ? {} : { sha256 }) };
  const [url = '', said] = text.split('#sha256=');
  const sum = sha256 ?? said;
  return { url, ...(sum === undefined ? {} : { sha256: sum }) };
}

async function importCloudImage(context: Context, source: string, options: ImageImportCommand): Promise<ExitCode> {
  const { name, profile, visibility, firmware, tpm, guestAgent, commandLine } = options;
  const properties = Object.fromEntries(
    (options.property ?? []).map(text => {
      const at = text.indexOf('=');
      return at > 0 ? [text.slice(0, at), text.slice(at + 1)] : usage(`--property ${text}: expected KEY=VALUE.`);
    }),
  );
  const body: ImageImportOptions = {
    name,
    profile,
    source: imageSource(source, options.sha256),
    ...(options.kernel === undefined ? {} : { kernel: imageSource(options.kernel) }),
    ...(options.ramdisk === undefined ? {} : { ramdisk: imageSource(options.ramdisk) }),
    ...(options.driverIso === undefined ? {} : { driverIso: imageSource(options.driverIso) }),
    ...(visibility === undefined ? {} : { visibility }),
    ...(options.minDisk === undefined ? {} : { minDiskGiB: options.minDisk }),
    ...(options.minMemory === undefined ? {} : { minMemoryMiB: options.minMemory }),
    ...(firmware === undefined ? {} : { firmware }),
    ...(tpm === undefined ? {} : { tpm }),
    ...(guestAgent === undefined ? {} : { guestAgent }),
    ...(commandLine === undefined ? {} : { commandLine }),
    ...(options.property === undefined ? {} : { properties }),
    ...(options.allowHost === undefined ? {} : { allowHosts: options.allowHost }),
  };
  const from = await latestEvent(context);
  const { runId } = await context.api().json<{ runId: string }>('POST', '/cloud/images', body);
  if (!options.wait) return printRunId(context, runId);
  const run = await follow(context, runId, from, options.timeout, e =>
    e.type === 'cloud.image' ? `${e.data['step']}` : null,
  );
  return printImage(context, asImportedImage(run.result) ?? withoutResult(run));
}

function printImage(context: Context, made: ImportedImage): ExitCode {
  context.print([made], {
    value: made,
    name: i => i.id,
    columns: [
      { title: 'NAME', cell: i => i.name },
      { title: 'ID', cell: i => i.id },
      { title: 'PROFILE', cell: i => i.profile },
      { title: 'FORMAT', cell: i => i.diskFormat },
      { title: 'MIN DISK', cell: i => `${i.minDiskGiB} GiB` },
      { title: 'VISIBLE', cell: i => i.visibility },
    ],
  });
  if (people(context)) for (const note of made.notes) context.note(note);
  return EXIT.ok;
}

function printReport(context: Context, report: VerifyReport): ExitCode {
  context.print(report.steps, {
    value: report,
    name: s => s.name,
    columns: [
      { title: 'STEP', cell: s => s.name },
      {
        title: 'RESULT',
        cell: s => s.state,
        colour: s => (s.state === 'passed' ? 'green' : s.state === 'failed' ? 'red' : 'yellow'),
      },
      { title: 'TOOK', cell: s => `${s.seconds.toFixed(1)} s` },
      { title: 'EXPECTED', cell: s => `${s.expectedSeconds} s` },
      { title: 'WHAT', cell: s => s.title },
      { title: 'WHY', cell: s => s.message },
    ],
  });
  for (const hint of new Set(report.steps.flatMap(s => (s.state === 'failed' && s.hint ? [s.hint] : []))))
    context.note(`hint: ${hint}`);
  if (people(context)) context.note(verifySentence(report));
  return report.ok ? EXIT.ok : EXIT.failed;
}

function printSecurity(context: Context, report: VerifyReport): ExitCode {
  context.print(report.steps, {
    value: report,
    name: s => s.name,
    columns: [
      { title: 'CHECK', cell: s => s.name },
      {
        title: 'RESULT',
        cell: s => (s.state === 'skipped' ? 'not applicable' : s.state),
        colour: s => (s.state === 'passed' ? 'green' : s.state === 'failed' ? 'red' : 'yellow'),
      },
      { title: 'WHAT', cell: s => s.title },
      { title: 'WHY', cell: s => s.message?.replace(/^Not applicable: /, '') ?? null },
    ],
  });
  for (const hint of new Set(report.steps.flatMap(s => (s.state === 'failed' && s.hint ? [s.hint] : []))))
    context.note(`hint: ${hint}`);
  if (people(context)) context.note(securitySentence(report));
  return report.ok ? EXIT.ok : EXIT.failed;
}

function addRoles(program: Command, deps: CliDeps): void {
  const role = program.command('role').description('what nodes can do in the cloud');
  const catalogue = (context: Context) => context.api().json<CatalogueView>('GET', '/cloud/catalogue');
  withFormat(role.command('list').description('list roles')).action(
    command(deps, async context => {
      const { roles } = await catalogue(context);
      context.print(roles, {
        name: r => r.name,
        columns: [
          { title: 'ROLE', cell: r => r.name },
          { title: 'WHAT', cell: r => r.sentence },
          { title: 'SERVICES', cell: r => r.services.join(', ') },
        ],
        empty: 'No roles.',
      });
    }),
  );
  withFormat(
    role.command('show').argument('<role>', 'its name').description('what a role does, needs and rules out'),
  ).action(
    command(deps, async (context, name: string) => {
      const all = await catalogue(context);
      const found = all.roles.find(r => r.name === name);
      if (!found) {
        const near = nearest(
          name,
          all.roles.map(r => r.name),
        );
        return fail(
          'role-unknown',
          `There is no role ${JSON.stringify(name)}${near ? `; did you mean ${near}?` : '.'}`,
        );
      }
      if (people(context)) context.out(roleText(found, all));
      else context.print([found], { columns: [], name: r => r.name, value: found });
      return EXIT.ok;
    }),
  );
}
