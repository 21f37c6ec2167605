/**
 * IPMI 2.0 over LAN (RMCP+) by ipmitool. The password goes by the environment of that one process, never by its
 * command line; nothing is left on disk after a crash.
 */
import { execFile } from 'node:child_process';
import { fail, type Problem, ProblemError, problem } from '../core/problem.js';
import type { Bmc } from '../site/schema.js';
import { hidePassword } from './hide.js';
import type { PowerDriver, PowerState } from './types.js';

export interface IpmiTarget {
  readonly host: string;
  readonly port: number;
}

export interface ToolResult {
  /** Null when it was ended by the time limit. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs ipmitool with these arguments and environment additions. Rejects only when it cannot be started. */
export type ToolRunner = (
  args: readonly string[],
  env: Record<string, string>,
  timeoutMs: number,
) => Promise<ToolResult>;

/** Two seconds a try, with ipmitool's own growing pauses: a silent BMC is given up after about 10 s. */
const RETRY_ARGS = ['-N', '2', '-R', '2'];
const CALL_TIMEOUT_MS = 25_000;

export const runIpmitool: ToolRunner = (args, env, timeoutMs) =>
  new Promise((resolve, reject) => {
    execFile(
      'ipmitool',
      [...args],
      {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: 256 * 1024,
        // ipmitool caches and localises nothing that we need; HOME keeps it from reading the operator's files.
        env: {
          PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
          HOME: '/nonexistent',
          LC_ALL: 'C',
          ...env,
        },
      },
      (error, stdout, stderr) => {
        if (error?.code === ('ENOENT' as unknown)) {
          return reject(new ProblemError(problem('dependency-missing', 'ipmitool is not installed.')));
        }
        resolve({ code: error ? (typeof error.code === 'number' ? error.code : null) : 0, stdout, stderr });
      },
    );
  });

/** `host`, `host:port` or `[v6]:port`. Throws ProblemError bmc-unsupported. */
export function parseIpmiAddress(address: string | undefined): IpmiTarget {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9][A-Za-z0-9.-]{0,252}))(?::(\d{1,5}))?$/.exec(address ?? '');
  const port = Number(match?.[3] ?? 623);
  const host = match?.[1] ?? match?.[2];
  if (!host || port < 1 || port > 65_535) {
    return fail('bmc-unsupported', `"${address ?? ''}" is no address of an IPMI BMC: host[:port] was expected.`);
  }
  return { host, port };
}

/** argv of ipmitool without the password. */
export function ipmiArgs(
  target: IpmiTarget,
  bmc: Pick<Bmc, 'user' | 'cipher_suite'>,
  command: readonly string[],
): string[] {
  return [
    ...['-I', 'lanplus', '-H', target.host, '-p', String(target.port)],
    // Without -C ipmitool probes for 10 s, and many BMCs refuse its favourite, suite 17.
    ...['-C', String(bmc.cipher_suite ?? 3), '-L', 'ADMINISTRATOR'],
    // -E takes the password from the environment; -v is what names the reason of a refused session.
    ...['-U', bmc.user ?? '', '-E', '-v', ...RETRY_ARGS],
    ...command,
  ];
}

/** What ipmitool's words mean. Pure. */
export function ipmiProblem(where: string, result: ToolResult): Problem {
  const text = `${result.stderr}\n${result.stdout}`;
  if (
    /RAKP 2 HMAC is invalid|unauthorized name|RAKP 4 message.*(invalid|error)|Password.*(invalid|verification)/i.test(
      text,
    )
  ) {
    return problem('bmc-auth', `The BMC ${where} refused the user name or password.`);
  }
  if (
    /insufficient (privilege|permission)|privilege level.*(exceed|not|insufficient)|unauthorized (role|GUID)/i.test(
      text,
    )
  ) {
    return problem('bmc-auth', `The BMC ${where} does not give this account administrator rights.`);
  }
  const cipher = /(invalid|no) (authentication|integrity|confidentiality) algorithm|no matching cipher|cipher suite/i;
  if (/open session response message/i.test(text) && cipher.test(text)) {
    return problem('bmc-protocol', `The BMC ${where} does not accept this cipher suite.`, {
      hint: 'Set `cipher_suite` of the BMC: 17 on newer ones, 3 on older.',
      retry: false,
    });
  }
  if (
    result.code === null ||
    /Get Auth Capabilities error|no response|timed? ?out|unreachable|refused|Could not open socket|Address lookup/i.test(
      text,
    )
  ) {
    return problem('bmc-silent', `The BMC ${where} did not answer.`);
  }
  const last = text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line && !/IANA PEN|Unable to establish/.test(line))
    .pop();
  if (/Invalid command|not supported|Invalid data field|Command not supported/i.test(text)) {
    return problem('bmc-unsupported', `The BMC ${where} cannot do that: ${(last ?? '').slice(0, 200)}`);
  }
  if (/Unable to establish/.test(text) && !last) return problem('bmc-silent', `The BMC ${where} opened no session.`);
  return problem('bmc-protocol', `The BMC ${where} answered: ${(last ?? 'nothing').slice(0, 200)}`);
}

export function createIpmiDriver(bmc: Bmc, password: string | null, run: ToolRunner = runIpmitool): PowerDriver {
  const target = parseIpmiAddress(bmc.address);
  const where = bmc.address ?? '';
  const call = async (...command: string[]): Promise<string> => {
    const result = await run(ipmiArgs(target, bmc, command), { IPMI_PASSWORD: password ?? '' }, CALL_TIMEOUT_MS);
    if (result.code !== 0)
      throw new ProblemError(
        ipmiProblem(where, {
          ...result,
          stdout: hidePassword(result.stdout, password),
          stderr: hidePassword(result.stderr, password),
        }),
      );
    return result.stdout;
  };
  return {
    async status(): Promise<PowerState> {
      const state = /Chassis Power is (on|off)/i.exec(await call('chassis', 'power', 'status'))?.[1];
      return (state?.toLowerCase() as PowerState | undefined) ?? 'unknown';
    },
    async on() {
      await call('chassis', 'power', 'on');
    },
    async off() {
      await call('chassis', 'power', 'off');
    },
    async bootFromNetworkOnce(firmware) {
      await call('chassis', 'bootdev', 'pxe', ...(firmware === 'uefi' ? ['options=efiboot'] : []));
      const set = await call('chassis', 'bootparam', 'get', '5');
      const device = /Boot Device Selector\s*:\s*(.*)/.exec(set)?.[1]?.trim();
      if (device && !/PXE/i.test(device)) {
        fail('bmc-lies', `The BMC ${where} accepted the network as next boot device, but has "${device}".`);
      }
    },
    async close() {},
  };
}
