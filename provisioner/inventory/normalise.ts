/** From the tools' raw output to an `Inventory`. Pure; the input is untrusted. */
import { DMI, type DmiStructure, isPlaceholder, parseDmidecode, parseDmiSize, usableUuid } from './dmidecode.js';
import { parseLldp } from './lldp.js';
import { checkRawInventory, parseBounded, printable, type RawInventory, refuse } from './raw.js';
import type { Inventory, InventoryDisk, InventoryNic } from './types.js';

const MAX = {
  text: 128,
  disks: 512,
  nics: 512,
  pci: 4096,
  dimms: 512,
  signatures: 256,
  addresses: 64,
  flags: 512,
  warnings: 100,
};
const PCI_ADDRESS = /[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g;
/** GPT partition name that our installer gives: the first 8 hex digits of the node's id. */
const OWNER_LABEL = /^halligan-([0-9a-f]{8})$/;

/**
 * The hardware record of a report (`RamCallHome.raw`). Throws ProblemError inventory-refused, naming the field, for what
 * no tool of ours says: wrong shape, size, depth, types or counts. A tool that is missing or failed is a warning.
 */
export function normaliseInventory(raw: unknown): Inventory {
  const { files } = checkRawInventory(raw);
  const report = reader(files);
  const sysfs = parseSysfs(`${report.file('sysfs') ?? ''}\n${report.file('net') ?? ''}`);
  const dmi = parseDmidecode(report.file('dmidecode') ?? '');
  const dimms = memoryDevices(dmi);
  const installed = dimms.reduce((sum, dimm) => sum + dimm.sizeBytes, 0);
  const usable = integer(sysfs.values.get('memtotal')) ?? 0;
  const inventory: Inventory = {
    schema: 1,
    system: system(sysfs, dmi),
    firmware: firmware(report, sysfs, dmi),
    tpm: tpm(sysfs),
    cpu: cpu(report, dmi),
    memory: { totalBytes: Math.max(installed, usable * 1024), dimms },
    disks: disks(report, sysfs),
    nics: nics(report, sysfs),
    pci: pci(report.file('lspci') ?? ''),
    bmc: bmc(report, dmi),
    kernel: text(sysfs.values.get('/proc/sys/kernel/osrelease')) ?? 'unknown',
    warnings: [],
  };
  inventory.warnings = [...(report.file('warnings') ?? '').split('\n'), ...report.warnings]
    .map(line => printable(line).slice(0, 300))
    .filter(line => line !== '')
    .slice(0, MAX.warnings);
  return inventory;
}

interface Report {
  readonly warnings: string[];
  file(name: string): string | undefined;
  /** Names of the files that begin so, without the prefix. */
  names(prefix: string): string[];
  json(name: string): unknown;
}

function reader(files: RawInventory['files']): Report {
  const warnings: string[] = [];
  const file = (name: string) => (Object.hasOwn(files, name) ? files[name] : undefined);
  return {
    warnings,
    file,
    names: prefix => Object.keys(files).flatMap(name => (name.startsWith(prefix) ? [name.slice(prefix.length)] : [])),
    json(name) {
      const content = file(name);
      if (content === undefined || content.trim() === '') return undefined;
      const value = parseBounded(`files.${name}`, content);
      if (value === undefined) warnings.push(`the output of ${name} is no JSON`);
      return value;
    },
  };
}

/** Printable text of bounded length, or null for none. */
function text(value: unknown, max = MAX.text): string | null {
  if (typeof value !== 'string') return null;
  return (
    printable(value.slice(0, 4 * max))
      .slice(0, max)
      .trim() || null
  );
}

/** As `text`, and null for what vendors leave in place of a value. */
function identity(value: unknown): string | null {
  const found = text(value);
  return found === null || isPlaceholder(found) ? null : found;
}

/** A whole number that is exact in JavaScript, or null. */
function integer(value: unknown): number | null {
  const number = typeof value === 'string' && /^-?\d{1,16}$/.test(value.trim()) ? Number(value) : value;
  return typeof number === 'number' && Number.isSafeInteger(number) ? number : null;
}

function record(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

/** The list under `key` of a tool's JSON. What is there and is no list of objects is refused: the tool never says that. */
function objects(field: string, value: unknown, max: number): Record<string, unknown>[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) return refuse(field, 'is no list');
  if (value.length > max) return refuse(field, `has ${value.length} entries, over ${max}`);
  return value.map((item, index) => record(item) ?? refuse(`${field}[${index}]`, 'is no object'));
}

/** A member that must be a string or absent. */
function stringOr(field: string, value: unknown): string | null {
  if (value === undefined || value === null) return null;
  return typeof value === 'string' ? value : refuse(field, `is a ${typeof value} instead of a string`);
}

interface Sysfs {
  readonly values: ReadonlyMap<string, string>;
  /** `/sys/block/NAME/…` and `/sys/class/net/NAME/…`: attributes by device. */
  readonly blocks: ReadonlyMap<string, ReadonlyMap<string, string>>;
  readonly nets: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/** Lines of "path=value". */
function parseSysfs(content: string): Sysfs {
  const values = new Map<string, string>();
  const blocks = new Map<string, Map<string, string>>();
  const nets = new Map<string, Map<string, string>>();
  for (const line of content.split('\n')) {
    const at = line.indexOf('=');
    if (at < 1) continue;
    const path = line.slice(0, at);
    const value = line.slice(at + 1);
    const device = /^\/sys\/(block|class\/net)\/([A-Za-z0-9_.@!:-]{1,32})\/([a-z_/]+)$/.exec(path);
    if (!device) values.set(path, value);
    else {
      const group = device[1] === 'block' ? blocks : nets;
      const attributes = group.get(device[2]!) ?? new Map<string, string>();
      attributes.set(device[3]!, value);
      group.set(device[2]!, attributes);
    }
  }
  if (blocks.size > MAX.disks) refuse('files.sysfs', `names ${blocks.size} disks, over ${MAX.disks}`);
  if (nets.size > MAX.nics) refuse('files.sysfs', `names ${nets.size} NICs, over ${MAX.nics}`);
  return { values, blocks, nets };
}

function system(sysfs: Sysfs, dmi: readonly DmiStructure[]): Inventory['system'] {
  const fields = structure(dmi, DMI.system);
  const chassis = structure(dmi, DMI.chassis);
  const pick = (name: string, field: string | undefined) =>
    identity(sysfs.values.get(`/sys/class/dmi/id/${name}`)) ?? identity(field);
  return {
    manufacturer: pick('sys_vendor', fields.get('Manufacturer')),
    product: pick('product_name', fields.get('Product Name')),
    serial: pick('product_serial', fields.get('Serial Number')),
    uuid: usableUuid(text(sysfs.values.get('/sys/class/dmi/id/product_uuid')) ?? text(fields.get('UUID')) ?? ''),
    asset: pick('chassis_asset_tag', chassis.get('Asset Tag')),
  };
}

const structure = (dmi: readonly DmiStructure[], type: number): ReadonlyMap<string, string> =>
  dmi.find(found => found.type === type)?.fields ?? new Map();

function firmware(report: Report, sysfs: Sysfs, dmi: readonly DmiStructure[]): Inventory['firmware'] {
  const bios = structure(dmi, DMI.bios);
  const pick = (name: string, field: string | undefined) =>
    identity(sysfs.values.get(`/sys/class/dmi/id/${name}`)) ?? identity(field);
  const boot = report.file('efibootmgr') ?? '';
  // efivarfs puts four bytes of attributes before the variable; SecureBoot is one byte (UEFI 3.3).
  const secure = (report.file('secureboot') ?? '').trim().split(/\s+/);
  const uefi = sysfs.values.get('firmware') === 'uefi';
  return {
    type: uefi ? 'uefi' : 'bios',
    vendor: pick('bios_vendor', bios.get('Vendor')),
    version: pick('bios_version', bios.get('Version')),
    date: pick('bios_date', bios.get('Release Date')),
    secureBoot: uefi && secure.length === 5 ? secure[4] === '1' : null,
    bootCurrent: /^BootCurrent: ([0-9A-Fa-f]{4})$/m.exec(boot)?.[1]?.toUpperCase() ?? null,
    bootOrder: (/^BootOrder: ([0-9A-Fa-f,]{4,2000})$/m.exec(boot)?.[1] ?? '')
      .split(',')
      .filter(entry => /^[0-9A-Fa-f]{4}$/.test(entry))
      .map(entry => entry.toUpperCase()),
  };
}

function tpm(sysfs: Sysfs): Inventory['tpm'] {
  const major = sysfs.values.get('/sys/class/tpm/tpm0/tpm_version_major');
  if (major === undefined) return null;
  return { version: major === '2' ? '2.0' : major === '1' ? '1.2' : null };
}

function cpu(report: Report, dmi: readonly DmiStructure[]): Inventory['cpu'] {
  const entries = objects('files.lscpu.lscpu', record(report.json('lscpu'))?.['lscpu'], 500);
  const fields = new Map<string, string>();
  // util-linux 2.38 nests the fields of `-J` below section titles on some builds.
  const collect = (items: Record<string, unknown>[], level: number) => {
    for (const item of items) {
      const key = stringOr('files.lscpu.field', item['field']);
      const value = stringOr('files.lscpu.data', item['data']);
      if (key !== null && value !== null && !fields.has(key)) fields.set(key.replace(/:$/, ''), value);
      if (level < 3) collect(objects('files.lscpu.children', item['children'], 500), level + 1);
    }
  };
  collect(entries, 0);
  const count = (name: string) => Math.min(Math.max(integer(fields.get(name)) ?? 0, 0), 65_536);
  const packages = dmi.filter(
    ({ type, fields: of }) => type === DMI.processor && /^Populated/.test(of.get('Status') ?? ''),
  );
  const sockets = count('Socket(s)') || packages.length;
  return {
    model: text(fields.get('Model name')) ?? text(packages[0]?.fields.get('Version')),
    arch: text(fields.get('Architecture'), 16) ?? 'x86_64',
    sockets,
    cores: sockets * count('Core(s) per socket'),
    threads: count('CPU(s)'),
    numaNodes: count('NUMA node(s)') || 1,
    flags: (fields.get('Flags') ?? '')
      .split(' ')
      .filter(flag => /^[a-z0-9_]{1,32}$/.test(flag))
      .slice(0, MAX.flags),
  };
}

function memoryDevices(dmi: readonly DmiStructure[]): Inventory['memory']['dimms'] {
  const devices = dmi.filter(found => found.type === DMI.memoryDevice);
  if (devices.length > MAX.dimms)
    refuse('files.dmidecode', `names ${devices.length} memory devices, over ${MAX.dimms}`);
  return devices.flatMap(({ fields }) => {
    const sizeBytes = parseDmiSize(fields.get('Size') ?? '');
    if (!sizeBytes || !Number.isSafeInteger(sizeBytes)) return [];
    const speed = /^(\d{1,6}) (MT\/s|MHz)$/.exec(fields.get('Configured Memory Speed') ?? fields.get('Speed') ?? '');
    return [
      {
        slot: identity(fields.get('Locator')),
        sizeBytes,
        type: identity(fields.get('Type')),
        speedMtps: speed ? Number(speed[1]) : null,
        serial: identity(fields.get('Serial Number')),
      },
    ];
  });
}

function disks(report: Report, sysfs: Sysfs): InventoryDisk[] {
  const listed = new Map<string, Record<string, unknown>>();
  for (const device of objects('files.lsblk.blockdevices', record(report.json('lsblk'))?.['blockdevices'], 4096)) {
    const name = stringOr('files.lsblk.name', device['name']);
    if (name !== null) listed.set(name, device);
  }
  const found = signatures(report);
  const links = pathLinks(report.file('by-path') ?? '');
  const result: InventoryDisk[] = [];
  for (const [name, attributes] of sysfs.blocks) {
    const sectors = integer(attributes.get('size'));
    // Empty card readers and virtual media of the BMC.
    if (sectors === null || sectors <= 0) continue;
    if (!Number.isSafeInteger(sectors * 512)) refuse(`files.sysfs ${name}/size`, 'is larger than any disk');
    const block = listed.get(name) ?? {};
    const member = (key: string) => stringOr(`files.lsblk.${name}.${key}`, block[key]);
    const smart = record(report.json(`smart-${name}`)) ?? {};
    const partitions = objects(`files.lsblk.${name}.children`, block['children'], 1024);
    const owners = new Set(
      partitions.flatMap(
        partition =>
          OWNER_LABEL.exec(stringOr(`files.lsblk.${name}.partlabel`, partition['partlabel']) ?? '')?.[1] ?? [],
      ),
    );
    if (owners.size > 1)
      report.warnings.push(`the partitions of ${name} claim more than one owner; it counts as foreign`);
    const [owner] = owners;
    const passed = record(smart['smart_status'])?.['passed'];
    const isNvme = name.startsWith('nvme');
    result.push({
      path: `/dev/${name}`,
      byPath: links.get(name) ?? null,
      sizeBytes: sectors * 512,
      type: isNvme ? 'nvme' : attributes.get('queue/rotational') === '1' ? 'hdd' : 'ssd',
      model: identity(smart['model_name']) ?? identity(member('model')) ?? identity(attributes.get('device/model')),
      serial:
        identity(smart['serial_number']) ??
        identity(member('serial')) ??
        identity(attributes.get('device/serial')) ??
        identity(attributes.get('serial')),
      wwn: wwn(member('wwn')) ?? wwn(attributes.get('wwid')) ?? wwn(attributes.get('device/wwid')),
      transport: text(member('tran'), 16) ?? (isNvme ? 'nvme' : name.startsWith('vd') ? 'virtio' : null),
      controller: lastPciAddress(attributes.get('device')),
      removable: attributes.get('removable') === '1',
      readOnly: attributes.get('ro') === '1',
      logicalSectorBytes: integer(attributes.get('queue/logical_block_size')) ?? 512,
      signatures: found.filter(({ disk }) => disk === name).map(({ signature }) => signature),
      ownedBy: owners.size === 1 && owner !== undefined ? { nodeId: owner } : null,
      smart: passed === true ? 'passed' : passed === false ? 'failed' : null,
    });
  }
  return result.sort((a, b) => compare(a.byPath ?? a.path, b.byPath ?? b.path));
}

/** World wide names only: the kernel's wwid falls back to vendor, model and serial ("t10.ATA …"), which is none. */
const wwn = (value: unknown): string | null => {
  const found = text(value);
  return found !== null && /^(0x|naa\.|eui\.|uuid\.|nvme\.)/.test(found) ? found : null;
};

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

type Signature = InventoryDisk['signatures'][number];

/** Signatures with the disk that they are on: that of a partition belongs to its disk. */
function signatures(report: Report): { disk: string; signature: Signature }[] {
  const counts = new Map<string, number>();
  return objects('files.wipefs.signatures', record(report.json('wipefs'))?.['signatures'], MAX.disks * 16).flatMap(
    entry => {
      const device = (stringOr('files.wipefs.device', entry['device']) ?? '').replace(/^\/dev\//, '');
      const type = text(stringOr('files.wipefs.type', entry['type']), 32);
      const offset = stringOr('files.wipefs.offset', entry['offset']) ?? '';
      if (!/^[A-Za-z0-9_.!-]{1,32}$/.test(device) || type === null) return [];
      const disk = diskOf(device);
      const count = (counts.get(disk) ?? 0) + 1;
      counts.set(disk, count);
      if (count > MAX.signatures) refuse(`files.wipefs`, `names more than ${MAX.signatures} signatures of ${disk}`);
      const at = /^0x[0-9a-f]{1,13}$/i.test(offset) ? Number.parseInt(offset, 16) : 0;
      const signature = {
        offset: at,
        type,
        label: text(entry['label']),
        uuid: text(entry['uuid'], 64),
        partition: disk === device ? null : `/dev/${device}`,
      };
      return [{ disk, signature }];
    },
  );
}

/** nvme0n1p2 → nvme0n1, mmcblk0p1 → mmcblk0, sda1 → sda; a disk's name as it is. */
export function diskOf(device: string): string {
  return (
    /^((?:nvme\d+n|mmcblk|md|nbd)\d+)p\d+$/.exec(device)?.[1] ??
    /^((?:sd|vd|hd|xvd)[a-z]+)\d+$/.exec(device)?.[1] ??
    device
  );
}

/** Lines of `ls -l /dev/disk/by-path` as disk → shortest link. */
function pathLinks(listing: string): Map<string, string> {
  const links = new Map<string, string>();
  for (const line of listing.split('\n')) {
    const match = /\s([A-Za-z0-9:._+-]{1,200}) -> \.\.\/\.\.\/([A-Za-z0-9_-]{1,32})$/.exec(line);
    if (!match || /-part\d+$/.test(match[1]!)) continue;
    const link = `/dev/disk/by-path/${match[1]}`;
    const known = links.get(match[2]!);
    if (known === undefined || link.length < known.length || (link.length === known.length && link < known))
      links.set(match[2]!, link);
  }
  return links;
}

const lastPciAddress = (path: string | undefined): string | null =>
  path?.slice(0, 1000).match(PCI_ADDRESS)?.at(-1) ?? null;

function nics(report: Report, sysfs: Sysfs): InventoryNic[] {
  const addresses = new Map<string, string[]>();
  const links = report.json('ip');
  for (const link of objects('files.ip', links, 4096)) {
    const name = stringOr('files.ip.ifname', link['ifname']);
    if (name === null) continue;
    const infos = objects(`files.ip.addr_info`, link['addr_info'], 1024);
    const list = infos.flatMap(info => {
      const local = text(info['local'], 45);
      const length = integer(info['prefixlen']);
      return local !== null && /^[0-9a-fA-F:.]+$/.test(local) && length !== null ? [`${local}/${length}`] : [];
    });
    addresses.set(name, list.slice(0, MAX.addresses));
  }
  const result: InventoryNic[] = [];
  for (const [name, attributes] of sysfs.nets) {
    const mac = (attributes.get('address') ?? '').toLowerCase();
    // InfiniBand has 20 bytes; what is no Ethernet address cannot boot from us.
    if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) || mac === '00:00:00:00:00:00') {
      report.warnings.push(`${name} has no Ethernet address and was left out`);
      continue;
    }
    const speed = integer(attributes.get('speed')) ?? ethtoolSpeed(report.file(`ethtool-${name}`) ?? '');
    const dump = report.file(`lldp-${name}`);
    result.push({
      name,
      mac,
      driver: text(attributes.get('driver'), 32),
      bus: lastPciAddress(attributes.get('device')),
      // Drivers say -1 or 2^32-1 for "unknown".
      speedMbps: speed !== null && speed > 0 && speed < 10_000_000 ? speed : null,
      carrier: attributes.get('carrier') === '1',
      mtu: Math.max(0, Math.min(integer(attributes.get('mtu')) ?? 1500, 65_536)),
      addresses: addresses.get(name) ?? [],
      lldp: dump === undefined ? null : parseLldp(dump),
    });
  }
  return result.sort((a, b) => compare(a.bus ?? '', b.bus ?? '') || compare(a.mac, b.mac));
}

const ethtoolSpeed = (output: string): number | null => integer(/^\tSpeed: (\d{1,7})Mb\/s$/m.exec(output)?.[1]);

/** Stanzas of `lspci -Dvmmnnk`. */
function pci(content: string): Inventory['pci'] {
  const devices: Inventory['pci'] = [];
  for (const stanza of content.split('\n\n')) {
    const fields = new Map<string, string>();
    for (const line of stanza.split('\n')) {
      const match = /^([A-Za-z]+):\t(.*)$/.exec(line);
      if (match && !fields.has(match[1]!)) fields.set(match[1]!, match[2]!);
    }
    const address = fields.get('Slot') ?? '';
    if (!/^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(address)) continue;
    if (devices.length >= MAX.pci) refuse('files.lspci', `names more than ${MAX.pci} devices`);
    devices.push({
      address,
      class: text(fields.get('Class')) ?? 'unknown',
      vendor: text(fields.get('Vendor')) ?? 'unknown',
      device: text(fields.get('Device')) ?? 'unknown',
      driver: text(fields.get('Driver'), 32),
    });
  }
  return devices;
}

function bmc(report: Report, dmi: readonly DmiStructure[]): Inventory['bmc'] {
  const lan = colonFields(report.file('ipmi-lan') ?? '');
  const mc = colonFields(report.file('ipmi-mc') ?? '');
  if (lan.size === 0 && mc.size === 0 && !dmi.some(found => found.type === DMI.ipmiDevice)) return null;
  const address = lan.get('IP Address') ?? '';
  const mac = (lan.get('MAC Address') ?? '').toLowerCase();
  const vendor = identity(mc.get('Manufacturer Name'));
  return {
    address: /^\d{1,3}(\.\d{1,3}){3}$/.test(address) && address !== '0.0.0.0' ? address : null,
    mac: /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) && !/^[0:]+$/.test(mac) ? mac : null,
    vendor: vendor !== null && /^unknown/i.test(vendor) ? null : vendor,
    firmware: identity(mc.get('Firmware Revision')),
  };
}

/** ipmitool's "Key   : value" lines; the first of each key. */
function colonFields(content: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of content.split('\n')) {
    const match = /^([A-Za-z][^:]{0,40}?)\s*: (.*)$/.exec(line);
    if (match && !fields.has(match[1]!)) fields.set(match[1]!, match[2]!.trim());
  }
  return fields;
}
