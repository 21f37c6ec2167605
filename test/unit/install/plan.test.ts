import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { templatesDir } from '../../../provisioner/core/render.js';
import type { OsImageManifest } from '../../../provisioner/image/types.js';
import { netplanYaml, networkConfig } from '../../../provisioner/install/network.js';
import { type InstallIntent, type InstallPlan, planInstall } from '../../../provisioner/install/plan.js';
import { readProgress } from '../../../provisioner/install/progress.js';
import { renderEraseScript, renderInstallScript, targetFiles } from '../../../provisioner/install/script.js';
import { seed } from '../../../provisioner/install/seed.js';
import { installStages, STAGES } from '../../../provisioner/install/stages.js';
import type { InterfaceConfig } from '../../../provisioner/site/schema.js';
import { disk } from './blank-disk.js';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx5c3RlbSBhbmQgbm90IGEgcmVhbCBrZXkgYXQgYWxs server';
const image: OsImageManifest = {
  schema: 1,
  kind: 'os',
  name: 'debian-12',
  distribution: 'debian',
  release: '12',
  arch: 'amd64',
  createdMs: 0,
  inputHash: 'x',
  disk: {
    name: 'disk.raw.zst',
    bytes: 150e6,
    sha256: 'd'.repeat(64),
    rawBytes: 840e6,
    rootPartition: 1,
    espPartition: 15,
  },
  root: { name: 'root.tar.zst', bytes: 150e6, sha256: 'e'.repeat(64) },
  rootLabel: 'cloudimg-rootfs',
  kernel: '6.1.0-56-amd64',
};
const intent = (more: Partial<InstallIntent> = {}): InstallIntent => ({
  node: { id: '5f0c2a41-9d7e-4c1b-8a35-6e2f1b7d9c03', name: 'n01', firmware: 'bios' },
  disks: [disk('/dev/vda', 100, { serial: 'S-1' }), disk('/dev/vdb', 200, { serial: 'S-2' })],
  knownMacs: ['52:54:00:99:00:01', '52:54:00:99:00:02'],
  bootMac: '52:54:00:99:00:01',
  image,
  layout: { kind: 'plain', disks: [{}] },
  interfaces: [],
  wipe: false,
  domain: 'halligan.internal',
  login: 'hal',
  keys: [KEY],
  siteUserData: null,
  nodeUserData: null,
  console: 'ttyS0,115200',
  url: 'http://10.99.0.1:7481',
  token: 'one-time-token',
  ...more,
});
const plan = (more: Partial<InstallIntent> = {}): InstallPlan => {
  const result = planInstall(intent(more));
  if ('code' in result) throw new Error(`${result.code}: ${result.message}`);
  return result;
};
const refusal = (more: Partial<InstallIntent>) => {
  const result = planInstall(intent(more));
  return 'code' in result ? `${result.code}: ${result.message}` : 'planned';
};
const nic = (name: string, more: Partial<InterfaceConfig>): InterfaceConfig => ({
  name,
  dhcp: false,
  addresses: [],
  dns: [],
  ...more,
});

/** What a reviewer has to see: the values that the script gets and every file of the target, decoded. */
function text(p: InstallPlan): string {
  const { env } = renderInstallScript(p);
  const values = Object.entries(env).filter(([name]) => !/^(FILE_\d|NETPLAN)/.test(name));
  return [
    `# ${p.summary}`,
    ...values.map(([name, value]) => `${name}=${value}`),
    ...p.stages.map(stage => `stage ${stage.name}: ${stage.text} (${stage.expectedSeconds} s)`),
    `==> netplan\n${netplanYaml(p.network)}`,
    ...targetFiles(p).map(file => `==> ${file.path} ${file.mode}\n${file.content}`),
    '',
  ].join('\n');
}

