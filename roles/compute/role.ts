import type { RoleDeclaration } from '../../installer/model/catalogue.js';

export const role: RoleDeclaration = {
  name: 'compute',
  title: 'Compute',
  sentence: 'Runs servers: QEMU under nova-compute, and the ends of their networks.',
  services: ['host', 'hypervisor', 'network-agent'],
  limits: [{ least: 1, sentence: 'Servers run on compute nodes; without one the cloud can run none.' }],
  needs: [{ role: 'controller', sentence: 'A hypervisor takes its orders from the controller.' }],
  conflicts: [],
};
