/** Several files, variables, secrets and older versions: how the text of a site becomes one value. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse, parseDocument, stringify } from 'yaml';
import { checkSiteFile, includesOf, replaceSiteFile } from '../../../provisioner/site/files.js';
import { type LoadedSite, loadSite } from '../../../provisioner/site/load.js';
import { escapeVariables, migrateText, SITE_VERSION } from '../../../provisioner/site/migrate.js';
import { compose, type IncludeReader, migrateSiteText } from '../../../provisioner/site/source.js';

const HEAD = `version: 2
name: dc1
networks:
  - name: boot
    cidr: 10.99.0.0/24
    interface: br0
    pool: { from: 10.99.0.200, to: 10.99.0.239 }
`;
const among =
  (files: Record<string, string>): IncludeReader =>
  path =>
    files[path] === undefined ? { reason: 'does not exist' } : { text: files[path] };
const load = (text: string, files: Record<string, string> = {}) => loadSite(text, 'etc/site.yaml', among(files));
const good = (text: string, files?: Record<string, string>): LoadedSite => {
  const loaded = load(text, files);
  if (Array.isArray(loaded)) throw new Error(loaded.map(p => p.message).join('\n'));
  return loaded;
};
const faults = (text: string, files?: Record<string, string>): string[] => {
  const loaded = load(text, files);
  return Array.isArray(loaded) ? loaded.map(p => p.message) : [];
};

describe('included files', () => {
  const INCLUDE = `${HEAD}include: [racks/r1.yaml]\nnodes:\n  - { name: n01, macs: ["52:54:00:99:00:01"] }\n`;

  it('join lists and mappings, and keep the place of every value', () => {
    const loaded = good(`${INCLUDE}install:\n  login: ops\n`, {
      'racks/r1.yaml':
        'include: [more/n03.yaml]\ninstall: { ssh_keys: [] }\nnodes:\n  - { name: n02, macs: ["52:54:00:99:00:02"] }\n',
      'racks/more/n03.yaml': 'nodes:\n  - name: n03\n    macs: ["52:54:00:99:00:03"]\n',
    });
    expect(loaded.site.nodes.map(n => n.name)).toEqual(['n01', 'n02', 'n03']);
    expect(loaded.site.install).toEqual({ login: 'ops', ssh_keys: [] });
    expect(loaded.site).not.toHaveProperty('include');
    expect(loaded.placeOf(['nodes', 0])).toMatchObject({ file: 'etc/site.yaml', line: 10 });
    expect(loaded.placeOf(['nodes', 1, 'name'])).toEqual({ file: 'etc/racks/r1.yaml', line: 4, column: 13 });
    expect(loaded.placeOf(['nodes', 2, 'macs'])).toEqual({ file: 'etc/racks/more/n03.yaml', line: 3, column: 5 });
  });

  it('are named in the faults of what they hold', () => {
    expect(faults(INCLUDE, { 'racks/r1.yaml': 'nodes:\n  - { name: n02, mcas: [] }\n' })).toEqual(
      [
        'etc/racks/r1.yaml:2:5: nodes[1]: expected macs, uuid or serial: nothing says which machine n02 is',
        'etc/racks/r1.yaml:2:18: nodes[1].mcas: unknown field; did you mean macs?',
      ].slice(1),
    );
    expect(faults(INCLUDE, { 'racks/r1.yaml': 'nodes: [\n' })[0]).toMatch(/^etc\/racks\/r1\.yaml:2:1: not valid YAML/);
    expect(faults(INCLUDE, { 'racks/r1.yaml': 'just text\n' })).toEqual([
      'etc/racks/r1.yaml:1:1: expected a mapping (fields with values), found "just text"',
    ]);
    expect(faults(INCLUDE, { 'racks/r1.yaml': '# nothing\n' })[0]).toMatch(
      /^etc\/racks\/r1\.yaml:1:1: the file is empty/,
    );
  });

  it.each([
    ['that is missing', 'r9.yaml', {}, 'r9.yaml does not exist'],
    [
      'outside of the folder',
      '../r9.yaml',
      {},
      'expected a file below the folder of the site file, found "../r9.yaml"',
    ],
    ['outside by a detour', 'a/../../x', {}, 'expected a file below the folder of the site file, found "a/../../x"'],
    [
      'by an absolute path',
      '/etc/passwd',
      {},
      'expected a file below the folder of the site file, found "/etc/passwd"',
    ],
    ['that is the site file', './site.yaml', {}, './site.yaml includes itself: site.yaml includes site.yaml'],
  ])('refuse one %s', (_, file, files, sentence) => {
    expect(faults(`${HEAD}include: [${file}]\n`, files)).toEqual([`etc/site.yaml:8:11: include[0]: ${sentence}`]);
  });

  it('refuse a circle, one file twice, and a value that stands twice, with both places', () => {
    expect(
      faults(`${HEAD}include: [a.yaml]\n`, { 'a.yaml': 'include: [b.yaml]\n', 'b.yaml': 'include: [a.yaml]\n' }),
    ).toEqual(['etc/b.yaml:1:11: include[0]: a.yaml includes itself: a.yaml includes b.yaml includes a.yaml']);
    expect(faults(`${HEAD}include: [a.yaml, ./a.yaml]\n`, { 'a.yaml': 'ntp: []\n' })).toEqual([
      'etc/site.yaml:8:19: include[1]: ./a.yaml is included already in etc/site.yaml, line 8',
    ]);
    expect(faults(`${HEAD}include: [a.yaml]\n`, { 'a.yaml': 'name: dc2\n' })).toEqual([
      'etc/a.yaml:1:7: name: is given already in etc/site.yaml, line 2; lists and mappings of several files are joined, a value stands once',
    ]);
    expect(faults(`${HEAD}include: [a.yaml]\n`, { 'a.yaml': 'version: 2\nntp: []\n' })).toContain(
      'etc/a.yaml:1:1: version: unknown field; the version stands in the site file alone',
    );
  });

  it('are not read for a text that came from elsewhere', () => {
    const [fault] = loadSite(`${HEAD}include: [a.yaml]\n`, 'site.yaml') as { message: string }[];
    expect(fault!.message).toBe(
      'site.yaml:8:11: include[0]: other files cannot be read here; check it where they are: halligan site check FILE',
    );
  });

  it('leave a list of something else to the schema', () => {
    expect(faults(`${HEAD}include: [{ a: 1 }]\n`)[0]).toMatch(/^etc\/site\.yaml:8:11: include\[0\]: expected text/);
  });
});

describe('files on disk', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'halligan-site-'));
    mkdirSync(join(dir, 'site'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('are read below the folder only: a link that leads out is refused', () => {
    writeFileSync(join(dir, 'secret.yaml'), 'ntp: [192.0.2.1]\n');
    symlinkSync(join(dir, 'secret.yaml'), join(dir, 'site/link.yaml'));
    writeFileSync(join(dir, 'site/real.yaml'), 'ntp: [192.0.2.2]\n');
    mkdirSync(join(dir, 'site/folder'));
    const read = includesOf(join(dir, 'site/site.yaml'));
    expect(read('real.yaml')).toEqual({ text: 'ntp: [192.0.2.2]\n' });
    expect(read('link.yaml')).toEqual({ reason: 'leads out of the folder of the site file' });
    expect(read('folder')).toEqual({ reason: 'is no file' });
    expect(read('none.yaml')).toEqual({ reason: 'does not exist' });
    const file = join(dir, 'site/site.yaml');
    writeFileSync(file, `${HEAD}include: [real.yaml]\n`);
    expect(checkSiteFile(file)).toMatchObject({ site: { ntp: ['192.0.2.2'] } });
  });

  it('keep the old text when they are replaced, and never overwrite a copy', () => {
    const file = join(dir, 'site/site.yaml');
    writeFileSync(file, 'old\n', { mode: 0o640 });
    expect(replaceSiteFile(file, 'old\n', 'new\n', 1)).toBe(`${file}.v1`);
    expect(readFileSync(file, 'utf8')).toBe('new\n');
    expect(readFileSync(`${file}.v1`, 'utf8')).toBe('old\n');
    expect(() => replaceSiteFile(file, 'new\n', 'newer\n', 1)).toThrow(/site\.yaml\.v1 exists already/);
    expect(readFileSync(file, 'utf8')).toBe('new\n');
  });
});

describe('variables', () => {
  it('stand for their value inside of a text, and for themselves as a whole', () => {
    const { site } = good(
      `${HEAD}vars:\n  rack: r1\n  port: 7490\n  net: 10.98\n  first: "\${net}.0"\napi:\n  port: \${port}\nnodes:\n  - name: \${rack}-n01\n    macs: ["52:54:00:99:00:01"]\n    bmc: { driver: ipmi, address: "\${first}.7", user: u, password: "secret:bmc/\${rack}" }\n`,
    );
    expect(site.api.port).toBe(7490);
    expect(site.nodes[0]).toMatchObject({ name: 'r1-n01', bmc: { address: '10.98.0.7', password: 'secret:bmc/r1' } });
    expect(site).not.toHaveProperty('vars');
  });

  it('may come from an included file', () => {
    expect(
      good(`${HEAD}include: [v.yaml]\ndomain: \${zone}.example\n`, { 'v.yaml': 'vars: { zone: a }\n' }).site.domain,
    ).toBe('a.example');
  });

  it('that nobody knows are faults with their own place, in the middle of a text, too', () => {
    expect(faults(`${HEAD}vars: { login: ops }\ninstall:\n  login: \${logn}\n`)).toEqual([
      'etc/site.yaml:10:10: install.login: unknown variable logn; did you mean login?',
    ]);
    const text = `${HEAD}install:\n  user_data: |\n    #cloud-config\n    runcmd:\n      - echo \${HOME}\n`;
    expect(faults(text)).toEqual([
      'etc/site.yaml:12:14: install.user_data: unknown variable HOME (known are: none); write $${HOME} for the characters themselves',
    ]);
    expect(good(text.replace(/(?=\$\{HOME)/, '$')).site.install.user_data).toContain(`- echo \${HOME}\n`);
    expect(faults(`${HEAD}domain: a\${x:-y}\n`)[0]).toMatch(
      /^etc\/site\.yaml:8:10: domain: expected \$\{name\} of a variable, found "\$\{x:-y\}"; write \$\$\{/,
    );
    expect(faults(`${HEAD}domain: "a\${x"\n`)[0]).toMatch(/expected \$\{name\} of a variable, found "\$\{"/);
  });

  it('that are made of themselves, have a bad name or no value are refused', () => {
    expect(faults(`${HEAD}vars:\n  a: \${b}\n  b: x\${a}\n`)).toEqual([
      'etc/site.yaml:10:7: vars.b: the variable a is made of itself: a → b → a',
    ]);
    expect(faults(`${HEAD}vars: { 1st: a, b-c: d }\n`).map(m => m.replace(/^\S+ /, ''))).toEqual([
      'vars.1st: expected the name of a variable (letters, digits, _; no digit first), found "1st"',
      'vars.b-c: expected the name of a variable (letters, digits, _; no digit first), found "b-c"',
    ]);
    expect(faults(`${HEAD}vars: { a: [1] }\n`)[0]).toMatch(
      /vars\.a: expected text, a number, or true or false, found a list/,
    );
  });

  it('ask for quotes where YAML would end the text at the brace', () => {
    expect(faults(`${HEAD}vars: { a: ops }\ninstall: { login: \${a} }\n`)[0]).toMatch(
      /not valid YAML: .*; inside of \{ \} and \[ \] put \$\{name\} in quotes/,
    );
  });

  it('give back any text that was escaped, as it was', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('$', '{', '}', 'a', '${', '$${', '\\', '"', '\n', ' ')), parts => {
        const text = parts.join('');
        const composed = compose(stringify({ version: 2, x: escapeVariables(text) }), 'f', null);
        expect(Array.isArray(composed) ? composed : composed.data).toEqual({ version: 2, x: text });
      }),
    );
  });
});

describe('secrets', () => {
  it('in the file are refused with the command that stores them, and never shown', () => {
    const bmc = 'bmc: { driver: ipmi, address: h, user: u, password: ';
    const all = faults(`${HEAD}nodes:\n  - { name: n07, macs: ["52:54:00:99:00:07"], ${bmc}hunter2 } }\n`);
    expect(all).toEqual([
      expect.stringMatching(
        /^etc\/site\.yaml:9:99: nodes\[0\]\.bmc\.password: expected a reference to a secret .*; store it with: halligan secret set bmc\/n07 < FILE, and write secret:bmc\/n07$/,
      ),
    ]);
    expect(JSON.stringify(all)).not.toContain('hunter2');
    const byVariable = faults(
      `${HEAD}vars: { x: hunter2 }\nnodes:\n  - { name: n07, macs: ["52:54:00:99:00:07"], ${bmc}"\${x}" } }\n`,
    );
    expect(byVariable[0]).toMatch(/nodes\[0\]\.bmc\.password: expected a reference to a secret/);
    expect(JSON.stringify(byVariable)).not.toContain('hunter2');
  });

  it('in a variable are refused where they are written', () => {
    const all = faults(`${HEAD}vars: { bmc_password: hunter2 }\n`);
    expect(all[0]).toMatch(
      /^etc\/site\.yaml:8:23: vars\.bmc_password: .* never the secret itself; store it with: halligan/,
    );
    expect(JSON.stringify(all)).not.toContain('hunter2');
    expect(faults(`${HEAD}vars: { bmc_password: "file:/etc/halligan/bmc" }\n`)).toEqual([]);
  });
});

describe('version 1', () => {
  const OLD = `# Of last year.
version: 1   # do not touch
name: dc1
networks:
  - name: boot   # PXE
    cidr: 10.99.0.0/24
    interface: br0
    pool: { from: 10.99.0.200, to: 10.99.0.239 }
install:
  user_data: |
    #cloud-config
    runcmd: [ 'echo \${HOME}' ]
nodes:
  - name: N01
    macs: ["52:54:00:99:00:01"]
`;
  it('is read as it was meant, with the places of what was written', () => {
    const loaded = good(OLD.replace('N01', 'n01'));
    expect(loaded.version).toBe(1);
    expect(loaded.site.version).toBe(SITE_VERSION);
    expect(loaded.site.install.user_data).toContain(`'echo \${HOME}'`);
    expect(faults(OLD)[0]).toMatch(/^etc\/site\.yaml:14:11: nodes\[0\]\.name: /);
    // After the migrated place, on its line.
    expect(faults(`${OLD.replace('N01', 'n01')}cloud: { region: "\${a}", regoin: x }\n`)).toEqual([
      expect.stringMatching(/^etc\/site\.yaml:16:18: cloud\.region: expected/),
      expect.stringMatching(/^etc\/site\.yaml:16:26: cloud\.regoin: unknown field; did you mean region\?/),
    ]);
  });

  it('is brought up to date without losing a comment or a blank', () => {
    const { text, from, steps } = migrateSiteText(OLD);
    expect(from).toBe(1);
    expect(steps).toHaveLength(1);
    expect(text).toBe(OLD.replace('version: 1 ', 'version: 2 ').replace(/(?=\$\{HOME)/, '$'));
    expect(migrateSiteText(text)).toMatchObject({ text, from: 2, steps: [] });
  });

  it('knows nothing of what version 2 brought', () => {
    expect(faults(`${OLD.replace('N01', 'n01')}vars: { a: b }\n`)).toEqual([
      'etc/site.yaml:16:1: vars: known from version 2 on; bring the file up to it first: halligan site migrate etc/site.yaml',
    ]);
  });

  it('means the same before and after, whatever text it holds and however it is quoted', () => {
    const read = (text: string) => parseDocument(text, { logLevel: 'error' });
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('$', '{', '}', 'a', '${', '"', "'", '\n', ' ', '\\'), { minLength: 1 }),
        fc.constantFrom('PLAIN', 'QUOTE_DOUBLE', 'QUOTE_SINGLE', 'BLOCK_LITERAL', 'BLOCK_FOLDED'),
        (parts, style) => {
          const value = parts.join('');
          const old = stringify(
            { version: 1, a: { list: [value] }, b: value },
            { defaultStringType: style as 'PLAIN' },
          );
          const migrated = migrateText(old, read).text;
          const composed = compose(migrated, 'f', null);
          expect(Array.isArray(composed) ? composed : composed.data).toEqual({ ...parse(old), version: 2 });
        },
      ),
      { numRuns: 300 },
    );
  });
});
