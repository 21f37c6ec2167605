/** `halligan site match` against a real API: what people and programs read. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { NodeMatchSchema } from '../../../provisioner/api/schemas.js';
import { createAjv } from '../../../provisioner/core/schema/explain.js';
import type { NodeMatch } from '../../../provisioner/profile/match.js';
import { loadSiteOrThrow } from '../../../provisioner/site/load.js';
import { type FakeServer, fakeServer, nodeView, SITE_TEXT } from '../api/fakes.js';
import { aDisk, aNic, hardware, macOf } from '../profile/machines.js';
import { runAt } from './run-at.js';

const PARTS = {
  layouts: {
    disk: [{ name: 'one', kind: 'lvm' }],
    network: [{ name: 'flat', interfaces: [{ name: 'mgmt0', nic: {}, first_address: '10.97.0.11/24' }] }],
  },
  racks: [{ name: 'r1', switches: ['leaf-r1*'] }],
  profiles: [
    {
      name: 'compute',
      priority: 10,
      auto_claim: true,
      match: { memory_gib: { min: 64 } },
      node_name: 'compute-##',
      roles: ['compute'],
      disk_layout: 'one',
      network_layout: 'flat',
    },
    { name: 'network', match: { nics: [{ min_mbps: 25_000 }] }, roles: ['network'], node_name: 'net#' },
    { name: 'edge', match: { nics: [{ min_mbps: 25_000 }], memory_gib: { max: 32 } }, node_name: 'edge#' },
  ],
};
const TEXT = `${SITE_TEXT.replace('version: 1', 'version: 2')}${stringify(PARTS)}`;

let dir: string;
let server: FakeServer;
const at = (n: number, gib: number | null, mbps = 10_000) => {
  const id = `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
  const base = nodeView(`n${String(n).padStart(2, '0')}`, 'available');
  const lldp = { chassis: null, system: 'leaf-r1a', port: `Ethernet${n}` };
  const nics = [aNic(macOf(n), { speedMbps: mbps, lldp })];
  const inventory = gib === null ? null : hardware(n, gib, { nics, disks: [aDisk()] });
  return {
    ...base,
    id,
    name: `node-${macOf(n).replaceAll(':', '')}`,
    macs: [macOf(n)],
    status: { ...base.status, inventory },
  };
};
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'halligan-match-'));
  server = await fakeServer(
    [
      nodeView('n01', 'available', { source: 'site' }),
      at(2, 64),
      at(3, 64),
      at(4, 16),
      at(5, 16, 25_000),
      at(6, 48, 25_000),
      at(7, null),
      nodeView('old', 'installed'),
    ],
    { socketPath: join(dir, 's'), site: loadSiteOrThrow(TEXT, '/etc/halligan/site.yaml') },
  );
});
afterEach(async () => {
  await server.handle.close();
  rmSync(dir, { recursive: true, force: true });
});
const halligan = (line: string) => runAt(join(dir, 's'), line);

describe('halligan site match', () => {
  it.each(['site match', 'site match -o wide', 'site match -o name'])('%s', async line => {
    const { code, out, err } = await halligan(line);
    const text = `$ halligan ${line}\nexit ${code}\n--- stdout\n${out}--- stderr\n${err}`;
    await expect(text).toMatchFileSnapshot(`golden/halligan_${line.replace(/[^a-zA-Z0-9.-]+/g, '_')}.golden`);
  });

  it('says the same to programs, in the shape that the API promises', async () => {
    const json = await halligan('site match --json');
    expect(json.out).toBe((await halligan('site match -o json')).out);
    const { matches } = JSON.parse(json.out) as { matches: NodeMatch[] };
    const kinds = Object.fromEntries(matches.map(m => [m.node, m.kind]));
    expect(kinds).toMatchObject({
      n01: 'named',
      'node-525400010004': 'none',
      'node-525400010005': 'ambiguous',
      old: 'taken',
    });
    const valid = createAjv().compile({ type: 'array', items: NodeMatchSchema });
    expect(valid(matches), JSON.stringify(valid.errors)).toBe(true);
    expect(matches.find(m => m.node === 'node-525400010003')!.becomes).toMatchObject({
      name: 'compute-02',
      rack: { name: 'r1', unit: 3 },
      install: {
        disk_layout: { kind: 'lvm' },
        interfaces: [{ name: 'mgmt0', mac: macOf(3), addresses: ['10.97.0.12/24'] }],
      },
    });
  });

  it('tries a file that the server does not have yet, with the machines that it knows', async () => {
    const file = join(dir, 'next.yaml');
    const wider = { ...PARTS, profiles: [{ ...PARTS.profiles[0], match: { memory_gib: { min: 1 } }, at_most: 4 }] };
    writeFileSync(file, `${SITE_TEXT.replace('version: 1', 'version: 2')}${stringify(wider)}`);
    const { matches } = JSON.parse((await halligan(`site match ${file} --json`)).out) as { matches: NodeMatch[] };
    expect(matches.filter(m => m.kind === 'matched')).toHaveLength(4);
    expect(matches.find(m => m.kind === 'none')!.rejected[0]!.reasons[0]).toMatch(/^has its 4 nodes already: /);
    writeFileSync(file, 'version: 2\n');
    expect((await halligan(`site match ${file}`)).code).toBe(2);
  });
});
