/** From outside through the floating IP, and between the guests. */
import { sleep } from '../../../provisioner/core/clock.js';
import type { CommandResult } from '../../../provisioner/core/executor/types.js';
import { asProblem } from '../../../provisioner/core/problem.js';
import { items, text } from '../../openstack/json.js';
import { broken, call, made, type TestServer, until, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl } from '../runner.js';
import { sweepAway } from './prepare.js';
import { readConsole } from './servers.js';

/** Headers of IPv4 and ICMP: what an MTU has less for a ping's payload. */
const PING_HEADERS = 28;
const COMMAND_MS = 60_000;
/** One of three between guests: the first may wait for ARP. */
const LOST_PERCENT = 34;
/** To make a rule again after the step's time is up; within what the runner waits for a step that ends late. */
const RESTORE_MS = 8_000;

/** The two that the later steps work with. */
export const pair = (context: VerifyContext): readonly [TestServer, TestServer] => {
  const [a, b] = made(context, 'servers');
  return [a!, b!];
};

/**
 * A command in the guest, by SSH through its floating IP, with the host key that it wrote to its console. Tried until the
 * step's time is up: a guest that was just started or moved answers a little later, and shows another key after a new start.
 */
export async function onServer(
  context: VerifyContext,
  control: StepControl,
  server: TestServer,
  command: string,
): Promise<CommandResult> {
  const { privateKey } = made(context, 'key');
  return until(context, control, async () => {
    const facts = server.hostKey ? undefined : await readConsole(context, control, server);
    if (facts?.hostKey) server.hostKey = facts.hostKey;
    if (!server.hostKey || !server.floating)
      return { waitingFor: `${server.name} to show its SSH host key on its console` };
    try {
      const result = await context.reach.ssh(server.floating, server.hostKey, privateKey, command, {
        user: context.spec.guest.user,
        timeoutMs: COMMAND_MS * control.timeoutFactor,
        signal: control.signal,
      });
      return { done: result };
    } catch (error) {
      control.signal.throwIfAborted();
      const { code, message } = asProblem(error, 'ssh-failed');
      if (code === 'host-key-mismatch') delete server.hostKey;
      return { waitingFor: `SSH to ${server.name} at ${server.floating}: ${message}` };
    }
  });
}

/** The output of a command that must succeed. */
export async function outputOn(
  context: VerifyContext,
  control: StepControl,
  server: TestServer,
  command: string,
  what: string,
): Promise<string> {
  const { code, stdout, stderr } = await onServer(context, control, server, command);
  if (code !== 0)
    broken(
      `${what} failed in the guest of ${server.name} (exit code ${code}): ${(stderr || stdout).trim().slice(-300)}`,
    );
  return stdout;
}

export const floatingIp: Step<VerifyContext> = {
  name: 'floating-ip',
  title: 'Floating IPs',
  needs: ['servers', 'router'],
  expectedSeconds: 2,
  timeoutSeconds: 60,
  hint: 'Look at neutron-server’s log; does the external network have free addresses?',
  run: async (context, control) => {
    const user = made(context, 'user');
    for (const server of pair(context)) {
      const { body } = await call(user, control, 'network', 'GET', `/ports?device_id=${server.id}`);
      const port = text(items(body, 'ports')[0], 'id');
      if (!port) broken(`Neutron shows no port of server ${server.name}.`);
      const reply = await call(user, control, 'network', 'POST', '/floatingips', {
        floatingip: { floating_network_id: made(context, 'external').id, port_id: port },
      });
      server.floating = text(reply.body, 'floatingip', 'floating_ip_address');
    }
    return passed({ addresses: pair(context).map(s => `${s.name}: ${s.floating}`) });
  },
  undo: sweepAway('floating IP'),
};

const SSH_RULE = { protocol: 'tcp', port_range_min: 22, port_range_max: 22 } as const;

/** A rule in the run's security group, for all of IPv4; its id. */
async function letIn(
  context: VerifyContext,
  control: Pick<StepControl, 'signal' | 'timeoutFactor'>,
  rule: Readonly<Record<string, string | number>>,
): Promise<string> {
  const { body } = await call(made(context, 'user'), control, 'network', 'POST', '/security-group-rules', {
    security_group_rule: {
      security_group_id: made(context, 'group'),
      direction: 'ingress',
      ethertype: 'IPv4',
      remote_ip_prefix: '0.0.0.0/0',
      ...rule,
    },
  });
  return text(body, 'security_group_rule', 'id');
}

