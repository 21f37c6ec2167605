import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { templatesDir } from '../../../provisioner/core/render.js';
import type { ImageStore } from '../../../provisioner/image/types.js';
import { createJobMaker } from '../../../provisioner/install/jobs.js';
import type { InventoryDisk } from '../../../provisioner/inventory/types.js';
import type { Site } from '../../../provisioner/site/schema.js';
import { aNode, anInventory } from '../node/fixtures.js';
import { disk } from './blank-disk.js';

const dirs: string[] = [];
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

const source = (name: string) => readFileSync(join(templatesDir(), 'install', name), 'utf8');
const functionOf = (name: string, file: string): string => {
  const match = new RegExp(`^${name}\\(\\) \\{$.*?^\\}$`, 'ms').exec(source(file));
  if (!match) throw new Error(`${file} has no function ${name}`);
  return match[0];
};

interface Present {
  bytes: number;
  serial?: string;
  wwn?: string;
  /** Only smartctl knows it, as with disks behind SAS. */
  smartSerial?: string;
}

/** The disk that the script takes for the planned one, on a machine that has `present` now; or what it dies of. */
function taken(
  planned: { path: string; bytes: number; serial?: string; wwn?: string },
  present: Record<string, Present>,
) {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-which-disk-'));
  dirs.push(dir);
  for (const [name, { bytes }] of Object.entries(present)) {
    mkdirSync(join(dir, name));
    writeFileSync(join(dir, name, 'size'), `${bytes / 512}\n`);
  }
  const answers = (pick: (p: Present) => string | undefined) =>
    Object.entries(present)
      .map(([name, p]) => `/dev/${name}) echo '${pick(p) ?? ''}' ;;`)
      .join(' ');
  const functions = ['has_wwn', 'has_serial', 'disk_of', 'find_disks'].map(f => functionOf(f, 'common.sh')).join('\n');
  return execFileSync(
    'dash',
    [
      '-euc',
      `die() { echo "$*"; exit 0; }
lsblk() { case $2 in WWN) case $3 in ${answers(p => p.wwn)} esac ;; SERIAL) case $3 in ${answers(p => p.serial)} esac ;; esac; }
smartctl() { echo "Serial number:        $(case $2 in ${answers(p => p.smartSerial)} esac)"; }
${functions.replaceAll('/sys/class/block', dir)}
DISK_COUNT=1
find_disks
echo "$DISKS"`,
    ],
    {
      encoding: 'utf8',
      env: {
        PATH: process.env['PATH'],
        DISK_1_PATH: planned.path,
        DISK_1_SIZE: String(planned.bytes),
        DISK_1_SERIAL: planned.serial ?? '',
        DISK_1_WWN: planned.wwn ?? '',
      },
    },
  ).trim();
}

const TB = 512 * 2_000_000_000;

describe('the disk that the node writes to', () => {
  it('is found under its new name', () => {
    const present = { sda: { bytes: TB, serial: 'OTHER' }, sdb: { bytes: TB, serial: 'MINE' } };
    expect(taken({ path: '/dev/sda', bytes: TB, serial: 'MINE' }, present)).toBe('/dev/sdb');
  });

  it('is never another one of the same name and size', () => {
    const present = { sda: { bytes: TB, serial: 'OTHER', wwn: '0x5000b' } };
    expect(taken({ path: '/dev/sda', bytes: TB, serial: 'MINE' }, present)).toMatch(/^disk-no-match/);
    expect(taken({ path: '/dev/sda', bytes: TB, wwn: '0x5000a' }, present)).toMatch(/^disk-no-match/);
    expect(taken({ path: '/dev/sda', bytes: TB, serial: 'MINE', wwn: '0x5000b' }, present)).toMatch(/^disk-no-match/);
    expect(taken({ path: '/dev/sda', bytes: TB, serial: 'MINE' }, { sda: { bytes: TB } })).toMatch(/^disk-no-match/);
  });

  it('is the one of its name only when it had no identity', () => {
    expect(taken({ path: '/dev/vdb', bytes: TB }, { vda: { bytes: TB }, vdb: { bytes: TB } })).toBe('/dev/vdb');
    expect(taken({ path: '/dev/vdb', bytes: TB }, { vda: { bytes: TB }, vdb: { bytes: 512 } })).toMatch(
      /^disk-no-match/,
    );
  });

  it('is told apart by WWN, and by the serial number that only smartctl knows', () => {
    const present = {
      sda: { bytes: TB, wwn: '0x5000a', serial: '35000a', smartSerial: 'A' },
      sdb: { bytes: TB, wwn: '0x5000b', serial: '35000b', smartSerial: 'B' },
    };
    expect(taken({ path: '/dev/sda', bytes: TB, wwn: '0x5000b', serial: 'B' }, present)).toBe('/dev/sdb');
    expect(taken({ path: '/dev/sda', bytes: TB, serial: 'B' }, present)).toBe('/dev/sdb');
  });

  it('is not taken for blank when nobody can tell what is on it', () => {
    const foreign = (wipefs: string) =>
      execFileSync(
        'dash',
        [
          '-euc',
          `partitions() { :; }; wipefs() { ${wipefs}; }
${functionOf('foreign', 'install.sh')}
found=$(foreign /dev/sda) || { echo unknown; exit 0; }
echo "[$found]"`,
        ],
        { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
      ).trim();
    expect(foreign('return 1')).toBe('unknown');
    expect(foreign(':')).toBe('[]');
    expect(foreign("printf 'gpt\\next4\\ngpt\\n'")).toBe('[ext4 gpt]');
  });
});

describe('a release', () => {
  const maker = createJobMaker({ site: {} as Site, images: {} as ImageStore, serverKey: '' });
  const data: Partial<InventoryDisk> = {
    signatures: [{ offset: 0, type: 'ext4', label: 'data', uuid: null, partition: null }],
  };
  const node = aNode({
    status: {
      inventory: anInventory('52:54:00:00:00:01', {
        disks: [
          disk('/dev/sda', 100, { ...data, serial: 'S-A', ownedBy: { nodeId: '00000000' } }),
          disk('/dev/sdb', 100, { ...data, serial: 'S-B' }),
          disk('/dev/sdc', 100, { ...data, ownedBy: { nodeId: 'ffffffff' } }),
          disk('/dev/sdd', 8, { ...data, removable: true }),
        ],
      }),
    },
  });

  it('erases the disks that we installed and says which others it leaves alone', () => {
    const job = maker.erase(node, 'quick', false);
    expect(job.env).toMatchObject({ DISK_COUNT: '1', DISK_1_PATH: '/dev/sda', DISK_1_SERIAL: 'S-A' });
    expect(job.summary).toBe('Erased /dev/sda (quick); left alone, because the data is not ours: /dev/sdb, /dev/sdc.');
  });

  it('erases other data by the operator’s word only, and never what is removable', () => {
    const job = maker.erase(node, 'full', true);
    expect(job.env['DISK_COUNT']).toBe('3');
    expect(Object.values(job.env)).not.toContain('/dev/sdd');
    expect(job.summary).toBe('Erased /dev/sda, /dev/sdb, /dev/sdc (full).');
  });
});
