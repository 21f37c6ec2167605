import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { file, masked, packages, type Resource, unit } from '../../installer/model/resources.js';
import { diskCount, replicas, swiftCommon } from '../object-store/rings.js';
import {
  answers,
  certificate,
  identityUrl,
  listenAddress,
  memcachedServers,
  openstackValues,
  unitName,
} from '../shared.js';

function build(context: ServiceContext): readonly Resource[] {
  const { cloud, node, release, template } = context;
  const tls = certificate(context, '/etc/swift/ssl', 'swift');
  const proxy = '/etc/swift/proxy-server.conf';
  const expirer = '/etc/swift/object-expirer.conf';
  const config = (path: string, content: string) =>
    file({ path, content, group: 'swift', mode: 0o640, grammar: 'ini' });
  // One file has one writer: on a node that keeps objects as well, the object store writes what both read.
  const shared = node.services.includes('object-store');
  const own = shared ? [] : swiftCommon(context);
  return [
    packages(release.packages, { preseed: release.preseed }),
    ...release.mask.map(masked),
    ...own,
    ...tls.resources,
    config(
      proxy,
      template('etc/swift/proxy-server.conf.hbs', {
        ...openstackValues(context, 'swift'),
        listen: listenAddress(context),
        certificate: tls.certificate,
        key: tls.key,
        request_nodes: Math.max(2 * replicas(cloud), diskCount(cloud)),
        s3_identity_url: `${identityUrl(cloud)}/v3`,
      }),
    ),
    unit({
      unit: unitName(context, 'proxy'),
      watches: ['/etc/swift/swift.conf', proxy, tls.certificate, tls.key],
      needs: ['object-store:disks', ...(shared ? [`object-store:rings@${node.name}`] : [])],
      ready: answers(node.address, 8080),
      expectedSeconds: 3,
      interrupts: 'Objects cannot be reached for some seconds.',
      provides: ['object-store:ready'],
    }),
    config(expirer, template('etc/swift/object-expirer.conf.hbs', { memcached_servers: memcachedServers(context) })),
    unit({ unit: unitName(context, 'expirer'), watches: ['/etc/swift/swift.conf', expirer] }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'object-proxy',
  title: 'Object proxy',
  sentence: 'Where objects are put and fetched: Swift’s own API and S3.',
  needs: ['object-store', 'identity', 'cache'],
  wanted: settings => settings.objects.enabled,
  user: 'swift',
  endpoints: [{ type: 'object-store', name: 'swift', port: 8080, path: '/v1/AUTH_%(project_id)s' }],
  build,
};
