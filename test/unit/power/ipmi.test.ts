import { describe, expect, test } from 'vitest';
import { ProblemError } from '../../../provisioner/core/problem.js';
import {
  createIpmiDriver,
  ipmiArgs,
  ipmiProblem,
  parseIpmiAddress,
  type ToolRunner,
} from '../../../provisioner/power/ipmi.js';

const BMC = { driver: 'ipmi', address: '10.98.0.11', user: 'admin', cipher_suite: 3 } as const;
const NOISE = 'Loading IANA PEN Registry...\n';

/** An ipmitool that answers from a table of commands, and keeps what it was given. */
function scriptedTool(answers: Record<string, string>) {
  const seen: { args: readonly string[]; env: Record<string, string> }[] = [];
  const run: ToolRunner = async (args, env) => {
    seen.push({ args, env });
    const command = Object.keys(answers).find(key => args.join(' ').endsWith(key));
    return command
      ? { code: 0, stdout: answers[command]!, stderr: NOISE }
      : { code: 1, stdout: '', stderr: 'Invalid command' };
  };
  return { run, seen };
}

describe('the ipmi driver', () => {
  test('gives the password by the environment only', async () => {
    const tool = scriptedTool({ 'power status': 'Chassis Power is on\n' });
    expect(await createIpmiDriver(BMC, 'canary-pw', tool.run).status()).toBe('on');
    expect(tool.seen[0]!.args.join(' ')).not.toContain('canary-pw');
    expect(tool.seen[0]!.env).toEqual({ IPMI_PASSWORD: 'canary-pw' });
  });

  test('names the cipher suite, so that ipmitool does not probe', () => {
    expect(ipmiArgs({ host: 'h', port: 623 }, { user: 'u', cipher_suite: 17 }, ['x'])).toEqual(
      expect.arrayContaining(['-C', '17']),
    );
  });

  test('passes hostile names as one argument each', () => {
    const user = '-f/etc/shadow; $(touch /tmp/x)';
    const args = ipmiArgs({ host: 'h', port: 623 }, { user, cipher_suite: 3 }, ['chassis']);
    expect(args[args.indexOf('-U') + 1]).toBe(user);
  });

  test('asks a UEFI machine to boot by EFI', async () => {
    const tool = scriptedTool({
      'bootdev pxe options=efiboot': '',
      'bootparam get 5': '   - Boot Device Selector : Force PXE\n',
    });
    await createIpmiDriver(BMC, 'x', tool.run).bootFromNetworkOnce('uefi');
    expect(tool.seen).toHaveLength(2);
  });

  test('notices a boot device that was accepted and not kept', async () => {
    const tool = scriptedTool({ 'bootdev pxe': '', 'bootparam get 5': '   - Boot Device Selector : No override\n' });
    await expect(createIpmiDriver(BMC, 'x', tool.run).bootFromNetworkOnce('bios')).rejects.toMatchObject({
      problem: { code: 'bmc-lies' },
    });
  });

  test.each([
    ['bmc-auth', 1, '> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session'],
    [
      'bmc-auth',
      1,
      'RAKP 2 message indicates an error : unauthorized name\nError: Unable to establish IPMI v2 / RMCP+ session',
    ],
    ['bmc-auth', 1, 'Set Session Privilege Level to ADMINISTRATOR failed: Requested privilege level exceeds limit'],
    ['bmc-silent', 1, 'Get Auth Capabilities error\nError: Unable to establish IPMI v2 / RMCP+ session'],
    ['bmc-silent', null, ''],
    ['bmc-silent', 1, 'Address lookup for bmc7 failed\nError: Unable to establish IPMI v2 / RMCP+ session'],
    [
      'bmc-protocol',
      1,
      'Error in open session response message : invalid authentication algorithm\n\nError: Unable to establish IPMI v2 / RMCP+ session',
    ],
    ['bmc-unsupported', 1, 'Set Chassis Boot Parameter 5 failed: Invalid command'],
    ['bmc-protocol', 1, 'Get Chassis Power Status failed: Unspecified error'],
  ])('reads %s (exit %s) from what ipmitool says', (code, exit, stderr) => {
    expect(ipmiProblem('bmc', { code: exit, stdout: '', stderr: NOISE + stderr }).code).toBe(code);
  });

  test('takes host, port and IPv6, and refuses anything else', () => {
    expect(parseIpmiAddress('10.98.0.7')).toEqual({ host: '10.98.0.7', port: 623 });
    expect(parseIpmiAddress('bmc-7.example:6230')).toEqual({ host: 'bmc-7.example', port: 6230 });
    expect(parseIpmiAddress('[fd00::7]:623')).toEqual({ host: 'fd00::7', port: 623 });
    for (const bad of [undefined, '', '-f/etc/shadow', 'a b', 'host:99999', 'https://x', 'x:0', '$(id)']) {
      expect(() => parseIpmiAddress(bad), bad).toThrow(ProblemError);
    }
  });
});
