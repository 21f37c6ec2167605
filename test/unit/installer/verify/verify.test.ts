import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { createOpenStackClient, type OpenStackClient } from '../../../../installer/openstack/client.js';
import type { AskNodes } from '../../../../installer/verify/on-nodes.js';
import { renderReport } from '../../../../installer/verify/report.js';
import type { StepReport, VerifyReport, VerifySpec } from '../../../../installer/verify/types.js';
import { cleanUpCloud, STEPS, verifyCloud } from '../../../../installer/verify/verify.js';
import { systemClock } from '../../../../provisioner/core/clock.js';
import { ADMIN_PASSWORD, type FakeCloud, type FakeOptions, startFakeCloud } from '../openstack/fake-cloud.js';
import { type FakeReach, fakeReach } from './fake-reach.js';

const dir = mkdtempSync(join(tmpdir(), 'halligan-verify-'));
writeFileSync(join(dir, 'disk.qcow2'), 'a disk');
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

interface Rig {
  readonly cloud: FakeCloud;
  readonly admin: OpenStackClient;
  readonly reach: FakeReach;
  readonly spec: VerifySpec;
}

async function start(options: FakeOptions = {}, extra: Partial<VerifySpec> = {}): Promise<Rig> {
  const cloud = await startFakeCloud(options);
  const admin = createOpenStackClient({
    authUrl: cloud.authUrl,
    region: 'RegionOne',
    credentials: { user: 'admin', password: ADMIN_PASSWORD, project: 'admin' },
    clock: systemClock,
    endpointInterface: 'public',
    backoffMs: [5],
  });
  closers.push(() => cloud.close());
  closers.push(() => admin.close());
  const spec: VerifySpec = {
    guest: { file: join(dir, 'disk.qcow2'), diskFormat: 'qcow2', user: 'root', tells: 'markers' },
    external: {
      physicalNetwork: 'physnet1',
      kind: 'flat',
      cidr: '10.78.0.0/24',
      gateway: '10.78.0.1',
      pool: { from: '10.78.0.100', to: '10.78.0.200' },
    },
    dns: ['10.78.0.1'],
    dashboardUrl: `${cloud.url}/horizon`,
    ...extra,
  };
  return { cloud, admin, reach: fakeReach(cloud), spec };
}

const prove = (rig: Rig, extra: Partial<Parameters<typeof verifyCloud>[0]> = {}) =>
  verifyCloud({ admin: rig.admin, spec: rig.spec, clock: systemClock, reach: rig.reach, pollMs: 20, ...extra });

const step = (report: VerifyReport, name: string): StepReport => report.steps.find(s => s.name === name)!;
const states = (report: VerifyReport) => Object.fromEntries(report.steps.map(s => [s.name, s.state]));

/** What the cloud had before is what it has after. */
function expectNothingLeft(cloud: FakeCloud): void {
  const rest = Object.fromEntries(
    [
      'users',
      'projects',
      'flavors',
      'images',
      'networks',
      'routers',
      'ports',
      'floatingips',
      'security_groups',
      'volumes',
      'snapshots',
      'keypairs',
      'containers',
    ].map(name => [name, cloud.tables[name]!.filter(row => !/^(u|p)-admin$/.test(String(row['id'])))]),
  );
  expect(Object.values(rest).flat(), JSON.stringify(rest)).toEqual([]);
  expect(cloud.servers).toEqual([]);
}

describe('the steps', () => {
  it('name what exists, have no circles, and say what to do', () => {
    const seen = new Set<string>();
    for (const s of STEPS) {
      for (const need of s.needs) expect(seen, `${s.name} needs ${need}`).toContain(need);
      for (const other of s.after ?? []) expect(STEPS.map(o => o.name)).toContain(other);
      expect(seen).not.toContain(s.name);
      expect(s.timeoutSeconds).toBeGreaterThan(s.expectedSeconds);
      expect(s.hint).toMatch(/[.)?]$/);
      seen.add(s.name);
    }
    expect(STEPS.length).toBeGreaterThanOrEqual(20);
  });
});

