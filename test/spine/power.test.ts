import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { labDown, labStatus, labUp } from '../../provisioner/lab/index.js';
import type { Lab } from '../../provisioner/lab/types.js';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;
const base = mkdtempSync(join(tmpdir(), 'hal-power-'));
const where = { name: `power-${process.pid.toString(36)}`, dir: join(base, 'lab') };
let lab: Lab;

beforeAll(async () => {
  await run('npx', ['tsc', '-p', 'tsconfig.json'], { cwd: root }).catch(() => {});
  lab = await labUp({
    ...where,
    accel: 'tcg',
    nodes: [
      { name: 'i1', memoryMiB: 256, bmc: 'ipmi' },
      { name: 'r1', memoryMiB: 256, bmc: 'redfish', firmware: 'uefi' },
    ],
  });
});
afterAll(async () => {
  await labDown(where);
  rmSync(base, { recursive: true, force: true });
});

/** Runs a piece of the product inside the lab's namespace: BMCs live on its loopback. Returns what it reports. */
async function inside(body: string): Promise<Record<string, unknown>> {
  const file = join(base, 'piece.mjs');
  const d = join(root, 'dist/provisioner');
  writeFileSync(
    file,
    `import { createPower } from '${d}/power/power.js';
import { createConsoles } from '${d}/console/consoles.js';
import { systemClock, sleep } from '${d}/core/clock.js';
import { silentLog } from '${d}/core/log.js';
const lab = ${JSON.stringify(lab)};
const password = ${JSON.stringify(readFileSync(lab.bmcPasswordFile, 'utf8').trim())};
const bmcOf = name => { const n = lab.nodes.find(n => n.name === name); return { driver: n.bmc.driver, address: n.bmc.address, user: lab.bmcUser, cipher_suite: 3, ...(n.bmc.driver === 'redfish' ? { tls_fingerprint: lab.tlsFingerprint } : {}) }; };
const target = (name, more = {}) => ({ bmc: { ...bmcOf(name), ...more.bmc }, password: more.password ?? password, firmware: lab.nodes.find(n => n.name === name).firmware, name });
const powerOf = (lookup, more = {}) => createPower({ lookup, clock: systemClock, log: silentLog, ...more });
const codeOf = work => work.then(() => 'no problem', error => error.problem?.code ?? String(error));
const out = {};
${body}
process.stdout.write(JSON.stringify(out));
`,
  );
  const { stdout } = await run('ip', ['netns', 'exec', lab.netns, process.execPath, file], { timeout: 120_000 });
  return JSON.parse(stdout);
}
const machine = async (name: string) => (await labStatus(where)).nodes.find(node => node.name === name)!;

describe.each([
  ['ipmi, with ipmi_sim', 'i1'],
  ['redfish, over pinned TLS', 'r1'],
])('power by %s', (_what, name) => {
  test('switches, cycles and netboots a real machine', async () => {
    const out = await inside(`
      const power = powerOf(() => target('${name}'));
      out.before = await power.status('x');
      out.on = await power.set('x', 'on');
      out.again = await power.set('x', 'on');
      out.cycle = await power.set('x', 'cycle');
      await power.netboot('x');
      out.after = await power.status('x');
      await power.close();`);
    expect(out).toEqual({ before: 'off', on: 'on', again: 'on', cycle: 'on', after: 'on' });
    // On, cycle and netboot are three lives; "on" when on is none.
    expect(await machine(name)).toMatchObject({ power: 'on', lives: 3 });
    expect(readFileSync(join(lab.dir, 'agent.log'), 'utf8')).toMatch(new RegExp(`${name}: on, boot pxe`));
    expect(
      await inside(`out.off = await powerOf(() => target('${name}')).set('x', 'off'); process.exitCode = 0;
      setTimeout(() => process.exit(0), 200).unref();`),
    ).toEqual({ off: 'off' });
    expect((await machine(name)).power).toBe('off');
  });

  test('is refused with a wrong password, two times at most', async () => {
    const out = await inside(`
      const power = powerOf(() => target('${name}', { password: 'wrong' }));
      out.codes = []; out.ms = [];
      for (let i = 0; i < 4; i++) { const t = performance.now(); out.codes.push(await codeOf(power.status('x'))); out.ms.push(performance.now() - t); }
      await power.close();`);
    expect(out['codes']).toEqual(['bmc-auth', 'bmc-auth', 'bmc-auth', 'bmc-auth']);
    // The last two do not leave this process.
    expect((out['ms'] as number[])[3]).toBeLessThan(3);
  });

  test('tells silence, from an address where nothing answers', async () => {
    const address = name === 'i1' ? '10.98.0.11:624' : 'https://10.98.0.12:444';
    const out = await inside(`
      const power = powerOf(() => target('${name}', { bmc: { address: '${address}' } }), { followMs: 2000 });
      out.code = await codeOf(power.set('x', 'on'));
      await power.close();`);
    expect(out).toEqual({ code: 'bmc-silent' });
  });
});

