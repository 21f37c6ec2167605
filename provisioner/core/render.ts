/**
 * The one way from a template to text. Handlebars, made strict: a missing value throws, nothing is HTML-escaped, the
 * values are a frozen copy of plain data without prototypes, and every value goes through the quoting helper of the
 * grammar it lands in (`{{sh name}}`, never `{{name}}`; the lint runs at each compile, so a bare one cannot render).
 *
 * Templates live in `templates/` and are named `NAME.GRAMMAR.hbs`; the grammar says which helpers may stand outermost:
 * `who.ipxe.hbs` may use `ipxe`, `ipxeText` and `url`. A grammar inside another is nested: `{{yaml (sh command)}}`.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Handlebars from 'handlebars';

/** What a template may be given: plain data. */
export type TemplateValue =
  | string
  | number
  | boolean
  | null
  | readonly TemplateValue[]
  | { readonly [key: string]: TemplateValue };
export type TemplateValues = { readonly [key: string]: TemplateValue };

/** A template that does not render is a bug, or a value that its grammar cannot carry. */
export class RenderError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RenderError';
  }
}

// ---- quoting, one function per grammar: each takes any text and yields one token of that grammar, or throws ----

const refuse = (grammar: string, what: string): never => {
  throw new RenderError(`a value cannot be written as ${grammar}: ${what}`);
};
const hex4 = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
const hasLoneSurrogate = (s: string) => /\p{Surrogate}/u.test(s);
const hasControl = (s: string) => /\p{Cc}/u.test(s);