describe('a proof', () => {
  it('of a cloud that works is green, leaves nothing, and tells no secret', async () => {
    const rig = await start();
    const report = await prove(rig);
    expect(report.steps.filter(s => s.state !== 'passed').map(s => [s.name, s.reason])).toEqual([
      ['other-computes', 'Every compute has a server already.'],
    ]);
    expect(report).toMatchObject({ ok: true, leftovers: [] });
    expect(step(report, 'servers').detail['servers']).toHaveLength(2);
    expect(step(report, 'east-west').detail).toMatchObject({ across: 'cmp1 to cmp2', mtu: 1342 });
    expect(step(report, 'console').detail).toMatchObject({ protocol: 'RFB 003.008' });
    expect(step(report, 'migrate').detail).toEqual({ from: 'cmp2', to: 'cmp1' });
    expect(step(report, 'live-migrate').detail).toMatchObject({ from: 'cmp1', to: 'cmp2' });
    expect(step(report, 'dashboard').detail).toMatchObject({ title: 'Instance Overview - OpenStack Dashboard' });
    expectNothingLeft(rig.cloud);
    const text = JSON.stringify(report) + renderReport(report);
    expect(text).toContain('The cloud is proved: ');
    for (const secret of [ADMIN_PASSWORD, 'console-token', 'secret-of-s3', 'PRIVATE KEY', 't:u-admin'])
      expect(text).not.toContain(secret);
  });

  it('uses the external network that is there, and does not delete it', async () => {
    const rig = await start();
    rig.cloud.tables['networks']!.push({
      id: 'ext1',
      name: 'public',
      project_id: 'p-admin',
      'router:external': true,
      'provider:physical_network': 'physnet1',
      subnets: ['s1'],
    });
    const report = await prove(rig, { spec: { ...rig.spec, only: ['router'] } });
    expect(step(report, 'external-network').detail).toEqual({ network: 'public', madeForTheRun: false });
    expect(report.ok).toBe(true);
    expect(rig.cloud.tables['networks']).toMatchObject([{ id: 'ext1' }]);
  });

  it('skips what the cloud does not have, with the reason', async () => {
    const rig = await start({ hosts: ['cmp1'], without: ['volumev3', 'object-store'] });
    const { dashboardUrl: _, ...spec } = rig.spec;
    const report = await prove(rig, { spec: { ...spec, external: null } });
    expect(report.ok).toBe(true);
    const reason = (name: string) => [step(report, name).state, step(report, name).reason];
    expect(reason('volume')).toEqual([
      'skipped',
      '"Cinder’s services are up" was skipped, and this needs it: The cloud has no volume service.',
    ]);
    expect(reason('object-store')).toEqual(['skipped', 'The cloud has no object store.']);
    expect(reason('dashboard')).toEqual(['skipped', 'The cloud has no dashboard.']);
    expect(reason('router')[1]).toContain('The cloud has no external network');
    expect(step(report, 'servers').detail['servers']).toHaveLength(2);
    // Two servers on the only compute; the resize is taken there.
    expect(step(report, 'migrate').detail).toEqual({ resizedOn: 'cmp1' });
    expectNothingLeft(rig.cloud);
  });

  it('fails when the cloud has lost what the site has, and does not skip it', async () => {
    for (const [type, service] of [
      ['object-store', 'object-store'],
      ['volumev3', 'volume'],
    ] as const) {
      const rig = await start({ without: [type] });
      const expected = { services: ['volume', 'object-store'] as const };
      const report = await prove(rig, { spec: { ...rig.spec, expect: expected, only: ['object-store', 'volume'] } });
      expect(report.ok).toBe(false);
      expect(step(report, 'catalogue')).toMatchObject({
        state: 'failed',
        reason: `The catalogue lacks: ${service}.`,
        hint: expect.stringContaining('halligan apply'),
      });
    }
  });

  it('fails when S3 or the external network of the site is not there', async () => {
    const rig = await start({ without: ['s3api'] });
    const report = await prove(rig, {
      spec: {
        ...rig.spec,
        expect: { s3: true },
        external: { ...rig.spec.external!, name: 'public' },
        only: ['s3', 'external-network'],
      },
    });
    expect(step(report, 's3').reason).toContain('offers no S3');
    expect(step(report, 'external-network').reason).toContain('no external network public, which the site describes');
    // Where the site does not say so, it is only skipped.
    const modest = await prove(rig, { spec: { ...rig.spec, only: ['s3'] } });
    expect(step(modest, 's3').state).toBe('skipped');
    expectNothingLeft(rig.cloud);
  });

  it('is not content with a scheduler on a volume host whose cinder-volume is gone', async () => {
    const rig = await start();
    const report = await prove(rig, {
      spec: { ...rig.spec, only: ['volume-services'], expect: { volumeHosts: ['ctl', 'vol'] }, timeoutFactor: 0.01 },
    });
    expect(step(report, 'volume-services').reason).toContain('no cinder-volume of ctl is up');
  });

  it('of one compute that does not resize in place skips that', async () => {
    const rig = await start({ hosts: ['cmp1'] });
    rig.cloud.migrationFault = 'No valid host was found. No valid host found for resize';
    const report = await prove(rig, { spec: { ...rig.spec, only: ['migrate', 'live-migrate'] } });
    expect(step(report, 'migrate')).toMatchObject({
      state: 'skipped',
      reason: expect.stringContaining('allow_resize_to_same_host'),
    });
    expect(step(report, 'live-migrate')).toMatchObject({
      state: 'skipped',
      reason: 'There is one compute: nowhere to move to.',
    });
    expect(report.ok).toBe(true);
  });

  it('says why a server does not start, and cleans up', async () => {
    const rig = await start();
    rig.cloud.serverFate = () => ({
      status: 'ERROR',
      fault: 'No valid host was found. There are not enough hosts available.',
    });
    const report = await prove(rig);
    expect(report.ok).toBe(false);
    expect(step(report, 'servers')).toMatchObject({
      state: 'failed',
      reason: expect.stringMatching(
        /^Server halligan-verify-[0-9a-f]{6}-[ab] went into state ERROR: No valid host was found/,
      ),
      hint: expect.stringContaining('nova-scheduler'),
    });
    expect(states(report)).toMatchObject({
      dhcp: 'skipped',
      ssh: 'skipped',
      volume: 'passed',
      'object-store': 'passed',
    });
    expectNothingLeft(rig.cloud);
  });

  it('tells a guest without an address from one without metadata', async () => {
    const rig = await start();
    rig.cloud.consoleOf = s =>
      s.name.endsWith('-a')
        ? `GUEST-INIT\r\nGUEST-DHCP ip=${s.address} mtu=1342\r\nGUEST-METADATA-FAILED no answer from 169.254.169.254 for 60 seconds\r\n`
        : `GUEST-INIT\r\nGUEST-DHCP ip=${s.address} mtu=1342\r\nGUEST-METADATA hostname=${s.name} instance=i-2\r\nGUEST-KEY 80\r\n`;
    const report = await prove(rig, { spec: { ...rig.spec, only: ['guest-ready'] } });
    expect(step(report, 'dhcp').state).toBe('passed');
    expect(step(report, 'metadata')).toMatchObject({
      state: 'failed',
      reason: expect.stringMatching(/-a on cmp1 got no metadata: no answer from 169.254.169.254 for 60 seconds\.$/),
      hint: expect.stringContaining('metadata_proxy_shared_secret'),
    });
  });

  it('fails when the closed security group lets something in', async () => {
    const rig = await start();
    rig.reach.openFirewall = true;
    const report = await prove(rig, { spec: { ...rig.spec, only: ['ssh'] } });
    expect(step(report, 'firewall-closed').reason).toMatch(
      /^ping and SSH got through to 10\.78\.0\.\d+ although no rule/,
    );
    expect(step(report, 'ssh').state).toBe('skipped');
  });

  it('takes a refused connection for one that got through', async () => {
    const rig = await start();
    rig.reach.closedPort = 'refused';
    const report = await prove(rig, { spec: { ...rig.spec, only: ['ssh'] } });
    expect(step(report, 'firewall-closed').reason).toMatch(/^SSH got through to 10\.78/);
  });

  it('fails when a rule that is taken away stays in force, and makes it again', async () => {
    const rig = await start();
    rig.reach.neverShuts = true;
    let rules: unknown[] = [];
    const report = await prove(rig, {
      spec: { ...rig.spec, only: ['firewall-shut', 'east-west'], timeoutFactor: 0.02 },
      onStep: event => {
        if (event.kind === 'started' && event.name === 'east-west')
          rules = rig.cloud.tables['security_groups']!.flatMap(g => g['security_group_rules'] as unknown[]);
      },
    });
    expect(step(report, 'firewall-shut')).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('still waiting for port 22 of 10.78.0.'),
    });
    expect(rules.filter(r => (r as { protocol?: string }).protocol === 'tcp')).toHaveLength(1);
    expect(step(report, 'east-west').state).toBe('passed');
  });

  it('sees an MTU that is too wide for the network below', async () => {
    const rig = await start();
    rig.reach.mtuLimit = 1200;
    const report = await prove(rig, { spec: { ...rig.spec, only: ['east-west'] } });
    expect(step(report, 'east-west').reason).toContain(
      "with small packets, but not with 1342 bytes, the network's MTU",
    );
    expect(rig.reach.commands.find(c => c.includes('-s 1314'))).toBeDefined();
  });

  it('comes to every compute, in batches, and names those that are not well', async () => {
    const hosts = ['cmp1', 'cmp2', 'cmp3', 'cmp4', 'cmp5'];
    const rig = await start({ hosts });
    const spec: VerifySpec = { ...rig.spec, maxComputes: 2, only: ['other-computes'] };
    const report = await prove(rig, { spec });
    expect(step(report, 'other-computes')).toMatchObject({
      state: 'passed',
      detail: { computes: ['cmp3', 'cmp4', 'cmp5'] },
    });
    const well = rig.cloud.consoleOf;
    rig.cloud.consoleOf = s => (s.host === 'cmp4' ? 'GUEST-INIT\r\nGUEST-DHCP-FAILED' : well(s));
    const bad = await prove(rig, { spec });
    expect(step(bad, 'other-computes').reason).toMatch(
      /^1 of 3 computes are not well: cmp4: The guest of \S+-other-2 on cmp4 asked for an address in vain\.$/,
    );
    expectNothingLeft(rig.cloud);
  });

  it('says in Nova’s words why a server did not move', async () => {
    const rig = await start();
    rig.cloud.migrationFault = 'MigrationPreCheckError: CPU model is not supported';
    const report = await prove(rig, { spec: { ...rig.spec, only: ['live-migrate'] } });
    expect(step(report, 'live-migrate').reason).toMatch(
      /did not move .* from cmp1 to cmp2: MigrationPreCheckError: CPU model/,
    );
    expectNothingLeft(rig.cloud);
  });

  it('does not take a guest that was started anew for one that moved while it ran', async () => {
    const rig = await start();
    rig.cloud.liveRestarts = true;
    const report = await prove(rig, { spec: { ...rig.spec, only: ['live-migrate'] } });
    expect(step(report, 'live-migrate').reason).toMatch(/is on cmp2, but it was started anew there/);
    expectNothingLeft(rig.cloud);
  });

  it('judges how long a guest is silent while it moves', async () => {
    const rig = await start();
    const report = await prove(rig, {
      // Silent from the order of the move on, for longer than 15 s times this.
      spec: { ...rig.spec, only: ['live-migrate'], timeoutFactor: 0.02 },
      onStep: event => {
        if (event.kind === 'waiting' && event.waitingFor.endsWith('before the move')) rig.reach.deaf = true;
        if (event.kind === 'waiting' && event.waitingFor.endsWith('after the move')) rig.reach.slowSshMs = 600;
      },
    });
    expect(step(report, 'live-migrate').reason).toMatch(/did not answer for [\d.]+ s while it moved; up to 0.3 s/);
  });

  it('names services that are down, and waits for them first', async () => {
    const rig = await start();
    const report = await prove(rig, {
      spec: { ...rig.spec, only: ['compute-services'], expect: { computes: ['cmp9'] }, timeoutFactor: 0.01 },
    });
    expect(step(report, 'compute-services').reason).toContain(
      "still waiting for Nova's services: no nova-compute of cmp9 is up",
    );
  });

  it('names endpoints that do not answer', async () => {
    const rig = await start();
    rig.cloud.misbehave.push({ match: /^GET \/image$/, times: 99, status: 502, body: '' });
    const report = await prove(rig, { spec: { ...rig.spec, only: ['catalogue'] } });
    expect(step(report, 'catalogue').reason).toMatch(
      /^3 of 21 endpoints do not answer: image public \(http.*\) answers 502/,
    );
  });

  it('that is aborted cleans up all the same', async () => {
    const rig = await start();
    const stop = new AbortController();
    rig.cloud.consoleOf = () => 'booting';
    const report = await prove(rig, {
      signal: stop.signal,
      onStep: event => {
        if (event.kind === 'waiting' && event.name === 'dhcp') stop.abort(new Error('enough'));
      },
    });
    expect(report).toMatchObject({ ok: false, aborted: true, leftovers: [] });
    expect(step(report, 'dhcp')).toMatchObject({ state: 'skipped' });
    expectNothingLeft(rig.cloud);
    expect(renderReport(report)).toContain('The proof was aborted');
  });

  it('reports what cannot be deleted, with the API’s words', async () => {
    const rig = await start();
    rig.cloud.serverFate = name => {
      if (name.endsWith('-b')) rig.cloud.undeletable.add(name);
      return { status: 'ACTIVE' };
    };
    const report = await prove(rig, { spec: { ...rig.spec, only: ['servers'], timeoutFactor: 0.03 } });
    expect(report.ok).toBe(false);
    expect(report.leftovers.find(l => l.startsWith('server'))).toMatch(/-b \(ACTIVE\)/);
    expect(step(report, 'cleanup')).toMatchObject({ state: 'failed', reason: expect.stringContaining('Left over: ') });
  }, 60_000);

  it('looks on the nodes for what the APIs no longer show, and only for its own', async () => {
    const rig = await start();
    const theirs = '0b7a1c52-9d7e-4d4c-8f5e-000000000001';
    let server = '';
    const nodes: AskNodes = async (service, script) => {
      expect(script).toMatch(/^set -eu\n/);
      if (service === 'hypervisor')
        return [
          { node: 'cmp1', output: `libvirt domain ${theirs}\nlibvirt domain ${server}\nfolder of a server _base\n` },
          { node: 'cmp2', output: `libvirt domain ${theirs}\n` },
        ];
      return service === 'volume-backend'
        ? [{ node: 'vol', problem: 'it could not be reached.' }]
        : [{ node: 'ctl', output: `OVN port_group pg_${theirs.replaceAll('-', '_')},"{a=b}"\n` }];
    };
    const report = await prove(rig, {
      nodes,
      spec: { ...rig.spec, only: ['dhcp'], timeoutFactor: 0.05 },
      onStep: event => {
        if (event.kind === 'started' && event.name === 'dhcp') server = rig.cloud.servers[0]!.id;
      },
    });
    expect(report.ok).toBe(false);
    expect(report.leftovers).toEqual([
      `libvirt domain ${server} on cmp1`,
      'It is not known what is left on vol: it could not be reached.',
    ]);
    expect(step(report, 'cleanup').state).toBe('failed');
    // What is only on its way out is waited for.
    let looks = 0;
    const patient = await cleanUpCloud({
      admin: rig.admin,
      clock: systemClock,
      spec: rig.spec,
      nodes: async node => [{ node, output: ++looks < 4 ? 'OVN nat 1.2.3.4,x=halligan-verify-012345-router\n' : '' }],
      pollMs: 20,
    });
    expect(patient).toMatchObject({ ok: true, leftovers: [] });
    expect(looks).toBe(6);
    const cleaned = await cleanUpCloud({
      admin: rig.admin,
      clock: systemClock,
      spec: { ...rig.spec, timeoutFactor: 0.01 },
      nodes: async service => [
        {
          node: 'ctl',
          output:
            service === 'network-control'
              ? 'OVN logical_switch neutron-1,neutron:network_name=halligan-verify-012345-network\n'
              : '',
        },
      ],
      pollMs: 20,
    });
    expect(cleaned.leftovers).toEqual(['OVN logical_switch neutron-1 on ctl']);
  });

  it('that was killed is cleaned up later, and only what is its own', async () => {
    const rig = await start();
    const kept = await prove(rig, { spec: { ...rig.spec, keep: true, only: ['ssh', 'volume', 'object-store'] } });
    expect(step(kept, 'cleanup')).toMatchObject({ state: 'skipped' });
    expect(rig.cloud.servers).toHaveLength(2);
    rig.cloud.tables['networks']!.push({ id: 'theirs', name: 'halligan', project_id: 'p-admin' });
    const cleaned = await cleanUpCloud({ admin: rig.admin, spec: rig.spec, clock: systemClock });
    expect(cleaned).toMatchObject({ ok: true, leftovers: [] });
    expect(step(cleaned, 'cleanup').state).toBe('passed');
    expect((step(cleaned, 'cleanup').detail['found'] as string[]).length).toBeGreaterThan(8);
    expect(rig.cloud.tables['networks']).toMatchObject([{ id: 'theirs' }]);
    rig.cloud.tables['networks'] = [];
    expectNothingLeft(rig.cloud);
    const again = await cleanUpCloud({ admin: rig.admin, spec: rig.spec, clock: systemClock });
    expect(again.ok).toBe(true);
    expect(step(again, 'cleanup').detail['found']).toEqual([]);
  });

  it('does not take a prefix that would match too much', async () => {
    const rig = await start();
    await expect(
      cleanUpCloud({ admin: rig.admin, spec: { ...rig.spec, prefix: '' }, clock: systemClock }),
    ).rejects.toThrow('is no prefix');
    await expect(prove(rig, { spec: { ...rig.spec, prefix: '.*' } })).rejects.toThrow('is no prefix');
    await expect(prove(rig, { spec: { ...rig.spec, only: ['nonsense'] } })).rejects.toThrow(
      'There is no step "nonsense"',
    );
  });
});
