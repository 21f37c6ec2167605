/**
 * A whole cloud on four container hosts: laid down, proved, unchanged by a second apply, changed by one value, grown by a
 * compute and shrunk again. Real packages, real services, real virtual machines.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CloudCredentials, VerifyReport } from '../../provisioner/core/cloud-service.js';
import { openBrowser, type TestBrowser } from '../harness/browser.js';
import { cloudUp, failuresOf, NETWORKS, type TestCloud } from '../harness/cloud.js';
import { type CloudApi, cloudApi } from '../harness/cloud-api.js';
import { type ScreenServer, screenServer, seeConsole, walkDashboard } from '../harness/cloud-pages.js';

const failed = (report: VerifyReport) =>
  report.steps.filter(s => s.state === 'failed').map(s => `${s.name}: ${s.message}`);

let cloud: TestCloud;
const dashboardOf = (credentials: CloudCredentials) => `https://${new URL(credentials.authUrl).hostname}/horizon/`;
beforeAll(async () => {
  cloud = await cloudUp({
    name: 'cloud',
    hosts: [
      { name: 'ctl', roles: ['controller'] },
      { name: 'net', roles: ['network'] },
      { name: 'cmp', roles: ['compute'] },
      { name: 'vol', roles: ['volume', 'storage'] },
      { name: 'cmp2', roles: ['compute'], start: false },
    ],
    cloud: {
      ...NETWORKS,
      volumes: { backend: 'ceph', devices: [{ path: '/var/lib/halligan/ceph0', file_size: '8G' }] },
      objects: {
        replicas: 2,
        devices: [
          { path: '/var/lib/halligan/swift0', file_size: '1G' },
          { path: '/var/lib/halligan/swift1', file_size: '1G' },
        ],
      },
    },
    onProgress: line => console.log(line),
  });
}, 1_500_000);
afterAll(async () => {
  await cloud?.down();
});

describe('a cloud from hosts that answer SSH', () => {
  it('is shown as a plan that destroys nothing and names every node', async () => {
    const plan = await cloud.plan();
    expect(plan.problems.filter(p => p.severity === 'refuse')).toEqual([]);
    expect(plan.nodes.map(n => n.name).sort()).toEqual(['cmp', 'ctl', 'net', 'vol']);
    expect(plan.summary.destroys).toEqual([]);
    expect(plan.actions.length).toBeGreaterThan(150);
    // Secrets are in none of it.
    const text = JSON.stringify(plan);
    expect(text).toContain('<secret ');
    expect(text).not.toMatch(/BEGIN (EC )?PRIVATE KEY-----\\n(?!\+?<secret )/);
  });

  it('is laid down', async () => {
    const { run, result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    expect(run.state).toBe('done');
    console.log(`laid down in ${result.seconds} s; the longest chain:`);
    for (const c of result.chain.filter(c => c.seconds > 1 || c.waited > 1))
      console.log(`  ${c.seconds.toFixed(1)} s (waited ${c.waited.toFixed(1)}) ${c.id}`);
    for (const name of ['ctl', 'net', 'cmp', 'vol'])
      expect((await cloud.client().get<{ state: string }>(`/nodes/${name}`)).state).toBe('ready');
  });

  it('is proved: virtual machines, networks, volumes, console, dashboard, objects', async () => {
    const report = await cloud.verify();
    expect(failed(report)).toEqual([]);
    expect(report.leftovers).toEqual([]);
    expect(report.ok).toBe(true);
    const skipped = report.steps.filter(s => s.state === 'skipped').map(s => s.name);
    // One compute: nowhere to move to.
    expect(skipped.sort()).toEqual(['live-migrate', 'migrate', 'other-computes']);
  });

  it('is as secure as the Security Guide asks', async () => {
    const report = await cloud.security();
    expect(failed(report)).toEqual([]);
    const of = (state: string) => report.steps.filter(s => s.state === state);
    expect(of('passed').length).toBeGreaterThan(60);
    // What does not apply says why.
    expect(of('skipped').filter(s => !s.message)).toEqual([]);
    console.log(`security: ${of('passed').length} passed, ${of('skipped').length} do not apply`);
  });

  it('is left alone by a second apply, which takes seconds', async () => {
    const began = Date.now();
    const plan = await cloud.plan();
    const seconds = (Date.now() - began) / 1000;
    // A node that could not be looked at has no actions either.
    expect(plan.nodes.filter(n => !n.reachable)).toEqual([]);
    expect(plan.actions.map(a => `${a.id}: ${a.reason}`)).toEqual([]);
    console.log(`a plan of the unchanged cloud took ${seconds.toFixed(1)} s`);
    const { result } = await cloud.apply();
    expect(result).toMatchObject({ actions: 0, done: 0, failed: [] });
  });
});

describe('a cloud in a browser that trusts the CA of the site and nothing more', () => {
  let browser: TestBrowser;
  let api: CloudApi;
  let server: ScreenServer;
  let credentials: CloudCredentials;
  const shots = () => cloud.lab.dir;
  beforeAll(async () => {
    credentials = await cloud.client().get<CloudCredentials>('/cloud/credentials');
    api = cloudApi(cloud.lab.lab.netns, credentials);
    browser = await openBrowser({ netns: cloud.lab.lab.netns, caPem: credentials.ca });
    server = await screenServer(api, join(cloud.lab.lab.dataDir, 'images/guest/disk.qcow2'));
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await server?.remove();
    api?.close();
  }, 120_000);

  it('is not shown to a browser that does not know the CA', async () => {
    const stranger = await openBrowser({ netns: cloud.lab.lab.netns });
    try {
      const { page } = await stranger.open();
      await expect(page.goto(dashboardOf(credentials))).rejects.toThrow('ERR_CERT_AUTHORITY_INVALID');
    } finally {
      await stranger.close();
    }
  });

  it('has a dashboard: login, overview, servers, the console of one, logout', async () => {
    const seen = await walkDashboard(browser, dashboardOf(credentials), credentials, server, shots());
    expect(seen.faults).toEqual([]);
    expect(seen.plain).toEqual([]);
    expect(seen.statics).toBeGreaterThan(10);
    expect(seen.loginTitle).toContain('Login');
    expect(seen.overviewTitle).toContain('Overview');
    expect(seen.instances).toHaveLength(1);
    expect(seen.instances[0]).toContain(server.name);
    expect(seen.instances[0]).toContain('Active');
    expect(seen.console).toMatchObject({ width: 720, height: 400 });
    expect(seen.afterLogout).toBe('/horizon/auth/login/');
  });

  it('has consoles: the screen of a server, which takes what is typed', async () => {
    const seen = await seeConsole(browser, server, shots());
    expect(seen.faults).toEqual([]);
    expect(seen.status).toContain('Connected');
    // The text mode of a PC: 80 × 25 characters of 9 × 16 pixels.
    expect(seen.booted).toMatchObject({ width: 720, height: 400 });
    expect(seen.booted.colours).toBeGreaterThan(1);
    expect(seen.typed.lit).toBeGreaterThan(seen.booted.lit);
    expect(seen.erased.lit).toBeLessThan(seen.typed.lit);
    // A page from elsewhere gets nothing, although it has the token.
    expect(seen.banner.own).toBe('RFB 003.008\n');
    expect(seen.banner.foreign).toBe('');
    console.log(
      `a console of ${seen.booted.width} × ${seen.booted.height}; screenshots in ${shots()} (HALLIGAN_KEEP=1)`,
    );
  });
});

describe('one value of the configuration that is changed', () => {
  it('changes exactly its file and restarts exactly what reads it', async () => {
    await cloud.reconfigure(c => {
      c['config'] = { 'compute-control': { '/etc/nova/nova.conf': { scheduler: { max_attempts: 7 } } } };
    });
    const plan = await cloud.plan();
    const titles = plan.actions.map(a => `${a.node} ${a.title}`).sort();
    expect(titles).toEqual(
      [
        'ctl change /etc/nova/nova.conf',
        ...['nova-api', 'nova-api-metadata', 'nova-conductor', 'nova-novncproxy', 'nova-scheduler'].map(
          u => `ctl restart ${u}.service`,
        ),
      ].sort(),
    );
    expect(plan.actions.find(a => a.kind === 'file')!.diff).toContain('+max_attempts = 7');
    const { result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    expect(await cloud.lab.ssh('ctl', 'grep -c "^max_attempts = 7" /etc/nova/nova.conf')).toBe('1');
    expect((await cloud.plan()).actions).toEqual([]);
  });

  it('is put back when somebody edits it by hand: drift is shown, and applied away', async () => {
    await cloud.lab.ssh('ctl', 'sed -i "s/^max_attempts = 7/max_attempts = 1/" /etc/nova/nova.conf');
    const drift = await cloud.client().get<{ actions: { title: string; diff?: string }[] }>('/cloud/drift');
    expect(drift.actions.map(a => a.title)).toEqual(['change /etc/nova/nova.conf']);
    expect(drift.actions[0]!.diff).toContain('-max_attempts = 1');
    await cloud.apply();
    expect((await cloud.plan()).actions).toEqual([]);
  });
});

describe('a cloud that grows and shrinks', () => {
  it('takes a second compute', async () => {
    await cloud.lab.start('cmp2');
    await cloud.adopt('cmp2', ['compute']);
    const { result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
  });

  it('moves servers between the two', async () => {
    const report = await cloud.verify({ only: ['east-west', 'migrate', 'live-migrate'] });
    expect(failed(report)).toEqual([]);
    expect(report.steps.find(s => s.name === 'live-migrate')?.state).toBe('passed');
  });

  it('gives it up again: its servers move, and no record of it is left', async () => {
    // A server on each compute, left to run.
    expect(failed(await cloud.verify({ only: ['ssh'], keep: true }))).toEqual([]);
    const { run, result } = await cloud.remove('cmp2');
    expect(failuresOf(result)).toBe('');
    expect(run.state).toBe('done');
    const left = await cloud.lab.ssh(
      'ctl',
      `mysql -N -e "SELECT host FROM nova.services WHERE deleted = 0 UNION SELECT host FROM nova.compute_nodes WHERE deleted = 0
        UNION SELECT host FROM nova_api.host_mappings UNION SELECT name FROM placement.resource_providers"; ovn-sbctl list chassis`,
    );
    expect(left).toContain('cmp');
    expect(left).not.toContain('cmp2');
    // Both servers are on the one that stays.
    expect(await cloud.lab.ssh('cmp', 'virsh list --name | grep -c .')).toBe('2');
    expect((await cloud.plan()).actions).toEqual([]);
    const cleaned = await cloud.verify({ only: ['cleanup'] });
    expect(failed(cleaned)).toEqual([]);
    expect(cleaned.leftovers).toEqual([]);
  });
});
