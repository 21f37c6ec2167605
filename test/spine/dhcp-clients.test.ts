import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { BootDirectory, DirectoryEntry } from '../../provisioner/boot/types.js';
import { systemClock } from '../../provisioner/core/clock.js';
import { createEventFeed, type EventFeed } from '../../provisioner/core/events.js';
import { silentLog } from '../../provisioner/core/log.js';
import { openStore, type Store } from '../../provisioner/core/store/store.js';
import { type BootTrace, createBootTrace } from '../../provisioner/core/trace.js';
import { type DhcpServer, startDhcp } from '../../provisioner/dhcp/server.js';
import { startDns } from '../../provisioner/dns/server.js';
import type { Network, Site } from '../../provisioner/site/schema.js';
import { type Lab, openLab } from './dhcp-lab.js';

const NETWORK: Network = {
  name: 'boot',
  cidr: '10.99.0.0/24',
  interface: 'br0',
  pool: { from: '10.99.0.100', to: '10.99.0.199' },
  gateway: '10.99.0.254',
  dns: [],
  ntp: ['10.99.0.9'],
  routes: [{ to: '10.98.0.0/16', via: '10.99.0.253' }],
  lease_seconds: 600,
  reserved_lease_seconds: 86_400,
  relays: [],
  router_advertisements: true,
};

const site = (networks: Network[]): Site => ({
  version: 2,
  name: 'lab',
  domain: 'lab.test',
  data_dir: '/nonexistent',
  api: { listen: '127.0.0.1', port: 0 },
  boot: { http_port: 7481, tftp_port: 69, dhcp_port: 67, console: 'ttyS0,115200' },
  dns: { forward: [] },
  ntp: [],
  networks,
  images: { default: 'debian-12' },
  discovery: { unknown: 'inspect' },
  install: { login: 'ops', ssh_keys: [] },
  deadlines: { inspecting_seconds: 1200, installing_seconds: 3600, releasing_seconds: 1800, rescuing_seconds: 1200 },
  limits: { ssh_sessions: 24, installs: 32, package_cache_gib: 1 },
  packages: {},
  layouts: { disk: [], network: [] },
  racks: [],
  profiles: [],
  nodes: [],
});

let lab: Lab;
let store: Store;
let trace: BootTrace;
let events: EventFeed;
let server: DhcpServer | undefined;
let nodes: Map<string, DirectoryEntry>;
const directory: BootDirectory = {
  byMac: mac => nodes.get(mac),
  names: () => [...nodes.values()].flatMap(n => (n.address ? [{ name: n.name, address: n.address }] : [])),
  unknownNoBootFile: () => null,
};

const serve = async (networks: Network[] = [NETWORK], probeIntervalMs = 0) => {
  server = await startDhcp({
    site: site(networks),
    directory,
    db: store.db,
    clock: systemClock,
    log: silentLog,
    trace,
    events,
    probeIntervalMs,
  });
  return server;
};

const traced = async (mac: string) => (await trace.read(mac, 100)).map(e => e.message);

