import { expect, it } from 'vitest';
import { verifySpec } from '../../../../installer/cloud/verification.js';
import { fourNodes, inContainer, model, nodeInput } from '../../roles/fixture.js';

it('the proof asks for every service that the site registers', () => {
  const expected = (...site: Parameters<typeof model>) => {
    const { services = [], s3 } = verifySpec(model(...site), '/guest.qcow2', {}).expect ?? {};
    return { services: [...services].sort(), s3 };
  };
  const six = ['compute', 'identity', 'image', 'network', 'placement', 'volume'];
  expect(expected(fourNodes())).toEqual({ services: six, s3: false });
  const storage = nodeInput('sto', '10.99.0.15', ['volume', 'storage']);
  const objects = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdb', fileSize: null }] };
  expect(expected([...fourNodes().slice(0, 3), storage], { objects })).toEqual({
    services: [...six, 'object-store'].sort(),
    s3: true,
  });
});

it('the proof is patient with guests that are emulated, and more so inside an emulated machine', () => {
  const factor = (changes: object) => verifySpec(model(fourNodes(changes)), '/guest.qcow2', {}).timeoutFactor;
  expect(factor({})).toBeUndefined();
  expect(factor(inContainer)).toBe(3);
  expect(factor({ kvm: false, emulated: true })).toBe(12);
  // Emulated, but with KVM of its own: guests are as fast as the machine.
  expect(factor({ kvm: true, emulated: true })).toBeUndefined();
});
