import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { NodeAction } from '../../../../installer/engine/diff.js';
import { FACTS_SCRIPT, parseFacts } from '../../../../installer/engine/facts.js';
import { batchScript, batchTimeoutMs } from '../../../../installer/engine/script.js';
import { unit } from '../../../../installer/model/resources.js';

const options = (timeoutFactor: number) => ({
  unconfiguredUnits: [],
  bad: [],
  timeoutFactor,
});

describe('a node whose CPUs are emulated', () => {
  const look = (...more: string[]) =>
    parseFacts(
      [
        '@hostname n1',
        '@os debian 12',
        '@kernel 6.1 x86_64',
        '@cpus 2',
        '@memory 6000',
        '@begin 1',
        '@end 1',
        ...more,
      ].join('\n'),
      'n1',
      0,
      2,
    );

  it('is known by the first look at it', () => {
    expect(look('@emulated yes').emulated).toBe(true);
    expect(look().emulated).toBe(false);
    // What the script says here is what systemd says: the look itself is run, not a copy of it.
    const said = execFileSync('sh', { input: FACTS_SCRIPT, encoding: 'utf8' }).includes('@emulated yes');
    const virt = execFileSync('sh', ['-c', 'systemd-detect-virt --vm 2>/dev/null || :'], { encoding: 'utf8' }).trim();
    expect(said).toBe(virt === 'qemu');
  });

  it('gets more time for each step, on the node and here', () => {
    const resource = unit({ unit: 'nova-compute.service', ready: 'true', timeoutSeconds: 100 });
    const start = { verb: 'start', placed: { node: 'n1', service: 'hypervisor', resource } } as unknown as NodeAction;
    const script = batchScript([start], options(6));
    expect(script).toContain('does not answer after 600 s');
    expect(script).toContain('timeout --kill-after=10 630 sh');
    expect(batchTimeoutMs([start], options(6)) - batchTimeoutMs([start], options(1))).toBe(500_000);
  });
});
