/** What people get wrong, all the way to real machines: each ends in its sentence, nothing hangs, nothing is destroyed. */
import { execFile, spawn } from 'node:child_process';
import {
  closeSync,
  cpSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { ProblemError } from '../../provisioner/core/problem.js';
import type { TraceEntry } from '../../provisioner/core/trace.js';
import { type Lab, labPower } from '../../provisioner/lab/index.js';
import { IMAGE, type Rack, rackUp } from '../harness/rack.js';

const run = promisify(execFile);
const BROKEN = 'debian-12-broken';
const LABEL = 'accounts-2019';
const GIB = 2 ** 30;

let rack: Rack;
beforeAll(async () => {
  rack = await rackUp(
    'long-bad',
    [
      { name: 'n01', firmware: 'bios', disks: [8], memoryMiB: 1024, bmc: 'redfish' },
      { name: 'n02', firmware: 'bios', disks: [8], memoryMiB: 512, bmc: 'ipmi' },
      { name: 'n03', firmware: 'bios', disks: [8], memoryMiB: 512, bmc: 'redfish' },
      { name: 'n04', firmware: 'bios', disks: [8], memoryMiB: 512, bmc: 'ipmi' },
    ],
    {
      images: breakImage,
      prepare: lab => foreignDisk(lab, 'n01'),
      siteText(text, lab) {
        const site = parse(text) as { nodes: { name: string; bmc: { password: string } }[]; discovery?: object };
        const wrong = join(lab.dir, 'wrong-password');
        writeFileSync(wrong, 'not-the-password\n', { mode: 0o600 });
        for (const node of site.nodes) if (/n02|n03/.test(node.name)) node.bmc.password = `file:${wrong}`;
        return stringify({
          ...site,
          nodes: site.nodes.filter(node => node.name !== 'n04'),
          discovery: { unknown: 'ignore' },
        });
      },
    },
  );
});
afterAll(() => rack?.down());

/** A copy of the image with one bit that the manifest does not know of. */
function breakImage(dir: string): void {
  const broken = join(dir, BROKEN);
  cpSync(realpathSync(join(dir, IMAGE)), broken, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(broken, 'manifest.json'), 'utf8'));
  writeFileSync(join(broken, 'manifest.json'), JSON.stringify({ ...manifest, name: BROKEN }));
  const file = openSync(join(broken, manifest.disk.name), 'r+');
  const at = Math.floor(manifest.disk.bytes / 2);
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Buffer.from([byte[0]! ^ 1]), 0, 1, at);
  closeSync(file);
}

const diskOf = (lab: Lab, name: string) => lab.nodes.find(n => n.name === name)!.disks[0]!;

/** Somebody's file system on the whole disk. */
async function foreignDisk(lab: Lab, name: string): Promise<void> {
  const { path, sizeGiB } = diskOf(lab, name);
  const raw = `${path}.raw`;
  await run('truncate', ['-s', String(sizeGiB * GIB), raw]);
  await run('mke2fs', ['-q', '-t', 'ext4', '-L', LABEL, '-E', 'lazy_itable_init=1', raw]);
  await run('qemu-img', ['convert', '-O', 'qcow2', raw, path]);
  rmSync(raw);
}

/** The first MiB of a node's disk; the node may run. */
async function head(name: string): Promise<Buffer> {
  const { path } = diskOf(rack.lab, name);
  const to = join(rack.dir, `${name}.head`);
  rmSync(to, { force: true });
  await run('qemu-img', ['dd', '-U', '-f', 'qcow2', '-O', 'raw', 'bs=1M', 'count=1', `if=${path}`, `of=${to}`]);
  return readFileSync(to);
}

const refusal = async (work: Promise<unknown>) => {
  const error = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof ProblemError)) throw new Error(`a problem was expected, not ${String(error)}`);
  return error.problem;
};

async function until<T>(what: string, seconds: number, look: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise(r => setTimeout(r, 500));
  }
}

const failed = (name: string, seconds: number) =>
  until(`${name} fails`, seconds, async () => {
    const node = await rack.node(name);
    return node.state.endsWith('-failed') ? node : undefined;
  });

describe('a disk with somebody’s data', () => {
  it('is seen for what it is, and not overwritten without the order to wipe', async () => {
    await rack.act('n01', 'inspect');
    const node = await rack.reach('n01', 'available', 300);
    expect(node.status.inventory?.disks[0]?.signatures).toMatchObject([{ type: 'ext4', label: LABEL }]);
    const before = await head('n01');
    await rack.act('n01', 'claim');
    const problem = await refusal(rack.act('n01', 'install', { image: IMAGE }));
    expect(problem).toMatchObject({ code: 'disk-foreign', hint: expect.stringContaining('--wipe') });
    expect(problem.message).toContain(`/dev/vda carries ext4 "${LABEL}"`);
    expect((await rack.node('n01')).state).toBe('claimed');
    expect((await head('n01')).equals(before)).toBe(true);
  });

  it('is no excuse for hints that no disk fits: each disk is named with the reason', async () => {
    const layout = (disks: object[]) =>
      rack.client().patch('/nodes/n01', { install: { disk_layout: { kind: 'plain', disks } } });
    await layout([{ min_gb: 500, type: 'nvme' }]);
    const type = await refusal(rack.act('n01', 'install', { image: IMAGE, wipe: true }));
    expect(type).toMatchObject({ code: 'disk-no-match', hint: expect.stringMatching(/hints/) });
    expect(type.message).toMatch(/^n01: No disk fits: \/dev\/vda is of type \w+, not nvme\.$/);
    await layout([{ min_gb: 500 }]);
    const size = await refusal(rack.act('n01', 'install', { image: IMAGE, wipe: true }));
    expect(size.message).toBe('n01: No disk fits: /dev/vda has 8.6 GB, less than min_gb 500.');
    expect((await rack.node('n01')).state).toBe('claimed');
    await layout([{}]);
  });
});

