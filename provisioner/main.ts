#!/usr/bin/env node
/** Composition root: the only place that reads flags and environment, wires everything, and ends the process. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { stringify } from 'yaml';
import { packagesOfRoles } from '../installer/model/packages.js';
import { loadRelease, releaseNames, unknownRelease } from '../installer/model/releases.js';
import { machineFacts } from '../installer/model/sample.js';
import { createCloudHalf } from '../installer/start.js';
import { catalogue } from '../roles/catalogue.js';
import { runCli } from './cli/cli.js';
import { socketClient } from './cli/client.js';
import type { LabReport } from './cli/deps.js';
import { backup, DATABASE_FILE, restore } from './core/backup.js';
import { systemClock as clock } from './core/clock.js';
import type { CloudSettings } from './core/cloud-settings.js';
import { packageRoot } from './core/distributions/load.js';
import { lockDatabase } from './core/lock.js';
import { fail } from './core/problem.js';
import { operatorKey, runDemo } from './demo/run.js';
import { buildOsImage } from './image/os.js';
import { createImageStore } from './image/store.js';
import { buildImage, importImage } from './images.js';
import { type Lab, labCpuSeconds, labDown, labStatus, labUp } from './lab/index.js';
import { startServer } from './serve.js';
import { cloudSettings } from './site/cloud.js';
import { loadSiteOrThrow } from './site/load.js';

// Everything that we make is for the owner alone (threat T20).
process.umask(0o077);

const root = packageRoot();
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const { env } = process;
const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stop.abort());
const credentials = env['CREDENTIALS_DIRECTORY'];
const labDirOf = (name: string) => join('/var/lib/halligan/lab', name);

/** What a cloud is like when no site file says it: volumes on LVM, and objects. */
function usualCloud(): CloudSettings {
  const devices = [{ path: '/dev/sdb' }];
  const text = stringify({
    version: 2,
    name: 'usual',
    networks: [{ name: 'boot', cidr: '192.0.2.0/24', pool: { from: '192.0.2.200', to: '192.0.2.210' } }],
    cloud: { volumes: { devices }, objects: { devices } },
  });
  return cloudSettings(loadSiteOrThrow(text, 'the usual cloud').site)!;
}

