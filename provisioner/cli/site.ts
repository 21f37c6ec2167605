/** `halligan site …`: the site file. */
import type { Command } from 'commander';
import { createTwoFilesPatch } from 'diff';
import { EXIT } from '../core/problem.js';
import { checkSiteFile, includesOf, readSiteText, replaceSiteFile } from '../site/files.js';
import { loadSiteOrThrow } from '../site/load.js';
import { SITE_VERSION } from '../site/migrate.js';
import { migrateSiteText } from '../site/source.js';
import { command, withFormat } from './context.js';
import type { CliDeps } from './deps.js';
import { plain } from './output.js';

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
        const { networks, nodes } = loaded.site;
        const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
        if (context.format === 'table' || context.format === 'wide')
          context.out(
            `${path} is good: site ${loaded.site.name}, ${count(networks.length, 'network')}, ${count(nodes.length, 'node')}.\n`,
          );
        if (loaded.version < SITE_VERSION)
          context.note(
            `It is of version ${loaded.version} and was read as version ${SITE_VERSION}: halligan site migrate ${path}`,
          );
        return EXIT.ok;
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
