/**
 * A cloud on hosts with one NIC each: management, tunnels, floating IPs and a VLAN share it. The NIC moves under a bridge
 * while we talk to the node over it; when we do not reach the node any more, it moves back by itself.
 */
import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CloudCredentials } from '../../provisioner/core/cloud-service.js';
import { cloudUp, failuresOf, type TestCloud } from '../harness/cloud.js';
import { type Administrator, administrator } from '../harness/openstack.js';

const run = promisify(execFile);
const BRIDGE = 'br-physnet1';
const VLAN = 120;
/** Two hardware routers of the VLAN: the subnet's gateway, and the one that a port is told of. */
const ROUTERS = { '10.120.0.1': '02:00:00:78:00:01', '10.120.0.2': '02:00:00:78:00:02' } as const;
const SOMEWHERE = '198.51.100.7';
const RESOLVER = '10.99.0.1';

let cloud: TestCloud;
const addressOf = (host: string) => `${cloud.lab.host(host).address}/24`;
const sh = (host: string, command: string) => cloud.lab.ssh(host, command);
const addresses = (host: string, link: string) =>
  sh(host, `ip -o -4 addr show dev ${link} scope global 2>/dev/null | awk '{ print $4 }'`);

/** As our own images set up an installed host: netplan over systemd-networkd. */
async function asInstalled(host: string): Promise<void> {
  const plan = {
    network: {
      version: 2,
      ethernets: {
        eth0: {
          addresses: [addressOf(host)],
          routes: [{ to: '0.0.0.0/0', via: '10.99.0.1' }],
          nameservers: { addresses: [RESOLVER], search: ['one.example'] },
        },
      },
    },
  };
  await sh(
    host,
    `mkdir -p /etc/netplan; (umask 077; echo '${JSON.stringify(plan)}' >/etc/netplan/10-halligan.yaml); netplan generate; systemctl enable --now systemd-networkd 2>&1`,
  );
  await until(`networkd of ${host} to have configured eth0`, 30, async () =>
    (await sh(host, 'networkctl --no-legend --no-pager list eth0')).includes('configured'),
  ).catch(async error => {
    throw new Error(`${error.message}: ${await sh(host, 'networkctl --no-pager status eth0')}`);
  });
}

