import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildCli, type CliDeps } from '../../../provisioner/cli/cli.js';
import { parseSse } from '../../../provisioner/cli/client.js';
import { escapeInput } from '../../../provisioner/cli/console.js';
import { WITHOUT_COMMAND } from '../../../provisioner/cli/node.js';
import { age, durationMs, plain } from '../../../provisioner/cli/output.js';
import { problem } from '../../../provisioner/core/problem.js';
import { NODE_ACTIONS } from '../../../provisioner/node/lifecycle.js';
import { type FakeServer, fakeServer, nodeView, SITE_TEXT, T0 } from '../api/fakes.js';
import { runAt } from './run-at.js';

let dir: string;
let server: FakeServer;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-cli-'));
  server = await fakeServer(
    [
      nodeView('n01', 'available', { source: 'site' }),
      nodeView('n02', 'claimed'),
      nodeView('n10', 'installed', {
        spec: { address: '10.99.0.20', bmc: null, roles: ['compute'], install: {} },
      }),
      nodeView('n03', 'installing-failed', {
        failure: problem('disk-foreign', 'n03: /dev/vda carries an ext4 file system that is not ours.'),
      }),
    ],
    // Its age is a part of what is printed.
    { socketPath: join(dir, 's'), clock: { nowMs: () => T0, monotonicMs: () => 0 } },
  );
  const os = {
    address: '10.99.0.20',
    hostKey: 'k',
    login: 'ops',
    image: 'debian-12',
    installedMs: T0,
    firstBootMs: T0,
  };
  const n10 = server.table.table.get('n10')!;
  server.table.table.set('n10', { ...n10, status: { ...n10.status, os } });
});
afterEach(async () => {
  await server.handle.close();
  rmSync(dir, { recursive: true, force: true });
});

const halligan = (line: string | string[], options: Parameters<typeof runAt>[2] = {}) =>
  runAt(join(dir, 's'), line, options);

describe('what commands print', () => {
  it.each([
    'node list',
    'node list -o wide',
    'node list -o name',
    'node list --state claimed -o yaml',
    'node show n01',
    'node show n10',
    'node show n03 nowhere',
    'node why n01',
    'node claim n01',
    'node claim n01 n02 nowhere',
    'node claim n01 -o json',
    'node install n02 --dry-run',
    'node release n10 --dry-run',
    'node release n10',
    'node power n01 off',
    'node power n01 n02',
    'node power off',
    'node remove n01 n02',
    'node adopt 10.98.0.7 --name old --host-key SHA256:abc',
    'node add n44 --mac 52:54:00:00:00:44 --role compute',
    'node add n44 --mac 5254.0000.0044',
    'node add n44 --bmc ipmi',
    'node add n44 --bmc-user x',
    'node update n02',
    'node update n02 --maintenance fan',
    'boot trace 52:54:00:99:00:01',
    'boot trace 52:54:00:99:00:77',
    'boot trace n01',
    'lease list',
    'image list',
    'image import http://x/y.img --sha256 abc',
    'run list',
    'run show run-1',
    'run show run-9',
    'health',
    'event list --limit 0',
    'site check /nonexistent.yaml',
    'nod list',
    'node lst',
    'node list --outptu json',
    'node list -o xml',
    'node claim',
    '--version',
  ])('halligan %s', async line => {
    const { code, out, err } = await halligan(line);
    // A busy machine may take a second between the server's start and the question.
    const text = `$ halligan ${line}\nexit ${code}\n--- stdout\n${out}--- stderr\n${err}`.replace(
      /up for \ds/,
      'up for 0s',
    );
    const file = `test/unit/cli/golden/halligan_${line.replace(/[^a-zA-Z0-9.-]+/g, '_')}.golden`;
    await expect(text).toMatchFileSnapshot(`../../../${file}`);
  });
});

