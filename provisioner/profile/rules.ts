/** Does a machine fit the rules of a profile? Pure; every rule that does not fit is a sentence with both values. */
import type { Inventory, InventoryDisk, InventoryNic } from '../inventory/types.js';
import type { Match, Rack } from '../site/profile-schema.js';
import { globMatches } from './glob.js';

interface Range {
  readonly min?: number;
  readonly max?: number;
}
interface Lldp {
  readonly system?: string;
  readonly port?: string;
}

const GIB = 2 ** 30;

/** At most one digit behind the point, never rounded up: 63.96 GiB are not 64. */
const short = (value: number): string => String(Math.floor(value * 10) / 10);
const quoted = (value: string | null): string => (value === null ? 'none' : JSON.stringify(value));
const plural = (count: number, noun: string) => (count === 1 ? noun : `${noun}s`);

/** `needs at least 64 GiB of memory, has 32 GiB`; null when it fits. */
function misfit(
  range: Range | undefined,
  value: number,
  say: (amount: number) => string,
  has = say(value),
): string | null {
  if (range?.min !== undefined && value < range.min) return `needs at least ${say(range.min)}, has ${has}`;
  if (range?.max !== undefined && value > range.max) return `needs at most ${say(range.max)}, has ${has}`;
  return null;
}

const textMisfit = (what: string, pattern: string | undefined, value: string | null): string | null =>
  pattern === undefined || (value !== null && globMatches(pattern, value))
    ? null
    : `needs the ${what} ${pattern}, has ${quoted(value)}`;

export const seesNeighbour = (wanted: Lldp, nic: Pick<InventoryNic, 'lldp'>): boolean =>
  nic.lldp !== null &&
  (wanted.system === undefined || (nic.lldp.system !== null && globMatches(wanted.system, nic.lldp.system))) &&
  (wanted.port === undefined || (nic.lldp.port !== null && globMatches(wanted.port, nic.lldp.port)));

const sayNeighbour = ({ system, port }: Lldp): string =>
  [system === undefined ? 'any switch' : system, port === undefined ? '' : `port ${port}`].filter(Boolean).join(' ');

function neighbours(nics: readonly InventoryNic[]): string {
  const seen = nics.flatMap(n =>
    n.lldp ? [`${n.lldp.system ?? n.lldp.chassis ?? 'a nameless switch'} port ${n.lldp.port ?? 'unknown'}`] : [],
  );
  return seen.length === 0 ? 'none' : [...new Set(seen)].slice(0, 4).join(', ');
}

/** What a controller can be called by: its address, its driver, its vendor and device. */
function controllerNames(disk: InventoryDisk, inventory: Inventory): string[] {
  if (disk.controller === null) return [];
  const device = inventory.pci.find(p => p.address === disk.controller);
  return [disk.controller, ...(device ? [`${device.vendor} ${device.device}`, device.driver ?? ''] : [])];
}

function diskMisfits(match: Match, inventory: Inventory): string[] {
  const disks = inventory.disks.filter(d => !d.removable);
  return match.disks.flatMap(rule => {
    const { type, min_gb, max_gb, model, controller, count } = rule;
    const fitting = disks.filter(
      d =>
        (type === undefined || d.type === type) &&
        (min_gb === undefined || d.sizeBytes >= min_gb * 1e9) &&
        (max_gb === undefined || d.sizeBytes <= max_gb * 1e9) &&
        (model === undefined || (d.model !== null && globMatches(model, d.model))) &&
        (controller === undefined || controllerNames(d, inventory).some(name => globMatches(controller, name))),
    );
    const kind = [
      type,
      min_gb === undefined ? '' : `from ${min_gb} GB`,
      max_gb === undefined ? '' : `to ${max_gb} GB`,
      model === undefined ? '' : `of the model ${model}`,
      controller === undefined ? '' : `on the controller ${controller}`,
    ].filter(Boolean);
    const said = kind.length > 0 ? ` (${kind.join(', ')})` : '';
    const all = disks.map(d => `${short(d.sizeBytes / 1e9)} GB ${d.type}`).slice(0, 6);
    const others = disks.length > 0 && fitting.length < disks.length ? ` among ${all.join(', ')}` : '';
    return (
      misfit(
        count?.min === undefined ? { min: 1, ...count } : count,
        fitting.length,
        n => `${n} ${plural(n, 'disk')}${said}`,
        `${fitting.length}${others}`,
      ) ?? []
    );
  });
}

