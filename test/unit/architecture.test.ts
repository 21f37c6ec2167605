/**
 * The rules of docs/architecture.md, read off the source itself. The source is formatted, so that what starts in the
 * first column is at module level.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PROBLEMS } from '../../provisioner/core/problem.js';
import { problemsPage } from '../../provisioner/core/problem-page.js';

const ROOT = resolve(import.meta.dirname, '../..');

function filesBelow(folder: string, suffix: string): string[] {
  const dir = join(ROOT, folder);
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name.endsWith(suffix))
    .map(entry => relative(ROOT, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

/** Code without comments and without the content of strings, line numbers kept. Templates keep their `${…}`. */
function bare(source: string): string {
  let out = '';
  for (let i = 0; i < source.length; i++) {
    const two = source.slice(i, i + 2);
    if (two === '//') {
      while (i < source.length && source[i] !== '\n') i++;
      out += '\n';
    } else if (two === '/*' && !/[\w}"'$-]/.test(source[i - 1] ?? '')) {
      // After a word it is a shell's pattern in a template: `/dev/disk/by-id/*`.
      const end = source.indexOf('*/', i + 2);
      if (end < 0) throw new Error(`a comment without an end: ${source.slice(i, i + 80)}`);
      out += source.slice(i, end).replace(/[^\n]/g, '');
      i = end + 1;
    } else if (source[i] === "'" || source[i] === '"') {
      const quote = source[i];
      out += quote;
      for (i++; i < source.length && source[i] !== quote && source[i] !== '\n'; i++) if (source[i] === '\\') i++;
      out += source[i] ?? '';
    } else out += source[i];
  }
  return out;
}

interface Source {
  readonly path: string;
  readonly text: string;
  readonly bare: string;
  /** What it imports: packages as they are, own files as paths from the root. */
  readonly imports: readonly string[];
}

function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const imports = [...text.matchAll(/(?:^|\s)(?:from|import)\s*\(?\s*'([^'\n]+)'/g)].map(m => {
    const target = m[1]!;
    return target.startsWith('.')
      ? relative(ROOT, resolve(ROOT, dirname(path), target))
          .split(sep)
          .join('/')
      : target.replace(/^node:/, '');
  });
  return { path, text, bare: bare(text), imports };
}

const pages = [...filesBelow('ui', '.ts'), ...filesBelow('ui', '.tsx')].sort().map(readSource);
const sources = ['provisioner', 'installer', 'bench', 'roles', 'templates']
  .flatMap(folder => filesBelow(folder, '.ts'))
  .map(readSource);
const below = (folder: string) => sources.filter(s => s.path.startsWith(`${folder}/`));

/** `path:line: text` of every line that matches, of files that are not allowed to. */
function hits(pattern: RegExp, allowed: (path: string) => boolean = () => false, among = sources): string[] {
  return among
    .filter(s => !allowed(s.path))
    .flatMap(s =>
      s.bare.split('\n').flatMap((line, i) => (pattern.test(line) ? [`${s.path}:${i + 1}: ${line.trim()}`] : [])),
    );
}

/** The composition root, the command line, and programs that run as processes of their own: they read flags and end. */
const EDGES = ['provisioner/main.ts', 'provisioner/lab/agent.ts', 'provisioner/lab/uplink.ts', 'bench/main.ts'];
const isEdge = (path: string) => EDGES.includes(path) || path.startsWith('provisioner/cli/');

/** Files that hand (a part of) our environment on to a program they start; they decide nothing by it. */
const PASS_ENVIRONMENT_ON = [
  'provisioner/console/consoles.ts',
  'provisioner/image/mmdebstrap.ts',
  'provisioner/lab/container.ts',
  'provisioner/lab/up.ts',
  'provisioner/power/ipmi.ts',
];

