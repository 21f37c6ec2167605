import type { RoleDeclaration } from '../../installer/model/catalogue.js';

export const role: RoleDeclaration = {
  name: 'controller',
  title: 'Controller',
  sentence: 'The APIs, the dashboard, and the database and messaging behind them.',
  services: [
    'host',
    'database',
    'messaging',
    'cache',
    'identity',
    'placement',
    'image',
    'compute-control',
    'network-control',
    'volume-control',
    'dashboard',
    'object-proxy',
  ],
  limits: [
    { least: 1, sentence: 'A cloud needs a controller: the APIs, the database and messaging are on it.' },
    { most: 1, sentence: 'Several controllers (high availability) are not built yet: there is exactly one.' },
  ],
  needs: [{ role: 'compute', sentence: 'Without a hypervisor there is nothing to control.' }],
  conflicts: [],
};
