import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { judgeHost, nodeNameOf, PROBE_PROGRAM, parseProbe } from '../../../provisioner/adopt/probe.js';

const KNOWN = ['debian-12', 'ubuntu-24.04'];
const good = `arch=x86_64\nuid=0\nhostname=n1.example.org\nsystemd=yes\nos-release\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n`;
const judge = (text: string, user = 'root') => judgeHost(parseProbe(text), user, '10.0.0.7', KNOWN);

it('accepts a Debian or Ubuntu of a known release, whatever quotes os-release has', () => {
  expect(judge(good)).toBe('debian-12');
  expect(judge(good.replace('ID=debian', "ID='ubuntu'").replace('"12"', "'24.04'"))).toBe('ubuntu-24.04');
  expect(judge(good.replace('uid=0', 'uid=1000\nsudo=yes'), 'op')).toBe('debian-12');
});

it('names everything that is missing at once', () => {
  const problem = judge(`arch=aarch64\nuid=1000\nhostname=x\nos-release\nID=fedora\nVERSION_ID=40\n`, 'op');
  expect(problem).toMatchObject({ code: 'adopt-refused' });
  const { message } = problem as { message: string };
  for (const part of ['fedora 40', 'debian-12, ubuntu-24.04', 'aarch64', 'systemd', 'op is not root', 'NOPASSWD'])
    expect(message).toContain(part);
});

it('refuses an unknown release, a rolling one and a host that says nothing', () => {
  expect(judge(good.replace('"12"', '"9"'))).toMatchObject({ code: 'adopt-refused' });
  expect(judge(good.replace('VERSION_ID="12"\n', ''))).toMatchObject({ code: 'adopt-refused' });
  expect(judge('')).toMatchObject({ code: 'adopt-refused' });
  expect(judge('\0'.repeat(1000))).toMatchObject({ code: 'adopt-refused' });
});

it('does not take values of os-release for those of the probe, nor the other way round', () => {
  expect(
    parseProbe(`uid=1000\narch=x86_64\nhostname=a\nos-release\nuid=0\nsudo=yes\nsystemd=yes\nID=debian\n`),
  ).toMatchObject({
    uid: 1000,
    sudo: false,
    systemd: false,
  });
});

it('makes a node name of a host name where that can be one', () => {
  expect(nodeNameOf('N1.example.org')).toBe('n1');
  for (const bad of ['', 'localhost', '-x', 'a_b', '$(id)', 'x'.repeat(64)]) expect(nodeNameOf(bad)).toBeNull();
});

it('is a program that a POSIX shell runs, and that reads this very machine', () => {
  const facts = parseProbe(execFileSync('sh', [], { input: PROBE_PROGRAM }).toString());
  expect(facts.arch).toBe(execFileSync('uname', ['-m']).toString().trim());
  expect(facts.uid).toBe(process.getuid!());
  expect(facts.distribution).toMatch(/^[a-z]+$/);
});