describe('layers', () => {
  it('reads real source', () => {
    expect(sources.length).toBeGreaterThan(50);
    expect(below('provisioner/core').flatMap(s => s.imports)).toContain('provisioner/core/problem.js');
  });

  it('core imports nothing of the other folders of provisioner, nor of installer', () => {
    const wrong = below('provisioner/core').flatMap(s =>
      s.imports
        .filter(i => /^(provisioner|installer)\//.test(i) && !i.startsWith('provisioner/core/'))
        .map(i => `${s.path} imports ${i}`),
    );
    expect(wrong).toEqual([]);
  });

  it('installer imports of provisioner only core', () => {
    const wrong = below('installer').flatMap(s =>
      s.imports
        .filter(i => i.startsWith('provisioner/') && !i.startsWith('provisioner/core/'))
        .map(i => `${s.path} imports ${i}`),
    );
    expect(wrong).toEqual([]);
  });

  it('provisioner imports nothing of installer, but for the composition root', () => {
    const wrong = below('provisioner')
      .filter(s => s.path !== 'provisioner/main.ts')
      .flatMap(s => s.imports.filter(i => i.startsWith('installer/')).map(i => `${s.path} imports ${i}`));
    expect(wrong).toEqual([]);
  });

  it('roles and templates know nothing of sockets', () => {
    const sockets = ['net', 'dgram', 'tls', 'http', 'https', 'http2', 'child_process', 'ssh2', 'undici', 'fastify'];
    const wrong = [...below('roles'), ...below('templates')].flatMap(s =>
      s.imports.filter(i => sockets.includes(i)).map(i => `${s.path} imports ${i}`),
    );
    expect(wrong).toEqual([]);
    for (const folder of ['roles', 'templates'])
      for (const suffix of ['.js', '.mjs', '.cjs']) expect(filesBelow(folder, suffix)).toEqual([]);
  });

  it('nothing that is shipped imports a test', () => {
    expect(
      sources.flatMap(s =>
        s.imports
          // The bench is no part of the program: it stands on the parts that the suites stand on.
          .filter(i => i.startsWith('test/') && !(s.path.startsWith('bench/') && i.startsWith('test/harness/')))
          .map(i => `${s.path} imports ${i}`),
      ),
    ).toEqual([]);
  });
});

/** Pure files of the program that the pages run, too; of all others they take types alone. */
const SHARED_WITH_PAGES = [
  'provisioner/core/cloud-service.js',
  'provisioner/core/cloud-words.js',
  'provisioner/node/filter.js',
  'provisioner/node/lifecycle.js',
  'provisioner/node/plan.js',
];

describe('the pages', () => {
  const codeOf = (s: Source): string[] =>
    [...s.text.matchAll(/^(?:import|export)\s+(?!type\b)([^;]*?)\s*from\s*'([^']+)'/gms)]
      // `import { type A, type B }` is erased as a whole.
      .filter(m => !/^\{\s*(type \w+,?\s*)+\}$/.test(m[1]!))
      .map(m => m[2]!);
  const fromRoot = (path: string, target: string) =>
    target.startsWith('.')
      ? relative(ROOT, resolve(ROOT, dirname(path), target))
          .split(sep)
          .join('/')
      : target;

  it('run of the program only the listed pure files, and those import nothing that a browser lacks', () => {
    expect(pages.length).toBeGreaterThan(20);
    const used = pages.flatMap(s =>
      codeOf(s)
        .map(target => fromRoot(s.path, target))
        .filter(target => /^(provisioner|installer|roles)\//.test(target)),
    );
    expect([...new Set(used)].sort()).toEqual(SHARED_WITH_PAGES);
    for (const shared of SHARED_WITH_PAGES) {
      const source = sources.find(s => s.path === shared.replace(/js$/, 'ts'))!;
      const own = codeOf(source).map(target => fromRoot(source.path, target));
      expect(
        own.filter(target => !SHARED_WITH_PAGES.includes(target)),
        `${shared} is run in browsers`,
      ).toEqual([]);
    }
  });

  it('use nothing of Node.js, and no way to make code or markup of text', () => {
    const wrong = pages
      .filter(s => s.path.startsWith('ui/src/'))
      .flatMap(s =>
        s.imports.filter(i => /^(fs|path|crypto|os|child_process|net|http)(\/|$)/.test(i)).map(i => `${s.path}: ${i}`),
      );
    expect(wrong).toEqual([]);
    expect(
      hits(
        /dangerouslySetInnerHTML|\binnerHTML\b|\bouterHTML\b|insertAdjacentHTML|document\.write|\beval\(|new Function\(/,
        undefined,
        pages,
      ),
    ).toEqual([]);
  });

  it('keep view/ and the feed’s reducer free of the browser: they are tested without one', () => {
    const pure = pages.filter(s => s.path.startsWith('ui/src/view/') || /live\/(reducer|sse)\.ts$/.test(s.path));
    expect(pure.length).toBeGreaterThan(8);
    expect(hits(/\b(document|window|localStorage|navigator|fetch)\b[.(]/, undefined, pure)).toEqual([]);
    expect(pure.flatMap(s => s.imports.filter(i => /^(react|@tanstack)/.test(i)).map(i => `${s.path}: ${i}`))).toEqual(
      [],
    );
  });

  it('are imported by nothing that is compiled for the server', () => {
    expect(sources.flatMap(s => s.imports.filter(i => i.startsWith('ui/')).map(i => `${s.path} imports ${i}`))).toEqual(
      [],
    );
  });
});

describe('the composition root', () => {
  it('alone, with the command line, reads flags and ends the process', () => {
    expect(hits(/\bprocess\.(argv|exit|exitCode)\b/, isEdge)).toEqual([]);
  });

  it('alone, with the command line, reads the environment; listed files pass it on to programs', () => {
    expect(hits(/\bprocess\.env\b/, path => isEdge(path) || PASS_ENVIRONMENT_ON.includes(path))).toEqual([]);
    const users = new Set(hits(/\bprocess\.env\b/).map(hit => hit.split(':')[0]));
    expect(
      PASS_ENVIRONMENT_ON.filter(path => !users.has(path)),
      'listed without need',
    ).toEqual([]);
  });

  it('alone takes signals', () => {
    expect(hits(/\bprocess\.(on|once)\(/, isEdge)).toEqual([]);
  });
});

describe('state', () => {
  it('is kept in no module: no variable, no empty collection at module level', () => {
    expect(hits(/^(export )?(let|var) /, isEdge)).toEqual([]);
    expect(
      hits(/^(export )?const \w+(: [^=]+)? = (new (Map|Set|WeakMap|WeakSet|Array)(<[^(]*>)?\(\)|\[\]|\{\});?$/),
    ).toEqual([]);
  });

  it('is not hidden in constants either: what a module names is never added to', () => {
    const wrong = sources.flatMap(s =>
      [...s.bare.matchAll(/^(?:export )?const (\w+)(?:: [^=\n]+)? = (?:new (?:Map|Set)\b|\[)/gm)].flatMap(m =>
        new RegExp(`\\b${m[1]}\\.(set|add|delete|clear|push|pop|shift|unshift|splice)\\(`).test(s.bare)
          ? [`${s.path} changes ${m[1]}`]
          : [],
      ),
    );
    expect(wrong).toEqual([]);
  });
});

describe('child processes', () => {
  it('are started with a list of arguments, never through a shell', () => {
    const wrong = sources.flatMap(s => {
      const names = [...s.text.matchAll(/import\s*\{([^}]*)\}\s*from\s*'(?:node:)?child_process'/g)].flatMap(m =>
        m[1]!.split(',').map(name => name.trim().split(/\s+as\s+/)[0]!),
      );
      return names.filter(n => n === 'exec' || n === 'execSync').map(n => `${s.path} imports ${n}`);
    });
    expect(wrong).toEqual([]);
    const starters = sources.filter(s => s.imports.includes('child_process'));
    expect(starters.length).toBeGreaterThan(3);
    expect(hits(/\bshell:\s*(?!false)/, undefined, starters)).toEqual([]);
    expect(hits(/child_process\b.*\bexec(Sync)?\(/)).toEqual([]);
  });
});

describe('the catalogue of problems', () => {
  it('is sorted, and each entry is a sentence and a way on', () => {
    const codes = Object.keys(PROBLEMS);
    expect(codes).toEqual([...codes].sort());
    for (const [code, p] of Object.entries(PROBLEMS)) {
      expect(p.summary, code).toMatch(/^[A-Z].*[^.]$/s);
      expect(p.hint, code).toMatch(/[.)]$/);
    }
  });

  it('and docs/problems.md are the same, both ways', async () => {
    await expect(problemsPage()).toMatchFileSnapshot('../../docs/problems.md');
  });
});

describe('these rules', () => {
  it('find what they look for', () => {
    const source = bare(`const a = 'process.exit'; // process.exit\nprocess.exit(1);\n/* let\nx */ let y`);
    expect(source.split('\n').map(line => /process\.exit/.test(line))).toEqual([false, true, false, false]);
    expect(source.split('\n')).toHaveLength(4);
  });
});
