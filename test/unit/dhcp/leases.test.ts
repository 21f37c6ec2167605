/**
 * The allocator against a model: any sequence of requests, expiry, restarts and reservations keeps the promises that
 * the tests below name.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatIpv4 } from '../../../provisioner/core/net/ipv4.js';
import { ExpiryHeap } from '../../../provisioner/dhcp/expiry-heap.js';
import { isLive, type Lease } from '../../../provisioner/dhcp/leases.js';
import { address, optionsOf, request } from './packets.js';
import { createWorld, NETWORK, node, type World } from './world.js';

const CLIENTS = 7;
const mac = (client: number) => `52:54:00:00:00:0${client}`;
/** Smaller than the number of clients, so that full pools are common. */
const POOL = { from: '10.99.0.100', to: '10.99.0.104' };
const ADDRESSES = ['10.99.0.7', '10.99.0.8', '10.99.0.99', '10.99.0.100', '10.99.0.102', '10.99.0.104', '10.99.0.105'];
const LEASE_MS = 600_000;

type Step =
  | {
      kind: 'discover' | 'select' | 'reboot' | 'renew' | 'decline' | 'release' | 'bind';
      client: number;
      address: string;
    }
  | { kind: 'wait'; ms: number }
  | { kind: 'restart' }
  | { kind: 'reserve'; client: number; address: string | null };

const client = fc.integer({ min: 0, max: CLIENTS - 1 });
const anyAddress = fc.constantFrom(...ADDRESSES);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constantFrom('discover', 'select', 'reboot', 'renew', 'decline', 'release', 'bind', 'bind', 'bind'),
      client,
      address: anyAddress,
    }) as fc.Arbitrary<Step>,
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: LEASE_MS }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('reserve' as const),
      client,
      address: fc.option(fc.constantFrom('10.99.0.7', '10.99.0.8', '10.99.0.102'), { nil: null }),
    }),
  },
);

/** What the clients believe: an address until a time, because we sent them an ACK. */
interface Belief {
  address: string;
  until: number;
}

async function play(steps: readonly Step[]): Promise<void> {
  const networks = [{ ...NETWORK, pool: POOL, reserved_lease_seconds: 900 }];
  let world: World = createWorld({ networks });
  const beliefs = new Map<number, Belief>();
  const lastOffer = new Map<number, string>();

  const restart = () => {
    const stored = [...world.disk.values()];
    const next = createWorld({ networks, stored });
    next.clock.wall = world.clock.wall;
    next.clock.monotonic = world.clock.monotonic;
    for (const [key, value] of world.nodes) next.nodes.set(key, value);
    world = next;
    lastOffer.clear();
  };

  const check = () => {
    const now = world.clock.monotonic;
    // R3: no two clients believe in one address.
    const held = new Map<string, number>();
    for (const [who, belief] of beliefs) {
      if (belief.until <= now) continue;
      expect(held.get(belief.address), `${belief.address} for clients ${held.get(belief.address)} and ${who}`).toBe(
        undefined,
      );
      held.set(belief.address, who);
    }
    const live = [...world.leases.all()].filter(l => isLive(l, now));
    expect(new Set(live.map(l => l.address)).size).toBe(live.length);
    // One client, one running lease: what it gave up is free again.
    const bound = live.filter(l => l.state === 'bound');
    expect(new Set(bound.map(l => l.mac)).size).toBe(bound.length);
    // What was acknowledged is on disk.
    for (const [who, belief] of beliefs)
      if (belief.until > now)
        expect([...world.disk.values()].some(l => l.mac === mac(who) && formatIpv4(l.address) === belief.address)).toBe(
          true,
        );
  };

  const reservedFor = (who: number) => world.nodes.get(mac(who))?.address ?? null;
  const send = async (who: number, raw: Buffer, source = '0.0.0.0') => {
    world.clock.advance(1000); // the rate limit is tested elsewhere
    const out = await world.ask(raw, { source });
    if (!out) return undefined;
    const type = optionsOf(out.packet).find(([c]) => c === 53)![1][0];
    const ip = [...out.packet.subarray(16, 20)].join('.');
    const seconds =
      optionsOf(out.packet)
        .find(([c]) => c === 51)?.[1]
        .readUInt32BE() ?? 0;
    if (type === 2) lastOffer.set(who, ip);
    if (type === 5) beliefs.set(who, { address: ip, until: world.clock.monotonic + seconds * 1000 });
    // A client that is refused stops using its address (RFC 2131 section 3.1.4).
    if (type === 6) beliefs.delete(who);
    if (type !== 6) {
      const owner = [...Array(CLIENTS).keys()].find(c => reservedFor(c) === ip);
      if (owner !== undefined) expect(owner, `${ip} is reserved`).toBe(who);
      if (reservedFor(who) !== ip) {
        const inside = ip >= '10.99.0.100' && ip <= '10.99.0.104';
        const had = [...world.disk.values()].some(l => l.mac === mac(who) && formatIpv4(l.address) === ip);
        expect(inside || had, `${ip} is neither of the pool nor its own`).toBe(true);
      }
    }
    return { type, ip };
  };

  for (const s of steps) {
    if (s.kind === 'wait') world.clock.advance(s.ms);
    else if (s.kind === 'restart') restart();
    else if (s.kind === 'reserve') {
      const taken = [...world.nodes].some(([m, n]) => n.address === s.address && m !== mac(s.client));
      if (s.address === null) world.nodes.delete(mac(s.client));
      else if (!taken) world.nodes.set(mac(s.client), node(`n${s.client}`, s.address));
      world.clock.advance(1000);
    } else {
      const who = s.client;
      const m = mac(who);
      const own = beliefs.get(who)?.address ?? s.address;
      const server = [54, address('10.99.0.1')] as const;
      if (s.kind === 'discover') await send(who, request({ type: 1, mac: m, options: [[50, address(s.address)]] }));
      if (s.kind === 'select')
        await send(
          who,
          request({ type: 3, mac: m, options: [[50, address(lastOffer.get(who) ?? s.address)], server] }),
        );
      if (s.kind === 'reboot') await send(who, request({ type: 3, mac: m, options: [[50, address(own)]] }));
      if (s.kind === 'renew') await send(who, request({ type: 3, mac: m, ciaddr: own }), own);
      if (s.kind === 'decline') {
        await send(who, request({ type: 4, mac: m, options: [[50, address(own)], server] }));
        beliefs.delete(who);
      }
      if (s.kind === 'release') {
        await send(who, request({ type: 7, mac: m, ciaddr: own, options: [server] }), own);
        beliefs.delete(who);
      }
      if (s.kind === 'bind') {
        const reserved = reservedFor(who);
        const before = world.clock.monotonic + 1000;
        const holder = reserved === null ? undefined : world.leases.holder(toNumber(reserved), before);
        const offer = await send(who, request({ type: 1, mac: m }));
        // The reservation is honoured whenever nobody else has the address.
        if (reserved !== null && (holder === undefined || holder === m)) expect(offer?.ip).toBe(reserved);
        if (offer) {
          // A second DISCOVER, as clients send when the answer is late, changes nothing, unless a reservation has
          // become free in between.
          const again = await send(who, request({ type: 1, mac: m }));
          expect([offer.ip, reserved]).toContain(again?.ip);
          const ip = again!.ip;
          const ack = await send(who, request({ type: 3, mac: m, options: [[50, address(ip)], server] }));
          expect(ack).toEqual({ type: 5, ip });
        } else {
          expect(world.said()).toContain('is full');
          expect(freeInPool(world)).toBe(0);
        }
      }
    }
    check();
  }
}

