import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { type CloudModel, nodesWith } from '../../installer/model/cloud.js';
import { file, packages, type Resource, unit } from '../../installer/model/resources.js';
import { between, CACHE, listening, unitName } from '../shared.js';

const build = (ctx: ServiceContext): readonly Resource[] => [
  packages(ctx.release.packages, { preseed: ctx.release.preseed }),
  file({
    path: '/etc/memcached.conf',
    content: ctx.template('etc/memcached.conf.hbs', {
      address: CACHE.address,
      memory_mib: between(64, ctx.node.facts.memoryMiB / 64, 1024),
    }),
  }),
  unit({
    unit: unitName(ctx, 'server'),
    watches: ['/etc/memcached.conf'],
    ready: listening(CACHE.address, CACHE.port),
    interrupts: 'Users of the dashboard must log in again.',
    provides: ['cache:ready'],
  }),
];

/** The sentence an operator reads when the cache cannot work; null when it can. */
export function cacheRefusal(cloud: CloudModel): string | null {
  const nodes = nodesWith(cloud, 'cache');
  return nodes.length === 1
    ? null
    : `The cache is on ${nodes.map(n => n.name).join(' and ')}, but it is for its own node only: sessions and tokens of one would be unknown to the other.`;
}

export const service: ServiceDeclaration = {
  name: 'cache',
  title: 'Cache',
  sentence: 'memcached: tokens that were checked, and sessions of the dashboard.',
  needs: [],
  refusal: cacheRefusal,
  build,
};