describe('a BMC', () => {
  test('with another certificate than the pinned one gets no password', async () => {
    const out = await inside(`
      const power = powerOf(() => target('r1', { bmc: { tls_fingerprint: 'sha256:${'0'.repeat(64)}' } }));
      out.pinned = await codeOf(power.status('x'));
      const none = powerOf(() => { const t = target('r1'); delete t.bmc.tls_fingerprint; return t; });
      out.unpinned = await codeOf(none.status('x'));
      await power.close(); await none.close();`);
    expect(out).toEqual({ pinned: 'bmc-protocol', unpinned: 'bmc-protocol' });
  });

  test('never has its password on a command line', async () => {
    const out = await inside(`
      const { readdirSync, readFileSync } = await import('node:fs');
      const power = powerOf(() => target('i1'));
      let looks = 0; let tools = 0; out.seen = false; let running = true;
      const look = (async () => { while (running) { looks++; for (const pid of readdirSync('/proc').filter(p => /^\\d+$/.test(p))) { try { const line = readFileSync('/proc/' + pid + '/cmdline', 'utf8'); if (line.startsWith('ipmitool')) tools++; if (line.includes(password)) out.seen = true; } catch {} } await sleep(2); } })();
      for (let i = 0; i < 10; i++) await power.status('x');
      running = false; await look; out.looked = looks > 5 && tools > 0;
      await power.close();`);
    expect(out).toEqual({ seen: false, looked: true });
  });

  test('gives the serial console over LAN: recorded, and typed on', async () => {
    const out = await inside(`
      const power = powerOf(() => target('i1'));
      const consoles = createConsoles({ dir: '${join(base, 'rec')}', log: silentLog, check: () => power.status('x'),
        lookup: () => ({ kind: 'sol', bmc: bmcOf('i1'), password }) });
      const stop = new AbortController();
      let text = '';
      const watching = (async () => { for await (const data of consoles.follow('n', stop.signal)) text += data; })();
      await sleep(1500);
      await power.set('x', 'on');
      const until = async pattern => { for (let i = 0; i < 300 && !pattern.test(text); i++) await sleep(200); return pattern.test(text); };
      out.firmware = await until(/iPXE initialising/);
      out.banner = /SOL Session/.test(text);
      // Ctrl-B opens iPXE's own shell, which only a real keyboard line can. It is taken for two seconds only: keep pressing.
      for (let i = 0; i < 150 && !/iPXE>/.test(text); i++) { await consoles.write('n', '\\x02'); await sleep(200); }
      // Typed as a person types: the UART of a machine that has to wait for its core loses what comes faster.
      const typed = /typed-i386|typed-x86_64/;
      for (let i = 0; i < 8 && !typed.test(text); i++) {
        for (const key of '\\recho typed-\${buildarch}\\r') { await consoles.write('n', key); await sleep(40); }
        for (let j = 0; j < 25 && !typed.test(text); j++) await sleep(200);
      }
      out.typed = typed.test(text);
      out.tail = (await consoles.tail('n', 100000)).toString() === text;
      stop.abort(); await watching;
      await power.set('x', 'off');
      await consoles.close(); await power.close();`);
    expect(out).toEqual({ firmware: true, banner: false, typed: true, tail: true });
  });
});