async function until(what: string, seconds: number, ask: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + seconds * 1000;
  let last = '';
  for (;;) {
    const done = await ask().catch(error => {
      last = ` (${error})`;
      return false;
    });
    if (done) return;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}${last}`);
    await new Promise(r => setTimeout(r, 1000));
  }
}

beforeAll(async () => {
  cloud = await cloudUp({
    name: 'one-nic',
    hosts: [
      { name: 'ctl', roles: ['controller', 'network'], nics: 1 },
      { name: 'cmp', roles: ['compute'], nics: 1 },
    ],
    cloud: {
      provider: [{ physical_network: 'physnet1', interface: 'eth0' }],
      external: {
        name: 'public',
        physical_network: 'physnet1',
        cidr: '10.99.0.0/24',
        gateway: '10.99.0.1',
        pool: { from: '10.99.0.200', to: '10.99.0.240' },
      },
      distributed_floating_ip: true,
      provider_networks: [
        {
          name: 'lan',
          physical_network: 'physnet1',
          vlan: VLAN,
          subnets: [
            {
              cidr: '10.120.0.0/24',
              gateway: '10.120.0.1',
              pool: { from: '10.120.0.100', to: '10.120.0.199' },
              dns: ['10.120.0.53'],
              routes: [{ to: '10.130.0.0/16', via: '10.120.0.2' }],
            },
          ],
          ports: [{ name: 'printer', address: '10.120.0.20', dhcp_options: { router: '10.120.0.2', mtu: 1400 } }],
        },
      ],
      dashboard: false,
    },
    onProgress: line => console.log(line),
  });
  await asInstalled('cmp');
  const { netns, bridge } = cloud.lab.lab;
  // The routers' cable in the switch.
  await run('ip', ['-n', netns, 'link', 'add', 'wire0', 'type', 'veth', 'peer', 'name', 'wire1']);
  await run('ip', ['-n', netns, 'link', 'set', 'wire1', 'master', bridge, 'up']);
  await run('ip', ['-n', netns, 'link', 'set', 'wire0', 'up']);
}, 1_500_000);
afterAll(async () => {
  await cloud?.down();
});

interface Echo {
  readonly reply: boolean;
  readonly vid?: number;
  readonly to?: string;
  readonly bytes?: number;
  readonly seen?: readonly string[];
}

/** A ping of a hardware router on the VLAN (or untagged: 0), from somewhere beyond it. */
async function ping(target: string, tag: number, bytes = 56): Promise<Echo> {
  const script = resolve('test/harness/vlan-router.py');
  const routers = Object.entries(ROUTERS)
    .map(([ip, mac]) => `${ip}=${mac}`)
    .join(',');
  const args = [
    ...['netns', 'exec', cloud.lab.lab.netns, 'python3', script, 'wire0', String(tag), routers],
    ...[target, SOMEWHERE, '10.120.0.1', String(bytes)],
  ];
  const { stdout } = await run('ip', args, { timeout: 30_000 }).catch((error: { stdout?: string }) => {
    if (!error.stdout) throw error;
    return { stdout: error.stdout };
  });
  return JSON.parse(stdout) as Echo;
}

describe('a NIC that carries everything', () => {
  it('comes back by itself when the node is not reached over its bridge', async () => {
    // What a wrong VLAN of a switch or a forgotten firewall does: nothing of ours gets through once the bridge has the address.
    await sh(
      'cmp',
      `nft -f - <<'EOF'
table inet mishap {
  chain input { type filter hook input priority 0; policy accept; iifname "${BRIDGE}" tcp dport 22 drop; }
}
EOF`,
    );
    const { run: applied, result } = await cloud.apply();
    expect(applied.state).toBe('failed');
    const failed = result.failed.filter(f => JSON.stringify(f).includes('bridges'));
    console.log(`the take-over that failed: ${failuresOf(result)}`);
    expect(result.failed.map(f => f.problem.message).join('\n')).toContain('cmp');
    expect(JSON.stringify(failed)).toContain('No SSH peer was heard of since; the change is undone.');
    // The controller, whose way was not cut off, has been laid down meanwhile.
    expect(await addresses('ctl', BRIDGE)).toBe(addressOf('ctl'));
    await until('cmp to be as it was', 60, async () => (await addresses('cmp', 'eth0')) === addressOf('cmp'));
    expect(await sh('cmp', 'ovs-vsctl list-br')).not.toContain(BRIDGE);
    expect(await sh('cmp', 'ls /etc/systemd/network /var/lib/halligan/bridges')).not.toMatch(/05-halligan|physnet/);
    expect(await sh('cmp', 'ip -4 route show default')).toContain('via 10.99.0.1 dev eth0');
    expect(await sh('cmp', 'networkctl --no-legend --no-pager list eth0')).toContain('configured');
  });

  it('moves under its bridge with addresses, routes and resolvers, and the node stays managed', async () => {
    await sh('cmp', 'nft delete table inet mishap');
    const { result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    for (const host of ['ctl', 'cmp']) {
      expect(await addresses(host, BRIDGE)).toBe(addressOf(host));
      expect(await addresses(host, 'eth0')).toBe('');
      expect(await sh(host, 'ip -4 route show default')).toContain(`via 10.99.0.1 dev ${BRIDGE}`);
      expect(await sh(host, `ovs-vsctl get bridge ${BRIDGE} datapath_type`)).toBe('netdev');
    }
    const told = await sh('cmp', `cat /etc/systemd/network/05-halligan-${BRIDGE}.network`);
    expect(told).toContain(`Address=${addressOf('cmp')}`);
    expect(told).toContain(`DNS=${RESOLVER}`);
    expect(told).toContain('Domains=one.example');
    const plan = await cloud.plan();
    expect(plan.nodes.filter(n => !n.reachable)).toEqual([]);
    expect(plan.actions.map(a => `${a.id}: ${a.reason}`)).toEqual([]);
  });

  it('lets a virtual machine answer SSH through its floating IP on the hypervisor itself', async () => {
    const report = await cloud.verify({ only: ['ssh'] });
    expect(report.steps.filter(s => s.state === 'failed').map(s => `${s.name}: ${s.message}`)).toEqual([]);
    expect(report.steps.find(s => s.name === 'ssh')?.state).toBe('passed');
    expect(report.leftovers).toEqual([]);
  });
});

describe('a provider network with a VLAN tag and a hardware router', () => {
  let admin: Administrator;
  const ids = new Map<string, string>();
  const consoles = new Map<string, string>();
  const idOf = (body: unknown, key: string) => String((body as Record<string, Record<string, unknown>>)[key]?.['id']);

  beforeAll(async () => {
    admin = await administrator(cloud.lab.lab.netns, await cloud.client().get<CloudCredentials>('/cloud/credentials'));
  });

  it('gives its machines addresses, the hardware router, routes and resolvers by DHCP, and a port its own', async () => {
    const image = await admin.call('image', 'POST', '/images', {
      ...{ name: 'guest', disk_format: 'qcow2', container_format: 'bare' },
    });
    await admin.call('image', 'PUT', `/images/${image['id']}/file`, {
      file: `${cloud.lab.lab.dataDir}/images/guest/disk.qcow2`,
    });
    const list = async (path: string, key: string) =>
      (await admin.call('network', 'GET', path))[key] as Record<string, unknown>[];
    const lan = (await list('/networks?name=lan', 'networks'))[0]!;
    expect(lan).toMatchObject({ 'provider:network_type': 'vlan', 'provider:segmentation_id': VLAN, shared: true });
    const port = (await list('/ports?name=printer', 'ports'))[0]!;
    const group = (port['security_groups'] as string[])[0]!;
    await admin.call('network', 'POST', '/security-group-rules', {
      security_group_rule: { security_group_id: group, direction: 'ingress', protocol: 'icmp' },
    });
    const flavors = (await admin.call('compute', 'GET', '/flavors'))['flavors'] as { id: string; name: string }[];
    for (const [name, network] of [
      ['plain', { uuid: lan['id'] }],
      ['printer', { port: port['id'] }],
    ] as const) {
      const made = await admin.call('compute', 'POST', '/servers', {
        server: {
          name,
          imageRef: image['id'],
          flavorRef: flavors.find(f => f.name === 'm1.nano')!.id,
          networks: [network],
        },
      });
      ids.set(name, idOf(made, 'server'));
    }
    for (const [name, id] of ids)
      await until(`the guest of ${name} to have its metadata`, 240, async () => {
        const said = await admin.call('compute', 'POST', `/servers/${id}/action`, { 'os-getConsoleOutput': {} });
        consoles.set(name, String(said['output']));
        return /GUEST-METADATA[ \t]/.test(consoles.get(name)!);
      });
    const lease = (name: string) => /GUEST-DHCP[ \t]([^\r\n]*)/.exec(consoles.get(name)!)?.[1] ?? '';
    console.log(`plain: ${lease('plain')}\nprinter: ${lease('printer')}`);
    expect(lease('plain')).toContain('router=10.120.0.1 mtu=1500 ');
    expect(lease('plain')).toMatch(
      /routes=169\.254\.169\.254\/32,10\.120\.0\.\d+,10\.130\.0\.0\/16,10\.120\.0\.2,0\.0\.0\.0\/0,10\.120\.0\.1 /,
    );
    expect(lease('printer')).toContain('ip=10.120.0.20 ');
    expect(lease('printer')).toContain('router=10.120.0.2 mtu=1400 ');
    expect(lease('printer')).toMatch(/,0\.0\.0\.0\/0,10\.120\.0\.2 /);
  });

  it('sends their packets out tagged, to the router that each was told of', async () => {
    const plain = /GUEST-DHCP ip=(\S+)/.exec(consoles.get('plain')!)![1]!;
    expect(await ping(plain, VLAN)).toEqual({ reply: true, vid: VLAN, to: ROUTERS['10.120.0.1'], bytes: 56 });
    expect(await ping('10.120.0.20', VLAN)).toEqual({ reply: true, vid: VLAN, to: ROUTERS['10.120.0.2'], bytes: 56 });
    // A full packet of 1500 bytes, the tag beside it.
    expect(await ping(plain, VLAN, 1472)).toMatchObject({ reply: true, vid: VLAN, bytes: 1472 });
  });

  it('hears nobody outside of its VLAN', async () => {
    const plain = /GUEST-DHCP ip=(\S+)/.exec(consoles.get('plain')!)![1]!;
    expect((await ping(plain, VLAN + 1)).reply).toBe(false);
    expect((await ping(plain, 0)).reply).toBe(false);
  });

  it('follows a changed option of the site file: one object, nothing else', async () => {
    await cloud.reconfigure(c => {
      const [lan] = c['provider_networks'] as { ports: { dhcp_options: Record<string, unknown> }[] }[];
      lan!.ports[0]!.dhcp_options = { router: '10.120.0.2', 'ntp-server': '10.120.0.3' };
    });
    const plan = await cloud.plan();
    expect(plan.actions.map(a => `${a.title}: ${a.diff}`)).toEqual([
      'update port printer: dhcp_options: ["mtu=1400","router=10.120.0.2"] → ["ntp-server=10.120.0.3","router=10.120.0.2"]',
    ]);
    const { result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    expect((await cloud.plan()).actions).toEqual([]);
  });

  afterAll(async () => {
    for (const id of ids.values()) await admin.call('compute', 'DELETE', `/servers/${id}`);
  });
});

describe('a power failure of both hosts', () => {
  it('leaves the network as it was: the bridge has the address again, and machines are reached', async () => {
    for (const host of ['ctl', 'cmp']) await cloud.lab.stop(host);
    await Promise.all(['ctl', 'cmp'].map(host => cloud.lab.start(host)));
    for (const host of ['ctl', 'cmp']) {
      await until(`${host} to have its address on the bridge`, 60, async () =>
        (await addresses(host, BRIDGE)).includes(addressOf(host)),
      );
      expect(await addresses(host, 'eth0')).toBe('');
      expect(await sh(host, 'ip -4 route show default')).toContain(BRIDGE);
    }
    await until('the services to be back', 240, async () => (await cloud.plan()).nodes.every(n => n.reachable));
    const { result } = await cloud.apply();
    expect(failuresOf(result)).toBe('');
    const report = await cloud.verify({ only: ['ssh'] });
    expect(report.steps.filter(s => s.state === 'failed').map(s => `${s.name}: ${s.message}`)).toEqual([]);
    expect(report.steps.find(s => s.name === 'ssh')?.state).toBe('passed');
  });
});
