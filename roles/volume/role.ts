import type { RoleDeclaration } from '../../installer/model/catalogue.js';

export const role: RoleDeclaration = {
  name: 'volume',
  title: 'Volume',
  sentence: 'Keeps volumes on its disks and hands them to hypervisors.',
  services: ['host', 'volume-backend'],
  limits: [],
  needs: [{ role: 'controller', sentence: 'Orders for volumes come from the controller.' }],
  conflicts: [],
};
