import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openrc, planText, resultText } from '../../../provisioner/cli/cloud-view.js';
import type { CloudService } from '../../../provisioner/core/cloud-service.js';
import { planSentence, signOf } from '../../../provisioner/core/cloud-words.js';
import { PROBLEMS } from '../../../provisioner/core/problem.js';
import {
  ACTIONS,
  abandonedCloud,
  action,
  BAD_REPORT,
  busyCloud,
  DESTROYING,
  endlessCloud,
  FAILURES,
  obedientCloud,
  plan,
  REPORT,
  result,
  SILENT_NODE,
  stumblingCloud,
} from '../api/clouds.js';
import { type CloudStage, type FakeServer, fakeServer, nodeView } from '../api/fakes.js';
import { runAt } from './run-at.js';

let dir: string | undefined;
let server: FakeServer | undefined;
afterEach(async () => {
  await server?.handle.close();
  if (dir) rmSync(dir, { recursive: true, force: true });
  server = dir = undefined;
});

/** The command line in front of a server with this cloud. */
async function at(cloud?: (stage: CloudStage) => CloudService) {
  dir = mkdtempSync(join(tmpdir(), 'halligan-cli-cloud-'));
  server = await fakeServer(
    ['ctl', 'cmp1', 'cmp2', 'vol'].map(n => nodeView(n, 'installed')),
    { socketPath: join(dir, 's'), ...(cloud ? { cloud } : {}) },
  );
  const socket = join(dir, 's');
  return (line: string, options: Parameters<typeof runAt>[2] = {}) => runAt(socket, line, options);
}

const golden = (line: string) =>
  `../../../test/unit/cli/golden/halligan_${line.replace(/[^a-zA-Z0-9.-]+/g, '_')}.golden`;
const told = (line: string, run: { code: number; out: string; err: string }) =>
  `$ halligan ${line}\nexit ${run.code}\n--- stdout\n${run.out}--- stderr\n${run.err}`;

describe('what commands of the cloud print', () => {
  it.each<[string, string, (stage: CloudStage) => CloudService]>([
    ['plan', 'plan', obedientCloud()],
    ['plan', 'plan --diff', obedientCloud()],
    ['plan', 'plan -o name', obedientCloud()],
    [
      'plan with losses, a silent node that is left out and a refusal',
      'plan --node vol --node cmp2',
      obedientCloud({
        plan: plan([...ACTIONS, DESTROYING], {
          nodes: [...plan([]).nodes, SILENT_NODE],
          problems: [
            {
              severity: 'refuse',
              node: 'vol',
              message: '/dev/sdb carries an ext4 file system that is not ours.',
              hint: 'Erase it with `wipefs -a /dev/sdb` if it may go.',
            },
            {
              severity: 'hold',
              node: 'cmp2',
              message: 'It cannot be looked at: root@10.0.0.8 could not be reached by SSH.',
              hint: 'Bring it back.',
            },
            { severity: 'warn', node: null, message: 'The clocks differ by 3 s.', hint: 'Name time servers in `ntp`.' },
          ],
        }),
      }),
    ],
    ['apply', 'apply', obedientCloud()],
    ['apply', 'apply -o wide', obedientCloud()],
    ['apply', 'apply -o json', obedientCloud()],
    ['apply with a unit that does not start', 'apply --plan 3f2a9c51', stumblingCloud()],
    ['apply of nothing', 'apply --yes', obedientCloud({ plan: plan([]) })],
    ['apply while another is under way', 'apply --no-wait', busyCloud()],
    ['apply without waiting', 'apply --no-wait --yes', endlessCloud()],
    ['drift', 'drift', obedientCloud()],
    ['drift', 'drift --diff', obedientCloud({ drift: plan([ACTIONS[4]!]) })],
    ['a proof', 'cloud verify', obedientCloud()],
    ['a failed proof', 'cloud verify --only floating-ip', obedientCloud({ report: BAD_REPORT })],
    ['security', 'cloud security', obedientCloud()],
    ['security that fails', 'cloud security --timeout 60s', obedientCloud({ report: BAD_REPORT })],
    ['no report', 'cloud report', obedientCloud()],
    ['credentials', 'cloud credentials', obedientCloud()],
    ['credentials', 'cloud credentials --export', obedientCloud()],
    [
      'an import',
      'cloud image import https://mirror.test/w11.qcow2 --name w11 --profile windows --tpm --min-disk 64',
      obedientCloud(),
    ],
    ['an import', 'cloud image import x --name x --profile mac', obedientCloud()],
    ['an import', 'cloud image import x --name x --property os_type', obedientCloud()],
    ['a removal', 'cloud remove cmp1 --yes', obedientCloud()],
    ['roles', 'role list', obedientCloud()],
    ['roles', 'role show compute', obedientCloud()],
    ['roles', 'role show computer', obedientCloud()],
    ['assigning', 'node assign cmp1 cmp2 --role compute --role volume', obedientCloud()],
    ['assigning', 'node unassign cmp1 nowhere --role compute', obedientCloud()],
    ['assigning', 'node assign cmp1', obedientCloud()],
    ['assigning', 'node assign cmp1 --role computer', obedientCloud()],
  ])('%s: halligan %s', async (_, line, cloud) => {
    const halligan = await at(cloud);
    await expect(told(line, await halligan(line))).toMatchFileSnapshot(golden(line));
  });

  it('says that there is no cloud where the site has none', async () => {
    const halligan = await at();
    for (const line of ['plan', 'apply', 'drift', 'cloud verify', 'cloud security', 'cloud credentials']) {
      const run = await halligan(line);
      expect([run.code, run.err.split('\n')[0]], line).toEqual([
        3,
        'error: /etc/halligan/site.yaml has no `cloud` part.',
      ]);
    }
    expect((await halligan('role list -o name')).out).toBe('controller\ncompute\n');
  });
});

