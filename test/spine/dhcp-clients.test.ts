import { readFileSync, writeFileSync } from 'node:fs';
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
  version: 1,
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
  limits: { ssh_sessions: 24, installs: 32 },
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
  console.log({ quick, slow });
  expect(slow.url).toBe('/boot.ipxe');
  expect(quick.tookMs).toBeLessThan(slow.tookMs - 8000);
});