describe('destructive commands', () => {
  it('refuse off a terminal without --yes, exit 4, and do nothing', async () => {
    for (const line of ['node release n10', 'node install n02 --wipe', 'node install n10']) {
      const run = await halligan(line);
      expect(run.code, line).toBe(4);
      expect(run.err).toContain('--yes');
    }
    expect(server.table.calls).toEqual([]);
  });

  it('go on with --yes', async () => {
    expect((await halligan('node install n02 --wipe --layout lvm --yes')).code).toBe(0);
    expect(server.table.calls).toEqual([['act', 'n02', 'install', { wipe: true, layout: 'lvm' }]]);
  });

  it('go on when the name is typed on a terminal', async () => {
    const run = await halligan('node release n10', { typed: 'n10\n' });
    expect(run.err).toContain('the installed system (debian-12)');
    expect(run.code).toBe(0);
  });

  it('do nothing when another name is typed', async () => {
    const run = await halligan('node release n10', { typed: 'yes\n' });
    expect(run.code).toBe(4);
    expect(server.table.calls).toEqual([]);
  });

  it('do not ask for what destroys nothing', async () => {
    expect((await halligan('node install n02')).code).toBe(0);
  });
});

describe('exit codes', () => {
  it.each<[string, number]>([
    ['node show n01', 0],
    ['node show nowhere', 3],
    ['node claim nowhere', 3],
    ['node claim n10', 4],
    ['node claim n01 n10', 6],
    ['node claim n02 n10', 4],
    ['node frob', 2],
    ['--help', 0],
    ['node', 2],
  ])('of halligan %s is %i', async (line, code) => {
    expect((await halligan(line)).code).toBe(code);
  });

  it('is 1 with the socket in the sentence when no server answers', async () => {
    const run = await halligan('node list', { socket: join(dir, 'nobody') });
    expect(run.code).toBe(1);
    expect(run.err).toBe(
      `error: The server does not answer: there is no socket ${join(dir, 'nobody')}.\nhint: Start it with \`halligan serve --site site.yaml\`, or name its socket with --socket.\n`,
    );
  });
});

describe('--wait', () => {
  it('ends when the node rests where the order leads, telling each new sentence', async () => {
    const done = halligan('node install n02 --wait');
    await until(() => server.table.calls.length > 0);
    server.table.move('n02', 'installed', { stateSinceMs: T0 + 9000 });
    const run = await done;
    expect(run.code).toBe(0);
    expect(run.err).toContain('n02: Installed since');
  });

  it('ends with the failure, its reason and its hint', async () => {
    const done = halligan('node install n02 --wait');
    await until(() => server.table.calls.length > 0);
    server.table.move('n02', 'installing-failed', { failure: problem('disk-no-match', 'n02: no disk fits.') });
    const run = await done;
    expect(run.code).toBe(4);
    expect(run.out).toContain('n02: no disk fits.');
    expect(run.err).toContain('hint: Compare the hints');
  });

  it('gives up after --timeout with exit 5', async () => {
    const run = await halligan('node install n02 --wait --timeout 1ms');
    expect(run.code).toBe(5);
    expect(run.out).toContain('n02 is still Installing');
  });
});