/** One word of a POSIX shell, single-quoted. */
function sh(s: string): string {
  if (s.includes('\0')) refuse('a shell word', 'it holds a NUL');
  return `'${s.replaceAll("'", `'\\''`)}'`;
}

/** JSON, with what YAML 1.1 takes for line breaks or does not print written as escapes: valid in both. */
function yamlFlow(value: TemplateValue): string {
  if (typeof value === 'string') {
    if (hasLoneSurrogate(value)) refuse('YAML', 'it is not valid Unicode');
    return JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g, hex4);
  }
  if (Array.isArray(value)) return `[${value.map(yamlFlow).join(', ')}]`;
  if (value !== null && typeof value === 'object')
    return `{${Object.entries(value)
      .map(([k, v]) => `${yamlFlow(k)}: ${yamlFlow(v)}`)
      .join(', ')}}`;
  return JSON.stringify(value);
}

/**
 * A value to the right of `key =` for oslo.config, systemd, configparser and their like, which have no common quoting:
 * what they would cut or join is refused.
 */
function ini(s: string): string {
  if (hasControl(s) || /[\u0085\u2028\u2029]/.test(s))
    refuse('an INI value', 'it holds a line break or control character');
  if (s !== s.trim()) refuse('an INI value', 'it begins or ends with a blank');
  if (s.endsWith('\\')) refuse('an INI value', 'it ends with a backslash, which continues the line');
  if (/^["'].*["']$/.test(s)) refuse('an INI value', 'it is wrapped in quotes, which some readers remove');
  return s;
}

/** One component of a URL (RFC 3986: everything but unreserved characters is percent-encoded). */
function url(s: string): string {
  if (hasLoneSurrogate(s)) refuse('a URL component', 'it is not valid Unicode');
  return encodeURIComponent(s).replace(/[!'()*]/g, c => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * One token of an iPXE script. iPXE has no quoting: it splits at blanks, then expands `${…}`; `#` begins a comment,
 * `||`, `&&` and `;` end a command, a backslash at the end joins lines. So only harmless characters pass.
 */
function ipxe(s: string): string {
  if (!/^[A-Za-z0-9_.:/@%+=,~?&[\]-]+$/.test(s))
    refuse(
      'an iPXE token',
      `${JSON.stringify(s.slice(0, 80))} holds other characters than A-Z a-z 0-9 _ . : / @ % + = , ~ ? & [ ] -`,
    );
  if (/^-|^&&$/.test(s)) refuse('an iPXE token', `${JSON.stringify(s)} would be an option or an operator`);
  return s;
}

/** Text that an iPXE script prints, in place of the last words of an `echo`; made harmless, at the cost of odd characters. */
function ipxeText(s: string): string {
  return s
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/[^\x20-\x7e]+/g, ' ')
    .replace(/[$\\#;]/g, '.')
    .replace(/\|\|+/g, '|')
    .replace(/&&+/g, '&')
    .replace(/(^|\s)-+/g, '$1')
    .replace(/ {2,}/g, ' ')
    .trim()
    .slice(0, 300);
}

/** An SQL string literal that MariaDB, PostgreSQL and SQLite read alike; a backslash means different things to them. */
function sql(s: string): string {
  if (['\0', '\\', '\x1a'].some(c => s.includes(c))) refuse('an SQL string', 'it holds a NUL, a backslash or a Ctrl-Z');
  return `'${s.replaceAll("'", "''")}'`;
}

/** Name of a database, table or account in MariaDB, in backticks. */
function sqlName(s: string): string {
  if (!/^[A-Za-z0-9_$-]{1,64}$/.test(s)) refuse('an SQL name', `${JSON.stringify(s.slice(0, 80))} is no plain name`);
  return `\`${s}\``;
}

/** A Python literal: strings and numbers are those of JSON, whose escapes Python reads alike. */
function py(value: TemplateValue): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'string') {
    if (hasLoneSurrogate(value)) refuse('Python', 'it is not valid Unicode');
    return JSON.stringify(value);
  }
  if (typeof value === 'number') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(py).join(', ')}]`;
  return `{${Object.entries(value)
    .map(([k, v]) => `${py(k)}: ${py(v)}`)
    .join(', ')}}`;
}

const text = (quote: (s: string) => string) => (value: TemplateValue) => {
  if (value !== null && typeof value === 'object') return refuse('text', 'it is a list or an object');
  if (value === null) return refuse('text', 'it is null');
  return quote(String(value));
};

const QUOTERS = {
  ini: text(ini),
  ipxe: text(ipxe),
  ipxeText: text(ipxeText),
  json: (value: TemplateValue) => JSON.stringify(value),
  py,
  sh: text(sh),
  sql: text(sql),
  sqlName: text(sqlName),
  url: text(url),
  yaml: yamlFlow,
} as const satisfies Record<string, (value: TemplateValue) => string>;

export type Quoter = keyof typeof QUOTERS;

/** Quotes one value outside of a template, e.g. for a command sent over SSH: `quote('sh', name)`. */
export const quote = (quoter: Quoter, value: TemplateValue): string => QUOTERS[quoter](plain(value, quoter));

/** Which helpers may stand outermost in a file of the grammar. A grammar that is not named here may not be rendered. */
const GRAMMARS: Readonly<Record<string, readonly Quoter[]>> = {
  cfg: ['sh', 'url'],
  cnf: ['ini'],
  conf: ['ini'],
  ini: ['ini'],
  ipxe: ['ipxe', 'ipxeText', 'url'],
  json: ['json'],
  network: ['ini'],
  py: ['py'],
  service: ['ini'],
  timer: ['ini'],
  sh: ['sh'],
  sql: ['sql', 'sqlName'],
  yaml: ['yaml'],
  yml: ['yaml'],
};

const BLOCKS = ['each', 'if', 'unless', 'with'];

function grammarOf(name: string): readonly Quoter[] {
  const grammar = /\.([a-z]+)\.hbs$/.exec(name)?.[1];
  const quoters = grammar === undefined ? undefined : GRAMMARS[grammar];
  if (!quoters)
    throw new RenderError(
      `${name}: a template is named NAME.GRAMMAR.hbs, with one of: ${Object.keys(GRAMMARS).join(', ')}`,
    );
  return quoters;
}

/**
 * What is wrong with a template, one sentence each; empty when nothing is.
 * @param name file name; its grammar decides which helpers may be used
 */
export const lintTemplate = (name: string, source: string): string[] => parseTemplate(name, source).findings;

/** The tree is null where the source is no template at all. */
function parseTemplate(name: string, source: string): { findings: string[]; program: hbs.AST.Program | null } {
  const allowed = grammarOf(name);
  const findings: string[] = [];
  const report = (node: hbs.AST.Node, message: string) => findings.push(`${name}:${node.loc.start.line}: ${message}`);
  const original = (node: hbs.AST.Node) => (node as hbs.AST.PathExpression).original?.toString() ?? node.type;

  const call = (node: hbs.AST.MustacheStatement | hbs.AST.SubExpression, helpers: readonly string[]) => {
    const helper = original(node.path);
    if (!helpers.includes(helper))
      report(node, `"${helper}" stands bare or goes through the wrong helper; here only: ${helpers.join(', ')}`);
    else if (node.params.length !== 1 || node.hash) report(node, `${helper} takes exactly one value`);
    for (const param of node.params)
      if (param.type === 'SubExpression') call(param as hbs.AST.SubExpression, Object.keys(QUOTERS));
  };
  const walk = (program: hbs.AST.Program) => {
    for (const node of program.body) {
      if (node.type === 'MustacheStatement') {
        const mustache = node as hbs.AST.MustacheStatement;
        call(mustache, allowed);
        if (!mustache.escaped) report(node, 'write {{ }}, not {{{ }}} or {{& }}: nothing is escaped anyway');
      } else if (node.type === 'BlockStatement') {
        const block = node as hbs.AST.BlockStatement;
        if (!BLOCKS.includes(original(block.path))) report(node, `the block "${original(block.path)}" is not known`);
        else if (block.params.length !== 1) report(node, `the block "${original(block.path)}" takes exactly one value`);
        for (const param of block.params)
          if (param.type !== 'PathExpression') report(node, 'a block takes a plain name');
        walk(block.program);
        if (block.inverse) walk(block.inverse);
      } else if (node.type !== 'ContentStatement' && node.type !== 'CommentStatement') {
        report(node, `${node.type} is not used here`);
      }
    }
  };
  try {
    // White space is left to the compiler, which would take it away twice.
    const program = Handlebars.parseWithoutProcessing(source);
    walk(program);
    return { findings, program };
  } catch (error) {
    findings.push(`${name}: ${error instanceof Error ? error.message : error}`);
    return { findings, program: null };
  }
}

/** A frozen copy of plain data without prototypes; anything else (functions, class instances, cycles) throws. */
function plain(value: unknown, path: string, depth = 0): TemplateValue {
  if (depth > 32) throw new RenderError(`${path} is nested too deeply`);
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return Object.freeze(value.map((v, i) => plain(v, `${path}[${i}]`, depth + 1)));
  if (typeof value === 'object' && [Object.prototype, null].includes(Object.getPrototypeOf(value))) {
    const copy: Record<string, TemplateValue> = Object.create(null);
    for (const [k, v] of Object.entries(value)) copy[k] = plain(v, `${path}.${k}`, depth + 1);
    return Object.freeze(copy);
  }
  throw new RenderError(`${path} is ${value === undefined ? 'missing' : 'not plain data'}`);
}

/** Our own Handlebars, so that no other user's helpers or partials leak in. */
function createEngine(): typeof Handlebars {
  const engine = Handlebars.create();
  for (const helper of Object.keys(engine.helpers)) engine.unregisterHelper(helper);
  // `strict` does not reach the values that helpers and blocks get: these look themselves.
  const given = <T>(helper: string, value: T): T => {
    if (value === undefined) throw new RenderError(`a value of {{${helper} …}} is missing`);
    return value;
  };
  for (const [name, quoter] of Object.entries(QUOTERS))
    engine.registerHelper(name, (value: TemplateValue) => quoter(given(name, value)));
  type Block = Handlebars.HelperOptions;
  const truthy = (v: unknown) => (Array.isArray(v) ? v.length > 0 : Boolean(v));
  engine.registerHelper('if', function (this: unknown, value: unknown, o: Block) {
    return truthy(given('#if', value)) ? o.fn(this) : o.inverse(this);
  });
  engine.registerHelper('unless', function (this: unknown, value: unknown, o: Block) {
    return truthy(given('#unless', value)) ? o.inverse(this) : o.fn(this);
  });
  engine.registerHelper('with', (value: unknown, o: Block) => o.fn(given('#with', value)));
  engine.registerHelper('each', function (this: unknown, value: unknown, o: Block) {
    if (!Array.isArray(given('#each', value))) throw new RenderError('{{#each …}} takes a list');
    const items = value as TemplateValue[];
    return items.length === 0 ? o.inverse(this) : items.map(item => o.fn(item)).join('');
  });
  return engine;
}

const ENGINE = createEngine();

/**
 * Compiles a template.
 * @param name `NAME.GRAMMAR.hbs`
 * @throws RenderError with every finding of the lint
 */
export function compileTemplate(name: string, source: string): (values: TemplateValues) => string {
  const { findings, program } = parseTemplate(name, source);
  if (findings.length > 0 || !program) throw new RenderError(findings.join('\n'));
  const template = ENGINE.compile(program, { strict: true, noEscape: true, knownHelpersOnly: false });
  return values => {
    try {
      return template(plain(values, 'values'), {
        allowProtoMethodsByDefault: false,
        allowProtoPropertiesByDefault: false,
      });
    } catch (error) {
      throw new RenderError(`${name}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  };
}

/** The folder `templates/` of the project, from source as from dist/. */
export function templatesDir(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) {
    if (dir === dirname(dir)) throw new RenderError('the folder templates/ was not found above this program');
    dir = dirname(dir);
  }
  return join(dir, 'templates');
}

/** Reads and compiles a template, e.g. `ipxe/who.ipxe.hbs`. For texts that are rendered often: load at start, keep it. */
export function loadTemplate(path: string, dir = templatesDir()): (values: TemplateValues) => string {
  return compileTemplate(path, readFileSync(join(dir, path), 'utf8'));
}

/** Renders a template of `templates/` once. */
export const render = (path: string, values: TemplateValues): string => loadTemplate(path)(values);
