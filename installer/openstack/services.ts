/** The services of the catalogue that we speak with: their names there, and where their API begins. */

export type ServiceName =
  | 'identity'
  | 'image'
  | 'placement'
  | 'compute'
  | 'network'
  | 'volume'
  | 'object-store'
  | 'dashboard';

interface Service {
  /** Types in the catalogue, best first (service-types.openstack.org). */
  readonly types: readonly string[];
  /** What an endpoint's path must hold for the API to begin there, and what is added when it does not. */
  readonly version?: { readonly present: RegExp; readonly add: string };
  /** Name in `OpenStack-API-Version: NAME 2.74`. */
  readonly microversion?: string;
}

export const SERVICES: Readonly<Record<ServiceName, Service>> = {
  identity: { types: ['identity'], version: { present: /\/v3$/, add: '/v3' } },
  image: { types: ['image'], version: { present: /\/v2$/, add: '/v2' } },
  placement: { types: ['placement'], microversion: 'placement' },
  compute: { types: ['compute'], version: { present: /\/v2(\.1)?(\/|$)/, add: '/v2.1' }, microversion: 'compute' },
  network: { types: ['network'], version: { present: /\/v2\.0$/, add: '/v2.0' } },
  volume: {
    types: ['volumev3', 'block-storage', 'block-store', 'volume'],
    version: { present: /\/v3(\/|$)/, add: '/v3/$(project_id)s' },
    microversion: 'volume',
  },
  'object-store': { types: ['object-store'] },
  dashboard: { types: ['dashboard'] },
};

/** Where the API of a service begins, without a slash at the end, from the endpoint in the catalogue. */
export function apiRoot(service: ServiceName, endpoint: string, projectId: string): string {
  const root = endpoint.replace(/\/+$/, '');
  const { version } = SERVICES[service];
  if (!version || version.present.test(new URL(root).pathname)) return root;
  return root + version.add.replace('$(project_id)s', projectId);
}