describe('apply', () => {
  const losing = (calls: unknown[][] = []) => obedientCloud({ plan: plan([...ACTIONS, DESTROYING]), calls });
  const applied = (calls: unknown[][]) => calls.filter(c => c[0] === 'apply');

  it('refuses off a terminal to destroy anything without --yes, exit 4, and does nothing', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(losing(calls));
    const run = await halligan('apply');
    expect(run.code).toBe(4);
    expect(run.err).toContain('This destroys vol: everything on /dev/sdb. Not confirmed: this is no terminal.');
    expect(applied(calls)).toEqual([]);
  });

  it('goes on when the names of the nodes are typed where data dies, and confirms just these', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(losing(calls));
    const run = await halligan('apply', { typed: 'vol\n' });
    expect(run.err).toContain('Type the name (vol) to go on: ');
    expect(run.code).toBe(0);
    expect(applied(calls)).toEqual([['apply', { planHash: '3f2a9c51d0e4b768', confirmed: ['vol'] }]]);
  });

  it('does nothing when another name is typed', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(losing(calls));
    expect((await halligan('apply', { typed: 'ctl\n' })).code).toBe(4);
    expect(applied(calls)).toEqual([]);
  });

  it('asks nothing where nothing is destroyed', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(obedientCloud({ calls }));
    expect((await halligan('apply')).code).toBe(0);
    expect(applied(calls)).toEqual([['apply', { planHash: '3f2a9c51d0e4b768', confirmed: [] }]]);
  });

  it('works on the nodes that are named', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(obedientCloud({ calls }));
    await halligan('apply --node vol --node cmp1');
    expect(calls[0]).toEqual(['plan', { nodes: ['vol', 'cmp1'] }]);
    expect(applied(calls)[0]![1]).toMatchObject({ nodes: ['vol', 'cmp1'] });
  });

  it('refuses another plan than the one that was read', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(obedientCloud({ calls }));
    const run = await halligan('apply --plan 0123456789abcdef');
    expect([run.code, applied(calls)]).toEqual([4, []]);
    expect(run.err).toContain('error: The plan is 3f2a9c51d0e4b768 by now, not 0123456789abcdef.');
    expect((await halligan('apply --plan 3f2')).code).toBe(4);
  });

  it('refuses a plan with something in its way', async () => {
    const problems = [
      { severity: 'refuse' as const, node: null, message: 'Two controllers.', hint: 'Take one role away.' },
    ];
    const halligan = await at(obedientCloud({ plan: plan(ACTIONS, { problems }) }));
    const run = await halligan('apply');
    expect(run.code).toBe(4);
    expect(run.err).toContain('error: Two controllers.\nhint: Take one role away.\n');
  });

  it('ends with 6 where a node was left out although all else was done', async () => {
    const nodes = [...plan([]).nodes, SILENT_NODE];
    expect((await (await at(obedientCloud({ plan: plan(ACTIONS, { nodes }) })))('apply')).code).toBe(6);
    await server!.handle.close();
    expect((await (await at(obedientCloud({ plan: plan([], { nodes }) })))('apply')).code).toBe(6);
  });

  it('ends with 5 after --timeout while the run goes on', async () => {
    const halligan = await at(endlessCloud());
    const run = await halligan('apply --timeout 1ms');
    expect(run.code).toBe(5);
    expect(run.err).toContain('The run run-apply is not over; it goes on in the server.');
  });

  it('says why the server gave the run up', async () => {
    const halligan = await at(abandonedCloud());
    const run = await halligan('apply');
    expect(run.code).toBe(PROBLEMS['database-busy'].exit);
    expect(run.err).toContain('error: A newer server took over this database.');
  });

  it('ends the wait, not the work, with Ctrl-C', async () => {
    const stop = new AbortController();
    const halligan = await at(endlessCloud());
    const waiting = halligan('apply', { signal: stop.signal });
    setTimeout(() => stop.abort(), 300);
    const run = await waiting;
    expect(run.err).toContain('was interrupted; it goes on in the server.');
  });
});

