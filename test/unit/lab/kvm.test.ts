import { describe, expect, test } from 'vitest';
import { chooseAccel, type ProbeRun, probeKvm, runProbe } from '../../../provisioner/lab/kvm.js';

/** A QEMU that prints this and ends, or is cut off. */
const prints = (output: string, code: number | null = 0) => {
  const calls: (readonly string[])[] = [];
  return {
    calls,
    run: async (_file: string, args: readonly string[]): Promise<ProbeRun> => {
      calls.push(args);
      return { output, code };
    },
  };
};
const probe = (result: { works: boolean; reason: string }) => async () => result;

describe('KVM', () => {
  test('is believed when a kernel says its version under it', async () => {
    const qemu = prints('SeaBIOS\n[    0.000000] Linux version 6.1.0-56-cloud-amd64\n');
    expect((await probeKvm({ kernel: '/boot/vmlinuz', run: qemu.run })).works).toBe(true);
    expect(qemu.calls[0]).toEqual(expect.arrayContaining(['kvm', '/boot/vmlinuz']));
  });

  test('is not believed when the firmware comes up and the kernel hangs', async () => {
    const result = await probeKvm({
      kernel: '/boot/vmlinuz',
      run: prints('SeaBIOS (version 1.16)\n\x1bc\x1b[?7l\x1b[2J\r\n', null).run,
    });
    expect(result).toMatchObject({ works: false });
    expect(result.reason).toMatch(/nothing came within 10 s; last line: SeaBIOS/);
  });

  test('is not believed when QEMU refuses it', async () => {
    const result = await probeKvm({ kernel: '/k', run: prints('Could not access KVM kernel module', 1).run });
    expect(result.reason).toMatch(/QEMU ended \(1\).*Could not access KVM/);
  });

  test('is not tried without a device or without a kernel, and says which', async () => {
    const qemu = prints('Linux version 6');
    expect((await probeKvm({ kernel: '/k', device: false, run: qemu.run })).reason).toMatch(/no \/dev\/kvm/);
    expect((await probeKvm({ kernel: null, run: qemu.run })).reason).toMatch(/No stock kernel/);
    expect(qemu.calls).toEqual([]);
  });

  test('is chosen by the probe alone, unless the operator says otherwise', async () => {
    const yes = probe({ works: true, reason: 'booted' });
    const no = probe({ works: false, reason: 'hung' });
    expect(await chooseAccel('auto', yes)).toEqual({ accel: 'kvm', reason: 'booted' });
    expect(await chooseAccel('auto', no)).toEqual({ accel: 'tcg', reason: 'hung' });
    expect((await chooseAccel('tcg', yes)).accel).toBe('tcg');
    expect((await chooseAccel('kvm', no)).accel).toBe('kvm');
  });

  test('is tried for a limited time', async () => {
    const started = performance.now();
    expect((await runProbe('sleep', ['30'], 100)).code).toBeNull();
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