export const firewallClosed: Step<VerifyContext> = {
  name: 'firewall-closed',
  title: 'Nothing answers to ping and SSH while the security group is closed',
  needs: ['floating-ip', 'guest-ready'],
  expectedSeconds: 4,
  timeoutSeconds: 60,
  hint: 'The servers would be open to everybody: look at the ACLs (`ovn-nbctl list ACL`) or at the agent’s firewall driver. Is somebody else at this address?',
  run: async ({ made: { servers = [] }, reach }, control) => {
    const [a] = servers;
    const address = a!.floating!;
    const [{ received }, open] = await Promise.all([
      reach.ping(address, { count: 2, timeoutMs: 1500, signal: control.signal }),
      reach.connects(address, 22, { timeoutMs: 2500, signal: control.signal }),
    ]);
    // A refusal is an answer of the guest. That it is the firewall that keeps silent is proved by `firewall-shut`.
    const through = [...(received > 0 ? ['ping'] : []), ...(open === 'silent' ? [] : ['SSH'])];
    if (through.length > 0) broken(`${through.join(' and ')} got through to ${address} although no rule lets it in.`);
    return passed({ address });
  },
};

export const firewallOpen: Step<VerifyContext> = {
  name: 'ping',
  title: 'With rules for it, ping reaches the floating IPs',
  needs: ['firewall-closed'],
  expectedSeconds: 3,
  timeoutSeconds: 90,
  hint: 'Is the router’s gateway on a host with the external bridge (`ovn-nbctl lrp-get-gateway-chassis`)? Does this machine have a way to the external network? Look for ARP of the address on it.',
  run: async (context, control) => {
    const { reach } = context;
    await letIn(context, control, { protocol: 'icmp' });
    context.made.sshRule = await letIn(context, control, SSH_RULE);
    await Promise.all(
      pair(context).map(server =>
        until(context, control, async () => {
          const { received } = await reach.ping(server.floating!, {
            count: 1,
            timeoutMs: 2000,
            signal: control.signal,
          });
          return received > 0
            ? { done: undefined }
            : { waitingFor: `an answer of ${server.name} at ${server.floating} to a ping` };
        }),
      ),
    );
    return passed({ addresses: pair(context).map(s => s.floating) });
  },
};

export const ssh: Step<VerifyContext> = {
  name: 'ssh',
  title: 'SSH with the key pair, the host key checked against the console',
  needs: ['ping'],
  expectedSeconds: 4,
  timeoutSeconds: 120,
  hint: 'If ping works and SSH does not: the guest did not get the key (metadata), or TCP checksums are broken on the way (knowledge: userspace datapath).',
  run: async (context, control) => {
    const answers = await Promise.all(
      pair(context).map(server => outputOn(context, control, server, 'echo proof; uname -sr', 'A command')),
    );
    if (!answers.every(answer => answer.includes('proof')))
      broken('SSH answered, but not with what the command prints.');
    return passed({ kernel: answers[0]!.replace('proof', '').trim() });
  },
};

/** Silence for this long, or for so many times of what an answer took, is no slow answer. */
const SILENCE_MS = 2500;
const SILENCE_TIMES = 5;

export const firewallShut: Step<VerifyContext> = {
  name: 'firewall-shut',
  title: 'Without its rule SSH is blocked again, while ping goes on',
  needs: ['ssh'],
  expectedSeconds: 5,
  timeoutSeconds: 90,
  hint: 'Rules that are taken away stay in force: look at the ACLs (`ovn-nbctl list ACL`) and whether ovn-controller on the compute follows its database.',
  run: async (context, control) => {
    const { reach, admin } = context;
    const [a] = pair(context);
    const address = a.floating!;
    const knock = (timeoutMs: number) => reach.connects(address, 22, { timeoutMs, signal: control.signal });
    const untilTaken = () =>
      until(context, control, async () =>
        (await knock(SILENCE_MS * control.timeoutFactor)) === 'taken'
          ? { done: undefined }
          : { waitingFor: `a connection to port 22 of ${a.name} at ${address}` },
      );
    await untilTaken();
    const began = admin.clock.monotonicMs();
    await untilTaken();
    const patienceMs = Math.max(SILENCE_MS, SILENCE_TIMES * (admin.clock.monotonicMs() - began));
    let shut = false;
    try {
      await call(
        made(context, 'user'),
        control,
        'network',
        'DELETE',
        `/security-group-rules/${made(context, 'sshRule')}`,
      );
      await until(context, control, async () => {
        const answer = await knock(patienceMs);
        // The way itself must stand meanwhile, else silence says nothing of the firewall.
        const { received } = await reach.ping(address, {
          count: 1,
          timeoutMs: Math.max(2000, patienceMs),
          signal: control.signal,
        });
        control.signal.throwIfAborted();
        if (answer !== 'silent')
          return { waitingFor: `port 22 of ${address} to be shut; it still answers (${answer})` };
        if (received === 0) return { waitingFor: `an answer of ${address} to a ping while port 22 is shut` };
        return { done: undefined };
      });
      shut = true;
    } finally {
      // Also when the time is up: what comes after needs the rule.
      const signal = shut ? control.signal : AbortSignal.timeout(RESTORE_MS);
      context.made.sshRule = await letIn(context, { ...control, signal }, SSH_RULE);
    }
    await untilTaken();
    return passed({ address, silentSeconds: Math.round(patienceMs / 100) / 10 });
  },
};