describe('other commands of the cloud', () => {
  it('verify ends with 0 and 1, and hands the whole report to programs', async () => {
    const run = await (await at(obedientCloud()))('cloud verify -o json');
    expect([run.code, JSON.parse(run.out)]).toEqual([0, REPORT]);
    await server!.handle.close();
    const bad = await (await at(obedientCloud({ report: BAD_REPORT })))('cloud report -o json');
    expect([bad.code, JSON.parse(bad.out)]).toEqual([1, BAD_REPORT]);
  });

  it('remove asks for the name', async () => {
    const calls: unknown[][] = [];
    const halligan = await at(obedientCloud({ calls }));
    expect((await halligan('cloud remove cmp1')).code).toBe(4);
    expect((await halligan('cloud remove cmp1 --force', { typed: 'cmp2\n' })).code).toBe(4);
    expect(calls).toEqual([]);
    const run = await halligan('cloud remove cmp1 --force', { typed: 'cmp1\n' });
    expect(run.err).toContain('with the data and virtual machines that only it has');
    expect([run.code, calls]).toEqual([0, [['removeNode', 'cmp1', { force: true }]]]);
  });

  it('image bake puts several roles into one image of the site’s release, and needs no server', async () => {
    const seen: unknown[] = [];
    const bakeRoles = async (c: unknown, progress: (line: string) => void) => {
      seen.push(c);
      progress('installing 799 packages');
      return { name: 'debian-12-ctl', roles: ['controller'], path: '/x', packages: 799, seconds: 71.6, cached: false };
    };
    const options = { socket: '/nonexistent', deps: { bakeRoles } };
    const run = await runAt('', 'image bake controller network controller --data-dir /data', options);
    expect(run.err).toBe('installing 799 packages\n');
    expect(run.out).toContain('debian-12-ctl  controller  799       72 s');
    const virtual = '--release ubuntu-24.04-2024.1 --kernel cloud';
    await runAt('', `image bake compute --site docs/example-site.yaml ${virtual}`, options);
    expect(seen).toEqual([
      { roles: ['controller', 'network'], release: 'debian-12-zed', kernel: 'generic', dataDir: '/data', force: false },
      {
        roles: ['compute'],
        release: 'ubuntu-24.04-2024.1',
        kernel: 'cloud',
        dataDir: '/var/lib/halligan',
        force: false,
        cloud: expect.objectContaining({ datapath: 'auto' }),
      },
    ]);
    expect((await runAt('', 'image bake computer', options)).code).toBe(3);
  });
});

