/** The stages of an installation in their order, with the seconds that each takes on an idle machine of today. */
export const STAGES = {
  prepare: { text: 'looking at the disks', seconds: 1 },
  claim: { text: 'taking the disks', seconds: 2 },
  partition: { text: 'partitioning', seconds: 2 },
  filesystems: { text: 'making volumes and file systems', seconds: 4 },
  write: { text: 'writing the image', seconds: 10 },
  unpack: { text: 'unpacking the system', seconds: 25 },
  grow: { text: 'growing the root file system', seconds: 2 },
  configure: { text: 'writing its configuration', seconds: 2 },
  bootloader: { text: 'installing the boot loader', seconds: 12 },
  'boot-order': { text: 'setting the boot order', seconds: 1 },
  sync: { text: 'flushing the disks', seconds: 2 },
  erase: { text: 'erasing the disks', seconds: 5 },
} as const satisfies Record<string, { text: string; seconds: number }>;

export type StageName = keyof typeof STAGES;
export interface Stage {
  readonly name: StageName;
  readonly text: string;
  readonly expectedSeconds: number;
}

const list = (...names: StageName[]): Stage[] =>
  names.map(name => ({ name, text: STAGES[name].text, expectedSeconds: STAGES[name].seconds }));

/** What a plan goes through. */
export function installStages(method: 'disk-image' | 'root-archive', firmware: 'bios' | 'uefi'): Stage[] {
  const order: StageName[] = firmware === 'uefi' ? ['boot-order'] : [];
  return method === 'disk-image'
    ? list('prepare', 'claim', 'write', 'partition', 'grow', 'configure', ...order, 'sync')
    : list('prepare', 'claim', 'partition', 'filesystems', 'unpack', 'configure', 'bootloader', ...order, 'sync');
}