describe('other commands', () => {
  it('event follow resumes, prints one JSON per line, and ends with Ctrl-C', async () => {
    const stop = new AbortController();
    await server.feed.emit({ type: 'a', message: 'old' });
    const done = halligan('event follow --after 0 -o json', { signal: stop.signal });
    await until(() => server.feed.emit({ type: 'b', message: 'new' }).then(() => true));
    await new Promise(resolve => setTimeout(resolve, 300));
    stop.abort();
    const run = await done;
    const lines = run.out
      .trim()
      .split('\n')
      .map(l => JSON.parse(l).message);
    expect(lines).toEqual(['old', 'new']);
    expect(run.code).toBe(0);
  });

  it('console --tail prints the recording; without a console the reason', async () => {
    expect((await halligan('node console n01 --tail')).out).toContain('login: ');
    expect((await halligan('node console n02 --tail')).code).toBe(3);
  });

  it('console types what is piped in and prints what comes back', async () => {
    const stop = new AbortController();
    const done = halligan('node console n01 --bytes 0', { piped: 'root\r', signal: stop.signal });
    await until(() => server.consoles.typed.length > 0);
    await new Promise(resolve => setTimeout(resolve, 100));
    stop.abort();
    const run = await done;
    expect(server.consoles.typed).toEqual(['root\r']);
    expect(run.code).toBe(0);
  });

  it('backup writes a file of mode 0600 and never over another', async () => {
    const file = join(dir, 'b');
    expect((await halligan(`backup ${file}`)).code).toBe(0);
    expect(readFileSync(file, 'utf8')).toBe('backup-bytes');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const again = await halligan(`backup ${file}`);
    expect(again.code).toBe(1);
    expect(readFileSync(file, 'utf8')).toBe('backup-bytes');
  });

  it('secret set takes the secret from standard input and prints none of it', async () => {
    const run = await halligan('secret set bmc/n01', { piped: 'hunter2\n' });
    expect(run.code).toBe(0);
    expect(server.secrets.get('bmc/n01')).toBe('hunter2');
    expect(run.out + run.err).not.toContain('hunter2');
    expect((await halligan('secret list -o name')).out).toBe('bmc/n01\n');
  });

  it('site check tells every fault on standard error, exit 2; a good one in one line', async () => {
    const bad = await halligan('site check test/unit/site/golden/many-faults.yaml');
    expect(bad.code).toBe(2);
    expect(bad.err.split('\n').length).toBeGreaterThan(15);
    const good = await halligan('site check docs/example-site.yaml');
    expect(good).toEqual({
      code: 0,
      err: '',
      out: 'docs/example-site.yaml is good: site dc1, 2 networks, 3 nodes, 1 profile.\n',
    });
  });

  it('site export prints a file that is good', async () => {
    const file = join(dir, 'x.yaml');
    writeFileSync(file, (await halligan('site export')).out);
    expect((await halligan(`site check ${file}`)).code).toBe(0);
  });

  it('site check reads included files and tells of an older version', async () => {
    const file = join(dir, 'site.yaml');
    writeFileSync(file, `${SITE_TEXT.replace('version: 1', 'version: 2')}include: [more.yaml]\n`);
    writeFileSync(join(dir, 'more.yaml'), 'nodes:\n  - { name: n02, mcas: [] }\n');
    const bad = await halligan(`site check ${file}`, { socket: '/nonexistent' });
    expect(bad).toMatchObject({ code: 2, out: '' });
    expect(bad.err).toContain(`${join(dir, 'more.yaml')}:2:18: nodes[1].mcas: unknown field; did you mean macs?\n`);
    writeFileSync(file, SITE_TEXT);
    const old = await halligan(`site check ${file}`);
    expect(old).toMatchObject({ code: 0 });
    expect(old.err).toBe(`It is of version 1 and was read as version 2: halligan site migrate ${file}\n`);
  });

  it('site migrate shows what would change, and writes it when told to', async () => {
    const file = join(dir, 'site.yaml');
    const text = `# ours\n${SITE_TEXT}install: { login: ops }   # us\n`;
    writeFileSync(file, text);
    const shown = await halligan(`site migrate ${file}`, { socket: '/nonexistent' });
    expect(shown.code).toBe(0);
    expect(shown.out).toContain('-version: 1\n+version: 2\n');
    expect(readFileSync(file, 'utf8')).toBe(text);
    expect((await halligan(`site migrate ${file} --write`)).err).toContain(`The old file is ${file}.v1.`);
    expect(readFileSync(file, 'utf8')).toBe(text.replace('version: 1', 'version: 2'));
    expect(readFileSync(`${file}.v1`, 'utf8')).toBe(text);
    expect((await halligan(`site migrate ${file}`)).err).toBe(`${file} is of version 2 already.\n`);
    writeFileSync(file, 'version: 1\nnmae: x\n');
    expect((await halligan(`site migrate ${file}`)).code).toBe(2);
  });

  it('serve checks the site file before anything else', async () => {
    const file = join(dir, 'site.yaml');
    writeFileSync(file, 'version: 1\n');
    expect((await halligan(`serve --site ${file}`)).code).toBe(2);
    writeFileSync(file, SITE_TEXT);
    let name = '';
    const run = await halligan(`serve --site ${file}`, {
      deps: {
        serve: async c => {
          name = c.loaded.site.name;
        },
      },
    });
    expect([run.code, name]).toEqual([0, 'dc1']);
  });

  it('image build tells progress on standard error and needs no server', async () => {
    const seen: unknown[] = [];
    const run = await halligan('image build ram --data-dir /data -o name', {
      socket: '/nonexistent',
      deps: {
        buildImage: async (c, progress) => {
          seen.push(c);
          progress('unpacking');
          return (await server.services.images.list())[0]!;
        },
      },
    });
    expect(run).toEqual({ code: 0, out: 'ram\n', err: 'ram: unpacking\n' });
    expect(seen).toEqual([{ name: 'ram', dataDir: '/data', force: false }]);
  });

  it('demo ends with 1 when a node did not make it', async () => {
    expect((await halligan('demo --nodes 3', { deps: { demo: async c => c.nodes === 2 } })).code).toBe(1);
  });

  it('says nothing in colour off a terminal, and on one unless NO_COLOR asks for none', async () => {
    expect((await halligan('node list')).out).not.toContain('\u001b');
    expect((await halligan('node list', { tty: true })).out).toContain('\u001b[31mInstalling failed');
    const env = { HALLIGAN_SOCKET: join(dir, 's'), NO_COLOR: '1' };
    expect((await halligan('node list', { tty: true, deps: { env } })).out).not.toContain('\u001b');
  });

  it('has a command for every action of the lifecycle table, save those of other objects', () => {
    const program = buildCli({ version: '0', stdout: {}, stderr: {}, env: {} } as unknown as CliDeps);
    const known = program.commands.find(c => c.name() === 'node')!.commands.map(c => c.name());
    for (const action of NODE_ACTIONS) if (!WITHOUT_COMMAND.includes(action)) expect(known).toContain(action);
  });
});

