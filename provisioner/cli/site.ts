/** `halligan site …`: the site file. */
import type { Command } from 'commander';
import { createTwoFilesPatch } from 'diff';
import { EXIT } from '../core/problem.js';
import type { NodeView } from '../node/service.js';
import { matchProfiles, type NodeMatch } from '../profile/match.js';
import { checkSiteFile, includesOf, readSite, readSiteText, replaceSiteFile } from '../site/files.js';
import { loadSiteOrThrow } from '../site/load.js';
import { SITE_VERSION } from '../site/migrate.js';
import { migrateSiteText } from '../site/source.js';
import { type Context, command, withFormat } from './context.js';
import type { CliDeps } from './deps.js';
import { plain, rackText } from './output.js';

const USUAL_FILE = '/etc/halligan/site.yaml';

export function addSiteCommands(program: Command, deps: CliDeps): void {
  const site = program.command('site').description('the site file');
  withFormat(
    site
      .command('check')
      .argument('[file]', 'the site file')
      .description('check a site file and what it includes: every fault with its place (no server needed)'),
  )
    .option('--site <file>', 'the site file')
    .action(
      command(deps, async (context, file: string | undefined, options: { site?: string }) => {
        const path = file ?? options.site ?? USUAL_FILE;
        const loaded = checkSiteFile(path);
        const faults = Array.isArray(loaded) ? loaded : [];
        if (context.format === 'json' || context.format === 'yaml')
          context.print(faults, { columns: [], name: f => f.message, value: { ok: faults.length === 0, faults } });
        else for (const f of faults) deps.stderr.write(`${plain(f.message)}\n`);
        if (Array.isArray(loaded)) {
          context.note(`${faults.length} ${faults.length === 1 ? 'fault' : 'faults'}.`);
          return EXIT.usage;
        }
        const { networks, nodes, profiles } = loaded.site;
        const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
        if (context.format === 'table' || context.format === 'wide')
          context.out(
            `${path} is good: site ${loaded.site.name}, ${count(networks.length, 'network')}, ${count(nodes.length, 'node')}${profiles.length > 0 ? `, ${count(profiles.length, 'profile')}` : ''}.\n`,
          );
        if (loaded.version < SITE_VERSION)
          context.note(
            `It is of version ${loaded.version} and was read as version ${SITE_VERSION}: halligan site migrate ${path}`,
          );
        return EXIT.ok;
      }),
    );
  withFormat(
    site
      .command('match')
      .argument('[file]', 'a site file that the server does not have yet; the server’s own when left out')
      .description('which node matches which profile, what it would become, and for the rest why not; changes nothing'),
  )
    .option('--json', 'the same as -o json')
    .action(
      command(deps, async (context, file: string | undefined, options: { json?: boolean }) => {
        const matches =
          file === undefined
            ? (await context.api().json<{ matches: NodeMatch[] }>('GET', '/site/match')).matches
            : matchProfiles(
                readSite(file).site,
                (await context.api().json<{ nodes: NodeView[] }>('GET', '/nodes')).nodes,
              );
        if (options.json) context.out(`${JSON.stringify({ matches }, null, 2)}\n`);
        else printMatches(context, matches);
      }),
    );
  site
    .command('migrate')
    .argument('[file]', 'the site file')
    .option('--write', 'write the file; the old one stays beside it as FILE.vN')
    .description('bring a site file up to the present version: prints what would change (no server needed)')
    .action(
      command(deps, async (context, file: string | undefined, options: { write?: boolean }) => {
        const path = file ?? USUAL_FILE;
        const text = readSiteText(path);
        const { text: migrated, from, steps } = migrateSiteText(text);
        // What cannot be read now must not be replaced; and what comes out must read.
        loadSiteOrThrow(text, path, includesOf(path));
        loadSiteOrThrow(migrated, path, includesOf(path));
        if (steps.length === 0 || from === null) {
          context.note(`${path} is of version ${SITE_VERSION} already.`);
          return;
        }
        context.out(createTwoFilesPatch(path, path, text, migrated, `version ${from}`, `version ${SITE_VERSION}`));
        for (const step of steps) context.note(step);
        if (options.write) context.note(`Written. The old file is ${replaceSiteFile(path, text, migrated, from)}.`);
        else context.note(`Nothing is written yet: halligan site migrate ${path} --write`);
      }),
    );
  site
    .command('export')
    .description('print the whole site, with what was changed by API, as a site file')
    .action(
      command(deps, async context => {
        for await (const chunk of await context.api().stream('/site/export')) deps.stdout.write(chunk);
      }),
    );
}

/** `by itself`, `by hand`, `no`: who would claim it. */
function claimText(match: NodeMatch): string | null {
  if (match.kind === 'held' || match.kind === 'taken' || match.kind === 'named') return null;
  if (match.claim?.automatic) return 'by itself';
  return match.becomes ? 'by hand' : 'no';
}

function printMatches(context: Context, matches: readonly NodeMatch[]): void {
  context.print(matches, {
    value: { matches },
    name: m => m.node,
    columns: [
      { title: 'NODE', cell: m => m.node },
      {
        title: 'MATCH',
        cell: m => m.kind,
        colour: m => (m.kind === 'matched' ? 'green' : m.kind === 'ambiguous' || m.kind === 'none' ? 'yellow' : null),
      },
      { title: 'PROFILE', cell: m => m.profile },
      { title: 'BECOMES', cell: m => m.becomes?.name },
      { title: 'ROLES', cell: m => m.becomes?.roles.join(', ') },
      { title: 'RACK', cell: m => rackText(m.becomes?.rack) },
      { title: 'CLAIM', cell: claimText },
      { title: 'DISKS', cell: m => m.becomes?.install.disk_layout?.kind, wide: true },
      {
        title: 'INTERFACES',
        cell: m => m.becomes?.install.interfaces?.map(n => [n.name, ...n.addresses].join(' ')).join(', '),
        wide: true,
      },
    ],
    empty: 'No nodes.',
  });
  if (context.format !== 'table' && context.format !== 'wide') return;
  for (const match of matches) {
    const manual = match.kind === 'matched' && !match.claim?.automatic;
    if (!manual && match.kind !== 'ambiguous' && match.kind !== 'none') continue;
    context.out(
      `\n${plain(match.node)}: ${plain(match.sentence)}${manual ? ` ${plain(match.claim!.sentence)}` : ''}\n`,
    );
    for (const { profile, reasons } of match.rejected) context.out(`  not ${profile}: ${plain(reasons.join('; '))}\n`);
  }
}
