/** The scripts that run on a node, and the values they get. The scripts are fixed text: nothing is pasted into them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../core/problem.js';
import { templatesDir } from '../core/render.js';
import { netplanYaml } from './network.js';
import type { DiskIdentity, InstallPlan } from './plan.js';

export interface RenderedScript {
  readonly script: string;
  /** Secrets are in here, never in the script. */
  readonly env: Readonly<Record<string, string>>;
}

/** Linux takes at most 128 KiB in one variable. */
const MAX_VARIABLE_BYTES = 120 * 1024;

const read = (name: string): string => readFileSync(join(templatesDir(), 'install', name), 'utf8');
const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** Disks by what they are, not by what the kernel calls them at the moment: the script looks for them itself. */
function diskEnv(disks: readonly DiskIdentity[]): Record<string, string> {
  const env: Record<string, string> = { DISK_COUNT: String(disks.length) };
  for (const [index, disk] of disks.entries()) {
    env[`DISK_${index + 1}_PATH`] = disk.path;
    env[`DISK_${index + 1}_SIZE`] = String(disk.sizeBytes);
    env[`DISK_${index + 1}_SERIAL`] = disk.serial ?? '';
    env[`DISK_${index + 1}_WWN`] = disk.wwn ?? '';
  }
  return env;
}

interface TargetFile {
  readonly path: string;
  readonly mode: string;
  readonly content: string;
}

/** Files for the installed system, whatever image it is. */
export function targetFiles(plan: InstallPlan): TargetFile[] {
  const unit = read('target/halligan-call-home.service');
  return [
    { path: '/var/lib/cloud/seed/nocloud/meta-data', mode: '0600', content: plan.seed.metaData },
    { path: '/var/lib/cloud/seed/nocloud/user-data', mode: '0600', content: plan.seed.userData },
    { path: '/etc/halligan/call-home', mode: '0600', content: `${plan.callHome.url}\n${plan.callHome.token}\n` },
    { path: '/usr/lib/halligan/call-home', mode: '0755', content: read('target/call-home') },
    {
      path: '/etc/systemd/system/halligan-call-home.service',
      mode: '0644',
      // With user-data of the operator's the system is up when that is done: packages may be installed by it.
      content: plan.callHome.afterUserData
        ? unit.replace(/^(After=network-online.*)$/m, '$1 cloud-final.service')
        : unit,
    },
  ];
}

/**
 * The installation as a script for the executor. Throws ProblemError request-invalid when user-data is too large to be
 * handed over.
 */
export function renderInstallScript(plan: InstallPlan): RenderedScript {
  const files = targetFiles(plan);
  const env: Record<string, string> = {
    METHOD: plan.method,
    LAYOUT: plan.layout,
    IMAGE_URL: plan.image.url,
    IMAGE_SHA256: plan.image.sha256,
    RAW_BYTES: String(plan.image.rawBytes ?? 0),
    ROOT_PART: String(plan.image.rootPartition),
    ESP_PART: plan.image.espPartition === null ? '' : String(plan.image.espPartition),
    ROOT_BYTES: plan.rootBytes === null ? '' : String(Math.floor(plan.rootBytes / 512) * 512),
    ROOT_LABEL: plan.image.rootLabel,
    OURS: plan.image.ours ? '1' : '0',
    OWNER: plan.owner,
    WIPE: plan.wipe ? '1' : '0',
    HOST_NAME: plan.node.name,
    CONSOLE: plan.console,
    NETPLAN: base64(netplanYaml(plan.network)),
    ...diskEnv(plan.disks),
    FILE_COUNT: String(files.length),
  };
  for (const [index, file] of files.entries())
    env[`FILE_${index}`] = `${file.mode} ${file.path} ${base64(file.content)}`;
  for (const [name, value] of Object.entries(env)) {
    if (/[\0\n]/.test(value)) throw new Error(`${name} holds a line break`);
    if (value.length > MAX_VARIABLE_BYTES)
      fail('request-invalid', `The user-data of ${plan.node.name} is too large to be handed over.`);
  }
  return { script: read('common.sh') + read('install.sh'), env };
}

/** Erasing disks: `quick` removes everything that identifies data, `full` the data. */
export function renderEraseScript(disks: readonly DiskIdentity[], mode: 'quick' | 'full'): RenderedScript {
  return { script: read('common.sh') + read('erase.sh'), env: { ERASE: mode, ...diskEnv(disks) } };
}