describe('the small parts', () => {
  it('take terminal control out of what machines say', () => {
    expect(plain('a\u001b[2Jb\u0007\u202ec\nd\u009b')).toBe('a[2Jbc d');
  });
  it('read durations', () => {
    expect(['90', '90s', '15m', '2h', '1.5h', '', '-1', '5x'].map(durationMs)).toEqual([
      90_000,
      90_000,
      900_000,
      7_200_000,
      null,
      null,
      null,
      null,
    ]);
  });
  it('tell ages in one unit', () => {
    expect([0, 119_000, 120_000, 7_200_000, 172_800_000].map(age)).toEqual(['0s', '119s', '2m', '2h', '2d']);
  });
  it('leave the console at ~. after a new line only', () => {
    const type = (text: string) => {
      const { send, leave } = escapeInput({ at: 'line-start' }, Buffer.from(text));
      return [Buffer.from(send).toString(), leave];
    };
    expect(type('~.')).toEqual(['', true]);
    expect(type('ls ~.\r')).toEqual(['ls ~.\r', false]);
    expect(type('ls\r~.x')).toEqual(['ls\r', true]);
    expect(type('~~x')).toEqual(['~x', false]);
    expect(type('~x')).toEqual(['~x', false]);
  });
  it('read events cut anywhere, with comments between', async () => {
    const text = 'retry: 1\n\n: hi\n\nid: 7\nevent: event\ndata: {"a":\ndata: "ü"}\n\n';
    const bytes = Buffer.from(text);
    for (let cut = 1; cut < bytes.length; cut++) {
      const chunks = (async function* () {
        yield bytes.subarray(0, cut);
        yield bytes.subarray(cut);
      })();
      const all = [];
      for await (const m of parseSse(chunks)) all.push(m);
      expect(all).toEqual([{ event: 'event', id: '7', data: '{"a":\n"ü"}' }]);
    }
  });
});

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await check()) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error('it did not come');
}
