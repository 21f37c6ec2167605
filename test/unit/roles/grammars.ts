/** Reads rendered files back with a parser of their grammar. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

type Grammar =
  | 'ini'
  | 'python'
  | 'shell'
  | 'json'
  | 'pem'
  | 'apache'
  | 'settings'
  | 'lvm'
  | 'rsyncd'
  | 'hosts'
  | 'sshd'
  | 'words'
  /** Stanzas of deb822(5) with what sources.list(5) asks of each. */
  | 'deb822';

/** First that fits; a path that none fits is a finding: who writes a new kind of file names its grammar here. */
const BY_PATH: readonly (readonly [RegExp, Grammar])[] = [
  [/\.(key|crt|pem)$/, 'pem'],
  [/\.json$/, 'json'],
  [/\.py$/, 'python'],
  [/^\/etc\/default\/|^\/usr\/local\/sbin\/|\/rabbitmq-env\.conf$|^\/usr\/bin\/qemu-/, 'shell'],
  [/^\/etc\/apache2\//, 'apache'],
  [/^\/etc\/systemd\/|^\/etc\/gnutls\/|keyring$/, 'ini'],
  [/\/(rabbitmq\.conf|libvirtd\.conf|qemu\.conf|initiatorname\.iscsi)$|^\/etc\/sysctl\.d\//, 'settings'],
  [/^\/etc\/lvm\//, 'lvm'],
  [/\/rsyncd\.conf$/, 'rsyncd'],
  [/^\/etc\/hosts$/, 'hosts'],
  [/\.sources$/, 'deb822'],
  [/^\/etc\/ssh\/sshd_config/, 'sshd'],
  [
    /^\/etc\/(halligan\/|chrony\/|memcached\.conf|openvswitch\/|keystone\/(fernet|credential)-keys\/|rabbitmq\/enabled_plugins|tgt\/)|erlang\.cookie$|cloud-init\.disabled$|\/\.ssh\//,
    'words',
  ],
];

export interface Text {
  readonly path: string;
  readonly text: string;
  /** `ini` of a file resource. */
  readonly grammar?: string;
}

/** What cannot be parsed, one line each. */
export function unparsed(files: readonly Text[]): string[] {
  const findings: string[] = [];
  const python: { path: string; text: string; kind: 'ini' | 'python' }[] = [];
  const shell: Text[] = [];
  for (const file of files) {
    const grammar = file.grammar === 'ini' ? 'ini' : BY_PATH.find(([pattern]) => pattern.test(file.path))?.[1];
    const { path, text } = file;
    const say = (what: string) => findings.push(`${path}: ${what}`);
    if (text === '' || !text.endsWith('\n')) if (grammar !== 'words') say('its last line has no end');
    switch (grammar) {
      case undefined:
        say('its grammar is not known to test/unit/roles/grammars.ts');
        break;
      case 'ini':
      case 'python':
        python.push({ path, text, kind: grammar });
        break;
      case 'rsyncd':
        python.push({ path, text: `[global]\n${text}`, kind: 'ini' });
        break;
      case 'deb822':
        for (const stanza of text
          .replace(/^#.*\n/gm, '')
          .trim()
          .split(/\n\n+/)) {
          const fields = stanza.split('\n').map(l => /^([A-Z][A-Za-z-]*): \S/.exec(l)?.[1]);
          if (fields.join() !== 'Types,URIs,Suites,Components,Signed-By') say(`a stanza has ${fields.join()}`);
        }
        break;
      case 'shell':
        shell.push(file);
        break;
      case 'json':
        try {
          JSON.parse(text);
        } catch (error) {
          say((error as Error).message);
        }
        break;
      case 'pem':
        if (!/^-----BEGIN ([A-Z ]+)-----\n(?:.+\n)+-----END \1-----\n$/.test(text)) say('it is no PEM');
        break;
      case 'apache':
        for (const fault of apacheFaults(text)) say(fault);
        break;
      default:
        for (const [i, line] of text.split('\n').entries())
          if (!LINES[grammar].test(line)) say(`line ${i + 1}: ${line}`);
    }
  }
  return [...findings, ...pythonFaults(python), ...shellFaults(shell)];
}

const LINES = {
  /** `name = value` of sysctl.d(5), rabbitmq.conf, libvirt's files. */
  settings: /^\s*$|^\s*#|^[A-Za-z][\w.-]* *= *\S.*$/,
  /** lvm.conf(5): sections in braces. */
  lvm: /^$|^\s*#|^[a-z]+ \{$|^\}$|^\t[a-z_]+ = \S.*$/,
  hosts: /^$|^#|^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f:]+)( +[a-z0-9.-]+)+$/,
  sshd: /^$|^#|^[A-Z][A-Za-z]+ \S.*$/,
  /** No control characters, no blanks at the end. */
  words: /^$|^\P{Cc}*[^\s\p{Cc}]$/u,
} as const;

/** Sections that are closed by whom they were opened, and one directive per line. */
function apacheFaults(text: string): string[] {
  const open: string[] = [];
  const faults: string[] = [];
  for (const [i, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    const begin = /^<([A-Z][A-Za-z]*)(?: [^<>]+)?>$/.exec(line);
    const end = /^<\/([A-Z][A-Za-z]*)>$/.exec(line);
    if (begin) open.push(begin[1]!);
    else if (end) {
      if (open.pop() !== end[1]) faults.push(`line ${i + 1}: ${line} closes nothing`);
    } else if (line !== '' && !/^#|^[A-Z][A-Za-z]+( \S.*)?$/.test(line)) faults.push(`line ${i + 1}: ${line}`);
  }
  return open.length > 0 ? [...faults, `${open.join(', ')} is not closed`] : faults;
}

/** As oslo.config and PasteDeploy read it: no interpolation; a key may come twice where uwsgi and systemd want it. */
const PYTHON = `
import ast, configparser, json, sys
for f in json.load(sys.stdin):
    try:
        if f['kind'] == 'python':
            ast.parse(f['text'])
        else:
            configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=('=',)).read_string(f['text'])
    except Exception as e:
        print(f['path'] + ': ' + ' '.join(str(e).split()))
`;

function pythonFaults(files: readonly object[]): string[] {
  const { stdout, stderr, status } = spawnSync('python3', ['-c', PYTHON], {
    input: JSON.stringify(files),
    encoding: 'utf8',
  });
  if (status !== 0) return [`python3: ${stderr}`];
  return stdout.split('\n').filter(Boolean);
}

/** With `sh -n`, all in one process. */
export function shellFaults(scripts: readonly Text[]): string[] {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-sh-'));
  try {
    for (const [i, s] of scripts.entries()) writeFileSync(join(dir, String(i)), s.text);
    const { stdout } = spawnSync('sh', ['-c', 'for f in *; do sh -n "$f" 2>&1 || echo "$f: refused"; done'], {
      cwd: dir,
      encoding: 'utf8',
    });
    return stdout
      .split('\n')
      .filter(Boolean)
      .map(line => line.replace(/^(\d+): /, (_, i: string) => `${scripts[Number(i)]!.path}: `));
  } finally {
    rmSync(dir, { recursive: true });
  }
}