/** Pings in the guest; a full-size one must not be fragmented. busybox has no -M, and Linux sets DF by itself on what fits. */
export const pingCommand = (address: string, bytes?: number): string =>
  bytes === undefined
    ? `ping -c 3 -W 5 ${address}`
    : `if ping -h 2>&1 | grep -qi busybox; then ping -c 3 -W 5 -s ${bytes} ${address}; else ping -M do -c 3 -W 5 -s ${bytes} ${address}; fi`;

export const eastWest: Step<VerifyContext> = {
  name: 'east-west',
  title: 'Guests reach each other, with full-size packets too',
  needs: ['ssh'],
  // While its rule is away nobody gets in.
  after: ['firewall-shut'],
  expectedSeconds: 8,
  timeoutSeconds: 120,
  hint: 'Between two computes: do their tunnel addresses reach each other (UDP 6081 for geneve), and is the network below wide enough for the MTU plus the tunnel’s header?',
  run: async (context, control) => {
    const [a, b] = pair(context);
    const { mtu } = made(context, 'network');
    const across = a.host === b.host ? `both on ${a.host}` : `${a.host} to ${b.host}`;
    const loss = async (bytes: number | undefined) => {
      const { stdout, stderr, code } = await onServer(context, control, a, pingCommand(b.address, bytes));
      const lost = /(\d+)% packet loss/.exec(stdout)?.[1];
      if (code !== 0 || lost === undefined || Number(lost) >= 100)
        broken(
          bytes === undefined
            ? `${a.name} does not reach ${b.name} at ${b.address} (${across}): ${(stderr || stdout).trim().slice(-200)}`
            : `${a.name} reaches ${b.name} (${across}) with small packets, but not with ${mtu} bytes, the network's MTU.`,
        );
      if (Number(lost) > LOST_PERCENT)
        broken(`${lost} % of the pings of ${a.name} to ${b.name} (${across}, ${bytes ?? 56} bytes) were lost.`);
      return Number(lost);
    };
    const small = await loss(undefined);
    const full = mtu > PING_HEADERS ? await loss(mtu - PING_HEADERS) : null;
    return passed({ across, mtu, lostPercent: full === null ? small : Math.max(small, full) });
  },
};

/** What became of pings that were sent once a second. */
export interface PingWatch {
  readonly sent: number;
  readonly lost: number;
  /** The longest time from one answer to the next, or to the end. */
  readonly silenceMs: number;
}

/** Pings once a second until told to stop; `timeoutMs` is what an answer may take. */
export function watchPings(
  { reach, admin: { clock } }: Pick<VerifyContext, 'reach' | 'admin'>,
  address: string,
  timeoutMs: number,
): { stop(): Promise<PingWatch> } {
  const stop = new AbortController();
  let sent = 0;
  let lost = 0;
  let answeredMs = clock.monotonicMs();
  let silenceMs = 0;
  const done = (async () => {
    while (!stop.signal.aborted) {
      const { received } = await reach.ping(address, { count: 1, timeoutMs }).catch(() => ({ received: 0 }));
      sent++;
      silenceMs = Math.max(silenceMs, clock.monotonicMs() - answeredMs);
      if (received === 0) {
        lost++;
        continue;
      }
      answeredMs = clock.monotonicMs();
      await sleep(1000, stop.signal);
    }
  })();
  return {
    stop: async () => {
      stop.abort();
      await done;
      return { sent, lost, silenceMs };
    },
  };
}