const toNumber = (ip: string) => ip.split('.').reduce((n, part) => n * 256 + Number(part), 0);

/** Counted the slow way. */
function freeInPool(world: World): number {
  let free = 0;
  for (let ip = toNumber(POOL.from); ip <= toNumber(POOL.to); ip++) {
    const reserved = [...world.nodes.values()].some(n => n.address === formatIpv4(ip));
    if (!reserved && world.leases.holder(ip, world.clock.monotonic) === undefined) free++;
  }
  return free;
}

test('no two clients ever have one address, reservations are honoured, a full pool is really full', async () => {
  const runs = Number(process.env['HALLIGAN_LEASE_RUNS'] ?? 600);
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 120, size: 'max' }), play), {
    numRuns: runs,
  });
}, 600_000);

test('a pool of 65,534 addresses gives out every one, then says no at once', async () => {
  const world = createWorld({
    networks: [{ ...NETWORK, cidr: '10.96.0.0/12', pool: { from: '10.100.0.1', to: '10.100.255.254' } }],
  });
  const [network] = world.networks;
  const seen = new Set<number>();
  const now = world.clock.monotonic;
  const lease = (address: number, i: number): Lease => ({
    address,
    network: 'boot',
    mac: `52:54:${i}`,
    clientIdentifier: null,
    hostName: null,
    state: 'bound',
    expiresAt: now + LEASE_MS + i,
  });
  for (let i = 0; ; i++) {
    const free = world.leases.free(network!, now, () => false);
    if (free === undefined) break;
    expect(seen.has(free)).toBe(false);
    seen.add(free);
    world.leases.apply({ kind: 'lease', lease: lease(free, i) }, now);
  }
  expect(seen.size).toBe(65_534);
  const started = performance.now();
  for (let i = 0; i < 10_000; i++) expect(world.leases.free(network!, now, () => false)).toBeUndefined();
  expect(performance.now() - started).toBeLessThan(1000);
  // The one that ended first comes back first.
  expect(world.leases.free(network!, now + LEASE_MS + 10, () => false)).toBe(toNumber('10.100.0.1'));
});

test('the expiry heap yields times in order, has one entry per address, and does not grow by renewals', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(20), fc.nat(1000)), { maxLength: 200 }), pushes => {
      const heap = new ExpiryHeap();
      const earliest = new Map<number, number>();
      for (const [who, at] of pushes) {
        heap.push(who, at);
        earliest.set(who, Math.min(at, earliest.get(who) ?? Number.POSITIVE_INFINITY));
      }
      const popped: number[] = [];
      for (let who = heap.popEnded(1000); who !== undefined; who = heap.popEnded(1000)) popped.push(who);
      expect([...popped].sort()).toEqual([...earliest.keys()].sort());
      const times = popped.map(who => earliest.get(who)!);
      expect(times).toEqual([...times].sort((a, b) => a - b));
    }),
  );
  const heap = new ExpiryHeap();
  for (let i = 0; i < 1000; i++) heap.push(1, 1000 + i);
  expect(heap.size).toBe(1);
});
