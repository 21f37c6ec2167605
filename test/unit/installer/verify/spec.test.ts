import { expect, it } from 'vitest';
import { verifySpec } from '../../../../installer/cloud/verification.js';
import { fourNodes, inContainer, model } from '../../roles/fixture.js';

it('the proof is patient with guests that are emulated, and more so inside an emulated machine', () => {
  const factor = (changes: object) => verifySpec(model(fourNodes(changes)), '/guest.qcow2', {}).timeoutFactor;
  expect(factor({})).toBeUndefined();
  expect(factor(inContainer)).toBe(3);
  expect(factor({ kvm: false, emulated: true })).toBe(12);
  // Emulated, but with KVM of its own: guests are as fast as the machine.
  expect(factor({ kvm: true, emulated: true })).toBeUndefined();
});
