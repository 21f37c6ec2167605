import type { RoleDeclaration } from '../../installer/model/catalogue.js';

export const role: RoleDeclaration = {
  name: 'network',
  title: 'Network',
  sentence: 'The gateway between networks of projects and the world outside.',
  services: ['host', 'network-gateway', 'network-agent'],
  // One is needed with distributed floating IPs too: servers without a floating IP go out through the gateway.
  limits: [
    {
      least: 1,
      sentence: 'Routers of projects reach the world through a gateway, and the network role is the gateway.',
    },
  ],
  needs: [{ role: 'controller', sentence: 'A gateway learns of networks from the controller.' }],
  conflicts: [],
};
