/** One lab machine: starts and ends QEMU as its BMC says, holds the boot override, serves the serial console. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { openRecording } from '../console/recording.js';
import { sleep } from '../core/clock.js';
import { processStat } from './procs.js';
import { bootIndexes, qemuArgs, sockets } from './qemu.js';
import type { ChassisMachine } from './redfish.js';
import type { BootOverride, Lab, LabNode, LabNodeStatus } from './types.js';

export interface Machine extends ChassisMachine {
  status(): LabNodeStatus;
  close(): Promise<void>;
}

const NONE: BootOverride = { target: 'none', once: true };
const SAMPLE_MS = 500;
const CONSOLE_CLIENTS_MAX = 32;
/** A console client that is further behind is cut off, so that none of them can stop the machine. */
const CLIENT_BACKLOG_BYTES = 1024 * 1024;

interface Life {
  readonly child: ChildProcess;
  readonly exited: Promise<void>;
  /** Newest CPU seconds seen. */
  cpuSeconds: number;
  ending: string | null;
  qmp: Socket | null;
}

function listen(server: Server, where: string | { port: number; host: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      server.on('error', () => {});
      resolve();
    });
  });
}

/** Opens the machine's sockets; it stays off. `log` gets one line per change of power. */
export async function startMachine(lab: Lab, node: LabNode, log: (line: string) => void): Promise<Machine> {
  let life: Life | null = null;
  let boot = NONE;
  let pastCpuSeconds = 0;
  let lives = 0;
  let ended: string | null = null;
  let queue: Promise<unknown> = Promise.resolve();
  const recording = openRecording(node.consoleLog, 32 * 1024 * 1024);
  const clients = new Set<Socket>();
  let serial: Socket | null = null;
  const paths = sockets(node);

  /** One thing at a time: a BMC command never overtakes another. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const next = queue.then(work, work);
    queue = next.catch(() => {});
    return next;
  };

  const sample = () => {
    const pid = life?.child.pid;
    const stat = pid === undefined ? null : processStat(pid);
    // A zombie still tells its times; an exec that is not QEMU yet is a part of its life, too.
    if (life && stat) life.cpuSeconds = Math.max(life.cpuSeconds, stat.cpuSeconds);
  };
  const sampler = setInterval(sample, SAMPLE_MS);

  const serialServer = createServer(socket => {
    serial?.destroy();
    serial = socket;
    socket.on('data', data => {
      recording.write(data);
      for (const client of clients) {
        client.write(data);
        if (client.writableLength > CLIENT_BACKLOG_BYTES) client.destroy();
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      if (serial === socket) serial = null;
    });
  });
  const consoleClient = (socket: Socket) => {
    if (clients.size >= CONSOLE_CLIENTS_MAX) return socket.destroy();
    clients.add(socket);
    socket.on('data', data => serial?.write(data));
    socket.on('error', () => {});
    socket.on('close', () => clients.delete(socket));
    return undefined;
  };
  const consoleServer = createServer(consoleClient);
  // `ipmi_sim` reaches the line by TCP only; this is the loopback of the lab's namespace.
  const solServer = node.bmc.driver === 'ipmi' ? createServer(consoleClient) : null;

  const tell = (command: Record<string, unknown>) => life?.qmp?.write(`${JSON.stringify(command)}\n`);
  const applyIndexes = (target: BootOverride['target']) => {
    if (node.firmware === 'uefi') return;
    const order = bootIndexes(node, target);
    const set = (path: string, value: number) =>
      tell({ execute: 'qom-set', arguments: { path: `/machine/peripheral/${path}`, property: 'bootindex', value } });
    // Two devices must never have one index at the same time.
    for (const i of order.nics.keys()) set(`nic${i}`, 1000 + i);
    for (const [i, index] of order.disks.entries()) set(`disk${i}`, index);
    for (const [i, index] of order.nics.entries()) set(`nic${i}`, index);
  };

  const qmpServer = createServer(socket => {
    if (!life) return socket.destroy();
    const mine = life;
    mine.qmp = socket;
    socket.setEncoding('utf8');
    socket.write('{"execute":"qmp_capabilities"}\n');
    let pending = '';
    socket.on('data', (text: string) => {
      pending += text;
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) onQmp(mine, line);
    });
    socket.on('error', () => {});
    return undefined;
  });

  const onQmp = (mine: Life, line: string) => {
    let message: { event?: string; data?: { guest?: boolean; reason?: string } };
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    if (message.event === 'SHUTDOWN') {
      mine.ending ??= `switched off: ${message.data?.reason ?? 'guest'}`;
      sample();
      mine.child.kill('SIGKILL');
    } else if (message.event === 'RESET') {
      log(`${node.name}: reset (${message.data?.reason ?? 'unknown'})`);
      // The override is given to QEMU at its start.
      if (boot.target !== 'none') void restart('reset with a boot override').catch(error => log(String(error)));
    }
  };

  const start = async () => {
    if (life) return;
    const target = boot.target;
    if (boot.once) boot = NONE;
    // The sooner of agent and machine to die takes the other's processes along: nothing is left behind.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemuArgs(lab, node, target)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let complaint = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-2000);
    });
    const mine: Life = { child, cpuSeconds: 0, ending: null, qmp: null, exited: Promise.resolve() };
    life = mine;
    lives++;
    (mine as { exited: Promise<void> }).exited = new Promise(resolve => {
      const done = (why: string) => {
        pastCpuSeconds += mine.cpuSeconds;
        ended = mine.ending ?? why;
        if (life === mine) life = null;
        mine.qmp?.destroy();
        log(`${node.name}: off (${ended}), ${mine.cpuSeconds.toFixed(1)} CPU seconds`);
        resolve();
      };
      child.once('error', error => done(error.message));
      child.once('exit', (code, signal) => done(`QEMU ended by itself (${signal ?? code}): ${complaint.trim()}`));
    });
    log(`${node.name}: on, boot ${target}`);
    // QEMU that cannot start says so at once; a BMC that reports success then would lie.
    await Promise.race([mine.exited, sleep(150)]);
    for (let i = 0; i < 100 && life === mine && !mine.qmp; i++) await Promise.race([mine.exited, sleep(50)]);
    if (life !== mine) throw new Error(`QEMU did not start: ${ended}`);
    if (target !== 'none') {
      // A warm restart by the guest itself must not find the override again.
      applyIndexes('none');
    }
  };
  const stop = async (reason: string) => {
    const mine = life;
    if (!mine) return;
    mine.ending ??= reason;
    sample();
    mine.child.kill('SIGKILL');
    await mine.exited;
  };
  const restart = (reason: string) =>
    inTurn(async () => {
      await stop(reason);
      await start();
    });

  for (const path of [paths.serial, paths.qmp, paths.qmpUser, node.console]) rmSync(path, { force: true });
  await listen(serialServer, paths.serial);
  await listen(qmpServer, paths.qmp);
  await listen(consoleServer, node.console);
  if (solServer) await listen(solServer, { port: node.solPort, host: '127.0.0.1' });

  return {
    power: () => (life ? 'on' : 'off'),
    boot: () => boot,
    setBoot(override) {
      boot = override;
      log(`${node.name}: boot override ${override.target}${override.once ? ' once' : ''}`);
    },
    on: () => inTurn(start),
    off: reason => inTurn(() => stop(reason)),
    reset: () =>
      inTurn(async () => {
        if (!life) return;
        if (boot.target === 'none') {
          tell({ execute: 'system_reset' });
          return;
        }
        await stop('reset by BMC');
        await start();
      }),
    shutdown: () =>
      inTurn(async () => {
        tell({ execute: 'system_powerdown' });
      }),
    status() {
      sample();
      return {
        name: node.name,
        power: life ? 'on' : 'off',
        pid: life?.child.pid ?? null,
        boot,
        cpuSeconds: Math.round((pastCpuSeconds + (life?.cpuSeconds ?? 0)) * 100) / 100,
        lives,
        ended,
      };
    },
    async close() {
      await inTurn(() => stop('the lab ended'));
      clearInterval(sampler);
      for (const client of clients) client.destroy();
      serial?.destroy();
      await Promise.all(
        [serialServer, qmpServer, consoleServer, solServer].map(
          server => new Promise<void>(resolve => (server ? server.close(() => resolve()) : resolve())),
        ),
      );
      recording.close();
    },
  };
}
