/** Guests that are reached without a network: by what the fake cloud knows of them. */
import type { Reach, TcpAnswer } from '../../../../installer/verify/types.js';
import { sleep } from '../../../../provisioner/core/clock.js';
import { ProblemError, problem } from '../../../../provisioner/core/problem.js';
import { contentsOf, type FakeCloud } from '../openstack/fake-cloud.js';

type Row = Record<string, unknown>;

export interface FakeReach extends Reach {
  readonly commands: string[];
  /** Lets everything through, whatever the security group says. */
  openFirewall: boolean;
  /** Whatever has been let in once is let in for good: rules that are taken away stay in force. */
  neverShuts: boolean;
  slowSshMs: number;
  /** Pings get no answer. */
  deaf: boolean;
  /** What a port says that no rule opens. */
  closedPort: TcpAnswer;
  /** Bytes of a ping from which on nothing arrives between guests. */
  mtuLimit: number;
}

export function fakeReach(cloud: FakeCloud): FakeReach {
  const serverAt = (address: string) => {
    const fip = cloud.tables['floatingips']!.find(f => f['floating_ip_address'] === address);
    const port = cloud.tables['ports']!.find(p => p['id'] === fip?.['port_id']);
    return cloud.servers.find(s => s.id === port?.['device_id']);
  };
  const once = new Set<string>();
  const lets = (address: string, protocol: string) => {
    const server = serverAt(address);
    const group = cloud.tables['security_groups']!.find(g => g['id'] === server?.group);
    const rules = (group?.['security_group_rules'] ?? []) as Row[];
    const opened = rules.some(r => r['direction'] === 'ingress' && r['protocol'] === protocol);
    if (opened) once.add(`${address} ${protocol}`);
    const stays = reach.neverShuts && once.has(`${address} ${protocol}`);
    return server !== undefined && (reach.openFirewall || opened || stays);
  };
  const reach: FakeReach = {
    commands: [],
    openFirewall: false,
    neverShuts: false,
    deaf: false,
    slowSshMs: 0,
    closedPort: 'silent',
    mtuLimit: 100_000,
    ping: async (address, { count }) => {
      // A ping that is lost takes its time.
      if (reach.deaf) await sleep(20);
      return { sent: count, received: lets(address, 'icmp') && !reach.deaf ? count : 0 };
    },
    connects: async address => {
      if (lets(address, 'tcp')) return 'taken';
      return serverAt(address) === undefined ? 'silent' : reach.closedPort;
    },
    ssh: async (address, hostKey, _privateKey, command) => {
      if (reach.slowSshMs > 0) await sleep(reach.slowSshMs);
      const server = serverAt(address);
      if (!server || !lets(address, 'tcp'))
        throw new ProblemError(problem('ssh-failed', `${address} could not be reached.`));
      if (cloud.hostKeys.get(server.id) !== hostKey)
        throw new ProblemError(problem('host-key-mismatch', `${address} showed another key.`));
      reach.commands.push(`${server.name}: ${command}`);
      const said = (stdout: string, code = 0) => ({ code, stdout, stderr: '' });
      const contents = contentsOf(cloud);
      const volume = server.volumes.at(-1) ?? '';
      if (command.endsWith('/boot_id'))
        return said(`${server.id.slice(0, -4)}${String(server.boots).padStart(4, '0')}\n`);
      if (command.startsWith('echo')) return said('proof\nLinux 6.1\n');
      if (command.includes('/sys/block')) return volume ? said('vdb\n') : said('vda\n', 1);
      const marker = /^printf %s (\S+) \| dd of=\/dev\/vdb/.exec(command)?.[1];
      if (marker) {
        contents.set(volume, Buffer.from(marker));
        return said('');
      }
      if (command.startsWith('dd if=/dev/vdb'))
        return said(`${contents.get(volume)?.toString() ?? ''}${'\0'.repeat(400)}`);
      const bytes = Number(/-s (\d+)/.exec(command)?.[1] ?? 56);
      if (command.includes('ping'))
        return bytes > reach.mtuLimit
          ? said('3 packets transmitted, 0 received, 100% packet loss', 1)
          : said('3 packets transmitted, 3 received, 0% packet loss');
      return said('', 127);
    },
  };
  return reach;
}