const until = async (condition: () => boolean | Promise<boolean>, timeoutMs: number) => {
  const end = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms`);
    await new Promise(r => setTimeout(r, 200));
  }
};

beforeAll(async () => {
  lab = openLab();
  lab.bridge('br0', '10.99.0.1/24');
  store = await openStore(join(lab.dir, 'halligan.db'));
  trace = createBootTrace(store.db, systemClock);
  events = createEventFeed(store.db, systemClock);
  nodes = new Map();
});

afterEach(async () => {
  await server?.close();
  server = undefined;
  nodes.clear();
});

afterAll(async () => {
  await trace?.close();
  await store?.close();
  await lab?.close();
});

/** A hook for dhclient and udhcpc that configures the interface and keeps the environment. */
const hook = () => {
  const file = join(lab.dir, 'hook.sh');
  writeFileSync(
    file,
    `#!/bin/sh
env > "$HOOK_OUT.$$" && mv "$HOOK_OUT.$$" "$HOOK_OUT.\${reason:-$1}"
address=\${new_ip_address:-$ip}
[ -z "$address" ] || ip addr replace "$address/24" dev eth0
`,
    { mode: 0o755 },
  );
  return file;
};
const environment = (file: string) =>
  Object.fromEntries(
    readFileSync(file, 'utf8')
      .split('\n')
      .map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );

test('dhclient gets an address, routes, resolver and time server, and gives the address back', async () => {
  await serve();
  const mac = '52:54:00:aa:00:01';
  const ns = lab.client(mac);
  const out = join(lab.dir, 'dhclient');
  const conf = join(lab.dir, 'dhclient.conf');
  writeFileSync(
    conf,
    'option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n' +
      'request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name,\n' +
      '  ntp-servers, rfc3442-classless-static-routes;\nsend host-name "laptop";\n',
  );
  const dhclient = (...argv: string[]) =>
    lab.exec(
      ns,
      [
        'dhclient',
        '-1',
        '-v',
        '-cf',
        conf,
        '-lf',
        `${out}.leases`,
        '-pf',
        `${out}.pid`,
        '-sf',
        hook(),
        ...argv,
        'eth0',
      ],
      30_000,
      { HOOK_OUT: out },
    );
  const { output } = await lab.exec(
    ns,
    [
      'dhclient',
      '-1',
      '-d',
      '-v',
      '-cf',
      conf,
      '-lf',
      `${out}.leases`,
      '-pf',
      `${out}.pid`,
      '-sf',
      hook(),
      '-e',
      `HOOK_OUT=${out}`,
      'eth0',
    ],
    6000,
    { HOOK_OUT: out },
  );
  expect(output).toContain('DHCPACK of 10.99.0.100 from 10.99.0.1');
  const env = environment(`${out}.BOUND`);
  expect(env).toMatchObject({
    new_ip_address: '10.99.0.100',
    new_subnet_mask: '255.255.255.0',
    new_routers: '10.99.0.254',
    new_domain_name: 'lab.test',
    new_domain_search: 'lab.test.',
    new_domain_name_servers: '10.99.0.1',
    new_ntp_servers: '10.99.0.9',
    new_dhcp_lease_time: '600',
    new_rfc3442_classless_static_routes: '16 10 98 10 99 0 253 0 10 99 0 254',
  });
  expect(env['new_filename']).toBeUndefined();
  expect(server!.leases()).toMatchObject([{ address: '10.99.0.100', mac, hostName: 'laptop' }]);
  await dhclient('-r');
  expect(server!.leases()).toEqual([]);
  expect(await traced(mac)).toContainEqual('RELEASE by an operating system not answered: 10.99.0.100 was released.');
});

/** Boots QEMU's iPXE ROM; resolves with what it fetched and how long after its first DHCP packet. */
const bootIpxe = async (mac: string) => {
  const fetched: { url: string; atMs: number }[] = [];
  const http = createServer((request, response) => {
    fetched.push({ url: request.url ?? '', atMs: Date.now() });
    response.end('#!ipxe\necho booted\nsleep 1000\n');
  });
  await new Promise<void>(resolve => http.listen(7481, '10.99.0.1', resolve));
  const qemu = lab.start(lab.server, [
    ...['qemu-system-x86_64', '-machine', 'q35,accel=tcg', '-m', '128', '-nodefaults', '-display', 'none'],
    ...['-no-user-config', '-serial', 'stdio', '-netdev', 'tap,id=n,ifname=tap0,script=no,downscript=no'],
    ...['-device', `virtio-net-pci,netdev=n,mac=${mac},bootindex=1`],
  ]);
  try {
    for (let i = 0; i < 900 && fetched.length === 0; i++) await new Promise(r => setTimeout(r, 100));
    const first = (await trace.read(mac, 100))[0];
    return { url: fetched[0]?.url, tookMs: (fetched[0]?.atMs ?? Number.NaN) - (first?.atMs ?? Number.NaN) };
  } finally {
    await qemu.stop();
    await new Promise(resolve => http.close(resolve));
  }
};

test("QEMU's iPXE ROM fetches boot.ipxe, and our router advertisement saves it the wait for IPv6", async () => {
  lab.tap('tap0', 'br0');
  await serve();
  const quick = await bootIpxe('52:54:00:aa:00:02');
  expect(quick.url).toBe('/boot.ipxe');
  expect(await traced('52:54:00:aa:00:02')).toContainEqual(
    expect.stringMatching(
      /^REQUEST by iPXE \(x86 BIOS\): ACK 10\.99\.0\.\d+, boot file http:\/\/10\.99\.0\.1:7481\/boot\.ipxe\.$/,
    ),
  );
  await server!.close();
  await serve([{ ...NETWORK, router_advertisements: false }]);
  const slow = await bootIpxe('52:54:00:aa:00:03');
  expect(slow.url).toBe('/boot.ipxe');
  expect(quick.tookMs).toBeLessThan(slow.tookMs - 8000);
});

test('busybox udhcpc gets a lease and its options', async () => {
  await serve();
  const mac = '52:54:00:aa:01:01';
  const ns = lab.client(mac);
  const out = join(lab.dir, 'udhcpc');
  nodes.set(mac, { nodeId: 'id', name: 'n07', address: '10.99.0.7', noBootFile: null });
  const { code, output } = await lab.exec(
    ns,
    ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-s', hook(), '-O', 'hostname', '-O', 'ntpsrv'],
    20_000,
    { HOOK_OUT: out },
  );
  expect(output).toContain('lease of 10.99.0.7 obtained from 10.99.0.1, lease time 86400');
  expect(code).toBe(0);
  expect(environment(`${out}.bound`)).toMatchObject({
    ip: '10.99.0.7',
    hostname: 'n07',
    ntpsrv: '10.99.0.9',
    mask: '24',
  });
});

test('dhcpcd gets a lease, finds the address free and configures it', async () => {
  await serve();
  const mac = '52:54:00:aa:01:02';
  const ns = lab.client(mac);
  const conf = join(lab.dir, 'dhcpcd.conf');
  writeFileSync(conf, 'option classless_static_routes, routers, domain_name_servers\n');
  const script =
    'mkdir -p /var/lib/dhcpcd /run/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && mount -t tmpfs none /run/dhcpcd && ' +
    `exec dhcpcd -4 -1 -B -d -f ${conf} -c /bin/true eth0`;
  const { output } = await lab.exec(ns, ['unshare', '-m', 'sh', '-c', script], 40_000);
  const ip = /leased (10\.99\.0\.\d+) for 600 seconds/.exec(output)?.[1];
  expect(ip, output).toBeDefined();
  expect(lab.ip(ns, '-4', 'addr', 'show', 'eth0')).toContain(`${ip}/24`);
  expect(lab.ip(ns, 'route')).toContain('10.98.0.0/16 via 10.99.0.253');
});

test('systemd-networkd gets a lease, keeps it, and renews it', async () => {
  await serve([{ ...NETWORK, lease_seconds: 60 }]);
  const mac = '52:54:00:aa:01:03';
  const ns = lab.client(mac);
  const conf = join(lab.dir, 'eth0.network');
  writeFileSync(conf, '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nSendHostname=no\n');
  const script =
    'mount -t tmpfs none /run && mkdir -p /run/systemd/network /run/systemd/netif/leases /run/systemd/netif/links && ' +
    `cp ${conf} /run/systemd/network/ && chown -R systemd-network /run/systemd/netif && mount -o remount,ro /sys && ` +
    'exec env SYSTEMD_LOG_LEVEL=debug /lib/systemd/systemd-networkd';
  // /tmp stays visible, so the file is found although /run is new.
  const networkd = lab.start(ns, ['unshare', '-m', 'sh', '-c', script]);
  try {
    await until(() => server!.leases().some(l => l.mac === mac), 30_000);
    const acks = async () => (await traced(mac)).filter(m => m.includes(': ACK ')).length;
    expect(await acks(), networkd.output()).toBe(1);
    await until(async () => (await acks()) === 2, 45_000);
    expect(lab.ip(ns, '-4', 'addr', 'show', 'eth0')).toContain('10.99.0.');
  } finally {
    await networkd.stop();
  }
});

test('perfdhcp as a relay of another subnet gets every one of its exchanges answered', async () => {
  const { interface: _, ...rest } = NETWORK;
  const rack2: Network = {
    ...rest,
    name: 'rack2',
    cidr: '10.50.0.0/16',
    server_address: '10.99.0.1',
    pool: { from: '10.50.1.1', to: '10.50.255.254' },
    gateway: '10.50.0.1',
    relays: ['10.50.0.1'],
  };
  await serve([NETWORK, rack2]);
  const ns = lab.client('52:54:00:aa:01:04');
  lab.ip(ns, 'addr', 'add', '10.50.0.1/16', 'dev', 'eth0');
  lab.ip(ns, 'route', 'add', '10.99.0.0/24', 'dev', 'eth0');
  lab.ip(lab.server, 'route', 'add', '10.50.0.0/16', 'dev', 'br0');
  const { output } = await lab.exec(
    ns,
    ['perfdhcp', '-4', '-r', '200', '-n', '1000', '-R', '1000', '-W', '2000000', '-l', 'eth0', '10.99.0.1'],
    60_000,
  );
  const received = [...output.matchAll(/received packets: (\d+)/g)].map(m => Number(m[1]));
  const sent = [...output.matchAll(/sent packets: (\d+)/g)].map(m => Number(m[1]));
  expect(sent.length, output).toBe(2);
  expect(received).toEqual(sent);
  expect(server!.stats().networks).toMatchObject([{ name: 'boot' }, { name: 'rack2', live: received[1] }]);
});

test('a full pool is told to a real client by silence, to the operator by reason and event; known nodes still boot', async () => {
  await serve([{ ...NETWORK, pool: { from: '10.99.0.210', to: '10.99.0.211' } }]);
  const udhcpc = (ns: string) =>
    lab.exec(ns, ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '2', '-T', '1', '-s', '/bin/true'], 15_000);
  for (const n of [1, 2]) expect((await udhcpc(lab.client(`52:54:00:aa:02:0${n}`))).code).toBe(0);
  const mac = '52:54:00:aa:02:03';
  const ns = lab.client(mac);
  expect((await udhcpc(ns)).code).toBe(1);
  expect(await traced(mac)).toContainEqual(expect.stringContaining('the pool of network boot (2 addresses) is full'));
  expect(await events.after(0, 1000)).toContainEqual(expect.objectContaining({ type: 'dhcp.pool-full' }));
  nodes.set(mac, { nodeId: 'id', name: 'n08', address: '10.99.0.8', noBootFile: null });
  expect((await udhcpc(ns)).code).toBe(0);
});

test('garbage on the wire is counted and changes nothing for others', async () => {
  await serve();
  const ns = lab.client('52:54:00:aa:03:01');
  lab.ip(ns, 'addr', 'add', '10.99.0.60/24', 'dev', 'eth0');
  const flood = `
    const { randomBytes, randomInt } = require('node:crypto');
    const socket = require('node:dgram').createSocket('udp4');
    const head = Buffer.from('010106000000000100000000', 'hex');
    socket.bind(68, async () => {
      for (let i = 0; i < 20000; i++) {
        const junk = randomBytes(randomInt(600));
        const packet = i % 2 ? junk : Buffer.concat([head, randomBytes(224), Buffer.from([99, 130, 83, 99, 53, 1, i % 9]), junk]);
        await new Promise(done => socket.send(packet, 67, '10.99.0.1', done));
        if (i % 50 === 0) await new Promise(done => setTimeout(done, 2));
      }
      process.exit(0);
    });`;
  const before = await store.db.selectFrom('lease').select('ip').execute();
  const [{ code }, other] = await Promise.all([
    lab.exec(ns, [process.execPath, '-e', flood], 60_000),
    lab.exec(
      lab.client('52:54:00:aa:03:02'),
      ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '9', '-s', '/bin/true'],
      60_000,
    ),
  ]);
  expect(code).toBe(0);
  expect(other.code).toBe(0);
  const { malformed, received } = server!.stats();
  expect(malformed).toBeGreaterThan(10_000);
  expect(received).toBeGreaterThan(15_000);
  const after = await store.db.selectFrom('lease').select(['ip', 'mac', 'updated_ms']).execute();
  expect(after.length - before.length).toBeLessThanOrEqual(1);
});

test('a dnsmasq on the segment is noticed by our probe and named with its Ethernet address', async () => {
  const ns = lab.client('52:54:00:66:66:66');
  lab.ip(ns, 'addr', 'add', '10.99.0.66/24', 'dev', 'eth0');
  const dnsmasq = lab.start(ns, [
    ...[
      'dnsmasq',
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--port=0',
      '--interface=eth0',
      '--bind-interfaces',
    ],
    ...['--no-ping', '--user=root', '--dhcp-authoritative', '--dhcp-range=10.99.0.220,10.99.0.229,1h'],
    ...[`--dhcp-leasefile=${join(lab.dir, 'rogue')}`, `--pid-file=${join(lab.dir, 'rogue.pid')}`],
  ]);
  try {
    await new Promise(r => setTimeout(r, 500));
    await serve();
    const last = await events.latestId();
    await server!.probe();
    expect(server!.stats().rogues, dnsmasq.output()).toMatchObject([
      { network: 'boot', server: '10.99.0.66', mac: '52:54:00:66:66:66' },
    ]);
    await server!.probe();
    await new Promise(r => setTimeout(r, 200));
    expect(await events.after(last, 100)).toMatchObject([
      {
        type: 'dhcp.rogue',
        severity: 'warn',
        message:
          'Another DHCP server, 10.99.0.66 (52:54:00:66:66:66), answers on network boot; nodes may boot from it instead.',
      },
    ]);
    expect(server!.stats().received, 'our own probe came back to us and was left alone').toBeGreaterThan(0);
    expect(server!.stats().offers).toBe(0);
  } finally {
    await dnsmasq.stop();
  }
});

test('a restart keeps the leases: the client renews, and nobody else gets its address', async () => {
  await serve([{ ...NETWORK, pool: { from: '10.99.0.230', to: '10.99.0.230' } }]);
  const mac = '52:54:00:aa:04:01';
  const udhcpc = (ns: string) =>
    lab.exec(ns, ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '2', '-T', '1', '-s', '/bin/true'], 15_000);
  const ns = lab.client(mac);
  expect((await udhcpc(ns)).code).toBe(0);
  await server!.close();
  await serve([{ ...NETWORK, pool: { from: '10.99.0.230', to: '10.99.0.230' } }]);
  expect(server!.leases().filter(l => l.mac === mac)).toMatchObject([{ address: '10.99.0.230' }]);
  expect((await udhcpc(lab.client('52:54:00:aa:04:02'))).code).toBe(1);
  expect((await udhcpc(ns)).code).toBe(0);
});

test('a leased client resolves nodes and itself by name at our DNS, both ways', async () => {
  const dhcp = await serve();
  nodes.set('52:54:00:aa:06:07', { nodeId: 'id', name: 'n07', address: '10.99.0.7', noBootFile: null });
  const dns = await startDns({
    site: site([NETWORK]),
    networks: dhcp.networks,
    directory,
    leases: () => dhcp.leases(),
    clock: systemClock,
    log: silentLog,
  });
  try {
    const ns = lab.client('52:54:00:aa:06:01');
    const out = join(lab.dir, 'dns');
    const { output } = await lab.exec(
      ns,
      ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-s', hook(), '-x', 'hostname:laptop'],
      20_000,
      { HOOK_OUT: out },
    );
    const ip = environment(`${out}.bound`)['ip']!;
    expect(output).toContain(ip);
    const nslookup = async (name: string) => (await lab.exec(ns, ['busybox', 'nslookup', name, '10.99.0.1'])).output;
    expect(await nslookup('n07.lab.test')).toMatch(/Address.*10\.99\.0\.7/);
    expect(await nslookup('10.99.0.7')).toContain('n07.lab.test');
    expect(await nslookup('laptop.lab.test')).toContain(ip);
    expect(await nslookup(ip)).toContain('laptop.lab.test');
    expect(await nslookup('nobody.lab.test')).toMatch(/NXDOMAIN|can't find|Name or service/);
  } finally {
    await dns.close();
  }
});

test('an interface that is made anew is served again', async () => {
  lab.bridge('br1', '10.97.0.1/24');
  await serve([
    NETWORK,
    {
      ...NETWORK,
      name: 'second',
      cidr: '10.97.0.0/24',
      interface: 'br1',
      pool: { from: '10.97.0.100', to: '10.97.0.109' },
    },
  ]);
  lab.ip(lab.server, 'link', 'del', 'br1');
  const said = async () => (await events.after(0, 1000)).filter(e => e.type === 'dhcp.interface').map(e => e.message);
  await until(
    async () => (await said()).includes('The interface br1 is gone; DHCP waits for it to come back.'),
    10_000,
  );
  lab.bridge('br1', '10.97.0.1/24');
  await until(async () => (await said()).includes('The interface br1 is back; DHCP answers there again.'), 10_000);
  const ns = lab.client('52:54:00:aa:07:01', 'br1');
  const { output } = await lab.exec(
    ns,
    ['udhcpc', '-i', 'eth0', '-n', '-q', '-f', '-t', '3', '-s', '/bin/true'],
    15_000,
  );
  expect(output).toContain('lease of 10.97.0.10');
});

test('a DHCP server that runs already, and a missing interface, are one sentence each at the start', async () => {
  const dnsmasq = lab.start(lab.server, [
    ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--interface=br0', '--bind-interfaces'],
    ...['--user=root', '--dhcp-range=10.99.0.220,10.99.0.229,1h', `--dhcp-leasefile=${join(lab.dir, 'l')}`],
    `--pid-file=${join(lab.dir, 'p')}`,
  ]);
  try {
    await new Promise(r => setTimeout(r, 500));
    await expect(serve()).rejects.toThrow(/^UDP port 67 on interface br0 is already in use by dnsmasq, pid \d+\.$/);
  } finally {
    await dnsmasq.stop();
  }
  await expect(serve([{ ...NETWORK, interface: 'br9' }])).rejects.toThrow(
    'Network boot: interface br9 does not exist or has no address.',
  );
  await expect(serve([{ ...NETWORK, cidr: '10.1.0.0/24' }])).rejects.toThrow(
    'Network boot: interface br0 has no address inside 10.1.0.0/24.',
  );
});

test("OVMF's own PXE client is sent to snponly.efi, and its HTTP boot to the same by URL", async () => {
  lab.tap('tap1', 'br0');
  await serve();
  const mac = '52:54:00:aa:05:01';
  const requests: string[] = [];
  const http = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    response.statusCode = 404;
    response.end();
  });
  await new Promise<void>(resolve => http.listen(7481, '10.99.0.1', resolve));
  const variables = join(lab.dir, 'vars.fd');
  copyFileSync('/usr/share/OVMF/OVMF_VARS_4M.fd', variables);
  const qemu = lab.start(lab.server, [
    ...['qemu-system-x86_64', '-machine', 'q35,accel=tcg', '-m', '256', '-nodefaults', '-display', 'none'],
    ...['-no-user-config', '-serial', 'stdio', '-netdev', 'tap,id=n,ifname=tap1,script=no,downscript=no'],
    ...['-drive', 'if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd'],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
    ...['-device', `virtio-net-pci,netdev=n,mac=${mac},romfile=`],
  ]);
  try {
    await until(() => requests.length > 1, 240_000);
    // UEFI firmware asks for the size first (HEAD), then for the file.
    expect(requests).toEqual(['HEAD /loader/snponly.efi', 'GET /loader/snponly.efi']);
    const url = 'http://10.99.0.1:7481/loader/snponly.efi';
    expect((await traced(mac)).map(line => line.replace(/10\.99\.0\.1\d\d/, 'IP'))).toEqual([
      'DISCOVER by PXE firmware (x86-64 UEFI): OFFER IP, boot file snponly.efi.',
      'REQUEST by PXE firmware (x86-64 UEFI): ACK IP, boot file snponly.efi.',
      `DISCOVER by HTTP boot firmware (x86-64 UEFI, HTTP boot): OFFER IP, boot file ${url}.`,
      `REQUEST by HTTP boot firmware (x86-64 UEFI, HTTP boot): ACK IP, boot file ${url}.`,
    ]);
  } finally {
    await qemu.stop();
    await new Promise(resolve => http.close(resolve));
  }
});