describe('the view of a plan', () => {
  it('gives each action the sign of what it means for what is there', () => {
    const of = (title: string, more: object = {}) => signOf(action({ id: 'n/s/x', kind: 'unit', title, ...more }));
    expect(
      [
        of('create /etc/x'),
        of('install 3 packages'),
        of('start x.service'),
        of('Create the databases'),
        of('change /etc/x'),
        of('set owner and mode of /etc/x'),
        of('mask x.service'),
        of('restart x.service'),
        of('reload x.service'),
        of('Move the address to the bridge', { interrupts: 'the network, for a second' }),
        of('delete flavor x'),
        of('Make the volume group', { destroys: 'everything on /dev/sdb' }),
      ].join(''),
    ).toBe('++++~~~!!!xx');
  });

  it('says in one sentence what it comes to', () => {
    const restarts = Array.from({ length: 6 }, (_, i) =>
      action({ id: `n${i}/s/x`, kind: 'unit', title: `restart u${i}.service`, expectedSeconds: 200 }),
    );
    expect(planSentence(plan(restarts))).toBe(
      '6 actions on 6 nodes, about 3 min; restarts u0.service on n0, u1.service on n1, u2.service on n2, u3.service on n3 and 2 more; destroys nothing. Hash 3f2a9c51d0e4b768.',
    );
    expect(planSentence(plan([]))).toBe('Nothing to do: the cloud is as wanted. Hash 3f2a9c51d0e4b768.');
    expect(planSentence(plan([], { nodes: [SILENT_NODE] }))).toBe(
      'Nothing to do: the nodes that answer are as wanted. cmp2 could not be looked at. Hash 3f2a9c51d0e4b768.',
    );
  });

  it('colours on terminals only, diffs too', () => {
    const coloured = planText(plan(ACTIONS), { diff: true, colour: true });
    expect(coloured).toContain('\u001b[32m+cpu_allocation_ratio = 4\u001b[0m');
    expect(coloured).toContain('\u001b[31m-cpu_allocation_ratio = 2\u001b[0m');
    expect(coloured).not.toContain('\u001b[32m+++');
    expect(
      coloured
        .replaceAll('\u001b[32m', '')
        .replaceAll('\u001b[31m', '')
        .replaceAll('\u001b[33m', '')
        .replaceAll('\u001b[0m', ''),
    ).toBe(planText(plan(ACTIONS), { diff: true, colour: false }));
  });

  it('keeps terminal control of files and messages away from the operator', () => {
    const evil = action({
      id: 'n/s/x',
      kind: 'file',
      title: 'change \u001b[2J',
      reason: 'a\u0007b',
      diff: '+\u001b[31mx\n',
    });
    expect(planText(plan([evil]), { diff: true, colour: false })).not.toMatch(/[^\P{Cc}\n]/u);
  });

  it('tells how much failed, and what was cut off by it', () => {
    const text = (more: object) => resultText(result(more), { colour: false, chain: false }).split('\n')[0];
    expect(text({})).toBe('Done: 6 actions in 95 s.');
    expect(text({ done: 0, failed: FAILURES.failed })).toBe('Failed: 0 of 6 actions in 95 s; 1 failed.');
    expect(text({ done: 4, ...FAILURES })).toBe('Partly done: 4 of 6 actions in 95 s; 1 failed, 1 waits for it.');
  });

  it('quotes credentials for the shell', () => {
    const c = {
      authUrl: 'https://a',
      region: 'r',
      username: 'u',
      password: `a'b$(id)`,
      project: 'p',
      userDomain: 'd',
      projectDomain: 'e',
    };
    expect(openrc({ ...c, caFile: '/ca', ca: '' })).toContain(`export OS_PASSWORD='a'\\''b$(id)'\n`);
  });
});
