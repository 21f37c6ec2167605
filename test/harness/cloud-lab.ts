/** Container hosts with baked layers, for suites that lay a cloud down on them. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../provisioner/core/distributions/load.js';
import { type BakedStack, bakeStack, type StackLayer } from '../../provisioner/image/bake.js';
import {
  type Lab,
  type LabHost,
  type LabNodeSpec,
  labDown,
  labRootfs,
  labUp,
  startHost,
  stopHost,
} from '../../provisioner/lab/index.js';

const run = promisify(execFile);
const ROOT = packageRoot(import.meta.url);

export interface CloudHostSpec {
  readonly name: string;
  /** Name of one of the lab's layers; without it the host has the bare root file system. */
  readonly layer?: string;
  /** Packages of this host alone, baked above its layer. */
  readonly packages?: readonly string[];
  /** eth0 management, eth1 outside, eth2 tunnels: all three by default. */
  readonly nics?: 1 | 2 | 3;
  /** False leaves it off, for `start`. */
  readonly start?: boolean;
}

export interface CloudLabSpec {
  readonly name: string;
  readonly hosts: readonly CloudHostSpec[];
  /** Machines beside them, switched off. */
  readonly machines?: readonly LabNodeSpec[];
  readonly layers?: readonly StackLayer[];
  readonly accel?: 'kvm' | 'tcg';
  /** Called with what bakes and how far it is. */
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface CloudLab {
  readonly lab: Lab;
  /** Of this run; removed by `down` unless HALLIGAN_KEEP is set. */
  readonly dir: string;
  readonly key: { readonly file: string; readonly private: string; readonly public: string };
  readonly layers: Readonly<Record<string, BakedStack>>;
  host(name: string): LabHost;
  /** A command on a host by a real ssh from inside the lab's network, under the host key that was made for it. */
  ssh(host: string, command: string, options?: { timeoutMs?: number }): Promise<string>;
  /** Switches a host on. */
  start(host: string): Promise<void>;
  /** Pulls its plug. */
  stop(host: string): Promise<void>;
  down(): Promise<void>;
}

/** Where root file systems and layers are kept between runs: HALLIGAN_CACHE, `.cache` by default. */
export function cloudCache(): { lab: string; layers: string } {
  const cache = resolve(process.env['HALLIGAN_CACHE'] ?? join(ROOT, '.cache'));
  return { lab: join(cache, 'lab'), layers: join(cache, 'layers') };
}

export async function cloudLabUp(spec: CloudLabSpec): Promise<CloudLab> {
  const cache = cloudCache();
  const rootfs = await labRootfs({ cacheDir: cache.lab });
  const ownLayer = (host: CloudHostSpec) => `host-${host.name}`;
  const layers = await bakeStack({
    base: rootfs,
    cacheDir: cache.layers,
    logDir: join(cache.layers, 'logs'),
    layers: [
      ...(spec.layers ?? []),
      ...spec.hosts.flatMap(host =>
        host.packages ? [{ name: ownLayer(host), on: host.layer ?? null, packages: host.packages }] : [],
      ),
    ],
    onProgress: (layer, line) => spec.onProgress?.(`${layer}: ${line}`),
    ...(spec.signal ? { signal: spec.signal } : {}),
  });
  const layersOf = (host: CloudHostSpec): readonly string[] => {
    const name = host.packages ? ownLayer(host) : host.layer;
    if (name === undefined) return [];
    const stack = layers[name];
    if (!stack) throw new Error(`host ${host.name} asks for the layer ${name}, which the lab does not have`);
    return stack.layers;
  };

  const dir = mkdtempSync(join(tmpdir(), `halligan-${spec.name}-`));
  const remove = () => {
    if (!process.env['HALLIGAN_KEEP']) rmSync(dir, { recursive: true, force: true });
  };
  const labDir = join(dir, 'lab');
  try {
    const file = join(dir, 'key');
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file]);
    const key = { file, private: readFileSync(file, 'utf8'), public: readFileSync(`${file}.pub`, 'utf8').trim() };
    const lab = await labUp({
      name: spec.name,
      dir: labDir,
      kind: 'container',
      rootfs,
      sshKeys: [key.public],
      ...(spec.accel ? { accel: spec.accel } : {}),
      nodes: [
        ...spec.hosts.map(host => ({
          name: host.name,
          nics: host.nics ?? 3,
          layers: layersOf(host),
          start: host.start ?? true,
        })),
        ...(spec.machines ?? []).map(machine => ({ ...machine, kind: 'qemu' as const })),
      ],
    });
    const known = join(dir, 'known-hosts');
    writeFileSync(known, lab.hosts.map(host => `${host.address} ${host.hostKey}\n`).join(''));
    const host = (name: string): LabHost => {
      const found = lab.hosts.find(candidate => candidate.name === name);
      if (!found) throw new Error(`no host ${name}`);
      return found;
    };
    return {
      lab,
      dir,
      key,
      layers,
      host,
      async ssh(name, command, options = {}) {
        const { stdout } = await run(
          'ip',
          [
            ...['netns', 'exec', lab.netns, 'ssh', '-i', file, '-o', `UserKnownHostsFile=${known}`],
            ...['-o', 'StrictHostKeyChecking=yes', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=20'],
            ...[`root@${host(name).address}`, command],
          ],
          { timeout: options.timeoutMs ?? 120_000, maxBuffer: 1 << 26 },
        );
        return stdout.trim();
      },
      start: name => startHost(lab, name),
      stop: name => stopHost(lab, name),
      async down() {
        await labDown({ name: lab.name, dir: lab.dir });
        remove();
      },
    };
  } catch (error) {
    await labDown({ name: spec.name, dir: labDir });
    remove();
    throw error;
  }
}