describe('an image with a wrong checksum', () => {
  it('fails the installation with the sentence and the next action, and leaves nothing that boots', async () => {
    await rack.act('n01', 'install', { image: BROKEN, wipe: true });
    const node = await failed('n01', 300);
    expect(node.state).toBe('installing-failed');
    expect(node.failure?.message).toMatch(/checksum [0-9a-f]{64} instead of [0-9a-f]{64}/);
    const why = await rack.why('n01');
    expect(why.next.length).toBeGreaterThan(20);
    expect(why.run?.state).toBe('failed');
    const sectors = await head('n01');
    // No boot code, and in the table only the partition that says whose disk it is.
    expect(sectors.subarray(0, 440).every(byte => byte === 0)).toBe(true);
    const entries = Array.from({ length: 128 }, (_, i) => sectors.subarray(1024 + i * 128, 1024 + (i + 1) * 128));
    const used = entries.filter(entry => !entry.subarray(0, 16).equals(Buffer.alloc(16)));
    expect(used.map(entry => entry.subarray(56, 128).toString('utf16le').replaceAll('\0', ''))).toEqual([
      expect.stringMatching(/^halligan/i),
    ]);
  });

  it('is mended by a good image; the disk is ours now and needs no order to wipe', async () => {
    await rack.act('n01', 'install', { image: IMAGE });
    await rack.reach('n01', 'installed', 420);
    expect(await rack.ssh('n01', 'hostname')).toBe('n01');
  });
});

describe('a BMC that refuses the password', () => {
  for (const [name, driver] of [
    ['n02', 'IPMI'],
    ['n03', 'Redfish'],
  ] as const)
    it(`by ${driver} ends in a named state, and is asked twice at most however often it is ordered`, async () => {
      const knocks = driver === 'IPMI' ? await countKnocks(name) : undefined;
      for (let order = 1; order <= 4; order++) {
        await rack.act(name, 'inspect');
        const node = await failed(name, 90);
        expect(node.state).toBe('inspecting-failed');
        expect(node.failure?.code).toBe('bmc-auth');
        expect(node.failure?.message).toMatch(
          order <= 2 ? /refused the user name or password/ : /refused these credentials 2 times; it is left alone/,
        );
        expect(node.failure?.hint).toMatch(/Correct the BMC credentials/);
      }
      if (knocks) {
        const seen = await knocks();
        expect(seen).toBeGreaterThan(0);
        expect(seen).toBeLessThanOrEqual(2);
      }
    });
});

/** Counts the logins (RAKP message 1, IPMI 2.0 section 13.20) that reach the BMC of a node. Returns the way to end it. */
async function countKnocks(name: string): Promise<() => Promise<number>> {
  const { ip } = rack.lab.nodes.find(n => n.name === name)!.bmc;
  // RMCP class IPMI (7), authentication type RMCP+ (6), payload type 0x12.
  const filter = `dst host ${ip} and udp[11] = 7 and udp[12] = 6 and udp[13] = 0x12`;
  const inside = ['netns', 'exec', rack.lab.netns];
  const dump = spawn('ip', [...inside, 'tcpdump', '-i', 'lo', '-n', '-l', '--immediate-mode', filter]);
  let [lines, errors] = ['', ''];
  dump.stdout.on('data', data => {
    lines += data;
  });
  dump.stderr.on('data', data => {
    errors += data;
  });
  await until('tcpdump listens', 20, async () => (errors.includes('listening on') ? true : undefined));
  return async () => {
    await new Promise(r => setTimeout(r, 500));
    dump.kill('SIGINT');
    await new Promise(r => dump.once('exit', r));
    return lines.split('\n').filter(line => line.includes(ip)).length;
  };
}

describe('a machine that nobody named', () => {
  it('gets no boot file where the site ignores such machines, and the trace says why', async () => {
    await labPower(rack.lab, 'n04', 'on');
    const mac = rack.lab.nodes.find(n => n.name === 'n04')!.macs[0]!;
    const entry = await until('a trace of n04', 60, async () => {
      const { trace } = await rack.client().get<{ trace: TraceEntry[] }>(`/boot/trace/${mac}`);
      return trace.find(t => /no boot file/.test(t.message));
    });
    expect(entry.message).toContain('the site ignores unknown machines (discovery.unknown: ignore)');
    await new Promise(r => setTimeout(r, 10_000));
    const { trace } = await rack.client().get<{ trace: TraceEntry[] }>(`/boot/trace/${mac}`);
    expect(trace.filter(t => t.layer === 'tftp' || t.layer === 'http')).toEqual([]);
    const { nodes } = await rack.client().get<{ nodes: { name: string }[] }>('/nodes');
    expect(nodes.map(n => n.name).sort()).toEqual(['n01', 'n02', 'n03']);
    await labPower(rack.lab, 'n04', 'off');
  });
});