describe('the plan of an installation', () => {
  it('on one disk with DHCP is what its golden shows', async () => {
    await expect(text(plan())).toMatchFileSnapshot('golden/plain.golden');
  });

  it('with LVM, a bond, a VLAN, static addresses and user-data of site and node is what its golden shows', async () => {
    const p = plan({
      node: { id: '5f0c2a41-9d7e-4c1b-8a35-6e2f1b7d9c03', name: 'n01', firmware: 'uefi' },
      layout: { kind: 'lvm', root_gb: 50, disks: [{ serial: 'S-2' }] },
      interfaces: [
        nic('bond0', { bond: { macs: ['52:54:00:99:00:01', '52:54:00:99:00:02'], mode: '802.3ad' }, mtu: 9000 }),
        nic('mgmt', {
          vlan: { id: 42, link: 'bond0' },
          addresses: ['10.98.0.7/24'],
          gateway: '10.98.0.1',
          dns: ['10.98.0.1'],
        }),
      ],
      siteUserData: '#cloud-config\npackages: [tmux]\n',
      nodeUserData: '#!/bin/sh\necho hello\n',
    });
    await expect(text(p)).toMatchFileSnapshot('golden/lvm-bond.golden');
  });

  it('on a mirror takes two disks and the root archive', () => {
    const p = plan({ layout: { kind: 'mdraid', disks: [{}] } });
    expect(p.disks.map(d => d.path)).toEqual(['/dev/vda', '/dev/vdb']);
    expect(p.method).toBe('root-archive');
    expect(p.image.url).toBe('http://10.99.0.1:7481/image/debian-12/root.tar.zst');
  });

  it('says what does not go together', () => {
    expect(refusal({ image: { ...image, root: null }, layout: { kind: 'lvm', disks: [{}] } })).toBe(
      'image-format: The image debian-12 is a whole-disk image; the layout lvm needs a root archive.',
    );
    expect(
      refusal({
        image: { ...image, disk: { ...image.disk!, espPartition: null } },
        node: { id: '5f0c2a41-9d7e', name: 'n01', firmware: 'uefi' },
      }),
    ).toBe('image-format: The image debian-12 has no EFI system partition, n01 boots by UEFI.');
    expect(refusal({ disks: [] })).toBe('disk-no-match: n01: No disk fits: the node has no disk.');
    expect(refusal({ layout: { kind: 'lvm', root_gb: 500, disks: [{}] } })).toMatch(
      /^disk-no-match: .* 500\.5 GB are needed/,
    );
  });

  it('never writes a secret into the script, and every value fits one line of a file', () => {
    fc.assert(
      fc.property(fc.string(), fc.string({ unit: 'binary' }), (token, userData) => {
        const p = plan({ token: `secret-${token}`, nodeUserData: `#cloud-config\n# ${userData}` });
        const { script, env } = renderInstallScript(p);
        return (
          !script.includes('secret-') &&
          Object.values(env).every(value => !/[\n\0]/.test(value) && !value.includes('secret-'))
        );
      }),
      { numRuns: 200 },
    );
  });

  it('is another instance for cloud-init with each token', () => {
    expect(plan({ token: 'a' }).seed.metaData).not.toBe(plan({ token: 'b' }).seed.metaData);
    expect(plan({ token: 'a' }).seed.metaData).not.toContain('a\n');
  });
});

describe('the network of the installed system', () => {
  const config = (interfaces: InterfaceConfig[]) =>
    networkConfig({ interfaces, bootMac: '52:54:00:99:00:01', knownMacs: intent().knownMacs, domain: 'x' });
  const a = nic('lan0', { mac: '52:54:00:99:00:01', dhcp: true });
  const cases: [string, InterfaceConfig[], string][] = [
    [
      'a NIC that is not there',
      [nic('lan0', { mac: '52:54:00:00:00:09', dhcp: true })],
      'which the node does not have',
    ],
    ['a NIC in two interfaces', [a, nic('lan1', { mac: '52:54:00:99:00:01' })], 'is used by lan0 and by lan1'],
    ['two of one name', [a, nic('lan0', { mac: '52:54:00:99:00:02' })], 'two interfaces lan0'],
    ['an interface of no kind', [nic('lan0', { dhcp: true })], 'exactly one of mac, bond and vlan'],
    ['one of two kinds', [nic('lan0', { mac: '52:54:00:99:00:01', vlan: { id: 1, link: 'x' } })], 'exactly one of'],
    ['a VLAN on nothing', [a, nic('v', { vlan: { id: 1, link: 'lan9' } })], 'runs on lan9, which is no interface'],
    ['a VLAN on itself', [a, nic('v', { vlan: { id: 1, link: 'v' } })], 'runs on v, which is no interface'],
    ['no address at all', [nic('lan0', { mac: '52:54:00:99:00:01' })], 'could not be reached'],
  ];
  for (const [what, interfaces, message] of cases)
    it(`with ${what} is refused`, () => {
      expect(() => config(interfaces)).toThrow(message);
    });

  it('is text that means the same to a YAML parser, whatever the names look like', () => {
    for (const name of ['on', 'no', '1e3', 'null', 'a.b'])
      expect(parse(netplanYaml(config([{ ...a, name }])))).toEqual(config([{ ...a, name }]));
  });
});

