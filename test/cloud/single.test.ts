/** Everything on one node: the smallest cloud, and the layout that people try first. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cloudUp, failuresOf, NETWORKS, type TestCloud } from '../harness/cloud.js';

let cloud: TestCloud;

beforeAll(async () => {
  cloud = await cloudUp({
    name: 'single',
    hosts: [{ name: 'one', roles: ['controller', 'network', 'compute', 'volume'] }],
    cloud: {
      ...NETWORKS,
      dashboard: false,
      volumes: { backend: 'ceph', devices: [{ path: '/var/lib/halligan/ceph0', file_size: '4G' }] },
    },
    onProgress: line => console.log(line),
  });
}, 1_500_000);
afterAll(async () => {
  await cloud?.down();
});

describe('a cloud on a single node', () => {
  it('is laid down', async () => {
    const { run, result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    expect(run.state).toBe('done');
    console.log(`laid down in ${result.seconds} s`);
  });

  it('is proved by a server that answers SSH and keeps what it writes on a volume', async () => {
    const report = await cloud.verify({ only: ['ssh', 'volume-attach', 'console'] });
    expect(report.steps.filter(s => s.state === 'failed').map(s => `${s.name}: ${s.message}`)).toEqual([]);
    expect(report.steps.find(s => s.name === 'volume-attach')?.state).toBe('passed');
    expect(report.leftovers).toEqual([]);
  });

  it('is left alone by a second apply', async () => {
    expect((await cloud.plan()).actions.map(a => `${a.id}: ${a.reason}`)).toEqual([]);
  });
});
