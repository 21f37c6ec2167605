import type { RoleDeclaration } from '../../installer/model/catalogue.js';

export const role: RoleDeclaration = {
  name: 'storage',
  title: 'Storage',
  sentence: 'Keeps objects (Swift, S3) on its disks.',
  services: ['host', 'object-store'],
  limits: [],
  needs: [{ role: 'controller', sentence: 'Objects are reached through the proxy on the controller.' }],
  conflicts: [],
};
