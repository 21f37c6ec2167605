/**
 * The lab's agent: one process per lab, inside its network namespace, that is the BMCs and owns the QEMU processes.
 * When it ends, however it ends, its machines end with it (PR_SET_PDEATHSIG).
 *
 *   node agent.js LAB.json       started by labUp; SIGTERM ends it cleanly
 *
 * Its socket (agent.sock, root only) takes one line per connection:
 *   status                                   → JSON LabNodeStatus[]
 *   power NODE on|off|cycle|reset|shutdown   → "ok" or "error: …"
 *   boot NODE none|pxe|hdd [persistent]      → "ok"
 *   chassis NODE get|set NAME [VALUE]…   → what ipmi_sim wants: lines NAME:VALUE
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { chassisScript, EMULATOR, ipmiPaths, lanConf, lanScript } from './ipmisim.js';
import { type Machine, startMachine } from './machine.js';
import { identify } from './procs.js';
import { redfishService } from './redfish.js';
import type { BootOverride, Lab, LabNode } from './types.js';

const LINE_MAX = 1024;

function startIpmiSim(lab: Lab, node: LabNode, password: string, log: (line: string) => void): ChildProcess {
  const paths = ipmiPaths(node);
  // Accounts that a node made in-band live as long as the lab.
  mkdirSync(paths.state, { recursive: true, mode: 0o700 });
  writeFileSync(paths.config, lanConf(lab, node, password), { mode: 0o600 });
  writeFileSync(paths.emulator, EMULATOR, { mode: 0o600 });
  writeFileSync(paths.chassis, chassisScript(lab, node), { mode: 0o700 });
  writeFileSync(paths.lan, lanScript(node), { mode: 0o700 });
  const out = openSync(paths.log, 'a', 0o600);
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', 'ipmi_sim', '-c', paths.config, '-f', paths.emulator, '-s', paths.state, '-n'],
    { stdio: ['ignore', out, out] },
  );
  child.once('error', error => log(`${node.name}: ipmi_sim: ${error.message}`));
  child.once('exit', (code, signal) => log(`${node.name}: ipmi_sim ended (${signal ?? code})`));
  return child;
}

/** Answers ipmi_sim's chassis script. Unknown names are answered with 0, as a BMC without that feature does. */
export async function chassis(machine: Machine, words: readonly string[]): Promise<string> {
  const [op, ...rest] = words;
  if (op === 'get') {
    return rest
      .map(name => {
        if (name === 'power') return `power:${machine.power() === 'on' ? 1 : 0}`;
        if (name === 'boot') return `boot:${{ none: 'none', pxe: 'pxe', hdd: 'default' }[machine.boot().target]}`;
        return `${name}:0`;
      })
      .join('\n');
  }
  for (let i = 0; i + 1 < rest.length; i += 2) {
    const [name, value] = [rest[i], rest[i + 1]];
    if (name === 'power') await (value === '1' ? machine.on() : machine.off('power off by BMC'));
    else if (name === 'reset' && value === '1') await machine.reset();
    else if (name === 'shutdown' && value === '1') await machine.shutdown();
    else if (name === 'boot') {
      const target: BootOverride['target'] = value === 'pxe' ? 'pxe' : value === 'default' ? 'hdd' : 'none';
      machine.setBoot({ target, once: true });
    }
  }
  return '';
}

async function main(file: string): Promise<void> {
  const lab = JSON.parse(readFileSync(file, 'utf8')) as Lab;
  const password = readFileSync(lab.bmcPasswordFile, 'utf8').trim();
  const logFile = join(lab.dir, 'agent.log');
  const log = (line: string) => appendFileSync(logFile, `${new Date().toISOString()} ${line}\n`);
  const machines = new Map<string, Machine>();
  const children: ChildProcess[] = [];
  const servers: Server[] = [];
  for (const node of lab.nodes) {
    const machine = await startMachine(lab, node, log);
    machines.set(node.name, machine);
    if (node.bmc.driver === 'ipmi') {
      children.push(startIpmiSim(lab, node, password, log));
    } else {
      const server = createHttpsServer(
        { cert: readFileSync(join(lab.dir, 'bmc.crt')), key: readFileSync(join(lab.dir, 'bmc.key')) },
        redfishService({
          machine,
          identity: node,
          firmware: node.firmware,
          user: lab.bmcUser,
          password,
        }),
      );
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(443, node.bmc.ip, resolve);
      });
      servers.push(server);
    }
  }

  const answer = async (line: string): Promise<string> => {
    const [verb, name = '', ...words] = line.trim().split(/\s+/);
    if (verb === 'status') return JSON.stringify([...machines.values()].map(machine => machine.status()));
    const machine = machines.get(name);
    if (!machine) return `error: there is no node "${name}"`;
    if (verb === 'chassis') return chassis(machine, words);
    if (verb === 'boot') {
      const target = words[0];
      if (target !== 'none' && target !== 'pxe' && target !== 'hdd') return 'error: none, pxe or hdd was expected';
      machine.setBoot({ target, once: words[1] !== 'persistent' });
      return 'ok';
    }
    if (verb !== 'power') return 'error: unknown command';
    switch (words[0]) {
      case 'on':
        await machine.on();
        return 'ok';
      case 'off':
        await machine.off('power off by the lab');
        return 'ok';
      case 'cycle':
        await machine.off('power cycle by the lab');
        await machine.on();
        return 'ok';
      case 'reset':
        await machine.reset();
        return 'ok';
      case 'shutdown':
        await machine.shutdown();
        return 'ok';
      default:
        return 'error: on, off, cycle, reset or shutdown was expected';
    }
  };
  const control = createServer({ allowHalfOpen: true }, socket => {
    let text = '';
    let answered = false;
    socket.setEncoding('utf8').setTimeout(90_000, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('data', (part: string) => {
      if (answered) return;
      text += part;
      if (text.length > LINE_MAX) return void socket.destroy();
      const end = text.indexOf('\n');
      if (end < 0) return;
      answered = true;
      answer(text.slice(0, end))
        .catch(error => {
          const message = error instanceof Error ? error.message : String(error);
          log(`${text.slice(0, end)}: ${message}`);
          return `error: ${message}`;
        })
        .then(reply => socket.end(`${reply}\n`));
    });
  });
  const path = join(lab.runDir, 'agent.sock');
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    control.once('error', reject);
    control.listen(path, resolve);
  });

  let ending = false;
  const end = async () => {
    if (ending) return;
    ending = true;
    log('agent: ending');
    rmSync(path, { force: true });
    control.close();
    for (const server of servers) server.close();
    await Promise.all([...machines.values()].map(machine => machine.close()));
    for (const child of children) child.kill('SIGKILL');
    process.exit(0);
  };
  process.on('SIGTERM', () => void end());
  process.on('SIGINT', () => void end());
  writeFileSync(join(lab.runDir, 'agent.json'), JSON.stringify(identify(process.pid)), { mode: 0o600 });
  log(`agent: ready (pid ${process.pid}, ${lab.accel}: ${lab.accelReason})`);
}

const [, , file] = process.argv;
if (file) {
  main(file).catch(error => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  });
}
