import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import sqlite3 from 'sqlite3';
import { describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import {
  compileTemplate,
  lintTemplate,
  quote,
  RenderError,
  type TemplateValue,
  templatesDir,
} from '../../../provisioner/core/render.js';

const HOSTILE = [
  '',
  ' ',
  "a'b",
  `a"b`,
  "'; touch /tmp/pwned; '",
  '$(id)',
  '`id`',
  '$\u007bIFS}x',
  '\\',
  'ends with \\',
  'two\nlines',
  'n1\nlate-commands: [reboot]',
  '\r\n',
  '\t tab',
  '#comment',
  '- item',
  '{flow: 1}',
  '*alias',
  '&anchor',
  '!tag',
  '%directive',
  '@at',
  'no',
  '0x10',
  '1e3',
  'null',
  '~',
  '---',
  '...',
  ': ',
  'key: value',
  '</script>',
  '-n',
  '--help',
  '\u0085next line',
  '\u2028line separator',
  '\ufeffbom',
  '日本語 😀',
  '__proto__',
  'constructor',
  'a && reboot',
  'a || reboot',
  'a ; reboot',
  'x'.repeat(5000),
];
const noNul = fc.string({ unit: 'grapheme', maxLength: 60 }).filter(s => !s.includes('\0'));
const one = (grammar: string, body: string) => {
  const render = compileTemplate(`t.${grammar}.hbs`, body);
  return (v: TemplateValue) => render({ v });
};

describe('sh', () => {
  it('gives bash each hostile value back as one word, byte for byte', () => {
    const render = compileTemplate('t.sh.hbs', "{{#each words}}printf '%s\\0' {{sh this}}\n{{/each}}");
    const words = [...HOSTILE, ...fc.sample(noNul, 300)];
    const script = render({ words });
    execFileSync('bash', ['-n'], { input: script });
    const out = execFileSync('bash', [], { input: script, maxBuffer: 1 << 24 }).toString();
    expect(out.split('\0').slice(0, -1)).toEqual(words);
  });
  it('refuses a NUL, which no argument can hold', () => {
    expect(() => one('sh', 'echo {{sh v}}')('a\0b')).toThrow(/NUL/);
  });
});

describe('yaml and json', () => {
  it('yield the same value after parsing, in YAML 1.2 and 1.1, and add no keys', () => {
    const render = one('yaml', 'before: 1\nvalue: {{yaml v}}\nafter: 2\n');
    for (const v of [...HOSTILE, ...fc.sample(noNul, 300), '\0', 12, -0.5, true, null, ['a', { 'k:\n': "x'" }]])
      for (const version of ['1.1', '1.2'] as const)
        expect(parseYaml(render(v as TemplateValue), { version })).toEqual({ before: 1, value: v, after: 2 });
  });
  it('refuses half a surrogate pair, which YAML cannot hold', () => {
    expect(() => one('yaml', 'a: {{yaml v}}')('\ud800')).toThrow(/Unicode/);
  });
  it('round-trips any JSON through the json helper', () => {
    const render = one('json', '{"v": {{json v}} }');
    fc.assert(
      fc.property(fc.jsonValue(), v => {
        expect(JSON.parse(render(v as TemplateValue))).toEqual({ v: JSON.parse(JSON.stringify(v)) });
      }),
    );
  });
});

describe('ini', () => {
  it('gives python’s configparser the value back, or refuses it', () => {
    const render = one('ini', '[s]\nbefore = 1\nv = {{ini v}}\nafter = 2\n');
    const accepted: string[] = [];
    const texts: string[] = [];
    for (const v of [...HOSTILE, ...fc.sample(noNul, 200)]) {
      try {
        texts.push(render(v));
        accepted.push(v);
      } catch (error) {
        expect(error).toBeInstanceOf(RenderError);
      }
    }
    expect(accepted).toContain('key: value');
    expect(accepted).not.toContain('two\nlines');
    const program = `import sys,json,configparser
out=[]
for t in json.load(sys.stdin):
    p=configparser.RawConfigParser(); p.read_string(t); assert p.options('s')==['before','v','after'], t; out.append(p.get('s','v'))
print(json.dumps(out))`;
    const out = execFileSync('python3', ['-c', program], { input: JSON.stringify(texts), maxBuffer: 1 << 24 });
    expect(JSON.parse(out.toString())).toEqual(accepted);
  });
});

describe('url', () => {
  it('survives a URL parser as one query value', () => {
    for (const v of [...HOSTILE, ...fc.sample(noNul, 300)]) {
      const text = one('ipxe', 'chain http://h/p?a=1&v={{url v}}&z=2')(v);
      const parsed = new URL(text.slice('chain '.length));
      expect([...parsed.searchParams]).toEqual([
        ['a', '1'],
        ['v', v],
        ['z', '2'],
      ]);
      expect(text.split(/\s/)).toHaveLength(2);
    }
  });
});

/** How iPXE cuts a line: at blanks, `#` at the start of a token ends it, `||`, `&&` and `;` as tokens end a command. */
function ipxeCommands(script: string): string[][] {
  const commands: string[][] = [];
  for (const line of script.replace(/\\\r?\n/g, '').split('\n')) {
    const tokens = line.split(/\s+/).filter(t => t !== '');
    const comment = tokens.findIndex(t => t.startsWith('#'));
    let command: string[] = [];
    for (const token of comment < 0 ? tokens : tokens.slice(0, comment)) {
      if (token === '||' || token === '&&' || token === ';') {
        commands.push(command);
        command = [];
      } else command.push(token);
    }
    if (command.length) commands.push(command);
  }
  return commands;
}

describe('ipxe', () => {
  it('passes a token unchanged or refuses it, never as two tokens, an option, an operator or an expansion', () => {
    const render = one('ipxe', 'kernel {{ipxe v}} end\nboot\n');
    for (const v of [...HOSTILE, ...fc.sample(noNul, 500), 'ttyS0,115200', 'http://10.0.0.1:7481', '&&', ';']) {
      let text: string;
      try {
        text = render(v);
      } catch (error) {
        expect(error).toBeInstanceOf(RenderError);
        continue;
      }
      expect(ipxeCommands(text)).toEqual([['kernel', v, 'end'], ['boot']]);
      expect(text).not.toContain('$');
    }
    expect(render('ttyS0,115200')).toContain('ttyS0,115200');
  });
  it('prints any text as one echo without options, expansions or a joined next line', () => {
    const render = one('ipxe', 'echo Halligan: {{ipxeText v}}\nboot\n');
    for (const v of [...HOSTILE, ...fc.sample(noNul, 500)]) {
      const commands = ipxeCommands(render(v));
      expect(commands).toHaveLength(2);
      expect(commands[0]?.slice(0, 2)).toEqual(['echo', 'Halligan:']);
      expect(commands[1]).toEqual(['boot']);
      expect(commands[0]?.slice(2).some(t => t.startsWith('-') || t.includes('$'))).toBe(false);
    }
  });
});

describe('sql', () => {
  it('gives SQLite the value back, or refuses it', async () => {
    const db = new sqlite3.Database(':memory:');
    for (const v of [...HOSTILE, ...fc.sample(noNul, 100)]) {
      if (v.includes('\\') || v.includes('\x1a')) {
        expect(() => quote('sql', v)).toThrow(RenderError);
        continue;
      }
      const row = await new Promise((resolve, reject) =>
        db.get(one('sql', 'SELECT {{sql v}} AS v')(v), (e, r) => (e ? reject(e) : resolve(r))),
      );
      expect(row).toEqual({ v });
    }
    db.close();
  });
});

describe('sqlName', () => {
  it('takes plain names of databases and accounts, and nothing else', () => {
    expect(quote('sqlName', 'nova_api')).toBe('`nova_api`');
    for (const v of ['', 'a`b', 'a b', "a'b", 'a;b', 'a\nb', 'x'.repeat(65)])
      expect(() => quote('sqlName', v)).toThrow(RenderError);
  });
});

describe('py', () => {
  it('gives Python the value back', () => {
    const values: TemplateValue[] = [
      ...HOSTILE,
      null,
      true,
      false,
      0,
      -1.5,
      [],
      {},
      [{ a: [true, null] }],
      '\u2028\u0085',
    ];
    const source = values.map(v => one('py', '{{py v}}')(v)).join(',\n');
    const out = execFileSync(
      'python3',
      ['-c', `import ast, json, sys\nprint(json.dumps(ast.literal_eval('[' + sys.stdin.read() + ']')))`],
      {
        input: source,
        encoding: 'utf8',
      },
    );
    expect(JSON.parse(out)).toEqual(values);
  });
  it('refuses half a surrogate pair, which is no text', () => {
    expect(() => quote('py', '\ud800')).toThrow(RenderError);
  });
});

describe('render', () => {
  it('throws on a missing value, also inside blocks and nested names', () => {
    for (const body of ['{{sh gone}}', '{{sh a.gone}}', '{{#if gone}}x{{/if}}', '{{#each gone}}x{{/each}}'])
      expect(() => compileTemplate('t.sh.hbs', body)({ a: {} }), body).toThrow(RenderError);
  });
  it('throws on a bare value, a wrong helper, a triple-stash, a partial and an unknown block', () => {
    for (const body of [
      '{{x}}',
      '{{{sh x}}}',
      '{{&sh x}}',
      '{{yaml x}}',
      '{{> p}}',
      '{{#each xs}}{{this}}{{/each}}',
      '{{#nope x}}{{/nope}}',
      '{{sh x y}}',
      '{{sh (nope x)}}',
      '{{sh (lookup x "constructor")}}',
      '{{#if (sh x)}}{{/if}}',
      '{{#if x}}{{else}}{{x}}{{/if}}',
      '{{#*inline "p"}}{{/inline}}',
      '{{sh x',
    ])
      expect(() => compileTemplate('t.sh.hbs', body), body).toThrow(RenderError);
    expect(() => compileTemplate('t.yaml.hbs', 'run: {{yaml (sh x)}}')).not.toThrow();
    expect(() => compileTemplate('t.txt.hbs', 'x')).toThrow(/NAME.GRAMMAR/);
  });
  it('reaches no prototype, function or class instance', () => {
    for (const path of [
      'constructor',
      '__proto__',
      's.constructor',
      's.trim',
      'toString',
      's.__proto__.x',
      '@root.constructor',
    ])
      expect(() => compileTemplate('t.sh.hbs', `{{sh ${path}}}`)({ s: 'x' }), path).toThrow(RenderError);
    const render = compileTemplate('t.sh.hbs', '{{sh v}}');
    for (const v of [() => 'x', new Date(), new Map(), Number.NaN, Symbol('x')])
      expect(() => render({ v } as never)).toThrow(RenderError);
    const cyclic: Record<string, unknown> = {};
    cyclic['v'] = cyclic;
    expect(() => render(cyclic as never)).toThrow(/nested/);
  });
  it('does not escape HTML and does not render what a value holds', () => {
    expect(compileTemplate('t.sh.hbs', 'x={{sh v}}')({ v: 'ds=nocloud&{{sh v}}<b>' })).toBe(
      `x='ds=nocloud&{{sh v}}<b>'`,
    );
  });
});

describe('the shipped templates', () => {
  const files = readdirSync(templatesDir(), { recursive: true, encoding: 'utf8' }).filter(f => f.endsWith('.hbs'));
  it('are there', () => expect(files.filter(f => f.startsWith('ipxe/')).length).toBeGreaterThan(3));
  it.each(files)('%s has no bare value', file => {
    expect(lintTemplate(file, readFileSync(join(templatesDir(), file), 'utf8'))).toEqual([]);
  });
});