describe('the user-data', () => {
  const base = {
    instanceId: 'i',
    hostname: 'n01',
    domain: 'd',
    login: 'hal',
    keys: [KEY],
    siteUserData: null,
    nodeUserData: null,
  };
  it('keeps operators’ keys apart from what could end their line', () => {
    for (const key of ['ssh-ed25519 AAAA\nroot: x', 'ssh-rsa', 'hello', '', 'command="x" ssh-rsa AAAA'])
      expect(() => seed({ ...base, keys: [key] })).toThrow('no public key');
    expect(() => seed({ ...base, keys: [] })).toThrow('nobody could log in');
  });
  it('names the node in /etc/hosts once, and leaves the file alone at later boots', () => {
    const config = parse(seed(base).userData) as {
      manage_etc_hosts: unknown;
      write_files: { path: string; content: string }[];
    };
    // cc_update_etc_hosts runs at each boot, cc_write_files once per installation.
    expect(config.manage_etc_hosts).toBe(false);
    expect(config.write_files.map(f => f.path)).toEqual(['/etc/hosts']);
    expect(config.write_files[0]!.content).toContain(`127.0.1.1 ${base.hostname}.${base.domain} ${base.hostname}\n`);
  });
  it('of operators is refused when cloud-init would ignore it or it is too large', () => {
    expect(() => seed({ ...base, nodeUserData: 'packages: [x]' })).toThrow(
      'The user_data of the node begins with none of',
    );
    expect(() => seed({ ...base, siteUserData: `#cloud-config\n${'x'.repeat(70_000)}` })).toThrow(
      'of the site has more than',
    );
  });
  it('has ours first, then the node’s, then the site’s, with lists that grow', () => {
    const { userData } = seed({
      ...base,
      siteUserData: '#cloud-config\na: 1\n',
      nodeUserData: '#cloud-config\na: 2\n',
    });
    expect(userData.startsWith('#cloud-config-archive\n')).toBe(true);
    const parts = parse(userData) as { content: string; 'Merge-Type'?: string }[];
    expect(parts.map(p => p.content.split('\n')[1]?.slice(0, 8))).toEqual(['hostname', 'a: 2', 'a: 1']);
    expect(parts[0]?.['Merge-Type']).toBeUndefined();
    expect(parts[1]?.['Merge-Type']).toBe('list(append)+dict(no_replace,recurse_list)+str()');
  });
});

describe('the scripts', () => {
  for (const [name, { script }] of [
    ['of an installation', renderInstallScript(plan())],
    ['that erases', renderEraseScript([disk('/dev/vda', 100)], 'full')],
  ] as const)
    it(`${name} is POSIX shell`, () => {
      execFileSync('dash', ['-n'], { input: script });
    });

  it('of the image and of the target are POSIX shell, too', () => {
    for (const file of ['target/call-home', 'os/usr/lib/halligan/refresh-esp'])
      execFileSync('dash', ['-n', join(templatesDir(), 'install', file)]);
    expect(readdirSync(join(templatesDir(), 'install/target')).sort()).toEqual([
      'call-home',
      'halligan-call-home.service',
    ]);
  });

  it('announce only stages that are in the list, and all of them', () => {
    const { script } = renderInstallScript(plan());
    const announced = [...script.matchAll(/^\s*stage ([a-z-]+)$/gm)].map(match => match[1]);
    const listed = new Set(
      (['disk-image', 'root-archive'] as const).flatMap(method =>
        installStages(method, 'uefi').map(stage => stage.name),
      ),
    );
    expect(new Set(announced)).toEqual(listed);
    for (const name of announced) expect(Object.keys(STAGES)).toContain(name);
  });
});

describe('a line from the node', () => {
  it('is read when it is one of ours', () => {
    expect(readProgress('HALLIGAN stage write 12')).toEqual({
      kind: 'stage',
      name: 'write',
      text: 'writing the image',
      seconds: 12,
    });
    expect(readProgress('HALLIGAN progress write 5 10')).toEqual({
      kind: 'progress',
      name: 'write',
      done: 5,
      total: 10,
    });
    expect(readProgress('HALLIGAN problem image-checksum The image is wrong')).toEqual({
      kind: 'problem',
      code: 'image-checksum',
      message: 'The image is wrong',
    });
    const hostKey = `ssh-ed25519 ${'A'.repeat(68)}`;
    expect(readProgress(`HALLIGAN result {"hostKey":"${hostKey}"}`)).toEqual({ kind: 'result', hostKey });
  });

  it('is text when it is not, and no line can throw', () => {
    for (const line of [
      ...['', 'HALLIGAN', 'HALLIGAN stage constructor 1', 'HALLIGAN stage __proto__', 'HALLIGAN problem toString x'],
      ...['HALLIGAN result {', 'HALLIGAN result null', 'HALLIGAN result {"hostKey":"ssh-rsa AAAA"}'],
      ...[
        'HALLIGAN result {"hostKey":{"x":1}}',
        'HALLIGAN progress write -1 x',
        `HALLIGAN progress write ${'9'.repeat(40)} 1`,
      ],
    ])
      expect(readProgress(line).kind).toBe('text');
    fc.assert(
      fc.property(fc.string(), line => readProgress(`HALLIGAN ${line}`) !== undefined),
      { numRuns: 1000 },
    );
  });
});