/** A bug: said, recorded, and the process ends; its supervisor starts it again. Never "carry on". */
const crash = (error: unknown) => {
  process.stderr.write(`halligan: a bug, please report it: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
};
process.on('uncaughtException', crash);
process.on('unhandledRejection', crash);

async function report(where: { name: string; dir?: string }): Promise<LabReport> {
  const status = await labStatus({ dir: labDirOf(where.name), ...where });
  return {
    name: status.name,
    running: status.running,
    reason: status.reason,
    siteFile: status.lab ? join(status.lab.dir, 'site.yaml') : null,
    netns: status.lab?.netns ?? null,
    machines: [
      ...(status.lab?.nodes ?? []).map(node => ({
        name: node.name,
        power: status.nodes.find(n => n.name === node.name)?.power ?? 'unknown',
        firmware: node.firmware,
        macs: node.macs,
        bmc: `${node.bmc.driver} ${node.bmc.address}`,
      })),
      ...(status.lab?.hosts ?? []).map(host => ({
        name: host.name,
        power: 'on',
        firmware: 'container',
        macs: [host.mac],
        bmc: `ssh ${host.address} ${host.hostKey}`,
      })),
    ],
  };
}

await runCli(
  {
    version,
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env,
    clock,
    signal: stop.signal,
    exit: code => {
      process.exitCode = code;
      // Output that a pipe has not taken yet is given the time; what hangs beyond that is not.
      setTimeout(() => process.exit(code), 500).unref();
    },
    connect: socketClient,
    async serve({ loaded }) {
      const log = pino({ level: env['HALLIGAN_LOG'] ?? 'info', base: null }, pino.destination(1));
      const server = await startServer({ loaded, version, clock, log, env, cloud: createCloudHalf(catalogue) });
      for (const line of server.listening) log.info({}, line);
      await new Promise<void>(resolve => {
        if (stop.signal.aborted) resolve();
        stop.signal.addEventListener('abort', () => resolve(), { once: true });
      });
      log.info({}, 'stopping');
      await server.close();
    },
    async demo(command, print) {
      const { dir, report: reportFile, firmware, ...rest } = command;
      const result = await runDemo(
        {
          ...rest,
          dir: dir ?? join(root, '.cache/demo'),
          ...(reportFile === undefined ? {} : { report: reportFile }),
          ...(firmware === undefined ? {} : { firmware }),
        },
        {
          clock,
          print,
          async buildImages(dataDir, image, onProgress) {
            // Little compression: the demo builds once and writes twice.
            for (const name of ['ram-cloud', image])
              await buildImage({ name, dataDir, clock, compression: 3, signal: stop.signal, onProgress });
          },
          labUp,
          labDown: (lab: Lab) => labDown({ name: lab.name, dir: lab.dir }),
          labCpuSeconds,
          self: [process.execPath, join(root, 'dist/provisioner/main.js')],
          signal: stop.signal,
        },
      );
      return result.nodes.every(n => n.result === 'installed');
    },
    buildImage: (command, onProgress) =>
      buildImage({
        ...command,
        clock,
        signal: stop.signal,
        onProgress,
        ...(credentials === undefined ? {} : { credentialsDirectory: credentials }),
      }),
    async bakeRoles(command, onProgress) {
      const { roles, kernel, dataDir, mirror, force } = command;
      const release = loadRelease(command.release);
      if (!release) {
        const { message, hint } = unknownRelease(command.release, releaseNames());
        return fail('request-invalid', message, { hint });
      }
      const settings = { ...(command.cloud ?? usualCloud()), release: release.name };
      const list = packagesOfRoles({ catalogue, release, settings, facts: machineFacts(release) }, roles);
      const startedMs = clock.nowMs();
      const image = await buildOsImage({
        name: release.distribution,
        kernel,
        imagesDir: join(dataDir, 'images'),
        bake: { roles, ...list, archives: release.archives },
        force,
        signal: stop.signal,
        onProgress,
        ...(mirror === undefined ? {} : { mirror }),
      });
      return {
        name: image.name,
        roles,
        path: join(dataDir, 'images', image.name),
        packages: image.baked?.packages ?? 0,
        seconds: image.baked?.seconds ?? 0,
        cached: image.createdMs < startedMs,
      };
    },
    importImage: (command, onProgress) => importImage({ ...command, signal: stop.signal, onProgress }),
    listImages: dataDir => createImageStore(join(dataDir, 'images')).list(),
    async labUp(command, progress) {
      const { nodes, diskGiB, memoryMiB, bmc, firmware, nics, dir, ...rest } = command;
      progress(`Lab ${command.name}: ${nodes} ${command.kind === 'qemu' ? 'machines' : 'hosts'}`);
      const folder = dir ?? labDirOf(command.name);
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      const key = await operatorKey(folder);
      await labUp({
        ...rest,
        dir: folder,
        sshKeys: [key.public],
        nodes: Array.from({ length: nodes }, (_, i) => ({
          name: `n${String(i + 1).padStart(2, '0')}`,
          firmware: firmware ?? (i % 2 === 0 ? 'bios' : 'uefi'),
          disks: [diskGiB],
          nics,
          bmc: bmc === 'both' ? (i % 2 === 0 ? 'ipmi' : 'redfish') : bmc,
          ...(memoryMiB === undefined ? {} : { memoryMiB }),
        })),
        siteNodes: true,
      });
      progress(`private key of the operator: ${key.file}`);
      return report({ name: command.name, ...(dir === undefined ? {} : { dir }) });
    },
    labStatus: report,
    async labDown(where) {
      const done = await labDown({ dir: labDirOf(where.name), ...where });
      return `Lab ${where.name}: ended ${done.processes} processes${done.namespace ? ', removed its network' : ''}${done.files ? ', removed its files' : ''}.`;
    },
    async backup(command) {
      const done = await backup({ ...command, clock });
      return `Wrote ${done.file}: ${done.bytes} bytes, ${done.encrypted ? 'encrypted' : 'NOT encrypted'}, SHA-256 ${done.sha256}.`;
    },
    async restore(command) {
      // Held while files are exchanged, so that no server starts on half of them; and refused while one runs.
      const lock = lockDatabase(join(command.dataDir, DATABASE_FILE));
      try {
        const done = await restore({ ...command, clock });
        return `Restored the backup of ${new Date(done.createdMs).toISOString()} into ${command.dataDir}${done.replaced ? `; what was there is in ${done.replaced}` : ''}.`;
      } finally {
        lock.release();
      }
    },
  },
  process.argv.slice(2),
);
