import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { file, packages, type Resource, unit } from '../../installer/model/resources.js';
import { between, listening, unitName } from '../shared.js';

const build = (ctx: ServiceContext): readonly Resource[] => [
  packages(ctx.release.packages, { preseed: ctx.release.preseed }),
  file({
    path: '/etc/memcached.conf',
    content: ctx.template('etc/memcached.conf.hbs', {
      address: ctx.node.address,
      memory_mib: between(64, ctx.node.facts.memoryMiB / 64, 1024),
    }),
  }),
  unit({
    unit: unitName(ctx, 'server'),
    watches: ['/etc/memcached.conf'],
    ready: listening(ctx.node.address, 11211),
    interrupts: 'Users of the dashboard must log in again.',
    provides: ['cache:ready'],
  }),
];

export const service: ServiceDeclaration = {
  name: 'cache',
  title: 'Cache',
  sentence: 'memcached: tokens that were checked, and sessions of the dashboard.',
  needs: [],
  build,
};