function nicMisfits(match: Match, inventory: Inventory): string[] {
  const { nics } = inventory;
  return match.nics.flatMap(rule => {
    const { min_mbps, driver, lldp, count } = rule;
    const fitting = nics.filter(
      n =>
        (min_mbps === undefined || (n.speedMbps !== null && n.speedMbps >= min_mbps)) &&
        (driver === undefined || (n.driver !== null && globMatches(driver, n.driver))) &&
        (lldp === undefined || seesNeighbour(lldp, n)),
    );
    const kind = [
      min_mbps === undefined ? '' : `from ${min_mbps} Mb/s`,
      driver === undefined ? '' : `with the driver ${driver}`,
      lldp === undefined ? '' : `connected to ${sayNeighbour(lldp)}`,
    ].filter(Boolean);
    const said = kind.length > 0 ? ` (${kind.join(', ')})` : '';
    const all = nics.map(n => (n.speedMbps === null ? 'one of unknown speed' : `${n.speedMbps} Mb/s`)).slice(0, 6);
    const others = nics.length > 0 && fitting.length < nics.length ? ` among ${all.join(', ')}` : '';
    return (
      misfit(
        count?.min === undefined ? { min: 1, ...count } : count,
        fitting.length,
        n => `${n} ${plural(n, 'NIC')}${said}`,
        `${fitting.length}${others}`,
      ) ?? []
    );
  });
}

/** Why the machine does not fit, a sentence part per rule; empty when it does. */
export function misfits(match: Match, inventory: Inventory): string[] {
  const { system, cpu, memory, firmware } = inventory;
  const count = (noun: string) => (n: number) => `${n} ${plural(n, noun)}`;
  const wanted = match.firmware;
  return [
    textMisfit('manufacturer', match.manufacturer, system.manufacturer),
    textMisfit('product', match.product, system.product),
    textMisfit('serial number', match.serial, system.serial),
    match.arch === undefined || match.arch === cpu.arch
      ? null
      : `needs the architecture ${match.arch}, has ${cpu.arch}`,
    textMisfit('CPU', match.cpu?.model, cpu.model),
    misfit(match.cpu?.sockets, cpu.sockets, count('CPU socket')),
    misfit(match.cpu?.cores, cpu.cores, count('core')),
    misfit(match.cpu?.threads, cpu.threads, count('thread')),
    misfit(
      match.memory_gib,
      memory.totalBytes / GIB,
      n => `${short(n)} GiB of memory`,
      `${short(memory.totalBytes / GIB)} GiB`,
    ),
    ...diskMisfits(match, inventory),
    ...nicMisfits(match, inventory),
    match.lldp === undefined || inventory.nics.some(n => seesNeighbour(match.lldp!, n))
      ? null
      : `needs the neighbour ${sayNeighbour(match.lldp)} (LLDP), sees ${neighbours(inventory.nics)}`,
    wanted?.type === undefined || wanted.type === firmware.type
      ? null
      : `needs firmware of the type ${wanted.type}, has ${firmware.type}`,
    textMisfit('firmware vendor', wanted?.vendor, firmware.vendor),
    textMisfit('firmware version', wanted?.version, firmware.version),
    wanted?.secure_boot === undefined || wanted.secure_boot === firmware.secureBoot
      ? null
      : `needs Secure Boot ${wanted.secure_boot ? 'on' : 'off'}, has it ${firmware.secureBoot === null ? 'not at all' : firmware.secureBoot ? 'on' : 'off'}`,
  ].filter(reason => reason !== null);
}

export interface RackPosition {
  readonly name: string;
  readonly unit: number | null;
}

/** Where the machine stands, by the switch that it sees; null when none of `racks` says so, or several do. */
export function rackOf(racks: readonly Rack[], inventory: Inventory): RackPosition | null {
  const seen = racks.flatMap(rack =>
    inventory.nics.flatMap(nic => {
      const system = nic.lldp?.system ?? null;
      if (system === null || !rack.switches.some(pattern => globMatches(pattern, system))) return [];
      const port = /(\d{1,4})\D*$/.exec(nic.lldp?.port ?? '')?.[1];
      const unit =
        port === undefined || rack.units_per_port === 0
          ? null
          : rack.first_unit + (Number(port) - 1) * rack.units_per_port;
      return [{ name: rack.name, unit: unit !== null && unit >= 1 && unit <= 60 ? unit : null }];
    }),
  );
  const [first] = seen;
  if (!first || seen.some(s => s.name !== first.name)) return null;
  const units = new Set(seen.flatMap(s => s.unit ?? []));
  return { name: first.name, unit: units.size === 1 ? [...units][0]! : null };
}
