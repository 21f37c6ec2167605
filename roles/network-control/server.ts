/** What runs Neutron's server: one process in older releases, an API under uwsgi and daemons beside it since 2025.1. */
import type { ServiceContext } from '../../installer/model/catalogue.js';
import { file, type Resource, unit } from '../../installer/model/resources.js';
import { answers, CA_SOURCE, dropIn, startedBy, unitName, uwsgiApi, workersOf } from '../shared.js';

export interface NeutronFiles {
  readonly neutronConf: string;
  readonly ml2Conf: string;
  readonly tls: { readonly certificate: string; readonly key: string };
}

const NEEDS = ['messaging:ready', 'network-control:ovn'];
const INTERRUPTS = 'The network API does not answer for some seconds; traffic goes on.';

/** By the release's data: `eventlet` is the server in one process. */
export const neutronServer = (ctx: ServiceContext, files: NeutronFiles): readonly Resource[] =>
  ctx.release.wsgi === 'eventlet' ? oneProcess(ctx, files) : apiAndDaemons(ctx, files);

function oneProcess(ctx: ServiceContext, { neutronConf, ml2Conf, tls }: NeutronFiles): readonly Resource[] {
  const server = unitName(ctx, 'server');
  const unitFile = `/etc/systemd/system/${server}`;
  return [
    file({ path: unitFile, content: ctx.template('etc/systemd/system/neutron-server.service.hbs', {}) }),
    unit({
      unit: server,
      watches: [unitFile, neutronConf, ml2Conf, tls.key, tls.certificate],
      needs: NEEDS,
      ready: answers(ctx.node.address, 9696, '/'),
      expectedSeconds: 8,
      interrupts: INTERRUPTS,
      provides: ['network-control:ready'],
    }),
  ];
}

/**
 * https://docs.openstack.org/neutron/latest/admin/config-neutron-server-processes.html. The daemons need no TLS of their
 * own: they listen to nobody.
 */
function apiAndDaemons(ctx: ServiceContext, { neutronConf, ml2Conf, tls }: NeutronFiles): readonly Resource[] {
  const daemons = [
    ['rpc', 'neutron-rpc-server', 'Agents of the network wait for some seconds; traffic goes on.'],
    ['periodic', 'neutron-periodic-workers', null],
    ['maintenance', 'neutron-ovn-maintenance-worker', null],
  ] as const;
  return [
    ...uwsgiApi(ctx, {
      title: 'OpenStack Neutron API',
      key: 'server',
      ini: '/etc/neutron/neutron-api-uwsgi.ini',
      port: 9696,
      user: 'neutron',
      processes: Math.max(2, workersOf(ctx)),
      tls,
      watches: [neutronConf, ml2Conf],
      interrupts: INTERRUPTS,
      needs: NEEDS,
      provides: ['network-control:ready'],
      path: '/',
    }),
    ...daemons.flatMap(([key, program, interrupts]) => {
      const name = unitName(ctx, key);
      return [
        file({
          path: dropIn(name),
          content: startedBy(
            `/usr/bin/${program} --config-file ${neutronConf} --config-file ${ml2Conf} --log-file /var/log/neutron/${program}.log`,
          ),
        }),
        unit({ unit: name, watches: [dropIn(name), CA_SOURCE, neutronConf, ml2Conf], expectedSeconds: 5, interrupts }),
      ];
    }),
  ];
}
