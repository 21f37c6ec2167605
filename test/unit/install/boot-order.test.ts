import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { templatesDir } from '../../../provisioner/core/render.js';

const script = (name: string) => readFileSync(join(templatesDir(), 'install', name), 'utf8');
const functionOf = (name: string, file: string): string => {
  const match = new RegExp(`^${name}\\(\\) \\{$.*?^\\}$`, 'ms').exec(script(file));
  if (!match) throw new Error(`${file} has no function ${name}`);
  return match[0];
};

/** Runs the script's own functions against firmware that keeps its variables in files and prints as efibootmgr 17 does. */
function bootOrder(
  entries: string[],
  order: string,
  current: string,
  disks: string,
): { order: string; entries: string } {
  const state = `
state=$(mktemp -d); trap 'rm -rf "$state"' EXIT
printf '%s\\n' ${entries.map(entry => `'${entry}'`).join(' ')} >$state/entries
echo '${order}' >$state/order; echo 000A >$state/next
efibootmgr() {
  if [ $# = 0 ]; then
    ${current === '' ? ':' : `echo 'BootCurrent: ${current}'`}
    echo 'Timeout: 0 seconds'; echo "BootOrder: $(cat $state/order)"; cat $state/entries; return
  fi
  while [ $# -gt 0 ]; do
    case $1 in
      -q | -C) ;;
      -b) entry=$2; shift ;;
      -B) grep -v "^Boot$entry" $state/entries >$state/new || true; mv $state/new $state/entries
          tr , '\\n' <$state/order | grep -v "^$entry$" | paste -sd, >$state/new || true; mv $state/new $state/order ;;
      -d) disk=$2; shift ;;
      -p | -l) shift ;;
      -L) next=$(cat $state/next); printf 'Boot%s* %s\\tHD(15,GPT,%s)/File\\n' "$next" "$2" "$disk" >>$state/entries
          printf '%04X\\n' $((0x$next + 1)) >$state/next; shift ;;
      -o) echo "$2" >$state/order; shift ;;
    esac
    shift
  done
}
die() { echo "$*" >&2; exit 1; }
`;
  const out = execFileSync(
    'dash',
    [
      '-euc',
      `${state}\n${functionOf('remove_boot_entries', 'common.sh')}\n${functionOf('set_boot_order', 'install.sh')}
DISKS='${disks}' ESP_PART=15
set_boot_order
cat $state/order
cut -f1 $state/entries`,
    ],
    { encoding: 'utf8' },
  ).split('\n');
  return { order: out[0]!, entries: out.slice(1).filter(Boolean).join(' | ') };
}

const OTHERS = [
  'Boot0000* UiApp',
  'Boot0001* UEFI Misc Device',
  'Boot0002* UEFI PXEv4 (MAC:525400990001)',
  'Boot0003* UEFI PXEv6',
];

describe('the boot order of UEFI after an installation', () => {
  it('is the NIC of this boot, our disk, the rest', () => {
    const result = bootOrder(OTHERS, '0000,0001,0002,0003', '0002', '/dev/vda');
    expect(result.order).toBe('0002,000A,0000,0001,0003');
    expect(result.entries).toBe(`${OTHERS.join(' | ')} | Boot000A* halligan`);
  });

  it('does not collect entries of earlier installations, and leaves those of others that begin alike', () => {
    const before = [...OTHERS, 'Boot0004* halligan', 'Boot0005* halligan 2', 'Boot0006* halligan-test'];
    const result = bootOrder(before, '0002,0004,0005,0000,0006', '0002', '/dev/vda');
    expect(result.order).toBe('0002,000A,0000,0006');
    expect(result.entries).toBe(`${OTHERS.join(' | ')} | Boot0006* halligan-test | Boot000A* halligan`);
  });

  it('names both disks of a mirror', () => {
    const result = bootOrder(OTHERS, '0000,0001,0002,0003', '0002', '/dev/vda /dev/vdb');
    expect(result.order).toBe('0002,000A,000B,0000,0001,0003');
    expect(result.entries).toContain('Boot000A* halligan | Boot000B* halligan 2');
  });

  it('does not put the disk before the network when firmware does not say what it booted', () => {
    const result = bootOrder(OTHERS, '0002,0000,0001,0003', '', '/dev/vda');
    expect(result.order).toBe('0002,000A,0000,0001,0003');
  });
});
