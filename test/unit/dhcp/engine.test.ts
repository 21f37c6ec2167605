import { describe, expect, test } from 'vitest';
import { parseIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { NO_MAC } from '../../../provisioner/dhcp/engine.js';
import { address, IPXE_DISCOVER, optionsOf, type RequestFields, request } from './packets.js';
import { createWorld, NETWORK, node, type World } from './world.js';

const MAC = '52:54:00:00:00:01';
const OTHER = '52:54:00:00:00:02';
const SERVER = [54, address('10.99.0.1')] as const;
const wish = (text: string) => [50, address(text)] as const;
const yiaddr = (packet: Buffer) => [...packet.subarray(16, 20)].join('.');
const option = (packet: Buffer, code: number) => optionsOf(packet).find(([c]) => c === code)?.[1];
const typeOf = (packet: Buffer) => option(packet, 53)?.[0];
const OFFER = 2;
const ACK = 5;
const NAK = 6;

const discover = (fields: RequestFields = {}) => request({ type: 1, ...fields });
const select = (ip: string, fields: RequestFields = {}) =>
  request({ type: 3, ...fields, options: [wish(ip), SERVER, ...(fields.options ?? [])] });
const reboot = (ip: string, fields: RequestFields = {}) => request({ type: 3, ...fields, options: [wish(ip)] });
const renew = (ip: string, fields: RequestFields = {}) => request({ type: 3, ciaddr: ip, ...fields });

/** DISCOVER, OFFER, REQUEST, ACK. Returns the address. */
async function bind(world: World, mac = MAC): Promise<string> {
  const offer = await world.ask(discover({ mac }));
  const ip = yiaddr(offer!.packet);
  const ack = await world.ask(select(ip, { mac }));
  expect(typeOf(ack!.packet)).toBe(ACK);
  return ip;
}

describe('an unknown machine', () => {
  test('gets an address of the pool, by broadcast, and the same one again', async () => {
    const world = createWorld();
    const offer = await world.ask(discover());
    expect(offer).toMatchObject({ address: '255.255.255.255', port: 68 });
    expect(typeOf(offer!.packet)).toBe(OFFER);
    expect(yiaddr(offer!.packet)).toBe('10.99.0.100');
    expect(option(offer!.packet, 51)?.readUInt32BE()).toBe(600);
    expect(option(offer!.packet, 58)?.readUInt32BE()).toBe(300);
    expect(option(offer!.packet, 59)?.readUInt32BE()).toBe(525);
    expect(option(offer!.packet, 6)).toEqual(address('10.99.0.1'));
    expect(option(offer!.packet, 42)).toEqual(address('10.99.0.9'));
    expect(world.disk.size).toBe(0);
    await bind(world);
    world.clock.advance(3_600_000);
    expect(await bind(world)).toBe('10.99.0.100');
    expect(world.said()).toBe('REQUEST by an operating system: ACK 10.99.0.100, no boot file: it did not ask for one.');
  });

  test('keeps one address through firmware, iPXE and its systems, whatever identifiers they send', async () => {
    const world = createWorld();
    const ip = await bind(world);
    for (const id of [[1, 2], [255, 9, 9, 9, 9], [0]])
      expect(yiaddr((await world.ask(discover({ options: [[61, id]] })))!.packet)).toBe(ip);
  });

  test('shares no address with a clone that sends the same client identifier', async () => {
    const world = createWorld();
    const options = [[61, [255, 1, 2, 3]] as const];
    const one = await world.ask(discover({ options }));
    const two = await world.ask(discover({ mac: OTHER, options }));
    expect(yiaddr(one!.packet)).not.toBe(yiaddr(two!.packet));
    expect(option(one!.packet, 61)).toEqual(Buffer.from([255, 1, 2, 3]));
  });

  test('gets the address that it wishes for when that is free', async () => {
    const world = createWorld();
    expect(yiaddr((await world.ask(discover({ options: [wish('10.99.0.107')] })))!.packet)).toBe('10.99.0.107');
    expect(yiaddr((await world.ask(discover({ mac: OTHER, options: [wish('10.99.0.107')] })))!.packet)).toBe(
      '10.99.0.100',
    );
  });

  test('loses an offer that it does not take within 30 seconds', async () => {
    const world = createWorld({ networks: [{ ...NETWORK, pool: { from: '10.99.0.100', to: '10.99.0.100' } }] });
    await world.ask(discover());
    world.clock.advance(29_999);
    expect(await world.ask(discover({ mac: OTHER }))).toBeUndefined();
    world.clock.advance(2);
    expect(await world.ask(discover({ mac: OTHER }))).toBeDefined();
    expect(typeOf((await world.ask(select('10.99.0.100')))!.packet)).toBe(NAK);
  });

  test('is told by silence, reason and one event that the pool is full', async () => {
    const world = createWorld();
    for (let i = 0; i < 10; i++) await bind(world, `52:54:00:00:01:0${i}`);
    for (let i = 0; i < 5; i++) expect(await world.ask(discover({ mac: `52:54:00:00:02:0${i}` }))).toBeUndefined();
    expect(world.said()).toBe(
      'DISCOVER by an operating system not answered: no address is free: the pool of network boot (10 addresses) is full.',
    );
    expect(world.events.filter(e => e.type === 'dhcp.pool-full')).toHaveLength(1);
    world.clock.advance(600_001);
    expect(await world.ask(discover({ mac: OTHER }))).toBeDefined();
  });
});

describe('a known node', () => {
  test('gets its reservation, its name, and the longer lease', async () => {
    const world = createWorld();
    world.nodes.set(MAC, node('n07', '10.99.0.7'));
    const offer = await world.ask(discover());
    expect(yiaddr(offer!.packet)).toBe('10.99.0.7');
    expect(option(offer!.packet, 12)?.toString()).toBe('n07');
    expect(option(offer!.packet, 51)?.readUInt32BE()).toBe(86_400);
  });

  test('gets its reservation although the pool is full', async () => {
    const world = createWorld();
    for (let i = 0; i < 10; i++) await bind(world, `52:54:00:00:01:0${i}`);
    world.nodes.set(MAC, node('n07', '10.99.0.7'));
    expect(await bind(world)).toBe('10.99.0.7');
  });

  test('keeps a running lease of the pool until it boots again', async () => {
    const world = createWorld();
    const ip = await bind(world);
    world.nodes.set(MAC, node('n07', '10.99.0.7'));
    world.clock.advance(1000);
    expect(yiaddr((await world.ask(renew(ip), { source: ip }))!.packet)).toBe(ip);
    expect(typeOf((await world.ask(reboot(ip)))!.packet)).toBe(NAK);
    expect(await bind(world)).toBe('10.99.0.7');
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBeUndefined();
    expect(world.disk.get(parseIpv4(ip))?.state).toBe('released');
  });

  test('waits with an address of the pool while somebody else holds its reservation, and the trace says so', async () => {
    const world = createWorld();
    const taken = await bind(world, OTHER);
    world.nodes.set(MAC, node('n07', taken));
    world.clock.advance(1000);
    expect(yiaddr((await world.ask(discover()))!.packet)).not.toBe(taken);
    expect(world.said()).toContain(`; ${taken}, reserved for n07, is still held by ${OTHER}.`);
    expect(typeOf((await world.ask(renew(taken, { mac: OTHER }), { source: taken }))!.packet)).toBe(NAK);
    world.clock.advance(600_001);
    expect(await bind(world)).toBe(taken);
  });

  test('with two NICs on the network has the reservation on one of them', async () => {
    const world = createWorld();
    world.nodes.set(MAC, node('n07', '10.99.0.7')).set(OTHER, node('n07', '10.99.0.7'));
    expect(await bind(world)).toBe('10.99.0.7');
    expect(await bind(world, OTHER)).toBe('10.99.0.100');
  });

  test('of another network gets an address of this one', async () => {
    const world = createWorld();
    world.nodes.set(MAC, node('n07', '10.50.0.7'));
    expect(yiaddr((await world.ask(discover()))!.packet)).toBe('10.99.0.100');
    expect(world.said()).toContain('10.50.0.7, reserved for n07, is not of this network');
  });

  test('never finds its reserved address given away, even inside the pool', async () => {
    const world = createWorld();
    world.nodes.set(MAC, node('n07', '10.99.0.100'));
    expect(await bind(world, OTHER)).toBe('10.99.0.101');
    expect(typeOf((await world.ask(select('10.99.0.100', { mac: OTHER })))!.packet)).toBe(NAK);
    expect(await bind(world)).toBe('10.99.0.100');
  });
});

describe('booting', () => {
  test('iPXE gets the script’s URL, is spared the wait for proxy DHCP, and a router advertisement', async () => {
    const world = createWorld();
    const offer = await world.ask(IPXE_DISCOVER);
    expect(offer!.packet.toString('latin1', 108, 139)).toBe('http://10.99.0.1:7481/boot.ipxe');
    expect([...offer!.packet.subarray(20, 24)].join('.')).toBe('10.99.0.1');
    expect(option(offer!.packet, 175)).toEqual(Buffer.from([0xb0, 1, 1]));
    expect(world.advertised).toEqual(['52:54:00:aa:00:02']);
    expect(world.said()).toBe(
      'DISCOVER by iPXE (x86 BIOS): OFFER 10.99.0.100, boot file http://10.99.0.1:7481/boot.ipxe.',
    );
  });

  test('an unknown machine gets an address without a boot file when the site ignores unknown machines', async () => {
    const world = createWorld();
    world.unknown.noBootFile = 'unknown machines are ignored here';
    const offer = await world.ask(IPXE_DISCOVER);
    expect(offer!.packet.subarray(108, 236)).toEqual(Buffer.alloc(128));
    expect(offer!.packet.subarray(20, 24)).toEqual(Buffer.alloc(4));
    expect(world.said()).toContain('no boot file: unknown machines are ignored here.');
  });

  test('ARM64 firmware gets silence with the reason', async () => {
    const world = createWorld();
    const options = [
      [60, 'PXEClient:Arch:00011'],
      [93, [0, 11]],
    ] as const;
    expect(await world.ask(discover({ options }))).toBeUndefined();
    expect(world.trace.at(-1)).toEqual({
      mac: MAC,
      silent: true,
      message:
        'DISCOVER by PXE firmware (ARM64 UEFI) not answered: ARM64 UEFI is not supported: there is no boot loader for it.',
    });
  });

  test('HTTP boot firmware gets option 60 back', async () => {
    const world = createWorld();
    const options = [
      [60, 'HTTPClient:Arch:00016:UNDI:003001'],
      [93, [0, 16]],
      [55, [1, 3, 67]],
    ] as const;
    const offer = await world.ask(discover({ options }));
    expect(option(offer!.packet, 60)?.toString()).toBe('HTTPClient');
    expect(option(offer!.packet, 67)?.toString()).toBe('http://10.99.0.1:7481/loader/snponly.efi');
  });
});

describe('a request', () => {
  test('that takes the offer of another server is left alone, and that server is named', async () => {
    const world = createWorld();
    await world.ask(discover());
    const raw = request({ type: 3, options: [wish('10.99.0.100'), [54, address('10.99.0.66')]] });
    expect(await world.ask(raw)).toBeUndefined();
    expect(world.said()).toContain('the client took the offer of another server, 10.99.0.66');
    await world.ask(raw);
    expect(world.events).toMatchObject([
      { type: 'dhcp.rogue', data: { server: '10.99.0.66', network: 'boot', how: 'request' } },
    ]);
    expect(world.leases.holder(parseIpv4('10.99.0.100'), world.clock.monotonic)).toBeUndefined();
  });

  test('for an address of another network is refused, by broadcast', async () => {
    const world = createWorld();
    for (const raw of [reboot('192.168.1.5'), renew('192.168.1.5')]) {
      const nak = await world.ask(raw);
      expect(nak).toMatchObject({ address: '255.255.255.255', port: 68 });
      expect(typeOf(nak!.packet)).toBe(NAK);
      expect(option(nak!.packet, 56)?.toString()).toBe('192.168.1.5: it is not of this network');
    }
  });

  test('for an address that somebody else has is refused', async () => {
    const world = createWorld();
    const ip = await bind(world, OTHER);
    for (const raw of [select(ip), reboot(ip), renew(ip)]) expect(typeOf((await world.ask(raw))!.packet)).toBe(NAK);
    expect(world.said()).toBe(`REQUEST by an operating system for ${ip}: NAK, it belongs to ${OTHER}.`);
  });

  test('for a free address of the pool is granted although the database forgot the lease', async () => {
    const world = createWorld();
    for (const [i, raw] of [reboot('10.99.0.105'), renew('10.99.0.105')].entries()) {
      world.clock.advance(700_000 * i);
      expect(typeOf((await world.ask(raw))!.packet)).toBe(ACK);
    }
  });

  test('for an address outside the pool that we know nothing of is not answered', async () => {
    const world = createWorld();
    expect(await world.ask(reboot('10.99.0.50'))).toBeUndefined();
    expect(await world.ask(renew('10.99.0.50'))).toBeUndefined();
    expect(world.said()).toContain('we know nothing of 10.99.0.50');
    expect(typeOf((await world.ask(select('10.99.0.50')))!.packet)).toBe(NAK);
  });

  test('for our own address, the network’s or the broadcast’s is refused', async () => {
    const world = createWorld();
    for (const ip of ['10.99.0.1', '10.99.0.0', '10.99.0.255'])
      expect(typeOf((await world.ask(select(ip)))!.packet)).toBe(NAK);
  });

  test('to renew goes back by unicast and runs the lease anew', async () => {
    const world = createWorld();
    const ip = await bind(world);
    world.clock.advance(300_000);
    const ack = await world.ask(renew(ip), { source: ip });
    expect(ack).toMatchObject({ address: ip, port: 68 });
    world.clock.advance(599_999);
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBe(MAC);
  });

  test('to renew works on when the wall clock jumps a day', async () => {
    const world = createWorld();
    const ip = await bind(world);
    world.clock.wall += 86_400_000;
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBe(MAC);
    world.clock.wall -= 864_000_000;
    expect(typeOf((await world.ask(renew(ip), { source: ip }))!.packet)).toBe(ACK);
  });
});

describe('DECLINE, RELEASE, INFORM', () => {
  test('a declined address is in quarantine for ten minutes and named in an event', async () => {
    const world = createWorld({ networks: [{ ...NETWORK, pool: { from: '10.99.0.100', to: '10.99.0.101' } }] });
    const ip = await bind(world);
    expect(await world.ask(request({ type: 4, options: [wish(ip), SERVER] }))).toBeUndefined();
    expect(world.disk.get(parseIpv4(ip))?.state).toBe('declined');
    expect(world.events).toMatchObject([{ type: 'dhcp.declined', data: { address: ip } }]);
    expect(await bind(world)).toBe('10.99.0.101');
    expect(await world.ask(discover({ mac: OTHER }))).toBeUndefined();
    world.clock.advance(600_001);
    expect(yiaddr((await world.ask(discover({ mac: OTHER })))!.packet)).toBe(ip);
  });

  test('nobody can decline what another has', async () => {
    const world = createWorld();
    const ip = await bind(world, OTHER);
    await world.ask(request({ type: 4, options: [wish(ip), SERVER] }));
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBe(OTHER);
    expect(world.said()).toContain('names an address that this client does not have');
  });

  test('a released address is free for others and remembered for its client', async () => {
    const world = createWorld();
    const ip = await bind(world);
    await world.ask(request({ type: 7, ciaddr: ip, options: [SERVER] }), { source: ip });
    expect(world.disk.get(parseIpv4(ip))?.state).toBe('released');
    expect(yiaddr((await world.ask(discover({ mac: OTHER })))!.packet)).not.toBe(ip);
    expect(await bind(world)).toBe(ip);
  });

  test('a RELEASE from another source address changes nothing', async () => {
    const world = createWorld();
    const ip = await bind(world);
    await world.ask(request({ type: 7, ciaddr: ip, options: [SERVER] }), { source: '10.99.0.66' });
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBe(MAC);
  });

  test('INFORM gets options, no address and no lease time', async () => {
    const world = createWorld();
    const ack = await world.ask(request({ type: 8, ciaddr: '10.99.0.20' }), { source: '10.99.0.20' });
    expect(ack).toMatchObject({ address: '10.99.0.20', port: 68 });
    expect(yiaddr(ack!.packet)).toBe('0.0.0.0');
    expect(option(ack!.packet, 51)).toBeUndefined();
    expect(option(ack!.packet, 3)).toEqual(address('10.99.0.254'));
  });
});

describe('relays', () => {
  const relayed = {
    ...NETWORK,
    name: 'rack2',
    cidr: '10.50.0.0/24',
    server_address: '10.99.0.1',
    gateway: '10.50.0.1',
  };
  delete (relayed as { interface?: string }).interface;
  const rack2 = { ...relayed, pool: { from: '10.50.0.100', to: '10.50.0.199' } };

  test('are answered at giaddr with their option 82 as it came, last', async () => {
    const world = createWorld({ networks: [NETWORK, rack2] });
    const info = Buffer.from([1, 4, 1, 2, 3, 4, 2, 1, 9]);
    const offer = await world.ask(discover({ giaddr: '10.50.0.1', options: [[82, info]] }), { source: '10.50.0.1' });
    expect(offer).toMatchObject({ address: '10.50.0.1', port: 67 });
    expect(yiaddr(offer!.packet)).toBe('10.50.0.100');
    expect([...offer!.packet.subarray(24, 28)].join('.')).toBe('10.50.0.1');
    expect(optionsOf(offer!.packet).at(-1)).toEqual([82, info]);
    const nak = await world.ask(reboot('10.99.0.100', { giaddr: '10.50.0.1', options: [] }));
    expect(nak).toMatchObject({ address: '10.50.0.1', port: 67 });
    expect(nak!.packet.readUInt16BE(10) & 0x8000).toBe(0x8000);
  });

  test('may name the client’s subnet by link selection (RFC 3527)', async () => {
    const world = createWorld({ networks: [NETWORK, { ...rack2, relays: ['172.16.0.1'] }] });
    const options = [[82, [5, 4, 10, 50, 0, 0]]] as const;
    const offer = await world.ask(discover({ giaddr: '172.16.0.1', options }));
    expect(offer).toMatchObject({ address: '172.16.0.1', port: 67 });
    expect(yiaddr(offer!.packet)).toBe('10.50.0.100');
  });

  test('that the site does not know get silence with the reason', async () => {
    const world = createWorld({ networks: [NETWORK, { ...rack2, relays: ['10.50.0.1'] }] });
    expect(await world.ask(discover({ giaddr: '10.7.0.1' }))).toBeUndefined();
    expect(world.said()).toBe('DISCOVER ignored: no network of the site has the relay 10.7.0.1.');
    expect(await world.ask(discover({ giaddr: '10.50.0.9' }))).toBeUndefined();
    expect(world.said()).toBe('DISCOVER ignored: the relay 10.50.0.9 is not one of network rack2.');
  });

  test('are bypassed by renewals, which find their network by the client’s address', async () => {
    const world = createWorld({ networks: [NETWORK, rack2] });
    await world.ask(discover({ giaddr: '10.50.0.1' }));
    await world.ask(select('10.50.0.100', { giaddr: '10.50.0.1' }));
    const ack = await world.ask(renew('10.50.0.100'), { interface: undefined, source: '10.50.0.100' });
    expect(ack).toMatchObject({ address: '10.50.0.100', port: 68 });
    expect(typeOf(ack!.packet)).toBe(ACK);
  });

  test('a broadcast on an interface that serves no network gets silence', async () => {
    const world = createWorld();
    expect(await world.ask(discover(), { interface: undefined })).toBeUndefined();
    expect(world.said()).toBe('DISCOVER ignored: it came in over an interface that serves no network.');
  });
});

describe('the engine', () => {
  test('sends an ACK only when the lease is on disk', async () => {
    let release = () => {};
    const world = createWorld({
      writer: () => ({
        pending: 0,
        write: () =>
          new Promise(resolve => {
            release = resolve;
          }),
        close: async () => {},
      }),
    });
    const ip = yiaddr((await world.ask(discover()))!.packet);
    let done = false;
    const ack = world.ask(select(ip)).then(out => {
      done = true;
      return out;
    });
    await new Promise(resolve => setTimeout(resolve, 20));
    expect(done).toBe(false);
    release();
    expect(typeOf((await ack)!.packet)).toBe(ACK);
  });

  test('gives no ACK for a lease that could not be stored, and takes the address back', async () => {
    let broken = true;
    const world = createWorld({
      writer: () => ({
        pending: 0,
        write: async () => {
          if (broken) throw new Error('disk full');
        },
        close: async () => {},
      }),
    });
    const ip = yiaddr((await world.ask(discover()))!.packet);
    expect(await world.ask(select(ip))).toBeUndefined();
    expect(world.said()).toBe('REQUEST not answered: the lease could not be stored.');
    expect(world.leases.holder(parseIpv4(ip), world.clock.monotonic)).toBeUndefined();
    broken = false;
    expect(typeOf((await world.ask(select(ip)))!.packet)).toBe(ACK);
  });

  test('drops what waits for a slow disk beyond its bound', async () => {
    const world = createWorld({
      networks: [{ ...NETWORK, cidr: '10.96.0.0/12', pool: { from: '10.100.0.1', to: '10.100.255.254' } }],
      writer: () => ({ pending: 0, write: () => new Promise(() => {}), close: async () => {} }),
    });
    const mac = (i: number) =>
      `52:54:00:01:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}`;
    for (let i = 0; i < 4096; i++) void world.ask(select(`10.100.${1 + (i >> 7)}.${1 + (i & 127)}`, { mac: mac(i) }));
    expect(await world.ask(discover())).toBeUndefined();
    expect(world.engine.counters.overloaded).toBe(1);
    expect(world.said()).toBe('DISCOVER ignored: 4096 answers wait for the disk already.');
  });

  test('limits each client by itself and records that once', async () => {
    const world = createWorld();
    for (let i = 0; i < 100; i++) await world.ask(discover());
    expect(world.engine.counters).toMatchObject({ offers: 20, rateLimited: 80 });
    expect(world.trace.filter(t => t.silent)).toHaveLength(1);
    expect(await world.ask(discover({ mac: OTHER }))).toBeDefined();
    world.clock.advance(1000);
    expect(await world.ask(discover())).toBeDefined();
  });

  test('records broken packets under their sender, or under no address at all', async () => {
    const world = createWorld();
    await world.ask(request({ tail: Buffer.from([12, 99]) }));
    expect(world.trace.at(-1)).toEqual({
      mac: MAC,
      silent: true,
      message: 'Packet ignored: option 12 in options is longer than the packet.',
    });
    await world.ask(Buffer.from('hello'));
    expect(world.trace.at(-1)).toMatchObject({ mac: NO_MAC, silent: true });
    expect(world.engine.counters.malformed).toBe(2);
  });

  test('does not answer its own probe for other servers', async () => {
    const world = createWorld();
    expect(await world.ask(discover({ xid: 0xdeadbeef }))).toBeUndefined();
    expect(world.trace).toEqual([]);
  });
});
